# SPDX-License-Identifier: Apache-2.0
"""Submit and collect by sensor; a feed becomes partitions and runs; orphans are found."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from dagster_ugen import (
    FeedRequests,
    Output,
    UGenAssetProps,
    UGenGate,
    UGenResource,
    UGenVideos,
    assets_of,
    build_ugen_asset_checks,
    build_ugen_batch_job,
    build_ugen_completion_sensor,
    build_ugen_orphan_sensor,
    build_ugen_product_feed_sensor,
    sync_product_partitions,
)
from dagster_ugen.intents import IntentLog
from dagster_ugen.requests import as_requests
from dagster_ugen.sensors import batch_config
from tests.dagster.shop import PRODUCTS, Shop, request_of
from ugen_provider.core.jobs.intent import OurAction
from ugen_provider.emulator.settings import LOCAL_KEY

FEED = Path(__file__).parents[2] / "examples" / "feed.xml"
FINAL = dg.AssetKey("final_video")


def videos_of(requests=request_of, gate: UGenGate | None = None) -> UGenVideos:
    props = UGenAssetProps(output=Output.FINAL_VIDEO, partitions_def=PRODUCTS)
    return UGenVideos(requests=as_requests(requests), props=props, gate=gate)


class Ticks:
    """A sensor with the runs that it asks for, as the daemon makes them."""

    def __init__(self, shop: Shop, videos: UGenVideos, make, *, account: UGenResource | None = None) -> None:
        self.shop = shop
        self.job = build_ugen_batch_job(videos, resource=account or shop.resource)
        self.sensor = make(videos, job=self.job)
        self.cursor: str | None = None
        self.made: set[str] = set()

    def tick(self, *, run: bool = True) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(instance=self.shop.instance, cursor=self.cursor)
        said = self.sensor.evaluate_tick(context)
        self.cursor = said.cursor
        self.skipped = said.skip_message
        requests = [request for request in said.run_requests or () if request.run_key not in self.made]
        self.made.update(request.run_key for request in requests)
        if run:
            for request in requests:
                self.run(request.run_config)
        return requests

    def run(self, config) -> dg.ExecuteInProcessResult:
        return self.job.execute_in_process(run_config=config, instance=self.shop.instance, raise_on_error=False)

    def submit(self, *partitions: str) -> dg.ExecuteInProcessResult:
        self.shop.instance.add_dynamic_partitions("ugen_products", list(partitions))
        return self.run(self.config(*partitions))

    @staticmethod
    def config(*partitions: str):
        return {"ops": {"ugen_batch": {"config": {"partitions": list(partitions)}}}}


@pytest.fixture
def completion(shop: Shop) -> Ticks:
    shop.server.emulator.clock.tick = 0.0
    return Ticks(
        shop,
        videos_of(),
        lambda videos, job: build_ugen_completion_sensor(videos, job=job, resource=shop.resource),
    )


def test_submitted_in_a_short_run_and_collected_when_done(completion, shop, ugen_clock):
    assert completion.submit("lamp", "mug", "sofa").success
    assert sorted(shop.created) == ["lamp", "mug", "sofa"]
    assert not shop.materialized("final_video"), "nobody waited"
    assert completion.tick() == []
    assert "3 jobs are not recorded yet, 0 of them have ended" in completion.skipped
    ugen_clock.advance_until_idle()
    assert len(completion.tick()) == 1
    assert set(shop.materialized("final_video")) == {"lamp", "mug", "sofa"}
    assert set(shop.materialized("keyframes")) == {"lamp", "mug", "sofa"}
    assert completion.tick() == []
    assert "0 jobs are not recorded yet" in completion.skipped
    assert len(shop.created) == 3


def test_an_account_that_names_its_key_by_a_variable_may_be_given_to_all_of_them(shop, ugen_clock, monkeypatch):
    monkeypatch.setenv("SHOP_UGEN_KEY", LOCAL_KEY)
    shop.server.emulator.clock.tick = 0.0
    account = UGenResource(api_key=dg.EnvVar("SHOP_UGEN_KEY"), base_url=shop.server.base_url, poll_interval=0.01)
    videos = videos_of()
    ticks = Ticks(
        shop,
        videos,
        lambda videos, job: build_ugen_completion_sensor(videos, job=job, resource=account),
        account=account,
    )
    assert ticks.submit("lamp").success
    ugen_clock.advance_until_idle()
    assert len(ticks.tick()) == 1
    assert set(shop.materialized("final_video")) == {"lamp"}
    checks = build_ugen_asset_checks(videos, resource=account)
    assert shop.run("lamp", assets=assets_of(videos, resource=account), asset_checks=checks).success
    orphans = build_ugen_orphan_sensor(videos, resource=account)
    assert orphans.evaluate_tick(dg.build_sensor_context(instance=shop.instance)).skip_message


def test_a_job_of_another_name_is_asked_for_by_that_name(shop):
    videos = videos_of()
    batch = build_ugen_batch_job(videos, name="nightly", resource=shop.resource)
    shop.instance.add_dynamic_partitions("ugen_products", ["lamp"])
    config = batch_config(batch, partitions=["lamp"])
    assert batch.execute_in_process(run_config=config, instance=shop.instance).success
    assert shop.created == ["lamp"]


def test_a_look_at_many_jobs_reads_pages(completion, shop):
    names = [f"p{number:03}" for number in range(120)]
    completion.submit(*names)
    before = shop.server.emulator.journal.count
    completion.tick()
    assert shop.server.emulator.journal.count - before < 12


def test_what_a_run_waits_for_or_has_recorded_is_left_to_it(completion, shop, ugen_clock):
    completion.submit("lamp")
    ugen_clock.advance_until_idle()
    run = shop.instance.create_run_for_job(completion.job, run_config=completion.config("lamp"))
    shop.instance.report_run_canceling(run)  # a run under way
    log = IntentLog(shop.instance, asset_key=FINAL, holder=run.run_id)
    log.claim("lamp")
    assert completion.tick() == []
    shop.instance.report_run_canceled(run)
    shop.run("lamp")
    assert completion.tick() == []
    assert "0 jobs are not recorded yet" in completion.skipped


def test_an_order_without_a_slot_is_submitted_again(completion, shop, ugen_faults, ugen_clock):
    ugen_faults.add("status", status=429, retry_after=1, method="POST", path="/api/v1/jobs")
    assert completion.submit("lamp").success, "no slot is no failure"
    assert shop.created == []
    completion.tick()
    assert shop.created == ["lamp"]


def test_a_lost_cursor_costs_time_and_buys_nothing(completion, shop, ugen_clock):
    completion.submit("lamp")
    ugen_clock.advance_until_idle()
    completion.tick()
    completion.cursor = "no cursor of ours"
    completion.made.clear()
    assert completion.tick() == []
    assert shop.created == ["lamp"]


def test_a_collecting_run_names_what_failed_and_keeps_the_rest(completion, shop, ugen_faults, ugen_clock):
    ugen_faults.job(product_name="mug", fail_at="generation", kind="moderation")
    completion.submit("lamp", "mug")
    ugen_clock.advance_until_idle()
    [request] = completion.tick(run=False)
    result = completion.run(request.run_config)
    assert not result.success
    assert set(shop.materialized("final_video")) == {"lamp"}


def test_a_batch_has_no_gate():
    with pytest.raises(ValueError, match="a gate waits for somebody"):
        build_ugen_batch_job(videos_of(gate=UGenGate()))


# The feed.


def feed_of(folder: Path, count: int, *, changed: set[int] = frozenset()) -> FeedRequests:
    path = folder / "feed.csv"
    rows = ["id,title,image_link,description"]
    rows += [
        f"p{n},{'New ' if n in changed else ''}Product {n},https://shop.example/{n}.jpg,Good." for n in range(count)
    ]
    path.write_text("\n".join(rows))
    return FeedRequests(str(path), job_defaults={"segment_count": 2})


def feed_ticks(shop: Shop, feed: FeedRequests, **arguments) -> Ticks:
    return Ticks(
        shop,
        videos_of(feed),
        lambda videos, job: build_ugen_product_feed_sensor(
            videos, feed=feed, partitions_name="ugen_products", job=job, **arguments
        ),
    )


def test_a_feed_becomes_partitions_and_few_runs(shop, tmp_path):
    ticks = feed_ticks(shop, feed_of(tmp_path, 25), products_per_run=5, runs_per_tick=2)
    assert len(ticks.tick()) == 2
    assert len(shop.created) == 10
    ticks.tick()
    ticks.tick()
    assert len(shop.created) == 25
    assert len(shop.instance.get_dynamic_partitions("ugen_products")) == 25
    assert ticks.tick() == [], "a feed that did not change asks for nothing"
    assert len(shop.created) == 25


def test_requests_whose_runs_wait_in_the_queue_are_not_asked_for_again(shop, tmp_path):
    ticks = feed_ticks(shop, feed_of(tmp_path, 10))
    assert len(ticks.tick(run=False)) == 1
    assert ticks.tick(run=False) == []


def test_a_changed_product_is_bought_again_and_the_others_are_not(shop, tmp_path):
    feed_ticks(shop, feed_of(tmp_path, 25)).tick()
    ticks = feed_ticks(shop, feed_of(tmp_path, 25, changed={7}))
    [request] = ticks.tick()
    assert request.run_config["ops"]["ugen_batch"]["config"]["partitions"] == ["p7"]
    assert len(shop.created) == 26
    assert shop.created[-1] == "New Product 7"
    assert ticks.tick() == []


def test_a_feed_that_changed_as_a_whole_buys_nothing_again(shop, tmp_path):
    feed_ticks(shop, feed_of(tmp_path, 25)).tick()
    ticks = feed_ticks(shop, feed_of(tmp_path, 25, changed=set(range(20))))
    assert ticks.tick() == []
    assert len(shop.created) == 25


def test_partitions_from_a_feed(shop):
    synced = sync_product_partitions(
        shop.instance, FeedRequests(str(FEED), job_defaults={"segment_count": 2}), name="ugen_products"
    )
    assert (synced.added, synced.known, synced.rejected_count) == (5, 0, 1)
    assert "no picture" in synced.rejected[0]
    again = sync_product_partitions(
        shop.instance, FeedRequests(str(FEED), job_defaults={"segment_count": 2}), name="ugen_products"
    )
    assert (again.added, again.known) == (0, 5)


# Orphans.


def orphan_ticks(shop: Shop, videos: UGenVideos, **arguments) -> Ticks:
    made = Ticks.__new__(Ticks)
    made.shop, made.cursor, made.made = shop, None, set()
    made.sensor = build_ugen_orphan_sensor(videos, resource=shop.resource, **arguments)
    return made


def abandon(shop: Shop, partition: str, **changes) -> None:
    """As a run leaves its job that waited for it and is gone."""
    log = IntentLog(shop.instance, asset_key=FINAL, holder="a run that is gone")
    log.write(partition, replace(log.claim(partition), **changes))


def test_a_job_that_nobody_waits_for_is_named(completion, shop, ugen_clock):
    completion.submit("lamp")
    abandon(shop, "lamp")
    orphans = orphan_ticks(shop, videos_of())
    orphans.tick()
    assert "1 jobs that nobody waits for" in orphans.skipped
    assert "lamp" in orphans.skipped
    ugen_clock.advance_until_idle()
    completion.tick()
    orphans.tick()
    assert "0 jobs that nobody waits for" in orphans.skipped


@pytest.mark.parametrize("on_orphan", ["name", "cancel"])
def test_what_was_submitted_is_left_to_the_completion_sensor(completion, shop, ugen_clock, on_orphan):
    completion.submit("lamp")
    orphans = orphan_ticks(shop, videos_of(), on_orphan=on_orphan)
    orphans.tick()
    assert orphans.skipped.startswith("0 jobs that nobody waits for, 0 cancelled")
    ugen_clock.advance_until_idle()
    completion.tick()
    assert set(shop.materialized("final_video")) == {"lamp"}


def test_what_was_submitted_and_is_at_work_after_a_day_is_named(completion, shop):
    completion.submit("lamp")
    log = IntentLog(shop.instance, asset_key=FINAL, holder=shop.instance.get_runs(limit=1)[0].run_id)
    log.write("lamp", replace(log.newest("lamp"), written_at=time.time() - 2 * 86_400))
    orphans = orphan_ticks(shop, videos_of())
    orphans.tick()
    assert "lamp" in orphans.skipped


def test_an_orphan_is_cancelled_where_that_is_asked_for(completion, shop):
    completion.submit("lamp")
    abandon(shop, "lamp")
    orphan_ticks(shop, videos_of(), on_orphan="cancel").tick()
    assert set(shop.jobs.values()) == {"cancelled"}


def test_a_cancel_that_could_not_be_sent_is_sent(completion, shop):
    completion.submit("lamp")
    abandon(shop, "lamp", action=OurAction("cancel", "kill", 0.0))
    orphan_ticks(shop, videos_of()).tick()
    assert set(shop.jobs.values()) == {"cancelled"}
    assert IntentLog(shop.instance, asset_key=FINAL, holder="test").newest("lamp").action.confirmed


def test_a_look_that_nobody_decided_on_expires(shop):
    videos = videos_of(gate=UGenGate(expires_after=0.0))
    shop.run("lamp", assets=assets_of(videos), select=["anchor_keyframe"])
    assert set(shop.jobs.values()) == {"paused"}
    orphan_ticks(shop, videos).tick()
    assert set(shop.jobs.values()) == {"cancelled"}
