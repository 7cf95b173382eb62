# SPDX-License-Identifier: Apache-2.0
"""Nothing unknown is silent: each kind of trouble ends a wait, or is reported within five minutes with what to do."""

import asyncio
import itertools
import logging

import httpx
import pytest

from tests.core.api.test_client import LAMP
from ugen_provider import ConfigError, ResponseError, UGenError
from ugen_provider.core.api.polling import JobStatusError
from ugen_provider.core.jobs.watcher import BatchPoller, JobWatcher, WatcherDiedError

PAGE = b"<html><body>One moment</body></html>"
TROUBLES = {
    "page": lambda job: httpx.Response(200, content=PAGE),
    "error with 200": lambda job: httpx.Response(200, json={"success": False, "message": "busy"}),
    "empty": lambda job: httpx.Response(200),
    "null": lambda job: httpx.Response(200, json=None),
    "429": lambda job: httpx.Response(429, headers={"retry-after": "5"}),
    "429 for an hour": lambda job: httpx.Response(429, headers={"retry-after": "3600"}),
    "503": lambda job: httpx.Response(503),
    "522": lambda job: httpx.Response(522),
    "lost": lambda job: raise_(httpx.ReadError("reset")),
    "401": lambda job: httpx.Response(401, json={"error": {"code": "X", "message": "no"}}),
    "404": lambda job: httpx.Response(404, json={"error": {"code": "X", "message": "no"}}),
    "404 page": lambda job: httpx.Response(404, content=PAGE),
    "redirect": lambda job: httpx.Response(308, headers={"location": "https://elsewhere.example/"}),
    "another job": lambda job: httpx.Response(200, json={"job_id": "another", "status": "completed"}),
    "id in capitals": lambda job: httpx.Response(200, json={"job_id": f"JOB_{job}", "status": "processing"}),
    "status null": lambda job: httpx.Response(200, json={"job_id": job, "status": None}),
    "status missing": lambda job: httpx.Response(200, json={"job_id": job}),
    "status unknown": lambda job: httpx.Response(200, json={"job_id": job, "status": "simmering"}),
    "probably ended": lambda job: httpx.Response(200, json={"job_id": job, "status": "baked", "progress": 1.0}),
}
ENDS = {"404", "404 page", "401", "redirect", "another job", "id in capitals", "probably ended"}


def raise_(error):
    raise error


def hours(local, most):
    """End the test's wait after some emulated hours."""
    began = local.world.now()

    def over():
        return local.world.now() - began > most * 3600

    return over


class Enough(BaseException):
    """The wait went on for long enough."""


@pytest.mark.parametrize("way", ["blocking", "watcher"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_each_trouble_ends_or_is_reported(local, caplog, trouble, way):
    caplog.set_level(logging.INFO, logger="ugen_provider")
    with local.client() as client:
        job = client.jobs.create(LAMP)
    began, over = local.world.now(), hours(local, 1)
    told = []

    def meddle(asked, answer):
        if asked.method != "GET" or job.job_id not in asked.path:
            return answer()
        if over():
            raise Enough
        told.append((local.world.now() - began, sum(record.levelno >= logging.WARNING for record in caplog.records)))
        return TROUBLES[trouble](job.job_id)

    local.transport.meddle = meddle
    with pytest.raises((Enough, UGenError)) as caught:
        wait(local, job.job_id, way)
    # The exception that ends the test kills the watcher's task.
    ended = isinstance(caught.value, UGenError) and not isinstance(caught.value, WatcherDiedError)
    assert ended == (trouble in ENDS), caught.value
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert ended or warnings
    # What a poll reports is counted by the next one.
    times = [seconds for (seconds, _), (_, records) in itertools.pairwise(told) if records]
    assert ended or times[0] <= 305
    if "status" in trouble or trouble == "probably ended":
        assert "status_map" in (str(caught.value) if ended else warnings[0].getMessage())


def wait(local, job_id, way):
    if way == "blocking":
        with local.client() as client:
            return client.jobs.wait_until(job_id, goal=goal())

    async def run():
        async with local.async_client() as client:
            return await JobWatcher(client).wait(job_id)

    return asyncio.run(run())


def goal():
    from ugen_provider.core.api.polling import Goal

    return Goal()


@pytest.mark.parametrize("way", ["blocking", "watcher"])
def test_a_video_that_comes_a_little_later_is_waited_for(local, way):
    with local.client() as client:
        job = client.jobs.create(LAMP)
    shown = iter([None, None, "https://cdn.example/final.mp4"])

    def meddle(asked, answer):
        if asked.method == "GET" and job.job_id in asked.path:
            body = {"job_id": job.job_id, "status": "completed", "final_video_url": next(shown)}
            return httpx.Response(200, json=body)
        return answer()

    local.transport.meddle = meddle
    assert wait(local, job.job_id, way).job.final_video_url == "https://cdn.example/final.mp4"


def test_a_mapped_word_ends_the_wait(local):
    with local.client() as client:
        job = client.jobs.create(LAMP)
    local.transport.meddle = lambda asked, answer: TROUBLES["probably ended"](job.job_id)
    with local.client(
        service_profile={"status_map": {"baked": "completed"}, "completed_without_video": True}
    ) as client:
        assert client.jobs.wait(job.job_id).status == "completed"
    with local.client() as client, pytest.raises(JobStatusError, match="baked"):
        client.jobs.wait(job.job_id)


def test_a_client_that_is_closed_under_a_watcher_ends_its_waits(local):
    with local.client() as client:
        job = client.jobs.create(LAMP)
    local.transport.meddle = lambda asked, answer: TROUBLES["503"](job.job_id)

    async def run():
        client = local.async_client()
        waiting = asyncio.create_task(JobWatcher(client).wait(job.job_id))
        await asyncio.sleep(0)
        await client._executor.transport._http.aclose()
        return await waiting

    with pytest.raises(ConfigError, match="closed"):
        asyncio.run(run())


def test_a_watcher_whose_task_dies_fails_its_waiters(local, monkeypatch):
    with local.client() as client:
        job = client.jobs.create(LAMP)

    async def run():
        async with local.async_client() as client:
            watcher = JobWatcher(client)

            async def broken(self, *args, **kwargs):
                raise ZeroDivisionError

            monkeypatch.setattr(BatchPoller, "poll", broken)
            return await asyncio.gather(*(watcher.wait(job.job_id) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in asyncio.run(run())] == [WatcherDiedError] * 3


def test_a_wait_tells_its_progress(local, caplog):
    caplog.set_level(logging.INFO, logger="ugen_provider")
    with local.client() as client:
        job = client.jobs.create(LAMP)
        client.jobs.wait(job.job_id)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith(f"job {job.job_id}: ")]
    assert any("in stage generation" in line and "%" in line for line in lines)
    assert len(lines) == len(set(lines))


def test_an_answer_about_another_job_is_no_result(local):
    with local.client() as client:
        job = client.jobs.create(LAMP)
        local.transport.meddle = lambda asked, answer: TROUBLES["another job"](job.job_id)
        with pytest.raises(ResponseError, match="another"):
            client.jobs.wait(job.job_id)
