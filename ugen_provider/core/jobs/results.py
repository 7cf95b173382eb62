# SPDX-License-Identifier: Apache-2.0
"""Results of steps, searches and requests, their meaning, and a job's summary. Both twins of `core.jobs` share them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from ugen_provider.core.api.config import Network
from ugen_provider.core.api.errors import PurchaseError, RateLimitError
from ugen_provider.core.api.models import Job, Keyframe, Segment
from ugen_provider.core.api.polling import (
    EarlierState,
    Goal,
    JobCancelledError,
    JobFailedError,
    JobPausedError,
    LowQualityError,
    Reason,
    WaitOutcome,
    failure_kind,
)
from ugen_provider.core.api.profile import DEFAULT_PROFILE, JobState
from ugen_provider.core.jobs.order import Order, Purchase, PurchaseOutcome, is_loopback
from ugen_provider.core.jobs.policy import has_ordered_outputs
from ugen_provider.core.ledger.record import Action, OrderRecord

_LIMIT_PAUSE = 30.0


# Steps of the purchase loop.


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """The job has ended as ordered, or awaits approval at its gate."""

    purchase: Purchase


@dataclass(frozen=True, slots=True)
class WaitForJob:
    """The job runs. Wait for it by any means, then call `next_step` with the result."""

    purchase: Purchase


@dataclass(frozen=True, slots=True)
class WaitForSlot:
    """The account's limit of concurrent or daily jobs is reached; nothing was bought. Wait, then call `next_step`."""

    error: RateLimitError

    @property
    def pause(self) -> float:
        """Seconds to wait: as long as the service says, else 30."""
        return limit_pause(self.error)


Step = FinishedJob | WaitForJob | WaitForSlot


def needs_wait(bought: Purchase) -> bool:
    """Return whether there is something to wait for."""
    finished = bought.job.ended or bought.outcome is PurchaseOutcome.AWAITING_APPROVAL
    return bought.stale is not None or not finished


def should_retry_purchase(outcome: WaitOutcome, *, durable: bool) -> bool:
    """Return whether the policy has to be asked again: for a cancelled job, where a record says whose cancel it was."""
    return outcome.job.state is JobState.CANCELLED and durable


def wait_condition(order: Order) -> Goal:
    """Return what a wait for this order waits for."""
    stops = order.body.get("stop_at_stage") is not None
    return Goal(stopped=stops, through_pauses=order.policy.on_paused == "wait")


def limit_pause(error: RateLimitError) -> float:
    """Return the seconds to wait after a 429: as long as the service says, else 30."""
    return max(1.0, error.retry_after if error.retry_after is not None else _LIMIT_PAUSE)


def raise_for_status(bought: Purchase, *, order: Order, reason: Reason = Reason.ENDED) -> None:
    """Raise if the job of a purchase did not end as ordered.

    Raises:
        JobFailedError: It failed, or completed without what was ordered.
        JobCancelledError: It was cancelled.
        JobPausedError: Another user paused it, and waiting for that was not wanted.
    """
    job = bought.job
    about = f"job {job.job_id} of {order.label}"
    match job.state:
        case JobState.COMPLETED if not has_ordered_outputs(job, body=bought.record.body):
            why = "completed without a final video, although no earlier stop was asked for"
            raise JobFailedError(f"{about} {why}", job_id=job.job_id, job=job, retryable=False)
        case JobState.FAILED:
            why = job.error_message or "the service gave no reason"
            retryable = failure_kind(job) == "passing"
            raise JobFailedError(f"{about} failed: {why}", job_id=job.job_id, job=job, retryable=retryable)
        case JobState.CANCELLED:
            raise JobCancelledError(f"{about} was cancelled", job_id=job.job_id, job=job)
        case JobState.PAUSED if reason is Reason.PAUSED:
            raise JobPausedError(f"{about} was paused by another user; resume it", job_id=job.job_id, job=job)
        case _:
            return


# Searches.


@dataclass(frozen=True, slots=True)
class KeySearch:
    """The result of a search.

    Attributes:
        job: The job that has the key; None if the list shows none.
        why_undecided: Why the list does not prove that there is none; '' if it does.
    """

    job: Job | None
    why_undecided: str = ""


def require_found_or_absent(
    result: KeySearch,
    *,
    order: Order,
    record: OrderRecord,
    now: float,
    last_send: float | None = None,
    lag: float = DEFAULT_PROFILE.list_lag,
) -> Job | None:
    """Return the job that a search found, or None if its absence is proven.

    Args:
        result: Of the search.
        order: The order, for the error.
        record: Its record.
        now: Seconds since the epoch.
        last_send: When the request was last sent, if that may have bought; the list may lag behind it.
        lag: Seconds by which the list may be behind.

    Raises:
        PurchaseError: The list proves nothing.
    """
    why = result.why_undecided
    if result.job is None and not why and last_send is not None and now - last_send < lag:
        why = f"the request was sent less than {lag / 60:g} minutes ago"
    if result.job is not None or not why:
        return result.job
    settle = f"ugen ledger settle {shlex.quote(record.order_key)}"
    raise PurchaseError(
        f"{order.label}: an earlier attempt may have bought a job under the key {record.key}, and {why}. Check the "
        f"account's jobs, then settle the order: {settle} --job ID, or --absent",
        scope=str(order.key),
        reason="undecidable",
        retryable=True,
    )


# Requests about a job.


@dataclass(frozen=True, slots=True)
class CancelResult:
    """The result of a cancel.

    Attributes:
        job: The job as it is now; None where the service does not know it.
        confirmed: Whether it is cancelled. False for a job that ended first: its result counts.
    """

    job: Job | None
    confirmed: bool

    @property
    def settled(self) -> bool:
        """Whether nothing is owed any more: the job has ended, or does not exist."""
        return self.job is None or self.job.ended


@dataclass(frozen=True, slots=True)
class ActionResult:
    """A job that was retried or resumed.

    Attributes:
        job: The job as it is now.
        outcome: `done`, or `already` where it was active, or an earlier attempt had asked.
        stale: A state that does not count while waiting.
    """

    job: Job
    outcome: Literal["done", "already"]
    stale: EarlierState | None = None


@dataclass(frozen=True, slots=True)
class ResumeResult:
    """A job beyond its gate.

    Attributes:
        job: The job as it is now.
        outcome: `resumed`, `retried` where the service had ended it at the gate, or `already` where it was active.
        stale: A state that does not count while waiting.
    """

    job: Job
    outcome: Literal["resumed", "retried", "already"]
    stale: EarlierState | None = None


# The reconciler.


OwnerState = Literal["over", "alive", "unknown"]
"""Of the attempt that an event ended: `over` (ended or gone), `alive` (queued, running, cleared), or not known."""

AttemptState = Literal["alive", "failed", "ended", "succeeded", "unknown"]
"""Of an order's newest attempt: `ended` where no hook fires (skipped, removed, its run gone), `failed` for good."""

Collect = Callable[[OrderRecord, "Job"], str]
"""Stores the outputs of a job at the record's destination, and returns the address of the manifest."""


@dataclass(frozen=True, slots=True)
class ReconcileReport:
    """The result of one round.

    Attributes:
        ran: Whether the round ran; False while another process holds the lease.
        done: Actions that were settled.
        withdrawn: Actions that no longer apply, since a newer attempt needs the job.
        owed: Actions that are still owed, each with the reason.
    """

    ran: bool
    done: tuple[Action, ...] = ()
    withdrawn: tuple[Action, ...] = ()
    owed: tuple[tuple[Action, str], ...] = ()

    def plus(self, action: Action, result: str, *, why: str = "its owner is not known to be over") -> ReconcileReport:
        """Return the report with one more action."""
        match result:
            case "done":
                return replace(self, done=(*self.done, action))
            case "withdrawn":
                return replace(self, withdrawn=(*self.withdrawn, action))
            case _:
                return replace(self, owed=(*self.owed, (action, why)))


OnLowQuality = Literal["warn", "fail"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Quality scores, 0 to 1, in the order of the items; None where the service has not said."""

    keyframes: tuple[float | None, ...] = ()
    segments: tuple[float | None, ...] = ()

    @classmethod
    def of(cls, job: Job, *, keyframes: Sequence[Keyframe] = (), segments: Sequence[Segment] = ()) -> Scores:
        """Return the scores of a job; keyframes and segments default to those inside the job."""
        return cls(
            tuple(frame.qai_score for frame in keyframes or job.keyframes),
            tuple(segment.qai_score for segment in segments or job.segments),
        )

    @property
    def lowest(self) -> float | None:
        """The lowest score that is known."""
        return min((score for score in (*self.keyframes, *self.segments) if score is not None), default=None)


def check_quality(job: Job, scores: Scores, *, min_score: float | None, on_low_quality: OnLowQuality) -> str | None:
    """Compare the lowest score with the wanted one; a completed job does not prove that its checks passed.

    Returns:
        A sentence for a person, or None.

    Raises:
        LowQualityError: It is below, and `on_low_quality` is `fail`. The job is paid for and its outputs exist.
    """
    if min_score is None or (scores.lowest is not None and scores.lowest >= min_score):
        return None
    found = f"scored {scores.lowest:.2f}" if scores.lowest is not None else "has no scores"
    message = f"job {job.job_id} {found}, below min_score {min_score:.2f}"
    if on_low_quality == "fail":
        raise LowQualityError(message, job_id=job.job_id, job=job)
    return message


def describe(job: Job, *, scores: Scores) -> dict[str, Any]:
    """Describe a job, in JSON types only."""
    return {
        "job_id": job.job_id,
        "status": job.status,
        "product_name": job.product_name,
        "current_stage": job.current_stage,
        "final_video_url": job.final_video_url,
        "thumbnail_url": job.thumbnail_url,
        "credits_reserved": job.credits_reserved,
        "credits_consumed": job.credits_consumed,
        "keyframe_scores": list(scores.keyframes),
        "segment_scores": list(scores.segments),
    }


def summarize(
    bought: Purchase, *, scores: Scores, manifest_uri: str | None = None, low_quality: str | None = None
) -> dict[str, Any]:
    """Summarize a purchase, in JSON types only.

    Args:
        bought: The purchase.
        scores: Its quality scores.
        manifest_uri: Address of the manifest, where the outputs were stored.
        low_quality: What `check_quality` said.
    """
    return {
        **describe(bought.job, scores=scores),
        "outcome": bought.outcome.value,
        "purchase_number": bought.record.purchase_number,
        "request_changed": bought.request_changed,
        "warnings": [*bought.warnings, *([low_quality] if low_quality else [])],
        "manifest_uri": manifest_uri,
    }


def collect_outputs(record: OrderRecord, job: Job, *, network: Network | None = None) -> str:
    """Store the outputs of a job where its order wanted them. Free; it blocks while it downloads.

    Args:
        record: Of the order; its `destination` must be set.
        job: The completed job.
        network: The proxy and the certificates; those of the environment where not given.

    Returns:
        The address of the manifest.

    Raises:
        DownloadError: An output could not be stored; the reconciler tries again.
    """
    from ugen_provider.core.media.http import shared_client
    from ugen_provider.core.media.outputs import INCLUDE, Include, download_outputs

    assert record.destination is not None
    manifest = download_outputs(
        job,
        record.destination,
        include=cast("tuple[Include, ...]", record.outputs) or INCLUDE,
        request={name: value for name, value in record.body.items() if name != "idempotency_key"},
        allow_private=is_loopback(record.origin),  # an emulator's links lead to this machine
        client=shared_client(network),
    )
    return f"{manifest.location}manifest.json"
