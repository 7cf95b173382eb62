# SPDX-License-Identifier: Apache-2.0
"""Databases that tests use: PostgreSQL where one answers on loopback."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa


def postgres_url() -> str | None:
    """A PostgreSQL on loopback, if one answers."""
    url = os.environ.get("UGEN_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
    try:
        with sa.create_engine(url, connect_args={"connect_timeout": 2}).connect():
            return url
    except Exception:
        return None


@contextmanager
def empty_database(server: str) -> Iterator[str]:
    """Create an empty database on a PostgreSQL server, and drop it afterwards."""
    name = f"ugen_test_{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield sa.engine.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()
