# SPDX-License-Identifier: Apache-2.0
"""The reconciler: it does what is owed after the process that decided it is gone.

Owed are cancels that are not confirmed, gates that expired, and the outputs of jobs whose task failed for good. Some
ends of a task fire no hook: its run timed out while it waited for a person, or was deleted, or its worker was lost in
its last attempt. So the reconciler also asks about the owners of the account's active jobs. It cancels only what a
record says is to be cancelled, and only while no newer attempt needs the job. A job without an owner is reported,
never cancelled. It never sends a POST.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ugen_provider.core.api import endpoints
from ugen_provider.core.api.errors import NotFoundError, UGenError
from ugen_provider.core.api.models import JobState
from ugen_provider.core.jobs.actions import send_cancel
from ugen_provider.core.jobs.order import origin_of, parse_record_key
from ugen_provider.core.jobs.purchase import search_by_key
from ugen_provider.core.jobs.results import AttemptState, Collect, OwnerState, ReconcileReport
from ugen_provider.core.jobs.threads import in_ledger_thread, in_thread
from ugen_provider.core.jobs.world import AsyncWorld
from ugen_provider.core.ledger.errors import AttemptSupersededError
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.record import ENDS_ATTEMPT, Action, OrderRecord
from ugen_provider.core.ledger.store import Ledger, take_lease

LEASE = "reconciler"
INTERVAL = 300.0
"""Seconds between two rounds of a process that reconciles beside its other work."""

CERTAINTY = 600.0
"""Seconds between the two readings after which an attempt counts as ended without a hook."""

_ACTIVE = ("pending", "processing", "paused")
_LEASE_SECONDS = 120.0
_log = logging.getLogger("ugen_provider.jobs")


async def reconcile(
    world: AsyncWorld,
    ledger: Ledger,
    *,
    owner: str,
    owner_state: Callable[[OrderRecord, Action], OwnerState] = lambda _record, _action: "unknown",
    attempt_state: Callable[[OrderRecord], AttemptState] | None = None,
    collect: Collect | None = None,
) -> ReconcileReport:
    """Do one round of what is owed in a ledger. Free: it sends GET and DELETE, never POST.

    Args:
        world: Contacts with the outside; its store is one of this ledger.
        ledger: The ledger.
        owner: A random id of this process, for the lease.
        owner_state: Says whether the attempt that a kill ended is over. A process that cannot ask its orchestrator
            answers `unknown`, and such cancels stay owed.
        attempt_state: Says the state of an order's newest attempt; with it, the owners of the account's active jobs are
            asked about. None for a process that cannot ask its orchestrator.
        collect: Stores the outputs of a job and returns their address; None leaves them owed.

    Returns:
        What was done and what is still owed. Nothing is done while another process holds the lease.
    """
    if not await in_ledger_thread(partial(take_lease, ledger, LEASE, owner=owner, seconds=_LEASE_SECONDS)):
        return ReconcileReport(ran=False)
    report = ReconcileReport(ran=True)
    store = LedgerOrderStore(ledger)
    origin = origin_of(world.client.config.base_url)
    if attempt_state is not None:
        try:
            await _record_ended_attempts(world, store, attempt_state)
        except UGenError as error:
            _log.warning("the account's active jobs could not be read: %s", error)
    for action in await in_ledger_thread(partial(store.owed_actions, now=world.now())):
        record = await world.read(action.order_key)
        if record is None:
            continue
        if record.origin and record.origin != origin:
            # Another API answers 404 for this job, which would pass for settled while the job costs credits.
            report = report.plus(action, "owed", why=f"the job is of {record.origin}")
            continue
        try:
            report = report.plus(action, await _settle(world, record, action, owner_state=owner_state, collect=collect))
        except UGenError as error:
            # It stays owed: the next round tries again, here or in another process of the account.
            _log.warning("job %s: its %s is still owed: %s", action.job_id, action.kind, error)
            report = report.plus(action, "owed", why=str(error))
    return report


async def _settle(
    world: AsyncWorld,
    record: OrderRecord,
    action: Action,
    *,
    owner_state: Callable[[OrderRecord, Action], OwnerState],
    collect: Collect | None,
) -> str:
    """Settle one owed action; return `done`, `withdrawn` or `owed`."""
    if action.kind != "collect" and (not action.concerns(record) or record.token != action.token):
        # A newer attempt or purchase owns the order now: that attempt decides about its job.
        await world.mark_action(action, "withdrawn")
        return "withdrawn"
    if action.kind == "collect":
        return await _collect(world, record, action, collect=collect)
    if not await _is_authentic(world, record):
        _log.warning("order %s: its record has no valid signature, so its job is not cancelled", record.order_key)
        return "owed"
    if action.kind == "pause":
        return await _expire_gate(world, record, action)
    if action.reason in ENDS_ATTEMPT:
        state = await in_thread(owner_state, record, action)
        unsent = action.reason == "run_end" and action.state == "recorded"
        if unsent and state == "alive":  # the first reading was wrong, or the task was cleared
            await world.mark_action(action, "withdrawn")
            return "withdrawn"
        if state != "over" or (unsent and world.now() - action.at < CERTAINTY):
            return "owed"
    job_id = action.job_id or record.job_id
    if job_id is None:
        found = await search_by_key(world, record, since=record.written_at)
        if found.job is None:
            return "owed"
        job_id = found.job.job_id
        record = await world.record_job_id(record, job_id)
    try:
        result = await send_cancel(world, replace(action, job_id=job_id), record=record)
    except AttemptSupersededError:
        return "withdrawn"
    return "done" if result.settled else "owed"


async def _is_authentic(world: AsyncWorld, record: OrderRecord) -> bool:
    """Return whether a task's own execution wrote its record; feed runs of the account write those of products."""
    store = world.store
    key = parse_record_key(record.order_key)
    if not isinstance(store, LedgerOrderStore) or not store.signs or key is None or key.kind != "task":
        return True
    return await in_ledger_thread(store.read_verified, record.order_key) is not None


async def _record_ended_attempts(
    world: AsyncWorld, store: LedgerOrderStore, attempt_state: Callable[[OrderRecord], AttemptState]
) -> None:
    """Record what is owed for active jobs whose newest attempt ended without a hook."""
    for job_id in await _active_jobs(world):
        record = await in_ledger_thread(store.of_job, job_id)
        if record is None or not await _is_authentic(world, record):
            continue
        state = await in_thread(attempt_state, record)
        follows = (
            state == "failed"
        )  # a lost worker has the same state, so a failed task cancels only by on_final_failure
        if not follows and not (state == "ended" and record.cancel_on_kill):
            continue
        actions = await world.actions(record.order_key)
        if any(each.kind != "pause" and each.state != "withdrawn" and each.concerns(record) for each in actions):
            continue
        collects = follows and record.on_final_failure == "collect"
        action = Action(
            order_key=record.order_key,
            purchase_number=record.purchase_number,
            job_id=job_id,
            kind="collect" if collects else "cancel",
            reason="final_failure" if collects else "timeout" if follows else "run_end",
            token=record.token,
            at=world.now(),
        )
        await world.append_action(action)
        _log.warning("job %s: its task is %s; recorded: %s (%s)", job_id, state, action.kind, action.reason)


async def _active_jobs(world: AsyncWorld) -> list[str]:
    found: dict[str, None] = {}
    for status in _ACTIVE:
        page = await world.send(endpoints.list_jobs(status=status))
        number = 1
        while page.items:
            found |= dict.fromkeys(endpoints.read_listed_job(item).job_id for item in page.items)
            if not page.more:
                break
            number += 1
            page = await world.send(endpoints.list_jobs(status=status, page=number, onward=page.onward))
    return list(found)


async def _expire_gate(world: AsyncWorld, record: OrderRecord, action: Action) -> str:
    """Cancel a job that is still paused at an expired gate; a job that was resumed is no open gate."""
    job_id = action.job_id or record.job_id
    if job_id is None:
        return "owed"
    try:
        job = await world.send(endpoints.get_job(job_id))
    except NotFoundError as error:
        if not error.own_form:
            raise
        await world.mark_action(action, "withdrawn")
        return "done"
    if job.state is not JobState.PAUSED:
        await world.mark_action(action, "withdrawn")
        return "withdrawn"
    cancel = replace(
        action, kind="cancel", reason="expired", state="recorded", action_id="", at=world.now(), expires_at=None
    )
    cancel = await world.append_action(cancel)
    await world.mark_action(action, "withdrawn")
    result = await send_cancel(world, replace(cancel, job_id=job_id), record=record)
    return "done" if result.settled else "owed"


async def _collect(world: AsyncWorld, record: OrderRecord, action: Action, *, collect: Collect | None) -> str:
    """Store the outputs of a job that ended after its task had failed for good."""
    job_id = action.job_id or record.job_id
    if job_id is None:
        return "owed"
    job = await world.send(endpoints.get_job(job_id))
    if not job.ended:
        return "owed"
    if job.state is JobState.COMPLETED and record.destination is not None:
        if collect is None:
            return "owed"
        stored = await in_thread(collect, record, job)
        _log.warning("job %s: completed after its task had failed; its outputs are at %s", job_id, stored)
    else:
        _log.warning("job %s: %s after its task had failed; %s", job_id, job.status, job.final_video_url or "no video")
    await world.mark_action(action, "confirmed")
    return "done"
