# SPDX-License-Identifier: Apache-2.0
"""The request for a partition: from a feed, or from a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import dagster as dg

if TYPE_CHECKING:
    from ugen_provider.core.feeds.mapper import FeedOptions
    from ugen_provider.core.feeds.mapping import FeedMapping
    from ugen_provider.core.feeds.products import Planned


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing can be ordered for a partition, for a person who can act on it.

    Attributes:
        reason: In words.
        error: The error of a request function, which says itself whether a retry may help.
    """

    reason: str
    error: Exception | None = None


def request_body(fields: Mapping[str, Any], *, model: str | None) -> Mapping[str, Any]:
    """Return the request that is sent: the fields, with the account's model where they name none.

    Every comparison with a recorded request is made with this; without the model, each product would seem changed.
    """
    return fields if model is None or fields.get("video_model") is not None else {**fields, "video_model": model}


@runtime_checkable
class Requests(Protocol):
    """Says what is ordered for partitions."""

    def of(self, partitions: Collection[str], *, model: str | None) -> Mapping[str, Mapping[str, Any] | Refusal]:
        """Return the create-job fields of each partition, or the reason that there are none. It may block.

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
        feed: A file, an address, several of them, a `SQLQuery`, a list of mappings, or a table; see
            `ugen_provider.feeds`. It is read again for each run, so that a generator is no source.
        job_defaults: Fields that are the same for every product; `segment_count` must be among them.
        mapping: Which columns become which fields; the default of the feed's kind where not given.
        options: How to read it; found in its content where not given.

    Examples:
        >>> FeedRequests("examples/feed.xml", job_defaults={"segment_count": 2}).of(["LL-1001"], model=None)[
        ...     "LL-1001"
        ... ]["product_name"]
        'Aurora Desk Lamp'
    """

    feed: Any
    job_defaults: Mapping[str, Any] = field(default_factory=dict)
    mapping: FeedMapping | None = None
    options: FeedOptions | None = None

    def plan(self, *, model: str | None = None) -> Iterator[Planned]:
        """Return every row of the feed, as what it orders or why it orders nothing.

        Raises:
            FeedError: The feed cannot be read.
            InvalidRequestError: `job_defaults` break a documented rule.
        """
        from ugen_provider.core.feeds import plan_feed

        if self.mapping is not None:
            self.mapping.require_no_suggestions()
        return plan_feed(
            self.feed, job_defaults=self.job_defaults, options=self.options, mapping=self.mapping, model=model
        )

    def of(self, partitions: Collection[str], *, model: str | None) -> Mapping[str, Mapping[str, Any] | Refusal]:
        """Return the create-job fields of each product, or the reason that there are none."""
        from ugen_provider.core.feeds.products import FeedOrder
        from ugen_provider.core.feeds.sources import source_name

        wanted = set(partitions)
        found: dict[str, Mapping[str, Any] | Refusal] = {}
        for row in self.plan(model=model):
            if row.product_id not in wanted:
                continue
            if isinstance(row, FeedOrder):
                # As in a feed run, the first good row of an id counts, even below a bad one.
                if not isinstance(found.get(row.product_id), Mapping):
                    found[row.product_id] = row.fields
            elif row.product_id is not None:
                found.setdefault(row.product_id, Refusal(f"the feed's row cannot be ordered: {row}"))
        missing = "the feed has no product of this id; remove the partition or correct the feed"
        name = source_name(self.feed)
        return {partition: found.get(partition, Refusal(f"{name}: {missing}")) for partition in partitions}


@dataclass(frozen=True, slots=True)
class AssetRequests:
    """Orders what an upstream asset says of the product whose id is the partition key.

    The asset returns a table, such as a data frame, or rows as mappings. Its IO manager stores it, and each run loads
    it once; no feed file is needed.

    Args:
        asset: Key of the asset; the video assets depend on it.
        job_defaults: Fields that are the same for every product; `segment_count` must be among them.
        mapping: Which columns become which fields; found in the column names where not given.
        options: How to read it.

    Examples:
        ```python
        @dg.asset
        def products() -> pandas.DataFrame:
            return warehouse.query("select id, title, image_link from products")

        assets = build_ugen_assets(
            requests=AssetRequests("products", job_defaults={"segment_count": 2}),
            partitions_def=dg.DynamicPartitionsDefinition(name="ugen_products"),
        )
        ```
    """

    asset: Any
    job_defaults: Mapping[str, Any] = field(default_factory=dict)
    mapping: FeedMapping | None = None
    options: FeedOptions | None = None

    @property
    def key(self) -> dg.AssetKey:
        """The key of the asset."""
        return dg.AssetKey.from_coercible(self.asset)

    def loaded(self, load: Callable[[dg.AssetKey], Any]) -> FeedRequests:
        """Return the requests of the rows that the asset holds now.

        Args:
            load: Loads the value of an asset.

        Raises:
            FeedError: It cannot be loaded, such as before its first materialization.
        """
        from ugen_provider.core.feeds.errors import FeedError

        try:
            value = load(self.key)
        except Exception as error:
            name = self.key.to_user_string()
            message = f"the asset {name} cannot be loaded ({type(error).__name__}: {error}); materialize it first"
            raise FeedError(message, source=name) from error
        return FeedRequests(value, job_defaults=self.job_defaults, mapping=self.mapping, options=self.options)

    def of(self, partitions: Collection[str], *, model: str | None) -> Mapping[str, Mapping[str, Any] | Refusal]:
        """Refuse: the asset must be loaded first, which a run or a sensor does."""
        del model
        reason = f"the asset {self.key.to_user_string()} is loaded only in a run"
        return {partition: Refusal(reason) for partition in partitions}


@dataclass(frozen=True, slots=True)
class FunctionRequests:
    """Orders what a function says of a partition key.

    Args:
        function: Takes a partition key ('' for an unpartitioned asset) and gives the create-job fields, as a mapping
            or as a `CreateJob`.
    """

    function: Callable[[str], Any]

    def of(self, partitions: Collection[str], *, model: str | None) -> Mapping[str, Mapping[str, Any] | Refusal]:
        """Return the create-job fields of each partition, or the reason that there are none."""
        return {partition: self._one(partition, model) for partition in partitions}

    def _one(self, partition: str, model: str | None) -> Mapping[str, Any] | Refusal:
        from ugen_provider.core.api import rules

        try:
            given = self.function(partition)
        except Exception as error:  # noqa: BLE001  it fails its partition and no other
            return Refusal(f"its request function raised {type(error).__name__}: {error}", error)
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
