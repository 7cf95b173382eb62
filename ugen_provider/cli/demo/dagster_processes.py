# SPDX-License-Identifier: Apache-2.0
"""A real Dagster on this machine: code server, webserver and daemon as processes."""

from collections.abc import Mapping
from pathlib import Path

from ugen_provider.cli.demo.dagster_api import LOCATION, DagsterApi
from ugen_provider.cli.demo.processes import (
    Processes,
    Service,
    child_environment,
    free_ports,
    listens,
    python_module,
    run_to_end,
    wait_until,
)

INSTANCE = """telemetry: {{enabled: false}}
nux: {{enabled: false}}
python_logs: {{python_log_level: ERROR}}
run_queue: {{max_concurrent_runs: {runs_at_once}, dequeue_interval_seconds: 1}}
run_monitoring:
  {{enabled: true, poll_interval_seconds: 5, start_timeout_seconds: 60, cancel_timeout_seconds: 20}}
run_retries: {{enabled: true, max_retries: 0}}
sensors: {{use_threads: true, num_workers: 4, num_submit_workers: 8}}
"""
WORKSPACE = "load_from: [{{grpc_server: {{host: 127.0.0.1, port: {port}, location_name: {name}}}}}]\n"


class RealDagster(Service):
    """One Dagster with a home of its own.

    Args:
        home: The folder for its runs, events and logs; a second start on it goes on where it was.
        definitions: The Python file with the definitions.
        env: What its processes, and so the runs, get beside Dagster's own settings.
        port: Where the webserver listens; a free port without it.
        runs_at_once: How many runs the daemon lets run at a time.

    Examples:
        ```python
        with RealDagster(Path("home"), definitions=Path("defs.py")) as dagster:
            dagster.api.launch_backfill(["videos"], partitions=["mug", "lamp"])
        ```
    """

    def __init__(
        self,
        home: Path,
        *,
        definitions: Path,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        runs_at_once: int = 4,
    ) -> None:
        self.home = home.resolve()
        self.logs = self.home / "process-logs"
        self.definitions = definitions.resolve()
        free = free_ports(2)
        self.code_port = free[0]
        self.port = port or free[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "dagster.yaml").write_text(INSTANCE.format(runs_at_once=runs_at_once))
        self.workspace = self.home / "workspace.yaml"
        self.workspace.write_text(WORKSPACE.format(port=self.code_port, name=LOCATION))
        self.env = child_environment(
            {"DAGSTER_HOME": str(self.home), "DAGSTER_DISABLE_TELEMETRY": "1"} | dict(env or {})
        )
        self.processes = Processes()
        self.api = DagsterApi(self.url)

    def up(self) -> None:
        """Start the three processes, and wait until runs can be launched."""
        self.start()
        self.wait_ready()

    def migrate(self) -> None:
        """Make the instance's databases, once.

        Three processes that find none would each make them, and break each other's.

        Raises:
            ProcessDiedError: Dagster could not make them.
        """
        made = self.home / "history"
        if not made.exists():
            command = python_module("dagster", "instance", "migrate")
            run_to_end(command, env=self.env, log=self.logs / "migrate.log", cwd=self.home)

    def start(self) -> None:
        """Start the three processes; the code server first, since a daemon that misses it fails the runs."""
        self.migrate()
        address = ["-h", "127.0.0.1", "-p"]
        code = ["-f", str(self.definitions), *address, str(self.code_port), "--location-name", LOCATION]
        workspace = ["-w", str(self.workspace)]
        self._start("code server", "dagster", "api", "grpc", *code, "--inject-env-vars-from-instance")
        wait_until(
            lambda: listens(self.code_port),
            what="Dagster's code server",
            timeout=60.0,
            watch=[self.processes],
        )
        self._start("webserver", "dagster_webserver", *workspace, *address, str(self.port))
        self._start("daemon", "dagster._daemon", "run", *workspace)

    def _start(self, name: str, module: str, *arguments: str) -> None:
        log = self.logs / f"{name.replace(' ', '-')}.log"
        command = python_module(module, *arguments)
        self.processes.start(f"dagster {name}", command, env=self.env, log=log, cwd=self.home)

    def wait_ready(self, *, timeout: float = 120.0) -> None:
        """Wait until runs can be launched.

        Args:
            timeout: Seconds until giving up.
        """
        wait_until(self.api.ready, what=f"Dagster at {self.url}", timeout=timeout, watch=[self.processes])

    def stop(self) -> None:
        """End all processes."""
        self.api.close()
        self.processes.stop()
