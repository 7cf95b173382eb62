# SPDX-License-Identifier: Apache-2.0
"""What happens when the approval asset is materialized: who may say yes that way, and what a no does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_ugen._compat import ALREADY_LOGGED
from dagster_ugen.assets import partitions_of
from dagster_ugen.gate import Shown, approval_event, shown_look
from dagster_ugen.intents import IntentLog
from dagster_ugen.outputs import Output
from dagster_ugen.running import scope_of
from ugen_provider.core.jobs.gate import close_gate

if TYPE_CHECKING:
    from dagster_ugen.assets import UGenVideos
    from dagster_ugen.gate import UGenApprovalConfig
    from dagster_ugen.resource import UGenResource

_BY_ITSELF = (
    "dagster/from_automation_condition",
    "dagster/auto_materialize",
    "dagster/sensor_name",
    "dagster/schedule_name",
)


def decide(
    videos: UGenVideos, context: dg.AssetExecutionContext, ugen: UGenResource, config: UGenApprovalConfig
) -> Iterator[dg.MaterializeResult[Any]]:
    """See `UGenVideos.decide`."""
    approved = 0
    partitions = partitions_of(context)
    for partition in partitions:
        shown = shown_look(context.instance, videos.key_of(Output.ANCHOR_KEYFRAME), partition)
        if shown is None:
            anchor = videos.key_of(Output.ANCHOR_KEYFRAME).to_user_string()
            raise dg.Failure(
                f"{partition or anchor}: there is no look to decide on; materialize {anchor} first", allow_retries=False
            )
        if config.decision == "reject":
            _reject(videos, context, ugen, partition, shown)
            continue
        by = _who(videos, context, config, shown)
        if by is None:
            context.log.warning(
                "%s: not approved, since this run makes more than the approval, or nobody started it; "
                "look at the keyframe, then materialize the approval alone",
                partition,
            )
            continue
        context.log_event(approval_event(videos, partition, shown.approval(by=by, at=time.time())))
        approved += 1
    if approved == len(partitions):
        yield dg.MaterializeResult(asset_key=videos.key_of(Output.APPROVAL), metadata=ALREADY_LOGGED)


def _who(videos: UGenVideos, context: dg.AssetExecutionContext, config: UGenApprovalConfig, shown: Shown) -> str | None:
    """Who approves: a score that is high enough, or a person who materialized the approval and nothing beside it."""
    score = shown.binding.get("qai_score")
    least = videos.gate.approve_score if videos.gate is not None else None
    if least is not None and score is not None and score >= least:
        return f"score {score:.2f}, at least {least:.2f}"
    tags = context.run.tags
    alone = (context.run.asset_selection or context.job_def.asset_layer.selected_asset_keys) == {
        videos.key_of(Output.APPROVAL)
    }
    if not alone or any(tag in tags for tag in _BY_ITSELF):
        return None
    return config.by or tags.get("user") or f"run {context.run.run_id}"


def _reject(
    videos: UGenVideos, context: dg.AssetExecutionContext, ugen: UGenResource, partition: str, shown: Shown
) -> None:
    job_id = str(shown.binding["job_id"])
    log = IntentLog(context.instance, asset_key=videos.order_key, holder=context.run.run_id)
    scope = str(scope_of(videos.order_key, ugen.namespace, partition))
    with ugen.get_client() as client:
        closed = client.run(close_gate(client.caller, job_id, reason="rejected", store=log.of(partition), scope=scope))
    if not closed.confirmed:
        context.log.warning("%s: job %s was rejected and could not be seen to be cancelled", partition, job_id)
    context.log_event(
        dg.AssetObservation(
            asset_key=videos.key_of(Output.APPROVAL),
            partition=partition or None,
            description="rejected",
            metadata={"ugen/job_id": job_id, "ugen/cancelled": closed.confirmed},
        )
    )
