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
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from dagster_ugen.definition import BUDGET_RUN_TAG, BUDGET_TAG, ON_CHANGED_TAG, require_shares
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
    from ugen_provider.core.batch.spec import PlanOptions
    from ugen_provider.core.feeds.products import FeedOrder
    from ugen_provider.core.ledger.record import OrderRecord

_REQUEST_TAG = "ugen/request"
_CREATION_SECONDS = 600.0
"""Seconds in which the daemon creates a run that a tick requested; afterwards its products are requested again."""

_UNBOUGHT_PAUSE = 900.0
"""Seconds before an order that was recorded and not bought, such as for lack of credits, is requested again."""


@dataclass(slots=True)
class FeedCursor:
    """The position in the feed where a tick ended, and what has been counted so far.

    A feed is read twice: one pass counts, and once its figures are allowed, a second one requests runs.

    Attributes:
        item: Rows that were read in this pass.
        known: Products of the feed that have an order.
        changed: Those of them whose request has changed. The second pass subtracts what it requests.
        new: Products without an order. The second pass subtracts what it requests.
        rejected: Rows that order nothing.
        is_buying: Whether this is the second pass.
        seen: Products with an order that the last allowed count found; None before the first.
        tick: Number of the tick, so that a request that is repeated is a new one.
        requested: Requests whose runs were not seen yet: the time, and the products.
    """

    item: int = 0
    known: int = 0
    changed: int = 0
    new: int = 0
    rejected: int = 0
    is_buying: bool = False
    seen: int | None = None
    tick: int = 0
    requested: dict[str, tuple[float, list[str]]] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str | None) -> FeedCursor:
        """Read what `write` made; an unreadable cursor starts the pass again, which buys nothing twice."""
        try:
            return cls(**json.loads(text)) if text else cls()
        except (ValueError, TypeError):
            return cls()

    def start_over(self) -> None:
        """Begin with the first pass again."""
        self.item = self.known = self.changed = self.new = self.rejected = 0
        self.is_buying = False

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
    max_gone: float = 0.2,
    max_new: int | None = None,
    max_rejected: int | None = None,
    allow_new_ids: bool = False,
    guard_min: int = 10,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """Build a sensor that reads a feed, adds partitions for its products, and requests runs for new or changed ones.

    The runs that it requests buy, within a budget: without `budget` here or `daily_budget` on the account it adds
    partitions and requests nothing. It reads the feed in streaming passes over as many ticks as that takes, and
    requests few runs a tick, since Dagster's daemon creates them one by one. The first pass counts. If a limit refuses
    its figures, the sensor adds no partition, requests nothing, and says so in its log and in the tick.

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
        max_changed: Share of the known products, 0 to 1, above which no changed product is bought again, while the new
            ones are: such a change is more likely a fault of the feed than a new catalog. Default 0.2.
        max_gone: Share of the known products, 0 to 1, that the feed may lack. Those are known which have an order and
            were in the feed when it was last allowed. Default 0.2; 1 for a feed that adds to another one.
        max_new: Products that may be new at most; None for any number.
        max_rejected: Rejected rows above which nothing is requested; None for any number.
        allow_new_ids: Whether many products may be new while many others are gone.
        guard_min: Known products from which on these limits apply, `max_rejected` excepted. Default 10.
        default_status: Whether it runs from the start.

    Raises:
        ValueError: A limit is out of its range.
    """
    require_shares(max_changed=max_changed, max_gone=max_gone)

    def limits() -> PlanOptions:
        from ugen_provider.core.batch.spec import PlanOptions

        return PlanOptions(
            max_rejected=max_rejected,
            max_changed=max_changed,
            on_changed="postpone",
            max_gone=max_gone,
            max_new=max_new,
            allow_new_ids=allow_new_ids,
            guard_min=guard_min,
        )

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor = FeedCursor.read(context.cursor)
        rows = _rows_of(feed, context)
        requests: list[dg.RunRequest] = []
        found: list[WantedPartition] = []
        warnings: list[str] = []
        refusal = ""
        until = time.monotonic() + TICK_SECONDS
        if job is None:
            at_end = _read_on(
                rows, cursor, _partition_adder(context.instance, partitions_name), until=until, model=None
            )
        else:
            with sensor_account(resource, context).open_account(context.instance) as account:
                finder = _Finder(context.instance, videos, account, cursor, job, on_changed=on_changed, limits=limits())
                model = account.config.video_model
                add = _partition_adder(context.instance, partitions_name)
                at_end = False
                if not cursor.is_buying:

                    def count(orders: Sequence[FeedOrder]) -> bool:
                        # Partitions of products that were never ordered wait until the feed is allowed: automation
                        # may buy each partition that is new.
                        add(finder.count(orders))
                        return True

                    if _read_on(rows, cursor, count, until=until, model=model):
                        refusal = finder.refusal()
                        at_end = not cursor.is_buying
                if cursor.is_buying:
                    most = products_per_run * runs_per_tick

                    def buy(orders: Sequence[FeedOrder]) -> bool:
                        add(orders)
                        fresh, is_whole = finder.take(orders, most=most - len(found))
                        found.extend(fresh)
                        return is_whole

                    at_end = _read_on(rows, cursor, buy, until=until, model=model)
                warnings = finder.warnings
                shares = SensorBudget(name, budget, account)
                found, unaffordable = shares.affordable(found)
                refusal += unaffordable
            # The products of the ranges that are left over are still wanted in the next pass.
            for part, tags in _ranges(context.instance, partitions_name, found, most=products_per_run)[:runs_per_tick]:
                digest = _digest(part, found, cursor.tick)
                cursor.requested[digest] = (time.time(), list(part.keys))
                tagged = {**tags, **shares.tags(), _REQUEST_TAG: digest}
                requests.append(run_request(part, kind="submit", run_key=f"ugen-feed-{digest}", tags=tagged))
        cursor.tick += 1
        for line in warnings:
            context.log.warning(line)
        summary = f"{cursor.item} rows read, {len(found)} products to make, {cursor.rejected} rows rejected{refusal}"
        if at_end:
            cursor.start_over()
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


@dataclass(slots=True)
class _Comparison:
    """The products of a chunk by what they are; those that a run works on are neither new nor changed.

    Attributes:
        known: Products that have an order.
        new: Products that have none.
        unbought: Products whose order was recorded and has no job, and whose run has ended.
        changed: Products whose request is another one than the order's.
    """

    known: list[FeedOrder] = field(default_factory=list)
    new: list[WantedPartition] = field(default_factory=list)
    unbought: list[WantedPartition] = field(default_factory=list)
    changed: list[WantedPartition] = field(default_factory=list)


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
        limits: PlanOptions,
    ) -> None:
        self._instance = instance
        self._videos = videos
        self._account = account
        self._older = OlderOrders(instance, videos, account)
        self._store = account.store(older=[self._older.find])
        self._cursor = cursor
        self._on_changed = on_changed
        self._limits = limits
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

    def count(self, orders: Sequence[FeedOrder]) -> list[FeedOrder]:
        """Count what a chunk would buy, and return its products that have an order."""
        compared = self._compare(orders)
        cursor = self._cursor
        cursor.known += len(compared.known)
        cursor.new += len(compared.new)
        cursor.changed += len(compared.changed)
        return compared.known

    def refusal(self) -> str:
        """Decide, at the end of the count, whether the second pass begins; return what refuses it, or ''."""
        from ugen_provider.core.batch.planner import PlanFigures, postpones_changed, refusal

        cursor = self._cursor
        gone = max(0, (cursor.seen or 0) - cursor.known)
        figures = PlanFigures(
            products=cursor.known + cursor.new + cursor.rejected,
            rejected=cursor.rejected,
            known=cursor.known + gone,
            new=cursor.new,
            changed=cursor.changed,
            gone=gone,
        )
        if (refused := refusal(figures, self._limits)) is not None:
            self.warnings.append(refused.message)
            return f"; {refused.message}"
        if self._on_changed == "ignore":
            cursor.changed = 0
        elif postpones_changed(figures, self._limits):
            self.warnings.append(
                f"{cursor.changed} of {figures.known} known products changed, more than "
                f"max_changed={self._limits.max_changed:g} of them: none of these is bought again; check the feed, "
                "then raise max_changed"
            )
            cursor.changed = 0
        cursor.seen = cursor.known
        cursor.is_buying, cursor.item, cursor.rejected = True, 0, 0
        return ""

    def take(self, orders: Sequence[FeedOrder], *, most: int) -> tuple[list[WantedPartition], bool]:
        """Return the products of a chunk that are to be bought, and whether these are all of them.

        It takes no more new and no more changed ones than were counted, should the feed be another one by now.
        """
        compared = self._compare(orders)
        cursor = self._cursor
        new, changed = compared.new[: cursor.new], compared.changed[: cursor.changed]
        wanted = [*compared.unbought, *new, *changed]
        kept = wanted[:most]
        cursor.changed -= sum(each.is_changed for each in kept)
        cursor.new -= max(0, len(kept) - len(compared.unbought) - sum(each.is_changed for each in kept))
        return kept, len(kept) == len(wanted)

    def _compare(self, orders: Sequence[FeedOrder]) -> _Comparison:
        from ugen_provider.core.jobs.order import fingerprint

        known = self._known([order.product_id for order in orders])
        unbought = self._unbought(known)
        found = _Comparison()
        for order in orders:
            record = known.get(order.product_id)
            is_busy = order.product_id in self._busy
            if record is not None:
                found.known.append(order)
            if is_busy:
                continue
            body = request_body(order.fields, model=self._account.config.video_model)
            if record is None or order.product_id in unbought:
                wanted = WantedPartition(order.product_id, fingerprint(body), False, body)
                (found.new if record is None else found.unbought).append(wanted)
                continue
            digest = fingerprint(body, scheme=record.scheme)
            if digest != record.fingerprint:
                found.changed.append(WantedPartition(order.product_id, digest, True, body))
        return found

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


def _partition_adder(instance: dg.DagsterInstance, name: str) -> Callable[[Sequence[FeedOrder]], bool]:
    """Return a function that adds partitions for products."""

    def add(orders: Sequence[FeedOrder]) -> bool:
        if orders:
            instance.add_dynamic_partitions(name, [order.product_id for order in orders])
        return True

    return add


def _read_on(
    feed: FeedRequests,
    cursor: FeedCursor,
    use: Callable[[Sequence[FeedOrder]], bool],
    *,
    until: float,
    model: str | None,
) -> bool:
    """Read the feed from the cursor on, until it ends, the time is up, or a chunk is used in part only.

    Such a chunk is read again by the next tick, which finds the products that were requested busy.

    Returns:
        Whether the feed has ended.
    """
    from ugen_provider.core.feeds.products import FeedOrder

    rows = islice(feed.plan(model=model), cursor.item, None)
    while True:
        chunk = list(islice(rows, CHUNK))
        orders = [row for row in chunk if isinstance(row, FeedOrder)]
        if orders and not use(orders):
            return False
        cursor.item += len(chunk)
        cursor.rejected += len(chunk) - len(orders)
        if len(chunk) < CHUNK:
            return True
        if time.monotonic() > until:
            return False


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
