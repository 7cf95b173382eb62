# SPDX-License-Identifier: Apache-2.0
"""Runs and events on PostgreSQL, where one answers on loopback."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import dagster as dg
import pytest

from tests.dagster.shop import Shop

ADDRESS = os.environ.get("UGEN_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


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
        # SQLAlchemy 2.1 takes a bare postgresql:// for psycopg 3, and dagster-postgres brings psycopg2.
        database = {
            "hostname": login["host"],
            "port": login["port"],
            "username": login["user"],
            "password": login["password"],
            "db_name": name,
            "scheme": "postgresql+psycopg2",
        }
        with dg.instance_for_test(overrides={"storage": {"postgres": {"postgres_db": database}}}) as made:
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
