# SPDX-License-Identifier: Apache-2.0
"""`/media`: the files that output URLs point to, with `Range`, `ETag` and `Content-Length`. No key is asked for."""

import hashlib
import re

from ugen_provider.emulator.api.http import Reply, Request
from ugen_provider.emulator.media.recipe import Recipe
from ugen_provider.emulator.world.catalog import MEDIA_TYPES
from ugen_provider.emulator.world.job import Job
from ugen_provider.emulator.world.refusals import Refusal, not_found
from ugen_provider.emulator.world.stages import GENERATION, INIT
from ugen_provider.emulator.world.world import World

_NAME = re.compile(r"(final|thumbnail)-(\d{1,4})\.(?:mp4|png)|(keyframe|segment)-(\d{1,2})-(\d{1,4})-(\d)\.(?:mp4|png)")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def serve(world: World, request: Request, job_id: str, name: str, now: float) -> Reply:
    """Return an output.

    Raises:
        Refusal: 403 when its URL has expired, 404 when there is none of that name, or not yet.
    """
    job = world.desk.jobs.get(job_id)
    recipe = None if job is None else _recipe(world, job, name, now)
    if recipe is None:
        raise not_found("Output")
    if world.readings.output_urls == "expiring":
        _check_signature(world, request, now)
    media_type = "video/mp4" if recipe.seconds else "image/png"

    def work() -> Reply:
        # Here, since who never looks at a video need not wait for codecs to load.
        from ugen_provider.emulator.media.draw import render

        return ranged(request, render(recipe), media_type)

    return Reply(200, work=work)


def serve_upload(world: World, request: Request, name: str) -> Reply:
    """Return a file that was uploaded, to anybody who has its URL.

    Raises:
        Refusal: 404.
    """
    upload = world.library.uploads.get(name.partition(".")[0])
    if upload is None or not world.library.url(upload).endswith(request.path):
        raise not_found("File")
    content = world.library.content(upload.id)
    if content is None:
        raise not_found("File")
    return ranged(request, content, MEDIA_TYPES[upload.kind])


def _check_signature(world: World, request: Request, now: float) -> None:
    params = request.params()
    expires = params.get("expires", "")
    good = expires.isdigit() and len(expires) < 15
    if not good or params.get("signature") != world.url_signature(request.path, int(expires)):
        raise Refusal(403, "FORBIDDEN", "This URL is not signed")
    if now >= int(expires):
        raise Refusal(403, "URL_EXPIRED", "This URL has expired: read the job again for a new one")


def _recipe(world: World, job: Job, name: str, now: float) -> Recipe | None:
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
    plan = world.desk.plan(job, run)
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


def _made(job: Job, run: int, stage: int, after: float, now: float) -> bool:
    return any(
        phase.run == run and phase.stage == stage and phase.start + after <= now + 0.001 for phase in job.timeline
    )


def ranged(request: Request, content: bytes, media_type: str) -> Reply:
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
