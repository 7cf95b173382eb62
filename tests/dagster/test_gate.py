# SPDX-License-Identifier: Apache-2.0
"""No job continues without an approval of its present picture; an approval spends on its own partition only."""

from __future__ import annotations

import dagster as dg
import pytest

from dagster_ugen import (
    Output,
    UGenGate,
    UGenVideoAssets,
    approve_keyframe,
    build_assets_from_definition,
    build_ugen_approval_jobs,
)
from dagster_ugen.definition import UGenAssetProps
from dagster_ugen.requests import as_requests
from tests.dagster.shop import PRODUCTS, Shop, failure_of, request_of, when

REST = ["keyframes", "videos", "final_video"]
ANCHOR = ["anchor_keyframe"]
APPROVAL = ["keyframe_approval"]


def gated(gate: UGenGate | None = None, **arguments) -> UGenVideoAssets:
    props = UGenAssetProps(output=Output.FINAL_VIDEO, partitions_def=PRODUCTS)
    return UGenVideoAssets(requests=as_requests(request_of), gate=gate or UGenGate(), props=props, **arguments)


class GateShop:
    def __init__(self, shop: Shop, videos: UGenVideoAssets) -> None:
        self.shop = shop
        self.videos = videos
        self.assets = build_assets_from_definition(videos, backfill_policy=dg.BackfillPolicy.single_run())

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
    assert shop.materialized("final_video")["lamp"]["ugen/outcome"] == "resumed"


def test_a_click_on_materialize_does_not_pass_it(gate, shop):
    gate.run("lamp", select=ANCHOR)
    before = gate.run("mug", select=REST)
    assert "asset final_video, partition mug: there is no keyframe yet" in failure_of(before).description
    result = gate.run("lamp", select=REST)
    assert "is not approved, so the job stays paused" in failure_of(result).description
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


def test_an_approval_from_the_pages_counts_for_its_keyframe(gate, shop):
    gate.run("lamp", select=ANCHOR)
    shop.instance.report_runless_asset_event(dg.AssetMaterialization("keyframe_approval", partition="lamp"))
    assert gate.run("lamp", select=REST).success


def test_an_approval_older_than_the_look_is_none(gate, shop):
    gate.run("lamp", select=ANCHOR)
    shop.instance.report_runless_asset_event(dg.AssetMaterialization("keyframe_approval", partition="lamp"))
    config = {"ops": {"ugen_videos_anchor": {"config": {"regenerate": "another look"}}}}
    assert gate.run("lamp", select=ANCHOR, config=config).success
    result = gate.run("lamp", select=REST)
    assert "is not approved" in failure_of(result).description
    assert sorted(shop.jobs.values()) == ["cancelled", "paused"]


def test_an_approval_bound_to_another_job_is_refused(gate, shop):
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
    assert "was rejected, and the job was cancelled" in failure_of(gate.run("lamp", select=REST)).description
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


def test_a_gate_opens_only_for_a_new_keyframe(shop):
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


@pytest.mark.parametrize(("partition", "message"), [("nowhere", "no partition"), ("lamp", "no keyframe")])
def test_code_cannot_approve_what_is_not_there(gate, shop, partition, message):
    shop.instance.add_dynamic_partitions("ugen_products", ["lamp"])
    with pytest.raises(ValueError, match=message):
        approve_keyframe(shop.instance, gate.videos, partition=partition, by="anna")


def test_without_a_keyframe_the_approval_says_what_to_do(gate):
    assert "materialize anchor_keyframe first" in failure_of(gate.run("lamp", select=APPROVAL)).description
    assert "materialize anchor_keyframe first" in failure_of(gate.run("lamp", select=REST)).description


def test_a_stopped_job_reported_completed_continues_by_retry(gate, shop):
    shop.server.emulator.set_readings({"stop_ends": "completed"})
    assert gate.run("lamp", select=ANCHOR).success
    assert set(shop.jobs.values()) == {"completed"}
    assert "is not approved" in failure_of(gate.run("lamp", select=REST)).description
    approve_keyframe(shop.instance, gate.videos, partition="lamp", by="anna")
    assert gate.run("lamp", select=REST).success
    assert shop.materialized("final_video")["lamp"]["ugen/url"]
    assert shop.created == ["lamp"]


# Yes, no and another one, without run config.


class DecisionShop:
    """The assets of a prefix, and the jobs that decide, as a code location has them."""

    def __init__(self, shop: Shop) -> None:
        props = UGenAssetProps(output=Output.FINAL_VIDEO, partitions_def=PRODUCTS, key_prefix=["shop"])
        videos = UGenVideoAssets(requests=as_requests(request_of), gate=UGenGate(), props=props)
        self.shop = shop
        shop.instance.add_dynamic_partitions("ugen_products", ["lamp", "mug"])
        self.defs = dg.Definitions(
            assets=build_assets_from_definition(videos),
            jobs=build_ugen_approval_jobs(videos),
            resources={"ugen": shop.resource},
        )

    def launch(self, job: str, *, partition: str = "lamp") -> dg.ExecuteInProcessResult:
        """Launch a job as the launchpad and `dg launch` do: a name and a partition, and no config."""
        found = self.defs.resolve_job_def(job)
        return found.execute_in_process(instance=self.shop.instance, partition_key=partition, raise_on_error=False)

    def anchor(self, partition: str = "lamp") -> None:
        job = self.defs.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey(["shop", "anchor_keyframe"])]
        assert job.execute_in_process(
            instance=self.shop.instance, partition_key=partition, asset_selection=keys
        ).success

    def finish(self) -> dg.ExecuteInProcessResult:
        job = self.defs.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey(["shop", name]) for name in REST]
        return job.execute_in_process(
            instance=self.shop.instance, partition_key="lamp", asset_selection=keys, raise_on_error=False
        )


def test_approve_job_continues_the_video(shop):
    decision = DecisionShop(shop)
    decision.anchor()
    assert decision.launch("approve_keyframe").success
    assert decision.finish().success
    assert set(shop.jobs.values()) == {"completed"}


def test_reject_job_cancels_and_regenerate_buys_one_more(shop):
    decision = DecisionShop(shop)
    decision.anchor()
    assert decision.launch("reject_keyframe").success
    assert set(shop.jobs.values()) == {"cancelled"}
    failed = decision.finish()
    assert "was rejected" in failure_of(failed).description
    assert "shop/anchor_keyframe" in failure_of(failed).description
    assert decision.launch("regenerate_keyframe").success
    assert sorted(shop.jobs.values()) == ["cancelled", "paused"]
    assert decision.launch("approve_keyframe").success
    assert decision.finish().success
    assert sorted(shop.jobs.values()) == ["cancelled", "completed"]


def test_each_regenerate_run_buys_one(shop):
    decision = DecisionShop(shop)
    decision.anchor()
    for _ in range(2):
        decision.launch("reject_keyframe")
        assert decision.launch("regenerate_keyframe").success
    assert len(shop.created) == 3


@pytest.mark.parametrize("job", ["approve_keyframe", "reject_keyframe"])
def test_decision_without_a_keyframe_names_the_assets(shop, job):
    failed = failure_of(DecisionShop(shop).launch(job, partition="mug")).description
    assert "shop/keyframe_approval, partition 'mug'" in failed
    assert "materialize shop/anchor_keyframe first" in failed


def test_decision_jobs_need_a_gate():
    videos = UGenVideoAssets(requests=as_requests(request_of))
    with pytest.raises(ValueError, match="gate=UGenGate"):
        build_ugen_approval_jobs(videos)
