# SPDX-License-Identifier: Apache-2.0
"""The execution of a run: from an asset's context to its partitions, and back to the events that the run writes.

It is imported when a run starts, since it loads the HTTP client.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

import dagster as dg

from dagster_ugen import _compat
from dagster_ugen.account import Account, BudgetedOrderStore, reservations_of
from dagster_ugen.approval import GateErrors, approval_of, is_open_gate, is_opening_gate
from dagster_ugen.definition import (
    EACH_RUN,
    ON_CHANGED_TAG,
    ORDER_NAME,
    REGENERATE_TAG,
    OnInterrupt,
    Output,
    Phase,
    UGenOptions,
    VideoDefinition,
    order_parts,
    partitions_of,
)
from dagster_ugen.event_log import (
    RUN_KIND_TAG,
    Cost,
    CostLog,
    OlderOrders,
    attempt_name,
    chunks,
    code_location_of,
    cost_event,
    recorded_jobs,
    run_of_attempt,
    storage,
    submitted_event,
    under_way,
)
from dagster_ugen.partition import GateLimit, Interruption, Partition, PartitionRunner, RunConfig
from dagster_ugen.requests import AssetRequests, FunctionRequests, Refusal, Requests
from dagster_ugen.results import FailedPartition, InProgress, Result, Succeeded, describe, is_retryable, version_of
from ugen_provider.core.api.async_client import AsyncUGenClient
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.api.errors import ConfigError, PurchaseError, UGenError
from ugen_provider.core.batch.budget import Reservations
from ugen_provider.core.jobs.actions import cancel_order, pause_order
from ugen_provider.core.jobs.order import Order, Purchase, partition_key
from ugen_provider.core.jobs.watcher import JobWatcher
from ugen_provider.core.ledger.errors import AttemptSupersededError, LedgerUnavailableError
from ugen_provider.core.ledger.orders import FindOlder, LedgerOrderStore
from ugen_provider.core.media.http import MediaClient
from ugen_provider.core.media.stores import Store
from ugen_provider.core.text import get_logger

_TERMINATED = frozenset({dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED})
_ANSWER_SECONDS = 10.0
_CLOSING_SECONDS = 2.0
_log = get_logger("dagster_ugen")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


# Entry points.


def run_partitions(
    definition: VideoDefinition,
    context: dg.AssetExecutionContext,
    account: Account,
    *,
    phase: Phase,
    outputs: Sequence[Output],
    regenerate: str | None,
) -> list[Result]:
    """Work on all partitions of an asset's run, and record the selected outputs of those that are complete.

    A run with the tag `ugen/run_kind` waits for no job: those that have not ended are left for a later run.

    Returns:
        One result for each partition.

    Raises:
        Failure: No partition could be started.
        BaseException: The interrupt, after the jobs were cancelled, paused or left.
    """
    wanted = regenerate or _regenerate_of(_compat.run_of(context))
    selected = [output for output in outputs if definition.key_of(output) in context.selected_asset_keys]
    return _run(
        definition,
        context.op_execution_context,
        account,
        partitions=partitions_of(context),
        outputs=selected,
        phase=phase,
        regenerate=lambda _partition: None if phase == "rest" else wanted,
    )


def buy(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    account: Account,
    request: Any,
    *,
    order_name: str | None,
    partition: str | None,
    regenerate: str | None,
    options: UGenOptions,
) -> Succeeded:
    """Purchase one job in the body of an asset or op, and wait for it. See `UGenResource.buy`."""
    op_context = context.op_execution_context if isinstance(context, dg.AssetExecutionContext) else context
    asset_key = _asset_of(context)
    if order_name is None and asset_key is None:
        raise ConfigError("ugen.buy: an op has no asset key that could name the order; pass order_name=")
    partitions = partitions_of(context)
    if partition is None and len(partitions) > 1:
        raise ConfigError(f"ugen.buy: this run has {len(partitions)} partitions; pass partition= for each purchase")
    name = order_name or (asset_key.to_user_string() if asset_key is not None else "")
    chosen = partitions[0] if partition is None else partition
    run = _compat.run_of(context)
    store = account.store()
    recorder = _OwnPurchase()
    reservations = reservations_of(account, run)
    config = RunConfig(
        account=account,
        store=store,
        attempt=attempt_name(run.run_id, _compat.retry_number_of(op_context)),
        order_of=lambda each: partition_key(asset=name, partition=each, namespace=account.config.namespace),
        # A name that the code gives is the user's own, and no asset that could have been renamed.
        code_location=_code_location(op_context) if order_name is None else None,
        guard=functools.partial(require_known_name, op_context, store) if order_name is None else lambda _order: None,
        partitions=[chosen],
        requests=FunctionRequests(lambda _partition: request),
        options=options,
        reservations=reservations,
        new_store=partial_store(account, reservations),
        is_last_attempt=is_last_attempt(op_context),
        regenerate=lambda _partition: regenerate or _regenerate_of(run),
        events=recorder,
        costs=CostLog(context.instance, asset_key=asset_key, partitions=[chosen]) if asset_key is not None else None,
        interruption=functools.partial(interruption_of, context.instance, run.run_id),
        is_over=functools.partial(_is_over, context.instance),
    )
    [result] = LoopThread(RunExecutor(config), grace=options.interrupt_grace).run()
    if isinstance(result, FailedPartition):
        raise result.error
    assert recorder.result is not None  # a purchase that is waited for ends as a result or an error
    return recorder.result


def _regenerate_of(run: dg.DagsterRun) -> str | None:
    """Return the value of the run's tag that asks for another video; a run and its retries have the same one."""
    value = run.tags.get(REGENERATE_TAG)
    return (run.root_run_id or run.run_id) if value == EACH_RUN else value


def _asset_of(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> dg.AssetKey | None:
    if isinstance(context, dg.AssetExecutionContext):
        keys = context.selected_asset_keys
        return next(iter(keys)) if len(keys) == 1 else None
    return None


def _run(
    definition: VideoDefinition,
    context: dg.OpExecutionContext,
    account: Account,
    *,
    partitions: Sequence[str],
    outputs: Sequence[Output],
    phase: Phase,
    regenerate: Callable[[str], str | None],
) -> list[Result]:
    instance, run = context.instance, _compat.run_of(context)
    try:
        older = [OlderOrders(instance, definition, account).find]
        store, reservations = account.store(older=older), reservations_of(account, run)
        config = RunConfig(
            account=account,
            store=store,
            attempt=attempt_name(run.run_id, _compat.retry_number_of(context)),
            order_of=functools.partial(definition.order_of, namespace=account.config.namespace),
            code_location=_code_location(context),
            guard=functools.partial(require_known_name, context, store),
            partitions=partitions,
            requests=_loaded_requests(definition.requests, context),
            options=definition.options,
            reservations=reservations,
            new_store=partial_store(account, reservations, older=older),
            wait=RUN_KIND_TAG not in run.tags,
            buys_changed=run.tags.get(ON_CHANGED_TAG) == "regenerate",
            is_last_attempt=is_last_attempt(context),
            regenerate=regenerate,
            phase=phase,
            approval_of=functools.partial(approval_of, instance, definition),
            gates=_gate_limit(instance, definition, account) if phase == "anchor" else None,
            gate_errors=GateErrors.of(definition),
            gate_expires_after=definition.gate.expires_after if definition.gate is not None else None,
            destination=definition.destination,
            outputs=tuple(output.value for output in outputs),
            events=Recorder(definition, context, outputs, is_single=len(partitions) == 1),
            costs=CostLog(instance, asset_key=definition.order_asset, partitions=list(partitions)),
            interruption=functools.partial(interruption_of, instance, run.run_id),
            is_over=functools.partial(_is_over, instance),
        )
        return LoopThread(RunExecutor(config), grace=definition.options.interrupt_grace).run()
    except UGenError as error:
        raise dg.Failure(str(error), allow_retries=is_retryable(error)) from error


def _code_location(context: dg.OpExecutionContext) -> str | None:
    """Return the code location of a run; None for a body that is called directly, which knows no other assets."""
    return None if _compat.is_direct(context) else code_location_of(context.run)


def partial_store(
    account: Account, reservations: Reservations | None, *, older: Sequence[FindOlder] = ()
) -> Callable[[], BudgetedOrderStore] | None:
    """Return what makes the store of one partition that reserves credits; None without a budget."""
    return None if reservations is None else functools.partial(account.budgeted_store, reservations, older=older)


def _loaded_requests(requests: Requests, context: dg.OpExecutionContext) -> Requests:
    """Return the requests, with the rows of an upstream asset loaded by its IO manager."""
    return requests.loaded(context.load_asset_value) if isinstance(requests, AssetRequests) else requests


def interruption_of(instance: dg.DagsterInstance, run_id: str) -> Interruption:
    """Return who interrupted a run: a person who terminated or deleted it, or a signal to its process."""
    run = instance.get_run_by_id(run_id)
    return "person" if run is None or run.status in _TERMINATED else "signal"


def _is_over(instance: dg.DagsterInstance, run_id: str) -> bool:
    return run_id not in under_way(instance, [run_id])


def is_last_attempt(context: dg.OpExecutionContext) -> bool:
    """Return whether Dagster will retry neither this step nor its run. An unknown answer counts as a retry.

    A wrong "last" would cancel, or report as failed, a job that the next attempt waits for. After a wrong "not last"
    the reconcile sensor finds the failed run, or the next run reattaches.
    """
    try:
        return not (
            _compat.will_retry_step(context) or _compat.will_retry_run(context.instance, _compat.run_of(context))
        )
    except Exception as error:  # noqa: BLE001  such as a storage that is away; the attempt itself continues
        _log.warning("run %s: Dagster does not say whether it retries: %s", context.run_id, error)
        return False


# The guard against renamed assets.


def require_known_name(context: dg.OpExecutionContext, store: LedgerOrderStore, order: Order) -> None:
    """Refuse the first purchase of a name, if the same request was bought under a name that is no longer defined.

    An asset that was renamed, or got another prefix, would buy each of its videos again.

    Raises:
        PurchaseError: The ledger has such a purchase; the message names it and `order_name=`.
    """
    if order.code_location is None or store.read(order.record_key) is not None:
        return
    defined: Collection[str] | None = None
    for record in store.find_by_fingerprint(order.fingerprint()):
        parts = order_parts(record.order_key)
        if parts is None or record.origin != order.origin or record.surely_not_bought:
            continue
        namespace, name, partition = parts
        same_order = namespace == order.key.namespace and partition == order.key.parts[1] and name != order.key.parts[0]
        if not same_order or not _may_be_renamed(record.code_location, order.code_location):
            continue
        defined = defined_order_names(context) if defined is None else defined
        if name in defined:
            continue
        raise PurchaseError(
            f"{order.label}: the same request was bought as {name!r} (job {record.job_id or 'not known'}), and no "
            f"asset of this code location has that name any more. If it was renamed, set order_name={name!r} to keep "
            "its videos; nothing was bought",
            scope=str(order.key),
            reason="renamed",
            job_id=record.job_id,
            retryable=False,
        )


def _may_be_renamed(earlier: str | None, now: str) -> bool:
    """Return whether a name of one code location may be an earlier name of another's; Dagster did not name ''."""
    return earlier is not None and (earlier == now or not earlier or not now)


def defined_order_names(context: dg.OpExecutionContext) -> set[str]:
    """Return all order names that the code location defines: those of its video assets, and every asset's key."""
    names: set[str] = set()
    job = context.job_def
    selection = job.asset_selection_data
    graphs: list[Any] = [(selection.parent_job_def if selection is not None else job).asset_layer.asset_graph]
    with suppress(Exception):  # Dagster raises where a job runs outside of a repository
        graphs.append(context.repository_def.asset_graph)
    for graph in graphs:
        for key in graph.get_all_asset_keys():
            names.add(key.to_user_string())
            named = graph.get(key).metadata.get(ORDER_NAME)
            if named is not None:
                names.add(str(getattr(named, "value", named)))
    return names


# Gates.


def _gate_limit(instance: dg.DagsterInstance, definition: VideoDefinition, account: Account) -> GateLimit | None:
    gate = definition.gate
    if gate is None or gate.max_open_gates is None:
        return None
    return GateLimit(gate.max_open_gates, functools.partial(open_gates, instance, definition, account))


def open_gates(instance: dg.DagsterInstance, definition: VideoDefinition, account: Account) -> set[str]:
    """Return the partitions whose keyframes await a decision, or are being made by a run under way."""
    store, prefix = account.store(), account.record_prefix(definition)
    actions = store.find_actions(prefix)
    waiting: set[str] = set()
    coming = {}
    for record, _ in store.find(prefix):
        partition = account.partition_of(definition, record.order_key)
        if partition is None:
            continue
        ours = actions.get(record.order_key, ())
        if is_open_gate(record, ours):
            waiting.add(partition)
        elif is_opening_gate(record, ours):
            coming[partition] = record
    shown: dict[str, str] = {}
    for group in chunks(list(coming)):
        shown |= recorded_jobs(instance, definition.key_of(Output.ANCHOR_KEYFRAME), group)
    coming = {name: record for name, record in coming.items() if shown.get(name) != (record.job_id or "")}
    runs = under_way(instance, {run_of_attempt(record.attempt) for record in coming.values()})
    return waiting | {name for name, record in coming.items() if run_of_attempt(record.attempt) in runs}


# The run.


class RunExecutor:
    """Works on all partitions of a run in one event loop, and knows how to stop.

    Args:
        config: The work of the run.

    Examples:
        >>> results = LoopThread(RunExecutor(config), grace=25.0).run()
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._runner: PartitionRunner | None = None
        self._partitions: dict[str, Partition] = {}
        self._tasks: dict[str, asyncio.Task[Result]] = {}
        self._is_stopping = False
        self._stopped = asyncio.Event()

    async def run(self) -> list[Result]:
        """Purchase each partition's job or find it, wait for it, store and record its outputs.

        Returns:
            One result per partition, in their order. A partition that fails stops no other.

        Raises:
            UGenError: No partition could be started, such as for a feed that cannot be read, or a destination that
                nothing here can write to.
        """
        config, account = self._config, self._config.account
        if config.destination is not None:
            await asyncio.to_thread(Store, config.destination)
        requests = await asyncio.to_thread(config.requests.of, config.partitions, model=account.config.video_model)
        for name in config.partitions:
            key = config.order_of(name)
            self._partitions[name] = Partition(name, key, Order(key=key, body={}, origin=account.origin).record_key)
        keys = {partition.record_key: name for name, partition in self._partitions.items()}
        records = await asyncio.to_thread(config.store.read_many, list(keys))
        known = {keys[key]: record for key, record in records.items()}
        streams = MediaClient()
        try:
            async with AsyncUGenClient(config=account.config) as client:
                watcher = JobWatcher(client, read_config=self._read_config)
                runner = self._runner = PartitionRunner(
                    config, watcher=watcher, streams=streams, known=known, is_stopping=lambda: self._is_stopping
                )
                # Jobs that exist come first: they need no slot.
                for name in sorted(config.partitions, key=lambda name: name not in known or known[name].job_id is None):
                    if not self._is_stopping:
                        work = self._run_one(runner, self._partitions[name], requests[name])
                        self._tasks[name] = asyncio.create_task(work)
                results = await asyncio.gather(*self._tasks.values(), return_exceptions=True)
                if self._is_stopping:
                    await self._stopped.wait()
        finally:
            streams.close()
        found = dict(zip(self._tasks, results, strict=True))
        return [_result(found[name]) for name in config.partitions if name in found]

    async def stop(self) -> None:
        """End the work, and cancel, pause or leave the jobs: a person's termination reaches them, a signal does not.

        A POST in flight gets a moment for its answer, so that its job is known. An action that cannot be done now is
        recorded in the ledger: the next run or the reconciler does it.
        """
        self._is_stopping = True
        try:
            action = await self._action()
            sending = [partition for partition in self._partitions.values() if partition.is_sending]
            if sending:
                waits = [asyncio.ensure_future(partition.is_answered.wait()) for partition in sending]
                await asyncio.wait(waits, timeout=_ANSWER_SECONDS)
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            runner = self._runner
            if action != "detach" and runner is not None:
                open_ones = [partition for partition in self._partitions.values() if not partition.is_done]
                await asyncio.gather(*(self._end(runner, partition, action) for partition in open_ones))
        finally:
            # Also where the grace period ended first: no task may continue behind the run.
            for task in self._tasks.values():
                task.cancel()
            self._stopped.set()

    async def _action(self) -> OnInterrupt:
        if self._config.account.config.spending != "allow":
            return "detach"  # such as a branch deployment: the jobs are another environment's
        try:
            who = await asyncio.to_thread(self._config.interruption)
        except Exception:  # noqa: BLE001  the interrupt is raised again in any case
            _log.exception("the run's state cannot be read, so its jobs are left unchanged")
            return "detach"
        return self._config.options.on_interrupt if who == "person" else "detach"

    async def _end(self, runner: PartitionRunner, partition: Partition, action: OnInterrupt) -> None:
        """Cancel or pause the job of one partition, while this run is the newest that works on its order."""
        config, world = self._config, runner.world_of(partition)
        label, key = partition.order_key.label, partition.record_key
        try:
            record = await world.read(key)
            if record is None or record.attempt != config.attempt:
                return  # this run never reached the order, or a newer run works on it
            if record.job_id is None and not (partition.is_sending and action == "cancel"):
                return  # this attempt has no request in flight: the next one finds out what an earlier one bought
            if action == "cancel":
                # Without a job id the cancel is recorded: it is sent once the id is known.
                await cancel_order(world, key, reason="terminate", token=record.token, only_while_newest=True)
                if record.job_id is None:
                    _log.warning("%s: no answer to its POST yet; its cancel is recorded", label)
            else:
                await pause_order(world, record)
        except AttemptSupersededError as error:
            _log.warning("%s", error)
        except LedgerUnavailableError as error:
            _log.warning("%s: could not %s its job, and could not record that: %s", label, action, error)
        except UGenError as error:
            _log.warning("%s: could not %s its job now (%s); the next run or the reconciler does", label, action, error)

    async def _read_config(self) -> ClientConfig:
        return await asyncio.to_thread(self._config.account.read_config)

    async def _run_one(
        self, runner: PartitionRunner, partition: Partition, request: Mapping[str, Any] | Refusal
    ) -> Result:
        result: Succeeded | InProgress
        try:
            result = await runner.run(partition, request)
            if isinstance(result, Succeeded):
                await asyncio.to_thread(self._record, result)
        except Exception as error:  # noqa: BLE001  one partition's error stops no other
            retryable = is_retryable(error)
            if not self._is_stopping and (self._config.is_last_attempt or not retryable):
                await runner.leave_running_job(partition, error)
                await runner.write_cost(partition)
            if not self._is_stopping:
                partition.is_done = True
            return FailedPartition(partition=partition.name, error=error, retryable=retryable)
        partition.is_done = True
        return result

    def _record(self, result: Succeeded) -> None:
        if self._config.events is not None:
            with storage():
                self._config.events.record(result)


def _result(result: Result | BaseException) -> Result:
    if isinstance(result, BaseException):
        raise result
    return result


class _OwnPurchase:
    """Keeps the result of a purchase in a body of the user's own, whose output says what it cost."""

    result: Succeeded | None = None

    def submitted(self, partition: str, bought: Purchase) -> None:
        """Such a purchase is waited for."""

    def record(self, result: Succeeded) -> None:
        self.result = result

    def spent(self, partition: str, costs: Sequence[Cost]) -> None:
        """The body raises; the next output of its asset says what the job cost."""


class Recorder:
    """Writes the events of a run, with the versions that Dagster compares.

    The body of a run of one partition yields its events itself, and Dagster adds their versions. A run of several logs
    each partition's when it is complete: what was paid for is recorded, even if another partition fails later.

    Args:
        definition: The assets.
        context: The context of the run's step.
        outputs: The selected outputs.
        is_single: Whether the body yields the materializations.
    """

    def __init__(
        self, definition: VideoDefinition, context: dg.OpExecutionContext, outputs: Sequence[Output], *, is_single: bool
    ) -> None:
        self._definition = definition
        self._outputs = outputs
        self._context = context
        self._is_single = is_single
        self._lock = threading.Lock()  # a step's context is not made for several threads

    def submitted(self, partition: str, bought: Purchase) -> None:
        """Write that an order was sent. It blocks, a few milliseconds."""
        with self._lock:
            self._context.log_event(submitted_event(self._definition.order_asset, partition, bought))

    def spent(self, partition: str, costs: Sequence[Cost]) -> None:
        """Write the credits of jobs that have no materialization. It blocks, a few milliseconds for each."""
        with self._lock:
            for cost in costs:
                self._context.log_event(cost_event(self._definition.order_asset, partition, cost))

    def record(self, result: Succeeded) -> None:
        """Write the outputs of a partition. It blocks, a few milliseconds for each."""
        # Without the final video's event, which carries the credits of its job, they get one of their own.
        costs = result.costs[:-1] if Output.FINAL_VIDEO in self._outputs else result.costs
        self.spent(result.partition, [cost for cost in costs if cost.credits or cost.is_new])
        if self._is_single:
            return
        with self._lock:
            for output in self._outputs:
                self._context.log_event(
                    dg.AssetMaterialization(
                        asset_key=self._definition.key_of(output),
                        partition=result.partition or None,
                        metadata=describe(output, result),
                        tags=self._versions(output, result),
                    )
                )

    def _versions(self, output: Output, result: Succeeded) -> dict[str, str]:
        """Return the tags by which Dagster knows what is out of date. A log event carries none by itself."""
        key = self._definition.key_of(output)
        code_version = self._context.assets_def.specs_by_key[key].code_version
        tags = {
            _compat.DATA_VERSION_TAG: version_of(output, result),
            _compat.DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
            _compat.CODE_VERSION_TAG: code_version or _compat.run_of(self._context).run_id,
        }
        for dep in self._definition.upstream_keys(output):
            record = self._newest(dep, result.partition)
            if record is not None:
                tags[_compat.get_input_event_pointer_tag(dep)] = str(record.storage_id)
                version = (record.event_log_entry.tags or {}).get(_compat.DATA_VERSION_TAG)
                if version is not None:
                    tags[_compat.get_input_data_version_tag(dep)] = version
        return tags

    def _newest(self, key: dg.AssetKey, partition: str) -> dg.EventLogRecord | None:
        wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
        return next(iter(self._context.instance.fetch_materializations(wanted, limit=1).records), None)


# The event loop, in a thread of its own.
#
# Dagster interrupts a run by raising in the code that the main thread executes. In an event loop, the interrupt could
# end inside any task, or in the middle of a write to a database. So the loop runs in its own thread, the main thread
# only waits, and an interrupt finds it there.


class Work(Protocol[T_co]):
    """Work for a loop, which can be stopped."""

    async def run(self) -> T_co:
        """Do the work."""
        ...

    async def stop(self) -> None:
        """End the work after an interrupt, and cancel, pause or leave the jobs.

        It runs beside `run`, in the same loop, and has to end within the grace period.
        """
        ...


class LoopThread(Generic[T]):
    """Does work in the loop of a thread, and passes an interrupt on to it.

    Args:
        work: The work.
        grace: Seconds that `Work.stop` gets; Dagster, or the machine, ends the process some time after.
    """

    def __init__(self, work: Work[T], *, grace: float) -> None:
        self._work = work
        self._grace = grace
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._result: Future[T] = Future()

    def run(self) -> T:
        """Do the work.

        Raises:
            BaseException: The interrupt, raised again after the work was stopped; else the error of the work.
        """
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(self._thread), name="dagster-ugen", daemon=True)
        try:
            thread.start()
            return self._result.result()
        except _compat.INTERRUPTS:
            self._stop()
            raise

    def _stop(self) -> None:
        """Stop the work, and wait for it during further interrupts: a second signal must not cut a cancel short.

        When this returns, no work of the run continues: what the grace period did not suffice for is left.
        """
        until = monotonic() + self._grace
        stopping: Future[None] | None = None
        while True:
            try:
                if stopping is None:
                    loop = self._loop.result(timeout=self._grace)
                    stopping = asyncio.run_coroutine_threadsafe(self._work.stop(), loop)
                stopping.result(timeout=max(0.0, until - monotonic()))
            except _compat.INTERRUPTS:
                continue
            except FutureTimeoutError:
                _log.warning("not all jobs could be cancelled or left in %.0f s; the next run continues", self._grace)
                if stopping is not None:
                    stopping.cancel()
                break
            except Exception:  # noqa: BLE001  the interrupt is raised again in any case
                _log.exception("an interrupted run could not cancel or leave its jobs; the next run continues")
                break
            else:
                break
        self._wait_for_the_end(until=max(until, monotonic() + _CLOSING_SECONDS))

    def _wait_for_the_end(self, *, until: float) -> None:
        while True:
            try:
                self._result.exception(timeout=max(0.0, until - monotonic()))
            except _compat.INTERRUPTS:
                continue
            except (FutureTimeoutError, CancelledError):
                return
            else:
                return

    def _thread(self) -> None:
        try:
            result = asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001  raised in the thread that waits
            self._result.set_exception(error)
        else:
            self._result.set_result(result)

    async def _main(self) -> T:
        self._loop.set_result(asyncio.get_running_loop())
        return await self._work.run()
