# SPDX-License-Identifier: Apache-2.0
"""A real Airflow on this machine: API server, scheduler, DAG processor and triggerer as processes.

SQLite and the LocalExecutor; enough for a demo and for tests, not for production.
"""

import base64
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ugen_provider.cli.demo.airflow_api import AirflowApi
from ugen_provider.cli.demo.processes import (
    ProcessDiedError,
    Processes,
    Service,
    child_environment,
    free_ports,
    python_module,
    run_to_end,
    wait_until,
)

PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
USER = "admin"
PASSWORD = "admin"  # noqa: S105  # of an Airflow that listens on the loopback address only


class RealAirflow(Service):
    """One Airflow with a home of its own.

    Args:
        home: The folder for its database, logs and secrets; a second start on it goes on where it was.
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
        """The secrets of this home; kept, since its database is encrypted with one of them."""
        path = self.home / "secrets.json"
        if not path.exists():
            made = {name: base64.urlsafe_b64encode(os.urandom(32)).decode() for name in ("fernet", "jwt", "session")}
            path.touch(mode=0o600)
            path.write_text(json.dumps(made))
        kept: dict[str, str] = json.loads(path.read_text())
        return kept

    def migrate(self, *, template: Path | None = None) -> None:
        """Make the database, once.

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
        """End all processes."""
        self.api.close()
        self.processes.stop()
