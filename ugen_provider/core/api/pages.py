# SPDX-License-Identifier: Apache-2.0
"""Lists, as the service gives them: in an envelope that counts, or as a bare array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: items as JSON, and whether another may follow."""

    items: tuple[dict[str, Any], ...]
    page: int
    more: bool
    total: int | None = None


def read_page(body: Any, *, page: int, page_size: int) -> Page:
    """Read a list as an envelope or as a bare array.

    Whether another page follows is told by `total_pages` or `total` where there, else by a full page.
    """
    if isinstance(body, list):
        return Page(items=tuple(objects(body)), page=page, more=len(body) >= page_size, total=None)
    if not isinstance(body, Mapping):
        raise TypeError("a list was expected, as an array or as {'items': [...]}")
    items = next(
        (body[name] for name in ("items", "data", "results", "jobs") if isinstance(body.get(name), list)),
        None,
    )
    if items is None:
        raise TypeError("a list was expected, as an array or as {'items': [...]}")
    total_pages, total = body.get("total_pages"), body.get("total")
    if isinstance(total_pages, int):
        more = page < total_pages
    elif isinstance(total, int):
        more = page * page_size < total
    else:
        more = len(items) >= page_size
    return Page(
        items=tuple(objects(items)),
        page=page,
        more=more and bool(items),
        total=total if isinstance(total, int) else None,
    )


def read_items(body: Any) -> tuple[dict[str, Any], ...]:
    """Read a list that has no pages."""
    return read_page(body, page=1, page_size=100).items


def objects(value: Any) -> Any:
    """The JSON objects of a list; nothing where there is no list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else ()
