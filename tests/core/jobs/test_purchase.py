# SPDX-License-Identifier: Apache-2.0
"""Buying through the whole flow, against the emulator: one order, one job, whatever happens in between.

The oracle is the emulator's journal, never what the client wrote down.
"""

import itertools
from dataclasses import replace

import httpx
import pytest

from tests.core.local import Killed, Local, Stepper
from ugen_provider import (
    ConflictError,
    InsufficientCreditsError,
    JobFailedError,
    JobTimeoutError,
    PurchaseError,
    RateLimitError,
    TransportError,
)
from ugen_provider.core.jobs.buying import BuyingPolicy
from ugen_provider.core.jobs.cancelling import cancel, pause
from ugen_provider.core.jobs.intent import FileIntentStore, MemoryIntentStore, NoIntentStore
from ugen_provider.core.jobs.purchase import How, Order, obtain, purchase, waiting
from ugen_provider.core.jobs.scope import product_scope, task_scope
from ugen_provider.emulator.settings import Settings, TenantSettings

BODY = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.jpg", "segment_count": 2}
SCOPE = task_scope(dag_id="d", run_id="r", task_id="t")


def order(scope=SCOPE, body=BODY, **policy):
    return Order(scope=scope, body=body, policy=BuyingPolicy(**policy))


class Attempts:
    """Successive attempts at one order, as an orchestrator's retries are: only the store is left between them."""

    def __init__(self, client, store):
        self.client, self.store = client, store

    def buy(self, what=None):
        return self.client.run(purchase(self.client.caller, what or order(), store=self.store))

    def obtain(self, what=None, deadline=None, **more):
        what = what or order()
        wait = waiting(self.client.caller, what, interval=5, deadline=deadline)
        return self.client.run(obtain(self.client.caller, what, store=self.store, wait=wait, **more))

    def cancel(self, job_id, reason="kill", scope=None):
        flow = cancel(self.client.caller, job_id, reason=reason, store=self.store, scope=scope or order().intent_scope)
        return self.client.run(flow)


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    return MemoryIntentStore() if request.param == "memory" else FileIntentStore(tmp_path / "intents")


@pytest.fixture
def attempts(client, store):
    return Attempts(client, store)


def test_one_order_is_bought_once_and_then_taken(attempts, local):
    first = attempts.obtain()
    again = attempts.obtain()
    assert (first.how, again.how) == (How.SUBMITTED, How.TAKEN)
    assert first.job.job_id == again.job.job_id
    assert "nothing was bought" in again.notes[0]
    assert local.created == 1


def test_a_running_job_is_attached_to(attempts, local):
    first = attempts.buy()
    local.world.advance(30)
    again = attempts.buy()
    assert again.how is How.ATTACHED
    assert again.job.job_id == first.job.job_id
    assert attempts.obtain().job.status == "completed"
    assert local.created == 1


def test_a_changed_request_is_told_and_the_old_job_is_kept(attempts, local):
    first = attempts.obtain()
    again = attempts.obtain(order(body={**BODY, "segment_count": 3}))
    assert again.job.job_id == first.job.job_id
    assert again.request_changed
    assert "regenerate" in again.notes[0]
    assert local.created == 1


def test_an_answer_that_was_lost_costs_nothing(attempts, local):
    def lose(request, answer):
        answer()
        raise httpx.ReadTimeout("lost")

    local.transport.meddle = lose
    with pytest.raises(TransportError):
        attempts.buy()
    local.transport.meddle = lambda _, answer: answer()
    assert attempts.obtain(order(body={**BODY, "segment_count": 3})).request_changed
    assert local.created == 1


def test_each_regenerate_value_buys_once(attempts, local):
    jobs = [attempts.obtain(order(regenerate=value)).job.job_id for value in (None, "a", "a", "b", "a", None)]
    assert len(set(jobs)) == 3
    assert jobs[3] == jobs[4] == jobs[5]
    assert local.created == 3


def test_regenerate_ends_a_live_job_first(attempts, local):
    first = attempts.buy()
    second = attempts.buy(order(regenerate="again"))
    assert first.job.job_id != second.job.job_id
    statuses = {p.job_id: attempts.client.jobs.get(p.job_id).status for p in local.world.journal.purchases}
    assert statuses[first.job.job_id] == "cancelled"
    assert second.intent.earlier == (first.job.job_id,)


def test_a_failure_is_mended_at_its_stage_twice_and_then_told(attempts, local):
    local.outcome(product_name="Lamp", fail_at="audio", times=None)
    for tries in range(3):
        with pytest.raises(JobFailedError) as caught:
            attempts.obtain()
        assert caught.value.retryable
        assert (local.created, local.retried) == (1, tries)
    with pytest.raises(PurchaseError, match="regenerate") as caught:
        attempts.obtain()
    assert caught.value.reason == "stage_retries_used_up"
    assert (local.created, local.retried) == (1, 2)


def test_a_failure_that_a_stage_retry_mends(attempts, local):
    local.outcome(product_name="Lamp", fail_at="audio", times=1)
    with pytest.raises(JobFailedError):
        attempts.obtain()
    mended = attempts.obtain()
    assert (mended.how, mended.job.status) == (How.STAGE_RETRIED, "completed")
    assert (local.created, local.retried) == (1, 1)


def test_moderation_is_never_bought_again_until_the_request_changes(attempts, local):
    local.outcome(product_name="Lamp", fail_at="agents", kind="moderation", times=1)
    with pytest.raises(JobFailedError) as failed:
        attempts.obtain()
    assert not failed.value.retryable
    for _ in range(2):
        with pytest.raises(PurchaseError, match="change the request"):
            attempts.obtain()
    assert attempts.obtain(order(body={**BODY, "segment_count": 1})).job.status == "completed"
    assert (local.created, local.retried) == (2, 0)


def test_a_definite_refusal_lets_the_request_change(attempts, local):
    books = local.world.accounts.by_name["local"].books
    rich, books.balance = books.balance, 1
    for _ in range(2):
        with pytest.raises(InsufficientCreditsError):
            attempts.buy()
    books.balance = rich
    cheaper = attempts.obtain(order(body={**BODY, "segment_count": 1}))
    assert cheaper.intent.generation == 1
    assert not cheaper.request_changed
    assert local.created == 1


def test_after_our_own_kill_the_next_generation_is_bought_at_once(attempts, local):
    first = attempts.buy()
    assert attempts.cancel(first.job.job_id).confirmed
    second = attempts.obtain()
    assert second.intent.generation == 1
    assert second.job.status == "completed"
    assert local.created == 2


@pytest.mark.parametrize("reason", ["rejected", "expired", "over_max_credits", "operator", "cli"])
def test_a_deliberate_cancel_stays_one_until_regenerate(attempts, local, reason):
    attempts.cancel(attempts.buy().job.job_id, reason=reason)
    with pytest.raises(PurchaseError, match=reason):
        attempts.obtain()
    assert attempts.obtain(order(regenerate="yes")).job.status == "completed"
    assert local.created == 2


def test_somebody_elses_cancel_is_told(attempts, local):
    attempts.client.jobs.cancel(attempts.buy().job.job_id)
    with pytest.raises(PurchaseError, match="somebody cancelled"):
        attempts.obtain()
    assert local.created == 1


def test_a_cancel_that_could_not_be_sent_is_sent_by_whoever_comes_next(attempts, local):
    first = attempts.buy()

    def refuse(request, answer):
        if request.method == "DELETE":
            raise httpx.ConnectError("no network")
        return answer()

    local.transport.meddle = refuse
    with pytest.raises(TransportError):
        attempts.cancel(first.job.job_id)
    local.transport.meddle = lambda _, answer: answer()
    second = attempts.obtain()
    assert second.job.job_id != first.job.job_id
    assert attempts.client.jobs.get(first.job.job_id).status == "cancelled"
    assert local.created == 2


def test_a_result_that_came_before_the_cancel_is_delivered(attempts, local):
    first = attempts.buy()
    local.world.advance(10_000)
    assert not attempts.cancel(first.job.job_id).confirmed
    assert attempts.obtain().how is How.TAKEN
    assert local.requests("DELETE") == 0


def test_our_cancel_meets_an_attempt_that_had_attached(attempts, local):
    job_id = attempts.buy().job.job_id

    def meddle(request, answer):
        if request.method == "GET" and local.world.now() > start + 30 and local.created == 1:
            local.transport.meddle = lambda _, answer: answer()
            attempts.cancel(job_id)
        return answer()

    start = local.world.now()
    local.transport.meddle = meddle
    delivered = attempts.obtain()
    assert delivered.job.job_id != job_id
    assert delivered.job.status == "completed"
    assert local.created == 2


def test_a_pause_on_interrupt_is_resumed_by_the_next_attempt(attempts, local):
    job_id = attempts.buy().job.job_id
    local.world.advance(10)
    caller, scope = attempts.client.caller, order().intent_scope
    attempts.client.run(pause(caller, job_id, store=attempts.store, scope=scope))
    local.world.advance(600)
    assert attempts.client.jobs.get(job_id).status == "paused"
    delivered = attempts.obtain()
    assert (delivered.how, delivered.job.job_id, delivered.job.status) == (How.RESUMED, job_id, "completed")


def test_an_interrupt_never_hides_a_cancel(attempts, local):
    job_id = attempts.buy().job.job_id
    local.world.advance(10)
    attempts.cancel(job_id)
    caller, scope = attempts.client.caller, order().intent_scope
    attempts.client.run(pause(caller, job_id, store=attempts.store, scope=scope))
    assert attempts.obtain().job.job_id != job_id
    assert local.created == 2


def test_a_cancel_that_met_a_failed_job_does_not_hit_its_stage_retry(attempts, local):
    local.outcome(product_name="Lamp", fail_at="audio", times=1)
    with pytest.raises(JobFailedError):
        attempts.obtain()
    job_id = attempts.buy().job.job_id
    local.world.advance(3600)
    local.outcome(product_name="Lamp", fail_at="captions", times=1)
    failed = attempts.client.jobs.retry(job_id)
    local.world.advance(3600)
    assert attempts.client.jobs.get(failed.job_id).status == "failed"
    attempts.cancel(job_id)
    delivered = attempts.obtain()
    assert (delivered.job.job_id, delivered.job.status) == (job_id, "completed")
    assert local.requests("DELETE") == 0


def test_somebody_elses_pause_is_waited_through_or_told(attempts, local):
    job_id = attempts.buy().job.job_id
    local.world.advance(10)
    attempts.client.jobs.pause(job_id)
    local.world.advance(600)
    with pytest.raises(PurchaseError, match="resume"):
        attempts.obtain(order(on_paused="fail"))
    with pytest.raises(JobTimeoutError):
        attempts.obtain(deadline=local.world.now() + 60)
    assert local.created == 1


def test_a_job_that_stops_at_its_gate_is_handed_over_and_not_resumed(attempts, local):
    gated = order(body={**BODY, "stop_at_stage": "init"})
    first = attempts.obtain(gated)
    assert (first.job.status, first.job.current_stage) == ("paused", "init")
    again = attempts.obtain(gated)
    assert again.how is How.AT_THE_GATE
    assert local.requests("POST") == 1


@pytest.mark.parametrize("spending", ["attach_only", "off"])
def test_without_leave_to_spend_nothing_is_sent(attempts, local, spending):
    with pytest.raises(PurchaseError, match="spending"):
        attempts.obtain(order(spending=spending))
    assert local.requests("POST") == 0


def test_attach_only_takes_and_waits_for_what_exists(attempts, local):
    attempts.buy()
    assert attempts.obtain(order(spending="attach_only")).job.status == "completed"
    with pytest.raises(PurchaseError, match="off"):
        attempts.obtain(order(spending="off"))


def test_attach_only_refuses_retry_resume_and_regenerate(attempts, local):
    local.outcome(product_name="Lamp", fail_at="audio")
    with pytest.raises(JobFailedError):
        attempts.obtain()
    for policy in ({}, {"regenerate": "x"}, {"on_earlier_failure": "resubmit"}):
        with pytest.raises(PurchaseError, match="spending is attach_only"):
            attempts.obtain(order(spending="attach_only", **policy))
    assert (local.created, local.retried) == (1, 0)


def test_more_than_max_credits_is_never_bought(attempts, local):
    with pytest.raises(PurchaseError, match="max_credits is 5"):
        attempts.obtain(order(max_credits=5))
    assert local.created == 0
    assert attempts.obtain(order(max_credits=500)).job.status == "completed"


def test_a_reservation_above_max_credits_is_cancelled_where_no_estimate_warned(attempts, local):
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


def test_another_account_is_told_and_buys_nothing(attempts, local):
    first = attempts.buy()
    attempts.store.write(replace(first.intent, job_id="550e8400-e29b-41d4-a716-446655440000"))
    with pytest.raises(PurchaseError, match="another account"):
        attempts.obtain()
    assert local.created == 1


def test_an_intent_of_another_scope_counts_as_none(attempts, local):
    first = attempts.buy()
    other = task_scope(dag_id="d", run_id="r2", task_id="t")
    attempts.store.write(replace(first.intent, scope=str(other)))
    assert attempts.buy(order(scope=other)).job.job_id == first.job.job_id
    attempts.buy(order(scope=task_scope(dag_id="d", run_id="r3", task_id="t")))
    assert local.created == 2


def test_a_key_that_holds_another_request_is_found_or_told_never_bought_past(attempts, local):
    key = SCOPE.key(0, fingerprint="")
    attempts.client.run(attempts.client.caller.call(_create({**BODY, "segment_count": 9, "idempotency_key": key})))
    found = attempts.buy()
    assert found.job.idempotency_key == key
    assert local.created == 1


def _create(body):
    from ugen_provider.core.api import operations

    return operations.create_job(body)


def test_an_old_intent_is_looked_up_before_it_is_sent_again(attempts, local):
    def lose(request, answer):
        answer()
        raise httpx.ReadTimeout("lost")

    local.transport.meddle = lose
    with pytest.raises(TransportError):
        attempts.buy()
    local.transport.meddle = lambda _, answer: answer()
    local.world.advance(48 * 3600)
    assert attempts.obtain().job.status == "completed"
    assert local.created == 1


def test_an_old_intent_that_cannot_be_decided_is_told(attempts, local):
    def lose(request, answer):
        answer()
        raise httpx.ReadTimeout("lost")

    local.transport.meddle = lose
    with pytest.raises(TransportError):
        attempts.buy()
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
    with pytest.raises(PurchaseError, match="regenerate") as caught:
        attempts.buy()
    assert caught.value.reason == "undecidable"
    assert local.created == 1


def test_a_product_that_changed_back_finds_its_old_video(attempts, local):
    scope = product_scope(catalogue="shop", product_id="p1")
    one, two = order(scope), order(scope, body={**BODY, "product_name": "Lamp II"})
    jobs = [attempts.obtain(what).job.job_id for what in (one, two, one)]
    assert jobs[0] == jobs[2] != jobs[1]
    assert local.created == 2


class TestLimits:
    @pytest.fixture
    def local(self, readings):
        return Local(Settings(speed=0, admin=True, tenants=(TenantSettings(concurrent_jobs=1),)))

    def test_a_full_account_is_waited_for_and_then_bought_from_once(self, attempts, local):
        attempts.client.jobs.create(_job())
        waited = attempts.obtain()
        assert waited.job.status == "completed"
        assert local.created == 2

    def test_the_wait_for_a_slot_can_be_bounded(self, attempts, local):
        local.outcome(product_name="First", slow=1000)
        attempts.client.jobs.create(_job())
        with pytest.raises(RateLimitError):
            attempts.obtain(slot_timeout=600)
        assert local.created == 1


def _job():
    from ugen_provider import CreateJob

    return CreateJob(product_name="First", product_image_url="https://shop.example/f.jpg", segment_count=1)


# Without a store the key alone protects.


class TestWithoutAStore:
    @pytest.fixture
    def store(self):
        return NoIntentStore()

    def test_the_key_finds_the_job_again(self, attempts, local):
        assert attempts.obtain().job.job_id == attempts.obtain().job.job_id
        assert local.created == 1

    def test_a_cancelled_generation_is_stepped_over(self, attempts, local):
        attempts.client.jobs.cancel(attempts.buy().job.job_id)
        assert attempts.obtain().job.status == "completed"
        assert attempts.obtain().job.status == "completed"
        assert local.created == 2

    def test_stage_retries_are_counted_by_transactions(self, attempts, local):
        local.outcome(product_name="Lamp", fail_at="audio", times=None)
        for _ in range(3):
            with pytest.raises(JobFailedError):
                attempts.obtain()
        with pytest.raises(PurchaseError, match="stage retries"):
            attempts.obtain()
        assert (local.created, local.retried) == (1, 2)

    def test_generations_end_somewhere(self, attempts, local):
        for _ in range(5):
            attempts.client.jobs.cancel(attempts.buy().job.job_id)
        with pytest.raises(PurchaseError, match="regenerate"):
            attempts.buy()
        assert attempts.obtain(order(regenerate="on purpose")).job.status == "completed"
        assert local.created == 6

    def test_a_changed_request_under_the_same_key_is_found_or_told(self, attempts, local):
        attempts.obtain()
        assert attempts.obtain(order(body={**BODY, "segment_count": 3})).job.status == "completed"
        assert local.created == 1


# The end of the world at every point.


def _points(make_local, what, prepare):
    """How many contacts with the world one undisturbed attempt has."""
    local = make_local()
    with local.client() as client:
        attempts = Attempts(client, MemoryIntentStore())
        prepare(local, attempts)
        stepper = Stepper(client)
        stepper.run(_whole(attempts, what))
        return len(stepper.points)


def _whole(attempts, what):
    wait = waiting(attempts.client.caller, what, interval=5)
    return obtain(attempts.client.caller, what, store=attempts.store, wait=wait)


def _fresh():
    return Local(Settings(speed=0, admin=True))


def _nothing(local, attempts):
    pass


def _failed_before(local, attempts):
    local.outcome(product_name="Lamp", fail_at="audio", times=1)
    with pytest.raises(JobFailedError):
        attempts.obtain()


def _killed_before(local, attempts):
    attempts.cancel(attempts.buy().job.job_id)


def _cancel_not_sent(local, attempts):
    job_id = attempts.buy().job.job_id

    def refuse(request, answer):
        if request.method == "DELETE":
            raise httpx.ConnectError("no network")
        return answer()

    local.transport.meddle = refuse
    with pytest.raises(TransportError):
        attempts.cancel(job_id)
    local.transport.meddle = lambda _, answer: answer()


def _paused_before(local, attempts):
    job_id = attempts.buy().job.job_id
    local.world.advance(10)
    scope = order().intent_scope
    attempts.client.run(pause(attempts.client.caller, job_id, store=attempts.store, scope=scope))
    local.world.advance(600)


WORLDS = {
    # prepare, the order, jobs that may be created in all, stage retries in all
    "nothing before": (_nothing, order(), 1, 0),
    "failed before": (_failed_before, order(), 1, 1),
    "failed before, resubmit": (_failed_before, order(on_earlier_failure="resubmit"), 2, 0),
    "killed before": (_killed_before, order(), 2, 0),
    "cancel not sent before": (_cancel_not_sent, order(), 2, 0),
    "paused before": (_paused_before, order(), 1, 0),
    "regenerated while it runs": (lambda local, attempts: attempts.buy(), order(regenerate="v"), 2, 0),
    "within a budget": (_nothing, order(max_credits=500), 1, 0),
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_process_that_ends_at_any_point_costs_nothing_further(world, after):
    prepare, what, created, retried = WORLDS[world]
    total = _points(_fresh, what, prepare)
    assert total >= 4
    # Waiting repeats itself: the points of buying and the first looks stand for the rest.
    for kill_at in range(1, min(total, 40) + 1):
        local = _fresh()
        with local.client() as client:
            attempts = Attempts(client, MemoryIntentStore())
            prepare(local, attempts)
            with pytest.raises(Killed):
                Stepper(client).run(_whole(attempts, what), kill_at=kill_at, after=after)
            delivered = client.run(_whole(attempts, what))
            assert delivered.job.status == "completed", kill_at
            assert (local.created, local.retried) == (created, retried), kill_at
            active = [job for job in client.jobs.list() if not job.ended]
            assert active == [], kill_at


def test_two_kills_in_a_row_at_all_pairs_of_the_first_points():
    for first, second in itertools.product(range(1, 9), repeat=2):
        local = _fresh()
        with local.client() as client:
            attempts = Attempts(client, MemoryIntentStore())
            for kill_at in (first, second):
                with pytest.raises(Killed):
                    Stepper(client).run(_whole(attempts, order()), kill_at=kill_at, after=kill_at % 2 == 0)
            assert client.run(_whole(attempts, order())).job.status == "completed"
            assert local.created == 1


def test_a_conflict_on_resume_is_told(attempts, local):
    job_id = attempts.buy().job.job_id
    with pytest.raises(ConflictError):
        attempts.client.jobs.resume(job_id)
