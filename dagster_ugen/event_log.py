# SPDX-License-Identifier: Apache-2.0
"""Dagster's event log and runs: submitted orders, costs, recorded jobs, runs under way, orders of older versions.

The ledger holds the purchases. The event log shows them; deleting it, or wiping an asset, loses no purchase.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from dagster_ugen._compat import ROOT_RUN_ID_TAG
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.text import get_logger

if TYPE_CHECKING:
    from dagster_ugen.account import Account
    from dagster_ugen.definition import VideoDefinition
    from ugen_provider.core.jobs.order import Purchase
    from ugen_provider.core.ledger.orders import OlderOrder

T = TypeVar("T")

INTENT = "ugen/intent"
"""Metadata of observations by which versions before the ledger recorded orders."""

JOB_ID = "ugen/job_id"
CREDITS = "ugen/credits"
JOBS = "ugen/jobs"
RUN_KIND_TAG = "ugen/run_kind"
"""A tag of the runs of a batch job: `submit` leaves jobs for the completion sensor, `collect` records ended ones."""

LEDGER_TAG = "ugen/ledger_id"
TICK_SECONDS = 40.0
"""Seconds of a sensor's tick, of the 60 that Dagster allows."""

CHUNK = 1000
_RUNS_AT_ONCE = 500
_STORAGES = frozenset({"sqlalchemy", "dagster_postgres", "dagster_mysql"})
_UNDER_WAY = frozenset(
    {
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.MANAGED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    }
)
_log = get_logger("dagster_ugen")


class StorageUnavailableError(UGenError):
    """Dagster's own storage does not answer, or accepts no writes at the moment; the next attempt continues.

    Args:
        trouble: The storage's own words.
    """

    retryable = True

    def __init__(self, trouble: str) -> None:
        super().__init__(
            f"Dagster's own storage: {trouble.rstrip('.')}; nothing is lost: the next attempt or run of the partition "
            "continues"
        )


@contextmanager
def storage() -> Iterator[None]:
    """Report in a sentence an error that Dagster's storage reports with its statement and all parameters.

    Raises:
        StorageUnavailableError: It failed.
    """
    try:
        yield
    except Exception as error:
        # By module: which database it is, and so which packages are installed, depends on the instance.
        if type(error).__module__.partition(".")[0] not in _STORAGES:
            raise
        raise StorageUnavailableError(" ".join(str(getattr(error, "orig", None) or error).split())) from None


@dataclass(frozen=True, slots=True)
class Cost:
    """The credits of one job that the event log does not have yet.

    Attributes:
        job_id: The job.
        credits: Credits that it consumed since it was last written; 0 for a job that was there already.
        is_new: Whether the event log has nothing of it, so that it counts as a job.
    """

    job_id: str
    credits: int
    is_new: bool


class CostLog:
    """The credits that the event log has of each partition's jobs, so that each credit is written once.

    The sum of `ugen/credits` over the events of one asset is then what its jobs cost, however often they are recorded.

    Args:
        instance: The Dagster instance.
        asset_key: The asset whose events carry the credits.
        partitions: The partitions of the run; they are read together, at the first question.
    """

    def __init__(self, instance: dg.DagsterInstance, *, asset_key: dg.AssetKey, partitions: Sequence[str]) -> None:
        self._instance = instance
        self._asset_key = asset_key
        self._partitions = partitions
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, int]] | None = None

    def of(self, partition: str) -> Mapping[str, int]:
        """Return the credits that were written for each job of a partition. It blocks."""
        with self._lock:
            if self._known is None:
                with storage():
                    self._known = self._read()
            return self._known.get(partition, {})

    def cost_of(self, partition: str, job_id: str, consumed: int) -> Cost:
        """Return what is to be written of a job. It blocks."""
        written = self.of(partition)
        return Cost(job_id, consumed - written.get(job_id, 0), job_id not in written)

    def _read(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for group in chunks(self._partitions):
            wanted = dg.AssetRecordsFilter(
                asset_key=self._asset_key, asset_partitions=list(group) if group != [""] else None
            )
            for fetch in (self._instance.fetch_materializations, self._instance.fetch_observations):
                cursor: str | None = None
                while True:
                    page = fetch(wanted, limit=CHUNK, cursor=cursor)
                    for record in page.records:
                        _add_cost(found, record.asset_materialization or record.asset_observation)
                    if not page.has_more:
                        break
                    cursor = page.cursor
        return found


def _add_cost(found: dict[str, dict[str, int]], event: dg.AssetMaterialization | dg.AssetObservation | None) -> None:
    if event is None or JOB_ID not in event.metadata or CREDITS not in event.metadata:
        return
    job_id, amount = str(event.metadata[JOB_ID].value), event.metadata[CREDITS].value
    if isinstance(amount, int):
        jobs = found.setdefault(event.partition or "", {})
        jobs[job_id] = jobs.get(job_id, 0) + amount


def submitted_event(asset_key: dg.AssetKey, partition: str, bought: Purchase) -> dg.AssetObservation:
    """Return the observation of an order that a submit run sent."""
    record, job = bought.record, bought.job
    return dg.AssetObservation(
        asset_key=asset_key,
        partition=partition or None,
        description=f"submitted: job {job.job_id}, purchase {record.purchase_number}",
        metadata={JOB_ID: job.job_id, "ugen/purchase_number": record.purchase_number, "ugen/order": record.order_key},
    )


def cost_event(asset_key: dg.AssetKey, partition: str, cost: Cost) -> dg.AssetObservation:
    """Return the observation of a job that cost credits and is no materialization, such as one that failed."""
    return dg.AssetObservation(
        asset_key=asset_key,
        partition=partition or None,
        description=f"job {cost.job_id} cost {cost.credits} credits",
        metadata={JOB_ID: cost.job_id, CREDITS: cost.credits, JOBS: int(cost.is_new)},
    )


def newest_materializations(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str]
) -> dict[str, dg.EventLogRecord]:
    """Return the newest materialization of each partition; those without one are left out."""
    found: dict[str, dg.EventLogRecord] = {}
    for group in chunks(partitions):
        missing = set(group)
        cursor: str | None = None
        wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=list(group) if missing != {""} else None)
        while missing:
            with storage():
                page = instance.fetch_materializations(wanted, limit=CHUNK if len(missing) > 1 else 1, cursor=cursor)
            for record in page.records:
                made = record.asset_materialization
                partition = (made.partition or "") if made is not None else None
                if partition in missing:
                    missing.discard(partition)
                    found[partition] = record
            if not page.has_more:
                break
            cursor = page.cursor
    return found


def recorded_jobs(instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str]) -> dict[str, str]:
    """Return the job of each partition's newest materialization, where it names one."""
    found: dict[str, str] = {}
    for partition, record in newest_materializations(instance, key, partitions).items():
        made = record.asset_materialization
        value = made.metadata.get(JOB_ID) if made is not None else None
        if value is not None:
            found[partition] = str(value.value)
    return found


# Attempts and runs.


def attempt_name(run_id: str, retry_number: int) -> str:
    """Return the name of an attempt: a run, and which retry of its step."""
    return f"{run_id}:{retry_number}"


def run_of_attempt(name: str) -> str:
    """Return the run of an attempt; '' for an attempt that is no run's.

    Examples:
        >>> run_of_attempt(attempt_name("8f6b", 1))
        '8f6b'
    """
    run_id, colon, _ = name.rpartition(":")
    return run_id if colon else name


def runs_of(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> dict[str, dg.DagsterRun]:
    """Return those of some runs that exist, by id."""
    found: dict[str, dg.DagsterRun] = {}
    for group in chunks(sorted({run_id for run_id in run_ids if run_id}), _RUNS_AT_ONCE):
        found |= {run.run_id: run for run in instance.get_runs(dg.RunsFilter(run_ids=group))}
    return found


def is_under_way(run: dg.DagsterRun) -> bool:
    """Return whether a run has not ended."""
    return run.status in _UNDER_WAY


def under_way(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> set[str]:
    """Return those of some runs that have not ended."""
    return {run_id for run_id, run in runs_of(instance, run_ids).items() if is_under_way(run)}


def is_retried(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether a run that failed is followed by one that has not ended, or that Dagster has yet to start."""
    root = run.root_run_id or run.run_id
    group = [run, *instance.get_runs(dg.RunsFilter(tags={ROOT_RUN_ID_TAG: root}))]
    return any(is_under_way(each) or each.is_complete_and_waiting_to_retry for each in group)


def runs_under_way(instance: dg.DagsterInstance, *, job_name: str) -> Iterator[dg.DagsterRun]:
    """Yield the runs of a job that have not ended."""
    yield from instance.get_runs(
        dg.RunsFilter(job_name=job_name, statuses=sorted(_UNDER_WAY, key=lambda each: each.value))
    )


def code_location_of(run: dg.DagsterRun) -> str:
    """Return the code location that a run's job is of; '' where Dagster does not say."""
    origin = run.remote_job_origin
    return origin.repository_origin.code_location_origin.location_name if origin is not None else ""


# Orders of versions before the ledger.


class OlderOrders:
    """Finds the orders of one definition that a version before the ledger recorded in the event log.

    Args:
        instance: The Dagster instance.
        definition: The assets.
        account: The account.
    """

    def __init__(self, instance: dg.DagsterInstance, definition: VideoDefinition, account: Account) -> None:
        self._instance = instance
        self._definition = definition
        self._account = account

    def find(self, order_key: str) -> OlderOrder | None:
        """Return the order of a record's key; None where there is none."""
        partition = self._account.partition_of(self._definition, order_key)
        return self.find_many([partition]).get(partition) if partition is not None else None

    def find_many(self, partitions: Sequence[str]) -> dict[str, OlderOrder]:
        """Return the orders of many partitions, a thousand in one query; those without one are left out."""
        found: dict[str, OlderOrder] = {}
        for group in chunks(partitions):
            for key in self._asset_keys():
                missing = [partition for partition in group if partition not in found]
                found |= self._observed(key, missing)
        return found

    def _asset_keys(self) -> list[dg.AssetKey]:
        """Return the asset of the definition, and the one that it was called before where `order_name` names it."""
        named = dg.AssetKey.from_user_string(self._definition.resolved_order_name)
        return list(dict.fromkeys([self._definition.order_asset, named]))

    def _observed(self, key: dg.AssetKey, partitions: Sequence[str]) -> dict[str, OlderOrder]:
        found: dict[str, OlderOrder] = {}
        wanted = set(partitions)
        cursor: str | None = None
        asked = dg.AssetRecordsFilter(asset_key=key, asset_partitions=sorted(wanted) if wanted != {""} else None)
        while wanted:
            with storage():
                page = self._instance.fetch_observations(asked, limit=CHUNK, cursor=cursor)
            for record in page.records:
                observation = record.asset_observation
                if observation is None or (observation.partition or "") not in wanted:
                    continue
                partition = observation.partition or ""
                order = self._order_of(observation.metadata, partition)
                if order is not None:
                    found[partition] = order
                    wanted.discard(partition)
            if not page.has_more:
                break
            cursor = page.cursor
        return found

    def _order_of(self, metadata: Mapping[str, Any], partition: str) -> OlderOrder | None:
        from ugen_provider.core.ledger.orders import OlderOrder
        from ugen_provider.core.ledger.record import Action, OrderRecord
        from ugen_provider.core.ledger.schema import order_of_intent

        value = metadata.get(INTENT)
        if not isinstance(value, dg.JsonMetadataValue) or not isinstance(value.data, dict):
            return None
        key = self._account.record_key(self._definition, partition)
        namespace = self._account.config.namespace
        if value.data.get("scope") != str(self._definition.order_of(partition, namespace=namespace)):
            return None  # of another namespace
        fields, action = order_of_intent(dict(value.data))
        record = replace(OrderRecord.from_dict(fields), order_key=key)
        actions = (replace(Action.from_dict(action), order_key=key),) if action is not None else ()
        return OlderOrder(record, actions)


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yield items in lists of a size."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
