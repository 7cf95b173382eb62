# SPDX-License-Identifier: Apache-2.0
"""Tenants, limits, uploads, templates, music, models."""

import httpx
import pytest

PNG, JPEG = b"\x89PNG\r\n\x1a\n....", b"\xff\xd8\xff...."


@pytest.fixture
def admin(ugen_emulator):
    with httpx.Client(base_url=f"{ugen_emulator.url}/_emulator") as client:
        yield client


@pytest.fixture
def tenant(ugen_emulator, admin):
    """Opens accounts; returns a client with the account's key."""
    clients = []

    def open_one(name, **limits):
        admin.post("/tenants", json={"name": name, "api_keys": [f"key-{name}"], **limits}).raise_for_status()
        clients.append(httpx.Client(base_url=ugen_emulator.base_url, headers={"X-API-Key": f"key-{name}"}))
        return clients[-1]

    yield open_one
    for client in clients:
        client.close()


def order(client, name="Lamp", **changes):
    body = {"product_name": name, "product_image_url": "https://e.com/l.png", "segment_count": 1, **changes}
    return client.post("/jobs", json=body)


def test_tenants_never_see_each_others_jobs_or_keys(api, ugen_clock, tenant):
    other = tenant("other")
    mine, theirs = order(api, idempotency_key="k").json(), order(other, idempotency_key="k").json()
    assert mine["job_id"] != theirs["job_id"]
    assert [job["job_id"] for job in other.get("/jobs").json()["items"]] == [theirs["job_id"]]
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/keyframes"), ("GET", "/videos"), ("POST", "/pause"),
                         ("POST", "/resume"), ("POST", "/retry")):  # fmt: skip
        assert other.request(method, f"/jobs/{mine['job_id']}{path}").status_code == 404
    rows = other.get("/credits/transactions", params={"job_id": mine["job_id"]}).json()
    assert rows["items"] == []
    template = api.post("/templates", json={"name": "T", "config": {}}).json()["id"]
    assert other.get("/templates").json() == []
    assert other.put(f"/templates/{template}", json={"name": "stolen"}).status_code == 404
    track = api.post("/music/custom", files={"file": b"ID3..."}, data={"title": "Tune"}).json()["id"]
    assert order(other, custom_music_id=track).status_code == 422
    assert other.delete(f"/music/custom/{track}").status_code == 404
    assert api.get("/tenants/me").json()["name"] == "local"


def test_too_few_credits_say_how_many_and_buy_nothing(ugen_emulator, tenant, admin):
    poor = tenant("poor", credits=100)
    answer = order(poor, segment_count=3)
    assert answer.status_code == 402
    assert answer.json()["error"]["code"] == "INSUFFICIENT_CREDITS"
    assert answer.json()["error"]["details"] == {"required": 137, "available": 100}
    assert poor.get("/credits/balance").json()["available_credits"] == 100
    assert not ugen_emulator.emulator.journal.purchases
    admin.post("/credits", json={"tenant": "poor", "amount": 37}).raise_for_status()
    assert order(poor, segment_count=3).status_code == 201
    assert admin.get("/balances").json()["poor"]["available"] == 0


def test_concurrent_limit_says_when_and_a_replay_is_not_limited(ugen_clock, tenant):
    small = tenant("small", concurrent_jobs=2)
    assert [order(small, name, idempotency_key=name).status_code for name in "AB"] == [201, 201]
    refused = order(small, "C")
    assert refused.status_code == 429
    wait = int(refused.headers["retry-after"])
    assert refused.json()["error"]["details"]["retry_after"] == wait
    assert order(small, "A", idempotency_key="A").status_code == 200
    ugen_clock.advance(wait)
    assert order(small, "C").status_code == 201


def test_daily_limit_ends_at_midnight_utc(ugen_clock, tenant):
    small = tenant("small", daily_jobs=2)
    assert [order(small, name).status_code for name in "ABC"] == [201, 201, 429]
    wait = int(order(small, "C").headers["retry-after"])
    assert wait == 12 * 3600
    ugen_clock.advance(wait - 1)
    assert order(small, "C").status_code == 429
    ugen_clock.advance(1)
    assert order(small, "C").status_code == 201


def test_a_retry_needs_a_slot_and_credits_too(ugen_clock, tenant, ugen_faults):
    small = tenant("small", concurrent_jobs=1, credits=100)
    ugen_faults.job(fail_at="audio")
    job = order(small).json()["job_id"]
    ugen_clock.advance_until_idle()
    assert order(small, "B").status_code == 201
    assert small.post(f"/jobs/{job}/retry").status_code == 429
    ugen_clock.advance_until_idle()
    answer = small.post(f"/jobs/{job}/retry", json={"restart_from_stage": "prepare"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "INSUFFICIENT_CREDITS")


def test_a_revoked_key_is_unknown_at_once(ugen_emulator, tenant, admin):
    client = tenant("gone")
    assert client.get("/jobs").status_code == 200
    assert admin.post("/keys/revoke", json={"api_key": "key-gone"}).status_code == 204
    assert client.get("/jobs").status_code == 401
    assert admin.post("/keys/revoke", json={"api_key": "key-gone"}).status_code == 404


def test_a_token_beats_a_key(api, ugen_emulator, admin, tenant):
    tenant("other")
    headers = {"Authorization": "Bearer ugen_jwt_local", "X-API-Key": "key-other"}
    assert httpx.get(f"{ugen_emulator.base_url}/tenants/me", headers=headers).json()["name"] == "local"


@pytest.mark.parametrize(
    ("path", "content", "suffix"),
    [
        ("/uploads/product-image", JPEG, ".jpeg"),
        ("/uploads/product-image", b"RIFF....WEBP", ".webp"),
        ("/uploads/product-image", b"GIF89a", ".gif"),
        ("/tenants/me/avatar", PNG, ".png"),
        ("/tenants/me/brand-kit/logo", b"<svg xmlns='http://www.w3.org/2000/svg'/>", ".svg"),
    ],
)
def test_uploads_are_public_under_a_uuid(api, path, content, suffix):
    answer = api.post(path, files={"file": ("my picture.bin", content)})
    assert answer.status_code == 201
    url = answer.json()["url"]
    assert url.endswith(suffix)
    assert "picture" not in url
    assert httpx.get(url).content == content
    assert order(api, product_image_url=url).status_code == 201
    assert httpx.get(url.replace("/uploads/", "/uploads/x")).status_code == 404


def test_a_second_avatar_replaces_the_first(api, ugen_clock):
    assert api.get("/tenants/me").json()["avatar_url"] is None
    first = api.post("/tenants/me/avatar", files={"file": PNG}).json()["url"]
    ugen_clock.advance(1)
    second = api.post("/tenants/me/avatar", files={"file": PNG}).json()["url"]
    assert api.get("/tenants/me").json()["avatar_url"] == second != first


def test_templates_have_one_default_and_store_no_nulls(api, ugen_clock):
    for number in range(3):
        ugen_clock.advance(1)
        config = {"segment_count": number, "persona_id": None}
        made = api.post("/templates", json={"name": str(number), "config": config, "is_default": number < 2})
        assert (made.status_code, made.json()["config"]) == (201, {"segment_count": number})
    items = api.get("/templates").json()
    assert [(item["name"], item["is_default"]) for item in items] == [("1", True), ("2", False), ("0", False)]
    changed = api.patch(f"/templates/{items[2]['id']}", json={"name": "zero", "is_default": True}).json()
    assert changed["config"] == {"segment_count": 0}
    assert [item["is_default"] for item in api.get("/templates").json()] == [True, False, False]
    assert api.delete(f"/templates/{items[0]['id']}").status_code == 204
    assert len(api.get("/templates", params={"limit": 1}).json()) == 1
    assert api.put("/templates/nothing", json={}).status_code == 404


def test_music_is_listed_filtered_uploaded_and_deleted(api, ugen_clock):
    catalog = api.get("/music/catalog", params={"mood": "upbeat"}).json()
    assert {track["mood"] for track in catalog} == {"upbeat"}
    assert api.get("/music/catalog", params={"mood": "none"}).json() == []
    made = [api.post("/music/custom", files={"file": b"OggS.."}, data={"title": t}).json() for t in ("A", "B")]
    assert [track["title"] for track in api.get("/music/custom").json()] == ["B", "A"]
    assert order(api, custom_music_id=made[0]["id"]).status_code == 201
    assert api.delete(f"/music/custom/{made[0]['id']}").status_code == 204
    assert [track["title"] for track in api.get("/music/custom").json()] == ["B"]
    assert order(api, "2", custom_music_id=made[0]["id"]).status_code == 422
    assert httpx.get(made[0]["url"]).status_code == 200
    assert api.delete(f"/music/custom/{catalog[0]['id']}").status_code == 403
    assert api.post("/music/custom", files={"file": b"OggS.."}).status_code == 422


def test_models_can_be_read_and_tried(api, ugen_clock):
    models = api.get("/models").json()
    assert api.get(f"/models/{models[0]['id']}").json() == models[0]
    answer = api.post(f"/models/{models[0]['id']}/try")
    assert answer.status_code == 202
    task = f"/models/tasks/{answer.json()['task_id']}"
    assert api.get(task).json()["status"] == "processing"
    ugen_clock.advance(30)
    assert api.get(task).json()["status"] == "completed"


def test_suggestions_are_free(api):
    before = api.get("/credits/balance").json()
    body = {"product_name": "Lamp", "product_image_url": "https://e.com/l.png"}
    answer = api.post("/jobs/suggest-fields", json=body).json()
    assert set(answer) == {"key_selling_points", "cta_text", "environment_description", "custom_script"}
    assert api.get("/credits/balance").json() == before


def test_lists_page_newest_first_and_filter_by_status(api):
    made = [api.create(product_name=str(number))["job_id"] for number in range(7)]
    api.delete(f"/jobs/{made[3]}")
    pages = [api.get("/jobs", params={"page": page, "page_size": 3}).json() for page in (1, 2, 3, 4)]
    assert [job["job_id"] for page in pages for job in page["items"]] == made[::-1]
    assert {(page["total"], page["total_pages"]) for page in pages} == {(7, 3)}
    assert api.get("/jobs", params={"status": "cancelled"}).json()["items"][0]["job_id"] == made[3]
    assert api.get("/jobs", params={"status": "mystery"}).json()["total"] == 0


def test_the_journal_names_who_asked_for_what(api, admin, tenant):
    other = tenant("other")
    order(api, "A", idempotency_key="ka")
    order(other, "B")
    other.get("/jobs")
    assert [entry["product_name"] for entry in admin.get("/journal", params={"key": "ka"}).json()["purchases"]] == ["A"]
    assert admin.get("/journal", params={"tenant": "other"}).json()["created"] == 1
    seen = admin.get("/journal", params={"tenant": "other", "method": "GET"}).json()
    assert [(entry["path"], entry["status"]) for entry in seen["requests"]] == [("/api/v1/jobs", 200)]
    assert seen["requests_matched"] == 1
    assert admin.get("/journal", params={"method": "POST", "limit": 1}).json()["requests"][0]["tenant"] == "other"
    assert admin.delete("/journal").status_code == 204
    after = admin.get("/journal").json()
    assert (after["requests"], after["created"], after["requests_total"]) == ([], 2, 3)


def test_the_clock_can_be_run_stopped_and_ticked_by_requests(api, admin):
    assert admin.get("/clock").json()["mode"] == "manual"
    before = admin.put("/clock", json={"tick": 5}).json()["now"]
    for _ in range(3):
        api.get("/models")
    assert admin.get("/clock").json()["now"] == before + 15
    assert admin.put("/clock", json={"speed": 1000, "tick": 0}).json()["mode"] == "scaled"
    assert admin.put("/clock", json={"speed": 1}).json()["mode"] == "real"
    stopped = admin.put("/clock", json={"speed": 0}).json()["now"]
    assert admin.get("/clock").json()["now"] == stopped
    job = api.create()
    coming = admin.get("/clock").json()["next_change"]
    assert admin.post("/clock/advance", json={"to_next_change": True}).json()["now"] == coming
    assert api.job(job["job_id"])["status"] == "processing"
