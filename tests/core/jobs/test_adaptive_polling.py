# SPDX-License-Identifier: Apache-2.0
"""Polls of a lone job: few while its end is far, close while it is near. Counted on the emulator's clock."""

import asyncio
import itertools

import pytest

from tests.core.local import Local
from ugen_provider import JobWatcher
from ugen_provider.core.api.polling import LONGEST_INTERVAL
from ugen_provider.emulator.settings import Settings

LAMP = {"product_name": "Lamp", "product_image_url": "https://shop.example/l.jpg", "segment_count": 3}
THREE_HOURS = 10_800 / 165
"""The factor on every duration that makes a job of about 165 s one of three hours."""

SEEDS = range(40)


def waited(local, *, way, times=1):
    """Wait for jobs one after the other; return the requests of the last wait and how late its end was noticed."""
    if way == "watcher":
        return asyncio.run(watched(local, times))
    with local.client() as client:
        for _ in range(times):
            job = client.jobs.create(LAMP)
            before = local.requests("GET")
            client.jobs.wait(job)
            seen = local.clock.now()
    return local.requests("GET") - before, late(local, job, seen)


async def watched(local, times):
    async with local.async_client() as client:
        watcher = JobWatcher(client)
        for _ in range(times):
            job = await client.jobs.create(LAMP)
            before = local.requests("GET")
            await watcher.wait(job)
            seen = local.clock.now()
    return local.requests("GET") - before, late(local, job, seen)


def late(local, job, seen):
    return seen - local.world.jobs.by_id[job.job_id].timeline[-1].start


def percentile_99(values):
    return sorted(values)[int(0.99 * len(values))]


@pytest.mark.parametrize("way", ["client", "watcher"])
def test_a_job_of_three_hours_needs_at_most_sixty_polls(way):
    counts, delays = [], []
    for seed in SEEDS:
        local = Local(Settings(speed=0, seed=seed))
        local.outcome(slow=THREE_HOURS, times=None)
        count, delay = waited(local, way=way)
        counts.append(count)
        delays.append(delay)
    assert max(counts) <= 60, counts
    assert percentile_99(delays) <= 10.5, delays


def test_a_job_like_earlier_ones_needs_at_most_eight_polls():
    counts, delays = [], []
    for seed in SEEDS:
        count, delay = waited(Local(Settings(speed=0, seed=seed)), way="client", times=4)
        counts.append(count)
        delays.append(delay)
    assert max(counts) <= 8, counts
    assert percentile_99(delays) <= 10.5, delays


@pytest.mark.parametrize("way", ["client", "watcher"])
def test_a_long_job_is_polled_at_least_every_ten_minutes(way):
    local = Local(Settings(speed=0))
    local.outcome(slow=1000.0, times=None)
    waited(local, way=way)
    polls = [entry.at for entry in local.world.journal.find_requests(method="GET")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(polls)]
    assert max(gaps) <= LONGEST_INTERVAL * 1.05
    assert min(gaps) >= 5.0
    assert max(local.clock.slept) < 300.0  # each pause ends with a line of the log
