# SPDX-License-Identifier: Apache-2.0
"""The handle of a recorded video: as an argument of assets of the user's own, and read by `video_of`."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

from dagster_ugen import UGenResource, UGenVideo, build_ugen_assets, video_of
from tests.dagster.shop import Shop, request_of

EXAMPLE = Path(__file__).parents[2] / "example_dagster" / "publish_video.py"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The documented example, with its folders in the test's own."""
    monkeypatch.setenv("SHOP_PUBLIC", str(tmp_path / "public"))
    monkeypatch.setenv("UGEN_OUTPUT", str(tmp_path / "videos"))
    spec = importlib.util.spec_from_file_location("publish_video", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_example_publishes_file_and_list(
    example: ModuleType, instance: dg.DagsterInstance, ugen_dagster_resource: UGenResource, tmp_path: Path
) -> None:
    resources = {"ugen": ugen_dagster_resource}
    assets = [*example.defs.assets]
    for product in ("LL-1001", "LL-1002"):
        run = dg.materialize(assets[:2], partition_key=product, instance=instance, resources=resources)
        assert run.success
        public = tmp_path / "public" / f"{product}.mp4"
        [stored] = (tmp_path / "videos").rglob(f"*{product}*/**/final*.mp4")
        assert public.read_bytes() == stored.read_bytes()
    run = dg.materialize(assets, selection=[example.shop_list], instance=instance, resources=resources)
    assert run.success
    rows = json.loads((tmp_path / "public" / "videos.json").read_text())
    assert [row["id"] for row in rows] == ["LL-1001", "LL-1002"]


def test_handle_agrees_with_disk_and_account(shop: Shop) -> None:
    shop.run("lamp", destination=str(shop.folder))
    video = video_of(shop.instance, "lamp")
    manifest = video.read_manifest()
    assert manifest is not None
    assert manifest.uri("final") == video.path
    assert Path(video.path or "").stat().st_size > 0
    assert (manifest.job_id, manifest.scores.segments) == (video.job_id, video.scores)
    assert video.lowest_score == min(score for score in video.scores if score is not None)
    with shop.resource.get_client() as client:
        assert video.credits == -sum(row.amount for row in client.credits.transactions() if row.type == "consume")
    assert video.url is not None
    assert video.outcome == "created"


def test_credits_of_a_video_recorded_twice(shop: Shop) -> None:
    shop.run("lamp")
    before = video_of(shop.instance, "lamp").credits
    shop.run("lamp")
    again = video_of(shop.instance, "lamp")
    assert (again.credits, again.outcome) == (before, "reused")
    assert before > 0


def test_video_that_is_not_recorded_says_what_to_do(shop: Shop) -> None:
    with pytest.raises(LookupError, match=r"final_video, partition 'mug': .* materialize it first"):
        video_of(shop.instance, "mug")


def test_range_of_partitions_is_loaded_together(shop: Shop) -> None:
    seen: dict[str, UGenVideo] = {}

    @dg.asset(partitions_def=shop.assets()[0].partitions_def, backfill_policy=dg.BackfillPolicy.single_run())
    def lengths(final_video: dict[str, UGenVideo]) -> None:
        seen.update(final_video)

    videos = build_ugen_assets(
        requests=request_of,
        partitions_def=shop.assets()[0].partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    assert shop.run("lamp", "mug", assets=[*videos, lengths]).success
    assert sorted(seen) == ["lamp", "mug"]
    assert all(video.duration for video in seen.values())


def test_body_called_directly_reads_the_handle(shop: Shop) -> None:
    @dg.asset(deps=["final_video"], partitions_def=shop.assets()[0].partitions_def)
    def entry(context: dg.AssetExecutionContext) -> str:
        return video_of(context).job_id

    shop.run("lamp")
    with dg.build_asset_context(instance=shop.instance, partition_key="lamp") as context:
        assert entry(context) == shop.order("lamp").job_id
