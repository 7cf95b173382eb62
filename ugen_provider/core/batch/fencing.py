# SPDX-License-Identifier: Apache-2.0
"""What is written down and sent for a product only while it is ours and the budget holds it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import sqlalchemy as sa

from ugen_provider.core.api.effects import Await, Effect, Flow, Perform, Send, passed_on
from ugen_provider.core.batch import schema
from ugen_provider.core.batch.claims import Claim, Lease, hold
from ugen_provider.core.batch.ledger import Ledger, T, upsert
from ugen_provider.core.jobs.intent import Intent


def keep(connection: sa.Connection, ledger: Ledger, intent: Intent, *, catalogue_id: int, product_id: str) -> None:
    """Keep an intent of a product in place of an older one of its scope."""
    values = {
        "scope": intent.scope,
        "catalogue_id": catalogue_id,
        "product_id": product_id,
        "fingerprint": intent.fingerprint,
        "key": intent.key,
        "job_id": intent.job_id,
        "document": json.dumps(intent.to_dict(), ensure_ascii=False, separators=(",", ":")),
        "updated_at": ledger.now(),
    }
    upsert(connection, schema.intent, values)


class Booking(Protocol):
    """What one product costs, booked once before each request that costs."""

    booked: int | None
    """Credits that are booked."""

    def due(self, point: str) -> bool:
        """Whether this request is yet to be booked, by the name of its point."""
        ...

    def enter(self, connection: sa.Connection) -> None:
        """Book it; raises where the budget does not hold it."""
        ...

    def entered(self) -> None:
        """What was booked is on disk."""
        ...


def write_under(ledger: Ledger, lease: Lease, *, intent: Intent | None = None, booking: Booking | None = None) -> None:
    """Renew a product's lease and write under it, in one step; when this returns, it is on disk.

    Args:
        ledger: Where.
        lease: Why the product is ours.
        intent: What is kept.
        booking: What is booked; where the budget does not hold it, nothing is kept either.

    Raises:
        LeaseLostError: The product is no longer ours.
        BudgetUsedUpError: The budget does not hold it.
    """

    def work(connection: sa.Connection) -> None:
        hold(connection, ledger, lease)
        if booking is not None:
            booking.enter(connection)
        if intent is not None:
            keep(connection, ledger, intent, catalogue_id=lease.catalogue_id, product_id=lease.product_id)

    ledger.writer.run(work)
    if booking is not None:
        booking.entered()


def _due(booking: Booking | None, point: str) -> Booking | None:
    return booking if booking is not None and booking.due(point) else None


class LedgerIntentStore:
    """The intents of one claimed product.

    Args:
        ledger: Where.
        claimed: The product, with its lease.
    """

    durable = True

    def __init__(self, ledger: Ledger, claimed: Claim) -> None:
        self._ledger = ledger
        self._claim = claimed
        self._newest = claimed.intent
        self.booking: Booking | None = None
        """Books what is about to be sent together with its intent: refused, it leaves none that looks as if sent."""

    def read(self, scope: str) -> Intent | None:
        """The newest intent of a scope. Nobody else can have written it since the product was claimed."""
        return self._newest if self._newest is not None and self._newest.scope == scope else None

    def write(self, intent: Intent) -> None:
        """Keep an intent; when this returns, it is on disk.

        Raises:
            LeaseLostError: The product is no longer ours.
            BudgetUsedUpError: It is about to be sent, and its cost does not fit; nothing was written.
        """
        about_to_be_sent = intent.job_id is None and not intent.refused
        booking = _due(self.booking, "create") if about_to_be_sent else None
        write_under(self._ledger, self._claim.lease, intent=intent, booking=booking)
        self._newest = intent

    @property
    def newest(self) -> Intent | None:
        """What was written or found last."""
        return self._newest


_ACTS = frozenset({"create", "retry", "resume", "cancel", "pause"})


def fenced(
    flow: Flow[T],
    *,
    ledger: Ledger,
    claimed: Claim,
    booking: Booking | None,
    places: asyncio.Semaphore,
    probe: Callable[[str], None],
) -> Flow[T]:
    """A flow of `core.jobs` that acts on a job only while the product is ours and the budget holds it.

    Requests take turns: more at once than there are connections to keep would open a new one for each.

    Args:
        flow: What is to be done.
        ledger: Where the lease is.
        claimed: The product.
        booking: Books what is about to be sent where its intent did not; None where nothing can cost.
        places: How many requests are under way at once, over all products.
        probe: Called before and after each contact with the world, with its name.
    """

    def guarded(effect: Effect) -> Flow[Any]:
        point = effect.request.point if isinstance(effect, Send) else getattr(effect, "point", "")
        if point in _ACTS:
            probe("before.acting")
            due = _due(booking, point)
            # The intent of a create was written under the lease a moment ago, and its key is safe.
            if due is not None or point != "create":
                yield Perform("budget.book", partial(write_under, ledger, claimed.lease, booking=due))
        if point:
            probe(f"before.{point}")
        sends = isinstance(effect, Send)
        if sends:
            yield Await("place", places.acquire)
        try:
            if isinstance(effect, Perform) and point == "intent.read":
                answer = effect.call()  # known since the claim; a thread is for what blocks
            else:
                answer = yield effect
        finally:
            if sends:
                places.release()
        if point:
            probe(f"after.{point}")
        return answer

    return passed_on(flow, by=guarded)
