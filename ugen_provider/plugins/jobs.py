# SPDX-License-Identifier: Apache-2.0
"""What a page shows of a task instance's job, read through the task's own connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ugen_provider.core.api.rules import STAGES, is_http_url
from ugen_provider.plugins.database import watch_of

if TYPE_CHECKING:
    from ugen_provider.core.api.models import Job, Keyframe
    from ugen_provider.plugins.database import Place


class NotOurs(LookupError):  # noqa: N818  it is no error to look at any task
    """The task instance is about no job of U-Gen, or about none yet."""


def describe_job(place: Place) -> dict[str, Any]:
    """The job of a task instance as it is now.

    Args:
        place: The task instance.

    Raises:
        NotOurs: It has no job.
        UGenError: The connection is missing or wrong, or the service refused.
    """
    from airflow.utils.session import create_session

    from ugen_provider.core.jobs.summary import keyframes_of
    from ugen_provider.hooks.ugen import UGenHook

    with create_session() as session:
        watch = watch_of(place, session=session)
    if watch is None:
        raise NotOurs("This task instance has no U-Gen job, or has not bought one yet.")
    with UGenHook(watch.ugen_conn_id).get_conn() as client:
        job = client.jobs.get(watch.job_id)
        keyframes = client.run(keyframes_of(client.caller, job))
    return describe(job, keyframes=keyframes)


def describe(job: Job, *, keyframes: tuple[Keyframe, ...] = ()) -> dict[str, Any]:
    """A job for the page, of JSON types; links that are no http(s) are left out."""
    return {
        "job_id": job.job_id,
        "product_name": job.product_name,
        "status": job.status,
        "ended": job.ended,
        "stages": list(STAGES),
        "current_stage": job.current_stage,
        "progress_percent": job.progress_percent,
        "error_message": job.error_message,
        "credits_reserved": job.credits_reserved,
        "credits_consumed": job.credits_consumed,
        "video_model": job.video_model,
        "final_video_url": _link(job.final_video_url),
        "thumbnail_url": _link(job.thumbnail_url),
        "keyframes": [
            {"index": frame.index, "status": frame.status, "score": frame.qai_score, "url": _link(frame.image_url)}
            for frame in keyframes
        ],
        "segments": [
            {"index": part.index, "status": part.status, "score": part.qai_score, "url": _link(part.video_url)}
            for part in job.segments
        ],
    }


def _link(url: str | None) -> str | None:
    return url if url is not None and is_http_url(url) else None
