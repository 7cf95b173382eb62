# SPDX-License-Identifier: Apache-2.0
"""The client as a new user tries it: fields, mappings, a job in the place of its id, progress, and hints."""

import inspect
import pickle

import anyio
import httpx
import pytest

import ugen_provider
from tests.core.api.test_client import LAMP, Both
from ugen_provider import (
    AsyncUGenClient,
    ConfigError,
    CreateJob,
    InvalidRequestError,
    JobError,
    JobWatcher,
    ResponseMetadata,
    ServerError,
    UGenClient,
    buy,
)
from ugen_provider.core.api.models import RequestIgnoredWarning
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

FIELDS = {"product_name": "Lamp", "product_image_url": "https://shop.example/l.jpg", "segment_count": 2}


@pytest.fixture(params=["sync", "async"])
def call(request, local):
    return Both(local, request.param)


@pytest.mark.parametrize("way", ["fields", "mapping", "request", "request and fields", "mapping and fields"])
def test_a_job_is_created_in_each_way(call, way):
    match way:
        case "fields":
            job = call("jobs.create", **FIELDS)
        case "mapping":
            job = call("jobs.create", FIELDS)
        case "request":
            job = call("jobs.create", CreateJob(**FIELDS))
        case "request and fields":
            job = call("jobs.create", LAMP, product_name="Lamp", segment_count=2)
        case _:
            job = call("jobs.create", {**FIELDS, "segment_count": 5}, segment_count=2)
    assert (job.product_name, job.model_extra["segment_count"]) == ("Lamp", 2)


@pytest.mark.parametrize(
    "given", [{}, {"product_name": "Lamp"}, {**FIELDS, "product_nam": "x"}, {**FIELDS, "segment_count": "two"}]
)
def test_a_wrong_request_is_an_error_of_ours(call, local, given):
    with pytest.raises(InvalidRequestError):
        call("jobs.create", given)
    with pytest.raises(InvalidRequestError):
        call("jobs.create", **given)
    assert local.created == 0


@pytest.mark.parametrize("name", ["get", "list_keyframes", "list_videos", "cancel", "wait"])
def test_a_job_stands_for_its_id(call, name):
    job = call("jobs.create", **FIELDS)
    if name == "wait":
        assert call("jobs.wait", job).job_id == job.job_id
    else:
        call(f"jobs.{name}", job)


@pytest.mark.parametrize(("limit", "count"), [(None, 7), (0, 0), (1, 1), (3, 3), (50, 7)])
def test_a_list_ends_at_its_limit(call, local, limit, count):
    for _ in range(7):
        call("jobs.create", **FIELDS)
    assert len(call("jobs.list", limit=limit, page_size=2)) == count
    asked = [entry.query for entry in local.world.journal.find_requests(method="GET", path="/api/v1/jobs")]
    assert all("page_size=2" in query for query in asked)
    assert len(asked) == {None: 4, 0: 0, 1: 1, 3: 2, 50: 4}[limit]


def test_a_purchase_tells_its_progress(local, tmp_path):
    from ugen_provider.core.ledger.store import Ledger

    seen = []
    with local.client() as client, Ledger.init(str(tmp_path / "l.db"), allow_ephemeral=True) as ledger:
        buy(client, FIELDS, name="lamp", ledger=ledger, on_progress=seen.append)
    assert {job.status for job in seen} >= {"processing", "completed"}


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [("aspect_ratio", "9:17", "9:16"), ("qai_mode", "strickt", "strict"), ("video_model", "klng3", "kling3")],
)
def test_a_near_miss_is_a_warning(field, value, meant):
    with pytest.warns(RequestIgnoredWarning, match=f"did you mean '{meant}"):
        CreateJob(**FIELDS, **{field: value})


def test_public_names_are_at_most_sixty():
    assert len(ugen_provider.__all__) <= 60
    assert all(hasattr(ugen_provider, name) for name in ugen_provider.__all__)


@pytest.fixture(params=["sync", "async"])
def served(request):
    """An emulator behind a socket, and calls of either client; its files are read over http."""
    with EmulatorServer(Settings(speed=0)) as server:
        yield server, Served(server, request.param)


class Served(Both):
    def __init__(self, server, kind):
        super().__init__(self, kind)
        self._settings = {"api_key": LOCAL_KEY, "base_url": server.base_url}

    def client(self, **settings):
        return UGenClient(**self._settings, **settings)

    def async_client(self, **settings):
        return AsyncUGenClient(**self._settings, **settings)


def test_download_stores_the_files_of_a_job(served, tmp_path):
    server, call = served
    job = call("jobs.create", **FIELDS)
    server.emulator.advance(3600)
    kinds = ("final", "thumbnail", "keyframes")
    manifest = call("jobs.download", job, to=tmp_path, include=kinds)
    stored = {path.name for path in (tmp_path / job.job_id).rglob("*")}
    assert {"final.mp4", "thumbnail.png", "manifest.json"} < stored
    assert (tmp_path / job.job_id / "final.mp4").stat().st_size == manifest.file("final").bytes
    again = call("jobs.download", job.job_id, to=str(tmp_path), include=kinds)
    assert again.file("final").sha256 == manifest.file("final").sha256


def test_download_renews_links_that_expired(served, tmp_path):
    server, call = served
    server.emulator.set_readings({"output_urls": "expiring"})
    server.emulator.faults.add({"kind": "expired", "path": "/media/*/final-*", "times": 1})
    job = call("jobs.create", **FIELDS)
    server.emulator.advance(3600)
    manifest = call("jobs.download", job, to=tmp_path)
    assert (tmp_path / job.job_id / "final.mp4").stat().st_size == manifest.file("final").bytes
    assert len(server.emulator.journal.find_requests(method="GET", path=f"/api/v1/jobs/{job.job_id}")) == 2


@pytest.mark.parametrize("end", [False, True])
def test_download_of_a_job_without_files_is_an_error(call, local, tmp_path, end):
    job = call("jobs.create", **FIELDS)
    if end:
        call("jobs.cancel", job)
    with pytest.raises(JobError) as caught:
        call("jobs.download", job, to=tmp_path)
    assert (caught.value.retryable, caught.value.job_id) == (not end, job.job_id)
    assert list(tmp_path.iterdir()) == []


def finish(result):
    """Return the result of either client's call."""

    async def run():
        return await result

    return anyio.run(run) if inspect.isawaitable(result) else result


OPTIONS = {"timeout": 2.5, "retries": 0, "headers": {"X-Trace": "t-1"}}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_options_hold_for_the_narrowed_client_alone(local, kind):
    sent = []

    def meddle(asked, answer):
        sent.append(asked.headers.get("x-trace"))
        return httpx.Response(503) if len(sent) == 1 else answer()

    local.transport.meddle = meddle
    client = local.client() if kind == "sync" else local.async_client()
    narrowed = client.with_options(**OPTIONS)
    with pytest.raises(ServerError):
        finish(narrowed.credits.balance())
    assert finish(client.credits.balance()).credit_balance > 0
    assert (sent, narrowed.config.timeout, client.config.timeout) == (["t-1", None], 2.5, 30.0)
    finish(narrowed.close() if kind == "sync" else narrowed.aclose())
    assert finish(client.credits.balance()).credit_balance > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"retries": -1},
        {"headers": {"X-API-Key": "another"}},
        {"headers": {"Authorization": "Bearer x"}},
        {"headers": {"User-Agent": "me"}},
        {"headers": {"a b": "c"}},
        {"headers": {"x": "line\nbreak"}},
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_before_a_request(client, local, wrong):
    with pytest.raises(ConfigError):
        client.with_options(**wrong)
    assert local.requests() == 0


def test_an_answer_carries_its_metadata(call, local):
    headers = {"X-Request-Id": "req_7", "X-RateLimit-Remaining": "41", "Set-Cookie": "session=secret"}

    def meddle(asked, answer):
        answered = answer()
        answered.headers.update(headers)
        return answered

    plain = call("jobs.create", **FIELDS)
    local.transport.meddle = meddle
    job = call("jobs.get", plain)
    seen = job.response_metadata
    assert (seen.status, seen.request_id, dict(seen.rate_limits)) == (200, "req_7", {"x-ratelimit-remaining": "41"})
    assert call("credits.balance").response_metadata.request_id == "req_7"
    assert "req_7" not in job.model_dump_json()
    assert job == call("jobs.get", plain)
    assert pickle.loads(pickle.dumps(job)).response_metadata == seen
    assert call("jobs.list")[0].response_metadata == ResponseMetadata()


def test_transactions_and_estimates_take_a_job(call):
    job = call("jobs.create", **FIELDS)
    call("jobs.create", **FIELDS)
    assert {row.job_id for row in call("credits.transactions", job_id=job)} == {job.job_id}
    assert (
        call("credits.estimate", **FIELDS).total_credits == call("credits.estimate", CreateJob(**FIELDS)).total_credits
    )


HIDDEN = ("call", "caller", "run", "clock")


@pytest.mark.parametrize("name", HIDDEN)
def test_the_client_shows_no_inner_part(client, local, name):
    assert not hasattr(client, name)
    assert not hasattr(local.async_client(), name)


def test_the_watcher_shows_its_waits_alone(local):
    public = {name for name in dir(JobWatcher(local.async_client())) if not name.startswith("_")}
    assert public == {"wait", "waiting", "aclose", "client"}
