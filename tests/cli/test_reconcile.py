# SPDX-License-Identifier: Apache-2.0
"""`ugen reconcile`: owed cancels, results of failed tasks, and jobs without an owner, on each kind of ledger."""

import json
import signal
from pathlib import Path

import pytest

from ugen_provider import CreateJob
from ugen_provider.core.jobs.order import Order, name_key, origin_of, partition_key, product_key, task_key
from ugen_provider.core.jobs.sync.purchase import purchase
from ugen_provider.core.jobs.sync.world import World
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.record import Action
from ugen_provider.core.ledger.store import Ledger

from .conftest import LAMP

EXAMPLE = Path(__file__).parents[2] / "examples" / "feed.xml"
CREATE = ("jobs", "create", "--order", "lamp", *LAMP)
BODY = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.jpg", "segment_count": 1}
KEYS = {
    "task": task_key(dag_id="d", run_id="r", task_id="t"),
    "partition": partition_key(asset="videos", partition="LL-1"),
    "name": name_key("lamp"),
    "product": product_key(catalogue="shop", product_id="LL-1"),
}


@pytest.fixture(autouse=True)
def ledger(ugen, address) -> str:
    ugen.name_ledger(address)
    return address


@pytest.fixture
def refuse_deletes(ugen_faults):
    """DELETE answers 503 until the faults are cleared, for longer than a command repeats it."""

    def refuse():
        ugen_faults.add("status", method="DELETE", path="/api/v1/jobs/*", status=503, times=None)

    return refuse


@pytest.fixture
def slow_job(ugen_faults):
    """The next job takes many times longer than a command repeats a request."""
    ugen_faults.job(slow=50.0)


def status(ugen, job_id):
    return ugen.one("jobs", "get", job_id)["status"]


def bought(ugen, ugen_client, ledger, kind, *, destination=None):
    """An order of another process, with a job that runs."""
    order = Order(
        key=KEYS[kind], body=BODY, attempt="attempt 1", origin=origin_of(ugen.server.base_url), destination=destination
    )
    with Ledger(ledger) as opened:
        return purchase(World(ugen_client, LedgerOrderStore(opened)), order)


def owe(ledger, purchase, *, kind="cancel", reason="kill"):
    record = purchase.record
    with Ledger(ledger) as opened:
        LedgerOrderStore(opened).append_action(
            Action(record.order_key, record.purchase_number, record.job_id, kind, reason, record.token, opened.now())
        )


@pytest.mark.usefixtures("slow_job")
def test_reconcile_sends_a_cancel_that_was_refused(ugen, refuse_deletes, ugen_faults):
    job_id = ugen.json(*CREATE)["job_id"]
    refuse_deletes()
    ugen("jobs", "cancel", job_id, code=6)
    assert status(ugen, job_id) != "cancelled"
    refused = len(ugen.server.emulator.journal.find_requests(method="DELETE"))
    ugen_faults.clear()
    done = ugen.json("reconcile")
    assert [action["reason"] for action in done["done"]] == ["cli"]
    assert status(ugen, job_id) == "cancelled"
    assert len(ugen.server.emulator.journal.find_requests(method="DELETE")) == refused + 1
    assert ugen.json("reconcile")["done"] == []
    assert "was cancelled (cli)" in ugen(*CREATE, code=1).stderr
    assert len(ugen.purchases) == 1


@pytest.mark.usefixtures("slow_job")
def test_reconcile_keeps_a_cancel_owed_until_it_is_confirmed(ugen, refuse_deletes):
    job_id = ugen.json(*CREATE)["job_id"]
    refuse_deletes()
    ugen("jobs", "cancel", job_id, code=6)
    said = ugen("reconcile", code=6)
    assert "owed" in said.stdout
    assert job_id in said.stdout


@pytest.mark.parametrize("kind", ["name", "product"])
def test_reconcile_cancels_what_a_person_ended(ugen, ugen_client, ledger, kind):
    job = bought(ugen, ugen_client, ledger, kind)
    owe(ledger, job)
    assert len(ugen.json("reconcile")["done"]) == 1
    assert status(ugen, job.job.job_id) == "cancelled"


@pytest.mark.parametrize("kind", ["task", "partition"])
def test_reconcile_leaves_kills_of_orchestrators_owed(ugen, ugen_client, ledger, kind):
    job = bought(ugen, ugen_client, ledger, kind)
    owe(ledger, job)
    (owed,) = ugen.json("reconcile")["owed"]
    assert owed["job_id"] == job.job.job_id
    assert status(ugen, job.job.job_id) != "cancelled"


def test_reconcile_stores_the_result_of_a_failed_task(ugen, ugen_client, ledger, tmp_path):
    job = bought(ugen, ugen_client, ledger, "task", destination=str(tmp_path / "videos"))
    owe(ledger, job, kind="collect", reason="final_failure")
    assert len(ugen.json("reconcile")["owed"]) == 1
    ugen("jobs", "wait", job.job.job_id)
    ugen("reconcile")
    assert len(list((tmp_path / "videos").rglob("final.mp4"))) == 1
    assert ugen.json("reconcile")["owed"] == []


def test_reconcile_reports_jobs_without_owner_and_cancels_none(ugen, ugen_client):
    order = ugen.create("--order", "spring")
    lamp = CreateJob(product_name="Desk", product_image_url="https://s.example/desk.jpg", segment_count=1)
    other = ugen_client.jobs.create(lamp).job_id
    run = ("feed", "run", EXAMPLE, "--catalogue", "shop", "--budget", 5000, "--segment-count", 1)
    assert ugen.json(*run, "--run-id", "1", "--job-timeout", 5, code=5)["running"] == 5
    unowned = {one["job_id"]: one["why"] for one in ugen.json("reconcile")["unowned"]}
    assert unowned.pop(other) == "not_in_ledger"
    assert order not in unowned
    assert list(unowned.values()) == ["left_by_run"] * 5
    said = ugen("reconcile").stdout
    assert "product LL-1001 of catalog shop: the next `ugen feed run` collects it" in said
    assert not ugen.server.emulator.journal.find_requests(method="DELETE")


def test_resumed_or_retried_job_is_spared_from_an_old_cancel(ugen, refuse_deletes, ugen_faults):
    ugen_faults.job(fail_at="generation", times=1, slow=50.0)
    job_id = ugen.json(*CREATE)["job_id"]
    refuse_deletes()
    ugen("jobs", "cancel", job_id, code=6)
    ugen_faults.clear()
    ugen("jobs", "wait", job_id, code=1)
    ugen("jobs", "retry", job_id)
    assert ugen.json("reconcile")["done"] == []
    assert ugen.one("jobs", "wait", job_id)["status"] == "completed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_reconcile_watch_repeats_until_a_signal(ugen, number):
    process = ugen.process("reconcile", "--watch", "--interval", 1, "--json", stdout=-1, stderr=-1)
    rounds = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert all(each["ran"] for each in rounds)
    assert ugen.json("reconcile")["ran"]


RUN = ("feed", "run", EXAMPLE, "--catalogue", "shop", "--budget", 5000, "--segment-count", 1)


def test_cancel_of_a_product_is_final_for_the_next_run(ugen):
    ugen.json(*RUN, "--run-id", "1", "--job-timeout", 5, code=5)
    ugen("jobs", "cancel", *[job["job_id"] for job in ugen.json("jobs", "list")])
    report = ugen.json(*RUN, "--run-id", "2", code=1)
    assert all("cancelled (cli)" in failure["reason"] for failure in report["failures"])
    assert (report["failed"], len(ugen.purchases)) == (5, 5)


def test_wait_for_a_left_job_lets_the_next_run_reuse_it(ugen):
    ugen.json(*RUN, "--run-id", "1", "--job-timeout", 5, code=5)
    ugen("jobs", "wait", *[job["job_id"] for job in ugen.json("jobs", "list")])
    report = ugen.json(*RUN, "--run-id", "1")
    assert (report["completed"], report["running"], len(ugen.purchases)) == (5, 0, 5)
    assert ugen.json("reconcile")["unowned"] == []


def test_cancel_is_sent_although_the_ledger_cannot_record_it(ugen, tmp_path):
    job_id = ugen.create()
    broken = tmp_path / "broken.db"
    broken.write_text("this is no database, and never was one")
    ugen.environ["UGEN_LEDGER"] = str(broken)
    assert "Continuing without the ledger" in ugen("jobs", "cancel", job_id).stderr
    assert status(ugen, job_id) == "cancelled"


def test_cancel_creates_no_ledger_and_needs_none(ugen, ugen_client, tmp_path):
    lamp = CreateJob(product_name="Desk", product_image_url="https://s.example/desk.jpg", segment_count=1)
    job_id = ugen_client.jobs.create(lamp).job_id
    del ugen.environ["UGEN_LEDGER"]
    ugen("jobs", "cancel", job_id)
    assert status(ugen, job_id) == "cancelled"
    assert not (tmp_path / ".local").exists()
