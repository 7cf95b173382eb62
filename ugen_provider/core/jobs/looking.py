# SPDX-License-Identifier: Apache-2.0
"""How to look at many jobs of one account with few requests, and never with many.

One GET per job, or the pages of active jobs: the cheaper. A job that is missing from those pages is only a suspect,
since pages shift while they are read, lag behind, or do not filter at all; it has ended when an answer says so of that
very id. What a round may cost is bounded by a budget of one GET per job and interval plus 5 %, so that a list that
turns out to be of no use has been paid for out of those 5 %.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Protocol, TypeVar

from ugen_provider.core.api import operations
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.api.flows import Operation
from ugen_provider.core.api.models import Job, JobState, state_of
from ugen_provider.core.api.pages import Page

T = TypeVar("T")

_GETS_AT_ONCE = 16
_PAGES_AT_ONCE = 4
"""Few, since pages that arrive together are read one after the other while everybody else in the loop waits."""

_BREATH = 10
"""Jobs that are read, and whose waiters are told, before everybody else in the loop gets a turn."""

_FEWEST = 4
"""Below this many jobs the pages are not worth a thought."""

_WORTH = 0.8
"""Share of the price of one GET each that the pages may cost and still be worth it."""

_LONGEST_REST = 64
_ENDED = ("completed", "failed", "cancelled")


class Send(Protocol):
    """Calls one endpoint, once."""

    def __call__(self, operation: Operation[T], /) -> Awaitable[T]:
        """Call it."""
        ...


class Audience(Protocol):
    """Who is told what was seen."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def is_news(self, job_id: str, *, state: JobState, stage: str | None) -> bool:
        """Whether this state, seen on a page, would end anybody's wait; it is then made sure of."""
        ...

    def answered(self, job: Job, *, asked_at: float, listed: bool) -> None:
        """An answer about this very job, or what a list says of it."""
        ...

    async def failed(self, job_id: str, error: UGenError) -> None:
        """A GET of this job failed."""
        ...


@dataclass(slots=True)
class Budget:
    """Requests that may still be sent. Savings are kept for two rounds, so that a change of means is never dear.

    Examples:
        >>> budget = Budget()
        >>> budget.fill(jobs=100)
        >>> budget.left
        105.0
    """

    left: float = 0.0

    def fill(self, *, jobs: int) -> None:
        """A round begins in which each of these jobs is due."""
        self.left = min(self.left + 1.05 * jobs, 2.1 * jobs)

    def spend(self, requests: int = 1) -> None:
        """Requests were sent."""
        self.left -= requests


@dataclass(slots=True)
class _Word:
    """A status that active jobs were seen in, and how many of ours stood under it in the last round."""

    word: str
    ours: int = 0


@dataclass(slots=True)
class Looker:
    """Looks at jobs round by round, and learns what the account's lists are worth.

    Args:
        send: Calls one endpoint, once.
        audience: Is told what was seen.
    """

    send: Send
    audience: Audience
    budget: Budget = field(default_factory=Budget)
    _words: dict[str, _Word] = field(
        default_factory=lambda: {word: _Word(word) for word in ("processing", "pending", "paused")}
    )
    _rest: int = 0
    _next_rest: int = 2
    _rests_from: int = 0
    _ended_pages_help: bool = True
    _owed: dict[str, None] = field(default_factory=dict)

    async def look(self, job_ids: Sequence[str], *, sure: Collection[str] = ()) -> None:
        """Look at jobs that are due.

        Args:
            job_ids: The jobs.
            sure: Those of which only a GET of their own will do.
        """
        self.budget.fill(jobs=len(job_ids))
        unseen = dict.fromkeys(job_id for job_id in job_ids if job_id not in sure)
        known = len(unseen)
        spent_before = self.budget.left
        listed = self._pages_may_pay(known) and await self._read_active(unseen)
        if listed and len(unseen) > _FEWEST and self._ended_pages_help:
            pages = spent_before - self.budget.left
            await self._read_ended(unseen)
            if len(unseen) > 2 * pages:
                # Those that are on neither kind of page moved from one page to another while these were read.
                await self._read_active(unseen)
        pages = spent_before - self.budget.left
        asked = frozenset(job_ids)
        due = [*(job_id for job_id in self._owed if job_id in unseen or job_id in sure)]
        due += [job_id for job_id in (*sure, *unseen) if job_id in asked and job_id not in self._owed]
        self._owed.clear()
        afford = max(1, int(self.budget.left)) if due else 0
        false = await self._get_each(due[:afford])
        self._owed.update(dict.fromkeys(due[afford:]))
        if listed:
            self._judge_pages(cost=pages + false, jobs=known)

    def _pages_may_pay(self, jobs: int) -> bool:
        if jobs < _FEWEST:
            return False
        if self._rest and jobs <= 1.5 * self._rests_from:
            self._rest -= 1
            return False
        return self.budget.left - jobs >= len(self._words)

    def _judge_pages(self, *, cost: float, jobs: int) -> None:
        if cost > _WORTH * jobs:
            self._back_off(jobs)
        else:
            self._next_rest = 2

    def _back_off(self, jobs: int) -> None:
        """The pages cost too much for so many jobs: leave them alone for some rounds, unless there are many more."""
        self._rest = self._next_rest
        self._rests_from = jobs
        self._next_rest = min(2 * self._next_rest, _LONGEST_REST)

    async def _read_active(self, unseen: dict[str, None]) -> bool:
        """Cross off whoever stands on a page of active jobs; False where that would cost too much."""
        jobs = len(unseen)
        most = min(_WORTH * jobs, self.budget.left - jobs)
        for known in sorted(self._words.values(), key=lambda known: -known.ours):
            try:
                page = await self._page(known.word, 1)
            except UGenError:
                return False
            most -= 1
            known.ours = self._cross_off(page, unseen)
            number = 1
            while page.more and unseen:
                count = min(_PAGES_AT_ONCE, self._pages_left(page, number))
                if most < self._pages_left(page, number):
                    self._back_off(jobs)
                    return False
                try:
                    pages = await asyncio.gather(*(self._page(known.word, number + 1 + i) for i in range(count)))
                except UGenError:
                    return False
                most -= count
                number += count
                known.ours += sum(self._cross_off(each, unseen) for each in pages)
                page = next((each for each in pages if not each.more), pages[-1])
            if not unseen:
                break
        return True

    @staticmethod
    def _pages_left(page: Page, number: int) -> int:
        if page.total is None:
            return 1
        return max(1, ceil(page.total / operations.PAGE_SIZE) - number)

    def _page(self, word: str, number: int) -> Awaitable[Page]:
        self.budget.spend()
        return self.send(operations.list_jobs(status=word, page=number))

    def _cross_off(self, page: Page, unseen: dict[str, None]) -> int:
        ours = 0
        for item in page.items:
            job_id = str(item.get("job_id", item.get("id")))
            if job_id not in unseen:
                continue
            ours += 1
            state = state_of(str(item.get("status", "")))
            stage = item.get("current_stage")
            if state.ended or self.audience.is_news(job_id, state=state, stage=stage):
                continue
            del unseen[job_id]
        return ours

    async def _read_ended(self, unseen: dict[str, None]) -> None:
        """Several left at once: the newest pages of ended jobs tell of many with one request."""
        found = 0
        for word in _ENDED:
            number = fruitless = 0
            # Two pages without one of ours: the order is not by what ended last, or the rest ended otherwise.
            while len(unseen) > _FEWEST and fruitless < 2 and number < len(unseen):
                if self.budget.left - len(unseen) < 1:
                    break
                number += 1
                asked_at = self.audience.now()
                try:
                    page = await self._page(word, number)
                except UGenError:
                    return
                here = await self._deliver(page.items, unseen, asked_at)
                found += here
                fruitless = 0 if here else fruitless + 1
                if not page.more:
                    break
        self._ended_pages_help = found > 0 or len(unseen) <= _FEWEST

    async def _deliver(self, items: Sequence[Mapping[str, Any]], unseen: dict[str, None], asked_at: float) -> int:
        here = 0
        for item in items:
            if here % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            job_id = str(item.get("job_id", item.get("id")))
            if job_id in unseen and state_of(str(item.get("status", ""))).ended:
                del unseen[job_id]
                here += 1
                self.audience.answered(operations.read_listed_job(item), asked_at=asked_at, listed=True)
        return here

    async def _get_each(self, job_ids: Sequence[str]) -> int:
        """A GET each. How many of them were found at work although a page should have shown them."""
        places = asyncio.Semaphore(_GETS_AT_ONCE)

        async def get(job_id: str) -> int:
            async with places:
                asked_at = self.audience.now()
                self.budget.spend()
                try:
                    job = await self.send(operations.get_job(job_id))
                except UGenError as error:
                    await self.audience.failed(job_id, error)
                    return 0
                if not job.ended:
                    self._ended_pages_help = True
                    self._words.setdefault(job.status, _Word(job.status))
                self.audience.answered(job, asked_at=asked_at, listed=False)
                return 0 if job.ended else 1

        return sum(await asyncio.gather(*(get(job_id) for job_id in job_ids)))
