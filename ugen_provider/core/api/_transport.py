# SPDX-License-Identifier: Apache-2.0
"""The drivers: they perform what a flow yields. With `_lanes`, the only module of core that names httpx.

A successor of httpx is a change to these two. No httpx type leaves it except through `http_client=`, and no httpx
exception leaves it at all.
"""

from __future__ import annotations

import json
import logging
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import httpx

from ugen_provider.core.api._lanes import LIMITS, async_client
from ugen_provider.core.api.clock import Clock, SystemClock
from ugen_provider.core.api.effects import Await, Effect, Flow, Now, Perform, Request, Response, Send, Sleep, Tick
from ugen_provider.core.api.errors import TransportError, TransportTimeoutError
from ugen_provider.core.api.secrets import Secret

T = TypeVar("T")
HTTPClient = httpx.Client
AsyncHTTPClient = httpx.AsyncClient

_log = logging.getLogger("ugen_provider.api")
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)

MOST_BYTES = 32 << 20
"""Bytes of the largest answer that is read, unpacked. A page of a hundred whole jobs has some hundred thousand."""
_GZIP = 16 + zlib.MAX_WBITS
MOST_TIMEOUTS = 4.0
"""How many times `timeout`, which counts from byte to byte, a whole answer may take."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and with which key."""

    base_url: str
    api_key: Secret
    user_agent: str
    timeout: float

    def headers(self) -> dict[str, str]:
        """The headers that every request to the API carries."""
        return {
            "X-API-Key": self.api_key.reveal(),
            "User-Agent": self.user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        }


def _arguments(target: Target, request: Request) -> dict[str, Any]:
    headers = target.headers()
    arguments: dict[str, Any] = {
        "method": request.method,
        "url": target.base_url + request.path,
        "timeout": _timeout(target.timeout),
        "headers": headers,
    }
    if request.params:
        arguments["params"] = list(request.params)
    if request.json is not None:
        arguments["content"] = json.dumps(request.json, ensure_ascii=False).encode()
        headers["Content-Type"] = "application/json"
    if request.upload is not None:
        arguments["files"] = {"file": (request.upload.name, request.upload.content, request.upload.content_type)}
        arguments["data"] = dict(request.form)
    return arguments


@lru_cache(maxsize=8)
def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(10.0, seconds))


def _headers(response: httpx.Response) -> dict[str, str]:
    """By name in lower case. As bytes, since httpx works out the encoding of them all anew for each that is read."""
    headers: dict[str, str] = {}
    for raw, value in response.headers.raw:
        name, text = raw.lower().decode("latin-1"), value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _answer(status: int, headers: Mapping[str, str], content: bytes, *, request: Request) -> Response:
    _log.debug("%s %s answered %d", request.method, request.path, status)
    return Response(status, headers, content)


def _failure(error: Exception, request: Request) -> TransportError:
    kind = TransportTimeoutError if isinstance(error, httpx.TimeoutException) else TransportError
    reason = str(error) or type(error).__name__
    _log.debug("%s %s: %s", request.method, request.path, reason)
    return kind(reason, method=request.method, path=request.path, maybe_sent=not isinstance(error, _NEVER_SENT))


class _Body:
    """An answer as it comes in: a service that sends without end, or drop by drop, is given up.

    What is packed is unpacked here, since httpx unpacks without a bound, and says nothing of bytes that unpack to none.
    """

    __slots__ = ("_began", "_came", "_clock", "_most_seconds", "_pieces", "_request", "_size", "_unpacker")

    def __init__(self, request: Request, *, timeout: float, clock: Clock) -> None:
        self._request = request
        self._clock = clock
        self._most_seconds = MOST_TIMEOUTS * timeout
        self._began = clock.tick()
        self._pieces: list[bytes] = []
        self._came = self._size = 0
        self._unpacker: Any = None

    def begin(self, headers: Mapping[str, str]) -> None:
        """Take note of how it is packed."""
        packing = headers.get("content-encoding", "").strip().lower()
        if packing == "gzip":
            self._unpacker = zlib.decompressobj(_GZIP)
        elif packing not in {"", "identity"}:
            raise self._given_up(TransportError, f"the answer is packed as {packing!r}, which nobody asked for")

    def add(self, piece: bytes) -> None:
        """Take the next piece, or raise that there is too much of it, or that it takes too long."""
        self._came += len(piece)
        if self._unpacker is not None:
            try:
                piece = b"" if self._unpacker.eof else self._unpacker.decompress(piece, MOST_BYTES + 1)
            except zlib.error as error:
                raise self._given_up(TransportError, f"the answer cannot be unpacked: {error}") from None
        self._pieces.append(piece)
        self._size += len(piece)
        if max(self._came, self._size) > MOST_BYTES:
            raise self._given_up(TransportError, f"the answer is larger than {MOST_BYTES:,} bytes")
        if self._clock.tick() - self._began > self._most_seconds:
            raise self._given_up(TransportTimeoutError, f"the answer took longer than {self._most_seconds:g} s")

    def whole(self) -> bytes:
        """What came."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def _given_up(self, kind: type[TransportError], reason: str) -> TransportError:
        return kind(reason, method=self._request.method, path=self._request.path, maybe_sent=True)


class SyncDriver:
    """Performs flows by blocking.

    Args:
        target: Where requests go.
        http_client: The caller's own httpx client; it is not closed here.
        clock: The clock to live by.
    """

    def __init__(
        self,
        target: Target,
        *,
        http_client: HTTPClient | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._target = target
        self._own = http_client is None
        self._http = http_client or httpx.Client(limits=LIMITS)
        self._clock = clock or SystemClock()

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end and return what it returns."""
        try:
            effect = next(flow)
            while True:
                try:
                    answer = self.perform(effect)
                except Exception as error:  # noqa: BLE001  the flow decides what an error means
                    effect = flow.throw(error)
                else:
                    effect = flow.send(answer)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            flow.close()

    def perform(self, effect: Effect) -> Any:
        """Perform one effect and return its answer."""
        match effect:
            case Send(request=request):
                return self._send(request)
            case Sleep(seconds=seconds):
                return self._clock.sleep(seconds)
            case Now():
                return self._clock.now()
            case Tick():
                return self._clock.tick()
            case Perform(call=call):
                return call()
            case Await(point=point):
                raise TypeError(f"{point}: only the async client can await; give the flow a blocking way to wait")

    def _send(self, request: Request) -> Response:
        arguments = _arguments(self._target, request)
        body = _Body(request, timeout=self._target.timeout, clock=self._clock)
        try:
            built = self._http.build_request(**arguments)
            response = self._http.send(built, stream=True, follow_redirects=False)
            headers = _headers(response)
            try:
                # A transport or a hook of the caller's own may have read it already.
                if response.is_stream_consumed:
                    return _answer(response.status_code, headers, response.content, request=request)
                body.begin(headers)
                for piece in response.iter_raw():
                    body.add(piece)
            finally:
                response.close()
            return _answer(response.status_code, headers, body.whole(), request=request)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            failure = _failure(error, request)
        raise failure

    def retarget(self, target: Target) -> None:
        """Use another key or address from the next request on."""
        self._target = target

    def close(self) -> None:
        """Close the connections, unless the HTTP client is the caller's own."""
        if self._own:
            self._http.close()


class AsyncDriver:
    """Performs flows by awaiting; arguments as for `SyncDriver`."""

    def __init__(
        self,
        target: Target,
        *,
        http_client: AsyncHTTPClient | None = None,
        clock: Clock | None = None,
    ) -> None:
        import anyio.to_thread

        self._target = target
        self._own = http_client is None
        self._clock = clock or SystemClock()
        self._http = http_client or async_client(self._clock)
        self._in_thread = anyio.to_thread.run_sync

    async def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end and return what it returns."""
        try:
            effect = next(flow)
            while True:
                try:
                    answer = await self.perform(effect)
                except Exception as error:  # noqa: BLE001  the flow decides what an error means
                    effect = flow.throw(error)
                else:
                    effect = flow.send(answer)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            flow.close()

    async def perform(self, effect: Effect) -> Any:
        """Perform one effect and return its answer."""
        match effect:
            case Send(request=request):
                return await self._send(request)
            case Sleep(seconds=seconds):
                return await self._clock.asleep(seconds)
            case Now():
                return self._clock.now()
            case Tick():
                return self._clock.tick()
            case Perform(call=call):
                return await self._in_thread(call)
            case Await(call=call):
                return await call()

    async def _send(self, request: Request) -> Response:
        arguments = _arguments(self._target, request)
        body = _Body(request, timeout=self._target.timeout, clock=self._clock)
        try:
            built = self._http.build_request(**arguments)
            response = await self._http.send(built, stream=True, follow_redirects=False)
            headers = _headers(response)
            try:
                if response.is_stream_consumed:
                    return _answer(response.status_code, headers, response.content, request=request)
                body.begin(headers)
                async for piece in response.aiter_raw():
                    body.add(piece)
            finally:
                await response.aclose()
            return _answer(response.status_code, headers, body.whole(), request=request)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            failure = _failure(error, request)
        raise failure

    def retarget(self, target: Target) -> None:
        """Use another key or address from the next request on."""
        self._target = target

    async def aclose(self) -> None:
        """Close the connections, unless the HTTP client is the caller's own."""
        if self._own:
            await self._http.aclose()


def tls_context() -> ssl.SSLContext:
    """The certificates that are trusted, as httpx finds them: those of `SSL_CERT_FILE`, `SSL_CERT_DIR`, or certifi."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
