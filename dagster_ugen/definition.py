# SPDX-License-Identifier: Apache-2.0
"""The definition of video assets: their outputs and specs, what they order, and the options.

It executes nothing and imports neither the HTTP client nor the ledger; every other module of the package builds on it.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from dagster_ugen.requests import AssetRequests, Requests

if TYPE_CHECKING:
    from ugen_provider.core.api.config import Spending
    from ugen_provider.core.jobs.order import OrderKey
    from ugen_provider.core.jobs.policy import PurchasePolicy

REGENERATE_TAG = "ugen/regenerate"
EACH_RUN = "each run"
"""A value of the tag `ugen/regenerate`: every run buys another video, and a retry of the run does not."""

DECISION_TAG = "ugen/decision"
"""A tag of runs of the approval: `approve` or `reject`."""

ON_CHANGED_TAG = "ugen/on_changed"
"""A tag of runs: `regenerate` buys another video of each partition whose request differs from the recorded one."""

ORDER_NAME = "ugen/order_name"
"""Definition metadata of the asset whose partitions are the orders. A renamed asset is recognized by it."""

BUDGET_TAG = "ugen/budget"
"""A tag of runs that a sensor requests: the credits that the runs of its logical run may reserve together."""

BUDGET_RUN_TAG = "ugen/budget_run"
"""A tag of runs: the logical run whose budget they share."""

Phase = Literal["whole", "anchor", "rest"]
"""`whole` without a gate; with one, `anchor` stops at it and `rest` passes it."""


class UGenRunConfig(dg.Config):
    """Configuration of one run, in the launchpad or in run config."""

    regenerate: str | None = None
    """Buy another video although there is one: each new value buys once, the same value again buys nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UGenGate:
    """How keyframes are approved before the rest of a video is made.

    Args:
        approve_score: Quality score of the keyframe, 0 to 1, from which it is approved without a person; None leaves
            every approval to a person.
        max_open_gates: Most jobs that await approval at a time. Each holds its credits, and perhaps a job slot of the
            account, so keep it below the account's limit. They are counted over all runs before each keyframe is
            bought; two runs that buy in the same moment may still exceed it by one, unless `pool` lets one anchor run
            at a time. None sets no limit.
        expires_after: Seconds after which the reconcile sensor cancels a job that was not decided on.
    """

    approve_score: float | None = None
    max_open_gates: int | None = 10
    expires_after: float | None = None


class Output(Enum):
    """An output of a job, each an asset of its own.

    A job makes all its keyframes and segments together: to select some assets selects what is recorded, never what is
    bought.
    """

    ANCHOR_KEYFRAME = "anchor_keyframe"
    """The first keyframe, which every later one follows; an asset only where a gate is on."""
    APPROVAL = "keyframe_approval"
    """The approval of that keyframe; no file, and an asset only where a gate is on."""
    KEYFRAMES = "keyframes"
    VIDEOS = "videos"
    """The segments."""
    FINAL_VIDEO = "final_video"

    @property
    def upstream(self) -> "Output | None":
        """The output of the same job that it is made from, None for the first."""
        return {
            Output.APPROVAL: Output.ANCHOR_KEYFRAME,
            Output.VIDEOS: Output.KEYFRAMES,
            Output.FINAL_VIDEO: Output.VIDEOS,
        }.get(self)


JOB_OUTPUTS = (Output.KEYFRAMES, Output.VIDEOS, Output.FINAL_VIDEO)
"""The outputs that one run of the multi-asset records, each after the one that it is made from."""


_DESCRIPTIONS: Mapping[Output, str] = {
    Output.ANCHOR_KEYFRAME: "The first keyframe of the video, which every later one follows.",
    Output.APPROVAL: "Approval of the keyframe, by a person or a score. To materialize it alone approves.",
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
    """The values that a spec is made from.

    Args:
        output: Which output of the job it is.
        key_prefix: Prefix of the asset's key.
        group_name: The group that was asked for.
        owners: The owners that were asked for.
        tags: The tags that were asked for.
        deps: What the assets depend on beside one another.
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
        """Return the spec of one output. Its dependencies on outputs of the same job are added afterwards.

        Args:
            props: The values that it is made from.
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


OnInterrupt = Literal["cancel", "pause", "detach"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UGenOptions:
    """Options of the jobs behind the assets.

    Args:
        on_earlier_failure: For a job that failed for a reason that a repeat can help: `retry_stage` runs it again from
            the failed stage, `resubmit` buys another one, `fail` fails.
        max_stage_retries: Stage retries in all, over all runs.
        on_paused: For a job that another user paused: `wait` until it is resumed, or `fail`.
        on_interrupt: When a person terminates the run: `cancel` the jobs, `pause` them for the next run, or `detach`.
            A signal to the process, such as from a lost pod, always detaches.
        on_final_failure: When a partition fails for good while its job runs, such as after `timeout` in the last retry:
            `collect` lets the reconcile sensor store the result when the job ends, `cancel` cancels the job.
        max_credits: Most credits that one job may reserve; a more expensive one is not bought.
        timeout: Seconds that a job may take, without the wait for a slot or for a person. Then the partition fails and
            the job keeps running; the next run resumes waiting for it. None waits without limit.
        queue_timeout: Seconds to wait while the account's job limit is reached; None waits without limit.
        min_score: Lowest quality score, 0 to 1, that counts as good.
        on_low_quality: For a job below `min_score`: `warn` in the metadata, or `fail`.
        interrupt_grace: Seconds in which an interrupted run cancels, pauses or leaves its jobs.
    """

    on_earlier_failure: Literal["retry_stage", "resubmit", "fail"] = "retry_stage"
    max_stage_retries: int = 2
    on_paused: Literal["wait", "fail"] = "wait"
    on_interrupt: OnInterrupt = "cancel"
    on_final_failure: Literal["collect", "cancel"] = "collect"
    max_credits: int | None = None
    timeout: float | None = None
    queue_timeout: float | None = None
    min_score: float | None = None
    on_low_quality: Literal["warn", "fail"] = "warn"
    interrupt_grace: float = 25.0

    def policy(self, *, spending: "Spending", max_credits: int | None, regenerate: str | None) -> "PurchasePolicy":
        """Return these choices as the purchase protocol takes them.

        Args:
            spending: Whether anything is bought.
            max_credits: The account's limit for one job, where these choices have none.
            regenerate: The value that asks for another purchase.
        """
        from ugen_provider.core.jobs.policy import PurchasePolicy

        return PurchasePolicy(
            on_earlier_failure=self.on_earlier_failure,
            max_stage_retries=self.max_stage_retries,
            on_paused=self.on_paused,
            spending=spending,
            regenerate=regenerate,
            max_credits=max_credits if self.max_credits is None else self.max_credits,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoDefinition:
    """The assets over one job per partition, and what they order. `UGenVideoAssets` adds the bodies.

    Args:
        requests: What is ordered for each partition.
        destination: Where results are stored: a folder or any fsspec URL. None leaves them with the service.
        options: The choices that the purchase protocol leaves to you.
        gate: Whether, and how, a keyframe is approved before the rest is made; None makes everything at once.
        props: The values that all its specs are made from; `output` is set for each.
        translator: Makes the specs.
        order_name: Name under which purchases are recorded. Default: the key of the final video's asset. Set it to the
            old key when you rename the asset or change its prefix, so that its videos are kept.
    """

    requests: Requests
    destination: str | None = None
    options: UGenOptions = field(default_factory=UGenOptions)
    gate: UGenGate | None = None
    props: UGenAssetProps = field(default_factory=lambda: UGenAssetProps(output=Output.FINAL_VIDEO))
    translator: DagsterUGenTranslator = field(default_factory=DagsterUGenTranslator)
    order_name: str | None = None

    def key_of(self, output: Output) -> dg.AssetKey:
        """Return the asset key of an output."""
        return self.translator.get_asset_spec(replace(self.props, output=output)).key

    @property
    def order_asset(self) -> dg.AssetKey:
        """The asset whose partitions are the orders, and whose observations show the purchases: the final video."""
        return self.key_of(Output.FINAL_VIDEO)

    @property
    def resolved_order_name(self) -> str:
        """The given `order_name`, or its default."""
        return self.order_name or self.order_asset.to_user_string()

    def order_of(self, partition: str, *, namespace: str) -> "OrderKey":
        """Return the order's key of a partition; '' for an unpartitioned asset."""
        from ugen_provider.core.jobs.order import partition_key

        return partition_key(asset=self.resolved_order_name, partition=partition, namespace=namespace)

    def specs(self) -> list[dg.AssetSpec]:
        """Return the specs of the outputs of one job, each of which depends on the one before."""
        return [self._spec(output) for output in JOB_OUTPUTS]

    def gate_specs(self) -> tuple[dg.AssetSpec, dg.AssetSpec]:
        """Return the specs of the anchor keyframe and of its approval."""
        return self._spec(Output.ANCHOR_KEYFRAME), self._spec(Output.APPROVAL)

    def upstream_keys(self, output: Output) -> list[dg.AssetKey]:
        """Return the keys of the assets that an output depends on."""
        return [dep.asset_key for dep in self._spec(output).deps]

    def _spec(self, output: Output) -> dg.AssetSpec:
        gated = self.gate is not None and output in JOB_OUTPUTS
        automatic = self.props.automation_condition if self.gate is None or gated else None
        props = replace(self.props, output=output, automation_condition=automatic)
        if isinstance(self.requests, AssetRequests):
            props = replace(props, deps=[*props.deps, dg.AssetDep(self.requests.key)])
        if self.gate is not None and output is not Output.ANCHOR_KEYFRAME:
            props = replace(props, deps=())  # what the user's deps are for happens before the gate
        spec = self.translator.get_asset_spec(props)
        before = [output.upstream, Output.APPROVAL if gated else None]
        deps = [dg.AssetDep(self.key_of(each)) for each in before if each is not None]
        name = {ORDER_NAME: self.resolved_order_name} if output is Output.FINAL_VIDEO else {}
        return spec.replace_attributes(
            deps=[*spec.deps, *deps], skippable=True, metadata={**(spec.metadata or {}), **name}
        )


def order_parts(record_key: str) -> tuple[str, str, str] | None:
    """Return namespace, order name and partition of a record's key; None where it is no order of a partition.

    Examples:
        >>> order_parts('["","partition","final_video","lamp"]@loopback:8000')
        ('', 'final_video', 'lamp')
    """
    text, bracket, _ = record_key.rpartition("]")
    try:
        match json.loads(text + bracket):
            case [str(namespace), "partition", str(name), str(partition)]:
                return namespace, name, partition
            case _:
                return None
    except ValueError:
        return None


def require_shares(**given: float | None) -> None:
    """Refuse a share that is not from 0 to 1.

    Raises:
        ValueError: It names the option.
    """
    for name, share in given.items():
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"{name}: must be from 0 to 1, got {share}")


def partitions_of(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Sequence[str]:
    """Return the partitions of a run; [''] for assets without any."""
    if not context.has_partition_key and not context.has_partition_key_range:
        return [""]
    return list(context.partition_keys)


@contextmanager
def no_beta_warnings() -> Iterator[None]:
    """Silence Dagster's beta warnings about backfill policies and partitioned checks, which the user did not choose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        yield


# Automation conditions. Nothing uses one by itself: it runs only if you ask for it.

Condition = dg.AutomationCondition[Any]


def after_approval() -> Condition:
    """For `build_ugen_assets(gate=…)`: continues a partition as soon as its keyframe is approved, and only then.

    It spends the credits that the approval released: the rest of the job whose keyframe was approved.
    """
    return dg.AutomationCondition.eager().with_label("ugen_after_approval")


def for_new_products() -> Condition:
    """Materialize a partition that was never made, once. It spends the credits of one job for each new product."""
    return dg.AutomationCondition.on_missing().with_label("ugen_for_new_products")


def when_out_of_date() -> Condition:
    """Brings what hangs on a video up to date when the video was made again. For your own assets; buys nothing."""
    return dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed()).with_label(
        "ugen_when_out_of_date"
    )
