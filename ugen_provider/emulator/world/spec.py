# SPDX-License-Identifier: Apache-2.0
"""Parts of a create request that decide the pipeline and the price."""

from collections.abc import Mapping
from typing import Any, NamedTuple

STAGES = ("prepare", "agents", "init", "generation", "concat", "audio", "captions", "complete")
PREPARE, AGENTS, INIT, GENERATION, CONCAT, AUDIO, CAPTIONS, COMPLETE = range(8)

PROGRESS = (0, 5, 15, 25, 75, 85, 92, 100)
"""Percent at the start of each stage; inside `generation` it follows the segments that are done."""


def progress(stage: int, *, done: int, segments: int) -> int:
    """Return `progress_percent` in a stage with `done` of `segments` segments made."""
    if stage == GENERATION and segments:
        return 25 + (50 * done) // segments
    return PROGRESS[stage]


THRESHOLDS = {"lenient": 0.55, "standard": 0.70, "strict": 0.80}
VEO_MODELS = frozenset({"veo3_fast", "veo3"})
KLING_MODELS = frozenset({"kling3_std", "kling3_pro", "kling3_4k"})
JOB_MODELS = VEO_MODELS | KLING_MODELS


class JobSpec(NamedTuple):
    """The part of a request that decides how the job runs and what it costs."""

    product_name: str
    segments: int
    segment_duration: int
    model: str
    aspect_ratio: str
    qai: bool
    threshold: float
    keyframe_attempts: int
    video_attempts: int
    accept_best: bool
    music: bool
    own_voice: bool
    captions: bool
    custom_captions: bool

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "JobSpec":
        """Read the effective parameters of a job, defaults filled in."""
        qai = bool(params["qai_enabled"])
        retries = params["max_retries_keyframe"]
        return cls(
            product_name=params["product_name"],
            segments=params["segment_count"],
            segment_duration=params["segment_duration"],
            model=params["video_model"],
            aspect_ratio=params["aspect_ratio"],
            qai=qai,
            threshold=THRESHOLDS[params["qai_mode"]],
            # With quality assurance on, a keyframe has at least one retry, even if the request asks for none.
            keyframe_attempts=1 + max(1, retries) if qai else 1,
            video_attempts=1 + params["max_retries_video"] if qai else 1,
            accept_best=params["failure_behavior"] == "accept_best",
            music=bool(params["music_enabled"]),
            own_voice=params.get("elevenlabs_voice_id") is not None,
            captions=bool(params["captions_enabled"]),
            custom_captions=params.get("custom_caption_options") is not None,
        )
