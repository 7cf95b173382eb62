# SPDX-License-Identifier: Apache-2.0
"""A trigger that is cancelled: by whom is read from Airflow, and only a person or the end of a run cancels the job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from typing import Any
from unittest.mock import patch

import pytest

from tests.airflow.conftest import TaskInstance
from tests.airflow.deferring import through
from ugen_provider import CreateJob
from ugen_provider.core.api.models import Job
from ugen_provider.triggers import jobs
from ugen_provider.triggers.cancellation import JOB_REF, JobRef
from ugen_provider.triggers.jobs import UGenJobTrigger

pytestmark = pytest.mark.usefixtures("connection")
LAMP = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.png", "segment_count": 1}


@pytest.fixture
def job(ugen_client: Any) -> Any:
    """A job at work; the emulator's clock does not move."""
    return ugen_client.jobs.create(CreateJob(**LAMP))


@pytest.fixture
def airflow_says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the answers of the API server to the supervisor of a triggerer."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from airflow.sdk.execution_time.xcom import XCom

    def say(states: dict[str, str], refs: dict[int, JobRef]) -> None:
        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(lambda **_: {"run": states}))

        def get_one(*, key: str, map_index: int, **_: Any) -> Any:
            found = refs.get(map_index) if key == JOB_REF else None
            return None if found is None else asdict(found)

        monkeypatch.setattr(XCom, "get_one", get_one)

    return say


def ref(job: Any, *, attempt: int = 1, map_index: int = -1, has_scope_key: bool = False) -> JobRef:
    name = f"{attempt} job {map_index}"
    return JobRef(job.job_id, "ugen_default", name, cancel_on_kill=True, has_scope_key=has_scope_key)


@contextmanager
def asked_for(ugen_emulator: Any, method: str) -> Iterator[asyncio.Event]:
    """Set when the emulator has seen a request of this method."""
    journal, loop, asked = ugen_emulator.emulator.journal, asyncio.get_running_loop(), asyncio.Event()
    note = journal.seen

    def seen(at: float, how: str, *more: Any, **further: Any) -> None:
        note(at, how, *more, **further)
        if how == method:
            loop.call_soon_threadsafe(asked.set)

    with patch.object(journal, "seen", seen):
        yield asked


def killed(job: Any, ugen_emulator: Any, *, map_index: int = -1, has_scope_key: bool = False) -> None:
    """Let a trigger wait until it has looked at its job once, and end it as Airflow before 3.3 does: by cancelling."""

    async def play() -> None:
        trigger = UGenJobTrigger(
            job_id=job.job_id,
            ugen_conn_id="ugen_default",
            cancel_on_kill=True,
            has_scope_key=has_scope_key,
        )
        trigger.task_instance = TaskInstance(id="1", map_index=map_index)  # type: ignore[assignment]

        async def wait() -> None:
            async for _ in trigger.run():
                raise AssertionError("the job has not ended")

        with asked_for(ugen_emulator, "GET") as looked:
            waiting = asyncio.create_task(wait())
            async with asyncio.timeout(60):
                await looked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(play())


class TestWithoutOnKill:
    """Airflow before 3.3 calls no `on_kill`: each end of a trigger cancels its coroutine."""

    @pytest.fixture(autouse=True)
    def _before_3_3(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jobs, "AIRFLOW_3_3_PLUS", False)

    @pytest.mark.parametrize("state", ["failed", "success"])
    def test_a_task_instance_that_a_person_ended_cancels(
        self, job: Any, airflow_says: Any, ugen_emulator: Any, ugen_client: Any, state: str
    ) -> None:
        airflow_says({"job": state}, {-1: ref(job)})
        killed(job, ugen_emulator)
        assert ugen_client.jobs.get(job.job_id).status == "cancelled"

    def test_a_run_that_is_gone_cancels(
        self, job: Any, airflow_says: Any, ugen_emulator: Any, ugen_client: Any
    ) -> None:
        airflow_says({}, {})
        killed(job, ugen_emulator)
        assert ugen_client.jobs.get(job.job_id).status == "cancelled"

    @pytest.mark.parametrize(
        ("state", "attempt"),
        [("deferred", 1), ("queued", 1), ("running", 2), ("deferred", 2), ("failed", 2)],
        ids=["triggerer stops", "cleared", "next attempt runs", "next attempt waits", "next attempt failed"],
    )
    def test_everything_else_leaves(
        self, job: Any, airflow_says: Any, ugen_emulator: Any, ugen_client: Any, state: str, attempt: int
    ) -> None:
        airflow_says({"job": state}, {-1: ref(job, attempt=attempt)})
        killed(job, ugen_emulator)
        assert not ugen_client.jobs.get(job.job_id).ended
        assert ugen_emulator.emulator.journal.find_requests(method="DELETE") == []

    def test_a_stopping_triggerer_without_answers_is_not_held_up(
        self, job: Any, ugen_emulator: Any, ugen_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        asked, never = threading.Event(), threading.Event()

        def no_answer(**_: Any) -> Any:
            asked.set()
            never.wait()

        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(no_answer))
        monkeypatch.setattr(jobs, "ASK_SECONDS", 0.1)
        killed(job, ugen_emulator)
        (asking,) = [thread for thread in threading.enumerate() if thread.name == "ugen-kill"]
        assert (asked.is_set(), asking.daemon, ugen_client.jobs.get(job.job_id).ended) == (True, True, False)
        never.set()
        asking.join(10)

    def test_two_mapped_instances_with_one_scope_key_cancel_nothing(
        self, job: Any, airflow_says: Any, ugen_emulator: Any, ugen_client: Any
    ) -> None:
        both = {index: ref(job, map_index=index, has_scope_key=True) for index in (0, 1)}
        airflow_says({"job_0": "failed", "job_1": "deferred"}, both)
        killed(job, ugen_emulator, map_index=0, has_scope_key=True)
        assert not ugen_client.jobs.get(job.job_id).ended

    def test_one_that_has_its_scope_key_alone_cancels(
        self, job: Any, airflow_says: Any, ugen_emulator: Any, ugen_client: Any
    ) -> None:
        airflow_says({"job_0": "failed", "job_1": "deferred"}, {0: ref(job, map_index=0, has_scope_key=True)})
        killed(job, ugen_emulator, map_index=0, has_scope_key=True)
        assert ugen_client.jobs.get(job.job_id).status == "cancelled"


def test_with_on_kill_a_cancelled_coroutine_alone_means_nothing(
    job: Any, airflow_says: Any, ugen_emulator: Any, ugen_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "AIRFLOW_3_3_PLUS", True)
    airflow_says({"job": "failed"}, {-1: ref(job)})
    killed(job, ugen_emulator)
    assert not ugen_client.jobs.get(job.job_id).ended


def test_an_unsent_cancel_is_reported_with_the_remedy(
    job: Any, airflow_says: Any, ugen_client: Any, ugen_faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow_says({"job": "failed"}, {-1: ref(job)})
    ugen_faults.add("status", status=500, method="DELETE", times=None)
    trigger = UGenJobTrigger(job_id=job.job_id, ugen_conn_id="ugen_default", cancel_on_kill=True)
    trigger.task_instance = TaskInstance(id="1")  # type: ignore[assignment]
    messages: list[str] = []
    monkeypatch.setattr(trigger.log, "error", lambda message, *values: messages.append(message % values))
    asyncio.run(trigger.on_kill())
    assert not ugen_client.jobs.get(job.job_id).ended
    assert (len(messages), job.job_id in messages[0], "cancel it yourself" in messages[0]) == (1, True, True)


def test_a_cancel_slower_than_airflows_limit_is_still_sent(
    job: Any, airflow_says: Any, ugen_emulator: Any, ugen_client: Any, ugen_faults: Any, connection: Any
) -> None:
    connection(retries=3)
    airflow_says({"job": "failed"}, {-1: ref(job)})
    ugen_faults.add("status", status=503, method="DELETE", times=2)

    async def play() -> None:
        trigger = UGenJobTrigger(job_id=job.job_id, ugen_conn_id="ugen_default", cancel_on_kill=True)
        trigger.task_instance = TaskInstance(id="1")  # type: ignore[assignment]
        async with asyncio.timeout(60):
            with asked_for(ugen_emulator, "DELETE") as refused:
                killing = asyncio.create_task(trigger.on_kill())
                await refused.wait()
            killing.cancel()  # as Airflow does again at its next round
            with pytest.raises(asyncio.CancelledError):
                await killing
            await asyncio.gather(*jobs._killing)

    asyncio.run(play())
    assert ugen_client.jobs.get(job.job_id).status == "cancelled"


def test_trigger_logs_stages_and_at_most_a_line_a_minute(
    ugen_client: Any, ugen_faults: Any, logged: Any, moving_clock: Any
) -> None:
    ugen_faults.job(slow=20.0)
    job = ugen_client.jobs.create(CreateJob(**LAMP))
    began = moving_clock.now()
    through(UGenJobTrigger(job_id=job.job_id, ugen_conn_id="ugen_default", poll_interval=5))
    lines = [line for line in logged().splitlines() if f"job {job.job_id}: processing in stage" in line]
    stages = {line.split("in stage ")[1].split(",")[0].split()[0] for line in lines}
    minutes = (moving_clock.now() - began) / 60
    assert len(stages) >= 5
    assert 10 <= len(lines) <= minutes + len(stages) + 2, "a slow job is read less often than once a minute"


def test_progress_log_speaks_in_the_context_of_its_trigger() -> None:
    owner: ContextVar[str] = ContextVar("owner", default="nobody")
    said: list[str] = []

    class Log:
        def info(self, *_: Any) -> None:
            said.append(owner.get())

    async def trigger(name: str) -> Any:
        owner.set(name)
        return jobs._ProgressLog(Log(), now=lambda: 0.0)

    async def watch() -> None:
        logs = await asyncio.gather(*(asyncio.create_task(trigger(name)) for name in ("one", "two")))
        for log in logs:
            log(Job(job_id="x", status="processing", current_stage="init"))

    asyncio.run(watch())
    assert said == ["one", "two"]
