# SPDX-License-Identifier: Apache-2.0
BODY = {
    "product_name": "Lamp",
    "product_image_url": "https://example.com/lamp.jpg",
    "segment_count": 2,
    "idempotency_key": "lamp-1",
}


def create(api, **changes):
    return api.create(**{"idempotency_key": "lamp-1", **changes})


def test_a_job_ends_with_a_video_and_the_books_balance(api, ugen_clock):
    before = api.get("/credits/balance").json()
    job = create(api)
    assert job["status"] == "pending"
    reserved = api.get("/credits/balance").json()
    assert reserved["available_credits"] == before["available_credits"] - job["credits_reserved"]
    ugen_clock.advance_until_idle()
    job = api.get(f"/jobs/{job['job_id']}").json()
    assert (job["status"], job["progress_percent"], job["current_stage"]) == ("completed", 100, "complete")
    after = api.get("/credits/balance").json()
    assert after["credit_reserved"] == 0
    assert after["credit_balance"] == before["credit_balance"] - job["credits_consumed"]


def test_the_same_key_buys_once_and_other_parameters_conflict(api, ugen_emulator):
    first = create(api)
    again = api.post("/jobs", json=BODY)
    assert (again.status_code, again.json()["job_id"]) == (200, first["job_id"])
    other = api.post("/jobs", json={**BODY, "segment_count": 3})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert len(ugen_emulator.emulator.journal.purchases) == 1


def test_a_key_is_forgotten_after_its_window(api, ugen_clock):
    first = create(api)
    ugen_clock.advance(24 * 3600)
    assert create(api)["job_id"] != first["job_id"]


def test_a_gate_pauses_with_its_anchor_and_resume_completes(api, ugen_clock):
    job = create(api, stop_at_stage="init")
    ugen_clock.advance_until_idle()
    path = f"/jobs/{job['job_id']}"
    job = api.get(path).json()
    assert (job["status"], job["current_stage"], job["final_video_url"]) == ("paused", "init", None)
    frames = api.get(f"{path}/keyframes").json()
    assert [frame["status"] for frame in frames] == ["approved", "pending", "pending"]
    assert api.post(f"{path}/resume").status_code == 200
    ugen_clock.advance_until_idle()
    assert api.get(path).json()["status"] == "completed"
    assert api.get(f"{path}/keyframes").json()[0] == frames[0]


def test_cancel_gives_every_credit_back(api, ugen_clock):
    before = api.get("/credits/balance").json()
    job = create(api)
    ugen_clock.advance(20)
    assert api.delete(f"/jobs/{job['job_id']}").json()["status"] == "cancelled"
    assert api.get("/credits/balance").json() == before
    assert api.delete(f"/jobs/{job['job_id']}").status_code == 409
