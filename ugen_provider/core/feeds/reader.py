# SPDX-License-Identifier: Apache-2.0
"""From the bytes or rows of a feed to products. The kind of a feed is found in its content and never in its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import chain
from typing import Any, Literal

from ugen_provider.core.api.errors import TransportError
from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.layouts import Columns, Kind, attributes_of, canonical, kind_of, plain_name
from ugen_provider.core.feeds.mapping import FeedMapping, template_parts
from ugen_provider.core.feeds.plain_text import NULLS
from ugen_provider.core.feeds.products import (
    Product,
    RejectedRow,
    as_text,
    column_name,
    excerpt,
    normalized_id,
)
from ugen_provider.core.feeds.sources import (
    BAD_PACKAGE,
    Bounds,
    FeedSource,
    Part,
    SQLQuery,
    is_database,
    is_file,
    open_parts,
    source_name,
)

Format = Literal["xml", "text", "json", "jsonl", "parquet", "excel", "rows"]
"""How a feed is written; `text` is CSV or TSV with any usual delimiter, `rows` a table or the result of a query."""

RawRow = tuple[dict[str, Any], int | None, int]
Found = Iterator[Product | RejectedRow]
_CHUNK = 1 << 16
_PLAIN_ID = re.compile(r"[!-~]{0,99}[!-/1-~]")  # not one that ends in 0, which might be a number with decimals
_MOST_NULS = 8  # at the beginning of a text; more are a file of another kind
_JUDGED = 1000
"""Rows within which the columns of an id and a title must occur."""


def read_feed(
    source: FeedSource,
    *,
    kind: Kind | None = None,
    format: Format | None = None,  # noqa: A002  the word that the field uses
    encoding: str | None = None,
    items: str | None = None,
    query: str | None = None,
    mapping: FeedMapping | None = None,
    timeout: float = 60.0,
    bounds: Bounds | None = None,
) -> Iterator[Product | RejectedRow]:
    """Read a feed once, in constant memory.

    Args:
        source: A local path, an http(s) or fsspec URL, an open binary file, or anything with `.open("rb")`; several of
            these, a folder or a pattern; a `SQLQuery`; rows as mappings, or a table. Files may be packed as gzip,
            bzip2, zip or zstd.
        kind: Whose rules the feed follows; found in its content where not given.
        format: How it is written; found in its content where not given.
        encoding: Of CSV, TSV, JSON and XML without a byte order mark; default: what the feed or the server declares,
            else UTF-8.
        items: The path from the root to the elements or objects that are products.
        query: The SQL query whose rows are the products, where the source is a database's address.
        mapping: Names the columns of the id and the title, where the feed has names of its own.
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
    with open_feed(
        source,
        kind=kind,
        format=format,
        encoding=encoding,
        items=items,
        query=query,
        mapping=mapping,
        timeout=timeout,
        bounds=bounds,
    ) as opened:
        yield from opened.rows


@dataclass(frozen=True, slots=True)
class OpenFeed:
    """A feed whose beginning was read.

    Attributes:
        name: Its name in messages.
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
    items: str | None = None,
    query: str | None = None,
    mapping: FeedMapping | None = None,
    timeout: float = 60.0,
    bounds: Bounds | None = None,
) -> Iterator[OpenFeed]:
    """Open a feed and find out what it is.

    Arguments and errors as for `read_feed`.
    """
    reading = _ReaderChoices(kind, format, encoding, items, bounds or Bounds(), mapping or FeedMapping.default())
    if is_database(source):
        if query is None:
            raise FeedError("is a database; name the query whose rows are products", source=source_name(source))
        source = SQLQuery(str(source), query)
    with ExitStack() as stack:
        if isinstance(source, SQLQuery) or not is_file(source):
            yield _rows(source, reading)
            return
        parts = stack.enter_context(closing(open_parts(source, timeout=timeout, bounds=bounds)))
        first = _part(_next(parts, source_name(source)), reading)
        assert first is not None
        reading = replace(reading, kind=first.kind)

        def rest() -> Found:
            yield from first.rows
            while (following := _part(_next(parts, source_name(source)), reading)) is not None:
                yield from following.rows

        yield replace(first, name=source_name(source), rows=rest())


def _next(parts: Iterator[Part], name: str) -> Part | None:
    try:
        return next(parts, None)
    except _BROKEN as error:
        raise _broken(error, name, 0) from error


@dataclass(frozen=True, slots=True)
class _ReaderChoices:
    """How a feed is read: what the caller named, and what the mapping knows of its columns."""

    kind: Kind | None
    format: Format | None
    encoding: str | None
    items: str | None
    bounds: Bounds
    mapping: FeedMapping

    def lacks(self, names: Iterable[str], kind: Kind) -> list[str]:
        """Return what a product needs and these columns do not give: an id, a title, or both."""
        found = set(names)
        mapping = self.mapping
        if mapping.id_template is not None:
            needed = [keys for _, keys in template_parts("id", mapping.id_template, kind=kind) if keys]
            has_id = all(found.intersection(keys) for keys in needed)
        else:
            has_id = bool(found.intersection(mapping.id))
        template = mapping.templates.get("product_name")
        titles = {"title", *mapping.columns["product_name"]}
        if template is not None:
            titles |= {key for _, keys in template_parts("title", template, kind=kind) for key in keys}
        if "product_name" in mapping.lookups:
            titles |= {"id"}
        has_title = bool(found & titles) or {"model", "brand"} <= found
        return [name for name, there in (("id", has_id), ("title", has_title)) if not there]

    def is_header(self, names: tuple[str, ...]) -> bool:
        """Return whether these are the names of a feed's columns."""
        kind = self.kind or kind_of(names)
        columns = Columns(kind=kind, named=self.named())
        found = {*columns.names(names), *(name for name, _ in columns.copies(names))}
        return not self.lacks(found, kind)

    def is_product(self, names: Iterable[str]) -> bool:
        """Return whether an object with these members is a product."""
        return self.is_header(tuple(names))

    def named(self) -> frozenset[str]:
        """Return the columns that the mapping calls by the feed's own names."""
        own = {*self.mapping.named, *self.mapping.id}
        return frozenset(own - {"id"})

    def identity(self, kind: Kind) -> Callable[[dict[str, Any]], str]:
        """Return what finds the id of a row; it raises a ValueError for one that cannot be held."""
        if (text := self.mapping.id_template) is not None:
            parts = template_parts("id", text, kind=kind)

            def from_template(attributes: dict[str, Any]) -> str:
                texts: list[str] = []
                for before, keys in parts:
                    found = next(filter(None, (normalized_id(attributes.get(key)) for key in keys)), "")
                    if keys and not found:
                        return ""
                    texts += (before, found)
                return normalized_id("".join(texts))

            return from_template
        columns = self.mapping.id

        def from_columns(attributes: dict[str, Any]) -> str:
            for column in columns:
                value = attributes.get(column)
                if type(value) is str and _PLAIN_ID.fullmatch(value) and value not in NULLS:
                    return value
                if isinstance(value, list):
                    value = value[0] if value else None
                if value is not None and (found := normalized_id(value)):
                    return found
            return ""

        return from_columns


_BROKEN = (TransportError, OSError, *BAD_PACKAGE)


def _part(part: Part | None, reading: _ReaderChoices) -> OpenFeed | None:
    if part is None:
        return None
    try:
        found = _recognized(part, reading)
    except _BROKEN as error:
        raise _broken(error, part.name, 0) from error
    return replace(found, rows=_guarded(found.rows, part))


def _guarded(rows: Found, part: Part) -> Found:
    row: Product | RejectedRow | None = None
    label = part.label
    try:
        if label is None:
            for row in rows:
                yield row
        else:
            for row in rows:
                yield replace(row, file=label) if isinstance(row, RejectedRow) else row
    except _BROKEN as error:
        raise _broken(error, part.name, row.item if row is not None else 0) from error


def _broken(error: Exception, source: str, number: int) -> FeedError:
    why = str(error) or type(error).__name__
    return FeedError(f"could not be read to its end: {why}", source=source, item=number)


def _recognized(part: Part, reading: _ReaderChoices) -> OpenFeed:
    head = _Head(part, reading)
    format = reading.format or head.format(part.name)  # noqa: A001
    file, source = part.file, part.name
    match format:
        case "xml":
            return _xml(part, reading)
        case "text":
            return _text(part, reading, head.encoding)
        case "jsonl" | "json":
            return _json(part, reading, format, head.encoding)
        case "excel":
            from ugen_provider.core.feeds.readers.excel import excel_rows

            rows = excel_rows(file, source=source, bounds=reading.bounds, is_header=reading.is_header)
            return _objects(rows, source, reading, format=format)
        case _:
            from ugen_provider.core.feeds.readers.parquet import parquet_rows

            return _objects(parquet_rows(file, source=source, bounds=reading.bounds), source, reading, format="parquet")


class _Head:
    """The first bytes of a feed, and what they show."""

    def __init__(self, part: Part, reading: _ReaderChoices) -> None:
        from ugen_provider.core.feeds.readers.text import encoding_of

        self.raw = part.file.peek(_CHUNK)[: 1 << 18]
        self.seekable = part.file.seekable()
        self.encoding = encoding_of(self.raw, stated=reading.encoding, charset=part.charset, source=part.name)
        self.text = self.raw.decode(self.encoding, errors="replace").lstrip("\ufeff \t\r\n")

    def format(self, source: str) -> Format:
        if self.raw.startswith(b"PAR1"):
            return "parquet"
        if self.raw.startswith(b"PK\x03\x04"):
            if self.seekable:
                return "excel"
            raise FeedError("is a zip in a zip, and no feed; unpack the outer one", source=source)
        if not self.text:
            raise FeedError("is empty", source=source)
        if self.text[:15].lower().startswith(("<!doctype html", "<html")):
            raise FeedError("is a web page, perhaps a login page, and no feed; check the address", source=source)
        if self.text.startswith("<"):
            return "xml"
        if self.text.startswith("{"):
            from ugen_provider.core.feeds.readers.json import is_json_lines

            return "jsonl" if is_json_lines(self.text) else "json"
        if self.text.startswith("[") and (self.text[1:].lstrip()[:1] in "{]["):
            return "json"
        if (
            self.text[:1024].count("\x00") > _MOST_NULS
            or "\x00" in self.text.partition("\n")[0]
            or self.raw.startswith((b"%PDF", b"\xd0\xcf\x11\xe0", b"\x89PNG"))
        ):
            hint = "; it is an old Excel file: save it as .xlsx or CSV" if self.raw.startswith(b"\xd0\xcf") else ""
            shown = excerpt(self.text, most=40)
            raise FeedError(f"is no product feed that can be read: it begins with {shown!r}{hint}", source=source)
        return "text"


def _xml(part: Part, reading: _ReaderChoices) -> OpenFeed:
    from ugen_provider.core.feeds.readers.xml import XMLItems

    items = XMLItems(
        part.file,
        source=part.name,
        encoding=reading.encoding,
        charset=part.charset,
        items=reading.items,
        is_item=lambda names: reading.is_header(tuple(names)),
    )
    return _objects(iter(items), part.name, reading, format="xml", prefixes=lambda: items.prefixes)


def _text(part: Part, reading: _ReaderChoices, encoding: str) -> OpenFeed:
    from ugen_provider.core.feeds.readers.csv import TextItems
    from ugen_provider.core.feeds.readers.text import TextReader

    source = part.name
    reader = TextReader(part.file, source=source, encoding=encoding)
    items = TextItems(reader, source=source, is_header=reading.is_header)
    kind = reading.kind or kind_of(items.header, commented=items.commented)
    columns = Columns(kind=kind, named=reading.named())
    names, copies = columns.names(items.header), columns.copies(items.header)
    _check_columns((*names, *(name for name, _ in copies)), items.header, source, reading, kind, line=items.line)
    rows = _cells(items, names, copies, reading.identity(kind))
    return OpenFeed(source, kind, "text", _grouped(rows, kind))


def _cells(
    items: Any,
    names: tuple[str, ...],
    copies: tuple[tuple[str, int], ...],
    identity: Callable[[dict[str, Any]], str],
) -> Found:
    width = len(names)
    new_tuple: Callable[..., Product] = tuple.__new__  # the constructor of a named tuple takes three times as long
    for row in items:
        if type(row) is not tuple:
            yield row
            continue
        cells, line, number = row
        if len(cells) > width and any(map(str.strip, cells[width:])):
            rule = f"has {len(cells)} values, and the header names {width}; is a delimiter in a value not quoted?"
            product_id = excerpt(cells[names.index("id")] if "id" in names else cells[0])
            yield RejectedRow(line, number, product_id or None, "row", rule, excerpt(cells[width]))
            continue
        attributes = attributes_of(names, cells, copies) if copies else dict(zip(names, cells, strict=False))
        try:
            product_id = identity(attributes)
        except ValueError as error:
            yield RejectedRow(line, number, None, "id", str(error), excerpt(attributes.get("id")))
            continue
        if product_id:
            yield new_tuple(Product, (product_id, attributes, line, number, 1))
        else:
            yield RejectedRow(line, number, None, "id", "is required", excerpt(attributes.get("title")))


def _json(part: Part, reading: _ReaderChoices, format: Format, encoding: str) -> OpenFeed:  # noqa: A002
    from ugen_provider.core.feeds.readers.json import json_lines, json_objects
    from ugen_provider.core.feeds.readers.text import TextReader

    source = part.name
    if format == "jsonl" and encoding in {"utf-8", "utf-8-sig"}:
        return _objects(json_lines(part.file, source=source), source, reading, format=format)
    reader = TextReader(part.file, source=source, encoding=encoding)
    if format == "json":

        def is_product(row: dict[str, Any]) -> bool:
            return reading.is_product(_unwrapped(row))

        rows = json_objects(reader.pieces(), source=source, items=reading.items, is_product=is_product)
        return _objects(rows, source, reading, format=format)
    return _objects(json_lines(reader.as_utf8(), source=source), source, reading, format=format)


def _rows(source: Any, reading: _ReaderChoices) -> OpenFeed:
    from ugen_provider.core.feeds.readers.rows import sql_rows, table_rows

    name = source_name(source)
    rows = sql_rows(source, name=name) if isinstance(source, SQLQuery) else table_rows(source, name=name)
    return _objects(rows, name, reading, format="rows")


def _objects(
    rows: Iterable[Any],
    source: str,
    reading: _ReaderChoices,
    *,
    format: Format,  # noqa: A002
    prefixes: Callable[[], tuple[str, ...]] = lambda: ("g:",),
) -> OpenFeed:
    """Make products of rows that name their own columns, each perhaps others."""
    rows = iter(rows)
    flat = format != "xml"
    head, kind = _judged_head(rows, source, reading, flat=flat, prefixes=prefixes)
    identity = reading.identity(kind)

    def products() -> Found:
        used, named = prefixes(), reading.named()
        columns = Columns(kind=kind, prefixes=used, named=named)
        names_of, copies_of = columns.names, columns.copies if named else None
        new_tuple: Callable[..., Product] = tuple.__new__
        for row in chain(_drained(head), rows):
            if isinstance(row, RejectedRow):
                yield row
                continue
            raw, line, number = row
            if flat:
                raw = _unwrapped(raw)
            elif (current := prefixes()) is not used:
                used = current
                columns = Columns(kind=kind, prefixes=used, named=named)
                names_of, copies_of = columns.names, columns.copies if named else None
            header = tuple(raw)
            names = names_of(header)
            if copies_of is not None and (copies := copies_of(header)):
                attributes = attributes_of(names, raw.values(), copies)
            else:
                attributes = raw if names == header else dict(zip(names, raw.values(), strict=True))
            if kind == "shopify" and (parent := raw.get("__parentId")):
                yield Product(as_text(parent), {**attributes, "__parent_id": parent}, line, number)
                continue
            try:
                product_id = identity(attributes)
            except ValueError as error:
                yield RejectedRow(line, number, None, "id", str(error), excerpt(attributes.get("id")))
                continue
            if product_id:
                yield new_tuple(Product, (product_id, attributes, line, number, 1))
            elif not (kind == "schema_org" and _is_of_another_type(raw.get("@type"))):
                yield RejectedRow(line, number, None, "id", "is required", excerpt(attributes.get("title")))

    return OpenFeed(source, kind, format, _grouped(products(), kind))


def _is_of_another_type(type_: object) -> bool:
    """Return whether an object of a schema.org page is a part of the page, such as its breadcrumbs, and no product."""
    types = [str(one) for one in (type_ if isinstance(type_, list) else [type_]) if one]
    return bool(types) and not any("product" in one.lower() for one in types)


def _judged_head(
    rows: Iterator[Any], source: str, reading: _ReaderChoices, *, flat: bool, prefixes: Callable[[], tuple[str, ...]]
) -> tuple[list[Any], Kind]:
    """Return the first rows and the kind of feed; one object may lack a name that others have.

    Raises:
        FeedError: No row has an id, or none has a title.
    """
    head: list[Any] = []
    seen: dict[str, None] = {}
    names: dict[str, None] = {}
    lacking = ["id", "title"]
    while lacking and len(head) < _JUDGED and (row := next(rows, None)) is not None:
        head.append(row)
        if isinstance(row, RejectedRow):
            continue
        raw = _unwrapped(row[0]) if flat else row[0]
        if all(name in seen for name in raw):
            continue
        seen.update(dict.fromkeys((*raw, *(row[0] if flat else ()))))
        found = reading.kind or kind_of(seen)
        columns = Columns(kind=found, prefixes=prefixes(), named=reading.named())
        header = tuple(raw)
        names.update(dict.fromkeys((*columns.names(header), *(name for name, _ in columns.copies(header)))))
        lacking = reading.lacks(names, found)
    kind = reading.kind or ("shopify" if any(map(_is_shopifys, head)) else kind_of(seen))
    if seen and lacking:
        raise _unknown_layout(lacking, seen, source, line=1)
    return head, kind


def _is_shopifys(row: Any) -> bool:
    """Return whether a row is of Shopify's GraphQL export, whose ids say so."""
    return not isinstance(row, RejectedRow) and str(_unwrapped(row[0]).get("id", "")).startswith("gid://shopify/")


def _drained(head: list[Any]) -> Iterator[Any]:
    head.reverse()
    while head:
        yield head.pop()


_FLAT = frozenset({str, int, float, bool, type(None), Decimal})
_WRAPPERS = ("node", "productAttributes", "product_attributes", "attributes", "item", "product")
_STORE_WRAPPERS = ("_source", "_airbyte_data", "Item", "fields", "after", "payload", "record", "document")
"""What Elasticsearch, Airbyte, DynamoDB, Airtable, Debezium and Firestore put around a row.

In a row that has a title itself, such an object is a part of the product, perhaps with an id of its own: to take that
id would buy the product again.
"""


_TYPED = frozenset(
    {
        *("$oid", "$numberDecimal", "$numberDouble", "$numberInt", "$numberLong", "$date", "$uuid"),
        *("S", "N", "BOOL", "stringValue", "integerValue", "doubleValue", "booleanValue"),
    }
)
"""What exports of MongoDB, DynamoDB and Firestore write around one value."""


def _untyped(value: Any) -> Any:
    if isinstance(value, dict) and len(value) == 1:
        ((name, inner),) = value.items()
        if name in _TYPED:
            return inner
    return value


def _unwrapped(row: dict[str, Any]) -> dict[str, Any]:
    """Return an object's members with those of the objects that only wrap them, as the APIs of shops nest them."""
    if _FLAT.issuperset(map(type, row.values())):
        return row
    found = row = {name: _untyped(value) for name, value in row.items()}
    is_wrapped = not any(canonical(name)[0] == "title" for name in row)
    for name in (*_WRAPPERS, *_STORE_WRAPPERS) if is_wrapped else _WRAPPERS:
        inner = row.get(name)
        if isinstance(inner, dict) and inner:
            found = {**{key: value for key, value in found.items() if key != name}, **_unwrapped(inner)}
    offers = found.get("offers")
    if isinstance(offers, list) and offers:
        offers = offers[0]
    if isinstance(offers, dict):
        found = {
            **found,
            **{f"offers.{key}": value for key, value in offers.items() if not isinstance(value, dict | list)},
        }
    variants = found.get("variants")
    if isinstance(variants, list) and variants and isinstance(variants[0], dict) and "price" not in found:
        found = {**found, "price": variants[0].get("price")}
    if found.get("published_at", "") is None or found.get("publishedAt", "") is None:
        found = {**found, "published": "false"}
    return found


def _check_columns(
    names: Iterable[str], header: Iterable[str], source: str, reading: _ReaderChoices, kind: Kind, *, line: int
) -> None:
    """Refuse a feed whose columns are unknown, rather than reject each of a million rows."""
    if lacking := reading.lacks(names, kind):
        raise _unknown_layout(lacking, header, source, line=line)


_WORDS_OF = {
    "id": ("id", "nr", "no", "num", "code", "key", "sku", "ref", "artikel", "article", "item", "model", "ean", "gtin"),
    "title": ("title", "name", "titel", "bez", "label", "desc", "text", "produkt", "product", "nom", "tit"),
}


def _unknown_layout(lacking: list[str], header: Iterable[str], source: str, *, line: int) -> FeedError:
    """Return what is missing, the columns that were found, and the lines of a mapping that would name them."""
    columns = [column_name(name) for name in header if name.strip()]
    guesses: dict[str, str] = {}
    for role in lacking:
        free = [name for name in columns if name not in guesses.values()]
        likely = [name for name in free if any(word in plain_name(name) for word in _WORDS_OF[role])]
        guesses[role] = next(iter(likely or free), "column")
    lines = " and ".join(f"`{role}: {name}`" for role, name in guesses.items())
    shown = ", ".join(columns[:20]) or "none"
    message = (
        f"has no column for {' and '.join(lacking)}; its columns are {shown}; is it a product feed? "
        f"If it is, name its columns in a mapping file by the lines {lines}"
    )
    return FeedError(message, source=source, line=line)


_TORN = "is empty, and the row above is of another product; further rows of a product follow its first: was it sorted?"
_MANY_ROWS: frozenset[Kind] = frozenset({"shopify", "wix", "bigcommerce"})
_PARTS = frozenset({"sku", "rule", "variant", "image", "option", "video", "options", "modifier", "custom field"})


def _grouped(rows: Found, kind: Kind) -> Found:
    """Put the rows of one product together, as Shopify, Wix and BigCommerce write it over several.

    They are directly below one another, and Shopify itself warns that sorting the file tears them apart. To put them
    together again would mean to hold the whole feed, and to guess which picture came first.
    """
    return _merged_rows(rows, kind) if kind in _MANY_ROWS else rows


def _merged_rows(rows: Found, kind: Kind) -> Found:
    held: Product | None = None
    pictures: list[Any] = []
    price: Any = None
    count = 0
    for row in rows:
        if isinstance(row, RejectedRow):
            if kind == "bigcommerce" and held is not None and row.column == "id":
                count += 1
                continue
            yield row
        elif held is not None and _belongs(row, held, kind):
            count += 1
            price = price or row.attributes.get("price")
            pictures.extend(link for link in _pictures_of(row) if link not in pictures)
        elif _is_further(row, kind):
            yield RejectedRow(row.line, row.item, row.id, "title", _TORN)
        else:
            if held is not None:
                yield _merged(held, pictures, price, count)
            held, count = row, 1
            price = row.attributes.get("price")
            pictures = _pictures_of(row)
    if held is not None:
        yield _merged(held, pictures, price, count)


def _pictures_of(row: Product) -> list[Any]:
    value = row.attributes.get("image_link")
    if value is None and "__parent_id" in row.attributes:
        value = row.attributes.get("link", row.attributes.get("src"))
    return list(value) if isinstance(value, list) else [value] if value else []


def _belongs(row: Product, held: Product, kind: Kind) -> bool:
    if "__parent_id" in row.attributes:
        return row.id == held.id
    if kind == "wix":
        return row.id == held.id and row.text("field_type").lower() == "variant"
    if kind == "bigcommerce":
        return row.text("item_type").lower() in _PARTS or row.text("item").lower() in _PARTS
    return row.id == held.id and (not row.title or row.text("top_row").lower() == "false")


def _is_further(row: Product, kind: Kind) -> bool:
    if kind == "wix":
        return row.text("field_type").lower() == "variant"
    if kind == "bigcommerce":
        return False
    return not row.title and "__parent_id" not in row.attributes


def _merged(product: Product, pictures: list[Any], price: Any, count: int) -> Product:
    attributes = {**product.attributes, "image_link": pictures}
    if price is not None:
        attributes["price"] = price
    return Product(product.id, attributes, product.line, product.item, rows=count)
