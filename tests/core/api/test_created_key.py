# SPDX-License-Identifier: Apache-2.0
"""The idempotency key in the answer of a create: when the answer is about another order, and what happens then."""

import asyncio
import json
import uuid

import httpx
import pytest

from tests.core.local import NO_RETRIES, Attempts, Local, ledger_store
from ugen_provider import AsyncUGenClient, CreateJob, ResponseError, UGenClient
from ugen_provider.core.api.endpoints import remember_key
from ugen_provider.core.api.errors import may_have_bought
from ugen_provider.core.jobs.order import Order, name_key
from ugen_provider.emulator.settings import Settings

LAMP = CreateJob(product_name="Lamp", product_image_url="https://shop.example/lamp.jpg", segment_count=1)
UUID = "3f2a7c0e-0000-4000-8000-0000000000aa"
OTHER = "550e8400-e29b-41d4-a716-446655440000"

ACCEPTED = {
    "same": (UUID, UUID),
    "same in upper case": (UUID, UUID.upper()),
    "same without hyphens": (UUID, UUID.replace("-", "")),
    "same text": ("order-7", "order-7"),
    "none": (UUID, None),
    "prefixed": (UUID, f"acct_7/{UUID}"),
    "shortened": (UUID, UUID[:8]),
    "md5 digest": (UUID, "d41d8cd98f00b204e9800998ecf8427e"),
    "sha256 digest": ("order-7", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    "masked": ("order-7", "or****-7"),
    "unknown text": ("order-7", "order-8 of another form"),
    "empty": (UUID, ""),
    "a number": ("order-7", 7),
    "an object": ("order-7", {"key": OTHER}),
}
REFUSED = {
    "another UUID": (UUID, OTHER),
    "another UUID in upper case": (UUID, OTHER.upper()),
    "a UUID for a text": ("order-7", OTHER),
}


def send(kind, sent, answered):
    """Create a job whose answer shows a key."""
    answer = {"job_id": "job_1", "status": "pending"}
    if answered is not None:
        answer["idempotency_key"] = answered
    transport = httpx.MockTransport(lambda request: httpx.Response(201, json=answer))
    settings = {"api_key": "ugen_sk_local", "retries": NO_RETRIES}
    if kind == "sync":
        with httpx.Client(transport=transport) as http:
            return UGenClient(http_client=http, **settings).jobs.create(LAMP, idempotency_key=sent)

    async def run():
        async with httpx.AsyncClient(transport=transport) as http:
            return await AsyncUGenClient(http_client=http, **settings).jobs.create(LAMP, idempotency_key=sent)

    return asyncio.run(run())


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(("sent", "answered"), ACCEPTED.values(), ids=ACCEPTED)
def test_create_accepts_a_key_that_can_be_its_own(kind, sent, answered):
    assert send(kind, sent, answered).job_id == "job_1"


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(("sent", "answered"), REFUSED.values(), ids=REFUSED)
def test_create_refuses_the_key_of_another_order(kind, sent, answered):
    with pytest.raises(ResponseError, match="job_1 of another order") as caught:
        send(kind, sent, answered)
    assert may_have_bought(caught.value)
    assert caught.value.retryable
    assert caught.value.idempotency_key == sent
    assert f"idempotency_key={sent!r}" in str(caught.value)


@pytest.mark.parametrize("other", ["order-8", "a" * 32])
def test_create_refuses_a_key_that_this_process_sent(other):
    other = f"{other}-{uuid.uuid4().hex}"
    assert send("sync", "order-7", other).job_id == "job_1"
    send("sync", other, other)
    with pytest.raises(ResponseError, match="of another order"):
        send("sync", "order-7", other)


def test_remember_key_keeps_the_newest_keys():
    first = f"first-{uuid.uuid4()}"
    remember_key(first)
    for number in range(20_000):
        remember_key(f"{first}/{number}")
    assert send("sync", "order-7", first).job_id == "job_1"
    with pytest.raises(ResponseError, match="of another order"):
        send("sync", "order-7", f"{first}/19999")


def order(name):
    return Order(key=name_key(name), body=LAMP.body())


def swap(local, times, *, show):
    """Answer so many creates with the job of another order, as a broken cache does; shows keys as `show` says."""
    answers = []

    def meddle(request, answer):
        response = answer()
        if (request.method, request.path) != ("POST", "/api/v1/jobs") or response.status_code >= 300:
            return response
        body = json.loads(response.content)
        body["idempotency_key"] = show(json.loads(request.body)["idempotency_key"])
        answers.append(body)
        if len(answers) > 1 and len(answers) <= 1 + times:
            body = answers[0]
        return httpx.Response(response.status_code, json=body)

    local.transport.meddle = meddle


def test_purchase_recovers_from_the_answer_of_another_order(tmp_path):
    local = Local(Settings(speed=0, admin=True))
    with local.client() as client:
        attempts = Attempts(client, ledger_store(tmp_path))
        swap(local, 1, show=lambda key: key)
        lamp = attempts.obtain(order("lamp"))
        chair = attempts.obtain(order("chair"))  # the answer is of the lamp; the list shows the chair's key
        assert attempts.obtain(order("chair")).job.job_id == chair.job.job_id
    assert local.created == 2
    assert len({lamp.job.job_id, chair.job.job_id}) == 2


@pytest.mark.parametrize(
    "show",
    [lambda key: key[:8], lambda key: uuid.UUID(key).hex[::-1], lambda key: f"acct/{key}"],
    ids=["shortened", "digest", "prefixed"],
)
def test_purchase_works_with_keys_of_the_services_form(tmp_path, show):
    local = Local(Settings(speed=0, admin=True))
    with local.client() as client:
        attempts = Attempts(client, ledger_store(tmp_path))
        swap(local, 0, show=show)
        bought = [attempts.obtain(order(name)).job.job_id for name in ("lamp", "chair", "lamp")]
    assert local.created == 2
    assert bought[0] == bought[2] != bought[1]
