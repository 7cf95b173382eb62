# SPDX-License-Identifier: Apache-2.0
"""Print results and jobs: rich tables on a terminal, plain lines elsewhere, JSON where it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from ugen_provider.cli.exits import ExitCode
from ugen_provider.core.api.profile import JobState
from ugen_provider.core.text import json_text, one_line, printable, without_passwords

if TYPE_CHECKING:
    from ugen_provider.core.api.models import Job, Keyframe, Segment


@dataclass(frozen=True, slots=True)
class Listing:
    """Several things of one kind.

    Attributes:
        columns: Headings.
        rows: The cells of each, as texts.
        data: The same for programs, with everything that is known.
        nothing: The message for a person where there are none.
        headed: Whether plain lines begin with the headings too: they distinguish several listings of one command.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    data: Any = field(repr=False)
    nothing: str = "Nothing."
    headed: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """One thing, as names and values.

    Attributes:
        facts: What a person is shown; empty values are passed over.
        data: The same for programs, with everything that is known.
    """

    facts: Sequence[tuple[str, str]]
    data: Any = field(repr=False)


def clean(text: str) -> str:
    r"""Return a text on one line, without characters that a terminal obeys, and without passwords of addresses.

    Examples:
        >>> clean("Lamp\x1b[2J\t\nred")
        'Lamp[2J red'
    """
    return one_line(without_passwords(text))


def lines_of(shown: Listing | Sheet) -> list[str]:
    r"""Return the plain lines: for a listing the cells between tabs, for a sheet a name and a value each.

    Examples:
        >>> lines_of(Listing(("JOB", "STATUS"), [("j1", "failed")], data=[]))
        ['j1\tfailed']
    """
    if isinstance(shown, Listing):
        rows = [shown.columns, *shown.rows] if shown.headed else shown.rows
        return ["\t".join(clean(cell) for cell in row) for row in rows]
    return [f"{name}: {clean(value)}" for name, value in shown.facts if value]


@contextmanager
def busy(text: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that something is being done; the function that is given says what, while it lasts.

    Args:
        text: What is being done.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(text)) as status:
        yield lambda text: status.update(escape(text))


_GAP = 2
_SHORT = 12
"""Letters up to which a cell is never broken."""


class Printer:
    """Prints results to stdout and remarks to stderr.

    Args:
        as_json: Whether results are JSON.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def terminal(self) -> bool:
        """Whether a person reads stdout."""
        return sys.stdout.isatty() and not self.as_json

    def show(self, shown: Listing | Sheet) -> None:
        """Print the result of a command."""
        if self.as_json:
            self.json(shown.data)
        elif isinstance(shown, Listing) and not shown.rows:
            self.note(shown.nothing)
        elif self.terminal:
            self._rich(shown)
        else:
            for line in lines_of(shown):
                click.echo(line)

    def text(self, text: str, *, data: Any) -> None:
        """Print a result that is a text, or `data` as JSON."""
        if self.as_json:
            self.json(data)
        else:
            click.echo(printable(text))

    def show_each(self, shown: Listing | Sheet) -> None:
        """Print one of several possible results: a sheet for a person, a list of one element as JSON."""
        self.show(shown if isinstance(shown, Listing) or not self.as_json else replace(shown, data=[shown.data]))

    def json(self, data: Any) -> None:
        """Print a value as one JSON text."""
        click.echo(json_text(data, indent=2, default=str))

    def json_line(self, data: Mapping[str, Any]) -> None:
        """Print one of several JSON values, on a line of its own."""
        click.echo(json_text(data, default=str))

    def error(self, data: Mapping[str, Any]) -> None:
        """Print an error beside the result as a JSON line on stderr."""
        click.echo(json_text(data, default=str), err=True)

    def note(self, text: str) -> None:
        """Print a message beside the result, on stderr; with JSON, as a line `{"note": …}`."""
        shown = without_passwords(text)
        click.echo(json_text({"note": shown}) if self.as_json else printable(shown), err=True)

    def _rich(self, shown: Listing | Sheet) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console()
        if isinstance(shown, Listing):
            table = Table(box=None, pad_edge=False, header_style="bold")
            # A column that is empty in all rows is left out.
            places = [place for place in range(len(shown.columns)) if any(row[place] for row in shown.rows)]
            widths = least_widths([[row[place] for row in shown.rows] for place in places])
            if sum(widths) + _GAP * (len(widths) - 1) > console.width:
                # A cut id is of no use for copying: each row becomes a block of lines.
                for block in blocks_of(shown, places=places):
                    sheet = Table(box=None, pad_edge=False, show_header=False)
                    sheet.add_column(style="bold", no_wrap=True)
                    sheet.add_column(overflow="fold")
                    for name, value in block:
                        sheet.add_row(Text(name), Text(value, style=style_of(value)))
                    console.print(sheet, "")
                return
            for place, width in zip(places, widths, strict=True):
                longest = max(len(row[place]) for row in shown.rows)
                table.add_column(shown.columns[place], no_wrap=width == longest, min_width=width, overflow="fold")
            for row in shown.rows:
                table.add_row(*(Text(clean(row[place]), style=style_of(row[place])) for place in places))
        else:
            table = Table(box=None, pad_edge=False, show_header=False)
            table.add_column(style="bold", no_wrap=True)
            table.add_column(overflow="fold")
            for name, value in shown.facts:
                if value:
                    table.add_row(Text(name), Text(clean(value), style=style_of(value)))
        console.print(table)


def blocks_of(listing: Listing, *, places: Sequence[int]) -> list[list[tuple[str, str]]]:
    """Return the rows of a table that is too wide as blocks of headings and values; empty cells are left out.

    Examples:
        >>> blocks_of(Listing(("JOB", "STATUS", ""), [("j1", "failed", "")], data=[]), places=[0, 1])
        [[('JOB', 'j1'), ('STATUS', 'failed')]]
    """
    return [[(listing.columns[place], clean(row[place])) for place in places if row[place]] for row in listing.rows]


def least_widths(columns: Sequence[Sequence[str]]) -> list[int]:
    """Return the least width of each column of a table: the first, and short ones, are never broken.

    Examples:
        >>> least_widths([["10229ac7-b0b5-4280"], ["paused"], ["A long and winding name"]])
        [18, 6, 7]
    """
    widths = []
    for place, cells in enumerate(columns):
        longest = max(map(len, cells))
        word = max((len(word) for cell in cells for word in cell.split()), default=0)
        widths.append(longest if place == 0 or longest <= _SHORT else min(word, _SHORT))
    return widths


_STYLES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "yellow",
    "processing": "cyan",
    "pending": "cyan",
    "ok": "green",
    "wrong": "red",
}


def style_of(cell: str) -> str:
    """Return the colour of a cell, by its word."""
    return _STYLES.get(cell, "")


COLUMNS = ("JOB", "STATUS", "STAGE", "%", "PRODUCT", "CREDITS", "CREATED")


def time_of(moment: datetime | None) -> str:
    """Format a time, to the second.

    Examples:
        >>> time_of(datetime.fromisoformat("2026-11-24T08:30:00.123+00:00"))
        '2026-11-24 08:30:00Z'
    """
    if moment is None:
        return ""
    return moment.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")


def credits_of(job: Job) -> str:
    """Return the credits of a job as text: consumed once it has ended, else reserved."""
    if job.credits_consumed is not None and job.ended:
        return str(job.credits_consumed)
    return f"{job.credits_reserved} reserved" if job.credits_reserved is not None else ""


def percent_of(job: Job) -> str:
    """Return the progress of a job in percent, without a sign."""
    return "" if job.progress_percent is None else f"{job.progress_percent:.0f}"


def row_of(job: Job) -> tuple[str, ...]:
    """Return a job as a row under `COLUMNS`."""
    return (
        job.job_id,
        job.status,
        job.current_stage or "",
        percent_of(job),
        job.product_name or "",
        credits_of(job),
        time_of(job.created_at),
    )


def data_of(job: Job) -> dict[str, Any]:
    """Return a job for programs, with everything that the service reported."""
    data: dict[str, Any] = job.model_dump(mode="json")
    return data


def jobs_listing(jobs: Sequence[Job], *, nothing: str) -> Listing:
    """Return several jobs as a table."""
    return Listing(COLUMNS, [row_of(job) for job in jobs], data=[data_of(job) for job in jobs], nothing=nothing)


def job_sheet(job: Job) -> Sheet:
    """Return one job as a sheet."""
    from ugen_provider.core.jobs.results import Scores

    scores = Scores.of(job)
    facts = [
        ("job", job.job_id),
        ("status", job.status),
        ("stage", job.current_stage or ""),
        ("progress", f"{percent_of(job)} %" if job.progress_percent is not None else ""),
        ("product", job.product_name or ""),
        ("model", job.video_model or ""),
        ("credits", credits_of(job)),
        ("lowest score", f"{scores.lowest:.2f}" if scores.lowest is not None else ""),
        ("error", " ".join(filter(None, (job.error_code, job.error_message)))),
        ("created", time_of(job.created_at)),
        ("completed", time_of(job.completed_at)),
        ("final video", job.final_video_url or ""),
    ]
    facts += [(f"segment {place}", segment_line(segment)) for place, segment in enumerate(job.segments)]
    return Sheet(facts, data=data_of(job))


def segment_line(segment: Segment) -> str:
    """Return one segment as a line."""
    parts = (
        segment.status,
        f"score {segment.qai_score:.2f}" if segment.qai_score is not None else None,
        segment.fail_category,
        segment.video_url,
    )
    return ", ".join(filter(None, parts))


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def keyframes_listing(frames: Iterable[Keyframe]) -> Listing:
    """Return the keyframes of a job as a table."""
    kept = list(frames)
    rows = [
        (
            _number(frame.index, "d"),
            frame.status or "",
            _number(frame.qai_score, ".2f"),
            _number(frame.attempts, "d"),
            frame.fail_category or "",
            frame.image_url or "",
        )
        for frame in kept
    ]
    columns = ("INDEX", "STATUS", "SCORE", "ATTEMPTS", "FAILED BY", "PICTURE")
    data = [frame.model_dump(mode="json") for frame in kept]
    return Listing(columns, rows, data=data, nothing="The job has no keyframes yet.")


def segments_listing(segments: Iterable[Segment]) -> Listing:
    """Return the segments of a job as a table."""
    kept = list(segments)
    rows = [
        (
            _number(segment.index, "d"),
            segment.status or "",
            _number(segment.qai_score, ".2f"),
            _number(segment.duration, "g"),
            segment.fail_category or "",
            segment.video_url or "",
        )
        for segment in kept
    ]
    columns = ("INDEX", "STATUS", "SCORE", "SECONDS", "FAILED BY", "VIDEO")
    data = [segment.model_dump(mode="json") for segment in kept]
    return Listing(columns, rows, data=data, nothing="The job has no segments yet.")


def code_of(job: Job) -> ExitCode:
    """Return the exit code for a job that ended: failed and cancelled share one code.

    Examples:
        >>> from ugen_provider.core.api.models import Job
        >>> code_of(Job(job_id="j", status="cancelled"))
        <ExitCode.JOB_FAILED: 1>
    """
    return ExitCode.JOB_FAILED if job.state in {JobState.FAILED, JobState.CANCELLED} else ExitCode.DONE


def change_line(job: Job) -> str:
    """Return the line that reports a change of a job.

    Examples:
        >>> from ugen_provider.core.api.models import Job
        >>> change_line(Job(job_id="j1", status="processing", current_stage="init", progress_percent=20.0))
        'j1 processing init 20 %'
    """
    percent = f"{percent_of(job)} %" if job.progress_percent is not None else ""
    return " ".join(filter(None, (job.job_id, job.status, job.current_stage, percent, clean(job.product_name or ""))))
