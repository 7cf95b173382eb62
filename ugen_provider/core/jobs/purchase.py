# SPDX-License-Identifier: Apache-2.0
"""The purchase: make one order one job, wait for it, and check what came of it. Every entry point uses these functions.

The record is on disk before each request that can cost money. However the process ends, the next attempt reads what
may have been bought, and repeats the same request under the same idempotency key. Comments say what the next attempt
finds if the process ends on a line.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from ugen_provider.core.api import endpoints, polling, rules
from ugen_provider.core.api.errors import (
    APIError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PurchaseError,
    RateLimitError,
    ResponseError,
    UGenError,
    may_have_bought,
)
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.api.polling import EarlierState, WaitOutcome
from ugen_provider.core.jobs.actions import (
    cancel_until_ended,
    count_reserves,
    send_and_verify,
    send_owed_cancel,
    was_applied,
)
from ugen_provider.core.jobs.order import Order, Purchase, PurchaseOutcome, is_loopback
from ugen_provider.core.jobs.policy import (
    Decision,
    NextAction,
    decide,
    effective_action,
)
from ugen_provider.core.jobs.results import (
    FinishedJob,
    KeySearch,
    Step,
    WaitForJob,
    WaitForSlot,
    needs_wait,
    raise_for_status,
    require_found_or_absent,
    should_retry_purchase,
    wait_condition,
)
from ugen_provider.core.jobs.world import AsyncWorld
from ugen_provider.core.ledger.errors import AttemptSupersededError
from ugen_provider.core.ledger.record import Action, OrderRecord, PendingRetry
from ugen_provider.core.text import get_logger

T = TypeVar("T")
_log = get_logger("ugen_provider.jobs")

CONFLICT_PATIENCE = 600.0
"""Seconds for which a conflict of keys is repeated or searched before the attempt fails."""

_SEARCH_PAUSE = 30.0
_MISSING_PAUSE = 30.0
_OPENING_TRIES = 3
_CONTENT_STATUSES = frozenset({400, 402, 422})


class _PauseReport:
    """Reports a wait for something other than the job at once, then every four minutes: no wait is silent."""

    def __init__(self, world: AsyncWorld, order: Order) -> None:
        self._world = world
        self._label = order.label
        self._last: float | None = None

    async def sleep(self, seconds: float, why: str) -> None:
        """Wait for some seconds."""
        left = seconds
        while left > 0:
            now = self._world.now()
            if self._last is None or not 0 <= now - self._last < polling.SILENCE:
                self._last = now
                _log.warning("%s: %s; retrying in %.0f s", self._label, why, left)
            await self._world.sleep(min(left, polling.SILENCE))
            left -= polling.SILENCE


# The loop that every entry point shares: a step says what to wait for, or that the order is done.


async def next_step(world: AsyncWorld, order: Order, *, waited: tuple[Purchase, WaitOutcome] | None = None) -> Step:
    """Purchase an order, or judge the result of a wait, and say what comes next.

    A job that was cancelled while it was waited for goes back to the policy, which knows whether the cancel was ours.

    Args:
        world: Contacts with the outside.
        order: The order.
        waited: The purchase that was waited for, and how the wait ended; None before the first wait.

    Raises:
        UGenError: As `purchase` and `raise_for_status`.
    """
    if waited is not None:
        bought, outcome = waited
        bought = replace(bought, job=outcome.job, stale=None)
        if not should_retry_purchase(outcome, durable=world.durable):
            raise_for_status(bought, order=order, reason=outcome.reason)
            return FinishedJob(bought)
    try:
        bought = await purchase(world, order)
    except RateLimitError as error:
        return WaitForSlot(error)
    if needs_wait(bought):
        return WaitForJob(bought)
    raise_for_status(bought, order=order)
    return FinishedJob(bought)


async def purchase_and_wait(
    world: AsyncWorld,
    order: Order,
    *,
    interval: float = polling.DEFAULT_INTERVAL,
    timeout: float | None = None,
    queue_timeout: float | None = None,
    on_purchase: Callable[[Purchase], None] = lambda _: None,
) -> Purchase:
    """Purchase an order and wait until its job is complete, or awaits approval.

    Args:
        world: Contacts with the outside.
        order: The order.
        interval: Seconds between polls. Default 10.
        timeout: Seconds to wait for the job itself; it keeps running when they are up. None waits without limit.
        queue_timeout: Seconds to wait while the account's job limit is reached; None waits without limit.
        on_purchase: Called with each purchase before it is waited for.

    Returns:
        The purchase. It costs the credits of one job at most, and none where an earlier attempt bought.

    Raises:
        JobFailedError: The job failed; the next attempt follows `on_earlier_failure`.
        JobTimeoutError: The time is up; the job keeps running, and the next attempt resumes waiting for it.
        RateLimitError: `queue_timeout` passed; nothing was bought.
        UGenError: As `purchase`.
    """
    began = world.now()
    pause = _PauseReport(world, order)
    waited: tuple[Purchase, WaitOutcome] | None = None
    while True:
        match await next_step(world, order, waited=waited):
            case FinishedJob(bought):
                return bought
            case WaitForSlot(error) as limited:
                waited = None
                left = float("inf") if queue_timeout is None else began + queue_timeout - world.now()
                if left <= 0:
                    raise error
                await pause.sleep(min(limited.pause, left), f"U-Gen's job limit is reached ({error.message})")
            case WaitForJob(bought):
                on_purchase(bought)
                deadline = None if timeout is None else world.now() + timeout
                waited = bought, await wait_for_purchase(world, order, bought, interval=interval, deadline=deadline)


async def wait_for_purchase(
    world: AsyncWorld, order: Order, bought: Purchase, *, interval: float, deadline: float | None
) -> WaitOutcome:
    """Wait for the job of a purchase; arguments and errors as for `AsyncWorld.wait`."""
    goal = wait_condition(order)
    return await world.wait(bought.job.job_id, goal=goal, interval=interval, deadline=deadline, stale=bought.stale)


# One purchase.


async def purchase(world: AsyncWorld, order: Order) -> Purchase:
    """Make one order one job: buy it, or find the job of an earlier attempt.

    Costs the credits of one job at most, and none where an earlier attempt bought. Calls `POST /jobs`,
    `GET /jobs/{jobId}` and, as the policy says, retry, resume and DELETE.

    Args:
        world: Contacts with the outside.
        order: The order.

    Raises:
        PurchaseError: To continue could pay twice, or spending is off; the message says what to do.
        AttemptSupersededError: A newer attempt works on this order.
        RateLimitError: The account's job limit is reached; nothing was bought, and a later attempt is right.
        APIError: The service refused; nothing was bought.
    """
    if order.policy.spending == "off":
        raise _refusal(order, "spending_off", "spending is off: nothing is bought or waited for")
    if world.durable:
        return await purchase_with_store(world, order)
    return await purchase_by_key_only(world, order)


async def purchase_with_store(world: AsyncWorld, order: Order) -> Purchase:
    """Purchase by what the order's record says; see `purchase`."""
    record, is_new = await _open_record(world, order)
    wanted = order.policy.regenerate
    _require_same_request(order, record, regenerating=wanted is not None and wanted not in record.regenerate)
    if wanted is not None and wanted not in record.regenerate:
        record = await _regenerate(world, order, record, wanted)
        is_new = True
    for _ in range(order.policy.max_purchases + 2):
        if record.deleted:
            message = f"job {record.job_id} was settled as deleted; to buy another video, use a new `regenerate` value"
            raise _refusal(order, "job_deleted", message, job_id=record.job_id)
        if record.job_id is None:
            record, job = await _create_job(world, order, record, is_new=is_new)
            age = world.now() - record.written_at
            outcome = PurchaseOutcome.of_answer(job, first_send=is_new, age=age)
        else:
            record, job = await _get_known_job(world, order, record)
            outcome = PurchaseOutcome.REATTACHED
            if record.pending_retry is not None:
                record, retried = await _finish_stage_retry(world, order, record, job)
                if retried is not None:
                    return retried
                record, job = await _get_known_job(world, order, record)
        actions = await world.actions(record.order_key)
        if order.policy.spending == "allow" and await send_owed_cancel(world, record, actions):
            continue  # it was recorded before the job's id was known; now the policy says what it means
        ours = effective_action(record, actions)
        if ours is not None and ours.kind == "cancel" and ours.state == "confirmed" and not job.ended:
            record, job = await _get_known_job(world, order, record)  # the cancel came after the job was read
        decision = _decide(order, record, job, actions)
        match decision.action:
            case NextAction.NEXT_PURCHASE:
                _require_spending(order, f"the last job is of no use ({decision.reason})", record)
                record = await _record_intent(world, order, after=record)
                is_new = True
            case NextAction.CANCEL_AGAIN:
                _require_spending(order, "the job's cancel is not confirmed", record)
                record = await world.write(record)  # only the newest attempt may cancel
                await cancel_until_ended(world, _existing(ours), label=order.label)
            case NextAction.WITHDRAW_CANCEL if order.policy.spending == "allow":
                await world.mark_action(_existing(ours), "withdrawn")
            case NextAction.FAIL | NextAction.STOP:
                raise _refusal(order, decision.reason, decision.message, job_id=record.job_id)
            case _:
                return await _act(world, order, record, job, decision=decision, outcome=outcome)
    raise _refusal(
        order,
        "too_many_purchases",
        "one job after the other was cancelled while it was being bought; check who cancels them",
        job_id=record.job_id,
    )


async def purchase_by_key_only(world: AsyncWorld, order: Order) -> Purchase:
    """Purchase without a record: try purchase numbers by POST until one has a job that is of use.

    The service replays the job of a known key, so a POST of an earlier purchase buys nothing within the key window.
    """
    policy = order.policy
    _require_spending(order, "without a record of the order only a POST could find its job")
    for number in range(policy.max_purchases):
        record = order.record(purchase_number=number, written_at=world.now(), regenerate=policy.regenerate)
        lost = await _find_lost_job(world, order, record)
        if lost is not None:
            job = lost
        else:
            record, job = await _create_job(world, order, record, is_new=True)
        reserves = await count_reserves(world, job.job_id) if job.state is JobState.FAILED else None
        retries = max(0, (reserves or 1) - 1)
        decision = decide(job, body=record.body, token=0, policy=policy, stage_retries=retries)
        if job.state is JobState.CANCELLED or decision.action is NextAction.NEXT_PURCHASE:
            continue
        if decision.action is NextAction.FAIL:
            raise _refusal(order, decision.reason, decision.message, job_id=job.job_id)
        outcome = PurchaseOutcome.of_answer(job, first_send=True, age=world.now() - record.written_at)
        return await _act(world, order, record, job, decision=decision, outcome=outcome)
    raise _refusal(
        order,
        "too_many_purchases",
        f"{policy.max_purchases} purchases of this order were cancelled or failed; check why before you set a new "
        "`regenerate` value",
    )


# The record.


async def _open_record(world: AsyncWorld, order: Order) -> tuple[OrderRecord, bool]:
    """Return the order's record, with this attempt as its newest, and whether it is new."""
    for _ in range(_OPENING_TRIES):
        known = await world.read(order.record_key)
        if known is not None:
            _require_same_origin(order, known)
            if order.policy.spending != "allow":
                # Only reads, as a branch deployment reads the records of its parent: no token is taken.
                return replace(known, token=known.token + 1), False
            return await world.take_token(order.record_key, order.attempt), False
        _require_spending(order, "nothing was bought yet")
        with suppress(AttemptSupersededError):  # another attempt recorded it meanwhile: it is read, and we are next
            return await _record_intent(world, order), True
    raise _refusal(order, "record_contended", "several attempts record this order at once; try again", retryable=True)


def _require_same_origin(order: Order, record: OrderRecord) -> None:
    if record.origin and order.origin and record.origin != order.origin and not is_loopback(order.origin):
        message = (
            f"this order was bought at {record.origin}, and the connection leads to {order.origin}; "
            "correct the base URL, or name the real service as the connection's origin"
        )
        raise _refusal(order, "other_origin", message, job_id=record.job_id)


def _require_same_request(order: Order, record: OrderRecord, *, regenerating: bool) -> None:
    """Refuse another request under a name that a script gave: one of the two would silently not be made."""
    if order.key.kind != "name" or regenerating or record.surely_not_bought or not _is_changed(order, record):
        return
    names = sorted({*record.body, *order.body} - {"idempotency_key"})
    differences = [
        f"{name}: {record.body.get(name)!r} was ordered, {order.body.get(name)!r} is asked for"
        for name in names
        if record.body.get(name) != order.body.get(name)
    ]
    message = (
        f"this name was used for another request ({'; '.join(differences[:4])}). "
        "Use another name, or a new `regenerate` value to buy the changed one"
    )
    raise _refusal(order, "request_changed", message, job_id=record.job_id)


async def _record_intent(
    world: AsyncWorld, order: Order, *, after: OrderRecord | None = None, wanted: str | None = None
) -> OrderRecord:
    """Record a purchase that is about to be sent: the order's first, or the one after another.

    Args:
        world: Contacts with the outside.
        order: The order.
        after: The purchase that is of no use any more.
        wanted: The value of `regenerate` that asked for it.
    """
    if violations := rules.check(order.body, model=rules.DEFAULT_VIDEO_MODEL):
        raise InvalidRequestError(violations)
    await _require_affordable(world, order)
    number = 0 if after is None else after.purchase_number + 1
    record = order.record(purchase_number=number, written_at=world.now())
    first = order.policy.regenerate
    seen = after.regenerate if after is not None else (first,) if first is not None else ()
    record = replace(
        record,
        earlier=() if after is None else (*after.earlier, after.job_id or ""),
        regenerate=seen if wanted is None else (*seen, wanted),
        token=0 if after is None else after.token,
    )
    if after is None and (lost := await _find_lost_job(world, order, record)) is not None:
        return await world.write(replace(record, job_id=lost.job_id, maybe_bought=True, fingerprint=""))
    # From here on the purchase may have been sent. If the process ends now, the next attempt sends this very body under
    # this very key, so the service sees one request.
    return await world.write(replace(record, sent_at=record.written_at, maybe_bought=True))


async def _find_lost_job(world: AsyncWorld, order: Order, record: OrderRecord) -> Job | None:
    """Find the job of a record that may be lost, as after an Airflow run was deleted and created again.

    Raises:
        PurchaseError: The list of jobs proves nothing.
    """
    if order.search_since is None:
        return None
    result = await search_by_key(world, record, since=order.search_since, was_sent=False)
    return require_found_or_absent(result, order=order, record=record, now=world.now())


# Creating.


async def _create_job(world: AsyncWorld, order: Order, record: OrderRecord, *, is_new: bool) -> tuple[OrderRecord, Job]:
    """Send the record's request until it is known whether it bought; return the record with its job.

    Args:
        world: Contacts with the outside.
        order: The order as it is now.
        record: Its record, without a job id.
        is_new: Whether this attempt recorded the purchase a moment ago and has not sent it yet.
    """
    previous_send: float | None = None
    if not is_new and not record.surely_not_bought:
        # An earlier attempt may have bought. The stored body goes out under the stored key, so a purchase that exists
        # is returned; where the service may have forgotten the key, the list of jobs is searched first.
        previous_send = record.sent_at if record.sent_at is not None else record.written_at
        may_send = order.policy.spending == "allow"
        age = world.now() - record.written_at
        # A record from the future was written by a clock that was set back since: its age is not known.
        if not may_send or not -SLACK <= age <= order.policy.key_window:
            found = await _search(world, order, record, last_send=previous_send)
            if found is not None:
                return await _record_job_id(world, order, record, found), found
        _require_spending(order, "an earlier attempt may have bought, but its answer was lost", record)
        record = await world.write(replace(record, sent_at=world.now()))
    elif not is_new:
        # Every send was refused: the request is sent as it is now, under the same key.
        _require_spending(order, "the service refused the earlier request", record)
        await _require_affordable(world, order)
        record = await world.write(_as_ordered_now(order, record, now=world.now()))
    if record.job_id is not None:  # an older attempt's answer arrived meanwhile
        return await _get_known_job(world, order, record)
    try:
        job = await _post(world, order, record, previous_send=previous_send)
    except _KeyUsedError:
        record = await _record_intent(world, order, after=record)
        return await _create_job(world, order, record, is_new=True)
    except UGenError as error:
        if world.durable and previous_send is None and not may_have_bought(error):
            await world.write(_refused(record, error))
        raise
    record = await _record_job_id(world, order, record, job)
    await _require_reserved_within_limit(world, order, record, job)
    return record, job


class _KeyUsedError(Exception):
    """The service used this key for another request, and surely none of ours: the purchase number rises."""


async def _post(world: AsyncWorld, order: Order, record: OrderRecord, *, previous_send: float | None) -> Job:
    """Send the record's request; resolve a conflict of keys.

    Args:
        world: Contacts with the outside.
        order: The order.
        record: Its record, with the request.
        previous_send: When an earlier attempt sent it whose answer is not known.

    Raises:
        _KeyUsedError: The key is used, although every send of ours was refused.
        UGenError: The service refused, or no answer arrived.
    """
    began = world.now()
    report = _PauseReport(world, order)
    while True:
        try:
            return await world.create(record)
        except ResponseError as error:
            # No repetition of the request would make such an answer readable; the list may show the job.
            found = await _find_unread_job(world, record) if may_have_bought(error) else None
            if found is None:
                raise
            return found
        except ConflictError as error:
            waited = world.now() - began
            own_request_runs = previous_send is not None and world.now() - previous_send < world.client.config.timeout
            in_flight = error.in_flight or error.retry_after is not None or own_request_runs
            if in_flight and waited < CONFLICT_PATIENCE:
                pause = error.retry_after if error.retry_after is not None else 10.0
                copy = f"an earlier copy of the request runs ({error})"
                await report.sleep(min(max(1.0, pause), CONFLICT_PATIENCE - waited), copy)
                continue
            if record.refusals and previous_send is None and not in_flight and not error.after_unclear:
                # The key is used although every send of ours was refused. A refusal of the request itself proves that
                # nothing was bought; any other may come from a gateway that had forwarded the request.
                content = record.content_refusals == record.refusals
                found = None if content else await _search(world, order, record, last_send=None)
                if found is None:
                    raise _KeyUsedError from None
                return found
            return await _search_after_conflict(world, order, record, conflict=error)


async def _find_unread_job(world: AsyncWorld, record: OrderRecord) -> Job | None:
    """Find the job of a create whose answer cannot be read; None where the list does not show it."""
    with suppress(UGenError):
        return (await search_by_key(world, record, since=record.written_at)).job
    return None


async def _search_after_conflict(
    world: AsyncWorld, order: Order, record: OrderRecord, *, conflict: ConflictError
) -> Job:
    """Find the job that a conflict says exists. Its absence is never concluded: the list may lag behind."""
    deadline = world.now() + CONFLICT_PATIENCE
    report = _PauseReport(world, order)
    while True:
        result = await search_by_key(world, record, since=record.written_at)
        if result.job is not None:
            return result.job
        if world.now() >= deadline:
            raise _refusal(
                order,
                "key_conflict",
                f"the service answered {conflict.status} to this order's key {record.key} ({conflict.message}), and "
                "its list does not show the job. Check the account's jobs; then settle the order with "
                "`ugen ledger settle`, or give mapped instances a scope_key each",
                retryable=True,
            )
        await report.sleep(_SEARCH_PAUSE, f"the service holds a request under this key and lists no job ({conflict})")


async def _search(world: AsyncWorld, order: Order, record: OrderRecord, *, last_send: float | None) -> Job | None:
    """Find the job of a record by its key; None if it is proven that there is none.

    Args:
        world: Contacts with the outside.
        order: The order.
        record: Its record.
        last_send: When the request was last sent, if that may have bought.

    Raises:
        PurchaseError: The list proves nothing.
    """
    result = await search_by_key(world, record, since=record.written_at)
    lag = world.client.config.profile.list_lag
    return require_found_or_absent(result, order=order, record=record, now=world.now(), last_send=last_send, lag=lag)


def _as_ordered_now(order: Order, record: OrderRecord, *, now: float) -> OrderRecord:
    digest = order.fingerprint()
    body = {**order.body, "idempotency_key": record.key}
    request = replace(record, body=body, fingerprint=digest, scheme=order.scheme)
    return replace(request, sent_at=now, maybe_bought=True)


def _refused(record: OrderRecord, error: UGenError) -> OrderRecord:
    content = isinstance(error, APIError) and error.status in _CONTENT_STATUSES and error.own_form
    return replace(
        record,
        maybe_bought=False,
        refusals=record.refusals + 1,
        content_refusals=record.content_refusals + int(content),
    )


async def _record_job_id(world: AsyncWorld, order: Order, record: OrderRecord, job: Job) -> OrderRecord:
    """Store a job's id. If the process ends before, the next attempt repeats the request and gets the same job."""
    if order.policy.spending != "allow":
        return replace(record, job_id=job.job_id)  # another environment owns the record
    return await world.record_job_id(record, job.job_id)


# Reading a known job.


async def _get_known_job(world: AsyncWorld, order: Order, record: OrderRecord) -> tuple[OrderRecord, Job]:
    """Read the job of a record. A 404 counts as passing for ten minutes from the first one, which is recorded.

    Raises:
        PurchaseError: The service has not known the job for ten minutes.
    """
    job_id = _existing(record.job_id)
    first_page: float | None = None
    report = _PauseReport(world, order)
    while True:
        try:
            job = await world.send(endpoints.get_job(job_id))
        except NotFoundError as error:
            now, why = world.now(), str(error)
            if error.own_form:
                if record.missing_since is None or now < record.missing_since:  # or the clock was set back
                    record = await _note(world, order, replace(record, missing_since=now))
                if now - (record.missing_since or now) >= polling.MISSING_PATIENCE:
                    raise _missing(order, record) from None
            else:  # a gateway's page says nothing about the job
                first_page = now if first_page is None else first_page
                if now - first_page >= polling.MISSING_PATIENCE:
                    message = f"no answer of the API for job {job_id}, but a page ({error}); check base_url"
                    raise _refusal(order, "job_unreadable", message, job_id=job_id, retryable=True) from None
        else:
            if record.missing_since is not None:
                record = await _note(world, order, replace(record, missing_since=None))
            return record, job
        await report.sleep(_MISSING_PAUSE, why)


async def _note(world: AsyncWorld, order: Order, record: OrderRecord) -> OrderRecord:
    """Store a fact about a job, unless this attempt only reads the record."""
    return await world.write(record) if order.policy.spending == "allow" else record


def _missing(order: Order, record: OrderRecord) -> PurchaseError:
    return _refusal(
        order,
        "job_not_found",
        f"the service has not known job {record.job_id} for {polling.MISSING_PATIENCE / 60:.0f} minutes. "
        "If the connection leads to another account, correct it. If a person deleted the job: "
        f"ugen ledger settle {shlex.quote(record.order_key)} --deleted",
        job_id=record.job_id,
        retryable=True,
    )


# Acting on a known job.


def _decide(order: Order, record: OrderRecord, job: Job, actions: tuple[Action, ...]) -> Decision:
    return decide(
        job,
        body=record.body,
        token=record.token,
        policy=order.policy,
        action=effective_action(record, actions),
        changed=_is_changed(order, record),
        stage_retries=record.stage_retries,
        armed_token=record.armed_token,
    )


def _is_changed(order: Order, record: OrderRecord) -> bool:
    return order.fingerprint(scheme=record.scheme) != record.fingerprint


async def _act(
    world: AsyncWorld, order: Order, record: OrderRecord, job: Job, *, decision: Decision, outcome: PurchaseOutcome
) -> Purchase:
    stale: EarlierState | None = None
    warnings = (decision.message,) if decision.message else ()
    match decision.action:
        case NextAction.RETRY_STAGE:
            return await _retry_stage(world, order, record, job)
        case NextAction.RESUME:
            job, stale = await _resume(world, order, record, job)
            outcome = PurchaseOutcome.RESUMED
        case NextAction.REUSE if outcome is PurchaseOutcome.REATTACHED:
            outcome = PurchaseOutcome.REUSED
        case NextAction.REUSE if outcome is PurchaseOutcome.CREATED and not _is_changed(order, record):
            warnings = ()
        case NextAction.AWAIT_APPROVAL:
            outcome = PurchaseOutcome.AWAITING_APPROVAL
        case _:
            pass
    return Purchase(job, record, outcome, _is_changed(order, record), warnings, stale)


async def _retry_stage(world: AsyncWorld, order: Order, record: OrderRecord, job: Job) -> Purchase:
    """Run a failed job again from its failed stage. It reserves credits again."""
    _require_spending(order, "the job failed and could be run again from its stage", record)
    reserves = await count_reserves(world, job.job_id)
    # The job had ended before our cancel reached it, and it is wanted again: an owed cancel must not hit the retry.
    for action in await world.actions(record.order_key):
        if action.kind == "cancel" and action.concerns(record) and action.state in {"recorded", "sent"}:
            await world.mark_action(action, "withdrawn")
    pending = PendingRetry(EarlierState.of(job), reserves)
    # If the process ends after this write, the next attempt checks by transactions whether the retry was applied.
    record = await world.write(replace(record, stage_retries=record.stage_retries + 1, pending_retry=pending))
    return await _send_stage_retry(world, order, record, job)


async def _send_stage_retry(world: AsyncWorld, order: Order, record: OrderRecord, job: Job) -> Purchase:
    pending = _existing(record.pending_retry)
    await send_and_verify(world, endpoints.retry_job(job.job_id), job.job_id, pending=pending)
    record = await world.write(replace(record, pending_retry=None))
    job = await world.send(endpoints.get_job(job.job_id))
    message = f"job {job.job_id} runs again from its failed stage (retry {record.stage_retries})"
    stale = pending.seen if pending.seen.is_still(job) else None
    return Purchase(job, record, PurchaseOutcome.STAGE_RETRIED, _is_changed(order, record), (message,), stale)


async def _finish_stage_retry(
    world: AsyncWorld, order: Order, record: OrderRecord, job: Job
) -> tuple[OrderRecord, Purchase | None]:
    """Finish a stage retry that an earlier attempt recorded and may have sent."""
    pending = _existing(record.pending_retry)
    if not await was_applied(world, job.job_id, pending=pending):
        _require_spending(order, "a stage retry was about to be sent", record)
        bought = await _send_stage_retry(world, order, record, job)
        return bought.record, bought
    record = await world.write(replace(record, pending_retry=None))
    if not pending.seen.is_still(job):
        return record, None
    changed = _is_changed(order, record)
    return record, Purchase(job, record, PurchaseOutcome.STAGE_RETRIED, changed, (), pending.seen)


async def _resume(world: AsyncWorld, order: Order, record: OrderRecord, job: Job) -> tuple[Job, EarlierState | None]:
    """Resume a job that this order's own attempt paused on interrupt."""
    _require_spending(order, "the job is paused and could be resumed", record)
    await world.write(record)  # only the newest attempt may resume
    seen = EarlierState.of(job)
    await send_and_verify(world, endpoints.resume_job(job.job_id), job.job_id, pending=PendingRetry(seen, None))
    for action in await world.actions(record.order_key):
        if action.kind == "pause" and action.concerns(record) and action.state != "withdrawn":
            await world.mark_action(action, "withdrawn")
    job = await world.send(endpoints.get_job(job.job_id))
    return job, seen if seen.is_still(job) else None


async def _regenerate(world: AsyncWorld, order: Order, record: OrderRecord, wanted: str) -> OrderRecord:
    """Begin one further purchase; the one before ends first, since an order never has two live jobs."""
    _require_spending(order, "another video was asked for by `regenerate`", record)
    job: Job | None = None
    if record.deleted:
        pass
    elif record.job_id is not None:
        record, job = await _get_known_job(world, order, record)
    elif record.surely_not_bought:
        # Nothing was bought under this number: it is sent now, and counts as the purchase that was asked for.
        return await world.write(
            replace(_as_ordered_now(order, record, now=world.now()), regenerate=(*record.regenerate, wanted))
        )
    else:
        record, job = await _create_job(world, order, record, is_new=False)
    record = await world.write(record)  # only the newest attempt may cancel
    if job is not None and not job.ended:
        action = Action(
            order_key=record.order_key,
            purchase_number=record.purchase_number,
            job_id=job.job_id,
            kind="cancel",
            reason="regenerate",
            token=record.token,
            at=world.now(),
        )
        await cancel_until_ended(world, await world.append_action(action), label=order.label)
    return await _record_intent(world, order, after=record, wanted=wanted)


# Spending.


def _require_spending(order: Order, why: str, record: OrderRecord | None = None) -> None:
    spending = order.policy.spending
    if spending != "allow":
        job_id = None if record is None else record.job_id
        message = f"{why}, and spending is {spending}: nothing was sent"
        raise _refusal(order, f"spending_{spending}", message, job_id=job_id)


async def _require_affordable(world: AsyncWorld, order: Order) -> None:
    """Refuse before anything is sent if the estimate exceeds `max_credits`. Free; `POST /credits/estimate`."""
    limit = order.policy.max_credits
    if limit is None:
        return
    try:
        estimate = await world.send(endpoints.estimate(order.body))
    except APIError:
        return  # without an estimate the reservation decides, and a job that reserves too much is cancelled
    if estimate.total_credits > limit:
        message = f"the job would reserve {estimate.total_credits} credits and max_credits is {limit}; nothing was sent"
        raise _refusal(order, "over_max_credits", message)


async def _require_reserved_within_limit(world: AsyncWorld, order: Order, record: OrderRecord, job: Job) -> None:
    limit, reserved = order.policy.max_credits, job.credits_reserved
    if limit is None or reserved is None or reserved <= limit or job.ended:
        return
    action = Action(
        order_key=record.order_key,
        purchase_number=record.purchase_number,
        job_id=job.job_id,
        kind="cancel",
        reason="over_max_credits",
        token=record.token,
        at=world.now(),
    )
    await cancel_until_ended(world, await world.append_action(action), label=order.label)
    message = f"job {job.job_id} reserved {reserved} credits and max_credits is {limit}: it was cancelled"
    raise _refusal(order, "cancelled_over_max_credits", message, job_id=job.job_id)


def _refusal(
    order: Order, reason: str, message: str, *, job_id: str | None = None, retryable: bool = False
) -> PurchaseError:
    about = f"{order.label}: {message}"
    return PurchaseError(about, scope=str(order.key), reason=reason, job_id=job_id, retryable=retryable)


def _existing(value: T | None) -> T:
    assert value is not None
    return value


DAY = 86400.0
SLACK = 3600.0
"""Seconds before the record from which on each row of the list must name its key: clocks may differ by so much."""


async def search_by_key(world: AsyncWorld, record: OrderRecord, *, since: float, was_sent: bool = True) -> KeySearch:
    """Search the account's jobs for a record's key.

    Args:
        world: Contacts with the outside.
        record: Names the key.
        since: When the purchase may have been sent first, in seconds since the epoch.
        was_sent: Whether it is known that the request was sent. The list then has to go back as far as the order.

    Raises:
        UGenError: The list could not be read.
    """
    if since > world.now() + SLACK:
        why_undecided = "the clock of this machine was set back since the order was recorded"
    else:
        why_undecided = ""
    scan = await world.contact(
        "search", partial(world.client.jobs.scan, until=lambda job: job.idempotency_key == record.key)
    )
    if scan.found is not None:
        return KeySearch(scan.found)
    if not scan.complete:
        return KeySearch(None, f"the end of the list of jobs is not proven ({scan.why})")
    if scan.repeated:
        return KeySearch(None, "the list of jobs moved while it was read")
    if why_undecided:
        return KeySearch(None, why_undecided)
    times = [job.created_at.timestamp() for job in scan.jobs if job.created_at is not None]
    is_old = was_sent and world.now() - since > world.client.config.profile.list_days * DAY
    if is_old and min(times, default=since) >= since - SLACK:
        return KeySearch(None, "the list shows no job from before this order, so it may not go back so far")
    for job in scan.jobs:
        recent = job.created_at is None or job.created_at.timestamp() >= since - SLACK
        if job.idempotency_key is None and recent:
            return KeySearch(None, f"job {job.job_id} in the list names no idempotency key")
    return KeySearch(None)
