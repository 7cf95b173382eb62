# SPDX-License-Identifier: Apache-2.0
"""The eight stages, by number, and what each is worth in progress."""

STAGES = ("prepare", "agents", "init", "generation", "concat", "audio", "captions", "complete")
PREPARE, AGENTS, INIT, GENERATION, CONCAT, AUDIO, CAPTIONS, COMPLETE = range(8)

PROGRESS = (0, 5, 15, 25, 75, 85, 92, 100)
"""Percent at the start of each stage; inside `generation` it follows the segments that are done."""


def progress(stage: int, *, done: int, segments: int) -> int:
    """Return `progress_percent` in a stage with `done` of `segments` segments made."""
    if stage == GENERATION and segments:
        return 25 + (50 * done) // segments
    return PROGRESS[stage]
