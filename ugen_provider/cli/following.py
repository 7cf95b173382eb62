# SPDX-License-Identifier: Apache-2.0
"""Live progress: a bar per job on a terminal, a line per change elsewhere, nothing where a program reads."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from ugen_provider.cli.jobs.views import data_of, percent_of
from ugen_provider.cli.printing import Printer, clean
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.jobs.watcher import JobWatcher

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def change_line(job: Job) -> str:
    """What a person is told when a job has moved.

    Examples:
        >>> change_line(Job(job_id="j1", status="processing", current_stage="init", progress_percent=20.0))
        'j1 processing init 20 %'
    """
    percent = f"{percent_of(job)} %" if job.progress_percent is not None else ""
    return " ".join(filter(None, (job.job_id, job.status, job.current_stage, percent, clean(job.product_name or ""))))


class JobProgress:
    """Shows jobs while they are waited for; a context manager, since a terminal has to be given back.

    Args:
        out: Where results go; progress goes to stderr beside them.
        as_lines: Whether each change is a JSON line on stdout, where JSON is asked for.
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

    def saw(self, job: Job) -> None:
        """Show a job as it is now; what looks the same is not told again."""
        before = self.last.get(job.job_id)
        self.last[job.job_id] = job
        if self._progress is not None:
            self._move(self._progress, job)
        elif before is None or _looks(before) != _looks(job):
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


def _looks(job: Job) -> tuple[Any, ...]:
    return job.status, job.current_stage, job.progress_percent


class TellingWatcher(JobWatcher):
    """A watcher that also shows what it sees."""

    progress: JobProgress | None = None

    def answered(self, job: Job, *, asked_at: float, listed: bool) -> None:
        """An answer about this very job, or what a list says of it."""
        if self.progress is not None:
            self.progress.saw(job)
        super().answered(job, asked_at=asked_at, listed=listed)
