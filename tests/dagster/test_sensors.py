# SPDX-License-Identifier: Apache-2.0
"""Submit and collect by sensor; a feed becomes partitions and runs; owed work is reconciled."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest
from dagster import PartitionKeyRange

from dagster_ugen import (
    FeedRequests,
    Output,
    UGenAssetProps,
    UGenChecks,
    UGenGate,
    UGenResource,
    UGenVideoAssets,
    build_assets_from_definition,
    build_ugen_asset_checks,
    build_ugen_asset_job,
    build_ugen_completion_sensor,
    build_ugen_product_feed_sensor,
    build_ugen_reconcile_sensor,
    sync_product_partitions,
)
from dagster_ugen.asset_job import END_TAG, START_TAG, PartitionRange, partition_ranges, run_request
from dagster_ugen.event_log import attempt_name
from dagster_ugen.requests import as_requests
from dagster_ugen.sensors import CompletionCursor
from tests.dagster.shop import PRODUCTS, Shop, request_of
from ugen_provider.core.ledger.record import Action
from ugen_provider.emulator.settings import LOCAL_KEY

FEED = Path(__file__).parents[2] / "examples" / "feed.xml"


def videos_of(requests=request_of, gate: UGenGate | None = None) -> UGenVideoAssets:
    props = UGenAssetProps(output=Output.FINAL_VIDEO, partitions_def=PRODUCTS)
    return UGenVideoAssets(requests=as_requests(requests), props=props, gate=gate)


class Ticks:
    """A sensor with the runs that it requests, as the daemon makes them."""

    def __init__(
        self, shop: Shop, videos: UGenVideoAssets, make, *, checks=None, account: UGenResource | None = None
    ) -> None:
        self.shop = shop
        self.videos = videos
        job = build_ugen_asset_job(videos)
        self.sensor = make(videos, job=job)
        resource = account or shop.resource
        self.defs = dg.Definitions(
            assets=build_assets_from_definition(videos, resource=resource),
            asset_checks=build_ugen_asset_checks(videos, checks=checks, resource=resource) if checks else None,
            jobs=[job],
            sensors=[self.sensor],
            resources={"ugen": resource},
        )
        self.job = self.defs.resolve_job_def("ugen_videos_job")
        self.cursor: str | None = None
        self.made: set[str] = set()

    def tick(self, *, run: bool = True) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(
            instance=self.shop.instance, cursor=self.cursor, resources={"ugen": self.shop.resource}
        )
        said = self.sensor.evaluate_tick(context)
        self.cursor = said.cursor
        self.skipped = said.skip_message
        requests = [request for request in said.run_requests or () if request.run_key not in self.made]
        self.made.update(request.run_key for request in requests)
        if run:
            for request in requests:
                self.run(request)
        return requests

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        return self.job.execute_in_process(tags=dict(request.tags), instance=self.shop.instance, raise_on_error=False)

    def submit(self, *partitions: str) -> dg.ExecuteInProcessResult:
        self.shop.instance.add_dynamic_partitions("ugen_products", list(partitions))
        return self.run(run_request(PartitionRange(partitions), kind="submit", run_key=""))

    def keys_of(self, request: dg.RunRequest) -> list[str]:
        """The partitions that a run of this request works on, as Dagster resolves them."""
        keys = list(self.shop.instance.get_dynamic_partitions("ugen_products"))
        return keys[keys.index(request.tags[START_TAG]) : keys.index(request.tags[END_TAG]) + 1]


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
    assert not shop.materialized("final_video"), "no run waited"
    assert completion.tick() == []
    assert "3 jobs are not recorded yet, 0 of them have ended" in completion.skipped
    ugen_clock.advance_until_idle()
    assert len(completion.tick()) == 1
    assert set(shop.materialized("final_video")) == {"lamp", "mug", "sofa"}
    assert set(shop.materialized("keyframes")) == {"lamp", "mug", "sofa"}
    assert completion.tick() == []
    assert "0 jobs are not recorded yet" in completion.skipped
    assert len(shop.created) == 3


def test_an_account_with_a_key_from_a_variable_serves_all(shop, ugen_clock, monkeypatch):
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
    assert shop.run("lamp", assets=build_assets_from_definition(videos, resource=account), asset_checks=checks).success
    reconcile = build_ugen_reconcile_sensor(videos, resource=account)
    assert reconcile.evaluate_tick(dg.build_sensor_context(instance=shop.instance)).skip_message


def test_polling_many_jobs_reads_pages(completion, shop):
    names = [f"p{number:03}" for number in range(120)]
    completion.submit(*names)
    before = shop.server.emulator.journal.count
    completion.tick()
    assert shop.server.emulator.journal.count - before < 12


def test_what_a_run_waits_for_or_has_recorded_is_left_to_it(completion, shop, ugen_clock):
    completion.submit("lamp")
    ugen_clock.advance_until_idle()
    run = shop.instance.create_run_for_job(completion.job, tags={"dagster/partition": "lamp"})
    shop.instance.report_run_canceling(run)  # a run under way
    with shop.store() as store:
        store.take_token(shop.order().order_key, attempt_name(run.run_id, 0))
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
    result = completion.run(request)
    assert not result.success
    assert set(shop.materialized("final_video")) == {"lamp"}


def evaluations(shop: Shop) -> set[tuple[str, str, bool]]:
    """Each check's results as Dagster recorded them: check, partition if that Dagster knows it, passed."""
    found = set()
    for run in shop.instance.get_runs():
        for entry in shop.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            made = entry.dagster_event.asset_check_evaluation_data
            found.add((made.check_name, getattr(made, "partition", None), made.passed))
    return found


@pytest.mark.parametrize("min_score", [0.0, 1.0], ids=["good", "bad"])
def test_checks_run_where_jobs_are_collected(shop, ugen_clock, min_score):
    """Both phases are runs of the same assets: the run that records a partition checks it."""
    shop.server.emulator.clock.tick = 0.0
    asked = UGenChecks(min_score=min_score, file=False, blocking=True)
    ticks = Ticks(shop, videos_of(), lambda videos, job: build_ugen_completion_sensor(videos, job=job), checks=asked)
    assert ticks.submit("lamp", "mug").success
    assert evaluations(shop) == set(), "nothing is made yet"
    ugen_clock.advance_until_idle()
    [request] = ticks.tick(run=False)
    assert ticks.keys_of(request) == ["lamp", "mug"]
    assert ticks.run(request).success is (min_score == 0.0)
    made = evaluations(shop)
    where = {partition for _, partition, _ in made}
    assert where in ({"lamp", "mug"}, {None}), "Dagster 1.12.0 records no partition of a check"
    assert {(name, partition) for name, partition, _ in made} == {
        (name, partition)
        for name in ("keyframe_scores", "segment_scores", "keyframe_count", "segment_count", "credits_within_estimate")
        for partition in where
    }
    assert {passed for name, _, passed in made if name == "keyframe_scores"} == {min_score == 0.0}
    assert set(shop.materialized("final_video")) == {"lamp", "mug"}


def test_range_waits_for_its_neighbor_but_not_for_ever(completion, shop, ugen_clock):
    """A collect run materializes no partition that is still being made."""
    assert completion.submit("lamp", "mug", "sofa").success
    ugen_clock.advance(30)
    with shop.resource.get_client() as client:
        client.jobs.pause(shop.order("mug").job_id)
    ugen_clock.advance_until_idle()
    assert completion.tick() == [], "its neighbor may end in a moment"
    cursor = CompletionCursor.read(completion.cursor)
    for each in cursor.pending.values():
        each.ended_at -= 301 if each.ended_at else 0.0
    completion.cursor = cursor.write()
    found = completion.tick()
    assert [completion.keys_of(each) for each in found] == [["lamp"], ["sofa"]]
    assert set(shop.materialized("final_video")) == {"lamp", "sofa"}


@pytest.mark.parametrize("dimensions", [1, 2])
def test_ranges_hold_what_was_chosen_and_nothing_else(dimensions):
    """However the choice is scattered, and over one dimension or two."""
    products = dg.StaticPartitionsDefinition([f"p{n}" for n in range(6)])
    variants = dg.StaticPartitionsDefinition(["de", "en"])
    partitions_def = products if dimensions == 1 else dg.MultiPartitionsDefinition({"a": products, "b": variants})
    keys = partitions_def.get_partition_keys()
    for number in range(2 ** min(len(keys), 9)):
        chosen = {key for index, key in enumerate(keys) if number >> (index % 9) & 1}
        found: list[str] = []
        for part in partition_ranges(partitions_def, chosen, keys=keys, most=4):
            first, last = (keys[keys.index(each)] for each in (part.keys[0], part.keys[-1]))
            assert list(partitions_def.get_partition_keys_in_range(PartitionKeyRange(first, last))) == list(part.keys)
            assert len(part.keys) <= 4
            found += part.keys
        assert sorted(found) == sorted(chosen)


@pytest.mark.parametrize("model", [None, "veo3"])
def test_model_of_the_account_changes_no_product(shop, tmp_path, model):
    """The sensor and the run compare the request that is sent; another view of it would buy each product again."""
    shop.video_model = model
    ticks = feed_ticks(shop, feed_of(tmp_path, 3))
    assert len(ticks.tick()) == 1
    assert ticks.tick() == []
    assert len(shop.created) == 3


def test_an_asset_job_has_no_gate():
    with pytest.raises(ValueError, match="a gate waits for a person"):
        build_ugen_asset_job(videos_of(gate=UGenGate()))


# The feed.


def feed_of(folder: Path, count: int, *, changed: set[int] = frozenset()) -> FeedRequests:
    path = folder / "feed.csv"
    rows = ["id,title,image_link,description"]
    rows += [
        f"p{n},{'New ' if n in changed else ''}Product {n},https://shop.example/{n}.jpg,Good." for n in range(count)
    ]
    path.write_text("\n".join(rows))
    return FeedRequests(str(path), job_defaults={"segment_count": 2})


def feed_with(folder: Path, numbers) -> FeedRequests:
    """A feed of some products; None is a row without a picture."""
    path = folder / "feed.csv"
    rows = ["id,title,image_link,description"]
    for n in numbers:
        rows.append("bad,Bad,,Good." if n is None else f"p{n},Product {n},https://shop.example/{n}.jpg,Good.")
    path.write_text("\n".join(rows))
    return FeedRequests(str(path), job_defaults={"segment_count": 2})


def feed_ticks(shop: Shop, feed: FeedRequests, **arguments) -> Ticks:
    arguments.setdefault("budget", 1_000_000)
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


def test_requested_products_are_not_requested_again(shop, tmp_path):
    ticks = feed_ticks(shop, feed_of(tmp_path, 10))
    assert len(ticks.tick(run=False)) == 1
    assert ticks.tick(run=False) == []


def queue(ticks: Ticks, request: dg.RunRequest) -> dg.DagsterRun:
    """Create a run as the daemon does, and leave it in the queue."""
    tags = {**request.tags, "dagster/run_key": request.run_key}
    return ticks.shop.instance.create_run_for_job(ticks.job, tags=tags, status=dg.DagsterRunStatus.NOT_STARTED)


@pytest.mark.parametrize("end", ["terminated", "failed", "deleted"])
def test_products_of_a_run_that_bought_nothing_are_requested(shop, tmp_path, end):
    """A run that ends while it is queued has bought nothing: "requested" is not "done"."""
    ticks = feed_ticks(shop, feed_of(tmp_path, 3))
    [request] = ticks.tick(run=False)
    run = queue(ticks, request)
    assert ticks.tick(run=False) == [], "its run waits in the queue"
    match end:
        case "terminated":
            shop.instance.report_run_canceled(run)
        case "failed":
            shop.instance.report_run_failed(run)
        case _:
            shop.instance.delete_run(run.run_id)
            cursor = json.loads(ticks.cursor)
            cursor["requested"] = {key: [at - 3600, names] for key, (at, names) in cursor["requested"].items()}
            ticks.cursor = json.dumps(cursor)
    [again] = ticks.tick(run=False)
    assert again.run_key != request.run_key, "Dagster skips a run key that it knows"
    assert ticks.keys_of(again) == ticks.keys_of(request)
    queue(ticks, again)
    assert ticks.tick(run=False) == []
    ticks.run(again)
    assert len(shop.created) == 3


def test_many_requested_products_are_all_remembered(shop, tmp_path):
    """There is no limit of remembered products: each of 300 is requested once, however many ticks it takes."""
    ticks = feed_ticks(shop, feed_of(tmp_path, 300), products_per_run=50, runs_per_tick=1)
    names: list[str] = []
    for _ in range(12):
        for request in ticks.tick(run=False):
            queue(ticks, request)
            names += ticks.keys_of(request)
    assert len(names) == len(set(names)) == 300


def test_only_a_changed_product_is_bought_again(shop, tmp_path):
    feed_ticks(shop, feed_of(tmp_path, 25)).tick()
    ticks = feed_ticks(shop, feed_of(tmp_path, 25, changed={7}))
    [request] = ticks.tick()
    assert ticks.keys_of(request) == ["p7"]
    assert len(shop.created) == 26
    assert shop.created[-1] == "New Product 7"
    assert ticks.tick() == []


def test_a_feed_that_changed_as_a_whole_buys_nothing_again(shop, tmp_path):
    feed_ticks(shop, feed_of(tmp_path, 25)).tick()
    ticks = feed_ticks(shop, feed_of(tmp_path, 25, changed=set(range(20))))
    assert ticks.tick() == []
    assert len(shop.created) == 25


GUARDED = [
    ("max_new", {"max_new": 4}, range(25), range(30), {"max_new": 5}, 30),
    ("max_gone", {}, range(25), [*range(15), 90], {"max_gone": 0.4}, 26),
    ("new_ids", {"max_gone": 1.0}, range(25), range(100, 125), {"allow_new_ids": True}, 50),
    ("max_rejected", {"max_rejected": 0}, range(3), [*range(4), None], {"max_rejected": 1}, 4),
]


@pytest.mark.parametrize(
    ("limits", "first", "second", "allowed", "count"),
    [each[1:] for each in GUARDED],
    ids=[each[0] for each in GUARDED],
)
def test_a_feed_beyond_a_limit_buys_nothing(shop, tmp_path, limits, first, second, allowed, count):
    """The journal has no purchase, and no partition is added that automation could buy, until a person allows it."""
    ticks = feed_ticks(shop, feed_with(tmp_path, first))
    ticks.tick()
    assert ticks.tick() == []
    bought, partitions = len(shop.created), shop.instance.get_dynamic_partitions("ugen_products")
    assert bought == len([*first])
    refused = feed_ticks(shop, feed_with(tmp_path, second), **limits)
    refused.cursor = ticks.cursor
    for _ in range(3):
        assert refused.tick() == []
        assert "nothing was bought" in refused.skipped
    assert len(shop.created) == bought
    assert shop.instance.get_dynamic_partitions("ugen_products") == partitions
    permitted = feed_ticks(shop, feed_with(tmp_path, second), **{**limits, **allowed})
    permitted.cursor = refused.cursor
    permitted.tick()
    assert len(shop.created) == count
    refused.cursor = permitted.cursor
    assert refused.tick() == []
    assert len(shop.created) == count, "what was allowed once is the new measure"


def test_limits_need_enough_known_products(shop, tmp_path):
    ticks = feed_ticks(shop, feed_with(tmp_path, range(9)))
    ticks.tick()
    other = feed_ticks(shop, feed_with(tmp_path, range(100, 105)), max_new=1)
    other.cursor = ticks.cursor
    other.tick()
    assert len(shop.created) == 14


def test_a_slow_feed_is_counted_whole_before_it_buys(shop, tmp_path, monkeypatch):
    """A pass over several ticks requests nothing until it has seen the feed's end."""
    monkeypatch.setattr("dagster_ugen.feed_sensor.TICK_SECONDS", -1.0)
    monkeypatch.setattr("dagster_ugen.feed_sensor.CHUNK", 10)
    ticks = feed_ticks(shop, feed_of(tmp_path, 25))
    assert ticks.tick(run=False) == ticks.tick(run=False) == []
    while len(shop.created) < 25:
        assert ticks.tick()
    assert len(shop.created) == 25


def test_a_feed_that_grows_while_it_is_read_waits(shop, tmp_path, monkeypatch):
    """The second pass buys no more than the first one counted."""
    feed_ticks(shop, feed_of(tmp_path, 12)).tick()
    monkeypatch.setattr("dagster_ugen.feed_sensor.TICK_SECONDS", -1.0)
    monkeypatch.setattr("dagster_ugen.feed_sensor.CHUNK", 10)
    ticks = feed_ticks(shop, feed_of(tmp_path, 14), max_new=2)
    ticks.tick()
    ticks.tick()
    feed_of(tmp_path, 40)
    for _ in range(6):
        ticks.tick()
    assert len(shop.created) == 14


@pytest.mark.parametrize("wrong", [{"max_gone": 2}, {"max_changed": -0.1}])
def test_a_limit_out_of_its_range_is_refused(shop, tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        feed_ticks(shop, feed_of(tmp_path, 1), **wrong)


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


# The reconciler.


class Reconciling:
    """The reconcile sensor on a clock of its own."""

    def __init__(self, shop: Shop, videos: UGenVideoAssets | None = None) -> None:
        self.shop = shop
        self.cursor: str | None = None
        self.sensor = build_ugen_reconcile_sensor(videos or videos_of(), resource=shop.resource)

    def tick(self, *, after: float = 0.0) -> str:
        """One tick, some seconds after the runs that are missing were first missed."""
        if self.cursor and after:
            missing = json.loads(self.cursor)["missing"]
            self.cursor = json.dumps({"missing": {run: at - after for run, at in missing.items()}})
        context = dg.build_sensor_context(instance=self.shop.instance, cursor=self.cursor)
        result = self.sensor.evaluate_tick(context)
        self.cursor = result.cursor
        return str(result.skip_message)


def lost_run(shop: Shop, status: dg.DagsterRunStatus | None) -> str:
    """A run whose process was killed while it waited for its job; Dagster says how it ended, or has no such run."""
    defs = dg.Definitions(assets=shop.assets(), resources={"ugen": shop.resource})
    job = defs.resolve_implicit_global_asset_job_def()
    run = shop.instance.create_run_for_job(
        job, tags={"dagster/partition": "lamp"}, status=status or dg.DagsterRunStatus.STARTED
    )
    with shop.store() as store:
        record = store.take_token(shop.order().order_key, attempt_name(run.run_id, 0))
        store.write(record)
    if status is None:
        shop.instance.delete_run(run.run_id)
    return run.run_id


def test_cancel_that_could_not_be_sent_is_sent(completion, shop):
    completion.submit("lamp")
    lost_run(shop, dg.DagsterRunStatus.CANCELED)
    record = shop.order()
    with shop.store() as store:
        store.append_action(Action(record.order_key, 0, record.job_id, "cancel", "terminate", record.token, 0.0))
    assert Reconciling(shop).tick().startswith("1 settled, 0 withdrawn, 0 owed")
    assert set(shop.jobs.values()) == {"cancelled"}
    assert [action.state for action in shop.actions()] == ["confirmed"]


def test_owed_cancel_is_withdrawn_when_a_newer_run_began(completion, shop):
    completion.submit("lamp")
    record = shop.order()
    with shop.store() as store:
        store.append_action(Action(record.order_key, 0, record.job_id, "cancel", "terminate", record.token, 0.0))
    lost_run(shop, dg.DagsterRunStatus.STARTED)
    Reconciling(shop).tick()
    assert "cancelled" not in shop.jobs.values()
    assert [action.state for action in shop.actions()] == ["withdrawn"]


@pytest.mark.parametrize(
    ("status", "owner"),
    [
        (dg.DagsterRunStatus.CANCELED, "cancelled"),
        (dg.DagsterRunStatus.FAILURE, "collected"),
        (dg.DagsterRunStatus.STARTED, "its run"),
        (dg.DagsterRunStatus.NOT_STARTED, "its run"),
        (dg.DagsterRunStatus.SUCCESS, "completion sensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.value,
)
def test_job_of_a_lost_run_gets_its_owner(completion, shop, ugen_clock, status, owner):
    completion.submit("lamp")
    lost_run(shop, status)
    sensor = Reconciling(shop)
    sensor.tick()
    sensor.tick()
    if owner == "cancelled":
        assert set(shop.jobs.values()) == {"cancelled"}
        return
    assert "cancelled" not in shop.jobs.values(), "an ended process is no decision"
    kinds = [action.kind for action in shop.actions()]
    assert kinds == (["collect"] if owner == "collected" else [])
    ugen_clock.advance_until_idle()
    sensor.tick()
    assert [action.state for action in shop.actions()] == (["confirmed"] if owner == "collected" else [])


def test_job_of_a_deleted_run_is_cancelled_after_two_readings(completion, shop):
    completion.submit("lamp")
    lost_run(shop, None)
    sensor = Reconciling(shop)
    sensor.tick()
    sensor.tick(after=300)
    assert "cancelled" not in shop.jobs.values()
    sensor.tick(after=301)
    assert set(shop.jobs.values()) == {"cancelled"}


def test_completed_job_of_a_deleted_run_keeps_its_result(completion, shop, ugen_clock):
    completion.submit("lamp")
    lost_run(shop, None)
    ugen_clock.advance_until_idle()
    sensor = Reconciling(shop)
    sensor.tick()
    sensor.tick(after=700)
    sensor.tick()
    assert [action.state for action in shop.actions()] == ["withdrawn"]
    assert shop.run("lamp").success
    assert shop.created == ["lamp"]


def test_outputs_of_a_failed_run_are_collected(completion, shop, ugen_clock):
    props = UGenAssetProps(output=Output.FINAL_VIDEO, partitions_def=PRODUCTS)
    videos = UGenVideoAssets(requests=as_requests(request_of), props=props, destination=str(shop.folder))
    submits = Ticks(shop, videos, lambda videos, job: build_ugen_completion_sensor(videos, job=job))
    submits.submit("lamp")
    lost_run(shop, dg.DagsterRunStatus.FAILURE)
    sensor = Reconciling(shop, videos)
    assert "1 owed" in sensor.tick(), "the job runs"
    ugen_clock.advance_until_idle()
    assert sensor.tick().startswith("1 settled")
    assert list(shop.folder.glob("lamp/*/final.mp4"))


def test_gate_without_a_decision_expires(shop):
    videos = videos_of(gate=UGenGate(expires_after=0.0))
    shop.run("lamp", assets=build_assets_from_definition(videos), select=["anchor_keyframe"])
    assert set(shop.jobs.values()) == {"paused"}
    shop.server.emulator.clock.advance(1.0)
    Reconciling(shop, videos).tick()
    assert set(shop.jobs.values()) == {"cancelled"}


def test_reuse_only_account_reconciles_nothing(completion, shop):
    completion.submit("lamp")
    lost_run(shop, dg.DagsterRunStatus.CANCELED)
    shop.spending = "reuse_only"
    Reconciling(shop).tick()
    assert "cancelled" not in shop.jobs.values()
    assert shop.actions() == []
