# SPDX-License-Identifier: Apache-2.0
"""One job: what was ordered, its timeline, and what of its credits is open."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ugen_provider.emulator.world.pipeline import COMPLETED, ENDED, Outcome, Phase, Plan, Timeline, at
from ugen_provider.emulator.world.spec import COMPLETE, JobSpec


class View(NamedTuple):
    """A rendered answer and until when it is right."""

    version: int
    until: float
    content: bytes


@dataclass(slots=True, eq=False, kw_only=True)
class EmulatedJob:
    """A job. `params` are the effective parameters; what is computed from the rest is kept in the last fields."""

    id: str
    tenant: str
    number: int
    key: str
    identity: str
    effective: str
    sent: str
    created_at: float
    params: dict[str, Any]
    stop: int | None
    reserved: int
    first: int = 0
    consumed: int = 0
    timeline: Timeline = ()
    outcomes: list[Outcome] = field(default_factory=list)
    applied: int = 0
    """Index of the last phase whose effects (credits, webhooks) are booked."""

    spec: JobSpec
    due: float | None = None
    plans: dict[int, Plan] = field(default_factory=dict)
    view: View | None = None
    brief: View | None = None

    @property
    def run(self) -> int:
        """Number of the latest run."""
        return len(self.outcomes) - 1

    def phase(self, now: float) -> Phase:
        """Return where the job is at a time."""
        return self.timeline[max(0, at(self.timeline, now))]

    def finished(self, phase: Phase) -> bool:
        """Return whether a phase comes with a final video: it went to the end, and no outcome took the video away."""
        return phase.status == COMPLETED and phase.stage == COMPLETE and not self.outcomes[phase.run].no_video

    def next_change(self) -> Phase | None:
        """Return the next phase of another status than the one that is booked; `None` when nothing more happens."""
        status = self.timeline[self.applied].status
        for phase in self.timeline[self.applied + 1 :]:
            if phase.status != status:
                return phase
        return None

    @property
    def ended(self) -> bool:
        """Whether its booked status is an end."""
        return self.timeline[self.applied].status in ENDED

    def record(self) -> dict[str, Any]:
        """Return the job in its stored form."""
        return {
            "id": self.id,
            "tenant": self.tenant,
            "number": self.number,
            "key": self.key,
            "identity": self.identity,
            "effective": self.effective,
            "sent": self.sent,
            "created_at": self.created_at,
            "params": self.params,
            "stop": self.stop,
            "reserved": self.reserved,
            "first": self.first,
            "consumed": self.consumed,
            "timeline": self.timeline,
            "outcomes": self.outcomes,
            "applied": self.applied,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "EmulatedJob":
        """Read a job as it was stored."""
        return cls(
            **{
                **record,
                "timeline": tuple(Phase(*phase) for phase in record["timeline"]),
                "outcomes": [Outcome(**outcome) for outcome in record["outcomes"]],
                "spec": JobSpec.of(record["params"]),
            }
        )
