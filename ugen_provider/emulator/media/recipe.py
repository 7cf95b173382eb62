# SPDX-License-Identifier: Apache-2.0
"""What a picture or video shall show."""

from typing import NamedTuple


class Recipe(NamedTuple):
    """What to draw.

    Attributes:
        kind: `keyframe`, `thumbnail`, `segment` or `final`.
        aspect_ratio: `9:16`, `16:9` or `1:1`.
        title: The product's name.
        lines: Smaller text under it.
        seconds: Length of a video; 0 for a picture.
        scenes: How many scenes the video is cut into.
        tint: What the colours are chosen by.
    """

    kind: str
    aspect_ratio: str
    title: str
    lines: tuple[str, ...]
    seconds: int
    scenes: int
    tint: str
