# SPDX-License-Identifier: Apache-2.0
import hashlib
import hmac
import http.server
import itertools
import json
import threading

import httpx
import pytest


class Receiver(http.server.ThreadingHTTPServer):
    """Takes webhooks and gives the answers that the test sets."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.got = []
        self.answers = []
        self.arrived = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/hook"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((dict(self.headers.items()), body))
        self.server.arrived.set()
        answer = self.server.answers.pop(0) if self.server.answers else 200
        if answer == "silence":
            self.server.silence.wait(60)
            return
        self.send_response(answer)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver():
    server = Receiver()
    server.silence = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.silence.set()
    server.shutdown()
    server.server_close()


def admin(ugen_emulator, path, **params):
    return httpx.get(f"{ugen_emulator.url}/_emulator/{path}", params=params).json()


def test_the_webhook_is_signed_and_never_shows_its_secret(api, ugen_emulator, ugen_clock, receiver):
    answer = api.put("/tenants/me/webhook", json={"webhook_url": receiver.url, "webhook_secret": "s3cret"})
    assert answer.json() == {"webhook_configured": True, "webhook_url": receiver.url}
    job = api.create()
    ugen_clock.advance_until_idle()
    [(headers, body)] = receiver.got
    event = json.loads(body)
    done = api.job(job["job_id"])
    assert event["event"] == "job.completed"
    assert {event[name] == done[name] for name in event if name not in ("event", "timestamp")} == {True}
    signed = hmac.new(b"s3cret", headers["x-ugen-timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["x-ugen-signature"] == signed
    everything = [admin(ugen_emulator, path) for path in ("webhooks", "state", "journal")]
    assert "s3cret" not in json.dumps(everything)
    assert "s3cret" not in api.get("/tenants/me/webhook").text


def test_without_a_secret_nothing_is_signed_and_job_urls_win(api, ugen_clock, ugen_faults, receiver):
    api.put("/tenants/me/webhook", json={"webhook_url": "http://127.0.0.1:1/never"})
    ugen_faults.job(fail_at="agents", kind="moderation")
    api.create(webhook_url=receiver.url)
    ugen_clock.advance_until_idle()
    [(headers, body)] = receiver.got
    event = json.loads(body)
    assert "x-ugen-signature" not in headers
    assert (event["event"], event["final_video_url"], event["credits_consumed"]) == ("job.failed", None, 0)
    assert "moderation" in event["error_message"]


@pytest.mark.parametrize("bad", [[500, 503, 302], [500] * 4])
def test_retries_after_1_4_and_16_seconds_by_the_clock(api, ugen_emulator, ugen_clock, receiver, bad):
    receiver.answers = list(bad)
    api.create(webhook_url=receiver.url)
    ugen_clock.advance_until_idle()
    assert len(receiver.got) == 1
    for seconds, count in ((0.9, 1), (0.2, 2), (3.8, 2), (0.2, 3), (15.8, 3), (0.2, 4), (3600, 4)):
        ugen_clock.advance(seconds)
        assert len(receiver.got) == count
    [delivery] = admin(ugen_emulator, "webhooks")
    assert delivery["state"] == ("dropped" if len(bad) == 4 else "delivered")
    starts = [attempt["at"] for attempt in delivery["attempts"]]
    assert [round(later - earlier) for earlier, later in itertools.pairwise(starts)] == [1, 4, 16]


def test_one_big_step_of_the_clock_drains_all_retries_in_order(api, ugen_clock, receiver):
    receiver.answers = [500, 500, 500, 200]
    api.create(webhook_url=receiver.url)
    ugen_clock.advance(3600)
    assert len(receiver.got) == 4


def test_no_answer_within_ten_seconds_counts_as_none(api, ugen_emulator, ugen_clock, receiver):
    receiver.answers = ["silence"]
    api.create(webhook_url=receiver.url)
    ugen_clock.advance(600, deliver=False)
    assert receiver.arrived.wait(30)
    ugen_clock.advance(10)
    ugen_clock.advance(1)
    assert len(receiver.got) == 2
    [delivery] = admin(ugen_emulator, "webhooks")
    assert delivery["attempts"][0]["error"] == "no answer within 10 s"


def test_twice_late_lost_forged_and_stale_on_request(api, ugen_emulator, ugen_clock, ugen_faults, receiver):
    api.put("/tenants/me/webhook", json={"webhook_url": receiver.url, "webhook_secret": "s"})
    ugen_faults.add("webhook_lost", path=receiver.url)
    ugen_faults.add("webhook_twice")
    first, second = api.create(product_name="A"), api.create(product_name="B")
    ugen_clock.advance_until_idle()
    reported = [json.loads(body)["job_id"] for _, body in receiver.got]
    assert reported[0] == reported[1]
    assert {first["job_id"], second["job_id"]} > {reported[0]}
    assert len(reported) == 2

    receiver.got.clear()
    ugen_faults.add("webhook_late", seconds=3600)
    third = api.create(product_name="C")
    ugen_clock.advance_until_idle()
    fourth = api.create(product_name="D")
    ugen_clock.advance(3600)
    assert [json.loads(body)["job_id"] for _, body in receiver.got] == [fourth["job_id"], third["job_id"]]

    receiver.got.clear()
    ugen_faults.add("webhook_forged")
    api.create(product_name="E")
    ugen_clock.advance_until_idle()
    headers, body = receiver.got[0]
    good = hmac.new(b"s", headers["x-ugen-timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["x-ugen-signature"] != good


def test_redelivery_sends_the_same_bytes_again(api, ugen_emulator, ugen_clock, receiver):
    api.create(webhook_url=receiver.url)
    ugen_clock.advance_until_idle()
    [delivery] = admin(ugen_emulator, "webhooks")
    answer = httpx.post(f"{ugen_emulator.url}/_emulator/webhooks/{delivery['id']}/redeliver")
    assert answer.status_code == 201
    assert receiver.got[0][1] == receiver.got[1][1]
    assert httpx.post(f"{ugen_emulator.url}/_emulator/webhooks/99/redeliver").status_code == 404


def test_deleting_the_webhook_leaves_retries_in_flight(api, ugen_clock, receiver):
    api.put("/tenants/me/webhook", json={"webhook_url": receiver.url, "webhook_secret": "s"})
    receiver.answers = [500]
    api.create()
    ugen_clock.advance_until_idle()
    assert api.delete("/tenants/me/webhook").status_code == 204
    assert api.get("/tenants/me/webhook").json()["webhook_configured"] is False
    ugen_clock.advance(1)
    assert len(receiver.got) == 2
    assert "x-ugen-signature" in receiver.got[1][0]


@pytest.mark.parametrize(
    "url", ["http://example.com/hook", "ftp://127.0.0.1/", "not a url", "http://127.0.0.1.evil.com/"]
)
def test_plain_http_goes_to_loopback_only(api, url):
    assert api.put("/tenants/me/webhook", json={"webhook_url": url}).status_code == 422
    body = {"product_name": "A", "product_image_url": "https://e.com/a.png", "segment_count": 1, "webhook_url": url}
    assert api.post("/jobs", json=body).status_code == 422
