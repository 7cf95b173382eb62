# SPDX-License-Identifier: Apache-2.0
"""A script that names its order buys it once, however often it runs."""

import anyio
import pytest

from ugen_provider import CreateJob, JobTimeoutError, PurchaseError, buy, buy_async

LAMP = CreateJob(product_name="Lamp", product_image_url="https://shop.example/lamp.jpg", segment_count=1)


def test_a_script_that_runs_twice_buys_once(client, local, tmp_path):
    first = buy(client, LAMP, name="lamp", store=tmp_path)
    again = buy(client, LAMP, name="lamp", store=tmp_path)
    assert (first.job.job_id, again.how.value) == (again.job.job_id, "taken")
    buy(client, LAMP, name="lamp two", store=tmp_path)
    assert local.created == 2


def test_sync_and_async_are_one_order(client, local, tmp_path):
    first = buy(client, LAMP, name="lamp", store=tmp_path)

    async def run():
        async with local.async_client() as aio:
            return await buy_async(aio, LAMP, name="lamp", store=tmp_path)

    assert anyio.run(run).job.job_id == first.job.job_id
    assert local.created == 1


def test_namespaces_never_meet(local, tmp_path):
    for namespace in ("staging", "production", "staging"):
        with local.client(namespace=namespace) as client:
            buy(client, LAMP, name="lamp", store=tmp_path)
    assert local.created == 2


def test_a_timeout_leaves_the_job_and_the_next_call_attaches(client, local, tmp_path):
    with pytest.raises(JobTimeoutError):
        buy(client, LAMP, name="lamp", store=tmp_path, timeout=20)
    assert buy(client, LAMP, name="lamp", store=tmp_path).job.status == "completed"
    assert local.created == 1


def test_the_clients_spending_holds(local, tmp_path):
    with local.client(spending="attach_only") as client, pytest.raises(PurchaseError, match="attach_only"):
        buy(client, LAMP, name="lamp", store=tmp_path)
    assert local.created == 0
