# SPDX-License-Identifier: Apache-2.0
"""The multi-asset over one job: `build_ugen_assets`, `@ugen_assets`, and `UGenVideoAssets` behind both."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_ugen._compat import ALREADY_LOGGED, loaded_by, run_of, with_resource
from dagster_ugen.approval import UGenApprovalConfig, run_approval
from dagster_ugen.definition import (
    JOB_OUTPUTS,
    DagsterUGenTranslator,
    Output,
    Phase,
    UGenAssetProps,
    UGenGate,
    UGenOptions,
    UGenRunConfig,
    VideoDefinition,
    no_beta_warnings,
)
from dagster_ugen.requests import AssetRequests, FeedRequests, Requests, as_requests
from dagster_ugen.resource import UGenResource, bound
from dagster_ugen.results import (
    VIDEO_IO_MANAGER,
    FailedPartition,
    InProgress,
    Result,
    Succeeded,
    failure_of,
    is_retryable,
    video_io_manager,
)

if TYPE_CHECKING:
    from dagster_ugen.account import Account

Execute = Callable[..., Iterator[Any]]
"""A body of the user's own: it takes the context, the resource and `regenerate=`, and yields asset results."""

PARTITIONS_PER_RUN = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class UGenVideoAssets(VideoDefinition):
    """One multi-asset over one job per partition: its assets, what it orders, and what a run does.

    `build_ugen_assets` makes it for you; build it yourself to write the asset's body on your own. The arguments are
    those of `VideoDefinition`.

    Examples:
        ```python
        videos = UGenVideoAssets(requests=as_requests(my_request), destination="s3://videos/")

        @dg.multi_asset(specs=videos.specs(), can_subset=True)
        def my_videos(context: dg.AssetExecutionContext, ugen: UGenResource):
            context.log.info("starting")
            yield from videos.materialize(context, ugen)
        ```
    """

    def materialize(
        self, context: dg.AssetExecutionContext, ugen: UGenResource, *, regenerate: str | None = None
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """Run the assets' body: purchase each partition's job or find it, wait, store, and record what is selected.

        Each partition is recorded when it is complete, and kept if others fail. Costs the credits of one job for each
        partition that was never bought, and none for the others.

        Args:
            context: The asset's context.
            ugen: The account.
            regenerate: Buy another video; each new value buys once. The run's tag `ugen/regenerate` does the same.

        Raises:
            Failure: Partitions failed; it names them with the reasons, and the others are recorded.
        """
        phase: Phase = "whole" if self.gate is None else "rest"
        yield from self._run(context, ugen, phase=phase, outputs=JOB_OUTPUTS, regenerate=regenerate)

    def materialize_anchor(
        self, context: dg.AssetExecutionContext, ugen: UGenResource, *, regenerate: str | None = None
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """Run the anchor keyframe's body: purchase each partition's job, stop it at the gate, record its keyframe.

        A job holds the credits of the whole video while it awaits approval.

        Args:
            context: The asset's context.
            ugen: The account.
            regenerate: Buy another keyframe; each new value buys once.

        Raises:
            Failure: Partitions failed, or `max_open_gates` is reached.
        """
        yield from self._run(context, ugen, phase="anchor", outputs=(Output.ANCHOR_KEYFRAME,), regenerate=regenerate)

    def decide(
        self, context: dg.AssetExecutionContext, ugen: UGenResource, config: UGenApprovalConfig
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """Run the approval's body: record an approval, or cancel the job. Free.

        Args:
            context: The asset's context.
            ugen: The account.
            config: The decision.

        Raises:
            Failure: There is no keyframe to decide on.
        """
        with _account_of_run(ugen, context) as account:
            yield from run_approval(self, context, account, config)

    def _run(
        self,
        context: dg.AssetExecutionContext,
        ugen: UGenResource,
        *,
        phase: Phase,
        outputs: Sequence[Output],
        regenerate: str | None,
    ) -> Iterator[dg.MaterializeResult[Any]]:
        from dagster_ugen.execution import run_partitions
        from dagster_ugen.results import describe, version_of

        with _account_of_run(ugen, context) as account:
            results = run_partitions(self, context, account, phase=phase, outputs=outputs, regenerate=regenerate)
        failed = [result for result in results if isinstance(result, FailedPartition)]
        recorded = sum(isinstance(result, Succeeded) for result in results)
        _log_in_progress(context, results)
        if failed:
            raise failure_of(failed, of=len(results))
        if not recorded:
            return  # a run that only submitted: without an output, Dagster skips the checks and what hangs on it
        for output in outputs:
            key = self.key_of(output)
            if key not in context.selected_asset_keys:
                continue
            if len(results) > 1:  # each partition was recorded when it was complete
                yield dg.MaterializeResult(asset_key=key, metadata=ALREADY_LOGGED)
                continue
            for result in results:
                if isinstance(result, Succeeded):
                    version = dg.DataVersion(version_of(output, result))
                    yield dg.MaterializeResult(asset_key=key, metadata=describe(output, result), data_version=version)


def _log_in_progress(context: dg.AssetExecutionContext, results: "Sequence[Result]") -> None:
    """Log what a run leaves to a later one, in one line: each line is a row of the event log."""
    left = [result for result in results if isinstance(result, InProgress)]
    if left:
        reasons = Counter(each.why.partition(" (")[0] for each in left)
        listed = ", ".join(f"{count} {why}" for why, count in reasons.most_common())
        context.log.info("%d of %d jobs are left to a collect run: %s", len(left), len(results), listed)


@contextmanager
def _account_of_run(ugen: UGenResource, context: dg.AssetExecutionContext) -> "Iterator[Account]":
    """Open the account of a run.

    Raises:
        Failure: A setting is wrong, or the ledger cannot be opened.
    """
    from ugen_provider.core.api.errors import UGenError

    try:
        with ugen.open_account(context.instance, run=run_of(context)) as account:
            yield account
    except UGenError as error:
        raise dg.Failure(str(error), allow_retries=is_retryable(error)) from error


def build_ugen_assets(
    *,
    requests: Requests | Callable[[str], Any] | Mapping[str, Any],
    destination: str | None = None,
    partitions_def: dg.PartitionsDefinition | None = None,
    resource: UGenResource | None = None,
    options: UGenOptions | None = None,
    gate: UGenGate | None = None,
    order_name: str | None = None,
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
    """Build the assets `keyframes`, `videos` and `final_video` over one U-Gen job per partition.

    To materialize a partition for the first time costs the credits of one job; again, or in part, it costs nothing.

    Args:
        requests: What is ordered: `FeedRequests`, `AssetRequests` for the rows of an upstream asset, a function that
            takes the partition key and returns the create-job fields, or one mapping for an asset without partitions.
        destination: Where results are stored: a folder or any fsspec URL. None leaves them with the service.
        partitions_def: One partition per product, such as `dg.DynamicPartitionsDefinition(name="ugen_products")`.
        resource: The account; default the resource `ugen` of the definitions.
        options: The choices that the purchase protocol leaves to you.
        gate: With one, `anchor_keyframe` and `keyframe_approval` come first, and the rest runs only once approved.
        order_name: Name under which purchases are recorded; default the key of `final_video`. Set it to the old key
            when you rename the assets or change their prefix, so that their videos are kept.
        name: Name of the op; default made from the key prefix.
        key_prefix: Prefix of the asset keys.
        group_name: Their group.
        owners: Their owners.
        tags: Their tags.
        deps: The assets that they depend on.
        code_version: Their code version.
        automation_condition: None, the default, spends nothing automatically.
        backfill_policy: How a backfill is cut into runs; default 25 partitions a run.
        retry_policy: Dagster's own retries. They cost nothing, and are not used for errors that a retry cannot help.
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
    videos = UGenVideoAssets(
        requests=as_requests(requests),
        destination=destination,
        options=options or UGenOptions(),
        gate=gate,
        props=props,
        translator=translator or DagsterUGenTranslator(),
        order_name=order_name,
    )

    return build_assets_from_definition(
        videos,
        name=name or "_".join([*prefix, "ugen_videos"]),
        resource=resource,
        backfill_policy=backfill_policy,
        retry_policy=retry_policy,
        pool=pool,
    )


def build_assets_from_definition(
    videos: UGenVideoAssets,
    *,
    name: str = "ugen_videos",
    resource: UGenResource | None = None,
    backfill_policy: dg.BackfillPolicy | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    execute: Execute | None = None,
) -> list[dg.AssetsDefinition]:
    """Build the assets of a `UGenVideoAssets` that you keep, for instance to approve keyframes from code.

    Args:
        videos: The definition.
        name: Name of the op.
        resource: The account; default the resource `ugen` of the definitions.
        backfill_policy: How a backfill is cut into runs; default 25 partitions a run.
        retry_policy: Dagster's own retries.
        pool: A concurrency pool.
        execute: The body instead of `videos.materialize`.

    Raises:
        DagsterInvalidDefinitionError: Requests come from a feed, and there are no partitions.
    """
    partitions_def = videos.props.partitions_def
    if partitions_def is None and isinstance(videos.requests, FeedRequests | AssetRequests):
        raise dg.DagsterInvalidDefinitionError(
            f"{name}: each product of a feed is a partition; pass "
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

    specs = [loaded_by(spec, VIDEO_IO_MANAGER) for spec in videos.specs()]
    whole = with_resource(made(specs, name, body), VIDEO_IO_MANAGER, video_io_manager)
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
    order_name: str | None = None,
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
    """Turn a function that returns the request into the assets `keyframes`, `videos` and `final_video`.

    The function takes the partition key ('' without partitions) and returns the create-job fields; its name becomes
    the op's. All arguments are those of `build_ugen_assets`.

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
            order_name=order_name,
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
