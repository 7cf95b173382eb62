# SPDX-License-Identifier: Apache-2.0
"""CSV and TSV as shops write them, row by row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.sources import ChunkReader, buffered

_DELIMITERS = ("\t", ",", ";", "|")
_PIECE = 1 << 18
MOST_LETTERS = 4 << 20
"""Characters that one line may have."""


class TextReader:
    """Lines of text out of bytes, bounded, with errors that know their place.

    Args:
        file: The bytes.
        source: What to call the feed in errors.
        encoding: Of the bytes; a byte order mark goes before it.
    """

    def __init__(self, file: io.BufferedReader, *, source: str, encoding: str | None = None) -> None:
        head = file.peek(4)[:4]
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            encoding = "utf-16"
        self._source = source
        self._encoding = encoding or "utf-8-sig"
        self._read = 0
        self._text = io.TextIOWrapper(_Counting(file, self), encoding=self._encoding, newline="")
        self.line = 0

    def count(self, more: int) -> None:
        """Take note that the decoder was given so many bytes more."""
        self._read += more

    def lines(self) -> Iterator[str]:
        """The lines, with their ends.

        Raises:
            FeedError: A line is longer than any product, or the bytes are not of this encoding.
        """
        readline = self._text.readline
        try:
            while line := readline(MOST_LETTERS):
                self.line += 1
                if len(line) == MOST_LETTERS and line[-1] != "\n":
                    message = f"a line is longer than {MOST_LETTERS:,} characters; this is no product feed"
                    raise FeedError(message, source=self._source, line=self.line)
                yield line
        except UnicodeDecodeError as error:
            place = self.line + 1 + error.object[: error.start].count(b"\n")
            raise self._undecodable(error, place) from None

    def pieces(self) -> Iterator[str]:
        """The text in pieces of any length.

        Raises:
            FeedError: The bytes are not of this encoding.
        """
        try:
            while piece := self._text.read(_PIECE):
                yield piece
        except UnicodeDecodeError as error:
            raise self._undecodable(error, None) from None

    def as_utf8(self) -> io.BufferedReader:
        """The same text as a file of UTF-8."""
        return buffered(ChunkReader(piece.encode() for piece in self.pieces()))

    def _undecodable(self, error: UnicodeDecodeError, line: int | None) -> FeedError:
        offset = self._read - len(error.object) + error.start
        cut = error.reason == "unexpected end of data" or "truncated" in error.reason
        hint = "it seems to be cut off" if cut else "give its encoding, such as encoding='latin-1'"
        message = f"is not {self._encoding.removesuffix('-sig')} ({error.reason}); {hint}"
        return FeedError(message, source=self._source, line=line, offset=offset)


class _Counting(io.BufferedReader):
    def __init__(self, file: io.BufferedReader, reader: TextReader) -> None:
        super().__init__(file)  # a buffered file is read like a raw one
        self._reader = reader

    def read1(self, size: int = -1, /) -> bytes:
        chunk = super().read1(max(size, 1 << 16))
        self._reader.count(len(chunk))
        return chunk


class TextItems:
    """The rows of one CSV or TSV feed.

    Args:
        reader: Its lines.
        source: What to call the feed in errors.

    Attributes:
        header: The column names, known once iteration has begun.
        commented: Whether there were `#` lines before the header, as Meta writes them.
    """

    def __init__(self, reader: TextReader, *, source: str) -> None:
        self._reader = reader
        self._source = source
        self._lines = reader.lines()
        self.commented = False
        self.header = self._header()

    def _header(self) -> tuple[str, ...]:
        for line in self._lines:
            if not line.strip():
                continue
            if line.startswith("#"):
                self.commented = True
                continue
            first = line
            break
        else:
            raise FeedError("is empty: it has no header line", source=self._source)
        counts = {delimiter: first.count(delimiter) for delimiter in _DELIMITERS}
        self._delimiter = "\t" if counts["\t"] else max(_DELIMITERS, key=lambda delimiter: counts[delimiter])
        self._before = self._reader.line - 1

        def all_lines() -> Iterator[str]:
            yield first
            yield from self._lines

        self._rows = csv.reader(all_lines(), delimiter=self._delimiter)
        try:
            names = tuple(name.strip() for name in next(self._rows))
        except csv.Error as error:
            raise self._unreadable(error, self._before + 1) from None
        if sum(map(bool, names)) < 2:
            message = f"has no header that can be read: {first.strip()[:80]!r}"
            raise FeedError(message, source=self._source, line=self._before + 1)
        return names

    def __iter__(self) -> Iterator[tuple[list[str], int, int]]:
        """Yield the cells, the line at which they begin, and the number of the row.

        Raises:
            FeedError: The text cannot be read further.
        """
        rows, before = self._rows, self._before
        number = 0
        line = before + rows.line_num + 1
        try:
            for cells in rows:
                if cells:
                    number += 1
                    yield cells, line, number
                line = before + rows.line_num + 1
        except csv.Error as error:
            raise self._unreadable(error, line) from None

    def _unreadable(self, error: csv.Error, line: int) -> FeedError:
        large = "field larger" in str(error)
        why = "a value has more than 131,072 characters; is a quote never closed?" if large else str(error)
        return FeedError(f"cannot be read as CSV: {why}", source=self._source, line=line)
