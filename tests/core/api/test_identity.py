# SPDX-License-Identifier: Apache-2.0
"""An answer about another job than the one asked for is no answer."""

import asyncio
import json

import httpx
import pytest

from tests.core.api.test_client import LAMP, Both
from ugen_provider import ResponseError
from ugen_provider.core.api.endpoints import canonical_id, is_same_id
from ugen_provider.core.api.polling import Goal
from ugen_provider.core.jobs.watcher import JobWatcher

ASKED = "550e8400-e29b-41d4-a716-446655440000"
OTHER = "550e8400-e29b-41d4-a716-446655440001"
CALLS = ["get", "cancel", "pause", "resume", "retry", "list_keyframes", "list_videos"]


@pytest.fixture(params=["sync", "async"])
def call(request, local):
    return Both(local, request.param)


def answering(job_id, *, name="job_id", wrap=None):
    def meddle(request, answer):
        body = {name: job_id, "status": "processing", "items": [{"index": 0}]}
        return httpx.Response(200, json={wrap: body} if wrap else body)

    return meddle


@pytest.mark.parametrize("name", CALLS)
def test_an_answer_about_another_job_names_both(call, local, name):
    local.transport.meddle = answering(OTHER)
    with pytest.raises(ResponseError, match=f"about job {OTHER}, and job {ASKED}") as caught:
        call(f"jobs.{name}", ASKED)
    assert caught.value.retryable


@pytest.mark.parametrize("form", [{"name": "id"}, {"wrap": "job"}, {"wrap": "data", "name": "id"}], ids=str)
@pytest.mark.parametrize("name", ["get", "cancel", "pause", "resume", "retry"])
def test_another_job_is_noticed_in_each_form(call, local, name, form):
    local.transport.meddle = answering(OTHER, **form)
    with pytest.raises(ResponseError, match=OTHER):
        call(f"jobs.{name}", ASKED)


@pytest.mark.parametrize("spelled", [ASKED.upper(), ASKED.replace("-", ""), f"{{{ASKED}}}", f"urn:uuid:{ASKED}"])
@pytest.mark.parametrize("name", ["get", "cancel", "retry"])
def test_a_uuid_is_the_same_however_it_is_spelled(call, local, name, spelled):
    local.transport.meddle = answering(spelled)
    assert is_same_id(call(f"jobs.{name}", ASKED).job_id, ASKED)


def test_other_ids_are_compared_exactly(call, local):
    local.transport.meddle = answering("JOB_a")
    with pytest.raises(ResponseError, match="JOB_a"):
        call("jobs.get", "job_a")
    assert canonical_id("JOB_a") != canonical_id("job_a")


def test_a_list_with_one_job_twice_is_an_error(call, local):
    rows = [{"job_id": ASKED}, {"job_id": ASKED.upper()}]
    pages = [rows[:1], rows[1:], []]
    local.transport.meddle = lambda request, answer: httpx.Response(200, json=pages.pop(0))
    with pytest.raises(ResponseError, match="same page again"):
        call("jobs.list")


@pytest.mark.parametrize("count", [1, 8])
def test_a_watcher_files_an_answer_under_the_id_it_asked(local, count):
    """Ids in capitals, from GETs and from lists: every wait ends with its own job."""
    with local.client() as client:
        ids = [client.jobs.create(LAMP).job_id for _ in range(count)]
    asked = [job_id.upper() for job_id in ids]

    async def run():
        async with local.async_client() as client:
            watcher = JobWatcher(client)
            return await asyncio.gather(*(watcher.wait(job_id) for job_id in asked))

    local.transport.meddle = _lower_paths(local, ids)
    ended = asyncio.run(run())
    assert [outcome.job.job_id for outcome in ended] == ids
    assert {outcome.job.status for outcome in ended} == {"completed"}


def _lower_paths(local, ids):
    """A service for which a UUID is the same in capitals."""

    def meddle(request, answer):
        lowered = type(request)(request.method, request.path.lower(), request.query, request.headers, request.body)
        reply = local.transport._service.handle(lowered)
        return httpx.Response(reply.status, headers=dict(reply.headers), content=reply.body)

    return meddle


def test_a_watcher_never_believes_an_answer_about_another_job(local):
    """Every second GET is answered with a completed stranger: the wait ends with the job itself."""
    with local.client() as client:
        job_id = client.jobs.create(LAMP).job_id
    wrong = [0]

    def meddle(request, answer):
        if request.path.endswith(job_id) and wrong[0] % 2 == 0:
            wrong[0] += 1
            return httpx.Response(200, content=json.dumps({"job_id": OTHER, "status": "completed"}).encode())
        wrong[0] += 1
        return answer()

    local.transport.meddle = meddle

    async def run():
        async with local.async_client() as client:
            return await JobWatcher(client).wait(job_id, goal=Goal())

    outcome = asyncio.run(run())
    assert (outcome.job.job_id, outcome.job.status) == (job_id, "completed")
    assert outcome.job.final_video_url or outcome.listed
