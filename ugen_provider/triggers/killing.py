# SPDX-License-Identifier: Apache-2.0
"""Who may cancel a job when its task is killed: the cancelling table, and how each process looks up what it asks for.

Airflow calls `on_kill` for what a person did and for what befell a machine alike. What happened is read from the task
instance: it is over, or gone, where a person ended it or its run timed out; in every other state somebody comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

WATCH = "ugen_watch"
"""The XCom under which a task instance says which job it watches; gone as soon as a next attempt has begun."""

OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States of a task instance from which nobody comes back by itself."""


class TaskInstanceLike(Protocol):
    """What identifies a task instance and its attempt."""

    @property
    def dag_id(self) -> str:
        """The DAG."""
        ...

    @property
    def run_id(self) -> str:
        """The run."""
        ...

    @property
    def task_id(self) -> str:
        """The task."""
        ...

    @property
    def map_index(self) -> int | None:
        """Which of the mapped instances; None or -1 for an unmapped one."""
        ...

    @property
    def try_number(self) -> int:
        """The attempt, from 1."""
        ...


@dataclass(frozen=True, slots=True)
class Watch:
    """What a task instance says of the job that it watches.

    Attributes:
        job_id: The job.
        ugen_conn_id: The connection.
        scope: Of the intent.
        attempt: The try number.
        cancel_on_kill: Whether a kill cancels the job.
        by_scope_key: Whether another mapped instance may have ordered the very same.
    """

    job_id: str
    ugen_conn_id: str
    scope: str
    attempt: int
    cancel_on_kill: bool = False
    by_scope_key: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, for the XCom."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, stored: object) -> Watch | None:
        """Read what `to_dict` made; None where it is something else."""
        if not isinstance(stored, Mapping):
            return None
        try:
            return cls(**{name: stored[name] for name in cls.__slots__ if name in stored})
        except TypeError:
            return None


def may_cancel(*, state: str | None, gone: bool, watched: Watch | None, attempt: int, shared: bool) -> bool:
    """The table: cancel where a person, or the run's end, ended this very attempt, and the job is its alone.

    Args:
        state: Of the task instance now.
        gone: Whether there is no such task instance any more.
        watched: What the task instance says it watches now.
        attempt: The try number of whoever asks.
        shared: Whether another mapped instance watches the same job.

    Examples:
        >>> may_cancel(state="queued", gone=False, watched=None, attempt=1, shared=False)  # cleared
        False
    """
    if shared:
        return False
    if gone:
        return True
    return str(state) in OVER and watched is not None and watched.attempt == attempt


def ask_airflow(ti: TaskInstanceLike, *, job_id: str, by_scope_key: bool) -> bool:
    """Ask Airflow from inside a task or a trigger, by what the Task SDK offers there. It blocks.

    Args:
        ti: The task instance, with the attempt of whoever asks.
        job_id: The job in question.
        by_scope_key: Whether another mapped instance may have ordered the very same.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    index = -1 if ti.map_index is None else ti.map_index
    of_task = RuntimeTaskInstance.get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])
    states: Mapping[str, Any] = (of_task or {}).get(ti.run_id) or {}
    name = ti.task_id if index < 0 else f"{ti.task_id}_{index}"
    gone = name not in states
    shared = by_scope_key and any(
        watch is not None and watch.job_id == job_id
        for watch in (_watch_of(ti, other) for other in _indexes(states, ti.task_id) if other != index)
    )
    watched = None if gone else _watch_of(ti, index)
    return may_cancel(state=states.get(name), gone=gone, watched=watched, attempt=ti.try_number, shared=shared)


def _indexes(states: Iterable[str], task_id: str) -> list[int]:
    found = []
    for name in states:
        rest = name.removeprefix(f"{task_id}_")
        if rest != name and rest.isdecimal():
            found.append(int(rest))
    return found


def _watch_of(ti: TaskInstanceLike, map_index: int) -> Watch | None:
    from airflow.sdk.execution_time.xcom import XCom

    stored = XCom.get_one(key=WATCH, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=map_index)
    return Watch.from_dict(stored)
