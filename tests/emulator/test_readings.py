# SPDX-License-Identifier: Apache-2.0
"""Every switch changes what a client sees, and the default is what the reference assumes."""

import hashlib
import hmac
import http.server
import threading
from contextlib import contextmanager

import httpx
import pytest

from ugen_provider.emulator.world.readings import Readings, choices, names

BODY = {"product_name": "Lamp", "product_image_url": "https://example.com/lamp.jpg", "segment_count": 2}


class Bench:
    """Objects that a check needs: the API, the emulator, its clock."""

    def __init__(self, api, world, clock):
        self.api, self.world, self.clock = api, world, clock

    def create(self, **changes):
        answer = self.api.post("/jobs", json={**BODY, **changes})
        assert answer.status_code < 300, answer.text
        self.id = answer.json().get("job_id") or answer.json()["id"]
        return answer

    def job(self):
        return self.api.get(f"/jobs/{self.id}").json()

    def act(self, action, **body):
        return self.api.post(f"/jobs/{self.id}/{action}", json=body or None)

    def cancel(self):
        return self.api.delete(f"/jobs/{self.id}")

    def done(self, **changes):
        self.create(**changes)
        self.clock.advance_until_idle()
        return self.job()

    def paused(self):
        return self.done(stop_at_stage="init")

    def failed(self, **how):
        from ugen_provider.emulator.world.pipeline import parse

        self.world.jobs.outcomes.append(parse({"fail_at": "generation", **how}))
        return self.done()

    def limited(self, **limits):
        """A tenant with limits, and the headers of its key."""
        from ugen_provider.emulator.settings import TenantSettings

        name = f"limited{len(self.world.accounts.by_name)}"
        self.world.open_tenant(TenantSettings(name=name, api_keys=(name,), bearer_tokens=(), **limits))
        return {"X-API-Key": name}

    def refused_429(self):
        headers = self.limited(concurrent_jobs=1)
        assert self.api.post("/jobs", json=BODY, headers=headers).status_code == 201
        return self.api.post("/jobs", json={**BODY, "product_name": "2"}, headers=headers)


@contextmanager
def receiver():
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.headers, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200 if len(got) > 1 else 500)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", got
    server.shutdown()
    server.server_close()


def hooked(bench, **changes):
    """The first two attempts at a delivery."""
    with receiver() as (url, got):
        bench.api.put("/tenants/me/webhook", json={"webhook_url": url, "webhook_secret": "s"})
        bench.done(**dict.fromkeys(changes, url))
        bench.clock.advance(1)
        return got


def models(b):
    named = b.api.post("/jobs", json={**BODY, "video_model": "veo3_fast"}).status_code
    return named, b.create().json()["video_model"], len(b.api.get("/models").json())


def create_status(b):
    return b.create().status_code


def replay_status(b):
    b.create(idempotency_key="k")
    return b.api.post("/jobs", json={**BODY, "idempotency_key": "k"}).status_code


def replay_ended(b):
    b.create(idempotency_key="k")
    first = b.id
    b.cancel()
    b.create(idempotency_key="k")
    return b.id == first


def conflict(b):
    b.create(idempotency_key="k")
    return b.api.post("/jobs", json={**BODY, "idempotency_key": "k", "segment_count": 3}).status_code


def conflict_compares(b):
    b.create(idempotency_key="k")
    return b.api.post("/jobs", json={**BODY, "idempotency_key": "k", "qai_enabled": True}).status_code


def id_field(b):
    return {"id", "job_id"} & set(b.create().json())


def status_words(b):
    b.create()
    words = [b.job()["status"]]
    b.cancel()
    return [*words, b.job()["status"]]


def extra_status(b):
    b.create()
    seen = set()
    while b.clock.advance_to_next_change():
        seen.add(b.job()["status"])
    return "awaiting_review" in seen


def paused_stage(b):
    return b.paused()["current_stage"]


def stop_ends(b):
    return b.paused()["status"]


def stop_at(b):
    b.paused()
    return b.api.get(f"/jobs/{b.id}/keyframes").json()[0]["status"]


def pause_pending(b):
    b.create()
    return b.act("pause").status_code


def cancel_paused(b):
    b.paused()
    return b.cancel().status_code


def cancel_answer(b):
    b.create()
    return b.cancel().status_code


def cancel_ended(b):
    b.done()
    return b.cancel().status_code, b.job()["status"]


def retry_cancelled(b):
    b.create()
    b.cancel()
    return b.act("retry").status_code


def retry_charge(b):
    whole = b.create().json()["credits_reserved"]
    b.clock.advance_until_idle()
    return b.act("retry", restart_from_stage="concat").json()["credits_reserved"] == whole


def retry_status(b):
    b.failed()
    return b.act("retry").json()["status"]


def paused_holds_slot(b):
    headers = b.limited(concurrent_jobs=1)
    assert b.api.post("/jobs", json={**BODY, "stop_at_stage": "init"}, headers=headers).status_code == 201
    b.clock.advance_until_idle()
    return b.api.post("/jobs", json={**BODY, "product_name": "2"}, headers=headers).status_code


def retry_after(b):
    answer = b.refused_429()
    body = answer.json()
    places = {
        "header": "retry-after" in answer.headers,
        "details": "retry_after" in body["error"].get("details", {}),
        "error": "retry_after" in body["error"],
        "top": "retry_after" in body,
    }
    return {place for place, there in places.items() if there}


def not_found(b):
    answer = b.api.get("/jobs/550e8400-e29b-41d4-a716-446655440000")
    return answer.status_code, list(answer.json())


def bad_job_id(b):
    return b.api.get("/jobs/nonsense").status_code


def out_of_range(b):
    answer = b.api.post("/jobs", json={**BODY, "segment_count": 20, "segment_duration": 5, "aspect_ratio": "1:1"})
    return answer.status_code, answer.json().get("segment_count")


def unknown_fields(b):
    return b.api.post("/jobs", json={**BODY, "mystery": 1}).status_code


def list_shape(b):
    return type(b.api.get("/jobs").json())


def item_lists(b):
    b.create()
    return type(b.api.get(f"/jobs/{b.id}/videos").json())


def first_listed(b):
    listed = b.api.get("/jobs").json()["items"]
    return listed[0] if listed else None


def list_items(b):
    b.create()
    return "segments" in first_listed(b)


def list_order(b):
    for name in "ABC":
        b.create(product_name=name)
        b.clock.advance(1)
    middle = next(job for job in b.api.get("/jobs").json()["items"] if job["product_name"] == "B")
    b.api.delete(f"/jobs/{middle['job_id']}")
    return "".join(job["product_name"] for job in b.api.get("/jobs").json()["items"])


def list_lag(b):
    b.create()
    fresh = first_listed(b)
    b.clock.advance(10)
    b.cancel()
    stale = first_listed(b)
    filtered = b.api.get("/jobs", params={"status": "cancelled"}).json()["total"]
    return fresh and fresh["status"], stale["status"], filtered


def list_end(b):
    for name in "ABC":
        b.create(product_name=name)
    first = b.api.get("/jobs", params={"page_size": 2}).json()
    last = b.api.get("/jobs", params={"page_size": 2, "page": 2}).json()
    assert (len(first["items"]), len(last["items"])) == (2, 1)
    said = first.keys() - {"items", "page", "page_size", "total_pages"}
    return said, any(last[name] for name in said - {"total"})


def page_most(b):
    for number in range(6):
        b.create(product_name=str(number))
    return len(b.api.get("/jobs", params={"page_size": 100}).json()["items"])


def get_lag(b):
    b.create()
    fresh = b.api.get(f"/jobs/{b.id}").status_code
    b.clock.advance(10)
    return fresh, b.api.get(f"/jobs/{b.id}").status_code


def in_flight(b):
    b.create(idempotency_key="k")
    again = b.api.post("/jobs", json={**BODY, "idempotency_key": "k"}).status_code
    b.clock.advance(10)
    return again, b.api.post("/jobs", json={**BODY, "idempotency_key": "k"}).status_code


def video_lag(b):
    b.done()
    fresh = b.job().get("final_video_url") is not None
    b.clock.advance(10)
    return fresh, b.job().get("final_video_url") is not None


def id_case(b):
    b.create()
    return b.api.get(f"/jobs/{b.id.upper()}").status_code, first_listed(b)["job_id"] == b.id.upper()


def human_review(b):
    return b.api.post("/jobs", json={**BODY, "human_review": "videos"}).status_code


def status_filter(b):
    b.create(product_name="A")
    b.cancel()
    b.create(product_name="B")
    return b.api.get("/jobs", params={"status": "pending"}).json()["total"]


def page_size_over(b):
    answer = b.api.get("/jobs", params={"page_size": 500})
    return answer.status_code, answer.json().get("page_size")


def timestamps(b):
    b.clock.advance(0.25)
    return b.create().json()["created_at"]


def keyframe_done(b):
    b.done()
    return {frame["status"] for frame in b.api.get(f"/jobs/{b.id}/keyframes").json()}


def job_keyframes(b):
    return len(b.done().get("keyframes", ()))


def nulls(b):
    return "error_message" in b.create().json(), "qai_score" in b.job()["segments"][0]


def scores(b):
    b.done()
    score = b.api.get(f"/jobs/{b.id}/keyframes").json()[0].get("qai_score")
    return score and score > 1


def suggest_form(b):
    body = {"product_name": "A", "product_image_url": "https://e.com/a.png"}
    return "cta_text" in b.api.post("/jobs/suggest-fields", json=body).json()


def webhook_url_shown(b):
    return "webhook_url" in b.api.put("/tenants/me/webhook", json={"webhook_url": "https://e.com/"}).json()


def template_limit(b):
    return [b.api.post("/templates", json={"name": "T", "config": {}}).status_code for _ in range(21)][-2:]


def output_urls(b):
    url = b.done()["final_video_url"]
    assert httpx.get(f"{b.world.base_url}{httpx.URL(url).raw_path.decode()}").status_code == 200
    b.clock.advance(3600)
    expired = httpx.get(url).status_code
    return expired, httpx.get(b.job()["final_video_url"]).status_code


def url_lifetime(b):
    b.world.set_readings({"output_urls": "expiring"})
    url = b.done()["final_video_url"]
    b.clock.advance(120)
    return httpx.get(url).status_code


def transaction_balance(b):
    b.create()
    row = b.api.get("/credits/transactions").json()["items"][0]
    return row["balance_before"] == row["balance_after"]


def settle_rows(b):
    b.done()
    rows = b.api.get("/credits/transactions", params={"job_id": b.id}).json()["items"]
    return [row["type"] for row in rows[::-1]], sum(row["amount"] for row in rows) == -b.job()["credits_consumed"]


def voice_line(b):
    return b.api.post("/credits/estimate", json={"segment_count": 2}).json()["breakdown"]["voice_over"]


def cancel_consumes(b):
    b.create()
    b.clock.advance(100)
    b.cancel()
    return b.job()["credits_consumed"] > 0


def unknown_music(b):
    return b.api.post("/jobs", json={**BODY, "custom_music_id": "nothing"}).status_code


def upload_over(b):
    big = b"\xff\xd8\xff" + bytes(10 * 1024 * 1024)
    return b.api.post("/uploads/product-image", files={"file": big}).status_code


def estimate_form(b):
    return next(iter(b.api.post("/credits/estimate", json={"segment_count": 2}).json()))


def webhook_signer(b):
    return "x-ugen-signature" in hooked(b, webhook_url=True)[0][0]


def webhook_signature(b):
    headers, body = hooked(b)[0]
    plain = hmac.new(b"s", headers["x-ugen-timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
    return headers["x-ugen-signature"].removesuffix(plain)


def webhook_timestamp(b):
    text = hooked(b)[0][0]["x-ugen-timestamp"]
    return len(text) if text.isdigit() else text[-1]


def webhook_stamp(b):
    b.world.clock.stamp = iter(range(1_000_000_000, 2_000_000_000, 60)).__next__
    try:
        first, second = hooked(b)[:2]
    finally:
        del b.world.clock.stamp
    return first[0]["x-ugen-timestamp"] == second[0]["x-ugen-timestamp"]


EXPECTED = {
    models: {"all": (201, "veo3_fast", 11), "kling_only": (422, "kling3_std", 4)},
    create_status: {201: 201, 200: 200, 202: 202},
    replay_status: {200: 200, 201: 201, 409: 409},
    replay_ended: {"return": True, "new": False},
    conflict: {"409": 409, "422": 422, "return": 200},
    conflict_compares: {"effective": 200, "sent": 409},
    id_field: {"job_id": {"job_id"}, "id": {"id"}, "both": {"id", "job_id"}},
    status_words: {
        "documented": ["pending", "cancelled"],
        "american": ["pending", "canceled"],
        "upper": ["PENDING", "CANCELLED"],
        "other": ["queued", "cancelled"],
    },
    extra_status: {"": False, "awaiting_review": True},
    paused_stage: {"finished": "init", "next": "generation"},
    stop_ends: {"paused": "paused", "completed": "completed"},
    stop_at: {"through": "approved", "before": "pending"},
    pause_pending: {"refused": 409, "allowed": 200},
    cancel_paused: {"allowed": 200, "refused": 409},
    cancel_answer: {"job": 200, "empty": 204},
    cancel_ended: {"409": (409, "completed"), "404": (404, "completed"), "200": (200, "completed")},
    retry_cancelled: {"refused": 409, "allowed": 200},
    retry_charge: {"stages": False, "whole": True},
    retry_status: {"pending": "pending", "processing": "processing"},
    paused_holds_slot: {"no": 201, "yes": 429},
    retry_after: {
        "header_and_details": {"header", "details"},
        "header": {"header"},
        "details": {"details"},
        "error": {"error"},
        "top": {"top"},
    },
    not_found: {"envelope": (404, ["error"]), "detail": (404, ["detail"]), "forbidden": (403, ["error"])},
    bad_job_id: {"404": 404, "422": 422},
    out_of_range: {"refuse": (422, None), "coerce": (201, 10)},
    unknown_fields: {"ignore": 201, "refuse": 422},
    list_shape: {"envelope": dict, "array": list},
    item_lists: {"array": list, "items": dict},
    list_items: {"brief": False, "full": True},
    list_order: {"newest": "CBA", "oldest": "ABC", "updated": "BCA"},
    list_lag: {0.0: ("pending", "cancelled", 1), 5.0: (None, "processing", 0)},
    list_end: {
        "total": ({"total"}, False),
        "has_more": ({"has_more"}, False),
        "next_page": ({"next_page"}, False),
        "next_cursor": ({"next_cursor"}, False),
        "next_link": ({"next"}, False),
    },
    page_most: {100: 6, 50: 6, 10: 6, 5: 5, 2: 2},
    get_lag: {0.0: (200, 200), 5.0: (404, 200)},
    in_flight: {0.0: (200, 200), 5.0: (409, 200)},
    video_lag: {0.0: (True, True), 5.0: (False, True)},
    id_case: {"exact": (404, False), "any": (200, False), "capitals": (200, True)},
    human_review: {"off": 422, "modes": 201},
    status_filter: {"works": 1, "nothing": 0, "ignored": 2},
    page_size_over: {"422": (422, None), "clamp": (200, 100)},
    timestamps: {
        "micros": "2026-01-01T12:00:00.250000Z",
        "seconds": "2026-01-01T12:00:00Z",
        "offset": "2026-01-01T12:00:00.250000+00:00",
    },
    keyframe_done: {"approved": {"approved"}, "completed": {"completed"}},
    job_keyframes: {"no": 0, "yes": 3},
    nulls: {"shown": (True, True), "omitted": (False, False)},
    scores: {"unit": False, "percent": True, "hidden": None},
    suggest_form: {"top": True, "nested": False},
    webhook_url_shown: {"yes": True, "no": False},
    template_limit: {"409": [201, 409], "400": [201, 400]},
    output_urls: {"lasting": (200, 200), "expiring": (403, 200)},
    url_lifetime: {3600.0: 200, 60.0: 403},
    transaction_balance: {"available": False, "balance": True},
    settle_rows: {
        "difference": (["reserve", "consume", "release"], False),
        "whole": (["reserve", "release", "consume"], True),
    },
    voice_line: {"persona": 15, "none": 0},
    cancel_consumes: {"nothing": False, "stages": True},
    unknown_music: {"422": 422, "404": 404, "ignored": 201},
    upload_over: {"413": 413, "400": 400},
    estimate_form: {name: name for name in ("total_credits", "total", "estimated_credits")} | {"missing": "error"},
    webhook_signer: {"tenant": True, "unsigned": False},
    webhook_signature: {"hex": "", "sha256=": "sha256="},
    webhook_timestamp: {"seconds": 10, "millis": 13, "iso": "Z"},
    webhook_stamp: {"fresh": False, "first": True},
}
CASES = [(check, value, seen) for check, values in EXPECTED.items() for value, seen in values.items()]


@pytest.mark.parametrize(("check", "value", "seen"), CASES, ids=[f"{c.__name__}={v}" for c, v, _ in CASES])
def test_the_switch_is_seen(api, ugen_emulator, ugen_clock, check, value, seen):
    ugen_emulator.emulator.set_readings({check.__name__: value})
    assert check(Bench(api, ugen_emulator.emulator, ugen_clock)) == seen


def test_every_switch_and_every_value_is_checked():
    assert {check.__name__ for check in EXPECTED} == set(names())
    for check, values in EXPECTED.items():
        assert not choices(check.__name__) or set(choices(check.__name__)) == set(values)


def test_the_defaults_are_what_the_reference_assumes():
    defaults = Readings().as_dict()
    for check, values in EXPECTED.items():
        assert defaults[check.__name__] == next(iter(values))


def test_every_switch_is_in_the_docs_with_all_its_values():
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "reference" / "emulator.md").read_text("utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name in names():
        assert all(f"`{value}`" in rows[name] for value in choices(name) if str(value))
