# SPDX-License-Identifier: Apache-2.0
"""A client that was used before a fork: each process has its own connections, and only its own answers."""

import asyncio
import json
import os
import traceback
import warnings

import httpx
import pytest

from ugen_provider import AsyncUGenClient, ConfigError, CreateJob, UGenClient
from ugen_provider.core.api.clock import fork_count
from ugen_provider.emulator.settings import LOCAL_KEY

CHILDREN = 4
REQUESTS = 60
LAMP = CreateJob(product_name="Lamp", product_image_url="https://shop.example/lamp.jpg", segment_count=1)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def fork(work, count=CHILDREN):
    """Run work in some forked processes at once, and return what each of them said."""
    pipes = []
    for number in range(count):
        reads, writes = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Python: the emulator has a thread here
            child = os.fork()
        if child == 0:
            try:
                said = work(number)
            except BaseException:
                said = traceback.format_exc()
            os.write(writes, json.dumps(said).encode())
            os._exit(0)
        os.close(writes)
        pipes.append((child, reads))
    said = []
    for child, reads in pipes:
        with os.fdopen(reads, "rb") as pipe:
            said.append(json.loads(pipe.read()))
        os.waitpid(child, 0)
    return said


@pytest.fixture
def jobs(ugen_emulator):
    with UGenClient(api_key=LOCAL_KEY, base_url=ugen_emulator.base_url) as client:
        return [client.jobs.create(LAMP).job_id for _ in range(CHILDREN * 3)]


def wrong(asked, answered):
    return sum(one != other for one, other in zip(asked, answered, strict=True))


def test_children_of_a_used_client_read_their_own_answers(ugen_emulator, jobs):
    with UGenClient(api_key=LOCAL_KEY, base_url=ugen_emulator.base_url) as client:
        assert client.jobs.get(jobs[0]).job_id == jobs[0]

        def work(number):
            asked = [jobs[(number * 3 + turn) % len(jobs)] for turn in range(REQUESTS)]
            return wrong(asked, [client.jobs.get(job_id).job_id for job_id in asked])

        assert fork(work) == [0] * CHILDREN
        # The parent continues over its own connections.
        assert client.jobs.get(jobs[1]).job_id == jobs[1]
        assert len(client._executor.transport._http._transport._pool.connections) == 1


def test_children_of_a_used_async_client_read_their_own_answers(ugen_emulator, jobs):
    client = AsyncUGenClient(api_key=LOCAL_KEY, base_url=ugen_emulator.base_url)

    async def ask(asked):
        return [job.job_id for job in await asyncio.gather(*(client.jobs.get(job_id) for job_id in asked))]

    assert asyncio.run(ask(jobs)) == jobs

    def work(number):
        asked = [jobs[(number * 3 + turn) % len(jobs)] for turn in range(REQUESTS)]
        return wrong(asked, asyncio.run(ask(asked)))

    assert fork(work) == [0] * CHILDREN


def test_a_fork_within_a_running_loop_leaves_it_unharmed(ugen_emulator, jobs):
    async def run():
        async with AsyncUGenClient(api_key=LOCAL_KEY, base_url=ugen_emulator.base_url) as client:
            await client.jobs.get(jobs[0])

            def work(number):
                async def ask():
                    return (await client.jobs.get(jobs[number])).job_id

                asyncio._set_running_loop(None)
                return asyncio.run(ask())

            assert fork(work) == jobs[:CHILDREN]
            return [(await client.jobs.get(job_id)).job_id for job_id in jobs]

    assert asyncio.run(run()) == jobs


def test_a_grandchild_starts_anew_too(ugen_emulator, jobs):
    with UGenClient(api_key=LOCAL_KEY, base_url=ugen_emulator.base_url) as client:
        client.jobs.get(jobs[0])

        def work(number):
            client.jobs.get(jobs[number])
            return [*fork(lambda turn: client.jobs.get(jobs[turn]).job_id, count=2), fork_count()]

        assert fork(work, count=2) == [[jobs[0], jobs[1], fork_count() + 1]] * 2


def test_a_child_closes_nothing_of_its_parent(ugen_emulator, jobs):
    client = UGenClient(api_key=LOCAL_KEY, base_url=ugen_emulator.base_url)
    client.jobs.get(jobs[0])

    def work(number):
        client.close()
        return "closed"

    assert fork(work, count=1) == ["closed"]
    assert client.jobs.get(jobs[1]).job_id == jobs[1]
    client.close()


def test_a_shared_http_client_of_the_caller_is_refused(ugen_emulator, jobs):
    with httpx.Client() as http:
        client = UGenClient(api_key=LOCAL_KEY, base_url=ugen_emulator.base_url, http_client=http)
        client.jobs.get(jobs[0])

        def work(number):
            with pytest.raises(ConfigError, match="forked"):
                client.jobs.get(jobs[0])
            return "refused"

        assert fork(work, count=1) == ["refused"]
        assert client.jobs.get(jobs[1]).job_id == jobs[1]
