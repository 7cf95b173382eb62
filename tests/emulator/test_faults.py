# SPDX-License-Identifier: Apache-2.0
import httpx
import pytest

BODY = {"product_name": "Lamp", "product_image_url": "https://example.com/lamp.jpg", "segment_count": 1}


def test_done_but_the_answer_is_lost(api, ugen_emulator, ugen_faults):
    rule = ugen_faults.add("lost", method="POST", path="/api/v1/jobs")
    with pytest.raises(httpx.ReadError, match="reset"):
        api.post("/jobs", json={**BODY, "idempotency_key": "k"})
    assert rule.hits == 1
    [bought] = ugen_emulator.emulator.journal.purchases
    again = api.post("/jobs", json={**BODY, "idempotency_key": "k"})
    assert (again.status_code, again.json()["job_id"]) == (200, bought.job_id)


def test_reset_before_anything_was_done(api, ugen_emulator, ugen_faults):
    ugen_faults.add("reset", method="POST", path="/api/v1/jobs")
    with pytest.raises(httpx.TransportError):
        api.post("/jobs", json=BODY)
    assert not ugen_emulator.emulator.journal.purchases


@pytest.mark.parametrize(("retry_after", "header"), [(None, None), (7, "7")])
def test_status_with_and_without_retry_after(api, ugen_faults, retry_after, header):
    ugen_faults.add("status", status=429, retry_after=retry_after, nth=2)
    answers = [api.get("/credits/balance") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 429, 200]
    assert answers[1].headers.get("retry-after") == header


def test_truncated_body(api, ugen_faults):
    ugen_faults.add("truncate", path="/api/v1/credits/*")
    with pytest.raises(httpx.RemoteProtocolError):
        api.get("/credits/balance")


@pytest.mark.parametrize("kind", ["slow", "slow_body"])
def test_slowness_goes_by_the_emulators_clock(api, ugen_clock, ugen_faults, kind):
    import threading

    ugen_faults.add(kind, seconds=600)
    with pytest.raises(httpx.ReadTimeout):
        api.get("/credits/balance", timeout=0.3)
    ugen_faults.clear()
    rule = ugen_faults.add(kind, seconds=600)
    got = []
    thread = threading.Thread(target=lambda: got.append(api.get("/credits/balance", timeout=30)))
    thread.start()
    while thread.is_alive():
        if rule.hits:
            ugen_clock.advance(60)
        thread.join(0.01)
    assert got[0].status_code == 200
    assert got[0].json()["available_credits"] > 0


def test_what_is_no_json(api, ugen_faults):
    ugen_faults.add("malformed")
    ugen_faults.add("bad_gateway")
    with pytest.raises(ValueError, match="Unterminated"):
        api.get("/credits/balance").json()
    answer = api.get("/credits/balance")
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html")


def test_a_page_that_shifts_while_it_is_read(api, ugen_faults):
    made = [api.create(product_name=str(n))["job_id"] for n in range(9)][::-1]
    ugen_faults.add("shift", path="/api/v1/jobs", shift=1, times=None)
    pages = [api.get("/jobs", params={"page": n, "page_size": 4}).json()["items"] for n in (1, 2)]
    assert [job["job_id"] for page in pages for job in page] == made[:4] + made[5:9]


def test_rules_by_key_and_probability_are_seeded(api, ugen_faults):
    ugen_faults.add("status", status=500, key="pay-*", method="POST")
    assert api.post("/jobs", json={**BODY, "idempotency_key": "free-1"}).status_code == 201
    assert api.post("/jobs", json={**BODY, "idempotency_key": "pay-1"}).status_code == 500
    ugen_faults.clear()
    rule = ugen_faults.add("status", status=500, probability=0.5, times=None)
    statuses = [api.get("/credits/balance").status_code for _ in range(40)]
    assert statuses.count(500) == rule.hits
    assert 5 < rule.hits < 35


def test_faults_by_http(api, ugen_emulator):
    answer = httpx.post(f"{ugen_emulator.url}/_emulator/faults", json={"kind": "status", "status": 500})
    assert answer.status_code == 201
    assert api.get("/credits/balance").status_code == 500
    assert httpx.get(f"{ugen_emulator.url}/_emulator/faults").json()[0]["hits"] == 1
    wrong = httpx.post(f"{ugen_emulator.url}/_emulator/faults", json={"kind": "nonsense"})
    assert wrong.status_code == 422
