# SPDX-License-Identifier: Apache-2.0
"""The multi-asset over one job: `build_ugen_assets`, `@ugen_assets`, and `UGenVideoAssets` behind both.

`build_ugen_export_asset` builds the asset after it: the videos in a shop's file or table.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_ugen._compat import ALREADY_LOGGED, loaded_by, run_of, with_resource
from dagster_ugen.approval import UGenApprovalConfig, run_approval
from dagster_ugen.asset_job import partition_keys
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
    require_shares,
)
from dagster_ugen.event_log import chunks
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
    recorded_videos,
    video_io_manager,
)

if TYPE_CHECKING:
    from dagster_ugen.account import Account
    from ugen_provider.core.batch.supplemental_feed import Export, ShopFormat
    from ugen_provider.core.ledger.store import Entry

Execute = Callable[..., Iterator[Any]]
"""A body of the user's own: it takes the context, the resource and `regenerate=`, and yields asset results."""

PARTITIONS_PER_RUN = 25
_NAMED = 20
"""Products that the log names."""


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


# Back to the shop.


class UGenExportConfig(dg.Config):
    """What a run of an export may be given in the launchpad.

    Args:
        allow_shrink: Whether, in this run, any number of products may lose their videos.
    """

    allow_shrink: bool = False


def build_ugen_export_asset(
    videos: VideoDefinition,
    *,
    to: str | dg.EnvVar,
    name: str = "video_export",
    format: "ShopFormat" = "google",  # noqa: A002  the usual word for it
    table: str = "ugen_video",
    stored_at: str | None = None,
    public_at: str | None = None,
    min_score: float | None = None,
    variant: str | None = None,
    variant_dimension: str | None = None,
    id_template: str = "{id}",
    max_gone: float = 0.2,
    allow_shrink: bool = False,
    key_prefix: Sequence[str] | str = (),
    group_name: str | None = None,
    automation_condition: dg.AutomationCondition[Any] | None = None,
) -> dg.AssetsDefinition:
    """Build an asset that writes which product has which video: a feed for a shop, JSONL, or a table. Free.

    It reads Dagster's event log and asks the service for nothing. A product is a partition that exists and whose
    `final_video` is recorded. The file, or the catalog's rows of the table, are replaced as a whole. The run fails and
    leaves them unchanged where there is no product to write, or where too many would lose their videos.

    Args:
        videos: The assets; each partition is a product.
        to: A path, the URL of an object store such as `s3://shop/videos.xml`, or a SQLAlchemy URL. `dg.EnvVar` keeps
            the password of a database out of the code.
        name: The asset's name. In a table, the order name of the videos is the catalog.
        format: `google` (a supplemental RSS feed; default), `tsv`, `meta`, `tiktok`, `pinterest` or `jsonl`.
        table: The table of a database. Default `ugen_video`.
        stored_at: Where outputs are stored. Default, with `public_at`: the `destination` of the videos.
        public_at: The URL under which that place is public.
        min_score: The lowest quality score, 0 to 1, that is shown.
        variant: The variant that a shop shows; default is the first that has a video.
        variant_dimension: Of partitions with two dimensions, the one that names the variant; the other is the product.
        id_template: The id under which the target knows a product, such as `shopify_DE_{id}`.
        max_gone: Share of the products in the file, 0 to 1, that may lose their videos. Default 0.2.
        allow_shrink: Whether any number of them may. One run alone is allowed it by its config `allow_shrink`.
        key_prefix: Prefix of the asset's key.
        group_name: Its group.
        automation_condition: None, the default, runs it by hand, by a job or by a schedule.

    Raises:
        ValueError: An option is out of its range, or the videos have no partitions.

    Examples:
        ```python
        videos = UGenVideoAssets(requests=feed, props=props, destination="s3://videos/")
        export = build_ugen_export_asset(videos, to="s3://shop/videos.xml", public_at="https://cdn.shop.example/videos")
        defs = dg.Definitions(assets=[*build_assets_from_definition(videos), export])
        ```
    """
    product_of = _products_of(videos.props.partitions_def, variant_dimension)
    if format not in _FORMATS:
        raise ValueError(f"format: must be one of {', '.join(_FORMATS)}, got {format!r}")
    require_shares(max_gone=max_gone, min_score=min_score)
    if "{id}" not in id_template:
        raise ValueError(f"id_template: must hold {{id}}, got {id_template!r}")
    final_video = videos.key_of(Output.FINAL_VIDEO)
    place = stored_at if stored_at is not None or public_at is None else videos.destination

    def options(config: UGenExportConfig) -> "Export":
        from ugen_provider.core.batch.supplemental_feed import Export, TargetIds

        return Export(
            format=format,
            table=table,
            stored_at=place,
            public_at=public_at,
            min_score=min_score,
            variant=variant,
            ids=TargetIds(id_template),
            max_gone=max_gone,
            allow_shrink=allow_shrink or config.allow_shrink,
        )

    def body(context: dg.AssetExecutionContext, config: UGenExportConfig) -> dg.MaterializeResult[Any]:
        from ugen_provider.core.api.errors import UGenError
        from ugen_provider.core.batch.supplemental_feed import export_entries
        from ugen_provider.core.text import without_passwords

        skipped = 0

        def on_skipped(product_id: str, reason: str) -> None:
            nonlocal skipped
            skipped += 1
            if skipped <= _NAMED:
                context.log.warning("product %s is left out: %s", product_id, reason)

        target = to.get_value() if isinstance(to, dg.EnvVar) else to
        if not target:
            raise dg.Failure(f"to: {getattr(to, 'env_var_name', 'it')} is not set", allow_retries=False)
        keys = partition_keys(context.instance, videos.props.partitions_def)
        try:
            count = export_entries(
                _entries_of(context.instance, final_video, keys, product_of),
                target,
                catalogue=videos.resolved_order_name,
                export=options(config),
                on_skipped=on_skipped,
            )
        except UGenError as error:
            raise dg.Failure(str(error), allow_retries=error.retryable) from None
        return dg.MaterializeResult(
            metadata={"dagster/uri": without_passwords(target), "ugen/products": count, "ugen/skipped": skipped}
        )

    prefix = [key_prefix] if isinstance(key_prefix, str) else list(key_prefix)
    return dg.asset(
        name=name,
        key_prefix=prefix or None,
        deps=[final_video],
        group_name=group_name,
        automation_condition=automation_condition,
        description="Which product has which video, for a shop.",
        kinds={"ugen"},
    )(body)


_FORMATS = ("google", "tsv", "meta", "tiktok", "pinterest", "jsonl")


def _products_of(
    partitions_def: dg.PartitionsDefinition | None, variant_dimension: str | None
) -> Callable[[str], tuple[str, str]]:
    """Return the function that reads product and variant from a partition key.

    Raises:
        ValueError: The partitions are none, or it is not clear which of their dimensions is the product.
    """
    if partitions_def is None:
        raise ValueError("videos: an export needs one partition for each product, and these assets have none")
    if not isinstance(partitions_def, dg.MultiPartitionsDefinition):
        if variant_dimension is not None:
            raise ValueError(f"variant_dimension: the partitions have one dimension, so none is {variant_dimension!r}")
        return lambda key: (key, "")
    names = [each.name for each in partitions_def.partitions_defs]
    if len(names) != 2 or variant_dimension not in names:
        raise ValueError(f"variant_dimension: must name one of two dimensions of the partitions, {' or '.join(names)}")
    is_first = names[0] == variant_dimension

    def parts(key: str) -> tuple[str, str]:
        first, _, second = key.partition("|")
        return (second, first) if is_first else (first, second)

    return parts


def _entries_of(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    partitions: Sequence[str],
    product_of: Callable[[str], tuple[str, str]],
) -> "Iterator[Entry]":
    """Yield what the event log knows of each partition's video, a thousand in one query."""
    from ugen_provider.core.ledger.store import Entry

    for group in chunks(partitions):
        for partition, video in recorded_videos(instance, key, group).items():
            product_id, variant = product_of(partition)
            yield Entry(
                product_id=product_id,
                state="completed",
                reason=None,
                final_failure=False,
                job_id=video.job_id,
                credits=video.credits,
                score=video.lowest_score,
                video=video.path or video.url,
                manifest=video.manifest_uri,
                seen=True,
                updated_at=video.recorded_at,
                variant=variant,
            )
