# SPDX-License-Identifier: Apache-2.0
"""Runs over any list of partitions: a short one that submits, one that collects, or one that waits for everything.

Dagster's own runs take one partition or a range; a feed's new products are neither.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from dagster_ugen.assets import UGenVideos
from dagster_ugen.failing import failure_of
from dagster_ugen.resource import UGenResource, bound

if TYPE_CHECKING:
    from dagster_ugen.results import Result

SUBMITS_TAG = "ugen/submits"
"""A tag of the runs that leave jobs behind on purpose, for the completion sensor to collect."""


class UGenBatchConfig(dg.Config):
    """What one run over a list of partitions is to do."""

    partitions: list[str]
    """The partition keys."""

    wait: bool = False
    """Whether to wait for the jobs. Without, what is done is collected and what is not is left for a later run."""

    regenerate: dict[str, str] = {}
    """For partitions that are to be bought again: the value, of which each new one buys once."""


def build_ugen_batch_job(
    videos: UGenVideos, *, name: str = "ugen_batch_job", resource: UGenResource | None = None
) -> dg.JobDefinition:
    """A job that buys, and collects, the videos of any list of partitions in one short run.

    It submits what was never bought, collects what is done, and leaves the rest: no worker waits. The completion sensor
    asks for the next run when jobs have ended. Costs the credits of one job for each partition that was never bought.

    Args:
        videos: The assets; without a gate.
        name: The job's name.
        resource: The account; else the resource `ugen` of the definitions.

    Raises:
        ValueError: The assets have a gate: what stops for a decision is not made in bulk. Each open gate holds the
            credits of a whole video, so `max_open_gates` looks at a time are made, by materializing `anchor_keyframe`.

    Examples:
        ```python
        videos = UGenVideos(requests=FeedRequests("feed.xml", job_defaults={"segment_count": 3}))
        batch = build_ugen_batch_job(videos)
        sensor = build_ugen_completion_sensor(videos, job=batch)
        ```
    """
    if videos.gate is not None:
        raise ValueError(
            "a batch job buys many videos without waiting for anybody, and a gate waits for somebody at each: "
            "leave out gate=, or this job and its sensors, and materialize anchor_keyframe instead"
        )

    def body(context: dg.OpExecutionContext, config: UGenBatchConfig, ugen: UGenResource) -> None:
        results = run_batch(videos, context, ugen, config)
        tell(context, results)

    batch = dg.op(name=batch_op(name))(bound(body, resource))

    @dg.job(
        name=name,
        description="Submits the U-Gen jobs of a list of partitions and collects those that are done.",
        tags={SUBMITS_TAG: "true"},
    )
    def made() -> None:
        batch()

    return made


def batch_op(job: str) -> str:
    """The name of a batch job's only op: two of them may stand in one code location.

    Examples:
        >>> batch_op("ugen_batch_job"), batch_op("nightly")
        ('ugen_batch', 'nightly_op')
    """
    return job.removesuffix("_job") if job.endswith("_job") else f"{job}_op"


def run_batch(
    videos: UGenVideos, context: dg.OpExecutionContext, ugen: UGenResource, config: UGenBatchConfig
) -> "list[Result]":
    """The body of the batch job."""
    from dagster_ugen.running import run_list

    return run_list(videos, context, ugen, partitions=config.partitions, wait=config.wait, regenerate=config.regenerate)


def tell(context: dg.OpExecutionContext, results: "Sequence[Result]") -> None:
    """Say how a batch ended.

    Raises:
        Failure: Partitions failed; it names them, and the others are recorded.
    """
    from dagster_ugen.results import Delivered, Failed, Left

    left = [result for result in results if isinstance(result, Left)]
    failed = [result for result in results if isinstance(result, Failed)]
    delivered = sum(isinstance(result, Delivered) for result in results)
    context.log.info("%d collected, %d still being made, %d failed", delivered, len(left), len(failed))
    for each in left:
        context.log.debug("%s: job %s %s", each.partition, each.job_id or "not bought yet:", each.why)
    if failed:
        raise failure_of(failed, of=len(results))
