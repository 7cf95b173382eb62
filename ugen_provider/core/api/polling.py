# SPDX-License-Identifier: Apache-2.0
"""When a wait for a job ends, with which error, and when to poll again: the decisions that all waits share.

`client.jobs.wait_until`, the `JobWatcher` and through it every trigger, asset and batch call `judge` for each answer
and `Patience` for each error. All times are seconds; deadlines are absolute, in seconds since the epoch.
"""

from __future__ import annotations

import random
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    UGenError,
)
from ugen_provider.core.api.profile import JobState, is_known_word

if TYPE_CHECKING:
    from ugen_provider.core.api.models import Job

# Errors about one job.


class JobError(UGenError):
    """The base of errors about one job.

    Attributes:
        job_id: The job.
        job: The last answer about the job, where there is one.
    """

    def __init__(self, message: str, *, job_id: str, job: Job | None = None) -> None:
        self.job_id = job_id
        self.job = job
        super().__init__(message)


class JobFailedError(JobError):
    """The job failed, or ended without a video. The service releases its reservation.

    Attributes:
        retryable: Whether the same request can succeed; false for moderation and validation.
    """

    def __init__(self, message: str, *, job_id: str, job: Job | None = None, retryable: bool = True) -> None:
        self.retryable = retryable
        super().__init__(message, job_id=job_id, job=job)


class JobCancelledError(JobError):
    """The job was cancelled before it completed."""


class JobPausedError(JobError):
    """The job is paused by another user or process; a later attempt can find it resumed."""

    retryable = True


class JobTimeoutError(JobError, TimeoutError):
    """The deadline passed. The job keeps running; the next attempt resumes waiting for it."""

    retryable = True


class JobStatusError(JobError):
    """The job has probably ended, in a status that neither this version nor the service profile knows.

    Nothing is lost: name the meaning of the status in the profile's `status_map`, and wait again.
    """


class LowQualityError(JobError):
    """The job completed below the requested score, and `on_low_quality` is `fail`."""


FailureKind = Literal["passing", "moderation", "validation"]


_MODERATION = ("moderation", "policy", "nsfw", "prohibited", "not allowed", "safety")
_VALIDATION = ("validation", "invalid", "unsupported", "could not fetch", "unreachable image", "not an image")


def failure_kind(job: Job) -> FailureKind:
    """Why a job failed, judged by its words: the service documents no codes, so this is the one place to guess.

    An unknown reason counts as passing: repeating from a checkpoint is what the service offers for it.
    """
    words = f"{job.error_code or ''} {job.error_message or ''}".lower()
    if any(word in words for word in _MODERATION):
        return "moderation"
    if any(word in words for word in _VALIDATION):
        return "validation"
    return "passing"


# Waiting.

LEAST_INTERVAL = 5.0
"""The service asks for a poll every 5 to 10 seconds."""

DEFAULT_INTERVAL = 10.0
CREDENTIAL_PATIENCE = 15 * 60.0
"""Seconds for which a wait continues under a refused key: a rotated key takes that long to reach every process."""

MISSING_PATIENCE = 10 * 60.0
"""Seconds for which a wait continues after the first 404 for a job that is known to exist."""

STALE_PATIENCE = 15 * 60.0
"""Seconds after which an unchanged state counts although an action should have changed it."""


SILENCE = 4 * 60.0
"""Seconds after which the next poll reports the last answer, so that no wait is silent for five minutes."""

LONGEST_PAUSE = 55.0
"""Seconds between two polls at most, however long the service asks to wait, unless the interval is longer."""

UNKNOWN_PATIENCE = 15 * 60.0
"""Seconds after which a wait fails for a job that has probably ended, in a status that nobody explained."""

OTHER_SUBJECT_PATIENCE = 5 * 60.0
"""Seconds for which a wait bears answers about another job."""

VIDEO_PATIENCE = 2 * 60.0
"""Seconds for which a wait continues for a completed job whose final video is not shown yet."""


class Reason(Enum):
    """Why a wait is over."""

    ENDED = "ended"
    STAGE_REACHED = "stage_reached"
    STOPPED = "stopped"
    PAUSED = "paused"
    """Paused by another user or process."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The condition that ends a wait. The end of the job always ends it.

    Args:
        stage: Also ends when this stage is reached.
        stopped: Also ends when the job is paused as requested.
        through_pauses: Whether to wait through a pause by another user or process instead of reporting it at once.
    """

    stage: str | None = None
    stopped: bool = False
    through_pauses: bool = False


@dataclass(frozen=True, slots=True)
class EarlierState:
    """A state that was read before an action; it does not count until the job changes."""

    status: str
    stage: str | None
    updated_at: str | None

    @classmethod
    def of(cls, job: Job) -> EarlierState:
        """Take the state of a job, small enough for a trigger's arguments."""
        moved = job.updated_at
        return cls(job.status, job.current_stage, moved.isoformat() if moved is not None else None)

    def is_still(self, job: Job) -> bool:
        """Return whether the job is unchanged."""
        return self == EarlierState.of(job)


def judge(job: Job, *, goal: Goal, stale: EarlierState | None = None) -> Reason | None:
    """Decide whether an answer ends the wait.

    Args:
        job: The answer, to a request that was sent after the wait began.
        goal: The condition that ends the wait.
        stale: A state that does not count, after a retry or a resume.

    Returns:
        Why the wait is over, or None to continue it.
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
    """Decides which errors a wait survives.

    A wait survives temporary errors until the deadline, a refused key for 15 minutes, so that a key can be rotated
    under a wait, and a 404 for 10 minutes, since the job is known to exist. Everything else ends the wait; the job
    keeps running.

    Args:
        is_known: Whether the job is known to exist. Otherwise a 404 ends the wait until the service has shown the job.
    """

    __slots__ = ("_is_known", "_missing_since", "_other_since", "_refused_since", "_unclear_since", "_video_since")

    def __init__(self, *, is_known: bool = True) -> None:
        self._is_known = is_known
        self._refused_since: float | None = None
        self._missing_since: float | None = None
        self._other_since: float | None = None
        self._unclear_since: float | None = None
        self._video_since: float | None = None

    def answered(self) -> None:
        """Forget earlier refusals: the service answered about the job."""
        self._is_known = True
        self._refused_since = self._missing_since = self._other_since = None

    def awaits_video(self, job: Job, *, goal: Goal, now: float) -> bool:
        """Return whether a completed job may still get its final video, which some services add a little later."""
        lacks = job.state is JobState.COMPLETED and job.final_video_url is None and not job.may_lack_video
        if not lacks or goal.stopped or goal.stage is not None or job.stop_at_stage is not None:
            self._video_since = None
            return False
        if self._video_since is None:
            self._video_since = now
        return now - self._video_since < VIDEO_PATIENCE

    def unclear_end(self, job: Job, *, now: float) -> JobStatusError | None:
        """Return the error for a job that has probably ended, in an unknown status, for 15 minutes; else None."""
        if not has_probably_ended(job):
            self._unclear_since = None
            return None
        if self._unclear_since is None:
            self._unclear_since = now
        if now - self._unclear_since < UNKNOWN_PATIENCE:
            return None
        return JobStatusError(f"job {job.job_id}: {_unknown(job)}", job_id=job.job_id, job=job)

    def bears(self, error: UGenError, *, now: float) -> bool:
        """Return whether to continue waiting after this error."""
        if isinstance(error, AuthenticationError | PermissionDeniedError):
            if self._refused_since is None:
                self._refused_since = now
            return now - self._refused_since < CREDENTIAL_PATIENCE
        if isinstance(error, NotFoundError):
            if self._missing_since is None:
                self._missing_since = now
            # The next attempt may find the job: an account or a base URL that was wrong is corrected by then.
            error.retryable = self._is_known
            return self._is_known and now - self._missing_since < MISSING_PATIENCE
        if isinstance(error, ResponseError) and error.wrong_subject:
            if self._other_since is None:
                self._other_since = now
            return now - self._other_since < OTHER_SUBJECT_PATIENCE
        return error.retryable


def has_probably_ended(job: Job) -> bool:
    """Whether a job in an unknown status shows signs of its end: a time, a video, or 100 %."""
    if is_known_word(job.status):
        return False
    return job.completed_at is not None or job.final_video_url is not None or (job.progress_percent or 0) >= 100


def _unknown(job: Job) -> str:
    word = job.status
    mapped = f'service_profile={{"status_map": {{"{word}": "completed"}}}}'
    what = "the service names no status" if word == "unknown" else f"the status {word!r} is not known"
    if has_probably_ended(job):
        return f"{what}, and the job has probably ended. Say what it means: {mapped}; then run again"
    return f"{what}; it counts as active. If it is an end, say so: {mapped}"


@dataclass(frozen=True, slots=True)
class WaitLine:
    """One line for the log of a wait."""

    text: str
    is_warning: bool = False


class WaitReport:
    """Decides what the log says during a wait, so that none is silent for more than five minutes.

    Args:
        job_id: The job.
        now: Seconds since the epoch.
    """

    __slots__ = ("_heard", "_job_id", "_last", "_said", "_seen", "_warned", "_words")

    def __init__(self, job_id: str, *, now: float) -> None:
        self._job_id = job_id
        self._heard = self._said = self._warned = now
        self._seen: tuple[object, ...] | None = None
        self._last = ""
        self._words: set[str] = set()

    def heard(self, *, now: float) -> None:
        """Note a readable answer about the job, such as its row in a list."""
        self._heard = self._warned = now

    def answered(self, job: Job, *, now: float) -> tuple[WaitLine, ...]:
        """Return the lines for an answer: each change, each unknown status once, else one in five minutes."""
        self.heard(now=now)
        lines: list[WaitLine] = []
        seen = (job.status, job.current_stage)
        if seen != self._seen or now - self._said >= SILENCE:
            self._seen, self._said = seen, now
            percent = f", {job.progress_percent:.0f} %" if job.progress_percent is not None else ""
            stage = f" in stage {job.current_stage}" if job.current_stage else ""
            lines.append(WaitLine(f"job {self._job_id}: {job.status}{stage}{percent}"))
        if not is_known_word(job.status):
            word = f"{job.status}, ended" if has_probably_ended(job) else job.status
            if word not in self._words:
                self._words.add(word)
                lines.append(WaitLine(f"job {self._job_id}: {_unknown(job)}", is_warning=True))
        return tuple(lines)

    def paused(self, *, now: float, seconds: float) -> tuple[WaitLine, ...]:
        """Return the line for a long pause between two polls."""
        self._said = now
        return (WaitLine(f"job {self._job_id}: waiting; the next poll follows in {seconds:.0f} s"),)

    def failed(self, error: UGenError, *, now: float) -> tuple[WaitLine, ...]:
        """Return the lines for an error: one in five minutes without a readable answer."""
        self._last = str(error)
        if now - self._warned < SILENCE:
            return ()
        self._warned = now
        minutes = (now - self._heard) / 60
        advice = _advice(error)
        text = f"job {self._job_id}: no readable answer for {minutes:.0f} minutes; the last one: {self._last}. {advice}"
        return (WaitLine(text, is_warning=True),)


def _advice(error: UGenError) -> str:
    if isinstance(error, RateLimitError):
        return "The wait continues; fewer waits at once, or a longer interval, need fewer requests"
    if isinstance(error, NotFoundError):
        return "Check the job's id, the account and base_url"
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return "Check the API key"
    if isinstance(error, ResponseError):
        return "Check base_url, and any proxy; `ugen doctor` shows what the service answers. The wait continues"
    return "Check the network; the wait continues, and the job keeps running"


LONGEST_INTERVAL = 600.0
"""Seconds between two polls of a lone job at most."""

_LEFT_AT_LEAST: Mapping[str, float] = {
    "prepare": 0.5,
    "agents": 0.4,
    "init": 0.3,
    "generation": 0.15,
    "concat": 0.11,
    "audio": 0.055,
    "captions": 0.0055,
}
"""The share of the time waited so far that is left at least while a job is in a stage: the later stages take that long.

An assumption, with the proportions of a job of three segments. Where it is wrong, an end is noticed later, by one
interval.
"""

FIRST_SHARE = 0.8
"""The share of the median duration of such jobs after which a job that was just created is polled first."""


def lone_interval(job: Job | None, *, interval: float, now: float, began: float) -> float:
    """Return the seconds between two polls of a lone job: longer while its end is far, and never shorter than asked.

    Args:
        job: The last answer; None before the first.
        interval: The shortest time between two polls.
        now: Seconds since the epoch.
        began: When the wait began, in seconds since the epoch.

    Examples:
        >>> lone_interval(None, interval=10.0, now=100.0, began=0.0)
        10.0
    """
    if job is None or job.state is not JobState.ACTIVE:
        return interval
    # Since the wait began and not since the job was created: a job that is retried is old, and its stages are not.
    waited = now - began
    return max(interval, min(LONGEST_INTERVAL, _LEFT_AT_LEAST.get(job.current_stage or "", 0.0) * waited))


class DurationHistory:
    """How long completed jobs took, by model and number of segments; the newest 64 of each kind are kept.

    Examples:
        >>> DurationHistory().first_poll(None, now=0.0)
        0.0
    """

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: dict[tuple[object, object], deque[float]] = {}

    def observe(self, job: Job) -> None:
        """Take note of a completed job; every other one says nothing of how long such jobs take."""
        if job.state is JobState.COMPLETED and job.created_at is not None and job.completed_at is not None:
            seconds = job.completed_at.timestamp() - job.created_at.timestamp()
            if seconds > 0:
                self._seconds.setdefault(_kind(job), deque(maxlen=64)).append(seconds)

    def first_poll(self, job: Job | None, *, now: float) -> float:
        """Return the seconds to wait before the first poll of a job that was just created; 0 where nothing is known."""
        if job is None or job.created_at is None or job.state is not JobState.ACTIVE:
            return 0.0
        known = self._seconds.get(_kind(job))
        if known is None or len(known) < _ENOUGH:
            return 0.0
        age = max(0.0, now - job.created_at.timestamp())
        # Not beyond the shortest: a kind whose jobs differ much is polled early.
        expected = min(FIRST_SHARE * statistics.median(known), *known)
        return max(0.0, min(LONGEST_INTERVAL, expected - age))


_ENOUGH = 3
"""Completed jobs of a kind from which on their durations count."""


def _kind(job: Job) -> tuple[object, object]:
    return job.video_model, (job.model_extra or {}).get("segment_count", len(job.segments))


def next_poll(
    *, interval: float, now: float, deadline: float | None, draw: Callable[[], float] = random.random
) -> float:
    """Return the seconds until the next poll: the interval with up to 10 % of jitter, never beyond the deadline.

    Examples:
        >>> next_poll(interval=10.0, now=100.0, deadline=103.0, draw=lambda: 0.5)
        3.0
    """
    wait = interval * (0.95 + 0.1 * draw())
    return wait if deadline is None else max(0.0, min(wait, deadline - now))


def timed_out(job_id: str, job: Job | None) -> JobTimeoutError:
    """Return the error for a deadline that has passed."""
    state = f"it is {job.status} in stage {job.current_stage}" if job is not None else "its state could not be read"
    return JobTimeoutError(
        f"job {job_id} did not end in time: {state}. It keeps running; run again to resume waiting for it",
        job_id=job_id,
        job=job,
    )


@dataclass(frozen=True, slots=True)
class WaitOutcome:
    """The job at the end of a wait, and why the wait is over.

    Attributes:
        job: The last answer.
        reason: Why the wait is over.
        listed: Whether the job was read from a list, which may lack fields of `GET /jobs/{jobId}`, and may lag.
    """

    job: Job
    reason: Reason
    listed: bool = False
