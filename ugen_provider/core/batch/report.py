# SPDX-License-Identifier: Apache-2.0
"""What became of a feed: counts that add up, credits, what is slow, dear or below par. Read from the ledger alone."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.batch import schema
from ugen_provider.core.batch.ledger import Catalogue, Ledger
from ugen_provider.core.batch.plans import Run
from ugen_provider.core.feeds.products import RejectedRow
from ugen_provider.core.jobs.order import How

_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """One product worth naming."""

    product_id: str
    job_id: str | None
    state: str
    reason: str | None = None
    credits: int | None = None
    score: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one run. `completed` to `running` add up to `products`.

    Attributes:
        catalogue: Whose run.
        run_id: Its name.
        source: The feed, without credentials and query.
        products: Products in the feed, good and bad.
        rows: Rows that they were made from.
        merged_rows: Rows beyond one per product.
        completed: Delivered in this run.
        failed: Failed, now or for good earlier.
        rejected: Rows that became no order.
        unchanged: Known, delivered and unchanged: no request was made.
        postponed: Left for the next run; `postponed_by` says why.
        skipped: Filtered, or an id that came before.
        running: Left running when the run was stopped.
        open: Not decided yet; 0 when the run has ended.
        bought: Of the completed, those that this run submitted.
        attached: Of the completed, those that were bought before; with `bought` they add up to `completed`.
        found: Of the attached, those that the service had under their key and this ledger did not know, as after a
            ledger was lost. Nothing was paid for them.
        disappeared: Known products that this feed no longer has.
        credits_estimated: Of what this run submitted or ran again.
        credits_consumed: Of what this run submitted or ran again, and has ended.
        credits_released: Estimated and not consumed, of what has ended.
        below_min_score: Completed, and below the score that was asked for.
        slowest: Longest from the order to its end.
        dearest: Most credits.
        failures: The first that failed.
        not_stored: Completed, but not all outputs could be stored; the next run fetches the rest.
    """

    catalogue: str
    run_id: str
    source: str
    finished: bool
    products: int
    rows: int
    merged_rows: int
    completed: int
    failed: int
    rejected: int
    unchanged: int
    postponed: int
    skipped: int
    running: int
    open: int
    bought: int
    attached: int
    found: int
    new: int
    changed: int
    filtered: int
    duplicates: int
    disappeared: int
    credits_estimated: int
    credits_consumed: int
    credits_released: int
    postponed_by: dict[str, int]
    below_min_score: tuple[Outcome, ...]
    below_min_score_count: int
    slowest: tuple[Outcome, ...]
    dearest: tuple[Outcome, ...]
    failures: tuple[Outcome, ...]
    not_stored: int

    @property
    def adds_up(self) -> bool:
        """Whether every product has exactly one outcome."""
        outcomes = (
            self.completed, self.failed, self.rejected, self.unchanged, self.postponed, self.skipped, self.running
        )  # fmt: skip
        return sum(outcomes) + self.open == self.products

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        read: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return read

    def small(self) -> dict[str, Any]:
        """The counts and credits alone, for an XCom."""
        return {name: value for name, value in self.to_dict().items() if not isinstance(value, list)}

    def table(self) -> str:
        """For a person, in plain text."""
        names = ("completed", "failed", "rejected", "unchanged", "postponed", "skipped", "running", "open")
        lines = [f"{self.catalogue}, run {self.run_id}: {self.products:,} products from {self.rows:,} rows"]
        lines += [
            f"  {name:<12}{count:>10,}" for name in names if (count := getattr(self, name)) or name == "completed"
        ]
        if self.found:
            lines.append(f"  {self.found:,} of the completed were found by their key: nothing was paid for them now")
        lines.append(
            f"  credits     {self.credits_consumed:>10,} consumed, {self.credits_estimated:,} estimated, "
            f"{self.credits_released:,} released"
        )
        if self.disappeared:
            lines.append(f"  {self.disappeared:,} known products are no longer in the feed")
        if self.below_min_score_count:
            lines.append(f"  {self.below_min_score_count:,} are below min_score")
        if self.not_stored:
            lines.append(f"  {self.not_stored:,} are not wholly stored; the next run fetches the rest")
        lines += [f"  postponed: {count:,} ({reason})" for reason, count in self.postponed_by.items()]
        lines += [f"  failed: {outcome.product_id}: {outcome.reason}" for outcome in self.failures]
        return "\n".join(lines)


def report_of(ledger: Ledger, run: Run, *, min_score: float | None = None) -> Report:
    """The report of a run as it stands.

    Args:
        ledger: Where.
        run: Which.
        min_score: Lowest quality score that is good enough.
    """
    return ledger.read(lambda connection: _Reading(connection, run, min_score).report())


class _Reading:
    def __init__(self, connection: sa.Connection, run: Run, min_score: float | None) -> None:
        self._connection = connection
        self._run = run
        self._min_score = min_score

    def report(self) -> Report:
        item = schema.item
        row = self._connection.execute(sa.select(schema.run).where(schema.run.c.id == self._run.id)).one()
        states = self._counts(item.c.state)
        how = self._counts(item.c.how, item.c.state == "completed")
        settled = item.c.state.in_(("completed", "failed"))
        below = sa.and_(item.c.state == "completed", item.c.score < self._min_score if self._min_score else sa.false())
        ours = sa.or_(item.c.how.is_(None), item.c.how != How.FOUND.value)
        estimated = self._sum(item.c.estimate, ours)
        consumed = self._sum(item.c.consumed, ours)
        return Report(
            catalogue=self._run.catalogue.name,
            run_id=self._run.run_id,
            source=row.source,
            finished=row.state == "done",
            products=row.products,
            rows=row.rows,
            merged_rows=row.rows - row.products,
            completed=states.get("completed", 0),
            failed=states.get("failed", 0),
            rejected=row.rejected,
            unchanged=row.unchanged,
            postponed=states.get("postponed", 0),
            skipped=row.filtered + row.duplicates,
            running=states.get("running", 0),
            open=states.get("planned", 0),
            bought=how.get(How.SUBMITTED.value, 0),
            attached=sum(how.values()) - how.get(How.SUBMITTED.value, 0),
            found=how.get(How.FOUND.value, 0),
            new=row.new,
            changed=row.changed,
            filtered=row.filtered,
            duplicates=row.duplicates,
            disappeared=row.disappeared,
            credits_estimated=estimated,
            credits_consumed=consumed,
            credits_released=max(0, self._sum(item.c.estimate, settled, ours) - consumed),
            postponed_by=self._counts(item.c.reason, item.c.state == "postponed"),
            below_min_score=self._named(below, item.c.score),
            below_min_score_count=self._count(below),
            slowest=self._named(settled, (item.c.finished_at - item.c.started_at).desc()),
            dearest=self._named(sa.and_(item.c.consumed > 0, ours), item.c.consumed.desc()),
            failures=self._named(item.c.state == "failed", item.c.seq),
            not_stored=self._count(sa.and_(item.c.state == "completed", item.c.reason.is_not(None))),
        )

    def _counts(self, column: sa.Column[Any], *where: Any) -> dict[str, int]:
        query = sa.select(column, sa.func.count()).where(schema.item.c.run == self._run.id, *where).group_by(column)
        return {str(value): count for value, count in self._connection.execute(query)}

    def _count(self, where: Any) -> int:
        query = sa.select(sa.func.count()).where(schema.item.c.run == self._run.id, where)
        return int(self._connection.execute(query).scalar_one())

    def _sum(self, column: sa.Column[Any], *where: Any) -> int:
        query = sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(schema.item.c.run == self._run.id, *where)
        return int(self._connection.execute(query).scalar_one())

    def _named(self, where: Any, order: Any) -> tuple[Outcome, ...]:
        item = schema.item
        query = sa.select(item).where(item.c.run == self._run.id, where).order_by(order, item.c.seq).limit(_MOST_NAMED)
        return tuple(_outcome(row) for row in self._connection.execute(query))


def outcomes(ledger: Ledger, run: Run) -> Iterator[Outcome]:
    """Every product of a run that was not unchanged, rejected or skipped, in the feed's order."""
    item = schema.item
    query = sa.select(item).where(item.c.run == run.id).order_by(item.c.seq)
    with ledger.streaming() as connection:
        for row in connection.execute(query):
            yield _outcome(row)


def rejected_rows(ledger: Ledger, run: Run) -> Iterator[RejectedRow]:
    """Every rejected row of a run, in the feed's order."""
    table = schema.rejected
    query = sa.select(table).where(table.c.run == run.id).order_by(table.c.seq)
    with ledger.streaming() as connection:
        for row in connection.execute(query):
            yield RejectedRow(row.line, row.item, row.product_id, row.column, row.rule, row.excerpt)


def write_rejected(ledger: Ledger, run: Run, path: str | os.PathLike[str]) -> int:
    """Write the rejected rows of a run as JSONL: line, item, product id, column, rule and a short excerpt.

    Args:
        ledger: Where.
        run: Which.
        path: The file; it is replaced.

    Returns:
        How many there were.
    """
    count = 0
    with Path(path).open("w", encoding="utf-8") as file:
        for row in rejected_rows(ledger, run):
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
            count += 1
    return count


def rejected_table(rows: Iterable[RejectedRow], *, most: int = 50) -> str:
    """Rejected rows for a person, in columns.

    Args:
        rows: The rows.
        most: Rows at most; how many more there are is said below.
    """
    shown = list(islice(rows, most))
    more = sum(1 for _ in rows) if not isinstance(rows, Collection) else max(0, len(rows) - most)
    cells = [("line", "item", "product", "column", "rule", "value")]
    cells += [(str(r.line or ""), str(r.item), r.product_id or "", r.column, r.rule, r.excerpt) for r in shown]
    widths = [max(len(row[place]) for row in cells) for place in range(5)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in cells
    ]
    return "\n".join([*(line.rstrip() for line in lines), *([f"... and {more:,} more"] if more else [])])


def find_run(ledger: Ledger, catalogue: Catalogue, run_id: str) -> Run:
    """A run by its name, to read its report.

    Raises:
        ConfigError: There is none.
    """
    table = schema.run
    query = sa.select(table.c.id).where(table.c.catalogue_id == catalogue.id, table.c.run_id == run_id)
    number = ledger.read(lambda connection: connection.execute(query).scalar())
    if number is None:
        raise ConfigError(f"catalogue {catalogue.name!r} has no run {run_id!r} in this ledger")
    return Run(number, catalogue, run_id, "")


def _outcome(row: Any) -> Outcome:
    times = (row.started_at, row.finished_at)
    seconds = None if None in times else round(row.finished_at - row.started_at, 3)
    return Outcome(row.product_id, row.job_id, row.state, row.reason, row.consumed, row.score, seconds)
