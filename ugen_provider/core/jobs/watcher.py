# SPDX-License-Identifier: Apache-2.0
"""One watcher for everybody who waits in one event loop for jobs of one account."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

from ugen_provider.core.api import operations, polling
from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api.clock import Clock, asleep_unless
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.api.effects import Await, Flow
from ugen_provider.core.api.errors import AuthenticationError, PermissionDeniedError, UGenError
from ugen_provider.core.api.flows import Caller, Operation
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.api.polling import Goal, Outcome, Patience, Seen
from ugen_provider.core.api.retries import RetryPolicy
from ugen_provider.core.jobs.looking import Looker
from ugen_provider.core.jobs.purchase import Order, Purchase, goal_of

T = TypeVar("T")

_log = logging.getLogger("ugen_provider.jobs")
_SLACK = 0.5
"""Seconds by which a look may come early, so that jobs that are due at nearly the same time share a round."""

_LEAST_PAUSE = 0.05
_BREATH = 1000
"""Jobs that are gone through before everybody else in the loop gets a turn."""

ReadConfig = Callable[[], Awaitable[ClientConfig]]


@dataclass(slots=True, eq=False)
class _Waiter:
    job_id: str
    goal: Goal
    interval: float
    deadline: float | None
    stale: Seen | None
    joined: float
    done: asyncio.Future[Outcome]


@dataclass(slots=True, eq=False)
class _Watched:
    """One job, everybody who waits for it, and when it is looked at next."""

    due: float
    waiters: list[_Waiter] = field(default_factory=list)
    patience: Patience = field(default_factory=Patience)
    last: Job | None = None
    interval: float = float("inf")
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
    reads those. With nobody waiting it does nothing at all.

    The job of an outcome may come from a list and lack what only `GET /jobs/{jobId}` tells; `watching` then reads it.

    Args:
        client: Sends the requests; it stays the caller's to close.
        read_config: Reads the settings again when the key is refused, so that a key can be rotated under the waiters.
        clock: The clock to live by; default the client's.

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
    ) -> None:
        self.client = client
        self._read_config = read_config
        self._clock = clock or client.clock
        # A look that fails is repeated by the next round; repeating it here would cost more than the round may.
        self._caller = Caller(policy=RetryPolicy(attempts=1), cool_down=client.caller.cool_down)
        self._looker = Looker(self._send, self)
        self._jobs: dict[str, _Watched] = {}
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._began = float("-inf")
        self._sleeps_until = float("inf")
        self._config_read_at = float("-inf")

    async def wait(
        self,
        job_id: str,
        *,
        goal: Goal | None = None,
        interval: float = polling.DEFAULT_INTERVAL,
        deadline: float | None = None,
        stale: Seen | None = None,
    ) -> Outcome:
        """Wait for a job. Free.

        Args:
            job_id: The job.
            goal: What ends the wait beside the job's end.
            interval: Seconds between looks; less than 5 is not what the service asks for.
            deadline: Seconds since the epoch; the status is read once more before it counts.
            stale: A state that does not count, after a retry or a resume.

        Raises:
            JobTimeoutError: The deadline passed; the job was left.
            UGenError: An error that a wait does not bear, such as an unknown job.
        """
        now = self._clock.now()
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(job_id, goal or Goal(), interval, deadline, stale, now, future)
        watched = self._jobs.get(job_id)
        if watched is None:
            watched = self._jobs[job_id] = _Watched(due=float("inf"))
        watched.waiters.append(waiter)
        watched.count()
        if self._task is None or self._task.done():
            watched.due = now
            self._task = asyncio.create_task(self._watch(), name="ugen-job-watcher")
        else:
            # Whoever joins keeps step with those who wait already: a round of its own would cost the pages again.
            watched.due = min(watched.due, max(now, self._began + interval), self._sleeps_until)
            if watched.due < self._sleeps_until:
                self._woken.set()
        try:
            return await future
        finally:
            self._leave(waiter)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(watched.waiters) for watched in self._jobs.values())

    async def aclose(self) -> None:
        """Stop looking; whoever still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for watched in list(self._jobs.values()):
            for waiter in list(watched.waiters):
                waiter.done.cancel()

    def _leave(self, waiter: _Waiter) -> None:
        watched = self._jobs.get(waiter.job_id)
        if watched is not None:
            watched.waiters.remove(waiter)
            watched.count()
            if not watched.waiters:
                del self._jobs[waiter.job_id]
        if not self._jobs and self._task is not None:
            self._task.cancel()
            self._task = None

    def _send(self, operation: Operation[T]) -> Awaitable[T]:
        return self.client.run(self._caller.call(operation))

    async def _watch(self) -> None:
        # Whoever joins in the same breath belongs to the first round.
        await asyncio.sleep(0)
        while self._jobs:
            began = self._began = self._clock.now()
            due = [job_id for job_id, watched in self._jobs.items() if watched.due <= began + _SLACK]
            sure = {job_id for job_id in due if self._jobs[job_id].needs_its_own_look(began)}
            await asyncio.sleep(0)
            await self._looker.look(due, sure=sure)
            for number, job_id in enumerate(due):
                if (watched := self._jobs.get(job_id)) is not None:
                    watched.due = began + watched.interval
                if number % _BREATH == _BREATH - 1:
                    await asyncio.sleep(0)
            await self._pause()

    async def _pause(self) -> None:
        if not self._jobs:
            return
        now = self._clock.now()
        due = min(watched.due for watched in self._jobs.values())
        deadlines = (watched.deadline for watched in self._jobs.values())
        first = min((deadline for deadline in deadlines if deadline is not None), default=None)
        left = polling.next_poll(interval=max(0.0, due - now), now=now, deadline=first)
        if first is not None and first <= now + left:
            for watched in self._jobs.values():
                if watched.deadline is not None and watched.deadline <= now + left:
                    watched.due = now
        self._sleeps_until = now + left
        self._woken.clear()
        try:
            await asleep_unless(self._woken, clock=self._clock, seconds=max(left, _LEAST_PAUSE))
        finally:
            self._sleeps_until = float("inf")

    # What the looker asks and tells.

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock.now()

    def is_news(self, job_id: str, *, state: JobState, stage: str | None) -> bool:
        """Whether this state, seen on a page, would end anybody's wait."""
        watched = self._jobs.get(job_id)
        if watched is None:
            return False
        seen = Job.model_construct(job_id=job_id, status=state.value, current_stage=stage)
        return any(
            (waiter.goal.stage is not None and stage is None) or polling.judge(seen, goal=waiter.goal) is not None
            for waiter in watched.waiters
        )

    def answered(self, job: Job, *, asked_at: float, listed: bool) -> None:
        """An answer about this very job, or what a list says of it: tell whoever waited when it was asked for."""
        watched = self._jobs.get(job.job_id)
        if watched is None:
            return
        watched.patience.answered()
        watched.last = job
        now = self._clock.now()
        for waiter in watched.waiters:
            if waiter.done.done() or asked_at < waiter.joined:
                continue
            stale = waiter.stale if now - waiter.joined < polling.STALE_PATIENCE else None
            reason = polling.judge(job, goal=waiter.goal, stale=stale)
            if reason is not None:
                waiter.done.set_result(Outcome(job, reason, listed))
            elif waiter.deadline is not None and asked_at >= waiter.deadline:
                waiter.done.set_exception(polling.timed_out(job.job_id, job))

    async def failed(self, job_id: str, error: UGenError) -> None:
        """A look failed: bear it, or tell whoever waits."""
        now = self._clock.now()
        if isinstance(error, AuthenticationError | PermissionDeniedError):
            await self._read_settings_again(now)
        watched = self._jobs.get(job_id)
        if watched is None:
            return
        bears = watched.patience.bears(error, now=now)
        for waiter in watched.waiters:
            if waiter.done.done():
                continue
            if not bears:
                waiter.done.set_exception(error)
            elif waiter.deadline is not None and now >= waiter.deadline:
                waiter.done.set_exception(polling.timed_out(job_id, watched.last))

    async def _read_settings_again(self, now: float) -> None:
        if self._read_config is None or now - self._config_read_at < polling.LEAST_INTERVAL:
            return
        self._config_read_at = now
        try:
            config = await self._read_config()
        except Exception as error:  # noqa: BLE001  whatever a secrets backend raises, the old key may yet work again
            _log.warning("the key was refused and the settings could not be read again: %s", type(error).__name__)
            return
        self.client.use(config)


def watching(
    watcher: JobWatcher, order: Order, *, interval: float = polling.DEFAULT_INTERVAL, deadline: float | None = None
) -> Callable[[Purchase], Flow[Outcome]]:
    """The shared way to wait, for `obtain`: by a watcher, whose `GET /jobs/{jobId}` alone is believed.

    Args:
        watcher: Waits.
        order: What was bought.
        interval: Seconds between looks.
        deadline: Seconds since the epoch.
    """

    def wait(bought: Purchase) -> Flow[Outcome]:
        stale = bought.stale
        while True:
            outcome: Outcome = yield Await(
                "wait",
                partial(
                    watcher.wait,
                    bought.job.job_id,
                    goal=goal_of(order),
                    interval=interval,
                    deadline=deadline,
                    stale=stale,
                ),
            )
            if not outcome.listed:
                return outcome
            job = yield from watcher.client.caller.call(operations.get_job(bought.job.job_id))
            reason = polling.judge(job, goal=goal_of(order), stale=stale)
            if reason is not None:
                return Outcome(job, reason)
            stale = Seen.of(outcome.job)  # the list was behind: what it said does not count a second time

    return wait


@dataclass(slots=True)
class _Shared:
    watcher: JobWatcher
    users: int = 0


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Shared]] = WeakKeyDictionary()
_opening: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


@asynccontextmanager
async def shared_watcher(account: str, read_config: ReadConfig) -> AsyncIterator[JobWatcher]:
    """The one watcher of this event loop for an account, with its client; both are closed when the last has gone.

    Args:
        account: Tells accounts apart, such as the connection id.
        read_config: Reads the settings: once for the first who comes, and again when the key is refused.
    """
    loop = asyncio.get_running_loop()
    accounts = _shared.setdefault(loop, {})
    async with _opening.setdefault(loop, asyncio.Lock()):
        shared = accounts.get(account)
        if shared is None:
            client = AsyncUGenClient(config=await read_config())
            shared = accounts[account] = _Shared(JobWatcher(client, read_config=read_config))
        shared.users += 1
    try:
        yield shared.watcher
    finally:
        shared.users -= 1
        if shared.users == 0:
            del accounts[account]
            await shared.watcher.aclose()
            await shared.watcher.client.aclose()
