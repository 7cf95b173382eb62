# SPDX-License-Identifier: Apache-2.0
"""A run's life in the ledger: opened by one, joined by others, taken over from the dead, gone on with after a stop."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from ugen_provider.core.batch import schema
from ugen_provider.core.batch.ledger import Catalogue, Ledger, insert_new
from ugen_provider.core.batch.plans import LEASE, Run


def join(ledger: Ledger, catalogue: Catalogue, run_id: str, *, owner: str, budget: int | None) -> tuple[Run, str]:
    """Enter a run, or join one that is there.

    Args:
        ledger: Where.
        catalogue: Whose run.
        run_id: Its name.
        owner: Who asks.
        budget: Credits that the run may use; a run that goes on takes the newest word.

    Returns:
        The run and what there is to do: `plan` it; `wait`, since another plans it; or `buy`.
    """
    table = schema.run

    def work(connection: sa.Connection) -> tuple[Run, str]:
        now = ledger.now()
        ours = (table.c.catalogue_id == catalogue.id, table.c.run_id == run_id)
        values = {"catalogue_id": catalogue.id, "run_id": run_id, "state": "planning", "created_at": now}
        insert_new(connection, table, values)
        connection.execute(sa.update(table).where(*ours).values(budget=budget))
        row = connection.execute(sa.select(table).where(*ours)).one()
        run = Run(row.id, catalogue, run_id, owner)
        if row.state != "planning":
            return run, "buy"
        mine = sa.or_(table.c.owner.is_(None), table.c.lease_until < now)
        taken = sa.update(table).where(*ours, table.c.state == "planning", mine)
        if connection.execute(taken.values(owner=owner, lease_until=now + LEASE)).rowcount == 1:
            return run, "plan"
        return run, "wait"

    return ledger.writer.run(work)


def reopen(ledger: Ledger, run: Run) -> None:
    """Let a run that stopped go on: what was postponed, left running or failed for a passing reason is due again."""
    item, product = schema.item, schema.product

    def work(connection: sa.Connection) -> None:
        final = sa.select(product.c.product_id).where(
            product.c.catalogue_id == run.catalogue.id,
            product.c.product_id == item.c.product_id,
            product.c.fingerprint == item.c.fingerprint,
            product.c.final_failure.is_(True),
        )
        due = sa.or_(
            item.c.state.in_(("postponed", "running")),
            sa.and_(item.c.state == "failed", ~final.correlate(item).exists()),
        )
        connection.execute(
            sa.update(item).where(item.c.run == run.id, due).values(state="planned", reason=None, finished_at=None)
        )
        connection.execute(sa.update(schema.run).where(schema.run.c.id == run.id).values(finished_at=None))

    ledger.writer.run(work)


def give_up_planning(ledger: Ledger, catalogue: Catalogue, run_id: str, *, owner: str) -> None:
    """Let another runner plan the run at once, instead of waiting until this one's lease ends.

    Nothing more can be written under the lease: a thread that still reads the feed ends at its next batch.

    Args:
        ledger: Where.
        catalogue: Whose run.
        run_id: Its name.
        owner: Who gives it up; a run that another holds stays as it is.
    """
    table = schema.run
    update = sa.update(table).where(
        table.c.catalogue_id == catalogue.id,
        table.c.run_id == run_id,
        table.c.owner == owner,
        table.c.state == "planning",
    )
    ledger.writer.run(lambda connection: connection.execute(update.values(owner=None, lease_until=0.0)))


def finish(ledger: Ledger, run: Run) -> None:
    """Write down that there is nothing left to do."""
    table = schema.run
    values = {"state": "done", "finished_at": ledger.now()}
    update = sa.update(table).where(table.c.id == run.id).values(values)
    ledger.writer.run(lambda connection: connection.execute(update))


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that a stopped run left running."""

    product_id: str
    job_id: str


def running_jobs(ledger: Ledger, catalogue: Catalogue, run_id: str) -> list[RunningJob]:
    """The jobs that a stopped run left running, in the order of the plan; none where it was not even planned."""
    item, intent, run = schema.item, schema.intent, schema.run
    same = sa.and_(
        intent.c.catalogue_id == catalogue.id,
        intent.c.product_id == item.c.product_id,
        intent.c.fingerprint == item.c.fingerprint,
    )
    query = (
        sa.select(item.c.product_id, intent.c.job_id)
        .select_from(item.join(run, run.c.id == item.c.run).join(intent, same))
        .where(run.c.catalogue_id == catalogue.id, run.c.run_id == run_id, item.c.state == "running")
        .where(intent.c.job_id.is_not(None))
        .order_by(item.c.seq)
    )
    rows = ledger.read(lambda connection: connection.execute(query).all())
    return [RunningJob(row.product_id, str(row.job_id)) for row in rows]


def open_items(ledger: Ledger, run: Run) -> int:
    """How many products of the plan have no outcome yet."""
    item = schema.item
    query = sa.select(sa.func.count()).where(item.c.run == run.id, item.c.state == "planned")
    return ledger.read(lambda connection: int(connection.execute(query).scalar_one()))


def postpone_rest(ledger: Ledger, run: Run, *, reason: str) -> int:
    """Postpone everything that would cost money and is not begun.

    Returns:
        How many products that was.
    """
    item, product = schema.item, schema.product

    def work(connection: sa.Connection) -> int:
        held = sa.select(product.c.product_id).where(
            product.c.catalogue_id == run.catalogue.id,
            product.c.product_id == item.c.product_id,
            product.c.lease_owner.is_not(None),
            product.c.lease_until >= ledger.now(),
        )
        update = sa.update(item).where(
            item.c.run == run.id,
            item.c.state == "planned",
            item.c.begun.is_(False),
            ~held.correlate(item).exists(),
        )
        return connection.execute(update.values(state="postponed", reason=reason)).rowcount

    return ledger.writer.run(work)
