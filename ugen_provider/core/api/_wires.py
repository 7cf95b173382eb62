# SPDX-License-Identifier: Apache-2.0
"""Connections to hosts that are not the API: which way they go, to which address, and how much one may be told at once.

An address is looked up once, asked about, and then connected: no name is looked up again in between.
"""

from __future__ import annotations

import base64
import io
import re
import selectors
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import proxy_bypass

from ugen_provider.core.api._transport import MOST_TIMEOUTS

Admit = Callable[[str], None]
"""Told each IP address that a name has, before anything is connected; raises where one may not be reached."""

_MOST_BESIDES = 1 << 17
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Way:
    """Where a connection leads; connections with the same are as good as one another.

    Attributes:
        scheme: `http` or `https`.
        host: As a name or address, in ASCII and without brackets.
        port: Of that host.
        proxy: The proxy between, None where the host is reached directly.
        admitted: Whether it was asked whether the address may be reached.
    """

    scheme: str
    host: str
    port: int
    proxy: str | None = field(repr=False)
    admitted: bool

    @property
    def authority(self) -> str:
        """The value of `Host`."""
        name = _bracketed(self.host)
        return name if self.port == _PORTS[self.scheme] else f"{name}:{self.port}"


class _Raw(io.RawIOBase):
    """What an answer is parsed from: a wire, read no further and no longer than was granted."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive(buffer)


class Wire:
    """One connection.

    A single step, such as reading the head of an answer, may bring so many bytes and take so long, and no more: lines
    without an end, drop by drop, are no answer either.
    """

    def __init__(self, connected: socket.socket, *, timeout: float, tick: Callable[[], float]) -> None:
        self._socket = connected
        self._timeout = timeout
        self._tick = tick
        self._until = self._bytes = 0.0
        self.idle_since = 0.0

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002  by this name the parser asks for it
        """What the parser reads."""
        return io.BufferedReader(cast("Any", _Raw(self)))

    def grant(self, most: int) -> None:
        """Begin the next step, which may bring so many bytes, and what HTTP says around them."""
        self._bytes = most + _MOST_BESIDES
        self._until = self._tick() + MOST_TIMEOUTS * self._timeout

    def receive(self, buffer: Any) -> int:
        """Take what is there, or wait for it."""
        count = self._socket.recv_into(buffer)
        self._bytes -= count
        if self._bytes < 0:
            raise HTTPException("it says more about its answer than can be meant")
        if self._tick() > self._until:
            raise TimeoutError(f"a part of the answer took longer than {MOST_TIMEOUTS * self._timeout:g} s")
        return count

    def ask(self, lines: list[str], *, method: str = "GET") -> HTTPResponse:
        """Send a request and read the head of its answer; the connection is closed where there is none."""
        try:
            self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
            self.grant(0)
            response = HTTPResponse(cast("socket.socket", self), method=method)
            response.begin()
        except BaseException:
            self.close()
            raise
        return response

    def secure(self, context: ssl.SSLContext, name: str) -> None:
        """Speak TLS from here on; the certificate must be that of the name."""
        self._socket = context.wrap_socket(self._socket, server_hostname=name)

    def limit(self, seconds: float) -> None:
        """How long one wait may be."""
        self._socket.settimeout(seconds)

    def is_quiet(self) -> bool:
        """Whether the other side has said nothing since the last answer, not even good-bye."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return not selector.select(0)

    def close(self) -> None:
        """End it."""
        self._socket.close()


def way_to(parts: SplitResult, proxies: Mapping[str, str], *, admitted: bool) -> Way:
    """The way to the host of a URL.

    Args:
        parts: The URL.
        proxies: By scheme, as the environment names them.
        admitted: See `Way`.

    Raises:
        ValueError: It is no http(s) URL.
    """
    if parts.scheme not in _PORTS or not parts.hostname or re.search(r"\s", parts.hostname):
        raise ValueError("is no http(s) address")
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode("ascii")
    port = parts.port or _PORTS[parts.scheme]
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and (proxy_bypass(host) or proxy_bypass(f"{_bracketed(host)}:{port}")):
        proxy = None
    return Way(parts.scheme, host, port, proxy or None, admitted)


def dialled(
    way: Way,
    admit: Admit | None,
    *,
    timeout: float,
    tick: Callable[[], float],
    context: Callable[[], ssl.SSLContext],
) -> Wire:
    """A new connection.

    Raises:
        OSError: There is none.
    """
    patience = min(10.0, timeout)
    if way.proxy is None:
        connected = _connected(way.host, way.port, patience, admit=admit)
    else:
        proxy = proxy_at(way.proxy)
        if admit is not None:
            for address in _addresses(way.host, way.port):
                admit(str(address[-1][0]))
        connected = _connected(proxy.hostname or "", proxy.port or 80, patience)
    wire = Wire(connected, timeout=timeout, tick=tick)
    try:
        if way.scheme == "https":
            if way.proxy is not None:
                _tunnel(wire, way, proxy_at(way.proxy))
            wire.secure(context(), way.host)
        wire.limit(timeout)
    except BaseException:
        wire.close()
        raise
    return wire


def _addresses(host: str, port: int) -> list[tuple[Any, ...]]:
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except OSError as error:
        raise OSError(f"{host}: {error}") from None


def _connected(host: str, port: int, patience: float, *, admit: Admit | None = None) -> socket.socket:
    """A connection to the first address that takes one; every address was asked about before."""
    found = _addresses(host, port)
    if admit is not None:
        for *_, address in found:
            admit(str(address[0]))
    refused: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in found:
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


def _tunnel(wire: Wire, way: Way, proxy: SplitResult) -> None:
    """Have a proxy pass everything on, so that it sees none of it."""
    name = f"{_bracketed(way.host)}:{way.port}"
    said = {"Host": name, **credentials("Proxy-Authorization", proxy)}
    response = wire.ask(
        [f"CONNECT {name} HTTP/1.1", *(f"{key}: {value}" for key, value in said.items())], method="CONNECT"
    )
    if not 200 <= response.status < 300:
        raise OSError(f"the proxy {proxy.hostname} answered {response.status}")


def proxy_at(address: str) -> SplitResult:
    """What the environment says of a proxy, taken apart.

    Raises:
        ValueError: It is of a kind that cannot be used.
    """
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"the environment names a proxy of the kind {parts.scheme}://; files can pass http:// only")
    return parts


def credentials(header: str, parts: SplitResult) -> dict[str, str]:
    """The header for the name and password in a URL; none where it has none."""
    if parts.username is None and parts.password is None:
        return {}
    plain = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return {header: f"Basic {base64.b64encode(plain.encode()).decode('ascii')}"}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
