# SPDX-License-Identifier: Apache-2.0
"""Metadata of a materialization, the signs that it is out of date, and the checks and conditions on it."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest

from dagster_ugen import (
    Output,
    UGenAssetProps,
    UGenChecks,
    UGenGate,
    UGenVideoAssets,
    build_assets_from_definition,
    build_ugen_asset_checks,
)
from dagster_ugen.checks import judge_credits, judge_file, judge_scores
from dagster_ugen.definition import after_approval
from dagster_ugen.requests import as_requests
from dagster_ugen.results import PREVIEW_LIMIT, Succeeded, describe, gallery
from tests.dagster.shop import PRODUCTS, Shop, failure_of, request_of
from ugen_provider.core.api.models import Job, Keyframe
from ugen_provider.core.jobs.order import Purchase, PurchaseOutcome
from ugen_provider.core.ledger.record import OrderRecord

FINAL = dg.AssetKey("final_video")


def delivered(*, keyframes: int, url: str = "https://storage.u-gen.ai/k{}.png", **job) -> Succeeded:
    made = Job.model_validate({"job_id": "j", "status": "completed", **job})
    record = OrderRecord("s", 0, "k", {}, "f", 1, 0.0)
    frames = tuple(Keyframe(index=number, image_url=url.format(number)) for number in range(keyframes))
    return Succeeded(partition="p", bought=Purchase(made, record, PurchaseOutcome.CREATED), keyframes=frames)


@pytest.mark.parametrize("keyframes", range(1, 12))
@pytest.mark.parametrize("length", [30, 200, 600])
def test_a_preview_stays_below_what_the_page_shows(keyframes, length):
    url = "https://storage.u-gen.ai/" + "x" * length + "{}.png"
    made = gallery(Output.KEYFRAMES, delivered(keyframes=keyframes, url=url))
    assert made is not None
    assert len(made) < PREVIEW_LIMIT
    assert made.count("![keyframe") + int(made.rpartition("\n")[2].partition(" more")[0] if " more" in made else 0) == (
        keyframes
    )


@pytest.mark.parametrize("url", ["https://s.example/" + "x" * 1000, "javascript:alert(1)", "https://s.example/a)b|c"])
def test_what_would_break_the_page_is_no_preview(url):
    assert gallery(Output.KEYFRAMES, delivered(keyframes=1, url=url.replace("{", "") + "")) is None


def test_the_poster_leads_to_the_video():
    made = gallery(
        Output.FINAL_VIDEO,
        delivered(keyframes=1, final_video_url="https://s.example/v.mp4", thumbnail_url="https://s.example/t.png"),
    )
    assert made == "[![poster](https://s.example/t.png)](https://s.example/v.mp4)"


def test_the_pictures_come_before_the_figures():
    shown = list(describe(Output.KEYFRAMES, delivered(keyframes=2, credits_consumed=67)))
    assert shown.index("ugen/preview") < shown.index("ugen/job_id")


def test_messages_for_people_come_before_the_pictures():
    marked = replace(delivered(keyframes=2), warnings=("the lowest score is 0.31",))
    shown = list(describe(Output.KEYFRAMES, marked))
    assert shown.index("ugen/warnings") < shown.index("ugen/preview")


def versions(shop: Shop, asset: str) -> dict[str, str]:
    record = shop.instance.fetch_materializations(dg.AssetKey(asset), limit=1).records[0]
    return dict(record.event_log_entry.tags)


def test_a_remade_keyframe_marks_what_hangs_on_it(shop):
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus

    assets = shop.assets(destination=str(shop.folder), code_version="1")
    graph = dg.Definitions(assets=assets, resources={"ugen": shop.resource}).resolve_asset_graph()

    def stale(asset: str) -> StaleStatus:
        resolver = CachingStaleStatusResolver(shop.instance, graph, _loading(shop.instance))
        return resolver.get_status(dg.AssetKey(asset), "lamp")

    shop.run("lamp", assets=assets)
    assert stale("final_video") is StaleStatus.FRESH
    before = versions(shop, "keyframes")["dagster/data_version"]
    shop.run("lamp", assets=assets)
    assert versions(shop, "keyframes")["dagster/data_version"] == before, "the same files are the same version"
    shop.run("lamp", assets=assets, select=["keyframes"], tags={"ugen/regenerate": "1"})
    assert versions(shop, "keyframes")["dagster/data_version"] != before
    assert stale("keyframes") is StaleStatus.FRESH
    assert stale("videos") is StaleStatus.STALE
    shop.run("lamp", assets=assets)
    assert stale("final_video") is StaleStatus.FRESH
    assert len(shop.created) == 2


def _loading(instance: dg.DagsterInstance):
    from dagster._core.loader import LoadingContextForTest

    return LoadingContextForTest(instance)


# Checks.


CHECKS_HAVE_PARTITIONS = tuple(int(part) for part in dg.__version__.split(".")[:2]) >= (1, 13)


def run_checked(shop: Shop, *partitions: str, asked: UGenChecks | None = None, more=(), stored: bool = True):
    props = UGenAssetProps(output=Output.FINAL_VIDEO, partitions_def=PRODUCTS)
    folder = str(shop.folder) if stored else None
    videos = UGenVideoAssets(requests=as_requests(request_of), props=props, destination=folder)
    assets = [*build_assets_from_definition(videos, backfill_policy=dg.BackfillPolicy.single_run()), *more]
    return shop.run(*partitions, assets=assets, asset_checks=build_ugen_asset_checks(videos, checks=asked))


def checked(shop: Shop, *partitions: str, asked: UGenChecks | None = None):
    result = run_checked(shop, *partitions, asked=asked)
    return {
        (evaluation.check_name, getattr(evaluation, "partition", None)): evaluation
        for evaluation in result.get_asset_check_evaluations()
    }


ALL = {"keyframe_scores", "segment_scores", "keyframe_count", "segment_count", "length_and_shape"} | {
    "credits_within_estimate",
    "urls_alive",
}


def test_checks_of_one_partition(shop):
    found = checked(shop, "lamp", asked=UGenChecks(urls=True))
    assert {name for name, _ in found} == ALL
    assert {partition for _, partition in found} == {"lamp" if CHECKS_HAVE_PARTITIONS else None}
    assert all(evaluation.passed for evaluation in found.values()), found
    assert all(evaluation.target_materialization_data for evaluation in found.values())


def test_a_broken_link_is_named_without_its_signature(shop, ugen_faults):
    ugen_faults.add("expired", method="GET", path="*/final-*.mp4", times=None)
    only = UGenChecks(min_score=None, counts=False, file=False, credits=False, urls=True)
    [found] = run_checked(shop, "lamp", asked=only, stored=False).get_asset_check_evaluations()
    assert not found.passed
    assert "no answer from http" in found.description
    assert found.description.endswith(".mp4"), found.description


@pytest.mark.skipif(not CHECKS_HAVE_PARTITIONS, reason="Dagster knows which partition a check is of from 1.13 on")
def test_checks_of_many_partitions_are_each_partitions_own(shop, ugen_faults):
    ugen_faults.job(product_name="mug", score=0.3, times=None)
    found = checked(shop, "lamp", "mug")
    assert found["keyframe_scores", "lamp"].passed
    assert not found["keyframe_scores", "mug"].passed
    assert "regenerate" in found["keyframe_scores", "mug"].description
    assert found["keyframe_count", "mug"].passed


@dg.asset(deps=["keyframes"], partitions_def=PRODUCTS, backfill_policy=dg.BackfillPolicy.single_run())
def posted() -> None: ...


@pytest.mark.parametrize("blocking", [False, True, ["keyframe_scores"], ["credits_within_estimate"]])
@pytest.mark.parametrize("partitions", [("mug",), ("lamp", "mug")])
def test_a_failed_check_blocks_its_dependents_where_asked(shop, ugen_faults, partitions, blocking):
    ugen_faults.job(product_name="mug", score=0.3, times=None)
    result = run_checked(shop, *partitions, asked=UGenChecks(blocking=blocking), more=[posted])
    stopped = blocking in (True, ["keyframe_scores"])
    assert bool(shop.materialized("posted")) is not stopped
    assert result.success is not stopped
    assert set(shop.materialized("final_video")) == set(partitions), "what was paid for is recorded all the same"
    if stopped and len(partitions) > 1:
        assert "mug: keyframe_scores (below 0.55" in failure_of(result).description
        assert "lamp: " not in failure_of(result).description


def test_a_blocking_name_without_its_check_is_refused(shop):
    with pytest.raises(ValueError, match="blocking: urls_alive is not among the checks"):
        run_checked(shop, "lamp", asked=UGenChecks(blocking=["urls_alive"]))


@pytest.mark.parametrize(
    ("scores", "passed"), [([0.6, 0.7], True), ([0.6, 0.5], False), ([0.6, None], False), ([], False), ([0.55], True)]
)
def test_scores(scores, passed):
    assert judge_scores(scores, least=0.55).passed is passed


@pytest.mark.parametrize(
    ("file", "passed"),
    [
        ({"duration": 16.2, "width": 540, "height": 960}, True),
        ({"duration": 8.0, "width": 540, "height": 960}, False),
        ({"duration": 16.0, "width": 960, "height": 540}, False),
        ({"duration": None, "width": None, "height": None}, False),
        (None, False),
    ],
)
def test_length_and_shape(file, passed):
    assert judge_file(file, seconds=16.0, shape=9 / 16).passed is passed


@pytest.mark.parametrize(("consumed", "estimated", "passed"), [(80, 90, True), (91, 90, False), (None, 90, False)])
def test_credits(consumed, estimated, passed):
    assert judge_credits(consumed, estimated).passed is passed


# Automation.


def test_automation_starts_only_what_was_approved(shop):
    def gated(condition=None) -> UGenVideoAssets:
        props = UGenAssetProps(output=Output.FINAL_VIDEO, partitions_def=PRODUCTS, automation_condition=condition)
        return UGenVideoAssets(requests=as_requests(request_of), props=props, gate=UGenGate())

    def requested(videos: UGenVideoAssets, cursor=None):
        defs = dg.Definitions(assets=build_assets_from_definition(videos, resource=shop.resource))
        said = dg.evaluate_automation_conditions(defs=defs, instance=shop.instance, cursor=cursor)
        wanted = {
            (key.to_user_string(), partition)
            for key in defs.resolve_asset_graph().materializable_asset_keys
            for partition in said.get_requested_partitions(key)
        }
        return wanted, said.cursor

    by_itself, automatic = gated(), gated(after_approval())
    shop.run(
        "lamp",
        "mug",
        assets=build_assets_from_definition(automatic, backfill_policy=dg.BackfillPolicy.single_run()),
        select=["anchor_keyframe"],
    )
    assert requested(by_itself)[0] == set()
    wanted, cursor = requested(automatic)
    assert wanted == set()
    from dagster_ugen import approve_keyframe

    approve_keyframe(shop.instance, automatic, partition="lamp", by="anna")
    assert requested(by_itself)[0] == set()
    wanted, _ = requested(automatic, cursor)
    assert wanted == {("keyframes", "lamp"), ("videos", "lamp"), ("final_video", "lamp")}
