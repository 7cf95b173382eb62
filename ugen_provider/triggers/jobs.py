# SPDX-License-Identifier: Apache-2.0
"""Triggers for jobs. All triggers of a triggerer share a watcher, an HTTP client and a reconciler per connection."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent

from ugen_provider.core.api.errors import ConfigError, UGenError
from ugen_provider.core.api.polling import JobTimeoutError
from ugen_provider.triggers.cancellation import acancel_killed_job, ask_airflow, attempt_name
from ugen_provider.version_compat import AIRFLOW_3_3_PLUS

if TYPE_CHECKING:
    from ugen_provider.core.api.config import ClientConfig, Secret
    from ugen_provider.core.api.models import Job
    from ugen_provider.core.jobs.watcher import JobWatcher
    from ugen_provider.core.ledger.record import RecordSigner
    from ugen_provider.core.ledger.store import Ledger

DEFAULT_POLL_INTERVAL = 10.0
MOST_JOBS = 500
ASK_SECONDS = 8.0
"""Seconds for Airflow to say the state of a task instance."""
PROGRESS_SECONDS = 60.0
"""Seconds between two lines about a job whose stage does not change."""
KILL_SECONDS = 20.0
"""Seconds for one cancel; Airflow grants 30 with the question before it."""


def earliest_event(now: float, *, poll_interval: float) -> float:
    """Return when a trigger that is deferred to now may send its event: one poll interval later.

    Airflow fails a task instance whose event comes before the worker that deferred it has ended: its executor then
    reports a success for an instance that is queued again. On a busy machine a worker takes seconds to end.

    Args:
        now: Seconds since the epoch.
        poll_interval: Seconds between polls.

    Examples:
        >>> earliest_event(100.0, poll_interval=10.0)
        110.0
    """
    return now + poll_interval


async def _hold(event_after: float | None) -> None:
    """Wait until an event may be sent."""
    from ugen_provider.core.api.clock import SystemClock

    clock = SystemClock()
    left = 0.0 if event_after is None else event_after - clock.now()
    if left > 0:
        await clock.asleep(left)


_killing: set[asyncio.Task[None]] = set()
"""The loop itself holds only weak references to its tasks."""


class _ProgressLog:
    """Logs a line about a job for each change of its stage, and one per minute in between.

    The watcher calls it in a task that all triggers share, and Airflow routes log lines to the task instance by the
    context of the asyncio task. So it logs in the context of the trigger that made it.
    """

    def __init__(self, log: Any, *, now: Callable[[], float]) -> None:
        self._log = log
        self._now = now
        self._context = copy_context()
        self._last: tuple[str, str | None] | None = None
        self._logged_at = float("-inf")

    def __call__(self, job: Job) -> None:
        now, seen = self._now(), (job.status, job.current_stage)
        if job.ended or (seen == self._last and now - self._logged_at < PROGRESS_SECONDS):
            return
        self._last, self._logged_at = seen, now
        percent = "" if job.progress_percent is None else f", {job.progress_percent:.0f} %"
        said = f"job {job.job_id}: {job.status} in stage {job.current_stage}{percent}"
        self._context.run(self._log.info, "%s", said)


class UGenJobTrigger(BaseTrigger):
    """Waits until a job has ended, or is paused at its gate. Free.

    Its event has `job_id`, `status` (`ended`, `stage_reached`, `stopped`, `paused`, `timeout` or `error`), `payload`
    and, for an error, `message`.

    Args:
        job_id: The job.
        ugen_conn_id: The connection.
        poll_interval: Seconds between polls; the service asks for 5 to 10.
        end_time: Seconds since the epoch at which to give up; the job keeps running.
        event_after: Seconds since the epoch before which no event is sent; see `earliest_event`.
        target_stage: Also ends the wait when this stage is reached.
        wait_for_pause: Whether the wait also ends when the job is paused as it was asked to.
        ignore_pauses: Whether to keep waiting while another user has paused the job.
        ignore_state: A state that does not count after a retry or a resume: status, stage, time.
        payload: Values that the task needs with the event, primitives; `dag.test()` hands a task nothing else.
        cancel_on_kill: Whether the job is cancelled when a person, or the end of the run, ended the task instance.
        has_scope_key: Whether another mapped instance may have the same order.
        order_key: Text key of the order's record in the ledger; '' without one.
        token: The attempt's token; 0 where no record is kept.
        ledger_conn_id: The connection of the ledger; None without one.
        ledger_id: Id of the ledger; another ledger is refused.
    """

    def __init__(
        self,
        *,
        job_id: str,
        ugen_conn_id: str,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        end_time: float | None = None,
        event_after: float | None = None,
        target_stage: str | None = None,
        wait_for_pause: bool = False,
        ignore_pauses: bool = False,
        ignore_state: Sequence[str | None] | None = None,
        payload: Mapping[str, Any] | None = None,
        cancel_on_kill: bool = False,
        has_scope_key: bool = False,
        order_key: str = "",
        token: int = 0,
        ledger_conn_id: str | None = None,
        ledger_id: str = "",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_id = job_id
        self.ugen_conn_id = ugen_conn_id
        self.poll_interval = poll_interval
        self.end_time = end_time
        self.event_after = event_after
        self.target_stage = target_stage
        self.wait_for_pause = wait_for_pause
        self.ignore_pauses = ignore_pauses
        self.ignore_state = None if ignore_state is None else list(ignore_state)
        self.payload = dict(payload or {})
        self.cancel_on_kill = cancel_on_kill
        self.has_scope_key = has_scope_key
        self.order_key = order_key
        self.token = token
        self.ledger_conn_id = ledger_conn_id
        self.ledger_id = ledger_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, primitives all."""
        return (
            "ugen_provider.triggers.jobs.UGenJobTrigger",
            {
                "job_id": self.job_id,
                "ugen_conn_id": self.ugen_conn_id,
                "poll_interval": self.poll_interval,
                "end_time": self.end_time,
                "event_after": self.event_after,
                "target_stage": self.target_stage,
                "wait_for_pause": self.wait_for_pause,
                "ignore_pauses": self.ignore_pauses,
                "ignore_state": self.ignore_state,
                "payload": self.payload,
                "cancel_on_kill": self.cancel_on_kill,
                "has_scope_key": self.has_scope_key,
                "order_key": self.order_key,
                "token": self.token,
                "ledger_conn_id": self.ledger_conn_id,
                "ledger_id": self.ledger_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event that says why the wait ended."""
        await ready()
        from ugen_provider.core.api.clock import clock_of
        from ugen_provider.core.api.polling import EarlierState, Goal
        from ugen_provider.core.jobs.concurrency import slots_of

        goal = Goal(stage=self.target_stage, stopped=self.wait_for_pause, through_pauses=self.ignore_pauses)
        stale = EarlierState(str(self.ignore_state[0]), *self.ignore_state[1:3]) if self.ignore_state else None
        event: dict[str, Any] = {"job_id": self.job_id, "payload": self.payload}
        try:
            async with watch(self.ugen_conn_id, ledger_conn_id=self.ledger_conn_id) as watcher:
                outcome = await watcher.wait(
                    self.job_id,
                    goal=goal,
                    interval=self.poll_interval,
                    deadline=self.end_time,
                    stale=stale,
                    on_seen=_ProgressLog(self.log, now=clock_of(watcher.client).now),
                )
            event["status"] = outcome.reason.value
            if outcome.job.ended:
                slots_of(self.ugen_conn_id).freed()
        except JobTimeoutError:
            event["status"] = "timeout"
        except UGenError as error:
            event.update(status="error", message=str(error))
        except asyncio.CancelledError:
            if not AIRFLOW_3_3_PLUS:
                # Airflow does not call on_kill there. A triggerer that stops comes by here too; the task instance's
                # state distinguishes the two.
                await self.on_kill()
            raise
        await _hold(self.event_after)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the job where the cancelling table says so, and only there.

        Airflow 3.3.2 cancels a trigger again at each of its rounds, about every second, this method included. So a
        cancel that takes longer, as where the service has to be asked again, continues in a task of its own.
        """
        killing = asyncio.create_task(self._handle_kill(), name="ugen-kill")
        _killing.add(killing)
        killing.add_done_callback(_killing.discard)
        await asyncio.shield(killing)

    async def _handle_kill(self) -> None:
        ti: Any = self.task_instance
        if not self.cancel_on_kill or ti is None:
            return
        ask = partial(ask_airflow, ti, job_id=self.job_id, has_scope_key=self.has_scope_key)
        if not await _answer_of(ask):
            self.log.info("Trigger was ended; job %s keeps running. The next attempt resumes waiting.", self.job_id)
            return
        from ugen_provider.core.ledger.errors import AttemptSupersededError

        try:
            async with asyncio.timeout(KILL_SECONDS), watch(self.ugen_conn_id) as watcher:
                confirmed = await self._cancel(watcher, attempt_name(ti), may_cancel=lambda: _answer_of(ask))
        except AttemptSupersededError:
            self.log.info("job %s: keeps running, since a newer attempt needs it", self.job_id)
        except (UGenError, TimeoutError) as error:
            owed = "the reconciler repeats it" if self.ledger_conn_id else "cancel it yourself, or clear the task"
            self.log.error(  # noqa: TRY400  the stack adds nothing
                "job %s: its cancellation could not be confirmed (%s); %s",
                self.job_id,
                str(error) or type(error).__name__,
                owed,
            )
        else:
            self.log.info(
                "job %s: %s", self.job_id, "cancelled, since its task was ended" if confirmed else "had ended already"
            )

    async def _cancel(self, watcher: JobWatcher, attempt: str, *, may_cancel: Callable[[], Any]) -> bool:
        from ugen_provider.core.jobs.watcher import WatchedWorld
        from ugen_provider.core.ledger.record import KeyOnlyStore

        store: Any = KeyOnlyStore()
        token = self.token or None
        if self.ledger_conn_id is not None:
            from ugen_provider.core.jobs.threads import in_ledger_thread
            from ugen_provider.core.ledger.orders import LedgerOrderStore

            opened = await _open_ledger(self.ugen_conn_id, self.ledger_conn_id, expected_id=self.ledger_id)
            store = LedgerOrderStore(opened.ledger, signer=opened.signer)
            if token is None and self.order_key:
                token = await in_ledger_thread(store.token_of, self.order_key, attempt)
        done = await acancel_killed_job(
            WatchedWorld(watcher, store),
            job_id=self.job_id,
            order_key=self.order_key if self.ledger_conn_id is not None else "",
            token=token,
            may_cancel=may_cancel,
        )
        return done is not None and done.confirmed


class UGenJobBatchTrigger(BaseTrigger):
    """Waits until some of several jobs have ended. Free. The one watcher of the triggerer polls all of them.

    Its event has `ended` (how many), `status` (`ended`, `timeout` or `error`) and `payload`; the task reads the jobs
    again.

    Args:
        job_ids: The jobs, at most `MOST_JOBS`: what a trigger holds is stored in Airflow's database.
        ugen_conn_id: The connection.
        at_least: How many must have ended.
        poll_interval: Seconds between polls.
        end_time: Seconds since the epoch at which to give up; the jobs keep running.
        event_after: Seconds since the epoch before which no event is sent; see `earliest_event`.
        payload: Values that the task needs with the event, primitives.
    """

    def __init__(
        self,
        *,
        job_ids: Sequence[str],
        ugen_conn_id: str,
        at_least: int = 1,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        end_time: float | None = None,
        event_after: float | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if len(job_ids) > MOST_JOBS:
            raise ConfigError(f"job_ids: a trigger holds at most {MOST_JOBS} jobs, got {len(job_ids)}; buy in waves")
        self.job_ids = list(job_ids)
        self.ugen_conn_id = ugen_conn_id
        self.at_least = at_least
        self.poll_interval = poll_interval
        self.end_time = end_time
        self.event_after = event_after
        self.payload = dict(payload or {})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, primitives all."""
        return (
            "ugen_provider.triggers.jobs.UGenJobBatchTrigger",
            {
                "job_ids": self.job_ids,
                "ugen_conn_id": self.ugen_conn_id,
                "at_least": self.at_least,
                "poll_interval": self.poll_interval,
                "end_time": self.end_time,
                "event_after": self.event_after,
                "payload": self.payload,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for them together."""
        await ready()
        from ugen_provider.core.api.polling import Goal

        event: dict[str, Any] = {"ended": 0, "status": "ended", "payload": self.payload}
        async with watch(self.ugen_conn_id) as watcher:
            waits = [
                asyncio.ensure_future(
                    watcher.wait(
                        job_id,
                        goal=Goal(through_pauses=True),
                        interval=self.poll_interval,
                        deadline=self.end_time,
                    )
                )
                for job_id in self.job_ids
            ]
            try:
                for done in asyncio.as_completed(waits):
                    try:
                        await done
                    except JobTimeoutError:
                        event["status"] = "timeout"
                        break
                    except UGenError as error:
                        # The task settles a job that cannot be waited for, like one that ended.
                        event["message"] = str(error)
                    event["ended"] += 1
                    if event["ended"] >= min(self.at_least, len(waits)):
                        break
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
        await _hold(self.event_after)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]


class UGenSlotTrigger(BaseTrigger):
    """Waits until a create may succeed again after a 429: a job ended, or the service's pause is over.

    Its event has `status` (`ask_again` or `timeout`) and `payload`.

    Args:
        ugen_conn_id: The connection.
        not_before: Seconds since the epoch, as the service said.
        end_time: Seconds since the epoch at which to give up.
        event_after: Seconds since the epoch before which no event is sent; see `earliest_event`.
        payload: Values that the task needs with the event, primitives.
    """

    def __init__(
        self,
        *,
        ugen_conn_id: str,
        not_before: float,
        end_time: float | None = None,
        event_after: float | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.payload = dict(payload or {})
        self.ugen_conn_id = ugen_conn_id
        self.not_before = not_before
        self.end_time = end_time
        self.event_after = event_after

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, primitives all."""
        return (
            "ugen_provider.triggers.jobs.UGenSlotTrigger",
            {
                "ugen_conn_id": self.ugen_conn_id,
                "not_before": self.not_before,
                "end_time": self.end_time,
                "event_after": self.event_after,
                "payload": self.payload,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait in the queue that all triggers of this loop and connection share."""
        await ready()
        from ugen_provider.core.jobs.concurrency import slots_of

        queue = slots_of(self.ugen_conn_id)
        in_time = await queue.turn(not_before=self.not_before, end_time=self.end_time)
        await _hold(self.event_after)
        status = "ask_again" if in_time else "timeout"
        yield TriggerEvent({"status": status, "payload": self.payload})  # type: ignore[no-untyped-call]


# The one watcher of a triggerer and connection, and its reconciler.


@asynccontextmanager
async def watch(ugen_conn_id: str, *, ledger_conn_id: str | None = None) -> AsyncIterator[JobWatcher]:
    """Share the watcher of this event loop and connection; where a ledger is named, a reconciler runs beside it.

    Args:
        ugen_conn_id: The connection.
        ledger_conn_id: The connection of the ledger; None starts no reconciler.
    """
    from ugen_provider.core.jobs.watcher import shared_watcher

    async with shared_watcher(ugen_conn_id, partial(read_config, ugen_conn_id)) as watcher:
        if ledger_conn_id is None:
            yield watcher
            return
        running = _reconcilers.setdefault(asyncio.get_running_loop(), {})
        key = (ugen_conn_id, ledger_conn_id)
        shared = running.get(key)
        if shared is None:
            shared = running[key] = _Reconciler()
            shared.task = asyncio.create_task(
                _reconcile_for_ever(watcher, ugen_conn_id, ledger_conn_id), name="ugen-reconciler"
            )
        shared.users += 1
        try:
            yield watcher
        finally:
            shared.users -= 1
            if shared.users == 0:
                del running[key]
                if shared.task is not None:
                    shared.task.cancel()


@dataclass(slots=True)
class _Reconciler:
    users: int = 0
    task: asyncio.Task[None] | None = None


_reconcilers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], _Reconciler]] = WeakKeyDictionary()


async def _reconcile_for_ever(watcher: JobWatcher, ugen_conn_id: str, ledger_conn_id: str) -> None:
    """Do one round of owed actions now and then. Its ledger calls run in threads, so polling never waits for them."""
    import logging

    from ugen_provider.core.api.clock import clock_of
    from ugen_provider.core.jobs.reconciler import INTERVAL, reconcile
    from ugen_provider.core.jobs.watcher import WatchedWorld
    from ugen_provider.core.ledger.orders import LedgerOrderStore
    from ugen_provider.triggers.cancellation import attempt_state, owner_state

    log = logging.getLogger("ugen_provider.triggers")
    owner = uuid.uuid4().hex
    while True:
        try:
            opened = await _open_ledger(ugen_conn_id, ledger_conn_id)
            world = WatchedWorld(watcher, LedgerOrderStore(opened.ledger, signer=opened.signer))
            await reconcile(world, opened.ledger, owner=owner, owner_state=owner_state, attempt_state=attempt_state)
        except Exception as error:  # noqa: BLE001  the next round tries again
            log.warning("the reconciler's round failed: %s: %s", type(error).__name__, error)
        await clock_of(watcher.client).asleep(INTERVAL)


@dataclass(frozen=True, slots=True)
class _OpenLedger:
    ledger: Ledger
    signer: RecordSigner = field(repr=False)


_ledgers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, Secret], _OpenLedger]] = WeakKeyDictionary()


async def _open_ledger(ugen_conn_id: str, ledger_conn_id: str, *, expected_id: str = "") -> _OpenLedger:
    """Open the ledger of a connection once per event loop. Blocking calls run in threads.

    Raises:
        ConfigError: The ledger is another one than `expected_id`.
    """
    from ugen_provider.core.jobs.threads import in_ledger_thread
    from ugen_provider.hooks.ugen import UGenHook, aledger_address, open_address

    opened_here = _ledgers.setdefault(asyncio.get_running_loop(), {})
    address = await aledger_address(ledger_conn_id)
    signer = (await UGenHook(ugen_conn_id).aget_settings()).signer
    found = opened_here.get((ledger_conn_id, address))
    if found is None:
        ledger = await in_ledger_thread(open_address, address)
        found = opened_here[ledger_conn_id, address] = _OpenLedger(ledger, signer)
    if expected_id and found.ledger.ledger_id != expected_id:
        raise ConfigError(
            f"connection {ledger_conn_id!r} leads to ledger {found.ledger.ledger_id}, and the task was begun with "
            f"ledger {expected_id}; let every process open the same ledger"
        )
    return _OpenLedger(found.ledger, signer)


async def read_config(ugen_conn_id: str) -> ClientConfig:
    """Read the settings of a connection without blocking the loop."""
    from ugen_provider.hooks.ugen import UGenHook

    return (await UGenHook(ugen_conn_id).aget_settings()).config


async def _answer_of(ask: Callable[[], bool]) -> bool:
    """Ask a blocking question in a thread; no answer in time counts as no.

    A triggerer that stops gives no answers any more. So the question has a daemon thread of its own, which keeps no
    process from ending; a pool's thread would.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bool] = loop.create_future()

    def set_answer(found: bool, error: Exception | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)

    def run() -> None:
        found, failed = False, None
        try:
            found = ask()
        except Exception as error:  # noqa: BLE001  the caller raises it
            failed = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(set_answer, found, failed)

    threading.Thread(target=run, daemon=True, name="ugen-kill").start()
    try:
        async with asyncio.timeout(ASK_SECONDS):
            return await answer
    except TimeoutError:
        return False


_is_ready = False


async def ready() -> None:
    """Import in a thread what takes long the first time, so that no other trigger of the loop waits for it."""
    global _is_ready  # noqa: PLW0603  true for good once it is true: a thousand triggers need no thread each
    if not _is_ready:
        await asyncio.to_thread(_make_ready)
        _is_ready = True


def _make_ready() -> None:
    import ugen_provider.core.jobs.concurrency
    import ugen_provider.core.jobs.watcher
    import ugen_provider.hooks.ugen  # noqa: F401
    from ugen_provider.core.api.endpoints import read_listed_job

    # The first answer that is read builds the model of all answers.
    read_listed_job({"job_id": "none", "status": "pending"})
