# SPDX-License-Identifier: Apache-2.0
"""Facts in Airflow's database about a task instance's job. Only the API server has this database.

Users with few rights can write XComs and the task state store by Airflow's REST API. So a job counts only if its XCom
carries the signature of the task's own execution for this very task instance, and everything that gives authority (the
connection, the right to cancel) comes from the task's serialized operator.

An API server often has other secrets, disks and networks than the workers. Where it cannot open the ledger, a cancel is
not recorded; `LedgerAccess` reports that in the log with its reason, and on the page of each job without it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.text import get_logger
from ugen_provider.hooks.ugen import UGenHook
from ugen_provider.triggers.cancellation import JOB_REF, JobRef, Place, parse_attempt

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ugen_provider.hooks.ugen import UGenSettings


_log = get_logger("ugen_provider.plugins")
_unreadable: set[str] = set()
"""Connections of which this process has logged that it cannot read them."""


@dataclass(frozen=True, slots=True)
class ProvenJob:
    """A job of a task instance, as its own execution signed it.

    Attributes:
        place: The task instance.
        ref: The job.
        settings: Of the connection that the task's operator names.
        ledger_conn_id: The connection of its ledger; None without one.
    """

    place: Place
    ref: JobRef
    settings: UGenSettings
    ledger_conn_id: str | None


@dataclass(frozen=True, slots=True)
class OperatorFields:
    """The fields of a task's serialized operator that give authority."""

    ugen_conn_id: str
    ledger_conn_id: str | None
    cancel_on_kill: bool | None


@dataclass(slots=True)
class KnownOperators:
    """Serialized operators and connections that were read already, for a list of many task instances.

    Attributes:
        tasks: The tasks of a DAG version, by their ids.
        settings: Of connections; None for one that cannot be used.
    """

    tasks: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    settings: dict[str, UGenSettings | None] = field(default_factory=dict)

    def settings_of(self, ugen_conn_id: str) -> UGenSettings | None:
        """Return the settings of a connection; None for one that cannot be used, for any reason."""
        if ugen_conn_id not in self.settings:
            try:
                self.settings[ugen_conn_id] = UGenHook(ugen_conn_id).get_settings()
            except UGenError as error:
                self.settings[ugen_conn_id] = None
                if ugen_conn_id not in _unreadable:  # once: pages ask every few seconds
                    _unreadable.add(ugen_conn_id)
                    _log.error("this API server cannot read connection %r, so it shows and cancels no job of its "
                               "tasks: %s", ugen_conn_id, error)  # fmt: skip
        return self.settings[ugen_conn_id]


def is_operator(place: Place, name: str, *, session: Session, known: KnownOperators) -> bool:
    """Return whether the serialized operator of a task instance is the one of this provider with this class name."""
    task = _serialized_task(place, session=session, known=known)
    module = str((task or {}).get("_task_module") or "")
    return task is not None and task.get("task_type") == name and module.startswith("ugen_provider.")


def proven_job(place: Place, *, session: Session, known: KnownOperators | None = None) -> ProvenJob | None:
    """Return the job of a task instance; None where nothing proves one.

    Args:
        place: The task instance.
        session: Of Airflow's database.
        known: What was read for other task instances of the same request.
    """
    known = known or KnownOperators()
    fields = operator_fields(place, session=session, known=known)
    published = _published(place, session=session).get(place.map_index)
    if fields is None or published is None:
        return None
    settings = known.settings_of(fields.ugen_conn_id)
    if settings is None:
        return None
    ref = JobRef.verified(published, place, settings.signer)
    if ref is None or ref.ugen_conn_id != fields.ugen_conn_id:
        return None
    attempt = parse_attempt(ref.attempt)
    if attempt is None or attempt[0] not in _attempt_ids(place, session=session):
        return None
    return ProvenJob(place, ref, settings, fields.ledger_conn_id or settings.ledger_conn_id)


def is_shared(place: Place, job_id: str, *, session: Session) -> bool:
    """Return whether another mapped instance of the task says that it waits for the same job."""
    refs = _published(place, session=session)
    others = (JobRef.from_dict(stored) for index, stored in refs.items() if index != place.map_index)
    return any(ref is not None and ref.job_id == job_id for ref in others)


def orders_of_run(proven: ProvenJob, *, session: Session) -> list[tuple[Place, str]]:
    """Return the task instances of the run that hold an order for a job, with the order's key."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    place = proven.place
    query = select(XComModel.task_id, XComModel.map_index, XComModel.value).where(
        XComModel.dag_id == place.dag_id, XComModel.run_id == place.run_id, XComModel.key == JOB_REF
    )
    found = []
    for task_id, index, value in session.execute(query):
        where = Place(place.dag_id, place.run_id, task_id, index)
        ref = JobRef.verified(_plain(value), where, proven.settings.signer)
        if ref is not None and ref.job_id == proven.ref.job_id and ref.order_key:
            found.append((where, ref.order_key))
    return found


def state_of(place: Place, *, session: Session) -> tuple[str | None, bool]:
    """Return the state of the task instance, and whether there is none any more."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    found = session.execute(_of(select(TaskInstance.state), TaskInstance, place)).first()
    return (None, True) if found is None else (found[0], False)


def operator_fields(place: Place, *, session: Session, known: KnownOperators | None = None) -> OperatorFields | None:
    """Read a task's serialized operator; None for a task that is none of this provider's."""
    task = _serialized_task(place, session=session, known=known or KnownOperators())
    if task is None or "ugen_conn_id" not in (task.get("template_fields") or ()):
        return None
    partial: Any = task.get("partial_kwargs") or {}
    given = partial.get("__var", partial) if isinstance(partial, Mapping) else {}
    rendered = _rendered_fields(place, session=session)

    def value(name: str, default: Any = None) -> Any:
        found = task.get(name, given.get(name, default))
        is_template = isinstance(found, str) and ("{{" in found or "{%" in found)
        # A mapped argument is in neither; the rendered fields are written by the task's own execution.
        known = isinstance(found, str) and not is_template
        return found if known or isinstance(found, bool) else rendered.get(name, default)

    conn_id = value("ugen_conn_id", UGenHook.default_conn_name)
    ledger, cancels = value("ledger_conn_id"), task.get("cancel_on_kill", given.get("cancel_on_kill"))
    if not isinstance(conn_id, str) or not conn_id:
        return None
    return OperatorFields(
        conn_id,
        ledger if isinstance(ledger, str) and ledger not in {"", "None"} else None,
        cancels if isinstance(cancels, bool) else None,
    )


def _serialized_task(place: Place, *, session: Session, known: KnownOperators) -> Mapping[str, Any] | None:
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    version = session.execute(_of(select(TaskInstance.dag_version_id), TaskInstance, place)).scalar()
    key = (place.dag_id, str(version))
    if key in known.tasks:
        return known.tasks[key].get(place.task_id)
    model = None
    if version is not None:
        model = session.execute(select(SerializedDagModel).where(SerializedDagModel.dag_version_id == version)).scalar()
    if model is None:
        model = SerializedDagModel.get(place.dag_id, session=session)
    data: Any = None if model is None else model.data
    known.tasks[key] = {}
    for task in ((data or {}).get("dag") or {}).get("tasks") or ():
        fields = task.get("__var", task) if isinstance(task, Mapping) else {}
        if isinstance(fields, Mapping):
            known.tasks[key][str(fields.get("task_id"))] = fields
    return known.tasks[key].get(place.task_id)


def _rendered_fields(place: Place, *, session: Session) -> Mapping[str, Any]:
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from sqlalchemy import select

    query = _of(select(RenderedTaskInstanceFields.rendered_fields), RenderedTaskInstanceFields, place)
    found = session.execute(query).scalar()
    found = _plain(found)
    return found if isinstance(found, Mapping) else {}


def _attempt_ids(place: Place, *, session: Session) -> set[str]:
    """Return the ids of all attempts of a task instance."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskinstancehistory import TaskInstanceHistory
    from sqlalchemy import select

    now = session.execute(_of(select(TaskInstance.id), TaskInstance, place)).scalars()
    column = getattr(TaskInstanceHistory, "task_instance_id", None)
    before = () if column is None else session.execute(_of(select(column), TaskInstanceHistory, place)).scalars()
    return {str(found) for found in (*now, *before)}


def _published(place: Place, *, session: Session) -> dict[int, Any]:
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    query = select(XComModel.map_index, XComModel.value).where(
        XComModel.dag_id == place.dag_id,
        XComModel.run_id == place.run_id,
        XComModel.task_id == place.task_id,
        XComModel.key == JOB_REF,
    )
    return {index: _plain(value) for index, value in session.execute(query)}


def _of(query: Any, model: Any, place: Place) -> Any:
    return query.where(
        model.dag_id == place.dag_id,
        model.run_id == place.run_id,
        model.task_id == place.task_id,
        model.map_index == place.map_index,
    )


def _plain(value: Any) -> Any:
    """Return an XCom as the database holds it: JSON, or the text of JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None


class DatabaseTaskState:
    """The state store of a task instance, through Airflow's database, from 3.3 on.

    Args:
        place: The task instance.

    Raises:
        ImportError: This Airflow has no task state store.
    """

    def __init__(self, place: Place) -> None:
        from airflow._shared.state import TaskScope
        from airflow.state.metastore import MetastoreBackend

        self._backend = MetastoreBackend()
        self._scope = TaskScope(
            dag_id=place.dag_id, run_id=place.run_id, task_id=place.task_id, map_index=place.map_index
        )

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value; the default too where a backend of the worker's keeps it elsewhere."""
        stored = self._backend.get(self._scope, key)
        return default if stored is None else json.loads(stored)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:  # noqa: ARG002  it never expires
        """Store a value in the task's state."""
        self._backend.set(self._scope, key, json.dumps(value), expires_at=None)


CLEARED = (
    "[state_store] clear_on_success deletes the record of this purchase when the task succeeds. Name a ledger "
    "(ledger_conn_id) in the connection, or a task that is cleared later can buy again."
)
NO_LEDGER = (
    "This API server cannot open the ledger of the task's connection; its log says why. A job that a person ends here "
    "is cancelled, but the cancel is not recorded, so that the next attempt asks for `regenerate`."
)
_VALID_SECONDS = 300.0


class LedgerAccess:
    """Remembers for five minutes which ledgers this process can open, and logs each reason once."""

    def __init__(self) -> None:
        self._checked: dict[str, tuple[float, bool]] = {}
        self._reported: set[tuple[str, ...]] = set()
        self._lock = threading.Lock()

    def notice(self, ledger_conn_id: str | None) -> str | None:
        """Return a warning for the page of a job; the log has the reason.

        Args:
            ledger_conn_id: The connection of the job's ledger. Without one Airflow's task state store keeps the record,
                and a setting can delete it.
        """
        if ledger_conn_id is None:
            return self._state_store_notice()
        with self._lock:
            at, is_open = self._checked.get(ledger_conn_id, (0.0, False))
        if not at or time.monotonic() - at > _VALID_SECONDS:
            is_open = self._opens(ledger_conn_id)
            with self._lock:
                self._checked[ledger_conn_id] = (time.monotonic(), is_open)
        return None if is_open else NO_LEDGER

    def report(self, ledger_conn_id: str, error: Exception) -> None:
        """Log once that this process cannot open a ledger."""
        if self._is_new(ledger_conn_id, str(error)):
            _log.error(
                "this API server cannot open the ledger of connection %r: %s. Let it read the same connection as the "
                "workers: a cancel of a task that a person ends is sent from here, and is not recorded",
                ledger_conn_id,
                error,
            )

    def _is_new(self, *event: str) -> bool:
        with self._lock:
            is_new = event not in self._reported
            self._reported.add(event)
        return is_new

    def _state_store_notice(self) -> str | None:
        from airflow.configuration import conf

        if not conf.getboolean("state_store", "clear_on_success", fallback=False):
            return None
        if self._is_new(CLEARED):
            _log.warning("%s", CLEARED)
        return CLEARED

    def _opens(self, ledger_conn_id: str) -> bool:
        from ugen_provider.hooks.ugen import open_ledger

        try:
            open_ledger(ledger_conn_id).close()
        except UGenError as error:
            self.report(ledger_conn_id, error)
            return False
        return True


access = LedgerAccess()
"""The one of this process."""
