# SPDX-License-Identifier: Apache-2.0
"""Read bytes of any size from hosts that are not the API: storage hosts and shops.

No API key is known here, so none can leave. urllib3 speaks HTTP and keeps the connections; this module adds what a
client for addresses from others needs: a host is looked up once and only the addresses that were checked are connected,
each step of an answer has a budget of bytes and seconds, and every redirect is checked like the first address.
"""

from __future__ import annotations

import io
import os
import re
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from typing import IO, Any, cast
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.response import BaseHTTPResponse

from ugen_provider.__about__ import __version__
from ugen_provider.core.api.config import Network
from ugen_provider.core.api.errors import TransportError, TransportTimeoutError
from ugen_provider.core.api.transport import MOST_TIMEOUTS, tls_context
from ugen_provider.core.media.origins import (
    LocalFile,
    OriginError,
    PrivateAddressError,
    StoredObject,
    check_http,
    is_public,
    locate_named,
    open_local,
    same_origin,
)

PIECE = 1 << 18
"""Bytes of a piece of a body, at most."""

_HEAD_BYTES = 1 << 17
_POOLS = 32
_KEPT = 64
_CONNECT_SECONDS = 10.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_FOLD = re.compile(r"[\r\n]+[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,20}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BROKEN = (HTTPError, HTTPException, OSError, ValueError)


class _TooSlowError(TimeoutError):
    """A step of an answer took too long, although its bytes came in time."""


class _Budget:
    """How many bytes the next step of an answer may bring, and until when.

    A timeout alone does not end an answer that comes byte by byte, and a length alone does not bound what HTTP puts
    around a body.
    """

    def __init__(self, *, seconds: float, tick: Callable[[], float]) -> None:
        self._seconds = seconds
        self._tick = tick
        self._bytes = 0
        self._until = 0.0
        self.in_head = False
        self.grant(0)

    def grant(self, most: int) -> None:
        """Begin the next step."""
        self._bytes = most + _HEAD_BYTES
        self._until = self._tick() + self._seconds

    def spend(self, count: int) -> None:
        """Count what came.

        Raises:
            HTTPException: More came than the step may bring, or the answer ended inside its head.
            TimeoutError: The step took too long.
        """
        if not count and self.in_head:
            raise RemoteDisconnected("the connection was closed inside the head of the answer")
        self._bytes -= count
        if self._bytes < 0:
            raise HTTPException("the head of the answer, or what surrounds its body, is too large")
        if self._tick() > self._until:
            raise _TooSlowError(f"a part of the answer took longer than {self._seconds:g} s")


class _BudgetedIO(io.RawIOBase):
    """A connection that is read within a budget."""

    def __init__(self, sock: socket.socket, budget: _Budget) -> None:
        self._receive = sock.recv_into
        self._spend = budget.spend
        self._open = sock.makefile("rb", buffering=0)  # keeps the socket open until the answer is read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._receive(buffer)
        self._spend(count)
        return count

    def close(self) -> None:
        self._open.close()
        super().close()


class _Answer(HTTPResponse):
    """An answer that is parsed within a budget, and refused where its head can be read in two ways."""

    def __init__(self, sock: socket.socket, *args: Any, budget: _Budget, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(cast("Any", _BudgetedIO(sock, budget)))
        self._budget = budget

    def begin(self) -> None:
        """Read the head."""
        self._budget.in_head = True
        super().begin()
        self._budget.in_head = False
        if self.msg.defects:
            raise HTTPException("the head of the answer is malformed")


class _CheckedConnection(HTTPConnection):
    """A connection to an address that was checked.

    Attributes:
        public_only: Whether only addresses of the public internet are connected.
        tick: A clock that is never set back.
        budget: Of the answer that is read now.
    """

    public_only = False
    tick: Callable[[], float] = staticmethod(time.monotonic)
    budget: _Budget

    def _new_conn(self) -> socket.socket:
        patience = self.timeout if isinstance(self.timeout, int | float) else _CONNECT_SECONDS
        try:
            return _connected(self.host.strip("[]"), self.port or 0, patience, public_only=self.public_only)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection within {patience:g} s") from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error

    def connect(self) -> None:
        """Connect, through the tunnel of a proxy where there is one."""
        self._renew_budget()
        super().connect()

    def getresponse(self) -> Any:
        """Read the head of the answer."""
        self._renew_budget()
        response = super().getresponse()
        response.budget = self.budget  # type: ignore[attr-defined]  # the stream grants each piece of the body
        return response

    def _renew_budget(self) -> None:
        seconds = self.timeout if isinstance(self.timeout, int | float) else _CONNECT_SECONDS
        self.budget = _Budget(seconds=MOST_TIMEOUTS * seconds, tick=self.tick)
        self.response_class = cast("type[HTTPResponse]", partial(_Answer, budget=self.budget))


def _pool_classes(*, public: bool, clock: Callable[[], float]) -> dict[str, type[HTTPConnectionPool]]:
    class PlainConnection(_CheckedConnection):
        public_only = public
        tick = staticmethod(clock)

    class SecureConnection(_CheckedConnection, HTTPSConnection):
        public_only = public
        tick = staticmethod(clock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls: Any = PlainConnection

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls: Any = SecureConnection

    return {"http": PlainPool, "https": SecurePool}


class ByteStream:
    """An answer whose body is read in pieces.

    Attributes:
        status: The HTTP status.
        headers: By their names in lower case.
        url: The address that answered.
    """

    def __init__(self, response: BaseHTTPResponse, *, url: str) -> None:
        self._response = response
        self.url = url
        self._shown = _without_secrets(url)
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): _text(value) for name, value in response.headers.items()}
        self._left = _length(self.headers, response)

    def chunks(self, most: int = PIECE) -> Iterator[bytes]:
        """Yield the body in pieces, undecoded, as soon as they come.

        Args:
            most: Bytes of one piece, at most.

        Raises:
            TransportError: The connection broke; the pieces so far are good.
        """
        budget: _Budget = cast("Any", self._response).budget
        while self._left != 0:
            try:
                budget.grant(most)
                piece = self._response.read1(most, decode_content=False)
                if not piece and self._left is not None:
                    raise IncompleteRead(0, self._left)
            except _BROKEN as error:
                failure = _failure(error, self._shown)
            else:
                if not piece:
                    self._left = 0
                    return
                if self._left is not None:
                    self._left -= len(piece)
                yield piece
                continue
            raise failure

    def is_read(self) -> bool:
        """Return whether all of the body was read."""
        return self._left == 0


class MediaClient:
    """Reads bytes from hosts that are not the API. Threads may share it; a forked child gets connections of its own.

    It holds no key and keeps no cookies. Proxies and certificates are those of the settings, or of the environment, as
    for the API: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`, `SSL_CERT_DIR`.

    Args:
        network: The proxy and the certificates of the settings.
        timeout: Seconds without a byte after which a connection is given up.
        tick: A clock that is never set back.
    """

    def __init__(
        self,
        *,
        network: Network | None = None,
        timeout: float = 60.0,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network or Network()
        self._timeout = timeout
        self._tick = tick
        self._reset()
        _clients.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._managers: dict[tuple[bool, str | None], urllib3.PoolManager] = {}
        self._tls: ssl.SSLContext | None = None

    def abandon_connections(self) -> None:
        """Forget the connections of the parent process; used in a forked child.

        They are not closed: the parent reads from them, and a lock of the pool may have been held during the fork.
        """
        _abandoned.append(self._managers)
        self._reset()

    @contextmanager
    def open(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        allow_private: bool = False,
        timeout: float | None = None,
    ) -> Iterator[ByteStream]:
        """Request one URL and give its answer as a stream. Redirects are answers too.

        Args:
            url: An http or https URL. A name and password in it go to its host only.
            headers: Further headers, such as `Range`.
            allow_private: Whether the host may have a private address. Behind a proxy the proxy resolves the host
                again, so this is then a check of the name and not of the connection.
            timeout: Seconds without a byte, for this request; that of the client where not given.

        Raises:
            OriginError: The URL is none of http(s), or leads to a private address.
            TransportError: No answer arrived.
        """
        check_http(url)
        shown = _without_secrets(url)
        try:
            response = self._request(url, headers or {}, allow_private=allow_private, timeout=timeout or self._timeout)
        except _BROKEN as error:
            failure = _failure(error, shown)
        else:
            stream = None
            try:
                stream = _stream(response, url, shown)
                yield stream
            finally:
                if stream is not None and stream.is_read():
                    response.drain_conn()  # nothing is left; without this, the connection waits for it
                else:
                    response.close()
                response.release_conn()
            return
        raise failure

    @contextmanager
    def follow(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        allow_private: bool = False,
        named_by_user: bool = False,
        redirects: int = _MOST_REDIRECTS,
        timeout: float | None = None,
    ) -> Iterator[ByteStream]:
        """Request a URL and the ones that it redirects to.

        Args:
            url: As for `open`.
            headers: As for `open`; sent to each host, so no credentials belong here.
            allow_private: Whether any host on the way may have a private address.
            named_by_user: Whether the user chose the URL. Its own host may then have a private address; a redirect
                to another host is checked all the same, since the host chose that one.
            redirects: Redirects that are followed.
            timeout: As for `open`.

        Raises:
            OriginError: As for `open`, also for a redirect; or there are too many of them.
            TransportError: No answer arrived.
        """
        address = url
        for _ in range(redirects + 1):
            private = allow_private or (named_by_user and same_origin(address, url))
            with self.open(address, headers=headers, allow_private=private, timeout=timeout) as stream:
                location = stream.headers.get("location")
                if stream.status not in _REDIRECTS or not location:
                    yield stream
                    return
            try:
                following = urljoin(address, location)
            except ValueError:
                raise OriginError("redirects to an address that cannot be read", address=url) from None
            check_http(following)
            if address.startswith("https:") and following.startswith("http:"):
                raise OriginError("redirects from https to http, without encryption", address=url)
            address = following
        raise OriginError(f"redirects more than {redirects} times", address=url)

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            managers, self._managers = self._managers, {}
        for manager in managers.values():
            manager.clear()

    def _request(
        self, url: str, headers: Mapping[str, str], *, allow_private: bool, timeout: float
    ) -> BaseHTTPResponse:
        parts = urlsplit(url)
        proxy = _proxy_for(parts, self._network)
        if proxy is not None and not allow_private:
            _addresses(parts.hostname or "", _port_of(parts), public_only=True)
        bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
        own = {
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "User-Agent": f"ugen-provider/{__version__}",
            **_basic_auth(parts),
            **headers,
        }
        if any(_CONTROL.search(f"{name}{value}") for name, value in own.items()):
            raise ValueError("a header has a control character")
        manager = self._manager(public_only=not allow_private and proxy is None, proxy=proxy)
        ask = partial(
            manager.urlopen,
            "GET",
            bare,
            headers=own,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=min(_CONNECT_SECONDS, timeout), read=timeout),
        )
        try:
            return ask()
        except ProtocolError as error:
            if not _was_dropped(error):
                raise
        # A kept connection may be closed by the server at the moment of the request. A GET is repeated at no cost.
        return ask()

    def _manager(self, *, public_only: bool, proxy: str | None) -> urllib3.PoolManager:
        with self._lock:
            manager = self._managers.get((public_only, proxy))
            if manager is not None:
                return manager
            if self._tls is None:
                self._tls = tls_context(self._network)
            options: dict[str, Any] = {"num_pools": _POOLS, "maxsize": _KEPT, "ssl_context": self._tls}
            if proxy is None:
                manager = urllib3.PoolManager(**options)
            else:
                parts = urlsplit(proxy)
                login = {name.replace("A", "Proxy-A", 1): value for name, value in _basic_auth(parts).items()}
                address = f"http://{parts.netloc.rpartition('@')[2]}"
                manager = urllib3.ProxyManager(address, proxy_headers=login, **options)
            manager.pool_classes_by_scheme = _pool_classes(public=public_only, clock=self._tick)
            self._managers[public_only, proxy] = manager
            return manager


_clients: weakref.WeakSet[MediaClient] = weakref.WeakSet()
_abandoned: list[Any] = []
_shared: dict[Network, MediaClient] = {}
_shared_lock = threading.Lock()


def shared_client(network: Network | None = None) -> MediaClient:
    """Return the client whose connections everything in this process shares.

    Args:
        network: The proxy and the certificates of the settings; those of the environment where not given.
    """
    network = network or Network()
    with _shared_lock:
        if network not in _shared:
            _shared[network] = MediaClient(network=network)
        return _shared[network]


@contextmanager
def open_url(
    url: str, *, headers: Mapping[str, str] | None = None, timeout: float | None = None, allow_private: bool = True
) -> Iterator[ByteStream]:
    """Read one URL that the user named, and what it redirects to.

    Args:
        url: An http or https URL.
        headers: Further headers; no credentials.
        timeout: Seconds without a byte after which it is given up; 60 where not given.
        allow_private: Whether the host of the URL itself may have a private address.

    Raises:
        OriginError: As for `MediaClient.follow`.
        TransportError: No answer arrived.
    """
    with shared_client().follow(url, headers=headers, named_by_user=allow_private, timeout=timeout) as stream:
        yield stream


class _StreamIO(io.RawIOBase):
    """A file over the body of an answer."""

    def __init__(self, pieces: Iterator[bytes], stack: ExitStack) -> None:
        self._pieces = pieces
        self._stack = stack
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        self._stack.close()
        super().close()


def open_named(address: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file that the user named: a path, an http(s) address, or an fsspec URL of one protocol.

    Args:
        address: A path or URL. An http(s) address is given up after 60 seconds without a byte.

    Raises:
        OriginError: The address is refused.
        TransportError: The host gave no answer.
        OSError: The file cannot be opened; also for an HTTP status other than 200.
        ImportError: The protocol needs a package that is not installed.
    """
    origin = locate_named(address)
    if isinstance(origin, LocalFile):
        return open_local(origin)
    if isinstance(origin, StoredObject):
        import fsspec

        filesystem, path = fsspec.url_to_fs(origin.url)
        return cast("IO[bytes]", filesystem.open(path, "rb"))
    with ExitStack() as stack:
        stream = stack.enter_context(open_url(origin.url))
        if stream.status != 200:
            raise OSError(f"the server answered {stream.status}")
        return io.BufferedReader(_StreamIO(stream.chunks(), stack.pop_all()), PIECE)
    raise AssertionError  # the block above returns or raises


def _after_fork() -> None:
    global _shared_lock  # noqa: PLW0603  another thread may have held it during the fork
    _shared_lock = threading.Lock()
    for client in list(_clients):
        client.abandon_connections()


os.register_at_fork(after_in_child=_after_fork)


def _addresses(host: str, port: int, *, public_only: bool) -> list[tuple[Any, ...]]:
    """Look a host up, once, and check every address that it has."""
    try:
        found = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        raise OSError(f"{host}: {error}") from None
    if public_only:
        for *_, address in found:
            if not is_public(str(address[0])):
                message = f"leads to the private address {address[0]}; set allow_private=True if that is your own U-Gen"
                raise PrivateAddressError(message, address=host)
    return found


def _connected(host: str, port: int, patience: float, *, public_only: bool) -> socket.socket:
    """A connection to the first address that takes one. The host is not looked up again in between."""
    refused: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in _addresses(host, port, public_only=public_only):
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(patience)
            made.connect(address)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            made.close()
            refused = error
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise refused


def _proxy_for(parts: SplitResult, network: Network) -> str | None:
    """Return the proxy that the settings, or else the environment, name for a URL, with its credentials.

    Raises:
        ValueError: The proxy is of a kind that cannot be used.
    """
    if network.proxy is not None:
        return network.proxy.reveal()
    proxies = getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    host = parts.hostname or ""
    if not named or proxy_bypass(host) or proxy_bypass(f"{host}:{_port_of(parts)}"):
        return None
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise ValueError(f"the environment names a proxy of the kind {proxy.scheme}://; files can pass http:// only")
    return proxy.geturl()


def _port_of(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _basic_auth(parts: SplitResult) -> dict[str, str]:
    """Return the header for the name and password in a URL; none where it has none."""
    if parts.username is None and parts.password is None:
        return {}
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    (value,) = urllib3.make_headers(basic_auth=login).values()
    return {"Authorization": value}


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _stream(response: BaseHTTPResponse, url: str, shown: str) -> ByteStream:
    try:
        return ByteStream(response, url=url)
    except _BROKEN as error:
        failure = _failure(error, shown)
    raise failure


def _was_dropped(error: ProtocolError) -> bool:
    """Return whether a connection ended before any byte of an answer."""
    cause = error.args[-1] if error.args else None
    return isinstance(cause, ConnectionError) and "inside the head" not in str(cause)


def _failure(error: Exception, path: str) -> TransportError:
    cause: BaseException = error
    while isinstance(cause, ProtocolError | SSLError | ProxyError) and isinstance(cause.args[-1], BaseException):
        cause = cause.args[-1]
    if isinstance(cause, NewConnectionError | ConnectTimeoutError) and cause.__cause__ is not None:
        cause = cause.__cause__
    late = isinstance(cause, TimeoutError | ReadTimeoutError | ConnectTimeoutError)
    if isinstance(cause, ReadTimeoutError):
        slow = isinstance(cause.__cause__, _TooSlowError)
        reason = str(cause.__cause__) if slow else "no byte came in time"
    elif isinstance(cause, IncompleteRead):
        reason = "the answer ended early"
    else:
        reason = (str(cause) or type(cause).__name__)[:300]
    if isinstance(error, ProxyError):
        reason = f"the proxy: {reason}"
    kind = TransportTimeoutError if late else TransportError
    maybe_sent = not isinstance(error, NewConnectionError | ConnectTimeoutError | ValueError)
    return kind(reason, method="GET", path=path, maybe_sent=maybe_sent)


def _text(value: str) -> str:
    """A header on one line, as UTF-8 if it is that, such as the target of a redirect; the parser knows Latin-1 only."""
    value = _FOLD.sub(" ", value)
    try:
        return value if value.isascii() else value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _length(headers: Mapping[str, str], response: BaseHTTPResponse) -> int | None:
    """Bytes of the body, None where only its end shows. An ambiguous length is refused.

    Raises:
        HTTPException: The length or the encoding makes no sense.
    """
    coding = headers.get("transfer-encoding", "").lower()
    if coding and coding != "chunked":
        raise HTTPException(f"the answer comes as {coding!r}, which was not requested")
    if coding:
        return None
    if response.status in {204, 304}:
        return 0
    lengths = {length.strip() for length in headers.get("content-length", "").split(",")}
    if lengths == {""}:
        return None
    (length, *others) = lengths
    if others or not _LENGTH.fullmatch(length):
        raise HTTPException("the answer names a length that is no number")
    return int(length)
