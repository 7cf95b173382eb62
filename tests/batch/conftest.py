# SPDX-License-Identifier: Apache-2.0
"""A shop whose feed a test can change, an emulator in the same process, and a ledger."""

import asyncio
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.core.local import Local
from ugen_provider.core.batch import Budget, FeedRun, FeedRunner, Ledger, Report
from ugen_provider.emulator.settings import Settings


class Shop:
    """A feed, and runs over it against an emulator whose clock the runs move."""

    def __init__(self, folder: Path, local: Local, ledger: Ledger) -> None:
        self.path = folder / "feed.jsonl"
        self.local = local
        self.ledger = ledger
        self.events = []
        self.products: dict[str, dict] = {}

    def sells(self, *names: str, **changes: str) -> None:
        """The feed has these products from now on, `changes` giving another title to some."""
        self.products = {
            name: {"id": name, "title": changes.get(name, f"Cup {name}"), "image_link": f"https://s.example/{name}.jpg"}
            for name in (*names, *(name for name in changes if name not in names))
        }
        self.write()

    def write(self, *lines: str) -> None:
        rows = [json.dumps(product) for product in self.products.values()]
        self.path.write_text("\n".join([*rows, *lines]) + "\n")

    def runner(self, run_id: str = "monday", *, probe=lambda point: None, client=None, **options) -> FeedRunner:
        options.setdefault("budget", Budget(credits=1_000_000))
        options.setdefault("job_defaults", {"segment_count": 1})
        spec = FeedRun(self.path, catalogue="shop", run_id=run_id, **options)
        client = client or self.local.async_client()
        return FeedRunner(
            client, self.ledger, spec, clock=self.local.clock, on_progress=self.events.append, probe=probe
        )

    def run(self, run_id: str = "monday", **options) -> Report:
        """Do a run to its end; its report adds up, whatever happened."""
        report = asyncio.run(self.runner(run_id, **options).run())
        assert report.adds_up
        assert report.open == 0
        return report

    def entry(self, product_id: str):
        return next(entry for entry in self.ledger.entries("shop") if entry.product_id == product_id)

    def jobs(self):
        """All jobs of the account, as the service tells them."""
        with self.local.client() as client:
            return list(client.jobs.list())

    @property
    def posts(self) -> int:
        return self.local.requests("POST", "/api/v1/jobs")


@pytest.fixture
def local() -> Local:
    return Local(Settings(speed=0, admin=True))


def postgres_url() -> str | None:
    """A PostgreSQL on loopback, if one answers."""
    url = os.environ.get("UGEN_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
    try:
        with sa.create_engine(url, connect_args={"connect_timeout": 2}).connect():
            return url
    except Exception:
        return None


@pytest.fixture
def postgres() -> Iterator[str]:
    """An empty database, gone afterwards."""
    url = postgres_url()
    if url is None:
        pytest.skip("no PostgreSQL answers on loopback")
    name = f"ugen_test_{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield sa.engine.make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path) -> str:
    """Where a ledger is, on each kind of database."""
    return str(tmp_path / "ledger.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture
def shop(tmp_path, local) -> Iterator[Shop]:
    with Ledger(str(tmp_path / "ledger.db")) as ledger:
        yield Shop(tmp_path, local, ledger)
