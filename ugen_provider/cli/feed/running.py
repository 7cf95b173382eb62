# SPDX-License-Identifier: Apache-2.0
"""`ugen feed run`: one run over one feed, which can be stopped and gone on with at any point."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import click

from ugen_provider.cli.exits import ExitCode, worst
from ugen_provider.cli.feed.checking import rejected_listing, whole_file
from ugen_provider.cli.feed.options import feed_mapping, feed_options, reading_options
from ugen_provider.cli.feed.progress import FeedProgress
from ugen_provider.cli.feed.stopping import Stopper
from ugen_provider.cli.fields import feed_field_options
from ugen_provider.cli.frame import CommandFailedError, command
from ugen_provider.cli.jobs.downloading import include_option, may_be_private, private_option, template_option
from ugen_provider.cli.jobs.waiting import INTERVAL
from ugen_provider.cli.ledger.reading import ledger_option, left_running
from ugen_provider.cli.printing import Listing
from ugen_provider.cli.session import Session
from ugen_provider.core.batch.budget import Budget
from ugen_provider.core.batch.ledger import Ledger
from ugen_provider.core.batch.plans import Duplicates, PlanOptions, Run
from ugen_provider.core.batch.report import Report, find_run, outcomes, rejected_rows, write_rejected
from ugen_provider.core.batch.runner import FeedRunner
from ugen_provider.core.batch.runs import RunningJob
from ugen_provider.core.batch.spec import FeedRun, Outputs
from ugen_provider.core.jobs.buying import BuyingPolicy
from ugen_provider.core.media.outputs import Include

_MOST_NAMED = 10
_MOST_LISTED = 20


@command(
    "run",
    examples=(
        "ugen feed run feed.xml --catalogue shop --budget 5000 --segment-count 2 --to videos",
        "ugen feed run feed.xml --catalogue shop --budget 5000 --segment-count 2 --run-id 2026-11-24   # go on with it",
    ),
)
@click.argument("feed", metavar="FEED")
@click.option("--catalogue", required=True, help="What the videos belong to; the same every night.")
@click.option("--budget", type=click.IntRange(min=0), required=True, help="Credits that this run may use.")
@click.option("--run-id", help="The run's name, by which it goes on; without one it gets a new name, printed.")
@ledger_option
@click.option("--to", "destination", metavar="DEST", help="Where outputs go: a folder or any fsspec URL.")
@include_option
@template_option
@private_option
@click.option("--daily-budget", type=click.IntRange(min=0), help="Credits of all runs in a day.")
@click.option("--timezone", default="UTC", show_default=True, help="Whose midnight ends the day.")
@click.option("--assume-credits", type=click.IntRange(min=0), help="What to count where the service has no estimate.")
@click.option("--max-rejected", type=click.IntRange(min=0), help="Stop before buying if more rows are rejected.")
@click.option(
    "--max-changed",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Stop before buying if a larger share of the known products would be bought again.",
)
@click.option("--regenerate", multiple=True, metavar="PRODUCT", help="Buy this product again, once per run.")
@click.option(
    "--duplicates", type=click.Choice(get_args(Duplicates)), default="first", show_default=True, help="Which counts."
)
@click.option("--newest-mapping", is_flag=True, help="Move on to this version's default mapping.")
@click.option("--on-earlier-failure", type=click.Choice(("retry_stage", "resubmit", "fail")), default="retry_stage",
              show_default=True, help="For products whose last job failed.")  # fmt: skip
@click.option("--max-credits", type=click.IntRange(min=0), help="Cancel a job that reserves more.")
@click.option("--min-score", type=click.FloatRange(0, 1), help="Name videos below this score in the report.")
@click.option("--in-flight", type=click.IntRange(min=1), default=20, show_default=True, help="Jobs at once, at most.")
@click.option("--interval", type=INTERVAL, default=10.0, show_default=True, help="Seconds between looks at a job.")
@click.option("--job-timeout", type=click.FloatRange(min=0), help="Seconds after which a job is left running.")
@click.option(
    "--on-interrupt",
    type=click.Choice(("leave", "cancel")),
    default="leave",
    show_default=True,
    help="What Ctrl-C does with the jobs that run.",
)
@click.option("--rejected", "rejected_file", type=click.Path(dir_okay=False, path_type=Path),
              help="Write all rejected rows as JSONL.")  # fmt: skip
@reading_options
@feed_field_options()
def run_command(
    session: Session,
    *,
    fields: dict[str, Any],
    feed: str,
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
    max_rejected: int | None,
    max_changed: float,
    regenerate: tuple[str, ...],
    duplicates: Duplicates,
    newest_mapping: bool,
    on_earlier_failure: Any,
    max_credits: int | None,
    min_score: float | None,
    in_flight: int,
    interval: float,
    job_timeout: float | None,
    on_interrupt: Any,
    rejected_file: Path | None,
    kind: str | None,
    format_: str | None,
    encoding: str | None,
    mapping: Path | None,
    upload_pictures: bool,
) -> ExitCode:
    """Make the videos of FEED: buy what is new or changed since the last run, and nothing else.

    Ctrl-C stops buying and leaves what runs; the same command with the --run-id that is printed goes on. The exit
    code is 0 even with rejected rows, 1 if a product failed, 2 for a feed that cannot be read.
    """
    config = session.config
    outputs = None
    if destination is not None:
        private = may_be_private(allow_private, base_url=config.base_url)
        outputs = Outputs(destination, include=include, template=template, allow_private=private)
    name = run_id if run_id is not None else new_run_id(datetime.now(UTC))
    spec = FeedRun(
        feed,
        catalogue=catalogue,
        run_id=name,
        job_defaults=fields,
        budget=Budget(credits=budget, daily=daily_budget, timezone=timezone, assume_credits=assume_credits),
        plan=PlanOptions(
            feed=feed_options(kind=kind, format_=format_, encoding=encoding),
            mapping=feed_mapping(mapping, kind=kind),
            newest_mapping=newest_mapping,
            duplicates=duplicates,
            max_rejected=max_rejected,
            max_changed=max_changed,
            regenerate=frozenset(regenerate),
            stored=outputs is not None,
            upload_pictures=upload_pictures,
        ),
        policy=BuyingPolicy(on_earlier_failure=on_earlier_failure, max_credits=max_credits),
        outputs=outputs,
        min_score=min_score,
        in_flight=in_flight,
        interval=interval,
        job_timeout=job_timeout,
        on_interrupt=on_interrupt,
    )
    session.out.note(f"run {name}")
    with session.ledger(ledger) as opened:
        report = _run(session, opened, spec)
        run = find_run(opened, opened.find_catalogue(catalogue, namespace=session.namespace), name)
        if rejected_file is not None:
            with whole_file(rejected_file) as beside:
                write_rejected(opened, run, beside)
        session.out.text(report.table(), data=report.to_dict())
        if not session.out.as_json:
            _name_what_went_wrong(session, opened, run, report)
    if report.running or report.postponed:
        session.out.note(f"To go on{when(report.postponed_by)}: {shlex.join(again(session.arguments, run_id=name))}")
    return code_of_report(report)


def _name_what_went_wrong(session: Session, ledger: Ledger, run: Run, report: Report) -> None:
    """The rows that became no order and the products that got no video, with the reason of each."""
    if report.rejected:
        session.out.show(rejected_listing(list(islice(rejected_rows(ledger, run), _MOST_LISTED))))
    if report.failed:
        failed = islice((one for one in outcomes(ledger, run) if one.state == "failed"), _MOST_LISTED)
        rows = [(one.product_id, one.job_id or "", one.reason or "") for one in failed]
        session.out.show(Listing(("FAILED", "JOB", "REASON"), rows, data=[], headed=True))
    if report.rejected > _MOST_LISTED:
        session.out.note(f"{report.rejected:,} rows are rejected: --rejected FILE writes them all")
    if report.failed > _MOST_LISTED:
        listed = f"ugen ledger show {shlex.quote(report.catalogue)} --state failed"
        session.out.note(f"{report.failed:,} products failed: `{listed}` lists them")


def _run(session: Session, ledger: Ledger, spec: FeedRun) -> Report:
    stopper = Stopper()

    async def work() -> Report:
        async with session.async_client() as client:
            runner = FeedRunner(
                client, ledger, spec, on_progress=progress.tell, clock=session.clock, probe=stopper.probe
            )
            return await stopper.run(runner.run())

    with FeedProgress(silent=session.out.as_json) as progress:
        try:
            return asyncio.run(work())
        except KeyboardInterrupt:
            raise interrupted(
                left_running(ledger, spec.catalogue, spec.run_id, namespace=session.namespace),
                again(session.arguments, run_id=spec.run_id),
            ) from None


def new_run_id(now: datetime) -> str:
    """A name for a run that was given none.

    Examples:
        >>> new_run_id(datetime(2026, 11, 24, 2, 30, 5, tzinfo=UTC))
        '2026-11-24T02-30-05Z'
    """
    return now.strftime("%Y-%m-%dT%H-%M-%SZ")


def again(arguments: Sequence[str], *, run_id: str) -> list[str]:
    """The command that goes on with a run: the same as before, with its name.

    Examples:
        >>> again(["ugen", "feed", "run", "feed.xml"], run_id="monday")
        ['ugen', 'feed', 'run', 'feed.xml', '--run-id', 'monday']
    """
    named = any(word == "--run-id" or word.startswith("--run-id=") for word in arguments)
    return [*arguments] if named else [*arguments, "--run-id", run_id]


_WHEN = {
    "budget": "with a larger --budget",
    "daily budget": "on another day, or with a larger --daily-budget",
    "credits": "once the account has credits",
    "spending_off": "once the profile's `spending`, or UGEN_SPENDING, is `allow`",
    "spending_attach_only": "once the profile's `spending`, or UGEN_SPENDING, is `allow`",
}


def when(postponed_by: Collection[str]) -> str:
    """What has to be otherwise for a run to go on, in words.

    Examples:
        >>> when({"budget": 3})
        ', with a larger --budget'
    """
    return "".join(f", {said}" for said in dict.fromkeys(_WHEN[why] for why in postponed_by if why in _WHEN))


def interrupted(running: Sequence[RunningJob], command: Sequence[str]) -> CommandFailedError:
    """The failure for Ctrl-C: which jobs still run, and how to go on."""
    named = ", ".join(f"{job.product_id} ({job.job_id})" for job in running[:_MOST_NAMED])
    more = f" and {len(running) - _MOST_NAMED} more" if len(running) > _MOST_NAMED else ""
    verb = "job still runs" if len(running) == 1 else "jobs still run"
    what = f"{len(running)} {verb} and nothing is lost: {named}{more}" if running else "no job runs"
    return CommandFailedError(
        f"stopped; {what}",
        code=ExitCode.INTERRUPTED,
        advice=f"to go on: {shlex.join(command)}",
        kind="KeyboardInterrupt",
    )


def code_of_report(report: Report) -> ExitCode:
    """The exit code of a run: rejected rows are the feed's affair, and a used-up budget is what a budget is for.

    What the account could not pay for, what got no answer, what could not be stored and what was left at its deadline
    is told, since only going on brings it to its end.
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
