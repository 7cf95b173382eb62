# SPDX-License-Identifier: Apache-2.0
"""A termination reaches the job, a lost process leaves it, and an older run follows the newer one."""

from __future__ import annotations

import threading

import dagster as dg
import pytest

from dagster_ugen import UGenOptions, UGenResource
from tests.dagster.shop import Shop, interrupt_process, when
from ugen_provider.core.ledger.errors import AttemptSupersededError


@pytest.fixture
def still(shop: Shop) -> Shop:
    """A U-Gen whose jobs stay unchanged until a test moves the clock."""
    shop.server.emulator.clock.tick = 0.0
    return shop


def terminate(shop: Shop) -> None:
    """Terminate as the pages do: the run is marked, then its process gets a signal."""
    run = shop.instance.get_runs(limit=1)[0]
    shop.instance.report_run_canceling(run)
    interrupt_process()


def mark_canceled(shop: Shop) -> None:
    shop.instance.report_run_canceled(shop.instance.get_runs(limit=1)[0])
    interrupt_process()


def delete_run(shop: Shop) -> None:
    shop.instance.delete_run(shop.instance.get_runs(limit=1)[0].run_id)
    interrupt_process()


def signal_process(_shop: Shop) -> None:
    interrupt_process()


def polled(shop: Shop, count: int = 1):
    """All jobs are bought and polled."""
    journal = shop.server.emulator.journal
    return lambda: len(journal.find_requests(method="GET", path="/api/v1/jobs/")) >= count


def actions_of(shop: Shop, partition: str = "lamp") -> list[tuple[str, str, str]]:
    return [(action.kind, action.reason, action.state) for action in shop.actions(partition)]


def interrupted(shop: Shop, *partitions: str, act=terminate, condition=None, **arguments):
    with when(condition or polled(shop, len(partitions)), lambda: act(shop)):
        result = shop.run(*partitions, **arguments)
    failed = next((event for event in result.all_events if event.is_step_failure), None)
    if failed is not None:
        assert failed.step_failure_data.error.cls_name == "DagsterExecutionInterruptedError", "it is raised again"
    return result


def test_terminated_run_cancels_every_job(still):
    interrupted(still, "lamp", "mug")
    assert set(still.jobs.values()) == {"cancelled"}
    for partition in ("lamp", "mug"):
        assert actions_of(still, partition) == [("cancel", "terminate", "confirmed")]
        assert still.actions(partition)[0].token == still.order(partition).token == 1
    still.server.emulator.clock.tick = 60.0
    assert still.run("lamp", "mug").success, "the next run buys the next purchase at once"
    assert sorted(still.jobs.values()) == ["cancelled", "cancelled", "completed", "completed"]


def test_run_marked_canceled_cancels_its_job(still):
    interrupted(still, "lamp", act=mark_canceled)
    assert set(still.jobs.values()) == {"cancelled"}


def test_signal_leaves_job_and_next_run_reattaches(still):
    interrupted(still, "lamp", act=signal_process)
    assert actions_of(still) == []
    still.server.emulator.clock.tick = 60.0
    assert still.run("lamp").success
    assert still.created == ["lamp"]
    assert still.materialized("final_video")["lamp"]["ugen/outcome"] == "reattached"


def test_pause_on_interrupt_is_resumed_by_next_run(still, ugen_clock):
    def after_the_start(shop: Shop) -> None:
        ugen_clock.advance(20)
        terminate(shop)
        ugen_clock.advance(60)

    interrupted(still, "lamp", act=after_the_start, options=UGenOptions(on_interrupt="pause"))
    assert actions_of(still) == [("pause", "interrupt", "sent")]
    ugen_clock.advance(120)
    assert set(still.jobs.values()) == {"paused"}
    still.server.emulator.clock.tick = 60.0
    assert still.run("lamp").success
    assert still.created == ["lamp"]
    assert still.materialized("final_video")["lamp"]["ugen/outcome"] == "resumed"


def test_detach_leaves_the_job_on_termination(still):
    interrupted(still, "lamp", options=UGenOptions(on_interrupt="detach"))
    assert actions_of(still) == []
    assert "cancelled" not in still.jobs.values()


def test_reuse_only_run_leaves_the_job_on_termination(still):
    """A branch deployment reads its parent's orders and changes none of its jobs."""
    interrupted(still, "lamp", act=signal_process)
    before = still.order()
    branch = UGenResource(**{**still.resource.model_dump(), "spending": "reuse_only"})
    interrupted(still, "lamp", resource=branch, condition=polled(still, 4))
    assert "cancelled" not in still.jobs.values()
    assert (still.order(), actions_of(still)) == (before, [])


def test_result_before_termination_is_delivered(still, ugen_clock):
    def too_late(shop: Shop) -> None:
        ugen_clock.advance_until_idle()
        terminate(shop)

    interrupted(still, "lamp", act=too_late)
    assert set(still.jobs.values()) == {"completed"}
    assert still.run("lamp").success
    assert still.created == ["lamp"]
    assert still.materialized("final_video")["lamp"]["ugen/outcome"] == "reused"


def test_order_in_flight_is_answered_then_cancelled(still, ugen_faults):
    """The interrupt comes while the POST is in flight: its job must not be left behind."""
    ugen_faults.add("slow", method="POST", path="/api/v1/jobs", seconds=1.0)
    still.server.emulator.clock.set_speed(1.0)
    interrupted(still, "lamp", condition=lambda: bool(still.created) or still.find_order() is not None)
    assert still.created == ["lamp"]
    assert set(still.jobs.values()) == {"cancelled"}


def test_unsent_cancel_is_recorded_and_sent_by_next_run(still, ugen_faults):
    ugen_faults.add("status", status=503, method="DELETE", times=None)
    interrupted(still, "lamp", options=UGenOptions(interrupt_grace=0.5))
    [(kind, reason, state)] = actions_of(still)
    assert (kind, reason) == ("cancel", "terminate")
    assert state in {"recorded", "sent"}
    assert "cancelled" not in still.jobs.values()
    ugen_faults.clear()
    still.server.emulator.clock.tick = 30.0
    assert still.run("lamp").success
    assert sorted(still.jobs.values()) == ["cancelled", "completed"]


def test_no_thread_continues_after_the_grace_period(still, ugen_faults):
    """It would write and cancel beside the next run, in the same process."""
    ugen_faults.add("status", status=503, method="DELETE", times=None)
    interrupted(still, "lamp", options=UGenOptions(interrupt_grace=0.5))
    assert not [thread.name for thread in threading.enumerate() if thread.name == "dagster-ugen"]


def test_answer_after_the_grace_period_is_found_by_next_run(still, ugen_faults):
    ugen_faults.add("slow", method="POST", path="/api/v1/jobs", seconds=3.0)
    still.server.emulator.clock.set_speed(1.0)
    options = UGenOptions(interrupt_grace=0.5)
    interrupted(still, "lamp", condition=lambda: still.find_order() is not None, options=options)
    assert not [thread.name for thread in threading.enumerate() if thread.name == "dagster-ugen"]
    ugen_faults.clear()
    still.server.emulator.clock.tick = 60.0
    assert still.run("lamp").success
    delivered = [status for status in still.jobs.values() if status == "completed"]
    assert len(delivered) == 1
    assert len(still.created) <= 2, "the job of the terminated run may have been cancelled"


# An older run and a newer one of the same partition.


def supersede(shop: Shop, attempt: str = "the-newer-run:0") -> None:
    """A newer run takes the order over."""
    with shop.store() as store:
        store.take_token(shop.order().order_key, attempt)


def test_superseded_run_records_the_newer_runs_purchase(still):
    def take_over(shop: Shop) -> None:
        supersede(shop)
        shop.server.emulator.clock.tick = 60.0

    with when(polled(still), lambda: take_over(still)):
        result = still.run("lamp")
    assert result.success
    assert still.created == ["lamp"]
    assert still.materialized("final_video")["lamp"]["ugen/job_id"] == still.order().job_id
    assert still.order().attempt == "the-newer-run:0", "the older run takes no new token"


def test_superseded_run_follows_a_regenerated_purchase(still):
    """The newer run cancels job 1 and buys job 2; the older one delivers job 2 and sends no request of its own."""
    results = []

    def move(shop: Shop) -> None:
        shop.server.emulator.clock.tick = 60.0

    def run_newer(shop: Shop) -> None:
        with when(lambda: len(shop.created) == 2, lambda: move(shop)):
            results.append(shop.run("lamp", tags={"ugen/regenerate": "1"}))

    with when(polled(still), lambda: run_newer(still)):
        older = still.run("lamp")
    assert (older.success, results[0].success) == (True, True)
    assert sorted(still.jobs.values()) == ["cancelled", "completed"]
    made = still.materialized("final_video")["lamp"]
    assert made["ugen/job_id"] == still.order().job_id
    assert made["ugen/purchase_number"] == 1


def test_interrupted_superseded_run_changes_no_job(still):
    def take_over_and_terminate(shop: Shop) -> None:
        supersede(shop)
        terminate(shop)

    interrupted(still, "lamp", act=take_over_and_terminate)
    assert "cancelled" not in still.jobs.values()
    assert actions_of(still) == []


def test_superseded_attempt_takes_no_second_token(still):
    interrupted(still, "lamp", act=signal_process)
    first = still.order().attempt
    supersede(still)
    with still.store() as store, pytest.raises(AttemptSupersededError):
        store.take_token(still.order().order_key, first)


def test_step_retry_after_a_timeout_continues_the_job(shop):
    """The retry has a token of its own in the same run, so it may reattach, and would buy after a cancel."""
    clock = shop.server.emulator.clock
    clock.tick = 0.0
    tokens: list[str] = []

    def look() -> bool:
        record = shop.find_order()
        if record is not None and record.attempt not in tokens:
            tokens.append(record.attempt)
        return len(tokens) == 2

    def move() -> None:
        clock.tick = 60.0

    with when(look, move):
        result = shop.run(
            "lamp", options=UGenOptions(timeout=0.3), retry_policy=dg.RetryPolicy(max_retries=20, delay=0.1)
        )
    assert result.success
    assert shop.created == ["lamp"]
    assert [name.rpartition(":")[2] for name in tokens] == ["0", "1"]


@pytest.mark.parametrize("policy", ["collect", "cancel"])
def test_final_failure_follows_its_policy(still, policy):
    options = UGenOptions(timeout=0.3, on_final_failure=policy)
    assert not still.run("lamp", options=options, retry_policy=None).success
    if policy == "cancel":
        assert set(still.jobs.values()) == {"cancelled"}
        assert actions_of(still) == [("cancel", "timeout", "confirmed")]
    else:
        assert "cancelled" not in still.jobs.values()
        assert actions_of(still) == [("collect", "final_failure", "recorded")]
    still.server.emulator.clock.tick = 60.0
    assert still.run("lamp").success
    assert len(still.created) == (2 if policy == "cancel" else 1)
