# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs orphans`: jobs that run and that nobody on this machine waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

from ugen_provider.cli.exits import ExitCode
from ugen_provider.cli.frame import CommandFailedError, command
from ugen_provider.cli.jobs.orders import Orders, order_name
from ugen_provider.cli.jobs.steering import Verdict, cancel_one, each_of
from ugen_provider.cli.jobs.views import data_of, row_of
from ugen_provider.cli.jobs.waiting import interval_option, show_waited, timeout_option, wait_for
from ugen_provider.cli.ledger.reading import ledger_option
from ugen_provider.cli.printing import Listing
from ugen_provider.cli.session import Session
from ugen_provider.core.api._sync_client import UGenClient
from ugen_provider.core.api.polling import Goal
from ugen_provider.core.batch.ledger import Ledger
from ugen_provider.core.batch.repairing import Orphan, orphans

ALL = "all"


@dataclass(frozen=True, slots=True)
class Found:
    """An orphan, and what it was bought for as far as this machine knows.

    Attributes:
        orphan: The job and the ledger's word on it.
        order: The order of `ugen jobs create` that bought it.
    """

    orphan: Orphan
    order: str | None

    @property
    def ours(self) -> bool:
        """Whether this machine bought it, so that nobody else can be waiting for it."""
        return self.orphan.why == "left" or self.order is not None

    @property
    def owner(self) -> str:
        """What it was bought for, for a person."""
        if self.orphan.why == "left":
            return f"{self.orphan.catalogue}: {self.orphan.product_id}"
        if self.order is not None:
            return f"order {self.order}"
        return "not from here: an Airflow task or a Dagster run may wait for it"


@command(
    "orphans",
    examples=("ugen jobs orphans", "ugen jobs orphans --attach all", "ugen jobs orphans --cancel JOB"),
)
@ledger_option
@click.option("--attach", "attach", multiple=True, metavar="JOB", help="Wait for it, or for `all` from here.")
@click.option("--cancel", "cancel_", multiple=True, metavar="JOB", help="Cancel it, or `all` from here.")
@interval_option
@timeout_option
def orphans_command(
    session: Session,
    *,
    ledger: str | None,
    attach: tuple[str, ...],
    cancel_: tuple[str, ...],
    interval: float,
    timeout: float | None,
) -> ExitCode:
    """Find jobs that have not ended and that no feed run of this ledger waits for.

    What this machine did not buy may well be waited for elsewhere: it is listed, and touched only when it is named.
    A feed run takes up by itself what its ledger bought.
    """
    if attach and cancel_:
        raise click.UsageError("give --attach or --cancel, not both")
    orders = Orders(session.data / "orders")
    names = {intent.job_id: order_name(intent) for intent in orders.all() if intent.job_id is not None}
    with session.client() as client, session.ledger(ledger) as opened:
        found = [Found(orphan, names.get(orphan.job.job_id)) for orphan in orphans(opened, client)]
        if cancel_:
            chosen = choose(found, cancel_)
            return cancel_orphans(session, client, opened, [one.orphan for one in chosen], orders)
    if attach:
        wanted = [one.orphan.job.job_id for one in choose(found, attach)]
        if not wanted:
            session.out.note("Nobody's job from here runs.")
            return ExitCode.DONE
        waited = wait_for(session, wanted, goal=Goal(), interval=interval, timeout=timeout)
        return show_waited(session, wanted, waited)
    session.out.show(orphans_listing(found))
    if found:
        session.out.note("--attach JOB waits for one, --cancel JOB ends it.")
    return ExitCode.DONE


def choose(found: Sequence[Found], wanted: Sequence[str]) -> list[Found]:
    """The orphans that are meant: by id, or all that were bought from here.

    Raises:
        CommandFailedError: One of the ids is no orphan.
    """
    known = {one.orphan.job.job_id: one for one in found}
    if unknown := [job_id for job_id in wanted if job_id != ALL and job_id not in known]:
        raise CommandFailedError(
            f"{', '.join(unknown)}: is no job that runs and that nobody waits for; nothing was done",
            code=ExitCode.USAGE,
            advice="`ugen jobs orphans` lists them",
            kind="no_orphan",
        )
    return [one for job_id, one in known.items() if job_id in wanted or (ALL in wanted and one.ours)]


def orphans_listing(found: Sequence[Found]) -> Listing:
    """Orphans, with what they were bought for."""
    rows = [(*row_of(one.orphan.job)[:4], one.owner, *row_of(one.orphan.job)[5:]) for one in found]
    data = [
        {
            **data_of(one.orphan.job),
            "why": one.orphan.why,
            "catalogue": one.orphan.catalogue,
            "product_id": one.orphan.product_id,
            "order": one.order,
        }
        for one in found
    ]
    columns = ("JOB", "STATUS", "STAGE", "%", "BOUGHT FOR", "CREDITS", "CREATED")
    return Listing(columns, rows, data=data, nothing="No job runs that nobody waits for.")


def cancel_orphans(
    session: Session, client: UGenClient, ledger: Ledger, found: Sequence[Orphan], orders: Orders
) -> ExitCode:
    """Cancel orphans, each written down where it was bought.

    Args:
        session: Shows what came of it.
        client: Sends the requests.
        ledger: What a feed bought.
        found: The orphans.
        orders: What `ugen jobs create` bought.
    """

    def act(client: UGenClient, job_id: str) -> Verdict:
        return cancel_one(client, job_id, orders, ledger=ledger)

    return each_of(session, client, [orphan.job.job_id for orphan in found], act)
