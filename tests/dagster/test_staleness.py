# SPDX-License-Identifier: Apache-2.0
"""The event that a body yields is the event that Dagster stores, and nothing is out of date after its own run."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from dagster_ugen import (
    DagsterUGenTranslator,
    Output,
    UGenAssetProps,
    UGenGate,
    UGenVideoAssets,
    build_assets_from_definition,
)
from dagster_ugen.requests import as_requests
from tests.dagster.shop import PRODUCTS, Shop, request_of

ONE_RUN = dg.BackfillPolicy.single_run()


class Versioned(DagsterUGenTranslator):
    def get_asset_spec(self, props: UGenAssetProps) -> dg.AssetSpec:
        return super().get_asset_spec(props).replace_attributes(code_version="7")


def videos_of(**arguments) -> UGenVideoAssets:
    version = arguments.pop("code_version", None)
    props = UGenAssetProps(output=Output.FINAL_VIDEO, partitions_def=PRODUCTS, code_version=version)
    return UGenVideoAssets(requests=as_requests(request_of), props=props, **arguments)


def stale(shop: Shop, assets, *partitions: str) -> dict[tuple[str, str], StaleStatus]:
    """The status of each asset and partition that is not fresh, as Dagster's pages show it."""
    graph = dg.Definitions(assets=assets, resources={"ugen": shop.resource}).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(shop.instance, graph, LoadingContextForTest(shop.instance))
    found = {
        (key.to_user_string(), partition): resolver.get_status(key, partition)
        for key in graph.materializable_asset_keys
        for partition in partitions
    }
    return {what: status for what, status in found.items() if status is not StaleStatus.FRESH}


def post_processed(assets):
    return [dg.map_asset_specs(lambda spec: spec.replace_attributes(code_version="7"), [each])[0] for each in assets]


@pytest.mark.parametrize("partitions", [("lamp",), ("lamp", "mug")], ids=["one", "two"])
@pytest.mark.parametrize("version", ["none", "argument", "translator", "post_processing"])
def test_nothing_is_stale_after_its_own_run(shop, version, partitions):
    """Wherever the code version comes from, and however many partitions a run has."""
    match version:
        case "argument":
            videos = videos_of(code_version="7")
        case "translator":
            videos = videos_of(translator=Versioned())
        case _:
            videos = videos_of()
    assets = build_assets_from_definition(videos, backfill_policy=ONE_RUN)
    if version == "post_processing":
        assets = post_processed(assets)
    for _ in range(2):
        assert shop.run(*partitions, assets=assets).success
        assert stale(shop, assets, *partitions) == {}


@pytest.mark.parametrize("reported_by", ["pages", "run"])
def test_approval_leaves_nothing_stale(shop, reported_by):
    videos = videos_of(gate=UGenGate(), code_version="7")
    assets = build_assets_from_definition(videos, backfill_policy=ONE_RUN)
    assert shop.run("lamp", assets=assets, select=["anchor_keyframe"]).success
    if reported_by == "pages":
        shop.instance.report_runless_asset_event(dg.AssetMaterialization("keyframe_approval", partition="lamp"))
    else:
        assert shop.run("lamp", assets=assets, select=["keyframe_approval"]).success
    rest = ["keyframes", "videos", "final_video"]
    assert shop.run("lamp", assets=assets, select=rest).success
    assert stale(shop, assets, "lamp") == {}


def test_metadata_that_a_body_adds_is_kept(shop):
    videos = videos_of()

    @dg.multi_asset(specs=videos.specs(), can_subset=True, partitions_def=PRODUCTS)
    def mine(context: dg.AssetExecutionContext, ugen: dg.ResourceParam[object]):
        for result in videos.materialize(context, ugen):
            yield result._replace(metadata={**result.metadata, "mine": result.asset_key.to_user_string()})

    assert shop.run("lamp", assets=[mine]).success
    for asset in ("keyframes", "videos", "final_video"):
        made = shop.materialized(asset)["lamp"]
        assert made["mine"] == asset
        assert made["ugen/job_id"] == shop.order().job_id
