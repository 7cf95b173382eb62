# SPDX-License-Identifier: Apache-2.0
"""The way of one partition: purchase its job, pass its gate, wait, store the outputs.

The purchase itself is `core.jobs.purchase`; this module adds what Dagster needs around it: an attempt that a newer run
has superseded follows that run's purchase, and an interrupted one still learns the answer of a POST in flight.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from dagster_ugen.account import Account, BudgetedOrderStore
from dagster_ugen.approval import (
    GateErrors,
    awaits_approval,
    is_beyond_gate,
    opens_gate,
)
from dagster_ugen.definition import Phase, UGenOptions
from dagster_ugen.event_log import Cost, CostLog, run_of_attempt
from dagster_ugen.requests import Refusal, Requests, request_body
from dagster_ugen.results import InProgress, Succeeded, spent_on
from ugen_provider.core.api import endpoints
from ugen_provider.core.api.async_client import call_endpoint
from ugen_provider.core.api.errors import InvalidRequestError, PurchaseError, UGenError, may_have_bought
from ugen_provider.core.api.models import Job, Keyframe
from ugen_provider.core.api.polling import JobFailedError
from ugen_provider.core.api.rules import Violation
from ugen_provider.core.batch.budget import Estimates, Reservations, settle
from ugen_provider.core.batch.errors import BudgetUsedUpError, RunRefusedError
from ugen_provider.core.jobs.actions import cancel_order, hold_at_gate, read_keyframe, resume_approved
from ugen_provider.core.jobs.approval import GATE_STAGE, Approval
from ugen_provider.core.jobs.order import Order, OrderKey, Purchase, PurchaseOutcome, fingerprint
from ugen_provider.core.jobs.policy import effective_action
from ugen_provider.core.jobs.purchase import next_step, purchase_and_wait, wait_for_purchase
from ugen_provider.core.jobs.results import (
    FinishedJob,
    Scores,
    WaitForJob,
    WaitForSlot,
    check_quality,
    raise_for_status,
    wait_condition,
)
from ugen_provider.core.jobs.watcher import JobWatcher, WatchedWorld
from ugen_provider.core.ledger.errors import AttemptSupersededError
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.record import Action, OrderRecord
from ugen_provider.core.media import Manifest, download_outputs
from ugen_provider.core.media.http import MediaClient
from ugen_provider.core.text import get_logger

T = TypeVar("T")
Interruption = Literal["person", "signal"]

_log = get_logger("dagster_ugen")
_SUBMITTERS = 8
"""Orders that are sent at once. While the account's limit is reached, so many ask again and the others queue up."""

_DOWNLOADS = 4
_COST_FREE = frozenset(
    {"product_name", "product_image_url", "key_selling_points", "cta_text", "custom_script", "environment_description"}
    | {"idempotency_key", "webhook_url", "stop_at_stage"}
)
_FOLLOW_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class GateLimit:
    """How many gates may be open.

    Attributes:
        most: How many.
        open_ones: Returns the partitions whose gates are open or being opened, over all runs; it blocks.
    """

    most: int
    open_ones: Callable[[], Collection[str]]


class RunEvents(Protocol):
    """Writes the events of a run; called in threads."""

    def submitted(self, partition: str, bought: Purchase) -> None:
        """Write that an order was sent, in a run that does not wait."""
        ...

    def record(self, result: Succeeded) -> None:
        """Write a partition's result."""
        ...

    def spent(self, partition: str, costs: Sequence[Cost]) -> None:
        """Write the credits of jobs that have no result."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """The work of one run.

    Attributes:
        account: The account with its ledger.
        store: Where the orders are recorded.
        attempt: Name of this attempt.
        order_of: Returns the order's key of a partition.
        code_location: The code location that orders; None leaves the orders out of the guard against renamed assets.
        guard: Refuses a new order whose asset was renamed; called in a thread before the first purchase.
        partitions: The partitions; '' for an unpartitioned asset.
        requests: Says what is ordered for them.
        phase: `whole` without a gate; with one, `anchor` stops at it and `rest` passes it.
        approval_of: Returns the approval of a partition's keyframe, in the phase `rest`; called in a thread.
        gates: How many gates may be open, in the phase `anchor`; None sets no limit.
        gate_expires_after: Seconds until an open gate expires; None for never.
        options: The user's choices.
        buys_changed: Whether a partition whose request differs from the recorded one is bought again.
        wait: Whether to wait for jobs; otherwise jobs that have not ended are left for a later run.
        is_last_attempt: Whether Dagster will not retry this step or run.
        regenerate: Returns the value by which another purchase of a partition is asked for.
        destination: Where results are stored; None leaves them with the service.
        outputs: Names of the selected outputs, for the record.
        reservations: Reserves credits before anything is sent; None without a budget.
        new_store: Makes the store of one partition that reserves; None without a budget.
        events: Writes the events of the run; None for a purchase in a body of the user's own.
        costs: The credits that the event log has already; None counts nothing.
        interruption: Says who interrupted the run; called in a thread.
        is_over: Whether a run has ended or is gone; called in a thread.
    """

    account: Account
    store: LedgerOrderStore
    attempt: str
    order_of: Callable[[str], OrderKey]
    code_location: str | None = None
    guard: Callable[[Order], None] = lambda _order: None
    partitions: Sequence[str]
    requests: Requests
    phase: Phase = "whole"
    approval_of: Callable[[str], Approval | None] = lambda _partition: None
    gates: GateLimit | None = None
    gate_errors: GateErrors = field(default_factory=GateErrors)
    gate_expires_after: float | None = None
    options: UGenOptions
    buys_changed: bool = False
    wait: bool = True
    is_last_attempt: bool = True
    regenerate: Callable[[str], str | None] = lambda _partition: None
    destination: str | None = None
    outputs: tuple[str, ...] = ()
    reservations: Reservations | None = None
    new_store: Callable[[], BudgetedOrderStore] | None = None
    events: RunEvents | None = None
    costs: CostLog | None = None
    interruption: Callable[[], Interruption]
    is_over: Callable[[str], bool] = lambda _run_id: False


@dataclass(slots=True)
class Partition:
    """One partition while a run works on it.

    Attributes:
        name: Its key; '' for an unpartitioned asset.
        order_key: The order.
        record_key: Key of its record.
        is_sending: Whether a POST is in flight that may buy a job whose id is not recorded yet.
        is_answered: Set while that is not so.
        is_done: Whether there is a result, good or bad.
        store: Its own store, where a budget is set.
    """

    name: str
    order_key: OrderKey
    record_key: str
    is_sending: bool = False
    is_answered: asyncio.Event = field(default_factory=asyncio.Event)
    is_done: bool = False
    store: BudgetedOrderStore | None = None

    def answered(self) -> None:
        """It is recorded what was bought, or known that nothing was."""
        self.is_sending = False
        self.is_answered.set()


class PartitionWorld(WatchedWorld):
    """The contacts of one partition: it knows whether a purchase is in flight, so an interrupt can wait for its answer.

    Args:
        watcher: Waits for the jobs of all partitions of the run.
        store: Keeps the order's record.
        partition: The partition.
        is_stopping: Whether the run was interrupted: it then creates, retries and resumes nothing.
    """

    def __init__(
        self, watcher: JobWatcher, store: LedgerOrderStore, *, partition: Partition, is_stopping: Callable[[], bool]
    ) -> None:
        super().__init__(watcher, store, is_stopping=is_stopping)
        self._partition = partition

    async def contact(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make one contact, and note whether it may have bought."""
        partition = self._partition
        if name == "retry" and partition.store is not None:
            await asyncio.to_thread(partition.store.reserve_retry, partition.record_key)
        if name == "create":
            partition.is_sending = True
            partition.is_answered.clear()
        try:
            answer = await super().contact(name, call)
        except UGenError as error:
            if name == "create" and not may_have_bought(error):
                partition.answered()
            raise
        if name == "record.job_id":
            partition.answered()
        return answer


class PartitionRunner:
    """Makes partitions; all of a run share one, with its connections.

    Args:
        config: The work of the run.
        watcher: Waits for all jobs together; its client calls the service.
        streams: Reads files.
        known: The records of the partitions when the run began.
        is_stopping: Whether the run was interrupted.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        watcher: JobWatcher,
        streams: MediaClient,
        known: Mapping[str, OrderRecord],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._config = config
        self._client = watcher.client
        self._watcher = watcher
        self._streams = streams
        self._known = known
        self._is_stopping = is_stopping
        self._gate_lock = asyncio.Lock()
        self._opening: set[str] = set()
        self._gates_are_full = False
        self._submitters = asyncio.Semaphore(_SUBMITTERS)
        self._downloads = asyncio.Semaphore(_DOWNLOADS)
        self._estimates: dict[str, int | None] = {}
        self._budget_estimates = Estimates(self._client, assume_credits=config.account.budget.assume_credits)

    def world_of(self, partition: Partition) -> PartitionWorld:
        """Return the contacts of a partition."""
        if partition.store is None and self._config.new_store is not None:
            partition.store = self._config.new_store()
        store = partition.store or self._config.store
        return PartitionWorld(self._watcher, store, partition=partition, is_stopping=self._is_stopping)

    async def run(self, partition: Partition, request: Mapping[str, Any] | Refusal) -> Succeeded | InProgress:
        """Purchase a partition's job, or find the job of an earlier attempt; wait for it, and store its outputs.

        Costs the credits of one job at most, and none where an earlier attempt bought.

        Raises:
            UGenError: Why there is no result.
        """
        if isinstance(request, Refusal):
            if request.error is not None:
                raise request.error
            raise InvalidRequestError([Violation("request", request.reason)])
        config, world = self._config, self.world_of(partition)
        order = self._order(partition, request)
        if config.phase == "anchor":
            await self._open_gate(partition)
        if config.phase == "rest":
            await self._require_approval(world, partition)
        if order.policy.spending == "allow" and order.policy.regenerate is None:
            await asyncio.to_thread(config.guard, order)
        if partition.store is not None:
            partition.store.credits = await self._credits_of(order)
        try:
            await self._require_budget_to_regenerate(partition, order)
            bought = await self._purchase(world, partition, order)
            if isinstance(bought, InProgress):
                return bought
            if config.phase == "rest" and awaits_approval(bought.job):
                bought = await self._pass_gate(world, partition, order, bought)
            bought = await self._newest(world, order, bought)
        except BudgetUsedUpError as error:
            if config.wait:
                raise  # a person asked for this very video
            return InProgress(partition=partition.name, job_id=None, why=f"postponed: {error}")
        except AttemptSupersededError as error:
            if not config.wait:
                return InProgress(
                    partition=partition.name, job_id=error.job_id, why=f"continues in {_run(error.newest)}"
                )
            bought = await self._follow(world, order)
        return await self._collect(world, partition, bought)

    def _order(self, partition: Partition, request: Mapping[str, Any]) -> Order:
        config = self._config
        client, options = config.account.config, config.options
        stop = {"stop_at_stage": GATE_STAGE} if config.phase != "whole" else {}
        body = {**request_body(request, model=client.video_model), **stop}
        return Order(
            key=partition.order_key,
            body=body,
            policy=options.policy(
                spending=client.spending,
                max_credits=config.account.max_credits,
                regenerate=self._regenerate(partition, body),
            ),
            attempt=config.attempt,
            origin=config.account.origin,
            cancel_on_kill=options.on_interrupt == "cancel",
            on_final_failure=options.on_final_failure,
            destination=config.destination,
            outputs=config.outputs,
            code_location=config.code_location,
        )

    def _regenerate(self, partition: Partition, body: Mapping[str, Any]) -> str | None:
        """Return the value that asks for another purchase, None for none.

        For a request that changed, the value is the request itself: asked for by several runs, it is bought once.
        """
        record = self._known.get(partition.name) if self._config.buys_changed else None
        if record is not None:
            digest = fingerprint(body, scheme=record.scheme)
            if digest != record.fingerprint:
                return f"feed:{digest[:24]}"
        return self._config.regenerate(partition.name)

    async def _credits_of(self, order: Order) -> int | None:
        """Return what an order would reserve; asked once for all requests that differ in nothing that costs."""
        try:
            return await self._budget_estimates.of(order.body)
        except RunRefusedError as error:
            _log.warning("%s", error)
            return None  # nothing is sent for it; a job that exists is reused all the same

    async def _require_budget_to_regenerate(self, partition: Partition, order: Order) -> None:
        """Refuse another purchase that the budget does not cover, before it would cancel the job that runs."""
        wanted, reservations = order.policy.regenerate, self._config.reservations
        record = self._known.get(partition.name)
        if wanted is None or reservations is None or record is None or wanted in record.regenerate:
            return
        left = await asyncio.to_thread(reservations.remaining)
        needed = partition.store.credits if partition.store is not None else None
        if left is not None and (needed is None or needed > left):
            raise BudgetUsedUpError(
                f"{left} credits of the budget are left, and the job would reserve {needed}", which="run"
            )

    # The purchase.

    async def _purchase(self, world: PartitionWorld, partition: Partition, order: Order) -> Purchase | InProgress:
        if not self._config.wait:
            return await self._submit(world, partition, order)
        turn = _Turn(self._submitters)
        await turn.take()

        def waits(_bought: Purchase) -> None:
            turn.give_back()

        try:
            bought = await purchase_and_wait(
                world,
                order,
                interval=self._config.account.poll_interval,
                timeout=self._config.options.timeout,
                queue_timeout=self._config.options.queue_timeout,
                on_purchase=waits,
            )
        finally:
            turn.give_back()
        return bought

    async def _submit(self, world: PartitionWorld, partition: Partition, order: Order) -> Purchase | InProgress:
        """Purchase, and leave a job that has not ended to a later run."""
        async with self._submitters:
            step = await next_step(world, order)
        match step:
            case WaitForSlot(error):
                return InProgress(
                    partition=partition.name, job_id=None, why=f"the account's job limit is reached ({error})"
                )
            case WaitForJob(bought):
                await self._show(partition, bought)
                return InProgress(partition=partition.name, job_id=bought.job.job_id, why=f"is {bought.job.status}")
            case FinishedJob(bought):
                return bought

    async def _show(self, partition: Partition, bought: Purchase) -> None:
        """Write the observation of an order that this run sent; one that an earlier run sent has its own."""
        events = self._config.events
        if events is None or self._config.account.config.spending != "allow":
            return
        if bought.outcome not in {PurchaseOutcome.REATTACHED, PurchaseOutcome.REUSED}:
            try:
                await asyncio.to_thread(events.submitted, partition.name, bought)
            except Exception as error:  # noqa: BLE001  the ledger has the purchase, which must not fail for its view
                _log.warning("job %s: its observation could not be written: %s", bought.job.job_id, error)

    async def _newest(self, world: PartitionWorld, order: Order, bought: Purchase) -> Purchase:
        """Return the order's newest purchase: a newer run may have bought another one while this one waited."""
        record = await world.read(order.record_key)
        if record is None or record.purchase_number <= bought.record.purchase_number or record.attempt == order.attempt:
            return bought
        return await self._follow(world, order)

    async def _follow(self, world: PartitionWorld, order: Order) -> Purchase:
        """Wait for the purchase of the newer run that works on this order. It sends only GET requests.

        Raises:
            PurchaseError: The newer run ended without a purchase, or its job did not end as ordered.
        """
        timeout = self._config.options.timeout
        deadline = None if timeout is None else world.now() + timeout
        while True:
            record = await world.read(order.record_key)
            newest = "" if record is None else record.attempt
            if record is None or record.job_id is None:
                if await asyncio.to_thread(self._config.is_over, run_of_attempt(newest)):
                    message = f"{_run(newest)} took over this order and ended without a job"
                    raise self._superseded(order, message, None)
                await world.sleep(_FOLLOW_PAUSE)
                continue
            job_id = record.job_id
            outcome = await world.wait(
                job_id,
                goal=wait_condition(order),
                interval=self._config.account.poll_interval,
                deadline=deadline,
            )
            now = await world.read(order.record_key)
            if now is None or now.job_id != job_id or now.token != record.token:
                continue  # the newer run bought again, or a still newer one began
            changed = order.fingerprint(scheme=now.scheme) != now.fingerprint
            warning = f"{_run(newest)} took over this order; this run recorded its job and sent nothing"
            bought = Purchase(outcome.job, now, PurchaseOutcome.REATTACHED, changed, (warning,))
            try:
                raise_for_status(bought, order=order, reason=outcome.reason)
            except UGenError as error:
                raise self._superseded(order, f"{error}; {_run(newest)} continues", job_id) from error
            return bought

    @staticmethod
    def _superseded(order: Order, message: str, job_id: str | None) -> PurchaseError:
        # Not retryable: a retry would take the order back from the newer run.
        return PurchaseError(
            f"{order.label}: {message}", scope=str(order.key), reason="superseded", job_id=job_id, retryable=False
        )

    # The gate.

    async def _open_gate(self, partition: Partition) -> None:
        """Refuse to open more gates than allowed. A gate that is open already, or was passed, is none to open.

        They are counted again before each, over all runs, since another run may have opened some meanwhile.
        """
        name, limit = partition.name, self._config.gates
        if limit is None:
            return
        record = self._known.get(name)
        actions = await asyncio.to_thread(self._config.store.actions, partition.record_key) if record else ()
        if not opens_gate(record, actions, regenerate=self._config.regenerate(name)):
            return
        async with self._gate_lock:
            if not self._gates_are_full:
                others = {*await asyncio.to_thread(limit.open_ones), *self._opening} - {name}
                self._gates_are_full = len(others) >= limit.most
            if self._gates_are_full:
                raise self._config.gate_errors.too_many(partition.order_key)
            self._opening.add(name)

    async def _require_approval(self, world: PartitionWorld, partition: Partition) -> None:
        """Refuse before anything that could cost: without an approval, only a job beyond its gate continues."""
        record = await world.read(partition.record_key)
        if record is None or record.job_id is None:
            raise self._config.gate_errors.no_keyframe(partition.order_key)
        if await asyncio.to_thread(self._config.approval_of, partition.name) is not None:
            return
        action = effective_action(record, await world.actions(partition.record_key))
        if action is not None and action.kind == "cancel" and action.reason in {"rejected", "expired"}:
            raise self._config.gate_errors.closed(partition.order_key, record.job_id, action.reason)
        if not is_beyond_gate(await world.send(endpoints.get_job(record.job_id))):
            raise self._config.gate_errors.not_approved(partition.order_key, record.job_id)

    async def _pass_gate(self, world: PartitionWorld, partition: Partition, order: Order, bought: Purchase) -> Purchase:
        """Resume an approved job, and wait until it is complete."""
        approval = await asyncio.to_thread(self._config.approval_of, partition.name)
        if approval is None:
            raise self._config.gate_errors.not_approved(partition.order_key, bought.job.job_id)
        if approval.job_id != bought.job.job_id:
            raise self._config.gate_errors.approved_another(partition.order_key, approval, bought.job.job_id)
        if self._config.account.config.spending == "allow":
            await world.write(bought.record)  # only the newest attempt may resume
        passed = await resume_approved(
            world, approval, order_key=partition.record_key, spending=self._config.account.config.spending
        )
        bought = replace(bought, job=passed.job, stale=passed.stale, outcome=PurchaseOutcome.RESUMED)
        onward = replace(order, body={name: value for name, value in order.body.items() if name != "stop_at_stage"})
        timeout = self._config.options.timeout
        deadline = None if timeout is None else world.now() + timeout
        interval = self._config.account.poll_interval
        outcome = await wait_for_purchase(world, onward, bought, interval=interval, deadline=deadline)
        bought = replace(bought, job=outcome.job, stale=None)
        raise_for_status(bought, order=onward, reason=outcome.reason)
        if bought.job.final_video_url is None:
            raise JobFailedError(
                f"job {bought.job.job_id} of {order.label} completed without a final video, although its keyframe was "
                "approved",
                job_id=bought.job.job_id,
                job=bought.job,
                retryable=False,
            )
        return bought

    # Results.

    async def _collect(self, world: PartitionWorld, partition: Partition, bought: Purchase) -> Succeeded:
        job = bought.job
        keyframes = job.keyframes or await self._client.jobs.list_keyframes(job.job_id)
        segments = job.segments
        shown = None
        if self._config.phase == "anchor":
            shown = await read_keyframe(world, job.job_id)
            if awaits_approval(job) and self._config.account.config.spending == "allow":
                after = self._config.gate_expires_after
                await hold_at_gate(world, bought.record, expires_at=None if after is None else world.now() + after)
        if not any(segment.video_url for segment in segments) and job.final_video_url:
            segments = await self._client.jobs.list_videos(job.job_id)
        manifest = await self._store(partition, bought, keyframes)
        result = Succeeded(
            partition=partition.name,
            bought=bought,
            keyframes=tuple(keyframes),
            segments=tuple(segments),
            manifest=manifest,
            shown=shown,
            costs=await self.costs_of(partition, bought.record, job) if self._config.phase != "anchor" else (),
            warnings=bought.warnings,
        )
        if result.created:
            result = replace(result, credits_estimated=await self._estimate(bought.record.body))
        return self._checked(result)

    def _checked(self, result: Succeeded) -> Succeeded:
        options, job = self._config.options, result.bought.job
        scores = Scores.of(job, keyframes=result.keyframes, segments=result.segments)
        low = check_quality(job, scores, min_score=options.min_score, on_low_quality=options.on_low_quality)
        return result if low is None else replace(result, warnings=(*result.warnings, low))

    async def _estimate(self, body: Mapping[str, Any]) -> int | None:
        """Return the service's estimate; asked once for all requests that differ in nothing that costs."""
        same = json.dumps({name: value for name, value in body.items() if name not in _COST_FREE}, sort_keys=True)
        if same not in self._estimates:
            self._estimates[same] = None
            try:
                self._estimates[same] = (await call_endpoint(self._client, endpoints.estimate(body))).total_credits
            except UGenError as error:
                _log.info("the estimate is not known: %s", error)
        return self._estimates[same]

    async def _store(self, partition: Partition, bought: Purchase, keyframes: Sequence[Keyframe]) -> Manifest | None:
        destination = self._config.destination
        if destination is None:
            return None
        loop = asyncio.get_running_loop()
        jobs = self._client.jobs
        job_id = bought.job.job_id

        def refresh() -> Job:
            return asyncio.run_coroutine_threadsafe(jobs.get(job_id), loop).result()

        def refresh_keyframes() -> Sequence[Keyframe]:
            return asyncio.run_coroutine_threadsafe(jobs.list_keyframes(job_id), loop).result()

        async with self._downloads:
            return await asyncio.to_thread(
                lambda: download_outputs(
                    bought.job,
                    destination,
                    keyframes=keyframes,
                    refresh=refresh,
                    refresh_keyframes=refresh_keyframes,
                    product_id=partition.name or None,
                    request={name: value for name, value in bought.record.body.items() if name != "idempotency_key"},
                    allow_private=self._config.account.is_local,
                    profile=self._client.config.profile,
                    client=self._streams,
                )
            )

    async def costs_of(self, partition: Partition, record: OrderRecord, job: Job) -> tuple[Cost, ...]:
        """Return the credits that the event log does not have yet: of earlier purchases, and last of this job.

        An earlier purchase that was cancelled or failed cost credits too; it is read once, with a GET.
        """
        log = self._config.costs
        if log is None or self._config.account.config.spending != "allow":
            return ()  # the credits are another environment's
        written = await asyncio.to_thread(log.of, partition.name)
        purchases = {job_id: number for number, job_id in enumerate(record.earlier)}
        purchases[job.job_id] = record.purchase_number
        jobs = [job]
        for job_id in dict.fromkeys(record.earlier):
            if job_id and job_id not in written and job_id != job.job_id:
                try:
                    jobs.insert(-1, await self._client.jobs.get(job_id))
                except UGenError as error:
                    _log.warning("job %s: its cost is not known: %s", job_id, error)
        for each in jobs:
            if each.ended:  # what it reserved and did not use can be reserved again
                number, ledger = purchases[each.job_id], self._config.account.ledger
                settled = partial(settle, ledger, partition.record_key, number, consumed=spent_on(each))
                await asyncio.to_thread(settled)
        return tuple(log.cost_of(partition.name, each.job_id, spent_on(each)) for each in jobs)  # read already

    async def write_cost(self, partition: Partition) -> None:
        """Write the credits of a job that ended without a result. A failure is logged."""
        config = self._config
        if config.events is None or config.costs is None or config.account.config.spending != "allow":
            return
        try:
            record = await self.world_of(partition).read(partition.record_key)
            if record is None or record.job_id is None or record.attempt != config.attempt:
                return
            job = await self._client.jobs.get(record.job_id)
            if job.ended:
                costs = [cost for cost in await self.costs_of(partition, record, job) if cost.credits or cost.is_new]
                await asyncio.to_thread(config.events.spent, partition.name, costs)
        except UGenError as error:
            _log.warning("%s: the cost of its job could not be written: %s", partition.order_key.label, error)

    # A failure for good.

    async def leave_running_job(self, partition: Partition, error: Exception) -> None:
        """Do with the job of a partition that failed for good what `on_final_failure` says, if the job still runs.

        `collect` is an owed action: the reconciler stores the outputs when the job ends. If the process ends before it
        is recorded, the reconciler finds the failed run.
        """
        config = self._config
        if config.account.config.spending != "allow" or isinstance(error, AttemptSupersededError):
            return
        world = self.world_of(partition)
        try:
            record = await world.read(partition.record_key)
            if record is None or record.job_id is None or record.attempt != config.attempt:
                return
            actions = await world.actions(partition.record_key)
            if effective_action(record, actions) is not None:
                return
            job = await world.send(endpoints.get_job(record.job_id))
            if job.ended:
                return
            if record.on_final_failure == "cancel":
                await cancel_order(
                    world,
                    partition.record_key,
                    reason="timeout",
                    job_id=record.job_id,
                    token=record.token,
                    only_while_newest=True,
                )
            elif not any(action.kind == "collect" and action.concerns(record) for action in actions):
                await world.append_action(
                    Action(
                        order_key=record.order_key,
                        purchase_number=record.purchase_number,
                        job_id=record.job_id,
                        kind="collect",
                        reason="final_failure",
                        token=record.token,
                        at=world.now(),
                    )
                )
        except UGenError as trouble:
            _log.warning("%s: its job keeps running: %s", partition.order_key.label, trouble)


class _Turn:
    """A turn among the submitters; to give it back twice is the same as once."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns = turns
        self._is_taken = False

    async def take(self) -> None:
        await self._turns.acquire()
        self._is_taken = True

    def give_back(self) -> None:
        if self._is_taken:
            self._is_taken = False
            self._turns.release()


def _run(attempt: str) -> str:
    return f"run {run_of_attempt(attempt)}" if attempt else "a newer run"
