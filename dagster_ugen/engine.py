# SPDX-License-Identifier: Apache-2.0
"""One engine for one partition or many: buys, waits and stores in one event loop, and knows how to stop.

It is imported when a run starts and not before, since it brings the HTTP client.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dagster_ugen.intents import IntentLog, ScopeLostError
from dagster_ugen.options import OnInterrupt, UGenOptions
from dagster_ugen.requests import Refusal, Requests
from dagster_ugen.results import Delivered, Failed, Left, Result, is_retryable
from ugen_provider.core.api import operations
from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api._transport import StreamClient
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.api.effects import Flow, Perform, Response, Send
from ugen_provider.core.api.errors import (
    InvalidRequestError,
    JobFailedError,
    PurchaseError,
    RateLimitError,
    TransportError,
    UGenError,
)
from ugen_provider.core.api.models import Job, JobState, Keyframe
from ugen_provider.core.api.polling import Outcome
from ugen_provider.core.api.rules import STAGES, Violation
from ugen_provider.core.jobs.cancelling import cancel, pause
from ugen_provider.core.jobs.gate import GATE_STAGE, Approval, hold_at_gate, look_at, pass_gate
from ugen_provider.core.jobs.intent import IntentStore, OurAction
from ugen_provider.core.jobs.purchase import How, Order, Purchase, conclude, obtain, purchase
from ugen_provider.core.jobs.scope import Scope
from ugen_provider.core.jobs.summary import Scores, check_quality
from ugen_provider.core.jobs.watcher import JobWatcher, watching
from ugen_provider.core.media import Manifest, download_outputs

_log = logging.getLogger("dagster_ugen")
_SUBMITTERS = 8
"""Orders that are sent at once; where the account has no slot, so many ask again, and the others stand behind them."""

_DOWNLOADS = 4
_SETTLE_SECONDS = 10.0
_COST_FREE = frozenset(
    {"product_name", "product_image_url", "key_selling_points", "cta_text", "custom_script", "environment_description"}
    | {"idempotency_key", "webhook_url", "stop_at_stage"}
)

Interruption = Literal["person", "signal"]
Phase = Literal["whole", "anchor", "rest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one run is to do.

    Attributes:
        config: The account's settings.
        read_config: Reads them again, where the key is refused.
        scope_of: The order's scope of a partition.
        partitions: The partitions; '' for an unpartitioned asset.
        requests: Says what is ordered for them.
        phase: `whole` without a gate; with one, `anchor` stops at it and `rest` passes it.
        approval_of: The yes to a partition's look, in the phase `rest`; called in a thread.
        gates: How many gates may be opened, in the phase `anchor`; called in a thread. None sets no limit.
        options: The user's choices.
        wait: Whether to wait for jobs; else what has not ended is left for a later run.
        regenerate: The value by which another generation of a partition is asked for.
        destination: Where results are stored; None leaves them with the service.
        allow_private: Whether links may lead to private addresses.
        poll_interval: Seconds between looks at a job.
        log: The intents.
        record: Records a partition's result; called in a thread, one at a time.
        interruption: Tells who interrupted the run; called in a thread.
    """

    config: ClientConfig
    read_config: Callable[[], ClientConfig]
    scope_of: Callable[[str], Scope]
    partitions: Sequence[str]
    requests: Requests
    wait: bool = True
    phase: Phase = "whole"
    approval_of: Callable[[str], Approval | None] = lambda _partition: None
    gates: Callable[[], int | None] = lambda: None
    options: UGenOptions
    regenerate: Callable[[str], str | None] = lambda _partition: None
    destination: str | None = None
    allow_private: bool = False
    poll_interval: float = 10.0
    log: IntentLog
    record: Callable[[Delivered], None]
    interruption: Callable[[], Interruption]


@dataclass(slots=True)
class _Partition:
    """One partition while the run works on it."""

    name: str
    scope: Scope
    store: IntentStore
    unsettled: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    done: bool = False


class Engine:
    """Works on all partitions of a run at once.

    Args:
        work: What to do.

    Example:
        >>> results = Shell(Engine(work), grace=25.0).run()
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._client: AsyncUGenClient
        self._watcher: JobWatcher
        self._streams: StreamClient
        self._partitions: dict[str, _Partition] = {}
        self._tasks: dict[str, asyncio.Task[Result]] = {}
        self._submitters = asyncio.Semaphore(_SUBMITTERS)
        self._downloads = asyncio.Semaphore(_DOWNLOADS)
        self._estimates: dict[str, int | None] = {}
        self._known: Mapping[str, Any] = {}
        self._gates: int | None = None
        self._stopping = False
        self._stopped = asyncio.Event()

    async def run(self) -> list[Result]:
        """Buy or find each partition's job, wait for it, store and record its results.

        Returns:
            One result per partition, in their order. A partition that fails stops no other.

        Raises:
            UGenError: Nothing could be begun, such as a feed that cannot be read.
        """
        work = self._work
        requests = await asyncio.to_thread(work.requests.of, work.partitions, model=work.config.video_model)
        self._known = known = await asyncio.to_thread(work.log.read_ahead, work.partitions)
        self._gates = await asyncio.to_thread(work.gates)
        self._streams = StreamClient()
        try:
            async with AsyncUGenClient(config=work.config) as client:
                self._client = client
                self._watcher = JobWatcher(client, read_config=self._read_config)
                for name in work.partitions:
                    self._partitions[name] = _Partition(name, work.scope_of(name), work.log.of(name))
                for name in sorted(work.partitions, key=lambda name: getattr(known.get(name), "job_id", None) is None):
                    if not self._stopping:
                        self._tasks[name] = asyncio.create_task(self._one(self._partitions[name], requests[name]))
                results = await asyncio.gather(*self._tasks.values(), return_exceptions=True)
                if self._stopping:
                    await self._stopped.wait()
        finally:
            self._streams.close()
        found = dict(zip(self._tasks, results, strict=True))
        return [_believed(found[name]) for name in work.partitions if name in found]

    async def stop(self) -> None:
        """End the work, and do with the jobs what the table says: a person's termination reaches them, a signal not.

        An order that is just being sent is given a moment to be answered, so that its job is known. What cannot be done
        now is written down for the next run.
        """
        self._stopping = True
        try:
            action = await self._action()
            unsettled = [partition for partition in self._partitions.values() if partition.unsettled]
            if unsettled:
                waits = [asyncio.ensure_future(partition.settled.wait()) for partition in unsettled]
                await asyncio.wait(waits, timeout=_SETTLE_SECONDS)
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            if action != "detach" and hasattr(self, "_client"):
                open_ones = [partition for partition in self._partitions.values() if not partition.done]
                await asyncio.gather(*(self._end(partition, action) for partition in open_ones))
        finally:
            self._stopped.set()

    async def _action(self) -> OnInterrupt:
        try:
            who = await asyncio.to_thread(self._work.interruption)
        except Exception:  # noqa: BLE001  an interrupt is raised again whatever becomes of this
            _log.exception("the run's state cannot be read, so its jobs are left as they are")
            return "detach"
        return self._work.options.on_interrupt if who == "person" else "detach"

    async def _end(self, partition: _Partition, action: OnInterrupt) -> None:
        scope = str(partition.scope)
        try:
            intent = await asyncio.to_thread(partition.store.read, scope)
            if intent is None or intent.scope != scope:
                return
            if intent.job_id is None:
                if partition.unsettled and action == "cancel":
                    pending = replace(intent, action=OurAction("cancel", "kill", time.time()))
                    await asyncio.to_thread(partition.store.write, pending)
                    _log.warning("%s: whether it was bought is not known; its cancel is written down", scope)
                return
            caller = self._client.caller
            if action == "cancel":
                await self._client.run(cancel(caller, intent.job_id, reason="kill", store=partition.store, scope=scope))
            else:
                await self._client.run(pause(caller, intent.job_id, store=partition.store, scope=scope))
        except ScopeLostError as lost:
            _log.warning("%s", lost)
        except UGenError as error:
            _log.warning(
                "%s: could not be told to %s now (%s); it is written down for the next run", scope, action, error
            )

    async def _read_config(self) -> ClientConfig:
        return await asyncio.to_thread(self._work.read_config)

    async def _one(self, partition: _Partition, request: Mapping[str, Any] | Refusal) -> Result:
        try:
            delivered = await self._deliver(partition, request)
            if isinstance(delivered, Delivered):
                await asyncio.to_thread(self._record, partition, delivered)
        except Exception as error:  # noqa: BLE001  one partition's error stops no other, whatever it is
            partition.done = True
            return Failed(partition=partition.name, error=error, retryable=is_retryable(error))
        partition.done = True
        return delivered

    def _record(self, partition: _Partition, delivered: Delivered) -> None:
        with self._work.log.lock:
            self._work.log.held(partition.name)
            self._work.record(delivered)

    async def _deliver(self, partition: _Partition, request: Mapping[str, Any] | Refusal) -> Delivered | Left:
        if isinstance(request, Refusal):
            raise InvalidRequestError([Violation("request", request.reason)])
        work = self._work
        order = Order(
            scope=partition.scope,
            body=self._body(request),
            policy=work.options.policy(spending=work.config.spending, regenerate=work.regenerate(partition.name)),
            holder=work.log.holder,
        )
        self._opening(partition)
        if work.phase == "rest":
            await self._refuse_without_approval(partition)
        if not work.wait:
            try:
                bought = await self._submit(partition, order)
            except RateLimitError as error:
                return Left(partition=partition.name, job_id=None, why=f"the account has no free slot ({error})")
            if not bought.job.ended:
                return Left(partition=partition.name, job_id=bought.job.job_id, why=f"is {bought.job.status}")
            conclude(bought, order=order)
        else:
            bought = await self._buy(partition, order)
        if work.phase == "rest" and _at_the_gate(bought):
            bought = await self._pass_gate(partition, order, bought)
        job = bought.job
        keyframes = job.keyframes or await self._client.jobs.list_keyframes(job.job_id)
        segments = job.segments
        look = None
        if work.phase == "anchor":
            look = await self._client.run(look_at(self._client.caller, job.job_id))
            await self._client.run(hold_at_gate(partition.store, str(partition.scope), job.job_id))
        if not any(segment.video_url for segment in segments) and job.final_video_url:
            segments = await self._client.jobs.list_videos(job.job_id)
        manifest = await self._store(partition, bought, keyframes)
        delivered = Delivered(
            partition=partition.name,
            bought=bought,
            keyframes=tuple(keyframes),
            segments=tuple(segments),
            manifest=manifest,
            look=look,
            notes=bought.notes,
        )
        if delivered.created:
            delivered = replace(delivered, credits_estimated=await self._estimate(bought.intent.body))
        return self._judged(delivered)

    def _body(self, request: Mapping[str, Any]) -> dict[str, Any]:
        model = self._work.config.video_model
        named = {"video_model": model} if model is not None and request.get("video_model") is None else {}
        stop = {"stop_at_stage": GATE_STAGE} if self._work.phase != "whole" else {}
        return {**request, **named, **stop}

    def _judged(self, delivered: Delivered) -> Delivered:
        options = self._work.options
        scores = Scores.of(delivered.bought.job, keyframes=delivered.keyframes, segments=delivered.segments)
        low = check_quality(
            delivered.bought.job, scores, min_score=options.min_score, on_low_quality=options.on_low_quality
        )
        return delivered if low is None else replace(delivered, notes=(*delivered.notes, low))

    # Buying and waiting.

    async def _submit(self, partition: _Partition, order: Order) -> Purchase:
        """Make the order's job ours, and leave it to itself."""
        async with self._submitters:
            flow = purchase(self._client.caller, order, store=partition.store)
            return await self._client.run(_settling(flow, partition))

    async def _buy(self, partition: _Partition, order: Order) -> Purchase:
        place = _Place(self._submitters)
        await place.take()

        def wait(bought: Purchase) -> Flow[Outcome]:
            place.leave()
            timeout = self._work.options.timeout
            deadline = None if timeout is None else time.time() + timeout
            waiting = watching(self._watcher, order, interval=self._work.poll_interval, deadline=deadline)
            return (yield from waiting(bought))

        flow: Flow[Purchase] = obtain(
            self._client.caller,
            order,
            store=partition.store,
            wait=wait,
            slot_timeout=self._work.options.slot_timeout,
        )
        try:
            return await self._client.run(_settling(flow, partition))
        finally:
            place.leave()

    # The gate.

    def _opening(self, partition: _Partition) -> None:
        """Refuse to open a gate more than there may be. A gate that is open already, or was passed, opens none."""
        if self._work.phase != "anchor" or partition.name in self._known:
            return
        if self._gates is not None and self._gates <= 0:
            raise PurchaseError(
                f"{partition.scope}: max_open_gates is reached, so nothing was bought; approve or reject some of the "
                "looks that wait, then materialize this one again",
                scope=str(partition.scope),
                reason="max_open_gates",
            )
        if self._gates is not None:
            self._gates -= 1

    async def _refuse_without_approval(self, partition: _Partition) -> None:
        """Before anything that could cost: without a yes, only a job that is beyond its gate and well goes on."""
        scope = str(partition.scope)
        intent = await asyncio.to_thread(partition.store.read, scope)
        if intent is None or intent.scope != scope or intent.job_id is None:
            raise PurchaseError(
                f"{scope}: there is no look yet; materialize anchor_keyframe first, then approve it",
                scope=scope,
                reason="no_anchor",
            )
        if await asyncio.to_thread(self._work.approval_of, partition.name) is not None:
            return
        job = await self._client.jobs.get(intent.job_id)
        beyond = job.final_video_url is not None or (
            job.state is JobState.ACTIVE and _reached_beyond_gate(job.current_stage)
        )
        if not beyond:
            raise _not_approved(scope, intent.job_id)

    async def _pass_gate(self, partition: _Partition, order: Order, bought: Purchase) -> Purchase:
        """Let an approved job go on, and wait until it is done."""
        scope = str(partition.scope)
        approval = await asyncio.to_thread(self._work.approval_of, partition.name)
        if approval is None:
            raise _not_approved(scope, bought.job.job_id)
        if approval.job_id != bought.job.job_id:
            raise PurchaseError(
                f"{scope}: the approval is for job {approval.job_id}, and the look that waits is that of job "
                f"{bought.job.job_id}; look at anchor_keyframe again, then materialize keyframe_approval",
                scope=scope,
                reason="approval_outdated",
                job_id=bought.job.job_id,
            )
        client = self._client
        passed = await client.run(
            pass_gate(
                client.caller,
                approval,
                spending=self._work.config.spending,
                store=partition.store,
                scope=scope,
            )
        )
        bought = replace(bought, job=passed.job, stale=passed.stale, how=How.RESUMED)
        onward = replace(order, body={name: value for name, value in order.body.items() if name != "stop_at_stage"})
        timeout = self._work.options.timeout
        deadline = None if timeout is None else time.time() + timeout
        wait = watching(self._watcher, onward, interval=self._work.poll_interval, deadline=deadline)
        outcome = await client.run(wait(bought))
        done = conclude(replace(bought, job=outcome.job, stale=None), order=onward, reason=outcome.reason)
        if done.job.final_video_url is None:
            raise JobFailedError(
                f"job {done.job.job_id} of {scope} completed without a final video, although its look was approved",
                job_id=done.job.job_id,
                job=done.job,
                retryable=False,
            )
        return done

    async def _estimate(self, body: Mapping[str, Any]) -> int | None:
        """What the service estimates; asked once for all requests that differ in nothing that costs."""
        same = json.dumps({name: value for name, value in body.items() if name not in _COST_FREE}, sort_keys=True)
        if same not in self._estimates:
            self._estimates[same] = None
            try:
                self._estimates[same] = (await self._client.call(operations.estimate(body))).total_credits
            except UGenError as error:
                _log.info("the estimate is not known: %s", error)
        return self._estimates[same]

    # Results.

    async def _store(self, partition: _Partition, bought: Purchase, keyframes: Sequence[Keyframe]) -> Manifest | None:
        destination = self._work.destination
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
                    request={name: value for name, value in bought.intent.body.items() if name != "idempotency_key"},
                    allow_private=self._work.allow_private,
                    client=self._streams,
                )
            )


class _Place:
    """A place among the submitters; leaving it twice is the same as once."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._taken = False

    async def take(self) -> None:
        await self._places.acquire()
        self._taken = True

    def leave(self) -> None:
        if self._taken:
            self._taken = False
            self._places.release()


def _at_the_gate(bought: Purchase) -> bool:
    """Whether a job stands where it was told to stop: paused there, or ended there by the service."""
    job = bought.job
    return job.state is JobState.PAUSED or (job.state is JobState.COMPLETED and job.final_video_url is None)


def _reached_beyond_gate(stage: str | None) -> bool:
    return stage in STAGES and STAGES.index(stage) > STAGES.index(GATE_STAGE)


def _not_approved(scope: str, job_id: str) -> PurchaseError:
    return PurchaseError(
        f"{scope}: nobody approved the look of job {job_id}, so nothing goes on; look at anchor_keyframe and "
        "materialize keyframe_approval for this partition",
        scope=scope,
        reason="not_approved",
        job_id=job_id,
    )


def _settling(flow: Flow[Purchase], partition: _Partition) -> Flow[Purchase]:
    """Pass a flow's effects on, and note while a job may have been bought whose id is not written down yet."""
    unclear = False
    try:
        effect = next(flow)
        while True:
            creating = isinstance(effect, Send) and effect.request.point == "create"
            if creating:
                partition.unsettled = True
                partition.settled.clear()
            try:
                answer = yield effect
            except Exception as error:  # noqa: BLE001  the flow decides what an error means
                if creating and isinstance(error, TransportError):
                    unclear = unclear or error.maybe_sent
                    if not unclear:
                        _settle(partition)
                effect = flow.throw(error)
            else:
                if creating and isinstance(answer, Response) and answer.status >= 400:
                    unclear = unclear or answer.status >= 500 or answer.status == 408
                    if not unclear:
                        _settle(partition)
                elif isinstance(effect, Perform) and effect.point == "intent.write":
                    unclear = False
                    _settle(partition)
                effect = flow.send(answer)
    except StopIteration as stop:
        bought: Purchase = stop.value
        return bought
    finally:
        flow.close()


def _settle(partition: _Partition) -> None:
    partition.unsettled = False
    partition.settled.set()


def _believed(result: Result | BaseException) -> Result:
    if isinstance(result, BaseException):
        raise result
    return result
