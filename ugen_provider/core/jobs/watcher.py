# SPDX-License-Identifier: Apache-2.0
"""The watcher of all jobs of one account in one event loop, and the poller that asks about them together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from ugen_provider.core.api import endpoints, polling
from ugen_provider.core.api.async_client import AsyncUGenClient, call_endpoint
from ugen_provider.core.api.clock import Clock, abandon, asleep_unless, clock_of, count_wait, fork_count, poll_pause
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.api.endpoints import Endpoint, canonical_id
from ugen_provider.core.api.errors import AuthenticationError, EmulatorClockError, PermissionDeniedError, UGenError
from ugen_provider.core.api.models import Job, JobState, state_of
from ugen_provider.core.api.pagination import Page
from ugen_provider.core.api.polling import EarlierState, Goal, Patience, WaitOutcome
from ugen_provider.core.api.profile import is_known_word
from ugen_provider.core.jobs.world import AsyncWorld
from ugen_provider.core.ledger.record import OrderStore
from ugen_provider.core.text import get_logger

T = TypeVar("T")

# The poller: one GET per job, or the pages of active jobs, the cheaper. A job that is missing from those pages is only
# a suspect, since pages shift while they are read, lag behind, or do not filter at all; it has ended when an answer
# says so of that very id. A round may cost one GET per job and interval plus 5 %, so that a list that turns out to be
# of no use has been paid for out of those 5 %.

_GETS_AT_ONCE = 16
_PAGES_AT_ONCE = 4
"""Few, since pages that arrive together are read one after the other while all others in the loop wait."""

_BATCH_BREATH = 10
"""Jobs that are read, and reported to their waiters, before other tasks in the loop get a turn."""

_FEWEST = 4
"""Below this many jobs the pages are not worth a thought."""

_WORTH = 0.8
"""Share of the price of one GET each that the pages may cost and still be worth it."""

_LONGEST_REST = 64
_ENDED = ("completed", "failed", "cancelled")


class Send(Protocol):
    """Call of one endpoint, without a retry."""

    def __call__(self, endpoint: Endpoint[T], /) -> Awaitable[T]:
        """Call it."""
        ...


class EndsWait(Protocol):
    """Decision about a state that was seen on a page."""

    def __call__(self, job_id: str, /, *, state: JobState, stage: str | None) -> bool:
        """Return whether this state would end a wait; it is then confirmed by a GET of the job."""
        ...


class OnAnswer(Protocol):
    """Receiver of answers."""

    def __call__(self, job_id: str, job: Job, /, *, asked_at: float, listed: bool) -> None:
        """Report an answer about this very job, or the entry of a list about it."""
        ...


@dataclass(frozen=True, slots=True)
class PollListener:
    """Receiver of what the poller reads.

    Attributes:
        now: Returns the seconds since the epoch.
        ends_wait: Decides about a state on a page.
        answered: Receives each answer.
        failed: Receives the error of a GET of a job.
    """

    now: Callable[[], float]
    ends_wait: EndsWait
    answered: OnAnswer
    failed: Callable[[str, UGenError], Awaitable[None]]


@dataclass(slots=True)
class RequestBudget:
    """Requests that may still be sent. Savings are kept for two rounds, so that a change of means is never expensive.

    Examples:
        >>> budget = RequestBudget()
        >>> budget.fill(jobs=100)
        >>> budget.left
        105.0
    """

    left: float = 0.0

    def fill(self, *, jobs: int) -> None:
        """Add the budget of a round in which each of these jobs is due."""
        self.left = min(self.left + 1.05 * jobs, 2.1 * jobs)

    def spend(self, requests: int = 1) -> None:
        """Subtract the requests that were sent."""
        self.left -= requests


@dataclass(slots=True)
class _Word:
    """A status that active jobs were seen in, and how many of ours had it in the last round."""

    word: str
    ours: int = 0


@dataclass(slots=True)
class BatchPoller:
    """Polls jobs round by round, and learns what the account's lists are worth.

    Args:
        send: Calls one endpoint, once.
        listener: Receives what was read.
    """

    send: Send
    listener: PollListener
    budget: RequestBudget = field(default_factory=RequestBudget)
    _words: dict[str, _Word] = field(
        default_factory=lambda: {word: _Word(word) for word in ("processing", "pending", "paused")}
    )
    _rest: int = 0
    _next_rest: int = 2
    _rests_from: int = 0
    _ended_pages_help: bool = True
    _owed: dict[str, None] = field(default_factory=dict)
    _spelled: dict[str, str] = field(default_factory=dict)
    """The ids of this round by their one spelling: a list may spell a UUID otherwise than who asked for it."""

    async def poll(self, job_ids: Sequence[str], *, sure: Collection[str] = ()) -> None:
        """Look at jobs that are due.

        Args:
            job_ids: The jobs.
            sure: Those of which only a GET of their own will do.
        """
        self.budget.fill(jobs=len(job_ids))
        unseen = dict.fromkeys(job_id for job_id in job_ids if job_id not in sure)
        known = len(unseen)
        self._spelled = {canonical_id(job_id): job_id for job_id in unseen}
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
        """Cross off each job on a page of active jobs; False where that would cost too much."""
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
            while page.likely_more and unseen:
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
                page = next((each for each in pages if not each.likely_more), pages[-1])
            if not unseen:
                break
        return True

    @staticmethod
    def _pages_left(page: Page, number: int) -> int:
        if page.total is None:
            return 1
        return max(1, ceil(page.total / endpoints.PAGE_SIZE) - number)

    def _page(self, word: str, number: int) -> Awaitable[Page]:
        self.budget.spend()
        return self.send(endpoints.list_jobs(status=word, page=number))

    def _cross_off(self, page: Page, unseen: dict[str, None]) -> int:
        ours = 0
        for item in page.items:
            job_id = self._asked_id(item)
            if job_id not in unseen:
                continue
            ours += 1
            state = state_of(str(item.get("status", "")))
            stage = item.get("current_stage")
            if state.ended or _may_have_ended(item) or self.listener.ends_wait(job_id, state=state, stage=stage):
                continue
            del unseen[job_id]
        return ours

    def _asked_id(self, item: Mapping[str, Any]) -> str:
        """Return the id of an entry as it was asked for, however the list spells it."""
        job_id = str(item.get("job_id", item.get("id")))
        return self._spelled.get(canonical_id(job_id), job_id)

    async def _read_ended(self, unseen: dict[str, None]) -> None:
        """Several left at once: the newest pages of ended jobs show many with one request."""
        found = 0
        for word in _ENDED:
            number = fruitless = 0
            # Two pages without one of ours: the order is not by what ended last, or the rest ended otherwise.
            while len(unseen) > _FEWEST and fruitless < 2 and number < len(unseen):
                if self.budget.left - len(unseen) < 1:
                    break
                number += 1
                asked_at = self.listener.now()
                try:
                    page = await self._page(word, number)
                except UGenError:
                    return
                here = await self._deliver(page.items, unseen, asked_at)
                found += here
                fruitless = 0 if here else fruitless + 1
                if not page.likely_more:
                    break
        self._ended_pages_help = found > 0 or len(unseen) <= _FEWEST

    async def _deliver(self, items: Sequence[Mapping[str, Any]], unseen: dict[str, None], asked_at: float) -> int:
        here = 0
        for item in items:
            if here % _BATCH_BREATH == _BATCH_BREATH - 1:
                await asyncio.sleep(0)
            job_id = self._asked_id(item)
            if job_id in unseen and state_of(str(item.get("status", ""))).ended:
                del unseen[job_id]
                here += 1
                self.listener.answered(job_id, endpoints.read_listed_job(item), asked_at=asked_at, listed=True)
        return here

    async def _get_each(self, job_ids: Sequence[str]) -> int:
        """Read each job by a GET; return how many are active although a page should have shown them."""
        places = asyncio.Semaphore(_GETS_AT_ONCE)

        async def get(job_id: str) -> int:
            async with places:
                asked_at = self.listener.now()
                self.budget.spend()
                try:
                    job = await self.send(endpoints.get_job(job_id))
                except UGenError as error:
                    await self.listener.failed(job_id, error)
                    return 0
                if not job.ended:
                    self._ended_pages_help = True
                    word = str((job.model_extra or {}).get("service_status", job.status))
                    self._words.setdefault(word, _Word(word))
                self.listener.answered(job_id, job, asked_at=asked_at, listed=False)
                return 0 if job.ended else 1

        return sum(await asyncio.gather(*(get(job_id) for job_id in job_ids)))


def _may_have_ended(item: Mapping[str, Any]) -> bool:
    """Whether a row in an unknown status shows signs of the end; only a GET of the job leads to a report of it."""
    if is_known_word(str(item.get("status", ""))):
        return False
    percent = item.get("progress_percent")
    return bool(item.get("completed_at") or item.get("final_video_url") or (percent is not None and percent >= 100))


_log = get_logger("ugen_provider.jobs")
_SLACK = 0.5
"""Seconds by which a poll may come early, so that jobs that are due at nearly the same time share a round."""

_LEAST_PAUSE = 0.05
_FEW = 20
"""Jobs up to which each change of each job is a line of the log."""

_MOST_WORDS = 1000
_BREATH = 1000
"""Jobs that are processed before other tasks in the loop get a turn."""

ReadConfig = Callable[[], Awaitable[ClientConfig]]


class WatcherDiedError(UGenError):
    """The task that polls for all waiters ended by an unexpected error. The job keeps running; wait again."""

    retryable = True


@dataclass(slots=True, eq=False)
class _Waiter:
    job_id: str
    goal: Goal
    interval: float
    deadline: float | None
    stale: EarlierState | None
    joined: float
    done: asyncio.Future[WaitOutcome]
    on_seen: Callable[[Job], None] | None
    forks: int = field(default_factory=fork_count)


@dataclass(slots=True, eq=False)
class _WatchEntry:
    """One job, all of its waiters, and the time of its next poll."""

    due: float
    waiters: list[_Waiter] = field(default_factory=list)
    patience: Patience = field(default_factory=Patience)
    last: Job | None = None
    interval: float = float("inf")
    report: polling.WaitReport | None = None
    deadline: float | None = None
    """The least of its waiters'; ten thousand jobs are gone through in each round."""
    stale: bool = False

    def count(self) -> None:
        """Take note of who waits now."""
        self.interval = min((waiter.interval for waiter in self.waiters), default=float("inf"))
        self.deadline = min((w.deadline for w in self.waiters if w.deadline is not None), default=None)
        self.stale = any(waiter.stale is not None for waiter in self.waiters)

    def needs_its_own_look(self, now: float) -> bool:
        """Where an old state must not count, or the time is up, a page may not be believed: it may lag."""
        return self.stale or (self.deadline is not None and self.deadline <= now + _SLACK)


class JobWatcher:
    """Waits for many jobs of one account with as few requests as possible.

    Everybody who waits in a process shares one: all triggers of a triggerer, all jobs of a batch, all partitions of a
    run. It never costs more than one GET per job and interval plus 5 %, and where pages of active jobs are cheaper it
    reads those. Without waiters it does nothing at all.

    The job of an outcome may come from a list and lack what only `GET /jobs/{jobId}` has; `WatchedWorld` then reads it.

    Args:
        client: Sends the requests; it stays the caller's to close.
        read_config: Reads the settings again when the key is refused, so that a key can be rotated under the waiters.
        clock: The clock to live by; default the client's.
        on_answer: Is called with each answer about a job that is waited for, in the watcher's task; it must not block.

    Examples:
        >>> watcher = JobWatcher(client)
        >>> outcome = await watcher.wait(job.job_id)
        >>> outcome.job.status
        'completed'
    """

    def __init__(
        self,
        client: AsyncUGenClient,
        *,
        read_config: ReadConfig | None = None,
        clock: Clock | None = None,
        on_answer: Callable[[Job], None] | None = None,
    ) -> None:
        self.client = client
        self._on_answer = on_answer
        self._read_config = read_config
        self._clock = clock or clock_of(client)
        self._poller = BatchPoller(self._send, self._listener())
        self._forks = fork_count()
        self._jobs: dict[str, _WatchEntry] = {}
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._began = float("-inf")
        self._sleeps_until = float("inf")
        self._config_read_at = float("-inf")
        self._reported = self._clock.now()
        self._words: set[str] = set()

    async def wait(
        self,
        job: str | Job,
        *,
        goal: Goal | None = None,
        interval: float = polling.DEFAULT_INTERVAL,
        deadline: float | None = None,
        stale: EarlierState | None = None,
        on_seen: Callable[[Job], None] | None = None,
    ) -> WaitOutcome:
        """Wait for a job. Free.

        Args:
            job: The job, or its id.
            goal: The condition that ends the wait beside the job's end.
            interval: Seconds between polls; less than 5 is not what the service asks for.
            deadline: Seconds since the epoch; the status is read once more before it counts.
            stale: A state that does not count, after a retry or a resume.
            on_seen: Is called with each answer about the job, in the watcher's own task; it must not block.

        Raises:
            JobTimeoutError: The deadline passed; the job was left.
            UGenError: An error that a wait does not survive, such as an unknown job.
        """
        if self._forks != fork_count():
            self._renew()
        job_id = job if isinstance(job, str) else job.job_id
        now = self._clock.now()
        future: asyncio.Future[WaitOutcome] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(job_id, goal or Goal(), interval, deadline, stale, now, future, on_seen)
        watched = self._jobs.get(job_id)
        if watched is None:
            watched = self._jobs[job_id] = _WatchEntry(due=float("inf"), report=polling.WaitReport(job_id, now=now))
        watched.waiters.append(waiter)
        watched.count()
        if self._task is None or self._task.done():
            watched.due = now
            self._task = asyncio.create_task(self._watch(), name="ugen-job-watcher")
            self._task.add_done_callback(self._fail_waiters)
        else:
            # A new waiter keeps step with the earlier ones: a round of its own would cost the pages again.
            in_step = max(now, self._began + poll_pause(self._clock, interval))
            watched.due = min(watched.due, in_step, self._sleeps_until)
            if watched.due < self._sleeps_until:
                self._woken.set()
        try:
            return await future
        finally:
            self._leave(waiter)

    @property
    def waiting(self) -> int:
        """Number of jobs that are waited for."""
        return sum(len(watched.waiters) for watched in self._jobs.values())

    async def aclose(self) -> None:
        """Stop polling and cancel all waits. Does nothing to the waits of a process that this one was forked from."""
        if self._forks != fork_count():
            return
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for watched in list(self._jobs.values()):
            for waiter in list(watched.waiters):
                waiter.done.cancel()

    def _renew(self) -> None:
        """Start without waits in a forked process: its parent polls for those that exist."""
        abandon(self._jobs, self._task, self._woken)
        self._jobs, self._task, self._woken = {}, None, asyncio.Event()
        self._poller = BatchPoller(self._send, self._listener())
        self._began, self._sleeps_until = float("-inf"), float("inf")
        self._forks = fork_count()

    def _leave(self, waiter: _Waiter) -> None:
        if waiter.forks != fork_count():
            return
        watched = self._jobs.get(waiter.job_id)
        if watched is not None:
            watched.waiters.remove(waiter)
            watched.count()
            if not watched.waiters:
                del self._jobs[waiter.job_id]
        if not self._jobs and self._task is not None:
            self._task.cancel()
            self._task = None

    def _fail_waiters(self, task: asyncio.Task[None]) -> None:
        """End all waits if the task that polls for them died: nothing else would ever end them."""
        if task.cancelled() or task is not self._task or (error := task.exception()) is None:
            return
        _log.error("the watcher of %d jobs died: %r; the jobs keep running", len(self._jobs), error)
        for watched in list(self._jobs.values()):
            for waiter in watched.waiters:
                if not waiter.done.done():
                    waiter.done.set_exception(WatcherDiedError(f"job {waiter.job_id}: the wait broke off ({error!r})"))

    def _send(self, endpoint: Endpoint[T]) -> Awaitable[T]:
        # The next round repeats a poll that fails; repeating it here would cost more than a round may.
        return call_endpoint(self.client, endpoint, retry=False)

    async def _watch(self) -> None:
        # A waiter that joins in the same step of the loop belongs to the first round.
        await asyncio.sleep(0)
        while self._jobs:
            began = self._began = self._clock.now()
            due = [job_id for job_id, watched in self._jobs.items() if watched.due <= began + _SLACK]
            sure = {job_id for job_id in due if self._jobs[job_id].needs_its_own_look(began)}
            await asyncio.sleep(0)
            if due:
                await self._poller.poll(due, sure=sure)
            for number, job_id in enumerate(due):
                if (watched := self._jobs.get(job_id)) is not None:
                    watched.due = began + poll_pause(self._clock, self._interval(watched, began))
                if number % _BREATH == _BREATH - 1:
                    await asyncio.sleep(0)
            self._report(began)
            await self._pause()

    def _end_waits(self, error: UGenError) -> None:
        for watched in self._jobs.values():
            for waiter in watched.waiters:
                if not waiter.done.done():
                    waiter.done.set_exception(error)

    def _interval(self, watched: _WatchEntry, now: float) -> float:
        """Return the seconds until the next poll; a job that shares no pages is polled more rarely while it runs."""
        if len(self._jobs) >= _FEWEST or any(waiter.goal.stage is not None for waiter in watched.waiters):
            return watched.interval
        began = min((waiter.joined for waiter in watched.waiters), default=now)
        return polling.lone_interval(watched.last, interval=watched.interval, now=now, began=began)

    def _report(self, now: float) -> None:
        """Say every five minutes that the wait goes well, in one line for all jobs."""
        if now - self._reported >= polling.SILENCE:
            self._reported = now
            _log.info("waiting for %d jobs", len(self._jobs))

    async def _pause(self) -> None:
        if not self._jobs:
            return
        now = self._clock.now()
        due = min(watched.due for watched in self._jobs.values())
        deadlines = (watched.deadline for watched in self._jobs.values())
        first = min((deadline for deadline in deadlines if deadline is not None), default=None)
        wait = max(0.0, due - now)
        left = polling.next_poll(interval=wait, now=now, deadline=first)
        if first is None or first > now + wait:
            left = max(left, wait - _SLACK)  # the jitter of a long interval would wake too early for its round
        left = min(left, polling.SILENCE)  # a line of the log follows at the latest then
        if first is not None and first <= now + left:
            for watched in self._jobs.values():
                if watched.deadline is not None and watched.deadline <= now + left:
                    watched.due = now
        try:
            count_wait(self._clock, left)
        except EmulatorClockError as error:
            self._end_waits(error)
            return
        self._sleeps_until = now + left
        self._woken.clear()
        try:
            await asleep_unless(self._woken, clock=self._clock, seconds=max(left, _LEAST_PAUSE))
        finally:
            self._sleeps_until = float("inf")

    # Questions and reports of the poller.

    def _listener(self) -> PollListener:
        return PollListener(self._clock.now, self._ends_wait, self._answered, self._failed)

    def _ends_wait(self, job_id: str, *, state: JobState, stage: str | None) -> bool:
        """Return whether this state, seen on a page, would end anybody's wait."""
        watched = self._jobs.get(job_id)
        if watched is None:
            return False
        if watched.report is not None:
            watched.report.heard(now=self._clock.now())
        seen = Job.model_construct(job_id=job_id, status=state.value, current_stage=stage)
        return any(
            (waiter.goal.stage is not None and stage is None) or polling.judge(seen, goal=waiter.goal) is not None
            for waiter in watched.waiters
        )

    def _answered(self, job_id: str, job: Job, *, asked_at: float, listed: bool) -> None:
        """File an answer under the id that was asked for, and end the waits that it ends.

        Only those count that began before the request was sent.
        """
        if self._on_answer is not None:
            self._on_answer(job)
        watched = self._jobs.get(job_id)
        if watched is None:
            return
        watched.patience.answered()
        watched.last = job
        now = self._clock.now()
        if watched.report is not None:
            lines = watched.report.answered(job, now=now)
            # A waiter that hears of each answer reports the changes itself.
            reported = any(waiter.on_seen is not None for waiter in watched.waiters)
            self._say(tuple(line for line in lines if line.is_warning or not reported))
        unclear = watched.patience.unclear_end(job, now=now)
        for waiter in watched.waiters:
            if waiter.done.done() or asked_at < waiter.joined:
                continue
            if waiter.on_seen is not None:
                waiter.on_seen(job)
            if unclear is not None:
                waiter.done.set_exception(unclear)
                continue
            if not listed and watched.patience.awaits_video(job, goal=waiter.goal, now=now):
                if waiter.deadline is not None and asked_at >= waiter.deadline:
                    waiter.done.set_exception(polling.timed_out(job_id, job))
                continue
            stale = waiter.stale if now - waiter.joined < polling.STALE_PATIENCE else None
            reason = polling.judge(job, goal=waiter.goal, stale=stale)
            if reason is not None:
                waiter.done.set_result(WaitOutcome(job, reason, listed))
            elif waiter.deadline is not None and asked_at >= waiter.deadline:
                waiter.done.set_exception(polling.timed_out(job_id, job))

    async def _failed(self, job_id: str, error: UGenError) -> None:
        """Survive a failed poll, or raise it in each waiter."""
        now = self._clock.now()
        if isinstance(error, AuthenticationError | PermissionDeniedError):
            await self._read_settings_again(now)
        watched = self._jobs.get(job_id)
        if watched is None:
            return
        bears = watched.patience.bears(error, now=now)
        if bears and watched.report is not None:
            self._say(watched.report.failed(error, now=now))
        for waiter in watched.waiters:
            if waiter.done.done():
                continue
            if not bears:
                waiter.done.set_exception(error)
            elif waiter.deadline is not None and now >= waiter.deadline:
                waiter.done.set_exception(polling.timed_out(job_id, watched.last))

    def _say(self, lines: tuple[polling.WaitLine, ...]) -> None:
        """Log warnings, and changes where few jobs are waited for; each unknown word once for all of them."""
        for line in lines:
            if not line.is_warning:
                _log.log(logging.INFO if len(self._jobs) <= _FEW else logging.DEBUG, "%s", line.text)
                continue
            about = line.text.partition(": ")[2]
            if about not in self._words:
                if len(self._words) < _MOST_WORDS:
                    self._words.add(about)
                _log.warning("%s", line.text)

    async def _read_settings_again(self, now: float) -> None:
        if self._read_config is None or now - self._config_read_at < polling.LEAST_INTERVAL:
            return
        self._config_read_at = now
        try:
            config = await self._read_config()
        except Exception as error:  # noqa: BLE001  a secrets backend can raise anything; the old key may yet work again
            _log.warning("the key was refused and the settings could not be read again: %s", type(error).__name__)
            return
        self.client.use(config)


class WatchedWorld(AsyncWorld):
    """A world that waits by a shared watcher.

    Args:
        watcher: Waits for all jobs of the account in this event loop; its client calls the API.
        store: Keeps the order's record.
        is_stopping: Whether the process received a stop signal.
    """

    def __init__(
        self, watcher: JobWatcher, store: OrderStore, *, is_stopping: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(watcher.client, store, is_stopping=is_stopping)
        self._watcher = watcher

    async def wait(
        self,
        job_id: str,
        *,
        goal: Goal,
        interval: float = polling.DEFAULT_INTERVAL,
        deadline: float | None = None,
        stale: EarlierState | None = None,
    ) -> WaitOutcome:
        """Wait by the watcher; what a list says is confirmed by `GET /jobs/{jobId}`."""
        while True:
            wait = partial(self._watcher.wait, job_id, goal=goal, interval=interval, deadline=deadline, stale=stale)
            outcome = await self.contact("wait", wait)
            if not outcome.listed:
                return outcome
            job = await self.send(endpoints.get_job(job_id))
            reason = polling.judge(job, goal=goal, stale=stale)
            if reason is not None:
                return WaitOutcome(job, reason)
            stale = EarlierState.of(outcome.job)  # the list was behind: its state does not count a second time


@dataclass(slots=True)
class _SharedWatcher:
    watcher: JobWatcher
    users: int = 0


@dataclass(slots=True)
class _LoopWatchers:
    """The watchers of one event loop in one process, by account."""

    by_account: dict[str, _SharedWatcher] = field(default_factory=dict)
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    forks: int = field(default_factory=fork_count)


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopWatchers] = WeakKeyDictionary()


def _watchers_of(loop: asyncio.AbstractEventLoop) -> _LoopWatchers:
    """Return the watchers of a loop; a forked process that runs its parent's loop gets its own."""
    watchers = _shared.get(loop)
    if watchers is None or watchers.forks != fork_count():
        if watchers is not None:
            abandon(watchers)
        watchers = _shared[loop] = _LoopWatchers()
    return watchers


@asynccontextmanager
async def shared_watcher(account: str, read_config: ReadConfig) -> AsyncIterator[JobWatcher]:
    """Share one watcher and its client among all users of an account in this event loop and this process.

    Both are closed when the last user leaves.

    Args:
        account: Distinguishes accounts, such as the connection id.
        read_config: Reads the settings: for the first user, and again when the key is refused.
    """
    watchers = _watchers_of(asyncio.get_running_loop())
    async with watchers.opening:
        shared = watchers.by_account.get(account)
        if shared is None:
            client = AsyncUGenClient(config=await read_config())
            shared = watchers.by_account[account] = _SharedWatcher(JobWatcher(client, read_config=read_config))
        shared.users += 1
    try:
        yield shared.watcher
    finally:
        shared.users -= 1
        # In a forked process these are its parent's watcher and connections, which the parent still uses.
        if shared.users == 0 and watchers.forks == fork_count():
            del watchers.by_account[account]
            await shared.watcher.aclose()
            await shared.watcher.client.aclose()
