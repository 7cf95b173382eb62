# SPDX-License-Identifier: Apache-2.0
"""What a feed operator reads beside files: queries over connections, rows of other tasks, object storage."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk import AssetAlias

from tests.airflow.deferring import run
from tests.databases import empty_database, postgres_url
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.feeds import FeedError
from ugen_provider.operators.feeds import MOST_LOGGED, SQLRows, UGenCreateJobsFromFeedOperator, UGenReadFeedOperator

FEED = Path(__file__).parents[2] / "examples" / "feed.xml"
TABLE = "create table products (id varchar(20), title varchar(80), image_link varchar(200), price integer)"


def product(number: int) -> tuple[str, str, str, int]:
    return (f"P-{number}", f"Lamp {number}", f"https://shop.example/{number}.jpg", number)


def rows(count: int) -> list[dict[str, Any]]:
    return [dict(zip(("id", "title", "image_link", "price"), product(number), strict=True)) for number in range(count)]


class _Hook(DbApiHook):
    """As each provider of a database makes one, for connections whose provider is not installed here."""

    conn_name_attr = "conn_id"
    default_conn_name = "shop"
    supports_autocommit = True
    connect: Callable[[], Any]

    def get_conn(self) -> Any:
        return type(self).connect()


@pytest.fixture(params=["sqlite", "duckdb", "postgres"])
def shop(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """A database with products; its connection is named `shop`. Returns what executes a statement in it."""
    kind = request.param
    file = tmp_path / f"shop.{kind}"
    stack = ExitStack()
    url = ""
    if kind == "postgres":
        if (server := postgres_url()) is None:
            pytest.skip("no PostgreSQL on loopback")
        url = stack.enter_context(empty_database(server)).replace("+psycopg", "")

    def connect() -> Any:
        if kind == "sqlite":
            return sqlite3.connect(file)
        if kind == "duckdb":
            duckdb = pytest.importorskip("duckdb")
            return duckdb.connect(str(file))
        import psycopg

        return psycopg.connect(url)

    def execute(statement: str, many: list[Any] | None = None) -> None:
        database = connect()
        cursor = database.cursor()
        if many is None:
            cursor.execute(statement)
        else:
            cursor.executemany(statement.replace("?", "%s") if kind == "postgres" else statement, many)
        database.commit()
        database.close()

    hook = type("Hook", (_Hook,), {"connect": staticmethod(connect)})
    for connection in ("airflow.sdk.Connection", "airflow.models.connection.Connection"):  # Airflow 3.0 has the second
        monkeypatch.setattr(f"{connection}.get_hook", lambda self, **_: hook())
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": kind}))
    with stack:
        execute(TABLE)
        yield execute


@pytest.fixture
def make(connection: Any, ledger: Path) -> Callable[..., UGenCreateJobsFromFeedOperator]:
    def operator(**more: Any) -> UGenCreateJobsFromFeedOperator:
        given = {
            "task_id": "videos",
            "catalogue": "shop",
            "ledger_conn_id": "ugen_ledger",
            "budget": 5000,
            "job_defaults": {"segment_count": 1},
            "poll_interval": 5,
        }
        return UGenCreateJobsFromFeedOperator(**{**given, **more})

    return operator


def bought(ugen_emulator: Any) -> int:
    return len(ugen_emulator.emulator.journal.find_purchases(kind="create"))


class TestQuery:
    def test_query_rows_become_videos_once(
        self, shop: Any, make: Any, attempts: Any, ugen_emulator: Any, moving_clock: Any
    ) -> None:
        shop("insert into products values (?, ?, ?, ?)", [product(number) for number in range(3)])
        sql = "select id, title, image_link from products order by price"
        for _ in range(2):
            report = run(make(sql=sql, sql_conn_id="shop", deferrable=True), attempts.next())
        assert (report["products"], report["completed"], bought(ugen_emulator)) == (3, 3, 3)

    def test_query_rows_are_read_in_batches(self, shop: Any) -> None:
        shop("insert into products values (?, ?, ?, ?)", [product(number) for number in range(2500)])
        found = iter(SQLRows("select id from products order by price", sql_conn_id="shop"))
        assert next(found) == {"id": "P-0"}
        assert len(list(found)) == 2499

    @pytest.mark.parametrize("sql", ["select nothing from products", "selec"])
    def test_query_that_fails_names_connection(self, shop: Any, sql: str) -> None:
        with pytest.raises(FeedError, match=r"connection 'shop'.*it failed after 0 rows"):
            list(SQLRows(sql, sql_conn_id="shop"))

    def test_missing_connection_is_named(self, connection: Any) -> None:
        with pytest.raises(ConfigError, match="'nowhere' is not defined: sql_conn_id names"):
            list(SQLRows("select 1", sql_conn_id="nowhere"))

    def test_connection_without_database_is_refused(self, connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "ugen", "password": "k"}))
        with pytest.raises(ConfigError, match=r"is no database|cannot be used"):
            list(SQLRows("select 1", sql_conn_id="shop"))

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({}, "name a feed, or a query"),
            ({"feed": "a.csv", "sql": "select 1", "sql_conn_id": "x"}, "one of the two"),
            ({"sql": "select 1"}, "sql_conn_id: must be named"),
            ({"feed": "a.csv", "sql_conn_id": "x"}, "sql_conn_id: is used only with sql"),
        ],
    )
    def test_feed_and_query_exclude_each_other(self, make: Any, given: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            make(**given)


@pytest.mark.usefixtures("moving_clock")
class TestOtherSources:
    def test_rows_of_a_task_become_videos(self, make: Any, attempts: Any, ugen_emulator: Any) -> None:
        hostile = {"id": "x", "title": "{{ conn.ugen_default.password }}", "image_link": "https://shop.example/x.jpg"}
        task = make(feed=[*rows(2), hostile], deferrable=True)
        report = run(task, attempts.next())
        assert (report["completed"], bought(ugen_emulator)) == (3, 3)

    def test_object_storage_path_is_read(self, make: Any, attempts: Any, ugen_emulator: Any, tmp_path: Path) -> None:
        from airflow.sdk import ObjectStoragePath

        shutil.copy(FEED, tmp_path / "feed.xml")
        report = run(make(feed=ObjectStoragePath(f"file://{tmp_path}/feed.xml")), attempts.next())
        assert (report["completed"], bought(ugen_emulator)) == (5, 5)


@pytest.mark.usefixtures("moving_clock")
class TestReport:
    def test_log_names_first_rejected_and_the_file(
        self, make: Any, attempts: Any, logged: Callable[[], str], tmp_path: Path
    ) -> None:
        bad = [{"id": f"B-{number}", "title": "", "image_link": "https://shop.example/b.jpg"} for number in range(25)]
        task = make(feed=[*rows(2), *bad], output_path=str(tmp_path / "videos"), deferrable=True)
        result = run(task, attempts.next())
        said = logged()
        assert said.count("rejected: ") == MOST_LOGGED
        assert f"... and 5 more; see {result['rejected_uri']}" in said
        assert "interrupted" not in said
        rejected = [json.loads(line) for line in Path(result["rejected_uri"]).read_text().splitlines()]
        assert len(rejected) == 25
        products = [json.loads(line) for line in Path(result["products_uri"]).read_text().splitlines()]
        assert {each["state"] for each in products} == {"completed"}
        assert json.loads(Path(result["report_uri"]).read_text())["rejected"] == 25

    def test_log_names_failed_products(
        self, make: Any, attempts: Any, logged: Callable[[], str], ugen_faults: Any
    ) -> None:
        ugen_faults.job(fail_at="generation", kind="moderation")
        result = run(make(feed=rows(2), deferrable=True), attempts.next())
        assert (result["failed"], logged().count(": failed: ")) == (1, 1)

    def test_alias_gets_an_event_for_each_video(self, make: Any, attempts: Any) -> None:
        from airflow.sdk.execution_time.context import OutletEventAccessors

        events, alias = OutletEventAccessors(), AssetAlias("videos")
        context = {**attempts.next(), "outlet_events": events}
        run(make(feed=rows(3), outlets=[alias], deferrable=True), context)
        found = {event.dest_asset_key.uri: event.extra["ugen"] for event in events[alias].asset_alias_events}
        assert sorted(found) == [f"ugen://ugen_default/products/P-{number}" for number in range(3)]
        assert all(each["job_id"] and each["status"] == "completed" for each in found.values())

    def test_lineage_has_feed_and_folder(self, make: Any, attempts: Any, tmp_path: Path) -> None:
        pytest.importorskip("airflow.providers.openlineage")
        task = make(feed=str(FEED), output_path=str(tmp_path), deferrable=True)
        run(task, attempts.next())
        found = task.get_openlineage_facets_on_complete(None)
        assert [(each.namespace, each.name) for each in found.inputs] == [("file", str(FEED))]
        assert [(each.namespace, each.name) for each in found.outputs] == [("file", str(tmp_path))]


def test_feed_products_returns_what_expand_kwargs_takes(attempts: Any, logged: Callable[[], str]) -> None:
    from airflow.sdk import DAG

    from ugen_provider.operators.feeds import feed_products
    from ugen_provider.operators.jobs import UGenCreateJobOperator

    with DAG("dag") as dag:
        products = feed_products(str(FEED), job_defaults={"segment_count": 1})
        UGenCreateJobOperator.partial(task_id="make_video", deferrable=True).expand_kwargs(products)
    reader = dag.get_task("read_feed")
    assert isinstance(reader, UGenReadFeedOperator)
    orders = reader.execute(attempts.next())
    assert [set(order) for order in orders] == [{"scope_key", "job"}] * 5
    assert all(order["job"]["segment_count"] == 1 for order in orders)
    rejected = attempts.ti.xcoms["rejected"]
    assert rejected
    assert logged().count("rejected: ") == len(rejected)
    json.dumps(orders)


def test_rows_with_templates_are_not_rendered(make: Any) -> None:
    """An XCom is data: what a feed's author writes into a title is no template."""
    from airflow.sdk import DAG, task

    hostile = "{{ conn.ugen_default.password }}"

    with DAG("dag"):

        @task
        def read() -> list[dict[str, Any]]:
            return [{"id": "1", "title": hostile}]

        operator = make(feed=read())
    resolved = [{"id": "1", "title": hostile}]
    operator.feed = type("Resolved", (), {"resolve": lambda self, context: resolved})()
    operator.render_template_fields({})
    assert operator.feed == resolved
