# SPDX-License-Identifier: Apache-2.0
"""How a job looks from outside at a moment: computed from its timeline, and kept until the next thing happens."""

import hashlib
from typing import Any, NamedTuple

from pydantic_core import to_json

from ugen_provider.emulator.world.clock import iso
from ugen_provider.emulator.world.job import Job, View
from ugen_provider.emulator.world.pipeline import Attempt, Plan, best
from ugen_provider.emulator.world.stages import GENERATION, INIT, STAGES, progress
from ugen_provider.emulator.world.timeline import (
    COMPLETED,
    ENDED,
    FAILED,
    PAUSED,
    PROCESSING,
    REVIEW,
    SLACK,
    at,
    stage_span,
)
from ugen_provider.emulator.world.world import World

_WORDS = {
    "documented": {},
    "american": {"cancelled": "canceled"},
    "upper": {word: word.upper() for word in ("pending", "processing", "paused", "completed", "failed", "cancelled")},
    "other": {"pending": "queued", "processing": "in_progress"},
}


def status_word(world: World, status: str) -> str:
    """Return a status as the readings spell it."""
    return _WORDS[world.readings.status_words].get(status, status)


def status_meant(world: World, word: str) -> str:
    """Return the status that a word of a filter means."""
    spelled = {ours: status for status, ours in _WORDS[world.readings.status_words].items()}
    return spelled.get(word, word)


def job_view(world: World, job: Job, now: float) -> bytes:
    """Return a job as `GET /jobs/{jobId}` shows it."""
    view = job.view
    if view is None or view.version != world.version or now >= view.until:
        fields = job_fields(world, job, now, full=True)
        view = job.view = View(world.version, _until(world, job, now), to_json(fields))
    return view.content


def brief_view(world: World, job: Job, now: float) -> bytes:
    """Return a job as it stands in a list."""
    if world.readings.list_items == "full":
        return job_view(world, job, now)
    view = job.brief
    if view is None or view.version != world.version or now >= view.until:
        fields = job_fields(world, job, now, full=False)
        view = job.brief = View(world.version, _until(world, job, now), to_json(fields))
    return view.content


def job_fields(world: World, job: Job, now: float, *, full: bool) -> dict[str, Any]:
    """Return a job's fields at a moment, which may lie in the past.

    Args:
        world: Switches and base URL.
        job: Which.
        now: The moment.
        full: With segments and progress, as a single job has them.
    """
    readings = world.readings
    place = max(0, at(job.timeline, now))
    phase = job.timeline[place]
    status = status_word(world, readings.extra_status if phase.status == REVIEW else phase.status)
    stage = phase.stage
    if phase.status == PAUSED and readings.paused_stage == "next":
        stage += 1
    fields: dict[str, Any] = {}
    if readings.id_field != "id":
        fields["job_id"] = job.id
    if readings.id_field != "job_id":
        fields["id"] = job.id
    fields |= {"status": status, "current_stage": STAGES[stage]}
    changed = phase.start
    if full:
        segments = segment_items(world, job, now)
        done = sum(item["status"] == "completed" for item in segments)
        percent = 100 if phase.status == COMPLETED else progress(phase.stage, done=done, segments=job.spec.segments)
        fields |= {"progress_percent": percent, "segments": segments}
        if readings.job_keyframes == "yes":
            fields["keyframes"] = keyframe_items(world, job, now)
    finished = job.finished(phase)
    ended = phase.status in ENDED
    form = readings.timestamps
    fields = {
        **fields,
        "final_video_url": world.output_url(job.id, f"final-{phase.run}.mp4", now) if finished else None,
        "thumbnail_url": world.output_url(job.id, f"thumbnail-{phase.run}.png", now) if finished else None,
        "error_message": _error(world, job, now) if phase.status == FAILED else None,
        "credits_reserved": job.reserved,
        "credits_consumed": job.consumed,
        "created_at": iso(job.created_at, form=form),
        "updated_at": iso(changed, form=form),
        "completed_at": iso(phase.start, form=form) if ended else None,
        "idempotency_key": job.key,
        **job.params,
    }
    return _without_nulls(world, fields)


def _error(world: World, job: Job, now: float) -> str | None:
    failure = world.desk.plan(job, job.phase(now).run).failure
    return failure.message if failure else None


def keyframe_items(world: World, job: Job, now: float) -> list[dict[str, Any]]:
    """Return the N+1 keyframes with their scores."""
    anchor, others = _work(world, job, now, INIT), _work(world, job, now, GENERATION)
    return [
        _item(world, job, anchor if index == 0 else others, "keyframe", index) for index in range(job.spec.segments + 1)
    ]


def segment_items(world: World, job: Job, now: float) -> list[dict[str, Any]]:
    """Return the N segments with their status."""
    work = _work(world, job, now, GENERATION)
    return [_item(world, job, work, "segment", index) for index in range(job.spec.segments)]


class _Work(NamedTuple):
    """What has been done in a stage.

    Attributes:
        now: The moment.
        going_on: Whether the job runs, so that what is begun will be finished.
        run: Which run did it last.
        spent: Seconds that were spent in the stage.
        plan: What that run does; `None` if the stage has yet to be done.
    """

    now: float
    going_on: bool
    run: int
    spent: float
    plan: Plan | None


def _work(world: World, job: Job, now: float, stage: int) -> _Work:
    span = stage_span(job.timeline, now, stage)
    going_on = job.phase(now).status in (PROCESSING, REVIEW)
    if span is None:
        return _Work(now, going_on, 0, 0.0, None)
    phase, spent = span
    return _Work(now, going_on, phase.run, spent, world.desk.plan(job, phase.run))


def _item(world: World, job: Job, work: _Work, kind: str, index: int) -> dict[str, Any]:
    now, going_on, run, spent, plan = work
    picture = kind == "keyframe"
    attempts: tuple[Attempt, ...] = ()
    if plan is not None:
        attempts = (plan.keyframes if picture else plan.segments)[index]
    over = tuple(attempt for attempt in attempts if attempt.end <= spent)
    kept = best(over) if over else None
    status = "pending"
    if kept is not None and len(over) == len(attempts):
        status = "completed" if over[kept].passed or job.spec.accept_best else "failed"
        if picture and over[kept].passed:
            status = world.readings.keyframe_done
    elif attempts and attempts[0].start <= spent:
        status = "processing" if going_on else "failed"
    name = f"{kind}-{index}-{run}-{kept}.{'png' if picture else 'mp4'}"
    item: dict[str, Any] = {
        f"{kind}_id": _item_id(job, kind, index, run),
        "index": index,
        "status": status,
        "image_url" if picture else "video_url": None if kept is None else world.output_url(job.id, name, now),
        "qai_score": None if kept is None else _score(world, over[kept].score),
        "attempts": len(over),
        "fail_category": None if kept is None else over[kept].category,
    }
    if not picture:
        item["duration"] = job.spec.segment_duration
    if world.readings.scores == "hidden":
        del item["qai_score"]
    return _without_nulls(world, item)


def _score(world: World, score: float | None) -> float | None:
    return round(score * 100, 1) if score is not None and world.readings.scores == "percent" else score


def _without_nulls(world: World, fields: dict[str, Any]) -> dict[str, Any]:
    if world.readings.nulls == "shown":
        return fields
    return {name: value for name, value in fields.items() if value is not None}


def _item_id(job: Job, kind: str, index: int, run: int) -> str:
    text = hashlib.sha256(f"{job.id}/{kind}/{index}/{run}".encode()).hexdigest()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}"


def _until(world: World, job: Job, now: float) -> float:
    """Return when the view of a job changes next."""
    if world.readings.output_urls == "expiring":
        return now
    place = at(job.timeline, now)
    until = job.timeline[place + 1].start if place + 1 < len(job.timeline) else float("inf")
    phase = job.timeline[place]
    if phase.status == PROCESSING and phase.stage in (INIT, GENERATION):
        plan = world.desk.plan(job, phase.run)
        items = plan.keyframes[:1] if phase.stage == INIT else (*plan.keyframes[1:], *plan.segments)
        spent = now - phase.start + SLACK
        for item in items:
            for attempt in item:
                for moment in (attempt.start, attempt.end):
                    if moment > spent:
                        until = min(until, phase.start + moment)
    return until
