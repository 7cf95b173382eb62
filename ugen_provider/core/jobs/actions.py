# SPDX-License-Identifier: Apache-2.0
"""Requests about a job that exists: cancel, pause, retry, resume, also at its gate. Each is recorded before it is sent.

None of them carries an idempotency key. After an answer that was lost the job is read, and a request is sent again only
if the old state still holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Literal

from ugen_provider.core.api import endpoints
from ugen_provider.core.api.config import Spending
from ugen_provider.core.api.endpoints import Endpoint
from ugen_provider.core.api.errors import (
    APIError,
    ConflictError,
    NotFoundError,
    PurchaseError,
    UGenError,
    may_have_bought,
)
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.api.polling import EarlierState, JobCancelledError, JobFailedError
from ugen_provider.core.jobs.approval import ANCHOR, GATE_STAGE, Approval, KeyframeSnapshot, digest_reader, mismatch
from ugen_provider.core.jobs.policy import effective_action
from ugen_provider.core.jobs.results import ActionResult, CancelResult, ResumeResult
from ugen_provider.core.jobs.threads import in_thread
from ugen_provider.core.jobs.world import AsyncWorld
from ugen_provider.core.ledger.errors import AttemptSupersededError, LedgerUnavailableError
from ugen_provider.core.ledger.record import Action, CancelReason, OrderRecord, PendingRetry

_log = logging.getLogger("ugen_provider.jobs")

OnInterrupt = Literal["cancel", "pause", "detach"]

_SENDS = 3
_END_POLLS = 12
_END_PAUSE = 5.0


# Cancel.


async def cancel_job(world: AsyncWorld, job_id: str) -> CancelResult:
    """Cancel a job that has not ended: GET before DELETE, so an ended job is never deleted. Its credits are released.

    Raises:
        UGenError: The cancel could not be sent.
    """
    job = await _read(world, job_id)
    if job is not None and not job.ended:
        with suppress(
            ConflictError, NotFoundError
        ):  # it ended meanwhile, or cannot be cancelled: the next GET shows it
            await world.send(endpoints.cancel_job(job_id))
        job = await _read(world, job_id)
    return CancelResult(job, job is not None and job.state is JobState.CANCELLED)


async def cancel_order(
    world: AsyncWorld,
    order_key: str,
    *,
    reason: CancelReason,
    job_id: str | None = None,
    token: int | None = None,
    only_while_newest: bool = False,
) -> CancelResult | None:
    """Cancel the job of an order, and record that it was us.

    A cancel that cannot be sent stays recorded: the reconciler sends it.

    Args:
        world: Contacts with the outside.
        order_key: Text key of the order's record.
        reason: Why.
        job_id: The job that is meant; an order that has another one now is left unchanged. None means the present one.
        token: Token of the attempt that ended; None for the newest.
        only_while_newest: Whether to send it only while no newer attempt has begun.

    Returns:
        The result; None where the order has no such job.

    Raises:
        AttemptSupersededError: A newer attempt needs the job; nothing was sent.
        UGenError: The cancel could not be sent.
    """
    try:
        record = await world.read(order_key)
        if record is None or (job_id is not None and record.job_id is not None and record.job_id != job_id):
            return None
        action = Action(
            order_key=order_key,
            purchase_number=record.purchase_number,
            job_id=record.job_id or job_id,
            kind="cancel",
            reason=reason,
            token=record.token if token is None else token,
            at=world.now(),
        )
        action = await world.append_action(action)
    except LedgerUnavailableError as error:
        if job_id is None:
            raise
        # A job that runs on costs credits. A next attempt that does not know of this cancel fails instead of buying.
        _log.error("job %s: its cancel could not be recorded and is sent nevertheless: %s", job_id, error)
        return await cancel_job(world, job_id)
    if action.job_id is None:
        return None  # the attempt that records the job's id sends it, or the reconciler does
    return await send_cancel(world, action, record=record if only_while_newest else None)


async def send_cancel(world: AsyncWorld, action: Action, *, record: OrderRecord | None = None) -> CancelResult:
    """Send a recorded cancel, and record its result.

    Args:
        world: Contacts with the outside.
        action: The cancel.
        record: Sends it only while the newest token of the order is still this record's.

    Raises:
        AttemptSupersededError: A newer attempt needs the job; the cancel was withdrawn, and nothing was sent.
        UGenError: It could not be sent; it stays owed.
    """
    assert action.job_id is not None
    if record is not None:
        try:
            await world.write(replace(record, token=action.token))
        except AttemptSupersededError:
            await world.mark_action(action, "withdrawn")
            raise
    # If the process ends after this mark, the cancel counts as sent: a later attempt waits for the job's end.
    await world.mark_action(action, "sent")
    result = await cancel_job(world, action.job_id)
    if result.confirmed or result.job is None:
        await world.mark_action(action, "confirmed")
    elif result.job.ended:
        # The job ended first. A cancel that stays owed would hit it again after a stage retry.
        await world.mark_action(action, "withdrawn")
    return result


async def send_owed_cancel(world: AsyncWorld, record: OrderRecord, actions: tuple[Action, ...]) -> bool:
    """Send a cancel that was recorded before the id of the record's job was known.

    Returns:
        Whether there was one.
    """
    action = effective_action(record, actions)
    if action is None or action.kind != "cancel" or action.state != "recorded" or action.job_id is not None:
        return False
    await send_cancel(world, replace(action, job_id=record.job_id))
    return True


async def cancel_until_ended(world: AsyncWorld, action: Action, *, label: str) -> None:
    """Send a recorded cancel until the job has ended, for at most a minute.

    Raises:
        PurchaseError: The job has not stopped; the cancel stays owed.
        UGenError: The cancel could not be sent.
    """
    for number in range(_END_POLLS):
        if number:
            await world.sleep(_END_PAUSE)
        if (await send_cancel(world, action)).settled:
            return
    raise PurchaseError(
        f"{label}: job {action.job_id} has not stopped after its cancellation request. Retry later",
        scope=action.order_key,
        reason="cancel_pending",
        job_id=action.job_id,
        retryable=True,
    )


# Pause.


async def pause_order(world: AsyncWorld, record: OrderRecord) -> Job | None:
    """Pause the job of an order on interrupt, recorded first, so that the next attempt resumes it.

    After an ambiguous answer the job is read; the pause stays recorded either way.

    Returns:
        The job as it is now; None where the service does not know it.

    Raises:
        AttemptSupersededError: A newer attempt works on the order; nothing was sent.
        UGenError: The pause could not be sent.
    """
    assert record.job_id is not None
    job = await _read(world, record.job_id)
    if job is None or job.ended or job.state is JobState.PAUSED:
        return job
    action = effective_action(record, await world.actions(record.order_key))
    if action is not None and action.kind == "cancel":
        return job  # the cancel is owed, and a pause would hide it
    await world.write(record)  # only the newest attempt may pause
    action = Action(
        order_key=record.order_key,
        purchase_number=record.purchase_number,
        job_id=record.job_id,
        kind="pause",
        reason="interrupt",
        token=record.token,
        at=world.now(),
    )
    action = await world.append_action(action)
    await pause_job(world, record.job_id)
    await world.mark_action(action, "sent")
    return await _read(world, record.job_id)


async def pause_job(world: AsyncWorld, job_id: str) -> None:
    """Pause a job. The pipeline stops after its present stage.

    Raises:
        UGenError: The pause could not be sent.
    """
    try:
        await world.send(endpoints.pause_job(job_id))
    except ConflictError:
        pass  # it has ended, or is paused already
    except UGenError:
        job = await _read(world, job_id)
        if job is not None and job.state is JobState.ACTIVE:
            raise


async def hold_at_gate(world: AsyncWorld, record: OrderRecord, *, expires_at: float | None = None) -> None:
    """Record that a job is paused at its gate by us, so that its pause does not count as another user's.

    Args:
        world: Contacts with the outside.
        record: The order's record.
        expires_at: Seconds since the epoch from which on the reconciler cancels the job; None for never.
    """
    action = effective_action(record, await world.actions(record.order_key))
    if action is not None:
        return
    await world.append_action(
        Action(
            order_key=record.order_key,
            purchase_number=record.purchase_number,
            job_id=record.job_id,
            kind="pause",
            reason="gate",
            token=record.token,
            at=world.now(),
            state="confirmed",
            expires_at=expires_at,
        )
    )


# Retry and resume.


async def retry_job_once(
    world: AsyncWorld,
    job_id: str,
    *,
    request_key: str,
    attempt: str,
    restart_from_stage: str | None = None,
    spending: Spending = "allow",
) -> ActionResult:
    """Run an ended job again from a stage, once per request, however often the attempt is repeated.

    Reserves credits again. Calls `POST /jobs/{jobId}/retry`, after reading the job and its transactions. Where no
    record is kept, only a job that has failed or was cancelled is retried.

    Args:
        world: Contacts with the outside.
        job_id: The job.
        request_key: Key of the record that this retry was asked for.
        attempt: Name of this attempt.
        restart_from_stage: First stage to run again; None starts where it failed.
        spending: `allow`, or nothing is sent.

    Raises:
        PurchaseError: Spending is off, or the job completed and no record says whether that was by this very retry.
        AttemptSupersededError: A newer attempt makes this request.
        UGenError: The service refused.
    """
    record = await world.read(request_key)
    known = record is not None and record.job_id == job_id
    record = await world.take_token(request_key, attempt) if known else None
    job = await world.send(endpoints.get_job(job_id))
    is_new = record is None
    if record is None:
        if not job.ended:
            return ActionResult(job, "already")
        if not world.durable and job.state is JobState.COMPLETED:
            raise PurchaseError(
                f"job {job_id} has completed, and without a record it is not known whether an earlier attempt asked "
                "for that; retry it from the command line, or name a ledger",
                scope=request_key,
                reason="completed_without_store",
                job_id=job_id,
            )
        reserves = await count_reserves(world, job_id)
        _require_spending(spending, request_key, job_id)
        # If the process ends after this write, the next attempt checks by transactions whether the retry was applied.
        record = await world.write(_retry_record(world, request_key, attempt, job, reserves))
    pending = record.pending_retry
    if pending is None:
        return ActionResult(job, "already")
    applied = not is_new and await was_applied(world, job_id, pending=pending)
    if not applied:
        _require_spending(spending, request_key, job_id)
        retry = endpoints.retry_job(job_id, restart_from_stage=restart_from_stage)
        await send_and_verify(world, retry, job_id, pending=pending)
    await world.write(replace(record, stage_retries=1, pending_retry=None))
    job = await world.send(endpoints.get_job(job_id))
    return ActionResult(job, "already" if applied else "done", pending.seen if pending.seen.is_still(job) else None)


def _retry_record(world: AsyncWorld, request_key: str, attempt: str, job: Job, reserves: int | None) -> OrderRecord:
    return OrderRecord(
        order_key=request_key,
        purchase_number=0,
        key="",
        body={},
        fingerprint="",
        scheme=0,
        written_at=world.now(),
        job_id=job.job_id,
        pending_retry=PendingRetry(EarlierState.of(job), reserves),
        attempt=attempt,
    )


async def resume_job_once(
    world: AsyncWorld, job_id: str, *, request_key: str = "", spending: Spending = "allow"
) -> ActionResult:
    """Resume a paused job; one that is not paused stays unchanged. `POST /jobs/{jobId}/resume`, after a GET.

    Args:
        world: Contacts with the outside.
        job_id: The job.
        request_key: Key of the request, for the error.
        spending: `allow`, or nothing is sent.

    Raises:
        PurchaseError: Spending is off.
        UGenError: The service refused.
    """
    job = await world.send(endpoints.get_job(job_id))
    if job.state is not JobState.PAUSED:
        return ActionResult(job, "already")
    _require_spending(spending, request_key, job_id)
    pending = PendingRetry(EarlierState.of(job), None)
    await send_and_verify(world, endpoints.resume_job(job_id), job_id, pending=pending)
    job = await world.send(endpoints.get_job(job_id))
    return ActionResult(job, "done", pending.seen if pending.seen.is_still(job) else None)


async def count_reserves(world: AsyncWorld, job_id: str) -> int | None:
    """Count how often credits were reserved for a job. Free; None where the service does not say."""
    count, number = 0, 1
    while True:
        try:
            page = await world.send(endpoints.list_transactions(job_id=job_id, page=number))
        except APIError:
            return None
        rows = map(endpoints.read_transaction, page.items)
        count += sum(row.type == "reserve" and row.job_id in {None, job_id} for row in rows)
        if not page.more or not page.items:
            return count
        number += 1


async def send_and_verify(
    world: AsyncWorld, endpoint: Endpoint[Job | None], job_id: str, *, pending: PendingRetry
) -> None:
    """Send a request without an idempotency key; after a lost answer, check whether it was applied before repeating it.

    Args:
        world: Contacts with the outside.
        endpoint: The retry or resume.
        job_id: The job.
        pending: The state before it.

    Raises:
        UGenError: The service refused, or it could not be sent.
    """
    for number in range(1, _SENDS + 1):
        try:
            await world.send(endpoint)
        except UGenError as error:
            if not may_have_bought(error):
                raise
            if await was_applied(world, job_id, pending=pending):
                return
            if number == _SENDS or isinstance(error, ConflictError):
                raise
        else:
            return


async def was_applied(world: AsyncWorld, job_id: str, *, pending: PendingRetry) -> bool:
    """Return whether a retry or resume was applied: the state moved, or credits were reserved once more."""
    job = await world.send(endpoints.get_job(job_id))
    if not pending.seen.is_still(job):
        return True
    if pending.reserves is None:
        return False
    reserves = await count_reserves(world, job_id)
    return reserves is not None and reserves > pending.reserves


# Waiting attempts that another process may cancel without access to the record.


async def arm(world: AsyncWorld, record: OrderRecord) -> OrderRecord:
    """Record that an attempt waits whose job a process without access to the record may cancel."""
    if record.armed_token == record.token:
        return record
    return await world.write(replace(record, armed_token=record.token))


async def disarm(world: AsyncWorld, record: OrderRecord) -> OrderRecord:
    """Record that the waiting attempt returned, so that a cancel from now on is not ours."""
    if record.armed_token != record.token:
        return record
    with suppress(AttemptSupersededError):
        return await world.write(replace(record, armed_token=None))
    return record


async def _read(world: AsyncWorld, job_id: str) -> Job | None:
    try:
        return await world.send(endpoints.get_job(job_id))
    except NotFoundError as error:
        if not error.own_form:
            raise  # a gateway's page says nothing about the job
        return None


def _require_spending(spending: Spending, request_key: str, job_id: str) -> None:
    if spending != "allow":
        raise PurchaseError(
            f"job {job_id} is unchanged: spending is {spending}, and to continue it could cost credits",
            scope=request_key,
            reason=f"spending_{spending}",
            job_id=job_id,
        )


async def read_keyframe(
    world: AsyncWorld, job_id: str, *, digest_of: Callable[[str], str] | None = None
) -> KeyframeSnapshot:
    """Read the anchor keyframe of a job as it is now. Free; `GET /jobs/{jobId}/keyframes` and the picture itself.

    Args:
        world: Contacts with the outside.
        job_id: The job.
        digest_of: Reads the picture at an address and returns its SHA-256; None for `approval.picture_digest`.

    Raises:
        PurchaseError: The job has no keyframe yet.
    """
    frames = await world.send(endpoints.list_keyframes(job_id))
    anchor = next((frame for frame in frames if frame.index in {ANCHOR, None} and frame.image_url), None)
    if anchor is None or anchor.image_url is None:
        raise PurchaseError(
            f"job {job_id} has no anchor keyframe yet; it is made in stage {GATE_STAGE}",
            scope="",
            reason="no_keyframe",
            job_id=job_id,
            retryable=True,
        )
    reader = digest_of or digest_reader(world.client.config.base_url, network=world.client.config.network)
    digest = await world.contact("picture", partial(in_thread, reader, anchor.image_url))
    keyframe_id = anchor.keyframe_id or str(anchor.index)
    return KeyframeSnapshot(job_id, keyframe_id, digest, anchor.image_url, anchor.qai_score)


async def resume_approved(
    world: AsyncWorld,
    approval: Approval,
    *,
    order_key: str | None = None,
    spending: Spending = "allow",
    digest_of: Callable[[str], str] | None = None,
) -> ResumeResult:
    """Resume a job whose keyframe was approved. To approve twice buys once: an active job stays unchanged.

    Costs the reservation of the job's creation; where the service ends a stopped job as completed, it is a retry from
    `generation`, which reserves again. Calls `POST …/resume` or `POST …/retry`, after a GET.

    Args:
        world: Contacts with the outside.
        approval: What was approved.
        order_key: Text key of the order's record, if it is known here; its gate is then recorded as passed.
        spending: `allow`, or nothing is resumed.
        digest_of: Reads the picture at an address and returns its SHA-256; None for `approval.picture_digest`.

    Raises:
        PurchaseError: The approval does not cover the keyframe as it is now, or spending is off.
        JobFailedError: The job failed at or before its gate.
        JobCancelledError: The job was cancelled.
    """
    job_id = approval.job_id
    job = await world.send(endpoints.get_job(job_id))
    if job.state is JobState.CANCELLED:
        raise JobCancelledError(f"job {job_id} was cancelled at its gate", job_id=job_id, job=job)
    if job.state is JobState.FAILED:
        raise JobFailedError(f"job {job_id} failed: {job.error_message or 'no reason given'}", job_id=job_id, job=job)
    ended_at_the_gate = job.state is JobState.COMPLETED and job.final_video_url is None
    if job.state is not JobState.PAUSED and not ended_at_the_gate:
        return ResumeResult(job, "already")
    keyframe = await read_keyframe(world, job_id, digest_of=digest_of)
    if why := mismatch(approval, keyframe):
        raise PurchaseError(
            f"job {job_id} is not resumed: {why}. Review the keyframe again and approve the present one",
            scope=order_key or "",
            reason="approval_outdated",
            job_id=job_id,
        )
    if spending != "allow":
        raise PurchaseError(
            f"job {job_id} is approved, and spending is {spending}: it is not resumed",
            scope=order_key or "",
            reason=f"spending_{spending}",
            job_id=job_id,
        )
    await _record_passed(world, order_key, job_id)
    restart = endpoints.retry_job(job_id, restart_from_stage="generation")
    onward = restart if ended_at_the_gate else endpoints.resume_job(job_id)
    reserves = await count_reserves(world, job_id) if ended_at_the_gate else None
    seen = EarlierState.of(job)
    # If the process ends from here on, the next attempt finds the job active, or paused and resumes it once.
    await send_and_verify(world, onward, job_id, pending=PendingRetry(seen, reserves))
    job = await world.send(endpoints.get_job(job_id))
    return ResumeResult(job, "retried" if ended_at_the_gate else "resumed", seen if seen.is_still(job) else None)


async def _record_passed(world: AsyncWorld, order_key: str | None, job_id: str) -> None:
    """Withdraw the actions at the gate: a pause from now on is another user's, and a rejection no longer counts."""
    if order_key is None:
        return
    for action in await world.actions(order_key):
        if action.job_id == job_id and action.state != "withdrawn":
            await world.mark_action(action, "withdrawn")
