# SPDX-License-Identifier: Apache-2.0
"""What we ask a running Airflow by its REST API; a command of its CLI would cost a whole import each."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
PAGE = 100


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
        # Straight to the loopback address, whatever proxy the environment names.
        self._http = httpx.Client(base_url=url, timeout=30.0, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> dict[str, str]:
        """What each part of Airflow says about itself; no login needed.

        Returns:
            Part to status, `healthy` being the good one; empty while nobody answers.
        """
        try:
            answer = self._http.get("/api/v2/monitor/health", timeout=5.0)
        except httpx.TransportError:
            return {}
        if answer.status_code != 200:
            return {}
        return {part: str((said or {}).get("status")) for part, said in answer.json().items()}

    def healthy(self) -> bool:
        """Whether all four parts are healthy."""
        said = self.health()
        return all(said.get(part) == "healthy" for part in PARTS)

    def dag_known(self, dag_id: str) -> bool:
        """Whether the DAG processor has parsed a DAG.

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
        """Start a run.

        Args:
            dag_id: The DAG.
            run_id: The id of the new run.
            conf: The run's configuration.
        """
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf or {})}
        self._ask("POST", f"/dags/{dag_id}/dagRuns", body=body)

    def run_state(self, dag_id: str, *, run_id: str) -> str | None:
        """The state of a run.

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
        """Clear one task of a run, in whatever state it is.

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
        """All task instances of a run, mapped ones included.

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
        """The value that a task instance returned.

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
        if answer.status_code not in expect:
            raise AirflowApiError(f"Airflow answered {answer.status_code} to {method} {path}: {answer.text[:500]}")
        if answer.status_code == 404:
            return None
        said: dict[str, Any] = answer.json()
        return said


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"
