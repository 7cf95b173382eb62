# SPDX-License-Identifier: Apache-2.0
"""`execution_timeout` while a task is deferred, which Airflow leaves to the operator, and the first event's time.

Public reports of the same fault in other providers: apache/airflow 61472, 64051, 67227, 72030 (the limit is ignored),
40018 (the limit counts although the job has ended).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.deferring import through
from ugen_provider import CreateJob
from ugen_provider.core.api.errors import PurchaseError
from ugen_provider.core.api.polling import JobTimeoutError
from ugen_provider.core.jobs.concurrency import SlotQueue
from ugen_provider.operators.feeds import UGenCreateJobsFromFeedOperator
from ugen_provider.operators.jobs import (
    UGenCreateJobOperator,
    UGenPauseJobOperator,
    UGenResumeJobOperator,
    UGenRetryJobOperator,
)
from ugen_provider.sensors.jobs import UGenJobSensor
from ugen_provider.triggers.jobs import UGenSlotTrigger
from ugen_provider.version_compat import AirflowTaskTimeout, TaskDeferred

pytestmark = pytest.mark.usefixtures("connection", "moving_clock")
LAMP: dict[str, Any] = {
    "product_name": "Lamp",
    "product_image_url": "https://shop.example/lamp.png",
    "segment_count": 1,
}
FEED = Path(__file__).parents[2] / "examples" / "feed.xml"
LIMIT = 60.0
Make = Callable[..., Any]


@pytest.fixture
def slow_job(ugen_client: Any, ugen_faults: Any) -> str:
    ugen_faults.job(slow=1000.0, times=None)
    return str(ugen_client.jobs.create(CreateJob(**LAMP)).job_id)


def create(slow_job: str, tmp_path: Path, faults: Any) -> Any:
    return UGenCreateJobOperator(task_id="job", deferrable=True, **LAMP, **GIVEN)


def create_without_slot(slow_job: str, tmp_path: Path, faults: Any) -> Any:
    faults.add("status", status=429, retry_after=7, method="POST", path="/api/v1/jobs", times=None)
    return create(slow_job, tmp_path, faults)


def existing(kind: Any) -> Make:
    def make(slow_job: str, tmp_path: Path, faults: Any) -> Any:
        return kind(task_id="job", job_id=slow_job, deferrable=True, **GIVEN)

    return make


def sensor(slow_job: str, tmp_path: Path, faults: Any) -> Any:
    given = {"execution_timeout": timedelta(seconds=LIMIT), "poke_interval": 5}
    return UGenJobSensor(task_id="job", job_id=slow_job, deferrable=True, **given)


def feed(slow_job: str, tmp_path: Path, faults: Any) -> Any:
    return UGenCreateJobsFromFeedOperator(
        task_id="job",
        feed=str(FEED),
        catalogue="shop",
        ledger_conn_id="ugen_ledger",
        budget=5000,
        job_defaults={"segment_count": 1},
        deferrable=True,
        poll_interval=5,
        execution_timeout=timedelta(seconds=LIMIT),
    )


def feed_without_slot(slow_job: str, tmp_path: Path, faults: Any) -> Any:
    faults.add("status", status=429, retry_after=7, method="POST", path="/api/v1/jobs", times=None)
    return feed(slow_job, tmp_path, faults)


GIVEN: dict[str, Any] = {"execution_timeout": timedelta(seconds=LIMIT), "timeout": 3600.0, "poll_interval": 5}
TASKS: dict[str, Make] = {
    "create": create,
    "create_without_slot": create_without_slot,
    "retry": existing(UGenRetryJobOperator),
    "resume": existing(UGenResumeJobOperator),
    "pause": existing(UGenPauseJobOperator),
    "sensor": sensor,
    "feed": feed,
    "feed_without_slot": feed_without_slot,
}


def run_to_end(
    task: Any,
    context: Any,
    deferred: list[Any],
    clock: Any,
    *,
    broken_after: float | None,
    waits: list[tuple[float, float]],
) -> None:
    """Run one attempt; with `broken_after`, its first trigger loses its connection, and the task begins a second.

    `waits` is filled with the times at which each trigger began and ended.
    """
    try:
        task.execute(context)
    except TaskDeferred as first:
        deferred.append(first)
    while deferred:
        trigger = deferred[-1].trigger
        if len(deferred) == 1 and broken_after is not None:
            clock.advance(broken_after)
            lost = {"status": "error", "message": "no answer", "payload": trigger.payload}
            event = {"job_id": getattr(trigger, "job_id", None), **lost}
        else:
            began = clock.now()
            event = through(trigger)
            waits.append((began, clock.now()))
        try:
            task.resume_execution(deferred[-1].method_name, {"event": event}, context)
            return
        except TaskDeferred as again:
            deferred.append(again)


@pytest.mark.parametrize("broken_after", [None, 20.0], ids=["first_deferral", "second_deferral"])
@pytest.mark.parametrize("kind", TASKS)
def test_deferred_task_ends_with_execution_timeout(
    kind: str,
    broken_after: float | None,
    slow_job: str,
    attempts: Any,
    tmp_path: Path,
    ugen_client: Any,
    ugen_faults: Any,
    ugen_clock: Any,
    request: pytest.FixtureRequest,
) -> None:
    if kind.startswith("feed"):
        request.getfixturevalue("ledger")
    task = TASKS[kind](slow_job, tmp_path, ugen_faults)
    context = attempts.next()
    began = ugen_clock.now()
    context["ti"].start_date = datetime.fromtimestamp(began, UTC)
    deferred: list[Any] = []
    waits: list[tuple[float, float]] = []
    with pytest.raises((JobTimeoutError, PurchaseError, AirflowTaskTimeout)) as ended:
        run_to_end(task, context, deferred, ugen_clock, broken_after=broken_after, waits=waits)
    assert ugen_clock.now() >= began + LIMIT
    # A wave of a feed has sleepers of its own, which move this clock before the task defers, and after it.
    assert all(end <= max(began + LIMIT, start) + 30 for start, end in waits)
    assert kind.startswith("feed") or ugen_clock.now() <= began + LIMIT + 30
    assert len(deferred) >= (1 if broken_after is None or kind.startswith("feed") else 2)
    assert getattr(ended.value, "retryable", True)
    assert not ugen_client.jobs.get(slow_job).ended


def test_execution_timeout_passed_with_ended_job_delivers_it(attempts: Any, ugen_clock: Any) -> None:
    task = create("", Path(), None)
    context = attempts.next()
    context["ti"].start_date = datetime.fromtimestamp(ugen_clock.now(), UTC)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    ugen_clock.advance(7200.0)  # no triggerer ran meanwhile
    event = through(deferred.value.trigger)
    assert task.execute_complete(context, event)["status"] == "completed"


@pytest.mark.parametrize("kind", TASKS)
def test_trigger_of_ended_job_waits_one_poll_interval(
    kind: str,
    slow_job: str,
    attempts: Any,
    tmp_path: Path,
    ugen_faults: Any,
    ugen_clock: Any,
    request: pytest.FixtureRequest,
) -> None:
    if kind.startswith("feed"):
        request.getfixturevalue("ledger")
    task = TASKS[kind](slow_job, tmp_path, ugen_faults)
    context = attempts.next()
    context["ti"].start_date = datetime.fromtimestamp(ugen_clock.now(), UTC)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    trigger = deferred.value.trigger
    began = trigger.event_after - 5
    if isinstance(trigger, UGenSlotTrigger):
        trigger.not_before = 0.0  # a slot was freed at once
    else:
        trigger.end_time = 0.0  # its deadline ends it at once
    through(trigger)
    assert ugen_clock.now() >= began + 5


def test_slot_queue_with_passed_end_frees_the_next_place() -> None:
    class Clock:
        at = 0.0

        def now(self) -> float:
            return self.at

        async def asleep(self, seconds: float) -> None:
            self.at += seconds
            await asyncio.sleep(0)

    async def wait() -> tuple[list[bool], float]:
        clock = Clock()
        queue = SlotQueue(clock=clock)  # type: ignore[arg-type]
        turns = [queue.turn(not_before=50.0, end_time=20.0), queue.turn(not_before=30.0), queue.turn(not_before=30.0)]
        return list(await asyncio.gather(*turns)), clock.at

    found, at = asyncio.run(wait())
    assert (found, at >= 30.0) == ([False, True, True], True)


def test_triggers_round_trip_with_their_times(attempts: Any) -> None:
    made = UGenSlotTrigger(ugen_conn_id="c", not_before=1.0, end_time=2.0, event_after=3.0, payload={"a": 1})
    _, arguments = made.serialize()
    assert UGenSlotTrigger(**json.loads(json.dumps(arguments))).serialize() == made.serialize()
