# SPDX-License-Identifier: Apache-2.0
"""Acting on a job once, for doors that name a job instead of an order: retry and resume, safe to ask for again.

Neither call carries a key, so what was about to be sent is written down with how the job looked, and after an answer
that was lost the job is looked at before anything is sent a second time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ugen_provider.core.api import operations
from ugen_provider.core.api.config import Spending
from ugen_provider.core.api.effects import Flow, Now, Perform
from ugen_provider.core.api.errors import APIError, ConflictError, PurchaseError, UGenError
from ugen_provider.core.api.flows import Caller, Operation
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.api.polling import Seen
from ugen_provider.core.api.retries import ambiguous
from ugen_provider.core.jobs.intent import Intent, IntentStore, PendingRetry, write_down

_SENDS = 3


@dataclass(frozen=True, slots=True)
class Acted:
    """A job that was acted on.

    Attributes:
        job: The job as it is now.
        how: `done`, or `already` where it was on its way, or an earlier attempt had asked.
        stale: A state that does not count while waiting.
    """

    job: Job
    how: Literal["done", "already"]
    stale: Seen | None = None


def retry_once(
    caller: Caller,
    job_id: str,
    *,
    store: IntentStore,
    scope: str,
    restart_from_stage: str | None = None,
    spending: Spending = "allow",
) -> Flow[Acted]:
    """Run an ended job again from a stage, once per scope, however often the asker is repeated.

    Reserves credits again. `POST /jobs/{jobId}/retry`, after a look at the job and its transactions. Where nothing can
    be written down, only a job that has failed or was cancelled is retried.

    Args:
        caller: Calls the service.
        job_id: The job.
        store: Where it is written down that this was asked for.
        scope: Who asks.
        restart_from_stage: First stage to run again; None starts where it failed.
        spending: `allow`, or nothing is sent.

    Raises:
        PurchaseError: Spending is off, or the job completed and nothing tells whether that was by this very retry.
        UGenError: The service refused.
    """
    intent: Intent | None = yield Perform("intent.read", lambda: store.read(scope))
    if intent is not None and (intent.scope != scope or intent.job_id != job_id):
        intent = None
    job: Job = yield from caller.call(operations.get_job(job_id))
    fresh = intent is None
    if intent is None:
        if not job.ended:
            return Acted(job, "already")
        if not store.durable and job.state is JobState.COMPLETED:
            raise PurchaseError(
                f"job {job_id} has completed, and without a task state store nobody knows whether an earlier attempt "
                "asked for that; retry it from the command line",
                scope=scope,
                reason="completed_without_store",
                job_id=job_id,
            )
        reserves = yield from count_reserves(caller, job_id)
        now: float = yield Now()
        intent = Intent(
            scope=scope,
            generation=0,
            key="",
            body={},
            fingerprint="",
            scheme=0,
            written_at=now,
            job_id=job_id,
            pending_retry=PendingRetry(Seen.of(job), reserves),
        )
        _refuse_unless(spending, scope, job_id)
        yield from write_down(store, intent)
    pending = intent.pending_retry
    if pending is None:
        return Acted(job, "already")
    taken = not fresh and (yield from was_taken(caller, job_id, pending=pending))
    if not taken:
        _refuse_unless(spending, scope, job_id)
        onward = operations.retry_job(job_id, restart_from_stage=restart_from_stage)
        yield from send_looked_after(caller, onward, job_id, pending=pending)
    yield from write_down(store, replace(intent, stage_retries=1, pending_retry=None))
    job = yield from caller.call(operations.get_job(job_id))
    return Acted(job, "already" if taken else "done", pending.seen if pending.seen.is_still(job) else None)


def resume_once(caller: Caller, job_id: str, *, scope: str = "", spending: Spending = "allow") -> Flow[Acted]:
    """Let a paused job go on; one that is not paused is left on its way. `POST /jobs/{jobId}/resume`, after a look.

    Args:
        caller: Calls the service.
        job_id: The job.
        scope: Who asks, for the error.
        spending: `allow`, or nothing is sent.

    Raises:
        PurchaseError: Spending is off.
        UGenError: The service refused.
    """
    job: Job = yield from caller.call(operations.get_job(job_id))
    if job.state is not JobState.PAUSED:
        return Acted(job, "already")
    _refuse_unless(spending, scope, job_id)
    pending = PendingRetry(Seen.of(job), None)
    yield from send_looked_after(caller, operations.resume_job(job_id), job_id, pending=pending)
    job = yield from caller.call(operations.get_job(job_id))
    return Acted(job, "done", pending.seen if pending.seen.is_still(job) else None)


def count_reserves(caller: Caller, job_id: str) -> Flow[int | None]:
    """How often credits were reserved for a job; None where the service does not say."""
    count, number = 0, 1
    while True:
        try:
            page = yield from caller.call(operations.list_transactions(job_id=job_id, page=number))
        except APIError:
            return None
        rows = map(operations.read_transaction, page.items)
        count += sum(row.type == "reserve" and row.job_id in {None, job_id} for row in rows)
        if not page.more:
            return count
        number += 1


def send_looked_after(
    caller: Caller, operation: Operation[Job | None], job_id: str, *, pending: PendingRetry
) -> Flow[None]:
    """Send what carries no key; after an answer that was lost, look whether it was taken before sending it again.

    Args:
        caller: Calls the service.
        operation: The retry, resume or pause.
        job_id: The job.
        pending: How the job looked before.

    Raises:
        UGenError: The service refused, or it could not be sent.
    """
    for attempt in range(1, _SENDS + 1):
        try:
            yield from caller.call(operation)
        except UGenError as error:
            if not (ambiguous(error) or isinstance(error, ConflictError)):
                raise
            if (yield from was_taken(caller, job_id, pending=pending)):
                return
            if attempt == _SENDS or isinstance(error, ConflictError):
                raise
        else:
            return


def was_taken(caller: Caller, job_id: str, *, pending: PendingRetry) -> Flow[bool]:
    """Whether an action was taken: the job looks otherwise than before it, or credits were reserved once more."""
    job: Job = yield from caller.call(operations.get_job(job_id))
    if not pending.seen.is_still(job):
        return True
    if pending.reserves is None:
        return False
    reserves = yield from count_reserves(caller, job_id)
    return reserves is not None and reserves > pending.reserves


def _refuse_unless(spending: Spending, scope: str, job_id: str) -> None:
    if spending != "allow":
        raise PurchaseError(
            f"job {job_id} is left as it is: spending is {spending}, and going on could cost credits",
            scope=scope,
            reason=f"spending_{spending}",
            job_id=job_id,
        )
