# SPDX-License-Identifier: Apache-2.0
"""Whether an order is just being bought, so that an interrupt does not cut it off between the POST and its job id."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ugen_provider.core.api.effects import Effect, Flow, Perform, Response, Send, passed_on
from ugen_provider.core.api.errors import TransportError
from ugen_provider.core.jobs.intent import IntentStore
from ugen_provider.core.jobs.scope import Scope

T = TypeVar("T")


@dataclass(slots=True)
class Partition:
    """One partition while a run works on it.

    Attributes:
        name: Its key; '' for an unpartitioned asset.
        scope: The order.
        store: Where its intent is kept.
        unsettled: Whether a job may have been bought whose id is not written down yet.
        settled: Set whenever that is not so.
        done: Whether there is a result, good or bad.
    """

    name: str
    scope: Scope
    store: IntentStore
    unsettled: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    done: bool = False

    def settle(self) -> None:
        """It is known what was bought."""
        self.unsettled = False
        self.settled.set()


class Place:
    """A place among the submitters; leaving it twice is the same as once."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._taken = False

    async def take(self) -> None:
        """Wait for a place, and take it."""
        await self._places.acquire()
        self._taken = True

    def leave(self) -> None:
        """Give it back."""
        if self._taken:
            self._taken = False
            self._places.release()


def settling(flow: Flow[T], partition: Partition) -> Flow[T]:
    """Pass a flow's effects on, and note while a job may have been bought whose id is not written down yet."""
    unclear = False

    def noted(effect: Effect) -> Flow[Any]:
        nonlocal unclear
        creating = isinstance(effect, Send) and effect.request.point == "create"
        if creating:
            partition.unsettled = True
            partition.settled.clear()
        try:
            answer = yield effect
        except TransportError as error:
            if creating:
                unclear = unclear or error.maybe_sent
                if not unclear:
                    partition.settle()
            raise
        if creating and isinstance(answer, Response) and answer.status >= 400:
            unclear = unclear or answer.status >= 500 or answer.status == 408
            if not unclear:
                partition.settle()
        elif isinstance(effect, Perform) and effect.point == "intent.write":
            unclear = False
            partition.settle()
        return answer

    return passed_on(flow, by=noted)
