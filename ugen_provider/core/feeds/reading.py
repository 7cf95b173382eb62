# SPDX-License-Identifier: Apache-2.0
"""From bytes to products: what a feed is, is found in its content and never in its name."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from typing import Literal

from ugen_provider.core.api.errors import TransportError
from ugen_provider.core.feeds.columns import Columns
from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.products import Product, RejectedRow, excerpt
from ugen_provider.core.feeds.sources import FeedSource, open_source
from ugen_provider.core.feeds.xml_items import XMLItems

Kind = Literal["google"]
"""Whose rules a feed follows; it chooses the default mapping."""

_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def read_feed(
    source: FeedSource, *, kind: Kind | None = None, timeout: float = 60.0
) -> Iterator[Product | RejectedRow]:
    """Read a feed once, in constant memory.

    Args:
        source: A local path, an http(s) or fsspec URL, an open binary file, or anything with `.open("rb")`.
        kind: Whose rules the feed follows; found in its content where not given.
        timeout: For http(s): seconds without a byte after which it is given up.

    Yields:
        A `Product` per item, or a `RejectedRow` for an item without an id.

    Raises:
        FeedError: The feed cannot be opened, or not read to its end; it says where.

    Example:
        >>> for row in read_feed("examples/feed.xml"):
        ...     print(row.id, row.title)
    """
    del kind
    with open_source(source, timeout=timeout) as opened:
        number = 0
        try:
            for row in _xml_products(opened.file, source=opened.name):
                number = row.item
                yield row
        except (TransportError, OSError) as error:
            raise FeedError(f"could not be read to its end: {error}", source=opened.name, item=number) from error


def _xml_products(file: BufferedReader, *, source: str) -> Iterator[Product | RejectedRow]:
    beginning = _beginning(file)
    if not beginning.startswith("<"):
        shown = f"it begins with {excerpt(beginning, most=40)!r}" if beginning else "it is empty"
        raise FeedError(f"is no product feed that can be read: {shown}", source=source)
    if beginning[:15].lower().startswith(("<!doctype html", "<html")):
        raise FeedError("is a web page, perhaps a login page, and no feed; check the address", source=source)
    items = XMLItems(file, source=source)
    columns = Columns()
    for row, line, number in items:
        if number == 1:
            columns = Columns(prefixes=items.prefixes)
        attributes = dict(zip(columns.names(tuple(row)), row.values(), strict=True))
        product_id = attributes.get("id")
        if isinstance(product_id, list):
            product_id = product_id[0]
        if product_id:
            yield Product(product_id, attributes, line, number)
        else:
            yield RejectedRow(line, number, None, "id", "is required", excerpt(attributes.get("title")))


def _beginning(file: BufferedReader) -> str:
    head = file.peek(512)[:512]
    encoding = "utf-16" if head.startswith(_BOMS[1:]) else "utf-8-sig"
    return head.decode(encoding, errors="replace").lstrip()
