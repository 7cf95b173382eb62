# SPDX-License-Identifier: Apache-2.0
"""The policy: what an attempt does next with the job of an order. Pure; its tests are the rows of the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from ugen_provider.core.api.config import Spending
from ugen_provider.core.api.polling import failure_kind
from ugen_provider.core.api.profile import JobState
from ugen_provider.core.ledger.record import ENDS_ATTEMPT, Action, OrderRecord

if TYPE_CHECKING:
    from ugen_provider.core.api.models import Job

OnEarlierFailure = Literal["retry_stage", "resubmit", "fail"]
OnPaused = Literal["wait", "fail"]


@dataclass(frozen=True, slots=True)
class PurchasePolicy:
    """The user's choices, where the protocol leaves one.

    Attributes:
        on_earlier_failure: For a job that failed for a reason that a repeat can help: `retry_stage` runs it again from
            the failed stage, `resubmit` buys another one, `fail` fails. Default `retry_stage`.
        max_stage_retries: Stage retries in all, over all attempts. Default 2.
        on_paused: For a job that another user paused: `wait` until it is resumed (default), or `fail`.
        spending: `allow` (default), `reuse_only` (reuse and wait for what exists, buy nothing) or `off`.
        regenerate: A value that asks for one further purchase; each new value buys once.
        max_credits: Most credits that one job may reserve; None sets no limit.
        key_window: Seconds for which the service is trusted to remember an idempotency key. Default 24 hours, assumed.
        max_purchases: Purchases that are tried where no record counts them. Default 5.
    """

    on_earlier_failure: OnEarlierFailure = "retry_stage"
    max_stage_retries: int = 2
    on_paused: OnPaused = "wait"
    spending: Spending = "allow"
    regenerate: str | None = None
    max_credits: int | None = None
    key_window: float = 24 * 3600.0
    max_purchases: int = 5


class NextAction(Enum):
    """Next step of an attempt."""

    REATTACH = "reattach"
    REUSE = "reuse"
    AWAIT_APPROVAL = "await_approval"
    RESUME = "resume"
    CANCEL_AGAIN = "cancel_again"
    WITHDRAW_CANCEL = "withdraw_cancel"
    RETRY_STAGE = "retry_stage"
    NEXT_PURCHASE = "next_purchase"
    FAIL = "fail"
    STOP = "stop"
    """Another process ended this attempt: it does nothing more."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The next action, a stable word for its reason, and a sentence for a person ('' for none)."""

    action: NextAction
    reason: str
    message: str = ""


_NEXT_PURCHASE_AFTER = frozenset({*ENDS_ATTEMPT, "timeout", "regenerate"})
_BUY_ANOTHER = "to buy another video, run again with a new `regenerate` value"


def effective_action(record: OrderRecord, actions: Iterable[Action]) -> Action | None:
    """Return the action of ours that counts for a record's present purchase; None where there is none.

    A cancel counts before a pause, and among several the newest. Withdrawn actions, those about another purchase or
    job, and collections, which change no job, never count.
    """
    counting = (action for action in actions if action.kind != "collect" and action.state != "withdrawn")
    ours = [action for action in counting if action.concerns(record)]
    cancels = [action for action in ours if action.kind == "cancel"]
    if cancels or ours:
        return (cancels or ours)[-1]
    return None


def decide(
    job: Job,
    *,
    body: Mapping[str, Any],
    token: int,
    policy: PurchasePolicy,
    action: Action | None = None,
    changed: bool = False,
    stage_retries: int = 0,
    armed_token: int | None = None,
) -> Decision:
    """Decide what an attempt does with a job that its order has.

    Args:
        job: The job of the order's record, as it is now.
        body: The request as it was sent.
        token: The attempt's own token.
        policy: The user's choices.
        action: Our action that counts, from `effective_action`.
        changed: Whether the request is another one now.
        stage_retries: Stage retries that were asked for already.
        armed_token: Token of the attempt that waits, or waited, while a process without access to the record may
            cancel the job.
    """
    match job.state:
        case JobState.COMPLETED:
            return _completed(changed)
        case JobState.ACTIVE | JobState.PAUSED if _is_unconfirmed_cancel(action):
            return _cancel_unconfirmed(action, token=token)
        case JobState.ACTIVE:
            return Decision(NextAction.REATTACH, "active", _changed_message(changed))
        case JobState.PAUSED:
            return _paused(job, body=body, action=action, policy=policy)
        case JobState.FAILED:
            return _failed(job, changed=changed, stage_retries=stage_retries, policy=policy)
        case JobState.CANCELLED:
            return _cancelled(job, action, token=token, armed_token=armed_token)


def _changed_message(changed: bool) -> str:
    return f"the request has changed since this job was created; {_BUY_ANOTHER}" if changed else ""


def _completed(changed: bool) -> Decision:
    message = _changed_message(changed) or f"this job was reused and nothing was bought; {_BUY_ANOTHER}"
    return Decision(NextAction.REUSE, "completed", message)


def _is_unconfirmed_cancel(action: Action | None) -> bool:
    # A job that is active after its cancel was confirmed was revived by a person.
    return action is not None and action.kind == "cancel" and action.state != "confirmed"


def _cancel_unconfirmed(action: Action | None, *, token: int) -> Decision:
    assert action is not None
    if action.reason in ENDS_ATTEMPT and action.token >= token:
        return Decision(NextAction.STOP, "attempt_ended", f"this attempt was ended ({action.reason})")
    if action.state == "sent":
        return Decision(NextAction.CANCEL_AGAIN, "cancel_unconfirmed")
    # It never reached the service, and a newer attempt needs the job: to cancel it now would lose a paid result.
    return Decision(NextAction.WITHDRAW_CANCEL, "cancel_never_sent")


def _paused(job: Job, *, body: Mapping[str, Any], action: Action | None, policy: PurchasePolicy) -> Decision:
    if action is not None and action.reason == "interrupt":
        return Decision(NextAction.RESUME, "paused_on_interrupt", f"job {job.job_id} was paused on interrupt; resuming")
    if body.get("stop_at_stage") is not None or (action is not None and action.reason == "gate"):
        return Decision(NextAction.AWAIT_APPROVAL, "awaiting_approval")
    if policy.on_paused == "fail":
        return Decision(NextAction.FAIL, "paused_by_another_user", f"another user paused job {job.job_id}; resume it")
    message = f"another user paused job {job.job_id}; waiting until it is resumed"
    return Decision(NextAction.REATTACH, "paused_by_another_user", message)


def _failed(job: Job, *, changed: bool, stage_retries: int, policy: PurchasePolicy) -> Decision:
    kind = failure_kind(job)
    why = job.error_message or "the service gave no reason"
    if changed:
        return Decision(NextAction.NEXT_PURCHASE, "failed_and_changed")
    if kind != "passing":
        return Decision(NextAction.FAIL, kind, f"U-Gen refused the content ({why}); change the request")
    if policy.on_earlier_failure == "resubmit":
        return Decision(NextAction.NEXT_PURCHASE, "failed_resubmit")
    if policy.on_earlier_failure == "fail":
        message = f"job {job.job_id} failed ({why}); set on_earlier_failure, or {_BUY_ANOTHER}"
        return Decision(NextAction.FAIL, "failed", message)
    if stage_retries >= policy.max_stage_retries:
        message = f"job {job.job_id} failed after {stage_retries} stage retries ({why}); {_BUY_ANOTHER}"
        return Decision(NextAction.FAIL, "stage_retries_used_up", message)
    return Decision(NextAction.RETRY_STAGE, "failed_retry_stage")


def _cancelled(job: Job, action: Action | None, *, token: int, armed_token: int | None) -> Decision:
    if action is None or action.kind != "cancel":
        if armed_token is None:
            message = f"another user cancelled job {job.job_id}; {_BUY_ANOTHER}"
            return Decision(NextAction.FAIL, "cancelled_by_another_user", message)
        reason, ended = "kill", armed_token
    elif action.reason in _NEXT_PURCHASE_AFTER:
        reason, ended = action.reason, action.token
    else:
        message = f"job {job.job_id} was cancelled ({action.reason}); {_BUY_ANOTHER}"
        return Decision(NextAction.FAIL, f"cancelled_{action.reason}", message)
    # The attempt that an event ended may live for some seconds more. Only a later attempt may buy again.
    if reason != "regenerate" and ended >= token:
        return Decision(
            NextAction.STOP, "attempt_ended", f"job {job.job_id} was cancelled with this attempt ({reason})"
        )
    return Decision(NextAction.NEXT_PURCHASE, f"cancelled_{reason}")


def has_ordered_outputs(job: Job, *, body: Mapping[str, Any]) -> bool:
    """Return whether a completed job has what was ordered: a final video, unless an earlier stop was asked for."""
    return job.final_video_url is not None or job.may_lack_video or body.get("stop_at_stage") not in {None, "complete"}
