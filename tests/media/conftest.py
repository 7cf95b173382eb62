# SPDX-License-Identifier: Apache-2.0
"""A storage host whose behaviour a test scripts, answer by answer, and real small media files."""

import io
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import pytest
from PIL import Image


@dataclass
class Answer:
    """One answer: what is promised, and what is really sent."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None
    """Bytes after which the connection is cut; None sends all."""
    length: bool = True


Script = Callable[[int, dict[str, str]], Answer]
"""From the number of the request for this path (from 0) and its headers to the answer."""


class Storage:
    """An http server on loopback; `serve` says what a path answers."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        storage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                count = sum(known == path for known, _ in storage.requests)
                headers = {name.lower(): value for name, value in self.headers.items()}
                storage.requests.append((path, headers))
                script = storage.scripts.get(path)
                self.answer(script(count, headers) if script else Answer(404, b"gone"))

            def answer(self, answer: Answer) -> None:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.length:
                    self.send_header("Content-Length", str(len(answer.body)))
                if answer.sent is not None or not answer.length:
                    self.send_header("Connection", "close")
                    self.close_connection = True
                self.end_headers()
                self.wfile.write(answer.body if answer.sent is None else answer.body[: answer.sent])

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def serve(self, path: str, script: Script | bytes, *, content_type: str = "video/mp4") -> str:
        """Say what a path answers; bytes are served whole. Returns the link."""
        if isinstance(script, bytes):
            body = script
            self.scripts[path] = lambda count, headers: Answer(200, body, {"Content-Type": content_type})
        else:
            self.scripts[path] = script
        return self.url + path

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of each request for a path."""
        return [headers for known, headers in self.requests if known == path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def storage() -> Iterator[Storage]:
    opened = Storage()
    yield opened
    opened.close()


PUBLIC = "93.184.216.34"


class Internet:
    """Addresses of names, and a public address that leads to a server of the test."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.port = 0
        self.connected: list[str] = []

    def host(self, name: str, server: Storage | int, *then: str) -> None:
        """Put a server behind the public address of a name; later questions for the name are answered otherwise."""
        self.port = server if isinstance(server, int) else server.port
        self.names[name] = [PUBLIC, *then]

    def resolve(self, name: str) -> str:
        """The next answer; the last one stays."""
        answers = self.names.get(name, [name])
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def internet(monkeypatch) -> Internet:
    """The resolver and the routes of this process."""
    made = Internet()
    find, connect = socket.getaddrinfo, socket.socket.connect

    def getaddrinfo(host, *args, **kwargs):
        return find(made.resolve(host), *args, **kwargs)

    def routed(self, address):
        if isinstance(address, tuple):
            made.connected.append(address[0])
            address = ("127.0.0.1", made.port) if address[0] == PUBLIC else address
        return connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect", routed)
    return made


@pytest.fixture(scope="session")
def mp4() -> bytes:
    """One second of real H.264, 90 by 160."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 90, 160, "yuv420p"
        for shade in range(10):
            picture = Image.new("RGB", (90, 160), (20 * shade, 80, 120))
            for packet in stream.encode(av.VideoFrame.from_image(picture)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


@pytest.fixture(scope="session")
def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (72, 128), (200, 120, 40)).save(file, "PNG")
    return file.getvalue()
