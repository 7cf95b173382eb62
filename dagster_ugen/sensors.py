# SPDX-License-Identifier: Apache-2.0
"""The completion sensor: it requests runs of the assets that collect submitted jobs once they have ended."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
import zlib
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, TypeVar

import dagster as dg

from dagster_ugen.asset_job import AssetJob, PartitionRange, RunKind, partition_keys, partition_ranges, run_request
from dagster_ugen.event_log import CHUNK, chunks, recorded_jobs, run_of_attempt, under_way
from dagster_ugen.resource import required_resources, sensor_account

if TYPE_CHECKING:
    from dagster_ugen.account import Account
    from dagster_ugen.definition import VideoDefinition
    from dagster_ugen.resource import UGenResource
    from ugen_provider.core.api.config import ClientConfig
    from ugen_provider.core.api.endpoints import Endpoint
    from ugen_provider.core.api.models import Job
    from ugen_provider.core.ledger.record import Action, OrderRecord

T = TypeVar("T")
_ASK_AGAIN_SECONDS = 300.0
_OVERLAP_SECONDS = 10.0
"""Writers of the ledger commit up to so many seconds after the time that their rows say."""


@dataclass(slots=True)
class PendingPartition:
    """A partition whose job is not recorded yet.

    Attributes:
        job_id: Its job; None for an order without one.
        holder: The run whose attempt is the newest.
        asked_at: When a run was last requested, in seconds since the epoch; 0 for never.
        ended_at: When its job was first seen to have ended; 0 for not yet.
    """

    job_id: str | None
    holder: str
    asked_at: float = 0.0
    ended_at: float = 0.0


@dataclass(slots=True)
class CompletionCursor:
    """The state of the completion sensor between ticks. A lost one costs time and buys nothing.

    Attributes:
        after: Time of the newest change that was read from the ledger.
        pending: The partitions whose jobs were not recorded yet.
    """

    after: float = 0.0
    pending: dict[str, PendingPartition] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str | None) -> CompletionCursor:
        """Read what `write` made; an unreadable cursor starts again."""
        if not text:
            return cls()
        try:
            data = json.loads(zlib.decompress(base64.b85decode(text)))
            return cls(data["after"], {key: PendingPartition(**value) for key, value in data["pending"].items()})
        except (ValueError, KeyError, TypeError, zlib.error):
            return cls()

    def write(self) -> str:
        """Return the cursor as compressed text: five thousand jobs are about 200 kB."""
        data = {"after": self.after, "pending": {key: asdict(value) for key, value in self.pending.items()}}
        return base64.b85encode(zlib.compress(json.dumps(data, separators=(",", ":")).encode())).decode()


def build_ugen_completion_sensor(
    videos: VideoDefinition,
    *,
    job: AssetJob,
    resource: UGenResource | None = None,
    name: str = "ugen_completion_sensor",
    minimum_interval_seconds: int = 30,
    partitions_per_run: int = 250,
    runs_per_tick: int = 4,
    max_delay_seconds: float = 300.0,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """Build a sensor that polls submitted jobs and requests runs of the assets that collect those that have ended.

    It reads changed orders from the ledger, polls their jobs with as few requests as possible, and leaves unchanged
    those that a run under way waits for, or has recorded. Orders without a job are submitted again. A poll is free.

    A run materializes a range of partitions. To request few runs, a range whose neighbor is still being made waits for
    it, at most `max_delay_seconds`.

    Args:
        videos: The assets.
        job: From `build_ugen_asset_job`.
        resource: The account; default the resource `ugen` of the definitions.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between ticks.
        partitions_per_run: Most partitions that one run collects.
        runs_per_tick: Runs that one tick requests; Dagster's daemon creates them one by one.
        max_delay_seconds: Most seconds that a job which has ended waits for its neighbors.
        default_status: Whether it runs from the start.
    """

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        instance = context.instance
        cursor = CompletionCursor.read(context.cursor)
        with sensor_account(resource, context).open_account(instance) as account:
            _read_changes(account, videos, cursor)
            config = account.config
        _forget_recorded(instance, videos, cursor)
        waited_for = under_way(instance, {each.holder for each in cursor.pending.values()})
        now = time.time()
        open_ones = {
            key: each
            for key, each in cursor.pending.items()
            if each.holder not in waited_for and now - each.asked_at >= _ASK_AGAIN_SECONDS
        }
        ended = asyncio.run(ended_jobs(config, [each.job_id for each in open_ones.values() if each.job_id]))
        ready = {key for key, each in open_ones.items() if each.job_id is None or each.job_id in ended}
        requests: list[dg.RunRequest] = []
        due = _due(instance, videos, cursor, ready, now=now, delay=max_delay_seconds, most=partitions_per_run)
        for part, kind in due[:runs_per_tick]:
            requests.append(run_request(part, kind=kind, run_key=_run_key(part, cursor, now)))
            for key in part.keys:
                cursor.pending[key].asked_at = now
        summary = f"{len(cursor.pending)} jobs are not recorded yet, {len(ready)} of them have ended"
        return dg.SensorResult(
            run_requests=requests, skip_reason=None if requests else dg.SkipReason(summary), cursor=cursor.write()
        )

    return dg.SensorDefinition(
        name=name,
        evaluation_fn=evaluate,
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys=required_resources(resource),
        description="Requests runs that collect U-Gen jobs that have ended and that no run waits for.",
    )


def _due(
    instance: dg.DagsterInstance,
    videos: VideoDefinition,
    cursor: CompletionCursor,
    ready: Collection[str],
    *,
    now: float,
    delay: float,
    most: int,
) -> list[tuple[PartitionRange, RunKind]]:
    """Return the ranges that runs are requested for now: to submit the orders without a job, and to collect jobs."""
    for key, each in cursor.pending.items():
        each.ended_at = (each.ended_at or now) if key in ready else 0.0
    if not ready:
        return []
    partitions_def = videos.props.partitions_def
    keys = partition_keys(instance, partitions_def)
    position = {key: index for index, key in enumerate(keys)}
    coming = {position[key] for key in cursor.pending if key in position and key not in ready}
    without = {key for key in ready if cursor.pending[key].job_id is None}
    due: list[tuple[PartitionRange, RunKind]] = [
        (part, "submit") for part in partition_ranges(partitions_def, without, keys=keys, most=most)
    ]
    for part in partition_ranges(partitions_def, set(ready) - without, keys=keys, most=most):
        first = min(cursor.pending[key].ended_at for key in part.keys)
        neighbors = {position[part.keys[0]] - 1, position[part.keys[-1]] + 1}
        if not neighbors & coming or len(part.keys) == most or now - first >= delay:
            due.append((part, "collect"))
    return due


def _run_key(part: PartitionRange, cursor: CompletionCursor, now: float) -> str:
    named = ",".join(f"{key}:{cursor.pending[key].job_id}:{cursor.pending[key].asked_at}" for key in part.keys)
    digest = hashlib.sha256(f"{named}@{now if not all(cursor.pending[k].job_id for k in part.keys) else ''}".encode())
    return f"ugen-collect-{digest.hexdigest()[:24]}"


def _read_changes(account: Account, videos: VideoDefinition, cursor: CompletionCursor) -> None:
    """Read the orders that changed since the last tick. With none pending, a deleted cursor reads all of them."""
    store, prefix = account.store(), account.record_prefix(videos)
    since = cursor.after - _OVERLAP_SECONDS if cursor.after else None
    changed = store.find(prefix, changed_since=since)
    actions = store.find_actions(prefix) if changed else {}
    for record, at in changed:
        cursor.after = max(cursor.after, at)
        partition = account.partition_of(videos, record.order_key)
        if partition is not None:
            _note(cursor, partition, record, actions.get(record.order_key, ()))


def _note(cursor: CompletionCursor, partition: str, record: OrderRecord, actions: Sequence[Action]) -> None:
    from ugen_provider.core.jobs.policy import effective_action

    known = cursor.pending.get(partition)
    action = effective_action(record, actions)
    if action is not None and (action.kind == "cancel" or action.reason == "gate"):
        cursor.pending.pop(partition, None)  # a decision of a person, which no sensor undoes
    elif record.deleted or (record.surely_not_bought and record.content_refusals):
        cursor.pending.pop(partition, None)  # the same request would be refused again
    elif known is None or known.job_id != record.job_id:
        cursor.pending[partition] = PendingPartition(record.job_id, run_of_attempt(record.attempt))
    else:
        known.holder = run_of_attempt(record.attempt)


def _forget_recorded(instance: dg.DagsterInstance, videos: VideoDefinition, cursor: CompletionCursor) -> None:
    """Drop the partitions that any run has recorded meanwhile."""
    for group in chunks(list(cursor.pending), CHUNK):
        for partition, job_id in recorded_jobs(instance, videos.order_asset, group).items():
            if cursor.pending[partition].job_id == job_id:
                del cursor.pending[partition]


class _PollAnswers:
    """Keeps the answers of one poll."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}

    def now(self) -> float:
        return time.time()

    def ends_wait(self, job_id: str, *, state: object, stage: str | None) -> bool:
        del job_id, stage
        return bool(getattr(state, "ended", False))

    def answered(self, job_id: str, job: Job, *, asked_at: float, listed: bool) -> None:
        del asked_at, listed
        self.jobs[job_id] = job

    async def failed(self, job_id: str, error: Exception) -> None:
        """Return the next tick polls it again."""


async def ended_jobs(config: ClientConfig, job_ids: Sequence[str]) -> dict[str, Job]:
    """Return those of some jobs that have ended. Free; a GET each, or pages of the account's jobs where cheaper.

    Args:
        config: The account's settings.
        job_ids: The jobs.
    """
    if not job_ids:
        return {}
    from ugen_provider.core.api.async_client import AsyncUGenClient, call_endpoint
    from ugen_provider.core.jobs.watcher import BatchPoller, PollListener, RequestBudget

    seen = _PollAnswers()
    async with AsyncUGenClient(config=config) as client:

        def send(operation: Endpoint[T]) -> Awaitable[T]:
            return call_endpoint(client, operation)

        listener = PollListener(seen.now, seen.ends_wait, seen.answered, seen.failed)
        await BatchPoller(send, listener, budget=RequestBudget(left=2.0 * len(job_ids))).poll(job_ids)
    return {job_id: job for job_id, job in seen.jobs.items() if job.ended}
