# SPDX-License-Identifier: Apache-2.0
"""`ugen ledger show`."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import click

from ugen_provider.cli.exits import ExitCode
from ugen_provider.cli.frame import CommandFailedError, command
from ugen_provider.cli.jobs.views import time_of
from ugen_provider.cli.ledger.reading import known_runs, ledger_option
from ugen_provider.cli.printing import Listing
from ugen_provider.cli.session import Session
from ugen_provider.core.batch.ledger import Entry, Ledger
from ugen_provider.core.batch.report import report_of
from ugen_provider.core.batch.shopfeed import entries_as_json

STATES = ("completed", "failed", "buying")


@command(
    "show",
    examples=(
        "ugen ledger show",
        "ugen ledger show shop --state failed",
        "ugen ledger show shop --product LL-1001 --json",
        "ugen ledger show shop --runs",
        "ugen ledger show shop --run monday",
    ),
)
@click.argument("catalogue", required=False)
@ledger_option
@click.option("--product", "products", multiple=True, metavar="ID", help="Only this product; may be repeated.")
@click.option("--state", type=click.Choice(STATES), help="Only products of this state.")
@click.option("--runs", is_flag=True, help="Show the catalogue's runs instead.")
@click.option("--run", "run_id", help="Show the report of this run instead.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most rows that are shown.")
@click.option("--all", "everything", is_flag=True, help="All rows.")
def show_command(
    session: Session,
    *,
    catalogue: str | None,
    ledger: str | None,
    products: tuple[str, ...],
    state: str | None,
    runs: bool,
    run_id: str | None,
    limit: int,
    everything: bool,
) -> None:
    """Show what the ledger knows: its catalogues, or the products, runs or one run's report of CATALOGUE."""
    if catalogue is None and (products or state or runs or run_id):
        raise click.UsageError("name the CATALOGUE; `ugen ledger show` alone lists them")
    most = None if everything else limit
    with session.existing_ledger(ledger) as opened:
        if catalogue is None:
            session.out.show(_catalogues(opened))
        elif run_id is not None:
            _show_report(session, opened, catalogue, run_id)
        elif runs:
            session.out.show(_runs(opened, catalogue, namespace=session.namespace, most=most))
        else:
            wanted = (
                entry
                for entry in opened.entries(catalogue, namespace=session.namespace)
                if (not products or entry.product_id in products) and (state is None or entry.state == state)
            )
            found = list(islice(wanted, most + 1 if most is not None else None))
            session.out.show(entries_listing(found[:most]))
            if most is not None and len(found) > most:
                session.out.note(f"There are more than {most}: --limit or --all shows them.")


def _catalogues(ledger: Ledger) -> Listing:
    known = ledger.catalogues()
    rows = [(one.name, one.namespace, one.kind or "", str(one.mapping_version)) for one in known]
    data = [
        {"catalogue": one.name, "namespace": one.namespace, "kind": one.kind, "mapping_version": one.mapping_version}
        for one in known
    ]
    columns = ("CATALOGUE", "NAMESPACE", "KIND", "MAPPING")
    return Listing(columns, rows, data=data, nothing="No catalogues: `ugen feed run` makes the first.")


def _runs(ledger: Ledger, catalogue: str, *, namespace: str, most: int | None) -> Listing:
    rows, data = [], []
    for known in known_runs(ledger, catalogue, namespace=namespace)[:most]:
        report = report_of(ledger, known.run)
        began = datetime.fromtimestamp(known.created_at, UTC)
        counts = (report.products, report.completed, report.failed, report.rejected, report.unchanged)
        rest = (report.postponed, report.running + report.open, report.credits_consumed)
        rows.append((known.run.run_id, known.state, time_of(began), *(f"{count:,}" for count in (*counts, *rest))))
        data.append({"state": known.state, "created_at": began.isoformat(), **report.small()})
    columns = ("RUN", "STATE", "BEGAN", "PRODUCTS", "COMPLETED", "FAILED", "REJECTED", "UNCHANGED", "POSTPONED", "OPEN",
               "CREDITS")  # fmt: skip
    return Listing(columns, rows, data=data, nothing="No runs.")


def _show_report(session: Session, ledger: Ledger, catalogue: str, run_id: str) -> None:
    known = known_runs(ledger, catalogue, namespace=session.namespace)
    found = next((one.run for one in known if one.run.run_id == run_id), None)
    if found is None:
        raise CommandFailedError(
            f"catalogue {catalogue!r} has no run {run_id!r}",
            code=ExitCode.USAGE,
            advice=f"`ugen ledger show {catalogue} --runs` lists them",
            kind="unknown_run",
        )
    report = report_of(ledger, found)
    session.out.text(report.table(), data=report.to_dict())


def entries_listing(entries: list[Entry]) -> Listing:
    """Products of a catalogue."""
    rows = [
        (
            entry.product_id,
            entry.state,
            entry.job_id or "",
            "" if entry.credits is None else f"{entry.credits:,}",
            "" if entry.score is None else f"{entry.score:.2f}",
            entry.reason or entry.video or "",
            "" if entry.seen else "no longer in the feed",
        )
        for entry in entries
    ]
    columns = ("PRODUCT", "STATE", "JOB", "CREDITS", "SCORE", "VIDEO, OR WHY NOT", "")
    return Listing(columns, rows, data=list(entries_as_json(iter(entries))), nothing="No products.")
