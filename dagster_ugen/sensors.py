# SPDX-License-Identifier: Apache-2.0
"""The completion sensor: it asks for a collecting run when jobs have ended that nobody waits for."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_ugen.batch import SUBMITS_TAG, batch_op
from dagster_ugen.partitions import chunks
from dagster_ugen.resource import account_of

if TYPE_CHECKING:
    from dagster_ugen.assets import UGenVideos
    from dagster_ugen.resource import UGenResource
    from ugen_provider.core.jobs.intent import Intent

TICK_SECONDS = 40.0
"""Dagster ends a sensor's tick after 60 s."""

_PAGE = 1000
_MOST_PENDING = 5000
_ASK_AGAIN_SECONDS = 600.0
_UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


@dataclass(slots=True)
class Pending:
    """A partition whose job was not recorded yet.

    Attributes:
        job_id: Its job; None for an order that found no free slot.
        holder: The run that holds the order.
        asked_at: When a run was last asked for, seconds since the epoch; 0 for never.
    """

    job_id: str | None
    holder: str
    asked_at: float = 0.0


@dataclass(slots=True)
class Cursor:
    """What the completion sensor remembers from tick to tick.

    Attributes:
        after: The last observation that was read.
        pending: The partitions whose jobs were not recorded yet.
    """

    after: int = 0
    pending: dict[str, Pending] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str | None) -> Cursor:
        """Read what `write` made; one that cannot be read begins again, which costs time and nothing else."""
        if not text:
            return cls()
        try:
            data = json.loads(zlib.decompress(base64.b85decode(text)))
            return cls(data["after"], {key: Pending(**value) for key, value in data["pending"].items()})
        except (ValueError, KeyError, TypeError, zlib.error):
            return cls()

    def write(self) -> str:
        """As text, packed: five thousand jobs are about 200 kB."""
        data = {"after": self.after, "pending": {key: asdict(value) for key, value in self.pending.items()}}
        return base64.b85encode(zlib.compress(json.dumps(data, separators=(",", ":")).encode())).decode()


def build_ugen_completion_sensor(
    videos: UGenVideos,
    *,
    job: dg.JobDefinition,
    resource: UGenResource | None = None,
    name: str = "ugen_completion_sensor",
    minimum_interval_seconds: int = 30,
    partitions_per_run: int = 50,
    runs_per_tick: int = 2,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """A sensor that looks at submitted jobs and asks for a run that collects those that have ended.

    It reads new intents from the event log, looks at their jobs with as few requests as possible, and leaves alone what
    a run under way waits for or has recorded. Orders that found no free slot are submitted again. A look costs nothing.

    Args:
        videos: The assets.
        job: From `build_ugen_batch_job`.
        resource: The account; else the resource `ugen` of the definitions.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between ticks.
        partitions_per_run: Partitions that one run collects.
        runs_per_tick: Runs that one tick asks for; Dagster's daemon makes them one by one.
        default_status: Whether it runs from the start.
    """

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        from dagster_ugen.looks import ended_jobs

        account = account_of(resource, context)
        until = time.monotonic() + TICK_SECONDS
        instance = context.instance
        cursor = Cursor.read(context.cursor)
        _read_on(instance, videos, cursor, until)
        _forget_recorded(instance, videos, cursor)
        waited_for = under_way(instance, {each.holder for each in cursor.pending.values()})
        now = time.time()
        open_ones = {
            key: each
            for key, each in cursor.pending.items()
            if each.holder not in waited_for and now - each.asked_at >= _ASK_AGAIN_SECONDS
        }

        ended = asyncio.run(
            ended_jobs(account.client_config(), [each.job_id for each in open_ones.values() if each.job_id])
        )
        ready = [key for key, each in open_ones.items() if each.job_id is None or each.job_id in ended]
        requests = []
        for group in list(chunks(ready, partitions_per_run))[:runs_per_tick]:
            requests.append(_collecting(group, cursor, now, job=job))
            for key in group:
                cursor.pending[key].asked_at = now
        told = f"{len(cursor.pending)} jobs are not recorded yet, {len(ready)} of them have ended"
        return dg.SensorResult(
            run_requests=requests, skip_reason=None if requests else dg.SkipReason(told), cursor=cursor.write()
        )

    return dg.SensorDefinition(
        name=name,
        evaluation_fn=evaluate,
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys=set() if resource is not None else {"ugen"},
        description="Asks for a run that collects U-Gen jobs which have ended and which nobody waits for.",
    )


def batch_config(
    job: dg.JobDefinition, *, partitions: Sequence[str], regenerate: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The run config of a batch job."""
    config: dict[str, Any] = {"partitions": list(partitions), "wait": False}
    if regenerate:
        config["regenerate"] = dict(regenerate)
    return {"ops": {batch_op(job.name): {"config": config}}}


def _collecting(group: Sequence[str], cursor: Cursor, now: float, *, job: dg.JobDefinition) -> dg.RunRequest:
    named = ",".join(f"{key}:{cursor.pending[key].job_id}:{cursor.pending[key].asked_at}" for key in group)
    digest = hashlib.sha256(f"{named}@{now if not all(cursor.pending[k].job_id for k in group) else ''}".encode())
    return dg.RunRequest(
        run_key=f"ugen-collect-{digest.hexdigest()[:24]}",
        run_config=batch_config(job, partitions=group),
        tags={"ugen/collects": str(len(group))},
    )


def _read_on(instance: dg.DagsterInstance, videos: UGenVideos, cursor: Cursor, until: float) -> None:
    """Take new intents in. With many pending it stops, and goes on when some of them are recorded."""
    from dagster_ugen.intents import read_intent

    while len(cursor.pending) < _MOST_PENDING and time.monotonic() < until:
        wanted = dg.AssetRecordsFilter(asset_key=videos.order_key, after_storage_id=cursor.after)
        page = instance.fetch_observations(wanted, limit=_PAGE, ascending=True)
        for record in page.records:
            cursor.after = max(cursor.after, record.storage_id)
            observation = record.asset_observation
            intent = read_intent(observation) if observation is not None else None
            if observation is not None and intent is not None:
                _take_in(cursor, observation.partition or "", intent)
        if not page.has_more:
            return


def _take_in(cursor: Cursor, partition: str, intent: Intent) -> None:
    known = cursor.pending.get(partition)
    if intent.action is not None and (intent.action.kind == "cancel" or intent.action.reason == "gate"):
        cursor.pending.pop(partition, None)  # somebody's decision, and not ours to undo
    elif intent.refused:
        cursor.pending.pop(partition, None)
    elif known is None or known.job_id != intent.job_id:
        cursor.pending[partition] = Pending(intent.job_id, intent.holder)
    else:
        known.holder = intent.holder


def _forget_recorded(instance: dg.DagsterInstance, videos: UGenVideos, cursor: Cursor) -> None:
    """Drop what a run has recorded meanwhile, whichever it was."""
    for group in chunks(list(cursor.pending), _PAGE):
        for partition, job_id in recorded_jobs(instance, videos.order_key, group).items():
            if cursor.pending[partition].job_id == job_id:
                del cursor.pending[partition]


def recorded_jobs(instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str]) -> dict[str, str]:
    """The job of each partition's newest materialization; at most a thousand partitions."""
    found: dict[str, str] = {}
    missing = set(partitions)
    cursor: str | None = None
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=list(partitions) if missing != {""} else None)
    while missing:
        page = instance.fetch_materializations(wanted, limit=_PAGE, cursor=cursor)
        for record in page.records:
            made = record.asset_materialization
            partition = (made.partition or "") if made is not None else None
            if made is None or partition not in missing:
                continue
            missing.discard(partition)
            value = made.metadata.get("ugen/job_id")
            if value is not None:
                found[partition] = str(value.value)
        if not page.has_more:
            break
        cursor = page.cursor
    return found


def under_way(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> set[str]:
    """Those of some runs that have not ended."""
    return {run.run_id for run in _runs_of(instance, run_ids) if run.status in _UNDER_WAY}


def submitting(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> set[str]:
    """Those of some runs that leave their jobs to the completion sensor, under way or not."""
    return {run.run_id for run in _runs_of(instance, run_ids) if SUBMITS_TAG in run.tags}


def _runs_of(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> Iterator[dg.DagsterRun]:
    for group in chunks([run_id for run_id in run_ids if run_id], 500):
        yield from instance.get_runs(dg.RunsFilter(run_ids=group))
