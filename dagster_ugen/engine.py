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
from dagster_ugen.results import Delivered, Failed, is_retryable
from ugen_provider.core.api import operations
from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api._transport import StreamClient
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.api.effects import Flow, Perform, Response, Send
from ugen_provider.core.api.errors import InvalidRequestError, TransportError, UGenError
from ugen_provider.core.api.models import Job, Keyframe
from ugen_provider.core.api.polling import Outcome
from ugen_provider.core.api.rules import Violation
from ugen_provider.core.jobs.cancelling import cancel, pause
from ugen_provider.core.jobs.intent import IntentStore, OurAction
from ugen_provider.core.jobs.purchase import Order, Purchase, obtain
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one run is to do.

    Attributes:
        config: The account's settings.
        read_config: Reads them again, where the key is refused.
        scope_of: The order's scope of a partition.
        partitions: The partitions; '' for an unpartitioned asset.
        requests: Says what is ordered for them.
        extra: Fields that every request gets on top.
        options: The user's choices.
        regenerate: A value by which another generation is asked for.
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
    extra: Mapping[str, Any] = field(default_factory=dict)
    options: UGenOptions
    regenerate: str | None = None
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
        self._tasks: dict[str, asyncio.Task[Delivered | Failed]] = {}
        self._submitters = asyncio.Semaphore(_SUBMITTERS)
        self._downloads = asyncio.Semaphore(_DOWNLOADS)
        self._estimates: dict[str, int | None] = {}
        self._stopping = False
        self._stopped = asyncio.Event()

    async def run(self) -> list[Delivered | Failed]:
        """Buy or find each partition's job, wait for it, store and record its results.

        Returns:
            One result per partition, in their order. A partition that fails stops no other.

        Raises:
            UGenError: Nothing could be begun, such as a feed that cannot be read.
        """
        work = self._work
        requests = await asyncio.to_thread(work.requests.of, work.partitions, model=work.config.video_model)
        known = await asyncio.to_thread(work.log.read_ahead, work.partitions)
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

    async def _one(self, partition: _Partition, request: Mapping[str, Any] | Refusal) -> Delivered | Failed:
        try:
            delivered = await self._deliver(partition, request)
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

    async def _deliver(self, partition: _Partition, request: Mapping[str, Any] | Refusal) -> Delivered:
        if isinstance(request, Refusal):
            raise InvalidRequestError([Violation("request", request.reason)])
        work = self._work
        order = Order(
            scope=partition.scope,
            body=self._body(request),
            policy=work.options.policy(spending=work.config.spending, regenerate=work.regenerate),
            holder=work.log.holder,
        )
        bought = await self._buy(partition, order)
        job = bought.job
        keyframes = job.keyframes or await self._client.jobs.list_keyframes(job.job_id)
        segments = job.segments
        if not any(segment.video_url for segment in segments) and job.final_video_url:
            segments = await self._client.jobs.list_videos(job.job_id)
        manifest = await self._store(partition, bought, keyframes)
        delivered = Delivered(
            partition=partition.name,
            bought=bought,
            keyframes=tuple(keyframes),
            segments=tuple(segments),
            manifest=manifest,
            notes=bought.notes,
        )
        if delivered.created:
            delivered = replace(delivered, credits_estimated=await self._estimate(bought.intent.body))
        return self._judged(delivered)

    def _body(self, request: Mapping[str, Any]) -> dict[str, Any]:
        model = self._work.config.video_model
        named = {"video_model": model} if model is not None and request.get("video_model") is None else {}
        return {**request, **named, **self._work.extra}

    def _judged(self, delivered: Delivered) -> Delivered:
        options = self._work.options
        scores = Scores.of(delivered.bought.job, keyframes=delivered.keyframes, segments=delivered.segments)
        low = check_quality(
            delivered.bought.job, scores, min_score=options.min_score, on_low_quality=options.on_low_quality
        )
        return delivered if low is None else replace(delivered, notes=(*delivered.notes, low))

    # Buying and waiting.

    async def _buy(self, partition: _Partition, order: Order) -> Purchase:
        place = _Place(self._submitters)
        await place.take()

        def wait(bought: Purchase) -> Flow[Outcome]:
            place.leave()
            timeout = self._work.options.timeout
            deadline = None if timeout is None else time.time() + timeout
            waiting = watching(self._watcher, order, interval=self._work.poll_interval, deadline=deadline)
            return (yield from waiting(bought))

        flow = obtain(
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


def _believed(result: Delivered | Failed | BaseException) -> Delivered | Failed:
    if isinstance(result, BaseException):
        raise result
    return result
