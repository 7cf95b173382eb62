# SPDX-License-Identifier: Apache-2.0
"""One step towards a finished job: what the blocking and the deferred path share. Flows only; nothing here waits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ugen_provider.core.api.effects import Flow
from ugen_provider.core.api.errors import RateLimitError
from ugen_provider.core.api.flows import Caller
from ugen_provider.core.api.polling import Outcome
from ugen_provider.core.jobs.intent import IntentStore
from ugen_provider.core.jobs.purchase import Order, Purchase, again, conclude, pending, purchase, slot_pause


@dataclass(frozen=True, slots=True)
class Ready:
    """The job is what was ordered, or stands at its gate."""

    bought: Purchase


@dataclass(frozen=True, slots=True)
class Running:
    """The job is ours and goes on."""

    bought: Purchase


@dataclass(frozen=True, slots=True)
class NoSlot:
    """The account has no free slot; nothing was bought."""

    error: RateLimitError

    @property
    def pause(self) -> float:
        """Seconds after which asking again makes sense."""
        return slot_pause(self.error)


Step = Ready | Running | NoSlot


def resolve(
    caller: Caller, order: Order, *, store: IntentStore, waited: tuple[Purchase, Outcome] | None = None
) -> Flow[Step]:
    """Where the order stands, having done what the money protocol says.

    Args:
        caller: Calls the service.
        order: What is ordered.
        store: Where its intent is kept.
        waited: The job that was waited for, and how that ended; None before the first wait.

    Raises:
        UGenError: As `purchase` and `conclude`.
    """
    if waited is not None:
        bought, outcome = waited
        bought = replace(bought, job=outcome.job, stale=None)
        if not again(outcome, store=store):
            return Ready(conclude(bought, order=order, reason=outcome.reason))
    try:
        bought = yield from purchase(caller, order, store=store)
    except RateLimitError as error:
        return NoSlot(error)
    return Running(bought) if pending(bought) else Ready(conclude(bought, order=order))
