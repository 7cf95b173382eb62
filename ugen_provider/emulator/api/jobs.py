# SPDX-License-Identifier: Apache-2.0
"""The Jobs endpoints."""

import re
from collections.abc import Sequence

from pydantic_core import to_json

from ugen_provider.emulator.api import bodies, views
from ugen_provider.emulator.api.call import Call, page_json, page_of, window
from ugen_provider.emulator.api.http import Reply, json_reply
from ugen_provider.emulator.api.library import check_music
from ugen_provider.emulator.api.tenants import check_webhook_url
from ugen_provider.emulator.world.job import Job
from ugen_provider.emulator.world.refusals import Invalid
from ugen_provider.emulator.world.timeline import REVIEW, at

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _job(call: Call) -> Job:
    job_id = call.args[0]
    if call.readings.bad_job_id == "422" and not _UUID.fullmatch(job_id):
        raise Invalid.one("uuid_parsing", ("path", "jobId"), "Input should be a valid UUID", job_id)
    return call.world.desk.get(call.tenant, job_id)


def _shown(call: Call, job: Job, status: int = 200) -> Reply:
    return Reply(status, views.job_view(call.world, job, call.now))


def create(call: Call) -> Reply:
    """`POST /jobs`."""
    data = bodies.parse_json(call.request.body)
    body = bodies.parse(bodies.CreateJob, data, call.readings)
    check_webhook_url(call, body.webhook_url)
    check_music(call, body.custom_music_id)
    job, existed = call.world.desk.create(call.tenant, body.model_dump(), data, call.now)
    return _shown(call, job, call.readings.replay_status if existed else call.readings.create_status)


def suggest_fields(call: Call) -> Reply:
    """`POST /jobs/suggest-fields`: free."""
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
    """`GET /jobs/{jobId}`."""
    return _shown(call, _job(call))


def listing(call: Call) -> Reply:
    """`GET /jobs`."""
    page, size = page_of(call)
    world, readings, index = call.world, call.readings, call.tenant.index
    word = call.request.params().get("status") or None
    wanted = None if word is None else views.status_meant(world, word)
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
        numbers = index.numbers(REVIEW if wanted and wanted == readings.extra_status else wanted)
    if readings.list_order == "updated":
        numbers = sorted(numbers, key=lambda number: (index.jobs[number].phase(moment).start, number))
    chosen = window(numbers, page, size, newest_first=readings.list_order != "oldest", shift=call.shift)
    if readings.list_lag:
        full = readings.list_items == "full"
        rows = [to_json(views.job_fields(world, index.jobs[number], moment, full=full)) for number in chosen]
    else:
        rows = [views.brief_view(world, index.jobs[number], call.now) for number in chosen]
    return page_json(call, rows, total=len(numbers), page=page, size=size)


def _status_at(call: Call, job: Job, moment: float) -> str:
    status = job.phase(moment).status
    return call.readings.extra_status if status == REVIEW else status


def cancel(call: Call) -> Reply:
    """`DELETE /jobs/{jobId}`."""
    job = _job(call)
    call.world.desk.cancel(job, call.now)
    return Reply(204) if call.readings.cancel_answer == "empty" else _shown(call, job)


def pause(call: Call) -> Reply:
    """`POST /jobs/{jobId}/pause`."""
    job = _job(call)
    call.world.desk.pause(job, call.now)
    return _shown(call, job)


def resume(call: Call) -> Reply:
    """`POST /jobs/{jobId}/resume`."""
    job = _job(call)
    call.world.desk.resume(job, call.now)
    return _shown(call, job)


def retry(call: Call) -> Reply:
    """`POST /jobs/{jobId}/retry`."""
    body = call.optional_body(bodies.RetryJob)
    job = _job(call)
    call.world.desk.retry(call.tenant, job, body.restart_from_stage, call.now)
    return _shown(call, job)


def _items(call: Call, items: list[dict[str, object]]) -> Reply:
    return json_reply(200, {"items": items} if call.readings.item_lists == "items" else items)


def keyframes(call: Call) -> Reply:
    """`GET /jobs/{jobId}/keyframes`."""
    return _items(call, views.keyframe_items(call.world, _job(call), call.now))


def videos(call: Call) -> Reply:
    """`GET /jobs/{jobId}/videos`."""
    return _items(call, views.segment_items(call.world, _job(call), call.now))
