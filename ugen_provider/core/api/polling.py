# SPDX-License-Identifier: Apache-2.0
"""What ends a wait for a job, and when to look again: the decisions that every waiter shares.

`client.jobs.wait`, the `JobWatcher` and through it every trigger, asset and batch ask `judge` about each answer and
`Patience` about each error. All times are seconds; deadlines are absolute, seconds since the epoch.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ugen_provider.core.api import operations, rules
from ugen_provider.core.api.effects import Flow, Now, Sleep
from ugen_provider.core.api.errors import (
    APIError,
    AuthenticationError,
    JobTimeoutError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerError,
    TransportError,
    UGenError,
)
from ugen_provider.core.api.flows import Caller
from ugen_provider.core.api.states import JobState

if TYPE_CHECKING:
    from ugen_provider.core.api.models import Job

LEAST_INTERVAL = 5.0
"""The service asks for a poll every 5 to 10 seconds."""

DEFAULT_INTERVAL = 10.0
CREDENTIAL_PATIENCE = 15 * 60.0
"""How long a refused key is borne while waiting: a rotation takes that long to reach everyone."""

STALE_PATIENCE = 15 * 60.0
"""After which an unchanged state is believed although an action should have moved it."""


class Reason(Enum):
    """Why a wait is over."""

    ENDED = "ended"
    STAGE_REACHED = "stage_reached"
    STOPPED = "stopped"
    PAUSED = "paused"
    """Paused, and nobody here asked for it."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a waiter waits for. The end of the job always ends the wait.

    Args:
        stage: Also ends when this stage is reached.
        stopped: Also ends when the job stands still, paused as it was told to.
        through_pauses: Whether a pause by somebody else is waited through instead of told at once.
    """

    stage: str | None = None
    stopped: bool = False
    through_pauses: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A state that was seen before an action, and that does not count until it moved."""

    status: str
    stage: str | None
    updated_at: str | None

    @classmethod
    def of(cls, job: Job) -> Seen:
        """The state of a job, small enough for a trigger's arguments."""
        moved = job.updated_at
        return cls(job.status, job.current_stage, moved.isoformat() if moved is not None else None)

    def is_still(self, job: Job) -> bool:
        """Whether the job looks as it did."""
        return self == Seen.of(job)


def judge(job: Job, *, goal: Goal, stale: Seen | None = None) -> Reason | None:
    """Whether an answer ends the wait.

    Args:
        job: The answer, to a request that was sent after the wait began.
        goal: What is waited for.
        stale: A state that does not count, after a retry or a resume.

    Returns:
        Why the wait is over, or None to go on.
    """
    if stale is not None and stale.is_still(job):
        return None
    if job.ended:
        return Reason.ENDED
    if job.state is JobState.PAUSED:
        if goal.stopped:
            return Reason.STOPPED
        return None if goal.through_pauses else Reason.PAUSED
    if goal.stage is not None and _reached(job.current_stage, goal.stage):
        return Reason.STAGE_REACHED
    return None


def _reached(current: str | None, target: str) -> bool:
    if current not in rules.STAGES or target not in rules.STAGES:
        return current == target
    return rules.STAGES.index(current) >= rules.STAGES.index(target)


class Patience:
    """Which errors a wait bears.

    Passing errors are borne until the deadline. A refused key is borne for `CREDENTIAL_PATIENCE`, so that a key can be
    rotated under a wait. Everything else, such as an unknown job, ends the wait. The job is left in every case.
    """

    __slots__ = ("_refused_since",)

    def __init__(self) -> None:
        self._refused_since: float | None = None

    def answered(self) -> None:
        """The service answered: an earlier refusal of the key is forgotten."""
        self._refused_since = None

    def bears(self, error: UGenError, *, now: float) -> bool:
        """Whether to go on waiting after this error."""
        if isinstance(error, AuthenticationError | PermissionDeniedError):
            if self._refused_since is None:
                self._refused_since = now
            return now - self._refused_since < CREDENTIAL_PATIENCE
        if isinstance(error, TransportError | ServerError | RateLimitError | ResponseError):
            return True
        return isinstance(error, APIError) and error.status in {408, 425}


def next_poll(
    *, interval: float, now: float, deadline: float | None, draw: Callable[[], float] = random.random
) -> float:
    """Seconds until the next look: the interval with up to 10 % of jitter, never far beyond the deadline.

    Examples:
        >>> next_poll(interval=10.0, now=100.0, deadline=103.0, draw=lambda: 0.5)
        3.0
    """
    wait = interval * (0.95 + 0.1 * draw())
    return wait if deadline is None else max(0.0, min(wait, deadline - now))


def timed_out(job_id: str, job: Job | None) -> JobTimeoutError:
    """The error for a deadline that has passed."""
    state = f"it is {job.status} in stage {job.current_stage}" if job is not None else "it was not seen in time"
    return JobTimeoutError(
        f"job {job_id} did not end in time: {state}. It was left as it is; asking again attaches to it",
        job_id=job_id,
        job=job,
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The job as last seen, and why the wait is over.

    Attributes:
        job: As last seen.
        reason: Why the wait is over.
        listed: Whether a list told it, which may lack what `GET /jobs/{jobId}` tells, and may lag.
    """

    job: Job
    reason: Reason
    listed: bool = False


def wait(
    caller: Caller,
    job_id: str,
    *,
    goal: Goal,
    interval: float = DEFAULT_INTERVAL,
    deadline: float | None = None,
    stale: Seen | None = None,
) -> Flow[Outcome]:
    """Look at a job until the wait is over: one GET per interval. The status is read before the deadline is checked.

    Raises:
        JobTimeoutError: The deadline passed; the job was left.
        UGenError: An error that a wait does not bear.
    """
    patience = Patience()
    began: float = yield Now()
    job: Job | None = None
    while True:
        pause = interval
        try:
            job = yield from caller.call(operations.get_job(job_id))
        except UGenError as error:
            now: float = yield Now()
            if not patience.bears(error, now=now):
                raise
            pause = max(interval, getattr(error, "retry_after", None) or 0.0)
        else:
            patience.answered()
            now = yield Now()
            reason = judge(job, goal=goal, stale=stale if now - began < STALE_PATIENCE else None)
            if reason is not None:
                return Outcome(job, reason)
        if deadline is not None and now >= deadline:
            raise timed_out(job_id, job)
        yield Sleep(seconds=next_poll(interval=pause, now=now, deadline=deadline))
