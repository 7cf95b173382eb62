# SPDX-License-Identifier: Apache-2.0
"""What a feed would send, what would be refused and why, and what it would cost. Spends nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from ugen_provider.core.batch.budget import cost_key
from ugen_provider.core.feeds.mapper import SkippedRow
from ugen_provider.core.feeds.mapping import FeedMapping
from ugen_provider.core.feeds.planning import FeedOptions, OpenPlan, Order, Planned, opened_plan
from ugen_provider.core.feeds.products import RejectedRow
from ugen_provider.core.feeds.sources import FeedSource


@dataclass(slots=True)
class FeedCheck:
    """What a feed amounts to; it grows while its rows are read.

    Attributes:
        source: The feed, without credentials and query.
        kind: Whose rules it follows.
        format: How it is written.
        rows: Products read, good and bad.
        accepted: Would be sent.
        rejected: Would be refused.
        skipped: Kept out by a filter.
        duplicates: Accepted, with an id that came before; one of them would be sent.
        estimated_credits: What the accepted would cost; None where the service does not tell.
        skipped_by: How many each filter keeps out.
        unseen_columns: Columns that the mapping names and no product has, once all rows are read.
    """

    source: str
    kind: str
    format: str
    rows: int = 0
    accepted: int = 0
    rejected: int = 0
    skipped: int = 0
    duplicates: int = 0
    estimated_credits: int | None = 0
    skipped_by: dict[str, int] = field(default_factory=dict)
    unseen_columns: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class OpenCheck:
    """A check that is under way: its rows, and what they amount to so far."""

    summary: FeedCheck
    rows: Iterator[Planned]


@contextmanager
def check_feed(
    source: FeedSource,
    *,
    job_defaults: Mapping[str, Any],
    estimate: Callable[[Mapping[str, Any]], int | None] | None = None,
    options: FeedOptions | None = None,
    mapping: FeedMapping | None = None,
    version: int | None = None,
    model: str | None = None,
    upload_pictures: bool = False,
) -> Iterator[OpenCheck]:
    """Go through a feed without buying. Free; asks for an estimate once for each combination of what costs.

    Args:
        source: The feed.
        job_defaults: Fields of every request.
        estimate: The credits of one request, None where they are not known.
        options: How to read the feed.
        mapping: What its columns become.
        version: Of the default mapping, where no mapping is given: that of a catalogue is pinned in its ledger.
        model: The model that the account uses where nothing names one.
        upload_pictures: Whether pictures that the service cannot reach would be uploaded.

    Raises:
        FeedError: The feed cannot be opened, or not read to its end.
        InvalidRequestError: `job_defaults` break a rule by themselves.

    Examples:
        >>> with check_feed("feed.xml", job_defaults={"segment_count": 2}) as check:
        ...     for row in check.rows:
        ...         print(row)
        >>> check.summary.rejected
        1
    """
    with opened_plan(
        source,
        job_defaults=job_defaults,
        options=options,
        mapping=mapping,
        version=version,
        model=model,
        upload_pictures=upload_pictures,
    ) as opened:
        summary = FeedCheck(opened.source, opened.kind, opened.format)
        yield OpenCheck(summary, _counted(opened, summary, estimate))


def _counted(
    opened: OpenPlan, summary: FeedCheck, estimate: Callable[[Mapping[str, Any]], int | None] | None
) -> Iterator[Planned]:
    known: dict[str, int | None] = {}
    seen: set[int] = set()
    if estimate is None:
        summary.estimated_credits = None
    for row in opened.rows:
        summary.rows += 1
        if isinstance(row, RejectedRow):
            summary.rejected += 1
        elif isinstance(row, SkippedRow):
            summary.skipped += 1
            summary.skipped_by[row.rule] = summary.skipped_by.get(row.rule, 0) + 1
        else:
            summary.accepted += 1
            digest = hash(row.product_id)
            if digest in seen:
                summary.duplicates += 1
            else:
                seen.add(digest)
                _add_cost(row, summary, estimate, known)
        yield row
    summary.unseen_columns = sorted(opened.unseen)


def _add_cost(
    row: Order,
    summary: FeedCheck,
    estimate: Callable[[Mapping[str, Any]], int | None] | None,
    known: dict[str, int | None],
) -> None:
    if estimate is None or summary.estimated_credits is None:
        return
    key = cost_key(row.fields)
    if key not in known:
        known[key] = estimate(row.fields)
    cost = known[key]
    summary.estimated_credits = None if cost is None else summary.estimated_credits + cost
