# SPDX-License-Identifier: Apache-2.0
"""JSON lines, and JSON documents that hold a list of products anywhere, one object at a time."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pydantic_core

from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.products import RejectedRow, excerpt

LARGEST_OBJECT = 16 << 20
"""Bytes that one product may have."""
_CHUNK = 1 << 18
_LONGEST_WORD = 32
_MOST_DEPTH = 8
_EMPTY = " (empty)"
_LISTS = frozenset(
    {
        *("products", "items", "entries", "data", "feed", "results", "offers", "records", "rows", "objects", "nodes"),
        *("edges", "resources", "@graph", "itemListElement", "hits", "docs", "catalog", "list", "content", "value"),
    }
)
_WRAPPERS = frozenset({"product", "item", "data", "result", "response", "node", "offer", "entry", "meta", "shop"})
"""Members that hold one object, and are no id of it."""
_ERRORS = ("error", "errors", "message", "detail", "error_description", "error_message", "title", "reason")
_PLACE = re.compile(r" at line (\d+) column (\d+)$")
_BETWEEN = re.compile(r"[\s,\ufeff]*")
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.|\\\Z)*+("|\Z)|[{}\[\]]', re.DOTALL)

IsProduct = Callable[[dict[str, Any]], bool]


def is_json_lines(head: str) -> bool:
    r"""Return whether a feed that begins with `{` has one object a line, rather than a list inside one document.

    Examples:
        >>> is_json_lines('{"id": 1}\n{"id": 2}'), is_json_lines('{"products": [{"id": 1}]}')
        (True, False)
    """
    first, newline, rest = head.lstrip("\ufeff \t\r\n").partition("\n")
    try:
        value = pydantic_core.from_json(first)
    except ValueError:
        # A broken first line is one of several if the next begins an object too.
        return bool(newline) and rest.lstrip().startswith("{") and first.rstrip().endswith("}")
    if not isinstance(value, dict):
        return False
    named = bool({"id", "sku", "title", "name"} & {name.lower() for name in value})
    holds_list = any(
        isinstance(one, list | dict) for name, one in value.items() if name in _LISTS or name in {"result", "response"}
    )
    if rest.lstrip().startswith("{"):
        # Pages of an API, one a line, are documents; a product may have lists of its own.
        return named or not _holds_objects(value)
    return named and not holds_list


def _holds_objects(value: dict[str, Any]) -> bool:
    """Return whether a list of objects is where the pages of an API have theirs."""
    inner = [one for name, one in value.items() if name in _LISTS or name in _WRAPPERS]
    return any(isinstance(one, list) and one and isinstance(one[0], dict) for one in inner) or any(
        _holds_objects(one) for one in inner if isinstance(one, dict)
    )


def json_lines(file: io.BufferedReader, *, source: str) -> Iterator[tuple[dict[str, Any], int, int] | RejectedRow]:
    """Yield the objects of a JSONL feed, with line and number; a line that is none is a rejected row.

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
        if content.startswith((b"\xef\xbb\xbf", b"\x1e")):
            content = content.removeprefix(b"\xef\xbb\xbf").removeprefix(b"\x1e")
        try:
            row = from_json(content)
        except (ValueError, RecursionError) as error:
            if not content.strip():
                continue
            number += 1
            shown = excerpt(content[:1000].decode("utf-8", "replace"))
            yield RejectedRow(line, number, None, "row", f"is no JSON ({_why(error)})", shown)
            continue
        number += 1
        if isinstance(row, dict):
            yield row, line, number
        else:
            yield RejectedRow(line, number, None, "row", "is no JSON object", excerpt(row))


def _why(error: Exception) -> str:
    """Return what is wrong with a line. It was parsed alone, so that the parser's own line number would mislead."""
    return _PLACE.sub(lambda place: f" at column {place[2]}" if place[1] == "1" else "", str(error))


def json_objects(
    text: Iterator[str],
    *,
    source: str,
    items: str | None = None,
    is_product: IsProduct = lambda row: True,  # noqa: ARG005
) -> Iterator[tuple[dict[str, Any], int, int] | RejectedRow]:
    """Yield the objects of the list of products in a JSON document, and in those that follow it.

    Several documents one after the other are what `jq '.products[]'` prints, and what a script that asks an API for
    page after page writes into one file.

    Args:
        text: The document, in pieces.
        source: The feed, for messages.
        items: The path of the list from the root, such as `result/items`; found where not given.
        is_product: Whether an object is a product, to distinguish its list from others.

    Raises:
        FeedError: It has no list of products, is cut off or broken, or an object is larger than any product.
    """
    scanner = _Scanner(text, source=source, is_product=is_product)
    path = tuple(step for step in re.split(r"[/.]", items) if step) if items else None
    number = 0
    while not number or scanner.is_at_document():
        line = scanner.line
        if (alone := scanner.open_list(path, further=number > 0)) is not None:
            if alone:
                number += 1
                yield alone, line, number
            continue
        header: list[str] | None = None
        before = number
        while (found := scanner.next_value()) is not None:
            value, line = found
            number += 1
            if isinstance(value, dict):
                yield value, line, number
            elif isinstance(value, RejectedRow):
                yield value
            elif number == before + 1 and header is None and (header := _header(value, is_product)) is not None:
                number -= 1
            elif isinstance(value, list) and header is not None and len(value) <= len(header):
                yield dict(zip(header, value, strict=False)), line, number
            else:
                yield RejectedRow(line, number, None, "row", "is no JSON object", excerpt(value))
        if number == before:
            return  # an empty list is the whole feed


def _header(value: Any, is_product: IsProduct) -> list[str] | None:
    """Return the names of a table's columns, where the first of several lists names them."""
    names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return value if names and is_product(dict.fromkeys(value)) else None


class _Scanner:
    """Reads a JSON document piece by piece: down to the list of products, then one element after the other."""

    def __init__(self, text: Iterator[str], *, source: str, is_product: IsProduct) -> None:
        self._text = text
        self._source = source
        self._is_product = is_product
        self._buffer = ""
        self._place = 0
        self._line = 1
        self._counted = 0
        self._number = 0
        self._decode = json.JSONDecoder().raw_decode
        self._scalars: dict[str, Any] = {}
        self._lists: list[str] = []
        self._ahead: list[tuple[Any, int]] = []
        self._by_id = False
        self._depth = 0

    @property
    def line(self) -> int:
        """The line that is read next, from 1."""
        self._peek()
        self._count_lines()
        return self._line

    def is_at_document(self) -> bool:
        """Go to the end of the document whose list was read. Returns whether another one begins there."""
        while self._depth and self._pass_brackets():
            pass
        return self._peek() in {"{", "["}

    def _pass_brackets(self) -> bool:
        """Read past a piece of what is around the list. Returns whether there is more; a missing end is no fault."""
        for token in _TOKEN.finditer(self._buffer, self._place):
            match token[0]:
                case "{" | "[":
                    self._depth += 1
                case "}" | "]":
                    self._depth -= 1
                    if not self._depth:
                        self._place = token.end()
                        return False
                case _ if not token[1]:
                    self._place = token.start()  # a text that continues in the next piece
                    return self._more()
            self._place = token.end()
        self._place = len(self._buffer)
        return self._more()

    def _more(self) -> bool:
        """Drop what is done, and take another piece."""
        piece = next(self._text, None)
        if piece is None:
            return False
        self._count_lines()
        self._buffer = self._buffer[self._place :] + piece
        self._place = self._counted = 0
        if len(self._buffer) > LARGEST_OBJECT + _CHUNK:
            message = f"an object is larger than {LARGEST_OBJECT:,} characters; this is no product feed"
            raise FeedError(message, source=self._source, line=self._line, item=self._number)
        return True

    def _count_lines(self) -> None:
        self._line += self._buffer.count("\n", self._counted, self._place)
        self._counted = self._place

    def _peek(self) -> str:
        """Return the next character that is neither white space nor a comma; empty at the end."""
        while True:
            found = _BETWEEN.match(self._buffer, self._place)
            assert found is not None  # it matches nothing too
            self._place = found.end()
            if self._place < len(self._buffer):
                return self._buffer[self._place]
            if not self._more():
                return ""

    def open_list(self, path: tuple[str, ...] | None, *, further: bool) -> dict[str, Any] | None:
        """Go to the list of products. Returns the product where the document is one and no list.

        Args:
            path: Where the list is, if that was given.
            further: Whether another document came before; then one whose lists are empty, as an API's last page is,
                has no products, and an empty object is returned.

        Raises:
            FeedError: The document has no such list; it says what it has.
        """
        begin = self._peek()
        self._scalars, self._lists, self._by_id, self._depth = {}, [], False, 0
        if begin == "[":
            self._place += 1
            return None
        if begin != "{":
            raise self._cut_off() if not begin else FeedError("is no JSON", source=self._source, line=self._line)
        if self._object((), path):
            return None
        if path is None and self._is_product(self._scalars):
            return self._scalars
        if path is None:
            single = next(
                (one for one in self._scalars.values() if isinstance(one, dict) and self._is_product(one)), None
            )
            if single is not None:
                return single
        if further and self._lists and all(name.endswith(_EMPTY) for name in self._lists):
            return {}
        said = next((self._scalars[name] for name in _ERRORS if self._scalars.get(name)), None)
        if said is not None and not self._lists:
            raise FeedError(f"is an error and no feed; the server said: {_spoken(said)!r}", source=self._source)
        there = f"; its lists are {', '.join(self._lists[:8])}" if self._lists else ""
        message = f"is JSON without a list of products{there}; name the path of the list with `items`"
        raise FeedError(message, source=self._source)

    def _object(self, above: tuple[str, ...], path: tuple[str, ...] | None) -> bool:
        """Walk through an object until a list of products is open. Returns whether one is."""
        self._place += 1
        while True:
            begin = self._peek()
            if begin == "}":
                self._place += 1
                return False
            if begin != '"':
                raise self._cut_off() if not begin else self._unreadable("an object has a member without a name")
            name = self._value()
            if self._peek() != ":":
                raise self._cut_off()
            self._place += 1
            here = (*above, str(name))
            begin = self._peek()
            if begin == "{" and path is None and self._opens_members(here[-1]):
                self._depth = len(here) - 1  # the end of the last member ends the object that holds them
                return True
            if begin == "[":
                if self._list(here, path):
                    self._depth = len(here)
                    return True
            elif begin == "{" and len(here) < _MOST_DEPTH and self._leads(here, path):
                if self._object(here, path):
                    return True
            else:
                value = self._value()
                if not above:
                    self._scalars[str(name)] = value

    def _leads(self, here: tuple[str, ...], path: tuple[str, ...] | None) -> bool:
        """Return whether to walk into an object; one that is small is read whole where it holds no list."""
        if path is not None:
            return path[: len(here)] == here
        return '"' in self._buffer[self._place :] and self._has_list()

    def _has_list(self) -> bool:
        depth = 0
        for token in _TOKEN.finditer(self._buffer, self._place):
            match token[0]:
                case "[":
                    return True
                case "{":
                    depth += 1
                case "}":
                    depth -= 1
                    if depth == 0:
                        return False
        return True

    def _opens_members(self, name: str) -> bool:
        """Open an object whose members are the products, each named by its id, as PHP writes arrays with keys."""
        if name.lower() in _WRAPPERS or name in _LISTS:
            return False
        begin = self._place
        try:
            value, end = self._decode(self._buffer, begin)
        except (ValueError, RecursionError):  # it is larger than what was read, or broken
            return False
        if not self._is_product({"id": name, **value}):
            return False
        self._count_lines()
        self._by_id, self._place = True, end
        self._ahead.append(({"id": name, **value}, self._line))
        return True

    def _list(self, here: tuple[str, ...], path: tuple[str, ...] | None) -> bool:
        """Open a list if it is the one of the products, else read past it. Returns whether it is open."""
        self._place += 1
        if path is not None and here == path:
            return True
        known = here[-1] in _LISTS
        seen: list[Any] = []
        while (found := self.next_value()) is not None:
            value = found[0]
            if path is None and isinstance(value, dict) and not seen and self._is_product(value):
                self._number -= 1
                self._ahead.append(found)
                return True
            if len(seen) < 20:
                seen.append(value)
                # Sparse first objects: a list of a known name is the one even if its first object lacks a name.
                if path is None and known and isinstance(value, dict) and self._is_product(value):
                    self._ahead += [(one, found[1]) for one in seen]
                    self._number -= len(seen)
                    return True
        self._number = 0
        if len(here) == 1:
            self._scalars[here[0]] = seen
        if here[-1] not in _ERRORS:
            self._lists.append("/".join(here) + ("" if seen else _EMPTY))
        return False

    def next_value(self) -> tuple[Any, int] | None:
        """Return the next element of the list that is open and its line; None at its end.

        An element that cannot be read, but whose end can be found, is a `RejectedRow`.
        """
        if self._ahead:
            self._number += 1
            return self._ahead.pop(0)
        begin = self._peek()
        if not begin:
            raise self._cut_off()
        if begin == ("}" if self._by_id else "]"):
            self._place += 1
            return None
        name = self._value() if self._by_id else None
        if name is not None and (self._peek() != ":" or not isinstance(name, str)):
            raise self._cut_off()
        self._place += name is not None
        self._peek()
        self._count_lines()
        line = self._line
        value = self._value(line=line)
        self._number += 1
        return ({"id": name, **value} if name is not None and isinstance(value, dict) else value), line

    def _value(self, *, line: int | None = None) -> Any:
        while True:
            try:
                value, end = self._decode(self._buffer, self._place)
            except json.JSONDecodeError as error:
                at_the_end = error.pos >= len(self._buffer) - _LONGEST_WORD or "Unterminated" in error.msg
                if at_the_end and self._more():
                    continue
                if line is not None and (after := self._end_of_element()) is not None:
                    return self._passed(after, line, f"is no JSON: {error.msg}")
                if at_the_end:
                    raise self._cut_off() from None
                raise self._broken(error) from None
            except (RecursionError, ValueError) as error:
                if line is not None and (after := self._end_of_element()) is not None:
                    reason = "nests too deep" if isinstance(error, RecursionError) else "a number is too long"
                    return self._passed(after, line, f"is no JSON that can be read: {reason}")
                raise self._unreadable("a value nests too deep, or is a number that is too long") from None
            # A number or a word at the very end may continue in the next piece.
            if end == len(self._buffer) and not isinstance(value, dict | list) and self._more():
                continue
            self._place = end
            return value

    def _passed(self, end: int, line: int, rule: str) -> RejectedRow:
        shown = excerpt(self._buffer[self._place : min(end, self._place + 400)])
        self._place = end
        return RejectedRow(line, self._number + 1, None, "row", rule, shown)

    def _end_of_element(self) -> int | None:
        """Return where an object or a list that cannot be read ends, by its brackets; None where they do not match."""
        if self._buffer[self._place] not in "{[":
            return None
        while True:
            depth = 0
            for token in _TOKEN.finditer(self._buffer, self._place):
                if token[0] in "{[":
                    depth += 1
                elif token[0] in "}]":
                    depth -= 1
                    if depth == 0:
                        return token.end()
            if not self._more():
                return None

    def _cut_off(self) -> FeedError:
        self._count_lines()
        return FeedError("is cut off: its list never ends", source=self._source, line=self._line, item=self._number)

    def _unreadable(self, message: str) -> FeedError:
        self._count_lines()
        return FeedError(f"is no JSON: {message}", source=self._source, line=self._line, item=self._number)

    def _broken(self, error: json.JSONDecodeError) -> FeedError:
        self._count_lines()
        line = self._line + error.doc.count("\n", self._place, error.pos)
        return FeedError(
            f"is no JSON: {error.msg}", source=self._source, line=line, column=error.colno, item=self._number
        )


def _spoken(said: Any) -> str:
    """Return an API's own words about its error."""
    if isinstance(said, dict):
        said = next((said[name] for name in (*_ERRORS, "code") if said.get(name)), said)
    elif isinstance(said, list) and said:
        return _spoken(said[0])
    return excerpt(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, default=str), most=200)
