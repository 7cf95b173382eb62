# SPDX-License-Identifier: Apache-2.0
"""The emulator behind a real socket: uvicorn, in a thread of ours or as the whole process."""

import asyncio
import contextlib
import functools
import ipaddress
import logging
import signal
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import uvicorn
from anyio import to_thread
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from ugen_provider.emulator.api.http import HttpRequest, Reply, Wire
from ugen_provider.emulator.api.service import PREFIX, Service
from ugen_provider.emulator.settings import Settings
from ugen_provider.emulator.world.clock import EmulatedClock
from ugen_provider.emulator.world.webhooks import ANSWER_WITHIN, Delivery, Webhooks
from ugen_provider.emulator.world.world import World

READ_MOST = 64 * 1024 * 1024
"""Bytes of a body that are read at all; the rest of a longer one is thrown away."""
CONNECTION = "ugen.connection"
"""Where the server of ours puts a connection's transport, so that it can be reset."""
_DRIBBLES = 10


class Edge:
    """One ASGI application for every path; which handler it is, the service decides.

    Args:
        service: What answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.dispatcher: Dispatcher | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = await _read(receive)
        request = HttpRequest(
            scope["method"],
            scope["path"],
            scope["query_string"].decode("latin-1"),
            {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            body,
        )
        reply = self._service.handle(request)
        if reply.settle and self.dispatcher is not None:
            await self.dispatcher.settle()
        if reply.work is not None:
            reply = await to_thread.run_sync(reply.work)
        if reply.wire is not None:
            await self._mishap(reply, reply.wire, scope, receive, send)
            return
        await send(_start(reply))
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else reply.body})

    async def _mishap(self, reply: Reply, wire: Wire, scope: Scope, receive: Receive, send: Send) -> None:
        clock = self._service.world.clock
        if wire.first_byte:
            await pause(clock, wire.first_byte)
        if wire.reset:
            await _hang_up(scope, receive, reset=True)
            return
        await send(_start(reply))
        if wire.keep is not None:
            await send({"type": "http.response.body", "body": reply.body[: wire.keep], "more_body": True})
            await _hang_up(scope, receive, reset=False)
            return
        if wire.body_seconds:
            step = max(1, len(reply.body) // _DRIBBLES)
            for begin in range(0, len(reply.body), step):
                part = reply.body[begin : begin + step]
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await pause(clock, wire.body_seconds / _DRIBBLES)
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.body", "body": reply.body})


async def _hang_up(scope: Scope, receive: Receive, *, reset: bool) -> None:
    """Close the connection under the answer."""
    connection = scope.get("state", {}).get(CONNECTION)
    if connection is None:
        raise ConnectionResetError(
            "a fault of the emulator: this server cannot reset a connection, so the request fails"
        )
    if reset:
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            connection.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.abort()
    else:
        connection.close()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size <= READ_MOST:
            parts.append(part)
    return b"".join(parts)


def _start(reply: Reply) -> Message:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
    if reply.status not in (204, 304):
        headers.append((b"content-type", reply.media_type.encode()))
        headers.append((b"content-length", str(len(reply.body)).encode()))
    return {"type": "http.response.start", "status": reply.status, "headers": headers}


def app_over(service: Service) -> Starlette:
    """Return the application over a service that exists already."""
    edge = Edge(service)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.dispatcher = edge.dispatcher = Dispatcher(service.world)
        running = asyncio.create_task(edge.dispatcher.run())
        try:
            yield
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            service.world.commit()

    app = Starlette(lifespan=lifespan)
    # Not a route: Starlette's own patterns do not match every path that a client can send.
    app.router.default = edge
    app.state.service = service
    return app


def create_app(settings: Settings | None = None) -> Starlette:
    """Return an emulator as an ASGI application, for any server or an ASGI client.

    Args:
        settings: What to start with; the default is one tenant with the key `ugen_sk_local` and a clock in real time.
    """
    return app_over(Service(World(settings or Settings())))


_AT_ONCE = 64
_SHORTEST = 0.01
"""Real seconds between two checks, so that a fast clock does not keep the loop busy."""


class Dispatcher:
    """Lets time pass and sends what is due, for as long as the loop runs.

    Args:
        world: Whose webhooks.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._moved = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look after every jump of the clock, every change, and whenever something is due."""
        forget = [
            self._world.clock.listen(self._nudge),
            self._world.listen(self._nudge),
        ]
        try:
            while True:
                self._moved.clear()
                self._send_due()
                await self._rest()
        finally:
            for stop in forget:
                stop()
            for task in self._sending:
                task.cancel()

    async def settle(self) -> None:
        """Return when everything that is due has been sent and answered, retries that are due by now included."""
        while True:
            self._send_due()
            if not self._sending:
                return
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)

    def _nudge(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._moved.set)

    async def _rest(self) -> None:
        with self._world.lock:
            coming = [self._world.jobs.next_due(), self._world.webhooks.next_due()]
        moments = [moment for moment in coming if moment is not None]
        delay = self._world.clock.wall_delay(min(moments)) if moments else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if delay is None else max(_SHORTEST, delay)):
                await self._moved.wait()

    def _send_due(self) -> None:
        # A clock moved by hand may jump over much that is due: one after the other, as if it had run.
        most = 1 if self._world.clock.mode == "manual" else _AT_ONCE
        with self._world.lock:
            due = self._world.webhooks.take_due(self._world.now(), most=most)
            self._world.commit()
        for delivery in due:
            task = asyncio.create_task(self._send(self._world.webhooks, delivery))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, webhooks: Webhooks, delivery: Delivery) -> None:
        clock = self._world.clock
        begun = clock.now()
        with self._world.lock:
            headers = webhooks.headers(delivery, clock.stamp())
        status, error = None, None
        try:
            status = await self._within_time(delivery, headers)
        except TimeoutError:
            error = f"no answer within {ANSWER_WITHIN:g} s"
        except (OSError, ValueError, EOFError, ssl.SSLError) as problem:
            error = f"{type(problem).__name__}: {problem}"
        with self._world.lock:
            if webhooks is self._world.webhooks:  # else it was reset meanwhile
                webhooks.answered(delivery, status=status, error=error, took=clock.now() - begun)
                self._world.commit()
        self._nudge()

    async def _within_time(self, delivery: Delivery, headers: dict[str, str]) -> int:
        """Ask, and give up after 10 s: real ones, since the receiver lives in them, or ten that a test lets pass."""
        asking = asyncio.create_task(_post(delivery.url, headers, delivery.body.encode()))
        racing: set[asyncio.Task[Any]] = {asking}
        if self._world.clock.mode == "manual":
            racing.add(asyncio.create_task(pause(self._world.clock, ANSWER_WITHIN)))
        try:
            await asyncio.wait(racing, timeout=ANSWER_WITHIN, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise TimeoutError
            return asking.result()
        finally:
            for task in racing:
                task.cancel()


async def _post(url: str, headers: dict[str, str], body: bytes) -> int:
    """POST a body and return the status of the answer."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context() if secure else None)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"POST {target} HTTP/1.1", f"host: {parts.netloc.rpartition('@')[2]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"content-length: {len(body)}", "connection: close", "", ""]
        writer.write("\r\n".join(lines).encode("latin-1") + body)
        await writer.drain()
        answer = (await reader.readline()).decode("latin-1").split()
        if len(answer) < 2 or not answer[0].startswith("HTTP/") or not answer[1].isdigit():
            raise ValueError("the receiver's answer is no HTTP")
        return int(answer[1])
    finally:
        writer.close()


async def pause(clock: EmulatedClock, seconds: float) -> None:
    """Wait until the emulator's clock has moved on by `seconds`, by itself or by hand."""
    moment = clock.now() + seconds
    loop = asyncio.get_running_loop()
    moved = asyncio.Event()
    # Listening comes before looking, or a jump in between would be missed.
    forget = clock.listen(functools.partial(loop.call_soon_threadsafe, moved.set))
    try:
        while (delay := clock.wall_delay(moment)) != 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await moved.wait()
            moved.clear()
    finally:
        forget()


_log = logging.getLogger("ugen_provider.emulator")


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address.

    Args:
        host: An address or name to listen on.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Hands its transport to the application, which may have to reset it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, CONNECTION: transport}  # type: ignore[has-type]


class _Uvicorn(uvicorn.Server):
    """Reports when it listens, and leaves signals to its caller."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()


class EmulatorServer:
    """An emulator that listens on a socket.

    As a context manager it runs in a thread of its own:

        with EmulatorServer(Settings(speed=0, admin=True)) as server:
            client = UGenClient(api_key="ugen_sk_local", base_url=server.base_url)

    Args:
        settings: What to start with.
        host: Address to listen on.
        port: Port; 0 takes a free one.

    Raises:
        OSError: The port is taken.
        ValueError: `/_emulator` would answer beyond loopback, or the database cannot be used.
    """

    def __init__(self, settings: Settings | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        settings = settings or Settings()
        if not is_loopback(host):
            if settings.admin and not settings.admin_anywhere:
                raise ValueError(f"admin on {host} lets anybody there steer it: set admin_anywhere if you mean it")
            steer = ", and steer it" if settings.admin else ""
            _log.warning(
                "the emulator listens on %s: everyone who reaches this address can use it with its well-known key%s",
                host,
                steer,
            )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio turns Nagle's algorithm off only for sockets that name the protocol; with it each answer takes 40 ms.
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            self.emulator = World(settings)
        except BaseException:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}"
        self.emulator.set_base_url(self.url)
        self.service = Service(self.emulator)
        self.app = app_over(self.service)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._up = threading.Event()
        self._server: _Uvicorn | None = None

    @property
    def base_url(self) -> str:
        """Return what a client is given as its base URL."""
        return self.url + PREFIX

    def run(self, listening: Callable[[], None] | None = None) -> None:
        """Serve in this thread until `stop`, SIGTERM or SIGINT.

        Args:
            listening: Called once connections are accepted.
        """
        config = uvicorn.Config(
            self.app,
            log_level="warning",
            access_log=False,
            # Longer than any client of ours keeps an idle connection, so that none is closed under a request.
            timeout_keep_alive=120,
            http=_Protocol,
            ws="none",
            timeout_graceful_shutdown=2,
        )
        self._server = server = _Uvicorn(config, listening or (lambda: None))

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGTERM, signal.SIGINT):
                    self._loop.add_signal_handler(number, self.stop)
            await server.serve(sockets=[self._socket])

        try:
            # uvicorn's own choice of loop: uvloop where it is installed.
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(serve())
        finally:
            self._socket.close()
            self.emulator.close()

    def stop(self) -> None:
        """Stop accepting, let open requests end, commit, and return from `run`."""
        if self._server is not None:
            self._server.should_exit = True

    def settle(self) -> None:
        """Wait until every webhook that is due by now has been sent and answered."""
        if self._loop is not None and self._loop.is_running() and self._up.is_set():
            asyncio.run_coroutine_threadsafe(self.app.state.dispatcher.settle(), self._loop).result(timeout=120)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.run, args=(self._up.set,), name="ugen-emulator", daemon=True)
        self._thread.start()
        if not self._up.wait(timeout=30):
            raise RuntimeError("the emulator did not start within 30 seconds: see its log")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(timeout=10)
