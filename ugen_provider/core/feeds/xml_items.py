# SPDX-License-Identifier: Apache-2.0
"""RSS 2.0, RSS 1.0 and Atom, item by item.

Expat's own handlers rather than `iterparse`: they know the line of every item, they are as fast, and no tree is built
whose emptied nodes would pile up. A DOCTYPE is refused, and with it every kind of entity trick.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from typing import NoReturn
from xml.parsers import expat

from ugen_provider.core.feeds.errors import FeedError

Row = dict[str, str | list[str]]
_CHUNK = 1 << 16
_GOOGLE = "http://base.google.com/ns/1.0"
_ROOTS = frozenset({"rss", "feed", "rdf:RDF", "RDF", "channel", "products", "items"})
_ITEMS = frozenset({"item", "entry", "product", "atom:entry", "rss:item"})
_MOST_DEPTH = 64
_MOST_TAGS = 200_000  # in one item; each that is open holds memory in expat
_LARGEST_TOKEN = 1 << 20  # expat looks at an unfinished tag again with every piece
LARGEST_ITEM = 16 << 20
"""Bytes that one item may have. Real ones stay below 100 kB; Meta refuses items above 5 MB."""


class XMLItems:
    """The items of one XML feed, each with its line and number.

    Args:
        file: The bytes.
        source: What to call the feed in errors.
        largest_item: Bytes that one item may have.
    """

    def __init__(self, file: BufferedReader, *, source: str, largest_item: int = LARGEST_ITEM) -> None:
        self._file = file
        self._source = source
        self._largest = largest_item
        self._ready: list[tuple[Row, int, int]] = []
        self._number = 0
        self._item_offset = -1
        self.prefixes: tuple[str, ...] = ("g:",)

    def __iter__(self) -> Iterator[tuple[Row, int, int]]:
        """Yield a row of raw tag names, its line and its number, one per item.

        Raises:
            FeedError: It is not well-formed, no feed, or beyond the bounds.
        """
        parser = self._parser()
        ready = self._ready
        fed = tags = 0
        try:
            while chunk := self._file.read(_CHUNK):
                parser.Parse(chunk, False)
                fed += len(chunk)
                tags = tags + chunk.count(b"<") if self._item_offset >= 0 and not ready else 0
                if ready:
                    yield from ready
                    ready.clear()
                self._check_bounds(parser, fed, tags)
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise self._malformed(error, parser) from None
        yield from ready

    def _check_bounds(self, parser: expat.XMLParserType, fed: int, tags: int) -> None:
        token = fed - max(parser.CurrentByteIndex, 0)
        item = fed - self._item_offset if self._item_offset >= 0 else 0
        if tags > _MOST_TAGS:
            self._refuse(f"has an item with more than {_MOST_TAGS:,} tags; this is no product feed", parser)
        if token > _LARGEST_TOKEN or item > self._largest:
            what, most = ("a tag", _LARGEST_TOKEN) if token > _LARGEST_TOKEN else ("an item", self._largest)
            raise FeedError(
                f"{what} is larger than {most:,} bytes; the feed is broken, or no product feed",
                source=self._source,
                line=parser.CurrentLineNumber,
                item=self._number,
            )

    def _malformed(self, error: expat.ExpatError, parser: expat.XMLParserType) -> FeedError:
        reason = expat.ErrorString(error.code)
        cut = "; it seems to be cut off" if error.code in _CUT_OFF else ""
        return FeedError(
            f"is not well-formed XML: {reason}{cut}",
            source=self._source,
            line=error.lineno,
            column=error.offset + 1,
            item=self._number,
            offset=parser.ErrorByteIndex,
        )

    def _refuse(self, message: str, parser: expat.XMLParserType) -> NoReturn:
        raise FeedError(message, source=self._source, line=parser.CurrentLineNumber, item=self._number)

    def _parser(self) -> expat.XMLParserType:  # noqa: C901, PLR0915  one state machine; its handlers share their state
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.buffer_size = _CHUNK
        ready = self._ready
        parts: list[str] = []
        inner: list[str] = []
        opened: dict[str, dict[str, str]] = {}
        depth = line = 0
        item_tag = ""
        row: Row = {}
        pop, last = opened.pop, parts.pop

        def start(tag: str, attributes: dict[str, str]) -> None:
            nonlocal depth, line, row, item_tag
            if tag in _ITEMS and depth:
                item_tag = tag
                line = parser.CurrentLineNumber
                self._number += 1
                self._item_offset = parser.CurrentByteIndex
                row = {}
                parser.CharacterDataHandler = parts.append
                # Within an item tags are only taken note of, without a call into Python; they nest in order.
                parser.StartElementHandler = opened.setdefault
                parser.EndElementHandler = end_field
                return
            if depth == 0:
                self._check_root(tag, attributes, parser)
            depth += 1
            if depth > _MOST_DEPTH:
                self._refuse(f"nests deeper than {_MOST_DEPTH} levels", parser)

        def end(_: str) -> None:
            nonlocal depth
            depth -= 1

        def end_field(tag: str) -> None:
            attributes = pop(tag, None)
            if opened or inner or attributes is None:  # none of which is so in most fields of most feeds
                end_other(tag, "".join(parts), attributes)
                parts.clear()
                return
            text = last() if parts else ""
            # What is left is the white space before the field, or this is a text in pieces.
            if parts and not ((before := last()).isspace() and not parts):
                text = "".join((*parts, before, text))
                parts.clear()
            if value := text.strip():
                if tag in row:
                    put(tag, value)
                else:
                    row[tag] = value
            elif attributes:
                put_address(tag, attributes)

        def end_other(tag: str, text: str, attributes: dict[str, str] | None) -> None:
            if opened:
                inner.append(text)
                if len(opened) == 1 and (value := text.strip()):
                    put(f"{next(iter(opened))}.{tag}", value)
            elif attributes is not None:
                whole = "".join((*inner, text)).strip()
                inner.clear()
                if whole:
                    put(tag, whole)
            elif tag == item_tag:
                end_item()

        def put_address(tag: str, attributes: dict[str, str]) -> None:
            if address := attributes.get("href") or attributes.get("url"):
                kind = attributes.get("rel", "alternate")
                put(tag if kind == "alternate" else f"{tag}.{kind}", address)

        def end_item() -> None:
            ready.append((row, line, self._number))
            self._item_offset = -1
            parser.CharacterDataHandler = None
            parser.StartElementHandler = start
            parser.EndElementHandler = end

        def put(name: str, value: str) -> None:
            earlier = row.get(name)
            if earlier is None:
                row[name] = value
            elif isinstance(earlier, list):
                earlier.append(value)
            else:
                row[name] = [earlier, value]

        def doctype(*_: object) -> None:
            self._refuse("has a DOCTYPE, which product feeds have no use for; remove it", parser)

        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.StartDoctypeDeclHandler = doctype
        return parser

    def _check_root(self, tag: str, attributes: dict[str, str], parser: expat.XMLParserType) -> None:
        if tag not in _ROOTS:
            is_page = tag.lower() == "html"
            hint = "this is a web page, perhaps a login page" if is_page else f"its root is <{tag[:40]}>"
            self._refuse(f"is no RSS or Atom feed: {hint}; check the address", parser)
        own = {name.partition(":")[2] for name, uri in attributes.items() if uri.strip() == _GOOGLE}
        self.prefixes = tuple(sorted({"g:", *(f"{prefix}:" for prefix in own if prefix)}))


_CUT_OFF = frozenset(
    expat.errors.codes[message]
    for message in (
        expat.errors.XML_ERROR_NO_ELEMENTS,
        expat.errors.XML_ERROR_UNCLOSED_TOKEN,
        expat.errors.XML_ERROR_PARTIAL_CHAR,
        expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
    )
)
