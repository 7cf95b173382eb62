# SPDX-License-Identifier: Apache-2.0
"""A job's life as a list of phases, each with the moment at which it begins, past and future alike.

The state at a time is the last phase that has begun. Pause, resume, cancel and retry keep what has begun and write
the future anew; no task runs for a job.
"""

from typing import NamedTuple

from ugen_provider.emulator.world.pipeline import Plan
from ugen_provider.emulator.world.stages import COMPLETE, PREPARE, STAGES

PENDING, PROCESSING, PAUSED = "pending", "processing", "paused"
COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"
ENDED = frozenset({COMPLETED, FAILED, CANCELLED})
RUNNING = frozenset({PENDING, PROCESSING})
REVIEW = "awaiting_review"
SLACK = 0.0005
"""Durations are whole milliseconds; adding them to an epoch loses up to a quarter of a microsecond."""


class Phase(NamedTuple):
    """From `start` on, until the next phase begins."""

    start: float
    status: str
    stage: int
    run: int


Timeline = tuple[Phase, ...]


def at(timeline: Timeline, now: float) -> int:
    """Return the index of the phase at a time; -1 before the job existed."""
    for place in range(len(timeline) - 1, -1, -1):
        if timeline[place].start <= now:
            return place
    return -1


def schedule(
    plan: Plan,
    *,
    start: float,
    run: int,
    first: int,
    stop: int | None = None,
    stop_status: str = PAUSED,
    queue: bool = True,
    review: float = 0.0,
) -> Timeline:
    """Lay out a run from stage `first` on.

    Args:
        plan: What the run does.
        start: When it is asked for.
        run: Its number within the job, 0 for the first.
        first: Stage it begins with.
        stop: Stage after which it halts; `None` to go to the end.
        stop_status: What it is then.
        queue: Whether it waits in `pending` first.
        review: Seconds of an undocumented status before each stage.
    """
    phases: list[Phase] = []
    moment = start
    if queue:
        phases.append(Phase(moment, PENDING, first, run))
        moment = start + plan.queue
    for stage in range(first, len(STAGES)):
        if review and stage > PREPARE:
            phases.append(Phase(moment, REVIEW, stage, run))
            moment += review
        phases.append(Phase(moment, PROCESSING, stage, run))
        if plan.failure is not None and plan.failure.stage == stage:
            phases.append(Phase(moment + plan.failure.after, FAILED, stage, run))
            return tuple(phases)
        moment += plan.stages[stage]
        if stage == stop and stage != COMPLETE:
            phases.append(Phase(moment, stop_status, stage, run))
            return tuple(phases)
    phases.append(Phase(moment, COMPLETED, COMPLETE, run))
    return tuple(phases)


def pause(timeline: Timeline, now: float) -> Timeline:
    """Stop after the stage that runs now; a job in its last stage, or failing in this one, is not held up."""
    place = at(timeline, now)
    current = timeline[place]
    for later in timeline[place + 1 :]:
        if later.status in ENDED or later.status == PAUSED:
            return timeline
        if later.stage != current.stage:
            kept = timeline[: timeline.index(later)]
            return (*kept, Phase(later.start, PAUSED, current.stage, current.run))
    return timeline


def cancel(timeline: Timeline, now: float) -> Timeline:
    """End the job now, where it stands."""
    place = at(timeline, now)
    current = timeline[place]
    return (*timeline[: place + 1], Phase(now, CANCELLED, current.stage, current.run))


def resume(timeline: Timeline, now: float, plan: Plan, *, queue: bool, review: float = 0.0) -> Timeline:
    """Go on with the stage after the one that a paused job had finished."""
    place = at(timeline, now)
    current = timeline[place]
    rest = schedule(plan, start=now, run=current.run, first=current.stage + 1, queue=queue, review=review)
    return (*timeline[: place + 1], *rest)


def retry(
    timeline: Timeline, now: float, plan: Plan, *, run: int, first: int, queue: bool, review: float = 0.0
) -> Timeline:
    """Begin another run at stage `first`."""
    place = at(timeline, now)
    rest = schedule(plan, start=now, run=run, first=first, queue=queue, review=review)
    return (*timeline[: place + 1], *rest)


def stage_span(timeline: Timeline, now: float, stage: int) -> tuple[Phase, float] | None:
    """Return the phase in which a stage was last worked on, and the seconds spent in it.

    `None` if it has yet to be done: a later run that begins before this stage makes void what was made.
    """
    end = now
    for place in range(at(timeline, now), -1, -1):
        phase = timeline[place]
        if phase.stage < stage or (phase.stage == stage and phase.status in (PENDING, REVIEW)):
            return None
        if phase.stage == stage and phase.status == PROCESSING:
            return phase, end - phase.start + SLACK
        end = phase.start
    return None
