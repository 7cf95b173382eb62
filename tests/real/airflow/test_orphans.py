# SPDX-License-Identifier: Apache-2.0
"""The orphan finder in a real Airflow: what a task waits for is held, and what nobody comes back for is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ugen_provider import CreateJob, UGenClient
from ugen_provider.cli.demo.airflow_processes import PASSWORD, USER
from ugen_provider.emulator.settings import LOCAL_KEY

if TYPE_CHECKING:
    from tests.real.airflow.conftest import Stage

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def airflow_api(stage: Stage) -> None:
    """The connection by which the finder asks Airflow."""
    body = {"conn_type": "http", "host": stage.airflow.url, "login": USER, "password": PASSWORD}
    stage.api._ask("POST", "/connections", body={"connection_id": "airflow_api", **body}, expect=(201, 409))


@pytest.fixture
def find(stage: Stage) -> Callable[[], set[str]]:
    """Run the finder; returns the jobs that it cancelled."""

    def found() -> set[str]:
        finder = stage.start("find_orphans")
        finder.until("success", task_id="orphans")
        told = stage.api.xcom("find_orphans", run_id=finder.run_id, task_id="orphans")
        return {orphan["job_id"] for orphan in told}

    return found


@pytest.mark.parametrize("dag_id", ["deferred_job", "dying_deferred_job"], ids=["ours", "a_users_own_operator"])
def test_what_nobody_holds_is_cancelled_and_what_a_task_waits_for_is_not(
    stage: Stage, find: Callable[[], set[str]], dag_id: str
) -> None:
    held = stage.start(dag_id, die="")
    held.until("deferred")
    with UGenClient(api_key=LOCAL_KEY, base_url=stage.ugen.base_url) as client:
        lost = client.jobs.create(
            CreateJob(product_name="Lost", product_image_url="https://shop.example/l.png", segment_count=1)
        )
        mine = find()
        assert (lost.job_id in mine, held.jobs()[0] in mine) == (True, False)
        assert client.jobs.get(lost.job_id).status == "cancelled"
    assert held.statuses() == ["active"]
    assert held.finish()["state"] == "success"


def test_what_nobody_holds_can_be_waited_for_in_the_triggerer_and_is_told_with_its_end(stage: Stage) -> None:
    with UGenClient(api_key=LOCAL_KEY, base_url=stage.ugen.base_url) as client:
        lost = client.jobs.create(
            CreateJob(product_name="Lost and found", product_image_url="https://shop.example/l.png", segment_count=1)
        )
    finder = stage.start("attach_orphans", product="Lost and found")
    finder.until("deferred", task_id="orphans")
    assert finder.finish("orphans")["state"] == "success"
    told = stage.api.xcom("attach_orphans", run_id=finder.run_id, task_id="orphans")
    assert [(orphan["job_id"], orphan["status"]) for orphan in told] == [(lost.job_id, "completed")]


@pytest.mark.torture
def test_a_job_whose_cancel_could_not_be_sent_when_its_run_timed_out_is_found(
    stage: Stage, find: Callable[[], set[str]]
) -> None:
    run = stage.start("short_run")
    run.until("deferred")
    run.wait(lambda: "starting" in run.log(), what="the trigger being loaded")
    with stage.desk.lock:
        away = stage.desk.faults.add({"kind": "status", "status": 503, "method": "DELETE", "times": None})
    run.until_run_is("failed")
    run.wait(lambda: away.hits >= 4, what="the trigger having tried as often as it does")
    assert run.statuses() == ["active"]
    with stage.desk.lock:
        stage.desk.faults.rules.clear()
    assert run.jobs()[0] in find()
    assert run.statuses() == ["cancelled"]
