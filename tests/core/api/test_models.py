# SPDX-License-Identifier: Apache-2.0
"""Requests are what the specification shows; answers are read tolerantly, and nothing that was paid for is hidden."""

import json
import pickle
from pathlib import Path

import httpx
import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.local import NO_RETRIES
from ugen_provider import CreateJob, Job, Keyframe, ResponseError, UGenClient
from ugen_provider.core.api import endpoints
from ugen_provider.core.api.client import call_endpoint
from ugen_provider.core.api.models import JobState, state_of
from ugen_provider.core.api.pagination import read_page

GOLDEN = Path(__file__).parent / "golden"


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def answer(endpoint, body, status=200):
    """Call an endpoint against one answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    transport = httpx.MockTransport(lambda request: httpx.Response(status, content=content))
    with httpx.Client(transport=transport) as http:
        client = UGenClient(api_key="ugen_sk_golden", http_client=http, retries=NO_RETRIES)
        return call_endpoint(client, endpoint)


def test_the_documented_request_is_sent_unchanged():
    request = golden("create_request")
    assert CreateJob(**request).body() == request
    sent = endpoints.create_job({**request, "idempotency_key": "k"}).request
    assert (sent.method, sent.path, sent.json) == ("POST", "/jobs", {**request, "idempotency_key": "k"})


def test_a_documented_job_is_read_with_its_unknown_fields():
    job = answer(endpoints.get_job(golden("job")["job_id"]), golden("job"))
    assert job.state is JobState.COMPLETED
    assert job.segments[0].qai_score == 0.77
    assert job.created_at == pendulum.datetime(2026, 4, 9, 14, 30)
    assert job.created_at.timezone_name == "UTC"
    assert job.model_extra == {"a_field_of_next_year": {"deep": [1]}}
    assert pickle.loads(pickle.dumps(job)) == job
    assert json.loads(job.model_dump_json())["job_id"] == job.job_id


def test_a_job_may_be_called_id_and_be_wrapped():
    for body in ({"id": "a"}, {"job_id": "a"}, {"job": {"id": "a"}}, {"data": {"job_id": "a"}}):
        assert answer(endpoints.get_job("a"), body).job_id == "a"
    assert answer(endpoints.get_job("7"), {"id": 7}).job_id == "7"
    assert answer(endpoints.get_job("a"), {"id": "a"}).state is JobState.ACTIVE


@pytest.mark.parametrize("word", ["awaiting_review", "queued", "", "PROCESSING", "archived?"])
def test_an_unknown_status_is_not_an_end(word):
    assert state_of(word) is JobState.ACTIVE


@pytest.mark.parametrize("word", ["completed", "COMPLETED", " failed ", "cancelled", "canceled"])
def test_the_ends_are_known_in_each_spelling(word):
    assert state_of(word).ended


@pytest.mark.parametrize(
    ("field", "value"),
    [("progress_percent", "most of it"), ("credits_consumed", "15.5x"), ("final_video_url", {"url": "x"}),
     ("created_at", "yesterday"), ("segments", "none"), ("keyframes", [1, None]), ("current_stage", 3)],
)  # fmt: skip
def test_an_optional_field_of_a_wrong_type_hides_nothing_else(field, value):
    job = Job.model_validate({**golden("job"), field: value})
    assert job.job_id
    if field != "final_video_url":
        assert job.final_video_url


@pytest.mark.parametrize(
    "value", ["2026-04-09T14:30:00Z", "2026-04-09T16:30:00+02:00", "2026-04-09T14:30:00", 1775745000, 1775745000000]
)
def test_timestamps_are_pendulum_in_utc_however_they_are_written(value):
    job = Job.model_validate({"job_id": "a", "updated_at": value})
    assert job.updated_at == pendulum.datetime(2026, 4, 9, 14, 30)
    assert job.updated_at.timezone_name == "UTC"


def test_lists_come_as_envelopes_or_bare():
    page = read_page(golden("page"), page=1, page_size=20)
    assert (len(page.items), page.more, page.total) == (1, True, 42)
    assert read_page([{"job_id": "a"}], page=1, page_size=20).likely_more is False
    for body in ([golden("keyframe")], {"items": [golden("keyframe")]}, {"keyframes": [golden("keyframe")]}):
        (frame,) = answer(endpoints.list_keyframes("j"), body)
        assert isinstance(frame, Keyframe)
        assert frame.qai_score == 0.82


def test_a_missing_score_is_unknown_and_not_a_pass():
    (frame,) = answer(endpoints.list_keyframes("j"), [{"index": 0}])
    assert frame.qai_score is None


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"3", b'"x"', b"{}", b"<html>", b"\xff\xfe", b"[" * 50_000])
def test_what_is_no_job_is_a_response_error(body):
    with pytest.raises(ResponseError):
        answer(endpoints.get_job("j"), body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [*Job.model_fields, "id", "image_url", "qai_score", "items", "total", "total_pages", "type", "amount"]
)
ANSWERS = st.dictionaries(FIELDS, JSON, max_size=8)
READS = [
    endpoints.get_job("j"), endpoints.list_jobs(), endpoints.list_keyframes("j"), endpoints.list_videos("j"),
    endpoints.get_balance(), endpoints.list_transactions(), endpoints.get_webhook(), endpoints.list_models(),
    endpoints.list_templates(), endpoints.list_music_catalog(), endpoints.estimate({}), endpoints.cancel_job("j"),
]  # fmt: skip


@given(st.sampled_from(READS), ANSWERS | st.lists(ANSWERS, max_size=3) | JSON)
def test_no_json_makes_anything_but_a_response_error(operation, body):
    try:
        value = answer(operation, body)
    except ResponseError:
        return
    for item in value if isinstance(value, tuple) else [value]:
        repr(item)
