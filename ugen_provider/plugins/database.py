# SPDX-License-Identifier: Apache-2.0
"""What Airflow's database says of a task instance's job. Only the API server, and tasks that are let, have one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ugen_provider.operators.state import intent_key
from ugen_provider.triggers.killing import WATCH, Watch

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ugen_provider.core.jobs.intent import Intent


@dataclass(frozen=True, slots=True)
class Place:
    """A task instance, by what identifies it."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1


def watch_of(place: Place, *, session: Session) -> Watch | None:
    """What the task instance says it watches; None for one that is not ours, or has not begun."""
    return next(iter(_watches(place, session=session, of_all=False).values()), None)


def is_shared(place: Place, job_id: str, *, session: Session) -> bool:
    """Whether another mapped instance of the task watches the same job."""
    watches = _watches(place, session=session, of_all=True)
    return any(watch.job_id == job_id for index, watch in watches.items() if index != place.map_index)


def watches_of_run(place: Place, job_id: str, *, session: Session) -> list[tuple[Place, Watch]]:
    """What all task instances of this run say that watch a job, or watched it."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    query = select(XComModel.task_id, XComModel.map_index, XComModel.value).where(
        XComModel.dag_id == place.dag_id, XComModel.run_id == place.run_id, XComModel.key == WATCH
    )
    found = []
    for task_id, index, value in session.execute(query):
        watch = Watch.from_dict(_plain(value))
        if watch is not None and watch.job_id == job_id:
            found.append((Place(place.dag_id, place.run_id, task_id, index), watch))
    return found


def _watches(place: Place, *, session: Session, of_all: bool) -> dict[int, Watch]:
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    query = select(XComModel.map_index, XComModel.value).where(
        XComModel.dag_id == place.dag_id,
        XComModel.run_id == place.run_id,
        XComModel.task_id == place.task_id,
        XComModel.key == WATCH,
    )
    if not of_all:
        query = query.where(XComModel.map_index == place.map_index)
    found = {}
    for index, value in session.execute(query):
        watch = Watch.from_dict(_plain(value))
        if watch is not None:
            found[index] = watch
    return found


def _plain(value: Any) -> Any:
    """An XCom as the database gives it: JSON, or the text of JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None


def state_of(place: Place, *, session: Session) -> tuple[str | None, bool]:
    """State of the task instance, and whether there is none any more."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    found = session.execute(
        select(TaskInstance.state).where(
            TaskInstance.dag_id == place.dag_id,
            TaskInstance.run_id == place.run_id,
            TaskInstance.task_id == place.task_id,
            TaskInstance.map_index == place.map_index,
        )
    ).first()
    return (None, True) if found is None else (found[0], False)


class DatabaseIntentStore:
    """The intents of a task instance, through Airflow's database, from 3.3 on.

    Args:
        place: The task instance.

    Raises:
        ImportError: This Airflow has no task state store.
    """

    durable = True

    def __init__(self, place: Place) -> None:
        from airflow._shared.state import TaskScope
        from airflow.state.metastore import MetastoreBackend

        self._backend = MetastoreBackend()
        self._scope = TaskScope(
            dag_id=place.dag_id, run_id=place.run_id, task_id=place.task_id, map_index=place.map_index
        )

    def read(self, scope: str) -> Intent | None:
        """The newest intent of a scope; None too where a backend of the worker's keeps it elsewhere."""
        from ugen_provider.core.jobs.intent import Intent

        stored = self._backend.get(self._scope, intent_key(scope))
        read = None if stored is None else json.loads(stored)
        return Intent.from_dict(read) if isinstance(read, dict) and "scope" in read else None

    def write(self, intent: Intent) -> None:
        """Keep an intent."""
        self._backend.set(self._scope, intent_key(intent.scope), json.dumps(intent.to_dict()), expires_at=None)
