# SPDX-License-Identifier: Apache-2.0
"""Runs and events on PostgreSQL: one that answers on loopback, and one of the test's own that crashes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
from sqlalchemy import event

from dagster_ugen import UGenOptions
from tests.dagster.shop import Shop, failure_of
from tests.torture.postgres import own_postgres
from ugen_provider.ledger import Ledger

ADDRESS = os.environ.get("UGEN_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


def instance_on(host: Any, port: Any, name: str, *, user: str = "postgres", password: str = "") -> Any:
    # SQLAlchemy 2.1 takes a bare postgresql:// for psycopg 3, and dagster-postgres brings psycopg2.
    database = {
        "hostname": host,
        "port": port,
        "username": user,
        "password": password,
        "db_name": name,
        "scheme": "postgresql+psycopg2",
    }
    return dg.instance_for_test(overrides={"storage": {"postgres": {"postgres_db": database}}})


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance on a database of its own."""
    pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed")
    import psycopg2

    parts = urlsplit(ADDRESS)
    login = {
        "host": parts.hostname,
        "port": parts.port or 5432,
        "user": parts.username,
        "password": parts.password or "",
    }
    try:
        admin = psycopg2.connect(**login, dbname=parts.path.strip("/"), connect_timeout=3)
    except psycopg2.OperationalError as error:
        pytest.skip(f"no PostgreSQL at {parts.hostname}:{login['port']}: {str(error).splitlines()[0]}")
    admin.autocommit = True
    name = f"ugen_dagster_{uuid.uuid4().hex[:12]}"
    cursor = admin.cursor()
    cursor.execute(f"CREATE DATABASE {name}")
    try:
        with instance_on(login["host"], login["port"], name, user=login["user"], password=login["password"]) as made:
            yield made
    finally:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
        admin.close()


@pytest.fixture
def shop(shop: Shop, postgres: str) -> Shop:
    """The shop with a ledger in a PostgreSQL database of its own."""
    Ledger.init(postgres).close()
    shop.ledger = postgres
    return shop


def test_instance_on_postgresql_without_a_ledger_is_refused(shop: Shop):
    shop.ledger = None
    assert "UGenResource.ledger: " in failure_of(shop.run("lamp")).description
    assert shop.created == []


def test_instance_on_postgresql_with_named_ledger_buys_once(shop: Shop):
    assert "PostgresEventLogStorage" in type(shop.instance.event_log_storage).__name__
    assert shop.run("lamp", "mug").success
    assert shop.run("lamp", "mug").success
    assert sorted(shop.created) == ["lamp", "mug"]
    assert set(shop.materialized("final_video")) == {"lamp", "mug"}
    assert shop.materialized("final_video")["lamp"]["ugen/outcome"] == "reused"


@pytest.mark.timeout(200)
@pytest.mark.parametrize("retries", [0, 1])
def test_lost_storage_is_reported_in_a_sentence_and_retried(ugen_emulator: Any, tmp_path: Path, retries: int) -> None:
    pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed")
    with own_postgres() as database, instance_on("127.0.0.1", database.port, "postgres") as instance:
        ugen_emulator.emulator.clock.tick = 60.0  # as for every test, after any earlier test
        shop = Shop(instance, ugen_emulator, tmp_path / "videos")
        shop.ledger = str(tmp_path / "ledger.db")
        Ledger.init(shop.ledger, allow_ephemeral=True).close()
        left = ["the write of the first materialization"]

        @event.listens_for(instance.event_log_storage._engine, "before_cursor_execute")
        def _(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            is_result = statement.startswith("INSERT INTO event_logs") and "ASSET_MATERIALIZATION" in str(rest[0])
            if shop.created and is_result and left:
                left.pop()
                database.crash()
                database.start()

        options = UGenOptions(interrupt_grace=5.0)
        result = shop.run("lamp", "mug", options=options, retry_policy=dg.RetryPolicy(max_retries=retries))
        assert not left
        assert result.success is bool(retries)
        said = [e.step_failure_data for e in result.all_events if e.is_step_failure]
        said += [e.event_specific_data for e in result.all_events if e.event_type_value == "STEP_UP_FOR_RETRY"]
        messages = "".join(each.error.to_string() for each in said)
        assert "Dagster's own storage" in messages
        assert "nothing is lost" in messages
        assert "[SQL" not in messages
        assert "sqlalche.me" not in messages
        if not retries:
            assert shop.run("lamp", "mug").success
        assert sorted(shop.created) == ["lamp", "mug"]
        assert shop.materialized("final_video")["lamp"]["ugen/job_id"]


@pytest.mark.timeout(200)
def test_event_that_dagster_lost_is_written_by_the_next_run(ugen_emulator: Any, tmp_path: Path) -> None:
    """Dagster itself writes what a run of one partition yields, and fails the run where its storage is lost."""
    pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed")
    with own_postgres() as database, instance_on("127.0.0.1", database.port, "postgres") as instance:
        ugen_emulator.emulator.clock.tick = 60.0
        shop = Shop(instance, ugen_emulator, tmp_path / "videos")
        shop.ledger = str(tmp_path / "ledger.db")
        Ledger.init(shop.ledger, allow_ephemeral=True).close()
        left = ["the write of the materialization"]

        @event.listens_for(instance.event_log_storage._engine, "before_cursor_execute")
        def _(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            is_result = statement.startswith("INSERT INTO event_logs") and "ASSET_MATERIALIZATION" in str(rest[0])
            if shop.created and is_result and left:
                left.pop()
                database.crash()
                database.start()

        assert not shop.run("lamp", destination=str(shop.folder)).success
        assert not left
        assert shop.run("lamp", destination=str(shop.folder)).success
        assert shop.created == ["lamp"]
        made = shop.materialized("final_video")["lamp"]
        assert made["ugen/job_id"] == shop.order().job_id
        assert made["ugen/credits"] > 0, "no event had it before"
