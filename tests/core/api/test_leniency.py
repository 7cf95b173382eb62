# SPDX-License-Identifier: Apache-2.0
"""One leniency for every answer: envelopes, spellings, nulls, numbers as text, and errors in any usual form."""

import contextlib
import itertools
import json

import httpx
import pytest

from tests.core.api.test_client import LAMP, Both
from ugen_provider import ResponseError
from ugen_provider.core.api.answers import in_documented_form, snake_case
from ugen_provider.core.api.endpoints import Form
from ugen_provider.core.api.errors import APIError, ConfigError
from ugen_provider.core.api.profile import DEFAULT_PROFILE, ServiceProfile


@pytest.fixture(params=["sync", "async"])
def call(request, local):
    return Both(local, request.param)


JOB = {
    "job_id": "550e8400-e29b-41d4-a716-446655440000",
    "status": "completed",
    "current_stage": "complete",
    "progress_percent": 100,
    "segments": [{"segment_id": "s", "index": 0, "video_url": "https://cdn.example/s.mp4"}],
    "final_video_url": "https://cdn.example/final.mp4",
    "thumbnail_url": "https://cdn.example/t.png",
    "credits_reserved": 86,
    "credits_consumed": 71,
    "idempotency_key": "order-7",
    "created_at": "2026-04-09T14:30:00Z",
}


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def spelled(value, spell):
    if isinstance(value, dict):
        return {spell(name): spelled(item, spell) for name, item in value.items()}
    return [spelled(item, spell) for item in value] if isinstance(value, list) else value


SPELLINGS = {"snake": str, "camel": camel, "pascal": lambda name: camel(name)[0].upper() + camel(name)[1:]}
ENVELOPES = {
    "bare": lambda body: body,
    "data": lambda body: {"data": body, "error": None},
    "job": lambda body: {"job": body},
    "result": lambda body: {"success": True, "result": body},
    "response": lambda body: {"success": True, "message": "OK", "response": body},
    "twice": lambda body: {"code": 100, "data": {"job": body}},
    "list of one": lambda body: {"data": [body]},
}
MATRIX = list(itertools.product(ENVELOPES, SPELLINGS))


class Answering:
    """Answers every request with one body."""

    def __init__(self, body, *, status=200, headers=None):
        self.body, self.status, self.headers = body, status, headers or {}
        self.asked = 0

    def __call__(self, asked, answer):
        self.asked += 1
        content = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        return httpx.Response(self.status, headers=self.headers, content=content)


@pytest.mark.parametrize(("envelope", "spelling"), MATRIX)
def test_a_job_is_read_in_every_envelope_and_spelling(call, local, envelope, spelling):
    local.transport.meddle = Answering(ENVELOPES[envelope](spelled(JOB, SPELLINGS[spelling])))
    job = call("jobs.get", JOB["job_id"])
    assert (job.job_id, job.status, job.credits_consumed) == (JOB["job_id"], "completed", 71)
    assert job.final_video_url == JOB["final_video_url"]
    assert job.segments[0].video_url == "https://cdn.example/s.mp4"
    assert job.created_at.year == 2026


@pytest.mark.parametrize(("envelope", "spelling"), MATRIX)
def test_credits_are_read_in_every_envelope_and_spelling(call, local, envelope, spelling):
    wrap, spell = ENVELOPES[envelope], SPELLINGS[spelling]
    balance = {"credit_balance": 100, "credit_reserved": 30, "available_credits": 70}
    local.transport.meddle = Answering(wrap(spelled(balance, spell)))
    assert call("credits.balance").available_credits == 70
    local.transport.meddle = Answering(wrap(spelled({"total_credits": 86, "breakdown": {"video": 40}}, spell)))
    assert call("credits.estimate", LAMP).total_credits == 86


LISTS = {
    "array": lambda rows: rows,
    "items": lambda rows: {"items": rows, "total": len(rows)},
    "data": lambda rows: {"object": "list", "data": rows, "has_more": False},
    "results": lambda rows: {"count": len(rows), "next": None, "previous": None, "results": rows},
    "nested": lambda rows: {"code": 100, "data": {"list": rows, "total": len(rows)}},
    "response": lambda rows: {"success": True, "response": {"data": rows, "total": len(rows)}},
    "own name": lambda rows: {"renders": rows, "total": len(rows)},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("shape", LISTS)
def test_lists_are_read_in_every_shape(call, local, shape, spelling):
    def one_page(rows):
        def meddle(asked, answer):
            first = "page=1" in asked.query or not asked.query
            return httpx.Response(200, json=LISTS[shape](spelled(rows, SPELLINGS[spelling]) if first else []))

        return meddle

    local.transport.meddle = one_page([JOB, {**JOB, "job_id": "b"}])
    assert [job.job_id for job in call("jobs.list")] == [JOB["job_id"], "b"]
    rows = [{"id": "t", "type": "reserve", "amount": "-86.0", "job_id": "a", "created_at": 1_775_745_000}]
    local.transport.meddle = one_page(rows)
    assert [(row.type, row.amount, row.job_id) for row in call("credits.transactions")] == [("reserve", -86, "a")]
    local.transport.meddle = one_page([{"id": "k", "index": "0", "url": "https://cdn.example/k.png", "score": "0.8"}])
    (keyframe,) = call("jobs.list_keyframes", "a")
    assert (keyframe.index, keyframe.image_url, keyframe.qai_score) == (0, "https://cdn.example/k.png", 0.8)
    local.transport.meddle = one_page([{"video_id": 5, "video": {"url": "https://cdn.example/v.mp4"}, "duration": "8"}])
    (segment,) = call("jobs.list_videos", "a")
    assert (segment.segment_id, segment.video_url, segment.duration) == ("5", "https://cdn.example/v.mp4", 8)


ODD_VALUES = [None, "", [], {}, "text", -1, 10**30, True, [None], {"x": [1]}, "12.5", 3.7, "NaN"]
ODD_VALUES += [10**400, -(10**400), "9" * 400, 1e308, 1e400, 2**40, "a\0b", "\ud800"]


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: repr(value)[:20])
def test_no_odd_value_hides_a_job(value):
    """Whatever one field holds, the job is read, or refused as a whole where its id is odd."""
    from ugen_provider.core.api import endpoints

    for name in JOB:
        endpoint = endpoints.get_job(JOB["job_id"])
        body = in_documented_form({**JOB, name: value}, endpoint.form, DEFAULT_PROFILE) if name != "job_id" else None
        if body is not None:
            job = endpoint.parse(body)
            assert job.job_id == JOB["job_id"]


@pytest.mark.parametrize(
    ("given", "have"),
    [
        ({"available_credits": "70"}, 70),
        ({"available_credits": 70.9}, 70),
        ({"creditBalance": 70}, 70),
        ({"data": {"remaining_quota": 70}}, 70),
        ({"credit_balance": 100, "credit_reserved": "30"}, 70),
        ({"data": 70}, 70),
        ({"credits": {"remaining": 70}}, 70),
        (70, 70),
    ],
    ids=str,
)
def test_balances_of_other_services_are_read(call, local, given, have):
    local.transport.meddle = Answering(given)
    assert call("credits.balance").available_credits == have


@pytest.mark.parametrize("body", [{"total": 85.2}, {"credits": "85.2"}, {"data": {"cost": 85.2}}, 85.2], ids=str)
def test_an_estimate_is_rounded_up(call, local, body):
    local.transport.meddle = Answering(body)
    assert call("credits.estimate", LAMP).total_credits == 86


VIDEOS = {
    "output text": {"status": "succeeded", "output": "https://cdn.example/a.mp4"},
    "output list": {"status": "SUCCEEDED", "output": ["https://cdn.example/a.mp4"]},
    "output object": {"status": "done", "output": {"video": "https://cdn.example/a.mp4"}},
    "url": {"status": "done", "url": "https://cdn.example/a.mp4?sig=1"},
    "video object": {"status": "complete", "video": {"url": "https://cdn.example/a.mp4"}},
    "video_output": {"state": "finished", "video_output": "https://cdn.example/a.mp4"},
}


@pytest.mark.parametrize("form", VIDEOS)
def test_a_final_video_is_found_under_other_names(call, local, form):
    local.transport.meddle = Answering({"id": "a", **VIDEOS[form]})
    job = call("jobs.get", "a")
    assert (job.state.value, job.final_video_url and job.final_video_url.split("?")[0]) == (
        "completed",
        "https://cdn.example/a.mp4",
    )


def test_a_preview_of_a_running_job_is_no_final_video(call, local):
    local.transport.meddle = Answering({"id": "a", "status": "processing", "output": "https://cdn.example/a.mp4"})
    assert call("jobs.get", "a").final_video_url is None


ERRORS_WITH_200 = [
    {"error": {"code": "NOT_FOUND", "message": "no such job"}},
    {"success": False, "message": "no such job"},
    {"code": 400, "message": "no such job", "data": None},
    {"status": "error", "message": "no such job"},
    {"id": "req_1", "error": {"message": "no such job"}},
    {"errors": [{"message": "no such job"}]},
]


@pytest.mark.parametrize("body", ERRORS_WITH_200, ids=str)
@pytest.mark.parametrize("name", ["jobs.get", "jobs.list", "credits.balance", "jobs.list_videos"])
def test_an_error_with_200_is_an_error_with_its_message(call, local, body, name):
    local.transport.meddle = Answering(body)
    with pytest.raises(ResponseError, match="no such job") as caught:
        call(name, *(["a"] if name in {"jobs.get", "jobs.list_videos"} else []))
    assert caught.value.body


@pytest.mark.parametrize(
    "job_id", ["", " ", "a\0b", "\ud800", "a\nb", "a" * 201, True, None, []], ids=lambda one: repr(one)[:12]
)
def test_no_ledger_is_given_an_id_that_it_cannot_keep(call, local, job_id):
    local.transport.meddle = Answering(json.dumps({**JOB, "job_id": job_id}).encode())
    with pytest.raises(ResponseError, match="no object with a job's id"):
        call("jobs.create", LAMP)
    local.transport.meddle = Answering(json.dumps({"items": [{**JOB, "job_id": job_id}, JOB], "total": 2}).encode())
    assert [job.job_id for job in call("jobs.list")] == [JOB["job_id"]]


def test_no_text_of_the_service_is_one_that_nothing_stores(call, local):
    words = json.dumps({**JOB, "status": "failed", "error_message": "a\0b \ud800 \U0001f600"}).encode()
    raw = words.replace(b"\\ud800", b"\xed\xa0\x80")
    for content in (words, raw, json.dumps(json.loads(words), ensure_ascii=False).encode("utf-16-be", "surrogatepass")):
        local.transport.meddle = Answering(content)
        assert call("jobs.get", JOB["job_id"]).error_message == "a\ufffdb \ufffd \U0001f600"


def test_the_id_of_a_request_is_no_job(call, local):
    local.transport.meddle = Answering(b'{"id": "req_1", "message": "accepted", "job": {"id": "job_7"}}')
    assert call("jobs.create", LAMP).job_id == "job_7"


@pytest.mark.parametrize("location", ["/api/v1/jobs/job%207", "http://other.example/api/v1/jobs/job%207/?x=1"])
@pytest.mark.parametrize("body", [b"", b"{}", b"<html>"])
def test_a_create_is_read_from_its_location(call, local, location, body):
    local.transport.meddle = lambda _, __: httpx.Response(201, content=body, headers={"Location": location})
    assert call("jobs.create", LAMP).job_id == "job 7"


@pytest.mark.parametrize("location", ["", "/login", "/api/v1/jobs", "/api/v1/jobs/", "http://[", "https://x.example/"])
def test_a_location_that_names_no_job_is_none(call, local, location):
    local.transport.meddle = lambda _, __: httpx.Response(201, content=b"{}", headers={"Location": location})
    with pytest.raises(ResponseError):
        call("jobs.create", LAMP)


UNREADABLE = [b"", b"<html>hello</html>", b"7", b"null", b'"text"', b"[]", b"{}", b'{"a": {}}', b"[" * 5000, b"\xff"]


@pytest.mark.parametrize("body", UNREADABLE, ids=lambda body: repr(body[:12]))
def test_what_cannot_be_read_ends_inside_the_error_tree(call, local, body):
    local.transport.meddle = Answering(body)
    for name, arguments in (
        ("jobs.get", ["a"]),
        ("jobs.list", []),
        ("credits.balance", []),
        ("credits.transactions", []),
        ("jobs.list_keyframes", ["a"]),
        ("models.list", []),
        ("templates.list", []),
        ("music.catalog", []),
    ):
        with contextlib.suppress(ResponseError):
            call(name, *arguments)


ERROR_FORMS = {
    "documented": {"error": {"code": "X", "message": "too many words"}},
    "text": {"error": "too many words"},
    "message": {"message": "too many words"},
    "msg": {"code": "X", "msg": "too many words"},
    "detail": {"detail": "too many words"},
    "detail object": {"detail": {"message": "too many words"}},
    "problem": {"type": "about:blank", "title": "Bad Request", "detail": "too many words"},
    "errors": {"errors": [{"message": "too many words"}]},
    "errors by field": {"errors": {"custom_script": ["too many words"]}},
    "fields": {"custom_script": ["too many words"]},
    "oauth": {"error": "invalid_request", "error_description": "too many words"},
    "stripe": {"error": {"type": "invalid_request_error", "message": "too many words", "param": "x"}},
    "shotstack": {"success": False, "message": "", "response": {"error": "X", "message": "too many words"}},
    "aws": {"Message": "too many words"},
    "fault": {"fault": {"faultstring": "too many words"}},
    "heygen": {"data": None, "error": {"code": "X", "message": "too many words"}},
    "array": ["too many words"],
    "plain text": "too many words",
    "camel": {"errorMessage": "too many words"},
}


@pytest.mark.parametrize("form", ERROR_FORMS)
@pytest.mark.parametrize("status", [400, 403, 404, 422, 418])
def test_every_usual_error_has_its_message(call, local, form, status):
    local.transport.meddle = Answering(ERROR_FORMS[form], status=status)
    with pytest.raises(APIError, match="too many words"):
        call("jobs.get", "a")


@pytest.mark.parametrize("name", ["job_id", "finalVideoURL", "JobID", "progress-percent", "a b", "URL", "x2y"])
def test_names_reach_one_spelling(name):
    assert snake_case(snake_case(name)) == snake_case(name)
    assert snake_case(name) == snake_case(name).lower()


def test_a_profile_decides_what_words_mean(local):
    body = {"id": "a", "status": "Baked", "clip": "https://cdn.example/a.mp4"}
    profile = ServiceProfile.of({"status_map": {"baked": "completed"}, "video_names": ["clip"]})
    read = in_documented_form(body, Form.JOB, profile)
    assert (read["status"], read["service_status"], read["final_video_url"]) == ("completed", "Baked", body["clip"])
    assert in_documented_form(body, Form.JOB, DEFAULT_PROFILE)["status"] == "Baked"


@pytest.mark.parametrize("seconds", [0, 10, 599.9])
def test_profile_never_believes_a_list_within_ten_minutes(seconds):
    """A list that lags proves nothing; a setting that says otherwise would buy an order again."""
    with pytest.raises(ConfigError, match="at least 600 seconds"):
        ServiceProfile.of({"list_lag": seconds})
    assert ServiceProfile.of({"list_lag": 1200}).list_lag == 1200.0
