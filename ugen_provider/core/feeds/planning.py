# SPDX-License-Identifier: Apache-2.0
"""From a feed to orders: the one function that both orchestrators and the command line use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import InvalidRequestError
from ugen_provider.core.feeds.columns import Kind
from ugen_provider.core.feeds.mapping import FeedMapping, to_job_fields
from ugen_provider.core.feeds.products import Product, RejectedRow
from ugen_provider.core.feeds.reading import read_feed
from ugen_provider.core.feeds.sources import FeedSource


@dataclass(frozen=True, slots=True)
class Order:
    """A video that a feed asks for: what would be sent for one product.

    Attributes:
        product_id: The shop's own id.
        fields: The fields of the create-job request, checked against the documented rules.
        line: Line in the (unpacked) feed, from 1; None where the format has no lines.
        item: Number of the item, from 1.
    """

    product_id: str
    fields: Mapping[str, Any]
    line: int | None
    item: int


def plan_feed(
    source: FeedSource,
    *,
    job_defaults: Mapping[str, Any],
    kind: Kind | None = None,
    mapping: FeedMapping | None = None,
    model: str | None = None,
    timeout: float = 60.0,
) -> Iterator[Order | RejectedRow]:
    """What a feed would order, in one streaming pass; spends nothing.

    Args:
        source: A local path, an http(s) or fsspec URL, an open binary file, or anything with `.open("rb")`.
        job_defaults: Fields that are the same for every product; `segment_count` must be among them.
        kind: Whose rules the feed follows; found in its content where not given.
        mapping: What the columns become; the default of the kind where not given.
        model: The model that the account uses where `job_defaults` names none.
        timeout: For http(s): seconds without a byte after which it is given up.

    Yields:
        An `Order` per good product, a `RejectedRow` per bad one; their numbers add up to the items of the feed.

    Raises:
        InvalidRequestError: `job_defaults` break a rule by themselves, so that every product would.
        FeedError: The feed cannot be opened, or not read to its end.

    Example:
        >>> for row in plan_feed("examples/feed.xml", job_defaults={"segment_count": 2}):
        ...     print(row)
    """
    violations = rules.check(job_defaults, model=model, pending=("product_name", "product_image_url"))
    if violations:
        raise InvalidRequestError(violations)
    mapping = mapping or FeedMapping.default(kind or "google")
    return _orders(read_feed(source, kind=kind, timeout=timeout), mapping, job_defaults=job_defaults, model=model)


def _orders(
    rows: Iterator[Product | RejectedRow], mapping: FeedMapping, *, job_defaults: Mapping[str, Any], model: str | None
) -> Iterator[Order | RejectedRow]:
    for row in rows:
        if isinstance(row, RejectedRow):
            yield row
            continue
        fields = to_job_fields(row, mapping, job_defaults=job_defaults, model=model)
        if isinstance(fields, RejectedRow):
            yield fields
        else:
            yield Order(row.id, fields, row.line, row.item)
