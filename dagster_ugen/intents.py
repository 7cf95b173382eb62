# SPDX-License-Identifier: Apache-2.0
"""Intents in Dagster's event log: an observation before the POST, one with the job id, and the newest as the fence.

The observations belong to no run, so that deleting old runs loses none of them. Each names its holder, the run that
wrote it: the newest one's holder has the order, and whoever finds that it has it no longer stops.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg

from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.jobs.scope import partition_scope

if TYPE_CHECKING:
    from ugen_provider.core.jobs.intent import Intent

INTENT = "ugen/intent"
JOB_ID = "ugen/job_id"
_PAGE = 1000
_AHEAD_SECONDS = 5.0
_STORAGES = frozenset({"sqlalchemy", "dagster_postgres", "dagster_mysql"})


class ScopeLostError(UGenError):
    """Another run holds this order now; this one stops and leaves the job to it.

    Args:
        message: What happened and what to do.
        holder: The run that holds the order.
    """

    def __init__(self, message: str, *, holder: str) -> None:
        self.holder = holder
        super().__init__(message)


class StorageUnavailableError(UGenError):
    """Dagster's own storage went away, or took nothing at the moment; another attempt goes on where this one was.

    Args:
        trouble: What the storage said.
    """

    def __init__(self, trouble: str) -> None:
        super().__init__(
            f"Dagster's own storage: {trouble.rstrip('.')}; nothing is lost: the next attempt or run of the partition "
            "goes on where this one was"
        )


@contextmanager
def storage() -> Iterator[None]:
    """Tell in a sentence what Dagster's storage tells with its statement and all parameters.

    Raises:
        StorageUnavailableError: It failed.
    """
    try:
        yield
    except Exception as error:
        # By module, since which database it is, and so which packages are there, is the instance's affair.
        if type(error).__module__.partition(".")[0] not in _STORAGES:
            raise
        raise StorageUnavailableError(" ".join(str(getattr(error, "orig", None) or error).split())) from None


class IntentLog:
    """The intents of one asset's partitions.

    Args:
        instance: The Dagster instance whose event log keeps them.
        asset_key: The asset that the observations are of.
        holder: Who writes: a run's id, or a name of its own for what is no run.

    Attributes:
        lock: Held by whoever writes events, since SQLite takes one writer at a time.

    Examples:
        >>> log = IntentLog(instance, asset_key=dg.AssetKey("final_video"), holder=context.run_id)
        >>> log.of("LL-1001").read(scope) is None
        True
    """

    def __init__(self, instance: dg.DagsterInstance, *, asset_key: dg.AssetKey, holder: str) -> None:
        self._instance = instance
        self.asset_key = asset_key
        self.holder = holder
        self.lock = threading.RLock()
        self._ahead: dict[str, Intent] = {}
        self._ahead_until = 0.0

    def of(self, partition: str) -> ObservationIntentStore:
        """The store for one partition's intent; the partition of an unpartitioned asset is ''."""
        return ObservationIntentStore(self, partition)

    def newest(self, partition: str) -> Intent | None:
        """The newest intent of a partition, whoever holds it. One query of a few milliseconds."""
        return next((intent for _, intent in self._observed([partition] if partition else None, limit=5)), None)

    def newest_of(self, partitions: Sequence[str]) -> dict[str, Intent]:
        """The newest intents of many partitions, a thousand in one query; those without one are missing."""
        found: dict[str, Intent] = {}
        for start in range(0, len(partitions), _PAGE):
            wanted = set(partitions[start : start + _PAGE])
            for partition, intent in self._observed(sorted(wanted) if wanted != {""} else None, limit=_PAGE):
                if partition in wanted:
                    found[partition] = intent
                    wanted.discard(partition)
                if not wanted:
                    break
        return found

    def read_ahead(self, partitions: Sequence[str]) -> dict[str, Intent]:
        """Read many intents at once; a `read` of the next few seconds is answered from here."""
        found = self.newest_of(partitions)
        self._ahead = dict(found)
        self._ahead_until = time.monotonic() + _AHEAD_SECONDS
        return found

    def claim(self, partition: str) -> Intent | None:
        """Take the order of a partition over, so that any earlier holder finds that it has it no longer."""
        with self.lock:
            fresh = time.monotonic() < self._ahead_until
            ahead = self._ahead.pop(partition, None) if fresh else None
            intent = ahead if ahead is not None else self.newest(partition)
            if intent is None or intent.holder == self.holder:
                return intent
            return self._write(partition, intent)

    def _label(self, partition: str) -> str:
        return partition_scope(asset=self.asset_key.to_user_string(), partition=partition).label

    def held(self, partition: str) -> Intent | None:
        """The newest intent of a partition that was claimed here.

        Raises:
            ScopeLostError: Another run has claimed it since.
        """
        intent = self.newest(partition)
        if intent is not None and intent.holder != self.holder:
            raise ScopeLostError(
                f"{self._label(partition)}: run {intent.holder or 'of somebody else'} took this order over and goes on "
                f"with it; run {self.holder} stops here and leaves job {intent.job_id or 'and POST'} alone",
                holder=intent.holder,
            )
        return intent

    def write(self, partition: str, intent: Intent) -> None:
        """Keep an intent.

        Raises:
            ScopeLostError: Another run has claimed the order since; nothing was written.
        """
        with self.lock:
            self.held(partition)
            self._write(partition, intent)

    def _write(self, partition: str, intent: Intent) -> Intent:
        mine = replace(intent, holder=self.holder)
        with storage():
            self._instance.report_runless_asset_event(
                dg.AssetObservation(
                    asset_key=self.asset_key,
                    partition=partition or None,
                    description=_told(mine),
                    metadata={
                        INTENT: dg.MetadataValue.json(mine.to_dict()),
                        "ugen/generation": mine.generation,
                        **({JOB_ID: mine.job_id} if mine.job_id else {}),
                        **({"ugen/run": dg.MetadataValue.dagster_run(mine.holder)} if mine.holder else {}),
                    },
                )
            )
        return mine

    def _observed(self, partitions: Sequence[str] | None, *, limit: int) -> Iterator[tuple[str, Intent]]:
        """Intents, newest first. Other observations of the asset, such as a user's own, are passed over."""
        cursor: str | None = None
        wanted = dg.AssetRecordsFilter(asset_key=self.asset_key, asset_partitions=partitions)
        while True:
            with storage():
                page = self._instance.fetch_observations(wanted, limit=limit, cursor=cursor)
            for record in page.records:
                observation = record.asset_observation
                if observation is not None and (intent := read_intent(observation)) is not None:
                    yield observation.partition or "", intent
            if not page.has_more:
                return
            cursor, limit = page.cursor, _PAGE


class ObservationIntentStore:
    """An `IntentStore` of `core.jobs` for one partition; made by `IntentLog.of`."""

    durable = True

    def __init__(self, log: IntentLog, partition: str) -> None:
        self._log = log
        self._partition = partition
        self._claimed = False

    def read(self, scope: str) -> Intent | None:  # noqa: ARG002  one partition of one asset is one scope
        """The newest intent. The first read claims the order for this run.

        Raises:
            ScopeLostError: Another run has claimed the order since the first read.
        """
        if self._claimed:
            return self._log.held(self._partition)
        intent = self._log.claim(self._partition)
        self._claimed = True
        return intent

    def write(self, intent: Intent) -> None:
        """Keep an intent; when this returns it is in the event log.

        Raises:
            ScopeLostError: Another run has claimed the order since.
        """
        self._log.write(self._partition, intent)


def read_intent(observation: dg.AssetObservation) -> Intent | None:
    """The intent that an observation holds, if it is one of ours."""
    from ugen_provider.core.jobs.intent import Intent

    value = observation.metadata.get(INTENT)
    if not isinstance(value, dg.JsonMetadataValue) or not isinstance(value.data, dict):
        return None
    return Intent.from_dict(value.data)


def _told(intent: Intent) -> str:
    about = f"job {intent.job_id}" if intent.job_id else "the order, before it is sent"
    if intent.action is not None:
        done = "confirmed" if intent.action.confirmed else "not confirmed yet"
        return f"U-Gen: {intent.action.kind} of {about} ({intent.action.reason}), {done}"
    again = f", generation {intent.generation}" if intent.generation else ""
    return f"U-Gen: {about}{again}"
