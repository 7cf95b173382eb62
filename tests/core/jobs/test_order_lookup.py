# SPDX-License-Identifier: Apache-2.0
"""Orders found by prefix, keys and fingerprint, imports with their actions, and actions that count for no decision."""

from dataclasses import replace

import pytest

from tests.core.local import BASE_URL, Local
from ugen_provider.core.jobs.order import Order, origin_of, partition_key
from ugen_provider.core.jobs.policy import effective_action
from ugen_provider.core.jobs.sync.reconciler import reconcile
from ugen_provider.core.jobs.sync.world import World
from ugen_provider.core.ledger.orders import LedgerOrderStore, OlderOrder
from ugen_provider.core.ledger.record import Action, OrderRecord
from ugen_provider.core.ledger.store import Ledger

BODY = {"product_name": "Lamp", "product_image_url": "https://shop.example/l.jpg", "segment_count": 1}


@pytest.fixture
def ledger(address):
    with Ledger.init(address, allow_ephemeral=True) as opened:
        yield opened


def record_of(asset: str = "final_video", partition: str = "lamp", **changes) -> OrderRecord:
    order = Order(key=partition_key(asset=asset, partition=partition), body=BODY, attempt="run:0", **changes)
    return order.record(purchase_number=0, written_at=1.0)


def action_on(record: OrderRecord, kind: str = "cancel", reason: str = "terminate", **changes) -> Action:
    return Action(record.order_key, record.purchase_number, record.job_id, kind, reason, 1, 1.0, **changes)


def test_find_returns_only_orders_with_the_prefix(ledger):
    store = LedgerOrderStore(ledger)
    for asset, partition in [("final_video", "a"), ("final_video", "b%_"), ("Final_Video", "a"), ("final", "a")]:
        store.write(record_of(asset, partition))
    prefix = '["","partition","final_video",'
    found = store.find(prefix)
    assert {record.order_key for record, _ in found} == {f'{prefix}"a"]', f'{prefix}"b%_"]'}
    newest = max(at for _, at in found)
    assert store.find(prefix, changed_since=newest + 1) == []
    assert set(store.read_many([f'{prefix}"a"]', "unknown"])) == {f'{prefix}"a"]'}
    assert len(store.find_by_fingerprint(found[0][0].fingerprint)) == 4


def test_find_actions_groups_them_by_order(ledger):
    store = LedgerOrderStore(ledger)
    lamp, mug = store.write(record_of(partition="lamp")), store.write(record_of(partition="mug"))
    action = store.append_action(action_on(lamp))
    store.mark_action(action, "sent")
    store.append_action(action_on(mug, "pause", "gate"))
    found = store.find_actions('["","partition","final_video",')
    assert [each.state for each in found[lamp.order_key]] == ["sent"]
    assert [each.reason for each in found[mug.order_key]] == ["gate"]


def test_import_of_an_older_order_brings_its_actions_once(ledger):
    record = replace(record_of(), job_id="job-1", token=7)
    older = OlderOrder(record, (action_on(record, state="confirmed"),))
    asked: list[str] = []

    def find(order_key: str) -> OlderOrder:
        asked.append(order_key)
        return older

    store = LedgerOrderStore(ledger, older=[find])
    assert store.read(record.order_key) == replace(record, token=1)
    assert store.read(record.order_key) == replace(record, token=1)
    assert asked == [record.order_key]
    assert [(action.state, action.token) for action in store.actions(record.order_key)] == [("confirmed", 1)]


def test_collection_counts_for_no_decision():
    record = replace(record_of(), job_id="job-1")
    pause = action_on(record, "pause", "interrupt")
    collection = action_on(record, "collect", "final_failure")
    assert effective_action(record, [collection]) is None
    assert effective_action(record, [pause, collection]) == pause, "a collection hides no pause of ours"


def test_reconciler_leaves_a_job_of_another_api_owed(ledger, local: Local):
    """Another API answers 404 for the job, which would pass for a settled cancel while the job costs credits."""
    store = LedgerOrderStore(ledger)
    record = store.write(replace(record_of(origin="https://api.u-gen.ai"), job_id="job-1"))
    store.append_action(action_on(record))
    assert origin_of(BASE_URL) != record.origin
    with local.client() as client:
        report = reconcile(World(client, store), ledger, owner="o", owner_state=lambda _record, _action: "over")
    assert [action.job_id for action, _ in report.owed] == ["job-1"]
    assert local.requests("DELETE") == local.requests("GET") == 0
