# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a feed run: a bar on a terminal, a line per product elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from ugen_provider.cli.printing import clean
from ugen_provider.core.batch.spec import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


def event_line(event: Progress) -> str:
    """What a person is told of an event; empty for what is not worth a line.

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
            return f"the account takes {event.limit} jobs at once; the others wait for their turn"
        case "stopping":
            return f"stopping: {event.reason}; nothing more is bought"


class FeedProgress:
    """Shows a run; a context manager, since a terminal has to be given back.

    Args:
        silent: Whether a program reads the result, so that only a terminal is told anything.
    """

    def __init__(self, *, silent: bool) -> None:
        self._live = sys.stderr.isatty()
        self._silent = silent and not self._live
        self._bars: Bars | None = None
        self._bar: TaskID | None = None
        self._told = ""

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

    def tell(self, event: Progress) -> None:
        """Show an event."""
        if self._bars is not None and self._bar is not None:
            where = f"{event.in_flight} in flight, at most {event.limit}"
            self._bars.update(self._bar, total=event.total, completed=event.done, description=where)
        worth = event.event == "stopping" or event.state == "failed" if self._live else not self._silent
        line = event_line(event)
        # An account that is full says so with every product that has to wait.
        if worth and line != self._told:
            click.echo(line, err=True)
            self._told = line
