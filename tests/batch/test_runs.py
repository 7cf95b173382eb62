# SPDX-License-Identifier: Apache-2.0
"""Feed runs night after night: what is bought, what is not, and what the report says."""

import asyncio
import json
import sqlite3
import sys
import threading
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.core.local import EmulatorClock, Local
from ugen_provider import CreateJob
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.batch import Budget, PlanOptions, RunRefusedError
from ugen_provider.core.batch.report import find_run, rejected_rows, write_rejected
from ugen_provider.core.feeds import FeedError, FeedMapping, mapping
from ugen_provider.core.jobs.policy import PurchasePolicy
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.database import filesystem_of
from ugen_provider.emulator.settings import Settings, TenantSettings
from ugen_provider.ledger import Ledger


def test_a_second_run_over_unchanged_products_sends_nothing(shop):
    shop.sells("a", "b", "c")
    first = shop.run("monday")
    assert (first.products, first.completed, first.bought, first.new) == (3, 3, 3, 3)
    assert first.credits_consumed > 0
    assert first.credits_estimated == first.credits_consumed + first.credits_released
    before = shop.local.requests()
    second = shop.run("tuesday")
    assert (second.unchanged, second.completed, second.credits_consumed) == (3, 0, 0)
    assert shop.local.requests() == before
    assert shop.local.created == 3


def test_a_job_whose_end_was_read_is_not_read_a_second_time(shop):
    shop.sells("a")
    shop.run("monday")
    (job,) = shop.jobs()
    polls = shop.local.world.journal.find_requests(method="GET", path=f"/api/v1/jobs/{job.job_id}")
    assert len([look for look in polls if look.at >= job.completed_at.timestamp()]) == 1


def test_the_same_run_again_buys_nothing(shop):
    shop.sells("a", "b")
    first = shop.run("monday")
    again = shop.run("monday")
    assert shop.local.created == 2
    assert again == first


def test_a_changed_product_is_bought_and_changed_back_is_found(shop):
    shop.sells("a", "b", "c")
    shop.run("monday")
    old = shop.entry("a")
    shop.sells("a", "b", "c", a="Mug")
    report = shop.run("tuesday", plan=PlanOptions(max_changed=0.5))
    assert (report.changed, report.bought, report.unchanged) == (1, 1, 2)
    assert shop.entry("a").job_id != old.job_id
    shop.sells("a", "b", "c")
    before = shop.local.requests()
    assert shop.run("wednesday").unchanged == 3
    assert shop.local.requests() == before
    assert (shop.entry("a").job_id, shop.entry("a").video) == (old.job_id, old.video)


def test_gone_products_are_reported_and_returning_ones_reused(shop):
    shop.sells("a", "b")
    shop.run("monday")
    shop.sells("a")
    assert shop.run("tuesday").disappeared == 1
    assert not shop.entry("b").seen
    shop.sells("a", "b")
    assert shop.run("wednesday").unchanged == 2
    assert shop.local.created == 2


def test_the_budget_stops_a_run_and_a_larger_one_continues_it(shop):
    shop.sells(*"abcdefgh")
    report = shop.run("monday", budget=Budget(credits=250), in_flight=2)
    assert report.completed >= 2
    assert report.postponed == 8 - report.completed
    assert report.postponed_by == {"budget": report.postponed}
    assert report.credits_consumed <= 250
    assert shop.local.created == report.completed
    more = shop.run("monday", budget=Budget(credits=10_000))
    assert (more.completed, more.postponed) == (8, 0)
    assert shop.local.created == 8


def test_the_next_night_buys_what_was_postponed(shop):
    shop.sells(*"abcd")
    shop.run("monday", budget=Budget(credits=100))
    report = shop.run("tuesday")
    assert (report.unchanged + report.completed, shop.local.created) == (4, 4)


def test_credits_that_a_failed_job_left_can_be_spent_again(shop):
    shop.sells("a", "b")
    shop.local.outcome(product_name="Cup a", fail_at="prepare", kind="moderation")
    lamp = CreateJob(product_name="Lamp", product_image_url="https://s.example/l.jpg", segment_count=1)
    with shop.local.client() as client:
        one = client.credits.estimate(lamp).total_credits
    report = shop.run("monday", budget=Budget(credits=one, daily=one), in_flight=1)
    assert (report.failed, report.completed, report.postponed) == (1, 1, 0)


@pytest.mark.parametrize("by", ["another", "ourselves"])
def test_a_runner_that_lost_a_product_writes_nothing_of_it(shop, by):
    """As when a runner sleeps for longer than its lease, and the product is taken up anew meanwhile."""
    shop.sells("a")
    product = schema.product
    seen = []

    def change(**values):
        with shop.ledger.engine.begin() as connection:
            connection.execute(sa.update(product).values(values))

    def probe(point):
        if point == "before.settle" and not seen:
            change(lease_token=product.c.lease_token + 1, **({"lease_owner": "another"} if by == "another" else {}))
        if point in {"before.settle", "after.settle"}:
            with shop.ledger.engine.connect() as connection:
                row = connection.execute(sa.select(product)).one()
            seen.append((row.lease_owner, row.state, row.video))
            if len(seen) == 2:
                change(lease_owner=None)

    report = shop.run("monday", probe=probe)
    owner, *_ = seen[0]
    assert owner is not None
    assert seen[:2] == [(owner, "", None)] * 2
    assert (report.completed, shop.local.created, shop.entry("a").state) == (1, 1, "completed")


def test_a_daily_budget_holds_over_several_runs(shop):
    shop.sells(*"abcdef")
    budget = Budget(credits=10_000, daily=200)
    first = shop.run("monday-1", budget=budget)
    second = shop.run("monday-2", budget=budget)
    assert first.credits_consumed + second.credits_consumed <= 200
    assert second.postponed_by == {"daily budget": second.postponed}
    assert shop.run("monday-3").postponed == 0


def test_an_empty_account_postpones_the_rest(tmp_path):
    local = Local(Settings(speed=0, admin=True, tenants=(TenantSettings(credits=200),)))
    from .conftest import Shop

    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger:
        shop = Shop(tmp_path, local, ledger)
        shop.sells(*"abcdef")
        report = shop.run("monday", in_flight=1)
        assert report.completed >= 1
        assert report.postponed_by == {"credits": 6 - report.completed}


def test_without_estimate_or_assumed_cost_nothing_is_bought(shop):
    shop.sells("a")
    fault = {"kind": "status", "status": 404, "path": "/api/v1/credits/estimate", "times": None}
    shop.local.world.faults.add(fault)
    with pytest.raises(RunRefusedError, match="assume_credits") as caught:
        shop.run("monday")
    assert caught.value.reason == "estimate"
    assert shop.local.created == 0
    assert shop.run("monday", budget=Budget(credits=500, assume_credits=100)).completed == 1


def test_too_many_changed_products_stop_the_run_unbought(shop):
    shop.sells(*"abcde")
    shop.run("monday")
    with pytest.raises(RunRefusedError, match="5 of 5 known products would be bought again") as caught:
        shop.run("tuesday", job_defaults={"segment_count": 2}, plan=PlanOptions(guard_min=5))
    assert caught.value.reason == "max_changed"
    assert shop.local.created == 5
    report = shop.run("tuesday", job_defaults={"segment_count": 2}, plan=PlanOptions(max_changed=1.0))
    assert report.changed == 5


def test_too_many_rejected_rows_stop_the_run_unbought(shop):
    shop.sells("a")
    shop.write("nonsense", '{"id": "x", "title": "No picture"}')
    with pytest.raises(RunRefusedError, match="2 of 3 products are rejected and max_rejected is 1"):
        shop.run("monday", plan=PlanOptions(max_rejected=1))
    assert shop.local.created == 0
    report = shop.run("monday")
    assert (report.rejected, report.completed) == (2, 1)
    run = find_run(shop.ledger, shop.ledger.find_catalogue("shop"), "monday")
    rejected = shop.path.with_name("rejected.jsonl")
    assert write_rejected(shop.ledger, run, rejected) == 2
    assert json.loads(rejected.read_text().splitlines()[1])["column"] == "image_link"
    with pytest.raises(ConfigError, match="has no run 'sunday'"):
        find_run(shop.ledger, shop.ledger.find_catalogue("shop"), "sunday")
    assert [str(row) for row in rejected_rows(shop.ledger, run)] == [
        "line 2, item 2: row is no JSON (expected ident at column 2), got 'nonsense'",
        "line 3, item 3, product x: image_link is required: the product has no picture",
    ]


def test_a_feed_that_breaks_in_the_middle_buys_nothing(shop):
    shop.path.write_bytes(b"<rss><channel><item><id>1</id><title>a</title>"
                          b"<image_link>https://s.example/1.jpg</image_link></item><item>")  # fmt: skip
    with pytest.raises(FeedError, match="cut off"):
        shop.run("monday")
    assert shop.local.created == 0
    shop.sells("a")
    assert shop.run("monday").completed == 1


@pytest.mark.parametrize(("wins", "title"), [("first", "First"), ("last", "Third")])
def test_duplicate_ids_are_counted_and_the_named_row_wins(shop, wins, title):
    shop.sells("b")
    shop.write(
        *(
            f'{{"id": "a", "title": "{t}", "image_link": "https://s.example/a.jpg"}}'
            for t in ("First", "Second", "Third")
        )
    )
    report = shop.run("monday", plan=PlanOptions(duplicates=wins))
    assert (report.products, report.completed, report.skipped, report.duplicates) == (4, 2, 2, 2)
    titles = {job.product_name for job in shop.jobs()}
    assert titles == {"Cup b", title}


def test_duplicates_far_apart_are_found_too(shop):
    shop.sells(*(f"p{n}" for n in range(4500)))  # more than are judged at once
    shop.write('{"id": "p0", "title": "Again", "image_link": "https://s.example/a.jpg"}')
    shop.run("monday", budget=Budget(credits=100), plan=PlanOptions(duplicates="last"))
    assert [job.product_name for job in shop.jobs()] == ["Cup p1"]


def test_filtered_products_are_skipped(shop):
    shop.sells("a", "b")
    plan = PlanOptions(mapping=FeedMapping.from_dict({"filters": ["title contains cup a"]}))
    report = shop.run("monday", plan=plan)
    assert (report.completed, report.skipped, report.filtered) == (1, 1, 1)


def test_a_failed_job_is_retried_from_its_stage_in_the_next_run(shop):
    shop.sells("a", "b")
    shop.local.outcome(product_name="Cup a", fail_at="generation", times=1)
    first = shop.run("monday")
    assert (first.completed, first.failed) == (1, 1)
    assert first.failures[0].product_id == "a"
    second = shop.run("tuesday")
    assert (second.completed, second.unchanged, second.attached) == (1, 1, 1)
    assert (shop.local.created, shop.local.retried) == (2, 1)
    assert second.credits_estimated > 0


def test_a_stage_retry_is_booked_and_the_budget_can_refuse_it(shop):
    shop.sells("a")
    shop.local.outcome(product_name="Cup a", fail_at="generation", times=1)
    shop.run("monday")
    report = shop.run("tuesday", budget=Budget(credits=1))
    assert report.postponed_by == {"budget": 1}
    assert shop.local.retried == 0
    assert shop.run("wednesday").completed == 1


def test_refused_content_fails_for_good_without_another_post(shop):
    shop.sells("a", "b")
    shop.local.outcome(product_name="Cup a", fail_at="prepare", kind="moderation")
    shop.run("monday")
    posts = shop.posts
    report = shop.run("tuesday")
    assert (report.failed, report.unchanged) == (1, 1)
    assert "--regenerate a" in report.failures[0].reason
    assert shop.posts == posts


def test_a_job_cancelled_by_another_user_stays_failed(shop):
    shop.sells("a")

    def probe(point):
        if point == "after.create":
            (job,) = shop.jobs()
            with shop.local.client() as other:
                other.jobs.cancel(job.job_id)

    report = shop.run("monday", probe=probe)
    assert report.failed == 1
    posts = shop.posts
    assert shop.run("tuesday").failed == 1
    assert shop.posts == posts
    plan = PlanOptions(regenerate=frozenset({"a"}))
    assert shop.run("wednesday", plan=plan).completed == 1
    assert shop.local.created == 2


def test_regenerate_buys_once_per_run_however_often_it_is_tried(shop):
    shop.sells("a", "b")
    shop.run("monday")
    plan = PlanOptions(regenerate=frozenset({"a"}))
    for _ in range(3):
        assert shop.run("again", plan=plan).completed == 1
    assert shop.local.created == 3


def test_lost_answers_buy_nothing_twice(shop):
    shop.sells(*"abcdef")
    shop.local.world.faults.add({"kind": "lost", "method": "POST", "path": "/api/v1/jobs", "nth": 2, "times": 3})
    assert shop.run("monday").completed == 6
    assert shop.local.created == 6


@pytest.mark.timeout(60)
def test_a_run_fills_its_places_although_no_job_has_ended_yet(shop, monkeypatch):
    """A job takes minutes: a run that took further ones only as others end would need an hour to get to its number."""
    shop.sells(*(f"p{n}" for n in range(60)))

    async def never(_):
        await asyncio.Event().wait()

    monkeypatch.setattr(shop.local.clock, "asleep", never)
    with pytest.raises(asyncio.CancelledError):
        _interrupted(shop, "before.wait", count=40, in_flight=40)
    assert shop.local.created == 40


@pytest.mark.timeout(60)
def test_a_run_with_a_full_account_waits_for_its_pause(tmp_path):
    from .conftest import Shop

    local = Local(Settings(speed=0, admin=True, tenants=(TenantSettings(concurrent_jobs=3),)))
    client = local.async_client()  # its clock moves; that of the run does not from here on

    class Still(EmulatorClock):
        async def asleep(self, seconds):
            self.slept.append(seconds)
            await asyncio.Event().wait()

    class Events(list):
        def append(self, event):
            super().append(event)
            if [each.event for each in self].count("limited") == 3:
                self.often_limited.set()

    async def work(shop):
        shop.events = Events()
        shop.events.often_limited = asyncio.Event()
        running = asyncio.ensure_future(shop.runner(in_flight=20, client=client).run())
        await shop.events.often_limited.wait()
        for _ in range(2000):  # turns of the loop, in which an idle task does nothing
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})

    local.clock = Still(local.world)
    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger:
        shop = Shop(tmp_path, local, ledger)
        shop.sells(*(f"p{n}" for n in range(20)))
        asyncio.run(work(shop))
    assert len(local.clock.slept) < 100


def test_a_new_ledger_opened_by_two_at_once_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "ledger.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(time, "sleep", lambda _: other.in_transaction and other.execute("COMMIT"))
    with Ledger.init(str(path), allow_ephemeral=True) as ledger:
        assert ledger.catalogue("shop").name == "shop"
    other.close()


def test_no_more_jobs_than_the_account_allows_and_no_retry_storm(tmp_path):
    from .conftest import Shop

    local = Local(Settings(speed=0, admin=True, tenants=(TenantSettings(concurrent_jobs=3),)))
    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger:
        shop = Shop(tmp_path, local, ledger)
        shop.sells(*(f"p{n}" for n in range(20)))
        assert shop.run("monday", in_flight=20).completed == 20
        assert local.created == 20
        assert shop.posts < 60
        assert "limited" in {event.event for event in shop.events}


@pytest.mark.parametrize(("allowed", "posts"), [(None, 60), (7, 240)])
def test_jobs_at_once_are_found_by_the_accounts_answers(allowed, posts, tmp_path):
    from .conftest import Shop

    local = Local(Settings(speed=0, admin=True, tenants=(TenantSettings(concurrent_jobs=allowed),)))
    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger:
        shop = Shop(tmp_path, local, ledger)
        shop.sells(*(f"p{n}" for n in range(60)))
        assert shop.run("monday").completed == 60
        # It begins with 20, and each job that is accepted adds one.
        assert (shop.events[-1].limit == 20 + 60) == (allowed is None)
        assert shop.posts <= posts


def test_a_refused_key_stops_the_run_which_can_continue(shop):
    from ugen_provider.core.api.errors import AuthenticationError

    shop.sells("a", "b")
    with pytest.raises(AuthenticationError):
        asyncio.run(shop.runner("monday", client=shop.local.async_client(api_key="ugen_sk_wrong")).run())
    assert shop.run("monday").completed == 2
    assert shop.local.created == 2


def test_reuse_only_takes_what_exists_and_buys_nothing(shop):
    shop.sells("a")
    with pytest.raises(asyncio.CancelledError):
        _interrupted(shop, "after.record.job_id")
    shop.sells("a", "b")
    report = asyncio.run(shop.runner("tuesday", client=shop.local.async_client(spending="reuse_only")).run())
    assert (report.completed, report.attached, report.postponed_by) == (1, 1, {"spending_reuse_only": 1})
    assert shop.local.created == 1


def _interrupted(shop, point: str, *, count: int = 1, **options):
    passed = 0

    async def work():
        task = None

        def probe(name):
            nonlocal passed
            if name == point:
                passed += 1
                if passed == count:
                    task.cancel()

        task = asyncio.ensure_future(shop.runner(probe=probe, **options).run())
        return await task

    return asyncio.run(work())


@pytest.mark.parametrize("point", ["claimed", "after.record.write", "before.create", "after.create", "before.wait"])
def test_an_interrupt_leaves_jobs_and_the_next_run_continues(shop, point):
    shop.sells(*"abcd")
    with pytest.raises(asyncio.CancelledError):
        _interrupted(shop, point)
    assert shop.run("monday").completed == 4
    assert shop.local.created == 4


@pytest.mark.parametrize("point", ["joined", "plan.begun", "plan.batch"])
def test_a_planning_that_is_cancelled_is_given_up_at_once(shop, point):
    shop.sells("a", "b")
    cancelled = threading.Event()

    async def work():
        loop = asyncio.get_running_loop()

        def probe(name):
            if name == point:
                loop.call_soon_threadsafe(task.cancel)
                if name != "joined":  # these are reported from the thread that reads the feed
                    assert cancelled.wait(60)

        task = asyncio.ensure_future(shop.runner(probe=probe).run())
        task.add_done_callback(lambda _: cancelled.set())
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(work())
    joined = []

    def probe(name):
        joined.append(name == "joined")
        assert sum(joined) <= 1, "it waits for the lease of a runner that is gone"

    assert shop.run("monday", probe=probe).completed == 2
    assert shop.local.created == 2


def test_an_interrupt_can_cancel_jobs_and_the_next_run_buys(shop):
    shop.sells("a", "b")
    with pytest.raises(asyncio.CancelledError):
        _interrupted(shop, "before.wait", on_interrupt="cancel", in_flight=1)
    assert [job.status for job in shop.jobs()] == ["cancelled"]
    assert shop.run("monday").completed == 2
    assert shop.local.created == 3


def test_a_job_left_at_its_deadline_is_running_and_resumed(shop):
    shop.sells("a")
    report = shop.run("monday", job_timeout=5.0)
    assert report.running == 1
    assert shop.run("monday").completed == 1
    assert shop.local.created == 1


@pytest.mark.parametrize("mapping_", [None, {"constants": {"script_tone": "enthusiastic"}}])
def test_a_new_default_mapping_buys_nothing_by_itself(shop, monkeypatch, mapping_):
    plan = PlanOptions(mapping=None if mapping_ is None else mapping.FeedMapping.from_dict(mapping_), guard_min=1)
    shop.sells("a", "b")
    shop.run("monday", plan=plan)
    better = replace(mapping.DEFAULTS[1]["google"], prose=("title",), version=2)
    monkeypatch.setitem(mapping.DEFAULTS, 2, {"google": better})
    monkeypatch.setattr("ugen_provider.core.ledger.record.CURRENT_MAPPING_VERSION", 2)
    assert shop.run("tuesday", plan=plan).unchanged == 2
    with pytest.raises(RunRefusedError, match="max_changed"):
        shop.run("wednesday", plan=replace(plan, newest_mapping=True))
    assert shop.run("wednesday", plan=replace(plan, newest_mapping=True, max_changed=1.0)).changed == 2
    assert shop.run("thursday", plan=plan).unchanged == 2


def test_low_scores_are_named(shop):
    shop.sells("a", "b")
    report = shop.run("monday", min_score=0.999)
    assert report.below_min_score_count == 2
    assert {outcome.product_id for outcome in report.below_min_score} == {"a", "b"}


def test_max_credits_is_a_limit_for_each_job(shop):
    shop.sells("a")
    report = shop.run("monday", policy=PurchasePolicy(max_credits=1))
    assert (report.failed, shop.local.created) == (1, 0)
    assert "max_credits is 1" in report.failures[0].reason


def test_namespaces_never_meet(shop):
    shop.sells("a")
    shop.run("monday")
    report = asyncio.run(shop.runner("monday", client=shop.local.async_client(namespace="staging")).run())
    assert (report.bought, shop.local.created) == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"catalogue": ""}, "catalogue: must be named"),
        ({"run_id": " "}, "run_id: must be named"),
        ({"in_flight": 0}, "in_flight: must be at least 1"),
        ({"budget": {"credits": -1}}, "credits: must not be negative"),
        ({"budget": {"credits": 1, "timezone": "Mars/Base"}}, "timezone: 'Mars/Base' is not known"),
    ],
)
def test_wrong_settings_are_refused_in_words(shop, options, message):
    from ugen_provider.core.batch import FeedRun, FeedRunner

    def start():
        budget = Budget(**options.pop("budget", {"credits": 1}))
        settings = {"catalogue": "shop", "run_id": "r", "job_defaults": {"segment_count": 1}, **options}
        spec = FeedRun(shop.path, budget=budget, **settings)
        asyncio.run(FeedRunner(shop.local.async_client(), shop.ledger, spec).run())

    with pytest.raises(ConfigError, match=message):
        start()


@pytest.mark.parametrize(
    ("address", "shared", "message"),
    [
        (":memory:", False, "a ledger in memory forgets"),
        ("sqlite://", False, "a ledger in memory forgets"),
        ("ledger.db", True, "SQLite serves one machine"),
        ("mysql+pymysql://localhost/x", False, "ledger: "),
    ],
)
def test_an_unsafe_ledger_is_refused_with_the_reason(tmp_path, monkeypatch, address, shared, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        Ledger(address, shared=shared)


def test_a_missing_driver_is_named_with_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(
        ConfigError, match=r"psycopg.*; for PostgreSQL: pip install '(ugen-provider\[postgres\]|psycopg2)"
    ):
        Ledger("postgresql://127.0.0.1:1/nowhere")


def test_sqlite_on_a_network_file_system_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ugen_provider.core.ledger.database.filesystem_of", lambda path: "nfs4")
    with pytest.raises(ConfigError, match=r"is on a network file system \(nfs4\)"):
        Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True)


def test_the_file_system_of_a_path_is_the_one_mounted_nearest(tmp_path):
    mounts = "a / ext4 rw\nb /data nfs4 rw\nc /data/local xfs rw\nd /dat tmpfs rw"
    paths = [type(tmp_path)(path) for path in ("/data/x", "/data/local/x", "/database")]
    assert [filesystem_of(path, mounts=mounts) for path in paths] == ["nfs4", "xfs", "ext4"]


def test_a_ledger_of_a_newer_version_is_refused(tmp_path):
    import sqlalchemy as sa

    from ugen_provider.core.ledger import schema

    path = str(tmp_path / "ledger.db")
    with Ledger.init(path, allow_ephemeral=True) as ledger:
        newer = sa.update(schema.meta).where(schema.meta.c.name == "version").values(value="99")
        ledger.writer.run(lambda c: c.execute(newer))
    with pytest.raises(ConfigError, match="tables of version 99"):
        Ledger(path)
