# SPDX-License-Identifier: Apache-2.0
"""Lists of several pages: how one page is read, and whether all of them were.

The service documents an envelope that counts; other shapes are read as well. This module alone decides where a list
ends, since a job that a list seems to lack is a job that could be paid a second time: `Page.ends` says it of one page,
`PageReader` of a list that is read page by page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ugen_provider.core.api.errors import ResponseError

Params = tuple[tuple[str, str], ...]
"""Query parameters."""

MOST_PAGES = 10_000
"""After so many pages a list counts as endless."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    Attributes:
        items: Its JSON objects.
        page: Its number, from 1.
        ends: True where this page proves that the list ends with it: an explicit total is reached, `has_more` is false,
            there is no next link where the field exists, or the page is empty. False where it says that more follows.
            None where it says nothing: a page that is shorter than requested proves nothing.
        total: Items of the whole list, where the service counts them.
        page_size: Items that were asked for.
        count: Entries of the page, unreadable ones included.
        onward: Parameters of the next page, where the service named them; its number otherwise.
    """

    items: tuple[dict[str, Any], ...]
    page: int
    ends: bool | None
    total: int | None = None
    page_size: int = 0
    count: int = 0
    onward: Params = ()

    @property
    def more(self) -> bool:
        """Whether another page has to be read before the list is known to be complete."""
        return self.ends is not True

    @property
    def likely_more(self) -> bool:
        """Whether another page probably follows. For readers that need no proof: a short page counts as the last."""
        return self.ends is False or (self.ends is None and self.count >= self.page_size)


def read_page(body: Any, *, page: int, page_size: int) -> Page:
    """Read one page of a list, as an envelope or as a bare array.

    Args:
        body: The JSON of the answer.
        page: The number of the page that was asked for.
        page_size: Items that were asked for.

    Raises:
        TypeError: It is no list.

    Examples:
        >>> read_page([{"job_id": "j"}], page=1, page_size=100).ends is None
        True
        >>> read_page({"items": [{"job_id": "j"}], "total": 1}, page=1, page_size=100).ends
        True
    """
    envelope: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    names = ("items", "data", "results", "jobs", "transactions")
    inner = (envelope[name] for name in names if isinstance(envelope.get(name), list))
    listed = body if isinstance(body, list) else next(inner, None)
    if listed is None:
        raise TypeError("a list was expected, as an array or as {'items': [...]}")
    facts = _facts(envelope)
    total = _count(_first(facts, _TOTAL))
    onward = _onward(facts, envelope)
    return Page(
        items=tuple(objects(listed)),
        page=page,
        ends=_ends(facts, count=len(listed), page=page, total=total, onward=onward),
        total=total,
        page_size=page_size,
        count=len(listed),
        onward=onward or (),
    )


_TOTAL = ("total", "total_count", "totalCount", "total_items")
_TOTAL_PAGES = ("total_pages", "totalPages", "page_count")
_HAS_MORE = ("has_more", "hasMore", "has_next", "hasNext", "has_next_page", "hasNextPage", "more")
_NEXT = {
    "next": "cursor",
    "next_url": "cursor",
    "next_link": "cursor",
    "next_page": "page",
    "nextPage": "page",
    "next_cursor": "cursor",
    "nextCursor": "cursor",
    "end_cursor": "after",
    "endCursor": "after",
    "next_page_token": "page_token",
    "nextPageToken": "page_token",
    "next_token": "next_token",
}
"""Fields that name the next page, with the parameter that takes it where it is no link."""

_POSITIONS = frozenset({"end_cursor", "endCursor"})
"""Cursors that name where this page ends; that there is one does not mean that more follows."""


def _facts(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an envelope says of itself, also in an object of its own."""
    facts: dict[str, Any] = {}
    for name in ("pagination", "meta", "page_info", "pageInfo", "paging"):
        inner = envelope.get(name)
        if isinstance(inner, Mapping):
            facts.update(inner)
    facts.update(envelope)
    return facts


def _ends(facts: Mapping[str, Any], *, count: int, page: int, total: int | None, onward: Params | None) -> bool | None:
    """Return whether a page ends its list. One sign that more follows outweighs every sign that none does."""
    signs: list[bool] = []
    has_more = _first(facts, _HAS_MORE)
    if isinstance(has_more, bool):
        signs.append(not has_more)
    if onward is not None:
        signs.append(not onward)
    if count == 0:
        signs.append(True)
    if total is not None and page == 1:
        signs.append(count >= total)
    pages = _count(_first(facts, _TOTAL_PAGES))
    if pages is not None and (page < pages or total is None):
        # The last of so many pages ends the list only if no total can say otherwise. After page 1 a reader has to count
        # the entries itself: pages may be smaller than those from which their number was worked out.
        signs.append(page >= pages)
    return all(signs) if signs else None


def _onward(facts: Mapping[str, Any], envelope: Mapping[str, Any]) -> Params | None:
    """The parameters of the next page; empty where the service says that there is none, None where it does not say."""
    for name in ("links", "_links"):
        links = envelope.get(name)
        if isinstance(links, Mapping) and links.keys() & {"next", "self", "first", "last", "prev", "previous"}:
            link = links.get("next")
            return _link(link.get("href") if isinstance(link, Mapping) else link, parameter="cursor")
    found: Params | None = None
    for name, parameter in _NEXT.items():
        if name in facts and not (name in _POSITIONS and facts.get(name)):
            found = found or _link(facts[name], parameter=parameter)
    if found is None and _first(facts, _HAS_MORE) is True:
        for name in _POSITIONS & facts.keys():
            found = _link(facts[name], parameter="after")
    return found


def _link(value: Any, *, parameter: str) -> Params:
    """Return what the value of a next field asks for. Of a link only the query is used, never its host."""
    if value is None or value == "" or isinstance(value, bool):
        return ()
    text = str(value)
    if isinstance(value, str) and (text.startswith(("http://", "https://", "/", "?")) or "?" in text):
        return tuple(parse_qsl(urlsplit(text).query, keep_blank_values=True)) or ((parameter, text),)
    return (("page" if isinstance(value, int) else parameter, text),)


def _first(facts: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((facts[name] for name in names if facts.get(name) is not None), None)


def _count(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19 else None


class PageReader:
    """Reads a list page by page and judges whether it was read whole. Pure: the caller fetches the pages.

    Pages shift while they are read, so an id that was seen on an earlier page is passed over, and reported. A page on
    which every id is known already means that the service gives the same page again; the list is then not complete.

    That page 1 is the first one is an assumption: a service that counts from 0 would hide its newest entries. A list
    that says neither its total nor its end is therefore complete only if the page without a number is known as well.

    Args:
        id_of: The id of an entry; None where it has none.
        for_absence: Whether the list has to prove that an entry does not exist; no word of the service is enough then.

    Attributes:
        complete: Whether the end of the list is proven; False until then.
        repeated: Whether an id was on two pages.
        shrank: Whether the list became shorter while it was read, so that entries can have been missed; read it again.
        finished: Whether no further page is to be read.
        why: Why the list is not complete; empty where it is.
        unreadable_only: Whether the end is proven, and only entries that cannot be read keep it from being complete.
        number: The number of the next page; 0 for the page that the service gives without a number.
        onward: Parameters of the next page; see `Page.onward`.

    Examples:
        >>> reader = PageReader(id_of=lambda item: item["job_id"])
        >>> len(reader.take(read_page([{"job_id": "a"}], page=1, page_size=100))), reader.finished
        (1, False)
        >>> len(reader.take(read_page([], page=2, page_size=100))), reader.finished, reader.number
        (0, False, 0)
        >>> len(reader.take(read_page([{"job_id": "a"}], page=1, page_size=100))), reader.finished, reader.complete
        (0, True, True)
    """

    def __init__(self, *, id_of: Callable[[Mapping[str, Any]], str | None], for_absence: bool = False) -> None:
        self._id_of = id_of
        self._for_absence = for_absence
        self._seen: set[str] = set()
        self._pages: set[str] = set()
        self._entries = 0
        self._different = 0
        self._unreadable = 0
        self._totals: list[int] = []
        self.complete = False
        self.repeated = False
        self.shrank = False
        self.finished = False
        self.why = ""
        self.unreadable_only = False
        self.number = 1
        self.onward: Params = ()

    def take(self, page: Page) -> tuple[dict[str, Any], ...]:
        """Count a page and return its entries that are new."""
        if self.number == 0:
            return self._confirm_first(page)
        fresh = self._fresh(page)
        unreadable = page.count - len(page.items)
        self._entries += page.count
        self._different += len(fresh) + unreadable
        self._unreadable += unreadable
        if page.total is not None:
            self.shrank = self.shrank or any(page.total < total for total in self._totals)
            self._totals.append(page.total)
        if page.count and not fresh:
            self._give_up("its entries cannot be read" if not page.items else "the service gives the same page again")
        elif page.ends or self._reached(page):
            self._conclude(said=page.count > 0)
        elif page.count == 0 and (not page.onward or page.onward == self.onward):
            self._give_up("a page is empty although the service says that more follows")
        elif self.number == MOST_PAGES:
            self._give_up(f"it has more than {MOST_PAGES} pages")
        else:
            self.number, self.onward = self.number + 1, page.onward
        return fresh

    def refuse(self, status: int) -> None:
        """Note that the service refused a further page, which proves nothing."""
        if self.number == 0 and not self._for_absence:
            self.finished = self.complete = True
            return
        page = f"page {self.number}" if self.number else "its first page, without a number,"
        self._give_up(f"{page} was answered with {status}")

    def _reached(self, page: Page) -> bool:
        """Return whether the announced total was reached.

        Repeated entries count: new jobs push the others on to later pages.
        """
        return page.ends is None and page.total is not None and self._entries >= page.total

    def _conclude(self, *, said: bool) -> None:
        # Of totals that grew the first counts: an entry that was added meanwhile can be on a page that was read before.
        total = min(self._totals[0], self._totals[-1]) if self._totals else 0
        if self._different < total:
            self._give_up(f"it ended after {self._different} entries, and {total} were announced")
        elif self._unreadable:
            self.unreadable_only = not self.shrank
            self._give_up(f"{self._unreadable} of its entries cannot be read")
        elif self.shrank:
            self._give_up("it became shorter while it was read")
        elif self._for_absence or not (said or self._totals):
            self.number, self.onward = 0, ()
        else:
            self.finished = self.complete = True

    def _confirm_first(self, page: Page) -> tuple[dict[str, Any], ...]:
        """Complete the list if the page that the service gives without a number is known, entries added since apart."""
        repeated = self.repeated
        fresh = self._fresh(page)
        self.repeated = repeated
        if page.count and len(fresh) == len(page.items):
            self._give_up("its first page is not page 1; set `first_page` in the service profile")
        else:
            self.finished = self.complete = True
        return fresh

    def _give_up(self, why: str) -> None:
        self.finished, self.why = True, why

    def _fresh(self, page: Page) -> tuple[dict[str, Any], ...]:
        ids = [self._id_of(item) for item in page.items]
        here = {one for one in ids if one is not None}
        self.repeated = self.repeated or not here.isdisjoint(self._seen)
        fresh = tuple(item for item, one in zip(page.items, ids, strict=True) if one is None or one not in self._seen)
        self._seen |= here
        if None in ids:
            # Entries without an id can be equal by chance; a whole page that is equal to an earlier one is that page.
            whole = json.dumps(page.items, sort_keys=True, default=str)
            if whole in self._pages:
                self.repeated = True
                return ()
            self._pages.add(whole)
        return fresh


def not_proven(path: str, reader: PageReader) -> ResponseError:
    """Return the error for a list of which the end is not proven."""
    return ResponseError(
        f"the list is not proven to be complete: {reader.why}",
        method="GET",
        path=path,
        status=200,
        retryable=reader.shrank,
    )


def read_items(body: Any) -> tuple[dict[str, Any], ...]:
    """Read a list that has no pages."""
    return read_page(body, page=1, page_size=100).items


def objects(value: Any) -> Any:
    """Return the JSON objects of a list; nothing where there is no list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else ()
