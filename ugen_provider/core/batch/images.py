# SPDX-License-Identifier: Apache-2.0
"""Pictures of a feed: inspected before anything is bought, and uploaded where the service cannot reach them.

Their addresses come from rows of a feed, so `RowOrigins` decides what may be opened, and every read is bounded.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO

import sqlalchemy as sa

from ugen_provider.core.api.async_client import AsyncUGenClient
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.feeds.pictures import PLACEHOLDER
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.store import Ledger, upsert
from ugen_provider.core.media.manifest import media_type_of
from ugen_provider.core.media.origins import HTTPAddress, LocalFile, Origin, OriginError, RowOrigins, open_local
from ugen_provider.core.text import one_line

LARGEST = 10 << 20
"""Bytes; the service takes no larger ones."""


def picture_identity(ledger: Ledger | None, address: str, *, origins: RowOrigins, remember: bool = True) -> str:
    """Return the digest of a picture's content, read again only when its size or time changed.

    Args:
        ledger: Remembers the digests; None for none.
        address: The address in the row.
        origins: Decides what may be opened.
        remember: Whether a digest that the ledger lacks is written into it.

    Raises:
        OriginError: The address is refused.
        OSError: The picture cannot be read.
        ValueError: It is too large.
        TransportError: Its host gave no answer.
    """
    origin = origins.locate(address)
    if isinstance(origin, HTTPAddress):
        return hashlib.sha256(_read(origin)).hexdigest()
    with _opened(origin) as (file, stamp):
        table = schema.picture_source
        query = sa.select(table.c.stamp, table.c.digest).where(table.c.address == address)
        known = None if ledger is None else ledger.read(lambda connection: connection.execute(query).one_or_none())
        if known is not None and known.stamp == stamp:
            return str(known.digest)
        digest = hashlib.sha256(_bounded(file)).hexdigest()
    if ledger is not None and remember:
        values = {"address": address, "stamp": stamp, "digest": digest}
        ledger.writer.run(lambda connection: upsert(connection, table, values))
    return digest


class Pictures:
    """Uploads, each content once for all runs of a ledger.

    Args:
        client: Uploads.
        ledger: Remembers what was uploaded.
        namespace: Of the connection: another account does not see the same uploads.
        origins: Decides what may be opened.
    """

    def __init__(self, client: AsyncUGenClient, ledger: Ledger, *, namespace: str, origins: RowOrigins) -> None:
        self._client = client
        self._ledger = ledger
        self._namespace = namespace
        self._origins = origins
        self._coming: dict[str, asyncio.Future[str]] = {}

    async def url(self, address: str, *, digest: str) -> str:
        """Return where the service finds a picture. Free; `POST /uploads/product-image` at most once per content.

        Args:
            address: The address in the row.
            digest: Of its content, as it was planned.

        Raises:
            OriginError: The address is refused.
            OSError: It cannot be read.
            InvalidRequestError: It is no picture that the service takes.
        """
        coming = self._coming.get(digest)
        if coming is None:
            coming = self._coming[digest] = asyncio.ensure_future(self._upload(address, digest))
        return await asyncio.shield(coming)

    async def _upload(self, address: str, digest: str) -> str:
        table = schema.picture
        query = sa.select(table.c.url).where(table.c.namespace == self._namespace, table.c.digest == digest)
        known = await asyncio.to_thread(self._ledger.read, lambda connection: connection.execute(query).scalar())
        if known is not None:
            return str(known)
        content = await asyncio.to_thread(lambda: _read(self._origins.locate(address)))
        url = (await self._client.uploads.create_product_image(content, filename=address.rpartition("/")[2])).url
        values = {"namespace": self._namespace, "digest": digest, "url": url, "uploaded_at": self._ledger.now()}
        await asyncio.to_thread(self._ledger.writer.run, lambda connection: upsert(connection, table, values))
        return url


def _read(origin: Origin) -> bytes:
    if isinstance(origin, HTTPAddress):
        from ugen_provider.core.media.http import shared_client

        content = bytearray()
        with shared_client().follow(origin.url) as stream:
            if stream.status != 200:
                raise OSError(f"the server answered {stream.status}")
            for piece in stream.chunks():
                content += piece
                if len(content) > LARGEST:
                    raise _too_large()
        return bytes(content)
    with _opened(origin) as (file, _):
        return _bounded(file)


@contextmanager
def _opened(origin: Origin) -> Iterator[tuple[IO[bytes], str]]:
    """A picture's file, with a text that changes when the file does."""
    if isinstance(origin, LocalFile):
        with open_local(origin) as file:
            state = os.fstat(file.fileno())
            if state.st_size > LARGEST:
                raise _too_large()
            yield file, f"{state.st_size}|{state.st_mtime_ns}|{state.st_ino}"
        return
    import fsspec

    filesystem, path = fsspec.url_to_fs(origin.url)
    info = filesystem.info(path)
    if info["type"] != "file":
        raise ValueError("is no file")
    if (info.get("size") or 0) > LARGEST:
        raise _too_large()
    names = ("size", "mtime", "ETag", "etag", "LastModified", "created")
    with filesystem.open(path, "rb") as file:
        yield file, "|".join(str(info.get(name)) for name in names)


def _bounded(file: IO[bytes]) -> bytes:
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise _too_large()
    return content


def _too_large() -> ValueError:
    return ValueError(f"is larger than {LARGEST:,} bytes")


# Before anything is bought: what the addresses of pictures hold.

_HEAD = 96 << 10
"""Bytes of a picture that are read to learn its type and its size in pixels."""
_SMALL = 300
_PAGE = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body)", re.IGNORECASE)
_SHARED = 3
"""Addresses with the same content from which on it is probably the picture of products that have none."""


@dataclass(frozen=True, slots=True)
class InspectedPicture:
    """The result of one look at the address of a picture.

    Attributes:
        kind: `ok`, `missing` (the server has none), `page` (a web page), `type` (no JPEG, PNG, WebP or GIF),
            `placeholder`, `small`, `large` (the service takes none above 10 MB), `refused` (an address that no row may
            name), `unreachable` or `not_inspected` (the time was up).
        problem: What is wrong, for a person; '' for `ok`.
        media_type: Such as `image/jpeg`; None where it is not known.
        width: Pixels; None where not known, or Pillow is not installed.
        height: Pixels.
        size: Bytes; None where the server does not say.
    """

    kind: str
    problem: str = ""
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    size: int | None = None


def inspect_pictures(
    addresses: Iterable[str],
    *,
    origins: RowOrigins,
    allow_private: bool = False,
    at_once: int = 16,
    seconds: float = 120.0,
    timeout: float = 10.0,
    on_progress: Callable[[int], None] = lambda done: None,  # noqa: ARG005
) -> dict[str, InspectedPicture]:
    """Read the beginning of each picture, and say what is wrong with it. Free; asks only the pictures' own hosts.

    Args:
        addresses: As the rows name them; each is read once.
        origins: Decides what may be opened.
        allow_private: Whether the hosts may have private addresses.
        at_once: Pictures that are read at the same time.
        seconds: Seconds after which the rest is not inspected.
        timeout: Seconds without a byte after which a host counts as unreachable.
        on_progress: Called with the number of pictures that are done.

    Examples:
        >>> inspect_pictures(["ftp://shop.example/a.jpg"], origins=RowOrigins())["ftp://shop.example/a.jpg"].kind
        'refused'
    """
    until = time.monotonic() + seconds
    read: dict[str, tuple[InspectedPicture, str]] = {}
    with ThreadPoolExecutor(at_once, thread_name_prefix="ugen-picture") as pool:
        try:
            coming = {
                pool.submit(
                    _inspect, address, origins=origins, allow_private=allow_private, until=until, timeout=timeout
                ): address
                for address in dict.fromkeys(addresses)
            }
            for done, future in enumerate(as_completed(coming), 1):
                read[coming[future]] = future.result()
                on_progress(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    shared = Counter(content for found, content in read.values() if content)
    return {
        address: _shared_placeholder(found, shared[content]) if content else found
        for address, (found, content) in read.items()
    }


def _shared_placeholder(found: InspectedPicture, count: int) -> InspectedPicture:
    if found.kind not in {"ok", "small"} or count < _SHARED:
        return found
    problem = f"is the same file as {count - 1} others: a placeholder?"
    return replace(found, kind="placeholder", problem=problem)


def _inspect(
    address: str, *, origins: RowOrigins, allow_private: bool, until: float, timeout: float
) -> tuple[InspectedPicture, str]:
    """Return the result, and the digest of the picture's beginning."""
    if time.monotonic() > until:
        return InspectedPicture("not_inspected", "was not inspected: the time was up"), ""
    try:
        origin = origins.locate(address)
        if isinstance(origin, HTTPAddress):
            return _inspect_http(address, allow_private=allow_private, until=until, timeout=timeout)
        with _opened(origin) as (file, stamp):
            size = int(stamp.partition("|")[0]) if stamp.partition("|")[0].isdigit() else None
            return _judge(address, file.read(_HEAD), media_type=None, size=size)
    except OriginError as error:
        return InspectedPicture("refused", f"will not be opened: {error.rule}"), ""
    except (OSError, ValueError, ImportError, UGenError) as error:
        kind = "missing" if isinstance(error, FileNotFoundError) else "unreachable"
        return InspectedPicture(kind, f"cannot be read: {one_line(str(error), most=160)}"), ""


def _inspect_http(address: str, *, allow_private: bool, until: float, timeout: float) -> tuple[InspectedPicture, str]:
    from ugen_provider.core.media.http import shared_client

    head = bytearray()
    with shared_client().follow(address, allow_private=allow_private, timeout=timeout) as stream:
        if stream.status != 200:
            kind = "missing" if stream.status in {404, 410} else "unreachable"
            said = "is missing" if kind == "missing" else "cannot be read"
            return InspectedPicture(kind, f"{said}: the server answered {stream.status}"), ""
        length = stream.headers.get("content-length", "")
        size = int(length) if length.isdigit() else None
        for piece in stream.chunks():
            head += piece
            if len(head) >= _HEAD or time.monotonic() > until:
                break
        else:
            size = len(head)
        return _judge(address, bytes(head[:_HEAD]), media_type=stream.headers.get("content-type"), size=size)


def _judge(address: str, head: bytes, *, media_type: str | None, size: int | None) -> tuple[InspectedPicture, str]:
    found = media_type_of(head[:16])
    said = (media_type or "").partition(";")[0].strip().lower()
    if found is None or not found.startswith("image/"):
        if _PAGE.match(head) or said in {"text/html", "application/xhtml+xml"}:
            return InspectedPicture("page", "is a web page and no picture", said or None, size=size), ""
        name = said or found or "a file of another kind"
        problem = "is empty" if not head else f"is {name}; the service takes JPEG, PNG, WebP and GIF"
        return InspectedPicture("type", problem, said or found, size=size), ""
    width, height = _pixels(head)
    picture = InspectedPicture("ok", "", found, width, height, size)
    digest = hashlib.sha256(head + str(size).encode()).hexdigest()
    if size is not None and size > LARGEST:
        return replace(picture, kind="large", problem=f"has {size:,} bytes; the service takes 10 MB"), digest
    if PLACEHOLDER.search(address):
        return replace(picture, kind="placeholder", problem="is a placeholder, by its address"), digest
    if width is not None and height is not None and min(width, height) < _SMALL:
        return replace(picture, kind="small", problem=f"is small: {width} by {height} pixels"), digest
    return picture, digest


def _pixels(head: bytes) -> tuple[int | None, int | None]:
    try:
        from PIL import Image
    except ImportError:
        return None, None
    try:
        with Image.open(io.BytesIO(head)) as image:
            return image.width, image.height
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None, None
