# SPDX-License-Identifier: Apache-2.0
"""Buying through the whole flow, against the emulator: one order, one job, after any event in between.

The oracle is the emulator's journal, never what the client wrote down.
"""

import itertools
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest

from tests.core.local import Attempts, Killed, Local, ledger_store
from ugen_provider import (
    ConflictError,
    InsufficientCreditsError,
    JobFailedError,
    JobTimeoutError,
    PurchaseError,
    RateLimitError,
    TransportError,
)
from ugen_provider.core.api.client import call_endpoint
from ugen_provider.core.jobs.order import Order, PurchaseOutcome, product_key, task_key
from ugen_provider.core.jobs.policy import PurchasePolicy
from ugen_provider.core.jobs.sync.purchase import purchase_and_wait
from ugen_provider.core.ledger.errors import AttemptSupersededError
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.record import KeyOnlyStore
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.emulator.settings import Settings, TenantSettings

BODY = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.jpg", "segment_count": 2}
KEY = task_key(dag_id="d", run_id="r", task_id="t")


def order(key=KEY, body=BODY, **policy):
    return Order(key=key, body=body, policy=PurchasePolicy(**policy))


@pytest.fixture
def store(address):
    with Ledger.init(address, allow_ephemeral=True) as ledger:
        yield LedgerOrderStore(ledger)


@pytest.fixture
def attempts(client, store):
    return Attempts(client, store)


def test_one_order_is_bought_once_and_then_taken(attempts, local):
    first = attempts.obtain(order())
    again = attempts.obtain(order())
    assert (first.outcome, again.outcome) == (PurchaseOutcome.CREATED, PurchaseOutcome.REUSED)
    assert first.job.job_id == again.job.job_id
    assert "nothing was bought" in again.warnings[0]
    assert local.created == 1


def test_a_running_job_is_attached_to(attempts, local):
    first = attempts.buy(order())
    local.world.advance(30)
    again = attempts.buy(order())
    assert again.outcome is PurchaseOutcome.REATTACHED
    assert again.job.job_id == first.job.job_id
    assert attempts.obtain(order()).job.status == "completed"
    assert local.created == 1


def test_a_changed_request_is_reported_and_the_old_job_is_kept(attempts, local):
    first = attempts.obtain(order())
    again = attempts.obtain(order(body={**BODY, "segment_count": 3}))
    assert again.job.job_id == first.job.job_id
    assert again.request_changed
    assert "regenerate" in again.warnings[0]
    assert local.created == 1


def test_an_answer_that_was_lost_costs_nothing(attempts, local):
    def lose(request, answer):
        answer()
        raise httpx.ReadTimeout("lost")

    local.transport.meddle = lose
    with pytest.raises(TransportError):
        attempts.buy(order())
    local.transport.meddle = lambda _, answer: answer()
    assert attempts.obtain(order(body={**BODY, "segment_count": 3})).request_changed
    assert local.created == 1


def test_each_regenerate_value_buys_once(attempts, local):
    jobs = [attempts.obtain(order(regenerate=value)).job.job_id for value in (None, "a", "a", "b", "a", None)]
    assert len(set(jobs)) == 3
    assert jobs[3] == jobs[4] == jobs[5]
    assert local.created == 3


def test_regenerate_ends_a_live_job_first(attempts, local):
    first = attempts.buy(order())
    second = attempts.buy(order(regenerate="again"))
    assert first.job.job_id != second.job.job_id
    statuses = {p.job_id: attempts.client.jobs.get(p.job_id).status for p in local.world.journal.purchases}
    assert statuses[first.job.job_id] == "cancelled"
    assert second.record.earlier == (first.job.job_id,)


def test_a_failure_is_retried_twice_at_its_stage_then_reported(attempts, local):
    local.outcome(product_name="Lamp", fail_at="audio", times=None)
    for tries in range(3):
        with pytest.raises(JobFailedError) as caught:
            attempts.obtain(order())
        assert caught.value.retryable
        assert (local.created, local.retried) == (1, tries)
    with pytest.raises(PurchaseError, match="regenerate") as caught:
        attempts.obtain(order())
    assert caught.value.reason == "stage_retries_used_up"
    assert (local.created, local.retried) == (1, 2)


def test_a_failure_that_a_stage_retry_repairs(attempts, local):
    local.outcome(product_name="Lamp", fail_at="audio", times=1)
    with pytest.raises(JobFailedError):
        attempts.obtain(order())
    repaired = attempts.obtain(order())
    assert (repaired.outcome, repaired.job.status) == (PurchaseOutcome.STAGE_RETRIED, "completed")
    assert (local.created, local.retried) == (1, 1)


def test_moderation_stays_final_until_the_request_changes(attempts, local):
    local.outcome(product_name="Lamp", fail_at="agents", kind="moderation", times=1)
    with pytest.raises(JobFailedError) as failed:
        attempts.obtain(order())
    assert not failed.value.retryable
    for _ in range(2):
        with pytest.raises(PurchaseError, match="change the request"):
            attempts.obtain(order())
    assert attempts.obtain(order(body={**BODY, "segment_count": 1})).job.status == "completed"
    assert (local.created, local.retried) == (2, 0)


def test_a_definite_refusal_lets_the_request_change(attempts, local):
    books = local.world.accounts.by_name["local"].credits
    rich, books.balance = books.balance, 1
    for _ in range(2):
        with pytest.raises(InsufficientCreditsError):
            attempts.buy(order())
    books.balance = rich
    cheaper = attempts.obtain(order(body={**BODY, "segment_count": 1}))
    assert cheaper.record.purchase_number == 0  # the same key: nothing was bought under it
    assert not cheaper.request_changed
    assert local.created == 1


def test_after_our_own_kill_the_next_purchase_follows_at_once(attempts, local):
    attempts.buy(order())
    assert attempts.cancel(order()).confirmed
    second = attempts.obtain(order())
    assert second.record.purchase_number == 1
    assert second.job.status == "completed"
    assert local.created == 2


@pytest.mark.parametrize("reason", ["rejected", "expired", "over_max_credits", "operator", "cli"])
def test_a_deliberate_cancel_stays_one_until_regenerate(attempts, local, reason):
    attempts.buy(order())
    attempts.cancel(order(), reason=reason)
    with pytest.raises(PurchaseError, match=reason):
        attempts.obtain(order())
    assert attempts.obtain(order(regenerate="yes")).job.status == "completed"
    assert local.created == 2


def test_another_users_cancel_is_reported(attempts, local):
    attempts.client.jobs.cancel(attempts.buy(order()).job.job_id)
    with pytest.raises(PurchaseError, match="another user cancelled"):
        attempts.obtain(order())
    assert local.created == 1


def test_an_unsent_cancel_is_sent_by_the_attempt_that_follows(attempts, local):
    first = attempts.buy(order())

    def refuse(request, answer):
        if request.method == "DELETE":
            raise httpx.ConnectError("no network")
        return answer()

    local.transport.meddle = refuse
    with pytest.raises(TransportError):
        attempts.cancel(order())
    local.transport.meddle = lambda _, answer: answer()
    second = attempts.obtain(order())
    assert second.job.job_id != first.job.job_id
    assert attempts.client.jobs.get(first.job.job_id).status == "cancelled"
    assert local.created == 2


def test_a_result_that_came_before_the_cancel_is_delivered(attempts, local):
    attempts.buy(order())
    local.world.advance(10_000)
    assert not attempts.cancel(order()).confirmed
    assert attempts.obtain(order()).outcome is PurchaseOutcome.REUSED
    assert local.requests("DELETE") == 0


def test_purchase_killed_while_it_waits_stops_and_the_next_buys(attempts, local):
    job_id = attempts.buy(order()).job.job_id

    def meddle(request, answer):
        if request.method == "GET" and local.world.now() > start + 30 and local.created == 1:
            local.transport.meddle = lambda _, answer: answer()
            attempts.cancel(order())  # another process ends the attempt that waits; it lives for some seconds more
        return answer()

    start = local.world.now()
    local.transport.meddle = meddle
    with pytest.raises(PurchaseError) as caught:
        attempts.obtain(order())
    assert caught.value.reason == "attempt_ended"
    assert local.created == 1
    delivered = attempts.obtain(order())
    assert delivered.job.job_id != job_id
    assert delivered.job.status == "completed"
    assert local.created == 2


def test_zombie_attempt_after_its_successor_was_killed_stops(attempts, local):
    zombie = attempts.next(order())
    attempts.buy(zombie)
    successor = attempts.next(order())
    attempts.buy(successor)
    attempts.cancel(order())
    with pytest.raises(AttemptSupersededError) as caught:
        attempts.obtain(zombie)
    assert caught.value.newest == successor.attempt
    assert local.created == 1


def test_a_pause_on_interrupt_is_resumed_by_the_next_attempt(attempts, local):
    job_id = attempts.buy(order()).job.job_id
    local.world.advance(10)
    attempts.pause(order())
    local.world.advance(600)
    assert attempts.client.jobs.get(job_id).status == "paused"
    delivered = attempts.obtain(order())
    assert (delivered.outcome, delivered.job.job_id, delivered.job.status) == (
        PurchaseOutcome.RESUMED,
        job_id,
        "completed",
    )


def test_an_interrupt_never_hides_a_cancel(attempts, local):
    job_id = attempts.buy(order()).job.job_id
    local.world.advance(10)
    attempts.cancel(order())
    attempts.pause(order())
    assert attempts.obtain(order()).job.job_id != job_id
    assert local.created == 2


def test_a_cancel_of_a_failed_job_spares_its_stage_retry(attempts, local):
    local.outcome(product_name="Lamp", fail_at="audio", times=1)
    with pytest.raises(JobFailedError):
        attempts.obtain(order())
    job_id = attempts.buy(order()).job.job_id
    local.world.advance(3600)
    local.outcome(product_name="Lamp", fail_at="captions", times=1)
    failed = attempts.client.jobs.retry(job_id)
    local.world.advance(3600)
    assert attempts.client.jobs.get(failed.job_id).status == "failed"
    attempts.cancel(order())
    delivered = attempts.obtain(order())
    assert (delivered.job.job_id, delivered.job.status) == (job_id, "completed")
    assert local.requests("DELETE") == 0


def test_another_users_pause_is_waited_through_or_reported(attempts, local):
    job_id = attempts.buy(order()).job.job_id
    local.world.advance(10)
    attempts.client.jobs.pause(job_id)
    local.world.advance(600)
    with pytest.raises(PurchaseError, match="resume"):
        attempts.obtain(order(on_paused="fail"))
    with pytest.raises(JobTimeoutError):
        attempts.obtain(order(), timeout=60)
    assert local.created == 1


def test_a_job_stopped_at_its_gate_is_handed_over_paused(attempts, local):
    gated = order(body={**BODY, "stop_at_stage": "init"})
    first = attempts.obtain(gated)
    assert (first.job.status, first.job.current_stage) == ("paused", "init")
    again = attempts.obtain(gated)
    assert again.outcome is PurchaseOutcome.AWAITING_APPROVAL
    assert local.requests("POST") == 1


@pytest.mark.parametrize("spending", ["reuse_only", "off"])
def test_without_leave_to_spend_nothing_is_sent(attempts, local, spending):
    with pytest.raises(PurchaseError, match="spending"):
        attempts.obtain(order(spending=spending))
    assert local.requests("POST") == 0


def test_reuse_only_takes_and_waits_for_what_exists(attempts, local):
    attempts.buy(order())
    assert attempts.obtain(order(spending="reuse_only")).job.status == "completed"
    with pytest.raises(PurchaseError, match="off"):
        attempts.obtain(order(spending="off"))


def test_reuse_only_refuses_retry_resume_and_regenerate(attempts, local):
    local.outcome(product_name="Lamp", fail_at="audio")
    with pytest.raises(JobFailedError):
        attempts.obtain(order())
    for policy in ({}, {"regenerate": "x"}, {"on_earlier_failure": "resubmit"}):
        with pytest.raises(PurchaseError, match="spending is reuse_only"):
            attempts.obtain(order(spending="reuse_only", **policy))
    assert (local.created, local.retried) == (1, 0)


def test_more_than_max_credits_is_never_bought(attempts, local):
    with pytest.raises(PurchaseError, match="max_credits is 5"):
        attempts.obtain(order(max_credits=5))
    assert local.created == 0
    assert attempts.obtain(order(max_credits=500)).job.status == "completed"


def test_a_reservation_above_max_credits_is_cancelled(attempts, local):
    local.transport.meddle = lambda request, answer: (
        httpx.Response(404, json={}) if request.path.endswith("/estimate") else answer()
    )
    with pytest.raises(PurchaseError, match="it was cancelled"):
        attempts.obtain(order(max_credits=5))
    (purchase_,) = local.world.journal.purchases
    assert attempts.client.jobs.get(purchase_.job_id).status == "cancelled"
    with pytest.raises(PurchaseError, match="over_max_credits"):
        attempts.obtain(order(max_credits=5))
    assert local.created == 1


def test_an_unknown_job_is_awaited_ten_minutes_then_fails(attempts, local):
    attempts.store.write(replace(attempts.buy(order()).record, job_id="550e8400-e29b-41d4-a716-446655440000"))
    began = local.world.now()
    for waited in (600, 0):
        with pytest.raises(PurchaseError, match="another account") as caught:
            attempts.obtain(order())
        assert caught.value.reason == "job_not_found"
        assert caught.value.retryable
        assert local.world.now() - began == pytest.approx(waited, abs=30)
        began = local.world.now()
    assert local.created == 1


def test_purchase_with_a_job_that_is_missing_once_reuses_it(attempts, local):
    attempts.buy(order())
    missing = [httpx.Response(404, json={"error": {"code": "NOT_FOUND", "message": "no such job"}})]
    local.transport.meddle = lambda request, answer: missing.pop() if missing else answer()
    assert attempts.obtain(order()).job.status == "completed"
    assert local.created == 1


def test_records_of_two_orders_are_apart(attempts, local):
    attempts.buy(order())
    attempts.buy(order(task_key(dag_id="d", run_id="r2", task_id="t")))
    assert local.created == 2


def test_a_key_with_another_request_is_never_bought_past(attempts, local):
    key = KEY.idempotency_key(0, fingerprint="")
    call_endpoint(attempts.client, _create({**BODY, "segment_count": 9, "idempotency_key": key}))
    found = attempts.buy(order())
    assert found.job.idempotency_key == key
    assert local.created == 1


def _create(body):
    from ugen_provider.core.api import endpoints

    return endpoints.create_job(body)


def test_an_old_intent_is_looked_up_before_it_is_sent_again(attempts, local):
    def lose(request, answer):
        answer()
        raise httpx.ReadTimeout("lost")

    local.transport.meddle = lose
    with pytest.raises(TransportError):
        attempts.buy(order())
    local.transport.meddle = lambda _, answer: answer()
    local.world.advance(48 * 3600)
    assert attempts.obtain(order()).job.status == "completed"
    assert local.created == 1


def test_an_old_intent_that_cannot_be_decided_is_reported(attempts, local):
    def lose(request, answer):
        answer()
        raise httpx.ReadTimeout("lost")

    local.transport.meddle = lose
    with pytest.raises(TransportError):
        attempts.buy(order())
    local.world.advance(48 * 3600)

    def hide_keys(request, answer):
        response = answer()
        if request.method == "GET" and request.path.endswith("/jobs"):
            body = response.json()
            for item in body["items"]:
                item.pop("idempotency_key", None)
            return httpx.Response(200, json=body)
        return response

    local.transport.meddle = hide_keys
    with pytest.raises(PurchaseError, match="ledger settle") as caught:
        attempts.buy(order())
    assert caught.value.reason == "undecidable"
    assert local.created == 1


def test_a_product_that_changed_back_finds_its_old_video(attempts, local):
    key = product_key(catalogue="shop", product_id="p1")
    one, two = order(key), order(key, body={**BODY, "product_name": "Lamp II"})
    jobs = [attempts.obtain(what).job.job_id for what in (one, two, one)]
    assert jobs[0] == jobs[2] != jobs[1]
    assert local.created == 2


class TestLimits:
    @pytest.fixture
    def local(self, readings):
        return Local(Settings(speed=0, admin=True, tenants=(TenantSettings(concurrent_jobs=1),)))

    def test_a_full_account_is_waited_for_and_then_bought_from_once(self, attempts, local):
        attempts.client.jobs.create(_job())
        waited = attempts.obtain(order())
        assert waited.job.status == "completed"
        assert local.created == 2

    def test_the_wait_for_a_slot_can_be_bounded(self, attempts, local):
        local.outcome(product_name="First", slow=1000)
        attempts.client.jobs.create(_job())
        with pytest.raises(RateLimitError):
            attempts.obtain(order(), queue_timeout=600)
        assert local.created == 1


def _job():
    from ugen_provider import CreateJob

    return CreateJob(product_name="First", product_image_url="https://shop.example/f.jpg", segment_count=1)


# Without a store the key alone protects.


class TestWithoutAStore:
    @pytest.fixture
    def store(self):
        return KeyOnlyStore()

    def test_the_key_finds_the_job_again(self, attempts, local):
        assert attempts.obtain(order()).job.job_id == attempts.obtain(order()).job.job_id
        assert local.created == 1

    def test_a_cancelled_generation_is_stepped_over(self, attempts, local):
        attempts.client.jobs.cancel(attempts.buy(order()).job.job_id)
        assert attempts.obtain(order()).job.status == "completed"
        assert attempts.obtain(order()).job.status == "completed"
        assert local.created == 2

    def test_stage_retries_are_counted_by_transactions(self, attempts, local):
        local.outcome(product_name="Lamp", fail_at="audio", times=None)
        for _ in range(3):
            with pytest.raises(JobFailedError):
                attempts.obtain(order())
        with pytest.raises(PurchaseError, match="stage retries"):
            attempts.obtain(order())
        assert (local.created, local.retried) == (1, 2)

    def test_generations_end_somewhere(self, attempts, local):
        for _ in range(5):
            attempts.client.jobs.cancel(attempts.buy(order()).job.job_id)
        with pytest.raises(PurchaseError, match="regenerate"):
            attempts.buy(order())
        assert attempts.obtain(order(regenerate="on purpose")).job.status == "completed"
        assert local.created == 6

    def test_a_changed_request_under_the_same_key_is_never_hidden(self, attempts, local):
        attempts.obtain(order())
        assert attempts.obtain(order(body={**BODY, "segment_count": 3})).job.status == "completed"
        assert local.created == 1


# The end of the world at every point.


def _points(make_local, what, prepare, folder):
    """How many contacts with the outside one undisturbed attempt has."""
    local = make_local()
    with local.client() as client:
        attempts = Attempts(client, ledger_store(folder))
        prepare(local, attempts)
        world = attempts.world()
        purchase_and_wait(world, attempts.next(what), interval=5)
        return len(world.points)


def _fresh():
    return Local(Settings(speed=0, admin=True))


def _nothing(local, attempts):
    pass


def _failed_before(local, attempts):
    local.outcome(product_name="Lamp", fail_at="audio", times=1)
    with pytest.raises(JobFailedError):
        attempts.obtain(order())


def _killed_before(local, attempts):
    attempts.buy(order())
    attempts.cancel(order())


def _cancel_not_sent(local, attempts):
    attempts.buy(order())

    def refuse(request, answer):
        if request.method == "DELETE":
            raise httpx.ConnectError("no network")
        return answer()

    local.transport.meddle = refuse
    with pytest.raises(TransportError):
        attempts.cancel(order())
    local.transport.meddle = lambda _, answer: answer()


def _paused_before(local, attempts):
    attempts.buy(order())
    local.world.advance(10)
    attempts.pause(order())
    local.world.advance(600)


WORLDS = {
    # prepare, the order, jobs that may be created in all, stage retries in all
    "nothing before": (_nothing, order(), 1, 0),
    "failed before": (_failed_before, order(), 1, 1),
    "failed before, resubmit": (_failed_before, order(on_earlier_failure="resubmit"), 2, 0),
    "killed before": (_killed_before, order(), 2, 0),
    "cancel not sent before": (_cancel_not_sent, order(), 2, 0),
    "paused before": (_paused_before, order(), 1, 0),
    "regenerated while it runs": (lambda local, attempts: attempts.buy(order()), order(regenerate="v"), 2, 0),
    "within a budget": (_nothing, order(max_credits=500), 1, 0),
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_purchase_killed_at_any_contact_costs_nothing_more(world, after, tmp_path):
    prepare, what, created, retried = WORLDS[world]
    total = _points(_fresh, what, prepare, tmp_path / "undisturbed")
    assert total >= 4
    for kill_at in range(1, total + 1):
        local = _fresh()
        with local.client() as client:
            attempts = Attempts(client, ledger_store(tmp_path / str(kill_at)))
            prepare(local, attempts)
            with pytest.raises(Killed):
                attempts.obtain(what, kill_at=kill_at, after=after)
            delivered = attempts.obtain(what)
            assert delivered.job.status == "completed", kill_at
            assert (local.created, local.retried) == (created, retried), kill_at
            active = [job for job in client.jobs.list() if not job.ended]
            assert active == [], kill_at


def test_purchase_killed_twice_costs_nothing_more(tmp_path):
    total = _points(_fresh, order(), _nothing, tmp_path / "undisturbed")
    for first, second in itertools.product(range(1, total + 1), repeat=2):
        local = _fresh()
        with local.client() as client:
            attempts = Attempts(client, ledger_store(tmp_path / f"{first}-{second}"))
            for kill_at in (first, second):
                with suppress(Killed):  # the second attempt may have fewer contacts
                    attempts.obtain(order(), kill_at=kill_at, after=kill_at % 2 == 0)
            assert attempts.obtain(order()).job.status == "completed"
            assert local.created == 1


def test_a_conflict_on_resume_is_reported(attempts, local):
    job_id = attempts.buy(order()).job.job_id
    with pytest.raises(ConflictError):
        attempts.client.jobs.resume(job_id)
