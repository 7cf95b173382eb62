# SPDX-License-Identifier: Apache-2.0
"""Airflow's own database crashes and comes back under a hundred jobs: while they are bought, and while they end.

Airflow itself handles its own losses: a scheduler or a triggerer whose database is gone ends, with the
tasks that it ran, and is started again here as systemd or Kubernetes would do. No task is cleared, and nothing is
marked: each continues by Airflow's own retries.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.hostile.written import KEY, nowhere
from tests.real.airflow.conftest import DAGS, Stage, real_stage
from tests.torture.postgres import OwnPostgres, own_postgres
from ugen_provider import UGenClient
from ugen_provider.cli.demo.airflow import AirflowApiError
from ugen_provider.cli.demo.processes import wait_until
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import Settings, TenantSettings
from ugen_provider.emulator.world.journal import PurchaseEntry

pytestmark = [pytest.mark.real, pytest.mark.torture]
JOBS = 100
CRASH_AT = 40
AWAY = 12.0
PATIENCE = 420.0


@pytest.fixture
def ugen() -> Iterator[EmulatorServer]:
    with EmulatorServer(Settings(speed=0, admin=True, tenants=(TenantSettings(api_keys=(KEY,)),))) as server:
        yield server


@pytest.fixture
def database() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@pytest.fixture
def stage(ugen: EmulatorServer, database: OwnPostgres, tmp_path: Path) -> Iterator[Stage]:
    dags = tmp_path / "dags"
    dags.mkdir()
    where = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url("psycopg2"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database.url("psycopg"),
        # So that a task gives up before the database is back, and does not merely wait for it.
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "2",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "2.0",
    }
    with real_stage(tmp_path / "airflow", dags, ugen, files=[DAGS / "hundred.py"], key=KEY, **where) as made:
        yield made


@pytest.mark.timeout(1500)
def test_the_database_crashes_twice_under_a_hundred_jobs(
    stage: Stage, database: OwnPostgres, tmp_path: Path, record_property: Any
) -> None:
    ended: list[str] = []
    seen: Counter[str] = Counter()

    def tasks() -> list[dict[str, Any]]:
        try:
            found = stage.api.task_instances("hundred_jobs", run_id=run.run_id)
        except (httpx.HTTPError, AirflowApiError):  # the API server has no database, or is not there
            return []
        return [task for task in found if task["map_index"] >= 0]

    def bought() -> list[PurchaseEntry]:
        """Return what was bought; nothing may ever be bought twice."""
        with stage.desk.lock:
            made = stage.desk.journal.find_purchases(kind="create")
        counted = Counter(entry.product_name for entry in made)
        assert counted.total() == len(counted), counted.most_common(5)
        return made

    def until(condition: Callable[[], bool], what: str, *, advance: float = 0.0) -> None:
        def there() -> bool:
            ended.extend(stage.start_what_ended())
            stage.desk.advance(advance)
            bought()
            return condition()

        wait_until(there, what=what, timeout=PATIENCE, interval=0.5)

    def are(count: int, state: str) -> Callable[[], bool]:
        def condition() -> bool:
            now = Counter(str(task["state"]) for task in tasks())
            assert not now["failed"], (now, run.log()[-8000:])
            if now:
                seen.clear()
                seen.update(now)
            return now[state] >= count

        return condition

    def away(*, advance: float = 0.0) -> None:
        back = time.monotonic() + AWAY
        until(lambda: time.monotonic() >= back, "the database having been away for long enough", advance=advance)
        database.start()

    database.crash_when_bought(stage.desk.journal, CRASH_AT)
    run = stage.start("hundred_jobs")
    until(lambda: are(JOBS, "deferred")() or not database.running, "the crash while jobs are bought")
    assert seen["deferred"] > CRASH_AT / 2, seen
    away()
    until(are(JOBS, "deferred"), "all jobs being waited for")
    until(are(JOBS // 3, "success"), "a third of the jobs having ended", advance=20.0)
    database.crash()
    away(advance=20.0)
    until(are(JOBS, "success"), "all tasks having succeeded", advance=20.0)
    tries = Counter(task["try_number"] for task in tasks())
    assert tries[1] < JOBS  # else no crash hit a task

    assert {entry.product_name for entry in bought()} == {f"One of a hundred: {number}" for number in range(JOBS)}
    delivered = Counter(
        stage.api.xcom(run.dag_id, run_id=run.run_id, task_id="job", map_index=number)["job_id"]
        for number in range(JOBS)
    )
    assert delivered == {entry.job_id: 1 for entry in bought()}
    assert stage.desk.accounts.by_name["local"].credits.reserved == 0
    with UGenClient(api_key=KEY, base_url=stage.ugen.base_url) as client:
        assert Counter(job.status for job in client.jobs.list()) == {"completed": JOBS}
    stage.airflow.stop()
    nowhere(tmp_path)
    nowhere(database.folder)
    record_property("ended by themselves", ", ".join(f"{part} {count}" for part, count in Counter(ended).items()))
    record_property("tasks that took another attempt", JOBS - tries[1])
