# SPDX-License-Identifier: Apache-2.0
"""The order for a feed run, and the events that it reports while it works. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.batch.budget import Budget
from ugen_provider.core.feeds.mapper import FeedOptions
from ugen_provider.core.feeds.mapping import FeedMapping
from ugen_provider.core.feeds.sources import FeedSource
from ugen_provider.core.jobs.policy import PurchasePolicy
from ugen_provider.core.media.outputs import DEFAULT_TEMPLATE, INCLUDE, Include
from ugen_provider.core.media.stores import Destination

Duplicates = Literal["first", "last"]
Adopt = Literal["on", "ask", "off"]
OnChanged = Literal["refuse", "postpone"]


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How a feed becomes a plan.

    Attributes:
        feed: How to read the feed.
        mapping: What its columns become; the catalogue's pinned default where not given.
        newest_mapping: Whether to move on to the newest default mapping, and pin that.
        duplicates: Which of several products with one id counts.
        max_rejected: Rejected rows above which the run stops before buying; None for any number.
        max_changed: Share of the known products, 0 to 1, above which the run stops before buying them again.
        on_changed: What happens above `max_changed`: the run is refused, or the changed products are postponed and the
            new ones are bought.
        max_gone: Share of the known products, 0 to 1, that the feed may lack.
        max_new: Products that may be new at most; None for any number.
        allow_new_ids: Whether many products may be new while many others are gone.
        guard_min: Known products from which on the five options above apply.
        adopt: Whether products with equal requests share one video: `on`; `ask` postpones those that differ in price,
            size or link; `off` buys one for each.
        part: The part of the catalog that the feed is; None for what the mapping says.
        only: Ids of the products to plan; None for all.
        limit: Products that are ordered at most; None for what the mapping says.
        supplemental: Whether the feed adds to another one, so that nothing follows from what it lacks.
        pictures_by_content: Whether a picture counts by its content, which is then read, instead of its address.
        regenerate: Ids of products that are bought again on purpose, once per run.
        stored: Whether outputs are to be stored, so that a product without them is not finished.
        upload_pictures: Whether pictures that the service cannot reach are uploaded.
        picture_roots: Local folders, and URLs of folders in an object store, below which a row may name a picture.
    """

    feed: FeedOptions = field(default_factory=FeedOptions)
    mapping: FeedMapping | None = None
    newest_mapping: bool = False
    duplicates: Duplicates = "first"
    max_rejected: int | None = None
    max_changed: float = 0.2
    on_changed: OnChanged = "refuse"
    max_gone: float = 0.2
    max_new: int | None = None
    allow_new_ids: bool = False
    guard_min: int = 10
    adopt: Adopt = "on"
    part: str | None = None
    only: frozenset[str] | None = None
    limit: int | None = None
    supplemental: bool = False
    pictures_by_content: bool = False
    regenerate: frozenset[str] = frozenset()
    stored: bool = False
    upload_pictures: bool = False
    picture_roots: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether a product that the plan lacks is gone: not where it was selected, limited or supplemental."""
        return self.only is None and self.limit is None and not self.supplemental


@dataclass(frozen=True, slots=True)
class Outputs:
    """Destination and choice of the stored outputs.

    Attributes:
        destination: A local folder, any fsspec URL, or a path object that knows its filesystem.
        include: Which kinds.
        template: Where each file goes, below the destination.
        allow_private: Whether links may lead to private addresses, as those of a local U-Gen do.
    """

    destination: Destination
    include: tuple[Include, ...] = INCLUDE
    template: str = DEFAULT_TEMPLATE
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class FeedRun:
    """One run over one feed.

    Attributes:
        source: The feed; see `core.feeds`.
        catalogue: What the videos belong to; there is no default.
        run_id: The logical run: to continue or repeat it is the same run.
        job_defaults: Fields of every request, such as `segment_count`.
        budget: What may be spent; there is no default.
        plan: How the feed becomes a plan.
        policy: What to do with earlier attempts.
        outputs: Where outputs go; None leaves them with the service.
        min_score: Lowest quality score that is good enough; what is below is named in the report.
        in_flight: Jobs under way at once, at most; None (the default) for as many as the account allows, which is
            found by its answers.
        interval: Seconds between polls of a job.
        job_timeout: Seconds after which a job is left and the product counts as running; None waits.
        on_interrupt: Whether jobs that run are left or cancelled when the run is stopped.
    """

    source: FeedSource
    catalogue: str
    run_id: str
    job_defaults: Mapping[str, Any]
    budget: Budget
    plan: PlanOptions = field(default_factory=PlanOptions)
    policy: PurchasePolicy = field(default_factory=PurchasePolicy)
    outputs: Outputs | None = None
    min_score: float | None = None
    in_flight: int | None = None
    interval: float = 10.0
    job_timeout: float | None = None
    on_interrupt: Literal["leave", "cancel"] = "leave"

    def __post_init__(self) -> None:
        if not self.run_id or not self.run_id.strip():
            raise ConfigError("run_id: must be named, since a run is continued by it")
        if self.in_flight is not None and self.in_flight < 1:
            raise ConfigError(f"in_flight: must be at least 1, got {self.in_flight}")


@dataclass(frozen=True, slots=True)
class Progress:
    """Event of a feed run, for a progress display.

    Attributes:
        event: `planned`, `submitted`, `settled`, `limited` (the account takes fewer jobs at once) or `stopping`.
        product_id: Of which product.
        variant: Of which of its variants; '' for none.
        state: For `settled`: its outcome.
        reason: Why, where there is more to say.
        total: Products that this run has to buy or wait for.
        done: Of those, how many are settled by this runner.
        in_flight: Jobs under way in this runner.
        limit: Jobs at once, as far as the account is known to allow.
    """

    event: Literal["planned", "submitted", "settled", "limited", "stopping"]
    total: int
    done: int
    in_flight: int
    limit: int
    product_id: str | None = None
    variant: str = ""
    state: str | None = None
    reason: str | None = None
