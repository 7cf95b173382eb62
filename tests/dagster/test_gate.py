# SPDX-License-Identifier: Apache-2.0
"""Nothing goes on without a yes to the very picture that is there, and a yes spends on its own partition only."""

from __future__ import annotations

import dagster as dg
import pytest

from dagster_ugen import Output, UGenGate, UGenVideos, approve_keyframe, assets_of
from dagster_ugen.requests import as_requests
from dagster_ugen.translator import UGenAssetProps
from tests.dagster.shop import PRODUCTS, Shop, failure_of, request_of, when

REST = ["keyframes", "videos", "final_video"]
ANCHOR = ["anchor_keyframe"]
APPROVAL = ["keyframe_approval"]


def gated(gate: UGenGate | None = None, **arguments) -> UGenVideos:
    props = UGenAssetProps(output=Output.FINAL_VIDEO, partitions_def=PRODUCTS)
    return UGenVideos(requests=as_requests(request_of), gate=gate or UGenGate(), props=props, **arguments)


class GateShop:
    def __init__(self, shop: Shop, videos: UGenVideos) -> None:
        self.shop = shop
        self.videos = videos
        self.assets = assets_of(videos, backfill_policy=dg.BackfillPolicy.single_run())

    def run(self, *partitions: str, select: list[str] | None, **arguments):
        return self.shop.run(*partitions, assets=self.assets, select=select, **arguments)


@pytest.fixture
def gate(shop: Shop) -> GateShop:
    return GateShop(shop, gated())


def test_the_way_through(gate, shop):
    assert gate.run("lamp", select=ANCHOR).success
    assert set(shop.jobs.values()) == {"paused"}
    look = shop.materialized("anchor_keyframe")["lamp"]["ugen/look"]
    assert set(look) == {"job_id", "keyframe_id", "digest", "qai_score"}
    assert gate.run("lamp", select=APPROVAL).success
    assert shop.materialized("keyframe_approval")["lamp"]["ugen/approval"]["digest"] == look["digest"]
    assert gate.run("lamp", select=REST).success
    assert shop.created == ["lamp"]
    assert set(shop.jobs.values()) == {"completed"}
    assert shop.materialized("final_video")["lamp"]["ugen/how"] == "resumed"


def test_a_click_on_materialize_does_not_pass_it(gate, shop):
    gate.run("lamp", select=ANCHOR)
    before = gate.run("mug", select=REST)
    assert "asset final_video, partition mug: there is no look yet" in failure_of(before).description
    result = gate.run("lamp", select=REST)
    assert "asset final_video, partition lamp: nobody approved the look" in failure_of(result).description
    assert set(shop.jobs.values()) == {"paused"}


def test_materializing_everything_at_once_stops_at_the_gate(gate, shop):
    assert gate.run("lamp", select=None).success
    assert set(shop.jobs.values()) == {"paused"}
    assert not shop.materialized("keyframe_approval")
    assert not shop.materialized("final_video")


def test_an_automatic_run_of_the_approval_is_no_yes(gate, shop):
    gate.run("lamp", select=ANCHOR)
    gate.run("lamp", select=APPROVAL, tags={"dagster/from_automation_condition": "true"})
    assert not shop.materialized("keyframe_approval")


def test_approving_one_spends_on_that_one_only(gate, shop):
    gate.run("lamp", "mug", select=ANCHOR)
    approve_keyframe(shop.instance, gate.videos, partition="lamp", by="anna")
    result = gate.run("lamp", "mug", select=REST)
    assert not result.success
    assert sorted(shop.jobs.values()) == ["completed", "paused"]
    assert set(shop.materialized("final_video")) == {"lamp"}


def test_approving_twice_buys_once(gate, shop):
    gate.run("lamp", select=ANCHOR)
    for _ in range(2):
        approve_keyframe(shop.instance, gate.videos, partition="lamp", by="anna")
        assert gate.run("lamp", select=REST).success
    assert shop.created == ["lamp"]
    assert shop.server.emulator.journal.find_purchases(kind="retry") == []


def test_reported_by_the_pages_it_counts_for_the_look_that_was_there(gate, shop):
    gate.run("lamp", select=ANCHOR)
    shop.instance.report_runless_asset_event(dg.AssetMaterialization("keyframe_approval", partition="lamp"))
    assert gate.run("lamp", select=REST).success


def test_an_approval_older_than_the_look_is_none(gate, shop):
    gate.run("lamp", select=ANCHOR)
    shop.instance.report_runless_asset_event(dg.AssetMaterialization("keyframe_approval", partition="lamp"))
    config = {"ops": {"ugen_videos_anchor": {"config": {"regenerate": "another look"}}}}
    assert gate.run("lamp", select=ANCHOR, config=config).success
    result = gate.run("lamp", select=REST)
    assert "nobody approved the look" in failure_of(result).description
    assert sorted(shop.jobs.values()) == ["cancelled", "paused"]


def test_a_bound_approval_of_another_job_is_refused_with_the_reason(gate, shop):
    gate.run("lamp", select=ANCHOR)
    approve_keyframe(shop.instance, gate.videos, partition="lamp", by="anna")
    gate.run("lamp", select=ANCHOR, tags={"ugen/regenerate": "1"})
    result = gate.run("lamp", select=REST)
    assert not result.success
    assert "the approval is for job" in failure_of(result).description
    assert sorted(shop.jobs.values()) == ["cancelled", "paused"]


def test_a_no_cancels_and_the_order_says_so(gate, shop):
    gate.run("lamp", select=ANCHOR)
    config = {"ops": {"ugen_videos_approval": {"config": {"decision": "reject", "by": "anna"}}}}
    assert gate.run("lamp", select=APPROVAL, config=config).success
    assert set(shop.jobs.values()) == {"cancelled"}
    assert "rejected" in failure_of(gate.run("lamp", select=ANCHOR)).description
    assert "was rejected, so nothing goes on" in failure_of(gate.run("lamp", select=REST)).description
    assert gate.run("lamp", select=ANCHOR, tags={"ugen/regenerate": "again"}).success


def test_a_score_approves_without_a_person(shop, ugen_faults):
    ugen_faults.job(product_name="lamp", score=0.9, times=None)
    ugen_faults.job(product_name="mug", score=0.5, times=None)
    gate = GateShop(shop, gated(UGenGate(approve_score=0.8)))
    assert gate.run("lamp", select=None).success
    gate.run("mug", select=None)
    assert set(shop.materialized("final_video")) == {"lamp"}
    assert "score 0.90" in shop.materialized("keyframe_approval")["lamp"]["ugen/approved_by"]


def test_no_more_gates_than_allowed(shop):
    gate = GateShop(shop, gated(UGenGate(max_open_gates=1)))
    result = gate.run("lamp", "mug", select=ANCHOR)
    assert "partition mug: max_open_gates is reached" in failure_of(result).description
    assert len(shop.created) == 1
    opened = shop.created[0]
    approve_keyframe(shop.instance, gate.videos, partition=opened, by="anna")
    assert gate.run(opened, select=REST).success
    other = "mug" if opened == "lamp" else "lamp"
    assert gate.run(other, select=ANCHOR).success


def test_no_more_gates_than_allowed_over_runs_at_the_same_time(shop):
    gate = GateShop(shop, gated(UGenGate(max_open_gates=1)))
    shop.server.emulator.clock.tick = 0.0
    journal, results = shop.server.emulator.journal, []

    def run_another() -> None:
        results.append(gate.run("mug", select=ANCHOR))
        shop.server.emulator.clock.tick = 60.0

    with when(lambda: bool(journal.find_requests(method="GET", path="/api/v1/jobs/")), run_another):
        assert gate.run("lamp", select=ANCHOR).success
    assert "max_open_gates is reached" in failure_of(results[0]).description
    assert shop.created == ["lamp"]


def test_a_look_that_is_there_or_was_passed_opens_no_gate_and_another_one_does(shop):
    gate = GateShop(shop, gated(UGenGate(max_open_gates=1)))
    assert gate.run("lamp", select=ANCHOR).success
    assert gate.run("lamp", select=ANCHOR).success, "it is open already"
    approve_keyframe(shop.instance, gate.videos, partition="lamp", by="anna")
    assert gate.run("lamp", select=REST).success
    assert gate.run("mug", select=ANCHOR).success
    assert gate.run("lamp", select=ANCHOR).success, "it was passed"
    result = gate.run("lamp", select=ANCHOR, tags={"ugen/regenerate": "1"})
    assert "max_open_gates is reached" in failure_of(result).description
    assert shop.created == ["lamp", "mug"]


@pytest.mark.parametrize(("partition", "told"), [("nowhere", "no partition"), ("lamp", "no look")])
def test_code_cannot_approve_what_is_not_there(gate, shop, partition, told):
    shop.instance.add_dynamic_partitions("ugen_products", ["lamp"])
    with pytest.raises(ValueError, match=told):
        approve_keyframe(shop.instance, gate.videos, partition=partition, by="anna")


def test_without_a_look_the_approval_says_what_to_do(gate):
    assert "materialize anchor_keyframe first" in failure_of(gate.run("lamp", select=APPROVAL)).description
    assert "materialize anchor_keyframe first" in failure_of(gate.run("lamp", select=REST)).description


def test_where_the_service_ends_a_stopped_job_going_on_is_a_retry(gate, shop):
    shop.server.emulator.set_readings({"stop_ends": "completed"})
    assert gate.run("lamp", select=ANCHOR).success
    assert set(shop.jobs.values()) == {"completed"}
    assert "nobody approved" in failure_of(gate.run("lamp", select=REST)).description
    approve_keyframe(shop.instance, gate.videos, partition="lamp", by="anna")
    assert gate.run("lamp", select=REST).success
    assert shop.materialized("final_video")["lamp"]["ugen/url"]
    assert shop.created == ["lamp"]
