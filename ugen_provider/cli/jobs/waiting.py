# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs wait` and `watch`. Ctrl-C leaves the jobs and says how to go on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import click

from ugen_provider.cli.exits import ExitCode, exit_of, next_step, worst
from ugen_provider.cli.following import JobProgress, TellingWatcher
from ugen_provider.cli.frame import CommandFailedError, command, failure_of
from ugen_provider.cli.jobs.views import code_of, data_of, job_sheet, jobs_listing
from ugen_provider.cli.session import Session
from ugen_provider.core.api import polling, rules
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.api.models import Job
from ugen_provider.core.api.polling import Goal, Outcome, Reason, Seen

INTERVAL = click.FloatRange(min=0.1)
interval_option = click.option(
    "--interval",
    type=INTERVAL,
    default=polling.DEFAULT_INTERVAL,
    show_default=True,
    help="Seconds between looks; the service asks for 5 to 10.",
)
timeout_option = click.option(
    "--timeout", type=click.FloatRange(min=0), help="Seconds after which to stop waiting; the jobs are left."
)


@dataclass(slots=True)
class Waited:
    """What came of a wait.

    Attributes:
        jobs: As they were last seen.
        reasons: Why each wait was over, for those that are.
        errors: What went wrong, by job.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    reasons: dict[str, Reason] = field(default_factory=dict)
    errors: dict[str, UGenError] = field(default_factory=dict)

    def code(self, job_id: str) -> ExitCode:
        """The exit code for one of the jobs."""
        if job_id in self.errors:
            return exit_of(self.errors[job_id])
        if self.reasons.get(job_id) is Reason.PAUSED:
            return ExitCode.JOB_FAILED
        return code_of(self.jobs[job_id])


def wait_for(
    session: Session,
    job_ids: Sequence[str],
    *,
    goal: Goal,
    interval: float,
    timeout: float | None,
    stale: dict[str, Seen] | None = None,
    as_lines: bool = False,
) -> Waited:
    """Wait for jobs as one, with live progress.

    Raises:
        CommandFailedError: Ctrl-C; it names what still runs.
    """
    waited = Waited()
    wanted = list(dict.fromkeys(job_ids))

    async def one(watcher: TellingWatcher, job_id: str, deadline: float | None) -> None:
        try:
            outcome: Outcome = await watcher.wait(
                job_id, goal=goal, interval=interval, deadline=deadline, stale=(stale or {}).get(job_id)
            )
            # An outcome may come from a list; only the job itself tells everything.
            waited.jobs[job_id] = await watcher.client.jobs.get(job_id)
            waited.reasons[job_id] = outcome.reason
        except UGenError as error:
            waited.errors[job_id] = error
            return
        progress.saw(waited.jobs[job_id])

    async def work() -> None:
        async with session.async_client() as client:
            watcher = TellingWatcher(client)
            watcher.progress = progress
            deadline = None if timeout is None else client.clock.now() + timeout
            try:
                await asyncio.gather(*(one(watcher, job_id, deadline) for job_id in wanted))
            finally:
                await watcher.aclose()

    with JobProgress(session.out, as_lines=as_lines) as progress:
        try:
            asyncio.run(work())
        except KeyboardInterrupt:
            open_ones = [job_id for job_id in wanted if job_id not in waited.reasons and job_id not in waited.errors]
            raise left_running(open_ones) from None
    return waited


def left_running(job_ids: Collection[str], *, then: str | None = None) -> CommandFailedError:
    """The failure for Ctrl-C while jobs are waited for.

    Args:
        job_ids: Those that have not ended.
        then: How to go on, where waiting for them is not it.
    """
    if not job_ids:
        return CommandFailedError("stopped; no job runs", code=ExitCode.INTERRUPTED, kind="KeyboardInterrupt")
    names = " ".join(job_ids)
    verb = "runs" if len(job_ids) == 1 else "run"
    return CommandFailedError(
        f"stopped; {len(job_ids)} job{'' if len(job_ids) == 1 else 's'} still {verb} and nothing is lost: {names}",
        code=ExitCode.INTERRUPTED,
        advice=f"to go on: {then or f'ugen jobs wait {names}'}; to end: ugen jobs cancel {names}",
        kind="KeyboardInterrupt",
    )


@command(
    "wait",
    examples=(
        "ugen jobs wait JOB --timeout 3600",
        "ugen jobs wait JOB --stage init",
        "ugen jobs wait JOB1 JOB2 && echo done",
    ),
)
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@interval_option
@timeout_option
@click.option("--stage", type=click.Choice(rules.STAGES), help="Also done when this stage is reached.")
def wait_command(
    session: Session, *, job_ids: tuple[str, ...], interval: float, timeout: float | None, stage: str | None
) -> ExitCode:
    """Wait until jobs have ended; the exit code says how.

    A paused job ends the wait too, since it does not go on by itself. Whatever happens here, the jobs go on.
    """
    waited = wait_for(session, job_ids, goal=Goal(stage=stage), interval=interval, timeout=timeout)
    return show_waited(session, job_ids, waited)


def show_waited(session: Session, job_ids: Sequence[str], waited: Waited) -> ExitCode:
    """Show how jobs ended, and say what went wrong with which.

    Raises:
        CommandFailedError: One job was waited for, and that failed.
    """
    unique = list(dict.fromkeys(job_ids))
    if len(unique) == 1 and unique[0] in waited.errors:
        raise failure_of(waited.errors[unique[0]])
    jobs = [waited.jobs[job_id] for job_id in unique if job_id in waited.jobs]
    if len(unique) == 1:
        session.out.show(job_sheet(jobs[0]))
    else:
        listing = jobs_listing(jobs, nothing="")
        if session.out.as_json:
            told = {job.job_id: data_of(job) for job in jobs}
            failed = {job_id: {"job_id": job_id, "error": str(error)} for job_id, error in waited.errors.items()}
            session.out.json([told.get(job_id) or failed[job_id] for job_id in unique])
        else:
            session.out.show(listing)
        for job_id, error in waited.errors.items():
            session.out.note(f"{job_id}: {error}. {next_step(error)}")
    return worst(waited.code(job_id) for job_id in unique)


@command("watch", examples=("ugen jobs watch", "ugen jobs watch JOB --json"))
@click.argument("job_ids", metavar="[JOB]...", nargs=-1)
@interval_option
@timeout_option
def watch_command(session: Session, *, job_ids: tuple[str, ...], interval: float, timeout: float | None) -> ExitCode:
    """Follow jobs until they end, whatever their end is; without a JOB all that are active now.

    Pauses are watched through. With --json each change is a line.
    """
    if not job_ids:
        with session.client() as client:
            job_ids = tuple(
                dict.fromkeys(
                    job.job_id
                    for status in ("pending", "processing")
                    for job in client.jobs.list(status=status)
                    if not job.ended
                )
            )
        if not job_ids:
            session.out.note("No job is active.")
            return ExitCode.DONE
    waited = wait_for(
        session, job_ids, goal=Goal(through_pauses=True), interval=interval, timeout=timeout, as_lines=True
    )
    for job_id, error in waited.errors.items():
        session.out.note(f"{job_id}: {error}. {next_step(error)}")
    return worst(exit_of(error) for error in waited.errors.values())
