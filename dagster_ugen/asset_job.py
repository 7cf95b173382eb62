# SPDX-License-Identifier: Apache-2.0
"""The asset job whose runs submit and collect, and the partition ranges that its runs are requested for.

Both kinds of run materialize the same assets. A submit run sends the orders, records an observation for each, and ends
without a materialization. A collect run records the jobs that have ended, and the asset's checks run in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from dagster_ugen.definition import DECISION_TAG, EACH_RUN, JOB_OUTPUTS, REGENERATE_TAG, Output
from dagster_ugen.event_log import RUN_KIND_TAG, chunks

if TYPE_CHECKING:
    from dagster_ugen.definition import VideoDefinition

AssetJob = dg.JobDefinition | Any
"""A job over the assets; Dagster's type of an asset job that is not resolved yet is not public."""

RunKind = Literal["submit", "collect"]

START_TAG = "dagster/asset_partition_range_start"
END_TAG = "dagster/asset_partition_range_end"
PARTITION_TAG = "dagster/partition"


def build_ugen_asset_job(
    videos: VideoDefinition, *, name: str = "ugen_videos_job", tags: Mapping[str, str] | None = None
) -> AssetJob:
    """Build the job over the videos' assets and their checks, whose runs the sensors request.

    Materialized by hand or by a schedule, its runs wait for their jobs. Runs with the tag `ugen/run_kind` do not:
    `submit` sends orders and ends, `collect` records the jobs that have ended. Costs the credits of one job for each
    partition that was never bought.

    Args:
        videos: The assets; without a gate.
        name: The job's name.
        tags: Tags of its runs.

    Raises:
        ValueError: The assets have a gate: jobs that stop for a decision are not made in bulk. Each open gate holds
            the credits of a whole video, so `max_open_gates` are made at a time, by materializing `anchor_keyframe`.

    Examples:
        ```python
        videos = UGenVideoAssets(requests=FeedRequests("feed.xml", job_defaults={"segment_count": 3}))
        job = build_ugen_asset_job(videos)
        sensor = build_ugen_completion_sensor(videos, job=job)
        ```
    """
    if videos.gate is not None:
        raise ValueError(
            "a submit run purchases many videos without waiting for a person, and a gate waits for a person at each: "
            "leave out gate=, or this job and its sensors, and materialize anchor_keyframe instead"
        )
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*(videos.key_of(output) for output in JOB_OUTPUTS)),
        description="The U-Gen videos and their checks. Sensors request runs that submit, and runs that collect.",
        tags=tags,
    )


def build_ugen_approval_jobs(
    videos: VideoDefinition, *, prefix: str = "", tags: Mapping[str, str] | None = None
) -> list[AssetJob]:
    """Build the jobs that decide on a keyframe: `approve_keyframe`, `reject_keyframe` and `regenerate_keyframe`.

    Each is one click on the job's page, or one line such as `dg launch --job reject_keyframe --partition LL-1001`; no
    run config is needed. `reject_keyframe` cancels the job, and its reservation is released. `regenerate_keyframe` buys
    another keyframe with each run, for the credits of a job; reject the one that you do not want first.

    Args:
        videos: The assets, with a gate.
        prefix: What the jobs' names begin with, for several definitions in one code location.
        tags: Tags of their runs.

    Raises:
        ValueError: The assets have no gate.

    Examples:
        ```python
        videos = UGenVideoAssets(requests=FeedRequests("feed.xml", job_defaults={"segment_count": 3}), gate=UGenGate())
        defs = dg.Definitions(assets=build_assets_from_definition(videos), jobs=build_ugen_approval_jobs(videos))
        ```
    """
    if videos.gate is None:
        raise ValueError("without a gate there is nothing to decide on: pass gate=UGenGate() to the assets")

    def job(name: str, output: Output, description: str, more: Mapping[str, str]) -> AssetJob:
        selection = dg.AssetSelection.assets(videos.key_of(output))
        return dg.define_asset_job(
            f"{prefix}{name}", selection=selection, description=description, tags={**(tags or {}), **more}
        )

    return [
        job("approve_keyframe", Output.APPROVAL, "Approve the keyframe that is shown.", {DECISION_TAG: "approve"}),
        job("reject_keyframe", Output.APPROVAL, "Reject the keyframe and cancel its job.", {DECISION_TAG: "reject"}),
        job(
            "regenerate_keyframe",
            Output.ANCHOR_KEYFRAME,
            "Buy another keyframe, for the credits of one job.",
            {REGENERATE_TAG: EACH_RUN},
        ),
    ]


@dataclass(frozen=True, slots=True)
class PartitionRange:
    """Partitions that follow one another, as one run materializes them.

    Attributes:
        keys: The partition keys, in order; '' for an unpartitioned asset.
    """

    keys: tuple[str, ...]

    def tags(self) -> dict[str, str]:
        """Return the tags by which Dagster knows the partitions of a run; none for an unpartitioned asset."""
        if self.keys == ("",):
            return {}
        return {START_TAG: self.keys[0], END_TAG: self.keys[-1]}


def partition_ranges(
    partitions_def: dg.PartitionsDefinition | None, chosen: Collection[str], *, keys: Sequence[str], most: int
) -> list[PartitionRange]:
    """Cut partitions into ranges that contain no other partition, in the order that Dagster keeps.

    Args:
        partitions_def: The partitions of the assets.
        chosen: The partitions.
        keys: All partition keys, in Dagster's order.
        most: Most partitions of one range.

    Examples:
        >>> found = partition_ranges(None, {"a", "b", "d"}, keys=["a", "b", "c", "d"], most=100)
        >>> [each.keys for each in found]
        [('a', 'b'), ('d',)]
    """
    if keys == [""]:
        return [PartitionRange(("",))] if "" in chosen else []
    wanted = set(chosen)
    found: list[PartitionRange] = []
    for line in _lines(partitions_def, keys):
        for is_chosen, group in groupby(line, key=wanted.__contains__):
            if is_chosen:
                found += [PartitionRange(tuple(part)) for part in chunks(group, most)]
    return found


def _lines(partitions_def: dg.PartitionsDefinition | None, keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the keys in lists of which every section is a range: of several dimensions, a range is a rectangle."""
    if not isinstance(partitions_def, dg.MultiPartitionsDefinition):
        yield keys
        return
    lines: dict[tuple[str, ...], list[str]] = {}
    for key in keys:
        _, *others = key.split("|")
        lines.setdefault(tuple(others), []).append(key)
    yield from lines.values()


def partition_keys(instance: dg.DagsterInstance, partitions_def: dg.PartitionsDefinition | None) -> Sequence[str]:
    """Return all partition keys in Dagster's order; [''] for an unpartitioned asset."""
    if partitions_def is None:
        return [""]
    return list(partitions_def.get_partition_keys(dynamic_partitions_store=instance))


def run_request(
    part: PartitionRange, *, kind: RunKind, run_key: str, tags: Mapping[str, str] | None = None
) -> dg.RunRequest:
    """Return the request of a run that submits or collects a range."""
    return dg.RunRequest(run_key=run_key, tags={**(tags or {}), RUN_KIND_TAG: kind, **part.tags()})


def partitions_of_runs(runs: Iterable[dg.DagsterRun], *, keys: Sequence[str]) -> set[str]:
    """Return the partitions that some runs work on, by their tags."""
    found: set[str] = set()
    position: dict[str, int] = {}
    for run in runs:
        start, end = run.tags.get(START_TAG), run.tags.get(END_TAG)
        if start is not None and end is not None:
            position = position or {key: index for index, key in enumerate(keys)}
            if start in position and end in position:
                found.update(keys[position[start] : position[end] + 1])
        elif (key := run.tags.get(PARTITION_TAG)) is not None:
            found.add(key)
    return found
