# SPDX-License-Identifier: Apache-2.0
"""How a job's outputs become asset specs; override it to name and describe them your way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dagster_ugen.outputs import Output

_DESCRIPTIONS: Mapping[Output, str] = {
    Output.ANCHOR_KEYFRAME: "The look of the video: the keyframe that every later one follows.",
    Output.APPROVAL: "A yes to the look, by a person or a score. Materializing it alone approves.",
    Output.KEYFRAMES: "The keyframe pictures of the video, with their quality scores.",
    Output.VIDEOS: "The segments of the video, each made between two keyframes.",
    Output.FINAL_VIDEO: "The finished video, with sound and captions, in your own storage.",
}
_KINDS: Mapping[Output, str] = {
    Output.ANCHOR_KEYFRAME: "image",
    Output.APPROVAL: "approval",
    Output.KEYFRAMES: "image",
    Output.VIDEOS: "video",
    Output.FINAL_VIDEO: "video",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UGenAssetProps:
    """What a spec is made from.

    Args:
        output: Which output of the job it is.
        key_prefix: Prefix of the asset's key.
        group_name: The group that was asked for.
        owners: The owners that were asked for.
        tags: The tags that were asked for.
        deps: What the assets stand on beside one another.
        code_version: The code version that was asked for.
        partitions_def: The partitions.
        automation_condition: The condition that was asked for; None spends nothing by itself.
        metadata: Definition metadata that was asked for.
    """

    output: Output
    key_prefix: Sequence[str] = ()
    group_name: str | None = None
    owners: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    deps: Sequence[dg.AssetDep] = ()
    code_version: str | None = None
    partitions_def: dg.PartitionsDefinition | None = None
    automation_condition: dg.AutomationCondition[Any] | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)


class DagsterUGenTranslator:
    """Makes the asset spec of an output.

    Examples:
        ```python
        class InGerman(DagsterUGenTranslator):
            def get_asset_spec(self, props: UGenAssetProps) -> dg.AssetSpec:
                spec = super().get_asset_spec(props)
                return spec.replace_attributes(description="Das fertige Video")
        ```
    """

    def get_asset_spec(self, props: UGenAssetProps) -> dg.AssetSpec:
        """The spec of one output. What it stands on in the same job is added afterwards.

        Args:
            props: What is known of it.
        """
        return dg.AssetSpec(
            key=dg.AssetKey([*props.key_prefix, props.output.value]),
            deps=list(props.deps),
            description=_DESCRIPTIONS[props.output],
            group_name=props.group_name,
            owners=list(props.owners),
            tags=dict(props.tags),
            kinds={"ugen", _KINDS[props.output]},
            code_version=props.code_version,
            partitions_def=props.partitions_def,
            automation_condition=props.automation_condition,
            metadata=dict(props.metadata),
            skippable=True,
        )
