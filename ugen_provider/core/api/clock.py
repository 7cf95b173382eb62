# SPDX-License-Identifier: Apache-2.0
"""The clock that a client and a watcher live by. Tests give them one that is moved by hand."""

from __future__ import annotations

import time
from typing import Protocol


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
