# SPDX-License-Identifier: Apache-2.0
"""`UGenJobEventTrigger`: assets that are updated when a job of the account ends, from any entry point."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from ugen_provider.core.api.errors import ConfigError

if TYPE_CHECKING:
    from ugen_provider.core.api.models import Job

ENDINGS = ("completed", "failed", "cancelled")
CURSOR = "ugen_cursor"
OVERLAP = 15 * 60.0
"""Seconds that lists may lag behind: jobs that ended later than that are distinguished by their ids."""

LOOK_BACK = 24 * 3600.0
_MOST_PAGES = 10


@dataclass(slots=True)
class EventCursor:
    """The jobs that were reported already.

    Attributes:
        since: Seconds since the epoch; a job that ended more than `OVERLAP` before was reported, or is too old.
        reported: Jobs that were reported since, with when they ended.
    """

    since: float
    reported: dict[str, float] = field(default_factory=dict)

    def is_news(self, job_id: str, ended_at: float) -> bool:
        """Return whether this job was not reported yet; if so, it counts as reported from now on."""
        if job_id in self.reported or ended_at <= self.since - OVERLAP:
            return False
        self.reported[job_id] = ended_at
        self.since = max(self.since, ended_at)
        self.reported = {known: at for known, at in self.reported.items() if at > self.since - OVERLAP}
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return the cursor as JSON types, for the asset's state store."""
        return {"since": self.since, "reported": self.reported}

    @classmethod
    def from_dict(cls, stored: object) -> EventCursor | None:
        """Read what `to_dict` made; None where it is something else."""
        if not isinstance(stored, Mapping) or not isinstance(stored.get("since"), int | float):
            return None
        return cls(float(stored["since"]), dict(stored.get("reported") or {}))


class UGenJobEventTrigger(BaseEventTrigger):
    """Fires for each job of the account that ends. Free; `GET /jobs`, shared by all such triggers of a triggerer.

    The payload of each event holds, under `ugen`, what the operators' results and the webhook's events hold: `job_id`,
    `status`, `product_name`, `final_video_url`, `credits_consumed` and more. Airflow puts it into the asset event as
    `extra["payload"]`. From Airflow 3.3 on a cursor is kept with the asset, so that a job that ends while no triggerer
    runs is reported later, and none twice.

    Args:
        ugen_conn_id: The connection.
        status: Only jobs that end so; None for all: `completed`, `failed`, `cancelled`.
        poll_interval: Seconds between polls.

    Examples:
        ```python
        videos = Asset(
            "ugen_videos", watchers=[AssetWatcher(name="ended", trigger=UGenJobEventTrigger(status="completed"))]
        )
        ```
    """

    def __init__(
        self, *, ugen_conn_id: str = "ugen_default", status: str | None = None, poll_interval: float = 15.0
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if status is not None and status not in ENDINGS:
            raise ConfigError(f"status: must be one of {', '.join(ENDINGS)}, got {status!r}")
        self.ugen_conn_id = ugen_conn_id
        self.status = status
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, primitives all."""
        return (
            "ugen_provider.triggers.events.UGenJobEventTrigger",
            {"ugen_conn_id": self.ugen_conn_id, "status": self.status, "poll_interval": self.poll_interval},
        )

    def shared_stream_key(self) -> Hashable | None:
        """Return the key of the stream that all triggers of one connection and interval share."""
        return ("ugen", self.ugen_conn_id, self.poll_interval)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the jobs that ended recently, poll by poll."""
        async for ended in _ended_jobs(str(kwargs["ugen_conn_id"]), float(kwargs["poll_interval"])):
            yield ended

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Return what of it is news for this trigger."""
        cursor = await self._read_cursor()
        async for ended in shared_stream:
            news = [job for job in ended if self._wanted(job) and cursor.is_news(job["job_id"], job["ended_at"])]
            for job in news:
                event = {name: value for name, value in job.items() if name != "ended_at"}
                yield TriggerEvent({"ugen": event})  # type: ignore[no-untyped-call]
            if news:
                await self._write_cursor(cursor)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Without shared streams, below Airflow 3.3: a stream of its own."""
        stream = _ended_jobs(self.ugen_conn_id, self.poll_interval)
        async for event in self.filter_shared_stream(stream):
            yield event

    def _wanted(self, job: Mapping[str, Any]) -> bool:
        return self.status is None or job["status"] == self.status

    async def _read_cursor(self) -> EventCursor:
        store = getattr(self, "asset_state_store", None)
        stored = None if store is None else await store.aget(CURSOR)
        cursor = EventCursor.from_dict(stored)
        if cursor is None:
            # It begins now: events for all jobs that ever ended would be of no use.
            cursor = EventCursor(time.time() + OVERLAP)
            await self._write_cursor(cursor)
        return cursor

    async def _write_cursor(self, cursor: EventCursor) -> None:
        store = getattr(self, "asset_state_store", None)
        if store is not None:
            await store.aset(CURSOR, cursor.to_dict())


async def _ended_jobs(ugen_conn_id: str, poll_interval: float) -> AsyncIterator[list[dict[str, Any]]]:
    from ugen_provider.hooks.ugen import UGenHook

    client = await UGenHook(ugen_conn_id).get_async_conn()
    from ugen_provider.core.api import endpoints
    from ugen_provider.core.api.async_client import call_endpoint
    from ugen_provider.core.api.errors import UGenError

    since = time.time() - LOOK_BACK
    try:
        while True:
            found: list[dict[str, Any]] = []
            try:
                for status in ENDINGS:
                    for number in range(1, _MOST_PAGES + 1):
                        page = await call_endpoint(client, endpoints.list_jobs(status=status, page=number))
                        jobs = [endpoints.read_listed_job(item) for item in page.items]
                        recent = [(job, at) for job in jobs if (at := _ended_at(job)) is not None and at > since]
                        found += [describe_ended(job, at) for job, at in recent if job.ended]
                        if not page.more or not recent:
                            break
            except UGenError:
                # A list that could not be read whole is read again; nothing is lost, since nothing was reported.
                found = []
            if found:
                since = max(since, max(job["ended_at"] for job in found) - 2 * OVERLAP)
                yield sorted(found, key=lambda job: job["ended_at"])
            await asyncio.sleep(poll_interval)
    finally:
        await client.aclose()


def _ended_at(job: Job) -> float | None:
    moment = job.completed_at or job.updated_at
    return None if moment is None else float(moment.timestamp())


def describe_ended(job: Job, ended_at: float) -> dict[str, Any]:
    """Return the payload of an event about a job that ended, with when it did."""
    from ugen_provider.core.jobs.results import Scores, describe

    return {**describe(job, scores=Scores.of(job)), "status": job.state.value, "ended_at": ended_at}
