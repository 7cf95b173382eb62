# SPDX-License-Identifier: Apache-2.0
"""The connections of the async client: many requests at once, at the cost of one each."""

from __future__ import annotations

import ssl
import urllib.request
from collections import deque
from collections.abc import AsyncIterator, Callable

import httpx

from ugen_provider.core.api.clock import Clock

_KEPT = 20
_EXPIRY = 30.0
_ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_EXPIRY)
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=_KEPT, keepalive_expiry=_EXPIRY)
"""Of one pool: how many connections there are at once, how many of them are kept, and for how many seconds."""


class _Lane(httpx.AsyncHTTPTransport):
    """One connection, kept from request to request."""

    free_since = 0.0


class _OnLane(httpx.AsyncByteStream):
    """An answer that gives its lane back when it was read, or is given up; httpx closes it once."""

    def __init__(self, stream: httpx.AsyncByteStream, give_back: Callable[[], None]) -> None:
        self._stream = stream
        self._give_back = give_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._give_back()


class _Lanes(httpx.AsyncBaseTransport):
    """The first requests at once each take a lane, those beyond share httpx's own pool.

    At each request, and again at its end, that pool asks the kernel about every connection that it keeps: with twenty
    kept, this takes several times as long as the request. The lane that was used last is taken first, so that under
    little load the others grow old and are closed.

    Args:
        tls: The certificates that are trusted.
        clock: Tells how long a lane was free.
    """

    def __init__(self, tls: ssl.SSLContext, *, clock: Clock) -> None:
        self._tls = tls
        self._clock = clock
        self._lanes: set[_Lane] = set()
        self._free: deque[_Lane] = deque()
        self._rest = httpx.AsyncHTTPTransport(verify=tls, limits=LIMITS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._close_old()
        lane = self._take()
        if lane is None:
            return await self._rest.handle_async_request(request)
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            self._give_back(lane)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _OnLane(response.stream, lambda: self._give_back(lane))
        return response

    def _take(self) -> _Lane | None:
        if self._free:
            return self._free.pop()
        if len(self._lanes) >= _KEPT:
            return None
        lane = _Lane(verify=self._tls, limits=_ONE)
        self._lanes.add(lane)
        return lane

    def _give_back(self, lane: _Lane) -> None:
        lane.free_since = self._clock.tick()
        self._free.append(lane)

    async def _close_old(self) -> None:
        while self._free and self._clock.tick() - self._free[0].free_since > _EXPIRY:
            lane = self._free.popleft()
            self._lanes.discard(lane)
            await lane.aclose()

    async def aclose(self) -> None:
        for lane in tuple(self._lanes):
            await lane.aclose()
        await self._rest.aclose()


def async_client(clock: Clock) -> httpx.AsyncClient:
    """A client that goes by the environment's proxies and certificates as httpx does."""
    tls = httpx.create_ssl_context()
    # A transport for some addresses gives way to a proxy for them; one for all would take the place of a proxy for all.
    mounts = {} if "all" in urllib.request.getproxies() else {"all://": _Lanes(tls, clock=clock)}
    return httpx.AsyncClient(verify=tls, limits=LIMITS, mounts=mounts)
