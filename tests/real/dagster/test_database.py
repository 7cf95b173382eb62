# SPDX-License-Identifier: Apache-2.0
"""Dagster's own database crashes and comes back under a hundred jobs: while they are bought, and while they end.

Dagster itself handles its own losses: a process that ends because its database is gone is started again
here as systemd or Kubernetes would do, and what a run that died had not made is asked for again as a person would.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psutil
import pytest

from tests.hostile.written import KEY, nowhere
from tests.real.dagster.conftest import Both, real_both
from tests.real.dagster.test_processes import ASSETS, DEFINITIONS, PRODUCTS
from tests.torture.postgres import OwnPostgres, own_postgres
from ugen_provider import UGenClient
from ugen_provider.cli.demo.dagster import BACKFILL_ENDED, ENDED, DagsterApiError
from ugen_provider.cli.demo.processes import wait_until

pytestmark = pytest.mark.torture
CRASH_AT = 40
AWAY = 12.0
PATIENCE = 400.0


@pytest.fixture
def database() -> Iterator[OwnPostgres]:
    pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed")
    with own_postgres() as server:
        yield server


@pytest.fixture
def both(database: OwnPostgres, tmp_path: Path) -> Iterator[Both]:
    where = {
        "hostname": "127.0.0.1",
        "port": database.port,
        "username": "postgres",
        "password": "",
        "db_name": "postgres",
        "scheme": "postgresql+psycopg2",
    }
    storage = {"storage": {"postgres": {"postgres_db": where}}}
    with real_both(tmp_path / "dagster", DEFINITIONS, speed=0.0, key=KEY, instance=storage) as made:
        yield made


class Person:
    """A user of the pages: ends a run whose process is gone, and requests the missing partitions."""

    def __init__(self, both: Both) -> None:
        self._both = both
        self.asked = self.ended = 0
        self._backfill = ""

    def ask(self) -> None:
        """Materialize every product that has no video yet."""
        missing = sorted(set(PRODUCTS) - set(videos(self._both)))
        self._backfill = self._both.dagster.api.launch_backfill(ASSETS, partitions=missing)
        self.asked += 1

    def look(self) -> None:
        """Look at the runs; the webserver may have just found its database again."""
        api = self._both.dagster.api
        try:
            in_progress = [run["runId"] for run in api.runs() if run["status"] not in ENDED]
            for run_id in in_progress:
                pid = process_of(self._both, run_id)
                if pid is not None and is_gone(pid):
                    api.terminate(run_id, at_once=True)
                    self.ended += 1
            if not in_progress and api.backfill_status(self._backfill) in BACKFILL_ENDED:
                self.ask()
        except (httpx.HTTPError, DagsterApiError):
            return


def is_gone(pid: int) -> bool:
    """Return whether a process has ended, also where its parent has not collected it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def process_of(both: Both, run_id: str) -> int | None:
    """The process that a run says it began in; None before it has."""
    with both.instance() as instance:
        said = [entry.message for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)]
    found = re.search(r"Started process for run \(pid: (\d+)\)", "\n".join(said))
    return int(found[1]) if found else None


def videos(both: Both) -> dict[str, list[str]]:
    """The jobs that each product's videos are of, as Dagster has them."""
    found: dict[str, list[str]] = {}
    with both.instance() as instance:
        for record in instance.fetch_materializations(dg.AssetKey("final_video"), limit=1000).records:
            made = record.asset_materialization
            assert made is not None
            found.setdefault(str(made.partition), []).append(str(made.metadata["ugen/job_id"].value))
    return found


@pytest.mark.timeout(1500)
def test_the_database_crashes_twice_under_a_hundred_jobs(
    both: Both, database: OwnPostgres, tmp_path: Path, record_property: Any
) -> None:
    world, person = both.server.emulator, Person(both)
    ended: list[str] = []

    def bought() -> int:
        """How many products have a job; none may ever have two."""
        made = Counter(entry.product_name for entry in world.journal.find_purchases(kind="create"))
        assert made.total() == len(made), made.most_common(5)
        return len(made)

    def jobs() -> Counter[str]:
        with UGenClient(api_key=KEY, base_url=both.server.base_url) as client:
            return Counter(job.status for job in client.jobs.list())

    def until(condition: Callable[[], bool], what: str, *, advance: float = 0.0, polls: bool = True) -> None:
        def there() -> bool:
            ended.extend(both.start_what_ended())
            world.advance(advance)
            bought()
            if polls:
                person.look()
            return condition()

        wait_until(there, what=what, timeout=PATIENCE, interval=1.0)

    def away(*, advance: float = 0.0) -> None:
        back = time.monotonic() + AWAY
        until(lambda: time.monotonic() >= back, "the database having been away for long enough",
              advance=advance, polls=False)  # fmt: skip
        database.start()

    database.crash_when_bought(world.journal, CRASH_AT)
    person.ask()
    until(lambda: not database.running, "the crash while jobs are bought", polls=False)
    away()
    # Surviving runs continue and end, before the rest can be requested.
    until(lambda: bought() == len(PRODUCTS), "all jobs being bought", advance=10.0)
    until(lambda: jobs()["completed"] >= 2 * len(PRODUCTS) // 3, "two thirds of the jobs having ended", advance=5.0)
    database.crash()
    assert jobs()["completed"] < len(PRODUCTS)  # else the crash meets none that is waited for
    away(advance=5.0)
    until(lambda: len(videos(both)) == len(PRODUCTS), "all videos being delivered", advance=20.0)
    assert person.asked > 1  # else no crash hit a run

    created = world.journal.find_purchases(kind="create")
    assert bought() == len(PRODUCTS)
    assert videos(both) == {entry.product_name: [entry.job_id] for entry in created}
    assert jobs() == {"completed": len(PRODUCTS)}
    assert world.accounts.by_name["local"].credits.reserved == 0
    both.dagster.stop()
    nowhere(tmp_path)
    nowhere(database.folder)
    record_property("ended by themselves", ", ".join(f"{part} {n}" for part, n in Counter(ended).items()) or "none")
    record_property("runs that a person ended", person.ended)
    record_property("backfills asked for", person.asked)
