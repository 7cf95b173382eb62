# SPDX-License-Identifier: Apache-2.0
"""One look at many jobs, for a sensor's tick: with as few requests as possible, and without waiting for anything.

It is imported when a tick needs it and not before, since it brings the HTTP client.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api.config import ClientConfig
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.api.flows import Operation
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.jobs.looking import Budget, Looker

T = TypeVar("T")


class _Seen:
    """Keeps what one look tells."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}

    def now(self) -> float:
        return time.time()

    def is_news(self, job_id: str, *, state: JobState, stage: str | None) -> bool:
        del job_id, stage
        return state.ended

    def answered(self, job: Job, *, asked_at: float, listed: bool) -> None:
        del asked_at, listed
        self.jobs[job.job_id] = job

    async def failed(self, job_id: str, error: UGenError) -> None:
        """What cannot be seen now is looked at by the next tick."""


async def ended_jobs(config: ClientConfig, job_ids: Sequence[str]) -> dict[str, Job]:
    """Those of some jobs that have ended. Free; a GET each, or pages of the account's jobs where that is cheaper.

    Args:
        config: The account.
        job_ids: The jobs.
    """
    if not job_ids:
        return {}
    seen = _Seen()
    async with AsyncUGenClient(config=config) as client:

        def send(operation: Operation[T]) -> Awaitable[T]:
            return client.call(operation)

        await Looker(send, seen, budget=Budget(left=2.0 * len(job_ids))).look(job_ids)
    return {job_id: job for job_id, job in seen.jobs.items() if job.ended}
