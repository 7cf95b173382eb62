# SPDX-License-Identifier: Apache-2.0
"""A process that was forked under a watcher: its waits are its own, and its parent's continue."""

import asyncio
import os

import pytest

from tests.core.api.test_forks import fork
from ugen_provider import AsyncUGenClient, CreateJob, UGenClient
from ugen_provider.core.api.config import resolve
from ugen_provider.core.jobs.watcher import JobWatcher, shared_watcher
from ugen_provider.emulator.settings import LOCAL_KEY

LAMP = CreateJob(product_name="Lamp", product_image_url="https://shop.example/lamp.jpg", segment_count=1)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def emulator(ugen_emulator):
    return ugen_emulator


@pytest.fixture
def jobs(emulator):
    with UGenClient(api_key=LOCAL_KEY, base_url=emulator.base_url) as client:
        return [client.jobs.create(LAMP).job_id for _ in range(3)]


def config_reader(emulator):
    async def read_config():
        return resolve(api_key=LOCAL_KEY, base_url=emulator.base_url)

    return read_config


async def first_poll(emulator, job_id):
    """Return once a watcher has polled a job."""
    async with asyncio.timeout(20):
        while not emulator.emulator.journal.find_requests(method="GET", path=f"/api/v1/jobs/{job_id}"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_child_of_a_waiting_watcher_waits_for_itself(emulator, ugen_clock, jobs):
    with UGenClient(api_key=LOCAL_KEY, base_url=emulator.base_url) as client:
        ended = client.jobs.cancel(jobs[0]).job_id

    async def run():
        async with AsyncUGenClient(api_key=LOCAL_KEY, base_url=emulator.base_url) as client:
            watcher = JobWatcher(client)
            waits = [asyncio.ensure_future(watcher.wait(job_id, interval=0.05)) for job_id in jobs[1:]]
            await first_poll(emulator, jobs[1])

            def work(number):
                async def wait():
                    outcome = await watcher.wait(ended, interval=0.05)
                    left = watcher.waiting
                    await watcher.aclose()
                    return [outcome.job.job_id, left]

                asyncio._set_running_loop(None)
                return asyncio.run(wait())

            assert fork(work, count=2) == [[ended, 0]] * 2
            assert watcher.waiting == 2
            ugen_clock.advance_until_idle()
            return [outcome.job.job_id for outcome in await asyncio.gather(*waits)]

    assert asyncio.run(run()) == jobs[1:]


def test_child_does_not_share_its_parents_watcher(emulator, jobs):
    with UGenClient(api_key=LOCAL_KEY, base_url=emulator.base_url) as client:
        ended = [client.jobs.cancel(job_id).job_id for job_id in jobs]
    read_config = config_reader(emulator)
    loop = asyncio.new_event_loop()
    shared = shared_watcher("account", read_config)
    watcher = loop.run_until_complete(shared.__aenter__())

    async def share(job_id):
        async with shared_watcher("account", read_config) as own:
            return [own is watcher, (await own.wait(job_id)).job.job_id]

    def work(number):
        return loop.run_until_complete(share(ended[0]))

    assert fork(work, count=1) == [[False, ended[0]]]
    assert loop.run_until_complete(share(ended[1])) == [True, ended[1]]
    loop.run_until_complete(shared.__aexit__(None, None, None))
    loop.close()


def test_child_that_leaves_closes_nothing_of_its_parent(emulator, jobs):
    with UGenClient(api_key=LOCAL_KEY, base_url=emulator.base_url) as client:
        ended = [client.jobs.cancel(job_id).job_id for job_id in jobs]
    loop = asyncio.new_event_loop()
    shared = shared_watcher("account", config_reader(emulator))
    watcher = loop.run_until_complete(shared.__aenter__())
    loop.run_until_complete(watcher.wait(ended[0]))

    def work(number):
        loop.run_until_complete(shared.__aexit__(None, None, None))
        return "left"

    assert fork(work, count=1) == ["left"]
    assert loop.run_until_complete(watcher.wait(ended[1])).job.job_id == ended[1]
    loop.run_until_complete(shared.__aexit__(None, None, None))
    loop.close()
