# SPDX-License-Identifier: Apache-2.0
"""The feed sensor: a product that is new, or that changed, gets its partition and a run that submits its order.

A product is done when the ledger has its order. Until then it is requested again, unless a run under way works on it:
a run that was terminated while it was queued has bought nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from dagster_ugen.asset_job import (
    AssetJob,
    PartitionRange,
    partition_keys,
    partition_ranges,
    partitions_of_runs,
    run_request,
)
from dagster_ugen.definition import BUDGET_RUN_TAG, BUDGET_TAG, ON_CHANGED_TAG
from dagster_ugen.event_log import (
    CHUNK,
    TICK_SECONDS,
    OlderOrders,
    chunks,
    is_under_way,
    run_of_attempt,
    runs_under_way,
    under_way,
)
from dagster_ugen.requests import AssetRequests, request_body
from dagster_ugen.resource import required_resources, sensor_account

if TYPE_CHECKING:
    from dagster_ugen.account import Account
    from dagster_ugen.definition import VideoDefinition
    from dagster_ugen.requests import FeedRequests
    from dagster_ugen.resource import UGenResource
    from ugen_provider.core.feeds.products import FeedOrder
    from ugen_provider.core.ledger.record import OrderRecord

_GUARD_MIN = 20
"""Below so many known products a share says nothing."""

_REQUEST_TAG = "ugen/request"
_CREATION_SECONDS = 600.0
"""Seconds in which the daemon creates a run that a tick requested; afterwards its products are requested again."""

_UNBOUGHT_PAUSE = 900.0
"""Seconds before an order that was recorded and not bought, such as for lack of credits, is requested again."""


@dataclass(slots=True)
class FeedCursor:
    """The position in the feed where a tick ended, and what the pass has counted so far.

    Attributes:
        item: Rows that were read.
        known: Products that have an order.
        changed: Those of them whose request has changed.
        tick: Number of the tick, so that a request that is repeated is a new one.
        requested: Requests whose runs were not seen yet: the time, and the products.
    """

    item: int = 0
    known: int = 0
    changed: int = 0
    tick: int = 0
    requested: dict[str, tuple[float, list[str]]] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str | None) -> FeedCursor:
        """Read what `write` made; an unreadable cursor starts the pass again, which buys nothing twice."""
        try:
            return cls(**json.loads(text)) if text else cls()
        except (ValueError, TypeError):
            return cls()

    def write(self) -> str:
        """Return the cursor as text, for Dagster to store."""
        return json.dumps(asdict(self), separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class SyncResult:
    """The result of adding a feed's products as partitions.

    Attributes:
        added: Products that had no partition.
        known: Products that had one.
        rejected: Rows that order nothing, with their position and reason; the first hundred of them.
        rejected_count: How many there were in all.
    """

    added: int
    known: int
    rejected: tuple[str, ...]
    rejected_count: int


def sync_product_partitions(instance: dg.DagsterInstance, requests: FeedRequests, *, name: str) -> SyncResult:
    """Add a partition for each valid product of a feed that has none. Buys nothing, and removes nothing.

    It reads the feed in one pass and in constant memory, and adds a thousand at a time.

    Args:
        instance: The Dagster instance.
        requests: The feed.
        name: Name of the dynamic partitions definition.

    Raises:
        FeedError: The feed cannot be read; the products that were read before are added.

    Examples:
        >>> feed = FeedRequests("examples/feed.xml", job_defaults={"segment_count": 2})
        >>> sync_product_partitions(dg.DagsterInstance.get(), feed, name="ugen_products").added
        5
    """
    from ugen_provider.core.feeds.products import FeedOrder

    read = rejected_count = 0
    rejected: list[str] = []

    def products() -> Iterator[str]:
        nonlocal read, rejected_count
        for row in requests.plan():
            if isinstance(row, FeedOrder):
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
    return SyncResult(added, read - added, tuple(rejected), rejected_count)


def build_ugen_product_feed_sensor(
    videos: VideoDefinition,
    *,
    feed: FeedRequests | AssetRequests,
    partitions_name: str,
    job: AssetJob | None,
    resource: UGenResource | None = None,
    name: str = "ugen_product_feed_sensor",
    minimum_interval_seconds: int = 60,
    products_per_run: int = 250,
    runs_per_tick: int = 8,
    budget: int | dg.EnvVar | None = None,
    on_changed: Literal["regenerate", "ignore"] = "regenerate",
    max_changed: float = 0.2,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """Build a sensor that reads a feed, adds partitions for its products, and requests runs for new or changed ones.

    The runs that it requests buy, within a budget: without `budget` here or `daily_budget` on the account it adds
    partitions and requests nothing. It reads the feed in one streaming pass over as many ticks as that takes, and
    requests few runs a tick, since Dagster's daemon creates them one by one.

    Args:
        videos: The assets.
        feed: The feed, or the upstream asset that holds the products.
        partitions_name: Name of the dynamic partitions definition.
        job: From `build_ugen_asset_job`; None adds partitions and requests nothing.
        resource: The account; default the resource `ugen` of the definitions.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between ticks.
        products_per_run: Most products of one run; its partitions follow one another.
        runs_per_tick: Most runs that one tick requests.
        budget: Credits that the runs which it requests in a day (UTC) may reserve together; `dg.EnvVar` too.
        on_changed: Whether a product whose request changed is bought again, or keeps its video.
        max_changed: Share of the known products, 0 to 1, above which no further product is bought again in a pass: such
            a change is more likely a fault of the feed than a new catalog.
        default_status: Whether it runs from the start.
    """

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor = FeedCursor.read(context.cursor)
        rows = _rows_of(feed, context)
        requests: list[dg.RunRequest] = []
        found: list[WantedPartition] = []
        warnings: list[str] = []
        refusal = ""
        if job is None:
            _, at_end, rejected = _pass(context.instance, rows, partitions_name, cursor, None, most=0, model=None)
        else:
            with sensor_account(resource, context).open_account(context.instance) as account:
                finder = _Finder(
                    context.instance, videos, account, cursor, job, on_changed=on_changed, max_changed=max_changed
                )
                found, at_end, rejected = _pass(
                    context.instance,
                    rows,
                    partitions_name,
                    cursor,
                    finder,
                    most=products_per_run * runs_per_tick,
                    model=account.config.video_model,
                )
                warnings = finder.warnings
                shares = SensorBudget(name, budget, account)
                found, refusal = shares.affordable(found)
            # The products of the ranges that are left over are still wanted in the next pass.
            for part, tags in _ranges(context.instance, partitions_name, found, most=products_per_run)[:runs_per_tick]:
                digest = _digest(part, found, cursor.tick)
                cursor.requested[digest] = (time.time(), list(part.keys))
                tagged = {**tags, **shares.tags(), _REQUEST_TAG: digest}
                requests.append(run_request(part, kind="submit", run_key=f"ugen-feed-{digest}", tags=tagged))
        cursor.tick += 1
        for line in warnings:
            context.log.warning(line)
        summary = f"{cursor.item} rows read, {len(found)} products to make, {rejected} rows rejected{refusal}"
        if at_end:
            cursor.item = cursor.known = cursor.changed = 0
        return dg.SensorResult(
            run_requests=requests, skip_reason=None if requests else dg.SkipReason(summary), cursor=cursor.write()
        )

    return dg.SensorDefinition(
        name=name,
        evaluation_fn=evaluate,
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys=required_resources(resource) if job is not None else set(),
        description="Adds a partition for each product of a feed, and requests runs for new or changed ones.",
    )


def _rows_of(feed: FeedRequests | AssetRequests, context: dg.SensorEvaluationContext) -> FeedRequests:
    """Return the feed, or the rows that an upstream asset holds now."""
    if not isinstance(feed, AssetRequests):
        return feed
    repository = context.repository_def
    if repository is None:
        raise dg.DagsterInvariantViolationError("an upstream asset is loaded only where the sensor has its definitions")
    return feed.loaded(lambda key: repository.load_asset_value(key, instance=context.instance))


@dataclass(frozen=True, slots=True)
class WantedPartition:
    """A product that is to be bought, for the first time or because its request changed."""

    product_id: str
    digest: str
    is_changed: bool
    body: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The product with its request."""
        return f"{self.product_id}:{self.digest}"


class SensorBudget:
    """What the runs of one feed sensor may reserve in a day: they are one logical run.

    Args:
        sensor: Name of the sensor.
        budget: The sensor's limit.
        account: The account, whose `daily_budget` holds too.

    Raises:
        ConfigError: The budget is no number of credits.
    """

    def __init__(self, sensor: str, budget: int | dg.EnvVar | None, account: Account) -> None:
        from ugen_provider.core.batch.budget import Reservations

        own = credits_in(budget)
        limits = [each for each in (own, account.budget.credits) if each is not None]
        self._limit = min(limits) if own is not None else None
        self._account = account
        self._budget = replace(account.budget, credits=self._limit)
        self._run = f"{sensor} {self._budget.day(account.ledger.now())}"
        self._reservations = Reservations(
            ledger=account.ledger,
            budget=self._budget,
            run=f"dagster {self._run}",
            namespace=account.config.namespace,
        )

    def tags(self) -> dict[str, str]:
        """The tags by which the requested runs share the budget."""
        return {} if self._limit is None else {BUDGET_TAG: str(self._limit), BUDGET_RUN_TAG: self._run}

    def affordable(self, found: list[WantedPartition]) -> tuple[list[WantedPartition], str]:
        """Return the products that the budget still covers, and why the others wait. Free; one estimate."""
        from ugen_provider.core.api import endpoints
        from ugen_provider.core.api.client import call_endpoint
        from ugen_provider.core.api.errors import UGenError

        if not found:
            return found, ""
        if self._account.config.spending != "allow":
            return [], f"; spending is {self._account.config.spending}, so nothing is requested"
        left = self._reservations.remaining()
        if left is None:
            return [], (
                "; no budget is set, so nothing is bought: pass budget= to this sensor, or daily_budget= to the account"
            )
        try:
            with self._account.client() as client:
                each = call_endpoint(client, endpoints.estimate(found[0].body)).total_credits
        except UGenError as error:
            if self._budget.assume_credits is None:
                return (
                    [],
                    f"; the cost of a job is not known ({error}); assume_credits= of UGenResource says what to count",
                )
            each = self._budget.assume_credits
        count = len(found) if each <= 0 else max(0, left // each)
        if count >= len(found):
            return found, ""
        waiting = (
            f"; {len(found) - count} products wait: {left} credits of the budget are left, and a job reserves {each}"
        )
        return found[:count], waiting


def credits_in(value: int | dg.EnvVar | None) -> int | None:
    """Return a number of credits, read from the environment where a variable names it.

    Raises:
        ConfigError: It is no whole number, or the variable is not set.
    """
    from ugen_provider.core.api.errors import ConfigError

    if value is None or isinstance(value, int):
        return value
    text = os.environ.get(value.env_var_name, "")
    if not text.strip().isdigit():
        raise ConfigError(f"budget: {value.env_var_name} must be a whole number of credits, got {text!r}")
    return int(text)


class _Finder:
    """Finds the products of a chunk that are new or changed, by the orders in the ledger."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        videos: VideoDefinition,
        account: Account,
        cursor: FeedCursor,
        job: AssetJob,
        *,
        on_changed: Literal["regenerate", "ignore"],
        max_changed: float,
    ) -> None:
        self._instance = instance
        self._videos = videos
        self._account = account
        self._older = OlderOrders(instance, videos, account)
        self._store = account.store(older=[self._older.find])
        self._cursor = cursor
        self._on_changed = on_changed
        self._max_changed = max_changed
        self.warnings: list[str] = []
        runs = list(runs_under_way(instance, job_name=job.name))
        keys = partition_keys(instance, videos.props.partitions_def) if runs else []
        self._busy = partitions_of_runs(runs, keys=keys) | self._being_created()

    def _being_created(self) -> set[str]:
        """Return the products of requests whose runs do not exist yet, and forget the other requests.

        A run that exists says itself whether it works on its products. A run that ended before it recorded an order is
        reported: its products are requested again.
        """
        waiting: set[str] = set()
        for digest, (at, products) in list(self._cursor.requested.items()):
            runs = self._instance.get_runs(dg.RunsFilter(tags={_REQUEST_TAG: digest}), limit=1)
            if not runs and time.time() - at < _CREATION_SECONDS:
                waiting.update(products)
                continue
            if runs and is_under_way(runs[0]):
                continue
            del self._cursor.requested[digest]
            unordered = self._without_order(products)
            if unordered:
                ended = f"run {runs[0].run_id} ended as {runs[0].status.value}" if runs else "its run was not created"
                self.warnings.append(
                    f"{ended} before it ordered {len(unordered)} products, which are requested again: "
                    f"{', '.join(unordered[:20])}"
                )
        return waiting

    def _without_order(self, products: Sequence[str]) -> list[str]:
        keys = {product: self._account.record_key(self._videos, product) for product in products}
        known = self._store.read_many(list(keys.values()))
        return [product for product, key in keys.items() if key not in known]

    def wanted(self, orders: Sequence[FeedOrder]) -> list[WantedPartition]:
        from ugen_provider.core.jobs.order import fingerprint

        known = self._known([order.product_id for order in orders])
        unbought = self._unbought(known)
        new: list[WantedPartition] = []
        changed: list[WantedPartition] = []
        for order in orders:
            body = request_body(order.fields, model=self._account.config.video_model)
            record = known.get(order.product_id)
            if record is None or order.product_id in unbought:
                new.append(WantedPartition(order.product_id, fingerprint(body), False, body))
                continue
            self._cursor.known += 1
            digest = fingerprint(body, scheme=record.scheme)
            if digest != record.fingerprint:
                self._cursor.changed += 1
                changed.append(WantedPartition(order.product_id, digest, True, body))
        again = changed if changed and self._on_changed == "regenerate" and not self._too_many() else []
        return [each for each in (*new, *again) if each.product_id not in self._busy]

    def _known(self, products: Sequence[str]) -> dict[str, OrderRecord]:
        """Return the records of products, those of earlier versions included."""
        keys = {self._account.record_key(self._videos, product): product for product in products}
        found = {keys[key]: record for key, record in self._store.read_many(list(keys)).items()}
        missing = [product for product in products if product not in found]
        for product in self._older.find_many(missing):
            record = self._store.read(self._account.record_key(self._videos, product))  # which imports it
            if record is not None:
                found[product] = record
        return found

    def _unbought(self, known: dict[str, OrderRecord]) -> set[str]:
        """Return the products whose order was recorded and has no job, and whose run has ended."""
        now = time.time()
        without = {
            product: record
            for product, record in known.items()
            if record.job_id is None and now - (record.sent_at or record.written_at) >= _UNBOUGHT_PAUSE
        }
        alive = under_way(self._instance, {run_of_attempt(record.attempt) for record in without.values()})
        return {product for product, record in without.items() if run_of_attempt(record.attempt) not in alive}

    def _too_many(self) -> bool:
        cursor = self._cursor
        if cursor.known < _GUARD_MIN or cursor.changed <= self._max_changed * cursor.known:
            return False
        warning = (
            f"{cursor.changed} of {cursor.known} known products changed, more than max_changed={self._max_changed:g} "
            "of them: none of these is bought again; check the feed, then raise max_changed"
        )
        self.warnings = [line for line in self.warnings if "max_changed" not in line] + [warning]
        return True


def _pass(
    instance: dg.DagsterInstance,
    feed: FeedRequests,
    partitions_name: str,
    cursor: FeedCursor,
    finder: _Finder | None,
    *,
    most: int,
    model: str | None,
) -> tuple[list[WantedPartition], bool, int]:
    """Continue reading the feed until it ends, the time is up, or enough was found."""
    from ugen_provider.core.feeds.products import FeedOrder

    until = time.monotonic() + TICK_SECONDS
    found: list[WantedPartition] = []
    rejected = 0
    rows = islice(feed.plan(model=model), cursor.item, None)
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
        if finder is not None and orders:
            counted = cursor.known, cursor.changed
            fresh = finder.wanted(orders)
            if len(found) + len(fresh) > most:
                found.extend(fresh[: most - len(found)])
                cursor.known, cursor.changed = counted
                return found, False, rejected  # the next tick reads the same chunk: requested products are busy then
            found.extend(fresh)
        cursor.item += read
        if read < CHUNK:
            return found, True, rejected
        if time.monotonic() > until:
            return found, False, rejected


def _ranges(
    instance: dg.DagsterInstance, partitions_name: str, found: Sequence[WantedPartition], *, most: int
) -> list[tuple[PartitionRange, Mapping[str, str]]]:
    """Cut the wanted products into ranges of one run each, with the tags of the run; new and changed ones apart."""
    if not found:
        return []
    partitions_def = dg.DynamicPartitionsDefinition(name=partitions_name)
    keys = partition_keys(instance, partitions_def)
    ranges: list[tuple[PartitionRange, Mapping[str, str]]] = []
    for is_changed, tags in ((False, {}), (True, {ON_CHANGED_TAG: "regenerate"})):
        chosen = {each.product_id for each in found if each.is_changed is is_changed}
        ranges += [(part, tags) for part in partition_ranges(partitions_def, chosen, keys=keys, most=most)]
    return ranges


def _digest(part: PartitionRange, found: Sequence[WantedPartition], tick: int) -> str:
    # The tick's number makes it a new request. A tick that Dagster repeats after a crash has the same one.
    names = {each.product_id: each.name for each in found}
    text = "\n".join([str(tick), *(names[key] for key in part.keys)])
    return hashlib.sha256(text.encode()).hexdigest()[:24]
