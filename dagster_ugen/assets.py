# SPDX-License-Identifier: Apache-2.0
"""The multi-asset over one job: `build_ugen_assets`, `@ugen_assets`, and `UGenVideos` behind both."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import dagster as dg

from dagster_ugen._compat import ALREADY_LOGGED
from dagster_ugen.failing import failure_of
from dagster_ugen.gate import UGenApprovalConfig, UGenGate
from dagster_ugen.options import UGenOptions
from dagster_ugen.outputs import MADE_TOGETHER, Output
from dagster_ugen.requests import FeedRequests, Requests, as_requests
from dagster_ugen.resource import UGenResource, bound
from dagster_ugen.translator import DagsterUGenTranslator, UGenAssetProps

Execute = Callable[..., Iterator[Any]]
"""A body of your own: takes the context, the resource and `regenerate=`, and gives what Dagster takes of an asset."""

REGENERATE_TAG = "ugen/regenerate"
PARTITIONS_PER_RUN = 25


class UGenRunConfig(dg.Config):
    """What may be said for one run, in the launchpad or in run config."""

    regenerate: str | None = None
    """Buy again although there is a job already: each new value buys once, the same value again buys nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UGenVideos:
    """One multi-asset over one job: its assets, what it orders, and what it does in a run.

    `build_ugen_assets` makes it for you; build it yourself to write the asset's body on your own.

    Args:
        requests: What is ordered for each partition.
        destination: Where results are stored: a folder or any fsspec URL. None leaves them with the service.
        options: The choices that the money protocol leaves to you.
        gate: Whether, and how, a look is approved before the rest is made; None makes everything at once.
        props: What all its specs are made from; `output` is set for each.
        translator: Makes the specs.

    Examples:
        ```python
        videos = UGenVideos(requests=as_requests(my_request), destination="s3://videos/")

        @dg.multi_asset(specs=videos.specs(), can_subset=True)
        def my_videos(context: dg.AssetExecutionContext, ugen: UGenResource):
            context.log.info("here we go")
            yield from videos.materialize(context, ugen)
        ```
    """

    requests: Requests
    destination: str | None = None
    options: UGenOptions = field(default_factory=UGenOptions)
    gate: UGenGate | None = None
    props: UGenAssetProps = field(default_factory=lambda: UGenAssetProps(output=Output.FINAL_VIDEO))
    translator: DagsterUGenTranslator = field(default_factory=DagsterUGenTranslator)

    def key_of(self, output: Output) -> dg.AssetKey:
        """The asset key of an output."""
        return self.translator.get_asset_spec(replace(self.props, output=output)).key

    @property
    def order_key(self) -> dg.AssetKey:
        """The asset whose partitions are the orders, and whose observations hold what was bought: the final video."""
        return self.key_of(Output.FINAL_VIDEO)

    def specs(self) -> list[dg.AssetSpec]:
        """The specs of everything that is made together, each standing on the one before."""
        return [self._spec(output) for output in MADE_TOGETHER]

    def gate_specs(self) -> tuple[dg.AssetSpec, dg.AssetSpec]:
        """The specs of the anchor keyframe and of its approval."""
        return self._spec(Output.ANCHOR_KEYFRAME), self._spec(Output.APPROVAL)

    def _spec(self, output: Output) -> dg.AssetSpec:
        gated = self.gate is not None and output in MADE_TOGETHER
        automatic = self.props.automation_condition if self.gate is None or gated else None
        props = replace(self.props, output=output, automation_condition=automatic)
        if self.gate is not None and output is not Output.ANCHOR_KEYFRAME:
            props = replace(props, deps=())  # what the user's deps are for happens before the gate
        spec = self.translator.get_asset_spec(props)
        before = [output.stands_on, Output.APPROVAL if gated else None]
        deps = [dg.AssetDep(self.key_of(each)) for each in before if each is not None]
        return spec.replace_attributes(deps=[*spec.deps, *deps], skippable=True)

    def deps_of(self, output: Output) -> list[dg.AssetKey]:
        """The keys of what an output stands on."""
        return [dep.asset_key for dep in self._spec(output).deps]

    def materialize(
        self, context: dg.AssetExecutionContext, ugen: UGenResource, *, regenerate: str | None = None
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """The asset's body: make each partition's job ours, wait, store, and record what was selected.

        Each partition is recorded when it is done, and kept whatever becomes of the others. Costs the credits of one
        job for each partition that was never bought, and none for the others.

        Args:
            context: The asset's context.
            ugen: The account.
            regenerate: Buy again although there is a job; each new value buys once. The run's tag `ugen/regenerate`
                says the same.

        Raises:
            Failure: Partitions failed; it names them with their reasons, and the others are recorded.
        """
        phase: Literal["whole", "rest"] = "whole" if self.gate is None else "rest"
        yield from self._work(context, ugen, phase=phase, outputs=MADE_TOGETHER, regenerate=regenerate)

    def materialize_anchor(
        self, context: dg.AssetExecutionContext, ugen: UGenResource, *, regenerate: str | None = None
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """The anchor keyframe's body: buy each partition's job, stop it at the gate, and record its look.

        A job holds the credits of the whole video while it waits at the gate.

        Args:
            context: The asset's context.
            ugen: The account.
            regenerate: Buy another look; each new value buys once.

        Raises:
            Failure: Partitions failed, or `max_open_gates` is reached.
        """
        yield from self._work(context, ugen, phase="anchor", outputs=(Output.ANCHOR_KEYFRAME,), regenerate=regenerate)

    def decide(
        self, context: dg.AssetExecutionContext, ugen: UGenResource, config: UGenApprovalConfig
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """The approval's body: record a yes, or cancel the job. Costs nothing; what hangs on it may go on then.

        Args:
            context: The asset's context.
            ugen: The account.
            config: What was decided.

        Raises:
            Failure: There is no look to decide on.
        """
        from dagster_ugen.deciding import decide

        yield from decide(self, context, ugen, config)

    def _work(
        self,
        context: dg.AssetExecutionContext,
        ugen: UGenResource,
        *,
        phase: Literal["whole", "anchor", "rest"],
        outputs: Sequence[Output],
        regenerate: str | None,
    ) -> Iterator[dg.MaterializeResult[Any]]:
        from dagster_ugen.running import run_partitions

        failed = run_partitions(self, context, ugen, phase=phase, outputs=outputs, regenerate=regenerate)
        if failed:
            raise failure_of(failed, of=len(partitions_of(context)))
        for output in outputs:
            key = self.key_of(output)
            if key in context.selected_asset_keys:
                yield dg.MaterializeResult(asset_key=key, metadata=ALREADY_LOGGED)


def build_ugen_assets(
    *,
    requests: Requests | Callable[[str], Any] | Mapping[str, Any],
    destination: str | None = None,
    partitions_def: dg.PartitionsDefinition | None = None,
    resource: UGenResource | None = None,
    options: UGenOptions | None = None,
    gate: UGenGate | None = None,
    name: str | None = None,
    key_prefix: Sequence[str] | str = (),
    group_name: str | None = None,
    owners: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    deps: Sequence[Any] = (),
    code_version: str | None = None,
    automation_condition: dg.AutomationCondition[Any] | None = None,
    backfill_policy: dg.BackfillPolicy | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    translator: DagsterUGenTranslator | None = None,
) -> list[dg.AssetsDefinition]:
    """The assets `keyframes`, `videos` and `final_video` over one U-Gen job per partition.

    Materializing a partition for the first time costs the credits of one job; again, or in part, it costs nothing.

    Args:
        requests: What is ordered: `FeedRequests`, a function that takes the partition key and gives the create-job
            fields, or one mapping for an asset without partitions.
        destination: Where results are stored: a folder or any fsspec URL. None leaves them with the service.
        partitions_def: One partition per product, such as `dg.DynamicPartitionsDefinition(name="ugen_products")`.
        resource: The account; else the resource `ugen` of the definitions.
        options: The choices that the money protocol leaves to you.
        gate: With one, `anchor_keyframe` and `keyframe_approval` come first, and the rest goes on only with a yes.
        name: Name of the op; made from the key prefix where not given.
        key_prefix: Prefix of the asset keys.
        group_name: Their group.
        owners: Their owners.
        tags: Their tags.
        deps: What they stand on.
        code_version: Their code version.
        automation_condition: None, the default, spends nothing by itself.
        backfill_policy: How a backfill is cut into runs; 25 partitions a run where not given.
        retry_policy: Dagster's own retries; they cost nothing, and never come for what a retry cannot mend.
        pool: A concurrency pool.
        translator: Names and describes the assets your way.

    Examples:
        ```python
        assets = build_ugen_assets(
            requests=FeedRequests("feed.xml", job_defaults={"segment_count": 3}),
            partitions_def=dg.DynamicPartitionsDefinition(name="ugen_products"),
            destination="s3://my-bucket/videos",
        )
        ```
    """
    prefix = [key_prefix] if isinstance(key_prefix, str) else list(key_prefix)
    props = UGenAssetProps(
        output=Output.FINAL_VIDEO,
        key_prefix=prefix,
        group_name=group_name,
        owners=owners,
        tags=tags or {},
        deps=[dg.AssetDep(dep) for dep in deps],
        code_version=code_version,
        partitions_def=partitions_def,
        automation_condition=automation_condition,
    )
    videos = UGenVideos(
        requests=as_requests(requests),
        destination=destination,
        options=options or UGenOptions(),
        gate=gate,
        props=props,
        translator=translator or DagsterUGenTranslator(),
    )

    return assets_of(
        videos,
        name=name or "_".join([*prefix, "ugen_videos"]),
        resource=resource,
        backfill_policy=backfill_policy,
        retry_policy=retry_policy,
        pool=pool,
    )


def assets_of(
    videos: UGenVideos,
    *,
    name: str = "ugen_videos",
    resource: UGenResource | None = None,
    backfill_policy: dg.BackfillPolicy | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    execute: Execute | None = None,
) -> list[dg.AssetsDefinition]:
    """The assets of a `UGenVideos` that you keep at hand, for instance to approve looks from code.

    Args:
        videos: What they are.
        name: Name of the op.
        resource: The account; else the resource `ugen` of the definitions.
        backfill_policy: How a backfill is cut into runs; 25 partitions a run where not given.
        retry_policy: Dagster's own retries.
        pool: A concurrency pool.
        execute: The body instead of `videos.materialize`.

    Raises:
        DagsterInvalidDefinitionError: A feed is to be ordered from, and there are no partitions.
    """
    partitions_def = videos.props.partitions_def
    if partitions_def is None and isinstance(videos.requests, FeedRequests):
        raise dg.DagsterInvalidDefinitionError(
            f"{name}: each product of a feed is a partition; say "
            'partitions_def=dg.DynamicPartitionsDefinition(name="ugen_products")'
        )
    if backfill_policy is None and partitions_def is not None:
        backfill_policy = dg.BackfillPolicy.multi_run(PARTITIONS_PER_RUN)
    run_body = execute or videos.materialize

    def body(
        context: dg.AssetExecutionContext, config: UGenRunConfig, ugen: UGenResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        yield from run_body(context, ugen, regenerate=config.regenerate)

    def anchor(
        context: dg.AssetExecutionContext, config: UGenRunConfig, ugen: UGenResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        yield from videos.materialize_anchor(context, ugen, regenerate=config.regenerate)

    def approval(
        context: dg.AssetExecutionContext, config: UGenApprovalConfig, ugen: UGenResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        yield from videos.decide(context, ugen, config)

    def made(specs: Sequence[dg.AssetSpec], op_name: str, function: Callable[..., Any]) -> dg.AssetsDefinition:
        with no_beta_warnings():
            return dg.multi_asset(
                specs=specs,
                name=op_name,
                can_subset=len(specs) > 1,
                partitions_def=partitions_def,
                backfill_policy=backfill_policy,
                retry_policy=retry_policy,
                pool=pool,
            )(bound(function, resource))

    whole = made(videos.specs(), name, body)
    if videos.gate is None:
        return [whole]
    anchor_spec, approval_spec = videos.gate_specs()
    return [made([anchor_spec], f"{name}_anchor", anchor), made([approval_spec], f"{name}_approval", approval), whole]


def ugen_assets(
    *,
    destination: str | None = None,
    partitions_def: dg.PartitionsDefinition | None = None,
    resource: UGenResource | None = None,
    options: UGenOptions | None = None,
    key_prefix: Sequence[str] | str = (),
    group_name: str | None = None,
    owners: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    deps: Sequence[Any] = (),
    code_version: str | None = None,
    automation_condition: dg.AutomationCondition[Any] | None = None,
    backfill_policy: dg.BackfillPolicy | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    translator: DagsterUGenTranslator | None = None,
) -> Callable[[Callable[[str], Any]], dg.AssetsDefinition]:
    """Make a function that says what to order into the assets `keyframes`, `videos` and `final_video`.

    The function takes the partition key ('' without partitions) and gives the create-job fields; its name becomes the
    op's. All arguments are those of `build_ugen_assets`.

    Examples:
        ```python
        @ugen_assets(partitions_def=dg.StaticPartitionsDefinition(["lamp", "mug"]), destination="videos")
        def shop_videos(product: str) -> dict[str, object]:
            picture = f"https://shop.example/{product}.jpg"
            return {"product_name": product.title(), "product_image_url": picture, "segment_count": 2}
        ```
    """

    def decorate(function: Callable[[str], Any]) -> dg.AssetsDefinition:
        return build_ugen_assets(
            requests=function,
            destination=destination,
            partitions_def=partitions_def,
            resource=resource,
            options=options,
            name=function.__name__,
            key_prefix=key_prefix,
            group_name=group_name,
            owners=owners,
            tags=tags,
            deps=deps,
            code_version=code_version,
            automation_condition=automation_condition,
            backfill_policy=backfill_policy,
            retry_policy=retry_policy,
            pool=pool,
            translator=translator,
        )[0]

    return decorate


def partitions_of(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Sequence[str]:
    """The partitions of a run; [''] for assets without any."""
    if not context.has_partition_key and not context.has_partition_key_range:
        return [""]
    return list(context.partition_keys)


@contextmanager
def no_beta_warnings() -> Iterator[None]:
    """Backfill policies are beta in Dagster; whoever uses this package did not choose them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        yield
