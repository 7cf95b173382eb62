# SPDX-License-Identifier: Apache-2.0
"""What a task asks Airflow's own REST API, since a worker has no database: which jobs does any task instance hold?"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.hooks.missing import not_found
from ugen_provider.triggers.killing import WATCH, Watch
from ugen_provider.version_compat import AirflowNotFoundException, BaseHook

HOLDING = ("queued", "running", "deferred", "awaiting_input", "scheduled", "up_for_retry", "up_for_reschedule")
"""States of a task instance that comes back to its job."""

_PAGE = 100


class AirflowRest:
    """Airflow's REST API, by a connection with its address and a user.

    Args:
        airflow_conn_id: Host (with scheme and port) and login with password; or a token as password, without login.

    Raises:
        ConfigError: The connection is missing, or Airflow refuses the login.
    """

    def __init__(self, airflow_conn_id: str) -> None:
        self._conn_id = airflow_conn_id
        try:
            connection = BaseHook.get_connection(airflow_conn_id)
        except AirflowNotFoundException:
            advice = "add it with the address of Airflow's API server and a user that may read task instances"
            raise not_found(airflow_conn_id, advice=advice) from None
        host = (connection.host or "").rstrip("/")
        if not host.startswith(("http://", "https://")):
            raise ConfigError(f"connection {airflow_conn_id!r}: host must begin with http:// or https://")
        self._url = f"{host}:{connection.port}" if connection.port else host
        self._token = connection.password or ""
        if connection.login:
            login = {"username": connection.login, "password": connection.password}
            self._token = str(self._named("access_token", self._ask("POST", "/auth/token", body=login)))

    def _named(self, name: str, answer: dict[str, Any]) -> Any:
        """A field of an answer. Whoever answers without it is no Airflow, and an empty list of its would free all jobs.

        Raises:
            ConfigError: It is not there.
        """
        if name not in answer:
            raise ConfigError(f"connection {self._conn_id!r}: what answers at {self._url} is not Airflow's API server")
        return answer[name]

    def _ask(
        self, method: str, path: str, *, body: Any = None, may_be_missing: bool = False, **params: Any
    ) -> dict[str, Any]:
        url = self._url + path + (f"?{urlencode(params, doseq=True)}" if params else "")
        headers = {"Content-Type": "application/json"}
        if body is None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=headers, method=method)  # noqa: S310  http(s) only
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                read: Any = json.load(answer)
                return read if isinstance(read, dict) else {}
        except urllib.error.HTTPError as error:
            if error.code == 404 and may_be_missing:
                return {}
            raise ConfigError(
                f"connection {self._conn_id!r}: Airflow answers {error.code} to {method} {path}"
            ) from None
        except (urllib.error.URLError, ValueError) as error:
            raise ConfigError(f"connection {self._conn_id!r}: Airflow cannot be asked: {error}") from None

    def held_jobs(self) -> set[str]:
        """Jobs that task instances wait for, in all DAGs that the user may see."""
        return {watch.job_id for watch in self._watches()}

    def _watches(self) -> Iterator[Watch]:
        for ti in self._task_instances():
            # Whatever its operator is called: it may be a user's own that stands on one of ours.
            run, task = quote(ti["dag_run_id"], safe=""), quote(ti["task_id"], safe="")
            path = f"/api/v2/dags/{quote(ti['dag_id'], safe='')}/dagRuns/{run}/taskInstances/{task}/xcomEntries/{WATCH}"
            entry = self._ask("GET", path, may_be_missing=True, map_index=ti["map_index"], stringify="false")
            watch = Watch.from_dict(entry.get("value"))
            if watch is not None:
                yield watch

    def _task_instances(self) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self._ask("GET", "/api/v2/dags/~/dagRuns/~/taskInstances", state=HOLDING, limit=_PAGE, offset=offset)
            found = self._named("task_instances", page)
            yield from found
            offset += len(found)
            if not found or offset >= int(page.get("total_entries") or 0):
                return
