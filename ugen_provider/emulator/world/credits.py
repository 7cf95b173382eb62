# SPDX-License-Identifier: Apache-2.0
"""The credits of a tenant: balance, reservations, and a row for everything that moved them."""

import hashlib
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from ugen_provider.emulator.settings import Prices
from ugen_provider.emulator.world.pipeline import Plan
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.spec import AUDIO, CAPTIONS, CONCAT, GENERATION, INIT, STAGES, JobSpec


class NotEnoughCreditsError(Exception):
    """A reservation that the available credits do not cover."""

    def __init__(self, required: int, available: int) -> None:
        super().__init__(f"{required} credits required, {available} available")
        self.required = required
        self.available = available


class Row(NamedTuple):
    """A transaction. A tuple, since there are many and the garbage collector passes over tuples of plain values."""

    id: str
    tenant: str
    number: int
    type: str
    amount: int
    job_id: str | None
    description: str
    balance_before: int
    balance_after: int
    at: float


class TenantCredits:
    """The credits of one tenant: balance and reservations.

    Args:
        tenant: Whose.
        readings: Asked at each entry, since switches can change while it runs.
        written: Called with each new row.
    """

    def __init__(self, tenant: str, readings: Callable[[], Readings], written: Callable[[Row], None]) -> None:
        self.tenant = tenant
        self.balance = 0
        self.reserved = 0
        self.rows: list[Row] = []
        self._readings = readings
        self._written = written
        self._by_job: dict[str, list[int]] = {}

    @property
    def available(self) -> int:
        """Return what can be reserved."""
        return self.balance - self.reserved

    def grant(self, kind: str, amount: int, at: float, description: str) -> None:
        """Add credits: a `purchase`, `refund` or `bonus`."""
        self._enter(kind, amount, None, at, description, balance=amount)

    def reserve(self, amount: int, job_id: str, at: float) -> None:
        """Set credits aside for a job.

        Raises:
            NotEnoughCreditsError: Fewer are available.
        """
        if amount > self.available:
            raise NotEnoughCreditsError(amount, self.available)
        self._enter("reserve", -amount, job_id, at, "Reserved for a job", reserved=amount)

    def settle(self, reserved: int, consumed: int, job_id: str, at: float) -> None:
        """Close a reservation: `consumed` of it is used, the rest becomes available again."""
        if self._readings().settle_rows == "whole":
            self._enter("release", reserved, job_id, at, "Reservation released", reserved=-reserved)
            if consumed:
                self._enter("consume", -consumed, job_id, at, "Used by the job", balance=-consumed)
            return
        if consumed:
            self._enter("consume", -consumed, job_id, at, "Used by the job", balance=-consumed, reserved=-consumed)
        if reserved > consumed:
            rest = reserved - consumed
            self._enter("release", rest, job_id, at, "Reservation released", reserved=-rest)

    def of_job(self, job_id: str) -> list[Row]:
        """Return the rows of one job, oldest first."""
        return [self.rows[place] for place in self._by_job.get(job_id, [])]

    def load(self, row: Row) -> None:
        """Take a row that was stored before, in order."""
        if row.job_id is not None:
            self._by_job.setdefault(row.job_id, []).append(len(self.rows))
        self.rows.append(row)

    def state(self) -> dict[str, Any]:
        """Return the sums in their stored form."""
        return {"balance": self.balance, "reserved": self.reserved}

    def _enter(
        self,
        kind: str,
        amount: int,
        job_id: str | None,
        at: float,
        description: str,
        *,
        balance: int = 0,
        reserved: int = 0,
    ) -> None:
        counts_available = self._readings().transaction_balance == "available"
        before = self.available if counts_available else self.balance
        self.balance += balance
        self.reserved += reserved
        after = self.available if counts_available else self.balance
        number = len(self.rows)
        digest = hashlib.sha256(f"{self.tenant}/{number}".encode()).digest()[:16]
        row = Row(
            str(uuid.UUID(bytes=digest, version=4)),
            self.tenant,
            number,
            kind,
            amount,
            job_id,
            description,
            before,
            after,
            at,
        )
        self.load(row)
        self._written(row)


def segment_cost(spec: JobSpec, prices: Prices) -> int:
    """Return the credits of one segment: flat for Veo, by the second for Kling."""
    if spec.model in prices.per_second:
        return prices.per_second[spec.model] * spec.segment_duration
    return prices.per_segment[spec.model]


def voice_cost(spec: JobSpec, prices: Prices, *, persona_voice: bool) -> int:
    """Return the credits of the voice-over."""
    if spec.own_voice:
        return prices.own_voice
    return prices.persona_voice if persona_voice else 0


def breakdown(spec: JobSpec, prices: Prices, *, persona_voice: bool) -> dict[str, int]:
    """Return the credits of each component of a whole job; their sum is what is reserved."""
    buffer = (spec.keyframe_attempts - 1) * prices.keyframe * (spec.segments + 1)
    buffer += (spec.video_attempts - 1) * segment_cost(spec, prices) * spec.segments
    return {
        "video": segment_cost(spec, prices) * spec.segments,
        "keyframes": prices.keyframe * (spec.segments + 1),
        "voice_over": voice_cost(spec, prices, persona_voice=persona_voice),
        "music": prices.music if spec.music else 0,
        "captions": prices.custom_captions if spec.custom_captions else 0,
        "post_processing": prices.post_processing,
        "qa_buffer": buffer,
    }


def by_stage(spec: JobSpec, prices: Prices, *, persona_voice: bool) -> list[int]:
    """Return the credits of each stage without any retry of quality assurance."""
    costs = [0] * len(STAGES)
    costs[INIT] = prices.keyframe
    costs[GENERATION] = (prices.keyframe + segment_cost(spec, prices)) * spec.segments
    costs[CONCAT] = prices.post_processing
    costs[AUDIO] = voice_cost(spec, prices, persona_voice=persona_voice) + (prices.music if spec.music else 0)
    costs[CAPTIONS] = prices.custom_captions if spec.custom_captions else 0
    return costs


def reservation(spec: JobSpec, prices: Prices, *, persona_voice: bool, first: int) -> int:
    """Return the most that a run from stage `first` on can cost, which is what it reserves."""
    total = sum(by_stage(spec, prices, persona_voice=persona_voice)[first:])
    keyframe_retries = spec.keyframe_attempts - 1
    if first <= INIT:
        total += keyframe_retries * prices.keyframe
    if first <= GENERATION:
        total += keyframe_retries * prices.keyframe * spec.segments
        total += (spec.video_attempts - 1) * segment_cost(spec, prices) * spec.segments
    return total


def actual(spec: JobSpec, prices: Prices, plan: Plan, *, persona_voice: bool, first: int, last: int) -> int:
    """Return what the stages `first` to `last` of a run really cost, with the retries that it took."""
    total = sum(by_stage(spec, prices, persona_voice=persona_voice)[first : last + 1])
    if first <= INIT <= last:
        total += (len(plan.keyframes[0]) - 1) * prices.keyframe
    if first <= GENERATION <= last:
        total += sum(len(item) - 1 for item in plan.keyframes[1:]) * prices.keyframe
        total += sum(len(item) - 1 for item in plan.segments) * segment_cost(spec, prices)
    return total
