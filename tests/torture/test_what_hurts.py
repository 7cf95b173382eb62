# SPDX-License-Identifier: Apache-2.0
"""The worst cases: the few misfortunes after which a careless client pays again. Each from every side.

`HELD` says where each row is held; what is not held elsewhere is in this file. Where two do something at once, one of
them is run at every single point of the other. The oracle is the emulator's journal and books.
"""

import contextlib
import importlib
import random

import httpx
import pytest

from tests.core.jobs.test_purchase import BODY, order
from tests.core.local import Attempts, Killed, Local, SteppedWorld, ledger_store
from tests.torture.test_core import FIRST, RUNS
from ugen_provider import JobError, PurchaseError, RetryPolicy, TransportError, UGenError
from ugen_provider.core.jobs.order import product_key
from ugen_provider.core.jobs.sync.actions import cancel_order
from ugen_provider.core.jobs.sync.purchase import purchase_and_wait
from ugen_provider.core.ledger.errors import AttemptSupersededError
from ugen_provider.emulator.settings import Settings, TenantSettings

HELD = {
    "the key window passed": [
        "tests.torture.test_what_hurts:test_a_lost_answer_asked_for_after_the_key_window",
        "tests.core.jobs.test_purchase:test_an_old_intent_is_looked_up_before_it_is_sent_again",
        "tests.core.jobs.test_purchase:test_an_old_intent_that_cannot_be_decided_is_reported",
    ],
    "the task state store lost": ["tests.torture.test_what_hurts:test_the_store_is_lost_whenever_it_likes"],
    "the ledger lost": [
        "tests.batch.test_around:test_a_lost_ledger_is_restored_from_feed_and_account",
        "tests.batch.test_lost_ledger:test_a_lost_ledger_costs_nothing_while_keys_are_known",
    ],
    "a request that renders differently on retry": [
        "tests.torture.test_what_hurts:test_a_request_that_is_another_at_each_attempt",
        "tests.airflow.test_create:TestBuying.test_a_changed_request_takes_the_bought_job_and_says_so",
    ],
    "the account swapped": [
        "tests.torture.test_what_hurts:test_the_account_is_swapped_and_swapped_back",
        "tests.core.jobs.test_purchase:test_an_unknown_job_is_awaited_ten_minutes_then_fails",
    ],
    "a newer version with another default mapping": [
        "tests.batch.test_runs:test_a_new_default_mapping_buys_nothing_by_itself",
        "tests.feeds.test_mapping:test_a_default_mapping_of_a_known_version_never_changes",
        "tests.core.jobs.test_order:test_fingerprints_of_scheme_1_never_change_between_versions",
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
def test_a_lost_answer_asked_for_after_the_key_window(seed, tmp_path):
    draw = random.Random(seed)
    local = fresh()
    with local.client(retries=RetryPolicy(attempts=1)) as client:
        attempts = Attempts(client, ledger_store(tmp_path))
        lose_answers(local)
        with pytest.raises(TransportError):
            attempts.buy(order())
        well(local)
        # Longer than the service remembers keys, which a second POST would then turn into a second job.
        local.world.advance(draw.uniform(24.5, 24 * 30) * 3600)
        assert attempts.obtain(order()).job.final_video_url
    assert (local.created, local.requests("POST", "/api/v1/jobs")) == (1, 1)
    settled(local)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_store_is_lost_whenever_it_likes(seed, tmp_path):
    """Before and after the job is known, while it runs, once it has ended or failed: the key finds it again."""
    draw = random.Random(seed)
    local = fresh()
    if draw.random() < 0.4:
        local.outcome(product_name="Lamp", fail_at=draw.choice(["init", "generation", "audio"]), times=1)
    with local.client() as client:
        for number in range(12):
            attempts = Attempts(client, ledger_store(tmp_path / str(number)))
            kill_at = draw.randint(1, 12) if draw.random() < 0.7 else None
            try:
                attempts.obtain(order(), kill_at=kill_at, after=draw.random() < 0.5)
                break
            except (Killed, JobError):
                local.world.advance(draw.choice([0, 5, 60, 900]))
        delivered = Attempts(client, ledger_store(tmp_path / "last")).obtain(order())
    assert delivered.job.final_video_url
    assert local.created == 1
    assert local.retried <= 2
    settled(local)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_request_that_is_another_at_each_attempt(seed, tmp_path):
    """As a template with the time of day in it renders: the first body that was sent is the order."""
    draw = random.Random(seed)
    local = fresh()
    with local.client(retries=RetryPolicy(attempts=2)) as client:
        attempts = Attempts(client, ledger_store(tmp_path))
        delivered = None
        for number in range(20):
            what = order(body={**BODY, "product_name": f"Lamp at {number}", "segment_count": draw.randint(1, 3)})
            if draw.random() < 0.4:
                lose_answers(local)
            try:
                kill_at = draw.randint(1, 14) if draw.random() < 0.6 else None
                delivered = attempts.obtain(what, kill_at=kill_at)
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
def test_the_account_is_swapped_and_swapped_back(seed, tmp_path):
    draw = random.Random(seed)
    local = fresh(tenants=(TenantSettings(), TenantSettings(name="other", api_keys=("ugen_sk_other",))))
    store = ledger_store(tmp_path)
    with local.client() as mine, local.client(api_key="ugen_sk_other") as theirs:
        first = Attempts(mine, store)
        job_id = first.buy(order()).job.job_id
        local.world.advance(draw.choice([0, 60, 3600]))
        for _ in range(draw.randint(1, 3)):
            with pytest.raises(PurchaseError, match="another account"):
                Attempts(theirs, store, name="theirs").obtain(order())
        assert first.obtain(order()).job.job_id == job_id
    assert local.created == 1
    assert local.world.accounts.by_name["other"].credits.reserved == 0
    settled(local)


class Meeting(SteppedWorld):
    """A world in which something else happens at its nth contact, before or after it."""

    def __init__(self, attempts, *, at, after, happens):
        super().__init__(attempts.client, attempts.store)
        self._at, self._before, self._happens = at, not after, happens
        self.met = False

    def contact(self, name, call):
        here = len(self.points) + 1 == self._at and not self.met
        if here and self._before:
            self._meet()
        answer = super().contact(name, call)
        if here and not self._before:
            self._meet()
        return answer

    def _meet(self):
        self.met = True
        self._happens()


POINTS = range(1, 13)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", POINTS)
@pytest.mark.parametrize("stores", ["one store", "two stores"])
def test_two_who_order_one_product(at, after, stores, tmp_path):
    """The second orders, waits and takes its video while the first is at some contact."""
    local = fresh()
    what = order(product_key(catalogue="shop", product_id="p1"))
    shared = ledger_store(tmp_path / "one")
    with local.client() as one, local.client() as two:
        first = Attempts(one, shared, name="first")
        second = Attempts(two, shared if stores == "one store" else ledger_store(tmp_path / "two"), name="second")
        others = []
        world = Meeting(first, at=at, after=after, happens=lambda: others.append(second.obtain(what)))
        delivered = None
        with contextlib.suppress(AttemptSupersededError):  # the second owns the order now
            delivered = purchase_and_wait(world, first.next(what), interval=5)
        delivered = delivered or first.obtain(what)
    assert delivered.job.final_video_url
    assert not world.met or others[0].job.job_id == delivered.job.job_id
    assert local.created == 1
    settled(local)


def clear_and_cancel(cancel_meets, at, after, folder):
    """An attempt that runs a job, a cancel of it, and a next attempt: one of them meets the other on its way."""
    local = fresh()
    store = ledger_store(folder)
    with local.client() as one, local.client() as two:
        old, new = Attempts(one, store, name="old"), Attempts(two, store, name="new")
        bought = old.buy(order())
        job_id, token = bought.job.job_id, bought.record.token
        local.world.advance(30)
        delivered = []

        def kill(world=None):
            with contextlib.suppress(UGenError):
                cancel_order(world or old.world(), order().record_key, reason="kill", job_id=job_id, token=token)

        def attempt():
            delivered.append(new.obtain(order()))

        if cancel_meets:
            kill(Meeting(old, at=at, after=after, happens=attempt))
        else:
            world = Meeting(new, at=at, after=after, happens=kill)
            delivered.append(purchase_and_wait(world, new.next(order()), interval=5))
        if not delivered:
            attempt()
        # A further attempt takes what was delivered, and nothing more is bought.
        before = local.created
        again = new.obtain(order())
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
def test_a_new_attempt_at_every_point_of_the_old_ones_cancel(at, after, tmp_path):
    clear_and_cancel(True, at, after, tmp_path)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", POINTS)
def test_the_old_ones_cancel_at_every_point_of_a_new_attempt(at, after, tmp_path):
    clear_and_cancel(False, at, after, tmp_path)
