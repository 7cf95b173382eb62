# SPDX-License-Identifier: Apache-2.0
"""What a feed consists of: products, and rows that are none."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

_NEXT_ADDRESS = re.compile(r"\s*,\s*(?=https?://)")


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that becomes no order, with where it stands and why.

    Attributes:
        line: Line in the (unpacked) feed, from 1; None where the format has no lines.
        item: Number of the item, from 1.
        product_id: The product, where it has an id.
        column: The feed's column at fault, by its canonical name.
        rule: The rule that it breaks, in words.
        excerpt: The beginning of the value at fault.
        rows: Rows of the feed that it stands for.

    Examples:
        >>> str(RejectedRow(line=57, item=4, product_id="LL-1004", column="image_link", rule="is required"))
        'line 57, item 4, product LL-1004: image_link is required'
    """

    line: int | None
    item: int
    product_id: str | None
    column: str
    rule: str
    excerpt: str = ""
    rows: int = 1

    def __str__(self) -> str:
        where = place(self.line, self.item)
        named = f", product {self.product_id}" if self.product_id else ""
        got = f", got {self.excerpt!r}" if self.excerpt else ""
        return f"{where}{named}: {self.column} {self.rule}{got}"


class Product(NamedTuple):
    """One product of a feed. A tuple, since a feed has a million of them and those are made fastest.

    Attributes:
        id: The shop's own id.
        attributes: Everything the feed says of it, under canonical column names; a column that occurs several times
            is a list. What the properties below read is in here too.
        line: Line in the (unpacked) feed, from 1; None where the format has no lines.
        item: Number of the item, from 1.
        rows: Rows of the feed that it was made from; more than one for a product with its variants.
    """

    id: str
    attributes: Mapping[str, Any]
    line: int | None
    item: int
    rows: int = 1

    def __repr__(self) -> str:
        return f"Product(id={self.id!r}, title={excerpt(self.title)!r}, line={self.line}, item={self.item})"

    def text(self, column: str) -> str:
        """The value of a column as trimmed text; the first one where there are several, empty where there is none."""
        return next(self.texts(column), "")

    def texts(self, column: str) -> Iterator[str]:
        """All values of a column that are not empty, as trimmed texts."""
        value = self.attributes.get(column)
        for single in value if isinstance(value, list | tuple) else (value,):
            text = single if isinstance(single, str) else _as_text(single)
            if text and (text := text.strip()):
                yield text

    def addresses(self, column: str) -> Iterator[str]:
        """All addresses of a column, which text feeds write with commas between."""
        for text in self.texts(column):
            if "," in text:
                yield from _NEXT_ADDRESS.split(text)
            else:
                yield text

    @property
    def title(self) -> str:
        """What the shop calls it."""
        return self.text("title")

    @property
    def description(self) -> str:
        """The description as it stands in the feed, perhaps with HTML."""
        return self.text("description")

    @property
    def image_links(self) -> tuple[str, ...]:
        """The pictures, the main one first, as they stand in the feed."""
        return (*self.addresses("image_link"), *self.addresses("additional_image_link"))

    @property
    def price(self) -> str:
        """The price with its currency, as it stands in the feed."""
        return self.text("price")

    @property
    def availability(self) -> str:
        """Availability in Google's words: `in_stock`, `out_of_stock`, `preorder`, `backorder`."""
        return self.text("availability").lower().replace(" ", "_")

    @property
    def brand(self) -> str:
        """The brand."""
        return self.text("brand")

    @property
    def link(self) -> str:
        """The product's page in the shop."""
        return self.text("link")

    @property
    def category(self) -> str:
        """The category: the shop's own path where there is one, else Google's."""
        return self.text("product_type") or self.text("google_product_category")

    @property
    def highlights(self) -> tuple[str, ...]:
        """Short sentences that sell it."""
        return tuple(self.phrases("product_highlight"))

    def phrases(self, column: str) -> Iterator[str]:
        """All phrases of a column, which text feeds write with commas between and quotes around."""
        for text in self.texts(column):
            if '"' in text and "," in text:
                yield from (
                    phrase.strip() for phrase in next(csv.reader([text], skipinitialspace=True)) if phrase.strip()
                )
            else:
                yield text


def place(line: int | None, item: int) -> str:
    """Where an item stands, for a person.

    Examples:
        >>> place(57, 4), place(None, 4)
        ('line 57, item 4', 'item 4')
    """
    return f"item {item}" if line is None else f"line {line}, item {item}"


def excerpt(value: object, *, most: int = 80) -> str:
    """The beginning of a value, on one line.

    Args:
        value: Anything.
        most: Characters at most.

    Examples:
        >>> excerpt(" a  b ", most=3), excerpt("abcdef", most=4)
        ('a b', 'abc…')
    """
    text = " ".join(_as_text(value)[: most * 4].split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):  # a picture in JSON, as Shopify and Meta write it
        return _as_text(value.get("src") or value.get("url") or value.get("value"))
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
