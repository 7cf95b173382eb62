# SPDX-License-Identifier: Apache-2.0
"""One job for each product, after repeated runs of any part."""

from pathlib import Path

import dagster as dg
import fsspec
import pytest

from dagster_ugen import FeedRequests, UGenOptions, UGenResource, build_ugen_assets, ugen_assets
from tests.dagster.shop import PRODUCTS, failure_of, request_of
from ugen_provider import CreateJob
from ugen_provider.emulator.settings import LOCAL_KEY
from ugen_provider.ledger import LedgerUnavailableError

ALL = ("keyframes", "videos", "final_video")


def test_a_product_becomes_three_assets_with_files_and_metadata(shop):
    assert shop.run("lamp", destination=str(shop.folder)).success
    assert shop.created == ["lamp"]
    for asset in ALL:
        made = shop.materialized(asset)["lamp"]
        assert made["ugen/outcome"] == "created"
        assert ("ugen/credits" in made) is (asset == "final_video"), "a job costs once, not once for each output"
    final = shop.materialized("final_video")["lamp"]
    assert final["ugen/jobs"] == 1
    assert final["ugen/credits_estimated"] >= final["ugen/credits"] > 0
    assert final["dagster/uri"].endswith("/final.mp4")
    assert {path.name for path in shop.folder.glob("lamp/*/*")} >= {"final.mp4", "keyframe-0.png", "manifest.json"}


def test_again_buys_nothing_and_says_so(shop):
    shop.run("lamp")
    assert shop.run("lamp").success
    assert shop.created == ["lamp"]
    made = shop.materialized("final_video")["lamp"]
    assert (made["ugen/outcome"], made["ugen/credits"], made["ugen/jobs"]) == ("reused", 0, 0)
    assert "nothing was bought" in made["ugen/warnings"]


@pytest.mark.parametrize("first", ALL)
def test_a_part_buys_the_whole_job_once_and_records_that_part(shop, first):
    shop.run("lamp", select=[first])
    assert [asset for asset in ALL if shop.materialized(asset)] == [first]
    shop.run("lamp")
    assert shop.created == ["lamp"]
    assert all(shop.materialized(asset)["lamp"]["ugen/job_id"] for asset in ALL)


def test_many_partitions_in_one_run(shop):
    result = shop.run("lamp", "mug", "sofa")
    assert result.success
    assert sorted(shop.created) == ["lamp", "mug", "sofa"]
    for asset in ALL:
        assert set(shop.materialized(asset)) == {"lamp", "mug", "sofa"}
    events = result.get_asset_materialization_events()
    assert len(events) == 9, "each partition of each asset is recorded once"


def test_one_failing_partition_costs_the_others_nothing(shop, ugen_faults):
    ugen_faults.job(product_name="mug", fail_at="generation", kind="moderation")
    result = shop.run("lamp", "mug", "sofa")
    assert not result.success
    failure = failure_of(result)
    assert "1 of 3 partitions failed: mug: " in failure.description
    assert "moderation" in failure.description
    assert failure.metadata["ugen/failed_partitions"].value == ["mug"]
    assert set(shop.materialized("final_video")) == {"lamp", "sofa"}


def test_an_asset_without_partitions(shop):
    assert shop.run(assets=shop.assets(requests=request_of(""), partitions_def=None)).success
    assert shop.run(assets=shop.assets(requests=request_of(""), partitions_def=None)).success
    assert shop.created == ["only"]
    assert shop.materialized("final_video")[""]["ugen/outcome"] == "reused"


def test_what_hangs_on_it_in_the_same_run_is_run(shop):
    @dg.asset(deps=["final_video"], partitions_def=PRODUCTS)
    def posted() -> None: ...

    result = shop.run("lamp", assets=[*shop.assets(), posted])
    assert result.success
    assert shop.materialized("posted")


def test_the_decorator(shop):
    @ugen_assets(partitions_def=PRODUCTS, key_prefix="shop", group_name="films", tags={"team": "video"})
    def my_videos(partition: str) -> dict[str, object]:
        return request_of(partition)

    assert shop.run("lamp", assets=[my_videos]).success
    assert my_videos.op.name == "my_videos"
    assert shop.materialized("shop/final_video")
    spec = my_videos.specs_by_key[dg.AssetKey(["shop", "final_video"])]
    assert spec.group_name == "films"
    assert spec.kinds == {"ugen", "video"}
    assert spec.tags["team"] == "video"
    assert my_videos.backfill_policy.max_partitions_per_run == 25


def test_regenerate_buys_once_for_each_new_value(shop):
    shop.run("lamp")
    config = {"ops": {"ugen_videos": {"config": {"regenerate": "brighter"}}}}
    assert shop.run("lamp", config=config).success
    assert shop.run("lamp", config=config).success
    assert shop.created == ["lamp", "lamp"]
    assert shop.materialized("final_video")["lamp"]["ugen/purchase_number"] == 1
    shop.run("lamp", tags={"ugen/regenerate": "darker"})
    shop.run("lamp", tags={"ugen/regenerate": "darker"})
    shop.run("lamp")
    assert len(shop.created) == 3
    assert shop.materialized("final_video")["lamp"]["ugen/purchase_number"] == 2


def test_deleting_old_runs_loses_no_intent(shop):
    result = shop.run("lamp")
    shop.instance.delete_run(result.run_id)
    shop.server.emulator.set_readings({"replay_ended": "new"})
    shop.run("lamp")
    assert shop.created == ["lamp"]
    assert shop.materialized("final_video")["lamp"]["ugen/outcome"] == "reused"


def test_namespaces_never_meet(shop):
    shop.run("lamp")
    elsewhere = UGenResource(**{**shop.resource.model_dump(), "namespace": "staging"})
    shop.run("lamp", resource=elsewhere)
    assert shop.created == ["lamp", "lamp"]


def test_reuse_only_buys_nothing(shop):
    thrifty = UGenResource(**{**shop.resource.model_dump(), "spending": "reuse_only"})
    result = shop.run("lamp", resource=thrifty)
    assert "spending is reuse_only" in failure_of(result).description
    assert shop.created == []
    shop.run("lamp")
    assert shop.run("lamp", resource=thrifty).success


def test_a_purchase_above_the_limit_is_not_made(shop):
    result = shop.run("lamp", options=UGenOptions(max_credits=5))
    assert "max_credits is 5" in failure_of(result).description
    assert shop.created == []


@pytest.mark.parametrize(("kind", "retried"), [("moderation", 1), ("validation", 1), ("transient", 3)])
def test_only_errors_that_a_retry_can_repair_are_retried(shop, ugen_faults, kind, retried):
    ugen_faults.job(product_name="lamp", fail_at="generation", kind=kind, times=None)
    result = shop.run("lamp", retry_policy=dg.RetryPolicy(max_retries=2), options=UGenOptions(max_stage_retries=5))
    assert not result.success
    starts = [e for e in result.all_events if e.event_type_value in {"STEP_START", "STEP_RESTARTED"}]
    assert len(starts) == retried
    assert shop.created == ["lamp"], "a stage retry is no second job"


def test_a_lost_database_under_users_own_requests_is_retried(shop):
    asked = []

    def request_from_a_ledger(partition):
        asked.append(partition)
        if len(asked) == 1:
            raise LedgerUnavailableError("the connection is closed", ledger="postgresql://db/shop", run_id="night")
        return request_of(partition)

    result = shop.run("lamp", requests=request_from_a_ledger, retry_policy=dg.RetryPolicy(max_retries=1))
    assert result.success
    assert (asked, shop.created) == (["lamp", "lamp"], ["lamp"])


def test_too_few_credits_fails_at_once_and_names_them(shop):
    tenant = shop.server.emulator.accounts.by_name["local"]
    tenant.credits.balance = 5
    result = shop.run("lamp", retry_policy=dg.RetryPolicy(max_retries=2))
    assert "402" in failure_of(result).description
    assert not [e for e in result.all_events if e.event_type_value == "STEP_RESTARTED"]
    tenant.credits.balance = 10_000
    assert shop.run("lamp").success, "after topping up the same order goes through"
    assert shop.created == ["lamp"]


def test_a_lost_answer_buys_nothing_twice(shop, ugen_faults):
    ugen_faults.add("lost", method="POST", path="/api/v1/jobs", times=10)
    assert not shop.run("lamp", resource=UGenResource(**{**shop.resource.model_dump(), "max_retries": 0})).success
    ugen_faults.clear()
    assert shop.run("lamp").success
    assert shop.created == ["lamp"]


def test_a_limit_of_jobs_is_waited_out_and_uses_no_retry(shop, ugen_faults):
    ugen_faults.add("status", status=429, retry_after=1, method="POST", path="/api/v1/jobs")
    assert shop.run("lamp").success
    assert shop.created == ["lamp"]


def test_a_changed_request_takes_the_job_and_warns(shop):
    shop.run("lamp")
    result = shop.run("lamp", requests=lambda partition: {**request_of(partition), "segment_count": 3})
    assert result.success, failure_of(result).description
    made = shop.materialized("final_video")["lamp"]
    assert made["ugen/request_changed"] is True
    assert "the request has changed" in made["ugen/warnings"]
    assert shop.created == ["lamp"]


def test_low_quality_warns_or_fails(shop, ugen_faults):
    ugen_faults.job(product_name="*", score=0.31, times=None)
    assert shop.run("lamp", options=UGenOptions(min_score=0.5)).success
    assert "scored 0.31, below min_score 0.50" in shop.materialized("final_video")["lamp"]["ugen/warnings"]
    strict = UGenOptions(min_score=0.5, on_low_quality="fail")
    result = shop.run("mug", options=strict, destination=str(shop.folder))
    assert "below min_score" in failure_of(result).description
    assert list(shop.folder.glob("mug/*/final.mp4")), "what was paid for is stored all the same"


def test_an_asset_of_ones_own_says_what_it_cost(shop):
    @dg.asset
    def own(context: dg.AssetExecutionContext, ugen: UGenResource) -> None:
        with ugen.get_client(context) as client:
            for _ in range(2):
                client.jobs.create(CreateJob(**request_of("lamp")), idempotency_key="the-same")

    assert shop.run(assets=[own]).success
    made = shop.materialized("own")[""]
    assert made["ugen/jobs"] == 1
    assert made["ugen/credits_reserved"] == shop.server.emulator.journal.purchases[0].reserved > 0


def test_a_bad_key_says_where_to_set_it(shop):
    result = shop.run("lamp", resource=UGenResource(**{**shop.resource.model_dump(), "api_key": ""}))
    failure = failure_of(result).description
    assert "UGenResource.api_key" in failure
    assert "UGEN_API_KEY" in failure


def test_a_feed_that_cannot_be_read_is_reported(shop, tmp_path):
    (tmp_path / "feed.xml").write_text("<rss><channel><item>")
    for feed in ("no-such-feed.xml", str(tmp_path / "feed.xml")):
        result = shop.run("lamp", requests=FeedRequests(feed, job_defaults={"segment_count": 2}))
        assert feed.rpartition("/")[2] in failure_of(result).description
    assert shop.created == []


def test_a_partition_that_the_feed_does_not_know_is_reported(shop):
    feed = Path(__file__).parents[2] / "examples" / "feed.xml"
    requests = FeedRequests(str(feed), job_defaults={"segment_count": 2})
    result = shop.run("LL-1004", "nowhere", requests=requests)
    failure = failure_of(result).description
    assert "LL-1004: " in failure
    assert "no picture" in failure
    assert "nowhere: " in failure
    assert "no product of this id" in failure


@pytest.mark.parametrize("destination", ["s4://videos", "s3://videos", "gs://videos"])
def test_an_unwritable_destination_fails_before_any_purchase(shop, destination):
    protocol = destination.partition(":")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except (ValueError, ImportError):
        pass
    else:
        pytest.skip(f"{protocol} can be written to here")
    result = shop.run("lamp", destination=destination)
    assert destination in failure_of(result).description
    assert shop.created == []


def test_a_local_ugen_from_the_environment_serves_its_files(shop, monkeypatch):
    monkeypatch.setenv("UGEN_BASE_URL", shop.server.base_url)
    account = UGenResource(api_key=LOCAL_KEY, poll_interval=0.01)
    assert shop.run("lamp", destination=str(shop.folder), resource=account).success
    assert list(shop.folder.glob("lamp/*/final.mp4"))


def test_a_feed_without_partitions_is_refused_at_definition():
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="partitions_def="):
        build_ugen_assets(requests=FeedRequests("feed.xml", job_defaults={"segment_count": 2}))
