# SPDX-License-Identifier: Apache-2.0
"""What a person sees while jobs run: a bar per job on a terminal, a line per change anywhere else."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job at one moment.

    Attributes:
        job_id: The job.
        side: Who ordered it: `airflow` or `dagster`.
        product: The product's name.
        where: The stage that it is in, else its status.
        percent: 0 to 100.
    """

    job_id: str
    side: str
    product: str
    where: str
    percent: float


class JobBars:
    """The bars; a context manager, since a terminal has to be given back.

    Args:
        console: Where to write.

    Examples:
        ```python
        with JobBars(console) as bars:
            bars.show(views)
        ```
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._shown: dict[str, str] = {}
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("  [bold]{task.fields[side]:<8}[/]{task.description:<30}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[where]:<11}"),
            TimeElapsedColumn(),
            console=console,
        )

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._progress.stop()

    def show(self, views: Iterable[JobView]) -> None:
        """Bring what is seen up to date.

        Args:
            views: All jobs, as they are now.
        """
        for view in views:
            if self._live:
                self._move(view)
            elif self._shown.get(view.job_id) != view.where:
                self._console.print(
                    f"  {view.side:<8}{view.product[:30]:<31}{view.percent:>3.0f} %  {view.where}", highlight=False
                )
            self._shown[view.job_id] = view.where

    def _move(self, view: JobView) -> None:
        bar = self._bars.get(view.job_id)
        if bar is None:
            bar = self._progress.add_task(view.product[:29], total=100, side=view.side, where=view.where)
            self._bars[view.job_id] = bar
        self._progress.update(bar, completed=view.percent, where=view.where)
