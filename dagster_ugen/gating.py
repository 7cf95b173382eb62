# SPDX-License-Identifier: Apache-2.0
"""The gate while a run works: who may open one, and who may pass."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ugen_provider.core.api.errors import PurchaseError
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.api.rules import STAGES
from ugen_provider.core.jobs.gate import GATE_STAGE, Approval
from ugen_provider.core.jobs.intent import Intent
from ugen_provider.core.jobs.scope import Scope


@dataclass(frozen=True, slots=True)
class GateLimit:
    """How many gates may be open.

    Attributes:
        most: How many.
        open_ones: The partitions whose gates are open or being opened, over all runs; it blocks.
    """

    most: int
    open_ones: Callable[[], Collection[str]]


def opens_a_gate(intent: Intent | None, *, regenerate: str | None) -> bool:
    """Whether an anchor keyframe is likely to buy a job, by the newest intent; one that is there is taken."""
    if intent is None or intent.job_id is None or (regenerate is not None and regenerate not in intent.regenerate):
        return True
    action = intent.action
    return action is not None and action.kind == "cancel" and action.reason in {"kill", "timeout"}


def waits_for_a_decision(intent: Intent) -> bool:
    """Whether a job was last seen to wait for a decision."""
    return intent.action is not None and (intent.action.kind, intent.action.reason) == ("pause", "gate")


def is_on_its_way_to_the_gate(intent: Intent) -> bool:
    """Whether an order was sent, or is just being sent, whose job stops at the gate."""
    return intent.action is None and not intent.refused and intent.body.get("stop_at_stage") == GATE_STAGE


def stands_at_gate(job: Job) -> bool:
    """Whether a job stands where it was told to stop: paused there, or ended there by the service."""
    return job.state is JobState.PAUSED or (job.state is JobState.COMPLETED and job.final_video_url is None)


def is_beyond_gate(job: Job) -> bool:
    """Whether a job is on its way to the video, or has one, so that going on with it costs nothing."""
    if job.final_video_url is not None:
        return True
    stage = job.current_stage
    return job.state is JobState.ACTIVE and stage in STAGES and STAGES.index(stage) > STAGES.index(GATE_STAGE)


def no_look(scope: Scope) -> PurchaseError:
    """There is nothing to approve yet."""
    return PurchaseError(
        f"{scope.label}: there is no look yet; materialize anchor_keyframe first, then approve it",
        scope=str(scope),
        reason="no_anchor",
    )


def not_approved(scope: Scope, job_id: str) -> PurchaseError:
    """Nobody said yes."""
    return PurchaseError(
        f"{scope.label}: nobody approved the look of job {job_id}, so nothing goes on; look at anchor_keyframe and "
        "materialize keyframe_approval for this partition",
        scope=str(scope),
        reason="not_approved",
        job_id=job_id,
    )


def gate_closed(scope: Scope, job_id: str, reason: str) -> PurchaseError:
    """Somebody said no, or nobody said anything in time; the job was cancelled."""
    what = "was rejected" if reason == "rejected" else "expired before anybody decided"
    return PurchaseError(
        f"{scope.label}: the look of job {job_id} {what}, so nothing goes on; materialize anchor_keyframe with a new "
        "value for `regenerate` in the run config, which buys another look",
        scope=str(scope),
        reason=reason,
        job_id=job_id,
    )


def approved_another(scope: Scope, approval: Approval, job_id: str) -> PurchaseError:
    """Somebody said yes to the look of an earlier job."""
    return PurchaseError(
        f"{scope.label}: the approval is for job {approval.job_id}, and the look that waits is that of job {job_id}; "
        "look at anchor_keyframe again, then materialize keyframe_approval",
        scope=str(scope),
        reason="approval_outdated",
        job_id=job_id,
    )


def too_many_gates(scope: Scope) -> PurchaseError:
    """`max_open_gates` is reached."""
    return PurchaseError(
        f"{scope.label}: max_open_gates is reached, so nothing was bought; approve or reject some of the looks that "
        "wait, then materialize this one again",
        scope=str(scope),
        reason="max_open_gates",
    )
