# SPDX-License-Identifier: Apache-2.0
"""A termination reaches the job; a lost process leaves it; and an orphan that comes back stops."""

from __future__ import annotations

import threading

import dagster as dg
import pytest

from dagster_ugen import UGenOptions
from dagster_ugen.intents import IntentLog
from dagster_ugen.running import scope_of
from tests.dagster.shop import Shop, failure_of, interrupt_process, when

FINAL = dg.AssetKey("final_video")


@pytest.fixture
def still(shop: Shop) -> Shop:
    """A U-Gen whose jobs stay as they are until a test moves the clock."""
    shop.server.emulator.clock.tick = 0.0
    return shop


def terminate(shop: Shop) -> None:
    """What the pages do: the run is marked, then its process gets a signal."""
    run = shop.instance.get_runs(limit=1)[0]
    shop.instance.report_run_canceling(run)
    interrupt_process()


def waits_for(shop: Shop, count: int = 1):
    """All jobs are bought and looked at."""
    journal = shop.server.emulator.journal
    return lambda: len(journal.find_requests(method="GET", path="/api/v1/jobs/")) >= count


def intent_of(shop: Shop, partition: str = "lamp"):
    return IntentLog(shop.instance, asset_key=FINAL, holder="test").newest(partition)


def interrupted(shop: Shop, *partitions: str, act=terminate, condition=None, options: UGenOptions | None = None):
    with when(condition or waits_for(shop, len(partitions)), lambda: act(shop)):
        result = shop.run(*partitions, options=options)
    failed = next(event for event in result.all_events if event.is_step_failure)
    assert failed.step_failure_data.error.cls_name == "DagsterExecutionInterruptedError", "it is always raised again"


def signalled(shop: Shop) -> None:
    interrupt_process()


def test_a_person_who_terminates_cancels_every_job(still):
    interrupted(still, "lamp", "mug")
    assert set(still.jobs.values()) == {"cancelled"}
    for partition in ("lamp", "mug"):
        action = intent_of(still, partition).action
        assert (action.kind, action.reason, action.confirmed) == ("cancel", "kill", True)
    still.server.emulator.clock.tick = 60.0
    assert still.run("lamp", "mug").success, "the next run buys the next generation at once"
    assert sorted(still.jobs.values()) == ["cancelled", "cancelled", "completed", "completed"]


def test_marked_as_cancelled_immediately_is_a_person_too(still):
    def at_once(shop: Shop) -> None:
        shop.instance.report_run_canceled(shop.instance.get_runs(limit=1)[0])
        interrupt_process()

    interrupted(still, "lamp", act=at_once)
    assert set(still.jobs.values()) == {"cancelled"}


def test_a_signal_leaves_the_job_and_the_next_run_attaches(still):
    interrupted(still, "lamp", act=signalled)
    assert intent_of(still).action is None
    still.server.emulator.clock.tick = 60.0
    assert still.run("lamp").success
    assert still.created == ["lamp"]
    assert still.materialized("final_video")["lamp"]["ugen/how"] == "attached"


def test_pause_on_interrupt_is_resumed_by_the_next_run(still, ugen_clock):
    def after_the_start(shop: Shop) -> None:
        ugen_clock.advance(20)
        terminate(shop)
        ugen_clock.advance(60)

    interrupted(still, "lamp", act=after_the_start, options=UGenOptions(on_interrupt="pause"))
    action = intent_of(still).action
    assert (action.kind, action.reason) == ("pause", "interrupt")
    ugen_clock.advance(120)
    assert set(still.jobs.values()) == {"paused"}
    still.server.emulator.clock.tick = 60.0
    assert still.run("lamp").success
    assert still.created == ["lamp"]
    assert still.materialized("final_video")["lamp"]["ugen/how"] == "resumed"


def test_detach_leaves_the_job_whoever_interrupts(still):
    interrupted(still, "lamp", options=UGenOptions(on_interrupt="detach"))
    assert intent_of(still).action is None
    assert "cancelled" not in still.jobs.values()


def test_a_result_that_came_first_is_delivered(still, ugen_clock):
    def too_late(shop: Shop) -> None:
        ugen_clock.advance_until_idle()
        terminate(shop)

    interrupted(still, "lamp", act=too_late)
    assert set(still.jobs.values()) == {"completed"}
    assert still.run("lamp").success
    assert still.created == ["lamp"]
    assert still.materialized("final_video")["lamp"]["ugen/how"] == "taken"


def test_an_order_on_its_way_is_answered_and_then_cancelled(still, ugen_faults):
    """The interrupt comes while the POST is under way: its job must not be left behind."""
    ugen_faults.add("slow", method="POST", path="/api/v1/jobs", seconds=1.0)
    still.server.emulator.clock.set_speed(1.0)
    interrupted(still, "lamp", condition=lambda: bool(still.created) or intent_of(still) is not None)
    assert still.created == ["lamp"]
    assert set(still.jobs.values()) == {"cancelled"}


def test_a_cancel_that_cannot_be_sent_is_written_down_and_sent_by_the_next_run(still, ugen_faults):
    ugen_faults.add("status", status=503, method="DELETE", times=None)
    interrupted(still, "lamp", options=UGenOptions(interrupt_grace=0.5))
    action = intent_of(still).action
    assert (action.kind, action.reason, action.confirmed) == ("cancel", "kill", False)
    assert "cancelled" not in still.jobs.values()
    ugen_faults.clear()
    still.server.emulator.clock.tick = 30.0
    assert still.run("lamp").success
    assert sorted(still.jobs.values()) == ["cancelled", "completed"]


def test_nothing_goes_on_behind_a_run_whose_grace_is_over(still, ugen_faults):
    """Else it would write and cancel beside the next run, in the same process."""
    ugen_faults.add("status", status=503, method="DELETE", times=None)
    interrupted(still, "lamp", options=UGenOptions(interrupt_grace=0.5))
    assert not [thread.name for thread in threading.enumerate() if thread.name == "dagster-ugen"]


def test_an_order_whose_answer_outlasts_the_grace_is_left_and_found_by_the_next_run(still, ugen_faults):
    """The run is over when its grace is, whatever the service does; the answer that nobody heard costs nothing."""
    ugen_faults.add("slow", method="POST", path="/api/v1/jobs", seconds=3.0)
    still.server.emulator.clock.set_speed(1.0)
    interrupted(still, "lamp", condition=lambda: intent_of(still) is not None, options=UGenOptions(interrupt_grace=0.5))
    assert not [thread.name for thread in threading.enumerate() if thread.name == "dagster-ugen"]
    ugen_faults.clear()
    still.server.emulator.clock.tick = 60.0
    assert still.run("lamp").success
    assert still.created == ["lamp"]


def test_an_orphan_that_comes_back_stops_and_names_the_newer_run(still):
    """The run's worker is dead, its step polls on; meanwhile another run took the order over."""

    def take_over(shop: Shop) -> None:
        newer = IntentLog(shop.instance, asset_key=FINAL, holder="the-newer-run").of("lamp")
        newer.read(str(scope_of(FINAL, "", "lamp")))
        shop.server.emulator.clock.tick = 60.0

    with when(waits_for(still), lambda: take_over(still)):
        result = still.run("lamp")
    assert "the-newer-run" in failure_of(result).description
    assert not still.materialized("final_video")
    assert "cancelled" not in still.jobs.values()


def test_an_interrupted_orphan_does_not_touch_what_a_newer_run_holds(still):
    def take_over_and_terminate(shop: Shop) -> None:
        newer = IntentLog(shop.instance, asset_key=FINAL, holder="the-newer-run").of("lamp")
        newer.read(str(scope_of(FINAL, "", "lamp")))
        terminate(shop)

    interrupted(still, "lamp", act=take_over_and_terminate)
    assert "cancelled" not in still.jobs.values()
    assert intent_of(still).action is None
