# SPDX-License-Identifier: Apache-2.0
"""The gate: money goes only into looks that somebody wanted.

`anchor_keyframe` buys a job that stops after its first keyframe; `keyframe_approval` is somebody's yes to that very
picture; and the rest goes on only with it, whoever clicks what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from dagster_ugen import _compat
from dagster_ugen.metadata import LOOK
from dagster_ugen.outputs import Output

if TYPE_CHECKING:
    from dagster_ugen.assets import UGenVideos
    from ugen_provider.core.jobs.gate import Approval

APPROVED_BY = "ugen/approved_by"
APPROVAL = "ugen/approval"
Decision = Literal["approve", "reject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UGenGate:
    """How looks are approved.

    Args:
        approve_score: Quality score of the keyframe, 0 to 1, from which it is approved without a person; None leaves
            every one to a person.
        max_open_gates: Most jobs that wait for a decision at a time: each holds its credits, and perhaps a job slot of
            the account, so keep it below the account's limit. They are counted over all runs before each look is
            bought; two runs that buy in the very same moment may still pass it by one, unless `pool` lets one anchor
            run at a time. None sets no limit.
        expires_after: Seconds after which a look that nobody decided on is cancelled by the orphan sensor.
    """

    approve_score: float | None = None
    max_open_gates: int | None = 10
    expires_after: float | None = None


class UGenApprovalConfig(dg.Config):
    """What a person says in the launchpad; materializing the approval alone means yes."""

    decision: Literal["approve", "reject"] = "approve"
    """`reject` cancels the job, and its reservation is released."""

    by: str = ""
    """Who decides, for the record."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The newest anchor keyframe of a partition, as Dagster's pages show it."""

    binding: Mapping[str, Any]
    storage_id: int
    at: float

    def approval(self, *, by: str, at: float) -> Approval:
        """A yes to it."""
        from ugen_provider.core.jobs.gate import Approval

        return Approval(self.binding["job_id"], self.binding["keyframe_id"], self.binding["digest"], by, at)


def shown_look(instance: dg.DagsterInstance, anchor: dg.AssetKey, partition: str) -> Shown | None:
    """The look that is there to be decided on, None if there is none."""
    record = _newest(instance, anchor, partition)
    made = record.asset_materialization if record is not None else None
    if record is None or made is None:
        return None
    value = made.metadata.get(LOOK)
    if not isinstance(value, dg.JsonMetadataValue) or not isinstance(value.data, dict):
        return None
    return Shown(value.data, record.storage_id, record.timestamp)


def approval_of(instance: dg.DagsterInstance, videos: UGenVideos, partition: str) -> Approval | None:
    """The newest yes to a partition's look, None where there is none.

    One that names job, keyframe and picture is compared with the picture before anything is resumed. One that Dagster's
    pages reported names none of these: it counts for the look that was shown then, and for none that is newer.
    """
    from ugen_provider.core.jobs.gate import Approval

    record = _newest(instance, videos.key_of(Output.APPROVAL), partition)
    made = record.asset_materialization if record is not None else None
    if record is None or made is None:
        return None
    value = made.metadata.get(APPROVAL)
    if isinstance(value, dg.JsonMetadataValue) and isinstance(value.data, dict):
        return Approval.from_dict(value.data)
    shown = shown_look(instance, videos.key_of(Output.ANCHOR_KEYFRAME), partition)
    if shown is None or shown.storage_id > record.storage_id:
        return None
    return shown.approval(by=made.description or "Dagster's pages", at=record.timestamp)


def approval_event(videos: UGenVideos, partition: str, approval: Approval) -> dg.AssetMaterialization:
    """The event that is an approval."""
    return dg.AssetMaterialization(
        asset_key=videos.key_of(Output.APPROVAL),
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


def approve_keyframe(instance: dg.DagsterInstance, videos: UGenVideos, *, partition: str = "", by: str) -> None:
    """Approve the look of one partition from code. Spends nothing itself; what hangs on it may go on then.

    Args:
        instance: The Dagster instance.
        videos: The `UGenVideos` whose assets `assets_of` made.
        partition: The partition.
        by: Who approves, for the record.

    Raises:
        ValueError: There is no such partition, or no look to approve.

    Examples:
        >>> approve_keyframe(dg.DagsterInstance.get(), videos, partition="LL-1001", by="anna")
    """
    import time

    shown = _shown_or_refuse(instance, videos, partition)
    instance.report_runless_asset_event(approval_event(videos, partition, shown.approval(by=by, at=time.time())))


def _shown_or_refuse(instance: dg.DagsterInstance, videos: UGenVideos, partition: str) -> Shown:
    defined = videos.props.partitions_def
    if defined is not None and partition not in defined.get_partition_keys(dynamic_partitions_store=instance):
        raise ValueError(f"there is no partition {partition!r}")
    anchor = videos.key_of(Output.ANCHOR_KEYFRAME)
    shown = shown_look(instance, anchor, partition)
    if shown is None:
        raise ValueError(
            f"{partition or anchor.to_user_string()}: materialize {anchor.to_user_string()} first; "
            "there is no look to decide on"
        )
    return shown


def _newest(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str) -> dg.EventLogRecord | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
    return next(iter(instance.fetch_materializations(wanted, limit=1).records), None)
