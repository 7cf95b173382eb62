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
from tests.dagster.shop import Shop
from tests.torture.postgres import own_postgres

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


def test_bought_once_with_the_intent_in_postgresql(shop: Shop):
    assert "PostgresEventLogStorage" in type(shop.instance.event_log_storage).__name__
    assert shop.run("lamp", "mug").success
    assert shop.run("lamp", "mug").success
    assert sorted(shop.created) == ["lamp", "mug"]
    assert set(shop.materialized("final_video")) == {"lamp", "mug"}
    assert shop.materialized("final_video")["lamp"]["ugen/how"] == "taken"


@pytest.mark.timeout(200)
@pytest.mark.parametrize("retries", [0, 1])
def test_a_storage_that_went_away_for_a_moment_is_told_in_one_sentence_and_retried(
    ugen_emulator: Any, tmp_path: Path, retries: int
) -> None:
    pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed")
    with own_postgres() as database, instance_on("127.0.0.1", database.port, "postgres") as instance:
        ugen_emulator.emulator.clock.tick = 60.0  # as for every test, whatever the one before left
        shop = Shop(instance, ugen_emulator, tmp_path / "videos")
        left = ["the write of the job's id"]

        @event.listens_for(instance.event_log_storage._engine, "before_cursor_execute")
        def _(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            if shop.created and statement.startswith("INSERT INTO event_logs") and left:
                left.pop()
                database.crash()
                database.start()

        options = UGenOptions(interrupt_grace=5.0)
        result = shop.run("lamp", options=options, retry_policy=dg.RetryPolicy(max_retries=retries))
        assert not left
        assert result.success is bool(retries)
        said = [e.step_failure_data for e in result.all_events if e.is_step_failure]
        said += [e.event_specific_data for e in result.all_events if e.event_type_value == "STEP_UP_FOR_RETRY"]
        told = "".join(each.error.to_string() for each in said)
        assert "Dagster's own storage" in told
        assert "nothing is lost" in told
        assert "[SQL" not in told
        assert "sqlalche.me" not in told
        if not retries:
            assert shop.run("lamp").success
        assert shop.created == ["lamp"]
        assert shop.materialized("final_video")["lamp"]["ugen/job_id"]
