# SPDX-License-Identifier: Apache-2.0
"""The feed sensor: a product that is new, or that changed, gets its partition and its video."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Literal

import dagster as dg

from dagster_ugen.partitions import CHUNK, chunks
from dagster_ugen.sensors import TICK_SECONDS, batch_config

if TYPE_CHECKING:
    from dagster_ugen.assets import UGenVideos
    from dagster_ugen.requests import FeedRequests
    from ugen_provider.core.feeds.planning import Order as FeedOrder

_FEWEST_KNOWN = 20
"""Below so many known products a share says nothing."""


@dataclass(slots=True)
class FeedCursor:
    """Where in the feed a tick ended, and what the pass has seen so far.

    Attributes:
        item: Rows that were read.
        known: Products that were bought before.
        changed: Those of them whose request is another one now.
        asked: The newest requests that were asked for, whose intents may not be written yet.
    """

    item: int = 0
    known: int = 0
    changed: int = 0
    asked: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, text: str | None) -> FeedCursor:
        """Read what `write` made; one that cannot be read begins the pass again, which buys nothing twice."""
        try:
            return cls(**json.loads(text)) if text else cls()
        except (ValueError, TypeError):
            return cls()

    def write(self) -> str:
        """As text."""
        return json.dumps(asdict(self), separators=(",", ":"))


def build_ugen_product_feed_sensor(
    videos: UGenVideos,
    *,
    feed: FeedRequests,
    partitions_name: str,
    job: dg.JobDefinition | None,
    namespace: str = "",
    name: str = "ugen_product_feed_sensor",
    minimum_interval_seconds: int = 300,
    products_per_run: int = 50,
    runs_per_tick: int = 4,
    on_changed: Literal["regenerate", "ignore"] = "regenerate",
    max_changed: float = 0.2,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """A sensor that reads a feed, adds partitions for its products, and asks for runs for those new or changed.

    The runs that it asks for buy. It reads the feed in one streaming pass over as many ticks as that takes, and
    asks for few runs a tick, since Dagster's daemon makes them one by one.

    Args:
        videos: The assets.
        feed: The feed.
        partitions_name: Name of the dynamic partitions definition.
        job: From `build_ugen_batch_job`; None adds partitions and asks for nothing.
        namespace: The resource's namespace.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between ticks.
        products_per_run: Products of one run.
        runs_per_tick: Runs that one tick asks for.
        on_changed: Whether a product whose request changed is bought again, or keeps its video.
        max_changed: Share of the known products, 0 to 1, above which nothing more is bought again in a pass: rather a
            fault of the feed than a new catalogue.
        default_status: Whether it runs from the start.
    """

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor = FeedCursor.read(context.cursor)
        finder = _Finder(context.instance, videos, namespace, cursor, on_changed=on_changed, max_changed=max_changed)
        most = products_per_run * runs_per_tick if job is not None else None
        found, at_end, rejected = _pass(context.instance, feed, partitions_name, cursor, finder, most=most)
        requests = [_buying(group, job=job) for group in chunks(found, products_per_run)] if job is not None else []
        cursor.asked = [*cursor.asked, *(each.name for each in found)][-2000:]
        told = f"{cursor.item} rows read, {len(found)} products to make, {rejected} rows rejected"
        for line in finder.warnings:
            context.log.warning(line)
        if at_end:
            cursor.item = cursor.known = cursor.changed = 0
        return dg.SensorResult(
            run_requests=requests, skip_reason=None if requests else dg.SkipReason(told), cursor=cursor.write()
        )

    return dg.SensorDefinition(
        name=name,
        evaluation_fn=evaluate,
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Adds a partition for each product of a feed, and asks for runs for those new or changed.",
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A product that is to be made, and the value under which it is bought again where it changed."""

    product_id: str
    digest: str
    regenerate: str | None

    @property
    def name(self) -> str:
        """Short enough to remember two thousand of them."""
        return f"{self.product_id}:{self.digest[:12]}"


class _Finder:
    """Tells which products of a chunk are new or changed, by what the event log says was bought."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        videos: UGenVideos,
        namespace: str,
        cursor: FeedCursor,
        *,
        on_changed: Literal["regenerate", "ignore"],
        max_changed: float,
    ) -> None:
        from dagster_ugen.intents import IntentLog

        self._log = IntentLog(instance, asset_key=videos.order_key, holder="")
        self._videos = videos
        self._namespace = namespace
        self._cursor = cursor
        self._on_changed = on_changed
        self._max_changed = max_changed
        self.warnings: list[str] = []

    def wanted(self, orders: Sequence[FeedOrder]) -> list[Wanted]:
        from dagster_ugen.running import scope_of
        from ugen_provider.core.jobs.fingerprint import CURRENT_SCHEME, fingerprint

        known = self._log.newest_of([order.product_id for order in orders])
        asked = set(self._cursor.asked)
        new: list[Wanted] = []
        changed: list[Wanted] = []
        for order in orders:
            intent = known.get(order.product_id)
            scope = str(scope_of(self._videos.order_key, self._namespace, order.product_id))
            if intent is None or intent.scope != scope:
                new.append(Wanted(order.product_id, fingerprint(order.fields, scheme=CURRENT_SCHEME), None))
                continue
            self._cursor.known += 1
            digest = fingerprint(order.fields, scheme=intent.scheme)
            if digest != intent.fingerprint:
                self._cursor.changed += 1
                changed.append(Wanted(order.product_id, digest, f"feed:{digest[:24]}"))
        again = changed if changed and self._on_changed == "regenerate" and not self._too_many() else []
        return [each for each in (*new, *again) if each.name not in asked]

    def _too_many(self) -> bool:
        cursor = self._cursor
        if cursor.known < _FEWEST_KNOWN or cursor.changed <= self._max_changed * cursor.known:
            return False
        if not self.warnings:
            self.warnings.append(
                f"{cursor.changed} of {cursor.known} known products changed, more than max_changed="
                f"{self._max_changed:g} of them: none of these is bought again; look at the feed, then raise it"
            )
        return True


def _pass(
    instance: dg.DagsterInstance,
    feed: FeedRequests,
    partitions_name: str,
    cursor: FeedCursor,
    finder: _Finder,
    *,
    most: int | None,
) -> tuple[list[Wanted], bool, int]:
    """Read on in the feed until it ends, the time is up, or enough was found."""
    from ugen_provider.core.feeds.planning import Order as FeedOrder

    until = time.monotonic() + TICK_SECONDS
    found: list[Wanted] = []
    rejected = 0
    rows = islice(feed.plan(), cursor.item, None)
    while True:
        orders: list[FeedOrder] = []
        read = 0
        for row in islice(rows, CHUNK):
            read += 1
            if isinstance(row, FeedOrder):
                orders.append(row)
            else:
                rejected += 1
        if orders:
            instance.add_dynamic_partitions(partitions_name, [order.product_id for order in orders])
        if most is not None and orders:
            counted = cursor.known, cursor.changed
            fresh = finder.wanted(orders)
            if len(found) + len(fresh) > most:
                found.extend(fresh[: most - len(found)])
                cursor.known, cursor.changed = counted
                return found, False, rejected  # the same chunk again: what was asked for is remembered
            found.extend(fresh)
        cursor.item += read
        if read < CHUNK:
            return found, True, rejected
        if time.monotonic() > until:
            return found, False, rejected


def _buying(group: Sequence[Wanted], *, job: dg.JobDefinition) -> dg.RunRequest:
    named = hashlib.sha256("\n".join(each.name for each in group).encode()).hexdigest()
    again = {each.product_id: each.regenerate for each in group if each.regenerate is not None}
    return dg.RunRequest(
        run_key=f"ugen-feed-{named[:24]}",
        run_config=batch_config(job, partitions=[each.product_id for each in group], regenerate=again),
        tags={"ugen/buys": str(len(group))},
    )
