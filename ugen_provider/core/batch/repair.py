# SPDX-License-Identifier: Apache-2.0
"""The repair of a ledger: job ids whose answers were lost, and products that the ledger no longer knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import sqlalchemy as sa

from ugen_provider.core.api.client import UGenClient
from ugen_provider.core.api.models import Job
from ugen_provider.core.batch.leases import key_of, order_key_of
from ugen_provider.core.feeds.products import FeedOrder
from ugen_provider.core.jobs.order import fingerprint
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.orders import LedgerOrderStore, ProductRow
from ugen_provider.core.ledger.record import OrderRecord, row_id
from ugen_provider.core.ledger.store import Catalogue, Ledger, upsert

_PURCHASES = 5


@dataclass(frozen=True, slots=True)
class Repair:
    """The result of a repair.

    Attributes:
        jobs: Jobs of the account that were read.
        found: Orders whose job was not known, and is now.
        restored: Products of the feed that the ledger did not know, and whose job was found.
        vanished: Jobs that the ledger holds and that the account no longer lists; 0 if the list is not proven to be
            complete.
    """

    jobs: int
    found: int
    restored: int
    vanished: int


def repair(
    ledger: Ledger, client: UGenClient, *, catalogue: Catalogue | None = None, orders: Iterable[FeedOrder] = ()
) -> Repair:
    """Write into the ledger what the account's list of jobs knows. Free; it buys nothing and cancels nothing.

    Args:
        ledger: To be repaired.
        client: Calls the API.
        catalogue: The catalog of `orders`.
        orders: The feed's orders of today, from `plan_feed`, for a ledger that was lost as a whole. A product whose
            request is unchanged finds its job by the key that is made from the request.
    """
    scan = client.jobs.scan()
    by_key = {job.idempotency_key: job for job in scan.jobs if job.idempotency_key is not None}
    found = _find_lost(ledger, by_key)
    restored = sum(_restore(ledger, catalogue, order, by_key) for order in orders) if catalogue is not None else 0
    held = ledger.read(
        lambda c: {row.job_id for row in c.execute(sa.select(schema.product.c.job_id).where(_has_job()))}
    )
    vanished = len(held - {job.job_id for job in scan.jobs}) if scan.complete else 0
    return Repair(len(scan.jobs), found, restored, vanished)


def _has_job() -> sa.ColumnElement[bool]:
    return schema.product.c.job_id.is_not(None)


def _find_lost(ledger: Ledger, by_key: dict[str, Job]) -> int:
    """Find the jobs of orders that were sent and whose answers never arrived."""
    store = LedgerOrderStore(ledger)
    count = 0
    for record in store.without_job():
        job = by_key.get(record.key)
        if job is not None:
            store.record_job_id(record, job.job_id)
            count += 1
    return count


def _restore(ledger: Ledger, catalogue: Catalogue, order: FeedOrder, by_key: dict[str, Job]) -> int:
    """Find the newest purchase of a product whose record is gone; the next run reads its job."""
    digest = fingerprint(order.fields, scheme=catalogue.scheme)
    name = row_id(order.product_id, order.variant)
    key = key_of(catalogue, name)
    order_key = order_key_of(catalogue, name, digest)
    earlier: list[str] = []
    newest: OrderRecord | None = None
    for number in range(_PURCHASES):
        idempotency_key = key.idempotency_key(number, fingerprint=digest)
        job = by_key.get(idempotency_key)
        earlier.append("" if job is None else job.job_id)
        if job is None:
            continue
        newest = OrderRecord(
            order_key=order_key,
            purchase_number=number,
            key=idempotency_key,
            body={**order.fields, "idempotency_key": idempotency_key},
            fingerprint=digest,
            scheme=catalogue.scheme,
            written_at=job.created_at.timestamp() if job.created_at is not None else ledger.now(),
            maybe_bought=True,
            job_id=job.job_id,
            attempt="repair",
            earlier=tuple(earlier[:-1]),
        )
    store = LedgerOrderStore(ledger, product=ProductRow(catalogue.id, name))
    if newest is None or store.read(order_key) is not None:
        return 0
    store.write(replace(newest, token=0))
    row = {"catalogue_id": catalogue.id, "product_id": name, "fingerprint": digest, "job_id": newest.job_id}
    ledger.writer.run(lambda connection: upsert(connection, schema.product, row))
    return 1
