# SPDX-License-Identifier: Apache-2.0
"""What hurts most: the few misfortunes after which a careless client pays again. Each from every side.

`HELD` says where each row is held; what is not held elsewhere is in this file. Where two do something at once, one of
them is run at every single point of the other. The oracle is the emulator's journal and books.
"""

import contextlib
import importlib
import random

import httpx
import pytest

from tests.core.jobs.test_purchase import BODY, Attempts, order
from tests.core.local import Killed, Local, Stepper
from tests.torture.test_core import FIRST, RUNS
from ugen_provider import JobError, PurchaseError, RetryPolicy, TransportError, UGenError
from ugen_provider.core.jobs.cancelling import cancel
from ugen_provider.core.jobs.intent import MemoryIntentStore
from ugen_provider.core.jobs.purchase import obtain, waiting
from ugen_provider.core.jobs.scope import product_scope
from ugen_provider.emulator.settings import Settings, TenantSettings

HELD = {
    "the key window passed": [
        "tests.torture.test_what_hurts:test_a_lost_answer_that_is_asked_for_after_the_keys_are_forgotten",
        "tests.core.jobs.test_purchase:test_an_old_intent_is_looked_up_before_it_is_sent_again",
        "tests.core.jobs.test_purchase:test_an_old_intent_that_cannot_be_decided_is_told",
    ],
    "the task state store lost": ["tests.torture.test_what_hurts:test_the_store_is_lost_whenever_it_likes"],
    "the ledger lost": [
        "tests.batch.test_around:test_a_ledger_that_was_lost_is_restored_from_the_feed_and_the_account",
        "tests.batch.test_lost_ledger:test_a_lost_ledger_without_a_repair_costs_nothing_while_keys_are_known",
    ],
    "a request that renders differently on retry": [
        "tests.torture.test_what_hurts:test_a_request_that_is_another_at_each_attempt",
        "tests.airflow.test_create:TestBuying.test_a_changed_request_takes_the_bought_job_and_says_so",
    ],
    "the account swapped": [
        "tests.torture.test_what_hurts:test_the_account_is_swapped_and_swapped_back",
        "tests.core.jobs.test_purchase:test_another_account_is_told_and_buys_nothing",
    ],
    "a newer version with another default mapping": [
        "tests.batch.test_runs:test_a_better_default_mapping_in_a_new_version_buys_nothing_by_itself",
        "tests.feeds.test_mapping:test_a_default_mapping_of_a_known_version_never_changes",
        "tests.core.jobs.test_scope_and_fingerprint:test_fingerprints_of_scheme_1_never_change_between_versions",
    ],
    "two DAGs on one product": ["tests.torture.test_what_hurts:test_two_who_order_one_product"],
    "a clear while the trigger's cancel is under way": [
        "tests.torture.test_what_hurts:test_a_new_attempt_at_every_point_of_the_old_ones_cancel",
        "tests.torture.test_what_hurts:test_the_old_ones_cancel_at_every_point_of_a_new_attempt",
        "tests.real.airflow.test_cancelling:test_marked_failed_and_cleared_at_once_never_pays_for_two",
    ],
    "an approval of a picture that was made again": [
        "tests.core.jobs.test_gate:test_a_picture_that_was_made_again_is_not_paid_for",
        "tests.dagster.test_gate:test_an_approval_older_than_the_look_is_none",
    ],
}
SEEDS = range(FIRST, FIRST + max(5, RUNS // 10))


@pytest.mark.parametrize("place", [place for places in HELD.values() for place in places])
def test_the_index_names_tests_that_are_there(place):
    module, _, name = place.partition(":")
    found = importlib.import_module(module)
    *_, last = name.split(".")
    holders = [found, *(value for value in vars(found).values() if isinstance(value, type))]
    assert any(callable(getattr(holder, last, None)) for holder in holders)


def fresh(**settings):
    return Local(Settings(speed=0, admin=True, **settings))


def whole(attempts, what):
    wait = waiting(attempts.client.caller, what, interval=5)
    return obtain(attempts.client.caller, what, store=attempts.store, wait=wait)


def settled(local):
    """Nothing is left running or reserved, however long one waits."""
    local.transport.meddle = lambda _, answer: answer()
    local.world.advance(7200)
    with local.client() as client:
        assert [job.job_id for job in client.jobs.list() if not job.ended] == []
        balance = client.credits.balance()
    assert balance.available_credits == balance.credit_balance


def lose_answers(local):
    def meddle(request, answer):
        answer()
        raise httpx.ReadTimeout("lost")

    local.transport.meddle = meddle


def well(local):
    local.transport.meddle = lambda _, answer: answer()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lost_answer_that_is_asked_for_after_the_keys_are_forgotten(seed):
    draw = random.Random(seed)
    local = fresh()
    with local.client(retries=RetryPolicy(attempts=1)) as client:
        attempts = Attempts(client, MemoryIntentStore())
        lose_answers(local)
        with pytest.raises(TransportError):
            attempts.buy()
        well(local)
        # Longer than the service remembers keys, which a second POST would then turn into a second job.
        local.world.advance(draw.uniform(24.5, 24 * 30) * 3600)
        assert attempts.obtain().job.final_video_url
    assert (local.created, local.requests("POST", "/api/v1/jobs")) == (1, 1)
    settled(local)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_store_is_lost_whenever_it_likes(seed):
    """Before and after the job is known, while it runs, once it has ended or failed: the key finds it again."""
    draw = random.Random(seed)
    local = fresh()
    if draw.random() < 0.4:
        local.outcome(product_name="Lamp", fail_at=draw.choice(["init", "generation", "audio"]), times=1)
    with local.client() as client:
        for _ in range(12):
            attempts = Attempts(client, MemoryIntentStore())
            kill_at = draw.randint(1, 12) if draw.random() < 0.7 else None
            try:
                Stepper(client).run(whole(attempts, order()), kill_at=kill_at, after=draw.random() < 0.5)
                break
            except (Killed, JobError):
                local.world.advance(draw.choice([0, 5, 60, 900]))
        delivered = Attempts(client, MemoryIntentStore()).obtain()
    assert delivered.job.final_video_url
    assert local.created == 1
    assert local.retried <= 2
    settled(local)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_request_that_is_another_at_each_attempt(seed):
    """As a template with the time of day in it renders: the first body that was sent is the order."""
    draw = random.Random(seed)
    local = fresh()
    with local.client(retries=RetryPolicy(attempts=2)) as client:
        attempts = Attempts(client, MemoryIntentStore())
        delivered = None
        for number in range(20):
            what = order(body={**BODY, "product_name": f"Lamp at {number}", "segment_count": draw.randint(1, 3)})
            if draw.random() < 0.4:
                lose_answers(local)
            try:
                kill_at = draw.randint(1, 14) if draw.random() < 0.6 else None
                delivered = Stepper(client).run(whole(attempts, what), kill_at=kill_at)
            except (Killed, TransportError):
                well(local)
                local.world.advance(draw.choice([0, 20, 400]))
                continue
            break
        well(local)
        delivered = delivered or attempts.obtain(what)
    assert delivered.job.final_video_url
    assert local.created == 1
    settled(local)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_account_is_swapped_and_swapped_back(seed):
    draw = random.Random(seed)
    local = fresh(tenants=(TenantSettings(), TenantSettings(name="other", api_keys=("ugen_sk_other",))))
    store = MemoryIntentStore()
    with local.client() as mine, local.client(api_key="ugen_sk_other") as theirs:
        Stepper(mine)
        first = Attempts(mine, store)
        job_id = first.buy().job.job_id
        local.world.advance(draw.choice([0, 60, 3600]))
        for _ in range(draw.randint(1, 3)):
            with pytest.raises(PurchaseError, match="another account"):
                Attempts(theirs, store).obtain()
        assert first.obtain().job.job_id == job_id
    assert local.created == 1
    assert local.world.accounts.by_name["other"].books.reserved == 0
    settled(local)


class Meeting(Stepper):
    """Runs a flow, and at its nth contact with the world, before or after it, lets something else happen."""

    def run_with(self, flow, *, at, after, happens):
        driver = self._client._driver
        original, count = driver.perform, 0

        def perform(effect):
            nonlocal count
            count += 1
            if count == at and not after:
                driver.perform = original
                happens()
                driver.perform = perform
            answer = original(effect)
            if count == at and after:
                driver.perform = original
                happens()
                driver.perform = perform
            return answer

        driver.perform = perform
        try:
            return self._client.run(flow), count >= at
        finally:
            driver.perform = original


POINTS = range(1, 16)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", POINTS)
@pytest.mark.parametrize("stores", ["one store", "two stores"])
def test_two_who_order_one_product(at, after, stores):
    """The second orders, waits and takes its video while the first stands at some point."""
    local = fresh()
    what = order(scope=product_scope(catalogue="shop", product_id="p1"))
    shared = MemoryIntentStore()
    with local.client() as one, local.client() as two:
        first = Attempts(one, shared)
        second = Attempts(two, shared if stores == "one store" else MemoryIntentStore())
        others = []
        delivered, met = Meeting(one).run_with(
            whole(first, what), at=at, after=after, happens=lambda: others.append(second.obtain(what))
        )
    assert delivered.job.final_video_url
    assert not met or others[0].job.job_id == delivered.job.job_id
    assert local.created == 1
    settled(local)


def clear_and_cancel(cancel_meets, at, after):
    """An attempt that runs a job, a cancel of it, and a next attempt: one of them meets the other on its way."""
    local = fresh()
    store = MemoryIntentStore()
    with local.client() as one, local.client() as two:
        old, new = Attempts(one, store), Attempts(two, store)
        job_id = old.buy().job.job_id
        local.world.advance(30)
        delivered = []

        def kill():
            flow = cancel(one.caller, job_id, reason="kill", store=store, scope=order().intent_scope)
            with contextlib.suppress(UGenError):
                one.run(flow)

        def attempt():
            delivered.append(new.obtain())

        if cancel_meets:
            flow = cancel(one.caller, job_id, reason="kill", store=store, scope=order().intent_scope)
            Meeting(one).run_with(flow, at=at, after=after, happens=attempt)
        else:
            outcome, _ = Meeting(two).run_with(whole(new, order()), at=at, after=after, happens=kill)
            delivered.append(outcome)
        if not delivered:
            attempt()
        # What was delivered is what a further attempt takes, and nothing more is bought.
        before = local.created
        again = new.obtain()
        assert again.job.job_id == delivered[-1].job.job_id
        assert local.created == before
        jobs = {job.job_id: job for job in two.jobs.list()}
    assert delivered[-1].job.final_video_url
    assert local.created <= 2
    # A second one was bought only because the first was cancelled by us.
    assert local.created == 1 or jobs[job_id].status == "cancelled"
    settled(local)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 9))
def test_a_new_attempt_at_every_point_of_the_old_ones_cancel(at, after):
    clear_and_cancel(cancel_meets=True, at=at, after=after)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", POINTS)
def test_the_old_ones_cancel_at_every_point_of_a_new_attempt(at, after):
    clear_and_cancel(cancel_meets=False, at=at, after=after)
