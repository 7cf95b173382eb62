# SPDX-License-Identifier: Apache-2.0
"""How many jobs an account may have at once, and order in a day."""

from collections.abc import Callable

from ugen_provider.emulator.world.accounts import Tenant
from ugen_provider.emulator.world.clock import Clock
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.refusals import Refusal
from ugen_provider.emulator.world.timeline import PAUSED, PENDING, PROCESSING, REVIEW

DAY = 86_400
_RUNNING = (PENDING, PROCESSING, REVIEW)


class Limits:
    """The limits of all accounts.

    Args:
        clock: Whose days count.
        readings: Whether a paused job holds a slot.
    """

    def __init__(self, clock: Clock, readings: Callable[[], Readings]) -> None:
        self._clock = clock
        self._readings = readings
        self._days: dict[tuple[str, int], int] = {}

    def count(self, tenant: str, at: float) -> None:
        """Count a job that was created."""
        day = (tenant, int(at // DAY))
        self._days[day] = self._days.get(day, 0) + 1

    def active(self, tenant: Tenant) -> int:
        """Return how many jobs of a tenant count as concurrent."""
        held = (PAUSED,) if self._readings().paused_holds_slot == "yes" else ()
        return tenant.index.count(*_RUNNING, *held)

    def check(self, tenant: Tenant, now: float, *, new: bool) -> None:
        """Refuse a job that is too many.

        Args:
            tenant: Whose.
            now: The time.
            new: Whether it counts for the day; a retry does not, it only needs a slot.

        Raises:
            Refusal: 429, with when to ask again.
        """
        limits = tenant.settings
        if new and limits.daily_jobs is not None:
            day = int(now // DAY)
            if self._days.get((tenant.name, day), 0) >= limits.daily_jobs:
                wait = self._clock.for_clients((day + 1) * DAY - now)
                raise Refusal(429, "DAILY_LIMIT", "The account's daily job limit is reached", retry_after=wait)
        if limits.concurrent_jobs is not None and self.active(tenant) >= limits.concurrent_jobs:
            raise Refusal(
                429,
                "CONCURRENCY_LIMIT",
                "The account's limit of concurrent jobs is reached",
                retry_after=self._clock.for_clients(self._until_free(tenant, now)),
            )

    def _until_free(self, tenant: Tenant, now: float) -> float:
        ends = [
            tenant.index.jobs[number].timeline[-1].start
            for status in _RUNNING
            for number in tenant.index.numbers(status)
        ]
        return max(1.0, min(ends, default=now + 30.0) - now)
