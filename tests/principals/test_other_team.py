# SPDX-License-Identifier: Apache-2.0
"""Another team on the same orchestrator: DAGs, a connection and a key of its own, and thereby no job of ours.

A real Airflow with two teams. The other team knows its own key, so it can sign what its own tasks publish.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.real.airflow.conftest import Run, Stage, real_stage
from ugen_provider import UGenClient
from ugen_provider.cli.demo.airflow import PASSWORD
from ugen_provider.core.api.config import Secret
from ugen_provider.core.ledger.record import RecordSigner
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings, TenantSettings
from ugen_provider.triggers.cancellation import JobRef, attempt_name

pytestmark = pytest.mark.real

THEIR_KEY = "ugen_sk_another_team"
THEIR_USER = "bob"
DAG_FILE = """
from airflow.sdk import DAG
from ugen_provider.operators.jobs import UGenCreateJobOperator

for team, connection in {"ours": "ugen_default", "theirs": "ugen_theirs"}.items():
    with DAG(team, schedule=None, catchup=False) as dag:
        UGenCreateJobOperator(
            task_id="job",
            ugen_conn_id=connection,
            deferrable=True,
            poll_interval=1.0,
            product_name="{{ dag_run.conf['product'] }}",
            product_image_url="https://shop.example/lamp.png",
            segment_count=1,
        )
    globals()[team] = dag
"""


@pytest.fixture(scope="module")
def server() -> Iterator[EmulatorServer]:
    tenants = (TenantSettings(), TenantSettings(name="theirs", api_keys=(THEIR_KEY,)))
    with EmulatorServer(Settings(speed=0, admin=True, tenants=tenants)) as opened:
        yield opened


@pytest.fixture(scope="module")
def stage(server: EmulatorServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home, dags, source = (tmp_path_factory.mktemp(name) for name in ("airflow", "dags", "source"))
    file = source / "teams.py"
    file.write_text(DAG_FILE)
    users = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"admin:admin,{THEIR_USER}:user",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
    }
    with real_stage(home, dags, server, files=[file], passwords={THEIR_USER: PASSWORD}, **users) as made:
        extra = {"base_url": server.base_url}
        made.api.set_connection("ugen_theirs", conn_type="ugen", password=THEIR_KEY, extra=extra)
        yield made


@pytest.fixture
def bob(stage: Stage) -> Iterator[httpx.Client]:
    """A member of the other team, who may write XComs and mark tasks, and read no connection."""
    with httpx.Client(base_url=stage.airflow.url, trust_env=False, timeout=30) as client:
        answer = client.post("/auth/token", json={"username": THEIR_USER, "password": PASSWORD})
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


def started(stage: Stage, team: str) -> Run:
    run = stage.start(team)
    run.until("deferred")
    return run


def instance(run: Run) -> str:
    return f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/job"


def published(client: httpx.Client, run: Run) -> dict[str, Any]:
    answer = client.get(f"{instance(run)}/xcomEntries/ugen_job", params={"stringify": "false"})
    found: dict[str, Any] = answer.json()["value"]
    return found


def statuses(server: EmulatorServer, key: str) -> dict[str, str]:
    with UGenClient(api_key=key, base_url=server.base_url) as client:
        return {job.job_id: job.status for job in client.jobs.list()}


def signed_by_them(theirs: dict[str, Any], job_id: str, bob: httpx.Client, run: Run) -> dict[str, Any]:
    """Their own task's reference with another job, signed as only a holder of their key can."""
    task = bob.get(instance(run)).json()

    class TheirTask:
        dag_id, run_id, task_id, map_index, id = run.dag_id, run.run_id, "job", -1, task["id"]

    ref = JobRef.from_dict(theirs)
    assert ref is not None
    assert ref.attempt == attempt_name(TheirTask()), "else the reference would be refused for another reason"
    return replace(ref, job_id=job_id).signed(TheirTask(), RecordSigner(Secret(THEIR_KEY)))


@pytest.mark.parametrize("attack", ["copied", "other_job", "signed_with_their_own_key"])
def test_reference_to_our_job_shows_and_cancels_nothing(
    stage: Stage, server: EmulatorServer, bob: httpx.Client, attack: str
) -> None:
    ours, theirs = started(stage, "ours"), started(stage, "theirs")
    stolen, own = published(bob, ours), published(bob, theirs)
    forged = {
        "copied": stolen,
        "other_job": {**own, "job_id": stolen["job_id"]},
        "signed_with_their_own_key": signed_by_them(own, stolen["job_id"], bob, theirs),
    }[attack]
    body = {"value": forged, "map_index": -1}
    assert bob.patch(f"{instance(theirs)}/xcomEntries/ugen_job", json=body).status_code == 200
    params = {"dag_id": theirs.dag_id, "run_id": theirs.run_id, "task_id": "job"}
    answer = bob.get("/ugen/job.json", params=params)
    # By their key the service knows no such job; by ours nothing is asked.
    assert answer.status_code == (502 if attack == "signed_with_their_own_key" else 404)
    assert ours.product not in answer.text
    assert bob.patch(instance(theirs), json={"new_state": "failed"}).status_code == 200
    theirs.until("failed")
    assert ours.finish()["state"] == "success"
    assert statuses(server, LOCAL_KEY)[stolen["job_id"]] == "completed"


def test_same_order_of_two_teams_is_two_jobs(stage: Stage, server: EmulatorServer) -> None:
    ours, theirs = started(stage, "ours"), started(stage, "theirs")
    assert ours.finish()["state"] == theirs.finish()["state"] == "success"
    mine, other = ours.result()["job_id"], theirs.result()["job_id"]
    assert mine in statuses(server, LOCAL_KEY)
    assert other in statuses(server, THEIR_KEY)
    assert mine not in statuses(server, THEIR_KEY)


def test_user_without_rights_reads_no_connection(bob: httpx.Client) -> None:
    """Else the tests above would show less than they say."""
    assert bob.get("/api/v2/connections/ugen_default").status_code == 403
