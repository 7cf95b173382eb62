# SPDX-License-Identifier: Apache-2.0
"""An upstream asset is the source of products: a table or rows, through its own IO manager, without a file."""

from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from dagster_ugen import (
    AssetRequests,
    Output,
    UGenAssetProps,
    UGenGate,
    UGenVideoAssets,
    build_assets_from_definition,
    build_ugen_asset_job,
    build_ugen_product_feed_sensor,
)
from tests.dagster.shop import PRODUCTS, Shop, failure_of

ROWS = [
    {"id": name, "title": name.title(), "image_link": f"https://shop.example/{name}.jpg", "availability": "in stock"}
    for name in ("lamp", "mug")
]


def rows() -> Any:
    return ROWS


def pandas_frame() -> Any:
    return pytest.importorskip("pandas").DataFrame(ROWS)


def polars_frame() -> Any:
    return pytest.importorskip("polars").DataFrame(ROWS)


def arrow_table() -> Any:
    return pytest.importorskip("pyarrow").Table.from_pylist(ROWS)


def upstream_of(value: Any) -> dg.AssetsDefinition:
    @dg.asset(name="products")
    def products() -> Any:
        return value

    return products


def videos_of(**arguments: Any) -> UGenVideoAssets:
    return UGenVideoAssets(
        requests=AssetRequests("products", job_defaults={"segment_count": 2}),
        props=UGenAssetProps(output=Output.FINAL_VIDEO, partitions_def=PRODUCTS),
        **arguments,
    )


def run_products(shop: Shop, products: dg.AssetsDefinition) -> None:
    assert dg.materialize([products], instance=shop.instance).success


@pytest.mark.parametrize("made", [rows, pandas_frame, polars_frame, arrow_table], ids=lambda made: made.__name__)
def test_table_of_an_upstream_asset_is_ordered(shop, made):
    products, videos = upstream_of(made()), videos_of()
    run_products(shop, products)
    assets = [products, *build_assets_from_definition(videos, backfill_policy=dg.BackfillPolicy.single_run())]
    wanted = ["keyframes", "videos", "final_video"]
    assert shop.run("lamp", "mug", assets=assets, select=wanted).success
    assert sorted(shop.created) == ["Lamp", "Mug"]


@pytest.mark.parametrize("gate", [None, UGenGate()], ids=["no_gate", "gate"])
def test_first_asset_depends_on_the_products(shop, gate):
    videos = videos_of(gate=gate)
    graph = dg.Definitions(
        assets=[upstream_of(ROWS), *build_assets_from_definition(videos)], resources={"ugen": shop.resource}
    ).resolve_asset_graph()
    first = "keyframes" if gate is None else "anchor_keyframe"
    assert dg.AssetKey("products") in graph.get(dg.AssetKey(first)).parent_keys


def test_asset_that_was_not_made_buys_nothing_and_is_named(shop):
    @dg.asset
    def unmade() -> list[dict[str, str]]:
        return ROWS

    videos = replace(videos_of(), requests=AssetRequests("unmade", job_defaults={"segment_count": 2}))
    result = shop.run("lamp", assets=[unmade, *build_assets_from_definition(videos)], select=["keyframes"])
    assert "the asset unmade cannot be loaded" in failure_of(result).description
    assert shop.created == []


def test_feed_sensor_reads_the_upstream_asset(shop):
    products, videos = upstream_of(ROWS), videos_of()
    run_products(shop, products)
    job = build_ugen_asset_job(videos)
    sensor = build_ugen_product_feed_sensor(
        videos, feed=videos.requests, partitions_name="ugen_products", job=job, budget=5000
    )
    defs = dg.Definitions(
        assets=[products, *build_assets_from_definition(videos)],
        jobs=[job],
        sensors=[sensor],
        resources={"ugen": shop.resource},
    )
    context = dg.build_sensor_context(
        instance=shop.instance, repository_def=defs.get_repository_def(), resources={"ugen": shop.resource}
    )
    [request] = sensor.evaluate_tick(context).run_requests
    assert sorted(shop.instance.get_dynamic_partitions("ugen_products")) == ["lamp", "mug"]
    assert defs.resolve_job_def(job.name).execute_in_process(tags=dict(request.tags), instance=shop.instance).success
    assert sorted(shop.created) == ["Lamp", "Mug"]
