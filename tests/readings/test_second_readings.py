# SPDX-License-Identifier: Apache-2.0
"""Each reading of other vendors' documentation, through every entry point that differs. The oracle is what it sold."""

import asyncio
import contextlib
import json

import pytest
from click.testing import CliRunner

from tests.readings.services import READINGS, Running
from ugen_provider import AsyncUGenClient, CreateJob, JobWatcher, UGenClient, buy, buy_async
from ugen_provider.cli import main
from ugen_provider.cli.session import Surroundings
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.core.media.outputs import download_outputs

LAMP = CreateJob(product_name="Lamp", product_image_url="https://images.example/lamp.jpg", segment_count=1)
KEY = "ugen_sk_reading"


@pytest.fixture(params=READINGS)
def running(request):
    running = Running(READINGS[request.param]())
    yield running
    running.close()


@pytest.fixture
def ledger(tmp_path):
    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger:
        yield ledger


def client_of(running):
    return UGenClient(api_key=KEY, base_url=running.base_url)


def sold(running):
    return len(running.service.jobs)


def test_blocking_purchase_pays_once(running, ledger):
    with client_of(running) as client:
        first = buy(client, LAMP, name="lamp", ledger=ledger, interval=0.01)
        again = buy(client, LAMP, name="lamp", ledger=ledger, interval=0.01)
    assert (first.job.job_id, sold(running)) == (again.job.job_id, 1)
    assert again.outcome.value == "reused"
    assert first.job.state.value == "completed"
    assert first.job.final_video_url.startswith(running.service.base)


def test_a_lost_answer_is_paid_once(running, ledger):
    running.lose = 1
    with client_of(running) as client:
        bought = buy(client, LAMP, name="lamp", ledger=ledger, interval=0.01)
    assert (bought.job.state.value, sold(running)) == ("completed", 1)


def test_an_answer_that_stays_lost_is_paid_once(running, ledger):
    running.lose = 1
    with UGenClient(api_key=KEY, base_url=running.base_url, retries=0) as client:
        with contextlib.suppress(Exception):
            buy(client, LAMP, name="lamp", ledger=ledger, interval=0.01)
        bought = buy(client, LAMP, name="lamp", ledger=ledger, interval=0.01)
    assert (bought.job.state.value, sold(running)) == ("completed", 1)


def test_awaited_purchases_and_the_watcher_pay_once(running, ledger):
    async def run():
        async with AsyncUGenClient(api_key=KEY, base_url=running.base_url) as client:
            bought = await buy_async(client, LAMP, name="lamp", ledger=ledger, interval=0.01)
            job = await client.jobs.create(LAMP)
            watcher = JobWatcher(client)
            outcomes = await asyncio.gather(*(watcher.wait(job.job_id, interval=0.01) for _ in range(3)))
            return bought, outcomes

    bought, outcomes = asyncio.run(run())
    assert bought.job.final_video_url
    assert {outcome.job.state.value for outcome in outcomes} == {"completed"}
    assert sold(running) == 2


def test_files_are_downloaded(running, tmp_path):
    with client_of(running) as client:
        job = client.jobs.create(LAMP)
        job = client.jobs.wait(job.job_id, interval=0.01)
        client.jobs.get(job.job_id)  # the links of some services expire with the next ones
        refresh = lambda: client.jobs.get(job.job_id)  # noqa: E731
        manifest = download_outputs(
            job, str(tmp_path / "videos"), refresh=refresh, allow_private=True, include=["final"]
        )
    assert manifest.uri("final").endswith(".mp4")


def test_lists_and_credits_are_read(running):
    with client_of(running) as client:
        ids = {client.jobs.create(LAMP).job_id for _ in range(5)}
        scan = client.jobs.scan()
        assert {job.job_id for job in scan.jobs} >= ids or not scan.complete
        assert client.credits.balance().available_credits > 100
        assert client.credits.estimate(LAMP).total_credits in {6, 10}


def command(running, tmp_path, *words, code=0):
    environ = {"HOME": str(tmp_path), "UGEN_API_KEY": KEY, "UGEN_BASE_URL": running.base_url}
    said = CliRunner().invoke(main, [str(word) for word in words], obj=Surroundings(environ=environ))
    assert code is None or said.exit_code == code, said.output
    return said


def test_the_command_line_buys_waits_and_downloads(running, tmp_path):
    fields = ("--product-name", "Lamp", "--product-image-url", LAMP.product_image_url, "--segment-count", 1)
    job_id = json.loads(command(running, tmp_path, "jobs", "create", *fields, "--json").stdout)["job_id"]
    command(running, tmp_path, "jobs", "wait", job_id, "--interval", 0.1)
    assert sold(running) == 1


def test_the_doctor_says_whether_a_purchase_would_end(running, tmp_path):
    """Nothing is bought; what it cannot see for free, it says."""
    with client_of(running) as client:
        client.jobs.wait(client.jobs.create(LAMP).job_id, interval=0.01)
    before = sold(running)
    said = command(running, tmp_path, "doctor", "--json", code=None)
    lines = {line["name"]: line for line in json.loads(said.stdout)}
    assert lines["a purchase"]["verdict"] == "ok", lines["a purchase"]
    assert KEY not in said.output
    assert sold(running) == before
