# SPDX-License-Identifier: Apache-2.0
"""The right to cancel a job when its task ends: the owner's state, the cancelling table, and the cancel itself.

The blocking operator, the trigger and the listener share both. Airflow calls `on_kill` for what a person did and for
what happened to a machine alike. The state of the task instance distinguishes them: it is over, or gone, where a person
ended it or its run timed out. In every other state a later attempt needs the job.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ugen_provider.core.jobs.results import AttemptState, CancelResult, OwnerState
    from ugen_provider.core.jobs.sync.world import World
    from ugen_provider.core.jobs.world import AsyncWorld
    from ugen_provider.core.ledger.record import Action, OrderRecord, RecordSigner


JOB_REF = "ugen_job"
"""The XCom by which a task instance says which job it is about; Airflow deletes it when a next attempt begins."""

OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States of a task instance that no attempt follows by itself."""


class TaskInstanceLike(Protocol):
    """The fields that identify a task instance and its attempt."""

    @property
    def dag_id(self) -> str:
        """Id of the task instance's DAG."""
        ...

    @property
    def run_id(self) -> str:
        """Id of the task instance's run."""
        ...

    @property
    def task_id(self) -> str:
        """Id of the task instance's task."""
        ...

    @property
    def map_index(self) -> int | None:
        """Which of the mapped instances; None or -1 for an unmapped one."""
        ...

    @property
    def id(self) -> Any:
        """The id of this attempt: the same after a deferral, another one after a retry or a clear."""
        ...


@dataclass(frozen=True, slots=True)
class JobRef:
    """The job of a task instance, as its own execution published it.

    Attributes:
        job_id: The job.
        ugen_conn_id: The connection.
        attempt: Name of the attempt; see `attempt_name`.
        order_key: Text key of the order's record; '' where the task has no order.
        token: The attempt's token; 0 where no record is kept.
        ledger_id: Id of the ledger that holds the record; '' without one.
        cancel_on_kill: Whether the end of the task instance by a person cancels the job.
        has_scope_key: Whether another mapped instance may have the same order.
    """

    job_id: str
    ugen_conn_id: str
    attempt: str
    order_key: str = ""
    token: int = 0
    ledger_id: str = ""
    cancel_on_kill: bool = False
    has_scope_key: bool = False

    def signed(self, ti: TaskInstanceLike, signer: RecordSigner) -> dict[str, Any]:
        """Return the context as JSON types, with a signature over all fields and the task instance's identity."""
        stored = asdict(self)
        return {**stored, "mac": signer.sign(_signed_text(stored, place_of(ti)))}

    @classmethod
    def from_dict(cls, stored: object) -> JobRef | None:
        """Read what `signed` made, without a check of the signature; None for anything else."""
        if not isinstance(stored, Mapping):
            return None
        try:
            return cls(**{name: stored[name] for name in cls.__dataclass_fields__ if name in stored})
        except TypeError:
            return None

    @classmethod
    def verified(cls, stored: object, place: Place, signer: RecordSigner) -> JobRef | None:
        """Read what `signed` made for this very task instance; None for anything else."""
        ref = cls.from_dict(stored)
        if ref is None or not isinstance(stored, Mapping):
            return None
        mac = stored.get("mac")
        text = _signed_text(asdict(ref), place)
        return ref if isinstance(mac, str) and signer.verifies(text, mac) else None


@dataclass(frozen=True, slots=True)
class Place:
    """A task instance, by the fields that stay the same over its attempts."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1


def place_of(ti: TaskInstanceLike) -> Place:
    """Return the place of a task instance."""
    return Place(ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index)


def _signed_text(stored: Mapping[str, Any], place: Place) -> str:
    return json.dumps([stored, asdict(place)], sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def attempt_name(ti: TaskInstanceLike) -> str:
    """Return the name of an attempt: the task instance id, then task and map index.

    Ownership passes from task to task of a run (create, approval, resume), so the record's newest attempt has to say
    which of them it was.

    Examples:
        >>> from types import SimpleNamespace
        >>> attempt_name(SimpleNamespace(id="0190", task_id="make_video", map_index=None))
        '0190 make_video -1'
    """
    return f"{ti.id} {ti.task_id} {-1 if ti.map_index is None else ti.map_index}"


def parse_attempt(name: str) -> tuple[str, str, int] | None:
    """Return task instance id, task id and map index of an attempt's name; None for another orchestrator's.

    Examples:
        >>> parse_attempt("0190 make_video -1")
        ('0190', 'make_video', -1)
    """
    parts = name.split(" ")
    if len(parts) != 3 or not parts[2].lstrip("-").isdecimal():
        return None
    return parts[0], parts[1], int(parts[2])


# The table.


def should_cancel(*, state: str | None, gone: bool, published: str | None, attempt: str, shared: bool) -> bool:
    """Decide whether the end of a task instance cancels the job of an attempt.

    Args:
        state: Of the task instance now.
        gone: Whether there is no such task instance any more.
        published: Name of the attempt that the task instance published its job for; None after a newer attempt began.
        attempt: Name of the attempt whose job it is.
        shared: Whether another mapped instance waits for the same job.

    Examples:
        >>> should_cancel(state="queued", gone=False, published="a", attempt="a", shared=False)  # cleared
        False
        >>> should_cancel(state="failed", gone=False, published="a", attempt="a", shared=False)
        True
    """
    if shared:
        return False
    if gone:
        return True
    return str(state) in OVER and published == attempt


# Questions of a task or a trigger to Airflow, by the Task SDK.


def ask_airflow(ti: TaskInstanceLike, *, job_id: str | None, has_scope_key: bool) -> bool:
    """Ask Airflow from a task or a trigger whether the end of this attempt cancels its job. Blocks.

    Args:
        ti: The task instance of the attempt.
        job_id: The job; None while it is not known.
        has_scope_key: Whether another mapped instance may have the same order.
    """
    place = place_of(ti)
    states = task_states(place.dag_id, place.run_id, place.task_id)
    name = state_name(place.task_id, place.map_index)
    gone = name not in states
    shared = has_scope_key and any(
        ref is not None and (job_id is None or ref.job_id == job_id)
        for ref in (_published(place, other) for other in _indexes(states, place.task_id) if other != place.map_index)
    )
    attempt = attempt_name(ti)
    ref = None if gone else _published(place, place.map_index)
    # Before the job is known nothing is published, and the XCom of an earlier attempt is deleted.
    published = attempt if ref is None and job_id is None else None if ref is None else ref.attempt
    return should_cancel(state=states.get(name), gone=gone, published=published, attempt=attempt, shared=shared)


def task_states(dag_id: str, run_id: str, task_id: str) -> Mapping[str, Any]:
    """Return the states of a task's instances in a run by their names; empty for a run that is gone. Blocks."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    found = RuntimeTaskInstance.get_task_states(dag_id=dag_id, task_ids=[task_id], run_ids=[run_id])
    return (found or {}).get(run_id) or {}


def state_name(task_id: str, map_index: int) -> str:
    """Return the name by which the Task SDK lists a task instance."""
    return task_id if map_index < 0 else f"{task_id}_{map_index}"


def _indexes(states: Iterable[str], task_id: str) -> list[int]:
    found = []
    for name in states:
        rest = name.removeprefix(f"{task_id}_")
        if rest != name and rest.isdecimal():
            found.append(int(rest))
    return found


def _published(place: Place, map_index: int) -> JobRef | None:
    from airflow.sdk.execution_time.xcom import XCom

    stored = XCom.get_one(
        key=JOB_REF, dag_id=place.dag_id, task_id=place.task_id, run_id=place.run_id, map_index=map_index
    )
    return JobRef.from_dict(stored)


# The cancel, once the table allows it.


def cancel_killed_job(
    world: World, *, job_id: str | None, order_key: str, token: int | None, may_cancel: Callable[[], bool]
) -> CancelResult | None:
    """Cancel the job of an attempt that ended, recorded first. The table is asked again directly before the DELETE.

    Args:
        world: Contacts with the outside.
        job_id: The job; None while it is not known. The cancel is then recorded, and the attempt or the reconciler
            that records the job's id sends it.
        order_key: Text key of the order's record; '' where the task has no order.
        token: Token of the attempt that ended; None for the newest.
        may_cancel: Asks the table.

    Returns:
        The result; None where there is nothing to cancel or the cancel was only recorded.

    Raises:
        AttemptSupersededError: A newer attempt needs the job; nothing was sent.
        UGenError: The cancel could not be sent; in a ledger it stays owed.
    """
    from ugen_provider.core.jobs.sync.actions import cancel_job, cancel_order
    from ugen_provider.core.ledger.errors import AttemptSupersededError, LedgerUnavailableError

    send = world.contact

    def contact(name: str, call: Callable[[], Any]) -> Any:
        if name == "cancel":
            _require(may_cancel(), job_id=job_id, order_key=order_key)
        return send(name, call)

    world.contact = contact  # type: ignore[method-assign]
    try:
        has_order = bool(order_key) and world.read(order_key) is not None
    except LedgerUnavailableError:
        has_order = True  # `cancel_order` sends a cancel that it cannot record
    if not has_order:
        return None if job_id is None else cancel_job(world, job_id)
    try:
        return cancel_order(world, order_key, reason="kill", job_id=job_id, token=token or None, only_while_newest=True)
    except AttemptSupersededError:
        for action in _refused(world.actions(order_key), token=token):
            world.mark_action(action, "withdrawn")
        raise


async def acancel_killed_job(
    world: AsyncWorld, *, job_id: str, order_key: str, token: int | None, may_cancel: Callable[[], Any]
) -> CancelResult | None:
    """Cancel the job of an attempt that ended, in an event loop; else as `cancel_killed_job`."""
    from ugen_provider.core.jobs.actions import cancel_job, cancel_order
    from ugen_provider.core.ledger.errors import AttemptSupersededError, LedgerUnavailableError

    send = world.contact

    async def contact(name: str, call: Callable[[], Any]) -> Any:
        if name == "cancel":
            _require(await may_cancel(), job_id=job_id, order_key=order_key)
        return await send(name, call)

    world.contact = contact  # type: ignore[method-assign]
    try:
        has_order = bool(order_key) and await world.read(order_key) is not None
    except LedgerUnavailableError:
        has_order = True  # `cancel_order` sends a cancel that it cannot record
    if not has_order:
        return await cancel_job(world, job_id)
    try:
        return await cancel_order(
            world, order_key, reason="kill", job_id=job_id, token=token or None, only_while_newest=True
        )
    except AttemptSupersededError:
        for action in _refused(await world.actions(order_key), token=token):
            await world.mark_action(action, "withdrawn")
        raise


def _require(may_cancel: bool, *, job_id: str | None, order_key: str) -> None:
    from ugen_provider.core.ledger.errors import AttemptSupersededError

    if not may_cancel:
        raise AttemptSupersededError(order_key=order_key, attempt="ended", newest="a later attempt", job_id=job_id)


def _refused(actions: Iterable[Action], *, token: int | None) -> list[Action]:
    """Return the kills of an attempt that were recorded and must not be sent: a later attempt needs the job."""
    return [
        action
        for action in actions
        if action.reason == "kill" and action.state in {"recorded", "sent"} and (not token or action.token == token)
    ]


def digest(text: str) -> str:
    """Return a short digest, for the keys of stores that limit them."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def owner_place(record: OrderRecord) -> Place | None:
    """Return the task instance of an order's newest attempt; None for an order of no Airflow task.

    Examples:
        >>> from types import SimpleNamespace
        >>> owner_place(SimpleNamespace(order_key='["","task","d","r","t","-1"]@loopback:1', attempt="0190 gate -1"))
        Place(dag_id='d', run_id='r', task_id='gate', map_index=-1)
    """
    try:
        key, _ = json.JSONDecoder().raw_decode(record.order_key)
    except ValueError:
        return None
    attempt = parse_attempt(record.attempt)
    if not isinstance(key, list) or len(key) != 6 or key[1] != "task" or attempt is None:
        return None
    return Place(str(key[2]), str(key[3]), attempt[1], attempt[2])


def attempt_state(record: OrderRecord) -> AttemptState:
    """Return the state of an order's newest attempt."""
    place = owner_place(record)
    if place is None:
        return "unknown"
    try:
        states = task_states(place.dag_id, place.run_id, place.task_id)
    except Exception:  # noqa: BLE001  no answer is no decision
        return "unknown"
    name = state_name(place.task_id, place.map_index)
    return state_of(states.get(name), gone=name not in states)


def state_of(state: object, *, gone: bool) -> AttemptState:
    """Return what a task instance's state means for its job.

    Examples:
        >>> state_of("skipped", gone=False), state_of(None, gone=True), state_of("queued", gone=False)
        ('ended', 'ended', 'alive')
    """
    if gone:
        return "ended"
    match str(state):
        case "skipped" | "removed" | "upstream_failed":
            return "ended"
        case "failed":
            return "failed"
        case "success":
            return "succeeded"
        case _:
            return "alive"


def owner_state(record: OrderRecord, action: Action) -> OwnerState:  # noqa: ARG001  the reconciler's signature
    """Return whether the attempt that an event ended is over."""
    state = attempt_state(record)
    if state == "unknown":
        return "unknown"
    return "alive" if state == "alive" else "over"
