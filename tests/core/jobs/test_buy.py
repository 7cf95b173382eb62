# SPDX-License-Identifier: Apache-2.0
"""A script that names its order buys it once, however often it runs."""

import anyio
import pytest

from ugen_provider import ConfigError, CreateJob, JobTimeoutError, PurchaseError, buy, buy_async
from ugen_provider.ledger import Ledger


@pytest.fixture
def ledger(address):
    with Ledger.init(address, allow_ephemeral=True) as made:
        yield made


LAMP = CreateJob(product_name="Lamp", product_image_url="https://shop.example/lamp.jpg", segment_count=1)


def test_a_script_that_runs_twice_buys_once(client, local, ledger):
    first = buy(client, LAMP, name="lamp", ledger=ledger)
    again = buy(client, LAMP, name="lamp", ledger=ledger)
    assert (first.job.job_id, again.outcome.value) == (again.job.job_id, "reused")
    buy(client, LAMP, name="lamp two", ledger=ledger)
    assert local.created == 2


def test_sync_and_async_are_one_order(client, local, ledger):
    first = buy(client, LAMP, name="lamp", ledger=ledger)

    async def run():
        async with local.async_client() as aio:
            return await buy_async(aio, LAMP, name="lamp", ledger=ledger)

    assert anyio.run(run).job.job_id == first.job.job_id
    assert local.created == 1


def test_namespaces_never_meet(local, ledger):
    for namespace in ("staging", "production", "staging"):
        with local.client(namespace=namespace) as client:
            buy(client, LAMP, name="lamp", ledger=ledger)
    assert local.created == 2


def test_a_timeout_leaves_the_job_and_the_next_call_attaches(client, local, ledger):
    with pytest.raises(JobTimeoutError):
        buy(client, LAMP, name="lamp", ledger=ledger, timeout=20)
    assert buy(client, LAMP, name="lamp", ledger=ledger).job.status == "completed"
    assert local.created == 1


def test_the_clients_spending_holds(local, ledger):
    with local.client(spending="reuse_only") as client, pytest.raises(PurchaseError, match="reuse_only"):
        buy(client, LAMP, name="lamp", ledger=ledger)
    assert local.created == 0


def test_buy_without_a_ledger_uses_the_default_one(client, local, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("UGEN_LEDGER", raising=False)
    first = buy(client, LAMP, name="lamp")
    assert buy(client, LAMP, name="lamp").job.job_id == first.job.job_id
    assert (tmp_path / "ugen/ledger.db").exists()
    assert local.created == 1


def test_buy_in_a_ledger_that_is_missing_buys_nothing(client, local, tmp_path):
    with pytest.raises(ConfigError, match="ugen ledger init"):
        buy(client, LAMP, name="lamp", ledger=str(tmp_path / "mistyped.db"))
    assert local.requests() == 0


def test_buy_changed_request_under_a_known_name_names_both(client, local, ledger):
    buy(client, LAMP, name="lamp", ledger=ledger)
    changed = LAMP.model_copy(update={"segment_count": 3})
    with pytest.raises(PurchaseError, match="segment_count: 1 was ordered, 3 is asked for") as caught:
        buy(client, changed, name="lamp", ledger=ledger)
    assert caught.value.reason == "request_changed"
    assert local.created == 1
    assert buy(client, changed, name="lamp", ledger=ledger, regenerate="bigger").job.final_video_url
    assert local.created == 2


def test_buy_takes_a_mapping_of_fields(client, local, ledger):
    fields = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.jpg", "segment_count": 1}
    first = buy(client, fields, name="lamp", ledger=ledger)
    assert buy(client, LAMP, name="lamp", ledger=ledger).job.job_id == first.job.job_id
    assert local.created == 1


def test_buy_at_another_emulator_is_another_order(local, ledger):
    for address in ("http://127.0.0.1:1/api/v1", "http://127.0.0.1:2/api/v1", "http://localhost:1/api/v1"):
        with local.client(base_url=address) as client:
            buy(client, LAMP, name="lamp", ledger=ledger, regenerate=None)
    # One emulator answers at both addresses here, and knows the key: it created one job, and nothing failed.
    assert local.created == 1
    assert {record.rsplit("@", 1)[1] for record in _record_keys(ledger)} == {"loopback:1", "loopback:2"}


def _record_keys(ledger):
    import sqlalchemy as sa

    from ugen_provider.core.ledger import schema

    return ledger.read(lambda c: c.execute(sa.select(schema.order.c.order_key)).scalars().all())
