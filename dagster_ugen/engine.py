# SPDX-License-Identifier: Apache-2.0
"""One engine for one partition or many: works on all of them in one event loop, and knows how to stop.

It is imported when a run starts and not before, since it brings the HTTP client.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dagster_ugen.intents import ScopeLostError, StorageUnavailableError, storage
from dagster_ugen.making import Maker
from dagster_ugen.options import OnInterrupt
from dagster_ugen.requests import Refusal
from dagster_ugen.results import Delivered, Failed, Result, is_retryable
from dagster_ugen.settling import Partition
from dagster_ugen.work import Work
from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api._streams import StreamClient
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.jobs.cancelling import cancel, pause
from ugen_provider.core.jobs.intent import OurAction
from ugen_provider.core.jobs.watcher import JobWatcher
from ugen_provider.core.media.stores import Store

_log = logging.getLogger("dagster_ugen")
_SETTLE_SECONDS = 10.0


class Engine:
    """Works on all partitions of a run at once.

    Args:
        work: What to do.

    Examples:
        >>> results = Shell(Engine(work), grace=25.0).run()
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._client: AsyncUGenClient | None = None
        self._partitions: dict[str, Partition] = {}
        self._tasks: dict[str, asyncio.Task[Result]] = {}
        self._stopping = False
        self._stopped = asyncio.Event()

    async def run(self) -> list[Result]:
        """Buy or find each partition's job, wait for it, store and record its results.

        Returns:
            One result per partition, in their order. A partition that fails stops no other.

        Raises:
            UGenError: Nothing could be begun, such as a feed that cannot be read, or a destination that nothing here
                can write to.
        """
        work = self._work
        if work.destination is not None:
            await asyncio.to_thread(Store, work.destination)
        requests = await asyncio.to_thread(work.requests.of, work.partitions, model=work.config.video_model)
        known = await asyncio.to_thread(work.log.read_ahead, work.partitions)
        streams = StreamClient()
        try:
            async with AsyncUGenClient(config=work.config) as client:
                self._client = client
                watcher = JobWatcher(client, read_config=self._read_config)
                maker = Maker(work, client=client, streams=streams, watcher=watcher, known=known)
                for name in work.partitions:
                    self._partitions[name] = Partition(name, work.scope_of(name), work.log.of(name))
                for name in sorted(work.partitions, key=lambda name: getattr(known.get(name), "job_id", None) is None):
                    if not self._stopping:
                        self._tasks[name] = asyncio.create_task(
                            self._one(maker, self._partitions[name], requests[name])
                        )
                results = await asyncio.gather(*self._tasks.values(), return_exceptions=True)
                if self._stopping:
                    await self._stopped.wait()
        finally:
            streams.close()
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
            client = self._client
            if action != "detach" and client is not None:
                open_ones = [partition for partition in self._partitions.values() if not partition.done]
                await asyncio.gather(*(self._end(client, partition, action) for partition in open_ones))
        finally:
            # Also where the grace ended before this did: what still waits for an answer must not go on behind the run.
            for task in self._tasks.values():
                task.cancel()
            self._stopped.set()

    async def _action(self) -> OnInterrupt:
        try:
            who = await asyncio.to_thread(self._work.interruption)
        except Exception:  # noqa: BLE001  an interrupt is raised again whatever becomes of this
            _log.exception("the run's state cannot be read, so its jobs are left as they are")
            return "detach"
        return self._work.options.on_interrupt if who == "person" else "detach"

    async def _end(self, client: AsyncUGenClient, partition: Partition, action: OnInterrupt) -> None:
        scope, label = str(partition.scope), partition.scope.label
        try:
            intent = await asyncio.to_thread(partition.store.read, scope)
            if intent is None or intent.scope != scope:
                return
            if intent.job_id is None:
                if partition.unsettled and action == "cancel":
                    pending = replace(intent, action=OurAction("cancel", "kill", time.time()))
                    await asyncio.to_thread(partition.store.write, pending)
                    _log.warning("%s: whether it was bought is not known; its cancel is written down", label)
                return
            store, caller = partition.store, client.caller
            if action == "cancel":
                await client.run(cancel(caller, intent.job_id, reason="kill", store=store, scope=scope))
            else:
                await client.run(pause(caller, intent.job_id, store=store, scope=scope))
        except ScopeLostError as lost:
            _log.warning("%s", lost)
        except StorageUnavailableError as error:
            _log.warning("%s: it was not told to %s: %s", label, action, error)
        except UGenError as error:
            _log.warning(
                "%s: could not be told to %s now (%s); it is written down for the next run", label, action, error
            )

    async def _read_config(self) -> ClientConfig:
        return await asyncio.to_thread(self._work.read_config)

    async def _one(self, maker: Maker, partition: Partition, request: Mapping[str, Any] | Refusal) -> Result:
        try:
            delivered = await maker.make(partition, request)
            if isinstance(delivered, Delivered):
                await asyncio.to_thread(self._record, partition, delivered)
        except Exception as error:  # noqa: BLE001  one partition's error stops no other, whatever it is
            partition.done = True
            return Failed(partition=partition.name, error=error, retryable=is_retryable(error))
        partition.done = True
        return delivered

    def _record(self, partition: Partition, delivered: Delivered) -> None:
        with self._work.log.lock, storage():
            self._work.log.held(partition.name)
            self._work.record(delivered)


def _believed(result: Result | BaseException) -> Result:
    if isinstance(result, BaseException):
        raise result
    return result
