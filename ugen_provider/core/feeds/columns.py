# SPDX-License-Identifier: Apache-2.0
"""What shops call their columns, and what we call them: Google's names, in lower case, without prefix."""

from __future__ import annotations

import re

_SEPARATORS = re.compile(r"[\s\-/]+")
_ALIASES = {
    "product_id": "id",
    "item_id": "id",
    "offer_id": "id",
    "name": "title",
    "product_name": "title",
    "product_title": "title",
    "summary": "description",
    "content": "description",
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
    "product_category": "product_type",
    "category": "product_type",
}
_MOST_HEADERS = 4096


def canonical(name: str, *, prefixes: tuple[str, ...] = ("g:",)) -> tuple[str, int]:
    """The canonical name of a column, and how sure that is (0 is surest).

    A prefixed name beats a plain one, since RSS and Atom have a `title` and a `link` of their own, and a name of
    Google's own beats an alias.

    Example:
        >>> canonical("g:Image Link"), canonical("title"), canonical("product name")
        (('image_link', 0), ('title', 1), ('title', 2))
    """
    rank = 1
    for prefix in prefixes:
        if prefix and name.startswith(prefix):
            name, rank = name[len(prefix) :], 0
            break
    plain = _SEPARATORS.sub("_", name.strip().lower())
    if ".g:" in plain:
        plain = plain.replace(".g:", ".")
    alias = _ALIASES.get(plain)
    return (plain, rank) if alias is None else (alias, 2)


class Columns:
    """Canonical names for whole headers, worked out once for each header that occurs.

    Args:
        prefixes: Namespace prefixes that mean Google's attributes.

    Example:
        >>> Columns().names(("g:id", "title", "g:title"))
        ('id', 'title[2]', 'title')
    """

    def __init__(self, *, prefixes: tuple[str, ...] = ("g:",)) -> None:
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
        meant = [canonical(name, prefixes=self._prefixes) for name in header]
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
