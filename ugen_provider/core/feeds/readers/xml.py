# SPDX-License-Identifier: Apache-2.0
"""XML of any root, item by item.

Expat's own handlers rather than `iterparse`: they know the line of every item, they are as fast, and no tree is built
whose emptied nodes would pile up. Declared entities are refused, and with them every kind of entity bomb; nothing that
a document names is fetched.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from html.entities import html5
from io import BufferedReader
from typing import NoReturn
from xml.parsers import expat

from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.products import RejectedRow, excerpt
from ugen_provider.core.feeds.readers.text import is_utf8, known_encoding

_FIELD_END = re.compile(r"/([A-Za-z_][A-Za-z0-9_.:-]*)>[ \t\r\n]*")
# Nearly every item of nearly every feed is `<item>`, white space, and elements without attributes whose content is
# text. Such text is well-formed by its form alone, so an item that matches means what a parser would report, and is
# read many times faster. Everything else (attributes, nested elements, CDATA, comments) is left to the parser.

_BLANK_TEXT = re.compile(r"[ \t\r\n]*")
_LETTERS = {"lt": "<", "gt": ">", "quot": '"', "apos": "'", "amp": "&"}
_MOST_SHAPES = 10_000
_MOST_PATTERNS = 64
_WORTH_A_PATTERN = 20
_MOST_FIELDS = 90
_MOST_KNOWN = 1000
_LONG = 200
_known: dict[str, str] = {}
"""Texts with references that were resolved, since categories and brands occur in many items."""

Row = dict[str, str | list[str]]


class _Shape:
    """The fields of an item, in their order."""

    def __init__(self, tags: tuple[str, ...]) -> None:
        self.tags = tags
        self.begins = tuple(f"{tag}>" for tag in tags)
        self.lengths = tuple(len(begin) for begin in self.begins)
        self.is_unique = len(set(tags)) == len(tags)
        self.seen = 0
        self.pattern: re.Pattern[str] | None = None


class PlainItems:
    """Reads items of one tag.

    Args:
        tag: The element of the items.

    Attributes:
        tag: The element of the items.
        close: Its end tag.
    """

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.close = f"</{tag}>"
        self._open = f"<{tag}>"
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._newest: _Shape | None = None
        self._patterns = 0

    def skip(self, text: str, start: int) -> int:
        """Return where the white space at a place ends."""
        found = _BLANK_TEXT.match(text, start)
        return start if found is None else found.end()

    def read(self, text: str, start: int) -> tuple[Row, int] | None:
        """Read the item that begins at `start`; return its row, and where the white space after it ends.

        None if a parser has to read it.

        Args:
            text: A part of the document without `]]>`, decoded and without control characters.
            start: Where the item's tag begins.
        """
        newest = self._newest
        if newest is not None and newest.pattern is not None:
            found = newest.pattern.match(text, start)
            if found is not None:
                row = _row(newest, list(found.groups()), found[0])
                return None if row is None else (row, found.end())
        return self._read_by_parts(text, start)

    def _read_by_parts(self, text: str, start: int) -> tuple[Row, int] | None:
        end = text.find(self.close, start)
        if end < 0 or not text.startswith(self._open, start):
            return None
        whole = text[start + len(self._open) : end]
        before, *parts = whole.split("<")
        ends = tuple(parts[1::2])
        shape = self._shapes.get(ends) or self._shape_of(ends)
        opened = parts[::2]
        if shape is None or before.strip(" \t\r\n") or len(opened) != len(ends):
            return None
        if not all(map(str.startswith, opened, shape.begins)):
            return None
        row = _row(shape, [part[size:] for part, size in zip(opened, shape.lengths, strict=True)], whole)
        if row is None:
            return None
        self._remember(shape)
        return row, self.skip(text, end + len(self.close))

    def _shape_of(self, ends: tuple[str, ...]) -> _Shape | None:
        tags = [found[1] for part in ends if (found := _FIELD_END.fullmatch(part)) is not None]
        if len(tags) != len(ends) or len(self._shapes) >= _MOST_SHAPES:
            return None
        shape = self._shapes[ends] = _Shape(tuple(tags))
        return shape

    def _remember(self, shape: _Shape) -> None:
        """Make a pattern of a shape that many items have: one match reads an item like the one before it."""
        shape.seen += 1
        few = shape.pattern is None and self._patterns < _MOST_PATTERNS
        if shape.seen >= _WORTH_A_PATTERN and few and len(shape.tags) <= _MOST_FIELDS:
            blank = r"[ \t\r\n]*"
            fields = (rf"<{tag}>([^<]*)</{tag}>{blank}" for tag in map(re.escape, shape.tags))
            shape.pattern = re.compile(f"{re.escape(self._open)}{blank}{''.join(fields)}{re.escape(self.close)}{blank}")
            self._patterns += 1
        if shape.pattern is not None:
            self._newest = shape


def _row(shape: _Shape, values: list[str], whole: str) -> Row | None:
    """Return the fields of an item; None if its text has what only a parser resolves."""
    if "&" in whole:
        for number in [number for number, value in enumerate(values) if "&" in value]:
            value = values[number]
            resolved = _known.get(value)
            if resolved is None:
                resolved = _resolved(value)
                if resolved is None:
                    return None
                if len(_known) < _MOST_KNOWN and len(value) < _LONG:
                    _known[value] = resolved
            values[number] = resolved
    if "\r" in whole:
        if whole.count("\r") != whole.count("\r\n"):
            return None
        values = [value.replace("\r\n", "\n") for value in values]
    texts = list(map(str.strip, values))
    if shape.is_unique:
        row: Row = dict(zip(shape.tags, texts, strict=True))
        return row if all(texts) else {tag: value for tag, value in row.items() if value}
    row = {}
    for tag, text in zip(shape.tags, texts, strict=True):
        earlier = row.get(tag)
        if not text:
            continue
        if earlier is None:
            row[tag] = text
        elif isinstance(earlier, list):
            earlier.append(text)
        else:
            row[tag] = [earlier, text]
    return row


def _resolved(value: str) -> str | None:
    """Return a text with XML's own references resolved; None if it has others."""
    parts = value.split("&")
    for number, part in enumerate(parts[1:], 1):
        name, end, rest = part.partition(";")
        letter = _LETTERS.get(name)
        if letter is None or not end:
            return None
        parts[number] = letter + rest
    return "".join(parts)


_CHUNK = 1 << 16
_GOOGLE = "http://base.google.com/ns/1.0"
ITEM_NAMES = frozenset(
    {
        *("item", "entry", "product", "offer", "shopitem", "article", "artikel", "produkt", "produit", "producto"),
        *(
            "prodotto",
            "produto",
            "goods",
            "good",
            "row",
            "record",
            "sku",
            "listing",
            "angebot",
            "termek",
            "varer",
            "tuote",
        ),
    }
)
_NO_FEEDS = {
    "urlset": "this is a sitemap; give the address of the product feed",
    "sitemapindex": "this is an index of sitemaps; give the address of the product feed",
    "html": "this is a web page, perhaps a login page",
    "opml": "this is a list of subscriptions",
    "svg": "this is a picture",
}
_MOST_DEPTH = 64
_MOST_HEAD = 8  # pieces that are surveyed for an element that is a product
_MOST_TAGS = 200_000  # in one item; each that is open holds memory in expat
_LARGEST_TOKEN = 1 << 20  # expat reads an unfinished tag again with every piece
LARGEST_ITEM = 16 << 20
"""Bytes that one item may have. Real ones stay below 100 kB; Meta refuses items above 5 MB."""
_DECLARED = re.compile(rb"<\?xml[^>]*?\sencoding\s*=\s*[\"']([^\"'>]{1,60})[\"']")
_DROPPED = bytes({*range(0x20)} - {0x09, 0x0A, 0x0D, 0x0B, 0x0C})
_SPACED = bytes.maketrans(b"\x0b\x0c", b"  ")
_BLANK = b" \t\r\n\xef\xbb\xbf"
_BARE = re.compile(rb"&(?!(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z_][\w.-]{0,40});)")
_NUMERIC = re.compile(rb"&#(?:[xX]([0-9a-fA-F]{1,6})|([0-9]{1,7}));")
_SECTION = re.compile(rb"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)", re.DOTALL)
_COMMENT = re.compile(rb"<!--(.*?)-->", re.DOTALL)
_HTML = frozenset(
    {
        *(
            "a",
            "abbr",
            "b",
            "blockquote",
            "br",
            "div",
            "em",
            "font",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "hr",
            "i",
            "li",
        ),
        *(
            "ol",
            "p",
            "pre",
            "small",
            "span",
            "strong",
            "sub",
            "sup",
            "table",
            "tbody",
            "td",
            "th",
            "thead",
            "tr",
            "u",
            "ul",
        ),
    }
)
_BEGIN_OF_BLOCK = {**dict.fromkeys(("p", "div", "br", "tr", "h1", "h2", "h3", "h4", "h5", "h6"), "\n"), "li": "\n• "}
_BAD_BYTE = "\ufffd"
_REPLACED = _BAD_BYTE.encode()
_UNDEFINED = "\ufffe"  # no character, so that no text can hold it: it marks an item with an undefined entity


def xml_text(
    file: BufferedReader,
    *,
    source: str,
    encoding: str | None = None,
    charset: str | None = None,
    on_dropped: Callable[[int], None] = lambda lines: None,  # noqa: ARG005
    on_bad_byte: Callable[[], None] = lambda: None,
) -> Iterator[bytes]:
    """Yield an XML document as UTF-8 that expat takes, cut after a tag: without what is no XML but common in feeds.

    White space and byte order marks before the declaration are dropped, control characters and bare ampersands are
    replaced, bytes that are not of the encoding become U+FFFD.

    Args:
        file: The bytes.
        source: The feed, for messages.
        encoding: Of the bytes, as the user named it; else what the document declares.
        charset: As the server named it, for a document that declares none and is not UTF-8.
        on_dropped: Called with the number of lines that were dropped before the declaration.
        on_bad_byte: Called when a byte is not of the encoding.

    Raises:
        FeedError: The encoding is not known, or a tag has no end.
    """
    head = file.peek(_CHUNK)[: 1 << 16]
    decode = _decoder(head, encoding, charset, source)
    bad = on_bad_byte
    held: list[bytes] = []
    size = 0
    in_section = False
    first = True
    while True:
        raw = file.read(_CHUNK)
        piece = raw
        if decode is not None:
            piece = decode(raw)
            if _REPLACED in piece:
                bad()
        piece = piece.translate(_SPACED, _DROPPED)
        if first and (piece or not raw):
            on_dropped(piece[: len(piece) - len(piece.lstrip(_BLANK))].count(b"\n"))
            piece = _begun(piece, source)
            first = not piece and bool(raw)
        if not raw:
            yield _repaired(_decodable(b"".join((*held, piece)), bad), in_section)[0]
            return
        end = piece.rfind(b">") + 1
        if not end:
            held.append(piece)
            size += len(piece)
            if size > LARGEST_ITEM:
                raise FeedError(f"a text is larger than {LARGEST_ITEM:,} bytes; this is no product feed", source=source)
            continue
        repaired, in_section = _repaired(_decodable(b"".join((*held, piece[:end])), bad), in_section)
        held, size = [piece[end:]], len(piece) - end
        yield repaired


def _begun(piece: bytes, source: str) -> bytes:
    piece = piece.lstrip(_BLANK)
    if not piece.startswith(b"<?xml") and (place := piece.find(b"<?xml ")) > 0:
        shown = excerpt(piece[:place].decode("utf-8", "replace"))
        message = f"there is text before the XML: it begins with {shown!r}, perhaps a warning of the shop's server"
        raise FeedError(message, source=source, line=1)
    return piece


def _decoder(head: bytes, encoding: str | None, charset: str | None, source: str) -> Callable[[bytes], bytes] | None:
    """Return what turns the bytes into UTF-8; None where they are declared as that."""
    name = None
    for mark, marked in (
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
        (b"<\x00", "utf-16-le"),
        (b"\x00<", "utf-16-be"),
    ):
        if head.startswith(mark):
            name = marked
    if name is None:
        declared = _DECLARED.search(head[:1024])
        stated = encoding or (declared[1].decode("ascii", "replace") if declared else None)
        if stated is None:
            stated = charset if charset is not None and not is_utf8(head) else "utf-8"
        name = known_encoding(stated, source=source)
        if name.startswith(("utf-16", "utf-32")):  # the declaration itself was read byte by byte
            name = "utf-8"
    if name in {"utf-8", "utf-8-sig"}:
        return None
    try:
        decoder = codecs.getincrementaldecoder(name)(errors="replace")
    except (LookupError, AttributeError):
        raise FeedError(f"is encoded as {name}, which cannot be read in pieces", source=source) from None
    return lambda raw: decoder.decode(raw, final=not raw).encode()


def _decodable(whole: bytes, on_bad_byte: Callable[[], None]) -> bytes:
    """Return bytes that are UTF-8; those that are not become U+FFFD."""
    try:
        whole.decode()
    except UnicodeDecodeError:
        on_bad_byte()
        return whole.decode("utf-8", "replace").encode()
    return whole


def _repaired(whole: bytes, in_section: bool) -> tuple[bytes, bool]:
    """Return the text with bare ampersands and impossible character numbers replaced, and whether a CDATA is open."""
    if b"\xef" in whole and (b"\xef\xbf\xbe" in whole or b"\xef\xbf\xbf" in whole):
        whole = whole.replace(b"\xef\xbf\xbe", b" ").replace(b"\xef\xbf\xbf", b" ")
    if b"&" in whole and (_BARE.search(whole) or (b"#" in whole and b"&#" in whole)):
        whole = _outside_sections(whole, in_section)
    if b"!" in whole and b"<!--" in whole:  # one letter is found many times faster than several
        whole = _COMMENT.sub(_plain_comment, whole)
    if b"[" not in whole and b"]" not in whole:
        return whole, in_section
    opened, closed = whole.rfind(b"<![CDATA["), whole.rfind(b"]]>")
    return whole, opened > closed or (in_section and closed < 0 and opened < 0)


def _plain_comment(found: re.Match[bytes]) -> bytes:
    """Return a comment without the double hyphens that XML forbids in it, and shops write."""
    return b"<!--%b -->" % found[1].replace(b"--", b"- ") if b"--" in found[1] or found[1][-1:] == b"-" else found[0]


def _outside_sections(whole: bytes, in_section: bool) -> bytes:
    parts: list[bytes] = []
    place = 0
    if in_section:
        place = whole.find(b"]]>")
        if place < 0:
            return whole
        parts.append(whole[:place])
    for section in _SECTION.finditer(whole, place):
        parts += (_references(whole[place : section.start()]), section[0])
        place = section.end()
    parts.append(_references(whole[place:]))
    return b"".join(parts)


def _references(text: bytes) -> bytes:
    return _NUMERIC.sub(_number, _BARE.sub(b"&amp;", text))


def _number(found: re.Match[bytes]) -> bytes:
    number = int(found[1], 16) if found[1] else int(found[2])
    fine = (
        number in {9, 10, 13} or 0x20 <= number <= 0xD7FF or 0xE000 <= number <= 0xFFFD or 0x10000 <= number <= 0x10FFFF
    )
    return found[0] if fine else b" "


class XMLItems:
    """The items of one XML feed, each with its line and number.

    Args:
        file: The bytes.
        source: The feed, for messages.
        encoding: Of the bytes, as the user named it.
        charset: As the server named it.
        items: The path of the items from the root, such as `export/stock/ware`; found where not given.
        is_item: Whether an element with these children and attributes is a product.
        largest_item: Bytes that one item may have.
    """

    def __init__(
        self,
        file: BufferedReader,
        *,
        source: str,
        encoding: str | None = None,
        charset: str | None = None,
        items: str | None = None,
        is_item: Callable[[set[str]], bool] = lambda names: False,  # noqa: ARG005
        largest_item: int = LARGEST_ITEM,
    ) -> None:
        self._source = source
        self._largest = largest_item
        self._dropped = 0
        self._doubts = False
        self._text = xml_text(
            file,
            source=source,
            encoding=encoding,
            charset=charset,
            on_dropped=self._add_dropped,
            on_bad_byte=self._doubt,
        )
        self._ready: list[tuple[Row, int, int] | RejectedRow] = []
        self._number = 0
        self._item_offset = -1
        self._plain: PlainItems | None = None
        self._plain_by_tag: dict[str, PlainItems] = {}
        self._item_end = -(1 << 60)
        """Where the parser saw the end tag of the newest item."""
        self._line = 0
        """The line at which the newest item ended."""
        self._read = self._fed = self._feeding = 0
        """Bytes of the document, and those that the parser was fed."""
        self._place = ("", 0)
        self._rest = ""
        """The beginning of an item whose end is in the next chunk."""
        self._path = tuple(step for step in re.split(r"[/.]", items) if step) if items else None
        self._is_item = is_item
        self.prefixes: tuple[str, ...] = ("g:",)

    def __iter__(self) -> Iterator[tuple[Row, int, int] | RejectedRow]:
        """Yield a row of raw tag names, its line and its number, one per item.

        Raises:
            FeedError: It is not well-formed, no feed, or beyond the bounds.
        """
        head: list[bytes] = []
        names: tuple[str, ...] | None = None
        for piece in self._text:
            head.append(piece)
            names = self._recognized(b"".join(head), whole=len(head) == _MOST_HEAD)
            if names is not None:
                break
        if names is None:
            names = self._recognized(b"".join(head), whole=True) or ()
        parser = self._parser(names)
        ready = self._ready
        tags = 0
        segment = b""
        try:
            for chunk in _all(head, self._text):
                for segment in self._not_plain(chunk):
                    self._feeding = len(segment)
                    parser.Parse(segment, False)
                    self._fed += self._feeding
                    self._feeding = 0
                    tags = tags + segment.count(b"<") if self._item_offset >= 0 and not ready else 0
                    self._check_bounds(parser, self._fed, tags)
                if ready:
                    yield from ready
                    ready.clear()
            segment = self._rest.encode()
            self._place, self._feeding = ("", 0), len(segment)
            parser.Parse(segment, False)
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            # Once the root is closed, the feed is whole: a server's warning below it costs nothing. A second document,
            # or the rest of one, has elements of its own and is never dropped.
            text, end = self._place
            rest = segment[parser.ErrorByteIndex - self._fed :], text[end:].encode(), *head
            below = (*rest, *self._text) if error.code == _AFTER_ROOT else ()
            if not below or any(map(_has_elements, below)):
                raise self._malformed(error, parser) from None
        yield from ready

    def _not_plain(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what of a chunk only the parser can read, and read the plain items in between without it.

        A plain item counts only directly after an item that the parser itself has seen end: there the parser is between
        two items, and in no comment or other markup. It is fed white space in place of plain items, so that its lines
        and columns stay those of the document.
        """
        self._read += len(chunk)
        plain, self._place = self._plain, ("", 0)
        if plain is None or (b"]" in chunk and b"]]>" in chunk):
            whole, self._rest = self._rest.encode() + chunk, ""
            yield whole
            return
        text = self._rest + chunk.decode()
        self._rest, place, blank = "", 0, ""
        close = plain.close
        while True:
            if self._is_between_items(close):
                begun, place = place, self._take_plain(plain, text, place)
                blank = _blank_of(text[begun:place])
            end = text.find(close, place)
            if end < 0:
                break
            end += len(close)
            self._place = (text, end)
            yield (blank + text[place:end]).encode()
            blank, place = "", end
        is_between = self._is_between_items(close) and len(text) - place <= _CHUNK
        if not is_between:
            blank, place = blank + text[place:], len(text)
        self._place = (text, place)
        if blank:
            yield blank.encode()
        if is_between:
            self._item_end, self._rest = self._fed - len(close), text[place:]

    def _is_between_items(self, close: str) -> bool:
        """Return whether the end of an item is the last thing that the parser has read."""
        return self._item_end + len(close) == self._fed

    def _take_plain(self, plain: PlainItems, text: str, place: int) -> int:
        """Read the plain items from a place on, and return where the first other text begins."""
        ready = self._ready
        doubts, line, number = self._doubts, self._line, self._number
        done = plain.skip(text, place)
        line += text.count("\n", place, done)
        place = done
        most = self._largest // 4  # a letter has four bytes at most
        while (item := plain.read(text, place)) is not None:
            row, end = item
            if end - place > most:
                break
            number += 1
            found = (row, line, number)
            ready.append(_judged(*found) if doubts else found)
            line += text.count("\n", place, end)
            place = end
        self._line, self._number = line, number
        return place

    def _doubt(self) -> None:
        self._doubts = True

    def _add_dropped(self, lines: int) -> None:
        self._dropped += lines

    def _recognized(self, head: bytes, *, whole: bool) -> tuple[str, ...] | None:
        """Return the path of the items below the root, empty where their names alone decide.

        None asks for more of the document, where this is not the `whole` that is surveyed.

        The items are the outermost elements that have the children of a product; in a document of known names they are
        found by these.
        """
        if self._path is not None:
            return self._path
        survey = _Survey()
        survey.read(head)
        if survey.root is not None and (hint := _NO_FEEDS.get(_local(survey.root).lower())) is not None:
            raise FeedError(f"is no product feed: {hint}", source=self._source)
        if survey.has_known or survey.stopped:
            return ()  # known names, or a document that the parser itself refuses
        found = [path for path, names in survey.children.items() if len(path) > 1 and self._is_item(names)]
        if found:
            # A shop may have an id and a name too; its products are many.
            return min([path for path in found if survey.counts[path] > 1] or found, key=len)
        if not whole:
            return None
        repeated = [path for path, count in survey.counts.items() if len(path) > 1 and count > 1]
        shown = ", ".join("/".join(path) for path in repeated[:5])
        hint = f"; elements that occur more than once: {shown}" if shown else ""
        words = f", its text is {excerpt(survey.text)!r}" if survey.text.strip() and not repeated else ""
        root = f"its root is <{survey.root[:40]}>" if survey.root else "it has no root"
        if survey.root is None and not head.strip():
            raise FeedError("is empty", source=self._source)
        if survey.broken is not None and not survey.children:
            return ()  # the parser itself says what is wrong
        message = f"holds no product: {root}{words}{hint}; if it has products, name their path with `items`"
        raise FeedError(message, source=self._source)

    def _check_bounds(self, parser: expat.XMLParserType, fed: int, tags: int) -> None:
        token = fed - max(parser.CurrentByteIndex, 0)
        item = fed - self._item_offset if self._item_offset >= 0 else 0
        if tags > _MOST_TAGS:
            self._refuse(f"has an item with more than {_MOST_TAGS:,} tags; this is no product feed", parser)
        if token > self._largest or item > self._largest:
            what, most = ("a text", self._largest) if token > self._largest else ("an item", self._largest)
            raise FeedError(
                f"{what} is larger than {most:,} bytes; the feed is broken, or no product feed",
                source=self._source,
                line=parser.CurrentLineNumber + self._dropped,
                item=self._number,
            )

    def _malformed(self, error: expat.ExpatError, parser: expat.XMLParserType) -> FeedError:
        reason = expat.ErrorString(error.code)
        cut = "; it seems to be cut off" if error.code in _CUT_OFF else ""
        return FeedError(
            f"is not well-formed XML: {reason}{cut}",
            source=self._source,
            line=error.lineno + self._dropped,
            column=error.offset + 1,
            item=self._number,
            offset=self._offset(parser.ErrorByteIndex),
        )

    def _offset(self, index: int) -> int:
        """Return the position in the document of a byte that the parser was fed."""
        text, end = self._place
        return self._read - len(text[end:].encode()) - (self._fed + self._feeding - index)

    def _refuse(self, message: str, parser: expat.XMLParserType) -> NoReturn:
        raise FeedError(message, source=self._source, line=parser.CurrentLineNumber + self._dropped, item=self._number)

    def _parser(self, path: tuple[str, ...]) -> expat.XMLParserType:  # noqa: C901, PLR0915  one state machine
        parser = _tolerant_parser()
        parser.buffer_size = _CHUNK
        ready = self._ready
        parts: list[str] = []
        inner: list[str] = []
        opened: dict[str, dict[str, str]] = {}
        above: list[str] = []
        line = 0
        item_tag = ""
        is_text = False
        row: Row = {}
        of_item: dict[str, str] = {}
        pop, last = opened.pop, parts.pop
        steps = tuple(step.lower() for step in path)
        by_name: dict[str, bool] = {}

        def is_item(tag: str) -> bool:
            if not steps:
                known = by_name.get(tag)
                if known is None:
                    known = by_name[tag] = _local(tag).lower() in ITEM_NAMES
                return known and bool(above)
            if _local(tag).lower() != steps[-1] and tag.lower() != steps[-1]:
                return False
            there = [_local(name).lower() for name in above]
            return len(steps) == 1 or there[-len(steps) + 1 :] == [_local(step) for step in steps[:-1]]

        def start(tag: str, attributes: dict[str, str]) -> None:
            nonlocal line, row, item_tag, of_item
            if is_item(tag):
                item_tag = tag
                line = parser.CurrentLineNumber + self._dropped
                self._number += 1
                self._item_offset = parser.CurrentByteIndex
                row, of_item = {}, attributes
                if attributes:
                    self._add_prefixes(attributes)
                parser.CharacterDataHandler = parts.append
                # Within an item tags are only noted, without a call into Python; they nest in order.
                parser.StartElementHandler = opened.setdefault
                parser.EndElementHandler = end_field
                return
            if not above:
                self._check_root(tag, attributes, parser)
            above.append(tag)
            if len(above) > _MOST_DEPTH:
                self._refuse(f"nests deeper than {_MOST_DEPTH} levels", parser)

        def end(_: str) -> None:
            above.pop()

        def end_field(tag: str) -> None:
            attributes = pop(tag, None)
            if opened or inner or attributes is None:  # none of which is so in most fields of most feeds
                end_other(tag, "".join(parts), attributes)
                parts.clear()
                return
            text = last() if parts else ""
            # The rest is the white space before the field, or this is a text in pieces.
            if parts and not ((before := last()).isspace() and not parts):
                text = "".join((*parts, before, text))
                parts.clear()
            if value := text.strip():
                if attributes and "name" in attributes:
                    put(f"{tag}.{attributes['name']}", value)
                elif tag not in row:
                    row[tag] = value
                else:
                    put(tag, value)
            elif attributes:
                put_address(tag, attributes)

        def end_other(tag: str, text: str, attributes: dict[str, str] | None) -> None:
            nonlocal is_text
            if opened:
                # Text of its own between children, or children of HTML, make a field a text; else it only holds them.
                is_text = is_text or _local(tag).lower() in _HTML or any(not part.isspace() for part in parts[:-1])
                inner.append(_BEGIN_OF_BLOCK.get(_local(tag).lower(), "") + text)
                if len(opened) == 1:
                    outer = next(iter(opened))
                    if value := text.strip():
                        put(f"{outer}.{tag}", value)
                    elif attributes and (address := _address(attributes)):
                        put(f"{outer}.{tag}", address)
                elif value := text.strip():
                    put(f"{next(iter(opened))}.{tag}", value)
            elif attributes is not None:
                whole = "".join((*inner, text)).strip()
                if whole and (is_text or not inner or text.strip()):
                    put(tag, whole)
                inner.clear()
                is_text = False
                if not whole and attributes:
                    put_address(tag, attributes)
            elif tag == item_tag:
                end_item()

        def put_address(tag: str, attributes: dict[str, str]) -> None:
            if address := _address(attributes):
                kind = attributes.get("rel", "alternate")
                medium = attributes.get("type", attributes.get("medium", "image"))
                if kind != "alternate":
                    put(f"{tag}.{kind}", address)
                elif "image" in medium or _local(tag) not in {"enclosure", "content"}:
                    put(tag, address)

        def end_item() -> None:
            for name, value in of_item.items() if of_item else ():
                if value.strip() and not name.startswith("xmlns") and name not in row:
                    row[name] = value.strip()
            found = (row, line, self._number)
            ready.append(_judged(*found) if self._doubts else found)
            self._item_offset = -1
            self._item_end = parser.CurrentByteIndex
            self._line = parser.CurrentLineNumber + self._dropped
            if self._plain is None or self._plain.tag != item_tag:
                self._plain = self._plain_by_tag.setdefault(item_tag, PlainItems(item_tag))
            parser.CharacterDataHandler = None
            parser.StartElementHandler = start
            parser.EndElementHandler = end
            parts.clear()
            inner.clear()

        def put(name: str, value: str) -> None:
            earlier = row.get(name)
            if earlier is None:
                row[name] = value
            elif isinstance(earlier, list):
                earlier.append(value)
            else:
                row[name] = [earlier, value]

        def entity(name: str, is_parameter: bool) -> None:
            if not is_parameter:
                letters = html5.get(f"{name};")
                self._doubts = self._doubts or letters is None
                parts.append(f"{_UNDEFINED}&{name};" if letters is None else letters)

        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.SkippedEntityHandler = entity
        parser.EntityDeclHandler = lambda *_: self._refuse(
            "has a DOCTYPE that declares entities, which product feeds have no use for; remove it", parser
        )
        return parser

    def _check_root(self, tag: str, attributes: dict[str, str], parser: expat.XMLParserType) -> None:
        if (hint := _NO_FEEDS.get(_local(tag).lower())) is not None:
            self._refuse(f"is no product feed: {hint}", parser)
        self._add_prefixes(attributes)

    def _add_prefixes(self, attributes: dict[str, str]) -> None:
        own = {name.partition(":")[2] for name, uri in attributes.items() if uri.strip() == _GOOGLE}
        found = tuple(sorted({*self.prefixes, *(f"{prefix}:" for prefix in own if prefix)}))
        if found != self.prefixes:
            self.prefixes = found


def _blank_of(text: str) -> str:
    """Return white space after which a parser is at the line and the column that this text ends at."""
    lines = text.count("\n")
    return "\n" * lines + " " * (len(text) - text.rfind("\n") - 1)


def _judged(row: Row, line: int, number: int) -> tuple[Row, int, int] | RejectedRow:
    """Return the row, or why a character of it cannot be believed. Both marks are rare; most rows are ASCII."""
    for name, value in row.items():
        for text in value if isinstance(value, list) else (value,):
            if text.isascii():
                continue
            if _UNDEFINED in text:
                entity = text.partition(_UNDEFINED)[2].partition(";")[0]
                rule = f"has the undefined entity {entity};"
                return RejectedRow(line, number, None, name, rule, excerpt(text.replace(_UNDEFINED, "")))
            if _BAD_BYTE in text:
                return RejectedRow(
                    line, number, None, name, "has a byte that is not of the feed's encoding", excerpt(text)
                )
    return row, line, number


def _address(attributes: dict[str, str]) -> str | None:
    return attributes.get("href") or attributes.get("url") or attributes.get("src")


def _local(tag: str) -> str:
    return tag.rpartition(":")[2]


def _all(head: list[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    while head:
        yield head.pop(0)
    yield from rest


def _tolerant_parser() -> expat.XMLParserType:
    """Return a parser that reports undefined entities instead of refusing them, and fetches nothing."""
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.UseForeignDTD(True)
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_ALWAYS)

    def empty(context: str, *_: object) -> int:
        # Expat reports undefined entities only if it has read an external subset: it reads one without content.
        parser.ExternalEntityParserCreate(context).Parse(b"", True)
        return 1

    parser.ExternalEntityRefHandler = empty
    return parser


class _Survey:
    """The elements at the beginning of a document: which children each path has."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.children: dict[tuple[str, ...], set[str]] = {}
        self.counts: dict[tuple[str, ...], int] = {}
        self.has_known = False
        self.stopped = False
        self.text = ""
        self.broken: expat.ExpatError | None = None
        self._above: list[str] = []

    def read(self, head: bytes) -> None:
        parser = _tolerant_parser()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.EntityDeclHandler = self._entity
        try:
            parser.Parse(head, False)
        except (expat.ExpatError, _StopError) as error:
            self.stopped = isinstance(error, _StopError)
            self.broken = error if isinstance(error, expat.ExpatError) else None

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if self.root is None:
            self.root = tag
        elif _local(tag).lower() in ITEM_NAMES:
            self.has_known = True
            raise _StopError
        if len(self._above) > _MOST_DEPTH or len(self.counts) > 5000:
            raise _StopError
        if self._above:
            self.children.setdefault(tuple(self._above), set()).add(tag)
        self._above.append(tag)
        path = tuple(self._above)
        self.counts[path] = self.counts.get(path, 0) + 1
        if attributes:
            self.children.setdefault(path, set()).update(name for name in attributes if not name.startswith("xmlns"))

    def _end(self, _: str) -> None:
        self._above.pop()

    def _characters(self, text: str) -> None:
        if len(self.text) < 400:
            self.text += text

    def _entity(self, *_: object) -> None:
        raise _StopError


class _StopError(Exception):
    """The survey has seen enough."""


_AFTER_ROOT = expat.errors.codes[expat.errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT]
_TAG = re.compile(rb"<\??([A-Za-z][\w:.-]*)")


def _has_elements(text: bytes) -> bool:
    """Return whether a text has elements that are no HTML, or begins another document."""
    return any(name.decode().lower() not in _HTML for name in _TAG.findall(text))


_CUT_OFF = frozenset(
    expat.errors.codes[message]
    for message in (
        expat.errors.XML_ERROR_NO_ELEMENTS,
        expat.errors.XML_ERROR_UNCLOSED_TOKEN,
        expat.errors.XML_ERROR_PARTIAL_CHAR,
        expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
    )
)
