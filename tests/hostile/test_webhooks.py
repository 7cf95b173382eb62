# SPDX-License-Identifier: Apache-2.0
"""Deliveries that are not U-Gen's, by the ten thousand, and at the real endpoint of the plugin. None is believed.

The oracle is the list of what was really signed: nobody else has the secret. `make torture` makes 100,000 of them.
"""

import asyncio
import os
from collections import Counter

import httpx
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.airflow.conftest import airflow_database, connection  # noqa: F401  fixtures
from tests.hostile.deliveries import GOOD, NOW, SECRET, SEEN, forged, genuine
from ugen_provider.core.api.errors import WebhookError
from ugen_provider.core.jobs.webhooks import MOST_BYTES, verify

FEW, MANY = 4_000, int(os.environ.get("UGEN_TORTURE_DELIVERIES", "100000"))
MANY_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def believed(delivery) -> bool:
    """Whether it is believed; every other error than ours is a failure of the test."""
    try:
        verify(delivery.body, delivery.headers, [SECRET, "whsec_before_it"], now=lambda: NOW)
    except WebhookError:
        return False
    return True


def attack(count: int, *, number: int = 0) -> Counter:
    seen = Counter()

    @seed(number)
    @settings(max_examples=count, database=None, suppress_health_check=MANY_CHECKS)
    @given(forged())
    def one(delivery):
        answer = believed(delivery)
        seen["believed" if answer else "refused"] += 1
        # What is left as it was signed, beside a header that says nothing, is the very delivery that was sent.
        assert not answer or (delivery.stamp.strip(), delivery.body) in GOOD, delivery

    one()
    return seen


def test_the_genuine_ones_are_believed_as_long_as_they_are_young():
    assert [believed(delivery) for delivery in SEEN] == [True, True, True, True, False]


def test_thousands_of_forged_deliveries_and_none_is_believed():
    seen = attack(FEW)
    # Nearly all of them have something changed; else the test would show nothing.
    assert seen["refused"] > 0.9 * FEW


@pytest.mark.torture
@pytest.mark.parametrize("number", range(1, 1 + -(-MANY // FEW)))
def test_a_hundred_thousand_forged_deliveries_and_none_is_believed(number):
    """In portions: Hypothesis remembers what it has made, and slows down."""
    seen = attack(FEW, number=number)
    assert seen["refused"] > 0.9 * FEW


@settings(max_examples=300, derandomize=True, database=None)
@given(st.binary(max_size=300), st.lists(st.tuples(st.text(max_size=30), st.text(max_size=80)), max_size=6))
def test_noise_is_refused_in_our_own_words(body, headers):
    with pytest.raises(WebhookError):
        verify(body, headers, SECRET)


# The endpoint in Airflow's API server, in this process.


@pytest.fixture
def post(connection, airflow_database):  # noqa: F811  fixtures
    """Send a delivery to the endpoint; the body may be an iterator of chunks."""
    connection(webhook_secret=SECRET)
    from ugen_provider.plugins.app import app

    def send(body, headers, *, conn_id="ugen_default"):
        async def ask():
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
                return await client.post(f"/webhook/{conn_id}", content=body, headers=headers)

        return asyncio.run(ask())

    return send


@pytest.fixture
def an_asset(airflow_database):  # noqa: F811  fixture
    """The asset of finished jobs, as a DAG that names it leaves it in the database; tells how often it was updated."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete, func, select

    from ugen_provider.plugins.webhook import asset_uri

    uri = asset_uri("ugen_default", "completed")
    with create_session() as session:
        asset = AssetModel(name="finished", uri=uri)
        session.add(asset)
        session.flush()
        number = asset.id

    def updates() -> int:
        with create_session() as session:
            return session.scalar(select(func.count()).where(AssetEvent.asset_id == number))

    yield updates
    with create_session() as session:
        session.execute(delete(AssetEvent).where(AssetEvent.asset_id == number))
        session.execute(delete(AssetModel).where(AssetModel.id == number))


def signed(delivery):
    """The same, signed now: the endpoint lives by the real clock."""
    import json

    from ugen_provider.core.jobs.webhooks import sign

    return delivery.body, sign(delivery.body, SECRET), json.loads(delivery.body)


def bought_and_ended(ugen_emulator):
    from ugen_provider import CreateJob, UGenClient

    with UGenClient(api_key="ugen_sk_local", base_url=ugen_emulator.base_url) as client:
        lamp = CreateJob(product_name="Lamp", product_image_url="https://shop.example/l.png", segment_count=1)
        job = client.jobs.create(lamp)
    ugen_emulator.emulator.advance(3600)
    return job.job_id


def test_a_delivery_that_is_sent_again_and_again_is_told_once(post, an_asset, ugen_emulator):
    import json

    from ugen_provider.core.jobs.webhooks import sign

    body = json.dumps({"event": "job.completed", "job_id": bought_and_ended(ugen_emulator)}).encode()
    headers = sign(body, SECRET)
    answers = [post(body, headers).status_code for _ in range(5)]
    assert answers == [200, 202, 202, 202, 202]
    assert an_asset() == 1


def test_a_signed_delivery_about_a_job_of_nobodys_tells_nothing(post, an_asset, ugen_emulator):
    body, headers, _ = signed(genuine(1))
    assert post(body, headers).status_code == 503
    assert an_asset() == 0


@settings(max_examples=60, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(delivery=forged())
def test_the_endpoint_believes_none_of_them_either(post, ugen_emulator, delivery):
    """All of them are old for the endpoint's clock; what is asked is that each ends in a plain refusal."""
    raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in delivery.headers]
    before = len(ugen_emulator.emulator.journal.find_requests())
    assert post(delivery.body, raw).status_code == 401
    assert len(ugen_emulator.emulator.journal.find_requests()) == before


def test_a_header_that_stands_twice_is_refused_at_the_endpoint(post):
    body, headers, _ = signed(genuine(1))
    assert post(body, [*headers.items(), ("x-ugen-signature", "00")]).status_code == 401


def test_a_delivery_in_chunks_is_read_whole(post, an_asset, ugen_emulator):
    import json

    from ugen_provider.core.jobs.webhooks import sign

    body = json.dumps({"event": "job.completed", "job_id": bought_and_ended(ugen_emulator)}).encode()

    async def chunks():
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    assert post(chunks(), sign(body, SECRET)).status_code == 200
    assert an_asset() == 1


def test_a_huge_delivery_is_not_read_to_its_end(post):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 1 << 16
            yield b" " * (1 << 16)

    assert post(endless(), {"X-UGen-Signature": "00", "X-UGen-Timestamp": "0"}).status_code == 413
    assert sent <= MOST_BYTES + (1 << 17)


@pytest.mark.parametrize("conn_id", ["no_such", "..%2f..%2fetc", "%00", "a" * 5000, "%F0%9F%92%A9"])
def test_nobody_is_told_which_connections_there_are(post, conn_id):
    body, headers, _ = signed(genuine(1))
    told, known = post(body, headers, conn_id=conn_id), post(body, {}, conn_id="ugen_default")
    assert (told.status_code, told.content) in {(401, known.content), (404, told.content)}
    assert known.status_code == 401
