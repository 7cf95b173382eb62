# SPDX-License-Identifier: Apache-2.0
"""`ugen feed check`: a feed, looked at without spending anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import click

from ugen_provider.cli.feed.options import feed_mapping, feed_options, reading_options
from ugen_provider.cli.fields import feed_field_options
from ugen_provider.cli.frame import command
from ugen_provider.cli.ledger.reading import ledger_option
from ugen_provider.cli.printing import Listing, Sheet, busy
from ugen_provider.cli.session import Session
from ugen_provider.core.api import operations
from ugen_provider.core.api._sync_client import UGenClient
from ugen_provider.core.api.errors import APIError, ConfigError, ResponseError
from ugen_provider.core.batch.checking import FeedCheck, check_feed
from ugen_provider.core.batch.ledger import Catalogue
from ugen_provider.core.feeds.planning import Order, Planned
from ugen_provider.core.feeds.products import RejectedRow, excerpt, place

_TOLD = 1000
Estimate = Callable[[Mapping[str, Any]], int | None]


@command(
    "check",
    examples=(
        "ugen feed check feed.xml --segment-count 2",
        "ugen feed check https://shop.example/feed.csv --segment-count 2 --json",
        "ugen feed check feed.csv --segment-count 2 --rejected rejected.jsonl",
        "ugen feed check feed.xml --catalogue shop --segment-count 2",
    ),
)
@click.argument("feed", metavar="FEED")
@click.option("--catalogue", help="Look at it as the next run of this catalogue would: as its ledger has pinned it.")
@ledger_option
@reading_options
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Rows of each kind shown.")
@click.option(
    "--rejected", "report", type=click.Path(dir_okay=False, path_type=Path), help="Write all rejected rows as JSONL."
)
@click.option("--no-estimate", is_flag=True, help="Do not ask what it would cost; needs no key.")
@feed_field_options()
def check_command(
    session: Session,
    *,
    fields: dict[str, Any],
    feed: str,
    catalogue: str | None,
    ledger: str | None,
    kind: str | None,
    format_: str | None,
    encoding: str | None,
    mapping: Path | None,
    upload_pictures: bool,
    limit: int,
    report: Path | None,
    no_estimate: bool,
) -> None:
    """Go through FEED, a path or URL: what would be sent, what would be refused and why, and what it would cost.

    Nothing is bought, and nothing is written beside the report. FEED may be packed, and is told by its content.
    """
    accepted: list[Order] = []
    rejected: list[RejectedRow] = []
    if ledger is not None and catalogue is None:
        raise click.UsageError("--ledger says nothing without --catalogue: what is pinned is pinned for a catalogue")
    pinned = _pinned(session, ledger, catalogue) if catalogue is not None else None
    kind = kind or (pinned.kind if pinned is not None else None)
    with ExitStack() as stack:
        estimate = None if no_estimate else stack.enter_context(_estimates(session))
        file = stack.enter_context(_report(report)) if report is not None else None
        check = stack.enter_context(
            check_feed(
                feed,
                job_defaults=fields,
                estimate=estimate,
                options=feed_options(kind=kind, format_=format_, encoding=encoding),
                mapping=feed_mapping(mapping, kind=kind),
                version=pinned.mapping_version if pinned is not None else None,
                model=session.chosen.profile.video_model,
                upload_pictures=upload_pictures,
            )
        )
        say = stack.enter_context(busy(f"reading {check.summary.source}"))
        for row in check.rows:
            if check.summary.rows % _TOLD == 0:
                say(f"reading {check.summary.source}: {check.summary.rows:,} products")
            _keep(row, accepted, rejected, limit=limit, file=file)
    summary = check.summary
    if session.out.as_json:
        session.out.json({**summary.to_dict(), "rejected_rows": [asdict(row) for row in rejected]})
        return
    session.out.show(summary_sheet(summary))
    if summary.rows and summary.unseen_columns:
        session.out.note(f"Note: the mapping names what no product has: {', '.join(summary.unseen_columns)}")
    if rejected:
        session.out.show(rejected_listing(rejected))
    if summary.rejected > len(rejected):
        session.out.note(f"{summary.rejected:,} rows are rejected: --limit shows more, --rejected FILE writes them all")
    if accepted:
        session.out.show(orders_listing(accepted))


def _pinned(session: Session, ledger: str | None, catalogue: str) -> Catalogue | None:
    """The catalogue as its ledger knows it; None before its first run, which will take what is newest."""
    opened = session.known_ledger(ledger)
    if opened is None:
        return None
    with opened:
        known = {(found.namespace, found.name): found for found in opened.catalogues()}
        return known.get((session.namespace, catalogue))


def _keep(
    row: Planned, accepted: list[Order], rejected: list[RejectedRow], *, limit: int, file: IO[str] | None
) -> None:
    if isinstance(row, RejectedRow):
        if file is not None:
            file.write(rejected_line(row))
        if len(rejected) < limit:
            rejected.append(row)
    elif (
        isinstance(row, Order) and len(accepted) < limit and row.product_id not in {one.product_id for one in accepted}
    ):
        accepted.append(row)  # of two with one id a run takes the first


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write to beside a file; it gets the file's name only when it is whole.

    Raises:
        OSError: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        if error.filename == str(beside):
            error.filename = str(path)  # what its user named
        raise
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _report(path: Path) -> Iterator[IO[str]]:
    with whole_file(path) as beside, beside.open("w", encoding="utf-8") as file:
        yield file


def rejected_line(row: RejectedRow) -> str:
    """A rejected row as a line of the report."""
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


@contextmanager
def _estimates(session: Session) -> Iterator[Estimate | None]:
    """Asks the service; without a key the cost stays open, which is told, and the rest is checked all the same."""
    try:
        client = session.client()
    except ConfigError as error:
        session.out.note(f"Note: the cost is not known: {error}")
        yield None
        return
    with client:
        yield lambda fields: _ask(session, client, fields)


def _ask(session: Session, client: UGenClient, fields: Mapping[str, Any]) -> int | None:
    try:
        return client.call(operations.estimate(fields)).total_credits
    except (APIError, ResponseError) as error:
        session.out.note(f"Note: the cost is not known: {error}")
        return None


def summary_sheet(summary: FeedCheck) -> Sheet:
    """What a feed amounts to."""
    credits_ = "unknown" if summary.estimated_credits is None else f"{summary.estimated_credits:,}"
    facts = [
        ("feed", summary.source),
        ("kind", f"{summary.kind}, {summary.format}"),
        ("products", f"{summary.rows:,}"),
        ("accepted", f"{summary.accepted:,}"),
        ("rejected", f"{summary.rejected:,}"),
        ("skipped", _skipped(summary)),
        (
            "duplicate ids",
            f"{summary.duplicates:,} of the accepted; the first of each counts" if summary.duplicates else "",
        ),
        ("estimated credits", credits_),
    ]
    return Sheet(facts, data=summary.to_dict())


def _skipped(summary: FeedCheck) -> str:
    if not summary.skipped:
        return ""
    rules = ", ".join(f"{count:,} by {rule}" for rule, count in summary.skipped_by.items())
    return f"{summary.skipped:,} ({rules})"


def rejected_listing(rows: list[RejectedRow]) -> Listing:
    """Rows that become no order."""
    cells = [(row.product_id or "", place(row.line, row.item), row.column, row.rule, row.excerpt) for row in rows]
    return Listing(
        ("REJECTED", "WHERE", "COLUMN", "RULE", "GOT"), cells, data=[asdict(row) for row in rows], headed=True
    )


def orders_listing(orders: list[Order]) -> Listing:
    """What would be sent."""
    cells = [
        (
            order.product_id,
            excerpt(order.fields["product_name"]),
            excerpt("; ".join(order.fields.get("key_selling_points") or ()), most=160),
            str(order.fields["product_image_url"]),
        )
        for order in orders
    ]
    data = [{"product_id": order.product_id, "request": dict(order.fields)} for order in orders]
    return Listing(("WOULD BE SENT", "PRODUCT NAME", "SELLING POINTS", "PICTURE"), cells, data=data, headed=True)
