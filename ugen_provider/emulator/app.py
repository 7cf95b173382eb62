# SPDX-License-Identifier: Apache-2.0
"""The Starlette edge: turns what a server received into a `Request`, and a `Reply` into what it sends."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

from anyio import to_thread
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from ugen_provider.emulator.api.http import Reply, Request, Wire
from ugen_provider.emulator.api.service import Service
from ugen_provider.emulator.delivery import Dispatcher
from ugen_provider.emulator.patience import pause
from ugen_provider.emulator.settings import Settings
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
        request = Request(
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
