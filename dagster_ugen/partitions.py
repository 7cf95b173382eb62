# SPDX-License-Identifier: Apache-2.0
"""A feed's products as dynamic partitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import dagster as dg

    from dagster_ugen.requests import FeedRequests

T = TypeVar("T")
CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Synced:
    """What came of bringing partitions up to a feed.

    Attributes:
        added: Products that had no partition.
        known: Products that had one.
        rejected: Rows that order nothing, with their place and reason; the first hundred of them.
        rejected_count: How many there were in all.
    """

    added: int
    known: int
    rejected: tuple[str, ...]
    rejected_count: int


def sync_product_partitions(instance: dg.DagsterInstance, requests: FeedRequests, *, name: str) -> Synced:
    """Add a partition for each good product of a feed that has none. Buys nothing, and removes nothing.

    It reads the feed in one pass and in constant memory, and adds a thousand at a time.

    Args:
        instance: The Dagster instance.
        requests: The feed.
        name: Name of the dynamic partitions definition.

    Raises:
        FeedError: The feed cannot be read; what was read before is added.

    Examples:
        >>> feed = FeedRequests("examples/feed.xml", job_defaults={"segment_count": 2})
        >>> sync_product_partitions(dg.DagsterInstance.get(), feed, name="ugen_products").added
        5
    """
    from ugen_provider.core.feeds.planning import Order

    read = rejected_count = 0
    rejected: list[str] = []

    def products() -> Iterator[str]:
        nonlocal read, rejected_count
        for row in requests.plan():
            if isinstance(row, Order):
                read += 1
                yield row.product_id
            else:
                rejected_count += 1
                if len(rejected) < 100:
                    rejected.append(str(row))

    before = len(instance.get_dynamic_partitions(name))
    for chunk in chunks(products()):
        instance.add_dynamic_partitions(name, chunk)
    added = len(instance.get_dynamic_partitions(name)) - before
    return Synced(added, read - added, tuple(rejected), rejected_count)


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Items in lists of a size."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
