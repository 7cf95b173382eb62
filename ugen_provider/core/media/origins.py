# SPDX-License-Identifier: Apache-2.0
"""Origins: one policy decides which addresses may be opened for feeds, pictures and downloads.

Two parties name addresses. The *user* writes a command, a DAG or a definition and may read what the process may read.
The *row* of a feed, and the service, are written by others: their addresses must not make this process read a file,
run code or reach a private network. For them the rule is a list of what is allowed, so a protocol that a later fsspec
adds is refused. No rule depends on the version of fsspec.
"""

from __future__ import annotations

import ipaddress
import os
import posixpath
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

from ugen_provider.core.api.errors import ConfigError, UGenError

STORE_SCHEMES = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "oss", "s3", "s3a", "tos"})
"""Schemes of object stores, the only ones besides http(s) and local paths that a row may use."""

_INDIRECT_SCHEMES = frozenset(
    {
        "async_wrapper", "asynclocal", "asyncwrapper", "blockcache", "cached", "dask", "data", "dir", "filecache",
        "generic", "jlab", "jupyter", "libarchive", "pyscript", "reference", "simplecache", "tar", "zip",
    }
)  # fmt: skip
"""Schemes whose files name other files, hold code, or are read through another protocol."""

_LOCAL_SCHEMES = frozenset({"file", "local"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HIDDEN = re.compile(r"%(2e|2f|5c|00)", re.IGNORECASE)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_MOST_LETTERS = 200


class OriginError(UGenError):
    """An address was refused before it was opened.

    Args:
        message: Which rule refuses it, and what to do.
        address: The address.

    Attributes:
        rule: The message without the address.
        address: The address, shortened, without credentials and query.
    """

    retryable = False

    def __init__(self, message: str, *, address: str) -> None:
        self.rule = message
        self.address = shown(address)
        super().__init__(f"{self.address}: {message}")


class PrivateAddressError(OriginError):
    """A host has an address outside the public internet, and private addresses were not allowed."""


@dataclass(frozen=True, slots=True)
class HTTPAddress:
    """An http(s) address. Only the guarded client of `core.media.http` opens it.

    Attributes:
        url: The address.
    """

    url: str


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on this machine.

    Attributes:
        path: The path, without symbolic links if a root holds it.
        root: The root that holds it; None for a file that the user named.
    """

    path: str
    root: str | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a store behind fsspec.

    Attributes:
        url: The address, which names one protocol.
    """

    url: str


Origin = HTTPAddress | LocalFile | StoredObject


def shown(address: str) -> str:
    """Return an address for a message: on one line, shortened, without credentials and query.

    Examples:
        >>> shown("https://me:secret@shop.example/lamp.jpg?token=1")
        'https://shop.example/lamp.jpg'
    """
    text = _CONTROL.sub(" ", address)
    if "://" in text:
        try:
            parts = urlsplit(text)
            text = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        except ValueError:
            text = text.partition("://")[0] + "://…"
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"


def is_http(address: str) -> bool:
    """Return whether an address names http or https.

    Examples:
        >>> is_http("HTTPS://shop.example/lamp.jpg"), is_http("s3://bucket/lamp.jpg")
        (True, False)
    """
    return address[:8].lower().startswith(("http://", "https://"))


def locate_named(address: str | os.PathLike[str]) -> Origin:
    """Find out how to open an address that the user named.

    A local path, http(s) and fsspec URLs of one protocol are allowed. Refused are chains (`::`) and protocols whose
    files name other files or hold code, such as `reference`: a file that others wrote would decide what is opened.

    Args:
        address: A path or URL.

    Raises:
        OriginError: The address is refused.

    Examples:
        >>> locate_named("feed.xml")
        LocalFile(path='feed.xml', root=None)
        >>> locate_named("sftp://shop.example/feed.xml")
        StoredObject(url='sftp://shop.example/feed.xml')
    """
    text = os.fspath(address)
    if isinstance(address, os.PathLike):
        return LocalFile(text)
    scheme = _scheme_of(text)
    if scheme is None or "://" not in text:
        return LocalFile(text)
    if scheme in {"http", "https"}:
        return HTTPAddress(text)
    if "::" in text:
        raise OriginError("chained protocols (`::`) are refused; name the file itself", address=text)
    if scheme in _LOCAL_SCHEMES:
        return LocalFile(_local_path(text))
    if scheme in _INDIRECT_SCHEMES:
        raise OriginError(f"the protocol {scheme!r} is refused; name the file itself", address=text)
    return StoredObject(text)


@dataclass(frozen=True, slots=True)
class _Root:
    scheme: str | None
    netloc: str
    path: str
    """Ends in `/`. Of a local root the real path."""


class RowOrigins:
    """Decides how to open an address from a row of a feed.

    http(s) addresses are allowed. A local path, or the URL of an object store, is allowed below a root that the user
    named. Everything else is refused.

    Args:
        roots: Local folders, or URLs of folders in an object store.

    Raises:
        ConfigError: A root is no absolute folder, or its protocol cannot be a root.

    Examples:
        >>> origins = RowOrigins(["s3://shop/pictures"])
        >>> origins.locate("s3://shop/pictures/lamp.jpg")
        StoredObject(url='s3://shop/pictures/lamp.jpg')
        >>> origins.locate("s3://shop/invoices/1.pdf")
        Traceback (most recent call last):
        ugen_provider.core.media.origins.OriginError: s3://shop/invoices/1.pdf: is below no picture root; ...
    """

    def __init__(self, roots: Iterable[str | os.PathLike[str]] = ()) -> None:
        self._roots = tuple(_root(root) for root in roots)

    def locate(self, address: str) -> Origin:
        """Find out how to open an address from a row.

        Args:
            address: The address in the feed.

        Raises:
            OriginError: The address is refused; nothing was opened.
        """
        scheme = _scheme_of(address)
        if _CONTROL.search(address):
            raise OriginError("has a control character", address=address)
        if scheme in {"http", "https"}:
            check_http(address)
            return HTTPAddress(address)
        if "::" in address:
            raise OriginError("chained protocols (`::`) are refused in a feed", address=address)
        if scheme is not None and scheme not in STORE_SCHEMES:
            raise OriginError(f"the protocol {scheme!r} is refused in a feed", address=address)
        if "\\" in address or _HIDDEN.search(address) or not _is_plain(_below_netloc(address, scheme)):
            raise OriginError("is no plain path: `..`, `.`, `//`, `\\` and encoded dots are refused", address=address)
        if scheme is None:
            return self._local(address)
        parts = urlsplit(address)
        if parts.query or parts.fragment:
            raise OriginError("has a query or a fragment", address=address)
        for root in self._roots:
            if (root.scheme, root.netloc) == (scheme, parts.netloc) and parts.path.startswith(root.path):
                return StoredObject(address)
        raise self._below_no_root(address)

    def _local(self, address: str) -> LocalFile:
        if not address.startswith("/"):
            raise OriginError("is no absolute path and no http(s) address", address=address)
        roots = [root for root in self._roots if root.scheme is None]
        if not roots:  # whether a file exists is none of the row's business
            raise self._below_no_root(address)
        real = os.path.realpath(address)
        for root in roots:
            if real.startswith(root.path):
                return LocalFile(real, root.path)
        raise self._below_no_root(address)

    @staticmethod
    def _below_no_root(address: str) -> OriginError:
        return OriginError(
            "is below no picture root; name its folder with --picture-root, or `pictures: roots:` in the mapping",
            address=address,
        )


def open_local(file: LocalFile) -> BinaryIO:
    """Open a local file for reading, without leaving its root.

    The folders below a root are opened one by one and never through a symbolic link, so that a link which another
    process puts there between the check and the opening leads nowhere. A pipe or a device is refused.

    Args:
        file: From `locate_named` or `RowOrigins.locate`.

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """
    if file.root is None:
        return Path(file.path).open("rb")
    inside = file.path[len(file.root) :].split("/")
    folder = os.open(file.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in inside[:-1]:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        descriptor = os.open(inside[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{file.path}: is no regular file")
    return os.fdopen(descriptor, "rb")


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet.

    An IPv6 address that carries an IPv4 address counts as that one. Tunnels (6to4, Teredo) and multicast never count.

    Args:
        address: As the resolver gives it, perhaps with a zone.

    Examples:
        >>> is_public("93.184.216.34"), is_public("10.0.0.7"), is_public("64:ff9b::7f00:1")
        (True, False, False)
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        carried = found.ipv4_mapped
        if carried is None and found in _NAT64:
            carried = ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)
        if carried is not None:
            return is_public(str(carried))
        if found.sixtofour is not None or found.teredo is not None or found.is_site_local or int(found) >> 125 != 1:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def check_http(url: str) -> None:
    """Refuse a link that is no http(s) address.

    Raises:
        OriginError: It is none.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise OriginError("is no http(s) link", address=url)


def same_origin(one: str, other: str) -> bool:
    """Return whether two http(s) addresses have the same scheme, host and port.

    Examples:
        >>> same_origin("https://a.example/x", "https://A.example:443/y"), same_origin("https://a.example", "http://a.example")
        (True, False)
    """
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _scheme_of(address: str) -> str | None:
    """Return the scheme in lower case, None for a path. A scheme without `//`, as in `data:`, counts too."""
    found = _SCHEME.match(address)
    return found[1].lower() if found is not None else None


def _below_netloc(address: str, scheme: str | None) -> str:
    return address if scheme is None else urlsplit(address).path


def _is_plain(path: str) -> bool:
    """Return whether a path has one reading: every storage takes it for the same file."""
    return path.startswith("/") and posixpath.normpath(path) == path and not path.startswith("//")


def _local_path(url: str) -> str:
    rest = url.partition(":")[2]
    if not rest.startswith("//"):
        return rest
    host, slash, path = rest[2:].partition("/")
    if host not in {"", "localhost"}:
        raise OriginError("names a file on another host", address=url)
    return unquote(slash + path)


def _root(named: str | os.PathLike[str]) -> _Root:
    text = os.fspath(named)
    scheme = _scheme_of(text)
    if "::" in text or _CONTROL.search(text):
        raise ConfigError(f"picture root {shown(text)}: chained protocols (`::`) cannot be a root")
    if scheme in _LOCAL_SCHEMES:
        text, scheme = _local_path(text), None
    if scheme is None:
        if not Path(text).is_absolute():
            raise ConfigError(f"picture root {shown(text)}: must be an absolute folder")
        return _Root(None, "", _ended(os.path.realpath(text)))
    if scheme not in STORE_SCHEMES:
        known = ", ".join(sorted(STORE_SCHEMES))
        raise ConfigError(f"picture root {shown(text)}: {scheme!r} cannot be a root; these can: {known}")
    parts = urlsplit(text)
    if parts.query or parts.fragment or not _is_plain(parts.path.rstrip("/") or "/"):
        raise ConfigError(f"picture root {shown(text)}: must be a plain folder, without `..`, query and fragment")
    return _Root(scheme, parts.netloc, _ended(parts.path))


def _ended(path: str) -> str:
    return path if path.endswith("/") else path + "/"
