# SPDX-License-Identifier: Apache-2.0
"""Buying, for every door: make an order's job ours, wait for it, believe it.

Each contact with the world is one yielded effect with a name, so a test can end the world at each of them; whatever
was written until then is what the next attempt starts from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ugen_provider.core.api import polling
from ugen_provider.core.api.effects import Flow, Now, Sleep
from ugen_provider.core.api.errors import (
    JobCancelledError,
    JobFailedError,
    JobPausedError,
    RateLimitError,
)
from ugen_provider.core.api.flows import Caller
from ugen_provider.core.api.models import JobState
from ugen_provider.core.api.polling import Outcome, Reason
from ugen_provider.core.jobs.attempt import Attempt
from ugen_provider.core.jobs.buying import delivered, failure_kind
from ugen_provider.core.jobs.intent import IntentStore
from ugen_provider.core.jobs.order import How, Order, Purchase

__all__ = [
    "How",
    "Order",
    "Purchase",
    "again",
    "conclude",
    "goal_of",
    "obtain",
    "pending",
    "purchase",
    "purchase_when_free",
    "slot_pause",
    "waiting",
]


def purchase(caller: Caller, order: Order, *, store: IntentStore) -> Flow[Purchase]:
    """Make the order's one job ours: buy it, or find what an earlier attempt bought.

    Costs the credits of one job at most, and none where an earlier attempt bought already. Stands on `POST /jobs`,
    `GET /jobs/{jobId}` and, by the table, retry, resume and DELETE.

    Raises:
        PurchaseError: Going on could pay twice, or spending is off; the message names what to do.
        RateLimitError: The account has no free slot; nothing was bought, and asking again later is right.
        APIError: The service refused; nothing was bought.
    """
    attempt = Attempt(caller, order, store)
    return (yield from (attempt.run() if store.durable else attempt.walk()))


def purchase_when_free(
    caller: Caller, order: Order, *, store: IntentStore, slot_timeout: float | None = None
) -> Flow[Purchase]:
    """`purchase`, waiting where the account has no free slot.

    Args:
        caller: Calls the service.
        order: What to buy.
        store: Where its intent is kept.
        slot_timeout: Seconds to wait for a slot; None waits as long as it takes.
    """
    began: float = yield Now()
    while True:
        try:
            return (yield from purchase(caller, order, store=store))
        except RateLimitError as error:
            now: float = yield Now()
            left = float("inf") if slot_timeout is None else began + slot_timeout - now
            if left <= 0:
                raise
            yield Sleep(seconds=min(slot_pause(error), left))


def slot_pause(error: RateLimitError) -> float:
    """Seconds to wait for a slot: what the service says, else one long interval."""
    return max(1.0, error.retry_after if error.retry_after is not None else 30.0)


def obtain(
    caller: Caller,
    order: Order,
    *,
    store: IntentStore,
    wait: Callable[[Purchase], Flow[Outcome]],
    slot_timeout: float | None = None,
) -> Flow[Purchase]:
    """Buy and wait until the job is delivered, or stands at its gate.

    A job that ended as cancelled goes back to the table, which knows whether it was ours to cancel.

    Args:
        caller: Calls the service.
        order: What to buy.
        store: Where its intent is kept.
        wait: How to wait for a job, such as `waiting(caller, …)`.
        slot_timeout: Seconds to wait for a slot; None waits as long as it takes.

    Raises:
        JobFailedError: The job failed; asking again acts by `on_earlier_failure`.
        JobTimeoutError: The deadline passed; the job was left.
        UGenError: As `purchase`.
    """
    while True:
        bought = yield from purchase_when_free(caller, order, store=store, slot_timeout=slot_timeout)
        if not pending(bought):
            return conclude(bought, order=order)
        outcome = yield from wait(bought)
        bought = replace(bought, job=outcome.job, stale=None)
        if not again(outcome, store=store):
            return conclude(bought, order=order, reason=outcome.reason)


def pending(bought: Purchase) -> bool:
    """Whether there is something to wait for."""
    return bought.stale is not None or not (bought.job.ended or bought.how is How.AT_THE_GATE)


def again(outcome: Outcome, *, store: IntentStore) -> bool:
    """Whether the table has to be asked again: a cancelled job, where a store knows whose cancel it was."""
    return outcome.job.state is JobState.CANCELLED and store.durable


def goal_of(order: Order) -> polling.Goal:
    """What a wait for this order waits for."""
    return polling.Goal(
        stopped=order.body.get("stop_at_stage") is not None, through_pauses=order.policy.on_paused == "wait"
    )


def waiting(
    caller: Caller, order: Order, *, interval: float = polling.DEFAULT_INTERVAL, deadline: float | None = None
) -> Callable[[Purchase], Flow[Outcome]]:
    """The blocking way to wait, for `obtain`: one `GET /jobs/{jobId}` per interval.

    Args:
        caller: Calls the service.
        order: What was bought.
        interval: Seconds between looks.
        deadline: Seconds since the epoch.
    """

    def wait(bought: Purchase) -> Flow[Outcome]:
        return polling.wait(
            caller, bought.job.job_id, goal=goal_of(order), interval=interval, deadline=deadline, stale=bought.stale
        )

    return wait


def conclude(bought: Purchase, *, order: Order, reason: Reason = Reason.ENDED) -> Purchase:
    """Believe a job that has ended, or say what is wrong with it.

    Raises:
        JobFailedError: It failed, or completed without what was ordered.
        JobCancelledError: It was cancelled.
        JobPausedError: It is paused, and waiting for that was not wanted.
    """
    job = bought.job
    about = f"job {job.job_id} of {order.scope.label}"
    match job.state:
        case JobState.COMPLETED if not delivered(job, body=bought.intent.body):
            why = "completed without a final video, although no earlier stop was asked for"
            raise JobFailedError(f"{about} {why}", job_id=job.job_id, job=job, retryable=False)
        case JobState.FAILED:
            kind = failure_kind(job)
            why = job.error_message or "the service gave no reason"
            raise JobFailedError(f"{about} failed: {why}", job_id=job.job_id, job=job, retryable=kind == "passing")
        case JobState.CANCELLED:
            raise JobCancelledError(f"{about} was cancelled", job_id=job.job_id, job=job)
        case JobState.PAUSED if reason is Reason.PAUSED:
            raise JobPausedError(f"{about} was paused by somebody; resume it to go on", job_id=job.job_id, job=job)
        case _:
            return bought
