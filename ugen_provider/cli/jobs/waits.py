# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs wait` and `watch`, and the progress that they show. Ctrl-C leaves the jobs and says how to continue."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from ugen_provider.cli.exits import ExitCode, exit_of, next_step, worst
from ugen_provider.cli.frame import CommandFailedError, command, failure_of
from ugen_provider.cli.options import interval_option, timeout_option
from ugen_provider.cli.printer import Printer, change_line, clean, code_of, data_of, job_sheet, jobs_listing
from ugen_provider.cli.session import Session
from ugen_provider.cli.signals import StopFlag, StoppedError, run_stoppable
from ugen_provider.core.api import rules
from ugen_provider.core.api.clock import clock_of
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.api.polling import EarlierState, Goal, Reason, WaitOutcome
from ugen_provider.core.jobs.watcher import JobWatcher

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class JobProgress:
    """Shows jobs while they run: bars on a terminal, a line for each change elsewhere, nothing beside JSON.

    A context manager, since it has to give the terminal back.

    Args:
        out: Prints results; progress goes to stderr beside them.
        as_lines: Whether each change is a JSON line on stdout, if JSON is asked for.
    """

    def __init__(self, out: Printer, *, as_lines: bool = False) -> None:
        self._out = out
        self._as_lines = as_lines and out.as_json
        self._live = sys.stderr.isatty() and not self._as_lines
        self._silent = out.as_json and not self._live and not self._as_lines
        self._bars: dict[str, TaskID] = {}
        self._progress: Progress | None = None
        self.last: dict[str, Job] = {}

    def __enter__(self) -> Self:
        if self._live:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                TextColumn("{task.fields[job]:<36}", markup=False),
                TextColumn("{task.description:<24}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[where]}", markup=False),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, job: Job) -> None:
        """Show a job as it is now; an unchanged one is not shown again."""
        before = self.last.get(job.job_id)
        self.last[job.job_id] = job
        if self._progress is not None:
            self._move(self._progress, job)
        elif before is None or _shown_state(before) != _shown_state(job):
            if self._as_lines:
                self._out.json_line(data_of(job))
            elif not self._silent:
                click.echo(change_line(job), err=True)

    def _move(self, progress: Progress, job: Job) -> None:
        where = job.current_stage if job.state is JobState.ACTIVE and job.current_stage else job.status
        done = 100 if job.state is JobState.COMPLETED else round(job.progress_percent or 0.0)
        bar = self._bars.get(job.job_id)
        if bar is None:
            name = clean(job.product_name or "")[:23]
            self._bars[job.job_id] = progress.add_task(name, total=100, completed=done, job=job.job_id, where=where)
        else:
            progress.update(bar, completed=done, where=where)


def _shown_state(job: Job) -> tuple[Any, ...]:
    return job.status, job.current_stage, job.progress_percent


@dataclass(slots=True)
class WaitResult:
    """The result of a wait for several jobs.

    Attributes:
        jobs: The jobs as last read.
        reasons: Why each wait ended, for those that did.
        errors: Errors by job.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    reasons: dict[str, Reason] = field(default_factory=dict)
    errors: dict[str, UGenError] = field(default_factory=dict)

    def code(self, job_id: str) -> ExitCode:
        """Return the exit code for one of the jobs."""
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
    stale: dict[str, EarlierState] | None = None,
    as_lines: bool = False,
) -> WaitResult:
    """Wait for several jobs with live progress. Free.

    Raises:
        CommandFailedError: Ctrl-C or SIGTERM; it names the jobs that keep running.
    """
    waited = WaitResult()
    wanted = list(dict.fromkeys(job_ids))

    async def one(watcher: JobWatcher, job_id: str, deadline: float | None) -> None:
        try:
            outcome: WaitOutcome = await watcher.wait(
                job_id, goal=goal, interval=interval, deadline=deadline, stale=(stale or {}).get(job_id)
            )
            # The outcome may come from a list, and only the job itself has all fields.
            waited.jobs[job_id] = await watcher.client.jobs.get(job_id)
            waited.reasons[job_id] = outcome.reason
        except UGenError as error:
            waited.errors[job_id] = error
            return
        progress.show(waited.jobs[job_id])

    async def work(stop: StopFlag) -> None:
        async with session.async_client() as client:
            watcher = JobWatcher(client, on_answer=progress.show)
            deadline = None if timeout is None else clock_of(client).now() + timeout
            try:
                await stop.wait_unless_set(asyncio.gather(*(one(watcher, job_id, deadline) for job_id in wanted)))
            finally:
                await watcher.aclose()

    with JobProgress(session.out, as_lines=as_lines) as progress:
        try:
            run_stoppable(work, note=session.out.note)
        except (StoppedError, KeyboardInterrupt):
            open_ones = [job_id for job_id in wanted if job_id not in waited.reasons and job_id not in waited.errors]
            raise left_running(open_ones) from None
    return waited


def left_running(job_ids: Collection[str]) -> CommandFailedError:
    """Return the failure for Ctrl-C or SIGTERM during a wait for jobs.

    Args:
        job_ids: Those that have not ended.
    """
    if not job_ids:
        return CommandFailedError("stopped; no job is running", code=ExitCode.INTERRUPTED, kind="KeyboardInterrupt")
    names = " ".join(job_ids)
    jobs = "1 job still runs" if len(job_ids) == 1 else f"{len(job_ids)} jobs still run"
    return CommandFailedError(
        f"stopped; {jobs} and nothing is lost: {names}",
        code=ExitCode.INTERRUPTED,
        advice=f"to continue: ugen jobs wait {names}; to cancel: ugen jobs cancel {names}",
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
@click.option("--stage", type=click.Choice(rules.STAGES), help="End the wait also when this stage is reached.")
def wait_command(
    session: Session, *, job_ids: tuple[str, ...], interval: float, timeout: float | None, stage: str | None
) -> ExitCode:
    """Wait until jobs have ended; the exit code says how. Free.

    A paused job ends the wait too, since it does not continue by itself. Waiting never changes a job.
    """
    waited = wait_for(session, job_ids, goal=Goal(stage=stage), interval=interval, timeout=timeout)
    return show_waited(session, job_ids, waited)


def show_waited(session: Session, job_ids: Sequence[str], waited: WaitResult) -> ExitCode:
    """Show how jobs ended, and report the errors.

    Raises:
        CommandFailedError: The wait was for one job, and failed.
    """
    unique = list(dict.fromkeys(job_ids))
    if len(unique) == 1 and unique[0] in waited.errors:
        raise failure_of(waited.errors[unique[0]])
    jobs = [waited.jobs[job_id] for job_id in unique if job_id in waited.jobs]
    if session.out.as_json:
        ended = {job.job_id: data_of(job) for job in jobs}
        failed = {job_id: {**failure_of(error).data, "job_id": job_id} for job_id, error in waited.errors.items()}
        session.out.json([ended.get(job_id) or failed[job_id] for job_id in unique])
    elif len(unique) == 1:
        session.out.show(job_sheet(jobs[0]))
    else:
        session.out.show(jobs_listing(jobs, nothing=""))
        for job_id, error in waited.errors.items():
            session.out.note(f"{job_id}: {error}. {next_step(error)}")
    return worst(waited.code(job_id) for job_id in unique)


@command("watch", examples=("ugen jobs watch", "ugen jobs watch JOB --json"))
@click.argument("job_ids", metavar="[JOB]...", nargs=-1)
@interval_option
@timeout_option
def watch_command(session: Session, *, job_ids: tuple[str, ...], interval: float, timeout: float | None) -> ExitCode:
    """Show the progress of jobs until they end; without a JOB, of all active jobs. Free.

    A pause does not end it. With --json each change is a line.
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
        if session.out.as_json:
            session.out.error({**failure_of(error).data, "job_id": job_id})
        else:
            session.out.note(f"{job_id}: {error}. {next_step(error)}")
    return worst(exit_of(error) for error in waited.errors.values())
