# SPDX-License-Identifier: Apache-2.0
"""The orphan finder, and whom it asks: it never takes a wrong address for an Airflow that holds nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.airflow.deferring import run
from ugen_provider import CreateJob
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.operators.orphans import UGenFindOrphansOperator

pytestmark = pytest.mark.usefixtures("connection", "moving_clock")

LAMP = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.png", "segment_count": 1}
TASKS = "/api/v2/dags/~/dagRuns/~/taskInstances"


@pytest.fixture
def answers() -> Iterator[dict[str, Any]]:
    """A server that answers by path, and 404 elsewhere; its address is under `url`."""
    told: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = told.get(self.path.partition("?")[0])
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told["url"] = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield told
        server.shutdown()


@pytest.fixture
def find(answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def found(context: dict[str, Any], **connection: Any) -> Any:
        stored = {"conn_type": "http", "host": answers["url"], "password": "token", **connection}
        monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", json.dumps(stored))
        task = UGenFindOrphansOperator(task_id="orphans", airflow_conn_id="airflow_api", action="cancel", min_age=0)
        return run(task, context)

    return found


def test_what_nobody_holds_is_cancelled(answers: Any, find: Any, attempts: Any, ugen_client: Any) -> None:
    answers[TASKS] = {"task_instances": [], "total_entries": 0}
    job = ugen_client.jobs.create(CreateJob(**LAMP))
    (orphan,) = find(attempts.next())
    assert (orphan["job_id"], orphan["status"]) == (job.job_id, "cancelled")


def test_a_task_of_a_users_own_operator_holds_its_job(answers: Any, find: Any, attempts: Any, ugen_client: Any) -> None:
    job = ugen_client.jobs.create(CreateJob(**LAMP))
    ti = {"dag_id": "d", "dag_run_id": "r", "task_id": "t", "map_index": -1, "operator": "MakeVideo"}
    answers[TASKS] = {"task_instances": [ti], "total_entries": 1}
    watch = {"job_id": job.job_id, "ugen_conn_id": "ugen_default", "scope": "", "attempt": 1, "cancel_on_kill": True}
    answers["/api/v2/dags/d/dagRuns/r/taskInstances/t/xcomEntries/ugen_watch"] = {"value": watch}
    assert find(attempts.next()) == []
    assert not ugen_client.jobs.get(job.job_id).ended


@pytest.mark.parametrize("answer", [None, {}, [], {"detail": "Not Found"}])
def test_a_wrong_address_frees_no_job(answers: Any, find: Any, attempts: Any, ugen_client: Any, answer: Any) -> None:
    answers[TASKS] = answer
    job = ugen_client.jobs.create(CreateJob(**LAMP))
    with pytest.raises(UGenFailure, match="connection 'airflow_api'"):
        find(attempts.next())
    assert not ugen_client.jobs.get(job.job_id).ended


@pytest.mark.parametrize(
    "wrong", [{"login": "admin"}, {"host": "http://127.0.0.1:9", "login": "admin"}, {"host": "airflow"}]
)
def test_a_wrong_connection_is_named_on_a_day_without_jobs_too(find: Any, attempts: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(UGenFailure, match="connection 'airflow_api'"):
        find(attempts.next(), **wrong)
