# SPDX-License-Identifier: Apache-2.0
"""Approval of keyframes: who may approve, what an approval covers, and the errors at the gate.

`anchor_keyframe` buys a job that stops after its first keyframe. `keyframe_approval` is the approval of that very
picture. The rest of the job runs only with it, however the assets are materialized.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from dagster_ugen import _compat
from dagster_ugen.definition import DECISION_TAG, Output, VideoDefinition, partitions_of
from dagster_ugen.results import LOOK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_ugen.account import Account
    from ugen_provider.core.api.errors import PurchaseError
    from ugen_provider.core.api.models import Job
    from ugen_provider.core.jobs.approval import Approval
    from ugen_provider.core.jobs.order import OrderKey
    from ugen_provider.core.ledger.record import Action, OrderRecord

APPROVED_BY = "ugen/approved_by"
APPROVAL = "ugen/approval"
_AUTOMATIC_TAGS = (
    "dagster/from_automation_condition",
    "dagster/auto_materialize",
    "dagster/sensor_name",
    "dagster/schedule_name",
)


class UGenApprovalConfig(dg.Config):
    """The decision of a person in the launchpad; to materialize the approval alone approves."""

    decision: Literal["approve", "reject"] = "approve"
    """`reject` cancels the job, and its reservation is released."""

    by: str = ""
    """The person or check that decides, for the record."""


@dataclass(frozen=True, slots=True)
class ShownKeyframe:
    """The newest anchor keyframe of a partition, as Dagster's pages show it."""

    binding: Mapping[str, Any]
    storage_id: int
    at: float

    def approval(self, *, by: str, at: float) -> "Approval":
        """Return the consent to this keyframe, by name."""
        from ugen_provider.core.jobs.approval import Approval

        return Approval(self.binding["job_id"], self.binding["keyframe_id"], self.binding["digest"], by, at)


def shown_keyframe(instance: dg.DagsterInstance, anchor: dg.AssetKey, partition: str) -> ShownKeyframe | None:
    """Return the keyframe that can be decided on; None if there is none."""
    record = _newest(instance, anchor, partition)
    made = record.asset_materialization if record is not None else None
    if record is None or made is None:
        return None
    value = made.metadata.get(LOOK)
    if not isinstance(value, dg.JsonMetadataValue) or not isinstance(value.data, dict):
        return None
    return ShownKeyframe(value.data, record.storage_id, record.timestamp)


def approval_of(instance: dg.DagsterInstance, definition: VideoDefinition, partition: str) -> "Approval | None":
    """Return the approval of a partition's keyframe; None if there is none, or only one that is older than it.

    Args:
        instance: The Dagster instance.
        definition: The assets.
        partition: The partition; '' for an unpartitioned asset.
    """
    from ugen_provider.core.jobs.approval import Approval

    record = _newest(instance, definition.key_of(Output.APPROVAL), partition)
    made = record.asset_materialization if record is not None else None
    if record is None or made is None:
        return None
    value = made.metadata.get(APPROVAL)
    if isinstance(value, dg.JsonMetadataValue) and isinstance(value.data, dict):
        return Approval.from_dict(value.data)
    # Reported by Dagster's pages: it covers the keyframe that they showed at that moment.
    shown = shown_keyframe(instance, definition.key_of(Output.ANCHOR_KEYFRAME), partition)
    if shown is None or shown.storage_id > record.storage_id:
        return None
    return shown.approval(by=made.description or "Dagster's pages", at=record.timestamp)


def approval_event(definition: VideoDefinition, partition: str, approval: "Approval") -> dg.AssetMaterialization:
    """Return the event that records an approval."""
    return dg.AssetMaterialization(
        asset_key=definition.key_of(Output.APPROVAL),
        partition=partition or None,
        description=f"approved by {approval.by}" if approval.by else "approved",
        metadata={
            APPROVAL: dg.MetadataValue.json(approval.to_dict()),
            APPROVED_BY: approval.by,
            "ugen/job_id": approval.job_id,
        },
        tags={
            _compat.DATA_VERSION_TAG: approval.digest,
            _compat.DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
        },
    )


def approve_keyframe(
    instance: dg.DagsterInstance, definition: VideoDefinition, *, partition: str = "", by: str
) -> None:
    """Approve the keyframe of one partition from code. Free; a run of the other assets then resumes the job.

    Args:
        instance: The Dagster instance.
        definition: The `UGenVideoAssets` whose assets `build_assets_from_definition` made.
        partition: The partition.
        by: Who approves, for the record.

    Raises:
        ValueError: There is no such partition, or no keyframe to approve.

    Examples:
        >>> approve_keyframe(dg.DagsterInstance.get(), videos, partition="LL-1001", by="anna")
    """
    partitions_def = definition.props.partitions_def
    if partitions_def is not None and partition not in partitions_def.get_partition_keys(
        dynamic_partitions_store=instance
    ):
        raise ValueError(f"{definition.key_of(Output.APPROVAL).to_user_string()}: there is no partition {partition!r}")
    anchor = definition.key_of(Output.ANCHOR_KEYFRAME)
    shown = shown_keyframe(instance, anchor, partition)
    if shown is None:
        about = f", partition {partition!r}" if partition else ""
        raise ValueError(f"{anchor.to_user_string()}{about}: {_nothing_to_decide(definition)}")
    instance.report_runless_asset_event(approval_event(definition, partition, shown.approval(by=by, at=time.time())))


def run_approval(
    definition: VideoDefinition, context: dg.AssetExecutionContext, account: "Account", config: UGenApprovalConfig
) -> Iterator[dg.MaterializeResult[Any]]:
    """Materialize the approval: record it, or reject the keyframe and cancel the job. Free.

    Args:
        definition: The assets.
        context: The asset's context.
        account: The account.
        config: The decision.

    Raises:
        Failure: There is no keyframe to decide on.
    """
    approved = 0
    key = definition.key_of(Output.APPROVAL).to_user_string()
    partitions = partitions_of(context)
    for partition in partitions:
        shown = shown_keyframe(context.instance, definition.key_of(Output.ANCHOR_KEYFRAME), partition)
        if shown is None:
            about = f"{key}, partition {partition!r}" if partition else key
            raise dg.Failure(f"{about}: {_nothing_to_decide(definition)}", allow_retries=False)
        if "reject" in {config.decision, _compat.run_of(context).tags.get(DECISION_TAG)}:
            _reject(definition, context, account, partition, shown)
            continue
        by = _approver(definition, context, config, shown)
        if by is None:
            context.log.warning(
                "%s: not approved, since this run materializes more than %s, or was started automatically; review the "
                "keyframe, then materialize %s alone",
                partition or key,
                key,
                key,
            )
            continue
        context.log_event(approval_event(definition, partition, shown.approval(by=by, at=time.time())))
        approved += 1
    if approved == len(partitions):
        yield dg.MaterializeResult(asset_key=definition.key_of(Output.APPROVAL), metadata=_compat.ALREADY_LOGGED)


def _approver(
    definition: VideoDefinition, context: dg.AssetExecutionContext, config: UGenApprovalConfig, shown: ShownKeyframe
) -> str | None:
    """Return who approves: a score that is high enough, or a person who materialized the approval and nothing else."""
    score = shown.binding.get("qai_score")
    least = definition.gate.approve_score if definition.gate is not None else None
    if least is not None and score is not None and score >= least:
        return f"score {score:.2f}, at least {least:.2f}"
    run = _compat.run_of(context)
    tags = run.tags
    alone = (run.asset_selection or context.job_def.asset_layer.selected_asset_keys) == {
        definition.key_of(Output.APPROVAL)
    }
    if not alone or any(tag in tags for tag in _AUTOMATIC_TAGS):
        return None
    return config.by or tags.get("user") or f"run {run.run_id}"


def _reject(
    definition: VideoDefinition,
    context: dg.AssetExecutionContext,
    account: "Account",
    partition: str,
    shown: ShownKeyframe,
) -> None:
    from ugen_provider.core.api.errors import UGenError
    from ugen_provider.core.jobs.sync.actions import cancel_order
    from ugen_provider.core.jobs.sync.world import World

    job_id = str(shown.binding["job_id"])
    confirmed = False
    with account.client() as client:
        world = World(client, account.store())
        try:
            result = cancel_order(world, account.record_key(definition, partition), reason="rejected", job_id=job_id)
            confirmed = result is not None and result.settled
        except UGenError as error:
            context.log.warning("%s: job %s is rejected; its cancel is owed: %s", partition, job_id, error)
    context.log_event(
        dg.AssetObservation(
            asset_key=definition.key_of(Output.APPROVAL),
            partition=partition or None,
            description="rejected",
            metadata={"ugen/job_id": job_id, "ugen/cancelled": confirmed},
        )
    )


def _nothing_to_decide(definition: VideoDefinition) -> str:
    anchor = definition.key_of(Output.ANCHOR_KEYFRAME).to_user_string()
    return f"there is no keyframe to decide on; materialize {anchor} first"


def _newest(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str) -> dg.EventLogRecord | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
    return next(iter(instance.fetch_materializations(wanted, limit=1).records), None)


# The states of a gate.


def opens_gate(record: "OrderRecord | None", actions: "Sequence[Action]", *, regenerate: str | None) -> bool:
    """Return whether an anchor keyframe is likely to buy a job; a job that exists is reused."""
    from ugen_provider.core.jobs.policy import effective_action
    from ugen_provider.core.ledger.record import ENDS_ATTEMPT

    if record is None or record.job_id is None or (regenerate is not None and regenerate not in record.regenerate):
        return True
    action = effective_action(record, actions)
    return action is not None and action.kind == "cancel" and action.reason in {*ENDS_ATTEMPT, "timeout"}


def is_open_gate(record: "OrderRecord", actions: "Sequence[Action]") -> bool:
    """Return whether the ledger says that a job awaits a decision."""
    from ugen_provider.core.jobs.policy import effective_action

    action = effective_action(record, actions)
    return action is not None and (action.kind, action.reason) == ("pause", "gate")


def is_opening_gate(record: "OrderRecord", actions: "Sequence[Action]") -> bool:
    """Return whether an order was sent, or is being sent, whose job stops at the gate."""
    from ugen_provider.core.jobs.approval import GATE_STAGE
    from ugen_provider.core.jobs.policy import effective_action

    if effective_action(record, actions) is not None or record.surely_not_bought:
        return False
    return record.body.get("stop_at_stage") == GATE_STAGE


def awaits_approval(job: "Job") -> bool:
    """Return whether a job has stopped at its gate: paused there, or ended there by the service."""
    from ugen_provider.core.api.models import JobState

    return job.state is JobState.PAUSED or (job.state is JobState.COMPLETED and job.final_video_url is None)


def is_beyond_gate(job: "Job") -> bool:
    """Return whether a job runs beyond its gate, or has its video, so that to continue costs nothing."""
    from ugen_provider.core.api.models import JobState
    from ugen_provider.core.api.rules import STAGES
    from ugen_provider.core.jobs.approval import GATE_STAGE

    if job.final_video_url is not None:
        return True
    stage = job.current_stage
    return job.state is JobState.ACTIVE and stage in STAGES and STAGES.index(stage) > STAGES.index(GATE_STAGE)


# Errors at the gate.


@dataclass(frozen=True, slots=True)
class GateErrors:
    """The errors at a gate, which name its assets by their full keys.

    Attributes:
        anchor: The key of the anchor keyframe, as Dagster's pages show it.
        approval: The key of the approval.
    """

    anchor: str = Output.ANCHOR_KEYFRAME.value
    approval: str = Output.APPROVAL.value

    @classmethod
    def of(cls, definition: VideoDefinition) -> "GateErrors":
        """Return those of a definition."""
        return cls(*(definition.key_of(each).to_user_string() for each in (Output.ANCHOR_KEYFRAME, Output.APPROVAL)))

    def no_keyframe(self, order: "OrderKey") -> "PurchaseError":
        """Return the error where there is nothing to approve yet."""
        message = f"there is no keyframe yet; materialize {self.anchor} first, then {self.approval}"
        return _refusal(order, "no_anchor", message)

    def not_approved(self, order: "OrderKey", job_id: str) -> "PurchaseError":
        """Return the error where the approval is missing."""
        message = (
            f"the keyframe of job {job_id} is not approved, so the job stays paused; review {self.anchor} and "
            f"materialize {self.approval} for this partition"
        )
        return _refusal(order, "not_approved", message, job_id=job_id)

    def closed(self, order: "OrderKey", job_id: str, reason: str) -> "PurchaseError":
        """Return the error where the keyframe was rejected, or expired; the job was cancelled."""
        what = "was rejected" if reason == "rejected" else "expired without a decision"
        message = (
            f"the keyframe of job {job_id} {what}, and the job was cancelled; to buy another keyframe, run the "
            f"regenerate job of build_ugen_approval_jobs, or materialize {self.anchor} with a new value for "
            "`regenerate` in the run config"
        )
        return _refusal(order, reason, message, job_id=job_id)

    def approved_another(self, order: "OrderKey", approval: "Approval", job_id: str) -> "PurchaseError":
        """Return the error where the approval is for an earlier job."""
        message = (
            f"the approval is for job {approval.job_id}, and the keyframe that awaits approval is of job {job_id}; "
            f"review {self.anchor} again, then materialize {self.approval}"
        )
        return _refusal(order, "approval_outdated", message, job_id=job_id)

    def too_many(self, order: "OrderKey") -> "PurchaseError":
        """Return the error where `max_open_gates` is reached."""
        message = (
            f"max_open_gates is reached, so nothing was bought; approve or reject keyframes of {self.anchor} that "
            "await a decision, then materialize this one again"
        )
        return _refusal(order, "max_open_gates", message)


def _refusal(order: "OrderKey", reason: str, message: str, *, job_id: str | None = None) -> "PurchaseError":
    from ugen_provider.core.api.errors import PurchaseError

    return PurchaseError(f"{order.label}: {message}", scope=str(order), reason=reason, job_id=job_id, retryable=False)
