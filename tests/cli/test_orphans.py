# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs orphans`: what runs and nobody here waits for; attached to or cancelled only as told."""

import json

import pytest

from .conftest import LAMP


@pytest.fixture
def feed(tmp_path):
    path = tmp_path / "feed.jsonl"
    rows = [{"id": name, "title": f"Cup {name}", "image_link": f"https://s.example/{name}.jpg"} for name in "ab"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def left(ugen, feed) -> list[str]:
    """Jobs that a feed run has left running."""
    run = ("feed", "run", feed, "--catalogue", "shop", "--budget", 5000, "--segment-count", 1)
    report = ugen.json(*run, "--run-id", "monday", "--job-timeout", 5, code=5)
    assert (report["running"], report["completed"]) == (2, 0)
    return [job["job_id"] for job in ugen.json("jobs", "list")]


def test_each_is_named_with_what_it_was_bought_for(ugen, left, ugen_client):
    from ugen_provider import CreateJob

    order = ugen.create("--order", "spring")
    other = ugen_client.jobs.create(
        CreateJob(product_name="Desk", product_image_url="https://s.example/desk.jpg", segment_count=1)
    ).job_id
    found = {one["job_id"]: one for one in ugen.json("jobs", "orphans")}
    assert set(found) == {*left, order, other}
    assert {(found[job]["catalogue"], found[job]["product_id"]) for job in left} == {("shop", "a"), ("shop", "b")}
    assert found[order]["order"] == "spring"
    assert (found[other]["why"], found[other]["order"]) == ("unknown", None)
    lines = ugen("jobs", "orphans").stdout
    assert "order spring" in lines
    assert "an Airflow task or a Dagster run may wait for it" in lines


def test_cancelling_all_spares_what_was_not_bought_from_here(ugen, left, ugen_client):
    from ugen_provider import CreateJob

    order = ugen.create("--order", "spring")
    other = ugen_client.jobs.create(
        CreateJob(product_name="Desk", product_image_url="https://s.example/desk.jpg", segment_count=1)
    ).job_id
    ugen("jobs", "orphans", "--cancel", "all")
    states = {job["job_id"]: job["status"] for job in ugen.json("jobs", "list")}
    assert {states[job] for job in (*left, order)} == {"cancelled"}
    assert states[other] in {"pending", "processing"}
    assert "cancelled (cli)" in ugen("jobs", "create", "--order", "spring", *LAMP, code=1).stderr
    ugen("jobs", "orphans", "--cancel", other)
    assert ugen.json("jobs", "get", other)["status"] == "cancelled"


def test_what_was_cancelled_on_request_is_not_bought_again_by_itself(ugen, left, feed):
    ugen("jobs", "orphans", "--cancel", "all")
    run = ("feed", "run", feed, "--catalogue", "shop", "--budget", 5000, "--segment-count", 1, "--run-id", "tuesday")
    report = ugen.json(*run, code=1)
    assert report["failed"] == 2
    assert len(ugen.purchases) == 2


@pytest.mark.parametrize("words", [(), ("--ledger", "given.db")])
def test_a_plain_cancel_writes_the_ledger_too_so_the_next_run_names_it(ugen, feed, tmp_path, words):
    words = tuple(tmp_path / word if word.endswith(".db") else word for word in words)
    run = ("feed", "run", feed, "--catalogue", "shop", "--budget", 5000, "--segment-count", 1, *words)
    ugen.json(*run, "--run-id", "monday", "--job-timeout", 5, code=5)
    ugen("jobs", "cancel", *[job["job_id"] for job in ugen.json("jobs", "list")], *words)
    report = ugen.json(*run, "--run-id", "tuesday", code=1)
    assert {failure["reason"].split(":")[0] for failure in report["failures"]} != set()
    assert all("cancelled (cli)" in failure["reason"] for failure in report["failures"])
    assert len(ugen.purchases) == 2


def test_a_cancel_makes_no_ledger_and_needs_none(ugen, tmp_path):
    job_id = ugen.create()
    ugen("jobs", "cancel", job_id, "--ledger", tmp_path / "none.db", code=2)
    ugen("jobs", "cancel", job_id)
    assert ugen.json("jobs", "get", job_id)["status"] == "cancelled"
    assert not list(tmp_path.rglob("*.db"))


def test_a_ledger_that_cannot_be_opened_keeps_nobody_from_cancelling(ugen, tmp_path):
    job_id = ugen.create()
    broken = tmp_path / "ledger.db"
    broken.write_text("this is no database, and never was one")
    ugen.environ["UGEN_LEDGER"] = str(broken)
    said = ugen("jobs", "cancel", job_id)
    assert "it is done without the ledger" in said.stderr
    assert ugen.json("jobs", "get", job_id)["status"] == "cancelled"


def test_attaching_waits_and_the_next_run_takes_the_result(ugen, left, feed):
    said = ugen("jobs", "orphans", "--attach", "all")
    assert [line.split("\t")[1] for line in said.stdout.splitlines()] == ["completed", "completed"]
    assert "No job runs that nobody waits for." in ugen("jobs", "orphans").stderr
    run = ("feed", "run", feed, "--catalogue", "shop", "--budget", 5000, "--segment-count", 1, "--run-id", "monday")
    report = ugen.json(*run)
    assert (report["completed"], report["running"]) == (2, 0)
    assert len(ugen.purchases) == 2


def test_a_job_that_is_no_orphan_is_refused(ugen, left):
    said = ugen("jobs", "orphans", "--cancel", "nonsense", "--cancel", left[0], code=2)
    assert "nothing was done" in said.stderr
    assert ugen.json("jobs", "get", left[0])["status"] != "cancelled"
    ugen("jobs", "orphans", "--cancel", "all", "--attach", "all", code=2)
