# SPDX-License-Identifier: Apache-2.0
"""CSV and TSV as shops write them, row by row.

Rows are parsed strictly by the standard library, and most are done with that. A row that it refuses is parsed alone, so
that a lone quote costs one row: the next line is the next row again.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.products import RejectedRow, column_name, excerpt
from ugen_provider.core.feeds.readers.text import MOST_LETTERS, UNDECODED, UNDECODED_BYTES, TextReader

_DELIMITERS = ("\t", ",", ";", "|", "^", "~", "\x01", "¦")
"""Between the values of text feeds; Hive writes the character 1."""
_MOST_HEAD = 40
_MOST_LINES = 2000  # of one quoted value


class _Resynchronize(Exception):  # noqa: N818  it is caught where it is raised
    """A quoted value has more lines than any product's."""


class TextItems:
    """The rows of one CSV or TSV feed.

    Args:
        reader: Its lines.
        source: The feed, for messages.
        is_header: Whether these names are the header of a feed; lines above it are titles and comments.

    Attributes:
        header: The column names.
        commented: Whether there were `#` lines before the header, as Meta writes them.
        line: The line of the header.
    """

    def __init__(
        self, reader: TextReader, *, source: str, is_header: Callable[[tuple[str, ...]], bool] | None = None
    ) -> None:
        self._reader = reader
        self._source = source
        self._lines = reader.lines()
        self._ahead: deque[str] = deque()
        self._taken = 0
        self._pending: list[str] = []
        self.commented = False
        self.line = 0
        self._delimiter = ","
        self.header = self._header(is_header or (lambda names: len(names) > 1))

    def _next_line(self) -> str | None:
        if self._ahead:
            line: str | None = self._ahead.popleft()
        else:
            line = next(self._lines, None)
        if line is not None:
            self._taken += 1
        return line

    def _give_back(self, lines: list[str]) -> None:
        self._ahead.extendleft(reversed(lines))
        self._taken -= len(lines)

    def _header(self, is_header: Callable[[tuple[str, ...]], bool]) -> tuple[str, ...]:
        head: list[str] = []
        while len(head) < _MOST_HEAD and (line := self._next_line()) is not None:
            head.append(line)
        if not any(line.strip(" \t\r\n\ufeff\x00") for line in head):
            raise FeedError("is empty: it has no header line", source=self._source)
        found = self._find_header(head, is_header)
        if found is None:
            first = next(line for line in head if line.strip(" \t\r\n\ufeff"))
            message = f"has no header that can be read: {excerpt(first)!r}"
            raise FeedError(message, source=self._source, line=head.index(first) + 1)
        number, used, names, delimiter = found
        self._give_back(head[number + used :])
        self.line = number + 1
        self._delimiter = delimiter
        bad = next((name for name in names if UNDECODED.search(name)), None)
        if bad is not None:
            message = f"its header {self._reader.undecodable()}"
            raise FeedError(message, source=self._source, line=self.line)
        return names

    def _find_header(
        self, head: list[str], is_header: Callable[[tuple[str, ...]], bool]
    ) -> tuple[int, int, tuple[str, ...], str] | None:
        """Return the header's position, its lines, its names and the delimiter.

        It is the first line whose names are those of products; where there is none, the first with several names. Of
        several such lines one below the other, as Amazon's templates have them, the last is the header.
        """
        stated: str | None = None
        fallback: tuple[int, int, tuple[str, ...], str] | None = None
        best: tuple[int, int, tuple[str, ...], str] | None = None
        for number, line in enumerate(head):
            text = line.strip("\r\n \ufeff\x00")
            if not text.strip():
                continue
            if text.lower().startswith("sep=") and len(text) == 5:
                stated = text[4]
                continue
            if text.lower() == "sep=":
                stated = "\t"
                continue
            delimiters = [stated] if stated else _delimiters_of(text)
            tried = [(delimiter, *self._names(head, number, delimiter)) for delimiter in delimiters]
            delimiter, names, used = next((one for one in tried if is_header(one[1])), tried[0])
            if is_header(names):
                if best is not None and number != best[0] + best[1]:
                    break
                best = (number, used, names, delimiter)
                if best is not None and number + used < len(head) and not _all_words(names):
                    break
                continue
            if best is not None:
                break
            if text.lstrip("\"' \t").startswith("#"):
                self.commented = True
                continue
            if fallback is None and sum(map(bool, names)) > 1:
                fallback = (number, used, names, delimiter)
        return best or fallback

    def _names(self, head: list[str], number: int, delimiter: str) -> tuple[tuple[str, ...], int]:
        lines = iter(head[number:])
        rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != "\t")
        try:
            cells = next(rows)
        except (csv.Error, StopIteration):
            return (), 1
        if rows.line_num > 5:  # a quote that is never closed
            cells = head[number].rstrip("\r\n").split(delimiter)
            return tuple(name.strip(' \ufeff"') for name in cells), 1
        return tuple(name.strip(" \t\ufeff\u200b") for name in cells), rows.line_num

    def __iter__(self) -> Iterator[tuple[list[str], int, int] | RejectedRow]:
        """Yield the cells, the line at which they begin, and the number of the row; or why there are none.

        Raises:
            FeedError: The text cannot be read further.
        """
        number = 0
        width = len(self.header)
        pending = self._pending
        before = self._reader.undecoded_before
        undecoded = UNDECODED_BYTES
        while True:
            pending.clear()
            try:
                for cells in self._strict_rows():
                    lines = len(pending)
                    if lines > 1 and not self._plausible(cells, pending, width):
                        break
                    if cells:
                        number += 1
                        line = self._taken - lines + 1
                        yield (cells, line, number) if undecoded.count == before else self._checked(cells, line, number)
                    pending.clear()
                else:
                    if not pending:
                        return
            except (csv.Error, _Resynchronize):
                pass
            # The row cannot be parsed strictly, or it swallowed further lines and still is none: parse it alone.
            line = self._taken - len(pending) + 1
            self._give_back(pending)
            number += 1
            yield self._alone(line, number, width)

    def _plausible(self, cells: list[str], lines: list[str], width: int) -> bool:
        """Return whether a row of several lines is one row, and no lone quote that swallowed the rows below it."""
        if len(cells) == width or not cells:
            return True
        return len(cells) < width and not any(line.count(self._delimiter) >= width - 1 for line in lines[1:])

    def _strict_rows(self) -> Iterator[list[str]]:
        return csv.reader(
            self._tracked(), delimiter=self._delimiter, skipinitialspace=self._delimiter != "\t", strict=True
        )

    def _tracked(self) -> Iterator[str]:
        """Yield the lines, and note those of the row that is being parsed."""
        pending = self._pending
        ahead = self._ahead
        lines = self._lines
        append = pending.append
        while True:
            if len(pending) > _MOST_LINES:
                raise _Resynchronize
            line = ahead.popleft() if ahead else next(lines, None)
            if line is None:
                return
            self._taken += 1
            append(line)
            yield line

    def _checked(self, cells: list[str], line: int, number: int) -> tuple[list[str], int, int] | RejectedRow:
        for position, cell in enumerate(cells):
            if not cell.isascii() and UNDECODED.search(cell):
                name = self.header[position] if position < len(self.header) else "row"
                return RejectedRow(line, number, None, column_name(name), self._reader.undecodable(), excerpt(cell))
        return cells, line, number

    def _alone(self, line: int, number: int, width: int) -> tuple[list[str], int, int] | RejectedRow:
        """Parse one row by hand: its quotes as far as they are balanced, else its unchanged line."""
        first = self._next_line()
        assert first is not None
        if '\\"' in first and (escaped := _escaped(first, self._delimiter)) and len(escaped) == width:
            return self._checked(escaped, line, number)
        cells, used = _parsed(first, self._following(), self._delimiter)
        lines = [first, *islice(self._ahead, used)]
        if cells is not None and (not used or self._plausible(cells, lines, width)):
            for _ in range(used):
                self._next_line()
            return self._checked(cells, line, number)
        plain = first.rstrip("\r\n").split(self._delimiter)
        whole = len(plain) == width
        if whole and (self._delimiter == "\t" or all(cell.count('"') % 2 == 0 for cell in plain)):
            return self._checked([_unquoted(cell) for cell in plain], line, number)
        opened = next((position for position, cell in enumerate(plain) if cell.lstrip().startswith('"')), 0)
        name = self.header[opened] if opened < width else "row"
        rule = f"opens a quote in line {line} that is not closed as CSV closes it; double quotes within a value"
        shown = plain[opened] if opened < len(plain) else first
        known = plain[0].strip().strip('"') if opened else None
        return RejectedRow(line, number, known or None, column_name(name), rule, excerpt(shown))

    def _following(self) -> Iterator[str]:
        """Yield the lines after this one without taking them."""
        position = 0
        while position < _MOST_LINES:
            if position >= len(self._ahead):
                line = next(self._lines, None)
                if line is None:
                    return
                self._ahead.append(line)
            yield self._ahead[position]
            position += 1


def _delimiters_of(line: str) -> list[str]:
    """Return the delimiters that a header may have, the likeliest first; what is quoted or in parentheses has none."""
    outside = re.sub(r"\([^()]*\)", "", "".join(part for number, part in enumerate(line.split('"')) if number % 2 == 0))
    counts = {delimiter: outside.count(delimiter) * 1000 + line.count(delimiter) for delimiter in _DELIMITERS}
    if counts["\t"]:
        counts["\t"] = max(counts.values()) + 1
    return sorted(_DELIMITERS, key=lambda delimiter: -counts[delimiter])


def _all_words(names: tuple[str, ...]) -> bool:
    return all("://" not in name for name in names)


def _unquoted(cell: str) -> str:
    bare = cell.strip()
    if len(bare) > 1 and bare[0] == bare[-1] == '"' and '"' not in bare[1:-1].replace('""', ""):
        return bare[1:-1].replace('""', '"')
    return cell


def _escaped(line: str, delimiter: str) -> list[str] | None:
    """Return the cells of a row whose quotes are escaped by backslashes, as MySQL writes them; None if it is none."""
    rows = csv.reader([line], delimiter=delimiter, escapechar="\\", doublequote=False, strict=True)
    try:
        return next(rows, None)
    except csv.Error:
        return None


def _parsed(first: str, following: Iterator[str], delimiter: str) -> tuple[list[str] | None, int]:
    """Parse a row of any value length strictly; return its cells and how many further lines it has, or no cells."""
    cells: list[str] = []
    text, used, place, length = first, 0, 0, len(first)
    while True:
        begin = place
        if delimiter != "\t":
            while begin < length and text[begin] == " ":
                begin += 1
        if text[begin : begin + 1] != '"':
            end = text.find(delimiter, place)
            if end < 0:
                cells.append(text[begin:].rstrip("\r\n"))
                break
            cells.append(text[begin:end])
            place = end + 1
            continue
        parts: list[str] = []
        place = begin + 1
        while True:
            end = text.find('"', place)
            if end < 0:
                parts.append(text[place:])
                more = next(following, None)
                used += 1
                if more is None or sum(map(len, parts)) > MOST_LETTERS:
                    return None, 0
                text, place = more, 0
                continue
            if text[end + 1 : end + 2] == '"':
                parts.append(text[place : end + 1])
                place = end + 2
                continue
            parts.append(text[place:end])
            break
        cells.append("".join(parts))
        length = len(text)
        place = end + 1
        if text[place : place + 1] == delimiter:
            place += 1
            continue
        if text[place:].strip("\r\n"):
            return None, 0
        break
    return cells, used
