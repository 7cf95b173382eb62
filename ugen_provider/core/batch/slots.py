# SPDX-License-Identifier: Apache-2.0
"""How many jobs may be under way at once: what the user allows, and what the account turns out to allow."""

from __future__ import annotations

_FIRST = 8


class Slots:
    """Begins small, doubles while all is well, falls to what was there when the account says 429, then creeps up.

    Args:
        most: What the user allows.

    Examples:
        >>> slots = Slots(100)
        >>> slots.limited(in_flight=3, now=0.0, pause=30.0)
        >>> slots.free(in_flight=2, now=10.0), slots.free(in_flight=2, now=31.0)
        (0, 1)
    """

    __slots__ = ("_grow_by", "_most", "_paused_until", "limit")

    def __init__(self, most: int) -> None:
        self._most = most
        self._grow_by = 1.0
        self._paused_until = float("-inf")
        self.limit: float = min(_FIRST, most)

    def free(self, *, in_flight: int, now: float) -> int:
        """How many more may begin now."""
        return 0 if now < self._paused_until else max(0, int(self.limit) - in_flight)

    def pause(self, *, now: float) -> float:
        """Seconds until any may begin again."""
        return max(0.0, self._paused_until - now)

    def accepted(self) -> None:
        """A job was accepted."""
        self.limit = min(float(self._most), self.limit + self._grow_by)

    def limited(self, *, in_flight: int, now: float, pause: float) -> None:
        """The account takes no more: with `in_flight` others under way there was no free place.

        Args:
            in_flight: Jobs that are under way.
            now: Seconds since the epoch.
            pause: Seconds that the service asks to wait.
        """
        self.limit = float(max(1, min(int(self.limit), in_flight)))
        self._grow_by = 1.0 / max(8.0, 4.0 * self.limit)
        self._paused_until = max(self._paused_until, now + pause)
