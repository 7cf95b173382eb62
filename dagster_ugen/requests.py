# SPDX-License-Identifier: Apache-2.0
"""What is ordered for a partition: from a feed, or from a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ugen_provider.core.feeds.mapping import FeedMapping
    from ugen_provider.core.feeds.planning import FeedOptions, Planned


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing can be ordered for a partition, for a person who can act on it."""

    reason: str


@runtime_checkable
class Requests(Protocol):
    """Says what is ordered for partitions."""

    def of(self, partitions: Collection[str], *, model: str | None) -> Mapping[str, Mapping[str, Any] | Refusal]:
        """The create-job fields of each partition, or why there are none. It may block.

        Args:
            partitions: Partition keys; '' for an unpartitioned asset.
            model: The model that the account uses where a request names none.
        """
        ...


@dataclass(frozen=True, slots=True)
class FeedRequests:
    """Orders what a product feed says of the product whose id is the partition key.

    The feed is read once per run, in one streaming pass.

    Args:
        feed: A local path, or an http(s) or fsspec URL.
        job_defaults: Fields that are the same for every product; `segment_count` must be among them.
        mapping: Which columns become which fields; the default of the feed's kind where not given.
        options: How to read it; found in its content where not given.

    Examples:
        >>> FeedRequests("examples/feed.xml", job_defaults={"segment_count": 2}).of(["LL-1001"], model=None)[
        ...     "LL-1001"
        ... ]["product_name"]
        'Aurora Desk Lamp'
    """

    feed: str
    job_defaults: Mapping[str, Any] = field(default_factory=dict)
    mapping: FeedMapping | None = None
    options: FeedOptions | None = None

    def plan(self, *, model: str | None = None) -> Iterator[Planned]:
        """Every row of the feed, as what it orders or why it orders nothing.

        Raises:
            FeedError: The feed cannot be read.
            InvalidRequestError: `job_defaults` break a documented rule.
        """
        from ugen_provider.core.feeds import plan_feed

        return plan_feed(
            self.feed, job_defaults=self.job_defaults, options=self.options, mapping=self.mapping, model=model
        )

    def of(self, partitions: Collection[str], *, model: str | None) -> Mapping[str, Mapping[str, Any] | Refusal]:
        """The create-job fields of each product, or why there are none."""
        from ugen_provider.core.feeds.planning import Order as FeedOrder

        wanted = set(partitions)
        found: dict[str, Mapping[str, Any] | Refusal] = {}
        for row in self.plan(model=model):
            if row.product_id not in wanted:
                continue
            if isinstance(row, FeedOrder):
                found.setdefault(row.product_id, row.fields)
            elif row.product_id is not None:
                found.setdefault(row.product_id, Refusal(f"the feed's row cannot be ordered: {row}"))
        missing = "the feed has no product of this id; remove the partition or look at the feed"
        return {partition: found.get(partition, Refusal(f"{self.feed}: {missing}")) for partition in partitions}


@dataclass(frozen=True, slots=True)
class FunctionRequests:
    """Orders what a function says of a partition key.

    Args:
        function: Takes a partition key ('' for an unpartitioned asset) and gives the create-job fields, as a mapping
            or as a `CreateJob`.
    """

    function: Callable[[str], Any]

    def of(self, partitions: Collection[str], *, model: str | None) -> Mapping[str, Mapping[str, Any] | Refusal]:
        """The create-job fields of each partition, or why there are none."""
        return {partition: self._one(partition, model) for partition in partitions}

    def _one(self, partition: str, model: str | None) -> Mapping[str, Any] | Refusal:
        from ugen_provider.core.api import rules

        given = self.function(partition)
        fields = given.body() if hasattr(given, "body") else given
        if not isinstance(fields, Mapping):
            return Refusal(
                f"the request of this partition must be a mapping or a CreateJob, not {type(fields).__name__}"
            )
        violations = rules.check(fields, model=model)
        return Refusal("; ".join(map(str, violations))) if violations else dict(fields)


def as_requests(given: Requests | Callable[[str], Any] | Mapping[str, Any]) -> Requests:
    """Take requests as a source of them, as a function of the partition key, or as one mapping for an only asset."""
    if isinstance(given, Requests):
        return given
    if isinstance(given, Mapping):
        return FunctionRequests(lambda _partition: given)
    return FunctionRequests(given)
