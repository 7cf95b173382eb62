# SPDX-License-Identifier: Apache-2.0
"""From bytes to products: what a feed is, is found in its content and never in its name."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from ugen_provider.core.api.errors import TransportError
from ugen_provider.core.feeds.columns import Columns, Kind, kind_of
from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.products import Product, RejectedRow, excerpt
from ugen_provider.core.feeds.sources import FeedSource, open_source
from ugen_provider.core.feeds.unpacking import BAD_PACKAGE, Bounds, unpacked

Format = Literal["xml", "text", "json", "jsonl", "parquet"]
"""How a feed is written; `text` is CSV or TSV with any usual delimiter."""

Row = tuple[dict[str, Any], int | None, int]
_CHUNK = 1 << 16


def read_feed(
    source: FeedSource,
    *,
    kind: Kind | None = None,
    format: Format | None = None,  # noqa: A002  the word that everybody uses for it
    encoding: str | None = None,
    timeout: float = 60.0,
    bounds: Bounds | None = None,
) -> Iterator[Product | RejectedRow]:
    """Read a feed once, in constant memory.

    Args:
        source: A local path, an http(s) or fsspec URL, an open binary file, or anything with `.open("rb")`. It may be
            packed as gzip, bzip2, zip (one file in it) or zstd.
        kind: Whose rules the feed follows; found in its content where not given.
        format: How it is written; found in its content where not given.
        encoding: Of CSV, TSV and JSON without a byte order mark; default UTF-8. XML declares its own.
        timeout: For http(s): seconds without a byte after which it is given up.
        bounds: How large it may become.

    Yields:
        A `Product` per item, or a `RejectedRow` for an item that cannot be read or has no id.

    Raises:
        FeedError: The feed cannot be opened, or not read to its end; it says where.

    Examples:
        >>> for row in read_feed("examples/feed.xml"):
        ...     print(row.id, row.title)
    """
    with open_feed(source, kind=kind, format=format, encoding=encoding, timeout=timeout, bounds=bounds) as opened:
        yield from opened.rows


@dataclass(frozen=True, slots=True)
class OpenFeed:
    """A feed whose first bytes were looked at.

    Attributes:
        name: What to call it in messages.
        kind: Whose rules it follows, as given or as found.
        format: How it is written.
        rows: Its products and the rows that are none.
    """

    name: str
    kind: Kind
    format: Format
    rows: Iterator[Product | RejectedRow]


@contextmanager
def open_feed(
    source: FeedSource,
    *,
    kind: Kind | None = None,
    format: Format | None = None,  # noqa: A002
    encoding: str | None = None,
    timeout: float = 60.0,
    bounds: Bounds | None = None,
) -> Iterator[OpenFeed]:
    """Open a feed and find out what it is.

    Arguments and errors as for `read_feed`.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(open_source(source, timeout=timeout))
        try:
            file = stack.enter_context(unpacked(opened.file, source=opened.name, bounds=bounds))
            found = _recognized(file, opened.name, kind=kind, format=format, encoding=encoding)
        except _BROKEN as error:
            raise _broken(error, opened.name, 0) from error
        yield replace(found, rows=_guarded(found.rows, opened.name))


_BROKEN = (TransportError, OSError, *BAD_PACKAGE)


def _guarded(rows: Iterator[Product | RejectedRow], source: str) -> Iterator[Product | RejectedRow]:
    number = 0
    try:
        for row in rows:
            number = row.item
            yield row
    except _BROKEN as error:
        raise _broken(error, source, number) from error


def _broken(error: Exception, source: str, number: int) -> FeedError:
    why = str(error) or type(error).__name__
    return FeedError(f"could not be read to its end: {why}", source=source, item=number)


def _recognized(
    file: io.BufferedReader,
    source: str,
    *,
    kind: Kind | None,
    format: Format | None,  # noqa: A002
    encoding: str | None,
) -> OpenFeed:
    head = _Head(file, source, encoding=encoding)
    format = format or head.format(source)  # noqa: A001
    match format:
        case "xml":
            return OpenFeed(source, kind or "google", format, _xml(file, source, kind or "google"))
        case "text":
            return _text(file, source, kind=kind, encoding=encoding)
        case "jsonl" | "json":
            return _json(file, source, format=format, kind=kind, encoding=encoding)
        case "parquet":
            from ugen_provider.core.feeds.parquet_items import parquet_rows

            return _objects(parquet_rows(file, source=source), source, format=format, kind=kind)


class _Head:
    """The first bytes of a feed, and what they say."""

    def __init__(self, file: io.BufferedReader, source: str, *, encoding: str | None) -> None:
        self.raw = file.peek(_CHUNK)[: 1 << 18]
        wide = self.raw.startswith((b"\xff\xfe", b"\xfe\xff"))
        try:
            text = self.raw.decode("utf-16" if wide else encoding or "utf-8-sig", errors="replace")
        except (LookupError, ValueError):
            message = f"encoding {encoding!r} is not known; such as utf-8, latin-1, cp1252 or utf-16 are"
            raise FeedError(message, source=source) from None
        self.text = text.lstrip()

    def format(self, source: str) -> Format:
        if self.raw.startswith(b"PAR1"):
            return "parquet"
        if not self.text:
            raise FeedError("is empty", source=source)
        if self.text[:15].lower().startswith(("<!doctype html", "<html")):
            raise FeedError("is a web page, perhaps a login page, and no feed; check the address", source=source)
        if self.text.startswith("<"):
            return "xml"
        if self.text.startswith("{"):
            from ugen_provider.core.feeds.json_items import is_json_lines

            return "jsonl" if is_json_lines(self.text) else "json"
        if self.text.startswith("["):
            return "json"
        if "\x00" in self.text[:1024]:
            raise FeedError(
                f"is no product feed that can be read: it begins with {excerpt(self.text, most=40)!r}", source=source
            )
        return "text"


def _xml(file: io.BufferedReader, source: str, kind: Kind) -> Iterator[Product | RejectedRow]:
    from ugen_provider.core.feeds.xml_items import XMLItems

    items = XMLItems(file, source=source)
    columns = Columns(kind=kind)
    for row, line, number in items:
        if number == 1:
            columns = Columns(kind=kind, prefixes=items.prefixes)
        attributes = dict(zip(columns.names(tuple(row)), row.values(), strict=True))
        product_id = attributes.get("id")
        if type(product_id) is str:
            yield Product(product_id, attributes, line, number)
        else:
            yield _product(attributes, line, number)


def _text(file: io.BufferedReader, source: str, *, kind: Kind | None, encoding: str | None) -> OpenFeed:
    from ugen_provider.core.feeds.text_items import TextItems, TextReader

    items = TextItems(TextReader(file, source=source, encoding=encoding), source=source)
    kind = kind or kind_of(items.header, commented=items.commented)
    names = _usable(Columns(kind=kind).names(items.header), source)
    rows = _cells(items, names)
    return OpenFeed(source, kind, "text", _grouped(rows) if kind == "shopify" else rows)


def _cells(items: Any, names: tuple[str, ...]) -> Iterator[Product | RejectedRow]:
    width = len(names)
    position = names.index("id")
    for cells, line, number in items:
        if len(cells) > width and any(cells[width:]):
            rule = f"has {len(cells)} values, and the header names {width}; is a delimiter in a value not quoted?"
            yield RejectedRow(line, number, cells[position], "row", rule, excerpt(cells[width]))
            continue
        attributes = dict(zip(names, cells, strict=False))
        product_id = attributes.get("id", "").strip()
        if product_id:
            yield Product(product_id, attributes, line, number)
        else:
            yield _without_id(attributes, line, number)


def _json(
    file: io.BufferedReader,
    source: str,
    *,
    format: Format,  # noqa: A002
    kind: Kind | None,
    encoding: str | None,
) -> OpenFeed:
    from ugen_provider.core.feeds.json_items import json_lines, json_objects
    from ugen_provider.core.feeds.text_items import TextReader

    plain = encoding is None and not file.peek(2).startswith((b"\xff\xfe", b"\xfe\xff"))
    if format == "jsonl" and plain:
        return _objects(json_lines(file, source=source), source, format=format, kind=kind)
    reader = TextReader(file, source=source, encoding=encoding)
    if format == "json":
        return _objects(json_objects(reader.pieces(), source=source), source, format=format, kind=kind)
    return _objects(json_lines(reader.as_utf8(), source=source), source, format=format, kind=kind)


def _objects(
    rows: Iterator[Row | RejectedRow] | Iterator[tuple[dict[str, Any], None, int]],
    source: str,
    *,
    format: Format,  # noqa: A002
    kind: Kind | None,
) -> OpenFeed:
    first = next(rows, None)
    header = tuple(first[0]) if isinstance(first, tuple) else ()
    kind = kind or kind_of(header)
    names_of = Columns(kind=kind).names
    if isinstance(first, tuple):
        _usable(names_of(header), source)

    def products() -> Iterator[Product | RejectedRow]:
        row: Row | RejectedRow | tuple[dict[str, Any], None, int] | None = first
        while row is not None:
            if isinstance(row, RejectedRow):
                yield row
            else:
                raw, line, number = row
                header = tuple(raw)
                names = names_of(header)
                yield _product(raw if names == header else dict(zip(names, raw.values(), strict=True)), line, number)
            row = next(rows, None)

    return OpenFeed(source, kind, format, products())


def _product(attributes: dict[str, Any], line: int | None, number: int) -> Product | RejectedRow:
    product_id = attributes.get("id")
    if type(product_id) is not str:
        product_id = next(Product("", attributes, line, number).texts("id"), "")
    return Product(product_id, attributes, line, number) if product_id else _without_id(attributes, line, number)


def _without_id(attributes: dict[str, Any], line: int | None, number: int) -> RejectedRow:
    return RejectedRow(line, number, None, "id", "is required", excerpt(attributes.get("title")))


def _usable(names: tuple[str, ...], source: str) -> tuple[str, ...]:
    """Refuse a feed whose columns mean nothing to us, rather than reject each of a million rows."""
    lacking = [name for name in ("id", "title") if name not in names]
    if lacking:
        shown = ", ".join(names[:12]) or "none"
        message = f"has no column for {' and '.join(lacking)}; its columns are {shown}; is it a product feed?"
        raise FeedError(message, source=source, line=1)
    return names


_TORN = "is empty, and the row above is of another product; further rows of a product follow its first: was it sorted?"


def _grouped(rows: Iterator[Product | RejectedRow]) -> Iterator[Product | RejectedRow]:
    """Shopify writes a product over many rows, its variants and pictures, with the title in the first alone.

    They stand directly below one another, and Shopify itself warns that sorting the file tears them apart. To put them
    together again would mean to hold the whole feed, and to guess which picture came first.
    """
    held: Product | None = None
    pictures: list[str] = []
    count = 0
    for row in rows:
        if isinstance(row, RejectedRow):
            yield row
        elif held is not None and row.id == held.id and not row.title:
            count += 1
            pictures.extend(link for link in row.texts("image_link") if link not in pictures)
        elif not row.title:
            yield RejectedRow(row.line, row.item, row.id, "title", _TORN)
        else:
            if held is not None:
                yield _merged(held, pictures, count)
            held, count = row, 1
            pictures = list(row.texts("image_link"))
    if held is not None:
        yield _merged(held, pictures, count)


def _merged(product: Product, pictures: list[str], count: int) -> Product:
    return Product(product.id, {**product.attributes, "image_link": pictures}, product.line, product.item, rows=count)
