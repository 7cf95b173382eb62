# SPDX-License-Identifier: Apache-2.0
"""One claimed product, from its booking to its settlement. Everything is done by the flows of `core.jobs`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ugen_provider.core.api import operations
from ugen_provider.core.api._async_client import AsyncUGenClient
from ugen_provider.core.api.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigError,
    InsufficientCreditsError,
    InvalidRequestError,
    JobCancelledError,
    JobError,
    JobFailedError,
    JobPausedError,
    JobTimeoutError,
    PermissionDeniedError,
    PurchaseError,
    RateLimitError,
    RequestValidationError,
    ResponseError,
    ServerError,
    TransportError,
    UGenError,
)
from ugen_provider.core.api.models import Job, Keyframe
from ugen_provider.core.batch.budget import Estimates, book
from ugen_provider.core.batch.claims import Claim
from ugen_provider.core.batch.errors import BudgetUsedUpError, LeaseLostError, LedgerUnavailableError, RunRefusedError
from ugen_provider.core.batch.fencing import LedgerIntentStore, fenced
from ugen_provider.core.batch.ledger import Ledger
from ugen_provider.core.batch.pictures import Pictures
from ugen_provider.core.batch.settling import Settlement
from ugen_provider.core.batch.spec import FeedRun, Outputs
from ugen_provider.core.jobs.cancelling import cancel
from ugen_provider.core.jobs.purchase import Order, Purchase, again, conclude, pending, purchase
from ugen_provider.core.jobs.scope import product_scope
from ugen_provider.core.jobs.summary import Scores, keyframes_of
from ugen_provider.core.jobs.watcher import JobWatcher, watching
from ugen_provider.core.media.errors import DownloadError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from ugen_provider.core.media.manifest import Manifest

T = TypeVar("T")
_PASSING = (TransportError, ServerError, ResponseError)
_OF_THE_RUN = (
    AuthenticationError,
    BudgetUsedUpError,
    ConfigError,
    LeaseLostError,
    LedgerUnavailableError,
    PermissionDeniedError,
    RateLimitError,
    RunRefusedError,
)
_ATTEMPTS = 4
_PAUSE = 5.0
_FINISH = 20.0


@dataclass(frozen=True, slots=True)
class Desk:
    """What every product of a run is bought with."""

    spec: FeedRun
    client: AsyncUGenClient
    watcher: JobWatcher
    ledger: Ledger
    estimates: Estimates
    pictures: Pictures
    sleep: Callable[[float], Awaitable[None]]
    now: Callable[[], float]
    in_thread: Callable[..., Awaitable[Any]]
    places: asyncio.Semaphore
    probe: Callable[[str], None]


class _Booker:
    """Books what one product costs: once for its job, and again for each stage retry."""

    def __init__(self, desk: Desk, claimed: Claim, credits: int | None) -> None:  # noqa: A002  the API's own word
        self._desk = desk
        self._claim = claimed
        self._credits = credits
        self.booked = claimed.booked

    def due(self, point: str) -> bool:
        """Whether this request is yet to be booked."""
        return point == "retry" or (point == "create" and self.booked is None)

    def enter(self, connection: sa.Connection) -> None:
        """Book it.

        Raises:
            BudgetUsedUpError: The budget does not hold it.
        """
        if self._credits is None:
            raise BudgetUsedUpError("the cost of the job is not known; assume_credits says what to count", which="run")
        book(connection, self._desk.ledger, self._claim, self._desk.spec.budget, credits=self._credits)

    def entered(self) -> None:
        """What was booked is on disk."""
        self.booked = (self.booked or 0) + (self._credits or 0)


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Wait for work that an interrupt shall not tear in the middle: what was bought a moment ago gets written down."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_FINISH)
        task.cancel()
        raise


class Buyer:
    """Buys one product.

    Args:
        desk: What with.
        claimed: Which.
        accepted: Called whenever the product has a job that may run.
        ended: Called once, when that job has ended; what is left is to store what it made.
    """

    def __init__(self, desk: Desk, claimed: Claim, *, accepted: Callable[[], None], ended: Callable[[], None]) -> None:
        self._desk = desk
        self._claim = claimed
        self._accepted = accepted
        self._ended = ended
        self.store = LedgerIntentStore(desk.ledger, claimed)

    async def buy(self) -> Settlement:
        """Buy it, wait for it, store it.

        Returns:
            How it ended.

        Raises:
            RateLimitError: The account has no free slot; the product is to be taken up again later.
            BudgetUsedUpError: There is no money left for it; nothing was sent.
            UGenError: The run cannot go on, such as for a refused key.
        """
        try:
            order = await self._order()
            bought = await self._obtain(order)
        except _OF_THE_RUN:
            raise
        except JobTimeoutError as error:
            return Settlement("running", reason="left at its deadline", job_id=error.job_id)
        except (JobFailedError, JobCancelledError, JobPausedError) as error:
            return self._failed(error, final=isinstance(error, JobFailedError) and not error.retryable)
        except PurchaseError as error:
            state = "postponed" if error.reason.startswith("spending_") else "failed"
            reason = error.reason if state == "postponed" else str(error)
            return Settlement(state, reason=reason, final_failure=state == "failed", job_id=error.job_id)  # type: ignore[arg-type]
        except (RequestValidationError, BadRequestError, InvalidRequestError) as error:
            return Settlement("failed", reason=str(error), final_failure=True)
        except InsufficientCreditsError as error:
            raise BudgetUsedUpError(f"the account's credits are used up: {error}", which="credits") from error
        except _PASSING as error:
            return Settlement("postponed", reason=f"no answer: {type(error).__name__}")
        except (UGenError, OSError) as error:
            return Settlement("failed", reason=f"{type(error).__name__}: {error}")
        self._ended()
        return await self._delivered(bought)

    async def _order(self) -> Order:
        claimed, spec = self._claim, self._desk.spec
        catalogue = claimed.run.catalogue
        body: Mapping[str, Any] = claimed.body
        if claimed.picture is not None:
            assert claimed.picture_digest is not None  # planned together
            url = await self._desk.pictures.url(claimed.picture, digest=claimed.picture_digest)
            body = {**body, "product_image_url": url}
        policy = spec.policy
        if self._desk.client.config.spending != "allow":
            policy = replace(policy, spending=self._desk.client.config.spending)
        if claimed.why == "regenerate":
            policy = replace(policy, regenerate=claimed.run.run_id)
        credits = await self._estimate(body)  # noqa: A001
        self.store.booking = _Booker(self._desk, claimed, credits)
        return Order(
            scope=product_scope(catalogue=catalogue.name, product_id=claimed.product_id, namespace=catalogue.namespace),
            body=body,
            policy=policy,
            image_identity=claimed.picture_digest,
            scheme=catalogue.scheme,
            holder=claimed.run.owner,
        )

    async def _estimate(self, body: Mapping[str, Any]) -> int | None:
        try:
            return await self._desk.estimates.of(body)
        except RunRefusedError:
            if self._claim.intent is not None and self._claim.intent.job_id is not None:
                return None  # what exists is taken for nothing
            raise

    async def _obtain(self, order: Order) -> Purchase:
        desk = self._desk
        deadline = desk.now() + desk.spec.job_timeout if desk.spec.job_timeout is not None else None
        attempt = 0
        while True:
            try:
                bought = await _to_its_end(self._run(purchase(desk.client.caller, order, store=self.store)))
            except _PASSING:
                attempt += 1
                if attempt >= _ATTEMPTS:
                    raise
                await desk.sleep(_PAUSE * 2.0**attempt)
                continue
            self._accepted()
            if not pending(bought):
                return conclude(bought, order=order)
            wait = watching(desk.watcher, order, interval=desk.spec.interval, deadline=deadline)
            outcome = await self._run(wait(bought))
            desk.probe("after.wait")
            bought = replace(bought, job=outcome.job, stale=None)
            if not again(outcome, store=self.store):
                return conclude(bought, order=order, reason=outcome.reason)

    async def _run(self, flow: Any) -> Any:
        desk = self._desk
        return await desk.client.run(
            fenced(
                flow,
                ledger=desk.ledger,
                claimed=self._claim,
                booking=self.store.booking,
                places=desk.places,
                probe=desk.probe,
            )
        )

    def _failed(self, error: JobError, *, final: bool) -> Settlement:
        job = error.job
        consumed = job.credits_consumed if job is not None else None
        return Settlement("failed", reason=str(error), final_failure=final, job_id=error.job_id, consumed=consumed)

    async def _delivered(self, bought: Purchase) -> Settlement:
        job, spec = bought.job, self._desk.spec
        keyframes: Sequence[Keyframe] = job.keyframes
        if spec.min_score is not None or (spec.outputs and "keyframes" in spec.outputs.include):
            keyframes = await self._look(self._desk.client.run(keyframes_of(self._desk.client.caller, job))) or ()
        made = Settlement(
            "completed",
            how=bought.how.value,
            job_id=job.job_id,
            consumed=job.credits_consumed,
            score=Scores.of(job, keyframes=keyframes).lowest,
            video=job.final_video_url,
            stage_retries=bought.intent.stage_retries,
        )
        if spec.outputs is None:
            return made
        try:
            manifest = await self._store(bought, keyframes, spec.outputs)
        except DownloadError as error:
            return replace(made, reason=f"not stored: {error}")
        video = manifest.uri("final") or made.video
        return replace(made, video=video, manifest=f"{manifest.location}manifest.json")

    async def _look(self, call: Awaitable[T]) -> T | None:
        try:
            return await call
        except UGenError:
            return None

    async def _store(self, bought: Purchase, keyframes: Sequence[Keyframe], outputs: Outputs) -> Manifest:
        from ugen_provider.core.media.outputs import download_outputs

        loop, client, job_id = asyncio.get_running_loop(), self._desk.client, bought.job.job_id

        def refresh() -> Job:
            return asyncio.run_coroutine_threadsafe(client.call(operations.get_job(job_id)), loop).result()

        def refresh_keyframes() -> Sequence[Keyframe]:
            return asyncio.run_coroutine_threadsafe(client.jobs.list_keyframes(job_id), loop).result()

        request = {name: value for name, value in bought.intent.body.items() if name != "idempotency_key"}
        return await asyncio.to_thread(
            download_outputs,
            bought.job,
            outputs.destination,
            keyframes=keyframes,
            refresh=refresh,
            refresh_keyframes=refresh_keyframes,
            include=outputs.include,
            product_id=self._claim.product_id,
            request=request,
            template=outputs.template,
            allow_private=outputs.allow_private,
        )

    async def cancel(self) -> None:
        """Cancel its job, if it has one that runs, and write down that it was us."""
        intent = self.store.newest
        if intent is not None and intent.job_id is not None:
            await self._run(
                cancel(
                    self._desk.client.caller, intent.job_id, reason="kill", store=self.store, scope=self._claim.scope
                )
            )

    def claim_now(self) -> Claim:
        """The claim with what was written down since, to take it up again."""
        booking = self.store.booking
        booked = self._claim.booked if booking is None else booking.booked
        return replace(self._claim, intent=self.store.newest, booked=booked)
