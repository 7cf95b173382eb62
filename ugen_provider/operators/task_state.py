# SPDX-License-Identifier: Apache-2.0
"""Where a task keeps its order: the ledger that its connection names, else Airflow's task state store, else nowhere.

Without a ledger the state store holds the record, from Airflow 3.3 on. Its rows belong to one task instance, can be
read by that one alone, and are deleted with the run. Its writes are unconditional, so tokens are plain writes there.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.triggers.cancellation import JOB_REF, JobRef, Place, attempt_name, digest, place_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api.config import Secret
    from ugen_provider.core.jobs.order import OrderKey
    from ugen_provider.core.jobs.sync.world import World
    from ugen_provider.core.ledger.record import Action, ActionState, OrderRecord, OrderStore, RecordSigner
    from ugen_provider.hooks.ugen import UGenSettings

RECORD_PREFIX = "ugen_order_"
ACTIONS_PREFIX = "ugen_actions_"
CANCEL = "ugen_cancel"
"""The XCom by which a gate or a cancel task says, without a ledger, that it cancelled the job of another task."""

_log = logging.getLogger("ugen_provider.operators")
_writing = threading.Lock()
"""The thread that handles a kill and the task's own thread both append actions."""


class TaskState(Protocol):
    """The part of Airflow's task state store that is used."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value of the task's state."""
        ...

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Store a value in the task's state."""
        ...


class TaskStateOrderStore:
    """Keeps orders in the state store of one task instance, where they never expire.

    Args:
        state: `context["task_state_store"]`.
        signer: Signs what is stored, for the API server, which must not trust who wrote it.
    """

    durable = True

    def __init__(self, state: TaskState, *, signer: RecordSigner | None = None) -> None:
        self._state = state
        self._signer = signer

    def read(self, order_key: str) -> OrderRecord | None:
        """Return the record of an order; None where there is none."""
        stored = self._stored(order_key)
        return None if stored is None else stored.record

    def read_verified(self, order_key: str) -> OrderRecord | None:
        """Return a record only if its signature holds, for readers that did not write it."""
        stored = self._stored(order_key)
        if stored is None or self._signer is None or not self._signer.verifies(stored.text, stored.mac):
            return None
        return stored.record

    def take_token(self, order_key: str, attempt: str) -> OrderRecord:
        """Make an attempt the newest one of an order.

        Raises:
            AttemptSupersededError: A newer attempt has begun since this one took its token.
            LookupError: The order has no record.
        """
        stored = self._stored(order_key)
        if stored is None:
            raise LookupError(f"order {order_key} has no record")
        if stored.record.attempt == attempt:
            return stored.record
        if attempt in stored.attempts:
            raise _superseded(stored.record, attempt)
        taken = replace(stored.record, token=stored.record.token + 1, attempt=attempt)
        self._write(taken, attempts={**stored.attempts, attempt: taken.token})
        return taken

    def token_of(self, order_key: str, attempt: str) -> int | None:
        """Return the token that an attempt took; None where it never reached the record."""
        stored = self._stored(order_key)
        return None if stored is None else stored.attempts.get(attempt)

    def write(self, record: OrderRecord) -> OrderRecord:
        """Store a record for the attempt that it names, and return it as stored.

        Raises:
            AttemptSupersededError: A newer attempt has begun; nothing was written.
        """
        stored = self._stored(record.order_key)
        if record.token == 0:
            if stored is not None:
                raise _superseded(stored.record, record.attempt)
            first = replace(record, token=1)
            self._write(first, attempts={record.attempt: 1})
            return first
        if stored is None or stored.record.token != record.token:
            raise _superseded(stored.record if stored else record, record.attempt)
        newest = stored.record
        if record.job_id is None and newest.job_id and newest.purchase_number == record.purchase_number:
            record = replace(record, job_id=newest.job_id)
        self._write(record, attempts=stored.attempts)
        return record

    def record_job_id(self, record: OrderRecord, job_id: str) -> OrderRecord:
        """Store the answer of a request that was sent already, even if another attempt is the newest now.

        An attempt that was cleared meanwhile cannot store it. The next one finds the job by the stored key.
        """
        from ugen_provider.core.ledger.errors import AttemptSupersededError

        stored = self._stored(record.order_key)
        newest = stored.record if stored is not None else record
        if newest.purchase_number == record.purchase_number:
            changed = replace(newest, job_id=job_id, maybe_bought=True, missing_since=None)
        else:
            earlier = list(newest.earlier)
            earlier[record.purchase_number] = job_id
            changed = replace(newest, earlier=tuple(earlier))
        try:
            self._write(changed, attempts=stored.attempts if stored else {record.attempt: record.token})
        except AttemptSupersededError:
            _log.warning("job %s: its id could not be stored, since the task instance was cleared", job_id)
        return replace(record, job_id=job_id, maybe_bought=True, missing_since=None)

    def actions(self, order_key: str) -> tuple[Action, ...]:
        """Return the actions of an order, oldest first; one whose signature does not hold counts as none."""
        from ugen_provider.core.ledger.record import Action

        found = []
        for stored in self._state.get(ACTIONS_PREFIX + digest(order_key)) or ():
            try:
                action = Action.from_dict(stored["action"])
            except (ValueError, KeyError, TypeError):
                continue
            if self._signer is not None and not self._signer.verifies(_text(action.to_dict()), stored.get("mac")):
                _log.warning("order %s: an action without a valid signature is ignored", order_key)
                continue
            found.append(action)
        return tuple(found)

    def append_action(self, action: Action) -> Action:
        """Store a new action and return it with its id."""
        added = replace(action, action_id=action.action_id or uuid.uuid4().hex)
        self._change_actions(action.order_key, lambda actions: [*actions, added])
        return added

    def mark_action(self, action: Action, state: ActionState) -> None:
        """Store the new state of an action."""

        def change(actions: list[Action]) -> list[Action]:
            return [replace(each, state=state) if each.action_id == action.action_id else each for each in actions]

        self._change_actions(action.order_key, change)

    def _change_actions(self, order_key: str, change: Callable[[list[Action]], list[Action]]) -> None:
        with _writing:
            stored = [self._signed(action.to_dict()) for action in change(list(self.actions(order_key)))]
            self._set(ACTIONS_PREFIX + digest(order_key), stored)

    def _signed(self, action: dict[str, Any]) -> dict[str, Any]:
        return {"action": action, "mac": self._signer.sign(_text(action)) if self._signer is not None else None}

    def _stored(self, order_key: str) -> _StoredState | None:
        return _StoredState.read(self._state.get(RECORD_PREFIX + digest(order_key)), order_key)

    def _write(self, record: OrderRecord, *, attempts: Mapping[str, int]) -> None:
        document = record.to_dict()
        mac = self._signer.sign(_text(document)) if self._signer is not None else None
        stored = {"document": document, "mac": mac, "attempts": dict(attempts)}
        try:
            self._set(RECORD_PREFIX + digest(record.order_key), stored)
        except Exception as error:
            if _is_gone(error):
                # Airflow gives a task instance another id when it is cleared or retried: a newer attempt has begun.
                raise _superseded(record, record.attempt) from None
            raise

    def _set(self, key: str, value: Any) -> None:
        from ugen_provider.version_compat import NEVER_EXPIRE

        self._state.set(key, value, retention=NEVER_EXPIRE)


@dataclass(frozen=True, slots=True)
class _StoredState:
    record: OrderRecord
    text: str
    mac: str | None
    attempts: Mapping[str, int]

    @classmethod
    def read(cls, stored: object, order_key: str) -> _StoredState | None:
        """Read a stored value; a record of another order counts as none."""
        from ugen_provider.core.ledger.record import OrderRecord

        if not isinstance(stored, Mapping) or not isinstance(stored.get("document"), Mapping):
            return None
        document = cast("Mapping[str, Any]", stored["document"])
        record = OrderRecord.from_dict(document)
        if record.order_key != order_key:
            return None
        return cls(record, _text(document), stored.get("mac"), stored.get("attempts") or {})


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _superseded(newest: OrderRecord, attempt: str) -> Exception:
    from ugen_provider.core.ledger.errors import AttemptSupersededError

    return AttemptSupersededError(
        order_key=newest.order_key, attempt=attempt, newest=newest.attempt, job_id=newest.job_id
    )


def _is_gone(error: Exception) -> bool:
    """Return whether the API server answered 404 for the task instance's own id."""
    detail = getattr(getattr(error, "error", None), "detail", None)
    return isinstance(detail, Mapping) and detail.get("status_code") == 404


# The store of a task.


@dataclass(frozen=True, slots=True)
class OpenStore:
    """The place where a task keeps its order.

    Attributes:
        store: The store.
        ledger_id: Id of the ledger; '' without one.
        ledger_conn_id: Its connection; None without one.
        address: Its address; None without one.
        signer: Signs records.
    """

    store: OrderStore
    ledger_id: str = ""
    ledger_conn_id: str | None = None
    address: Secret | None = None
    signer: RecordSigner | None = None

    @property
    def in_ledger(self) -> bool:
        """Whether the record is in a ledger, which other processes of the account read."""
        return self.ledger_conn_id is not None

    @contextmanager
    def reopened(self) -> Iterator[OrderStore]:
        """Open the same place by a connection of its own, for the thread that handles a kill."""
        if self.address is None:
            yield self.store
            return
        from ugen_provider.core.ledger.orders import LedgerOrderStore
        from ugen_provider.hooks.ugen import open_address

        with open_address(self.address, expected_id=self.ledger_id) as ledger:
            yield LedgerOrderStore(ledger, signer=self.signer)

    def order_key_of(self, job_id: str) -> str | None:
        """Return the key of the order whose present job this is; None without a ledger, or where it knows none."""
        from ugen_provider.core.ledger.record import OrderRecord

        find = getattr(self.store, "of_job", None)
        record = find(job_id) if find is not None else None
        return record.order_key if isinstance(record, OrderRecord) else None


@contextmanager
def open_order_store(
    context: Context, settings: UGenSettings, *, ledger_conn_id: str | None = None, expected_id: str | None = None
) -> Iterator[OpenStore]:
    """Open the store of a task's order.

    Args:
        context: Airflow's.
        settings: Of the connection.
        ledger_conn_id: The connection of the ledger, in place of the one that the connection names.
        expected_id: Id of the ledger that the order began in, from a trigger or an XCom.

    Raises:
        ConfigError: The ledger is missing, unsuitable or another one.
        LedgerUnavailableError: Its database does not answer.
    """
    state = context.get("task_state_store")
    named = ledger_conn_id or settings.ledger_conn_id
    if named is None:
        if expected_id:
            raise ConfigError(
                f"ledger_conn_id: the task was begun with ledger {expected_id}, and its connection names none now; "
                "name the same ledger again, since an order that is not found could be bought twice"
            )
        yield OpenStore(_state_store(state, settings.signer))
        return
    from ugen_provider.core.ledger.orders import LedgerOrderStore
    from ugen_provider.hooks.ugen import ledger_address, open_address

    older = [] if state is None else [TaskStateOrderStore(state, signer=settings.signer).read]
    address, signer = ledger_address(named), settings.signer
    with open_address(address, expected_id=expected_id) as ledger:
        store = LedgerOrderStore(ledger, signer=signer, older=older)
        yield OpenStore(store, ledger.ledger_id, named, address, signer)


def _state_store(state: TaskState | None, signer: RecordSigner) -> OrderStore:
    from ugen_provider.core.ledger.record import KeyOnlyStore

    # Airflow below 3.3 has no state store: the idempotency key alone protects.
    return KeyOnlyStore() if state is None else TaskStateOrderStore(state, signer=signer)


def order_key_of(
    context: Context,
    *,
    scope_key: str | None = None,
    order_key: str | None = None,
    namespace: str = "",
    part: str = "",
) -> OrderKey:
    """Return the order key of this task instance.

    Args:
        context: Airflow's.
        scope_key: Replaces the map index.
        order_key: Replaces the task id, so that a task can be renamed.
        namespace: Of the connection.
        part: Distinguishes several orders of one task.
    """
    from ugen_provider.core.jobs.order import task_key

    place = place_of(context["ti"])
    last = scope_key if not part else f"{place.map_index if scope_key is None else scope_key}/{part}"
    return task_key(
        dag_id=place.dag_id,
        run_id=place.run_id,
        task_id=order_key or place.task_id,
        map_index=place.map_index,
        scope_key=last,
        namespace=namespace,
    )


def search_since(context: Context, *, in_ledger: bool, key_window: float, now: float) -> float | None:
    """Return since when a lost purchase of this run may exist; None where no record can be lost.

    Without a ledger the record goes with the run. A run that was deleted and created again could buy a second time once
    the service has forgotten the key, so its orders are searched before their first request.

    Args:
        context: Airflow's.
        in_ledger: Whether the record is in a ledger.
        key_window: Seconds for which the service remembers a key.
        now: Seconds since the epoch.
    """
    run_after = getattr(context["dag_run"], "run_after", None)
    if in_ledger or run_after is None:
        return None
    began: float = run_after.timestamp()
    return began - 3600.0 if now - began > key_window else None


def settle_by_conf(context: Context, store: OrderStore, order_key: str) -> None:
    """Apply `dag_run.conf["ugen_settle"]`: what a person found out about an order that could not be decided.

    The words are those of `ugen ledger settle`: `absent`, `deleted`, or the id of the job; for several tasks a dict by
    task id. It changes only an undecided order: `absent` and an id one without a job, `deleted` one whose job is known.
    """
    asked = (getattr(context["dag_run"], "conf", None) or {}).get("ugen_settle")
    ti = context["ti"]
    if isinstance(asked, Mapping):
        asked = asked.get(ti.task_id)
    record = store.read(order_key) if isinstance(asked, str) and asked.strip() else None
    if record is None or not store.durable:
        return
    word = str(asked).strip().removeprefix("--").removeprefix("job").strip() or ""
    if word == "deleted":
        settled = replace(record, deleted=True) if record.job_id is not None else record
    elif word == "absent":
        settled = replace(record, maybe_bought=False) if record.job_id is None else record
    else:
        settled = replace(record, job_id=word, maybe_bought=True) if record.job_id is None else record
    if settled != record:
        record = store.take_token(order_key, attempt_name(ti))
        store.write(replace(settled, token=record.token, attempt=record.attempt))
        _log.warning("order %s: settled by dag_run.conf: %s", order_key, word)


# Without a ledger: what a gate or a cancel task says to the create task of its run.


ClosingReason = Literal["rejected", "expired", "operator"]


def publish_cancel(context: Context, signer: RecordSigner, *, job_id: str, reason: ClosingReason, at: float) -> None:
    """Publish that a job is about to be cancelled by this task. Call it before the cancel is sent.

    A state store is open to its own task instance alone, so without a ledger no other task can write into the create
    task's record. The signature lets the create task believe it.
    """
    said = {"job_id": job_id, "reason": reason, "at": at}
    mac = signer.sign(_cancel_text(said, place_of(context["ti"])))
    context["ti"].xcom_push(key=CANCEL, value={**said, "mac": mac})


def withdraw_cancel(context: Context) -> None:
    """Publish that nothing was cancelled: the job had ended, or cannot be cancelled."""
    context["ti"].xcom_push(key=CANCEL, value={})


def store_decision(
    context: Context, signer: RecordSigner, *, job_id: str | None, reason: ClosingReason, at: float
) -> None:
    """Store what a gate decided, for its own next attempt; a job id of None takes it back. From Airflow 3.3 on."""
    from ugen_provider.version_compat import NEVER_EXPIRE

    state: Any = context.get("task_state_store")
    if state is None:
        return
    said = {"job_id": job_id or "", "reason": reason, "at": at}
    mac = signer.sign(_cancel_text(said, place_of(context["ti"])))
    state.set(CANCEL, {**said, "mac": mac}, retention=NEVER_EXPIRE)


def read_decision(context: Context, signer: RecordSigner, *, job_id: str) -> tuple[ClosingReason, float] | None:
    """Return what an earlier attempt of this gate decided about a job."""
    state: Any = context.get("task_state_store")
    stored = None if state is None else state.get(CANCEL)
    if not isinstance(stored, Mapping) or stored.get("job_id") != job_id:
        return None
    text = _cancel_text({name: stored.get(name) for name in ("job_id", "reason", "at")}, place_of(context["ti"]))
    return (stored["reason"], stored["at"]) if signer.verifies(text, stored.get("mac")) else None


def _cancel_text(said: Mapping[str, Any], place: Place) -> str:
    # All mapped instances of a task are read at once, so the index is left out.
    return _text({**said, "place": [place.dag_id, place.run_id, place.task_id]})


def import_cancels(context: Context, world: World, order_key: str, signer: RecordSigner) -> None:
    """Append to an order, kept without a ledger, the cancels that other tasks of this run published."""
    from ugen_provider.core.ledger.record import Action

    senders = list(_cancelling_tasks(context))
    record = world.read(order_key) if senders else None
    if record is None or record.job_id is None:
        return
    known = {(action.kind, action.reason, action.job_id) for action in world.actions(order_key)}
    place = place_of(context["ti"])
    for task_id in senders:
        published = context["ti"].xcom_pull(task_ids=task_id, key=CANCEL)
        for said in published if isinstance(published, list) else [published]:
            if not isinstance(said, Mapping) or said.get("job_id") != record.job_id:
                continue
            signed = {name: said.get(name) for name in ("job_id", "reason", "at")}
            text = _cancel_text(signed, replace(place, task_id=task_id))
            if not signer.verifies(text, said.get("mac")) or ("cancel", said["reason"], record.job_id) in known:
                continue
            world.append_action(
                Action(
                    order_key=order_key,
                    purchase_number=record.purchase_number,
                    job_id=record.job_id,
                    kind="cancel",
                    reason=said["reason"],
                    token=record.token,
                    at=said["at"],
                    state="sent",  # a cancel that did not reach the service is sent again
                )
            )


def _cancelling_tasks(context: Context) -> Iterator[str]:
    """Yield the tasks of the DAG that may cancel a job which another task bought."""
    dag = cast("Any", context.get("dag"))
    for task in () if dag is None else dag.tasks:
        if getattr(getattr(task, "operator_class", type(task)), "cancels_jobs", False):
            yield task.task_id


def upstream_ref(context: Context, job_id: str, signer: RecordSigner) -> JobRef | None:
    """Return what another task of this run published about a job; it names the ledger that holds the order."""
    dag = cast("Any", context.get("dag"))
    task = context.get("task") or getattr(context["ti"], "task", None)
    upstream = getattr(task, "upstream_task_ids", None) if dag is not None else None
    for task_id in sorted(upstream or ()):
        stored = context["ti"].xcom_pull(task_ids=task_id, key=JOB_REF)
        for each in stored if isinstance(stored, list) else [stored]:
            ref = JobRef.from_dict(each)
            if ref is not None and ref.job_id == job_id:
                found = parse_place(ref, context, task_id)
                verified = JobRef.verified(each, found, signer)
                if verified is not None:
                    return verified
    return None


def parse_place(ref: JobRef, context: Context, task_id: str) -> Place:
    """Return the place that a published job claims, in this run."""
    from ugen_provider.triggers.cancellation import parse_attempt

    place = place_of(context["ti"])
    parsed = parse_attempt(ref.attempt)
    return Place(place.dag_id, place.run_id, task_id, -1 if parsed is None else parsed[2])
