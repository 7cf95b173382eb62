# SPDX-License-Identifier: Apache-2.0
"""Many wait as cheaply as one, and no waiter gets a wrong report."""

import asyncio
from collections import Counter

import anyio
import httpx
import pytest

from tests.core.local import Local
from ugen_provider import AuthenticationError, CreateJob, JobTimeoutError, NotFoundError
from ugen_provider.core.api.clock import SystemClock
from ugen_provider.core.api.config import resolve
from ugen_provider.core.api.polling import EarlierState, Goal, Reason
from ugen_provider.core.jobs.order import Order, name_key
from ugen_provider.core.jobs.purchase import purchase, wait_for_purchase
from ugen_provider.core.jobs.watcher import JobWatcher, WatchedWorld, shared_watcher
from ugen_provider.core.jobs.world import AsyncWorld
from ugen_provider.core.ledger.record import KeyOnlyStore
from ugen_provider.emulator.settings import LOCAL_KEY, Pace, Settings
from ugen_provider.emulator.world.readings import Readings

# Every job takes about a minute and all end within a few seconds of each other.
EVEN = Pace(
    queue=(1, 1), prepare=(2, 2), agents=(10, 10), keyframe=(5, 5), segment=(20, 22), concat=(4, 4), audio=(5, 5),
    captions=(5, 5), complete=(1, 1),
)  # fmt: skip


def make(**readings):
    return Local(Settings(speed=0, admin=True, pace=EVEN, readings=Readings().with_values(readings)))


def buy(local, count, name="Lamp"):
    job = CreateJob(product_name=name, product_image_url="https://shop.example/lamp.jpg", segment_count=1)
    with local.client() as client:
        return [client.jobs.create(job).job_id for _ in range(count)]


def watch(local, job_ids, **more):
    """Wait for all; outcomes or errors by job id, and the polls that it cost."""
    before = local.requests("GET")

    async def run():
        async with local.async_client() as client:
            watcher = JobWatcher(client, clock=local.clock)
            waits = [watcher.wait(job_id, interval=5, **more) for job_id in job_ids]
            results = await asyncio.gather(*waits, return_exceptions=True)
            assert watcher.waiting == 0
            return dict(zip(job_ids, results, strict=True))

    began = local.world.now()
    results = anyio.run(run)
    rounds = (local.world.now() - began) / 5
    return results, local.requests("GET") - before, rounds


def test_a_thousand_jobs_cost_a_fraction_of_one_get_each():
    local = make()
    ids = buy(local, 1000)
    results, requests, rounds = watch(local, ids)
    assert {outcome.job.status for outcome in results.values()} == {"completed"}
    assert requests <= 240
    assert rounds > 8


@pytest.mark.parametrize("count", [1, 3, 20, 60, 300])
@pytest.mark.parametrize(
    "readings",
    [
        {},
        {"status_filter": "nothing"},
        {"status_filter": "ignored"},
        {"list_lag": 10.0},
        {"list_order": "oldest"},
        {"list_shape": "array"},
        {"list_items": "full"},
        {"status_words": "upper"},
        {"status_words": "other"},
        {"extra_status": "awaiting_review"},
        {"id_field": "id"},
    ],
    ids=str,
)
def test_it_never_costs_more_than_one_get_per_job_and_interval(readings, count):
    local = make(**readings)
    ids = buy(local, count)
    results, requests, rounds = watch(local, ids)
    assert {outcome.job.state.value for outcome in results.values()} == {"completed"}
    assert requests <= 1.05 * count * (rounds + 1) + 1


def test_foreign_jobs_in_the_account_do_not_make_it_expensive():
    local = make()
    local.outcome(product_name="Foreign", slow=1000, times=None)
    buy(local, 3500, name="Foreign")
    ids = buy(local, 30)
    results, requests, rounds = watch(local, ids)
    assert {outcome.job.status for outcome in results.values()} == {"completed"}
    assert requests <= 1.05 * 30 * (rounds + 1) + 1


def test_each_end_is_reported_with_its_kind():
    local = make()
    local.outcome(product_name="Fails", fail_at="audio")
    ids = buy(local, 1) + buy(local, 1, name="Fails") + buy(local, 1, name="Cancelled")
    with local.client() as client:
        client.jobs.cancel(ids[2])
    results, _, _ = watch(local, [*ids, "550e8400-e29b-41d4-a716-446655440000"])
    *ended, unknown = results.values()
    assert [outcome.job.status for outcome in ended] == ["completed", "failed", "cancelled"]
    assert isinstance(unknown, NotFoundError)


def test_a_deadline_is_reported_after_a_last_poll():
    local = make()
    local.outcome(product_name="Slow", slow=100, times=None)
    (done,) = buy(local, 1)
    (slow,) = buy(local, 1, name="Slow")
    results, _, _ = watch(local, [slow], deadline=local.world.now() + 32)
    assert isinstance(results[slow], JobTimeoutError)
    local.world.advance(300)
    results, _, _ = watch(local, [done], deadline=local.world.now() - 100)
    assert results[done].job.status == "completed"


def test_a_stage_and_a_stop_can_be_waited_for():
    local = make()
    (job_id,) = buy(local, 1)
    results, _, _ = watch(local, [job_id], goal=Goal(stage="generation"))
    assert (results[job_id].reason, results[job_id].job.current_stage) == (Reason.STAGE_REACHED, "generation")


@pytest.mark.parametrize("count", [1, 100])
def test_an_unexpected_pause_is_reported_or_waited_through(count):
    local = make()
    ids = buy(local, count)
    local.world.advance(10)
    with local.client() as client:
        client.jobs.pause(ids[0])
    local.world.advance(30)
    results, _, _ = watch(local, ids)
    assert results[ids[0]].reason is Reason.PAUSED
    results, _, _ = watch(local, ids[:1], goal=Goal(through_pauses=True), deadline=local.world.now() + 60)
    assert isinstance(results[ids[0]], JobTimeoutError)


@pytest.mark.parametrize("count", [1, 100])
def test_after_a_retry_the_old_state_does_not_count(count):
    local = make(list_lag=10.0)
    local.outcome(product_name="Lamp", fail_at="audio", times=count)
    ids = buy(local, count)
    local.world.advance(300)
    with local.client() as client:
        seen = EarlierState.of(client.jobs.get(ids[0]))
        for job_id in ids:
            client.jobs.retry(job_id)
    results, _, _ = watch(local, ids[:1], stale=seen)
    assert results[ids[0]].job.status == "completed"


def test_temporary_errors_are_survived_without_repeated_rounds():
    local = make()
    ids = buy(local, 100)
    fails_until = local.world.now() + 200

    def meddle(request, answer):
        return httpx.Response(503) if local.world.now() < fails_until else answer()

    local.transport.meddle = meddle
    results, _, _ = watch(local, ids)
    assert {outcome.job.status for outcome in results.values()} == {"completed"}


def test_a_refused_key_is_survived_fifteen_minutes_then_raised():
    local = make()
    ids = buy(local, 2)
    local.transport.meddle = lambda _, __: httpx.Response(401, json={"error": {"message": "revoked"}})
    began = local.world.now()
    results, _, _ = watch(local, ids)
    assert all(isinstance(error, AuthenticationError) for error in results.values())
    assert 900 <= local.world.now() - began <= 920


def test_a_rotated_key_is_read_again_under_the_waiters():
    local = make()
    ids = buy(local, 100)
    keys = iter(["ugen_sk_still_old", LOCAL_KEY])

    async def read_config():
        return resolve(api_key=next(keys), base_url="http://127.0.0.1:1/api/v1")

    async def run():
        async with local.async_client(api_key="ugen_sk_old") as client:
            watcher = JobWatcher(client, read_config=read_config, clock=local.clock)
            return await asyncio.gather(*(watcher.wait(job_id, interval=5) for job_id in ids))

    assert {outcome.job.status for outcome in anyio.run(run)} == {"completed"}


def test_a_cancelled_waiter_leaves_nothing_and_polling_ends():
    local = make()
    ids = buy(local, 3)

    class Pausing(SystemClock):
        """A stopped clock that records that a caller waits for it."""

        def __init__(self):
            self.reached = asyncio.Event()

        async def asleep(self, seconds):
            self.reached.set()
            await asyncio.Event().wait()

    async def run():
        async with local.async_client() as client:
            clock = Pausing()
            watcher = JobWatcher(client, clock=clock)
            waits = [asyncio.create_task(watcher.wait(job_id)) for job_id in ids]
            await asyncio.wait_for(clock.reached.wait(), 60)
            assert watcher.waiting == 3
            looking = [task for task in asyncio.all_tasks() if task.get_name() == "ugen-job-watcher"]
            assert len(looking) == 1
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            assert watcher.waiting == 0
            await asyncio.wait(looking, timeout=60)
            return asyncio.all_tasks() - {asyncio.current_task()}

    before = local.requests()
    assert anyio.run(run) == set()
    assert local.requests() > before


def test_two_waiters_for_one_job_share_one_request():
    local = make()
    (job_id,) = buy(local, 1)
    _, requests, _ = watch(local, [job_id])
    local = make()
    (job_id,) = buy(local, 1)

    async def run():
        async with local.async_client() as client:
            watcher = JobWatcher(client, clock=local.clock)
            return await asyncio.gather(*(watcher.wait(job_id, interval=5) for _ in range(50)))

    before = local.requests("GET")
    assert len(anyio.run(run)) == 50
    # The jitter of the intervals moves the number of polls by one.
    assert local.requests("GET") - before <= requests + 1


def test_what_a_list_says_of_an_end_is_read_from_the_job_itself():
    """A list may lack fields of `GET /jobs/{jobId}`; a field from such a GET is not read again."""
    local = make()

    async def run():
        async with local.async_client() as client:
            watcher = JobWatcher(client, clock=local.clock)

            async def own(number):
                body = {"product_name": "Lamp", "product_image_url": "https://s.example/l.jpg", "segment_count": 1}
                order = Order(key=name_key(str(number)), body=body)
                return order, await purchase(AsyncWorld(client, KeyOnlyStore()), order)

            ours = [await own(number) for number in range(300)]
            local.world.advance(300)
            world = WatchedWorld(watcher, KeyOnlyStore())
            waits = [wait_for_purchase(world, order, bought, interval=10, deadline=None) for order, bought in ours]
            return await asyncio.gather(*waits)

    outcomes = anyio.run(run)
    asked = local.world.journal.find_requests(method="GET")
    assert any("status=completed" in request.query for request in asked)
    polls = Counter(request.path.rpartition("/")[2] for request in asked)
    assert {polls[outcome.job.job_id] for outcome in outcomes} == {1}
    assert not any(outcome.listed for outcome in outcomes)


def test_one_watcher_per_account_is_closed_by_its_last_user():
    reads = []

    async def read_config():
        reads.append(1)
        return resolve(api_key=LOCAL_KEY, base_url="http://127.0.0.1:1/api/v1")

    async def run():
        async with (
            shared_watcher("a", read_config) as one,
            shared_watcher("a", read_config) as two,
            shared_watcher("b", read_config) as three,
        ):
            assert one is two is not three
        async with shared_watcher("a", read_config) as four:
            assert four is not one

    anyio.run(run)
    assert len(reads) == 3
