# SPDX-License-Identifier: Apache-2.0
"""A real Airflow on this machine: its processes (API server, scheduler, DAG processor, triggerer) and its REST API.

SQLite and the LocalExecutor; enough for a demo and for tests, not for production.
"""

import base64
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from ugen_provider.cli.demo.processes import (
    ProcessDiedError,
    Processes,
    ProcessGroup,
    child_environment,
    free_ports,
    python_module,
    run_to_end,
    wait_until,
)

HEALTH_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
PAGE = 100
_REPEATS = 4


class AirflowApiError(RuntimeError):
    """Airflow answered with an error."""


class AirflowApi:
    """A client of Airflow's REST API v2.

    Args:
        url: Where the API server listens, such as `http://127.0.0.1:8080`.
        user: A user of the simple auth manager.
        password: The password of that user.

    Examples:
        ```python
        api = AirflowApi("http://127.0.0.1:8080", user="admin", password="admin")
        api.trigger("feed_to_videos", run_id="today")
        ```
    """

    def __init__(self, url: str, *, user: str, password: str) -> None:
        self.url = url
        self._login = {"username": user, "password": password}
        self._token: str | None = None
        # Straight to the loopback address, without the environment's proxy.
        self._http = httpx.Client(base_url=url, timeout=30.0, trust_env=False)

    def close(self) -> None:
        """Close the connections to the API server."""
        self._http.close()

    def health(self) -> dict[str, str]:
        """Return what each part of Airflow says about itself; no login needed.

        Returns:
            Part to status, `healthy` being the good one; empty while no server answers.
        """
        try:
            answer = self._http.get("/api/v2/monitor/health", timeout=5.0)
        except httpx.TransportError:
            return {}
        if answer.status_code != 200:
            return {}
        return {part: str((said or {}).get("status")) for part, said in answer.json().items()}

    def healthy(self) -> bool:
        """Return whether all four parts are healthy."""
        said = self.health()
        return all(said.get(part) == "healthy" for part in HEALTH_PARTS)

    def dag_known(self, dag_id: str) -> bool:
        """Return whether the DAG processor has parsed a DAG.

        Args:
            dag_id: The DAG.

        Returns:
            True once it can be run.
        """
        return self._ask("GET", f"/dags/{dag_id}", expect=(200, 404)) is not None

    def import_errors(self) -> list[str]:
        """Why DAG files could not be parsed.

        Returns:
            A message per file.
        """
        found = self._ask("GET", "/importErrors") or {}
        return [f"{each['filename']}: {each['stack_trace']}" for each in found.get("import_errors", [])]

    def set_connection(
        self,
        connection_id: str,
        *,
        conn_type: str,
        host: str | None = None,
        password: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Make a connection, or bring the one of this id up to date.

        Args:
            connection_id: Its id.
            conn_type: Its type.
            host: Its host, or its file.
            password: Its secret; Airflow encrypts it.
            extra: Its extra fields.
        """
        body = {
            "connection_id": connection_id,
            "conn_type": conn_type,
            "host": host,
            "password": password,
            "extra": json.dumps(dict(extra or {})),
        }
        known = self._ask("GET", f"/connections/{connection_id}", expect=(200, 404))
        if known is None:
            self._ask("POST", "/connections", body=body, expect=(201,))
        else:
            self._ask("PATCH", f"/connections/{connection_id}", body=body)

    def trigger(self, dag_id: str, *, run_id: str, conf: Mapping[str, Any] | None = None) -> None:
        """Start a run of a DAG.

        Args:
            dag_id: The DAG.
            run_id: The id of the new run.
            conf: The run's configuration.
        """
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf or {})}
        self._ask("POST", f"/dags/{dag_id}/dagRuns", body=body)

    def run_state(self, dag_id: str, *, run_id: str) -> str | None:
        """Return the state of a run.

        Args:
            dag_id: The DAG.
            run_id: The run.

        Returns:
            The state, or None if there is no such run.
        """
        run = self._ask("GET", f"{_run(dag_id, run_id)}", expect=(200, 404))
        return None if run is None else str(run["state"])

    def clear_run(self, dag_id: str, *, run_id: str) -> None:
        """Clear all tasks of a run, so that the same run runs again.

        Args:
            dag_id: The DAG.
            run_id: The run.
        """
        self._ask("POST", f"{_run(dag_id, run_id)}/clear", body={"dry_run": False, "only_failed": False})

    def clear_task(self, dag_id: str, *, run_id: str, task_id: str) -> None:
        """Clear one task of a run, in any state.

        Args:
            dag_id: The DAG.
            run_id: The run.
            task_id: The task.
        """
        body = {
            "dry_run": False,
            "task_ids": [task_id],
            "dag_run_id": run_id,
            "only_failed": False,
            "only_running": False,
            "reset_dag_runs": True,
        }
        self._ask("POST", f"/dags/{dag_id}/clearTaskInstances", body=body)

    def mark_task(self, dag_id: str, *, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task instance by hand, as a person does in the pages.

        Args:
            dag_id: The DAG.
            run_id: The run.
            task_id: The task.
            state: `failed` or `success`.
            map_index: Which of the mapped instances; -1 for an unmapped one.
        """
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}"
        self._ask("PATCH", path if map_index < 0 else f"{path}/{map_index}", body={"new_state": state})

    def mark_run(self, dag_id: str, *, run_id: str, state: str) -> None:
        """Mark a run by hand, as a person does in the pages.

        Args:
            dag_id: The DAG.
            run_id: The run.
            state: `failed` or `success`.
        """
        self._ask("PATCH", _run(dag_id, run_id), body={"state": state})

    def task_instances(self, dag_id: str, *, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of a run, mapped ones included.

        Args:
            dag_id: The DAG.
            run_id: The run.

        Returns:
            What Airflow says of each: `task_id`, `map_index`, `state`, `try_number` and more.
        """
        found: list[dict[str, Any]] = []
        while True:
            query = {"limit": PAGE, "offset": len(found)}
            page = self._ask("GET", f"{_run(dag_id, run_id)}/taskInstances", params=query) or {}
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def xcom(self, dag_id: str, *, run_id: str, task_id: str, map_index: int = -1) -> Any:
        """Return the value that a task instance returned.

        Args:
            dag_id: The DAG.
            run_id: The run.
            task_id: The task.
            map_index: Which of the mapped instances; -1 for an unmapped one.

        Returns:
            The value, or None if there is none.
        """
        path = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
        query = {"map_index": map_index, "deserialize": "false", "stringify": "false"}
        entry = self._ask("GET", path, params=query, expect=(200, 404))
        return None if entry is None else entry["value"]

    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        expect: tuple[int, ...] = (200, 201),
    ) -> dict[str, Any] | None:
        """Ask, logged in.

        Returns:
            The answer's JSON; None for a 404 that was expected.
        """
        if self._token is None:
            answer = self._http.post("/auth/token", json=self._login)
            if answer.status_code != 201:
                raise AirflowApiError(f"Airflow refused the login: {answer.status_code} {answer.text[:500]}")
            self._token = str(answer.json()["access_token"])
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = self._http.request(method, f"/api/v2{path}", json=body, params=params, headers=headers)
        for _ in range(_REPEATS):
            # Airflow's SQLite is locked for a moment. The effect of a POST is not known then, so it is not repeated.
            if answer.status_code != 500 or method == "POST" or "Database error" not in answer.text:
                break
            time.sleep(1.0)
            answer = self._http.request(method, f"/api/v2{path}", json=body, params=params, headers=headers)
        if answer.status_code not in expect:
            raise AirflowApiError(f"Airflow answered {answer.status_code} to {method} {path}: {answer.text[:500]}")
        if answer.status_code == 404:
            return None
        said: dict[str, Any] = answer.json()
        return said


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
USER = "admin"
PASSWORD = "admin"  # noqa: S105  # of an Airflow that listens on the loopback address only


class RealAirflow(ProcessGroup):
    """One Airflow with a home of its own.

    Args:
        home: The folder for its database, logs and secrets; a second start on it continues where it was.
        dags: The folder with the DAG files.
        env: What its processes, and so the tasks, get beside Airflow's own settings.
        port: Where the API server listens; a free port without it.
        parallelism: How many tasks run at once.

    Examples:
        ```python
        airflow = RealAirflow(Path("home"), dags=Path("example_dags"))
        with airflow:
            airflow.api.trigger("feed_to_videos", run_id="today")
        ```
    """

    def __init__(
        self,
        home: Path,
        *,
        dags: Path,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        parallelism: int = 4,
    ) -> None:
        self.home = home.resolve()
        self.logs = self.home / "process-logs"
        self.database = self.home / "airflow.db"
        self.home.mkdir(parents=True, exist_ok=True)
        free = free_ports(3)
        self.port = port or free[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = child_environment(
            self._settings(dags=dags.resolve(), log_ports=(free[1], free[2]), parallelism=parallelism) | dict(env or {})
        )
        self.processes = Processes()
        self.api = AirflowApi(self.url, user=USER, password=PASSWORD)

    def up(self) -> None:
        """Start the four processes on a migrated database, and wait until they are healthy."""
        self.migrate()
        self.start()
        self.wait_healthy()

    def _settings(self, *, dags: Path, log_ports: tuple[int, int], parallelism: int) -> dict[str, str]:
        """Airflow's settings: the loopback address only, and waiting times made short."""
        passwords = self.home / "passwords.json"
        passwords.write_text(json.dumps({USER: PASSWORD}))
        secrets = self._secrets()
        return {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(parallelism),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.home / "plugins"),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": secrets["fernet"],
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secrets["session"],
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets["jwt"],
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(log_ports[0]),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(log_ports[1]),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
        }

    def _secrets(self) -> dict[str, str]:
        """Return the secrets of this home; kept, since its database is encrypted with one of them."""
        path = self.home / "secrets.json"
        if not path.exists():
            made = {name: base64.urlsafe_b64encode(os.urandom(32)).decode() for name in ("fernet", "jwt", "session")}
            path.touch(mode=0o600)
            path.write_text(json.dumps(made))
        kept: dict[str, str] = json.loads(path.read_text())
        return kept

    def migrate(self, *, template: Path | None = None) -> None:
        """Create the metadata database, once.

        Args:
            template: A migrated database to copy, which is faster.

        Raises:
            ProcessDiedError: Airflow could not make it.
        """
        if self.database.exists():
            return
        if template is not None:
            shutil.copy(template, self.database)
            return
        try:
            run_to_end(
                python_module("airflow", "db", "migrate"), env=self.env, log=self.logs / "migrate.log", cwd=self.home
            )
        except ProcessDiedError:
            self.database.unlink(missing_ok=True)
            raise

    def start(self) -> None:
        """Start the four processes, without waiting for them."""
        for part in PARTS:
            self.start_part(part)

    def start_part(self, part: str, /) -> None:
        """Start one of the processes.

        Args:
            part: `api-server`, `scheduler`, `dag-processor` or `triggerer`.
        """
        log = self.logs / f"{part}.log"
        self.processes.start(f"airflow {part}", python_module("airflow", part), env=self.env, log=log, cwd=self.home)

    def wait_healthy(self, *, timeout: float = 120.0) -> None:
        """Wait until all four parts say that they are healthy.

        Args:
            timeout: Seconds until giving up.
        """
        wait_until(self.api.healthy, what=f"Airflow at {self.url}", timeout=timeout, watch=[self.processes])

    def wait_for_dag(self, dag_id: str, *, timeout: float = 60.0) -> None:
        """Wait until the DAG processor has parsed a DAG.

        Args:
            dag_id: The DAG.
            timeout: Seconds until giving up.

        Raises:
            ProcessDiedError: The file could not be parsed.
        """

        def known() -> bool:
            if self.api.dag_known(dag_id):
                return True
            errors = self.api.import_errors()
            if errors:
                raise ProcessDiedError("Airflow could not read the DAGs:\n" + "\n".join(errors))
            return False

        wait_until(known, what=f"the DAG {dag_id}", timeout=timeout, watch=[self.processes])

    def stop(self) -> None:
        """End all processes of this Airflow."""
        self.api.close()
        self.processes.stop()
