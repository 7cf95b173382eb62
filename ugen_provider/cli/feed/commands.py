# SPDX-License-Identifier: Apache-2.0
"""`ugen feed check` and `preview`, which spend nothing, and `ugen feed run`, which can be stopped and continued."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import signal
import sys
import threading
import webbrowser
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import click

from ugen_provider.cli.exits import ExitCode, worst
from ugen_provider.cli.frame import INTERRUPTS, CommandFailedError, command
from ugen_provider.cli.jobs.downloads import include_option, may_be_private, private_option, template_option
from ugen_provider.cli.options import (
    INTERVAL,
    PlanningOptions,
    ReadingOptions,
    feed_field_options,
    feed_source,
    ledger_option,
    on_earlier_failure_option,
    planning_options,
    reading_options,
)
from ugen_provider.cli.printer import Listing, Printer, Sheet, busy, clean
from ugen_provider.cli.session import Session
from ugen_provider.cli.signals import StoppedError
from ugen_provider.core.api import endpoints
from ugen_provider.core.api.client import UGenClient, call_endpoint
from ugen_provider.core.api.errors import APIError, ConfigError, ResponseError, UGenError
from ugen_provider.core.batch.budget import Budget
from ugen_provider.core.batch.preview import FeedCheck, OpenCheck, check_feed
from ugen_provider.core.batch.report import Report, find_run, outcomes, rejected_rows, write_rejected
from ugen_provider.core.batch.runner import FeedRunner
from ugen_provider.core.batch.runs import Run, RunningJob, running_jobs
from ugen_provider.core.batch.spec import FeedRun, Outputs, Progress
from ugen_provider.core.feeds.products import Planned, RejectedRow, excerpt, place
from ugen_provider.core.jobs.order import origin_of
from ugen_provider.core.jobs.policy import PurchasePolicy
from ugen_provider.core.ledger.record import row_id, shown_id
from ugen_provider.core.ledger.store import Catalogue, Ledger
from ugen_provider.core.media.origins import RowOrigins
from ugen_provider.core.media.outputs import Include
from ugen_provider.core.text import json_text

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


_PROGRESS_ROWS = 1000
Estimate = Callable[[Mapping[str, Any]], int | None]


@command(
    "check",
    examples=(
        "ugen feed check feed.xml --segment-count 2",
        "ugen feed check https://shop.example/feed.csv --segment-count 2 --json",
        "ugen feed check 'part-*.jsonl.gz' --segment-count 2 --rejected rejected.jsonl",
        "ugen feed check feed.xml --catalogue shop --segment-count 2",
        'ugen feed check postgresql://db/shop --query "SELECT id, title, image_link FROM product"',
    ),
)
@click.argument("feed", metavar="FEED...", nargs=-1, required=True)
@click.option("--catalogue", help="Compare it with this catalogue, and check it as its next run would.")
@ledger_option
@reading_options
@planning_options
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
    feed: tuple[str, ...],
    catalogue: str | None,
    ledger: str | None,
    reading: ReadingOptions,
    planning: PlanningOptions,
    limit: int,
    report: Path | None,
    no_estimate: bool,
) -> None:
    """Check FEED without buying: the orders, the rejected rows with their reasons, and the cost.

    FEED is a path, a URL, a folder, a pattern, several of these, `-` for the standard input, or a database's URL with
    --query. It may be packed. Nothing is bought, and nothing is written except the report. With --catalogue and the
    options of a run, it also says whether these options would refuse that run.
    """
    with ExitStack() as stack:
        check = _opened_check(
            session,
            stack,
            feed=feed,
            fields=fields,
            known=(ledger, catalogue),
            reading=reading,
            planning=planning,
            asks_cost=not no_estimate,
        )
        file = stack.enter_context(_report(report)) if report is not None else None
        for row in _read_all(check):
            if file is not None and isinstance(row, RejectedRow):
                file.write(rejected_line(row))
        if "segment_count" not in fields and reading.mapping is None:
            check.summary.warnings.append("the cost is not estimated without --segment-count")
        if session.out.as_json:
            _print_json(check)
        else:
            _print(session, check, limit=limit)


@command(
    "preview",
    examples=(
        "ugen feed preview feed.xml --segment-count 2 --open",
        "ugen feed preview feed.xml --catalogue shop --budget 5000 --segment-count 2 --out preview.html",
    ),
)
@click.argument("feed", metavar="FEED...", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("preview.html"),
    show_default=True,
    help="The page.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
@click.option("--catalogue", help="Compare it with this catalogue, and preview its next run.")
@click.option("--budget", type=click.IntRange(min=0), help="Credits that the run may spend; the page compares.")
@click.option(
    "--show", type=click.IntRange(min=1), default=5000, show_default=True, help="Products on the page, at most."
)
@click.option("--no-pictures", is_flag=True, help="Do not open the products' pictures to inspect them.")
@click.option(
    "--picture-seconds",
    type=click.FloatRange(min=0),
    default=120,
    show_default=True,
    help="Seconds after which the other pictures are not inspected.",
)
@private_option
@click.option("--no-estimate", is_flag=True, help="Do not ask what it would cost; needs no key.")
@ledger_option
@planning_options
@click.option("--limit", type=click.IntRange(min=1), help="Products that are ordered at most.")
@reading_options
@feed_field_options()
def preview_command(
    session: Session,
    *,
    fields: dict[str, Any],
    feed: tuple[str, ...],
    out: Path,
    opens: bool,
    catalogue: str | None,
    budget: int | None,
    show: int,
    no_pictures: bool,
    picture_seconds: float,
    allow_private: bool | None,
    no_estimate: bool,
    ledger: str | None,
    planning: PlanningOptions,
    limit: int | None,
    reading: ReadingOptions,
) -> None:
    """Write what a run of FEED would buy as one page: picture, script, look and cost of each product. Free.

    On the page, products can be ticked and unticked, and the selection is saved as a file for `ugen feed run --only`.
    It shows rejected rows, products that are not for sale, and the total against balance and budget. The pictures are
    opened once, to inspect their type and size; no picture of a private address is opened unless that is allowed.
    """
    from ugen_provider.core.batch.images import inspect_pictures
    from ugen_provider.core.batch.preview_page import PreviewFacts, picture_addresses, shown_products, write_preview

    with ExitStack() as stack:
        check = _opened_check(
            session,
            stack,
            feed=feed,
            fields=fields,
            known=(ledger, catalogue),
            reading=reading,
            planning=planning,
            asks_cost=not no_estimate,
            limit=limit,
        )
        for _ in _read_all(check):
            pass
        products = shown_products(check, limit=show)
        addresses = [] if no_pictures else picture_addresses(products)
        with busy("opening the pictures") as say:
            pictures = inspect_pictures(
                addresses,
                origins=RowOrigins(reading.picture_roots),
                allow_private=may_be_private(allow_private, base_url=session.chosen.profile.base_url or ""),
                seconds=picture_seconds,
                on_progress=lambda done: say(f"opening the pictures: {done:,} of {len(addresses):,}"),
            )
        facts = PreviewFacts(
            title=f"Preview: {catalogue}" if catalogue else "Preview of a feed",
            catalogue=catalogue,
            command=shlex.join(run_arguments(session.arguments)),
            balance=None if no_estimate else _balance(session),
            budget=budget,
            pictures=pictures,
            written_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        )
        page = write_preview(check, out, products=products, facts=facts)
        summary = check.summary
    if opens:
        webbrowser.open(page.absolute().as_uri())
    bad = Counter(picture.kind for picture in pictures.values() if picture.kind != "ok")
    data = {"page": str(page), "shown": len(products), "picture_problems": dict(bad), **summary.to_dict()}
    session.out.text(str(page), data=data)
    for warning in summary.warnings:
        session.out.note(f"Note: {warning}")


_OF_PREVIEW = frozenset({"--open", "--no-pictures", "--no-estimate"})
_OF_PREVIEW_WITH_VALUE = frozenset({"--out", "--show", "--picture-seconds", "--only"})


def run_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the command that buys the selection of a preview, from the one that wrote the preview.

    Examples:
        >>> run_arguments(["ugen", "feed", "preview", "feed.xml", "--catalogue=shop", "--budget", "9", "--open"])
        ['ugen', 'feed', 'run', 'feed.xml', '--catalogue=shop', '--budget', '9', '--only', 'selection.json']
    """
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        name, has_value, _ = word.partition("=")
        if name in _OF_PREVIEW_WITH_VALUE:
            if not has_value:
                next(words, None)
        elif name not in _OF_PREVIEW:
            kept.append(word)
    if "preview" in kept:
        kept[kept.index("preview")] = "run"
    for name, value in (("--catalogue", "CATALOG"), ("--budget", "CREDITS")):
        if not any(word.partition("=")[0] == name for word in kept):
            kept += [name, value]
    return [*kept, "--only", "selection.json"]


def _balance(session: Session) -> int | None:
    try:
        with session.client() as client:
            return client.credits.balance().available_credits
    except (ConfigError, APIError, ResponseError) as error:
        session.out.note(f"Note: the balance is not known: {error}")
        return None


def _opened_check(
    session: Session,
    stack: ExitStack,
    *,
    feed: tuple[str, ...],
    fields: dict[str, Any],
    known: tuple[str | None, str | None],
    reading: ReadingOptions,
    planning: PlanningOptions,
    asks_cost: bool,
    limit: int | None = None,
) -> OpenCheck:
    """Open a check of the run that these options would make; `known` is the ledger and the catalogue, as given."""
    ledger, catalogue = known
    if ledger is not None and catalogue is None:
        raise click.UsageError("--ledger needs --catalogue: the catalogue to compare the feed with")
    opened = session.known_ledger(ledger) if catalogue is not None else None
    pinned = _pinned(session, stack.enter_context(opened), catalogue or "") if opened is not None else None
    has_cost = "segment_count" in fields or reading.mapping is not None
    estimate = stack.enter_context(_estimates(session)) if has_cost and asks_cost else None
    plan = planning.plan_options(reading, limit=limit)
    version = pinned.mapping_version if pinned is not None and not planning.newest_mapping else None
    return stack.enter_context(
        check_feed(
            feed_source(feed),
            job_defaults=fields,
            estimate=estimate,
            plan=replace(plan, feed=reading.feed_options(kind=pinned.kind if pinned is not None else None)),
            version=version,
            model=session.chosen.profile.video_model,
            known=(opened, pinned) if opened is not None and pinned is not None else None,
        )
    )


def _read_all(check: OpenCheck) -> Iterator[Planned]:
    """Yield the rows of a check, and report how many were read."""
    with busy(f"reading {check.summary.source}") as say:  # ends before the result is printed over it
        for row in check.rows:
            if check.summary.rows % _PROGRESS_ROWS == 0:
                say(f"reading {check.summary.source}: {check.summary.rows:,} products")
            yield row


def _print(session: Session, check: OpenCheck, *, limit: int) -> None:
    summary = check.summary
    session.out.show(summary_sheet(summary))
    for warning in summary.warnings:
        session.out.note(f"Note: {warning}")
    rejected = [RejectedRow(**row) for row in islice(check.rejected_rows(), limit)]
    if rejected:
        session.out.show(rejected_listing(rejected))
    if summary.rejected > len(rejected):
        session.out.note(f"{summary.rejected:,} rows are rejected: --limit shows more, --rejected FILE writes them all")
    skipped = list(islice(check.skipped_rows(), limit))
    if skipped:
        cells = [(row["product_id"], place(row["line"], row["item"], file=row["file"]), row["rule"]) for row in skipped]
        session.out.show(Listing(("LEFT OUT", "WHERE", "REASON"), cells, data=skipped, headed=True))
    if orders := list(islice(check.orders(), limit)):
        session.out.show(orders_listing(orders))


def _print_json(check: OpenCheck) -> None:
    """Print all of a check as one JSON document, piece by piece: a feed may have a million orders."""
    summary = json_text(check.summary.to_dict(), indent=2, default=str)
    click.echo(summary.removesuffix("}").rstrip(), nl=False)
    lists = (
        ("orders", check.orders()),
        ("rejected_rows", check.rejected_rows()),
        ("skipped_rows", check.skipped_rows()),
        ("duplicate_ids", check.duplicate_rows()),
    )
    for name, rows in lists:
        click.echo(f',\n  "{name}": [', nl=False)
        for number, row in enumerate(rows):
            text = json_text(row, default=str)
            click.echo(f"{',' if number else ''}\n    {text}", nl=False)
        click.echo("\n  ]", nl=False)
    click.echo("\n}")


def _pinned(session: Session, ledger: Ledger, catalogue: str) -> Catalogue | None:
    """Return the catalogue as its ledger knows it; None before its first run, which will take what is newest."""
    known = {(found.namespace, found.name): found for found in ledger.catalogues()}
    return known.get((session.namespace, catalogue))


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
    return json_text(asdict(row)) + "\n"


@contextmanager
def _estimates(session: Session) -> Iterator[Estimate | None]:
    """Ask the service; without a key the cost stays open, which is reported, and the rest is checked all the same."""
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
        return call_endpoint(client, endpoints.estimate(fields)).total_credits
    except (APIError, ResponseError) as error:
        session.out.note(f"Note: the cost is not known: {error}")
        return None


def summary_sheet(summary: FeedCheck) -> Sheet:
    """Return what a feed amounts to."""
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
            f"{summary.duplicates:,} of the accepted; the {summary.duplicate_used} of each counts"
            if summary.duplicates
            else "",
        ),
        ("new", _figure(summary.new)),
        ("changed", _figure(summary.changed)),
        ("unchanged", _figure(summary.unchanged)),
        ("without a video yet", _figure(summary.again)),
        ("adopted", _figure(summary.adopted)),
        ("gone", _figure(summary.gone)),
        ("limits", _limits(summary)),
        ("videos to buy", f"{summary.to_buy:,}"),
        ("estimated credits", credits_),
    ]
    return Sheet(facts, data=summary.to_dict())


def _figure(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _limits(summary: FeedCheck) -> str:
    """Return what limits a run looks at, and whether they refuse it."""
    if summary.known is None:
        return ""
    verdict = "pass" if summary.refused_by is None else f"refuse the run: {summary.refused_by}"
    figures = f"{summary.new or 0:,} new, {summary.changed or 0:,} changed, {summary.lost or 0:,} gone with a video"
    return f"{verdict} ({figures}; {summary.known:,} known products with a video)"


def _skipped(summary: FeedCheck) -> str:
    if not summary.skipped:
        return ""
    rules = ", ".join(f"{count:,} by {rule}" for rule, count in summary.skipped_by.items())
    return f"{summary.skipped:,} ({rules})"


def rejected_listing(rows: list[RejectedRow]) -> Listing:
    """Return the rows that become no order."""
    cells = [
        (row.product_id or "", place(row.line, row.item, file=row.file), row.column, row.rule, row.excerpt)
        for row in rows
    ]
    return Listing(
        ("REJECTED", "WHERE", "COLUMN", "RULE", "GOT"), cells, data=[asdict(row) for row in rows], headed=True
    )


def orders_listing(orders: list[dict[str, Any]]) -> Listing:
    """Return the orders as a table."""
    cells = [
        (
            order["product_id"],
            excerpt(order["request"]["product_name"]),
            excerpt("; ".join(order["request"].get("key_selling_points") or ()), most=160),
            str(order["request"]["product_image_url"]),
        )
        for order in orders
    ]
    return Listing(("WOULD BE SENT", "PRODUCT NAME", "SELLING POINTS", "PICTURE"), cells, data=orders, headed=True)


_MOST_NAMED = 10
_MOST_LISTED = 20


@command(
    "run",
    examples=(
        "ugen feed run feed.xml --catalogue shop --budget 5000 --segment-count 2 --ledger shop.db --to videos",
        "ugen feed run feed.xml --catalogue shop --budget 5000 --segment-count 2 --run-id 2026-11-24   # continue it",
    ),
)
@click.argument("feed", metavar="FEED...", nargs=-1, required=True)
@click.option("--catalogue", required=True, metavar="CATALOG", help="Catalog of the products; the same for each run.")
@click.option("--budget", type=click.IntRange(min=0), required=True, help="Credits that this run may spend.")
@click.option("--run-id", help="Name of the run, to continue it; default: a new name, which is printed.")
@ledger_option
@click.option("--to", "destination", metavar="DEST", help="Destination of the outputs: a folder or any fsspec URL.")
@include_option
@template_option
@private_option
@click.option("--daily-budget", type=click.IntRange(min=0), help="Credits that all runs of a day may spend.")
@click.option("--timezone", default="UTC", show_default=True, help="Time zone of the day.")
@click.option("--assume-credits", type=click.IntRange(min=0), help="Credits to count if the service has no estimate.")
@planning_options
@click.option("--limit", type=click.IntRange(min=1), help="Products that are ordered at most.")
@on_earlier_failure_option
@click.option("--max-credits", type=click.IntRange(min=0), help="Cancel a job that reserves more.")
@click.option("--min-score", type=click.FloatRange(0, 1), help="Report videos below this score.")
@click.option(
    "--in-flight",
    type=click.IntRange(min=1),
    help="Maximum number of jobs at once; default: as many as the account allows.",
)
@click.option("--interval", type=INTERVAL, default=10.0, show_default=True, help="Seconds between polls of a job.")
@click.option(
    "--job-timeout",
    type=click.FloatRange(min=0),
    help="Seconds after which the run stops waiting for a job; it keeps running.",
)
@click.option(
    "--on-interrupt",
    type=click.Choice(("leave", "cancel")),
    default="leave",
    show_default=True,
    help="Effect of Ctrl-C on running jobs.",
)
@click.option("--rejected", "rejected_file", type=click.Path(dir_okay=False, path_type=Path),
              help="Write all rejected rows as JSONL.")  # fmt: skip
@reading_options
@feed_field_options()
def run_command(
    session: Session,
    *,
    fields: dict[str, Any],
    feed: tuple[str, ...],
    catalogue: str,
    budget: int,
    run_id: str | None,
    ledger: str | None,
    destination: str | None,
    include: tuple[Include, ...],
    template: str,
    allow_private: bool | None,
    daily_budget: int | None,
    timezone: str,
    assume_credits: int | None,
    planning: PlanningOptions,
    limit: int | None,
    on_earlier_failure: Any,
    max_credits: int | None,
    min_score: float | None,
    in_flight: int | None,
    interval: float,
    job_timeout: float | None,
    on_interrupt: Any,
    rejected_file: Path | None,
    reading: ReadingOptions,
) -> ExitCode:
    """Buy the videos of new and changed products of FEED. Costs the credits of one job for each.

    The ledger must be named: by --ledger, UGEN_LEDGER or the profile. Ctrl-C stops buying and leaves running jobs; the
    same command with the printed --run-id continues. The exit code is 0 also with rejected rows, 1 if a product failed,
    2 for a feed that cannot be read.
    """
    config = session.config
    outputs = None
    if destination is not None:
        private = may_be_private(allow_private, base_url=config.base_url)
        outputs = Outputs(destination, include=include, template=template, allow_private=private)
    name = run_id if run_id is not None else new_run_id(datetime.now(UTC), suffix=secrets.token_hex(2))
    spec = FeedRun(
        feed_source(feed),
        catalogue=catalogue,
        run_id=name,
        job_defaults=fields,
        budget=Budget(credits=budget, daily=daily_budget, timezone=timezone, assume_credits=assume_credits),
        plan=planning.plan_options(reading, stored=outputs is not None, limit=limit),
        policy=PurchasePolicy(on_earlier_failure=on_earlier_failure, max_credits=max_credits),
        outputs=outputs,
        min_score=min_score,
        in_flight=in_flight,
        interval=interval,
        job_timeout=job_timeout,
        on_interrupt=on_interrupt,
    )
    with session.named_ledger(ledger) as opened:
        session.out.note(f"run {name}")
        report = _run(session, opened, spec)
        known = opened.find_catalogue(catalogue, namespace=session.namespace, origin=origin_of(config.base_url))
        run = find_run(opened, known, name)
        if rejected_file is not None:
            with whole_file(rejected_file) as beside:
                write_rejected(opened, run, beside)
        session.out.text(report.table(), data=report.to_dict())
        if not session.out.as_json:
            _show_problems(session, opened, run, report)
    if report.running or report.postponed:
        session.out.note(f"To continue{when(report.postponed_by)}: {shlex.join(again(session.arguments, run_id=name))}")
    return code_of_report(report)


def _show_problems(session: Session, ledger: Ledger, run: Run, report: Report) -> None:
    """Show rejected rows and failed products, each with the reason."""
    if report.rejected:
        session.out.show(rejected_listing(list(islice(rejected_rows(ledger, run), _MOST_LISTED))))
    if report.failed:
        failed = islice((one for one in outcomes(ledger, run) if one.state == "failed"), _MOST_LISTED)
        rows = [(shown_id(row_id(one.product_id, one.variant)), one.job_id or "", one.reason or "") for one in failed]
        session.out.show(Listing(("FAILED", "JOB", "REASON"), rows, data=[], headed=True))
    if report.rejected > _MOST_LISTED:
        session.out.note(f"{report.rejected:,} rows are rejected: --rejected FILE writes them all")
    if report.failed > _MOST_LISTED:
        listed = f"ugen ledger show {shlex.quote(report.catalogue)} --state failed"
        session.out.note(f"{report.failed:,} products failed: `{listed}` lists them")


def _run(session: Session, ledger: Ledger, spec: FeedRun) -> Report:
    stopper = Stopper(spec.on_interrupt, out=session.out)

    async def work() -> Report:
        async with session.async_client() as client:
            runner = FeedRunner(
                client, ledger, spec, on_progress=progress.show, clock=session.clock, probe=stopper.probe
            )
            return await stopper.run(runner.run())

    with FeedProgress(silent=session.out.as_json) as progress:
        try:
            return asyncio.run(work())
        except KeyboardInterrupt:
            left = _running_jobs(session, ledger, spec)
            ended = _ended_jobs(session, left) if spec.on_interrupt == "cancel" else {}
            raise interrupted(left, again(session.arguments, run_id=spec.run_id), ended=ended) from None


def new_run_id(now: datetime, *, suffix: str) -> str:
    """Return the name of a run that was given none. Two runs that begin in one second have different suffixes.

    Examples:
        >>> new_run_id(datetime(2026, 11, 24, 2, 30, 5, tzinfo=UTC), suffix="3f2a")
        '2026-11-24T02-30-05Z-3f2a'
    """
    return f"{now:%Y-%m-%dT%H-%M-%SZ}-{suffix}"


def again(arguments: Sequence[str], *, run_id: str) -> list[str]:
    """Return the command that continues a run: the same as before, with its name.

    Examples:
        >>> again(["ugen", "feed", "run", "feed.xml"], run_id="monday")
        ['ugen', 'feed', 'run', 'feed.xml', '--run-id', 'monday']
    """
    named = any(word == "--run-id" or word.startswith("--run-id=") for word in arguments)
    return [*arguments] if named else [*arguments, "--run-id", run_id]


_WHEN = {
    "budget": "with a larger --budget",
    "daily budget": "on another day, or with a larger --daily-budget",
    "credits": "when the account has credits",
    "spending_off": "when the profile's `spending`, or UGEN_SPENDING, is `allow`",
    "spending_reuse_only": "when the profile's `spending`, or UGEN_SPENDING, is `allow`",
}


def when(postponed_by: Collection[str]) -> str:
    """Return in words what a postponed run waits for.

    Examples:
        >>> when({"budget": 3})
        ', with a larger --budget'
    """
    return "".join(f", {words}" for words in dict.fromkeys(_WHEN[why] for why in postponed_by if why in _WHEN))


def _ended_jobs(session: Session, left: Sequence[RunningJob]) -> dict[str, str]:
    """Return the status of the jobs that have ended, after their cancels were sent. Free; a GET for each."""
    found: dict[str, str] = {}
    with suppress(UGenError), session.client() as client:
        for one in left:
            job = client.jobs.get(one.job_id)
            if job.ended:
                found[one.job_id] = job.status
    return found


def interrupted(
    left: Sequence[RunningJob], command: Sequence[str], *, ended: Mapping[str, str] = MappingProxyType({})
) -> CommandFailedError:
    """Return the failure for Ctrl-C: the jobs that were cancelled, those that still run, and how to continue.

    Args:
        left: The jobs that ran when the run was stopped.
        command: Continues the run.
        ended: The status of those that have ended since.
    """
    running = [job for job in left if job.job_id not in ended]
    counts = Counter(ended.values())
    parts = [f"{count} {'job was' if count == 1 else 'jobs were'} {status}" for status, count in counts.items()]
    named = ", ".join(
        f"{shown_id(row_id(job.product_id, job.variant))} ({job.job_id})" for job in running[:_MOST_NAMED]
    )
    more = f" and {len(running) - _MOST_NAMED} more" if len(running) > _MOST_NAMED else ""
    verb = "job still runs" if len(running) == 1 else "jobs still run"
    if running:
        parts.append(f"{len(running)} {verb} and nothing is lost: {named}{more}")
    again_ = " (it buys the cancelled ones again)" if counts["cancelled"] else ""
    return CommandFailedError(
        f"stopped; {'; '.join(parts) or 'no job is running'}",
        code=ExitCode.INTERRUPTED,
        advice=f"to continue{again_}: {shlex.join(command)}",
        kind="KeyboardInterrupt",
        details={"ended": dict(ended), "running": [job.job_id for job in running]},
    )


def code_of_report(report: Report) -> ExitCode:
    """Return the exit code of a run. Rejected rows and a used-up budget are no failure.

    Products without credits, without an answer, without stored outputs or past their deadline are: only continuing the
    run completes them.
    """
    postponed = report.postponed_by
    return worst(
        code
        for code, is_so in (
            (ExitCode.JOB_FAILED, report.failed > 0),
            (ExitCode.NO_CREDITS, "credits" in postponed),
            (ExitCode.TIMEOUT, report.running > 0),
            (ExitCode.TROUBLE, report.not_stored > 0 or any(reason.startswith("no answer") for reason in postponed)),
        )
        if is_so
    )


def _running_jobs(session: Session, ledger: Ledger, spec: FeedRun) -> list[RunningJob]:
    """Return the jobs that a stopped run left running; none if its catalog is not known yet."""
    origin = origin_of(session.config.base_url)
    try:
        found = ledger.find_catalogue(spec.catalogue, namespace=session.namespace, origin=origin)
    except ConfigError:
        return []
    return running_jobs(ledger, found, spec.run_id)


# Stopping: at once while the feed is read, in order once there are jobs.


class Stopper:
    """Stops a run at Ctrl-C or SIGTERM.

    The feed is read in a thread, which cannot be cancelled: it stops at its next batch. Once there is a plan, the run
    itself is cancelled, and leaves running jobs in order.

    Args:
        on_interrupt: What Ctrl-C does with running jobs. SIGTERM always leaves them: a node that shuts down is no
            decision about them. With `cancel`, SIGTERM therefore ends the process at once, as without a handler.
        out: Prints remarks.
    """

    def __init__(self, on_interrupt: str = "leave", *, out: Printer) -> None:
        self._out = out
        self._signals = (signal.SIGINT, signal.SIGTERM) if on_interrupt == "leave" else (signal.SIGINT,)
        self._asked = False
        self._reading = False

    def probe(self, point: str) -> None:
        """Stop the reading of a feed; the run calls this at each of its points, from any thread.

        Raises:
            StoppedError: The feed is being read, and a signal arrived.
        """
        if point == "plan.begun":
            self._reading = True
        if self._reading and self._asked and point in {"plan.batch", "plan.written"}:
            raise StoppedError("stopped while the feed was read")
        if point == "plan.written":
            self._reading = False

    async def run(self, work: Coroutine[Any, Any, Report]) -> Report:
        """Do the work, and stop it at a signal.

        Raises:
            KeyboardInterrupt: It was stopped.
        """
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        signals = self._signals if threading.current_thread() is threading.main_thread() else ()
        for number in signals:
            loop.add_signal_handler(number, self._interrupt, task)
        try:
            return await task
        except (asyncio.CancelledError, StoppedError):
            raise KeyboardInterrupt from None
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
            INTERRUPTS.restore()

    def _interrupt(self, task: asyncio.Future[Report]) -> None:
        INTERRUPTS.seen = True
        if not self._reading:
            task.cancel()
        elif self._asked:
            # A source that sends no bytes keeps its thread forever. Nothing is planned yet, so nothing can be lost.
            ended = CommandFailedError(
                "stopped while the feed was read; nothing was bought",
                code=ExitCode.INTERRUPTED,
                kind="KeyboardInterrupt",
            )
            click.echo(ended.render(as_json=self._out.as_json), err=True)
            os._exit(ExitCode.INTERRUPTED)
        else:
            self._out.note("stopping: the feed is read to its next batch; press Ctrl-C again to end at once")
        self._asked = True


# Progress: a bar on a terminal, a line for each product elsewhere.


def event_line(event: Progress) -> str:
    """Return the line that reports an event.

    Examples:
        >>> event_line(Progress("settled", total=5, done=2, in_flight=3, limit=8, product_id="LL-1", state="completed"))
        '2/5 LL-1 completed'
    """
    match event.event:
        case "planned":
            return f"{event.total} products to buy or to wait for"
        case "submitted":
            return f"{event.done}/{event.total} {clean(event.product_id or '')} under way"
        case "settled":
            why = f": {clean(event.reason)}" if event.reason else ""
            return f"{event.done}/{event.total} {clean(event.product_id or '')} {event.state}{why}"
        case "limited":
            return f"the account runs {event.limit} jobs at once; the others wait"
        case "stopping":
            return f"stopping: {event.reason}; nothing more is bought"


class FeedProgress:
    """Shows a run. A context manager, since it has to give the terminal back.

    Args:
        silent: Whether a program reads the result, so that progress is shown only on a terminal.
    """

    def __init__(self, *, silent: bool) -> None:
        self._live = sys.stderr.isatty()
        self._silent = silent and not self._live
        self._bars: Bars | None = None
        self._bar: TaskID | None = None
        self._shown = ""

    def __enter__(self) -> Self:
        if self._live:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            self._bars = Bars(
                TextColumn("videos"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._bars.start()
            self._bar = self._bars.add_task("reading the feed", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, event: Progress) -> None:
        """Show one event of the run."""
        if self._bars is not None and self._bar is not None:
            where = f"{event.in_flight} in flight, at most {event.limit}"
            self._bars.update(self._bar, total=event.total, completed=event.done, description=where)
        worth = event.event == "stopping" or event.state == "failed" if self._live else not self._silent
        line = event_line(event)
        # Each product that waits for the account's job limit reports it again.
        if worth and line != self._shown:
            click.echo(line, err=True)
            self._shown = line
