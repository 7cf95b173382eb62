# SPDX-License-Identifier: Apache-2.0
"""The listener of the cancelling table, for what a person does to a task that no process works on.

That is a deferred task whose trigger no triggerer has loaded, one that is queued or up for retry after an earlier
attempt, and one that awaits input at a gate. It runs in the API server, where Airflow reports what a person does.
Reports of workers or the scheduler through these hooks are ignored: there a task failed by itself, and its job is left.
A cancel is recorded before it is sent; in a ledger it stays owed to the reconciler.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from ugen_provider.core.text import get_logger

if TYPE_CHECKING:
    from ugen_provider.plugins.database import ProvenJob
    from ugen_provider.triggers.cancellation import Place

_log = get_logger("ugen_provider.plugins.listener")
_pool: list[ThreadPoolExecutor] = []
_COMMIT_POLLS = 20
_COMMIT_PAUSE = 0.5
"""Airflow calls the listener before it has committed what a person did."""

_REPEATS = (5.0, 30.0, 120.0, 300.0, 600.0)
"""Seconds after which a cancel that failed is tried again here."""

_UNRECORDED_FROM = 2
"""The repeat from which on a cancel is sent although the ledger does not answer: the job costs credits meanwhile."""


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:  # noqa: ARG001
    """Handle a task instance, or its run, that a person marked failed."""
    _ended(previous_state, task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """Handle a task instance, or its run, that a person marked successful."""
    _ended(previous_state, task_instance)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    """Handle a task instance that a person marked skipped."""
    _ended(previous_state, task_instance)


def _ended(previous_state: Any, task_instance: Any) -> None:
    # Only for what a person does, Airflow names no earlier state and passes its own model.
    if previous_state is not None or type(task_instance).__module__ != "airflow.models.taskinstance":
        return
    from ugen_provider.triggers.cancellation import place_of

    # The request's transaction is still open, and the person waits for its answer.
    _submit(place_of(task_instance), attempt=0)


def _submit(place: Place, *, attempt: int) -> None:
    if not _pool:
        _pool.append(ThreadPoolExecutor(max_workers=4, thread_name_prefix="ugen-kill"))
    _pool[0].submit(_cancel_or_repeat, place, attempt)


def _cancel_or_repeat(place: Place, attempt: int) -> None:
    try:
        cancel_job_of(place, needs_ledger=attempt < _UNRECORDED_FROM)
    except Exception as error:  # noqa: BLE001  it is tried again, and in a ledger it is owed
        from ugen_provider.core.ledger.errors import AttemptSupersededError

        if isinstance(error, AttemptSupersededError):
            _log.info("the job of %s keeps running, since a newer attempt needs it", place)
            return
        _log.warning("the job of %s could not be cancelled yet (%s): %s", place, type(error).__name__, error)
        if attempt < len(_REPEATS):
            repeat = threading.Timer(_REPEATS[attempt], _submit, args=(place,), kwargs={"attempt": attempt + 1})
            repeat.daemon = True
            repeat.start()


def cancel_job_of(place: Place, *, needs_ledger: bool = True) -> bool:
    """Cancel the job of a task instance that a person ended.

    Args:
        place: The task instance.
        needs_ledger: Whether a ledger that does not answer is an error; otherwise the cancel is sent unrecorded. One
            that this process cannot open at all is reported, and the cancel is sent.

    Returns:
        Whether it was cancelled.

    Raises:
        AttemptSupersededError: A newer attempt needs the job.
        UGenError: The cancel could not be sent.
    """
    proven = _to_cancel(place)
    for _ in range(_COMMIT_POLLS):
        if proven is not None:
            break
        time.sleep(_COMMIT_PAUSE)
        proven = _to_cancel(place)
    if proven is None:
        return False
    from contextlib import ExitStack

    from ugen_provider.core.jobs.sync.world import World
    from ugen_provider.hooks.ugen import UGenHook
    from ugen_provider.triggers.cancellation import cancel_killed_job

    ref, config = proven.ref, proven.settings.config
    with ExitStack() as stack:
        client = stack.enter_context(UGenHook(ref.ugen_conn_id).get_conn(config=config))
        store, order_key = _order_of(proven, stack, needs_ledger=needs_ledger)
        done = cancel_killed_job(
            World(client, store),
            job_id=ref.job_id,
            order_key=order_key,
            token=ref.token or None,
            may_cancel=lambda: _to_cancel(place) is not None,
        )
    confirmed = done is not None and done.confirmed
    if confirmed:
        _log.info("job %s: cancelled, since a person ended %s", ref.job_id, place)
    return confirmed


def _to_cancel(place: Place) -> ProvenJob | None:
    """Return the job if the cancelling table says that it is cancelled now."""
    from airflow.utils.session import create_session

    from ugen_provider.plugins.database import is_shared, operator_fields, proven_job, state_of
    from ugen_provider.triggers.cancellation import should_cancel

    with create_session() as session:
        proven = proven_job(place, session=session)
        fields = operator_fields(place, session=session)
        if proven is None or fields is None or fields.cancel_on_kill is False or not proven.ref.cancel_on_kill:
            return None
        state, gone = state_of(place, session=session)
        shared = proven.ref.has_scope_key and is_shared(place, proven.ref.job_id, session=session)
    attempt = proven.ref.attempt
    # Airflow deletes the XCom when a newer attempt begins, so the attempt that published it is the newest.
    may = should_cancel(state=state, gone=gone, published=attempt, attempt=attempt, shared=shared)
    return proven if may else None


def _order_of(proven: ProvenJob, stack: Any, *, needs_ledger: bool) -> tuple[Any, str]:
    """Return the store and the key of the job's order: in its ledger, or with the task instance that bought it."""
    from ugen_provider.core.ledger.record import KeyOnlyStore

    ref, signer = proven.ref, proven.settings.signer
    if proven.ledger_conn_id is not None:
        from ugen_provider.core.api.errors import ConfigError
        from ugen_provider.core.ledger.errors import LedgerUnavailableError
        from ugen_provider.core.ledger.orders import LedgerOrderStore
        from ugen_provider.hooks.ugen import open_ledger
        from ugen_provider.plugins.database import access

        try:
            ledger = stack.enter_context(open_ledger(proven.ledger_conn_id, expected_id=ref.ledger_id or None))
        except (ConfigError, LedgerUnavailableError) as error:
            if needs_ledger and isinstance(error, LedgerUnavailableError):
                raise
            # The job costs credits. A next attempt that does not know of this cancel fails instead of buying.
            access.report(proven.ledger_conn_id, error)
            return KeyOnlyStore(), ""
        store = LedgerOrderStore(ledger, signer=signer)
        verified = store.read_verified(ref.order_key) if ref.order_key else None
        return store, ref.order_key if verified is not None else ""
    from airflow.utils.session import create_session

    from ugen_provider.operators.task_state import TaskStateOrderStore
    from ugen_provider.plugins.database import DatabaseTaskState, orders_of_run

    with create_session() as session:
        orders = orders_of_run(proven, session=session)
    for place, order_key in orders:
        try:
            kept = TaskStateOrderStore(DatabaseTaskState(place), signer=signer)
        except ImportError:  # below Airflow 3.3
            break
        record = kept.read_verified(order_key)
        if record is not None and record.job_id == ref.job_id:
            return kept, order_key
    return KeyOnlyStore(), ""
