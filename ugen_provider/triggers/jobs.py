# SPDX-License-Identifier: Apache-2.0
"""Triggers for jobs. All triggers of a triggerer share one watcher and one HTTP client per connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from ugen_provider.core.api.errors import ConfigError, JobTimeoutError, UGenError
from ugen_provider.triggers.killing import ask_airflow
from ugen_provider.version_compat import AIRFLOW_3_3_PLUS

if TYPE_CHECKING:
    from ugen_provider.core.api.config import ClientConfig

DEFAULT_POLL_INTERVAL = 10.0
MOST_JOBS = 500
ASK_SECONDS = 8.0
"""For Airflow to say what became of a task instance."""
KILL_SECONDS = 20.0
"""For one cancel; Airflow grants 30 with the question before it."""


_killing: set[asyncio.Task[None]] = set()
"""The loop itself holds its tasks but weakly."""


class UGenJobTrigger(BaseTrigger):
    """Waits until a job has ended, or stands where it was told to. Free.

    Its event says `job_id`, `status` (`ended`, `stage_reached`, `stopped`, `paused`, `timeout` or `error`), `carry`
    and, for an error, `message`.

    Args:
        job_id: The job.
        ugen_conn_id: The connection.
        poll_interval: Seconds between looks; the service asks for 5 to 10.
        end_time: Seconds since the epoch at which to give up; the job is left as it is.
        target_stage: Also done when this stage is reached.
        stopped: Also done when the job stands still, paused as it was told to.
        through_pauses: Whether a pause by somebody else is waited through instead of told at once.
        stale: A state that does not count after a retry or a resume: status, stage, time.
        carry: What the task wants back with the event, primitives; `dag.test()` hands a task nothing else.
        cancel_on_kill: Whether the job is cancelled where a person, or the end of the run, ended the task instance.
        by_scope_key: Whether another mapped instance may have ordered the very same.
    """

    def __init__(
        self,
        *,
        job_id: str,
        ugen_conn_id: str,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        end_time: float | None = None,
        target_stage: str | None = None,
        stopped: bool = False,
        through_pauses: bool = False,
        stale: Sequence[str | None] | None = None,
        carry: Mapping[str, Any] | None = None,
        cancel_on_kill: bool = False,
        by_scope_key: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_id = job_id
        self.ugen_conn_id = ugen_conn_id
        self.poll_interval = poll_interval
        self.end_time = end_time
        self.target_stage = target_stage
        self.stopped = stopped
        self.through_pauses = through_pauses
        self.stale = None if stale is None else list(stale)
        self.carry = dict(carry or {})
        self.cancel_on_kill = cancel_on_kill
        self.by_scope_key = by_scope_key

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments, primitives all."""
        return (
            "ugen_provider.triggers.jobs.UGenJobTrigger",
            {
                "job_id": self.job_id,
                "ugen_conn_id": self.ugen_conn_id,
                "poll_interval": self.poll_interval,
                "end_time": self.end_time,
                "target_stage": self.target_stage,
                "stopped": self.stopped,
                "through_pauses": self.through_pauses,
                "stale": self.stale,
                "carry": self.carry,
                "cancel_on_kill": self.cancel_on_kill,
                "by_scope_key": self.by_scope_key,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and tell why the wait is over."""
        await ready()
        from ugen_provider.core.api.polling import Goal, Seen
        from ugen_provider.core.jobs.slots import slots_of
        from ugen_provider.core.jobs.watcher import shared_watcher

        goal = Goal(stage=self.target_stage, stopped=self.stopped, through_pauses=self.through_pauses)
        stale = Seen(str(self.stale[0]), self.stale[1], self.stale[2]) if self.stale else None
        event: dict[str, Any] = {"job_id": self.job_id, "carry": self.carry}
        try:
            async with shared_watcher(self.ugen_conn_id, partial(read_config, self.ugen_conn_id)) as watcher:
                outcome = await watcher.wait(
                    self.job_id, goal=goal, interval=self.poll_interval, deadline=self.end_time, stale=stale
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
                # Nobody calls on_kill there. A triggerer that stops comes by here too; the state tells them apart.
                await self.on_kill()
            raise
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the job where the cancelling table says so, and only there.

        Airflow 3.3.2 cancels a trigger again at each of its rounds, about every second, this method included. So what
        takes longer, as where the service has to be asked again, goes on in a task of its own.
        """
        killing = asyncio.create_task(self._kill(), name="ugen-kill")
        _killing.add(killing)
        killing.add_done_callback(_killing.discard)
        await asyncio.shield(killing)

    async def _kill(self) -> None:
        ti = self.task_instance
        if not self.cancel_on_kill or ti is None:
            return
        may = await _answer_of(partial(ask_airflow, ti, job_id=self.job_id, by_scope_key=self.by_scope_key))
        if not may:
            self.log.info("job %s is left: whoever comes next attaches to it", self.job_id)
            return
        from ugen_provider.core.jobs.cancelling import cancel
        from ugen_provider.core.jobs.watcher import shared_watcher

        try:
            async with (
                asyncio.timeout(KILL_SECONDS),
                shared_watcher(self.ugen_conn_id, partial(read_config, self.ugen_conn_id)) as watcher,
            ):
                done = await watcher.client.run(cancel(watcher.client.caller, self.job_id, reason="kill"))
        except (UGenError, TimeoutError) as error:
            # A trigger has no store to write this into. The task instance is over, so the job counts as an orphan.
            self.log.error(  # noqa: TRY400  the stack tells a person nothing more
                "job %s could not be cancelled and runs on (%s): cancel it yourself, clear the task to go on with it, "
                "or let UGenFindOrphansOperator find it",
                self.job_id,
                str(error) or type(error).__name__,
            )
            return
        self.log.info(
            "job %s was %s", self.job_id, "cancelled, since its task was ended" if done.confirmed else "left: it ended"
        )


class UGenJobBatchTrigger(BaseTrigger):
    """Waits until some of several jobs have ended. Free. All of them are looked at by the one watcher.

    Its event says `ended` (how many), `status` (`ended`, `timeout` or `error`) and `carry`; which ones is read again by
    whoever asked.

    Args:
        job_ids: The jobs, at most `MOST_JOBS`: what a trigger holds is stored in Airflow's database.
        ugen_conn_id: The connection.
        at_least: How many must have ended.
        poll_interval: Seconds between looks.
        end_time: Seconds since the epoch at which to give up; the jobs are left.
        carry: What the task wants back with the event, primitives.
    """

    def __init__(
        self,
        *,
        job_ids: Sequence[str],
        ugen_conn_id: str,
        at_least: int = 1,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        end_time: float | None = None,
        carry: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if len(job_ids) > MOST_JOBS:
            raise ConfigError(f"job_ids: a trigger holds at most {MOST_JOBS} jobs, got {len(job_ids)}; buy in waves")
        self.job_ids = list(job_ids)
        self.ugen_conn_id = ugen_conn_id
        self.at_least = at_least
        self.poll_interval = poll_interval
        self.end_time = end_time
        self.carry = dict(carry or {})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments, primitives all."""
        return (
            "ugen_provider.triggers.jobs.UGenJobBatchTrigger",
            {
                "job_ids": self.job_ids,
                "ugen_conn_id": self.ugen_conn_id,
                "at_least": self.at_least,
                "poll_interval": self.poll_interval,
                "end_time": self.end_time,
                "carry": self.carry,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for them together."""
        await ready()
        from ugen_provider.core.api.polling import Goal
        from ugen_provider.core.jobs.watcher import shared_watcher

        event: dict[str, Any] = {"ended": 0, "status": "ended", "carry": self.carry}
        async with shared_watcher(self.ugen_conn_id, partial(read_config, self.ugen_conn_id)) as watcher:
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
                        # A job that cannot be waited for is settled by whoever asked, like one that ended.
                        event["message"] = str(error)
                    event["ended"] += 1
                    if event["ended"] >= min(self.at_least, len(waits)):
                        break
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]


class UGenSlotTrigger(BaseTrigger):
    """Waits until asking for a free slot of the account is worth while: a job ended, or the service's time has come.

    Args:
        ugen_conn_id: The connection.
        not_before: Seconds since the epoch, as the service said.
        carry: What the task wants back with the event, primitives.
    """

    def __init__(self, *, ugen_conn_id: str, not_before: float, carry: Mapping[str, Any] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.carry = dict(carry or {})
        self.ugen_conn_id = ugen_conn_id
        self.not_before = not_before

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments, primitives all."""
        return (
            "ugen_provider.triggers.jobs.UGenSlotTrigger",
            {"ugen_conn_id": self.ugen_conn_id, "not_before": self.not_before, "carry": self.carry},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait in the queue that all triggers of this loop and connection share."""
        await ready()
        from ugen_provider.core.jobs.slots import slots_of

        await slots_of(self.ugen_conn_id).turn(not_before=self.not_before)
        yield TriggerEvent({"status": "ask_again", "carry": self.carry})  # type: ignore[no-untyped-call]


async def read_config(ugen_conn_id: str) -> ClientConfig:
    """The settings of a connection, read without blocking the loop."""
    from ugen_provider.hooks.ugen import UGenHook

    return (await UGenHook(ugen_conn_id).aget_settings()).config


async def _answer_of(ask: Callable[[], bool]) -> bool:
    """What a blocking question is answered with; no where nobody answers in time.

    A triggerer that stops answers nobody any more. So the question has a daemon thread of its own, which keeps no
    process from ending; a pool's thread would.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bool] = loop.create_future()

    def tell(found: bool, error: Exception | None) -> None:
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
        except Exception as error:  # noqa: BLE001  whoever waits for the answer is told of it
            failed = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, found, failed)

    threading.Thread(target=run, daemon=True, name="ugen-kill").start()
    try:
        async with asyncio.timeout(ASK_SECONDS):
            return await answer
    except TimeoutError:
        return False


_is_ready = False


async def ready() -> None:
    """Make ready in a thread what takes long the first time, so that nobody else on the loop waits for it."""
    global _is_ready  # noqa: PLW0603  true for good once it is true: a thousand triggers need no thread each
    if not _is_ready:
        await asyncio.to_thread(_make_ready)
        _is_ready = True


def _make_ready() -> None:
    import ugen_provider.core.jobs.slots
    import ugen_provider.core.jobs.watcher
    import ugen_provider.hooks.connections  # noqa: F401
    from ugen_provider.core.api.operations import read_listed_job

    # The first answer that is read builds the model of all answers.
    read_listed_job({"job_id": "none", "status": "pending"})
