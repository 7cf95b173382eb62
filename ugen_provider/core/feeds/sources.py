# SPDX-License-Identifier: Apache-2.0
"""Where a feed's bytes come from: a path, a URL, an open file, or anything with `.open("rb")`."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable
from urllib.parse import urlsplit

from ugen_provider.core.api._streams import open_stream
from ugen_provider.core.api.errors import TransportError
from ugen_provider.core.feeds.errors import FeedError

_BUFFER = 1 << 18


@runtime_checkable
class Openable(Protocol):
    """Anything that opens itself, such as Airflow's `ObjectStoragePath` or a `UPath`."""

    def open(self, mode: str) -> Any:
        """Open for reading bytes, given `"rb"`."""


FeedSource = str | os.PathLike[str] | BinaryIO | Openable
"""A local path, an http(s) or fsspec URL, an open binary file, or anything with `.open("rb")`."""


@dataclass(frozen=True, slots=True)
class OpenSource:
    """A source that is being read.

    Attributes:
        name: What to call it in messages: no credentials, no query.
        file: Its bytes, buffered, so that the beginning can be peeked at.
    """

    name: str
    file: io.BufferedReader


def source_name(source: FeedSource) -> str:
    """What to call a source in messages.

    Examples:
        >>> source_name("https://user:pw@shop.example/feed.xml?token=1")
        'https://shop.example/feed.xml'
    """
    if not isinstance(source, str | os.PathLike) and not hasattr(source, "path"):
        return str(getattr(source, "name", "the feed"))
    text = str(source)
    if "://" not in text:
        return text
    parts = urlsplit(text)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextmanager
def open_source(source: FeedSource, *, timeout: float = 60.0) -> Iterator[OpenSource]:
    """Open a source for one pass.

    Args:
        source: See `FeedSource`.
        timeout: For http(s): seconds without a byte after which it is given up.

    Raises:
        FeedError: It cannot be opened.
    """
    name = source_name(source)
    with ExitStack() as stack:
        try:
            raw = _open(source, stack, name=name, timeout=timeout)
        except (OSError, ImportError, ValueError, TransportError) as error:
            if isinstance(error, FeedError):
                raise
            raise FeedError(f"cannot be opened: {error}", source=name) from error
        yield OpenSource(name, raw)


def _open(source: FeedSource, stack: ExitStack, *, name: str, timeout: float) -> io.BufferedReader:
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        stream = stack.enter_context(open_stream(source, timeout=timeout))
        if stream.status != 200:
            location = stream.headers.get("location")
            moved = f", it moved to {source_name(location)}" if location else ""
            raise FeedError(f"the server answered {stream.status}{moved}; check the address", source=name)
        return io.BufferedReader(ChunkReader(stream.chunks()), _BUFFER)
    if isinstance(source, str) and "://" in source:
        import fsspec

        return buffered(stack.enter_context(fsspec.open(source, "rb")))
    if isinstance(source, str):
        return buffered(stack.enter_context(Path(source).open("rb")))
    if isinstance(source, Openable):
        return buffered(stack.enter_context(source.open("rb")))
    if isinstance(source, os.PathLike):
        return buffered(stack.enter_context(Path(os.fspath(source)).open("rb")))
    return buffered(source)


def buffered(file: Any) -> io.BufferedReader:
    """A binary file with `peek`, whatever kind of file it was."""
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
        """Always."""
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
