# SPDX-License-Identifier: Apache-2.0
"""Report of a feed run: counts that add up, credits, slow, expensive or poor videos. Read from the ledger alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.batch.runs import Run, RunState, state_of
from ugen_provider.core.feeds.products import RejectedRow
from ugen_provider.core.jobs.order import PurchaseOutcome
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.record import split_row_id
from ugen_provider.core.ledger.store import Catalogue, Ledger

_MOST_NAMED = 10


@dataclass(frozen=True, slots=True)
class ProductOutcome:
    """Outcome of one product that is worth naming."""

    product_id: str
    variant: str
    job_id: str | None
    state: str
    reason: str | None = None
    credits: int | None = None
    score: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Result of one run. `completed` to `running` add up to `products`.

    Attributes:
        catalogue: Whose run.
        run_id: Its name.
        source: The feed, without credentials and query.
        finished: Whether nothing is left to do.
        state: `planning`; `interrupted`, if its process is gone and the plan incomplete; `refused`; `buying`; `done`.
        refused: Why the plan was refused, or its feed could not be read; its figures are those of the refused plan.
        products: Products in the feed, good and bad, once for each of their variants.
        rows: Rows that they were made from.
        merged_rows: Rows beyond one per product.
        completed: Delivered in this run.
        failed: Failed, now or for good earlier.
        rejected: Rows that became no order.
        unchanged: Known, delivered and unchanged: no request was made.
        adopted: Without a purchase of their own: they share that of a product whose request is equal.
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
        questions: The first that wait for a person to say whether they share a video; see `adopt`.
        below_min_score: Completed, and below the score that was asked for.
        slowest: Longest from the order to its end.
        most_expensive: Most credits.
        failures: The first that failed.
        not_stored: Completed, but not all outputs could be stored; the next run fetches the rest.
    """

    catalogue: str
    run_id: str
    source: str
    finished: bool
    state: RunState
    refused: str | None
    products: int
    rows: int
    merged_rows: int
    completed: int
    failed: int
    rejected: int
    unchanged: int
    adopted: int
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
    questions: tuple[ProductOutcome, ...]
    below_min_score: tuple[ProductOutcome, ...]
    below_min_score_count: int
    slowest: tuple[ProductOutcome, ...]
    most_expensive: tuple[ProductOutcome, ...]
    failures: tuple[ProductOutcome, ...]
    not_stored: int

    @property
    def adds_up(self) -> bool:
        """Whether every product has exactly one outcome."""
        outcomes = (
            self.completed, self.failed, self.rejected, self.unchanged, self.adopted, self.postponed, self.skipped,
            self.running,
        )  # fmt: skip
        return sum(outcomes) + self.open == self.products

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        read: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return read

    def small(self) -> dict[str, Any]:
        """The counts and credits alone, for an XCom."""
        return {name: value for name, value in self.to_dict().items() if not isinstance(value, list)}

    def table(self) -> str:
        """Return the report for a person, in plain text."""
        names = ("completed", "failed", "rejected", "unchanged", "adopted", "postponed", "skipped", "running", "open")
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
        if self.refused is not None:
            lines.insert(1, f"  refused: {self.refused}")
        elif self.state in {"planning", "interrupted"}:
            lines.insert(1, f"  {self.state}: there is no complete plan")
        lines += [f"  question: {_label(outcome)}: {outcome.reason}" for outcome in self.questions]
        lines += [f"  postponed: {count:,} ({reason})" for reason, count in self.postponed_by.items()]
        lines += [f"  failed: {_label(outcome)}: {outcome.reason}" for outcome in self.failures]
        return "\n".join(lines)


def report_of(ledger: Ledger, run: Run, *, min_score: float | None = None) -> Report:
    """Return the report of a run in its present state.

    Args:
        ledger: Where.
        run: Which.
        min_score: Lowest quality score that is good enough.
    """
    now = ledger.now()
    return ledger.read(lambda connection: _ReportReader(connection, run, min_score, now=now).report())


class _ReportReader:
    def __init__(self, connection: sa.Connection, run: Run, min_score: float | None, *, now: float) -> None:
        self._now = now
        self._connection = connection
        self._run = run
        self._min_score = min_score

    def report(self) -> Report:
        item = schema.item
        row = self._connection.execute(sa.select(schema.run).where(schema.run.c.id == self._run.id)).one()
        states = self._counts(item.c.state)
        outcomes = self._counts(item.c.outcome, item.c.state == "completed")
        settled = item.c.state.in_(("completed", "failed"))
        below = sa.and_(item.c.state == "completed", item.c.score < self._min_score if self._min_score else sa.false())
        ours = sa.or_(item.c.outcome.is_(None), item.c.outcome != PurchaseOutcome.RECOVERED.value)
        estimated = self._sum(item.c.estimate, ours)
        consumed = self._sum(item.c.consumed, ours)
        return Report(
            catalogue=self._run.catalogue.name,
            run_id=self._run.run_id,
            source=row.source,
            finished=row.state == "done",
            state=state_of(row, now=self._now),
            refused=row.reason if row.state == "refused" else None,
            products=row.products,
            rows=row.rows,
            merged_rows=row.rows - row.products,
            completed=states.get("completed", 0),
            failed=states.get("failed", 0),
            rejected=row.rejected,
            unchanged=row.unchanged,
            adopted=row.adopted,
            postponed=states.get("postponed", 0),
            skipped=row.filtered + row.duplicates,
            running=states.get("running", 0),
            open=states.get("planned", 0),
            bought=outcomes.get(PurchaseOutcome.CREATED.value, 0),
            attached=sum(outcomes.values()) - outcomes.get(PurchaseOutcome.CREATED.value, 0),
            found=outcomes.get(PurchaseOutcome.RECOVERED.value, 0),
            new=row.new,
            changed=row.changed,
            filtered=row.filtered,
            duplicates=row.duplicates,
            disappeared=row.disappeared,
            credits_estimated=estimated,
            credits_consumed=consumed,
            credits_released=max(0, self._sum(item.c.estimate, settled, ours) - consumed),
            postponed_by=self._counts(_short_reason(item.c.reason), item.c.state == "postponed"),
            questions=self._named(item.c.reason.like("adopt:%"), item.c.seq),
            below_min_score=self._named(below, item.c.score),
            below_min_score_count=self._count(below),
            slowest=self._named(settled, (item.c.finished_at - item.c.started_at).desc()),
            most_expensive=self._named(sa.and_(item.c.consumed > 0, ours), item.c.consumed.desc()),
            failures=self._named(item.c.state == "failed", item.c.seq),
            not_stored=self._count(sa.and_(item.c.state == "completed", item.c.reason.is_not(None))),
        )

    def _counts(self, column: sa.ColumnElement[Any], *where: Any) -> dict[str, int]:
        query = sa.select(column, sa.func.count()).where(schema.item.c.run == self._run.id, *where).group_by(column)
        return {str(value): count for value, count in self._connection.execute(query)}

    def _count(self, where: Any) -> int:
        query = sa.select(sa.func.count()).where(schema.item.c.run == self._run.id, where)
        return int(self._connection.execute(query).scalar_one())

    def _sum(self, column: sa.Column[Any], *where: Any) -> int:
        query = sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(schema.item.c.run == self._run.id, *where)
        return int(self._connection.execute(query).scalar_one())

    def _named(self, where: Any, order: Any) -> tuple[ProductOutcome, ...]:
        item = schema.item
        query = sa.select(item).where(item.c.run == self._run.id, where).order_by(order, item.c.seq).limit(_MOST_NAMED)
        return tuple(_outcome(row) for row in self._connection.execute(query))


def outcomes(ledger: Ledger, run: Run) -> Iterator[ProductOutcome]:
    """Return every product of a run that was not unchanged, rejected or skipped, in the feed's order."""
    item = schema.item
    query = sa.select(item).where(item.c.run == run.id).order_by(item.c.seq)
    with ledger.streaming() as connection:
        for row in connection.execute(query):
            yield _outcome(row)


def rejected_rows(ledger: Ledger, run: Run) -> Iterator[RejectedRow]:
    """Return every rejected row of a run, in the feed's order."""
    table = schema.rejected
    query = sa.select(table).where(table.c.run == run.id).order_by(table.c.seq)
    with ledger.streaming() as connection:
        for row in connection.execute(query):
            name, variant = split_row_id(row.product_id) if row.product_id is not None else (None, "")
            yield RejectedRow(row.line, row.item, name, row.column, row.rule, row.excerpt, variant=variant)


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


def find_run(ledger: Ledger, catalogue: Catalogue, run_id: str) -> Run:
    """Return a run by its name, to read its report.

    Raises:
        ConfigError: There is none.
    """
    table = schema.run
    query = sa.select(table.c.id).where(table.c.catalogue_id == catalogue.id, table.c.run_id == run_id)
    number = ledger.read(lambda connection: connection.execute(query).scalar())
    if number is None:
        raise ConfigError(f"catalogue {catalogue.name!r} has no run {run_id!r} in this ledger")
    return Run(number, catalogue, run_id, "")


def _label(outcome: ProductOutcome) -> str:
    return f"{outcome.product_id} ({outcome.variant})" if outcome.variant else outcome.product_id


def _short_reason(reason: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Leave out what is particular to one product, so that reasons can be counted."""
    return sa.case((reason.like("adopt:%"), "adopt"), else_=reason)


def _outcome(row: Any) -> ProductOutcome:
    times = (row.started_at, row.finished_at)
    seconds = None if None in times else round(row.finished_at - row.started_at, 3)
    return ProductOutcome(
        *split_row_id(row.product_id), row.job_id, row.state, row.reason, row.consumed, row.score, seconds
    )
