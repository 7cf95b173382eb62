# SPDX-License-Identifier: Apache-2.0
"""Waiting for a free slot of the account: one queue per event loop and account, so that refused requests stay few.

A waiter joins the queue when the service refuses its job with 429. When a job of this queue ends, its slot goes to the
head of the queue at once. Slots that jobs of other processes leave are found by asking when the service said to, one
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
    end_time: float
    frees_with_jobs: bool
    turn: asyncio.Future[bool]

    @property
    def due(self) -> float:
        """The time at which the wait ends in either way."""
        return min(self.not_before, self.end_time)


class SlotQueue:
    """Queue for the account's job slots: first come, first served.

    Args:
        clock: The clock to live by.

    Examples:
        >>> queue = SlotQueue()
        >>> queue.freed()  # a job ended; no other waits
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
        """Number of callers that wait for a slot."""
        return len(self._places)

    async def turn(self, *, not_before: float, end_time: float | None = None) -> bool:
        """Wait until asking makes sense.

        Args:
            not_before: Seconds since the epoch, as the service said; earlier only for a slot that was seen to be free.
            end_time: Seconds since the epoch at which to stop waiting; None waits without limit.

        Returns:
            Whether asking makes sense; False where `end_time` came first.
        """
        frees = not_before - self._clock.now() <= LONG
        ends = float("inf") if end_time is None else end_time
        place = _Place(not_before, ends, frees, asyncio.get_running_loop().create_future())
        self._places.append(place)
        self._earlier.set()
        if self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._call_in_time(), name="ugen-slots")
        try:
            return await place.turn
        finally:
            if place in self._places:
                self._places.remove(place)
            if not self._places and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def freed(self) -> None:
        """Give the slot of an ended job to the head of the queue."""
        for place in self._places:
            if place.frees_with_jobs and not place.turn.done():
                self._call(place)
                return

    def _call(self, place: _Place, *, in_time: bool = True) -> None:
        self._places.remove(place)
        if not place.turn.done():
            place.turn.set_result(in_time)

    async def _call_in_time(self) -> None:
        while self._places:
            self._earlier.clear()
            first = min(self._places, key=lambda place: place.due)
            now = self._clock.now()
            left = first.due - now
            if left <= 0:
                in_time = first.end_time > now
                self._call(first, in_time=in_time)
                if in_time:
                    await self._clock.asleep(SPACING)
                continue
            await asleep_unless(self._earlier, clock=self._clock, seconds=left)


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SlotQueue]] = WeakKeyDictionary()


def slots_of(account: str) -> SlotQueue:
    """Return the one queue of this event loop for an account.

    Args:
        account: Distinguishes accounts, such as the connection id.
    """
    queues = _queues.setdefault(asyncio.get_running_loop(), {})
    return queues.setdefault(account, SlotQueue())
