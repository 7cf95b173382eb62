# SPDX-License-Identifier: Apache-2.0
"""The clock that a client and a watcher live by. Tests give them one that is moved by hand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio


class Clock(Protocol):
    """Time of day, a steady tick, and waiting."""

    def now(self) -> float:
        """Seconds since the epoch; may be set back."""
        ...

    def tick(self) -> float:
        """Seconds of a clock that is never set back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block for some seconds."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Wait for some seconds, letting others run."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def tick(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block for some seconds."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Wait for some seconds, letting others run."""
        import anyio

        await anyio.sleep(seconds)


async def asleep_unless(event: asyncio.Event, *, clock: Clock, seconds: float) -> None:
    """Wait for some seconds, or until an event is set; what the other of the two began is ended.

    Args:
        event: Ends it early.
        clock: The clock to live by.
        seconds: How long at most; infinite for the event alone.
    """
    import asyncio

    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait())]
    if seconds != float("inf"):
        waits.append(asyncio.ensure_future(clock.asleep(seconds)))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
