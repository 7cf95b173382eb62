# SPDX-License-Identifier: Apache-2.0
"""Every process of a real Airflow, killed in turn under a hundred jobs: while they are bought, and while they end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest

from ugen_provider import UGenClient
from ugen_provider.cli.demo.airflow import PARTS, AirflowApiError
from ugen_provider.cli.demo.processes import wait_until
from ugen_provider.emulator.settings import LOCAL_KEY

if TYPE_CHECKING:
    from tests.real.airflow.conftest import Stage

pytestmark = [pytest.mark.real, pytest.mark.torture]
JOBS = 100
PATIENCE = 900.0


@pytest.mark.timeout(2400)
def test_each_process_killed_under_a_hundred_jobs_buys_once(stage: Stage, triggerer_back: None) -> None:
    run = stage.start("hundred_jobs")

    def states() -> Counter[str]:
        try:
            tasks = stage.api.task_instances(run.dag_id, run_id=run.run_id)
        except (httpx.HTTPError, AirflowApiError):  # the API server is one of those that are killed
            return Counter()
        return Counter(str(task["state"]) for task in tasks if task["map_index"] >= 0)

    def until(count: int, state: str, *, advance: float = 0.0) -> None:
        def there() -> bool:
            if advance:
                stage.desk.advance(advance)
            now = states()
            assert not now["failed"], now
            return now[state] >= count

        wait_until(there, what=f"{count} tasks being {state}", timeout=PATIENCE, interval=0.5)

    def lose(part: str) -> None:
        stage.kill_part(part)
        stage.start_part(part)

    for number, part in enumerate(PARTS, 1):
        until(15 * number, "deferred")
        lose(part)
    until(JOBS, "deferred")
    for number, part in enumerate(PARTS):
        until(1 + 20 * number, "success", advance=20.0)
        lose(part)
    until(JOBS, "success", advance=20.0)
    with stage.desk.lock:
        bought = Counter(entry.product_name for entry in stage.desk.journal.find_purchases(kind="create"))
        mine = {name: count for name, count in bought.items() if name.startswith("One of a hundred")}
    assert mine == {f"One of a hundred: {number}": 1 for number in range(JOBS)}
    delivered = {
        stage.api.xcom(run.dag_id, run_id=run.run_id, task_id="job", map_index=number)["job_id"]
        for number in range(JOBS)
    }
    assert len(delivered) == JOBS
    with UGenClient(api_key=LOCAL_KEY, base_url=stage.ugen.base_url) as client:
        assert {client.jobs.get(job_id).status for job_id in delivered} == {"completed"}
