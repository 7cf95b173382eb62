# SPDX-License-Identifier: Apache-2.0
"""Schedules of several processes at one order: an attempt, its successor, a listener, the reconciler.

Each is played step by step in every order that can happen; the oracle is the emulator's journal and credits.
"""

import itertools
import uuid
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest

from tests.core.jobs.test_purchase import BODY, order
from tests.core.local import Attempts, Killed, Local
from ugen_provider import PurchaseError, UGenError
from ugen_provider.core.jobs.sync.actions import hold_at_gate
from ugen_provider.core.jobs.sync.reconciler import reconcile
from ugen_provider.core.ledger.errors import AttemptSupersededError
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.record import Action
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.emulator.settings import Settings


@pytest.fixture
def local():
    return Local(Settings(speed=0, admin=True))


@pytest.fixture
def ledger(address, local):
    with Ledger.init(address, allow_ephemeral=True, now=local.world.now) as made:
        yield made


@pytest.fixture
def attempts(local, ledger):
    with local.client() as client:
        yield Attempts(client, LedgerOrderStore(ledger))


def round_of(attempts, ledger, *, state="over", **more):
    """One round of the reconciler, in a process of its own."""
    return reconcile(
        attempts.world(), ledger, owner=uuid.uuid4().hex, owner_state=lambda _record, _action: state, **more
    )


def refuse_deletes(local, times=10**6):
    left = [times]

    def meddle(request, answer):
        if request.method == "DELETE" and left[0] > 0:
            left[0] -= 1
            return httpx.Response(503, json={"error": {"code": "UNAVAILABLE", "message": "try later"}})
        return answer()

    local.transport.meddle = meddle


def statuses(local):
    with local.client() as client:
        return sorted(job.status for job in client.jobs.list())


def reserved(local):
    return local.world.accounts.by_name["local"].credits.reserved


def test_cancel_refused_six_times_is_sent_by_the_reconciler(attempts, local, ledger):
    job_id = attempts.buy(order()).job.job_id
    refuse_deletes(local, times=6)
    while True:
        with suppress(UGenError):
            attempts.cancel(order(), reason="operator")
            break
        local.world.advance(60)
        if not round_of(attempts, ledger).owed:
            break
        local.world.advance(300)
    assert attempts.client.jobs.get(job_id).status == "cancelled"
    assert reserved(local) == 0


@pytest.mark.parametrize("state", ["alive", "unknown"])
def test_reconciler_leaves_a_kill_whose_owner_is_not_over(attempts, local, ledger, state):
    attempts.buy(order())
    refuse_deletes(local)
    with pytest.raises(UGenError):
        attempts.cancel(order())
    local.transport.meddle = lambda _, answer: answer()
    report = round_of(attempts, ledger, state=state)
    assert [action.reason for action, _ in report.owed] == ["kill"]
    assert local.requests("DELETE") == 0 or statuses(local) != ["cancelled"]


def test_only_one_process_reconciles_at_a_time(attempts, ledger, local):
    assert round_of(attempts, ledger).ran
    assert not round_of(attempts, ledger).ran
    local.world.advance(3600)
    assert round_of(attempts, ledger).ran


STEPS = ("reconciler", "listener", "attempt 2")


@pytest.mark.parametrize("steps", list(itertools.permutations(STEPS)), ids=", ".join)
def test_attempt_2_keeps_its_job_from_the_cancel_of_attempt_1(attempts, local, ledger, steps):
    """The task was cleared after a kill of attempt 1 was recorded whose DELETE could not be sent."""
    attempts.buy(order())
    refuse_deletes(local)
    with pytest.raises(UGenError):
        attempts.cancel(order(), token=1)
    local.transport.meddle = lambda _, answer: answer()
    second = attempts.next(order())
    for step in steps:
        if step == "reconciler":
            round_of(attempts, ledger, state="alive")
        elif step == "listener":
            with suppress(AttemptSupersededError):
                attempts.cancel(order(), token=1, only_while_newest=True)
        else:
            bought = attempts.buy(second)
        local.world.advance(5)
    finished = attempts.obtain(second)
    assert finished.job.final_video_url
    assert finished.job.job_id == bought.job.job_id
    completed = [status for status in statuses(local) if status == "completed"]
    assert completed == ["completed"]
    assert reserved(local) == 0


def test_cancel_of_job_1_never_hits_job_2(attempts, local, ledger):
    first = attempts.buy(order())
    refuse_deletes(local)
    with pytest.raises(UGenError):
        attempts.cancel(order(), reason="operator", job_id=first.job.job_id)
    local.transport.meddle = lambda _, answer: answer()
    second = attempts.buy(order(regenerate="new"))
    round_of(attempts, ledger)
    assert attempts.client.jobs.get(second.job.job_id).status != "cancelled"
    assert attempts.obtain(order(regenerate="new")).job.job_id == second.job.job_id
    assert local.created == 2


def test_cancel_recorded_before_the_job_id_is_known_is_sent(attempts, local, ledger):
    """SIGTERM arrives while the POST is in flight: the cancel names order and purchase, its sender finds the id."""
    attempt = attempts.next(order())

    def meddle(request, answer):
        response = answer()
        if request.method == "POST" and local.created == 1:
            local.transport.meddle = lambda _, answer: answer()
            assert attempts.cancel(order()) is None
        return response

    local.transport.meddle = meddle
    with pytest.raises(PurchaseError) as caught:
        attempts.obtain(attempt)
    assert caught.value.reason == "attempt_ended"
    assert statuses(local) == ["cancelled"]
    assert attempts.obtain(order()).job.final_video_url
    assert local.created == 2


def test_cancel_recorded_before_a_crash_finds_the_job_by_its_key(attempts, local, ledger):
    def meddle(request, answer):
        answer()
        if request.method == "POST":
            raise Killed
        return answer()

    local.transport.meddle = meddle
    with pytest.raises(Killed):
        attempts.buy(order())
    local.transport.meddle = lambda _, answer: answer()
    assert attempts.cancel(order()) is None
    assert not round_of(attempts, ledger).owed
    assert statuses(local) == ["cancelled"]
    assert local.requests("POST", "/api/v1/jobs") == 1


@pytest.mark.parametrize("resumed", [False, True])
def test_reconciler_cancels_an_expired_gate_that_is_still_open(attempts, local, ledger, resumed):
    gated = order(body={**BODY, "stop_at_stage": "init"})
    bought = attempts.obtain(gated)
    hold_at_gate(attempts.world(), bought.record, expires_at=local.world.now() + 3600)
    assert round_of(attempts, ledger).done == ()
    local.world.advance(3601)
    if resumed:
        attempts.client.jobs.resume(bought.job.job_id)
    report = round_of(attempts, ledger)
    assert len(report.withdrawn if resumed else report.done) == 1
    local.world.advance(3600)
    assert statuses(local) == (["completed"] if resumed else ["cancelled"])
    assert reserved(local) == 0
    local.world.advance(600)
    assert round_of(attempts, ledger).owed == ()


def test_reconciler_collects_a_job_whose_task_failed_for_good(attempts, local, ledger):
    bought = attempts.buy(replace(order(), destination="memory://videos"))
    record = bought.record
    action = Action(record.order_key, 0, record.job_id, "collect", "final_failure", record.token, local.world.now())
    attempts.store.append_action(action)
    stored = []

    def collect(record, job):
        stored.append((record.destination, job.job_id))
        return f"{record.destination}/manifest.json"

    assert len(round_of(attempts, ledger, collect=collect).owed) == 1
    local.world.advance(7200)
    assert len(round_of(attempts, ledger, collect=collect).done) == 1
    local.world.advance(7200)
    assert round_of(attempts, ledger, collect=collect).owed == ()
    assert stored == [("memory://videos", bought.job.job_id)]


def test_job_without_an_owner_is_never_cancelled(attempts, local, ledger):
    with suppress(Killed):
        attempts.obtain(order(), kill_at=8)
    local.world.advance(120)
    round_of(attempts, ledger)
    assert local.requests("DELETE") == 0


def test_regenerate_in_the_attempt_that_cancels_buys_one(attempts, local):
    first = attempts.buy(order())
    second = attempts.obtain(order(regenerate="again"))
    assert second.job.job_id != first.job.job_id
    assert sorted(statuses(local)) == ["cancelled", "completed"]
    assert attempts.obtain(order(regenerate="again")).job.job_id == second.job.job_id
    assert local.created == 2


def test_step_retry_in_one_run_after_a_timeout_buys_the_next(attempts, local):
    run = replace(order(), attempt="run 1, retry 0")
    attempts.buy(run)
    attempts.cancel(order(), reason="timeout")
    with pytest.raises(PurchaseError):
        attempts.buy(run)
    assert attempts.obtain(replace(order(), attempt="run 1, retry 1")).job.final_video_url
    assert local.created == 2


def test_clear_of_a_running_attempt_leaves_the_job_to_the_next(attempts, local):
    old = attempts.next(order())
    job_id = attempts.buy(old).job.job_id
    assert attempts.obtain(order()).job.job_id == job_id
    # The old process lives on for a while: it may read and deliver, but it sends nothing that changes a job.
    with pytest.raises(AttemptSupersededError):
        attempts.buy(old)
    assert local.requests("DELETE") == 0
    assert local.created == 1
