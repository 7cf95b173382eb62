# SPDX-License-Identifier: Apache-2.0
"""Bytes of any size from hosts that are not the API: storage, shops. No key is known here, so none can reach them.

It speaks HTTP through the standard library, since httpx makes each piece anew several times while it holds the
interpreter: eight downloads at once were no faster than one. Here the network is received straight into a buffer of the
caller's; that, hashing and writing all leave the interpreter to the others.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse, IncompleteRead
from urllib.parse import SplitResult, quote, urlsplit
from urllib.request import getproxies

from ugen_provider.__about__ import __version__
from ugen_provider.core.api._transport import tls_context
from ugen_provider.core.api._wires import Admit, Way, Wire, credentials, dialled, proxy_at, way_to
from ugen_provider.core.api.errors import TransportError, TransportTimeoutError

_PIECE = 1 << 18
_KEPT_SECONDS = 30.0
_MOST_KEPT = 20
_BROKEN = (OSError, HTTPException, ValueError)
_AS_IT_IS = "!#$%&'()*+,/:;=?@[]~"
_LENGTH = re.compile(r"[0-9]{1,20}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class ByteStream:
    """An answer whose body is read in pieces.

    Attributes:
        status: Of the answer.
        headers: By their names in lower case.
    """

    def __init__(self, response: HTTPResponse, wire: Wire, *, path: str) -> None:
        self._response = response
        self._wire = wire
        self._path = path
        self.status: int = response.status
        self.headers: Mapping[str, str] = _headers(response)
        self._left = _length(response, self.headers)

    def readinto(self, buffer: memoryview) -> int:
        """Take what has come of the body, undecoded, or wait for it: nothing that came is held back.

        Returns:
            How many bytes were put into the buffer; 0 at the end.

        Raises:
            TransportError: The connection broke; what was read so far is good.
        """
        left = self._left
        if left == 0:
            return 0
        try:
            self._wire.grant(len(buffer))
            if self._response.chunked:
                piece = self._response.read1(len(buffer))
                count = len(piece)
                buffer[:count] = piece
            else:
                count = self._response.fp.readinto1(buffer if left is None else buffer[:left])
            if not count and left is not None:
                raise IncompleteRead(b"", left)
        except _BROKEN as error:
            failure = _failure(error, self._path, maybe_sent=True)
        else:
            self._left = left - count if left is not None else None if count else 0
            return count
        raise failure

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces of any size, as it comes; it raises as `readinto` does."""
        buffer = memoryview(bytearray(_PIECE))
        while count := self.readinto(buffer):
            yield bytes(buffer[:count])

    def is_read(self) -> bool:
        """Whether all of it was read, and another request may follow on its connection."""
        return self._left == 0 and not self._response.will_close


class StreamClient:
    """Reads bytes from storage hosts. It holds no key, so none can reach them; redirects are left to the caller.

    It keeps no cookies either: what one host has set is nothing to bring to the next link. Proxies and certificates are
    those of the environment, as for the API: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`,
    `SSL_CERT_DIR`. Threads may share it.

    Args:
        timeout: Seconds without a byte after which a connection is given up.
        tick: A clock that is never set back.
    """

    def __init__(self, *, timeout: float = 60.0, tick: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._tick = tick
        self._proxies = getproxies()
        self._lock = threading.Lock()
        self._kept: dict[Way, list[Wire]] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    @contextmanager
    def open(
        self, url: str, *, headers: Mapping[str, str] | None = None, admit: Admit | None = None
    ) -> Iterator[ByteStream]:
        """Ask for a URL and give its answer as a stream.

        Args:
            url: An http or https URL.
            headers: Further headers, such as `Range`.
            admit: Asked about every address of the host. What is connected is one of those that were asked about: the
                name is not looked up again. Behind a proxy, it is the proxy that looks it up again.

        Raises:
            TransportError: No answer arrived.
        """
        with _failures("", maybe_sent=False):
            parts = urlsplit(url)
        path = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        with _failures(path, maybe_sent=False):
            way = way_to(parts, self._proxies, admitted=admit is not None)
            lines = self._request(way, parts, headers or {})
        good = False
        wire, response = self._answered(way, lines, admit, path=path)
        try:
            with _failures(path, maybe_sent=True):
                stream = ByteStream(response, wire, path=path)
            yield stream
            good = stream.is_read()
        finally:
            if not (good and self._put_by(way, wire)):
                wire.close()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._closed = True
            kept, self._kept = self._kept, {}
        for wires in kept.values():
            for wire in wires:
                wire.close()

    def _request(self, way: Way, parts: SplitResult, headers: Mapping[str, str]) -> list[str]:
        target = quote(parts.path or "/", safe=_AS_IT_IS)
        if parts.query:
            target += f"?{quote(parts.query, safe=_AS_IT_IS)}"
        said = {
            "Host": way.authority,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "User-Agent": f"ugen-provider/{__version__}",
            **credentials("Authorization", parts),
        }
        if way.proxy and way.scheme == "http":
            target = f"http://{way.authority}{target}"
            said |= credentials("Proxy-Authorization", proxy_at(way.proxy))
        said |= headers
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
        if any(_CONTROL.search(line) for line in lines):
            raise ValueError("an address or a header holds a control character")
        return lines

    def _answered(self, way: Way, lines: list[str], admit: Admit | None, *, path: str) -> tuple[Wire, HTTPResponse]:
        """Ask on a connection that was put by, or on a new one; also where the server closes the former just now."""
        kept = self._taken(way)
        if kept is not None:
            with suppress(ConnectionError), _failures(path, maybe_sent=True, but=ConnectionError):
                return kept, kept.ask(lines)
        with _failures(path, maybe_sent=False):
            wire = dialled(way, admit, timeout=self._timeout, tick=self._tick, context=self._context)
        with _failures(path, maybe_sent=True):
            return wire, wire.ask(lines)

    def _taken(self, way: Way) -> Wire | None:
        """A connection that was put by, if one is still good."""
        while True:
            with self._lock:
                kept = self._kept.get(way)
                if not kept:
                    return None
                wire = kept.pop()
            if self._tick() - wire.idle_since < _KEPT_SECONDS and wire.is_quiet():
                return wire
            wire.close()

    def _put_by(self, way: Way, wire: Wire) -> bool:
        """Keep a connection for the next request, unless there are enough."""
        wire.idle_since = self._tick()
        with self._lock:
            if self._closed or sum(map(len, self._kept.values())) >= _MOST_KEPT:
                return False
            self._kept.setdefault(way, []).append(wire)
        return True

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = tls_context()
            return self._tls


@contextmanager
def open_stream(url: str, *, headers: Mapping[str, str] | None = None, timeout: float = 60.0) -> Iterator[ByteStream]:
    """Read one URL with a client of its own; for many, keep a `StreamClient`."""
    client = StreamClient(timeout=timeout)
    try:
        with client.open(url, headers=headers) as stream:
            yield stream
    finally:
        client.close()


def _failure(error: Exception, path: str, *, maybe_sent: bool) -> TransportError:
    kind = TransportTimeoutError if isinstance(error, TimeoutError) else TransportError
    reason = (str(error) or type(error).__name__)[:300]
    return kind(reason, method="GET", path=path, maybe_sent=maybe_sent)


@contextmanager
def _failures(path: str, *, maybe_sent: bool, but: type[Exception] = TransportError) -> Iterator[None]:
    """Let no error out but one of ours."""
    try:
        yield
    except but:
        raise
    except _BROKEN as error:
        failure = _failure(error, path, maybe_sent=maybe_sent)
    else:
        return
    raise failure


def _headers(response: HTTPResponse) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in response.headers.items():
        name, said = key.lower(), _text(str(value).strip())
        found[name] = f"{found[name]}, {said}" if name in found else said
    return found


def _text(value: str) -> str:
    """A header as UTF-8 if it is that, such as the target of a redirect; the parser knows Latin-1 only."""
    try:
        return value if value.isascii() else value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _length(response: HTTPResponse, headers: Mapping[str, str]) -> int | None:
    """Bytes of the body, None where only its end tells. What could be read in two ways is refused.

    Raises:
        HTTPException: The length or the encoding makes no sense.
    """
    coding = headers.get("transfer-encoding", "").lower()
    if coding and not response.chunked:
        raise HTTPException(f"the answer comes as {coding!r}, which nobody asked for")
    if response.chunked:
        return None
    if response.length == 0:
        return 0
    lengths = {length.strip() for length in headers.get("content-length", "").split(",")}
    if lengths == {""}:
        return None
    (length, *others) = lengths
    if others or not _LENGTH.fullmatch(length):
        raise HTTPException("the answer names a length that is no number")
    return int(length)
