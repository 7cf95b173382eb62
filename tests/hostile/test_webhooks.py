# SPDX-License-Identifier: Apache-2.0
"""Deliveries that are not U-Gen's, by the ten thousand, and at the real endpoint of the plugin. None is believed.

The oracle is the list of what was really signed: no attacker has the secret. `make torture` makes 100,000 of them.
"""

import asyncio
import os
import time
from collections import Counter

import httpx
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.airflow.conftest import connection  # noqa: F401  fixture
from tests.hostile.deliveries import GOOD, NOW, SECRET, SEEN, forged, genuine
from ugen_provider.core.api.errors import WebhookError
from ugen_provider.core.jobs.webhooks import MOST_BYTES, sign, verify
from ugen_provider.plugins.webhook import RateLimit

FEW, MANY = 4_000, int(os.environ.get("UGEN_TORTURE_DELIVERIES", "100000"))
MANY_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def believed(delivery) -> bool:
    """Return whether it is believed; every other error than ours is a failure of the test."""
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
        # A delivery with unchanged signed parts and a meaningless extra header is the very delivery that was sent.
        assert not answer or (delivery.stamp.strip(), delivery.body) in GOOD, delivery

    one()
    return seen


def test_genuine_deliveries_are_believed_while_they_are_young():
    assert [believed(delivery) for delivery in SEEN] == [True, True, True, True, False]


def test_thousands_of_forged_deliveries_and_none_is_believed():
    seen = attack(FEW)
    # Nearly all of them have something changed; else the test would show nothing.
    assert seen["refused"] > 0.9 * FEW


@pytest.mark.torture
@pytest.mark.parametrize("number", range(1, 1 + -(-MANY // FEW)))
def test_none_of_a_hundred_thousand_forged_deliveries_counts(number):
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
    from ugen_provider.plugins import app as plugin
    from ugen_provider.plugins.webhook import WebhookEndpoint

    plugin.endpoint = WebhookEndpoint()
    app = plugin.app

    def send(body, headers, *, conn_id="ugen_default"):
        async def ask():
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
                return await client.post(f"/webhook/{conn_id}", content=body, headers=headers)

        return asyncio.run(ask())

    return send


@pytest.fixture
def an_asset(airflow_database):
    """The asset of finished jobs, as a DAG that names it leaves it in the database; returns its number of updates."""
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


def test_a_repeated_delivery_is_reported_once(post, an_asset, ugen_emulator):
    import json

    from ugen_provider.core.jobs.webhooks import sign

    body = json.dumps({"event": "job.completed", "job_id": bought_and_ended(ugen_emulator)}).encode()
    headers = sign(body, SECRET)
    answers = [post(body, headers).status_code for _ in range(5)]
    assert answers == [200, 202, 202, 202, 202]
    assert an_asset() == 1


def test_a_signed_delivery_about_an_unknown_job_reports_nothing(post, an_asset, ugen_emulator):
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


def test_a_repeated_header_is_refused_at_the_endpoint(post):
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

    assert post(endless(), sign(b"", SECRET)).status_code == 413
    assert sent <= MOST_BYTES + (1 << 17)


@pytest.mark.parametrize("conn_id", ["no_such", "..%2f..%2fetc", "%00", "a" * 5000, "%F0%9F%92%A9"])
def test_no_answer_reveals_which_connections_exist(post, conn_id):
    body, headers, _ = signed(genuine(1))
    reported, known = post(body, headers, conn_id=conn_id), post(body, {}, conn_id="ugen_default")
    assert (reported.status_code, reported.content) in {(401, known.content), (404, reported.content)}
    assert known.status_code == 401


# A source that posts much: little is done for it, and others are answered.


@pytest.fixture
def lookups(monkeypatch):
    """The connections that were looked up."""
    from ugen_provider.hooks.ugen import UGenHook

    seen = []
    real = UGenHook.get_settings
    monkeypatch.setattr(UGenHook, "get_settings", lambda hook: (seen.append(hook.ugen_conn_id), real(hook))[1])
    return seen


MALFORMED = {
    "none": {},
    "no-stamp": {"X-UGen-Signature": "0" * 64},
    "no-signature": {"X-UGen-Timestamp": "{now}"},
    "short": {"X-UGen-Signature": "00", "X-UGen-Timestamp": "{now}"},
    "no-hex": {"X-UGen-Signature": "g" * 64, "X-UGen-Timestamp": "{now}"},
    "many": {"X-UGen-Signature": ",".join(["0" * 64] * 100), "X-UGen-Timestamp": "{now}"},
    "old": {"X-UGen-Signature": "0" * 64, "X-UGen-Timestamp": "0"},
    "no-time": {"X-UGen-Signature": "0" * 64, "X-UGen-Timestamp": "soon"},
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_delivery_without_form_is_refused_unread(post, lookups, kind):
    sent = []

    async def body():
        sent.append(1)
        yield b"{}"

    headers = {name: value.format(now=int(time.time())) for name, value in MALFORMED[kind].items()}
    for _ in range(50):
        assert post(body(), headers).status_code == 401
    assert lookups == []


@pytest.mark.parametrize("conn_id", ["ugen_default", "no_such"])
def test_deliveries_with_wrong_signatures_are_limited(post, lookups, conn_id):
    headers = {"X-UGen-Signature": "0" * 64, "X-UGen-Timestamp": str(int(time.time()))}
    answers = Counter(post(b"{}", headers, conn_id=conn_id).status_code for _ in range(60))
    assert set(answers) == {401, 429}
    assert len(lookups) == answers[401] <= 30


def test_good_deliveries_are_not_limited(post, an_asset, ugen_emulator):
    import json

    body = json.dumps({"event": "job.completed", "job_id": bought_and_ended(ugen_emulator)}).encode()
    answers = Counter(post(body, sign(body, SECRET)).status_code for _ in range(40))
    assert answers == {200: 1, 202: 39}


def test_refusals_leave_few_and_short_entries(post, caplog):
    headers = {"X-UGen-Signature": "0" * 64, "X-UGen-Timestamp": str(int(time.time()))}
    with caplog.at_level("WARNING"):
        for number in range(50):
            post(b"{}", headers if number % 2 else {}, conn_id=f"{'x' * 150}%0Aforged{number}")
    entries = [entry for entry in caplog.messages if "webhook" in entry]
    assert len(entries) == 1
    assert len(entries[0]) < 600
    assert "\n" not in entries[0]


def test_rate_limit_gives_a_source_its_share_again():
    moments = [0.0]
    limit = RateLimit(burst=3, per_second=1, tick=lambda: moments[0])
    assert [limit.take("a") for _ in range(4)] == [True, True, True, False]
    assert limit.take("b")
    moments[0] = 2.0
    assert [limit.take("a") for _ in range(3)] == [True, True, False]
    limit.give_back("a")
    assert limit.take("a")


def test_rate_limit_remembers_a_bounded_number_of_sources():
    limit = RateLimit(most_sources=100)
    for number in range(10_000):
        limit.take(str(number))
    assert len(limit._left) == 100
