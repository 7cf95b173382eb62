# SPDX-License-Identifier: Apache-2.0
"""Waiting for a free slot of the account: one queue per event loop and account, so that nobody asks in vain for long.

Whoever is told that the account is full joins the queue. When a job that is waited for here ends, its slot goes to the
head of the queue at once. Slots that somebody else's jobs leave are found by asking when the service said to, one
after the other and not all at the same moment.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from ugen_provider.core.api.clock import Clock, SystemClock, asleep_unless

SPACING = 5.0
"""Seconds between two who ask because their time has come."""

LONG = 15 * 60.0
"""A pause of more seconds than this is no full account but a used-up day: an ended job frees nothing there."""


@dataclass(slots=True, eq=False)
class _Place:
    not_before: float
    frees_with_jobs: bool
    turn: asyncio.Future[None]


class SlotQueue:
    """First come, first served.

    Args:
        clock: The clock to live by.

    Examples:
        >>> queue = SlotQueue()
        >>> queue.freed()  # a job ended; nobody waits
        >>> queue.waiting
        0
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._places: deque[_Place] = deque()
        self._timer: asyncio.Task[None] | None = None
        self._earlier = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._places)

    async def turn(self, *, not_before: float) -> None:
        """Wait until asking makes sense.

        Args:
            not_before: Seconds since the epoch, as the service said; earlier only for a slot that was seen to be free.
        """
        frees = not_before - self._clock.now() <= LONG
        place = _Place(not_before, frees, asyncio.get_running_loop().create_future())
        self._places.append(place)
        self._earlier.set()
        if self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._call_in_time(), name="ugen-slots")
        try:
            await place.turn
        finally:
            if place in self._places:
                self._places.remove(place)
            if not self._places and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def freed(self) -> None:
        """A job of the account ended: its slot goes to the head of the queue."""
        for place in self._places:
            if place.frees_with_jobs and not place.turn.done():
                self._call(place)
                return

    def _call(self, place: _Place) -> None:
        self._places.remove(place)
        if not place.turn.done():
            place.turn.set_result(None)

    async def _call_in_time(self) -> None:
        while self._places:
            self._earlier.clear()
            first = min(self._places, key=lambda place: place.not_before)
            left = first.not_before - self._clock.now()
            if left <= 0:
                self._call(first)
                await self._clock.asleep(SPACING)
                continue
            await asleep_unless(self._earlier, clock=self._clock, seconds=left)


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SlotQueue]] = WeakKeyDictionary()


def slots_of(account: str) -> SlotQueue:
    """The one queue of this event loop for an account.

    Args:
        account: Tells accounts apart, such as the connection id.
    """
    queues = _queues.setdefault(asyncio.get_running_loop(), {})
    return queues.setdefault(account, SlotQueue())
