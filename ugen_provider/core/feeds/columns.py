# SPDX-License-Identifier: Apache-2.0
"""What shops call their columns, and what we call them: Google's names, in lower case, without prefix."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

Kind = Literal["google", "shopify", "meta", "openai"]
"""Whose rules a feed follows; it chooses the names of columns and the default mapping."""

_SEPARATORS = re.compile(r"[\s\-/]+")
_NUMBERED = re.compile(r"image\[(\d+)\]\.url")
_ALIASES = {
    "product_id": "id",
    "item_id": "id",
    "offer_id": "id",
    "name": "title",
    "product_name": "title",
    "product_title": "title",
    "summary": "description",
    "content": "description",
    "body_html": "description",
    "image": "image_link",
    "image_url": "image_link",
    "main_image": "image_link",
    "images": "image_link",
    "additional_image_links": "additional_image_link",
    "additional_images": "additional_image_link",
    "additional_image_urls": "additional_image_link",
    "additional_image_url": "additional_image_link",
    "product_highlights": "product_highlight",
    "highlights": "product_highlight",
    "url": "link",
    "product_url": "link",
    "vendor": "brand",
    "product_category": "product_type",
    "category": "product_type",
}
_SHOPIFY = {
    "handle": "id",
    "url_handle": "id",
    "body_(html)": "description",
    "vendor": "brand",
    "type": "product_type",
    "product_category": "google_product_category",
    "image_src": "image_link",
    "product_image_url": "image_link",
    "variant_price": "price",
    "published_on_online_store": "published",
    "option1_value": "variant",
}
_OWN: Mapping[str, Mapping[str, str]] = {"shopify": {**_ALIASES, **_SHOPIFY}}
_MOST_HEADERS = 4096


def canonical(name: str, *, kind: Kind = "google", prefixes: tuple[str, ...] = ("g:",)) -> tuple[str, int]:
    """The canonical name of a column, and how sure that is (0 is surest).

    A prefixed name beats a plain one, since RSS and Atom have a `title` and a `link` of their own, and a name of
    Google's own beats an alias.

    Examples:
        >>> canonical("g:Image Link"), canonical("title"), canonical("product name")
        (('image_link', 0), ('title', 1), ('title', 2))
    """
    rank = 1
    own = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
    if own is not None:
        name, rank = name.removeprefix(own), 0
    plain = _SEPARATORS.sub("_", name.strip().lower())
    for prefix in prefixes:
        plain = plain.replace(f".{prefix}", ".")
    if found := _NUMBERED.fullmatch(plain):
        return ("image_link" if found[1] == "0" else "additional_image_link", 2)
    alias = _OWN.get(kind, _ALIASES).get(plain)
    return (plain, rank) if alias is None else (alias, 2)


def kind_of(header: Collection[str], *, commented: bool = False) -> Kind:
    """Whose rules a feed follows, by its columns.

    Args:
        header: Column names as they stand in the feed.
        commented: Whether `#` lines came before the header.

    Examples:
        >>> kind_of(["Handle", "Title", "Body (HTML)"]), kind_of(["id", "title", "is_eligible_search"])
        ('shopify', 'openai')
    """
    names: set[str] = {canonical(name)[0] for name in header} | {
        _SEPARATORS.sub("_", name.strip().lower()) for name in header
    }
    if names & {"handle", "url_handle"} and "title" in names and "id" not in names:
        return "shopify"
    if names & {"is_eligible_search", "is_eligible_checkout", "enable_search", "enable_checkout"}:
        return "openai"
    if commented or names & {"fb_product_category", "quantity_to_sell_on_facebook", "image[0].url", "fb_gender"}:
        return "meta"
    return "google"


class Columns:
    """Canonical names for whole headers, worked out once for each header that occurs.

    Args:
        kind: Whose rules the feed follows.
        prefixes: Namespace prefixes that mean Google's attributes.

    Examples:
        >>> Columns().names(("g:id", "title", "g:title"))
        ('id', 'title[2]', 'title')
    """

    def __init__(self, *, kind: Kind = "google", prefixes: tuple[str, ...] = ("g:",)) -> None:
        self._kind: Kind = kind
        self._prefixes = prefixes
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}

    def names(self, header: tuple[str, ...]) -> tuple[str, ...]:
        """The canonical names of a header, in its order; where two mean the same, the surer one gets the name."""
        known = self._known.get(header)
        if known is None:
            if len(self._known) >= _MOST_HEADERS:  # a feed whose every row has other columns must not fill the memory
                self._known.clear()
            known = self._known[header] = self._work_out(header)
        return known

    def _work_out(self, header: tuple[str, ...]) -> tuple[str, ...]:
        meant = [canonical(name, kind=self._kind, prefixes=self._prefixes) for name in header]
        names = [""] * len(header)
        taken: set[str] = set()
        for position in sorted(range(len(header)), key=lambda position: meant[position][1]):
            name = base = meant[position][0]
            count = 1
            while name in taken:
                count += 1
                name = f"{base}[{count}]"
            taken.add(name)
            names[position] = name
        return tuple(names)
