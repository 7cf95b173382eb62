# SPDX-License-Identifier: Apache-2.0
"""The export asset: the shop's file has the videos of the partitions, and never shrinks silently."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import dagster as dg
import pytest

from dagster_ugen import Output, UGenAssetProps, UGenVideoAssets, build_assets_from_definition, build_ugen_export_asset
from dagster_ugen.requests import as_requests
from tests.dagster.shop import PRODUCTS, Shop, failure_of, request_of

IDS = [f"p{n}" for n in range(10)]


def videos_of(partitions_def: dg.PartitionsDefinition | None = PRODUCTS, **arguments) -> UGenVideoAssets:
    props = UGenAssetProps(output=Output.FINAL_VIDEO, partitions_def=partitions_def)
    return UGenVideoAssets(requests=as_requests(request_of), props=props, **arguments)


@pytest.fixture
def delivered(shop: Shop) -> Shop:
    assets = build_assets_from_definition(videos_of(), backfill_policy=dg.BackfillPolicy.single_run())
    assert shop.run(*IDS, assets=assets).success
    return shop


def export(shop: Shop, to: object, *, videos=None, config=None, **options) -> dg.ExecuteInProcessResult:
    made = build_ugen_export_asset(videos or videos_of(), to=to, **options)
    defs = dg.Definitions(assets=[made])
    given = {"ops": {"video_export": {"config": config}}} if config else None
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=shop.instance, run_config=given, raise_on_error=False
    )


def shown(path: Path) -> dict[str, str]:
    return dict(re.findall("<g:id>(.*?)</g:id><g:video_link>(.*?)</g:video_link>", path.read_text()))


def test_export_asset_writes_each_partitions_video(delivered, tmp_path):
    path = tmp_path / "videos.xml"
    bought = len(delivered.created)
    assert export(delivered, str(path)).success
    recorded = delivered.materialized("final_video")
    assert shown(path) == {product: recorded[product]["ugen/url"] for product in IDS}
    [facts] = delivered.materialized("video_export").values()
    assert (facts["ugen/products"], facts["ugen/skipped"], facts["dagster/uri"]) == (10, 0, str(path))
    assert len(delivered.created) == bought == 10, "an export buys nothing"


def test_export_asset_of_a_shrunken_shop_fails(delivered, tmp_path):
    path = tmp_path / "videos.xml"
    export(delivered, str(path))
    whole = path.read_bytes()
    for product in IDS[7:]:
        delivered.instance.delete_dynamic_partition("ugen_products", product)
    result = export(delivered, str(path))
    assert "3 of the 10 products in it would lose their videos" in str(failure_of(result).description)
    assert path.read_bytes() == whole
    assert export(delivered, str(path), config={"allow_shrink": True}).success
    assert list(shown(path)) == IDS[:7]
    assert [each.name for each in tmp_path.iterdir() if each.name.endswith(".part")] == []


@pytest.mark.parametrize(("options", "count"), [({"max_gone": 0.3}, 7), ({"allow_shrink": True}, 7), ({}, 10)])
def test_export_asset_shrinks_as_far_as_allowed(delivered, tmp_path, options, count):
    path = tmp_path / "videos.xml"
    export(delivered, str(path))
    for product in IDS[7:]:
        delivered.instance.delete_dynamic_partition("ugen_products", product)
    export(delivered, str(path), **options)
    assert len(shown(path)) == count


@pytest.mark.parametrize("lost", ["scores", "event log", "partitions"])
def test_export_asset_without_products_writes_nothing(delivered, tmp_path, lost):
    """A wiped asset, deleted partitions or a score that is too high are no reason to empty the shop's file."""
    path = tmp_path / "videos.xml"
    path.write_text("untouched")
    match lost:
        case "event log":
            delivered.instance.wipe_assets([dg.AssetKey("final_video")])
        case "partitions":
            for product in IDS:
                delivered.instance.delete_dynamic_partition("ugen_products", product)
        case _:
            pass
    result = export(delivered, str(path), allow_shrink=True, **({"min_score": 1.0} if lost == "scores" else {}))
    assert "is unchanged: no product" in str(failure_of(result).description)
    assert path.read_text() == "untouched"


def test_export_asset_writes_a_table_without_password(delivered, tmp_path, monkeypatch):
    monkeypatch.setenv("SITE", f"sqlite:///{tmp_path / 'site.db'}")
    assert export(delivered, dg.EnvVar("SITE"), table="product_video").success
    with sqlite3.connect(tmp_path / "site.db") as site:
        rows = site.execute("SELECT id, job_id, credits FROM product_video ORDER BY id").fetchall()
    jobs = {product: facts["ugen/job_id"] for product, facts in delivered.materialized("final_video").items()}
    assert [(product, jobs[product]) for product in IDS] == [row[:2] for row in rows]
    assert all(row[2] > 0 for row in rows)
    monkeypatch.setenv("SITE", "postgresql://me:pa55word@127.0.0.1:1/shop")
    result = export(delivered, dg.EnvVar("SITE"))
    assert "pa55word" not in str(result.all_events)
    said = str(failure_of(result).description)
    assert "cannot be written" in said or "needs the driver psycopg" in said
    monkeypatch.delenv("SITE")
    assert "SITE is not set" in str(failure_of(export(delivered, dg.EnvVar("SITE"))).description)


def test_export_asset_links_the_stored_files(shop, tmp_path):
    videos = videos_of(destination=str(tmp_path / "stored"))
    shop.run("lamp", assets=build_assets_from_definition(videos))
    path = tmp_path / "videos.xml"
    assert export(shop, str(path), videos=videos, public_at="https://cdn.shop.example/v").success
    assert shown(path)["lamp"].startswith("https://cdn.shop.example/v/")
    path.unlink()
    assert export(shop, str(path), videos=videos, allow_shrink=True).success is False, "a local file is no link"


def test_export_asset_has_variants_as_a_dimension(shop, tmp_path):
    both = dg.MultiPartitionsDefinition(
        {"look": dg.StaticPartitionsDefinition(["tall", "wide"]), "product": dg.StaticPartitionsDefinition(["a", "b"])}
    )
    assets = build_assets_from_definition(videos_of(both))
    for key in both.get_partition_keys():
        assert shop.run(key, assets=assets).success
    path = tmp_path / "videos.xml"
    made = {"videos": videos_of(both), "variant_dimension": "look"}
    assert export(shop, str(path), variant="wide", **made).success
    recorded = shop.materialized("final_video")
    assert shown(path) == {product: recorded[f"wide|{product}"]["ugen/url"] for product in "ab"}
    with pytest.raises(ValueError, match="variant_dimension"):
        build_ugen_export_asset(videos_of(both), to=str(path))


def test_export_asset_with_wrong_options_is_refused():
    with pytest.raises(ValueError, match="one partition for each product"):
        build_ugen_export_asset(videos_of(None), to="videos.xml")
    for wrong in ({"format": "rss"}, {"max_gone": 2}, {"min_score": -1}, {"id_template": "shopify"}):
        with pytest.raises(ValueError, match=next(iter(wrong)).partition("_")[0]):
            build_ugen_export_asset(videos_of(), to="videos.xml", **wrong)
