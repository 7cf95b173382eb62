# SPDX-License-Identifier: Apache-2.0
"""An asset watcher in a real triggerer: each job that ends becomes one event, from any buyer."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from ugen_provider import CreateJob, UGenClient
from ugen_provider.cli.demo.airflow import AirflowApiError
from ugen_provider.cli.demo.processes import wait_until
from ugen_provider.emulator.settings import LOCAL_KEY

if TYPE_CHECKING:
    from tests.real.airflow.conftest import Stage

pytestmark = [pytest.mark.real, pytest.mark.torture]
DAG, ASSET = "on_ended_job", "ugen_ended"
PATIENCE = 150.0


def reported(stage: Stage) -> list[str]:
    """The jobs of the asset's events, the newest first; none while Airflow cannot say.

    It answers 500 for as long as a run that an event made has not begun: its answer wants a `start_date` of each.
    """
    try:
        (asset,) = (stage.api._ask("GET", "/assets", params={"name_pattern": ASSET}) or {})["assets"]
        query = {"asset_id": asset["id"], "order_by": "-timestamp", "limit": 100}
        events: list[dict[str, Any]] = (stage.api._ask("GET", "/assets/events", params=query) or {})["asset_events"]
    except (httpx.TransportError, AirflowApiError):
        return []
    return [event["extra"]["payload"]["job_id"] for event in events]


def handed_on(stage: Stage) -> list[str]:
    """Return the jobs reported to the runs of the DAG on the asset; Airflow gives events that come together to one."""
    runs: list[dict[str, Any]] = (stage.api._ask("GET", f"/dags/{DAG}/dagRuns") or {})["dag_runs"]
    done = [run["dag_run_id"] for run in runs if run["state"] == "success"]
    return [job_id for run_id in done for job_id in stage.api.xcom(DAG, run_id=run_id, task_id="report")]


def test_each_ended_job_is_reported_once_without_a_triggerer_too(stage: Stage, triggerer_back: None) -> None:
    stage.airflow.wait_for_dag(DAG)
    stage.api._ask("PATCH", f"/dags/{DAG}", body={"is_paused": False})
    try:
        with UGenClient(api_key=LOCAL_KEY, base_url=stage.ugen.base_url) as client:

            def made(name: str) -> str:
                lamp = {"product_image_url": "https://shop.example/l.png", "segment_count": 1}
                job = client.jobs.create(CreateJob(product_name=name, **lamp))
                stage.desk.advance(3600.0)
                assert client.jobs.get(job.job_id).status == "completed"
                return job.job_id

            # Jobs that end before the trigger listens are not reported: the first ones only wake it.
            probes: list[str] = []

            def listens() -> bool:
                probes.append(made(f"Knock {len(probes)}"))
                return bool(set(probes) & set(reported(stage)))

            wait_until(listens, what="the trigger listening", timeout=PATIENCE, interval=2.0)
            first = made("Watched lamp")
            wait_until(lambda: first in reported(stage), what="the report of the job", timeout=PATIENCE)
            stage.kill_part("triggerer")
            missed = made("Missed lamp")
            stage.start_part("triggerer")
            wait_until(lambda: missed in handed_on(stage), what="the DAG on the asset", timeout=PATIENCE)
            seen: list[str] = []

            def all_reported() -> bool:
                seen[:] = reported(stage)
                return missed in seen

            wait_until(all_reported, what="the report of the missed job", timeout=PATIENCE)
            assert [seen.count(job_id) for job_id in (first, missed)] == [1, 1]
    finally:
        with suppress(httpx.TransportError):
            stage.api._ask("PATCH", f"/dags/{DAG}", body={"is_paused": True})
