# SPDX-License-Identifier: Apache-2.0
"""Whether tasks run on one machine or on several, as this Airflow's settings say it."""

from __future__ import annotations

import re

from airflow.configuration import conf

_ON_ONE_MACHINE = frozenset({"LocalExecutor", "SequentialExecutor"})


def tasks_span_machines() -> bool:
    """Whether tasks of this Airflow may run on several machines."""
    return spans_machines(str(conf.get("core", "executor", fallback="LocalExecutor")))


def spans_machines(executors: str) -> bool:
    """Whether tasks may run on several machines, where a ledger in a file would be another one on each.

    Args:
        executors: What `[core] executor` says: one or several, with aliases, perhaps by team.

    Examples:
        >>> spans_machines("LocalExecutor"), spans_machines("LocalExecutor,CeleryExecutor"), spans_machines("my.Own")
        (False, True, True)
    """
    names = (name for name in re.split(r"[,;=]", executors) if "Executor" in name or "." in name)
    return any(name.partition(":")[0].strip().rpartition(".")[2] not in _ON_ONE_MACHINE for name in names)
