# SPDX-License-Identifier: Apache-2.0
"""Cancelling: GET before DELETE, written down before it is sent, and never for a job that has ended."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from ugen_provider.core.api import operations
from ugen_provider.core.api.effects import Flow, Now, Perform
from ugen_provider.core.api.errors import ConflictError, NotFoundError, UGenError
from ugen_provider.core.api.flows import Caller
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.jobs.intent import CancelReason, Intent, IntentStore, OurAction, write_down

OnInterrupt = Literal["cancel", "pause", "detach"]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What came of a cancel.

    Attributes:
        job: The job as it is now; None where the service does not know it.
        confirmed: Whether it was seen to be cancelled. False for a job that ended first: its result stands.
    """

    job: Job | None
    confirmed: bool


def cancel(
    caller: Caller, job_id: str, *, reason: CancelReason, store: IntentStore | None = None, scope: str | None = None
) -> Flow[Cancelled]:
    """Cancel a job that has not ended, and write down that it was us.

    A cancel that could not be sent stays written down, unconfirmed, and whoever comes next sends it again.

    Args:
        caller: Calls the service.
        job_id: The job.
        reason: Why; the table treats a kill otherwise than a rejection.
        store: Where the intent is kept, if anywhere.
        scope: The intent's scope; an intent of another job is left alone.

    Raises:
        UGenError: The cancel could not be sent.
    """
    intent: Intent | None = None
    if store is not None and scope is not None:
        intent = yield Perform("intent.read", lambda: store.read(scope))
        if intent is not None and intent.job_id == job_id:
            now: float = yield Now()
            intent = replace(intent, action=OurAction("cancel", reason, now))
            yield from write_down(store, intent)
        else:
            intent = None
    job = yield from _look(caller, job_id)
    if job is not None and not job.ended:
        with suppress(ConflictError, NotFoundError):  # it ended meanwhile, or cannot be cancelled: the look tells
            yield from caller.call(operations.cancel_job(job_id))
        job = yield from _look(caller, job_id)
    confirmed = job is not None and job.state is JobState.CANCELLED
    if store is not None and intent is not None and intent.action is not None:
        if confirmed:
            yield from write_down(store, replace(intent, action=replace(intent.action, confirmed=True)))
        elif job is not None and job.ended:
            # It ended first. A wish that stays would cancel what a stage retry brings back to life.
            yield from write_down(store, replace(intent, action=None))
    return Cancelled(job, confirmed)


def _look(caller: Caller, job_id: str) -> Flow[Job | None]:
    try:
        return (yield from caller.call(operations.get_job(job_id)))
    except NotFoundError:
        return None


def pause(
    caller: Caller, job_id: str, *, store: IntentStore | None = None, scope: str | None = None
) -> Flow[Job | None]:
    """Pause a job on interrupt, written down first, so that the next attempt resumes it.

    After an ambiguous answer the job is looked at; the intent keeps the wish either way.

    Raises:
        UGenError: The pause could not be sent.
    """
    job = yield from _look(caller, job_id)
    if job is None or job.ended or job.state is JobState.PAUSED:
        return job
    if store is not None and scope is not None:
        intent: Intent | None = yield Perform("intent.read", lambda: store.read(scope))
        if intent is not None and intent.job_id == job_id:
            if intent.action is not None and intent.action.kind == "cancel":
                return job  # somebody wants it cancelled, and whoever comes next sees to that
            now: float = yield Now()
            yield from write_down(store, replace(intent, action=OurAction("pause", "interrupt", now)))
    try:
        yield from caller.call(operations.pause_job(job_id))
    except ConflictError:
        pass
    except UGenError:
        job = yield from _look(caller, job_id)
        if job is not None and job.state is JobState.ACTIVE:
            raise
    return (yield from _look(caller, job_id))
