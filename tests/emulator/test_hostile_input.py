# SPDX-License-Identifier: Apache-2.0
"""Wrong input gets the documented envelope, never a 500."""

import json
import socket

import httpx
import pytest

BODY = {"product_name": "Lamp", "product_image_url": "https://example.com/lamp.jpg", "segment_count": 2}
UNKNOWN = "550e8400-e29b-41d4-a716-446655440000"


def is_refusal(answer, status):
    body = answer.json()
    if status == 422:
        return answer.status_code == 422 and all({"type", "loc", "msg"} <= set(problem) for problem in body["detail"])
    return answer.status_code == status and {"code", "message"} <= set(body["error"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/jobs/{UNKNOWN}", 404),
        ("GET", "/jobs/not-a-uuid", 404),
        ("GET", "/jobs/%00%ff%0a", 404),
        ("DELETE", f"/jobs/{UNKNOWN}", 404),
        ("POST", f"/jobs/{UNKNOWN}/pause", 404),
        ("POST", f"/jobs/{UNKNOWN}/retry", 404),
        ("GET", f"/jobs/{UNKNOWN}/keyframes", 404),
        ("GET", "/jobs?page=0", 422),
        ("GET", "/jobs?page=-1", 422),
        ("GET", "/jobs?page=x", 422),
        ("GET", "/jobs?page_size=0", 422),
        ("GET", "/jobs?page_size=101", 422),
        ("GET", "/jobs?page=99999999999999999999999999", 422),
        ("GET", "/jobs?page=%D9%A1%F0%9D%9F%A8", 200),
        ("GET", "/credits/transactions?page=0", 422),
        ("GET", "/music/catalog?limit=-3", 422),
        ("GET", "/nothing/here", 404),
        ("PUT", "/jobs", 405),
        ("DELETE", "/music/custom/nothing", 404),
        ("GET", "/models/nothing", 404),
    ],
)
def test_paths_and_queries(api, method, path, status):
    answer = api.request(method, path)
    assert answer.status_code == status if status == 200 else is_refusal(answer, status)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"product_name": NaN}', b"{}", b"1e999"],
    ids=lambda content: repr(content[:12]),
)
@pytest.mark.parametrize("path", ["/jobs", "/jobs/suggest-fields", "/credits/estimate", "/templates"])
def test_bodies_that_are_no_request(api, path, content):
    answer = api.post(path, content=content, headers={"Content-Type": "application/json"})
    assert is_refusal(answer, 422)


@pytest.mark.parametrize(
    "change",
    [
        {"segment_count": 0},
        {"segment_count": -1},
        {"segment_count": 11},
        {"segment_count": 10**400},
        {"segment_count": 1.5},
        {"product_name": ""},
        {"product_name": "x" * 100_000},
        {"product_name": None},
        {"product_image_url": "ftp://example.com/a.jpg"},
        {"product_image_url": "http://["},
        {"segment_duration": 5},
        {"aspect_ratio": "1:1"},
        {"aspect_ratio": "4:3"},
        {"video_model": "kling3_std", "segment_duration": 11},
        {"video_model": "nothing"},
        {"max_retries_keyframe": 6},
        {"max_retries_video": -1},
        {"music_volume": 1.5},
        {"qai_mode": "harsh"},
        {"human_review": "on"},
        {"failure_behavior": "explode"},
        {"stop_at_stage": "lunch"},
        {"idempotency_key": ""},
        {"idempotency_key": "k" * 1000},
        {"custom_music_id": "nothing"},
        {"key_selling_points": "one"},
        {"webhook_url": "http://example.com/"},
    ],
    ids=lambda change: str(change)[:60],
)
def test_fields_against_the_rules_buy_nothing(api, ugen_emulator, change):
    answer = api.post("/jobs", content=json.dumps({**BODY, **change}))
    assert is_refusal(answer, 422)
    assert not ugen_emulator.emulator.journal.purchases


@pytest.mark.parametrize("size", [3_000_000, 10_000_000, 70_000_000])
def test_a_body_that_is_far_too_large(api, size):
    answer = api.post("/jobs", content=b'{"product_name": "' + b"x" * size + b'"}')
    assert is_refusal(answer, 413)


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-API-Key": "wrong"}, {"X-API-Key": ""}, {"Authorization": "Bearer nope", "X-API-Key": "ugen_sk_local"},
     {"Authorization": "Basic abc"}, {"Authorization": "Bearer"}],
)  # fmt: skip
def test_wrong_credentials(ugen_emulator, headers):
    answer = httpx.get(f"{ugen_emulator.base_url}/jobs", headers=headers)
    assert is_refusal(answer, 401)
    assert "ugen_sk_local" not in answer.text


def test_a_token_is_as_good_as_a_key(api, ugen_emulator):
    job = api.create()
    answer = httpx.get(
        f"{ugen_emulator.base_url}/jobs/{job['job_id']}", headers={"Authorization": "Bearer ugen_jwt_local"}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"files": {"file": b""}}, 400),
        ({"files": {"file": b"no picture"}}, 400),
        ({"files": {"file": b"\xff\xd8\xff" + b"x" * (10 * 1024 * 1024)}}, 413),
        ({"files": {"other": b"\xff\xd8\xff"}}, 422),
        ({"content": b"garbage", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 422),
        ({"content": b"garbage", "headers": {"Content-Type": "multipart/form-data"}}, 422),
        ({"json": {"file": "x"}}, 422),
    ],
)
def test_uploads_that_are_none(api, form, status):
    assert is_refusal(api.post("/uploads/product-image", **form), status)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "clock/advance", {}),
        ("POST", "clock/advance", {"seconds": -1}),
        ("POST", "clock/advance", {"seconds": "x"}),
        ("POST", "clock/advance", []),
        ("PUT", "clock", {"speed": -1}),
        ("POST", "reset", {"seed": "x"}),
        ("POST", "outcomes", {"fail_at": "lunch"}),
        ("POST", "outcomes", {"score": 7}),
        ("POST", "outcomes", {"nonsense": 1}),
        ("POST", "outcomes", {"kind": 3}),
        ("POST", "faults", {"kind": "slow", "seconds": "long"}),
        ("POST", "faults", {"kind": "status", "status": 200}),
        ("POST", "faults", {"kind": "reset", "path": 3}),
        ("POST", "faults", 3),
        ("PUT", "readings", {"create_status": 500}),
        ("PUT", "readings", {"list_lag": "nan"}),
        ("POST", "tenants", {}),
        ("POST", "tenants", {"name": "local"}),
        ("POST", "tenants", {"name": "x", "credits": -1}),
        ("POST", "tenants", {"name": "x", "api_keys": "ugen_sk_local"}),
        ("POST", "tenants", {"name": "x", "api_keys": ["ugen_sk_local"]}),
        ("POST", "credits", {"amount": -5}),
        ("PUT", "state", {"format": 1, "readings": {}, "now": 0, "records": [["job", "x", 0, {}]], "blobs": []}),
        ("GET", "journal?since=x", None),
    ],
)
def test_admin_says_what_is_wrong_too(api, ugen_emulator, method, path, body):
    job = api.create()
    answer = httpx.request(method, f"{ugen_emulator.url}/_emulator/{path}", json=body)
    assert is_refusal(answer, 422)
    assert api.job(job["job_id"])["job_id"] == job["job_id"]


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\nX-API-Key: \xff\xfe\r\n\r\n",
        (
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nX-API-Key: ugen_sk_local\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\n{}\r\n0\r\n\r\n"
        ),
        b"GET /media/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /media/uploads/x/..%2f..%2fetc HTTP/1.1\r\nHost: x\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_raw_requests(ugen_emulator, raw):
    with socket.create_connection(("127.0.0.1", ugen_emulator.port), timeout=10) as connection:
        connection.sendall(raw)
        status = int(connection.recv(4096).split()[1])
    assert 400 <= status < 500


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://["])
def test_a_page_of_another_site_cannot_steer_it(ugen_emulator, origin):
    answer = httpx.post(f"{ugen_emulator.url}/_emulator/reset", headers={"Origin": origin}, content=b"{}")
    assert is_refusal(answer, 403)
    own = httpx.post(f"{ugen_emulator.url}/_emulator/reset", headers={"Origin": ugen_emulator.url})
    assert own.status_code == 200


def test_nothing_but_the_clock_module_reads_the_time():
    import re
    from pathlib import Path

    import ugen_provider.emulator

    root = Path(ugen_provider.emulator.__file__).parent
    reading = re.compile(
        r"time\.(time|monotonic|perf_counter|sleep)|\.now\((UTC|tz)|utcnow|datetime\.now|asyncio\.sleep"
    )
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if reading.search(path.read_text("utf-8"))}
    assert found == {"world/clock.py"}
