# SPDX-License-Identifier: Apache-2.0
"""From a feed to orders: the one function that both orchestrators, the ledger and the command line use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ugen_provider.core.feeds.columns import Kind
from ugen_provider.core.feeds.mapper import Mapper, SkippedRow
from ugen_provider.core.feeds.mapping import FeedMapping
from ugen_provider.core.feeds.products import Product, RejectedRow
from ugen_provider.core.feeds.reading import Format, open_feed
from ugen_provider.core.feeds.sources import FeedSource
from ugen_provider.core.feeds.unpacking import Bounds


class Order(NamedTuple):
    """A video that a feed asks for: what would be sent for one product. A tuple, as `Product` is.

    Attributes:
        product_id: The shop's own id.
        fields: The fields of the create-job request, checked against the documented rules.
        line: Line in the (unpacked) feed, from 1; None where the format has no lines.
        item: Number of the item, from 1.
        rows: Rows of the feed that it was made from; more than one for a product with its variants.
    """

    product_id: str
    fields: Mapping[str, Any]
    line: int | None
    item: int
    rows: int = 1


Planned = Order | RejectedRow | SkippedRow


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """How to read a feed, where its content does not tell, or is not to be asked.

    Attributes:
        kind: Whose rules it follows.
        format: How it is written.
        encoding: Of CSV, TSV and JSON without a byte order mark; default UTF-8.
        timeout: For http(s): seconds without a byte after which it is given up.
        bounds: How large it may become.
    """

    kind: Kind | None = None
    format: Format | None = None
    encoding: str | None = None
    timeout: float = 60.0
    bounds: Bounds = field(default_factory=Bounds)


def plan_feed(
    source: FeedSource,
    *,
    job_defaults: Mapping[str, Any],
    options: FeedOptions | None = None,
    mapping: FeedMapping | None = None,
    model: str | None = None,
) -> Iterator[Planned]:
    """What a feed would order, in one streaming pass; spends nothing. Ids that occur twice are not looked for here.

    Args:
        source: A local path, an http(s) or fsspec URL, an open binary file, or anything with `.open("rb")`.
        job_defaults: Fields for every product; `segment_count` must be among them, or among those of the mapping.
        options: How to read it; found in its content where not given.
        mapping: What the columns become; the default of the feed's kind where not given.
        model: The model that the account uses where nothing names one.

    Yields:
        An `Order` per good product, a `RejectedRow` per bad one, a `SkippedRow` per one that a filter keeps out.

    Raises:
        InvalidRequestError: `job_defaults` break a rule by themselves, so that every product would. Raised at once.
        FeedError: The feed cannot be opened, or not read to its end.

    Examples:
        >>> for row in plan_feed("examples/feed.xml", job_defaults={"segment_count": 2}):
        ...     print(row)
    """
    Mapper(mapping or FeedMapping.default(), job_defaults=job_defaults, model=model)  # refuses before anything is read

    def rows() -> Iterator[Planned]:
        with opened_plan(source, job_defaults=job_defaults, options=options, mapping=mapping, model=model) as opened:
            yield from opened.rows

    return rows()


@dataclass(frozen=True, slots=True)
class OpenPlan:
    """A plan that is being made: what the feed is, and what it orders.

    Attributes:
        source: The feed, without credentials and query.
        kind: Whose rules it follows.
        format: How it is written.
        rows: What it orders.
        unseen: Columns that the mapping names and that no row had, as far as `rows` was read.
    """

    source: str
    kind: Kind
    format: Format
    rows: Iterator[Planned]
    unseen: AbstractSet[str]


@contextmanager
def opened_plan(
    source: FeedSource,
    *,
    job_defaults: Mapping[str, Any],
    options: FeedOptions | None = None,
    mapping: FeedMapping | None = None,
    version: int | None = None,
    model: str | None = None,
    upload_pictures: bool = False,
) -> Iterator[OpenPlan]:
    """As `plan_feed`, and tells what the feed is.

    Args:
        source: As for `plan_feed`.
        job_defaults: As for `plan_feed`.
        options: As for `plan_feed`.
        mapping: As for `plan_feed`.
        version: Of the default mapping, for what `mapping` does not name.
        model: As for `plan_feed`.
        upload_pictures: Whether a picture may have an address that the service cannot reach.

    Raises:
        InvalidRequestError: As for `plan_feed`.
        FeedError: As for `plan_feed`.
    """
    options = options or FeedOptions()
    with open_feed(
        source,
        kind=options.kind,
        format=options.format,
        encoding=options.encoding,
        timeout=options.timeout,
        bounds=options.bounds,
    ) as opened:
        mapper = Mapper(
            mapping.for_kind(opened.kind, version=version)
            if mapping is not None
            else FeedMapping.default(opened.kind, version=version),
            job_defaults=job_defaults,
            model=model,
            upload_pictures=upload_pictures,
        )
        yield OpenPlan(opened.name, opened.kind, opened.format, _planned(opened.rows, mapper), mapper.unseen)


def _planned(rows: Iterator[Product | RejectedRow], mapper: Mapper) -> Iterator[Planned]:
    for row in rows:
        if isinstance(row, RejectedRow):
            yield row
            continue
        made = mapper(row)
        yield Order(row.id, made, row.line, row.item, row.rows) if isinstance(made, dict) else made
