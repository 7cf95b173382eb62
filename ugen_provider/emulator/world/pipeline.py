# SPDX-License-Identifier: Apache-2.0
"""A run of the pipeline, planned whole from a seed before it begins. Nothing here knows what time it is.

A job is made to go wrong on purpose by a rule from `/_emulator/outcomes`, or by a tag in the product's name: `#ugen:`
and then words joined by colons, anywhere in `product_name`, for clients without access to the admin endpoints, such as
`#ugen:fail:generation:moderation`, `#ugen:score:0.42`, `#ugen:slow:10`, `#ugen:phone`.
"""

import fnmatch
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ugen_provider.emulator.settings import Pace, Quality
from ugen_provider.emulator.world.spec import CAPTIONS, COMPLETE, GENERATION, INIT, PREPARE, STAGES, JobSpec

MESSAGES = {
    "moderation": "Content moderation: the product image or text was rejected by the safety filter",
    "validation": "Validation: the product image could not be read as a picture of a product",
    "transient": "The video model did not answer (503); the stage was given up after its retries",
}
_TEXTS = ("product_name", "error_message", "category")
_TAG = re.compile(r"#ugen:([\w.:-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Forced result of the jobs that match.

    Attributes:
        product_name: Shell pattern for the product's name; `*` is any.
        fail_at: Stage at which the job fails, or `None`.
        kind: `moderation`, `validation` or `transient`: picks the message.
        error_message: Message in the place of the kind's own.
        score: Quality score of every attempt, or of the item at `index` alone.
        category: Fail category of those attempts, such as `PHONE_DETECTED`.
        index: Keyframe and segment that `score` and `category` are for; `None` for all.
        slow: Factor on every duration.
        no_video: The job completes, and there is no final video.
        refusals: How often a human review refuses the work of each stage that it judges.
        times: How many runs (creates and retries) it still applies to; `None` for every one.
    """

    product_name: str = "*"
    fail_at: str | None = None
    kind: str = "transient"
    error_message: str | None = None
    score: float | None = None
    category: str | None = None
    index: int | None = None
    slow: float = 1.0
    no_video: bool = False
    refusals: int = 0
    times: int | None = 1

    @property
    def message(self) -> str:
        """The error message of a job that fails by this rule."""
        return self.error_message or MESSAGES[self.kind]


NOTHING = Outcome(times=None)


def parse(data: Mapping[str, Any]) -> Outcome:
    """Read a rule from JSON.

    Raises:
        ValueError: An unknown field, stage or kind, or a value of the wrong sort.
    """
    known = set(Outcome.__dataclass_fields__)
    if unknown := set(data) - known:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; an outcome has {', '.join(sorted(known))}")
    rule = Outcome(**data)
    if rule.fail_at is not None and rule.fail_at not in STAGES:
        raise ValueError(f"fail_at is one of {', '.join(STAGES)}, not {rule.fail_at!r}")
    if rule.kind not in MESSAGES:
        raise ValueError(f"kind is one of {', '.join(MESSAGES)}, not {rule.kind!r}")
    for name, least, most in (("score", 0.0, 1.0), ("slow", 0.0, 1e6), ("times", 1, 1e9), ("index", 0, 10)):
        value = getattr(rule, name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError(f"{name} is a number from {least} to {most:g}, not {value!r}")
    if isinstance(rule.refusals, bool) or not isinstance(rule.refusals, int) or not 0 <= rule.refusals <= 1000:
        raise ValueError(f"refusals is a whole number from 0 to 1000, not {rule.refusals!r}")
    if not isinstance(rule.no_video, bool):
        raise ValueError("no_video is true or false")  # noqa: TRY004 - the caller reports errors in the JSON
    if wrong := [name for name in _TEXTS if not isinstance(getattr(rule, name), str | None)]:
        raise ValueError(f"{', '.join(wrong)} must be text")
    return rule


def from_tag(product_name: str) -> Outcome | None:
    """Read a `#ugen:` tag; `None` without one, or if it makes no sense."""
    found = _TAG.search(product_name)
    if not found:
        return None
    match found[1].rstrip(".:-").split(":"):
        case ["fail", stage, kind]:
            data: dict[str, Any] = {"fail_at": stage, "kind": kind}
        case ["fail", stage]:
            data = {"fail_at": stage}
        case ["score", score]:
            data = {"score": _number(score)}
        case ["slow", factor]:
            data = {"slow": _number(factor)}
        case ["phone"]:
            data = {"category": "PHONE_DETECTED"}
        case _:
            return None
    try:
        return parse({**data, "times": None})
    except ValueError:
        return None


def choose(rules: list[Outcome], product_name: str) -> Outcome:
    """Return what happens to the next run of a product's job, and use up one of its rule's `times`."""
    for place, rule in enumerate(rules):
        if not fnmatch.fnmatchcase(product_name, rule.product_name):
            continue
        if rule.times is not None:
            if rule.times <= 1:
                del rules[place]
            else:
                rules[place] = replace(rule, times=rule.times - 1)
        return rule
    return from_tag(product_name) or NOTHING


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return -1.0


_INSTANT = ("PHONE_DETECTED", "MODE_VIOLATION")
_IMAGE_FAULTS = ("PRODUCT_INTEGRITY", "CRITICAL_DEFECT", "VISUAL_ARTIFACT", "BELOW_THRESHOLD")
_VIDEO_FAULTS = ("MOTION_ARTIFACT", "TEMPORAL_INCONSISTENCY", "PRODUCT_INTEGRITY", "BELOW_THRESHOLD")


class StageAttempt(NamedTuple):
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
    keyframes: tuple[tuple[StageAttempt, ...], ...]
    segments: tuple[tuple[StageAttempt, ...], ...]
    failure: Failure | None


def best(attempts: tuple[StageAttempt, ...]) -> int:
    """Return the index of the attempt that is kept: the one that passed, else the best score."""
    for place, attempt in enumerate(attempts):
        if attempt.passed:
            return place
    return max(range(len(attempts)), key=lambda place: attempts[place].score or 0.0)


def plan(spec: JobSpec, *, seed: str, pace: Pace, quality: Quality, outcome: Outcome) -> Plan:
    """Plan the stages of a run and their times.

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
    spec: JobSpec, keyframes: list[tuple[StageAttempt, ...]], segments: list[tuple[StageAttempt, ...]]
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


def _verdict(kind: str, index: int, item: tuple[StageAttempt, ...], spec: JobSpec) -> str:
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

    def keyframe(self, index: int, start: float, pace: Pace) -> tuple[StageAttempt, ...]:
        return self._item(index, start, pace.keyframe, self._spec.keyframe_attempts, _IMAGE_FAULTS)

    def segment(self, index: int, start: float, pace: Pace) -> tuple[StageAttempt, ...]:
        return self._item(index, start, pace.segment, self._spec.video_attempts, _VIDEO_FAULTS)

    def _item(
        self, index: int, start: float, bounds: tuple[float, float], most: int, faults: tuple[str, ...]
    ) -> tuple[StageAttempt, ...]:
        attempts: list[StageAttempt] = []
        for _ in range(most):
            end = round(start + self.duration(bounds), 3)
            attempts.append(StageAttempt(start, end, *self._judge(index, faults)))
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


REVIEWED: Mapping[str, tuple[int, ...]] = {"keyframes": (INIT,), "videos": (GENERATION,), "all": (INIT, GENERATION)}
"""Stages that each mode of `human_review` lets a person judge. The modes are invented: no page names one but `off`."""

REVIEW_TAKES = 30.0
"""Seconds that a reviewer takes."""


class HumanReview(NamedTuple):
    """A review by people after some stages.

    Attributes:
        stages: After which stages.
        refusals: How often the reviewer refuses the work of a stage.
        most: Refusals that the request allows; each makes the stage again.
        fails: Whether the job fails once they are used up; otherwise the best work is accepted.
    """

    stages: tuple[int, ...]
    refusals: int
    most: int
    fails: bool


REFUSED = "The human review refused the work more often than human_review_max_rejections allows"


def _reviewed(phases: list[Phase], moment: float, *, stage: int, run: int, seconds: float, human: HumanReview) -> float:
    """Add the reviews after a stage and return when they end; negative where the job fails by them."""
    for refusal in range(human.refusals + 1):
        phases.append(Phase(moment, REVIEW, stage, run))
        moment += REVIEW_TAKES
        if refusal == human.refusals:
            return moment  # approved
        if refusal == human.most:
            if human.fails:
                phases.append(Phase(moment, FAILED, stage, run))
                return -1.0
            return moment  # the best is accepted
        phases.append(Phase(moment, PROCESSING, stage, run))
        moment += seconds
    return moment


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
    human: HumanReview | None = None,
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
        human: The review by people that the job asked for.
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
        if human is not None and stage in human.stages:
            moment = _reviewed(phases, moment, stage=stage, run=run, seconds=plan.stages[stage], human=human)
            if moment < 0:
                return tuple(phases)
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
    """End the job now, in its present stage."""
    place = at(timeline, now)
    current = timeline[place]
    return (*timeline[: place + 1], Phase(now, CANCELLED, current.stage, current.run))


def resume(
    timeline: Timeline,
    now: float,
    plan: Plan,
    *,
    queue: bool,
    review: float = 0.0,
    human: HumanReview | None = None,
) -> Timeline:
    """Continue with the stage after the one that a paused job had finished."""
    place = at(timeline, now)
    current = timeline[place]
    rest = schedule(plan, start=now, run=current.run, first=current.stage + 1, queue=queue, review=review, human=human)
    return (*timeline[: place + 1], *rest)


def retry(
    timeline: Timeline,
    now: float,
    plan: Plan,
    *,
    run: int,
    first: int,
    queue: bool,
    review: float = 0.0,
    human: HumanReview | None = None,
) -> Timeline:
    """Begin another run at stage `first`."""
    place = at(timeline, now)
    rest = schedule(plan, start=now, run=run, first=first, queue=queue, review=review, human=human)
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
