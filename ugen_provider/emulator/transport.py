# SPDX-License-Identifier: Apache-2.0
"""The emulator without a socket, as a transport for `httpx`: the fastest way to run a client against it.

transport = EmulatorTransport(Settings(speed=0))
client = UGenClient(
    api_key="ugen_sk_local",
    base_url=transport.base_url,
    http_client=httpx.Client(transport=transport),
)
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx

from ugen_provider.emulator.api.http import HttpRequest, Reply, Wire
from ugen_provider.emulator.api.service import PREFIX, Service
from ugen_provider.emulator.server import Dispatcher
from ugen_provider.emulator.settings import Settings
from ugen_provider.emulator.world.world import World


class EmulatorTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers every request from an emulator in this process, for `httpx.Client` and `httpx.AsyncClient` alike.

    Time is virtual: a slow answer moves the emulator's clock instead of taking time, or is a `ReadTimeout` at once if
    the client would not have waited that long.

    Args:
        settings: What to start with; by default a clock that is moved by hand, with `/_emulator` on.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.emulator = World(settings or Settings(speed=0, admin=True))
        self._service = Service(self.emulator)
        self.url = self.emulator.base_url
        self.base_url = self.url + PREFIX

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request without a socket."""
        return self._answer(request, request.read())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request without a socket."""
        return self._answer(request, await request.aread())

    def close(self) -> None:
        """Nothing is closed with a client: several clients may share the emulator."""

    async def aclose(self) -> None:
        """Nothing is closed with a client: several clients may share the emulator."""

    def deliver_webhooks(self) -> None:
        """Send the webhooks that are due by now, over real sockets. Not from within a running event loop."""

        async def settle() -> None:
            await Dispatcher(self.emulator).settle()

        asyncio.run(settle())

    def _answer(self, request: httpx.Request, body: bytes) -> httpx.Response:
        reply = self._service.handle(
            HttpRequest(
                request.method,
                request.url.path,
                request.url.query.decode("latin-1"),
                {name.lower(): value for name, value in request.headers.items()},
                body,
            )
        )
        if reply.work is not None:
            reply = reply.work()
        if reply.wire is not None:
            self._wait(request, reply.wire)
        return _response(request, reply)

    def _wait(self, request: httpx.Request, wire: Wire) -> None:
        seconds = wire.first_byte or wire.body_seconds
        patience = request.extensions.get("timeout", {}).get("read")
        # A body that dribbles never keeps a client waiting long at once.
        if wire.first_byte and patience is not None and seconds > patience:
            self.emulator.advance(patience)
            raise httpx.ReadTimeout(f"no answer within {patience:g} s", request=request)
        self.emulator.advance(seconds)
        if wire.reset:
            raise httpx.ReadError("connection reset", request=request)


class _Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body whose connection closes too early."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part


def _response(request: httpx.Request, reply: Reply) -> httpx.Response:
    headers = dict(reply.headers)
    if reply.status not in (204, 304):
        headers |= {"content-type": reply.media_type, "content-length": str(len(reply.body))}
    body = b"" if request.method == "HEAD" else reply.body
    if reply.wire is not None and reply.wire.keep is not None:
        return httpx.Response(reply.status, headers=headers, stream=_Cut(body[: reply.wire.keep]), request=request)
    return httpx.Response(reply.status, headers=headers, stream=httpx.ByteStream(body), request=request)
