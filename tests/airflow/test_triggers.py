# SPDX-License-Identifier: Apache-2.0
"""A trigger that is cancelled: by whom is read from Airflow, and only a person or the end of a run cancels the job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from tests.airflow.conftest import TaskInstance
from ugen_provider import CreateJob
from ugen_provider.triggers import jobs
from ugen_provider.triggers.jobs import UGenJobTrigger
from ugen_provider.triggers.killing import WATCH, Watch

pytestmark = pytest.mark.usefixtures("connection")
LAMP = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.png", "segment_count": 1}


@pytest.fixture
def job(ugen_client: Any) -> Any:
    """A job at work; the emulator's clock stands still."""
    return ugen_client.jobs.create(CreateJob(**LAMP))


@pytest.fixture
def airflow_says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the supervisor of a triggerer would be told by the API server."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from airflow.sdk.execution_time.xcom import XCom

    def say(states: dict[str, str], watches: dict[int, Watch]) -> None:
        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(lambda **_: {"run": states}))

        def get_one(*, key: str, map_index: int, **_: Any) -> Any:
            found = watches.get(map_index) if key == WATCH else None
            return None if found is None else found.to_dict()

        monkeypatch.setattr(XCom, "get_one", get_one)

    return say


def watch(job: Any, *, attempt: int = 1, by_scope_key: bool = False) -> Watch:
    return Watch(job.job_id, "ugen_default", "scope", attempt, cancel_on_kill=True, by_scope_key=by_scope_key)


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


def killed(job: Any, ugen_emulator: Any, *, map_index: int = -1, by_scope_key: bool = False) -> None:
    """Let a trigger wait until it has looked at its job once, and end it as Airflow before 3.3 does: by cancelling."""

    async def play() -> None:
        trigger = UGenJobTrigger(
            job_id=job.job_id,
            ugen_conn_id="ugen_default",
            cancel_on_kill=True,
            by_scope_key=by_scope_key,
        )
        trigger.task_instance = TaskInstance(map_index=map_index)  # type: ignore[assignment]

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
    """Airflow before 3.3 calls no `on_kill`: whatever befalls a trigger cancels its coroutine."""

    @pytest.fixture(autouse=True)
    def _before_3_3(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jobs, "AIRFLOW_3_3_PLUS", False)

    @pytest.mark.parametrize("state", ["failed", "success"])
    def test_a_task_instance_that_a_person_ended_cancels(
        self, job: Any, airflow_says: Any, ugen_emulator: Any, ugen_client: Any, state: str
    ) -> None:
        airflow_says({"job": state}, {-1: watch(job)})
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
        airflow_says({"job": state}, {-1: watch(job, attempt=attempt)})
        killed(job, ugen_emulator)
        assert not ugen_client.jobs.get(job.job_id).ended
        assert ugen_emulator.emulator.journal.find_requests(method="DELETE") == []

    def test_a_triggerer_that_stops_and_answers_nobody_any_more_is_not_held_up(
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

    def test_of_two_mapped_instances_with_one_scope_key_neither_cancels(
        self, job: Any, airflow_says: Any, ugen_emulator: Any, ugen_client: Any
    ) -> None:
        both = {index: watch(job, by_scope_key=True) for index in (0, 1)}
        airflow_says({"job_0": "failed", "job_1": "deferred"}, both)
        killed(job, ugen_emulator, map_index=0, by_scope_key=True)
        assert not ugen_client.jobs.get(job.job_id).ended

    def test_one_that_has_its_scope_key_alone_cancels(
        self, job: Any, airflow_says: Any, ugen_emulator: Any, ugen_client: Any
    ) -> None:
        airflow_says({"job_0": "failed", "job_1": "deferred"}, {0: watch(job, by_scope_key=True)})
        killed(job, ugen_emulator, map_index=0, by_scope_key=True)
        assert ugen_client.jobs.get(job.job_id).status == "cancelled"


def test_with_on_kill_a_cancelled_coroutine_alone_means_nothing(
    job: Any, airflow_says: Any, ugen_emulator: Any, ugen_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "AIRFLOW_3_3_PLUS", True)
    airflow_says({"job": "failed"}, {-1: watch(job)})
    killed(job, ugen_emulator)
    assert not ugen_client.jobs.get(job.job_id).ended


def test_a_cancel_that_could_not_be_sent_is_told_with_the_way_out(
    job: Any, airflow_says: Any, ugen_client: Any, ugen_faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow_says({"job": "failed"}, {-1: watch(job)})
    ugen_faults.add("status", status=500, method="DELETE", times=None)
    trigger = UGenJobTrigger(job_id=job.job_id, ugen_conn_id="ugen_default", cancel_on_kill=True)
    trigger.task_instance = TaskInstance()  # type: ignore[assignment]
    told: list[str] = []
    monkeypatch.setattr(trigger.log, "error", lambda message, *values: told.append(message % values))
    asyncio.run(trigger.on_kill())
    assert not ugen_client.jobs.get(job.job_id).ended
    assert (len(told), job.job_id in told[0], "UGenFindOrphansOperator" in told[0]) == (1, True, True)


def test_a_cancel_that_takes_longer_than_airflow_has_patience_is_sent_all_the_same(
    job: Any, airflow_says: Any, ugen_emulator: Any, ugen_client: Any, ugen_faults: Any, connection: Any
) -> None:
    connection(retries=3)
    airflow_says({"job": "failed"}, {-1: watch(job)})
    ugen_faults.add("status", status=503, method="DELETE", times=2)

    async def play() -> None:
        trigger = UGenJobTrigger(job_id=job.job_id, ugen_conn_id="ugen_default", cancel_on_kill=True)
        trigger.task_instance = TaskInstance()  # type: ignore[assignment]
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
