# SPDX-License-Identifier: Apache-2.0
"""How results are printed: rich tables on a terminal, plain lines elsewhere, JSON where it is asked for."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Listing:
    """Several things of one kind.

    Attributes:
        columns: Headings.
        rows: The cells of each, as texts.
        data: The same for programs, with everything that is known.
        nothing: What a person is told where there are none.
        headed: Whether plain lines begin with the headings too: several listings of one command are told apart by them.
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
    r"""A text on one line and without control characters, which a terminal would obey.

    Examples:
        >>> clean("Lamp\x1b[2J\t\nred")
        'Lamp[2J red'
    """
    kept = "".join(" " if char in "\t\n\r" else char for char in text if char in "\t\n\r" or _shown(char))
    return " ".join(kept.split())


def _shown(char: str) -> bool:
    return unicodedata.category(char) not in {"Cc", "Cf", "Cs"}


def lines_of(shown: Listing | Sheet) -> list[str]:
    r"""The plain lines: for a listing the cells between tabs, for a sheet a name and a value each.

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
    """Show on a terminal that something is being done; the function that is given says what, while it goes on.

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
        """Print a result."""
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
            click.echo(text)

    def json(self, data: Any) -> None:
        """Print JSON."""
        click.echo(json.dumps(data, ensure_ascii=False, indent=2, default=str))

    def json_line(self, data: Mapping[str, Any]) -> None:
        """Print one of several JSON values, on a line of its own."""
        click.echo(json.dumps(data, ensure_ascii=False, default=str))

    def note(self, text: str) -> None:
        """Tell a person something beside the result."""
        click.echo(text, err=True)

    def _rich(self, shown: Listing | Sheet) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console()
        if isinstance(shown, Listing):
            table = Table(box=None, pad_edge=False, header_style="bold")
            # What is empty in all rows takes no room.
            places = [place for place in range(len(shown.columns)) if any(row[place] for row in shown.rows)]
            widths = least_widths([[row[place] for row in shown.rows] for place in places])
            if sum(widths) + _GAP * (len(widths) - 1) > console.width:
                # An id that is cut is of no use to whoever wants to copy it.
                click.echo("\n".join(lines_of(shown)))
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


def least_widths(columns: Sequence[Sequence[str]]) -> list[int]:
    """How narrow each column of a table may become: the first, and short ones, are never broken.

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
    """The colour of a cell, by its word."""
    return _STYLES.get(cell, "")
