# SPDX-License-Identifier: Apache-2.0
"""Workers and triggerers that are lost: one job for each product ordered, none left running, none lost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.real.airflow.conftest import Stage

pytestmark = [pytest.mark.real, pytest.mark.torture]


@pytest.mark.parametrize(
    "step",
    [
        "before 1",  # nothing is written
        "after 1",  # the intent is written, nothing is sent
        "before 2",  # the job is bought, its id is not written
        "after 2",  # the id is written
        "before 3",  # about to defer
        "after 3",  # armed, not deferred
    ],
)
def test_a_worker_killed_at_every_step_buys_one_job(stage: Stage, step: str) -> None:
    run = stage.start("dying_job", die=step)
    run.until("deferred", attempt=2)
    assert run.finish()["state"] == "success"
    assert run.statuses() == ["completed"]


def test_twenty_mapped_jobs_complete_although_the_triggerer_is_killed(stage: Stage, triggerer_back: None) -> None:
    run = stage.start("twenty_jobs")

    def states() -> Counter[str]:
        tasks = stage.api.task_instances(run.dag_id, run_id=run.run_id)
        return Counter(str(task["state"]) for task in tasks if task["map_index"] >= 0)

    run.wait(lambda: states()["deferred"] == 20, what="20 tasks being deferred")
    stage.kill_part("triggerer")
    stage.start_part("triggerer")

    def over() -> bool:
        stage.desk.advance(20.0)
        return stage.api.run_state(run.dag_id, run_id=run.run_id) in {"success", "failed"}

    run.wait(over, what="the run being over")
    assert states() == {"success": 20}
    world = stage.desk
    with world.lock:
        bought = Counter(entry.product_name for entry in world.journal.find_purchases(kind="create"))
    assert {f"Product {number}": bought[f"Product {number}"] for number in range(20)} == {
        f"Product {number}": 1 for number in range(20)
    }
