# SPDX-License-Identifier: Apache-2.0
"""What is told of a finished job: the small dict that tasks return, events carry and metadata is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ugen_provider.core.api import operations
from ugen_provider.core.api.effects import Flow
from ugen_provider.core.api.errors import LowQualityError
from ugen_provider.core.api.flows import Caller
from ugen_provider.core.api.models import Job, Keyframe, Segment
from ugen_provider.core.jobs.purchase import Purchase

OnLowQuality = Literal["warn", "fail"]


def keyframes_of(caller: Caller, job: Job) -> Flow[tuple[Keyframe, ...]]:
    """The keyframes of a job, asked for where the job does not carry them. Free; `GET /jobs/{jobId}/keyframes`.

    Args:
        caller: Calls the service.
        job: The job.
    """
    if job.keyframes:
        return job.keyframes
    asked: tuple[Keyframe, ...] = yield from caller.call(operations.list_keyframes(job.job_id))
    return asked


@dataclass(frozen=True, slots=True)
class Scores:
    """Quality scores, 0 to 1, in the order of the items; None where the service has not said."""

    keyframes: tuple[float | None, ...] = ()
    segments: tuple[float | None, ...] = ()

    @classmethod
    def of(cls, job: Job, *, keyframes: Sequence[Keyframe] = (), segments: Sequence[Segment] = ()) -> Scores:
        """The scores of a job; keyframes and segments default to those inside the job."""
        return cls(
            tuple(frame.qai_score for frame in keyframes or job.keyframes),
            tuple(segment.qai_score for segment in segments or job.segments),
        )

    @property
    def lowest(self) -> float | None:
        """The lowest score that is known."""
        return min((score for score in (*self.keyframes, *self.segments) if score is not None), default=None)


def check_quality(job: Job, scores: Scores, *, min_score: float | None, on_low_quality: OnLowQuality) -> str | None:
    """Compare the lowest score with what was asked for; a completed job does not prove that its checks passed.

    Returns:
        What a person should be told, or None.

    Raises:
        LowQualityError: It is below, and `on_low_quality` is `fail`. The job is paid for and its outputs exist.
    """
    if min_score is None or (scores.lowest is not None and scores.lowest >= min_score):
        return None
    found = f"scored {scores.lowest:.2f}" if scores.lowest is not None else "has no scores"
    message = f"job {job.job_id} {found}, below min_score {min_score:.2f}"
    if on_low_quality == "fail":
        raise LowQualityError(message, job_id=job.job_id, job=job)
    return message


def describe(job: Job, *, scores: Scores) -> dict[str, Any]:
    """What is told of any job, of JSON types only."""
    return {
        "job_id": job.job_id,
        "status": job.status,
        "current_stage": job.current_stage,
        "final_video_url": job.final_video_url,
        "thumbnail_url": job.thumbnail_url,
        "credits_reserved": job.credits_reserved,
        "credits_consumed": job.credits_consumed,
        "keyframe_scores": list(scores.keyframes),
        "segment_scores": list(scores.segments),
    }


def summarize(
    bought: Purchase, *, scores: Scores, manifest: str | None = None, low_quality: str | None = None
) -> dict[str, Any]:
    """The small dict, of JSON types only.

    Args:
        bought: The job and how it came to be ours.
        scores: Its quality scores.
        manifest: Address of the manifest, where the outputs were stored.
        low_quality: What `check_quality` said.
    """
    return {
        **describe(bought.job, scores=scores),
        "how": bought.how.value,
        "generation": bought.intent.generation,
        "request_changed": bought.request_changed,
        "notes": [*bought.notes, *([low_quality] if low_quality else [])],
        "manifest": manifest,
    }
