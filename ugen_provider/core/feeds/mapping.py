# SPDX-License-Identifier: Apache-2.0
"""What a feed's columns become in a create-job request. Pure: nothing here reads, sends or spends."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ugen_provider.core.api import rules
from ugen_provider.core.feeds.columns import Kind
from ugen_provider.core.feeds.products import Product, RejectedRow, excerpt

_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
MOST_POINTS = 5
"""Selling points that are sent at most; a script of a few segments has no room for more."""
_MOST_LETTERS = 150


@dataclass(frozen=True, slots=True)
class FeedMapping:
    """Which columns a request is made of, by their canonical names.

    Attributes:
        version: The number of the rules. They never change under a number: a better default is a new one, so that an
            upgrade of this package changes no request of a catalogue that is known.
        name: Columns for `product_name`; the first that is filled is taken.
        picture: Columns for `product_image_url`; the first http(s) address is taken.
        points: Columns for `key_selling_points`; all values of the first that is filled.
        prose: Columns whose first sentences become `key_selling_points` where `points` gives none.
    """

    version: int = 1
    name: tuple[str, ...] = ("title",)
    picture: tuple[str, ...] = ("image_link", "additional_image_link")
    points: tuple[str, ...] = ("product_highlight",)
    prose: tuple[str, ...] = ("description",)

    @classmethod
    def default(cls, kind: Kind = "google") -> Self:
        """The mapping for a kind of feed where the user wrote none.

        Args:
            kind: Whose rules the feed follows.
        """
        del kind
        return cls()


def to_job_fields(
    product: Product, mapping: FeedMapping, *, job_defaults: Mapping[str, Any], model: str | None = None
) -> dict[str, Any] | RejectedRow:
    """The fields of the create-job request for one product.

    Args:
        product: From `read_feed`.
        mapping: Which columns to take.
        job_defaults: Fields that are the same for every product, such as `segment_count`. What the feed says of
            `product_name` and `product_image_url` goes before them; `key_selling_points` in them is kept.
        model: The model that the account uses where `job_defaults` names none.

    Returns:
        The fields, or which column breaks which rule.

    Example:
        >>> lamp = Product("1", {"title": "Lamp", "image_link": "https://shop.example/lamp.jpg"}, 7, 1)
        >>> to_job_fields(lamp, FeedMapping.default(), job_defaults={"segment_count": 2})["product_name"]
        'Lamp'
    """
    fields = dict(job_defaults)
    fields["product_name"] = _first(product, mapping.name)
    fields["product_image_url"] = picture = _picture(product, mapping.picture)
    if not picture:
        broken = next((text for name in mapping.picture for text in product.texts(name)), "")
        rule = "is no http(s) address of a picture" if broken else "is required: the product has no picture"
        return RejectedRow(product.line, product.item, product.id, mapping.picture[0], rule, excerpt(broken))
    if "key_selling_points" not in fields and "custom_script" not in fields:
        points = selling_points(product, mapping)
        if points:
            fields["key_selling_points"] = points
    for violation in rules.check(fields, model=model):
        column = {"product_name": mapping.name[0], "product_image_url": mapping.picture[0]}.get(violation.field)
        return RejectedRow(
            product.line, product.item, product.id, column or violation.field, violation.rule, violation.value
        )
    return fields


def selling_points(product: Product, mapping: FeedMapping) -> list[str]:
    """Short sentences that sell the product: its highlights, else the first sentences of its description.

    Example:
        >>> cup = Product("1", {"description": "<p>A cup.</p> It holds tea &amp; coffee."}, None, 1)
        >>> selling_points(cup, FeedMapping.default())
        ['A cup.', 'It holds tea & coffee.']
    """
    for name in mapping.points:
        if points := [_one_line(text) for text in product.phrases(name)]:
            return points[:MOST_POINTS]
    for name in mapping.prose:
        if prose := plain_text(product.text(name)):
            return [sentence for sentence in _SENTENCE.split(prose)[:3] if len(sentence) <= _MOST_LETTERS]
    return []


def plain_text(text: str) -> str:
    """Text without HTML, on one line."""
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "&" in text:
        text = html.unescape(text)
    return _one_line(text)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _first(product: Product, names: tuple[str, ...]) -> str:
    return next((_one_line(text) for name in names for text in product.texts(name)), "")


def _picture(product: Product, names: tuple[str, ...]) -> str:
    return next((text for name in names for text in product.addresses(name) if rules.is_http_url(text)), "")
