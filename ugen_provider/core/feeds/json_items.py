# SPDX-License-Identifier: Apache-2.0
"""JSON lines, and JSON documents that hold a list of products, one object at a time."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pydantic_core

from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.products import RejectedRow, excerpt

LARGEST_OBJECT = 16 << 20
"""Bytes that one product may have."""
_CHUNK = 1 << 18
_LONGEST_WORD = 32
_LIST = re.compile(r'\s*\{(?:[^\[\]{}]|\{[^{}]*\})*?"(?:products|items|entries|data|feed)"\s*:\s*\[')
_PLACE = re.compile(r" at line (\d+) column (\d+)$")
_BETWEEN = re.compile(r"[\s,]*")


def is_json_lines(head: str) -> bool:
    r"""Whether a feed that begins with `{` has one object a line, rather than a list inside one document.

    Examples:
        >>> is_json_lines('{"id": 1}\\n{"id": 2}'), is_json_lines('{"products": [{"id": 1}]}')
        (True, False)
    """
    first, newline, _ = head.lstrip().partition("\n")
    try:
        value = pydantic_core.from_json(first)
    except ValueError:
        return bool(newline) is False and _LIST.match(head) is None
    return isinstance(value, dict) and ("id" in value or _LIST.match(first) is None)


def json_lines(file: io.BufferedReader, *, source: str) -> Iterator[tuple[dict[str, Any], int, int] | RejectedRow]:
    """Objects of a JSONL feed, with line and number; a line that is none is a rejected row.

    Raises:
        FeedError: A line is longer than any product.
    """
    from_json = pydantic_core.from_json
    file.peek(3)
    number = 0
    line = 0
    while content := file.readline(LARGEST_OBJECT):
        line += 1
        if len(content) == LARGEST_OBJECT and not content.endswith(b"\n"):
            message = f"a line is longer than {LARGEST_OBJECT:,} bytes; this is no product feed"
            raise FeedError(message, source=source, line=line)
        if line == 1:
            content = content.removeprefix(b"\xef\xbb\xbf")
        try:
            row = from_json(content)
        except ValueError as error:
            if not content.strip():
                continue
            number += 1
            shown = excerpt(content.decode("utf-8", "replace"))
            yield RejectedRow(line, number, None, "row", f"is no JSON ({_why(error)})", shown)
            continue
        number += 1
        if isinstance(row, dict):
            yield row, line, number
        else:
            yield RejectedRow(line, number, None, "row", "is no JSON object", excerpt(row))


def _why(error: ValueError) -> str:
    """What is wrong with a line. It was parsed alone, so that the parser's own line number would mislead."""
    return _PLACE.sub(lambda place: f" at column {place[2]}" if place[1] == "1" else "", str(error))


def json_objects(text: Iterator[str], *, source: str) -> Iterator[tuple[dict[str, Any], int, int] | RejectedRow]:
    """Objects of a JSON list, alone or under `products`, `items`, `entries`, `data` or `feed`.

    Args:
        text: The document, in pieces.
        source: What to call the feed in errors.

    Raises:
        FeedError: It is cut off or broken, or an object is larger than any product.
    """
    scanner = _Scanner(text, source=source)
    scanner.open_list()
    number = 0
    while (found := scanner.next_object()) is not None:
        value, line = found
        number += 1
        if isinstance(value, dict):
            yield value, line, number
        else:
            yield RejectedRow(line, number, None, "row", "is no JSON object", excerpt(value))


class _Scanner:
    def __init__(self, text: Iterator[str], *, source: str) -> None:
        self._text = text
        self._source = source
        self._buffer = ""
        self._place = 0
        self._line = 1
        self._counted = 0
        self._number = 0
        self._decode = json.JSONDecoder().raw_decode

    def _more(self) -> bool:
        """Drop what is done, and take another piece."""
        piece = next(self._text, None)
        if piece is None:
            return False
        self._count_lines()
        self._buffer = self._buffer[self._place :] + piece
        self._place = self._counted = 0
        if len(self._buffer) > LARGEST_OBJECT:
            message = f"an object is larger than {LARGEST_OBJECT:,} characters; this is no product feed"
            raise FeedError(message, source=self._source, line=self._line, item=self._number)
        return True

    def _count_lines(self) -> None:
        self._line += self._buffer.count("\n", self._counted, self._place)
        self._counted = self._place

    def open_list(self) -> None:
        while len(self._buffer) < _CHUNK and self._more():
            pass
        head = self._buffer
        if head.lstrip().startswith("["):
            self._place = head.index("[") + 1
        elif found := _LIST.match(head):
            self._place = found.end()
        else:
            message = "is JSON without a list of products; it should be a list, or have one under `products`"
            raise FeedError(message, source=self._source, line=1)

    def next_object(self) -> tuple[Any, int] | None:
        while True:
            found = _BETWEEN.match(self._buffer, self._place)
            assert found is not None  # it matches nothing too
            self._place = found.end()
            if self._place == len(self._buffer):
                if not self._more():
                    raise self._cut_off()
                continue
            if self._buffer[self._place] == "]":
                return None
            try:
                value, end = self._decode(self._buffer, self._place)
                # A number or a word at the very end may go on in the next piece.
                if end == len(self._buffer) and not isinstance(value, dict | list) and self._more():
                    continue
            except json.JSONDecodeError as error:
                at_the_end = error.pos >= len(self._buffer) - _LONGEST_WORD or "Unterminated" in error.msg
                if at_the_end and self._more():
                    continue
                raise self._broken(error) from None
            self._count_lines()
            line = self._line
            self._place = end
            self._number += 1
            return value, line

    def _cut_off(self) -> FeedError:
        self._count_lines()
        return FeedError("is cut off: its list never ends", source=self._source, line=self._line, item=self._number)

    def _broken(self, error: json.JSONDecodeError) -> FeedError:
        self._count_lines()
        line = self._line + error.doc.count("\n", self._place, error.pos)
        return FeedError(
            f"is no JSON: {error.msg}", source=self._source, line=line, column=error.colno, item=self._number
        )
