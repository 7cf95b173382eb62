# SPDX-License-Identifier: Apache-2.0
"""What is ordered of a feed run, and what it tells while it works. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.batch.budget import Budget
from ugen_provider.core.batch.plans import PlanOptions
from ugen_provider.core.feeds.sources import FeedSource
from ugen_provider.core.jobs.buying import BuyingPolicy
from ugen_provider.core.media.naming import DEFAULT_TEMPLATE
from ugen_provider.core.media.outputs import INCLUDE, Include
from ugen_provider.core.media.stores import Destination


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where outputs go.

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
        run_id: The logical run: going on, or doing it again, is the same run.
        job_defaults: Fields of every request, such as `segment_count`.
        budget: What may be spent; there is no default.
        plan: How the feed becomes a plan.
        policy: What to do with earlier attempts.
        outputs: Where outputs go; None leaves them with the service.
        min_score: Lowest quality score that is good enough; what is below is named in the report.
        in_flight: Jobs under way at once, at most; fewer where the account allows fewer.
        interval: Seconds between looks at a job.
        job_timeout: Seconds after which a job is left and the product counts as running; None waits.
        on_interrupt: Whether jobs that run are left or cancelled when the run is stopped.
    """

    source: FeedSource
    catalogue: str
    run_id: str
    job_defaults: Mapping[str, Any]
    budget: Budget
    plan: PlanOptions = field(default_factory=PlanOptions)
    policy: BuyingPolicy = field(default_factory=BuyingPolicy)
    outputs: Outputs | None = None
    min_score: float | None = None
    in_flight: int = 20
    interval: float = 10.0
    job_timeout: float | None = None
    on_interrupt: Literal["leave", "cancel"] = "leave"

    def __post_init__(self) -> None:
        if not self.run_id or not self.run_id.strip():
            raise ConfigError("run_id: must be named, since it is what a run goes on by")
        if self.in_flight < 1:
            raise ConfigError(f"in_flight: must be at least 1, got {self.in_flight}")


@dataclass(frozen=True, slots=True)
class Progress:
    """Something happened.

    Attributes:
        event: `planned`, `submitted`, `settled`, `limited` (the account takes fewer jobs at once) or `stopping`.
        product_id: Of which product.
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
    state: str | None = None
    reason: str | None = None
