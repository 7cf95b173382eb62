# SPDX-License-Identifier: Apache-2.0
"""`ugen reconcile`: do what a ledger still owes after the process that decided it is gone."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click
import sqlalchemy as sa

from ugen_provider.cli.exits import ExitCode
from ugen_provider.cli.frame import CommandFailedError, command
from ugen_provider.cli.ledger.commands import label_of
from ugen_provider.cli.options import ledger_option
from ugen_provider.cli.printer import Listing, data_of, row_of
from ugen_provider.cli.session import Session
from ugen_provider.cli.signals import StopFlag, StoppedError, run_stoppable
from ugen_provider.core.api.async_client import AsyncUGenClient
from ugen_provider.core.api.clock import clock_of
from ugen_provider.core.api.models import Job
from ugen_provider.core.jobs.order import parse_record_key
from ugen_provider.core.jobs.reconciler import INTERVAL, LEASE, reconcile
from ugen_provider.core.jobs.results import OwnerState, ReconcileReport, collect_outputs
from ugen_provider.core.jobs.threads import in_thread
from ugen_provider.core.jobs.world import AsyncWorld
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.record import Action, OrderRecord
from ugen_provider.core.ledger.store import Ledger, release_lease

_ACTIVE = ("pending", "processing", "paused")
_OWNED_BY_COMMANDS = frozenset({"product", "name"})
"""Kinds of orders that commands and scripts own: their cancel is a person's decision. Orchestrators own the others."""


@command(
    "reconcile", examples=("ugen reconcile", "ugen reconcile --ledger postgresql://ugen@db.example/videos --watch")
)
@ledger_option
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=1),
    default=INTERVAL,
    show_default=True,
    help="With --watch: seconds between two rounds.",
)
def reconcile_command(session: Session, *, ledger: str | None, watch: bool, interval: float) -> ExitCode:
    """Send the cancels that a ledger owes, cancel expired gates, and store results of failed tasks. Free.

    Active jobs without an owner are reported and never cancelled. A cancel of an Airflow task or a Dagster run is sent
    by their own processes, which can ask whether the task is over; here it stays owed and is reported.
    """
    codes: list[ExitCode] = []
    owner = uuid.uuid4().hex

    async def work(stop: StopFlag) -> None:
        async with session.async_client() as client:
            world = AsyncWorld(client, session.order_store(opened), is_stopping=lambda: stop.is_set)
            while not stop.is_set:
                codes.append(await _round(session, world, opened, owner=owner, as_line=watch))
                if not watch:
                    return
                await stop.wait_unless_set(clock_of(client).asleep(interval))

    with session.ledger(ledger) as opened:
        try:
            run_stoppable(work, note=session.out.note)
        except (StoppedError, KeyboardInterrupt):
            raise CommandFailedError("stopped", code=ExitCode.INTERRUPTED, kind="KeyboardInterrupt") from None
        finally:
            release_lease(opened, LEASE, owner=owner)
    return codes[-1] if codes else ExitCode.DONE


async def _round(session: Session, world: AsyncWorld, ledger: Ledger, *, owner: str, as_line: bool) -> ExitCode:
    """Do one round and show it. Only what this process may settle and did not makes it fail."""
    report = await reconcile(world, ledger, owner=owner, owner_state=_owner_state, collect=collect_outputs)
    unowned = await in_thread(_without_owner, ledger, await _active_jobs(world.client))
    _show_report(session, report, unowned, as_line=as_line)
    failed = [action for action, _ in report.owed if action.kind != "collect" and _is_owned_by_commands(action)]
    return ExitCode.TROUBLE if failed else ExitCode.DONE


def _is_owned_by_commands(action: Action) -> bool:
    key = parse_record_key(action.order_key)
    return key is not None and key.kind in _OWNED_BY_COMMANDS


def _owner_state(_record: OrderRecord, action: Action) -> OwnerState:
    return "over" if _is_owned_by_commands(action) else "unknown"


async def _active_jobs(client: AsyncUGenClient) -> list[Job]:
    """Return the account's jobs that have not ended. Free; `GET /jobs`."""
    jobs: dict[str, Job] = {}
    for status in _ACTIVE:
        async for job in client.jobs.list(status=status):
            if not job.ended:
                jobs[job.job_id] = job
    return list(jobs.values())


@dataclass(frozen=True, slots=True)
class UnownedJob:
    """An active job for which no process is known to wait.

    Attributes:
        job: The job.
        why: `not_in_ledger`, or `left_by_run` for a product that no feed run holds.
        order: The order in words, if the ledger knows it.
    """

    job: Job
    why: str
    order: str = ""

    @property
    def sentence(self) -> str:
        """Return what a person should know of it."""
        if self.why == "left_by_run":
            return f"{self.order}: the next `ugen feed run` collects it"
        return "not in this ledger: an Airflow task, a Dagster run or another ledger may own it"


def _without_owner(ledger: Ledger, jobs: Iterable[Job]) -> list[UnownedJob]:
    """Return the active jobs without a known owner. Jobs of tasks, partitions and names have one elsewhere."""
    order, product = schema.order, schema.product
    query = (
        sa.select(order.c.order_key, order.c.product_id, product.c.lease_owner, product.c.lease_until)
        .select_from(
            order.outerjoin(
                product,
                sa.and_(product.c.catalogue_id == order.c.catalogue_id, product.c.product_id == order.c.product_id),
            )
        )
        .where(order.c.job_id == sa.bindparam("job"))
        .limit(1)
    )
    found: list[UnownedJob] = []
    with ledger.streaming() as connection:
        for job in jobs:
            row = connection.execute(query, {"job": job.job_id}).one_or_none()
            if row is None:
                found.append(UnownedJob(job, "not_in_ledger"))
            elif row.product_id is not None and (row.lease_owner is None or row.lease_until < ledger.now()):
                found.append(UnownedJob(job, "left_by_run", label_of(row.order_key)))
    return found


def _show_report(session: Session, report: ReconcileReport, unowned: Sequence[UnownedJob], *, as_line: bool) -> None:
    out = session.out
    if out.as_json:
        data = report_data(report, unowned)
        if as_line:
            out.json_line(data)
        else:
            out.json(data)
        return
    if not report.ran:
        out.note("Another process reconciles this ledger, or did less than two minutes ago; nothing was done.")
    rows = [(action, "done", "") for action in report.done]
    rows += [(action, "withdrawn", "a newer attempt needs the job, or it continued") for action in report.withdrawn]
    rows += [(action, "owed", why) for action, why in report.owed]
    cells = [
        (action.job_id or "", action.kind, action.reason, result, why or label_of(action.order_key))
        for action, result, why in rows
    ]
    if report.ran:
        out.show(Listing(("JOB", "ACTION", "REASON", "RESULT", "ABOUT"), cells, data=[], nothing="Nothing was owed."))
    if unowned:
        listed = [(*row_of(one.job)[:3], one.sentence, row_of(one.job)[6]) for one in unowned]
        out.show(Listing(("UNOWNED", "STATUS", "STAGE", "ABOUT", "CREATED"), listed, data=[], headed=True))
        out.note("Jobs without an owner are never cancelled: `ugen jobs wait JOB` or `ugen jobs cancel JOB`.")


def report_data(report: ReconcileReport, unowned: Sequence[UnownedJob]) -> dict[str, Any]:
    """Return a round as JSON types."""
    return {
        "ran": report.ran,
        "done": [action.to_dict() for action in report.done],
        "withdrawn": [action.to_dict() for action in report.withdrawn],
        "owed": [{**action.to_dict(), "why": why} for action, why in report.owed],
        "unowned": [{**data_of(one.job), "why": one.why, "order": one.order} for one in unowned],
    }
