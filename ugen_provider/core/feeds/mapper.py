# SPDX-License-Identifier: Apache-2.0
"""One mapping, made ready to be applied to a million products."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import InvalidRequestError
from ugen_provider.core.feeds.mapping import FROM_FEED, FeedMapping, template_parts
from ugen_provider.core.feeds.products import Product, RejectedRow, excerpt, place

_TAG = re.compile(
    r"<(script|style)\b.*?</\1\s*>|<(/?(?:p|li|ul|ol|div|br|tr|h[1-6])\b)?[^>]*>", re.IGNORECASE | re.DOTALL
)
_BREAK = "\x1e"
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_SURELY_HTTP = re.compile(r"https?://[A-Za-z0-9.-]+(?:[/?#][!-+.-~-]*)?")  # no comma: text feeds write several
MOST_POINTS = 5
"""Selling points that are sent at most; a script of a few segments has no room for more."""
_MOST_SENTENCES = 3
_MOST_LETTERS = 150


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A product that is not wanted: a filter of the mapping says so, or its id came before.

    Attributes:
        line: Line in the (unpacked) feed, from 1; None where the format has no lines.
        item: Number of the item, from 1.
        product_id: The product.
        reason: `filtered` or `duplicate`.
        rule: The filter that it does not pass.
        rows: Rows of the feed that it was made from.
    """

    line: int | None
    item: int
    product_id: str
    reason: str
    rule: str = ""
    rows: int = 1

    def __str__(self) -> str:
        return f"{place(self.line, self.item)}, product {self.product_id}: {self.reason} ({self.rule})"


class Mapper:
    """Makes requests of products.

    Everything that does not change from product to product is checked here, once.

    Args:
        mapping: What the columns become.
        job_defaults: Fields for every product, such as `segment_count`.
        model: The model that the account uses where nothing names one.
        upload_pictures: Whether a picture may have an address that the service cannot reach, since it is uploaded.

    Raises:
        InvalidRequestError: `job_defaults` break a rule by themselves, so that every product would.

    Attributes:
        unseen: Columns that the user's mapping names and that no product had so far.

    Examples:
        >>> lamp = Product("1", {"title": "Lamp", "image_link": "https://shop.example/lamp.jpg"}, 7, 1)
        >>> Mapper(FeedMapping.default(), job_defaults={"segment_count": 2})(lamp)["product_name"]
        'Lamp'
    """

    def __init__(
        self,
        mapping: FeedMapping,
        *,
        job_defaults: Mapping[str, Any],
        model: str | None = None,
        upload_pictures: bool = False,
    ) -> None:
        self._mapping = mapping
        self._model = model
        self._usable = _any_address if upload_pictures else is_http
        self._base = {name: value for name, value in {**job_defaults, **mapping.constants}.items() if value is not None}
        if violations := rules.check(self._base, model=model, pending=FROM_FEED, partial=bool(mapping.categories)):
            raise InvalidRequestError(violations)
        self.unseen = set(mapping.named)
        self._filters = mapping.filters
        self._name = mapping.columns["product_name"]
        self._picture = mapping.columns["product_image_url"]
        self._wants_points = not {"key_selling_points", "custom_script"} & {*self._base, *mapping.templates}
        self._points = mapping.columns.get("key_selling_points", ())
        self._others = [
            (name, columns, _readers[rules.BY_NAME[name].kind])
            for name, columns in mapping.columns.items()
            if name not in {*FROM_FEED, "key_selling_points"}
        ]
        self._templates = [
            (name, template_parts(name, text, kind=mapping.kind), _readers[rules.BY_NAME[name].kind])
            for name, text in mapping.templates.items()
        ]
        by_length = sorted(mapping.categories.items(), key=lambda entry: -len(entry[0]))
        self._categories = [(prefix.lower(), values) for prefix, values in by_length]
        # Name, picture and points are made right by construction; anything else from the feed is checked.
        self._needs_check = bool(self._others or self._templates or self._categories)

    def __call__(self, product: Product) -> dict[str, Any] | RejectedRow | SkippedRow:
        """The fields of the create-job request, or why there are none."""
        if self.unseen:
            self.unseen.difference_update(product.attributes)
        for wanted in self._filters:
            if not wanted.passes(product):
                return SkippedRow(product.line, product.item, product.id, "filtered", str(wanted), product.rows)
        name = self._first(product, self._name)
        if not name:
            return self._rejected(product, self._name[0], "must not be empty")
        picture = self._picture_of(product)
        if picture is None:
            broken = next((text for column in self._picture for text in product.addresses(column)), "")
            rule = "is no http(s) address of a picture" if broken else "is required: the product has no picture"
            return self._rejected(product, self._picture[0], rule, broken)
        fields = {**self._base, "product_name": name, "product_image_url": picture}
        if self._needs_check:
            self._add(product, fields)
        if self._wants_points and (points := self._selling_points(product)):
            fields["key_selling_points"] = points
        if self._needs_check:
            pending = () if is_http(picture) else ("product_image_url",)
            for violation in rules.check(fields, model=self._model, pending=pending):
                column = self._mapping.columns.get(violation.field, (violation.field,))[0]
                return self._rejected(product, column, violation.rule, violation.value)
        return fields

    def _rejected(self, product: Product, column: str, rule: str, value: str = "") -> RejectedRow:
        return RejectedRow(product.line, product.item, product.id, column, rule, excerpt(value), product.rows)

    def _add(self, product: Product, fields: dict[str, Any]) -> None:
        if self._categories:
            category = product.category.lower()
            for prefix, values in self._categories:
                if category.startswith(prefix):
                    fields.update(values)
                    break
        for name, columns, read in self._others:
            text = self._first(product, columns)
            if text:
                fields[name] = read(text)
        for name, parts, read in self._templates:
            texts = [(before, self._first(product, (column,)) if column else "") for before, column in parts]
            if all(text for (_, column), (_, text) in zip(parts, texts, strict=True) if column):
                fields[name] = read("".join(before + text for before, text in texts))

    def _first(self, product: Product, columns: tuple[str, ...]) -> str:
        get = product.attributes.get
        for column in columns:
            value = get(column)
            if type(value) is str:  # what nearly every value of nearly every feed is
                if value := " ".join(value.split()):
                    return value
            elif value is not None and (text := one_line(product.text(column))):
                return text
        return ""

    def _picture_of(self, product: Product) -> str | None:
        for column in self._picture:
            value = product.attributes.get(column)
            if type(value) is str and _SURELY_HTTP.fullmatch(value):
                return value
            if value:
                for text in product.addresses(column):
                    if self._usable(text):
                        return text
        return None

    def _selling_points(self, product: Product) -> list[str]:
        """Short sentences that sell the product: its highlights, else the first sentences of its description."""
        for column in self._points:
            value = product.attributes.get(column)
            if type(value) is str and '"' not in value:
                if value := " ".join(value.split()):
                    return [value]
            elif value and (points := [one_line(text) for text in product.phrases(column)]):
                return points[:MOST_POINTS]
        for column in self._mapping.prose:
            blocks = _blocks(product.text(column))
            if sentences := [one for block in blocks for one in _SENTENCE.split(block, maxsplit=_MOST_SENTENCES)]:
                return [text for text in sentences[:_MOST_SENTENCES] if len(text) <= _MOST_LETTERS]
        return []


def to_job_fields(
    product: Product, mapping: FeedMapping, *, job_defaults: Mapping[str, Any], model: str | None = None
) -> dict[str, Any] | RejectedRow | SkippedRow:
    """The fields of the create-job request for one product; for many, keep a `Mapper`.

    Args:
        product: From `read_feed`.
        mapping: What the columns become.
        job_defaults: Fields for every product.
        model: The model that the account uses where nothing names one.
    """
    return Mapper(mapping, job_defaults=job_defaults, model=model)(product)


def is_http(address: str) -> bool:
    """Whether this is an http(s) address, by the rule that the API's table has."""
    return _SURELY_HTTP.fullmatch(address) is not None or rules.is_http_url(address)


def _any_address(address: str) -> bool:
    return is_http(address) or "://" in address or address.startswith("/")


def plain_text(text: str) -> str:
    """Text without HTML, on one line.

    Examples:
        >>> plain_text("<p>Tea &amp; coffee.</p><style>p {}</style>")
        'Tea & coffee.'
    """
    return " ".join(_blocks(text))


def _blocks(text: str) -> list[str]:
    """Text without HTML, a line for each paragraph or entry of a list: those end without a full stop."""
    if "<" in text:
        text = _TAG.sub(lambda tag: _BREAK if tag[2] else " ", text)
    if "&" in text:
        text = html.unescape(text)
    return [line for block in text.split(_BREAK) if (line := one_line(block))]


def one_line(text: str) -> str:
    """Text with single spaces."""
    return " ".join(text.split())


def _number(text: str) -> Any:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text


def _boolean(text: str) -> Any:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower(), text)


def _strings(text: str) -> Any:
    return [part for part in map(one_line, text.split(",")) if part]


def _same(text: str) -> Any:
    return text


_readers: Mapping[str, Callable[[str], Any]] = {
    "string": _same,
    "url": _same,
    "object": _same,
    "integer": _number,
    "number": _number,
    "boolean": _boolean,
    "strings": _strings,
}
