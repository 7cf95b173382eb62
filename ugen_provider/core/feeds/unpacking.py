# SPDX-License-Identifier: Apache-2.0
"""Out of whatever a feed is packed in, found by its first bytes and bounded, so that a bomb stays small."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.sources import ChunkReader

_BUFFER = 1 << 18
MOST_RATIO = 200
"""How many times larger than its packed form a feed may be. Real ones shrink 5 to 40 times."""
MOST_BYTES = 64 << 30
"""Bytes that a feed may have, unpacked. Google takes 4 GB."""

BAD_PACKAGE = (zlib.error, EOFError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a feed may become.

    Attributes:
        most_bytes: Bytes, unpacked.
        most_ratio: Unpacked to packed bytes.
        spared: Unpacked bytes below which the ratio does not count.
    """

    most_bytes: int = MOST_BYTES
    most_ratio: int = MOST_RATIO
    spared: int = 64 << 20


class _Counted(io.RawIOBase):
    """Passes bytes on and counts them."""

    def __init__(self, file: io.BufferedReader, check: Callable[[int], None]) -> None:
        self._file = file
        self._check = check
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = self._file.readinto(buffer)
        self.count += got
        self._check(self.count)
        return got


@contextmanager
def unpacked(file: io.BufferedReader, *, source: str, bounds: Bounds | None = None) -> Iterator[io.BufferedReader]:
    """The feed itself, whether it is packed as gzip, bzip2, zip or zstd, or not at all.

    Args:
        file: The bytes as they came.
        source: What to call the feed in errors.
        bounds: How large it may become.

    Raises:
        FeedError: It is packed in a way that cannot be opened here. While reading: it breaks off, or grows too large.
    """
    bounds = bounds or Bounds()
    head = file.peek(4)[:4]
    with ExitStack() as stack:
        packed = _Counted(file, lambda _: None)
        opened = _opened(head, packed, file, stack, source=source)

        def check(count: int) -> None:
            if count > bounds.most_bytes:
                raise FeedError(f"is larger than {bounds.most_bytes:,} bytes", source=source, offset=count)
            if opened is not None and count > bounds.spared and count > bounds.most_ratio * max(packed.count, 1):
                message = f"unpacks to more than {bounds.most_ratio} times its size; this is no product feed"
                raise FeedError(message, source=source, offset=count)

        yield io.BufferedReader(_Counted(opened or file, check), _BUFFER)


def _opened(
    head: bytes, packed: _Counted, file: io.BufferedReader, stack: ExitStack, *, source: str
) -> io.BufferedReader | None:
    if head.startswith(b"\x1f\x8b"):
        return _buffered(gzip.GzipFile(fileobj=io.BufferedReader(packed, _BUFFER), mode="rb"))
    if head.startswith(b"BZh"):
        return _buffered(bz2.BZ2File(io.BufferedReader(packed, _BUFFER)))
    if head == b"\x28\xb5\x2f\xfd":
        return _buffered(_zstd(io.BufferedReader(packed, _BUFFER), source=source))
    if head == b"PK\x03\x04":
        return _buffered(_zip_member(packed, file, stack, source=source))
    return None


def _buffered(file: Any) -> io.BufferedReader:
    return io.BufferedReader(cast("io.RawIOBase", file), _BUFFER)


def _zstd(packed: io.BufferedReader, *, source: str) -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        message = "is packed with zstd; install ugen-provider[parquet] to read it, or pack it with gzip"
        raise FeedError(message, source=source) from None
    return ChunkReader(_pieces(pa.CompressedInputStream(packed, "zstd")))


def _pieces(stream: Any) -> Iterator[bytes]:
    while chunk := stream.read(_BUFFER):
        yield chunk


def _zip_member(packed: _Counted, file: io.BufferedReader, stack: ExitStack, *, source: str) -> Any:
    whole: BinaryIO = file
    if not file.seekable():
        whole = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  the stack closes it
        while chunk := packed.read(_BUFFER):
            whole.write(chunk)
    archive = stack.enter_context(zipfile.ZipFile(whole))
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and not member.filename.startswith("__MACOSX/") and member.file_size
    ]
    if len(members) != 1:
        names = ", ".join(member.filename for member in members[:5]) or "nothing"
        raise FeedError(f"is a zip with {len(members)} files ({names}); pack one feed alone", source=source)
    packed.count = members[0].compress_size
    return archive.open(members[0])


@contextmanager
def seekable(file: io.BufferedReader) -> Iterator[BinaryIO]:
    """The same bytes in a file that can be read from its end, as Parquet wants it; on disk where they came by wire."""
    with tempfile.TemporaryFile() as whole:
        while chunk := file.read(_BUFFER):
            whole.write(chunk)
        whole.seek(0)
        yield whole
