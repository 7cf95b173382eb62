# SPDX-License-Identifier: Apache-2.0
"""One claimed product, from its pictures and the reservation of its credits to its result.

`core.jobs` does the purchase. The result is written down in one step: outcome, budget, lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from ugen_provider.core.api import endpoints, rules
from ugen_provider.core.api.async_client import AsyncUGenClient, call_endpoint
from ugen_provider.core.api.errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    InsufficientCreditsError,
    InvalidRequestError,
    PermissionDeniedError,
    PurchaseError,
    RateLimitError,
    RequestValidationError,
    UGenError,
)
from ugen_provider.core.api.models import Job, Keyframe
from ugen_provider.core.api.polling import JobCancelledError, JobError, JobFailedError, JobTimeoutError
from ugen_provider.core.batch.adoption import pass_on
from ugen_provider.core.batch.budget import BudgetShare, Estimates, book, correct
from ugen_provider.core.batch.errors import BudgetUsedUpError, LeaseLostError, NoSuggestionError, RunRefusedError
from ugen_provider.core.batch.images import Pictures
from ugen_provider.core.batch.leases import LET_GO, Claim, ItemState, LeasedWorld, ProductOrderStore, key_of
from ugen_provider.core.batch.spec import FeedRun, Outputs
from ugen_provider.core.jobs.actions import cancel_order
from ugen_provider.core.jobs.order import Order, Purchase, PurchaseOutcome, origin_of
from ugen_provider.core.jobs.purchase import next_step, wait_for_purchase
from ugen_provider.core.jobs.results import FinishedJob, Scores, WaitForJob, WaitForSlot
from ugen_provider.core.jobs.watcher import JobWatcher
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.errors import AttemptSupersededError, LedgerUnavailableError
from ugen_provider.core.ledger.record import split_row_id
from ugen_provider.core.ledger.store import Ledger, change
from ugen_provider.core.media.errors import DownloadError

if TYPE_CHECKING:
    from ugen_provider.core.media.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ProductResult:
    """Result of one product of a run.

    Attributes:
        state: Its outcome in the report.
        reason: Why, where it did not simply complete.
        final_failure: Whether the same request is not tried again by itself.
        outcome: How the run came to the job.
        job_id: The job, where there is one.
        consumed: Credits that it consumed, once it has ended.
        score: Its lowest quality score.
        video: Where its video is.
        manifest: Where its manifest is.
        stage_retries: How often a stage of its job was run again.
    """

    state: ItemState
    reason: str | None = None
    final_failure: bool = False
    outcome: str | None = None
    job_id: str | None = None
    consumed: int | None = None
    score: float | None = None
    video: str | None = None
    manifest: str | None = None
    stage_retries: int = 0


_CAME_BACK = frozenset({PurchaseOutcome.REATTACHED.value, PurchaseOutcome.REUSED.value})
"""How a job is ours that an earlier runner submitted."""


def settle(ledger: Ledger, claimed: Claim, ended: ProductResult) -> None:
    """Write down how a product ended, and let go of it.

    Raises:
        LeaseLostError: Another runner has it; its word counts.
    """

    def work(connection: sa.Connection) -> None:
        now = ledger.now()
        remembered = _remembered(ended, now) if ended.state in {"completed", "failed"} else {}
        known = {**remembered, "fingerprint": claimed.fingerprint} if remembered else {}
        if ended.state == "completed":
            # It has a purchase of its own now, and so have all products that share it.
            known |= {"adopted_from": None, "adopted_digest": None}
        if change(connection, schema.product, {**LET_GO, **known}, where=claimed.lease.row) != 1:
            raise claimed.lease.lost()
        if ended.state == "completed":
            result = {**remembered, "fingerprint": claimed.fingerprint}
            pass_on(
                connection,
                claimed.run.catalogue.id,
                claimed.product_id,
                fingerprint=claimed.fingerprint,
                result=result,
            )
        values: dict[str, Any] = {
            "state": ended.state,
            "reason": ended.reason,
            "outcome": ended.outcome,
            "job_id": ended.job_id,
            "score": ended.score,
            "finished_at": now,
        }
        if ended.job_id is not None:
            values["begun"] = True
        if remembered:
            change(connection, schema.order, remembered, where={"order_key": claimed.order_key})
            # A job that was found under its key was paid for before: the budget is for new purchases.
            consumed = 0 if ended.outcome == PurchaseOutcome.RECOVERED.value else ended.consumed or 0
            if correct(connection, ledger, claimed, consumed=consumed):
                values.update(booked=consumed, consumed=consumed)
                # This run itself submitted a job that it booked without a stage retry, in an earlier wave or process.
                if ended.outcome in _CAME_BACK and not ended.stage_retries:
                    values["outcome"] = PurchaseOutcome.CREATED.value
        change(connection, schema.item, values, where={"run": claimed.run.id, "product_id": claimed.product_id})

    ledger.writer.run(work)


def _remembered(ended: ProductResult, now: float) -> dict[str, Any]:
    """Return what the product and its intent keep of it."""
    values: dict[str, Any] = {
        "state": ended.state,
        "reason": ended.reason,
        "final_failure": ended.final_failure,
        "updated_at": now,
    }
    if ended.job_id is not None:
        values["job_id"] = ended.job_id
    if ended.state == "completed":  # a video that is there stays the product's until there is a newer one
        values.update(credits=ended.consumed, score=ended.score, video=ended.video, manifest=ended.manifest)
    return values


T = TypeVar("T")
_OF_THE_RUN = (
    AuthenticationError,
    BudgetUsedUpError,
    ConfigError,
    LeaseLostError,
    LedgerUnavailableError,
    PermissionDeniedError,
    RunRefusedError,
)
"""Errors that end the run, since every other product would meet them too."""

_FINAL_REASONS = frozenset({"moderation", "validation", "cancelled_by_another_user"}) | {
    f"cancelled_{reason}" for reason in ("rejected", "expired", "over_max_credits", "operator", "cli")
}
"""Reasons after which the same request of a product is never sent again: its content, or a person's decision."""

_FINISH = 20.0
_log = logging.getLogger("ugen_provider.batch")


@dataclass(frozen=True, slots=True)
class RunContext:
    """Everything that the products of a run share."""

    spec: FeedRun
    client: AsyncUGenClient
    watcher: JobWatcher
    ledger: Ledger
    estimates: Estimates
    pictures: Pictures
    now: Callable[[], float]
    in_thread: Callable[..., Awaitable[Any]]
    share: BudgetShare
    slots: asyncio.Semaphore
    probe: Callable[[str], None]


class CreditReservation:
    """Reserves the credits of one product: once for its job, and again for each stage retry."""

    def __init__(
        self,
        context: RunContext,
        claimed: Claim,
        credits: int | None,  # noqa: A002  the API's word
        *,
        on_committed: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_committed = on_committed
        self._context = context
        self._claim = claimed
        self._credits = credits
        self.booked = claimed.booked

    def is_due(self, point: str) -> bool:
        """Return whether the request of this name is not covered yet."""
        return point == "retry" or (point == "create" and self.booked is None)

    def reserve(self, connection: sa.Connection) -> None:
        """Reserve the credits of one job.

        Raises:
            BudgetUsedUpError: The budget does not cover them.
        """
        if self._credits is None:
            raise BudgetUsedUpError("the cost of the job is not known; assume_credits says what to count", which="run")
        book(connection, self._context.ledger, self._claim, self._context.spec.budget, credits=self._credits)

    def covered(self, write: Callable[[], T]) -> T:
        """Do a write that calls `reserve` in its transaction.

        Raises:
            BudgetUsedUpError: The budget does not cover the credits; nothing was written.
        """
        return self._context.share.reserve(self._credits or 0, write)

    def committed(self) -> None:
        """Note that the reservation is on disk."""
        self.booked = (self.booked or 0) + (self._credits or 0)
        self._on_committed()


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Finish work that an interrupt must not split: the answer of a request in flight is recorded."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_FINISH)
        task.cancel()
        raise


class ProductWorker:
    """Worker that buys one product of a plan.

    Args:
        context: Shared by the products of the run.
        claimed: The product.
        accepted: Called whenever the product has a job that may run.
        running: Called whenever that job was read and has not ended.
        ended: Called once, when that job has ended and only its outputs are left to store.
        reserved: Called, perhaps in another thread, when its credits are reserved.
        turn: Waits until it may reserve its credits: near the end of a budget, products do so in the order of the plan.
    """

    def __init__(
        self,
        context: RunContext,
        claimed: Claim,
        *,
        accepted: Callable[[], None],
        running: Callable[[], None],
        ended: Callable[[], None],
        reserved: Callable[[], None],
        turn: Callable[[], Awaitable[None]],
    ) -> None:
        self._context = context
        self._claim = claimed
        self._accepted = accepted
        self._running = running
        self._ended = ended
        self._reserved = reserved
        self._turn = turn
        self.store = ProductOrderStore(context.ledger, claimed.lease, known=claimed.record, is_claimed=True)
        self._world = LeasedWorld(
            context.watcher,
            self.store,
            ledger=context.ledger,
            claimed=claimed,
            slots=context.slots,
            probe=context.probe,
        )

    async def buy(self) -> ProductResult:
        """Buy it, wait for it, store its outputs.

        Returns:
            The result.

        Raises:
            RateLimitError: The account's job limit is reached; the product is to be taken up again later.
            BudgetUsedUpError: The budget does not cover it; nothing was sent.
            UGenError: The run cannot continue, such as for a refused key.
        """
        try:
            order = await self._order()
            await self._turn()
            bought = await self._purchase(order)
        except (*_OF_THE_RUN, RateLimitError):
            raise
        except InsufficientCreditsError as error:
            raise BudgetUsedUpError(f"the account's credits are used up: {error}", which="credits") from error
        except (UGenError, OSError) as error:
            result = result_of_error(error)
            if not result.final_failure:
                return result
            advice = f"buy it again with --regenerate {split_row_id(self._claim.product_id)[0]}"
            return replace(result, reason=f"{result.reason}; {advice}")
        self._ended()
        return await self._delivered(bought)

    async def _order(self) -> Order:
        claimed, spec = self._claim, self._context.spec
        catalogue = claimed.run.catalogue
        body: Mapping[str, Any] = claimed.body
        if claimed.picture is not None:
            assert claimed.picture_digest is not None  # planned together
            url = await self._context.pictures.url(claimed.picture, digest=claimed.picture_digest)
            body = {**body, "product_image_url": url}
        policy = spec.policy
        if self._context.client.config.spending != "allow":
            policy = replace(policy, spending=self._context.client.config.spending)
        if claimed.why == "regenerate":
            policy = replace(policy, regenerate=claimed.run.run_id)
        if claimed.suggest:
            try:
                body = await self._with_suggestions(body)
            except NoSuggestionError:
                if not claimed.has_job:
                    raise
                # What exists is taken all the same; another purchase would have a hole.
                policy = replace(policy, spending="reuse_only", regenerate=None)
        credits = await self._estimate(body)  # noqa: A001
        self.store.reservation = CreditReservation(self._context, claimed, credits, on_committed=self._reserved)
        return Order(
            key=key_of(catalogue, claimed.product_id),
            body=body,
            policy=policy,
            image_identity=claimed.picture_digest,
            scheme=catalogue.scheme,
            digest=claimed.fingerprint,
            # A lease is one attempt: another runner, or this one after it lost the lease, is the next.
            attempt=f"{claimed.run.owner}:{claimed.token}",
            origin=catalogue.origin or origin_of(self._context.client.config.base_url),
        )

    def _as_sent(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a request with what was suggested for it when the order was recorded."""
        record = self.store.newest
        sent = record.body if record is not None else {}
        return {**body, **{name: sent[name] for name in self._claim.suggest if sent.get(name)}}

    async def _with_suggestions(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a request with what the service suggests for the fields that it lacks. Free.

        The suggestions are no part of the fingerprint, and the order's record keeps them: another text in another
        night is no change, and a request that is sent again is the same. If the process ends before the record is
        written, nothing was sent, and the next attempt asks again.

        Raises:
            NoSuggestionError: A field would stay empty, or what is suggested breaks a rule. Nothing is bought.
        """
        filled = self._as_sent(body)
        missing = [name for name in self._claim.suggest if not filled.get(name)]
        if not missing or self._context.client.config.spending != "allow":
            return filled
        asked = ("product_name", "product_image_url", "persona_id", "interaction_mode", "segment_count")
        try:
            async with self._context.slots:
                found = await self._context.client.jobs.suggest_fields(
                    **{name: filled[name] for name in asked if filled.get(name) is not None}
                )
        except (*_OF_THE_RUN, RateLimitError):
            raise
        except UGenError as error:
            raise NoSuggestionError(f"no suggestion for {', '.join(missing)}: {error}") from error
        for name in missing:
            value = getattr(found, name)
            if not value:
                raise NoSuggestionError(f"the service suggests no {name}")
            filled = {**filled, name: list(value) if isinstance(value, tuple) else value}
        if violations := rules.check(filled):
            raise NoSuggestionError(f"the suggestion cannot be sent: {InvalidRequestError(violations)}")
        return filled

    async def _estimate(self, body: Mapping[str, Any]) -> int | None:
        try:
            return await self._context.estimates.of(body)
        except RunRefusedError:
            if self._claim.has_job:
                return None  # what exists is taken for nothing
            raise

    async def _purchase(self, order: Order) -> Purchase:
        context, spec = self._context, self._context.spec
        deadline = context.now() + spec.job_timeout if spec.job_timeout is not None else None
        waited = None
        while True:
            step = await _to_its_end(next_step(self._world, order, waited=waited))
            match step:
                case FinishedJob(bought):
                    self._accepted()
                    return bought
                case WaitForSlot(error):
                    raise error
                case WaitForJob(bought):
                    self._accepted()
                    self._running()
                    waited = (
                        bought,
                        await wait_for_purchase(self._world, order, bought, interval=spec.interval, deadline=deadline),
                    )

    async def _delivered(self, bought: Purchase) -> ProductResult:
        job, spec = bought.job, self._context.spec
        keyframes: Sequence[Keyframe] = job.keyframes
        wanted = spec.min_score is not None or (spec.outputs is not None and "keyframes" in spec.outputs.include)
        if wanted and not keyframes:
            keyframes = await self._optional(self._context.client.jobs.list_keyframes(job.job_id)) or ()
        made = ProductResult(
            "completed",
            outcome=bought.outcome.value,
            job_id=job.job_id,
            consumed=job.credits_consumed,
            score=Scores.of(job, keyframes=keyframes).lowest,
            video=job.final_video_url,
            stage_retries=bought.record.stage_retries,
        )
        if spec.outputs is None:
            return made
        try:
            manifest = await self._store(bought, keyframes, spec.outputs)
        except DownloadError as error:
            return replace(made, reason=f"not stored: {error}")
        video = manifest.uri("final") or made.video
        return replace(made, video=video, manifest=f"{manifest.location}manifest.json")

    async def _optional(self, call: Awaitable[T]) -> T | None:
        try:
            return await call
        except UGenError:
            return None

    async def _store(self, bought: Purchase, keyframes: Sequence[Keyframe], outputs: Outputs) -> Manifest:
        from ugen_provider.core.media.http import shared_client
        from ugen_provider.core.media.outputs import download_outputs

        loop, client, job_id = asyncio.get_running_loop(), self._context.client, bought.job.job_id

        def refresh() -> Job:
            return asyncio.run_coroutine_threadsafe(call_endpoint(client, endpoints.get_job(job_id)), loop).result()

        def refresh_keyframes() -> Sequence[Keyframe]:
            return asyncio.run_coroutine_threadsafe(client.jobs.list_keyframes(job_id), loop).result()

        request = {name: value for name, value in bought.record.body.items() if name != "idempotency_key"}
        product_id, variant = split_row_id(self._claim.product_id)
        return await asyncio.to_thread(
            download_outputs,
            bought.job,
            outputs.destination,
            keyframes=keyframes,
            refresh=refresh,
            refresh_keyframes=refresh_keyframes,
            include=outputs.include,
            product_id=product_id,
            variant=variant,
            request=request,
            template=outputs.template,
            allow_private=outputs.allow_private,
            profile=client.config.profile,
            client=shared_client(client.config.network),
        )

    async def cancel(self) -> None:
        """Cancel its job, if it has one that runs, and record that it was us."""
        record = self.store.newest
        if record is not None and record.job_id is not None:
            await cancel_order(self._world, record.order_key, reason="kill", job_id=record.job_id)

    def claim_now(self) -> Claim:
        """Return the claim with the newest record, to take the product up again."""
        reservation = self.store.reservation
        booked = reservation.booked if isinstance(reservation, CreditReservation) else self._claim.booked
        return replace(self._claim, record=self.store.newest, booked=booked)


def result_of_error(error: UGenError | OSError) -> ProductResult:
    """Judge an error of one product: is it left running, postponed, or failed, and is that final?

    Only its content (moderation, validation) and a cancel by a person or another user are final. Everything else is
    tried again by the next run, which reads a known job before it buys anything.

    Examples:
        >>> result_of_error(PurchaseError("unknown", scope="", reason="job_not_found", retryable=True)).state
        'postponed'
        >>> result_of_error(PurchaseError("refused", scope="", reason="moderation")).final_failure
        True
    """
    match error:
        case JobTimeoutError():
            return ProductResult("running", reason="left at its deadline", job_id=error.job_id)
        case AttemptSupersededError():
            return ProductResult("postponed", reason="superseded", job_id=error.job_id)
        case JobError():
            consumed = error.job.credits_consumed if error.job is not None else None
            final = isinstance(error, JobCancelledError) or (isinstance(error, JobFailedError) and not error.retryable)
            return ProductResult(
                "failed", reason=str(error), final_failure=final, job_id=error.job_id, consumed=consumed
            )
        case PurchaseError():
            if error.retryable or error.reason == "attempt_ended" or error.reason.startswith("spending_"):
                # The report counts by reason; the sentence with the job and what to check is in the log.
                _log.warning("%s", error)
                return ProductResult("postponed", reason=error.reason, job_id=error.job_id)
            final = error.reason in _FINAL_REASONS
            return ProductResult("failed", reason=str(error), final_failure=final, job_id=error.job_id)
        case NoSuggestionError():
            return ProductResult("postponed", reason=f"suggest: {error}")
        case InvalidRequestError():
            return ProductResult("failed", reason=str(error), final_failure=True)
        case APIError() if error.status in {400, 422} or isinstance(error, RequestValidationError):
            return ProductResult("failed", reason=str(error), final_failure=error.own_form)
        case UGenError() if error.retryable:
            return ProductResult("postponed", reason=f"no answer: {type(error).__name__}")
        case _:
            return ProductResult("failed", reason=f"{type(error).__name__}: {error}")
