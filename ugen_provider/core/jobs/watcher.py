# SPDX-License-Identifier: Apache-2.0
"""One watcher for everybody who waits in one event loop for jobs of one account."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from ugen_provider.core.api import operations, polling
from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api.clock import Clock, SystemClock
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.api.errors import AuthenticationError, PermissionDeniedError, UGenError
from ugen_provider.core.api.models import Job
from ugen_provider.core.api.polling import Goal, Outcome, Patience, Seen

_log = logging.getLogger("ugen_provider.jobs")
_AT_ONCE = 20

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
    last: Job | None = None


@dataclass(slots=True, eq=False)
class _Watched:
    """One job and everybody who waits for it."""

    waiters: list[_Waiter] = field(default_factory=list)
    patience: Patience = field(default_factory=Patience)


class JobWatcher:
    """Waits for many jobs of one account with as few requests as possible.

    Everybody who waits in a process shares one: all triggers of a triggerer, all jobs of a batch, all partitions of a
    run. It looks at the smallest interval that a waiter asks for, and never costs more than one GET per job and
    interval plus 5 %. With nobody waiting it does nothing at all.

    Args:
        client: Sends the requests; it stays the caller's to close.
        read_config: Reads the settings again when the key is refused, so that a key can be rotated under the waiters.
        clock: The clock to live by.

    Example:
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
        self._clock = clock or SystemClock()
        self._jobs: dict[str, _Watched] = {}
        self._task: asyncio.Task[None] | None = None
        self._joined = asyncio.Event()
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
        waiter = _Waiter(
            job_id,
            goal or Goal(),
            interval,
            deadline,
            stale,
            self._clock.now(),
            asyncio.get_running_loop().create_future(),
        )
        self._jobs.setdefault(job_id, _Watched()).waiters.append(waiter)
        self._joined.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch(), name="ugen-job-watcher")
        try:
            return await waiter.done
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
            if not watched.waiters:
                del self._jobs[waiter.job_id]
        if not self._jobs and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(self) -> None:
        while self._jobs:
            self._joined.clear()
            await self._look_at_all(list(self._jobs))
            if not self._jobs:
                return
            waiters = [waiter for watched in self._jobs.values() for waiter in watched.waiters]
            now = self._clock.now()
            interval = min(waiter.interval for waiter in waiters)
            deadlines = [waiter.deadline for waiter in waiters if waiter.deadline is not None]
            await self._clock.asleep(
                polling.next_poll(interval=interval, now=now, deadline=min(deadlines, default=None))
            )

    async def _look_at_all(self, job_ids: list[str]) -> None:
        places = asyncio.Semaphore(_AT_ONCE)

        async def look(job_id: str) -> None:
            async with places:
                await self._look_at(job_id)

        await asyncio.gather(*(look(job_id) for job_id in job_ids))

    async def _look_at(self, job_id: str) -> None:
        asked_at = self._clock.now()
        try:
            job = await self.client.call(operations.get_job(job_id))
        except UGenError as error:
            await self._failed(job_id, error)
        else:
            self._answered(job, asked_at=asked_at)

    def _answered(self, job: Job, *, asked_at: float) -> None:
        watched = self._jobs.get(job.job_id)
        if watched is None:
            return
        watched.patience.answered()
        now = self._clock.now()
        for waiter in list(watched.waiters):
            if waiter.done.done() or asked_at < waiter.joined:
                continue
            waiter.last = job
            stale = waiter.stale if now - waiter.joined < polling.STALE_PATIENCE else None
            reason = polling.judge(job, goal=waiter.goal, stale=stale)
            if reason is not None:
                waiter.done.set_result(Outcome(job, reason))
            elif waiter.deadline is not None and now >= waiter.deadline:
                waiter.done.set_exception(polling.timed_out(job.job_id, job))

    async def _failed(self, job_id: str, error: UGenError) -> None:
        now = self._clock.now()
        if isinstance(error, AuthenticationError | PermissionDeniedError):
            await self._read_settings_again(now)
        watched = self._jobs.get(job_id)
        if watched is None:
            return
        bears = watched.patience.bears(error, now=now)
        for waiter in list(watched.waiters):
            if waiter.done.done():
                continue
            if not bears:
                waiter.done.set_exception(error)
            elif waiter.deadline is not None and now >= waiter.deadline:
                waiter.done.set_exception(polling.timed_out(job_id, waiter.last))

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
