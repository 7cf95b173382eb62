# SPDX-License-Identifier: Apache-2.0
"""Where the names that moved between Airflow 3.0 and 3.3 are found; the one place that knows Airflow's version."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from airflow import __version__ as _airflow_version

AIRFLOW_VERSION = tuple(int(part) for part in _airflow_version.split(".")[:2])
AIRFLOW_3_1_PLUS = AIRFLOW_VERSION >= (3, 1)
AIRFLOW_3_3_PLUS = AIRFLOW_VERSION >= (3, 3)

if TYPE_CHECKING or AIRFLOW_3_1_PLUS:
    from airflow.sdk import BaseHook
else:
    from airflow.hooks.base import BaseHook

if TYPE_CHECKING or AIRFLOW_VERSION >= (3, 2):
    from airflow.sdk.exceptions import (
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferred,
    )
else:
    from airflow.exceptions import (
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferred,
    )

if TYPE_CHECKING or AIRFLOW_3_3_PLUS:
    from airflow.sdk.execution_time.context import NEVER_EXPIRE
else:
    NEVER_EXPIRE = None  # there is no store to expire anything in


def determine_kwargs(func: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Airflow's own; found when it is called, since every operator loads this module and one decorator calls it."""
    if TYPE_CHECKING or AIRFLOW_VERSION >= (3, 2):
        from airflow.sdk.bases.decorator import determine_kwargs as found
    else:
        from airflow.utils.operator_helpers import determine_kwargs as found
    return found(func, args, kwargs)


def mask_secret(secret: str) -> None:
    """Hide a text in logs and pages, as Airflow's function of this name does; found when it is called."""
    if TYPE_CHECKING or AIRFLOW_3_1_PLUS:
        from airflow.sdk.log import mask_secret as found
    else:
        from airflow.sdk.execution_time.secrets_masker import mask_secret as found
    found(secret)


__all__ = [
    "AIRFLOW_3_1_PLUS",
    "AIRFLOW_3_3_PLUS",
    "AIRFLOW_VERSION",
    "NEVER_EXPIRE",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "BaseHook",
    "TaskDeferred",
    "determine_kwargs",
    "mask_secret",
]
