# SPDX-License-Identifier: Apache-2.0
"""A ledger against what the service knows: jobs whose id was lost, and jobs that run while nobody waits for them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa

from ugen_provider.core.api._sync_client import UGenClient
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.batch import schema
from ugen_provider.core.batch.fencing import keep
from ugen_provider.core.batch.ledger import Catalogue, Ledger, upsert
from ugen_provider.core.batch.plans import intent_scope
from ugen_provider.core.feeds.planning import Order
from ugen_provider.core.jobs.cancelling import Cancelled, cancel
from ugen_provider.core.jobs.fingerprint import fingerprint
from ugen_provider.core.jobs.intent import CancelReason, Intent
from ugen_provider.core.jobs.scope import product_scope

_GENERATIONS = 5


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair found.

    Attributes:
        jobs: Jobs of the account that were looked at.
        found: Attempts whose job was not known, and is now.
        restored: Products of the feed that the ledger had forgotten, and whose job was found.
        vanished: Jobs that the ledger holds for running or done and that the account no longer lists.
    """

    jobs: int
    found: int
    restored: int
    vanished: int


@dataclass(frozen=True, slots=True)
class Orphan:
    """A job that has not ended, and that no runner of this ledger waits for.

    Attributes:
        job: As the service lists it.
        catalogue: Of the product it was bought for; None if this ledger did not buy it.
        product_id: That product.
        why: `left` (bought by this ledger; its runner is gone) or `unknown` (bought by something else).
    """

    job: Job
    catalogue: str | None
    product_id: str | None
    why: Literal["left", "unknown"]


def repair(
    ledger: Ledger, client: UGenClient, *, catalogue: Catalogue | None = None, orders: Iterable[Order] = ()
) -> Repair:
    """Write into the ledger what `GET /jobs` knows better. Free; buys nothing and cancels nothing.

    Args:
        ledger: To be repaired.
        client: Asks the service.
        catalogue: Whose products `orders` are.
        orders: What the feed orders today, from `plan_feed`: for a ledger that was lost as a whole. A product whose
            request is still the same finds its job by the key that is made from it.
    """
    listed = 0
    by_key: dict[str, Job] = {}
    ids = set()
    for job in client.jobs.list():
        listed += 1
        ids.add(job.job_id)
        if job.idempotency_key is not None:
            by_key[job.idempotency_key] = job
    found = _find_lost(ledger, by_key)
    restored = sum(_restore(ledger, catalogue, order, by_key) for order in orders) if catalogue is not None else 0
    held = ledger.read(
        lambda c: {row.job_id for row in c.execute(sa.select(schema.product.c.job_id).where(_has_job()))}
    )
    return Repair(listed, found, restored, len(held - ids))


def _has_job() -> sa.ColumnElement[bool]:
    return schema.product.c.job_id.is_not(None)


def _find_lost(ledger: Ledger, by_key: dict[str, Job]) -> int:
    """Attempts that were written down, and whose answer never arrived."""
    intent = schema.intent
    query = sa.select(intent.c.scope, intent.c.document).where(intent.c.job_id.is_(None))
    lost = ledger.read(lambda connection: connection.execute(query).all())
    count = 0
    for row in lost:
        written = Intent.from_dict(json.loads(row.document))
        job = by_key.get(written.key)
        if job is not None:
            count += 1
            document = json.dumps(replace(written, job_id=job.job_id, refused=False).to_dict(), ensure_ascii=False)
            update = sa.update(intent).where(intent.c.scope == row.scope, intent.c.job_id.is_(None))
            values = {"job_id": job.job_id, "document": document}
            ledger.writer.run(lambda c, update=update, values=values: c.execute(update.values(values)))  # type: ignore[misc]
    return count


def _restore(ledger: Ledger, catalogue: Catalogue, order: Order, by_key: dict[str, Job]) -> int:
    """Find the newest generation of a product whose intent is gone; the next run takes it up and looks at it."""
    digest = fingerprint(order.fields, scheme=catalogue.scheme)
    scope = product_scope(catalogue=catalogue.name, product_id=order.product_id, namespace=catalogue.namespace)
    earlier: list[str] = []
    newest: Intent | None = None
    for generation in range(_GENERATIONS):
        key = scope.key(generation, fingerprint=digest)
        job = by_key.get(key)
        if job is None:
            continue
        newest = Intent(
            scope=intent_scope(catalogue, order.product_id, digest),
            generation=generation,
            key=key,
            body={**order.fields, "idempotency_key": key},
            fingerprint=digest,
            scheme=catalogue.scheme,
            written_at=job.created_at.timestamp() if job.created_at is not None else ledger.now(),
            job_id=job.job_id,
            holder="repair",
            earlier=tuple(earlier),
        )
        earlier.append(job.job_id)
    return _enter(ledger, catalogue, order.product_id, newest) if newest is not None else 0


def _enter(ledger: Ledger, catalogue: Catalogue, product_id: str, made: Intent) -> int:
    def work(connection: sa.Connection) -> int:
        known = sa.select(schema.intent.c.scope).where(schema.intent.c.scope == made.scope)
        if connection.execute(known).scalar() is not None:
            return 0
        keep(connection, ledger, made, catalogue_id=catalogue.id, product_id=product_id)
        row = {"catalogue_id": catalogue.id, "product_id": product_id, "fingerprint": made.fingerprint}
        upsert(connection, schema.product, {**row, "job_id": made.job_id})
        return 1

    return ledger.writer.run(work)


def orphans(ledger: Ledger, client: UGenClient) -> list[Orphan]:
    """Jobs that have not ended and that no live runner of this ledger waits for. Free; `GET /jobs`.

    Jobs of Airflow tasks and Dagster runs are not in a ledger, so they count as unknown here.

    Args:
        ledger: Says whose a job is.
        client: Asks the service.
    """
    active = [job for job in client.jobs.list() if job.state in {JobState.ACTIVE, JobState.PAUSED}]
    found = []
    for job in active:
        row = ledger.read(lambda connection, job=job: _owner(connection, job))  # type: ignore[misc]
        if row is None:
            found.append(Orphan(job, None, None, "unknown"))
        elif row.lease_owner is None or row.lease_until < ledger.now():
            found.append(Orphan(job, row.name, row.product_id, "left"))
    return found


def _owner(connection: sa.Connection, job: Job) -> Any:
    intent, product, catalogue = schema.intent, schema.product, schema.catalogue
    mine = intent.c.job_id == job.job_id
    if job.idempotency_key is not None:
        mine = sa.or_(mine, intent.c.key == job.idempotency_key)
    query = (
        sa.select(catalogue.c.name, product.c.product_id, product.c.lease_owner, product.c.lease_until)
        .select_from(intent)
        .join(catalogue, catalogue.c.id == intent.c.catalogue_id)
        .join(
            product,
            sa.and_(product.c.catalogue_id == intent.c.catalogue_id, product.c.product_id == intent.c.product_id),
        )
        .where(mine)
        .limit(1)
    )
    return connection.execute(query).one_or_none()


def cancel_orphan(ledger: Ledger, client: UGenClient, orphan: Orphan, *, reason: CancelReason = "cli") -> bool:
    """Cancel an orphan, and write down that it was on request, so that nothing buys it again by itself.

    Returns:
        Whether it was seen to be cancelled; a job that ended first keeps its result.

    Raises:
        UGenError: The cancel could not be sent.
    """
    return cancel_bought(ledger, client, orphan.job.job_id, reason=reason).confirmed


def cancel_bought(ledger: Ledger, client: UGenClient, job_id: str, *, reason: CancelReason = "cli") -> Cancelled:
    """Cancel a job that a feed run bought, whoever waits for it, and write down that it was on request.

    Args:
        ledger: Knows the job, or nothing is written down.
        client: Sends the requests.
        job_id: The job.
        reason: Why; the next run is told.

    Raises:
        UGenError: The cancel could not be sent.
    """
    store = _AnyIntent(ledger, job_id)
    return client.run(cancel(client.caller, job_id, reason=reason, store=store, scope=store.scope))


class _AnyIntent:
    """The intent of a job, whoever holds its product: what we did to the job is all that is ever changed."""

    durable = True

    def __init__(self, ledger: Ledger, job_id: str) -> None:
        self._ledger = ledger
        query = sa.select(schema.intent.c.scope).where(schema.intent.c.job_id == job_id)
        self.scope: str | None = ledger.read(lambda connection: connection.execute(query).scalar())

    def read(self, scope: str) -> Intent | None:
        """The intent as it stands."""
        return self._ledger.read(lambda connection: _intent_of(connection, scope))

    def write(self, intent: Intent) -> None:
        """Keep our last action on the job; a runner that waits for it may have written the rest meanwhile."""
        table = schema.intent

        def work(connection: sa.Connection) -> None:
            newest = _intent_of(connection, intent.scope, lock=True)
            if newest is None or newest.job_id != intent.job_id:
                return  # bought again meanwhile: this is about another job
            document = json.dumps(replace(newest, action=intent.action).to_dict(), ensure_ascii=False)
            connection.execute(sa.update(table).where(table.c.scope == intent.scope).values(document=document))

        self._ledger.writer.run(work)


def _intent_of(connection: sa.Connection, scope: str, *, lock: bool = False) -> Intent | None:
    query = sa.select(schema.intent.c.document).where(schema.intent.c.scope == scope)
    document = connection.execute(query.with_for_update() if lock else query).scalar()
    return Intent.from_dict(json.loads(document)) if document is not None else None
