# SPDX-License-Identifier: Apache-2.0
"""The product model: products of a feed, and rows that become no order."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ugen_provider.core.feeds.pictures import addresses_in
from ugen_provider.core.feeds.plain_text import NULLS

_WHOLE_NUMBER = re.compile(r"(-?\d{1,18})\.0+")
_UNSTORABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_LONGEST_ID = 500
_MOST_BITS = 1600  # of a number with 480 digits
_LONGEST_COLUMN = 100


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that becomes no order, with its position and the reason.

    Attributes:
        line: Line in the (unpacked) feed, from 1; None where the format has no lines.
        item: Number of the item, from 1.
        product_id: The product, where it has an id.
        column: The feed's column at fault, by its canonical name.
        rule: The rule that it breaks, in words.
        excerpt: The beginning of the value at fault.
        rows: Rows of the feed that it represents.
        file: The file, where a feed has several.
        variant: The variant that it would have been; '' for the product as a whole.

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
    file: str | None = None
    variant: str = ""

    def __str__(self) -> str:
        where = place(self.line, self.item, file=self.file)
        named = f", product {self.product_id}" if self.product_id else ""
        got = f", got {self.excerpt!r}" if self.excerpt else ""
        return f"{where}{named}: {self.column} {self.rule}{got}"


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A product that is left out on purpose.

    Attributes:
        line: Line in the (unpacked) feed, from 1; None where the format has no lines.
        item: Number of the item, from 1.
        product_id: The product.
        reason: `filtered`, `not_for_sale`, `variant` (a row of another product), `grouped` (another product of its
            group represents it), `limit` or `duplicate`.
        rule: The rule that leaves it out, in words.
        rows: Rows of the feed that it was made from.
        file: The file, where a feed has several.
        variant: The variant that is left out; '' for the product as a whole.
        shared_with: The product whose video it shares, where products are grouped.
    """

    line: int | None
    item: int
    product_id: str
    reason: str
    rule: str = ""
    rows: int = 1
    file: str | None = None
    variant: str = ""
    shared_with: str | None = None

    def __str__(self) -> str:
        return f"{place(self.line, self.item, file=self.file)}, product {self.product_id}: {self.reason} ({self.rule})"


class Product(NamedTuple):
    """One product of a feed. A tuple, because a feed has a million of them and tuples are made fastest.

    Attributes:
        id: The shop's own id, normalized.
        attributes: All values of the feed, under canonical column names; a column that occurs several times is a
            list. The properties below read it.
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
        """Return the value of a column as trimmed text: the first of several, empty where there is none."""
        return next(self.texts(column), "")

    def texts(self, column: str) -> Iterator[str]:
        """Yield all values of a column that are not empty, as trimmed texts."""
        value = self.attributes.get(column)
        for single in value if isinstance(value, list | tuple) else (value,):
            text = single if isinstance(single, str) else as_text(single)
            if text and (text := text.strip()):
                yield text

    def addresses(self, column: str) -> Iterator[str]:
        """Yield all addresses of a column, from any of the forms in which feeds write several."""
        return addresses_in(self.attributes.get(column))

    @property
    def title(self) -> str:
        """The shop's name of the product."""
        return self.text("title")

    @property
    def description(self) -> str:
        """The description as the feed has it, perhaps with HTML."""
        return self.text("description")

    @property
    def image_links(self) -> tuple[str, ...]:
        """The pictures, the main one first."""
        return (*self.addresses("image_link"), *self.addresses("additional_image_link"))

    @property
    def price(self) -> str:
        """The price with its currency, as the feed has it."""
        return self.text("price")

    @property
    def availability(self) -> str:
        """Availability in Google's words: `in_stock`, `out_of_stock`, `preorder`, `backorder`."""
        return availability_in(self.text("availability"))

    @property
    def brand(self) -> str:
        """Brand of the product, as text."""
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
        """Yield all phrases of a column, which text feeds separate by commas and quote."""
        for text in self.texts(column):
            if '"' in text and "," in text:
                yield from quoted_phrases(text)
            else:
                yield text


class FeedOrder(NamedTuple):
    """A video that a feed asks for: the request for one product or group of products. A tuple, as `Product` is.

    Attributes:
        product_id: The shop's own id.
        fields: The fields of the create-job request, checked against the documented rules.
        line: Line in the (unpacked) feed, from 1; None where the format has no lines.
        item: Number of the item, from 1.
        rows: Rows of the feed that it was made from; more than one for a product with its variants.
        file: The file, where a feed has several.
        product: The product that it was made from.
        variant: The variant's name; '' where the mapping has none.
        members: Products that share the video, this one included; 1 where products are not grouped.
    """

    product_id: str
    fields: Mapping[str, Any]
    line: int | None
    item: int
    rows: int = 1
    file: str | None = None
    product: Product | None = None
    variant: str = ""
    members: int = 1


Planned = FeedOrder | RejectedRow | SkippedRow


def quoted_phrases(text: str) -> list[str]:
    """Return the phrases of a quoted list; the whole text where it is none.

    Examples:
        >>> quoted_phrases('"Three tones, by touch","Charges phones"')
        ['Three tones, by touch', 'Charges phones']
        >>> quoted_phrases('A 19" screen, tilted')
        ['A 19" screen, tilted']
    """
    if not text.startswith('"'):
        return [text]
    try:
        cells = next(csv.reader([text], skipinitialspace=True, strict=True))
    except (csv.Error, StopIteration):
        return [text]
    return [phrase.strip() for phrase in cells if phrase.strip()]


def normalized_id(value: Any) -> str:
    """Return a product id in the one form under which it is known; empty where there is none.

    A table writes the id 1001 as `1001.0` once its column has gaps. Unicode has several spellings of one letter.

    Raises:
        ValueError: No database and no file name could hold it; the message says why.

    Examples:
        >>> normalized_id(1001.0), normalized_id(" 1001.0 "), normalized_id("1.10"), normalized_id("NULL")
        ('1001', '1001', '1.10', '')
    """
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError("is a number that is too large")
    text = value if isinstance(value, str) else as_text(value)
    text = " ".join(text.split())
    if not text or text in NULLS:
        return ""
    if text.isascii():
        if text[-1] == "0" and (found := _WHOLE_NUMBER.fullmatch(text)):
            text = found[1]
    else:
        text = unicodedata.normalize("NFC", text.strip("\ufeff\u200b"))
    if _UNSTORABLE.search(text):
        raise ValueError("has a character that is no text")
    if len(text) > _LONGEST_ID:
        raise ValueError(f"is longer than {_LONGEST_ID} characters")
    return text


_AVAILABILITY = {
    "instock": "in_stock",
    "available": "in_stock",
    "instoreonly": "in_stock",
    "onlineonly": "in_stock",
    "limitedavailability": "in_stock",
    "true": "in_stock",
    "yes": "in_stock",
    "1": "in_stock",
    "auflager": "in_stock",
    "lieferbar": "in_stock",
    "vorrätig": "in_stock",
    "verfügbar": "in_stock",
    "enstock": "in_stock",
    "disponible": "in_stock",
    "disponibile": "in_stock",
    "disponível": "in_stock",
    "emestoque": "in_stock",
    "opvoorraad": "in_stock",
    "skladem": "in_stock",
    "dostępny": "in_stock",
    "在庫あり": "in_stock",
    "有货": "in_stock",
    "outofstock": "out_of_stock",
    "soldout": "out_of_stock",
    "unavailable": "out_of_stock",
    "discontinued": "out_of_stock",
    "false": "out_of_stock",
    "no": "out_of_stock",
    "0": "out_of_stock",
    "nichtauflager": "out_of_stock",
    "ausverkauft": "out_of_stock",
    "nichtverfügbar": "out_of_stock",
    "nichtlieferbar": "out_of_stock",
    "enrupturedestock": "out_of_stock",
    "rupturedestock": "out_of_stock",
    "agotado": "out_of_stock",
    "sinexistencias": "out_of_stock",
    "esaurito": "out_of_stock",
    "esgotado": "out_of_stock",
    "uitverkocht": "out_of_stock",
    "在庫なし": "out_of_stock",
    "缺货": "out_of_stock",
    "preorder": "preorder",
    "presale": "preorder",
    "backorder": "backorder",
    "onbackorder": "backorder",
    "availablefororder": "backorder",
}
_FILLING = re.compile(r"[\s_\-]+")


def availability_in(text: str) -> str:
    """Return an availability in Google's words, from any spelling; an unknown one as lower-case text.

    Examples:
        >>> availability_in("In Stock"), availability_in("https://schema.org/OutOfStock"), availability_in("in 3 days")
        ('in_stock', 'out_of_stock', 'in_3_days')
    """
    plain = text.strip().lower()
    if "schema.org/" in plain:
        plain = plain.rpartition("/")[2]
    return _AVAILABILITY.get(_FILLING.sub("", plain)) or _FILLING.sub("_", plain)


def place(line: int | None, item: int, *, file: str | None = None) -> str:
    """Return the position of an item, for a person.

    Examples:
        >>> place(57, 4), place(None, 4), place(2, 1, file="part-1.csv")
        ('line 57, item 4', 'item 4', 'part-1.csv, line 2, item 1')
    """
    position = f"item {item}" if line is None else f"line {line}, item {item}"
    return position if file is None else f"{file}, {position}"


def excerpt(value: object, *, most: int = 80) -> str:
    """Return the beginning of a value, on one line, in characters that every file and database can hold.

    Args:
        value: Anything.
        most: Characters at most.

    Examples:
        >>> excerpt(" a  b ", most=3), excerpt("abcdef", most=4)
        ('a b', 'abc…')
    """
    text = _UNSTORABLE.sub("\ufffd", " ".join(as_text(value)[: most * 4].split()))
    return text if len(text) <= most else text[: most - 1] + "…"


def column_name(name: str) -> str:
    """Return a column's name for a message, of bounded length."""
    return excerpt(name, most=_LONGEST_COLUMN)


def as_text(value: object) -> str:
    """Return a value of a JSON document, a table or a cell as text; empty where it is none."""
    if value is None or value != value:  # noqa: PLR0124  only what is not a number differs from itself
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return _of_object(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(as_text, value)))
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    try:
        text = str(value)
    except ValueError:  # an integer of more digits than Python is willing to write
        return "a number that is too large"
    return "" if text in NULLS else text


_LANGUAGE = re.compile(r"[a-z]{2,3}(?:[-_][A-Za-z]{2,4})?|x-default")
_IN_OBJECT = ("src", "url", "value", "uri", "href", "name", "title", "text", "#text", "@value", "amount", "contentUrl")


def _of_object(value: Mapping[Any, Any]) -> str:
    """Return the value that an object holds, such as a picture, a price or a brand as JSON APIs write them."""
    if (micros := value.get("amountMicros", value.get("amount_micros"))) is not None:
        unit = as_text(value.get("currencyCode", value.get("currency_code")))
        try:
            return f"{int(micros) / 1_000_000:.2f} {unit}".strip()
        except (TypeError, ValueError):
            return ""
    for name in _IN_OBJECT:
        if (found := value.get(name)) is not None and not isinstance(found, Mapping | list):
            currency = value.get("currency", value.get("currencyCode")) if name in {"value", "amount"} else None
            return f"{as_text(found)} {as_text(currency)}".strip() if currency else as_text(found)
    for name in ("image", "node"):
        if isinstance(found := value.get(name), Mapping):
            return _of_object(found)
    if all(isinstance(key, str) and _LANGUAGE.fullmatch(key) for key in value):
        return next((text for one in value.values() if isinstance(one, str) and (text := one.strip())), "")
    return ""
