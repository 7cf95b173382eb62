# SPDX-License-Identifier: Apache-2.0
"""A run in the ledger: opened by one, joined by others, taken over from ended runners, continued after a stop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import sqlalchemy as sa

from ugen_provider.core.batch.errors import LeaseLostError
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.record import split_row_id
from ugen_provider.core.ledger.store import Catalogue, Ledger, among, insert_new

_SLICE = 2000
"""Items that are changed in one transaction."""

LEASE = 60.0
"""Seconds after which work is taken over from a runner that was not heard of."""


NOT_PLANNED = ("planning", "refused")
"""States of a run that has no complete plan."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a catalogue, planned or about to be.

    Attributes:
        id: In this ledger.
        catalogue: Whose.
        run_id: The name that the user, or the orchestrator, gave it.
        owner: The runner that works on it now.
    """

    id: int
    catalogue: Catalogue
    run_id: str
    owner: str


def touch(connection: sa.Connection, run: Run, *, until: float) -> None:
    """Say that this runner still works on the run, and make sure that it may.

    Raises:
        LeaseLostError: Another runner took it over.
    """
    table = schema.run
    update = sa.update(table).where(table.c.id == run.id, table.c.owner == run.owner).values(lease_until=until)
    if connection.execute(update).rowcount != 1:
        raise LeaseLostError(f"run {run.run_id!r} was taken over by another runner")


def join(ledger: Ledger, catalogue: Catalogue, run_id: str, *, owner: str, budget: int | None) -> tuple[Run, str]:
    """Enter a run, or join one that is there.

    Args:
        ledger: Where.
        catalogue: Whose run.
        run_id: Its name.
        owner: Who asks.
        budget: Credits that the run may use; a run that continues takes the newest value.

    Returns:
        The run and what there is to do: `plan` it; `wait`, since another plans it; or `buy`.
    """
    table = schema.run

    def work(connection: sa.Connection) -> tuple[Run, str]:
        now = ledger.now()
        # One plan of a catalog is written at a time: each says what it sees in the rows of the products.
        this = sa.select(schema.catalogue.c.id).where(schema.catalogue.c.id == catalogue.id)
        connection.execute(this.with_for_update())
        ours = (table.c.catalogue_id == catalogue.id, table.c.run_id == run_id)
        values = {"catalogue_id": catalogue.id, "run_id": run_id, "state": "planning", "created_at": now}
        insert_new(connection, table, values)
        connection.execute(sa.update(table).where(*ours).values(budget=budget))
        row = connection.execute(sa.select(table).where(*ours)).one()
        run = Run(row.id, catalogue, run_id, owner)
        if row.state not in NOT_PLANNED:
            return run, "buy"
        others = sa.select(table.c.id).where(
            table.c.catalogue_id == catalogue.id,
            table.c.id != row.id,
            table.c.state == "planning",
            table.c.owner.is_not(None),
            table.c.lease_until >= now,
        )
        if connection.execute(others.limit(1)).first() is not None:
            return run, "wait"
        mine = sa.or_(table.c.owner.is_(None), table.c.lease_until < now)
        taken = sa.update(table).where(*ours, table.c.state.in_(NOT_PLANNED), mine)
        planning = {"state": "planning", "reason": None, "owner": owner, "lease_until": now + LEASE}
        if connection.execute(taken.values(planning)).rowcount == 1:
            return run, "plan"
        return run, "wait"

    return ledger.writer.run_alone(work)


def reopen(ledger: Ledger, run: Run) -> None:
    """Continue a stopped run: products postponed, left running or failed for a passing reason are due again."""
    reopen_items(ledger, run)
    table = schema.run
    reopened = sa.update(table).where(table.c.id == run.id).values(finished_at=None)
    ledger.writer.run_alone(lambda connection: connection.execute(reopened))


def reopen_items(ledger: Ledger, run: Run) -> None:
    """Make the products of a stopped run due again."""
    item, product = schema.item, schema.product
    final = sa.select(product.c.product_id).where(
        product.c.catalogue_id == run.catalogue.id,
        product.c.product_id == item.c.product_id,
        product.c.fingerprint == item.c.fingerprint,
        product.c.final_failure.is_(True),
    )
    # A product that waits for a person waits for another plan.
    asked = sa.or_(item.c.reason == "max_changed", item.c.reason.like("adopt:%"))
    not_asked = sa.or_(item.c.reason.is_(None), sa.not_(asked))
    due = {"state": "planned", "reason": None, "finished_at": None}
    for state in ("postponed", "running", "failed"):
        passing = {"failed": ~final.correlate(item).exists(), "postponed": not_asked}.get(state, sa.true())
        _change_items(ledger, run, passing, state=state, values=due)


def _change_items(ledger: Ledger, run: Run, where: Any, *, state: str, values: Mapping[str, Any]) -> int:
    """Change the items of a run that are in one state, a slice of the plan at a time; return how many.

    Each slice is a transaction, so that a million items take no more memory than a thousand and no runner waits for
    long. A row that another transaction holds is passed over: its holder is the one who decides about it.
    """
    return sum(_change_half(ledger, run, where, state=state, begun=begun, values=values) for begun in (True, False))


def _change_half(ledger: Ledger, run: Run, where: Any, *, state: str, begun: bool, values: Mapping[str, Any]) -> int:
    """Change the items that are begun, or those that are not: the index of claims has them in this order."""
    item = schema.item
    changed, after = 0, -1

    def work(connection: sa.Connection) -> tuple[int, int | None]:
        these = [item.c.run == run.id, item.c.state == state, item.c.begun.is_(begun), item.c.seq > after]
        ends = sa.select(item.c.seq).where(*these).order_by(item.c.seq).offset(_SLICE - 1).limit(1)
        last = connection.execute(ends).scalar()
        if last is not None:
            these.append(item.c.seq <= last)
        locked = sa.select(item.c.product_id).where(*these, where).order_by(item.c.seq)
        ids = list(connection.execute(locked.with_for_update(skip_locked=True)).scalars())
        if ids:
            update = sa.update(item).where(item.c.run == run.id, among(connection, item.c.product_id, ids))
            connection.execute(update.values(**values))
        return len(ids), last

    while True:
        count, last = ledger.writer.run_alone(work)
        changed += count
        if last is None:
            return changed
        after = last


def give_up_planning(ledger: Ledger, catalogue: Catalogue, run_id: str, *, owner: str) -> None:
    """Let another runner plan the run at once, instead of waiting until this one's lease ends.

    Nothing more can be written under the lease: a thread that still reads the feed ends at its next batch.

    Args:
        ledger: Where.
        catalogue: Whose run.
        run_id: Its name.
        owner: Who gives it up; a run that another holds stays unchanged.
    """
    table = schema.run
    update = sa.update(table).where(
        table.c.catalogue_id == catalogue.id,
        table.c.run_id == run_id,
        table.c.owner == owner,
        table.c.state == "planning",
    )
    ledger.writer.run_alone(lambda connection: connection.execute(update.values(owner=None, lease_until=0.0)))


def refuse(ledger: Ledger, catalogue: Catalogue, run_id: str, *, owner: str, reason: str) -> None:
    """Write down that a plan was refused, or its feed could not be read, and why. The same run may be planned again.

    Args:
        ledger: Where.
        catalogue: Whose run.
        run_id: Its name.
        owner: Who planned it; a run that another holds stays unchanged.
        reason: Why, in words.
    """
    table = schema.run
    update = sa.update(table).where(
        table.c.catalogue_id == catalogue.id,
        table.c.run_id == run_id,
        table.c.owner == owner,
        table.c.state == "planning",
    )
    values = {"state": "refused", "reason": reason, "owner": None, "lease_until": 0.0}
    ledger.writer.run_alone(lambda connection: connection.execute(update.values(values)))


RunState = Literal["planning", "interrupted", "refused", "buying", "done"]


def state_of(row: Any, *, now: float) -> RunState:
    """Return the state of a run for a person, from its row.

    A plan whose process is gone is `interrupted`, not `planning`: nothing is written into it any more.
    """
    if row.state == "planning" and (row.owner is None or row.lease_until < now):
        return "interrupted"
    return cast("RunState", row.state)


def finish(ledger: Ledger, run: Run) -> None:
    """Write down that there is nothing left to do."""
    table = schema.run
    values = {"state": "done", "finished_at": ledger.now()}
    update = sa.update(table).where(table.c.id == run.id).values(values)
    ledger.writer.run_alone(lambda connection: connection.execute(update))


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that a stopped run left running."""

    product_id: str
    job_id: str
    variant: str = ""


def running_jobs(ledger: Ledger, catalogue: Catalogue, run_id: str) -> list[RunningJob]:
    """Return the jobs that a stopped run left running, in the order of the plan; none where it was not even planned."""
    item, order, run = schema.item, schema.order, schema.run
    same = sa.and_(
        order.c.catalogue_id == catalogue.id,
        order.c.product_id == item.c.product_id,
        order.c.fingerprint == item.c.fingerprint,
    )
    query = (
        sa.select(item.c.product_id, order.c.job_id)
        .select_from(item.join(run, run.c.id == item.c.run).join(order, same))
        .where(run.c.catalogue_id == catalogue.id, run.c.run_id == run_id, item.c.state == "running")
        .where(order.c.job_id.is_not(None))
        .order_by(item.c.seq)
    )
    rows = ledger.read(lambda connection: connection.execute(query).all())
    named = [(*split_row_id(row.product_id), str(row.job_id)) for row in rows]
    return [RunningJob(product_id, job_id, variant) for product_id, variant, job_id in named]


def sample_requests(ledger: Ledger, run: Run) -> list[dict[str, Any]]:
    """Return one request for each cost among the purchases that the plan still has to begin."""
    item, table = schema.item, schema.run
    due = sa.select(item.c.seq).where(item.c.run == run.id, item.c.state == "planned", item.c.begun.is_(False)).limit(1)
    samples = sa.select(table.c.samples).where(table.c.id == run.id)

    def work(connection: sa.Connection) -> list[dict[str, Any]]:
        if connection.execute(due).first() is None:
            return []
        found: list[dict[str, Any]] = json.loads(connection.execute(samples).scalar() or "[]")
        return found

    return ledger.read(work)


def open_items(ledger: Ledger, run: Run) -> int:
    """Return the number of products of the plan without an outcome."""
    item = schema.item
    query = sa.select(sa.func.count()).where(item.c.run == run.id, item.c.state == "planned")
    return ledger.read(lambda connection: int(connection.execute(query).scalar_one()))


def postpone_rest(ledger: Ledger, run: Run, *, reason: str) -> int:
    """Postpone everything that would cost money and is not begun.

    Returns:
        How many products that was.
    """
    item, product = schema.item, schema.product
    held = sa.select(product.c.product_id).where(
        product.c.catalogue_id == run.catalogue.id,
        product.c.product_id == item.c.product_id,
        product.c.lease_owner.is_not(None),
        product.c.lease_until >= ledger.now(),
    )
    free = ~held.correlate(item).exists()
    return _change_half(
        ledger, run, free, state="planned", begun=False, values={"state": "postponed", "reason": reason}
    )
