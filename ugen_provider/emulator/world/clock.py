# SPDX-License-Identifier: Apache-2.0
"""The one clock. Nothing else in the emulator reads the time."""

import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

MANUAL_START = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
"""Where a manual clock begins, so that two runs show the same timestamps and no test crosses midnight by accident."""


class EmulatedClock:
    """Seconds since the epoch, running at `speed` times real time; at speed 0 it moves only by `advance`.

    Args:
        speed: Emulated seconds a real second; 1 is real time, 0 is by hand.
        start: Where it begins; `None` is now, or `MANUAL_START` at speed 0.
        tick: Seconds that each API request moves it, so that a poller makes progress without anybody advancing.
    """

    def __init__(self, speed: float = 1.0, *, start: float | None = None, tick: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._listeners: set[Callable[[], object]] = set()
        self._start = start
        self.reset(speed=speed, tick=tick)

    def reset(self, *, speed: float, tick: float = 0.0, start: float | None = None) -> None:
        """Begin again, at `start` or where it began before."""
        if not (math.isfinite(speed) and speed >= 0):
            raise ValueError(f"a clock's speed is 0 (by hand) or more, not {speed}")
        begin = self._start if start is None else start
        if begin is None:
            begin = MANUAL_START if speed == 0 else time.time()
        with self._lock:
            self.speed = speed
            self.tick = tick
            self._base = begin
            self._anchor = time.monotonic()
        self._notify()

    def set_speed(self, speed: float) -> None:
        """Continue from the present moment at another speed."""
        if not (math.isfinite(speed) and speed >= 0):
            raise ValueError(f"a clock's speed is 0 (by hand) or more, not {speed}")
        with self._lock:
            self._base = self._now()
            self._anchor = time.monotonic()
            self.speed = speed
        self._notify()

    @property
    def mode(self) -> str:
        """Kind of the clock: `real`, `scaled` or `manual`."""
        return {0.0: "manual", 1.0: "real"}.get(self.speed, "scaled")

    def _now(self) -> float:
        if self.speed == 0:
            return self._base
        return self._base + (time.monotonic() - self._anchor) * self.speed

    def now(self) -> float:
        """Return the emulated time in seconds since the epoch."""
        return self._now()

    def advance(self, seconds: float) -> float:
        """Move the clock forward, at any speed, and return the new time.

        Raises:
            ValueError: A negative or endless number of seconds.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a clock moves forward by a finite number of seconds, not by {seconds}")
        with self._lock:
            self._base += seconds
            now = self._now()
        self._notify()
        return now

    def catch_up_to(self, moment: float) -> None:
        """Move forward to `moment` unless it has passed: a restart never goes back behind what was written."""
        with self._lock:
            self._base += max(0.0, moment - self._now())
        self._notify()

    def report(self, *, patience: float | None) -> str | None:
        """Return what clients are told about the clock, so that they wait no longer than needed; None in real time.

        Args:
            patience: Seconds that a client may wait for a stopped clock.
        """
        if self.tick:
            return "requests"
        if self.speed == 0:
            return f"stopped={self._now():.6f}" + (f"; patience={patience:g}" if patience is not None else "")
        return f"speed={self.speed:g}" if self.speed != 1 else None

    def wall_delay(self, moment: float) -> float | None:
        """Return the real seconds until `moment`; `None` if only `advance` can bring it."""
        left = moment - self._now()
        if left <= 0:
            return 0.0
        return left / self.speed if self.speed else None

    def for_clients(self, seconds: float) -> int:
        """Return a duration as a client in real time has to wait it, in whole seconds, at least 1."""
        return max(1, math.ceil(seconds / (self.speed or 1.0)))

    def stamp(self) -> float:
        """Return the time to sign with: real time, since the receiver checks a signature's age by it."""
        return time.time()

    def listen(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` whenever the clock jumps; returns how to stop that."""
        self._listeners.add(callback)
        return lambda: self._listeners.discard(callback)

    def _notify(self) -> None:
        for callback in tuple(self._listeners):
            callback()


def iso(moment: float, *, form: str = "micros") -> str:
    """Write a time as ISO 8601 in UTC.

    Args:
        moment: Seconds since the epoch.
        form: `micros`, `seconds`, or `offset` (with `+00:00` for `Z`).
    """
    at = datetime.fromtimestamp(int(moment) if form == "seconds" else moment, tz=UTC)
    text = at.isoformat()
    return text if form == "offset" else text.replace("+00:00", "Z")
