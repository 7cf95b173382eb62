# SPDX-License-Identifier: Apache-2.0
"""Work around a run: checking a feed, pictures, outputs, the shop's own feed, repair and orphans."""

import asyncio
import io
import json
from contextlib import suppress

import pytest
import sqlalchemy as sa
from PIL import Image

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.batch import Budget, PlanOptions, runs
from ugen_provider.core.batch.planner import Planner
from ugen_provider.core.batch.preview import check_feed
from ugen_provider.core.batch.repair import repair
from ugen_provider.core.batch.runs import LEASE
from ugen_provider.core.batch.supplemental_feed import write_shop_feed
from ugen_provider.core.feeds import FeedMapping, Product, plan_feed, read_feed
from ugen_provider.core.jobs.sync.actions import cancel_order
from ugen_provider.core.jobs.sync.world import World
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.database import Writer
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.ledger import Ledger


def interrupted(shop, point: str, *, count: int = 1):
    """Run until a named point, and stop there as Ctrl-C does."""

    async def work():
        passed = 0

        def probe(name):
            nonlocal passed
            passed += name == point
            if passed == count:
                task.cancel()

        task = asyncio.ensure_future(shop.runner(probe=probe).run())
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(work())


def test_checking_a_feed_shows_requests_and_costs_for_free(shop):
    shop.sells("a", "b")
    shop.write('{"id": "a", "title": "Again", "image_link": "https://s.example/a.jpg"}', '{"id": "x", "title": "X"}')
    asked = []

    def estimate(fields):
        asked.append(fields)
        return 83

    with check_feed(shop.path, job_defaults={"segment_count": 1}, estimate=estimate) as check:
        rows = list(check.rows)
        orders = [order["product_id"] for order in check.orders()]
    assert len(rows) == 4
    assert len(asked) == 1
    summary = check.summary.to_dict()
    expected = {
        "kind": "google", "format": "jsonl", "rows": 4, "accepted": 3, "rejected": 1, "skipped": 0, "duplicates": 1,
        "estimated_credits": 166, "skipped_by": {}, "unseen_columns": [], "pictures": 2, "new": None,
    }  # fmt: skip
    assert {name: summary[name] for name in expected} == expected
    assert orders == ["a", "b"]
    assert shop.local.requests() == 0


def picture(path, colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    path.write_bytes(file.getvalue())
    return str(path)


def test_pictures_on_a_disk_are_uploaded_once_per_content(shop, tmp_path):
    red, also_red, blue = (picture(tmp_path / f"{n}.png", c) for n, c in enumerate(("red", "red", "blue")))
    shop.sells("a", "b", "c", "d")
    for name, path in {"a": red, "b": also_red, "c": blue, "d": str(tmp_path / "gone.png")}.items():
        shop.products[name]["image_link"] = path
    shop.write()
    plan = PlanOptions(upload_pictures=True, picture_roots=(str(tmp_path),), max_changed=1.0)
    report = shop.run("monday", plan=plan)
    assert (report.completed, report.rejected) == (3, 1)
    assert shop.local.requests("POST", "/api/v1/uploads/product-image") == 2
    before = shop.local.requests()
    assert shop.run("tuesday", plan=plan).unchanged == 3
    assert shop.local.requests() == before
    picture(tmp_path / "2.png", "green")
    assert shop.run("wednesday", plan=plan).changed == 1
    assert shop.local.requests("POST", "/api/v1/uploads/product-image") == 3


def test_without_leave_to_upload_a_picture_on_a_disk_is_rejected(shop, tmp_path):
    shop.sells("a")
    shop.products["a"]["image_link"] = picture(tmp_path / "a.png", "red")
    shop.write()
    assert shop.run("monday").rejected == 1


def test_the_shop_feed_has_the_videos_public_addresses(shop, tmp_path):
    shop.sells("a", "b & b")
    shop.write('{"id": "x", "title": "No picture, so no video"}')
    shop.run("monday")
    ledger = shop.ledger
    ledger.writer.run(
        lambda connection: connection.execute(
            sa.update(schema.product)
            .where(schema.product.c.product_id == "b & b")
            .values(video="s3://videos/b & b/final.mp4", score=0.9)
        )
    )
    path = tmp_path / "videos.xml"
    count = write_shop_feed(ledger, "shop", path, stored_at="s3://videos/", public_at="https://cdn.example/v")
    rows = [
        row
        for row in read_feed(path, mapping=FeedMapping.from_dict({"title": "video_link"}))
        if isinstance(row, Product)
    ]
    assert count == len(rows) == 2
    links = {row.id: row.text("video_link") for row in rows}
    assert links["b & b"] == "https://cdn.example/v/b%20%26%20b/final.mp4"
    assert links["a"].startswith("http://127.0.0.1:1/media/")
    assert write_shop_feed(ledger, "shop", tmp_path / "v.tsv", format="tsv") == 1
    assert write_shop_feed(ledger, "shop", tmp_path / "v.jsonl", format="jsonl") == 2
    assert json.loads((tmp_path / "v.jsonl").read_text().splitlines()[1])["video_link"] == "s3://videos/b & b/final.mp4"
    with pytest.raises(ConfigError, match="belong together"):
        write_shop_feed(ledger, "shop", path, stored_at="s3://videos/")
    with pytest.raises(ConfigError, match="catalogue 'shoe' is not in this ledger; it has 'shop'"):
        write_shop_feed(ledger, "shoe", path)


def test_job_cancelled_on_request_is_not_bought_again_by_itself(shop):
    shop.sells("a")
    interrupted(shop, "before.wait")
    store = LedgerOrderStore(shop.ledger)
    (job,) = shop.jobs()
    record = store.of_job(job.job_id)
    with shop.local.client() as client:
        assert cancel_order(World(client, store), record.order_key, reason="cli", job_id=job.job_id).confirmed
    report = shop.run("monday")
    assert (report.failed, shop.local.created) == (1, 1)
    assert "--regenerate a" in shop.run("tuesday").failures[0].reason


def test_a_job_whose_answer_was_lost_is_found_by_a_repair(shop):
    shop.sells("a")
    shop.run("monday")
    order = schema.order

    def forget(connection):
        row = connection.execute(sa.select(order)).one()
        document = {**json.loads(row.document), "job_id": None}
        connection.execute(sa.update(order).values(job_id=None, state="", document=json.dumps(document)))

    shop.ledger.writer.run(forget)
    with shop.local.client() as client:
        found = repair(shop.ledger, client)
    assert (found.jobs, found.found, found.vanished) == (1, 1, 0)


def test_a_lost_ledger_is_restored_from_feed_and_account(shop, tmp_path):
    shop.sells("a", "b", "c")
    shop.run("monday")
    with Ledger.init(str(tmp_path / "new.db"), allow_ephemeral=True) as fresh:
        with shop.local.client() as client:
            catalogue = fresh.catalogue("shop")
            orders = plan_feed(shop.path, job_defaults={"segment_count": 1})
            assert repair(fresh, client, catalogue=catalogue, orders=orders).restored == 3
        shop.ledger = fresh
        report = shop.run("tuesday")
        assert (report.completed, report.attached, report.bought) == (3, 3, 0)
        assert shop.local.created == 3
        assert shop.run("wednesday").unchanged == 3


def test_a_runner_that_lost_its_lease_writes_and_sends_nothing(shop, tmp_path):
    """It was stopped for so long that another took its product over; when it wakes up, the other's word counts."""
    shop.sells("a")
    now = [1_000_000.0]
    with Ledger.init(str(tmp_path / "lease.db"), now=lambda: now[0], allow_ephemeral=True) as slow_ledger:
        shop.ledger = slow_ledger

        def sleep_through(point):
            if point == "before.create" and now[0] == 1_000_000.0:
                now[0] += LEASE + 1
                with Ledger.init(str(tmp_path / "lease.db"), now=lambda: now[0], allow_ephemeral=True) as other:
                    mine, shop.ledger = shop.ledger, other
                    thread_result.append(shop_run_in_thread(shop))
                    shop.ledger = mine

        thread_result = []
        report = asyncio.run(shop.runner("monday", probe=sleep_through).run())
        assert report.adds_up
        assert report.completed == 1
        assert thread_result[0].completed == 1
    assert shop.local.created == 1


def test_planning_with_slow_pictures_keeps_its_lease(shop, tmp_path):
    """Else a second runner would plan the same run, and each would throw the other out."""
    link = picture(tmp_path / "a.png", "red")
    shop.sells(*(f"p{number}" for number in range(20)))
    for product in shop.products.values():
        product["image_link"] = link
    shop.write()
    now = [1_000_000.0]
    with Ledger.init(str(tmp_path / "slow.db"), now=lambda: now[0], allow_ephemeral=True) as ledger:
        catalogue = ledger.catalogue("shop")
        run, _ = runs.join(ledger, catalogue, "monday", owner="first", budget=None)
        others = []

        def slowly(address):
            now[0] += LEASE / 6
            others.append(runs.join(ledger, catalogue, "monday", owner="second", budget=None)[1])
            return address

        planner = Planner(ledger, run, PlanOptions(upload_pictures=True), identity=slowly)
        planner.plan(shop.path, job_defaults={"segment_count": 1})
        assert others == ["wait"] * 20
        assert runs.open_items(ledger, run) == 20


def shop_run_in_thread(shop):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(shop.run, "monday").result(timeout=60)


def test_many_writers_share_few_commits(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger:
        commits = []
        sa.event.listen(ledger.engine, "commit", lambda connection: commits.append(1))
        writer = Writer(ledger.engine)
        insert = sa.insert(schema.meta)

        def write(number: int) -> None:
            writer.run(lambda connection: connection.execute(insert.values(name=f"n{number}", value="x")))

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(write, range(500)))
            with pytest.raises(sa.exc.IntegrityError):
                write(1)
        count = ledger.read(
            lambda connection: connection.execute(sa.select(sa.func.count(schema.meta.c.name))).scalar()
        )
        assert count == 503  # with its version and its id
        assert len(commits) < 500


def test_outputs_that_could_not_be_stored_are_stored_by_next_run(tmp_path):
    from ugen_provider.core.api.config import resolve
    from ugen_provider.core.batch import FeedRun, Outputs, run_feed
    from ugen_provider.emulator.server import EmulatorServer
    from ugen_provider.emulator.settings import Pace, Settings

    quick = (0.5, 1.0)
    stages = dict.fromkeys(("prepare", "agents", "keyframe", "segment", "concat", "audio", "captions"), quick)
    feed = tmp_path / "feed.csv"
    feed.write_text("id,title,image_link\na,Cup,https://s.example/a.jpg\n")
    with (
        EmulatorServer(Settings(speed=1000, admin=True, pace=Pace(queue=quick, **stages))) as server,
        Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger,
    ):
        server.emulator.faults.add({"kind": "wrong_type", "path": "/media/*final*", "times": None})
        config = resolve(api_key="ugen_sk_local", base_url=server.base_url)
        order = FeedRun(
            str(feed),
            catalogue="shop",
            run_id="monday",
            job_defaults={"segment_count": 1},
            budget=Budget(credits=1000),
            plan=PlanOptions(stored=True),
            outputs=Outputs(tmp_path / "out", allow_private=True),
            interval=0.05,
        )
        first = run_feed(order, config=config, ledger=ledger)
        assert (first.completed, first.not_stored) == (1, 1)
        server.emulator.faults.rules.clear()
        from dataclasses import replace

        second = run_feed(replace(order, run_id="tuesday"), config=config, ledger=ledger)
        assert (second.completed, second.attached, second.not_stored) == (1, 1, 0)
        (entry,) = ledger.entries("shop")
        assert entry.video == str(tmp_path / "out" / "a" / entry.job_id / "final.mp4")
        assert len(server.emulator.journal.find_purchases(kind="create")) == 1
        assert run_feed(replace(order, run_id="wednesday"), config=config, ledger=ledger).unchanged == 1
