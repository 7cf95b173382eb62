# SPDX-License-Identifier: Apache-2.0
"""The listener of the cancelling table: a person ended a task instance, and no triggerer had loaded its trigger.

It runs in the API server, where Airflow tells of what a person does. What a worker or the scheduler tells of the same
hooks is not for it: there a task failed by itself, and its job is left. The cancel is written down before it is sent,
so that the next attempt knows whose it was.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from ugen_provider.plugins.database import Place
    from ugen_provider.triggers.killing import Watch

_log = logging.getLogger("ugen_provider.plugins.listener")
_pool: list[ThreadPoolExecutor] = []
_COMMIT_LOOKS = 20
_COMMIT_PAUSE = 0.5
"""Airflow tells of what a person does before it has committed it."""


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:  # noqa: ARG001
    """A person marked it failed, or its run."""
    _ended(previous_state, task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """A person marked it successful, or its run."""
    _ended(previous_state, task_instance)


def _ended(previous_state: Any, task_instance: Any) -> None:
    # Only for what a person does does Airflow name no earlier state, and hand over its own model.
    if previous_state is not None or type(task_instance).__module__ != "airflow.models.taskinstance":
        return
    from ugen_provider.plugins.database import Place

    place = Place(task_instance.dag_id, task_instance.run_id, task_instance.task_id, task_instance.map_index)
    if not _pool:
        _pool.append(ThreadPoolExecutor(max_workers=4, thread_name_prefix="ugen-kill"))
    # The request's transaction is still open, and the person waits for its answer.
    _pool[0].submit(_cancel_quietly, place, task_instance.try_number)


def _cancel_quietly(place: Place, attempt: int) -> None:
    try:
        cancel_job_of(place, attempt=attempt)
    except Exception as error:  # noqa: BLE001  nobody waits for this thread; the cancel is written down
        _log.warning("the job of %s could not be cancelled yet (%s): %s", place, type(error).__name__, error)


def cancel_job_of(place: Place, *, attempt: int) -> bool:
    """Cancel the job of a task instance that a person ended, where it is its alone.

    Args:
        place: The task instance.
        attempt: The attempt that was ended.

    Returns:
        Whether it was cancelled.
    """
    watch = _to_cancel(place, attempt=attempt)
    for _ in range(_COMMIT_LOOKS):
        if watch is not None:
            break
        time.sleep(_COMMIT_PAUSE)
        watch = _to_cancel(place, attempt=attempt)
    if watch is None:
        return False
    from ugen_provider.core.jobs.cancelling import cancel
    from ugen_provider.hooks.ugen import UGenHook

    store, scope = _intent_of(place, watch)
    with UGenHook(watch.ugen_conn_id).get_conn() as client:
        if client.jobs.get(watch.job_id).ended:
            return False
        done = client.run(cancel(client.caller, watch.job_id, reason="kill", store=store, scope=scope))
    if done.confirmed:
        _log.info("job %s was cancelled, since %s was ended by a person", watch.job_id, place)
    return done.confirmed


def _to_cancel(place: Place, *, attempt: int) -> Watch | None:
    from airflow.utils.session import create_session

    from ugen_provider.plugins.database import is_shared, state_of, watch_of
    from ugen_provider.triggers.killing import may_cancel

    with create_session() as session:
        watch = watch_of(place, session=session)
        if watch is None or not watch.cancel_on_kill:
            return None
        state, gone = state_of(place, session=session)
        shared = watch.by_scope_key and is_shared(place, watch.job_id, session=session)
    may = may_cancel(state=state, gone=gone, watched=watch, attempt=attempt, shared=shared)
    return watch if may else None


def _intent_of(place: Place, watch: Watch) -> tuple[Any, str]:
    """Where the order's intent stands: with this task instance, or with the one that handed its job on to a gate."""
    from airflow.utils.session import create_session

    from ugen_provider.plugins.database import DatabaseIntentStore, watches_of_run

    try:
        mine = DatabaseIntentStore(place)
    except ImportError:  # below Airflow 3.3
        return None, watch.scope
    with create_session() as session:
        others = watches_of_run(place, watch.job_id, session=session)
    for where, other in others:
        store = DatabaseIntentStore(where)
        intent = store.read(other.scope)
        if intent is not None and intent.job_id == watch.job_id:
            return store, other.scope
    return mine, watch.scope
