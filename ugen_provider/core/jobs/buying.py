# SPDX-License-Identifier: Apache-2.0
"""The buying table: what to do with an earlier attempt. Pure; its tests are the rows of the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from ugen_provider.core.api.config import Spending
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.jobs.intent import OurAction

OnEarlierFailure = Literal["retry_stage", "resubmit", "fail"]
OnPaused = Literal["wait", "fail"]
FailureKind = Literal["passing", "moderation", "validation"]


@dataclass(frozen=True, slots=True)
class BuyingPolicy:
    """What the user wants done, where the protocol leaves a choice.

    Args:
        on_earlier_failure: For a job that failed for a reason that a repeat can mend: run it again from the stage that
            failed, buy another one, or fail.
        max_stage_retries: Stage retries in all, over all attempts.
        on_paused: For a job that somebody else paused: wait until they let it go on, or fail.
        spending: `attach_only` takes and waits for what exists; `off` does nothing at all.
        regenerate: A value by which another generation is asked for; each value buys once.
        max_credits: Most credits that one job may reserve.
        key_window: Seconds for which the service is trusted to remember a key.
        max_generations: Generations that are tried where no store counts them.
    """

    on_earlier_failure: OnEarlierFailure = "retry_stage"
    max_stage_retries: int = 2
    on_paused: OnPaused = "wait"
    spending: Spending = "allow"
    regenerate: str | None = None
    max_credits: int | None = None
    key_window: float = 24 * 3600.0
    max_generations: int = 5


class Move(Enum):
    """What to do next."""

    ATTACH = "attach"
    TAKE = "take"
    GATE = "gate"
    RESUME = "resume"
    CANCEL_AGAIN = "cancel_again"
    RETRY_STAGE = "retry_stage"
    NEXT_GENERATION = "next_generation"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Decision:
    """A move, a stable word for the reason, and what a person should be told, if anything."""

    move: Move
    reason: str
    note: str = ""


_NEXT_AT_ONCE = frozenset({"kill", "timeout", "regenerate"})
_MODERATION = ("moderation", "policy", "nsfw", "prohibited", "not allowed", "safety")
_VALIDATION = ("validation", "invalid", "unsupported", "could not fetch", "unreachable image", "not an image")


def failure_kind(job: Job) -> FailureKind:
    """Why a job failed, as far as its words tell: the service documents no codes, so this is the one place to guess.

    An unknown reason counts as passing: repeating from a checkpoint is what the service offers for it.
    """
    words = f"{job.error_code or ''} {job.error_message or ''}".lower()
    if any(word in words for word in _MODERATION):
        return "moderation"
    if any(word in words for word in _VALIDATION):
        return "validation"
    return "passing"


def decide(
    job: Job | None,
    *,
    body: Mapping[str, Any],
    action: OurAction | None,
    changed: bool,
    stage_retries: int,
    policy: BuyingPolicy,
    armed: bool = False,
) -> Decision:
    """The table.

    Args:
        job: The job of the intent as it is now, or None where the service says 404.
        body: The request as it was sent.
        action: Our last action on the job.
        changed: Whether the request is another one now.
        stage_retries: Stage retries that were asked for already.
        policy: The user's choices.
        armed: Whether the last waiter could cancel the job on a kill and never came back to say otherwise.
    """
    if job is None:
        return Decision(
            Move.FAIL,
            "job_not_found",
            "the service does not know the job: is this another account, or was it deleted? `regenerate` buys again",
        )
    told = "the request has changed since; `regenerate` buys the changed one" if changed else ""
    cancelling = action is not None and action.kind == "cancel"
    match job.state:
        case JobState.COMPLETED:
            return Decision(Move.TAKE, "completed", told or "nothing was bought; `regenerate` buys another one")
        case JobState.ACTIVE | JobState.PAUSED if cancelling:
            return Decision(Move.CANCEL_AGAIN, "cancel_unconfirmed")
        case JobState.ACTIVE:
            return Decision(Move.ATTACH, "active", told)
        case JobState.PAUSED:
            return _paused(job, body=body, action=action, policy=policy)
        case JobState.FAILED:
            return _failed(job, changed=changed, stage_retries=stage_retries, policy=policy)
        case JobState.CANCELLED:
            return _cancelled(action, armed=armed)


def _paused(job: Job, *, body: Mapping[str, Any], action: OurAction | None, policy: BuyingPolicy) -> Decision:
    if action is not None and action.kind == "pause" and action.reason == "interrupt":
        return Decision(Move.RESUME, "paused_on_interrupt", "the job was paused when its last waiter was interrupted")
    if body.get("stop_at_stage") is not None or (action is not None and action.reason == "gate"):
        return Decision(Move.GATE, "at_the_gate")
    if policy.on_paused == "fail":
        return Decision(Move.FAIL, "paused_by_somebody", f"somebody paused job {job.job_id}; resume it to go on")
    return Decision(Move.ATTACH, "paused_by_somebody", f"somebody paused job {job.job_id}; waiting until it is resumed")


def _failed(job: Job, *, changed: bool, stage_retries: int, policy: BuyingPolicy) -> Decision:
    kind = failure_kind(job)
    why = job.error_message or "the service gave no reason"
    if changed:
        return Decision(Move.NEXT_GENERATION, "failed_and_changed")
    if kind != "passing":
        return Decision(Move.FAIL, kind, f"the service refused the content ({why}); change the request")
    if policy.on_earlier_failure == "resubmit":
        return Decision(Move.NEXT_GENERATION, "failed_resubmit")
    if policy.on_earlier_failure == "fail":
        return Decision(Move.FAIL, "failed", f"the job failed ({why}); on_earlier_failure or `regenerate` buys again")
    if stage_retries >= policy.max_stage_retries:
        return Decision(
            Move.FAIL, "stage_retries_used_up", f"failed after {stage_retries} stage retries ({why}); `regenerate` buys"
        )
    return Decision(Move.RETRY_STAGE, "failed_retry_stage")


def _cancelled(action: OurAction | None, *, armed: bool) -> Decision:
    if armed and (action is None or action.kind != "cancel"):
        return Decision(Move.NEXT_GENERATION, "cancelled_kill")
    if action is None or action.kind != "cancel":
        return Decision(Move.FAIL, "cancelled_by_somebody", "somebody cancelled the job; `regenerate` buys again")
    if action.reason in _NEXT_AT_ONCE:
        return Decision(Move.NEXT_GENERATION, f"cancelled_{action.reason}")
    return Decision(
        Move.FAIL, f"cancelled_{action.reason}", f"the job was cancelled ({action.reason}); `regenerate` buys"
    )


def delivered(job: Job, *, body: Mapping[str, Any]) -> bool:
    """Whether a completed job is what was ordered: a final video, unless an earlier stop was asked for."""
    return job.final_video_url is not None or body.get("stop_at_stage") not in {None, "complete"}
