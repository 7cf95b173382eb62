# SPDX-License-Identifier: Apache-2.0
"""One attempt to make an order's job ours: read the intent, write it before the POST, ask the table, act."""

from __future__ import annotations

from dataclasses import replace

from ugen_provider.core.api import operations, rules
from ugen_provider.core.api.effects import Flow, Now, Perform, Sleep
from ugen_provider.core.api.errors import (
    APIError,
    BadRequestError,
    ConflictError,
    InsufficientCreditsError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    PurchaseError,
    RequestValidationError,
)
from ugen_provider.core.api.flows import Caller
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.api.polling import Seen
from ugen_provider.core.api.retries import ambiguous
from ugen_provider.core.jobs.buying import Decision, Move, decide
from ugen_provider.core.jobs.finding import find_by_key
from ugen_provider.core.jobs.intent import Intent, IntentStore, OurAction, PendingRetry, write_down
from ugen_provider.core.jobs.order import How, Order, Purchase
from ugen_provider.core.jobs.repeating import count_reserves, send_looked_after, was_taken

_DEFINITE = (BadRequestError, InsufficientCreditsError, PermissionDeniedError, RequestValidationError)
_SETTLE_LOOKS = 12
_SETTLE_PAUSE = 5.0
_SEARCHES = 3
_SEARCH_PAUSE = 10.0


class Attempt:
    """One attempt; holds what every step needs and no state of its own."""

    def __init__(self, caller: Caller, order: Order, store: IntentStore) -> None:
        self._caller = caller
        self._order = order
        self._store = store
        self._policy = order.policy

    def run(self) -> Flow[Purchase]:
        """With a store: by what is written down."""
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
                how = yield from _how(intent, job, first=fresh)
                if job is None:
                    fresh = True
                    continue
            else:
                found = yield from self._look(intent.job_id)
                how = How.ATTACHED
                if found is not None and intent.pending_retry is not None:
                    return (yield from self._finish_retry(intent, found, notes))
                job = found
            intent, decision = yield from self._judge(intent, job)
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
                        f"{self._order.scope.label}: {decision.note}",
                        scope=str(self._order.scope),
                        reason=decision.reason,
                        job_id=intent.job_id,
                    )
                case _:
                    assert job is not None  # only FAIL is decided without a job
                    return (yield from self._act(intent, job, decision, how, notes))
        raise PurchaseError(
            f"{self._order.scope.label}: job after job was cancelled while it was being bought; look who cancels them",
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
            intent = self._order.intent(generation=generation, written_at=now, regenerate=policy.regenerate)
            intent, job = yield from self._submit(intent, fresh=True)
            assert job is not None  # a fresh intent is sent as it is
            reserves = (yield from count_reserves(self._caller, job.job_id)) if job.state is JobState.FAILED else None
            retries = max(0, (reserves or 1) - 1)
            decision = decide(job, body=intent.body, action=None, changed=False, stage_retries=retries, policy=policy)
            if job.state is JobState.CANCELLED or decision.move is Move.NEXT_GENERATION:
                continue
            if decision.move is Move.FAIL:
                raise PurchaseError(
                    f"{self._order.scope.label}: {decision.note}",
                    scope=str(self._order.scope),
                    reason=decision.reason,
                    job_id=job.job_id,
                )
            notes = [decision.note] if decision.note else []
            how = yield from _how(intent, job, first=True)
            return (yield from self._act(intent, job, decision, how, notes))
        raise PurchaseError(
            f"{self._order.scope.label}: {policy.max_generations} generations are dead already; "
            "look why, then buy again by `regenerate`",
            scope=str(self._order.scope),
            reason="too_many_generations",
        )

    def _judge(self, intent: Intent, job: Job | None) -> Flow[tuple[Intent, Decision]]:
        """Ask the table; twice where a cancel may be ours.

        An attempt that was ended meanwhile may have written it down since we read.
        """
        decision = self._decide(intent, job)
        if decision.move is Move.FAIL and job is not None and job.state is JobState.CANCELLED:
            latest: Intent | None = yield Perform("intent.read", lambda: self._store.read(intent.scope))
            if latest is not None and latest.scope == intent.scope and latest.job_id == intent.job_id:
                return latest, self._decide(latest, job)
        return intent, decision

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
        yield from write_down(self._store, intent)
        return intent

    def _asked_for(self) -> tuple[str, ...]:
        return (self._policy.regenerate,) if self._policy.regenerate is not None else ()

    def _open(self, *, generation: int, earlier: tuple[str, ...], seen: tuple[str, ...]) -> Flow[Intent]:
        if violations := rules.check(self._order.body, model=rules.DEFAULT_VIDEO_MODEL):
            raise InvalidRequestError(violations)
        now: float = yield Now()
        intent = self._order.intent(generation=generation, written_at=now)
        return (yield from self._write(replace(intent, earlier=earlier, regenerate=seen)))

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
                found = yield from find_by_key(self._caller, intent, scope=self._order.scope)
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
                found = yield from find_by_key(self._caller, intent, scope=self._order.scope)
                if found is not None:
                    break
                yield Sleep(seconds=_SEARCH_PAUSE)
            else:
                raise PurchaseError(
                    f"{self._order.scope.label}: the service holds another request under this order's key and does not "
                    "say which job; buy on purpose by `regenerate` (or tell mapped instances apart by `scope_key`)",
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

    # Money.

    def _refuse_if(self, refused: bool, reason: str, why: str, intent: Intent | None = None) -> None:
        if refused:
            job_id = intent.job_id if intent is not None else None
            raise PurchaseError(
                f"{self._order.scope.label}: {why}", scope=str(self._order.scope), reason=reason, job_id=job_id
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

    # Retry, resume, cancel: looked at before they are sent again.

    def _retry_stage(self, intent: Intent, job: Job, notes: list[str]) -> Flow[Purchase]:
        self._refuse_if_not_spending("the job failed and could be run again from its stage", intent)
        reserves = yield from count_reserves(self._caller, job.job_id)
        pending_retry = PendingRetry(Seen.of(job), reserves)
        intent = yield from self._write(
            # A cancel that we wanted is moot: the job had ended before, and a person asked for it again since.
            replace(intent, stage_retries=intent.stage_retries + 1, pending_retry=pending_retry, action=None)
        )
        return (yield from self._send_retry(intent, job, notes))

    def _send_retry(self, intent: Intent, job: Job, notes: list[str]) -> Flow[Purchase]:
        assert intent.pending_retry is not None
        stale = intent.pending_retry.seen
        try:
            yield from send_looked_after(
                self._caller, operations.retry_job(job.job_id), job.job_id, pending=intent.pending_retry
            )
        except APIError as error:
            if not (ambiguous(error) or error.after_unclear or isinstance(error, ConflictError)):
                # Definitely refused: it does not count.
                yield from self._write(replace(intent, stage_retries=intent.stage_retries - 1, pending_retry=None))
            raise
        intent = yield from self._write(replace(intent, pending_retry=None))
        job = yield from self._caller.call(operations.get_job(job.job_id))
        notes.append(f"job {job.job_id} is run again from the stage that failed ({intent.stage_retries})")
        return Purchase(
            job, intent, How.STAGE_RETRIED, self._changed(intent), tuple(notes), stale if stale.is_still(job) else None
        )

    def _finish_retry(self, intent: Intent, job: Job, notes: list[str]) -> Flow[Purchase]:
        """An earlier attempt was about to ask for a stage retry, and what became of it was not written down."""
        assert intent.pending_retry is not None
        if not (yield from was_taken(self._caller, job.job_id, pending=intent.pending_retry)):
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
        onward = operations.resume_job(job.job_id)
        yield from send_looked_after(self._caller, onward, job.job_id, pending=PendingRetry(seen, None))
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
            f"{self._order.scope.label}: job {intent.job_id} is to be cancelled and does not end; try again later",
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


def _how(intent: Intent, job: Job | None, *, first: bool) -> Flow[How]:
    now: float = yield Now()
    return How.of_answer(job, first=first, age=now - intent.written_at)
