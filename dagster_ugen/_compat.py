# SPDX-License-Identifier: Apache-2.0
"""The few things of Dagster that it keeps in private modules, in this one place.

Each name is here with its use, so that a release of Dagster that moves one is a change to this file.
"""

from __future__ import annotations

import inspect
import os
import uuid
from typing import Any, Final

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluation,
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.assets.definition.asset_spec import (
    SYSTEM_METADATA_KEY_DAGSTER_TYPE,
    SYSTEM_METADATA_KEY_IO_MANAGER_KEY,
)
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.metadata.metadata_set import NamespacedMetadataSet
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterInvalidPropertyError
from dagster._core.events import RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.storage.tags import MAX_RETRIES_TAG, ROOT_RUN_ID_TAG
from dagster._utils.warnings import disable_dagster_warnings
from dagster.components.resolved.errors import ResolutionException

__all__ = [
    "ALREADY_LOGGED",
    "CODE_VERSION_TAG",
    "DATA_VERSION_IS_USER_PROVIDED_TAG",
    "DATA_VERSION_TAG",
    "INTERRUPTS",
    "ROOT_RUN_ID_TAG",
    "NamespacedMetadataSet",
    "ResolutionException",
    "check_evaluation",
    "get_input_data_version_tag",
    "get_input_event_pointer_tag",
    "is_direct",
    "loaded_by",
    "partitioned_check",
    "retry_number_of",
    "run_of",
    "will_retry_run",
    "will_retry_step",
    "with_resource",
]

INTERRUPTS: Final = (DagsterExecutionInterruptedError, KeyboardInterrupt)
"""Exceptions in an asset's body when its run is terminated or its process gets a signal."""

ALREADY_LOGGED: Final = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
"""Metadata of an output for which Dagster makes no event, since its events were logged one partition at a time.

Without any output the steps that depend on it would be skipped; with an ordinary one Dagster would record every
partition of the run a second time.
"""

_CHECKS_HAVE_PARTITIONS: Final = "partition" in inspect.signature(AssetCheckEvaluation.__new__).parameters
"""Dagster 1.13 knows which partition a check is of; before, a check is of its whole asset."""


def partitioned_check(
    *,
    name: str,
    asset: dg.AssetKey,
    description: str,
    blocking: bool,
    partitions_def: dg.PartitionsDefinition[str] | None,
) -> dg.AssetCheckSpec:
    """Return the spec of a check, of each partition where Dagster knows such checks."""
    more: dict[str, Any] = {"partitions_def": partitions_def} if _CHECKS_HAVE_PARTITIONS else {}
    return dg.AssetCheckSpec(name=name, asset=asset, description=description, blocking=blocking, **more)


def check_evaluation(
    *,
    asset_key: dg.AssetKey,
    check_name: str,
    passed: bool,
    description: str,
    blocking: bool,
    partition: str,
    target: dg.EventLogRecord | None,
) -> Any:
    """The result of a check for one of many partitions. Without its target, Dagster would not count it as current.

    `log_event` takes it, though its signature does not say so.
    """
    more: dict[str, Any] = {"partition": partition} if _CHECKS_HAVE_PARTITIONS else {}
    of = None
    if target is not None:
        of = AssetCheckEvaluationTargetMaterializationData(
            run_id=target.event_log_entry.run_id, storage_id=target.storage_id, timestamp=target.timestamp
        )
    return AssetCheckEvaluation(
        asset_key=asset_key,
        check_name=check_name,
        passed=passed,
        description=description,
        blocking=blocking,
        target_materialization_data=of,
        **more,
    )


def loaded_by(spec: dg.AssetSpec, io_manager_key: str) -> dg.AssetSpec:
    """Return a spec whose asset is loaded by an IO manager and stores nothing through it, unless it names its own."""
    if SYSTEM_METADATA_KEY_IO_MANAGER_KEY in spec.metadata:
        return spec
    # Without the type, each output would be passed to the IO manager, at the cost of one more event.
    more = {SYSTEM_METADATA_KEY_IO_MANAGER_KEY: io_manager_key, SYSTEM_METADATA_KEY_DAGSTER_TYPE: dg.Nothing}
    return spec.replace_attributes(metadata={**spec.metadata, **more})


def with_resource(assets: dg.AssetsDefinition, key: str, resource: dg.ResourceDefinition) -> dg.AssetsDefinition:
    """Return assets that bring a resource; `with_resources` would ask for all the others too."""
    attributes = assets.get_attributes_dict()
    with disable_dagster_warnings():
        return type(assets)(**{**attributes, "resource_defs": {**assets.resource_defs, key: resource}})


def is_direct(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> bool:
    """Return whether a body was called with `build_asset_context` or `build_op_context`, without a run."""
    op_context = context.op_execution_context if isinstance(context, dg.AssetExecutionContext) else context
    try:
        op_context.get_step_execution_context()
    except DagsterInvalidPropertyError:
        return True
    return False


def run_of(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> dg.DagsterRun:
    """Return the run of a context. A body that is called directly gets a run of its own, which Dagster stores nowhere.

    Each context has another one, so that two direct calls are two attempts.
    """
    if not is_direct(context):
        return context.run
    op_context = context.op_execution_context if isinstance(context, dg.AssetExecutionContext) else context
    known: dict[str, Any] = vars(op_context)
    if "_ugen_run" not in known:
        keys = op_context.selected_asset_keys if op_context.has_assets_def else ()
        known["_ugen_run"] = dg.DagsterRun(
            job_name="direct_invocation",
            run_id=f"direct-{uuid.uuid4()}",
            tags=dict(op_context.run_tags),
            asset_selection=frozenset(keys) or None,
        )
    run: dg.DagsterRun = known["_ugen_run"]
    return run


def retry_number_of(context: dg.OpExecutionContext) -> int:
    """Return how often Dagster has retried the step; 0 for a body that is called directly."""
    return 0 if is_direct(context) else context.retry_number


def will_retry_step(context: dg.OpExecutionContext) -> bool:
    """Return whether Dagster will retry this step in its run if it fails now: the op's policy, else the job's."""
    if is_direct(context):
        return False
    step = context.get_step_execution_context()
    policy = step.op_retry_policy
    return policy is not None and not step.retry_mode.disabled and step.previous_attempt_count < policy.max_retries


def will_retry_run(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether Dagster will start another run if a step of this one fails now, by the rule of its daemon.

    Raises:
        LookupError: Another system decides, and does not say: Dagster+ keeps the setting in the deployment.
    """
    if not instance.run_retries_enabled:
        if os.environ.get("DAGSTER_CLOUD_DEPLOYMENT_NAME") and run.tags.get(MAX_RETRIES_TAG) != "0":
            raise LookupError("the retries of runs are a setting of the Dagster+ deployment")
        return False
    failed = run.with_status(dg.DagsterRunStatus.FAILURE)
    return bool(auto_reexecution_should_retry_run(instance, failed, RunFailureReason.STEP_FAILURE))
