# SPDX-License-Identifier: Apache-2.0
"""How jobs, keyframes and segments are shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from ugen_provider.cli.exits import ExitCode
from ugen_provider.cli.printing import Listing, Sheet
from ugen_provider.core.api.models import Job, JobState, Keyframe, Segment
from ugen_provider.core.jobs.summary import Scores

COLUMNS = ("JOB", "STATUS", "STAGE", "%", "PRODUCT", "CREDITS", "CREATED")


def time_of(moment: datetime | None) -> str:
    """A time, to the second.

    Examples:
        >>> time_of(datetime.fromisoformat("2026-11-24T08:30:00.123+00:00"))
        '2026-11-24 08:30:00Z'
    """
    if moment is None:
        return ""
    return moment.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")


def credits_of(job: Job) -> str:
    """What a job costs: consumed where it is settled, reserved before."""
    if job.credits_consumed is not None and job.ended:
        return str(job.credits_consumed)
    return f"{job.credits_reserved} reserved" if job.credits_reserved is not None else ""


def percent_of(job: Job) -> str:
    """How far a job is, without a sign."""
    return "" if job.progress_percent is None else f"{job.progress_percent:.0f}"


def row_of(job: Job) -> tuple[str, ...]:
    """A job as a row under `COLUMNS`."""
    return (
        job.job_id,
        job.status,
        job.current_stage or "",
        percent_of(job),
        job.product_name or "",
        credits_of(job),
        time_of(job.created_at),
    )


def data_of(job: Job) -> dict[str, Any]:
    """A job for programs: everything that the service told."""
    told: dict[str, Any] = job.model_dump(mode="json")
    return told


def jobs_listing(jobs: Sequence[Job], *, nothing: str) -> Listing:
    """Several jobs."""
    return Listing(COLUMNS, [row_of(job) for job in jobs], data=[data_of(job) for job in jobs], nothing=nothing)


def job_sheet(job: Job) -> Sheet:
    """One job."""
    scores = Scores.of(job)
    facts = [
        ("job", job.job_id),
        ("status", job.status),
        ("stage", job.current_stage or ""),
        ("progress", f"{percent_of(job)} %" if job.progress_percent is not None else ""),
        ("product", job.product_name or ""),
        ("model", job.video_model or ""),
        ("credits", credits_of(job)),
        ("lowest score", f"{scores.lowest:.2f}" if scores.lowest is not None else ""),
        ("error", " ".join(filter(None, (job.error_code, job.error_message)))),
        ("created", time_of(job.created_at)),
        ("completed", time_of(job.completed_at)),
        ("final video", job.final_video_url or ""),
    ]
    facts += [(f"segment {place}", segment_line(segment)) for place, segment in enumerate(job.segments)]
    return Sheet(facts, data=data_of(job))


def segment_line(segment: Segment) -> str:
    """One segment in a line."""
    parts = (
        segment.status,
        f"score {segment.qai_score:.2f}" if segment.qai_score is not None else None,
        segment.fail_category,
        segment.video_url,
    )
    return ", ".join(filter(None, parts))


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def keyframes_listing(frames: Iterable[Keyframe]) -> Listing:
    """The keyframes of a job."""
    kept = list(frames)
    rows = [
        (
            _number(frame.index, "d"),
            frame.status or "",
            _number(frame.qai_score, ".2f"),
            _number(frame.attempts, "d"),
            frame.fail_category or "",
            frame.image_url or "",
        )
        for frame in kept
    ]
    columns = ("INDEX", "STATUS", "SCORE", "ATTEMPTS", "FAILED BY", "PICTURE")
    data = [frame.model_dump(mode="json") for frame in kept]
    return Listing(columns, rows, data=data, nothing="The job has no keyframes yet.")


def segments_listing(segments: Iterable[Segment]) -> Listing:
    """The segments of a job."""
    kept = list(segments)
    rows = [
        (
            _number(segment.index, "d"),
            segment.status or "",
            _number(segment.qai_score, ".2f"),
            _number(segment.duration, "g"),
            segment.fail_category or "",
            segment.video_url or "",
        )
        for segment in kept
    ]
    columns = ("INDEX", "STATUS", "SCORE", "SECONDS", "FAILED BY", "VIDEO")
    data = [segment.model_dump(mode="json") for segment in kept]
    return Listing(columns, rows, data=data, nothing="The job has no segments yet.")


def code_of(job: Job) -> ExitCode:
    """The exit code for a job that was waited for: the two ways in which it can have been in vain are one code.

    Examples:
        >>> code_of(Job(job_id="j", status="cancelled"))
        <ExitCode.JOB_FAILED: 1>
    """
    return ExitCode.JOB_FAILED if job.state in {JobState.FAILED, JobState.CANCELLED} else ExitCode.DONE
