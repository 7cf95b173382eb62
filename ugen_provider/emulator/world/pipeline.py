# SPDX-License-Identifier: Apache-2.0
"""A run of the pipeline, planned whole from a seed before it begins. Nothing here knows what time it is."""

import random
from typing import NamedTuple

from ugen_provider.emulator.settings import Pace, Quality
from ugen_provider.emulator.world.outcomes import Outcome
from ugen_provider.emulator.world.spec import JobSpec
from ugen_provider.emulator.world.stages import CAPTIONS, GENERATION, INIT, STAGES

_INSTANT = ("PHONE_DETECTED", "MODE_VIOLATION")
_IMAGE_FAULTS = ("PRODUCT_INTEGRITY", "CRITICAL_DEFECT", "VISUAL_ARTIFACT", "BELOW_THRESHOLD")
_VIDEO_FAULTS = ("MOTION_ARTIFACT", "TEMPORAL_INCONSISTENCY", "PRODUCT_INTEGRITY", "BELOW_THRESHOLD")


class Attempt(NamedTuple):
    """One try at a keyframe or segment; times in seconds from the start of its stage."""

    start: float
    end: float
    score: float | None
    category: str | None

    @property
    def passed(self) -> bool:
        """Whether quality assurance let it through, or is off."""
        return self.category is None


class Failure(NamedTuple):
    """Where a run ends badly; `after` in seconds from the start of the stage."""

    stage: int
    after: float
    message: str


class Plan(NamedTuple):
    """A whole run: how long each stage takes, and every attempt in it.

    `items[0]` is the anchor keyframe of `init`; then come the other keyframes and, from `first_segment` on, the
    segments, which belong to `generation`.
    """

    queue: float
    stages: tuple[float, ...]
    keyframes: tuple[tuple[Attempt, ...], ...]
    segments: tuple[tuple[Attempt, ...], ...]
    failure: Failure | None


def best(attempts: tuple[Attempt, ...]) -> int:
    """Return the index of the attempt that is kept: the one that passed, else the best score."""
    for place, attempt in enumerate(attempts):
        if attempt.passed:
            return place
    return max(range(len(attempts)), key=lambda place: attempts[place].score or 0.0)


def plan(spec: JobSpec, *, seed: str, pace: Pace, quality: Quality, outcome: Outcome) -> Plan:
    """Plan a run.

    Args:
        spec: What was ordered.
        seed: Text that decides everything drawn; the same text gives the same plan.
        pace: Durations to draw from.
        quality: Scores to draw from.
        outcome: What shall go wrong.
    """
    draw = _Draw(spec, random.Random(seed), quality, outcome)
    queue = draw.duration(pace.queue)
    stages = [draw.duration(getattr(pace, name)) for name in STAGES if name not in ("init", "generation")]
    stages[INIT:INIT] = [0.0, 0.0]
    if not spec.captions:
        stages[CAPTIONS] = 0.0

    anchor = draw.keyframe(0, 0.0, pace)
    stages[INIT] = anchor[-1].end
    keyframes = [anchor]
    ready = [0.0]
    for index in range(1, spec.segments + 1):
        keyframes.append(draw.keyframe(index, ready[-1], pace))
        ready.append(keyframes[-1][-1].end)
    # Segment i needs keyframes i and i+1; it starts while later keyframes are still being made.
    segments = [draw.segment(index, ready[index + 1], pace) for index in range(spec.segments)]
    stages[GENERATION] = max(item[-1].end for item in (*keyframes[1:], *segments))

    failure = _quality_failure(spec, keyframes, segments)
    if outcome.fail_at is not None:
        stage = STAGES.index(outcome.fail_at)
        if failure is None or failure.stage >= stage:
            failure = Failure(stage, stages[stage] * 0.8, outcome.message)
    return Plan(queue, tuple(stages), tuple(keyframes), tuple(segments), failure)


def _quality_failure(
    spec: JobSpec, keyframes: list[tuple[Attempt, ...]], segments: list[tuple[Attempt, ...]]
) -> Failure | None:
    if spec.accept_best:
        return None
    bad = [
        Failure(
            INIT if kind == "Keyframe" and not index else GENERATION,
            item[-1].end,
            _verdict(kind, index, item, spec),
        )
        for kind, items in (("Keyframe", keyframes), ("Segment", segments))
        for index, item in enumerate(items)
        if not any(attempt.passed for attempt in item)
    ]
    return min(bad, default=None)


def _verdict(kind: str, index: int, item: tuple[Attempt, ...], spec: JobSpec) -> str:
    kept = item[best(item)]
    return (
        f"{kind} {index} did not pass quality assurance after {len(item)} attempt(s): "
        f"{kept.category}, best score {kept.score:.2f}, threshold {spec.threshold:.2f}"
    )


class _Draw:
    """The seeded draws of one run, each in a fixed order."""

    def __init__(self, spec: JobSpec, source: random.Random, quality: Quality, outcome: Outcome) -> None:
        self._spec = spec
        self._source = source
        self._quality = quality
        self._outcome = outcome

    def duration(self, bounds: tuple[float, float]) -> float:
        # In whole milliseconds, so that sums of them stay the same numbers wherever they are stored.
        return round(self._source.uniform(*bounds) * self._outcome.slow, 3)

    def keyframe(self, index: int, start: float, pace: Pace) -> tuple[Attempt, ...]:
        return self._item(index, start, pace.keyframe, self._spec.keyframe_attempts, _IMAGE_FAULTS)

    def segment(self, index: int, start: float, pace: Pace) -> tuple[Attempt, ...]:
        return self._item(index, start, pace.segment, self._spec.video_attempts, _VIDEO_FAULTS)

    def _item(
        self, index: int, start: float, bounds: tuple[float, float], most: int, faults: tuple[str, ...]
    ) -> tuple[Attempt, ...]:
        attempts: list[Attempt] = []
        for _ in range(most):
            end = round(start + self.duration(bounds), 3)
            attempts.append(Attempt(start, end, *self._judge(index, faults)))
            start = end
            if attempts[-1].passed:
                break
        return tuple(attempts)

    def _judge(self, index: int, faults: tuple[str, ...]) -> tuple[float | None, str | None]:
        score = round(min(0.99, max(0.01, self._source.gauss(self._quality.mean, self._quality.deviation))), 2)
        instant = self._source.random() < self._quality.instant_fails
        kind = self._source.choice(_INSTANT if instant else faults)
        if not self._spec.qai:
            return None, None
        rule = self._outcome
        if rule.index is None or rule.index == index:
            score = score if rule.score is None else rule.score
            if rule.category is not None:
                return score, rule.category
        if instant or score < self._spec.threshold:
            return score, kind
        return score, None
