# SPDX-License-Identifier: Apache-2.0
"""The assets over one job: what each holds, and on which it stands."""

from __future__ import annotations

from enum import Enum


class Output(Enum):
    """What a job gives, each an asset of its own.

    Later keyframes and all segments are made together, so choosing some assets chooses what is recorded, never what is
    bought.
    """

    ANCHOR_KEYFRAME = "anchor_keyframe"
    """The first keyframe, which every later one follows; an asset only where a gate is on."""
    APPROVAL = "keyframe_approval"
    """Somebody's yes to that keyframe; no file, and an asset only where a gate is on."""
    KEYFRAMES = "keyframes"
    VIDEOS = "videos"
    """The segments."""
    FINAL_VIDEO = "final_video"

    @property
    def stands_on(self) -> Output | None:
        """The output of the same job that it is made from, None for the first."""
        return {
            Output.APPROVAL: Output.ANCHOR_KEYFRAME,
            Output.VIDEOS: Output.KEYFRAMES,
            Output.FINAL_VIDEO: Output.VIDEOS,
        }.get(self)


MADE_TOGETHER = (Output.KEYFRAMES, Output.VIDEOS, Output.FINAL_VIDEO)
"""What one run of the multi-asset records, in the order in which they stand on one another."""
