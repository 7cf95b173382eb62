# SPDX-License-Identifier: Apache-2.0
"""The orphan finder in a real Airflow: what a task waits for is held, and what nobody comes back for is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ugen_provider import CreateJob, UGenClient
from ugen_provider.cli.demo.airflow_processes import PASSWORD, USER
from ugen_provider.emulator.settings import LOCAL_KEY

if TYPE_CHECKING:
    from tests.real.airflow.conftest import Stage

pytestmark = pytest.mark.real


def test_what_nobody_holds_is_cancelled_and_what_a_task_waits_for_is_not(stage: Stage) -> None:
    stage.api._ask(
        "POST",
        "/connections",
        body={
            "connection_id": "airflow_api",
            "conn_type": "http",
            "host": stage.airflow.url,
            "login": USER,
            "password": PASSWORD,
        },
    )
    held = stage.start("deferred_job")
    held.until("deferred")
    with UGenClient(api_key=LOCAL_KEY, base_url=stage.ugen.base_url) as client:
        lost = client.jobs.create(
            CreateJob(product_name="Lost", product_image_url="https://shop.example/l.png", segment_count=1)
        )
        finder = stage.start("find_orphans")
        finder.until("success", task_id="orphans")
        found = stage.api.xcom("find_orphans", run_id=finder.run_id, task_id="orphans")
        mine = {orphan["job_id"] for orphan in found}
        assert (lost.job_id in mine, held.jobs()[0] in mine) == (True, False)
        assert client.jobs.get(lost.job_id).status == "cancelled"
    assert held.statuses() == ["active"]
    assert held.finish()["state"] == "success"
