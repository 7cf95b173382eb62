# SPDX-License-Identifier: Apache-2.0
"""Sends one HTTP request: the contact of a client with the outside, and the only module of core that names httpx.

A successor of httpx is a change to this module. No httpx type leaves it except through `http_client=`, and no httpx
exception leaves it at all.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import urllib.request
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from ugen_provider.core.api.clock import CLOCK_HEADER, Clock, SystemClock, abandon, fork_count, hear_clock, poll_pause
from ugen_provider.core.api.config import DEFAULT_BASE_URL, ClientConfig, Network, Secret, redact_text
from ugen_provider.core.api.endpoints import Request, Response
from ugen_provider.core.api.errors import ConfigError, TransportError, TransportTimeoutError
from ugen_provider.core.text import get_logger

HTTPClient = httpx.Client
AsyncHTTPClient = httpx.AsyncClient

_log = get_logger("ugen_provider.api")
_C = TypeVar("_C")
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)

_FAILURES = (
    httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError, RuntimeError, ImportError
)  # fmt: skip
"""Errors of httpx, and of the libraries below it: of proxies, TLS, malformed headers and closed event loops."""

MOST_BYTES = 32 << 20
"""Bytes of the largest answer that is read, unpacked. A page of a hundred jobs has some hundred thousand."""
_GZIP = 16 + zlib.MAX_WBITS
_NO_PACKING = frozenset({"identity", "none", "binary", "8bit", "7bit", "utf-8", "utf8", "chunked"})
"""Names under which servers send an answer that is not compressed."""
MOST_TIMEOUTS = 4.0
"""The longest time for a whole answer, as a multiple of `timeout`, which counts from byte to byte."""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """The address and the key of the API, how long to wait for an answer, and further headers of each request."""

    base_url: str
    api_key: Secret
    user_agent: str
    timeout: float
    network: Network
    further: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, config: ClientConfig) -> EndpointSettings:
        """Take what a transport needs from a client's settings."""
        return cls(config.base_url, config.api_key, config.user_agent, config.timeout, config.network, config.headers)

    @property
    def is_production(self) -> bool:
        """Whether this is the real service's address, whose clock is everybody's."""
        return self.base_url == DEFAULT_BASE_URL

    def headers(self) -> dict[str, str]:
        """Return the headers that every request carries beside the key; see `_KeyHeader`."""
        return {
            "User-Agent": self.user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            **dict(self.further),
        }


class _KeyHeader(httpx.Auth):
    """Adds the key to a request at the last moment, so that no frame of ours holds it."""

    def __init__(self, api_key: Secret) -> None:
        self._api_key = api_key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["X-API-Key"] = self._api_key.reveal()
        yield request


def _arguments(settings: EndpointSettings, request: Request) -> dict[str, Any]:
    headers = settings.headers()
    arguments: dict[str, Any] = {
        "method": request.method,
        "url": settings.base_url + request.path,
        "timeout": _timeout(settings.timeout),
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


def _headers(response: httpx.Response, *, api_key: Secret) -> dict[str, str]:
    """Return the headers by name in lower case.

    They are read as bytes, since httpx detects the encoding of all headers again for each one that is read as text.
    """
    headers: dict[str, str] = {}
    for raw, value in response.headers.raw:
        name, text = raw.lower().decode("latin-1"), api_key.redact_bytes(value).decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _response(
    status: int, headers: Mapping[str, str], content: bytes, *, request: Request, api_key: Secret
) -> Response:
    _log.debug("%s %s answered %d", request.method, request.path, status)
    return Response(status, headers, api_key.redact_bytes(content))


def _failure(error: Exception, request: Request, *, settings: EndpointSettings) -> TransportError:
    kind = TransportTimeoutError if isinstance(error, httpx.TimeoutException) else TransportError
    reason = settings.api_key.redact(_words_of(error)) or type(error).__name__
    _log.debug("%s %s: %s", request.method, request.path, reason)
    host = urlsplit(settings.base_url).netloc.rpartition("@")[2]
    reason = f"no answer from {host}: {redact_text(reason)}"  # an error about a proxy can name its password
    return kind(reason, method=request.method, path=request.path, maybe_sent=not isinstance(error, _NEVER_SENT))


def _words_of(error: Exception) -> str:
    """Return the words of an error; for a connection that was not made, those of the operating system."""
    cause: BaseException | None = error
    while cause is not None and isinstance(error, httpx.ConnectError):
        if (
            isinstance(cause, OSError)
            and type(cause.errno) is int
            and not isinstance(cause, socket.gaierror | ssl.SSLError)
        ):
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return str(error)


class _Body:
    """Collects the body of an answer, within a limit of bytes and of time.

    A compressed body is unpacked here: httpx unpacks without a limit, and does not report bytes that unpack to none.
    """

    __slots__ = ("_began", "_came", "_clock", "_most_seconds", "_packing", "_pieces", "_request", "_size", "_unpacker")

    def __init__(self, request: Request, *, timeout: float, clock: Clock) -> None:
        self._request = request
        self._clock = clock
        self._most_seconds = MOST_TIMEOUTS * timeout
        self._began = clock.tick()
        self._pieces: list[bytes] = []
        self._came = self._size = 0
        self._packing = ""
        self._unpacker: Any = None

    def begin(self, headers: Mapping[str, str]) -> None:
        """Note the compression of the body."""
        named = headers.get("content-encoding", "").lower().replace(";", ",").split(",")
        packings = [name.strip() for name in named if name.strip() and not name.strip().startswith("q=")]
        packings = [name for name in packings if name not in _NO_PACKING]
        if not packings:
            return
        if len(packings) > 1 or packings[0] not in {"gzip", "x-gzip", "deflate"}:
            shown = ", ".join(packings)
            raise self._given_up(TransportError, f"the answer is compressed as {shown!r}, which was not requested")
        self._packing = packings[0]
        # Deflate has a header by its standard, and none in some servers; the first byte decides.
        self._unpacker = zlib.decompressobj(_GZIP) if self._packing != "deflate" else None

    def add(self, piece: bytes) -> None:
        """Add the next piece.

        Raises:
            TransportError: The body is too large, or cannot be unpacked.
            TransportTimeoutError: The body takes too long.
        """
        self._came += len(piece)
        if self._packing and piece:
            try:
                piece = self._unpacked(piece)
            except zlib.error as error:
                raise self._given_up(TransportError, f"the answer cannot be unpacked: {error}") from None
        self._pieces.append(piece)
        self._size += len(piece)
        if max(self._came, self._size) > MOST_BYTES:
            raise self._given_up(TransportError, f"the answer is larger than {MOST_BYTES:,} bytes")
        if self._clock.tick() - self._began > self._most_seconds:
            raise self._given_up(TransportTimeoutError, f"the answer took longer than {self._most_seconds:g} s")

    def _unpacked(self, piece: bytes) -> bytes:
        """Unpack a piece. An answer may hold several members of gzip, and padding after the last."""
        if self._unpacker is None:
            has_header = piece[0] & 0x0F == 8
            self._unpacker = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        unpacked: bytes = b""
        while piece:
            if self._unpacker.eof:
                piece = piece.lstrip(b"\0") if self._packing != "deflate" else b""
                if not piece.startswith(b"\x1f"):
                    return unpacked
                self._unpacker = zlib.decompressobj(_GZIP)
            unpacked += self._unpacker.decompress(piece, MOST_BYTES + 1 - len(unpacked))
            if len(unpacked) > MOST_BYTES:
                return unpacked
            piece = self._unpacker.unused_data
        return unpacked

    def whole(self) -> bytes:
        """Return the whole body.

        Raises:
            TransportError: The compressed body ends in the middle.
        """
        if self._packing and self._came and (self._unpacker is None or not self._unpacker.eof):
            raise self._given_up(TransportError, "the compressed answer ends in the middle")
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def _given_up(self, kind: type[TransportError], reason: str) -> TransportError:
        return kind(reason, method=self._request.method, path=self._request.path, maybe_sent=True)


_MOST = 100
_KEPT = 20
_EXPIRY = 30.0
_SINGLE = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_EXPIRY)
LIMITS = httpx.Limits(max_connections=_MOST, max_keepalive_connections=_KEPT, keepalive_expiry=_EXPIRY)
"""Limits of one pool: connections at once, connections that are kept, and seconds for which they are kept."""


class _Connection(httpx.AsyncHTTPTransport):
    """One connection, kept from request to request."""

    idle_since = 0.0


class _ConnectionStream(httpx.AsyncByteStream):
    """An answer that returns its connection to the pool when httpx closes it, which it does once."""

    def __init__(self, stream: httpx.AsyncByteStream, pool: ConnectionPoolTransport, connection: _Connection) -> None:
        self._stream = stream
        self._pool = pool
        self._connection = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        except BaseException:
            await self._pool.discard(self._connection)
            raise
        await self._pool.release(self._connection)


class ConnectionPoolTransport(httpx.AsyncBaseTransport):
    """Gives each concurrent request a connection of its own, 100 at once; those beyond wait for a free one.

    httpx's own pool is not used for two reasons. At the beginning and the end of each request, it asks the kernel about
    every connection that it keeps: with twenty kept, this takes several times as long as the request. And a request
    that is cancelled before its connection is open leaves a connection in that pool that no request can ever use.

    The connection that was used last is taken first, so that under little load the others reach their expiry and are
    closed. A connection whose request failed or was cancelled is closed.

    Args:
        tls: The certificates that are trusted.
        clock: Measures how long a connection was free.
    """

    def __init__(self, tls: ssl.SSLContext, *, clock: Clock) -> None:
        self._tls = tls
        self._clock = clock
        self._connections: set[_Connection] = set()
        self._free: deque[_Connection] = deque()
        self._slots = asyncio.Semaphore(_MOST)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request over a free connection, or over a new one."""
        await self._close_expired()
        await self._slots.acquire()
        connection = self._take()
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await self.discard(connection)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _ConnectionStream(response.stream, self, connection)
        return response

    def _take(self) -> _Connection:
        if self._free:
            return self._free.pop()
        connection = _Connection(verify=self._tls, limits=_SINGLE)
        self._connections.add(connection)
        return connection

    async def release(self, connection: _Connection) -> None:
        """Keep a connection for the next request, or close it where enough are kept."""
        if len(self._free) >= _KEPT:
            await self.discard(connection)
            return
        connection.idle_since = self._clock.tick()
        self._free.append(connection)
        self._slots.release()

    async def discard(self, connection: _Connection) -> None:
        """Close a connection that is not used again."""
        self._connections.discard(connection)
        self._slots.release()
        await connection.aclose()

    async def _close_expired(self) -> None:
        while self._free and self._clock.tick() - self._free[0].idle_since > _EXPIRY:
            connection = self._free.popleft()
            self._connections.discard(connection)
            await connection.aclose()

    async def aclose(self) -> None:
        """Close all connections of the pool."""
        for connection in tuple(self._connections):
            await connection.aclose()


def _with_network(make: Callable[[], _C]) -> _C:
    """Make an HTTP client, whose proxies and certificates the settings name, or else the environment.

    Raises:
        ConfigError: A proxy or a certificate that is named cannot be used.
    """
    try:
        return make()
    except (OSError, ValueError, ImportError, TypeError, httpx.InvalidURL) as error:
        reason = redact_text(str(error)) or type(error).__name__
    advice = "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
    extra = "; a SOCKS proxy needs the package socksio" if "socks" in reason.lower() else ""
    raise ConfigError(f"no HTTP client can be made from the environment ({reason}): {advice}{extra}")


def _blocking_client(network: Network) -> httpx.Client:
    proxy = None if network.proxy is None else network.proxy.reveal()
    return _with_network(lambda: httpx.Client(verify=_trusted(network), limits=LIMITS, proxy=proxy))


def _pooled_client(network: Network, clock: Clock) -> httpx.AsyncClient:
    """Return a client that uses the proxies and certificates of the settings, or the environment's as httpx does."""
    return _with_network(lambda: _new_pooled_client(network, clock))


def _new_pooled_client(network: Network, clock: Clock) -> httpx.AsyncClient:
    tls = _trusted(network)
    if network.proxy is not None:
        return httpx.AsyncClient(verify=tls, limits=LIMITS, proxy=network.proxy.reveal())
    # A proxy for some addresses takes precedence over this transport, which would replace a proxy for all of them.
    mounts = {} if "all" in urllib.request.getproxies() else {"all://": ConnectionPoolTransport(tls, clock=clock)}
    return httpx.AsyncClient(verify=tls, limits=LIMITS, mounts=mounts)


def _trusted(network: Network) -> ssl.SSLContext:
    """Return the certificates that are trusted: those that httpx finds, and those of the settings.

    Raises:
        ConfigError: Those of the settings cannot be read.
    """
    context = httpx.create_ssl_context()
    if network.ca_bundle is not None:
        path = Path(network.ca_bundle)
        try:
            if path.is_dir():
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
        except OSError as error:
            raise ConfigError(f"ca_bundle: {path} holds no certificates that can be read ({error})") from None
    return context


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop of asyncio that runs here; None under another library."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _refuse_shared(http_client: HTTPClient | AsyncHTTPClient) -> None:
    """Refuse a caller's own HTTP client in a forked process: its connections would carry another process's answers.

    Raises:
        ConfigError: It has connections; one over a transport of the caller's own is left to the caller.
    """
    if isinstance(getattr(http_client, "_transport", None), httpx.HTTPTransport | httpx.AsyncHTTPTransport):
        raise ConfigError("http_client was made before this process was forked: make it and the client after the fork")


def _refuse_closed(http_client: HTTPClient | AsyncHTTPClient) -> None:
    """Refuse to send by a client that was closed: no repetition helps, so a wait must end.

    Raises:
        ConfigError: It was closed.
    """
    if http_client.is_closed:
        raise ConfigError("the client was closed; keep it open for as long as something waits by it")


class Transport:
    """Sends one request at a time and blocks. After a fork the child process starts with new connections.

    Args:
        settings: The address and the key.
        http_client: The caller's own httpx client; it is not closed here.
        clock: The clock; default the machine's.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        http_client: HTTPClient | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self._owned = http_client is None
        self._http = http_client or _blocking_client(settings.network)
        self._clock = clock or SystemClock()
        self._forks = fork_count()

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._clock.now()

    def tick(self) -> float:
        """Return the seconds of a clock that is never set back, for durations."""
        return self._clock.tick()

    def sleep(self, seconds: float) -> None:
        """Block for some seconds."""
        self._clock.sleep(poll_pause(self._clock, seconds))

    def send(self, request: Request, *, settings: EndpointSettings | None = None) -> Response:
        """Send a request and return its answer with any status.

        Args:
            request: The request.
            settings: Other settings than those of this transport, for this request.

        Raises:
            TransportError: No answer arrived, or not a whole one.
        """
        if self._forks != fork_count():
            self._renew()
        _refuse_closed(self._http)
        answer = self._exchange(request, settings or self.settings)
        if isinstance(answer, TransportError):
            raise answer
        return answer

    def _exchange(self, request: Request, settings: EndpointSettings) -> Response | TransportError:
        """Send a request. An error is returned: raised here, its frames would hold the request with the key."""
        arguments = _arguments(settings, request)
        body = _Body(request, timeout=settings.timeout, clock=self._clock)
        try:
            built = self._http.build_request(**arguments)
            key = _KeyHeader(settings.api_key)
            response = self._http.send(built, auth=key, stream=True, follow_redirects=False)
            headers = _headers(response, api_key=settings.api_key)
            if not settings.is_production:
                hear_clock(self._clock, headers.get(CLOCK_HEADER))
            try:
                # A transport or a hook of the caller's own may have read it already.
                if response.is_stream_consumed:
                    content = response.content
                else:
                    body.begin(headers)
                    for piece in response.iter_raw():
                        body.add(piece)
                    content = body.whole()
            finally:
                response.close()
            return _response(response.status_code, headers, content, request=request, api_key=settings.api_key)
        except TransportError as error:
            return error.with_traceback(None)
        except _FAILURES as error:
            return _failure(error, request, settings=settings)

    def _renew(self) -> None:
        """Open new connections in a forked process: those of the other process stay its own."""
        if self._owned:
            abandon(self._http)
            self._http = _blocking_client(self.settings.network)
        else:
            _refuse_shared(self._http)
        self._forks = fork_count()

    def close(self) -> None:
        """Close the connections, unless the HTTP client is the caller's own."""
        if self._owned and self._forks == fork_count():
            self._http.close()


class AsyncTransport:
    """Sends requests and awaits their answers; arguments as for `Transport`."""

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        http_client: AsyncHTTPClient | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self._owned = http_client is None
        self._clock = clock or SystemClock()
        self._http = http_client or _pooled_client(settings.network, self._clock)
        self._forks = fork_count()
        self._loop: asyncio.AbstractEventLoop | None = None

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._clock.now()

    def tick(self) -> float:
        """Return the seconds of a clock that is never set back, for durations."""
        return self._clock.tick()

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds, letting other tasks run."""
        await self._clock.asleep(poll_pause(self._clock, seconds))

    async def send(self, request: Request, *, settings: EndpointSettings | None = None) -> Response:
        """Send a request and return its answer with any status; arguments as for `Transport.send`.

        Raises:
            TransportError: No answer arrived, or not a whole one.
        """
        loop = _running_loop()
        if self._forks != fork_count() or (self._owned and self._loop not in {None, loop}):
            self._renew()
        self._loop = loop
        _refuse_closed(self._http)
        answer = await self._exchange(request, settings or self.settings)
        if isinstance(answer, TransportError):
            raise answer
        return answer

    async def _exchange(self, request: Request, settings: EndpointSettings) -> Response | TransportError:
        """Send a request. An error is returned: raised here, its frames would hold the request with the key."""
        arguments = _arguments(settings, request)
        body = _Body(request, timeout=settings.timeout, clock=self._clock)
        try:
            built = self._http.build_request(**arguments)
            key = _KeyHeader(settings.api_key)
            response = await self._http.send(built, auth=key, stream=True, follow_redirects=False)
            headers = _headers(response, api_key=settings.api_key)
            if not settings.is_production:
                hear_clock(self._clock, headers.get(CLOCK_HEADER))
            try:
                # A transport or a hook of the caller's own may have read it already.
                if response.is_stream_consumed:
                    content = response.content
                else:
                    body.begin(headers)
                    async for piece in response.aiter_raw():
                        body.add(piece)
                    content = body.whole()
            finally:
                await response.aclose()
            return _response(response.status_code, headers, content, request=request, api_key=settings.api_key)
        except TransportError as error:
            return error.with_traceback(None)
        except _FAILURES as error:
            return _failure(error, request, settings=settings)

    def _renew(self) -> None:
        """Open new connections in a forked process, or in another event loop: those that exist stay with the first."""
        if self._owned:
            abandon(self._http)
            self._http = _pooled_client(self.settings.network, self._clock)
        else:
            _refuse_shared(self._http)
        self._forks = fork_count()

    async def aclose(self) -> None:
        """Close the connections, unless the HTTP client is the caller's own."""
        same_loop = self._loop in {None, _running_loop()}
        if self._owned and self._forks == fork_count() and same_loop:
            await self._http.aclose()


def tls_context(network: Network) -> ssl.SSLContext:
    """Return the certificates that are trusted as for the API: `SSL_CERT_FILE`, `SSL_CERT_DIR` or certifi, and ours.

    Raises:
        ConfigError: Those of the settings cannot be read.
    """
    context = _trusted(network)
    context.set_alpn_protocols(["http/1.1"])
    return context
