# SPDX-License-Identifier: Apache-2.0
"""How one partition is made: its order bought, its gate passed, its job waited for, its results stored."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dagster_ugen.gating import (
    approved_another,
    gate_closed,
    is_beyond_gate,
    no_look,
    not_approved,
    opens_a_gate,
    stands_at_gate,
    too_many_gates,
)
from dagster_ugen.requests import Refusal
from dagster_ugen.results import Delivered, Left
from dagster_ugen.settling import Partition, Place, settling
from dagster_ugen.work import Work
from ugen_provider.core.api import operations
from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api._streams import StreamClient
from ugen_provider.core.api.effects import Flow
from ugen_provider.core.api.errors import InvalidRequestError, JobFailedError, RateLimitError, UGenError
from ugen_provider.core.api.models import Job, Keyframe
from ugen_provider.core.api.polling import Outcome
from ugen_provider.core.api.rules import Violation
from ugen_provider.core.jobs.gate import GATE_STAGE, hold_at_gate, look_at, pass_gate
from ugen_provider.core.jobs.intent import Intent
from ugen_provider.core.jobs.purchase import How, Order, Purchase, conclude, obtain, purchase
from ugen_provider.core.jobs.summary import Scores, check_quality, keyframes_of
from ugen_provider.core.jobs.watcher import JobWatcher, watching
from ugen_provider.core.media import Manifest, download_outputs

_log = logging.getLogger("dagster_ugen")
_SUBMITTERS = 8
"""Orders that are sent at once; where the account has no slot, so many ask again, and the others stand behind them."""

_DOWNLOADS = 4
_COST_FREE = frozenset(
    {"product_name", "product_image_url", "key_selling_points", "cta_text", "custom_script", "environment_description"}
    | {"idempotency_key", "webhook_url", "stop_at_stage"}
)


class Maker:
    """Makes partitions; all of a run share one, with its connections.

    Args:
        work: What the run is to do.
        client: Calls the service.
        streams: Reads files.
        watcher: Waits for all jobs together.
        known: What was bought for which partition when the run began.
    """

    def __init__(
        self,
        work: Work,
        *,
        client: AsyncUGenClient,
        streams: StreamClient,
        watcher: JobWatcher,
        known: Mapping[str, Intent],
    ) -> None:
        self._work = work
        self._client = client
        self._streams = streams
        self._watcher = watcher
        self._known = known
        self._gate_lock = asyncio.Lock()
        self._opening: set[str] = set()
        self._gates_are_full = False
        self._submitters = asyncio.Semaphore(_SUBMITTERS)
        self._downloads = asyncio.Semaphore(_DOWNLOADS)
        self._estimates: dict[str, int | None] = {}

    async def make(self, partition: Partition, request: Mapping[str, Any] | Refusal) -> Delivered | Left:
        """Buy or find a partition's job, wait for it, and store what it made.

        Raises:
            UGenError: Why there is no result.
        """
        if isinstance(request, Refusal):
            raise InvalidRequestError([Violation("request", request.reason)])
        work = self._work
        order = Order(
            scope=partition.scope,
            body=self._body(request),
            policy=work.options.policy(spending=work.config.spending, regenerate=work.regenerate(partition.name)),
            holder=work.log.holder,
        )
        if work.phase == "anchor":
            await self._open_gate(partition)
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
        if work.phase == "rest" and stands_at_gate(bought.job):
            bought = await self._pass_gate(partition, order, bought)
        job = bought.job
        keyframes = await self._client.run(keyframes_of(self._client.caller, job))
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

    async def _submit(self, partition: Partition, order: Order) -> Purchase:
        """Make the order's job ours, and leave it to itself."""
        async with self._submitters:
            flow = purchase(self._client.caller, order, store=partition.store)
            return await self._client.run(settling(flow, partition))

    async def _buy(self, partition: Partition, order: Order) -> Purchase:
        place = Place(self._submitters)
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
            return await self._client.run(settling(flow, partition))
        finally:
            place.leave()

    # The gate.

    async def _open_gate(self, partition: Partition) -> None:
        """Refuse to open a gate more than there may be. One that is open already, or was passed, opens none.

        It is counted again before each, over all runs, since another run may have opened some meanwhile.
        """
        name, limit = partition.name, self._work.gates
        if limit is None or not opens_a_gate(self._known.get(name), regenerate=self._work.regenerate(name)):
            return
        async with self._gate_lock:
            if not self._gates_are_full:
                others = {*await asyncio.to_thread(limit.open_ones), *self._opening} - {name}
                self._gates_are_full = len(others) >= limit.most
            if self._gates_are_full:
                raise too_many_gates(partition.scope)
            self._opening.add(name)

    async def _refuse_without_approval(self, partition: Partition) -> None:
        """Before anything that could cost: without a yes, only a job that is beyond its gate and well goes on."""
        scope = str(partition.scope)
        intent = await asyncio.to_thread(partition.store.read, scope)
        if intent is None or intent.scope != scope or intent.job_id is None:
            raise no_look(partition.scope)
        if await asyncio.to_thread(self._work.approval_of, partition.name) is not None:
            return
        action = intent.action
        if action is not None and action.kind == "cancel" and action.reason in {"rejected", "expired"}:
            raise gate_closed(partition.scope, intent.job_id, action.reason)
        if not is_beyond_gate(await self._client.jobs.get(intent.job_id)):
            raise not_approved(partition.scope, intent.job_id)

    async def _pass_gate(self, partition: Partition, order: Order, bought: Purchase) -> Purchase:
        """Let an approved job go on, and wait until it is done."""
        scope = str(partition.scope)
        approval = await asyncio.to_thread(self._work.approval_of, partition.name)
        if approval is None:
            raise not_approved(partition.scope, bought.job.job_id)
        if approval.job_id != bought.job.job_id:
            raise approved_another(partition.scope, approval, bought.job.job_id)
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
                f"job {done.job.job_id} of {partition.scope.label} completed without a final video, although its look "
                "was approved",
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

    async def _store(self, partition: Partition, bought: Purchase, keyframes: Sequence[Keyframe]) -> Manifest | None:
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
