# SPDX-License-Identifier: Apache-2.0
"""The client against the emulator: one body of tests for the sync and the async client."""

import inspect
import logging
import subprocess
import sys

import anyio
import httpx
import pytest

from ugen_provider import (
    AsyncUGenClient,
    AuthenticationError,
    ConfigError,
    ConflictError,
    CreateJob,
    InsufficientCreditsError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    JobPausedError,
    JobTimeoutError,
    NotFoundError,
    RateLimitError,
    ResponseError,
    RetryPolicy,
    ServerError,
    TransportError,
    UGenClient,
)
from ugen_provider.core.api.config import resolve

LAMP = CreateJob(product_name="Lamp", product_image_url="https://shop.example/lamp.jpg", segment_count=2)


class Both:
    """Calls a method of either client by its dotted name; lists are read to their end."""

    def __init__(self, local, kind):
        self._local, self._kind = local, kind

    def __call__(self, name, /, *args, settings=None, **kwargs):
        if self._kind == "sync":
            with self._local.client(**(settings or {})) as client:
                result = _method(client, name)(*args, **kwargs)
                return list(result) if inspect.isgenerator(result) else result

        async def run():
            async with self._local.async_client(**(settings or {})) as client:
                result = _method(client, name)(*args, **kwargs)
                if inspect.isasyncgen(result):
                    return [item async for item in result]
                return await result

        return anyio.run(run)


def _method(client, name):
    for part in name.split("."):
        client = getattr(client, part)
    return client


@pytest.fixture(params=["sync", "async"])
def call(request, local):
    return Both(local, request.param)


def test_a_job_is_created_waited_for_and_read(call, local):
    job = call("jobs.create", LAMP)
    done = call("jobs.wait", job.job_id, timeout=3600)
    assert (done.status, done.current_stage, done.progress_percent) == ("completed", "complete", 100)
    assert done.final_video_url.startswith("http")
    assert done.created_at.timezone_name == "UTC"
    assert [frame.index for frame in call("jobs.list_keyframes", job.job_id)] == [0, 1, 2]
    assert [segment.index for segment in call("jobs.list_videos", job.job_id)] == [0, 1]
    assert local.created == 1


def test_an_idempotency_key_is_always_sent_and_replays(call, local):
    first = call("jobs.create", LAMP, idempotency_key="k1")
    again = call("jobs.create", LAMP, idempotency_key="k1")
    assert first.job_id == again.job_id
    call("jobs.create", LAMP)
    assert [p.key_sent for p in local.world.journal.purchases] == [True, True]


def test_the_same_key_for_another_request_is_a_conflict(call):
    call("jobs.create", LAMP, idempotency_key="k1")
    with pytest.raises(ConflictError):
        call("jobs.create", LAMP.model_copy(update={"segment_count": 3}), idempotency_key="k1")


def test_lists_go_over_all_pages_and_filter(call, local):
    ids = [call("jobs.create", LAMP).job_id for _ in range(3)]
    with local.client() as client:
        ids += [client.jobs.create(LAMP).job_id for _ in range(120)]
    assert {job.job_id for job in call("jobs.list")} == set(ids)
    assert call("jobs.list", status="completed") == []
    kinds = {row.type for row in call("credits.transactions", job_id=ids[0])}
    assert kinds == {"reserve"}


def test_pause_resume_cancel_and_retry(call, local):
    job = call("jobs.create", LAMP)
    local.world.advance(10)
    call("jobs.pause", job.job_id)
    with pytest.raises(JobPausedError, match="resume"):
        call("jobs.wait", job.job_id)
    assert call("jobs.resume", job.job_id).status != "paused"
    assert call("jobs.cancel", job.job_id).status == "cancelled"
    with pytest.raises(JobCancelledError):
        call("jobs.wait", job.job_id)


def test_a_failed_job_says_why_and_can_be_retried_from_its_stage(call, local):
    local.outcome(product_name="Lamp", fail_at="audio")
    job = call("jobs.create", LAMP)
    with pytest.raises(JobFailedError, match="did not answer") as caught:
        call("jobs.wait", job.job_id)
    assert caught.value.job.current_stage == "audio"
    assert call("jobs.retry", job.job_id, restart_from_stage="audio").status in {"pending", "processing"}
    assert call("jobs.wait", job.job_id).status == "completed"


def test_a_wait_ends_at_its_deadline_and_leaves_the_job(call, local):
    job = call("jobs.create", LAMP)
    with pytest.raises(JobTimeoutError, match="keeps running"):
        call("jobs.wait", job.job_id, timeout=30)
    assert call("jobs.get", job.job_id).status == "processing"
    assert call("jobs.wait", job.job_id, target_stage="generation").current_stage in {"generation", "concat"}


def test_the_status_is_read_before_the_deadline_counts(call, local):
    job = call("jobs.create", LAMP)
    local.world.advance(10_000)
    assert call("jobs.wait", job.job_id, timeout=0).status == "completed"


def test_credits(call, local):
    before = call("credits.balance")
    estimate = call("credits.estimate", LAMP)
    call("jobs.create", LAMP)
    after = call("credits.balance")
    assert before.available_credits - after.available_credits == estimate.total_credits
    assert after.credit_reserved == estimate.total_credits


def test_suggestions_are_free(call, local):
    idea = call("jobs.suggest_fields", product_name="Lamp", product_image_url="https://shop.example/lamp.jpg")
    assert idea.key_selling_points
    assert idea.custom_script
    assert local.created == 0


def test_an_unknown_job_a_wrong_key_and_an_empty_id(call):
    with pytest.raises(NotFoundError):
        call("jobs.get", "550e8400-e29b-41d4-a716-446655440000")
    with pytest.raises(AuthenticationError):
        call("credits.balance", settings={"api_key": "ugen_sk_wrong"})
    with pytest.raises(InvalidRequestError, match="job_id"):
        call("jobs.get", " ")


def test_an_unknown_stage_is_refused_before_it_is_sent(call, local):
    with pytest.raises(InvalidRequestError, match="restart_from_stage"):
        call("jobs.retry", "j", restart_from_stage="upload")
    assert local.requests() == 0


def test_the_clients_model_is_sent_without_one_in_the_request(call, local):
    square = CreateJob(**{**LAMP.body(), "aspect_ratio": "1:1", "segment_duration": 5})
    job = call("jobs.create", square, settings={"video_model": "kling3_std"})
    assert job.video_model == "kling3_std"
    with pytest.raises(InvalidRequestError, match="aspect_ratio"):
        call("jobs.create", square)
    assert local.created == 1


def test_too_few_credits_is_typed_and_never_repeated(call, local):
    local.world.accounts.by_name["local"].credits.balance = 10
    with pytest.raises(InsufficientCreditsError) as caught:
        call("jobs.create", LAMP)
    assert (caught.value.available, local.clock.slept, local.created) == (10, [], 0)
    assert caught.value.required > 10


# Faults between the two.


def lose_answers(local, times, method="POST"):
    left = [times]

    def meddle(request, answer):
        response = answer()
        if request.method == method and left[0]:
            left[0] -= 1
            raise httpx.ReadTimeout("the answer was lost")
        return response

    local.transport.meddle = meddle


def refuse(local, statuses, **headers):
    waiting = list(statuses)

    def meddle(request, answer):
        if waiting:
            return httpx.Response(waiting.pop(0), headers=headers, content=b"<html>busy</html>")
        return answer()

    local.transport.meddle = meddle


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_lost_answer_buys_one_job(call, local, lost):
    lose_answers(local, lost)
    assert call("jobs.create", LAMP).job_id
    assert local.created == 1
    assert len(local.clock.slept) == lost


def test_the_last_attempts_error_says_that_it_may_be_sent(call, local):
    lose_answers(local, 99)
    with pytest.raises(TransportError) as caught:
        call("jobs.create", LAMP)
    assert caught.value.maybe_sent
    assert local.created == 1


@pytest.mark.parametrize("action", ["pause", "retry"])
def test_unkeyed_requests_are_not_repeated_after_a_lost_answer(call, local, action):
    local.outcome(product_name="Lamp", fail_at="audio")
    job = call("jobs.create", LAMP)
    local.world.advance(10 if action == "pause" else 10_000)
    lose_answers(local, 1)
    with pytest.raises(TransportError):
        call(f"jobs.{action}", job.job_id)
    assert local.requests("POST", f"/api/v1/jobs/{job.job_id}/{action}") == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_passing_statuses_are_repeated_for_reads(call, local, status):
    refuse(local, [status, status])
    assert call("credits.balance").available_credits > 0
    assert len(local.clock.slept) >= 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 418, 422])
def test_other_statuses_are_not(call, local, status):
    refuse(local, [status])
    with pytest.raises(Exception, match=str(status)):
        call("credits.balance")
    assert local.clock.slept == []


def test_retry_after_is_obeyed_or_raised_beyond_the_cap(call, local):
    refuse(local, [429], **{"Retry-After": "7"})
    call("credits.balance")
    assert sum(local.clock.slept) == 7
    refuse(local, [429], **{"Retry-After": "7200"})
    with pytest.raises(RateLimitError) as caught:
        call("credits.balance")
    assert caught.value.retry_after == 7200


def test_a_429_cools_down_everything_that_one_client_sends(local):
    refuse(local, [429], **{"Retry-After": "600"})
    with local.client() as client:
        with pytest.raises(RateLimitError):
            client.credits.balance()
        client.jobs.list(status="completed")
        client.credits.balance()
    assert local.clock.slept == [60.0]


def test_all_attempts_together_keep_to_a_total(call, local):
    refuse(local, [503] * 99, **{"Retry-After": "50"})
    with pytest.raises(ServerError):
        call("credits.balance", settings={"retries": RetryPolicy(attempts=99, total=180)})
    assert sum(local.clock.slept) <= 180


def test_an_answer_that_is_no_json_is_an_error_that_shows_where(call, local):
    local.transport.meddle = lambda _, __: httpx.Response(200, content=b"<html>Log in</html>")
    with pytest.raises(ResponseError, match="Log in"):
        call("credits.balance")


def test_a_redirect_is_not_followed_and_the_key_stays_here(call, local):
    seen = []

    def meddle(request, answer):
        seen.append(request)
        return httpx.Response(307, headers={"location": "https://evil.example/api/v1/jobs"})

    local.transport.meddle = meddle
    with pytest.raises(ResponseError, match="redirect"):
        call("credits.balance")
    assert len(seen) == 1


def test_a_connection_that_was_never_made_is_always_tried_again(call, local):
    left = [2]

    def meddle(request, answer):
        if left[0]:
            left[0] -= 1
            raise httpx.ConnectError("refused")
        return answer()

    job = call("jobs.create", LAMP)
    local.world.advance(10)
    local.transport.meddle = meddle
    call("jobs.pause", job.job_id)
    assert len(local.clock.slept) == 2


def test_the_key_is_in_no_log_line_and_no_repr(call, local, caplog):
    caplog.set_level(logging.DEBUG)
    secret = "ugen_sk_very_secret"
    with pytest.raises(AuthenticationError) as caught:
        call("credits.balance", settings={"api_key": secret})
    assert secret not in caplog.text
    assert secret not in repr(caught.value) + str(vars(caught.value))
    assert secret not in repr(UGenClient(api_key=secret)) + repr(UGenClient(api_key=secret).config)


# Settings.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"environ": {}}, "UGEN_API_KEY"),
        ({"api_key": "a b"}, "space"),
        ({"api_key": "k", "base_url": "http://api.example/api/v1"}, "allow_insecure"),
        ({"api_key": "k", "base_url": "api.example"}, "http"),
        ({"api_key": "k", "base_url": "https://u:p@api.example"}, "neither a user"),
        ({"api_key": "k", "spending": "perhaps"}, "spending"),
        ({"api_key": "k", "timeout": 0}, "timeout"),
        ({"api_key": "k", "retries": -1}, "retries"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, message):
    with pytest.raises(ConfigError, match=message):
        resolve(**settings)


def test_settings_come_from_arguments_environment_defaults():
    env = {"UGEN_API_KEY": "k_env", "UGEN_BASE_URL": "https://env.example/v1/", "UGEN_SPENDING": "reuse_only"}
    config = resolve(environ=env)
    assert (config.api_key.reveal(), config.base_url, config.spending) == (
        "k_env",
        "https://env.example/v1",
        "reuse_only",
    )
    assert resolve(api_key="mine", environ=env).api_key.reveal() == "mine"
    assert resolve(api_key="k", environ={}).base_url == "https://api.u-gen.ai/api/v1"
    assert resolve(api_key="k", base_url="http://10.1.2.3/v1", allow_insecure=True, environ={}).base_url


def test_both_clients_offer_the_same_names():
    def names(client):
        return {
            f"{group}.{name}"
            for group in ("jobs", "credits", "webhook", "uploads", "templates", "music", "models")
            for name in dir(getattr(client, group))
            if not name.startswith("_")
        }

    sync, aio = UGenClient(api_key="k"), AsyncUGenClient(api_key="k")
    assert names(sync) == names(aio)
    assert len(names(sync)) == 30


@pytest.mark.parametrize("kind", ["UGenClient", "AsyncUGenClient"])
def test_a_client_loads_the_models_with_the_first_answer(kind):
    code = (
        f"import sys; from ugen_provider import {kind}; client = {kind}(api_key='k')\n"
        "assert 'pydantic' not in sys.modules\n"
        "from ugen_provider.core.api import endpoints\n"
        "assert endpoints.read_listed_job({'job_id': 'j', 'status': 'completed'}).ended\n"
        "assert 'pydantic' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
