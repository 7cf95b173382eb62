# SPDX-License-Identifier: Apache-2.0
"""Orders under every misfortune at once: seeded runs of attempt after attempt, until the video is there.

Each run draws a reading of the documentation, an order, faults on the way, moments at which the process ends, and
what people do to the job meanwhile. The oracle is the emulator's journal and books and the list of what was ordered.
A run that fails is repeated alone by `UGEN_TORTURE_SEED=N UGEN_TORTURE_RUNS=1`.
"""

import contextlib
import os
import random

import httpx
import pytest

from tests.core.jobs.test_switches import flips
from tests.core.local import Attempts, Killed, Local, ledger_store
from ugen_provider import JobError, PurchaseError, RetryPolicy, UGenError
from ugen_provider.core.jobs.order import Order, product_key, task_key
from ugen_provider.core.jobs.policy import PurchasePolicy
from ugen_provider.emulator.settings import Settings
from ugen_provider.emulator.world.readings import Readings

FIRST = int(os.environ.get("UGEN_TORTURE_SEED", "1"))
RUNS = int(os.environ.get("UGEN_TORTURE_RUNS", "150"))
FLIPS = [
    flip
    for flip in flips()
    # Under these the service itself buys again by a key whose job has ended: documented, and counted apart.
    if "replay_ended" not in flip
]
MOST_ATTEMPTS = 60


class Run:
    """One order from its first attempt to its video."""

    def __init__(self, seed, folder):
        self.draw = random.Random(seed)
        readings = {}
        for flip in self.draw.sample(FLIPS, self.draw.choice([0, 0, 1, 2, 5])):
            readings.update(flip)
        self.readings = readings
        self.local = Local(Settings(speed=0, admin=True, seed=seed, readings=Readings().with_values(readings)))
        self.store = ledger_store(folder)
        self.attempts = Attempts(None, self.store)
        self.model = "kling3_std" if readings.get("models") == "kling_only" else None
        body = {
            "product_name": "Lamp",
            "product_image_url": "https://shop.example/lamp.jpg",
            "segment_count": self.draw.randint(1, 2),
            **({"video_model": self.model} if self.model else {}),
        }
        keys = [task_key(dag_id="d", run_id="r", task_id="t"), product_key(catalogue="c", product_id="p")]
        self.order = Order(key=self.draw.choice(keys), body=body, policy=PurchasePolicy(max_stage_retries=9))
        self.killed = set()
        self.fails = self.draw.choice([0, 0, 0, 1, 2])
        if self.fails:
            stage = self.draw.choice(["agents", "init", "generation", "audio", "captions"])
            self.local.outcome(product_name="Lamp", fail_at=stage, times=self.fails)

    def misfortune(self, until):
        """Faults for an attempt; they end, since a service that never answers delivers nothing."""
        draw = self.draw

        def meddle(request, answer):
            fate = draw.random()
            if self.local.world.now() > until or fate > 0.25:
                return answer()
            if fate < 0.06:
                raise httpx.ConnectError("refused")
            if fate < 0.10:
                return httpx.Response(draw.choice([500, 502, 503, 504]), content=b"<html>")
            if fate < 0.12:
                return httpx.Response(429, headers={"Retry-After": str(draw.randint(1, 90))})
            response = answer()
            if fate < 0.20:
                raise draw.choice([httpx.ReadTimeout("lost"), httpx.ReadError("reset")])
            return httpx.Response(response.status_code, content=response.content[: len(response.content) // 2])

        return meddle

    def attempt(self, client):
        """One attempt, as an orchestrator makes it: it may be killed, interrupted, or left alone."""
        self.attempts.client = client
        kill_at = self.draw.randint(1, 30) if self.draw.random() < 0.5 else None
        after = self.draw.random() < 0.5
        return self.attempts.obtain(self.order, kill_at=kill_at, after=after, timeout=4 * 3600)

    def between(self, client):
        """Change the job while no attempt works on it."""
        record = self.store.read(self.order.record_key)
        self.local.world.advance(self.draw.choice([0, 1, 10, 60, 600]))
        if record is None or record.job_id is None:
            return
        chance = self.draw.random()
        with contextlib.suppress(UGenError):  # what could not be sent is sent by the next attempt
            if chance < 0.10:
                self.killed.add(record.job_id)
                self.attempts.cancel(self.order)
            elif chance < 0.18:
                self.attempts.pause(self.order)

    def deliver(self):
        until = self.local.world.now() + 3600
        for _ in range(MOST_ATTEMPTS):
            self.local.transport.meddle = self.misfortune(until)
            with self.local.client(retries=RetryPolicy(attempts=3)) as client:
                try:
                    return self.attempt(client)
                except Killed:
                    pass
                except PurchaseError as error:
                    if error.reason not in {"undecidable", "key_conflict", "cancel_pending", "stage_retries_used_up"}:
                        raise
                    if error.reason == "stage_retries_used_up":
                        raise
                except (JobError, UGenError):
                    pass
                self.between(client)
            until = min(until, self.local.world.now() + 3600)
        raise AssertionError("no video after all attempts")


def check(run, delivered):
    journal, books = run.local.world.journal, run.local.world.accounts.by_name["local"].credits
    creates = journal.find_purchases(kind="create")
    # Every job beyond the first has a predecessor that we cancelled ourselves.
    assert {purchase.job_id for purchase in creates[:-1]} <= run.killed
    assert len(journal.find_purchases(kind="retry")) <= 9
    assert delivered.job.state.value == "completed"
    assert delivered.job.final_video_url
    run.local.transport.meddle = lambda _, answer: answer()
    run.local.world.advance(3600)
    with run.local.client() as client:
        jobs = {purchase.job_id: client.jobs.get(purchase.job_id) for purchase in creates}
        # At the end no job runs without a waiter, and one video was made.
        alive = [job.job_id for job in jobs.values() if not job.ended]
        assert alive == []
        completed = [job for job in jobs.values() if job.state.value == "completed"]
        assert [job.job_id for job in completed] == [delivered.job.job_id]
        balance = client.credits.balance()
    # Credits are conserved to the unit.
    assert books.reserved == 0
    assert balance.available_credits == balance.credit_balance
    # A retry after a lost look delivers the same video and buys nothing.
    before = len(journal.purchases)
    with run.local.client() as client:
        run.attempts.client = client
        again = run.attempts.obtain(run.order)
    assert again.job.job_id == delivered.job.job_id
    assert len(journal.purchases) == before


@pytest.mark.parametrize("seed", range(FIRST, FIRST + RUNS))
def test_one_order_is_one_video_after_any_event(seed, tmp_path):
    run = Run(seed, tmp_path)
    delivered = run.deliver()
    check(run, delivered)
