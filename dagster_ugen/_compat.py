# SPDX-License-Identifier: Apache-2.0
"""The few things of Dagster that it keeps in private modules, in this one place.

Each stands here with what it is needed for, so that a release of Dagster that moves one is a change to this file.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluation,
    AssetCheckEvaluationTargetMaterializationData,
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
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster.components.resolved.errors import ResolutionException

__all__ = [
    "ALREADY_LOGGED",
    "CODE_VERSION_TAG",
    "DATA_VERSION_IS_USER_PROVIDED_TAG",
    "DATA_VERSION_TAG",
    "INTERRUPTS",
    "NamespacedMetadataSet",
    "ResolutionException",
    "check_evaluation",
    "get_input_data_version_tag",
    "get_input_event_pointer_tag",
    "partitioned_check",
]

INTERRUPTS: Final = (DagsterExecutionInterruptedError, KeyboardInterrupt)
"""What arrives in an asset's body when its run is terminated or its process gets a signal."""

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
    """The spec of a check, of each partition where Dagster knows such checks."""
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
