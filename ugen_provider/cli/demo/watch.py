# SPDX-License-Identifier: Apache-2.0
"""One pass of both pipelines, seen from outside: what the service says of the jobs, and what it cost."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ugen_provider import JobState
from ugen_provider.cli.demo.processes import LocalUGen


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


LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Cost of one pass of the demo.

    Attributes:
        name: What it is called.
        credits_before: What the account could spend before it.
        credits_after: What it could spend afterwards.
        created: How many jobs each side has created, ever.
        bought: How many of them in this pass.
    """

    name: str
    credits_before: int
    credits_after: int
    created: Mapping[str, int]
    bought: int

    @property
    def spent(self) -> int:
        """Credits that the pass has consumed."""
        return self.credits_before - self.credits_after


class Watch:
    """Runs passes, and shows the jobs meanwhile.

    Args:
        ugen: The local U-Gen.
        side_of: Which side a job belongs to, by its idempotency key.
        console: Where to show it.

    Examples:
        ```python
        done = Watch(ugen=ugen, side_of=side_of, console=console).run("first pass", steps=steps, pool=pool)
        ```
    """

    def __init__(self, *, ugen: LocalUGen, side_of: Callable[[str], str], console: Console) -> None:
        self._ugen = ugen
        self._side_of = side_of
        self._console = console
        self._views: dict[str, JobView] = {}
        self._ended: set[str] = set()

    def run(self, name: str, *, steps: Sequence[Callable[[], None]], pool: ThreadPoolExecutor) -> Pass:
        """Run one pass to its end.

        Args:
            name: What it is called.
            steps: What runs side by side; an exception of one of them comes out here at once.
            pool: Threads, one for each step.

        Returns:
            What it cost.
        """
        purchases = self._ugen.purchases()
        self._look(but=frozenset())
        ended_before = frozenset(self._ended)
        before = self._ugen.available_credits()
        futures = [pool.submit(step) for step in steps]
        with JobBars(self._console) as bars:
            while not _all_done(futures):
                bars.show(self._look(but=ended_before))
                time.sleep(LOOK_SECONDS)
            bars.show(self._look(but=ended_before))
        after = self._ugen.purchases()
        return Pass(
            name=name,
            credits_before=before,
            credits_after=self._ugen.available_credits(),
            created=dict(Counter(self._side_of(each.idempotency_key) for each in after)),
            bought=len(after) - len(purchases),
        )

    def _look(self, *, but: frozenset[str]) -> list[JobView]:
        """Return the jobs as the service describes them now; what has ended is not asked for again."""
        self._ugen.processes.check()
        for purchase in self._ugen.purchases():
            if purchase.job_id in self._ended:
                continue
            job = self._ugen.client.jobs.get(purchase.job_id)
            self._views[job.job_id] = JobView(
                job_id=job.job_id,
                side=self._side_of(purchase.idempotency_key),
                product=job.product_name or job.job_id,
                where=(job.current_stage if job.state is JobState.ACTIVE else None) or job.status,
                percent=job.progress_percent or 0.0,
            )
            if job.ended:
                self._ended.add(job.job_id)
        return [view for view in self._views.values() if view.job_id not in but]


def _all_done(futures: Sequence[Future[None]]) -> bool:
    """Return whether all have ended well; what one of them raised is raised here."""
    for future in futures:
        if future.done():
            future.result()
    return all(future.done() for future in futures)
