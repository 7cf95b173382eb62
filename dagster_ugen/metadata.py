# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: UP045
"""What a materialization says of its job: typed metadata, a preview that the asset page shows, and data versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Optional

import dagster as dg

from dagster_ugen._compat import NamespacedMetadataSet
from dagster_ugen.outputs import Output

if TYPE_CHECKING:
    from dagster_ugen.results import Delivered
    from ugen_provider.core.api.models import Keyframe, Segment
    from ugen_provider.core.jobs.gate import Look
    from ugen_provider.core.media import Manifest

PREVIEW_LIMIT = 1000
"""From this many characters on, Dagster's asset page hides Markdown behind a link."""

LOOK = "ugen/look"
"""Under which an anchor keyframe says what an approval of it binds."""

_SOURCE_KINDS = {
    Output.ANCHOR_KEYFRAME: "keyframe",
    Output.APPROVAL: "keyframe",
    Output.KEYFRAMES: "keyframe",
    Output.VIDEOS: "segment",
    Output.FINAL_VIDEO: "final",
}


class UGenMetadataSet(NamespacedMetadataSet):
    """What is known of the job behind a materialization; every entry stands under `ugen/`.

    Args:
        job_id: The job.
        status: The service's word for its state.
        stage: The stage that it is in.
        video_model: The model that made it.
        how: How the job came to be ours: `submitted`, `attached`, `taken`, `found` (under its key, and complete:
            nothing was paid), `resumed`, `stage_retried`.
        notes: What a person should be told.
        preview: Pictures that the asset page shows.
        generation: How often it was deliberately bought again.
        request_changed: Whether the request is another one now than what the job was made from.
        credits_estimated: Credits that it was estimated to cost.
        credits_reserved: Credits that were reserved for it.
        credits_consumed: Credits that it cost.
        credits_spent_by_this_run: Credits that this very run spent: 0 where the job was there already.
        jobs_created_by_this_run: 1 where this run bought the job.
        lowest_score: The lowest quality score of the output, 0 to 1.
        scores: All quality scores of the output.
        attempts: Attempts that the service made at each of the output's items.
        fail_categories: What its quality checks found.
        duration_seconds: Length of the video.
        job_seconds: From the job's creation to its end.
        url: Where the service serves it; such links may expire.
        urls: The same, where there are several.
        manifest: Where its `manifest.json` is.
    """

    # Dagster 1.12 reads `Optional[X]` of a metadata set, and not `X | None`. Its pages keep this order: what a
    # person should be told, and the pictures, stand where they are seen without scrolling past the figures.
    job_id: str
    status: Optional[str] = None
    stage: Optional[str] = None
    video_model: Optional[str] = None
    how: Optional[str] = None
    notes: Optional[str] = None
    preview: Optional[dg.MarkdownMetadataValue] = None
    generation: Optional[int] = None
    request_changed: Optional[bool] = None
    credits_estimated: Optional[int] = None
    credits_reserved: Optional[int] = None
    credits_consumed: Optional[int] = None
    credits_spent_by_this_run: Optional[int] = None
    jobs_created_by_this_run: Optional[int] = None
    lowest_score: Optional[float] = None
    scores: Optional[dg.JsonMetadataValue] = None
    attempts: Optional[dg.JsonMetadataValue] = None
    fail_categories: Optional[dg.JsonMetadataValue] = None
    duration_seconds: Optional[float] = None
    job_seconds: Optional[float] = None
    url: Optional[dg.UrlMetadataValue] = None
    urls: Optional[dg.JsonMetadataValue] = None
    manifest: Optional[dg.PathMetadataValue] = None

    @classmethod
    def namespace(cls) -> str:
        """Under which the entries stand."""
        return "ugen"


def describe(output: Output, delivered: Delivered) -> dict[str, Any]:
    """The metadata of one output's materialization.

    Args:
        output: Which output.
        delivered: The job with its results.
    """
    job = delivered.bought.job
    items = items_of(output, delivered)
    scores = [item.qai_score for item in items]
    known = [score for score in scores if score is not None]
    urls = [url for url in urls_of(output, delivered) if url]
    lengths = _durations(output, delivered)
    seconds = None
    if job.created_at is not None and job.completed_at is not None:
        seconds = round((job.completed_at - job.created_at).total_seconds(), 3)
    preview = gallery(output, delivered)
    described = UGenMetadataSet(
        job_id=job.job_id,
        status=job.status,
        stage=job.current_stage,
        video_model=job.video_model,
        how=delivered.bought.how.value,
        generation=delivered.bought.intent.generation,
        request_changed=delivered.bought.request_changed,
        credits_estimated=delivered.credits_estimated,
        credits_reserved=job.credits_reserved,
        credits_consumed=job.credits_consumed,
        credits_spent_by_this_run=delivered.credits_spent,
        jobs_created_by_this_run=int(delivered.created),
        lowest_score=min(known, default=None),
        scores=dg.MetadataValue.json(scores) if scores else None,
        attempts=_json([item.attempts for item in items]),
        fail_categories=_json([item.fail_category for item in items]),
        duration_seconds=round(sum(lengths), 3) if lengths else None,
        job_seconds=seconds,
        url=dg.MetadataValue.url(urls[0]) if len(urls) == 1 else None,
        urls=dg.MetadataValue.json(urls) if len(urls) > 1 else None,
        manifest=_manifest(delivered.manifest),
        preview=dg.MetadataValue.md(preview) if preview else None,
        notes="; ".join(delivered.notes) or None,
    )
    uris = stored_at(output, delivered)
    home = {"dagster/uri": uris[0] if len(uris) == 1 else _folder(uris)} if uris else {}
    shown = delivered.look if output is Output.ANCHOR_KEYFRAME else None
    look = {LOOK: dg.MetadataValue.json(binding_of(shown))} if shown is not None else {}
    return {**described, **home, **look}


def binding_of(look: Look) -> dict[str, Any]:
    """What an approval binds: the job, the keyframe and the picture. Links are no identity and may be worth money."""
    return {
        "job_id": look.job_id,
        "keyframe_id": look.keyframe_id,
        "digest": look.digest,
        "qai_score": look.qai_score,
    }


def items_of(output: Output, delivered: Delivered) -> Sequence[Keyframe | Segment]:
    """The keyframes or segments that an output consists of."""
    match output:
        case Output.ANCHOR_KEYFRAME | Output.APPROVAL:
            return delivered.keyframes[:1]
        case Output.KEYFRAMES:
            return delivered.keyframes
        case _:
            return delivered.segments


def urls_of(output: Output, delivered: Delivered) -> list[str | None]:
    """Where the service serves an output."""
    match output:
        case Output.ANCHOR_KEYFRAME | Output.APPROVAL:
            return [frame.image_url for frame in delivered.keyframes[:1]]
        case Output.KEYFRAMES:
            return [frame.image_url for frame in delivered.keyframes]
        case Output.VIDEOS:
            return [segment.video_url for segment in delivered.segments]
        case Output.FINAL_VIDEO:
            return [delivered.bought.job.final_video_url]


def stored_at(output: Output, delivered: Delivered) -> list[str]:
    """Where an output's files are in the user's storage."""
    manifest = delivered.manifest
    if manifest is None:
        return []
    kind = _SOURCE_KINDS[output]
    files = [file for file in manifest.files if file.kind == kind]
    if output is Output.ANCHOR_KEYFRAME:
        files = files[:1]
    return [manifest.location + file.path for file in files]


def version_of(output: Output, delivered: Delivered) -> str:
    """The data version of an output: the same files give the same version, a re-made one gives another.

    Without files the job and its quality scores stand for them; links are no identity, since they may be signed anew.
    """
    manifest = delivered.manifest
    kind = _SOURCE_KINDS[output]
    parts: Iterable[str]
    if manifest is not None and (files := [file for file in manifest.files if file.kind == kind]):
        parts = [file.sha256 for file in (files[:1] if output is Output.ANCHOR_KEYFRAME else files)]
    else:
        parts = [
            delivered.bought.job.job_id,
            output.value,
            *(f"{item.qai_score}:{item.attempts}" for item in items_of(output, delivered)),
        ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def gallery(output: Output, delivered: Delivered) -> str | None:
    """Markdown that Dagster's asset page shows as pictures: a row of keyframes, or the poster linking to the video.

    It stays below `PREVIEW_LIMIT` by leaving pictures out at the end; None where not one fits.
    """
    job = delivered.bought.job
    frames = [(f"keyframe {index}", frame.image_url) for index, frame in enumerate(delivered.keyframes)]
    pictures = [(name, url) for name, url in frames if url and _fits(url)]
    match output:
        case Output.ANCHOR_KEYFRAME | Output.APPROVAL:
            return _row(pictures[:1])
        case Output.KEYFRAMES:
            return _row(pictures)
        case Output.VIDEOS:
            return None
        case Output.FINAL_VIDEO:
            poster = job.thumbnail_url or next((url for _, url in pictures), None)
            if not poster or not _fits(poster) or not job.final_video_url or not _fits(job.final_video_url):
                return None
            made = f"[![poster]({poster})]({job.final_video_url})"
            return made if len(made) < PREVIEW_LIMIT else None


def _fits(url: str) -> bool:
    return url.startswith(("http://", "https://")) and not any(c in url for c in "()<> \n|")


def _row(pictures: Sequence[tuple[str, str]]) -> str | None:
    for count in range(len(pictures), 0, -1):
        shown = pictures[:count]
        head = "| " + " | ".join(name.removeprefix("keyframe ") for name, _ in shown) + " |"
        rule = "|" + "---|" * count
        row = "| " + " | ".join(f"![{name}]({url})" for name, url in shown) + " |"
        more = f"\n\n{len(pictures) - count} more" if count < len(pictures) else ""
        made = f"{head}\n{rule}\n{row}{more}"
        if len(made) < PREVIEW_LIMIT:
            return made
    return None


def _json(values: Sequence[Any]) -> dg.JsonMetadataValue | None:
    return dg.MetadataValue.json(list(values)) if any(value is not None for value in values) else None


def _durations(output: Output, delivered: Delivered) -> list[float]:
    if delivered.manifest is not None and output in {Output.VIDEOS, Output.FINAL_VIDEO}:
        kind = _SOURCE_KINDS[output]
        return [file.duration for file in delivered.manifest.files if file.kind == kind and file.duration is not None]
    if output in {Output.VIDEOS, Output.FINAL_VIDEO}:
        return [segment.duration for segment in delivered.segments if segment.duration is not None]
    return []


def _manifest(manifest: Manifest | None) -> dg.PathMetadataValue | None:
    return dg.MetadataValue.path(f"{manifest.location}manifest.json") if manifest is not None else None


def _folder(uris: Sequence[str]) -> str:
    return uris[0].rpartition("/")[0] + "/"
