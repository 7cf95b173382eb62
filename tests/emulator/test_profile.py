# SPDX-License-Identifier: Apache-2.0
"""The emulator as another service: each value of each row of the client's profile, and what a row cannot say."""

import dataclasses
import json

import httpx
import pytest
from click.testing import CliRunner

from tests.core.local import EmulatorClock, Local
from ugen_provider import (
    ConflictError,
    JobFailedError,
    NotFoundError,
    RequestValidationError,
    UGenClient,
    buy,
)
from ugen_provider.core.api.profile import Assumption, ServiceProfile, rows
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.emulator.api.dialect import ROWS
from ugen_provider.emulator.cli import emulator_command
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings
from ugen_provider.emulator.world.readings import Readings

FIELDS = {"product_name": "Lamp", "product_image_url": "https://shop.example/l.jpg", "segment_count": 1}
OWN_WORDS = {"cooking": "active", "cooked": "completed", "burnt": "failed", "dropped": "cancelled", "resting": "paused"}
OWN_VALUES = {
    "status_map": [OWN_WORDS],
    "page_parameter": ["p"],
    "page_size_parameter": ["limit"],
    "first_page": [0],
    "completed_without_video": [True],
    "list_days": [3.0, 30],
    "list_lag": [600.0, 1200.0],
    "conflict_statuses": [[400], [409], [410], [422]],
    "not_found_statuses": [[404], [410], [400]],
}
"""Values of the rows whose kind is no list of names."""

TOGETHER = {"paging": {"paging": "offset", "page_parameter": "offset", "page_size_parameter": "limit"}}
"""Rows that make sense with others alone."""


def values_of(row: Assumption) -> list[dict]:
    if row.name in TOGETHER:
        return [TOGETHER[row.name]]
    if row.name in OWN_VALUES:
        return [{row.name: value} for value in OWN_VALUES[row.name]]
    own = [599] if row.name.endswith("_statuses") else ["a_name_of_its_own"]
    return [{row.name: [value]} for value in (*row.default, *own)]


CASES = [pytest.param(value, id=json.dumps(value)[1:70]) for row in rows() for value in values_of(row)]


def test_the_emulator_knows_each_row_of_the_profile():
    assert ROWS == {field.name for field in dataclasses.fields(ServiceProfile)} == {row.name for row in rows()}


@pytest.fixture
def ledger(tmp_path):
    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger:
        yield ledger


@pytest.mark.parametrize("profile", CASES)
def test_each_value_of_the_profile_pays_once(profile, ledger, tmp_path):
    """Buy, buy again, a lost answer, list, refusals, wait, download with an expired link, doctor."""
    with EmulatorServer(Settings(speed=0, profile=profile)) as server:
        world = server.emulator
        config = {"api_key": LOCAL_KEY, "base_url": server.base_url, "service_profile": profile}
        with UGenClient(**config, clock=EmulatorClock(world)) as client:
            first = buy(client, FIELDS, name="lamp", ledger=ledger)
            again = buy(client, FIELDS, name="lamp", ledger=ledger)
            assert (first.job.state.value, again.job.job_id, created(world)) == ("completed", first.job.job_id, 1)
            assert bool(first.job.final_video_url) is not bool(profile.get("completed_without_video"))
            world.faults.add({"kind": "lost", "method": "POST", "path": "/api/v1/jobs", "times": 1})
            second = buy(client, FIELDS, name="second lamp", ledger=ledger)
            assert (second.job.state.value, created(world)) == ("completed", 2)
            world.advance(3600)
            assert {job.job_id for job in client.jobs.list(page_size=1)} == {first.job.job_id, second.job.job_id}
            assert client.credits.balance().available_credits > 0
            assert client.credits.estimate(FIELDS).total_credits > 0
            with pytest.raises(NotFoundError):
                client.jobs.get("00000000-0000-4000-8000-000000000000")
            with pytest.raises(ConflictError):
                client.jobs.create(FIELDS, product_name="Sofa", idempotency_key=world.jobs.by_id[first.job.job_id].key)
            if not profile.get("completed_without_video"):
                world.faults.add({"kind": "expired", "path": "/media/*", "times": 1})
                manifest = client.jobs.download(second.job, to=tmp_path / "videos", include=["final"])
                stored = tmp_path / "videos" / second.job.job_id / "final.mp4"
                assert stored.stat().st_size == manifest.file("final").bytes
            found = client.diagnose()
        assert created(world) == 2
    assert found["a_purchase"].holds, found["a_purchase"]
    contradicted = {each.row: each.seen for each in found.rows if each.verdict == "contradicted"}
    assert contradicted.keys().isdisjoint(profile), contradicted


def created(world):
    return len(world.journal.find_purchases(kind="create"))


@pytest.fixture
def local(readings):
    return Local(Settings(speed=0, admin=True, readings=Readings().with_values(readings)))


ENDS = ("total", "has_more", "next_page", "next_cursor", "next_link")


@pytest.mark.parametrize(
    "readings", [{"list_end": end, "page_most": most} for end in ENDS for most in (2, 100)], ids=str
)
def test_a_list_is_read_whole_in_each_style(local):
    with local.client() as client:
        made = {client.jobs.create(FIELDS).job_id for _ in range(5)}
        scan = client.jobs.scan()
        assert ({job.job_id for job in scan.jobs}, scan.complete) == (made, True)


@pytest.mark.parametrize(
    "readings", [{"get_lag": 60.0}, {"video_lag": 60.0}, {"in_flight": 30.0}, {"id_case": "capitals"}], ids=str
)
def test_a_service_that_lags_is_paid_once(local, ledger):
    local.transport.meddle = lose_first_create()
    with local.client() as client:
        bought = buy(client, FIELDS, name="lamp", ledger=ledger)
        again = buy(client, FIELDS, name="lamp", ledger=ledger)
    assert (bought.job.state.value, again.job.job_id, local.created) == ("completed", bought.job.job_id, 1)
    assert bought.job.final_video_url


def lose_first_create():
    lost = []

    def meddle(asked, answer):
        answered = answer()
        if asked.method == "POST" and not lost:
            lost.append(asked)
            raise httpx.ReadError("the answer was lost")
        return answered

    return meddle


@pytest.mark.parametrize("readings", [{"id_case": "any"}, {"id_case": "capitals"}], ids=str)
def test_ids_without_case_name_one_job(local):
    with local.client() as client:
        job = client.jobs.create(FIELDS)
        assert client.jobs.get(job.job_id.upper()).product_name == job.product_name
        listed = next(client.jobs.list())
        assert listed.job_id.lower() == job.job_id.lower()
        assert client.jobs.wait(job.job_id.upper()).state.value == "completed"


MODES = ("keyframes", "videos", "all")
REFUSALS = [(0, 0, "fail", True), (1, 1, "fail", True), (2, 1, "accept_best", True), (2, 1, "fail", False)]


@pytest.mark.parametrize("readings", [{"human_review": "modes"}], ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("refusals", "most", "budget", "completes"), REFUSALS)
def test_a_human_review_ends_as_its_budget_says(local, mode, refusals, most, budget, completes):
    asked = {"human_review": mode, "human_review_max_rejections": most, "human_review_budget": budget}
    local.outcome(refusals=refusals)
    seen = []
    with local.client() as client:
        job = client.jobs.create(FIELDS, **asked)
        if completes:
            client.jobs.wait(job, on_progress=lambda each: seen.append(each.status), interval=5)
        else:
            with pytest.raises(JobFailedError, match="human review"):
                client.jobs.wait(job, on_progress=lambda each: seen.append(each.status), interval=5)
    assert "awaiting_review" in seen


@pytest.mark.parametrize("mode", ["keyframes", "whatever"])
@pytest.mark.parametrize("readings", [{}], ids=["documented"])
def test_a_human_review_is_refused_where_none_is_documented(local, mode):
    with local.client() as client, pytest.raises(RequestValidationError):
        client.jobs.create(FIELDS, human_review=mode)
    assert local.created == 0


@pytest.mark.parametrize(
    ("speed", "given", "seconds"),
    [(0, None, 86_400), (1, None, 86_400), (60, None, 86_400), (3600, None, 2_160_000), (3600, 5.0, 5.0)],
)
def test_a_key_is_remembered_for_ten_real_minutes(speed, given, seconds):
    assert Settings(speed=speed, key_window=given).remembered == seconds


@pytest.mark.parametrize(
    "rows",
    ['{"no_such_row": 1}', '{"paging": "spiral"}', '{"id_names": []}', '{"first_page": "one"}', "[1]", "{"],
)
def test_a_profile_that_is_none_is_refused_at_the_start(tmp_path, rows):
    file = tmp_path / "profile.json"
    file.write_text(rows)
    said = CliRunner().invoke(emulator_command, ["--profile", str(file)])
    assert said.exit_code == 2
