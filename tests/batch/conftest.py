# SPDX-License-Identifier: Apache-2.0
"""A shop whose feed a test can change, an emulator in the same process, and a ledger."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.local import Local
from ugen_provider.core.api.clock import clock_of
from ugen_provider.core.batch import Budget, FeedRun, FeedRunner, Report
from ugen_provider.emulator.settings import Settings
from ugen_provider.ledger import Ledger


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

    def offers(self, *rows: dict) -> None:
        """The feed has these rows from now on."""
        self.products = {}
        self.write(*map(json.dumps, rows))

    def videos(self) -> dict[str, str]:
        """The job of each product that the shop shows, with the variant in parentheses."""
        shown = (entry for entry in self.ledger.entries("shop") if entry.seen and entry.video)
        return {f"{one.product_id} ({one.variant})" if one.variant else one.product_id: one.job_id for one in shown}

    def write(self, *lines: str) -> None:
        rows = [json.dumps(product) for product in self.products.values()]
        self.path.write_text("\n".join([*rows, *lines]) + "\n")

    def runner(self, run_id: str = "monday", *, probe=lambda point: None, client=None, **options) -> FeedRunner:
        options.setdefault("budget", Budget(credits=1_000_000))
        options.setdefault("job_defaults", {"segment_count": 1})
        spec = FeedRun(self.path, catalogue="shop", run_id=run_id, **options)
        client = client or self.local.async_client()
        return FeedRunner(
            client, self.ledger, spec, clock=clock_of(client), on_progress=self.events.append, probe=probe
        )

    def run(self, run_id: str = "monday", **options) -> Report:
        """Do a run to its end; its report adds up after any event."""
        report = asyncio.run(self.runner(run_id, **options).run())
        assert report.adds_up
        assert report.open == 0
        return report

    def entry(self, product_id: str):
        return next(entry for entry in self.ledger.entries("shop") if entry.product_id == product_id)

    def jobs(self):
        """All jobs of the account, as the service reports them."""
        with self.local.client() as client:
            return list(client.jobs.list())

    @property
    def posts(self) -> int:
        return self.local.requests("POST", "/api/v1/jobs")


@pytest.fixture
def local() -> Local:
    return Local(Settings(speed=0, admin=True))


@pytest.fixture
def shop(tmp_path, local) -> Iterator[Shop]:
    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger:
        yield Shop(tmp_path, local, ledger)


@pytest.fixture
def store(tmp_path, local, address) -> Iterator[Shop]:
    """A shop whose ledger is on each database in turn."""
    with Ledger.init(address, allow_ephemeral=True) as ledger:
        yield Shop(tmp_path, local, ledger)
