# SPDX-License-Identifier: Apache-2.0
"""Buying, as one flow behind every door: read the intent, write it before the POST, ask the table, act.

Each contact with the world is one yielded effect with a name, so a test can end the world at each of them; whatever
was written until then is what the next attempt starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from ugen_provider.core.api import operations, polling, rules
from ugen_provider.core.api.effects import Flow, Now, Perform, Sleep
from ugen_provider.core.api.errors import (
    APIError,
    BadRequestError,
    ConflictError,
    InsufficientCreditsError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    JobPausedError,
    NotFoundError,
    PermissionDeniedError,
    PurchaseError,
    RateLimitError,
    RequestValidationError,
    UGenError,
)
from ugen_provider.core.api.flows import Caller
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.api.polling import Outcome, Reason, Seen
from ugen_provider.core.api.retries import ambiguous
from ugen_provider.core.jobs.buying import BuyingPolicy, Decision, Move, decide, delivered, failure_kind
from ugen_provider.core.jobs.fingerprint import CURRENT_SCHEME, fingerprint
from ugen_provider.core.jobs.intent import Intent, IntentStore, OurAction, PendingRetry
from ugen_provider.core.jobs.scope import Scope

_DEFINITE = (BadRequestError, InsufficientCreditsError, PermissionDeniedError, RequestValidationError)
_SETTLE_LOOKS = 12
_SETTLE_PAUSE = 5.0
_SENDS = 3
_SEARCH_PAGES = 50
_SEARCHES = 3
_SEARCH_PAUSE = 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be bought once.

    Args:
        scope: The order's identity.
        body: The request, without `idempotency_key`.
        policy: The user's choices.
        image_identity: For a picture uploaded for this request, the digest of its content.
        scheme: Number of the fingerprint scheme; the ledger pins it.
        holder: Who works on it, for the intent.
    """

    scope: Scope
    body: Mapping[str, Any] = field(repr=False)
    policy: BuyingPolicy = field(default_factory=BuyingPolicy)
    image_identity: str | None = None
    scheme: int = CURRENT_SCHEME
    holder: str = ""

    def fingerprint(self, *, scheme: int | None = None) -> str:
        """The digest of the request as it is now."""
        return fingerprint(self.body, scheme=scheme or self.scheme, image_identity=self.image_identity)

    @property
    def intent_scope(self) -> str:
        """Under what the intent is kept: the scope, and for products the fingerprint too."""
        return f"{self.scope}{self.fingerprint()}" if self.scope.by_content else str(self.scope)


class How(Enum):
    """How a job came to be ours."""

    SUBMITTED = "submitted"
    ATTACHED = "attached"
    TAKEN = "taken"
    RESUMED = "resumed"
    STAGE_RETRIED = "stage_retried"
    AT_THE_GATE = "at_the_gate"


@dataclass(frozen=True, slots=True)
class Purchase:
    """A job that is ours, as it was last seen.

    Attributes:
        job: The job; it may have ended.
        intent: What is written down about it.
        how: How it came to be ours.
        request_changed: Whether the request is another one now than what the job was made from.
        notes: What a person should be told.
        stale: A state that does not count while waiting, after a retry or a resume.
    """

    job: Job
    intent: Intent
    how: How
    request_changed: bool = False
    notes: tuple[str, ...] = ()
    stale: Seen | None = None


def purchase(caller: Caller, order: Order, *, store: IntentStore) -> Flow[Purchase]:
    """Make the order's one job ours: buy it, or find what an earlier attempt bought.

    Costs the credits of one job at most, and none where an earlier attempt bought already. Stands on `POST /jobs`,
    `GET /jobs/{jobId}` and, by the table, retry, resume and DELETE.

    Raises:
        PurchaseError: Going on could pay twice, or spending is off; the message names what to do.
        RateLimitError: The account has no free slot; nothing was bought, and asking again later is right.
        APIError: The service refused; nothing was bought.
    """
    buying = _Buying(caller, order, store)
    return (yield from (buying.run() if store.durable else buying.walk()))


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
    about = f"job {job.job_id} of {order.scope}"
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


class _Buying:
    """One run of the flow; holds what every step needs and no state of its own."""

    def __init__(self, caller: Caller, order: Order, store: IntentStore) -> None:
        self._caller = caller
        self._order = order
        self._store = store
        self._policy = order.policy

    def run(self) -> Flow[Purchase]:
        self._refuse_if(
            self._policy.spending == "off", "spending_off", "spending is off: nothing is bought or waited for"
        )
        scope = self._order.intent_scope
        intent: Intent | None = yield Perform("intent.read", lambda: self._store.read(scope))
        if intent is None or intent.scope != scope:
            self._refuse_if_not_spending("nothing was bought yet")
            intent = yield from self._open(generation=0, earlier=(), seen=self._asked_for())
            fresh = True
        else:
            fresh = False
            wanted = self._policy.regenerate
            if wanted is not None and wanted not in intent.regenerate:
                intent = yield from self._supersede(intent, wanted)
                fresh = True
        notes: list[str] = []
        for _ in range(self._policy.max_generations + 2):
            if intent.job_id is None:
                intent, job = yield from self._submit(intent, fresh=fresh)
                how = How.SUBMITTED
                if job is None:
                    fresh = True
                    continue
            else:
                found = yield from self._look(intent.job_id)
                how = How.ATTACHED
                if found is not None and intent.pending_retry is not None:
                    return (yield from self._finish_retry(intent, found, notes))
                job = found
            decision = self._decide(intent, job)
            if decision.note:
                notes.append(decision.note)
            match decision.move:
                case Move.NEXT_GENERATION:
                    self._refuse_if_not_spending(f"the last job is of no use ({decision.reason})", intent)
                    intent = yield from self._next(intent)
                    fresh = True
                case Move.CANCEL_AGAIN:
                    intent = yield from self._end(intent)
                case Move.FAIL:
                    raise PurchaseError(
                        f"{self._order.scope}: {decision.note}",
                        scope=str(self._order.scope),
                        reason=decision.reason,
                        job_id=intent.job_id,
                    )
                case _:
                    assert job is not None  # only FAIL is decided without a job
                    return (yield from self._act(intent, job, decision, how, notes))
        raise PurchaseError(
            f"{self._order.scope}: job after job was cancelled while it was being bought; look who cancels them",
            scope=str(self._order.scope),
            reason="too_many_generations",
            job_id=intent.job_id,
        )

    def walk(self) -> Flow[Purchase]:
        """Without a store the key alone protects: walk the generations by POST until one is not dead."""
        policy = self._policy
        self._refuse_if(policy.spending == "off", "spending_off", "spending is off: nothing is bought or waited for")
        self._refuse_if_not_spending("without a task state store only a POST could tell what exists")
        for generation in range(policy.max_generations):
            now: float = yield Now()
            intent = self._make(generation=generation, earlier=(), seen=(), now=now, in_key=policy.regenerate)
            intent, job = yield from self._submit(intent, fresh=True)
            assert job is not None  # a fresh intent is sent as it is
            reserves = (yield from self._reserves(job.job_id)) if job.state is JobState.FAILED else None
            retries = max(0, (reserves or 1) - 1)
            decision = decide(job, body=intent.body, action=None, changed=False, stage_retries=retries, policy=policy)
            if job.state is JobState.CANCELLED or decision.move is Move.NEXT_GENERATION:
                continue
            if decision.move is Move.FAIL:
                raise PurchaseError(
                    f"{self._order.scope}: {decision.note}",
                    scope=str(self._order.scope),
                    reason=decision.reason,
                    job_id=job.job_id,
                )
            notes = [decision.note] if decision.note else []
            return (yield from self._act(intent, job, decision, How.SUBMITTED, notes))
        raise PurchaseError(
            f"{self._order.scope}: {policy.max_generations} generations are dead already; "
            "look why, then buy again by `regenerate`",
            scope=str(self._order.scope),
            reason="too_many_generations",
        )

    def _decide(self, intent: Intent, job: Job | None) -> Decision:
        return decide(
            job,
            body=intent.body,
            action=intent.action,
            changed=self._changed(intent),
            stage_retries=intent.stage_retries,
            policy=self._policy,
            armed=intent.armed,
        )

    def _changed(self, intent: Intent) -> bool:
        return self._order.fingerprint(scheme=intent.scheme) != intent.fingerprint

    def _act(self, intent: Intent, job: Job, decision: Decision, how: How, notes: list[str]) -> Flow[Purchase]:
        stale: Seen | None = None
        match decision.move:
            case Move.RETRY_STAGE:
                return (yield from self._retry_stage(intent, job, notes))
            case Move.RESUME:
                intent, job, stale = yield from self._resume(intent, job)
                how = How.RESUMED
            case Move.TAKE:
                how = How.TAKEN if how is How.ATTACHED else how
            case Move.GATE:
                how = How.AT_THE_GATE
            case _:
                pass
        return Purchase(job, intent, how, self._changed(intent), tuple(notes), stale)

    # What is written down.

    def _write(self, intent: Intent) -> Flow[Intent]:
        yield Perform("intent.write", lambda: self._store.write(intent))
        return intent

    def _asked_for(self) -> tuple[str, ...]:
        return (self._policy.regenerate,) if self._policy.regenerate is not None else ()

    def _make(
        self, *, generation: int, earlier: tuple[str, ...], seen: tuple[str, ...], now: float, in_key: str | None = None
    ) -> Intent:
        order = self._order
        digest = order.fingerprint()
        key = order.scope.key(generation, fingerprint=digest, regenerate=in_key)
        return Intent(
            scope=order.intent_scope,
            generation=generation,
            key=key,
            body={**order.body, "idempotency_key": key},
            fingerprint=digest,
            scheme=order.scheme,
            written_at=now,
            regenerate=seen,
            holder=order.holder,
            earlier=earlier,
        )

    def _open(self, *, generation: int, earlier: tuple[str, ...], seen: tuple[str, ...]) -> Flow[Intent]:
        if violations := rules.check(self._order.body, model=rules.DEFAULT_VIDEO_MODEL):
            raise InvalidRequestError(violations)
        now: float = yield Now()
        return (yield from self._write(self._make(generation=generation, earlier=earlier, seen=seen, now=now)))

    def _next(self, intent: Intent, *, wanted: str | None = None) -> Flow[Intent]:
        earlier = (*intent.earlier, intent.job_id or "")
        seen = intent.regenerate if wanted is None else (*intent.regenerate, wanted)
        return (yield from self._open(generation=intent.generation + 1, earlier=earlier, seen=seen))

    # Buying.

    def _submit(self, intent: Intent, *, fresh: bool) -> Flow[tuple[Intent, Job | None]]:
        """Send the stored body. None for the job: the intent is a new one, to be sent next."""
        never_taken = fresh or intent.refused
        if not fresh:
            self._refuse_if_not_spending("an earlier attempt may have bought, but its answer was lost", intent)
            if intent.refused and self._changed(intent):
                return (yield from self._next(intent)), None
            now: float = yield Now()
            if not intent.refused and now - intent.written_at > self._policy.key_window:
                found = yield from self._search(intent)
                if found is not None:
                    return (yield from self._got(intent, found)), found
        if self._policy.max_credits is not None:
            yield from self._estimate_within(intent, self._policy.max_credits)
        if intent.refused:
            intent = yield from self._write(replace(intent, refused=False))
        try:
            job = yield from self._caller.call(operations.create_job(intent.body), wait_when_limited=False)
        except ConflictError:
            # It exists; a list may lag behind what it was told a moment ago.
            for _ in range(_SEARCHES):
                found = yield from self._search(intent)
                if found is not None:
                    break
                yield Sleep(seconds=_SEARCH_PAUSE)
            else:
                raise PurchaseError(
                    f"{self._order.scope}: the service holds another request under this order's key and does not say "
                    "which job; buy on purpose by `regenerate` (or tell mapped instances apart by `scope_key`)",
                    scope=str(self._order.scope),
                    reason="key_conflict",
                ) from None
            job = found
        except _DEFINITE as error:
            if never_taken and not error.after_unclear:
                yield from self._write(replace(intent, refused=True))
            raise
        intent = yield from self._got(intent, job)
        if self._policy.max_credits is not None:
            yield from self._reserved_within(intent, job, self._policy.max_credits)
        return intent, job

    def _got(self, intent: Intent, job: Job) -> Flow[Intent]:
        return (yield from self._write(replace(intent, job_id=job.job_id, refused=False)))

    def _look(self, job_id: str) -> Flow[Job | None]:
        try:
            return (yield from self._caller.call(operations.get_job(job_id)))
        except NotFoundError:
            return None

    def _search(self, intent: Intent) -> Flow[Job | None]:
        """Look for the key among the account's jobs; None where it was surely never bought."""
        undecided = False
        for number in range(1, _SEARCH_PAGES + 1):
            page = yield from self._caller.call(operations.list_jobs(page=number))
            for item in page.items:
                job = operations.read_listed_job(item)
                if job.idempotency_key == intent.key:
                    return job
                recent = job.created_at is None or job.created_at.timestamp() >= intent.written_at - 3600
                undecided = undecided or (job.idempotency_key is None and recent)
            if not page.more:
                break
        else:
            undecided = True
        if undecided:
            raise PurchaseError(
                f"{self._order.scope}: an attempt {intent.key} may have bought a job, the service no longer has to "
                "remember its key, and its list does not tell; look at the account, then use `regenerate`",
                scope=str(self._order.scope),
                reason="undecidable",
            )
        return None

    # Money.

    def _refuse_if(self, refused: bool, reason: str, why: str, intent: Intent | None = None) -> None:
        if refused:
            job_id = intent.job_id if intent is not None else None
            raise PurchaseError(
                f"{self._order.scope}: {why}", scope=str(self._order.scope), reason=reason, job_id=job_id
            )

    def _refuse_if_not_spending(self, why: str, intent: Intent | None = None) -> None:
        spending = self._policy.spending
        self._refuse_if(
            spending != "allow", f"spending_{spending}", f"{why}, and spending is {spending}: nothing is sent", intent
        )

    def _estimate_within(self, intent: Intent, limit: int) -> Flow[None]:
        try:
            estimate = yield from self._caller.call(operations.estimate(intent.body))
        except APIError:
            return  # an unknown estimate is judged by the reservation, which is cancelled where it is too high
        self._refuse_if(
            estimate.total_credits > limit,
            "over_max_credits",
            f"the job would reserve {estimate.total_credits} credits and max_credits is {limit}: nothing was bought",
        )

    def _reserved_within(self, intent: Intent, job: Job, limit: int) -> Flow[None]:
        reserved = job.credits_reserved
        if reserved is None or reserved <= limit or job.ended:
            return
        now: float = yield Now()
        intent = yield from self._write(replace(intent, action=OurAction("cancel", "over_max_credits", now)))
        yield from self._end(intent)
        self._refuse_if(
            True,
            "cancelled_over_max_credits",
            f"the job reserved {reserved} credits and max_credits is {limit}: it was cancelled",
            intent,
        )

    def _reserves(self, job_id: str) -> Flow[int | None]:
        """How often credits were reserved for the job; None where the service does not say."""
        count, number = 0, 1
        while True:
            try:
                page = yield from self._caller.call(operations.list_transactions(job_id=job_id, page=number))
            except APIError:
                return None
            rows = map(operations.read_transaction, page.items)
            count += sum(row.type == "reserve" and row.job_id in {None, job_id} for row in rows)
            if not page.more:
                return count
            number += 1

    # Retry, resume, cancel: looked at before they are sent again.

    def _retry_stage(self, intent: Intent, job: Job, notes: list[str]) -> Flow[Purchase]:
        self._refuse_if_not_spending("the job failed and could be run again from its stage", intent)
        reserves = yield from self._reserves(job.job_id)
        pending_retry = PendingRetry(Seen.of(job), reserves)
        intent = yield from self._write(
            replace(intent, stage_retries=intent.stage_retries + 1, pending_retry=pending_retry)
        )
        return (yield from self._send_retry(intent, job, notes))

    def _send_retry(self, intent: Intent, job: Job, notes: list[str]) -> Flow[Purchase]:
        assert intent.pending_retry is not None
        for attempt in range(1, _SENDS + 1):
            try:
                yield from self._caller.call(operations.retry_job(job.job_id))
                break
            except UGenError as error:
                if not (ambiguous(error) or isinstance(error, ConflictError)):
                    if not (isinstance(error, APIError) and error.after_unclear):
                        taken_back = replace(intent, stage_retries=intent.stage_retries - 1, pending_retry=None)
                        yield from self._write(taken_back)
                    raise
                if (yield from self._retry_was_taken(intent)):
                    break
                if attempt == _SENDS or isinstance(error, ConflictError):
                    raise
        stale = intent.pending_retry.seen
        intent = yield from self._write(replace(intent, pending_retry=None))
        job = yield from self._caller.call(operations.get_job(job.job_id))
        notes.append(f"job {job.job_id} is run again from the stage that failed ({intent.stage_retries})")
        return Purchase(
            job,
            intent,
            How.STAGE_RETRIED,
            self._changed(intent),
            tuple(notes),
            stale if stale.is_still(job) else None,
        )

    def _retry_was_taken(self, intent: Intent) -> Flow[bool]:
        assert intent.pending_retry is not None
        assert intent.job_id is not None
        job = yield from self._caller.call(operations.get_job(intent.job_id))
        if not intent.pending_retry.seen.is_still(job):
            return True
        reserves = yield from self._reserves(intent.job_id)
        before = intent.pending_retry.reserves
        return reserves is not None and before is not None and reserves > before

    def _finish_retry(self, intent: Intent, job: Job, notes: list[str]) -> Flow[Purchase]:
        """An earlier attempt was about to ask for a stage retry, and what became of it was not written down."""
        assert intent.pending_retry is not None
        if not (yield from self._retry_was_taken(intent)):
            self._refuse_if_not_spending("a stage retry was about to be asked for", intent)
            return (yield from self._send_retry(intent, job, notes))
        stale = intent.pending_retry.seen
        intent = yield from self._write(replace(intent, pending_retry=None))
        if stale.is_still(job):
            return Purchase(job, intent, How.STAGE_RETRIED, self._changed(intent), tuple(notes), stale)
        return (yield from self.run())

    def _resume(self, intent: Intent, job: Job) -> Flow[tuple[Intent, Job, Seen | None]]:
        self._refuse_if_not_spending("the job is paused and could be resumed", intent)
        seen = Seen.of(job)
        for attempt in range(1, _SENDS + 1):
            try:
                yield from self._caller.call(operations.resume_job(job.job_id))
                break
            except UGenError as error:
                if not (ambiguous(error) or isinstance(error, ConflictError)):
                    raise
                job = yield from self._caller.call(operations.get_job(job.job_id))
                if not seen.is_still(job):
                    break
                if attempt == _SENDS or isinstance(error, ConflictError):
                    raise
        intent = yield from self._write(replace(intent, action=None))
        job = yield from self._caller.call(operations.get_job(job.job_id))
        return intent, job, seen if seen.is_still(job) else None

    def _end(self, intent: Intent) -> Flow[Intent]:
        """Send our pending cancel again, until the job is seen to have ended."""
        assert intent.job_id is not None
        assert intent.action is not None
        for look in range(_SETTLE_LOOKS):
            job = yield from self._look(intent.job_id)
            if job is None or job.ended:
                confirmed = job is not None and job.state is JobState.CANCELLED
                return (yield from self._write(replace(intent, action=replace(intent.action, confirmed=confirmed))))
            if look:
                yield Sleep(seconds=_SETTLE_PAUSE)
            try:
                yield from self._caller.call(operations.cancel_job(intent.job_id))
            except (ConflictError, NotFoundError):
                yield Sleep(seconds=_SETTLE_PAUSE)
        raise PurchaseError(
            f"{self._order.scope}: job {intent.job_id} is to be cancelled and does not end; try again later",
            scope=str(self._order.scope),
            reason="cancel_pending",
            job_id=intent.job_id,
        )

    def _supersede(self, intent: Intent, wanted: str) -> Flow[Intent]:
        """Another generation was asked for: the one before ends first, since a scope never has two that live."""
        self._refuse_if_not_spending("another one was asked for by `regenerate`", intent)
        if intent.job_id is None and not intent.refused:
            intent, job = yield from self._submit(intent, fresh=False)
        elif intent.job_id is not None:
            job = yield from self._look(intent.job_id)
        else:
            job = None
        if job is not None and not job.ended:
            now: float = yield Now()
            intent = yield from self._write(replace(intent, action=OurAction("cancel", "regenerate", now)))
            intent = yield from self._end(intent)
        return (yield from self._next(intent, wanted=wanted))
