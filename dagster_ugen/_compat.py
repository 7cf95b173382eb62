# SPDX-License-Identifier: Apache-2.0
"""The few things of Dagster that it keeps in private modules, in this one place.

Each stands here with what it is needed for, so that a release of Dagster that moves one is a change to this file.
"""

from __future__ import annotations

from typing import Final

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

__all__ = [
    "ALREADY_LOGGED",
    "CODE_VERSION_TAG",
    "DATA_VERSION_IS_USER_PROVIDED_TAG",
    "DATA_VERSION_TAG",
    "INTERRUPTS",
    "NamespacedMetadataSet",
    "get_input_data_version_tag",
    "get_input_event_pointer_tag",
]

INTERRUPTS: Final = (DagsterExecutionInterruptedError, KeyboardInterrupt)
"""What arrives in an asset's body when its run is terminated or its process gets a signal."""

ALREADY_LOGGED: Final = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
"""Metadata of an output for which Dagster makes no event, since its events were logged one partition at a time.

Without any output the steps that depend on it would be skipped; with an ordinary one Dagster would record every
partition of the run a second time.
"""
