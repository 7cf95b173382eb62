# SPDX-License-Identifier: Apache-2.0
"""Workers and triggerers that are lost: one job for each product ordered, none left running, none lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from ugen_provider.cli.demo.airflow import AirflowApiError
from ugen_provider.cli.demo.processes import WaitTimeoutError, wait_until

if TYPE_CHECKING:
    from tests.real.airflow.conftest import Run, Stage

pytestmark = [pytest.mark.real, pytest.mark.torture]


BOUGHT = {"create", "record.read", "record.write"}
PATIENCE = 900.0


def steps_of(run: Run) -> list[str]:
    """Return what a run's task did in its first attempt, as it wrote it down itself."""
    written = run.stage.airflow.home / "output" / f"{run.product}.steps"
    return list(dict.fromkeys(written.read_text().splitlines()))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dag_id", ["dying_deferred_job", "dying_blocking_job"])
def test_a_worker_killed_at_every_step_buys_one_job(stage: Stage, dag_id: str) -> None:
    """A run without a kill records the steps."""
    reference = stage.start(dag_id, die="")
    reference.until("deferred" if "deferred" in dag_id else "running")
    reference.until_bought()
    assert reference.finish()["state"] == "success"
    steps = steps_of(reference)
    assert {step.split()[2] for step in steps} >= BOUGHT
    runs: dict[str, Run] = {}

    def all_started() -> bool:
        # Airflow answers 500 where so many at once find its SQLite locked.
        with suppress(AirflowApiError):
            for step in steps:
                if step not in runs:
                    runs[step] = stage.start(dag_id, die=step)
        return set(runs) == set(steps)

    wait_until(all_started, what="all runs being started", timeout=PATIENCE, interval=0.5)

    def everywhere(condition: Callable[[Run], bool], what: str, *, advance: float = 0.0) -> None:
        left = dict(runs)

        def all_there() -> bool:
            stage.desk.advance(advance)
            with suppress(AirflowApiError):
                for step, run in list(left.items()):
                    if condition(run):
                        del left[step]
            return not left

        try:
            wait_until(all_there, what=what, timeout=PATIENCE, interval=0.5)
        except WaitTimeoutError:
            raise AssertionError(f"not {what}: { ({step: run.task() for step, run in left.items()}) }") from None

    if "deferred" in dag_id:
        # The clock does not move, so that each next attempt finds a job that runs.
        everywhere(lambda run: run.task()["state"] == "deferred", "waiting, most of them again")
    everywhere(lambda run: run.task()["state"] in {"success", "failed"}, "over", advance=5.0)
    # Each died once; Airflow itself now and then ends a next attempt that came back at once (executor event races).
    ended = {step: (run.task()["state"], run.task()["try_number"] > 1, run.statuses()) for step, run in runs.items()}
    assert ended == dict.fromkeys(steps, ("success", True, ["completed"]))


def test_twenty_mapped_jobs_survive_a_killed_triggerer(stage: Stage, triggerer_back: None) -> None:
    before = _bought_by_product(stage)  # an Airflow of another test may have bought the same products
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
    bought = _bought_by_product(stage) - before
    assert bought == {f"Product {number}": 1 for number in range(20)}


def _bought_by_product(stage: Stage) -> Counter[str]:
    with stage.desk.lock:
        purchases = stage.desk.journal.find_purchases(kind="create")
        return Counter(str(entry.product_name) for entry in purchases)
