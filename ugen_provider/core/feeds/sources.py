# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a feed come from, and how they are unpacked: bounded, so that a bomb stays small.

`open_parts` is the one function that opens anything for a feed. A feed of several files is read part by part.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable
from urllib.parse import urlsplit

from ugen_provider.core.api.errors import TransportError
from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.media.http import open_named, open_url
from ugen_provider.core.media.origins import OriginError

_BUFFER = 1 << 18
MOST_RATIO = 200
"""How many times larger than its packed form a feed may be. Real ones shrink 5 to 40 times."""
MOST_BYTES = 64 << 30
"""Bytes that a feed may have, unpacked. Google takes 4 GB."""
_MOST_REDIRECTS = 5
_MOST_PARTS = 10_000
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FEED_NAME = re.compile(
    r"\.(?:csv|tsv|tab|txt|xml|json|jsonl|ndjson|parquet|rss|atom|xlsx)(?:\.(?:gz|bz2|zst))?$", re.IGNORECASE
)
_NOTE_NAME = re.compile(r"(?:^|/)(?:read[ _-]?me|licen[cs]e|notice|changelog|liesmich|_success)[^/]*$", re.IGNORECASE)
_SQL = re.compile(r"(?:postgresql|postgres|mysql|mariadb|sqlite|duckdb|mssql|oracle|snowflake|bigquery|redshift|"
                  r"databricks|trino|clickhouse)(?:\+\w+)?://")  # fmt: skip

BAD_PACKAGE = (zlib.error, EOFError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, NotImplementedError)


@runtime_checkable
class Openable(Protocol):
    """Anything that opens itself, such as Airflow's `ObjectStoragePath` or a `UPath`."""

    def open(self, mode: str) -> Any:
        """Open for reading bytes, given `"rb"`."""


@dataclass(frozen=True, slots=True)
class SQLQuery:
    """The rows of a SQL query as a feed. They are read in batches, in the order of the query.

    Attributes:
        url: The database, as a SQLAlchemy URL.
        query: A query whose columns are those of a feed.
        parameters: Values of the query's named parameters.
    """

    url: str
    query: str
    parameters: Mapping[str, Any] | None = None


FileSource = str | os.PathLike[str] | BinaryIO | Openable
"""One file: a local path, an http(s) or fsspec URL, an open binary file, or anything with `.open("rb")`."""
FeedSource = FileSource | SQLQuery | Sequence[FileSource] | Iterable[Mapping[str, Any]] | Any
"""A file; a folder or a pattern such as `part-*.csv.gz`; several files; a `SQLQuery`; rows as mappings; or a table of
pandas, polars, Arrow or DuckDB."""


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


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a feed, open and unpacked.

    Attributes:
        name: Its name in messages: no credentials, no query.
        file: Its bytes, buffered, so that its beginning can be read ahead.
        charset: The encoding that the server named.
        label: Its short name, where the feed has several parts.
    """

    name: str
    file: io.BufferedReader
    charset: str | None = None
    label: str | None = None


def source_name(source: FeedSource) -> str:
    """Return the name of a source in messages.

    Examples:
        >>> source_name("https://user:pw@shop.example/feed.xml?token=1")
        'https://shop.example/feed.xml'
    """
    if isinstance(source, SQLQuery):
        return source_name(source.url)
    if isinstance(source, list | tuple):
        names = [source_name(one) for one in source]
        return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else "".join(names)
    if not isinstance(source, str | os.PathLike) and not hasattr(source, "path"):
        name = getattr(source, "name", None)
        return name if isinstance(name, str) else "the feed"
    text = str(source)
    if "://" not in text:
        return text
    parts = urlsplit(text)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def is_database(source: FeedSource) -> bool:
    """Return whether a source is the address of a database, which needs a query."""
    return isinstance(source, str) and _SQL.match(source) is not None


def is_file(source: FeedSource) -> bool:
    """Return whether a source is read as bytes: one file or several, and no rows."""
    if isinstance(source, list | tuple):
        return all(map(is_file, source))
    return isinstance(source, str | os.PathLike | Openable) or hasattr(source, "read")


def open_parts(source: FeedSource, *, timeout: float = 60.0, bounds: Bounds | None = None) -> Generator[Part]:
    """Open a feed's files one after the other, each while it is read.

    Args:
        source: One file, a folder, a pattern, or a sequence of these.
        timeout: For http(s): seconds without a byte after which it is given up.
        bounds: How large each may become.

    Yields:
        Each part; it is closed when the next is asked for.

    Raises:
        FeedError: A part cannot be opened or unpacked.
    """
    files = expanded(source)
    several = len(files) > 1
    for file in files:
        with _opened(file, timeout=timeout) as (name, raw, charset):
            for member, unpacked_file in _unpacked(raw, source=name, bounds=bounds or Bounds()):
                label = member or (PurePosixPath(name).name if several else None)
                yield Part(f"{name}/{member}" if member else name, unpacked_file, charset, label)


def expanded(source: FeedSource) -> list[FileSource]:
    """Return the files of a source, with folders and patterns resolved, in the order of their names.

    Raises:
        FeedError: A pattern or a folder holds no file, or the source is empty.
    """
    if isinstance(source, list | tuple):
        found = [file for one in source for file in expanded(one)]
        if not found:
            raise FeedError("names no file", source="the feed")
        return found
    if isinstance(source, os.PathLike) and not hasattr(source, "protocol"):
        source = os.fspath(source)
    if not isinstance(source, str) or source.startswith(("http://", "https://")):
        return [cast("FileSource", source)]
    if "://" in source:
        return _remote(source)
    path = Path(source)
    if path.is_dir():
        return _listed(source, (one for one in path.rglob("*") if one.is_file()), root=path)
    if any(character in source for character in "*?[") and not path.exists():
        import glob

        found_names = glob.glob(source, recursive=True)  # noqa: PTH207  a pattern may be absolute
        return _listed(source, (Path(name) for name in found_names if Path(name).is_file()))
    return [source]


def _listed(source: str, paths: Iterable[Path], *, root: Path | None = None) -> list[FileSource]:
    names = [
        str(path)
        for path in paths
        if not any(part.startswith((".", "_")) for part in (path.relative_to(root).parts if root else (path.name,)))
        and not _NOTE_NAME.search(path.name)
    ]
    return cast("list[FileSource]", _in_order(source, names))


def _remote(source: str) -> list[FileSource]:
    import fsspec

    is_pattern = any(character in source.partition("://")[2] for character in "*?[")
    try:
        filesystem, path = fsspec.url_to_fs(source)
        if is_pattern:
            names = filesystem.glob(path)
        elif source.endswith("/"):
            names = filesystem.find(path)
        else:
            return [source]
        names = [filesystem.unstrip_protocol(name) for name in names if not _hidden(name)]
    except (OSError, ImportError, ValueError) as error:
        raise FeedError(f"cannot be listed: {error}", source=source_name(source)) from error
    return cast("list[FileSource]", _in_order(source_name(source), names))


def _hidden(name: str) -> bool:
    last = name.rstrip("/").rpartition("/")[2]
    return last.startswith((".", "_")) or _NOTE_NAME.search(last) is not None


def _in_order(source: str, names: list[str]) -> list[str]:
    if not names:
        raise FeedError("no file has this name; check the pattern or the folder", source=source)
    if len(names) > _MOST_PARTS:
        raise FeedError(f"has more than {_MOST_PARTS:,} files", source=source)
    return sorted(names, key=lambda name: [int(one) if one.isdigit() else one for one in re.split(r"(\d+)", name)])


@contextmanager
def _opened(source: FileSource, *, timeout: float) -> Iterator[tuple[str, io.BufferedReader, str | None]]:
    name = source_name(source)
    with ExitStack() as stack:
        try:
            raw, charset = _open(source, stack, name=name, timeout=timeout)
        except (OSError, ImportError, ValueError, OriginError, TransportError) as error:
            if isinstance(error, FeedError):
                raise
            retryable = isinstance(error, TransportError)
            raise FeedError(f"cannot be opened: {error}", source=name, retryable=retryable) from error
        yield name, raw, charset


def _open(source: FileSource, stack: ExitStack, *, name: str, timeout: float) -> tuple[io.BufferedReader, str | None]:
    """Open one file for one pass. A policy on what a feed may open belongs at the beginning of this function."""
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        # A published Google Sheet always answers 307: redirects are followed, under the origin policy.
        stream = stack.enter_context(open_url(source, timeout=timeout))
        if stream.status != 200:
            location = stream.headers.get("location")
            moved = f", it moved to {source_name(location)}" if location else ""
            message = f"the server answered {stream.status}{moved}; check the address"
            retryable = stream.status >= 500 or stream.status in {408, 425, 429}
            raise FeedError(message, source=name, retryable=retryable)
        charset = re.search(r"charset=[\"']?([\w.:-]+)", stream.headers.get("content-type", ""), re.IGNORECASE)
        return io.BufferedReader(ChunkReader(stream.chunks()), _BUFFER), charset[1] if charset else None
    if isinstance(source, str):
        return buffered(stack.enter_context(open_named(source))), None
    if isinstance(source, Openable):
        return buffered(stack.enter_context(source.open("rb"))), None
    if isinstance(source, os.PathLike):
        return buffered(stack.enter_context(Path(os.fspath(source)).open("rb"))), None
    return buffered(source), None


def buffered(file: Any) -> io.BufferedReader:
    """Return a binary file with `peek`, from any kind of file."""
    return file if isinstance(file, io.BufferedReader) else io.BufferedReader(ChunkReader(_pieces(file)), _BUFFER)


def _pieces(file: Any) -> Iterator[bytes]:
    while chunk := file.read(_BUFFER):
        yield chunk


class ChunkReader(io.RawIOBase):
    """A file over chunks that come one by one.

    Args:
        chunks: The bytes, in pieces of any size.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True: the stream can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the current chunk."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _CountingStream(io.RawIOBase):
    """Passes bytes on and counts them."""

    def __init__(self, file: Any, check: Callable[[int], None]) -> None:
        self._file = file
        self._check = check
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got: int = self._file.readinto(buffer)
        self.count += got
        self._check(self.count)
        return got


def _unpacked(
    file: io.BufferedReader, *, source: str, bounds: Bounds, nested: bool = False
) -> Iterator[tuple[str, io.BufferedReader]]:
    """Yield the feed itself, whether it is packed as gzip, bzip2, zip or zstd, or not at all.

    Yields:
        The name of the member, empty except in a zip with several, and its bytes.

    Raises:
        FeedError: It is packed in a way that cannot be opened here. While reading: it breaks off, or grows too large.
    """
    head = file.peek(4)[:4]
    with ExitStack() as stack:
        packed = _CountingStream(file, lambda _: None)
        if head == b"PK\x03\x04" and not nested:
            archive = _archive(packed, file, stack)
            if is_workbook(archive):
                whole = cast("BinaryIO", archive.fp)
                whole.seek(0)
                yield "", io.BufferedReader(cast("io.RawIOBase", whole), _BUFFER)
                return
            members = _members(archive, source=source)
            for member in members:
                if member.flag_bits & 1:
                    raise FeedError(f"its member {member.filename} is encrypted", source=source)
                packed.count = member.compress_size
                inner = _bounded(archive.open(member), packed, source=source, bounds=bounds)
                name = member.filename if len(members) > 1 else ""
                for _, unpacked_file in _unpacked(inner, source=source, bounds=bounds, nested=True):
                    yield name, unpacked_file
            return
        opened = _decompressed(head, packed, source=source)
        yield "", _bounded(opened or file, packed if opened is not None else None, source=source, bounds=bounds)


def _bounded(opened: Any, packed: _CountingStream | None, *, source: str, bounds: Bounds) -> io.BufferedReader:
    def check(count: int) -> None:
        if count > bounds.most_bytes:
            raise FeedError(f"is larger than {bounds.most_bytes:,} bytes", source=source, offset=count)
        if packed is not None and count > bounds.spared and count > bounds.most_ratio * max(packed.count, 1):
            message = f"unpacks to more than {bounds.most_ratio} times its size; this is no product feed"
            raise FeedError(message, source=source, offset=count)

    return io.BufferedReader(_CountingStream(opened, check), _BUFFER)


def _decompressed(head: bytes, packed: _CountingStream, *, source: str) -> Any:
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=io.BufferedReader(packed, _BUFFER), mode="rb")
    if head.startswith(b"BZh"):
        return bz2.BZ2File(io.BufferedReader(packed, _BUFFER))
    if head == b"\x28\xb5\x2f\xfd":
        return _zstd(io.BufferedReader(packed, _BUFFER), source=source)
    return None


def _zstd(packed: io.BufferedReader, *, source: str) -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        message = "is packed with zstd; install ugen-provider[parquet] to read it, or pack it with gzip"
        raise FeedError(message, source=source) from None
    return ChunkReader(_pieces(pa.CompressedInputStream(packed, "zstd")))


def _archive(packed: _CountingStream, file: io.BufferedReader, stack: ExitStack) -> zipfile.ZipFile:
    whole: BinaryIO = file
    if not file.seekable():
        whole = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  the stack closes it
        while chunk := packed.read(_BUFFER):
            whole.write(chunk)
    return stack.enter_context(zipfile.ZipFile(whole))


def is_workbook(archive: zipfile.ZipFile) -> bool:
    """Return whether a zip is an Excel workbook."""
    names = set(archive.namelist())
    return "[Content_Types].xml" in names and any(name.startswith("xl/") for name in names)


def _members(archive: zipfile.ZipFile, *, source: str) -> list[zipfile.ZipInfo]:
    """Return the members that are the feed: those of one kind, beside notes such as a readme."""
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir()
        and not member.filename.startswith("__MACOSX/")
        and not PurePosixPath(member.filename).name.startswith(".")
        and member.file_size
    ]
    if len(members) > 1:
        members = [member for member in members if not _NOTE_NAME.search(member.filename)] or members
    if len(members) > 1:
        members = [member for member in members if _FEED_NAME.search(member.filename)] or members
    endings = {PurePosixPath(member.filename).suffix.lower() for member in members}
    if len(endings) > 1 and ".txt" in endings:
        members = [member for member in members if not member.filename.lower().endswith(".txt")]
        endings.discard(".txt")
    if len(members) != 1 and len(endings) != 1:
        names = ", ".join(member.filename for member in members[:5]) or "nothing"
        raise FeedError(f"is a zip with {len(members)} files ({names}); pack one kind of feed alone", source=source)
    return sorted(members, key=lambda member: member.filename)


@contextmanager
def seekable(file: io.BufferedReader) -> Iterator[BinaryIO]:
    """Give the same bytes as a file that can be read from its end, as Parquet needs; on disk where they were sent."""
    with tempfile.TemporaryFile() as whole:
        while chunk := file.read(_BUFFER):
            whole.write(chunk)
        whole.seek(0)
        yield whole
