# SPDX-License-Identifier: Apache-2.0
"""The Jobs endpoints."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from ugen_provider.emulator.api import bodies
from ugen_provider.emulator.api.http import Call, HttpRequest, Reply, json_reply, page_json, page_of, window
from ugen_provider.emulator.api.library import check_music, check_webhook_url
from ugen_provider.emulator.media import Recipe
from ugen_provider.emulator.world.clock import iso
from ugen_provider.emulator.world.errors import ErrorReply, Invalid, not_found
from ugen_provider.emulator.world.job import EmulatedJob, View
from ugen_provider.emulator.world.library import MEDIA_TYPES
from ugen_provider.emulator.world.pipeline import (
    COMPLETED,
    ENDED,
    FAILED,
    PAUSED,
    PROCESSING,
    REFUSED,
    REVIEW,
    SLACK,
    Plan,
    StageAttempt,
    at,
    best,
    stage_span,
)
from ugen_provider.emulator.world.spec import GENERATION, INIT, STAGES, JobSpec, progress
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


def job_view(world: World, job: EmulatedJob, now: float) -> bytes:
    """Return a job as `GET /jobs/{jobId}` shows it."""
    view = job.view
    if view is None or view.version != world.version or now >= view.until:
        fields = job_fields(world, job, now, full=True)
        view = job.view = View(world.version, _until(world, job, now), to_json(fields))
    return view.content


def brief_view(world: World, job: EmulatedJob, now: float) -> bytes:
    """Return a job as an entry of a list."""
    if world.readings.list_items == "full":
        return job_view(world, job, now)
    view = job.brief
    if view is None or view.version != world.version or now >= view.until:
        fields = job_fields(world, job, now, full=False)
        view = job.brief = View(world.version, _until(world, job, now), to_json(fields))
    return view.content


def job_fields(world: World, job: EmulatedJob, now: float, *, full: bool) -> dict[str, Any]:
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
    status = status_word(world, readings.extra_status or REVIEW if phase.status == REVIEW else phase.status)
    stage = phase.stage
    if phase.status == PAUSED and readings.paused_stage == "next":
        stage += 1
    fields: dict[str, Any] = {}
    shown = job.id.upper() if readings.id_case == "capitals" and not full else job.id
    if readings.id_field != "id":
        fields["job_id"] = shown
    if readings.id_field != "job_id":
        fields["id"] = shown
    fields |= {"status": status, "current_stage": STAGES[stage]}
    changed = phase.start
    if full:
        segments = segment_items(world, job, now)
        done = sum(item["status"] == "completed" for item in segments)
        percent = 100 if phase.status == COMPLETED else progress(phase.stage, done=done, segments=job.spec.segments)
        fields |= {"progress_percent": percent, "segments": segments}
        if readings.job_keyframes == "yes":
            fields["keyframes"] = keyframe_items(world, job, now)
    finished = job.finished(phase) and now - phase.start >= readings.video_lag
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


def _error(world: World, job: EmulatedJob, now: float) -> str | None:
    failure = world.jobs.plan(job, job.phase(now).run).failure
    if failure is None and job.params["human_review"] != "off":
        return REFUSED
    return failure.message if failure else None


def keyframe_items(world: World, job: EmulatedJob, now: float) -> list[dict[str, Any]]:
    """Return the N+1 keyframes with their scores."""
    anchor, others = _work(world, job, now, INIT), _work(world, job, now, GENERATION)
    return [
        _item(world, job, anchor if index == 0 else others, "keyframe", index) for index in range(job.spec.segments + 1)
    ]


def segment_items(world: World, job: EmulatedJob, now: float) -> list[dict[str, Any]]:
    """Return the N segments with their status."""
    work = _work(world, job, now, GENERATION)
    return [_item(world, job, work, "segment", index) for index in range(job.spec.segments)]


class _Work(NamedTuple):
    """Work done in a stage.

    Attributes:
        now: The moment.
        is_active: Whether the job runs, so that what is begun will be finished.
        run: Which run did it last.
        spent: Seconds that were spent in the stage.
        plan: What that run does; `None` if the stage has yet to be done.
    """

    now: float
    is_active: bool
    run: int
    spent: float
    plan: Plan | None


def _work(world: World, job: EmulatedJob, now: float, stage: int) -> _Work:
    span = stage_span(job.timeline, now, stage)
    is_active = job.phase(now).status in (PROCESSING, REVIEW)
    if span is None:
        return _Work(now, is_active, 0, 0.0, None)
    phase, spent = span
    return _Work(now, is_active, phase.run, spent, world.jobs.plan(job, phase.run))


def _item(world: World, job: EmulatedJob, work: _Work, kind: str, index: int) -> dict[str, Any]:
    now, is_active, run, spent, plan = work
    picture = kind == "keyframe"
    attempts: tuple[StageAttempt, ...] = ()
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
        status = "processing" if is_active else "failed"
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


def _item_id(job: EmulatedJob, kind: str, index: int, run: int) -> str:
    text = hashlib.sha256(f"{job.id}/{kind}/{index}/{run}".encode()).hexdigest()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}"


def _until(world: World, job: EmulatedJob, now: float) -> float:
    """Return when the view of a job changes next."""
    if world.readings.output_urls == "expiring":
        return now
    place = at(job.timeline, now)
    until = job.timeline[place + 1].start if place + 1 < len(job.timeline) else float("inf")
    if (shown := job.timeline[place].start + world.readings.video_lag) > now:
        until = min(until, shown)
    phase = job.timeline[place]
    if phase.status == PROCESSING and phase.stage in (INIT, GENERATION):
        plan = world.jobs.plan(job, phase.run)
        items = plan.keyframes[:1] if phase.stage == INIT else (*plan.keyframes[1:], *plan.segments)
        spent = now - phase.start + SLACK
        for item in items:
            for attempt in item:
                for moment in (attempt.start, attempt.end):
                    if moment > spent:
                        until = min(until, phase.start + moment)
    return until


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _job(call: Call) -> EmulatedJob:
    job_id = call.args[0]
    if call.readings.bad_job_id == "422" and not _UUID.fullmatch(job_id):
        raise Invalid.one("uuid_parsing", ("path", "jobId"), "Input should be a valid UUID", job_id)
    return call.world.jobs.get(call.tenant, job_id)


def _shown(call: Call, job: EmulatedJob, status: int = 200) -> Reply:
    return Reply(status, job_view(call.world, job, call.now))


def create(call: Call) -> Reply:
    """Answer a request to `POST /jobs`."""
    data = bodies.parse_json(call.request.body)
    body = bodies.parse(bodies.CreateJobBody, data, call.readings)
    check_webhook_url(call, body.webhook_url)
    check_music(call, body.custom_music_id)
    job, existed = call.world.jobs.create(call.tenant, body.model_dump(), data, call.now)
    return _shown(call, job, call.readings.replay_status if existed else call.readings.create_status)


def suggest_fields(call: Call) -> Reply:
    """Answer a request to `POST /jobs/suggest-fields`: free."""
    body = call.body(bodies.SuggestFields)
    name, mode = body.product_name, body.interaction_mode or "holdable"
    points = [f"{name} feels good in the hand", f"{name} saves time every day", "Loved by the people who have it"]
    verb = "holding" if mode == "holdable" else "standing beside"
    script = f"I have been {verb} {name} all week. {points[1]}. Try it yourself."
    fields = {
        "key_selling_points": points,
        "cta_text": f"Get {name} today",
        "environment_description": "A bright kitchen in the morning, soft daylight from the left",
        "custom_script": " ".join([script] * (body.segment_count or 1)),
    }
    return json_reply(200, {"suggestions": fields} if call.readings.suggest_form == "nested" else fields)


def get(call: Call) -> Reply:
    """Answer a request to `GET /jobs/{jobId}`."""
    return _shown(call, _job(call))


def listing(call: Call) -> Reply:
    """Answer a request to `GET /jobs`."""
    page, size = page_of(call)
    world, readings, index = call.world, call.readings, call.tenant.index
    word = call.request.params().get("status") or None
    wanted = None if word is None else status_meant(world, word)
    if readings.status_filter == "ignored":
        wanted = None
    moment = call.now - readings.list_lag
    if readings.status_filter == "nothing" and wanted is not None:
        numbers: Sequence[int] = []
    elif readings.list_lag:
        numbers = [
            number
            for number in index.numbers(None)
            if at((job := index.jobs[number]).timeline, moment) >= 0 and wanted in (None, _status_at(call, job, moment))
        ]
    else:
        numbers = index.numbers(REVIEW if wanted and wanted == (readings.extra_status or REVIEW) else wanted)
    if (days := world.settings.profile.get("list_days")) is not None:
        numbers = [number for number in numbers if index.jobs[number].created_at >= call.now - days * 86_400]
    if readings.list_order == "updated":
        numbers = sorted(numbers, key=lambda number: (index.jobs[number].phase(moment).start, number))
    chosen = window(numbers, page, size, newest_first=readings.list_order != "oldest", shift=call.shift)
    if readings.list_lag:
        full = readings.list_items == "full"
        rows = [to_json(job_fields(world, index.jobs[number], moment, full=full)) for number in chosen]
    else:
        rows = [brief_view(world, index.jobs[number], call.now) for number in chosen]
    return page_json(call, rows, total=len(numbers), page=page, size=size)


def _status_at(call: Call, job: EmulatedJob, moment: float) -> str:
    status = job.phase(moment).status
    return call.readings.extra_status or REVIEW if status == REVIEW else status


def cancel(call: Call) -> Reply:
    """Answer a request to `DELETE /jobs/{jobId}`."""
    job = _job(call)
    call.world.jobs.cancel(job, call.now)
    return Reply(204) if call.readings.cancel_answer == "empty" else _shown(call, job)


def pause(call: Call) -> Reply:
    """Answer a request to `POST /jobs/{jobId}/pause`."""
    job = _job(call)
    call.world.jobs.pause(job, call.now)
    return _shown(call, job)


def resume(call: Call) -> Reply:
    """Answer a request to `POST /jobs/{jobId}/resume`."""
    job = _job(call)
    call.world.jobs.resume(job, call.now)
    return _shown(call, job)


def retry(call: Call) -> Reply:
    """Answer a request to `POST /jobs/{jobId}/retry`."""
    body = call.optional_body(bodies.RetryJob)
    job = _job(call)
    call.world.jobs.retry(call.tenant, job, body.restart_from_stage, call.now)
    return _shown(call, job)


def _items(call: Call, items: list[dict[str, object]]) -> Reply:
    return json_reply(200, {"items": items} if call.readings.item_lists == "items" else items)


def keyframes(call: Call) -> Reply:
    """Answer a request to `GET /jobs/{jobId}/keyframes`."""
    return _items(call, keyframe_items(call.world, _job(call), call.now))


def videos(call: Call) -> Reply:
    """Answer a request to `GET /jobs/{jobId}/videos`."""
    return _items(call, segment_items(call.world, _job(call), call.now))


def balance(call: Call) -> Reply:
    """Answer a request to `GET /credits/balance`."""
    account = call.tenant.credits
    return json_reply(
        200,
        {
            "credit_balance": account.balance,
            "credit_reserved": account.reserved,
            "available_credits": account.available,
        },
    )


def transactions(call: Call) -> Reply:
    """Answer a request to `GET /credits/transactions`, newest first."""
    page, size = page_of(call)
    account = call.tenant.credits
    job_id = call.request.params().get("job_id")
    rows = account.rows if job_id is None else account.of_job(job_id)
    shown = [
        to_json(
            {
                "id": row.id,
                "type": row.type,
                "amount": row.amount,
                "job_id": row.job_id,
                "description": row.description,
                "balance_before": row.balance_before,
                "balance_after": row.balance_after,
                "created_at": iso(row.at, form=call.readings.timestamps),
            }
        )
        for row in window(rows, page, size, newest_first=True, shift=call.shift)
    ]
    return page_json(call, shown, total=len(rows), page=page, size=size)


def estimate(call: Call) -> Reply:
    """Answer a request to `POST /credits/estimate`: what a job with these fields would reserve. Free."""
    if call.readings.estimate_form == "missing":
        raise not_found("Endpoint")
    body = call.body(bodies.EstimateBody)
    parts = call.world.jobs.estimate(JobSpec.of(body.model_dump()))
    return json_reply(200, {call.readings.estimate_form: sum(parts.values()), "breakdown": parts})


_NAME = re.compile(r"(final|thumbnail)-(\d{1,4})\.(?:mp4|png)|(keyframe|segment)-(\d{1,2})-(\d{1,4})-(\d)\.(?:mp4|png)")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def serve(world: World, request: HttpRequest, job_id: str, name: str, now: float) -> Reply:
    """Return the bytes of an output.

    Raises:
        ErrorReply: 403 when its URL has expired, 404 when there is none of that name, or not yet.
    """
    job = world.jobs.by_id.get(job_id)
    recipe = None if job is None else _recipe(world, job, name, now)
    if recipe is None:
        raise not_found("Output")
    if world.readings.output_urls == "expiring":
        _check_signature(world, request, now)
    media_type = "video/mp4" if recipe.seconds else "image/png"

    def work() -> Reply:
        # Here, so that only a request for a video waits for codecs to load.
        from ugen_provider.emulator.media import render

        return ranged(request, render(recipe), media_type)

    return Reply(200, work=work)


def serve_upload(world: World, request: HttpRequest, name: str) -> Reply:
    """Return a file that was uploaded, to anybody who has its URL.

    Raises:
        ErrorReply: 404.
    """
    upload = world.library.uploads.get(name.partition(".")[0])
    if upload is None or not world.library.url(upload).endswith(request.path):
        raise not_found("File")
    content = world.library.content(upload.id)
    if content is None:
        raise not_found("File")
    return ranged(request, content, MEDIA_TYPES[upload.kind])


def _check_signature(world: World, request: HttpRequest, now: float) -> None:
    params = request.params()
    expires = params.get("expires", "")
    good = expires.isdigit() and len(expires) < 15
    if not good or params.get("signature") != world.url_signature(request.path, int(expires)):
        raise ErrorReply(403, "FORBIDDEN", "This URL is not signed")
    if now >= int(expires):
        raise ErrorReply(403, "URL_EXPIRED", "This URL has expired: read the job again for a new one")


def _recipe(world: World, job: EmulatedJob, name: str, now: float) -> Recipe | None:
    found = _NAME.fullmatch(name)
    if not found:
        return None
    spec = job.spec
    short = f"job {job.id[:8]}"
    if found[1]:
        run = int(found[2])
        if not any(job.finished(phase) and phase.run == run and phase.start <= now for phase in job.timeline):
            return None
        seconds = spec.segments * spec.segment_duration if found[1] == "final" else 0
        lines = (f"{found[1]} - {spec.model}", short)
        return Recipe(found[1], spec.aspect_ratio, spec.product_name, lines, seconds, spec.segments, job.id)
    kind, index, run, attempt = found[3], int(found[4]), int(found[5]), int(found[6])
    if run > job.run:
        return None
    plan = world.jobs.plan(job, run)
    items = plan.keyframes if kind == "keyframe" else plan.segments
    stage = INIT if kind == "keyframe" and index == 0 else GENERATION
    if (
        index >= len(items)
        or attempt >= len(items[index])
        or not _made(job, run, stage, items[index][attempt].end, now)
    ):
        return None
    score = items[index][attempt].score
    lines = (f"{kind} {index}" + (f" - QA {score:.2f}" if score is not None else ""), short)
    seconds = spec.segment_duration if kind == "segment" else 0
    tint = f"{job.id}/{index}"
    return Recipe(kind, spec.aspect_ratio, spec.product_name, lines, seconds, 1, tint)


def _made(job: EmulatedJob, run: int, stage: int, after: float, now: float) -> bool:
    return any(
        phase.run == run and phase.stage == stage and phase.start + after <= now + 0.001 for phase in job.timeline
    )


def ranged(request: HttpRequest, content: bytes, media_type: str) -> Reply:
    """Return content, or the part of it that `Range` asks for."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"etag": etag, "accept-ranges": "bytes", "cache-control": "public, max-age=3600"}
    asked = request.headers
    if etag in asked.get("if-none-match", ""):
        return Reply(304, b"", media_type, headers)
    found = _RANGE.fullmatch(asked.get("range", ""))
    if not found or asked.get("if-range", etag) != etag or not (found[1] or found[2]):
        return Reply(200, content, media_type, headers)
    size = len(content)
    if not found[1]:
        begin, end = max(0, size - int(found[2][:18])), size
    else:
        begin, end = int(found[1][:18]), min(size, int(found[2][:18]) + 1) if found[2] else size
    if begin >= size or end <= begin:
        return Reply(416, b"", media_type, {**headers, "content-range": f"bytes */{size}"})
    headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"
    return Reply(206, content[begin:end], media_type, headers)
