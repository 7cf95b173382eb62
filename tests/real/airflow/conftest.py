# SPDX-License-Identifier: Apache-2.0
"""One real Airflow for all tests of this folder, and a U-Gen in this process whose clock the tests move."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.databases import empty_database, postgres_url
from ugen_provider.cli.demo.airflow import PASSWORD, USER, RealAirflow
from ugen_provider.cli.demo.processes import Processes, WaitTimeoutError, free_ports, python_module, wait_until
from ugen_provider.cli.demo.sides import demo_parts
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

DAGS = Path(__file__).parent / "dags"
EXAMPLES = demo_parts().dag.parent
PATIENCE = 150.0
LINEAGE = "lineage.jsonl"
LEDGERS = {"sqlite": "ugen_ledger", "postgresql": "ugen_ledger_postgresql"}
"""The connection of the ledger on each kind of database."""
WITH_LEDGER = {"sqlite": "ugen_with_ledger", "postgresql": "ugen_with_ledger_postgresql"}
"""The connection to U-Gen that names this ledger."""
WEBHOOK_SECRET = "whsec_local_0123456789"
_runs = itertools.count()


@dataclass
class Stage:
    """A real Airflow with the DAGs of this folder, and the U-Gen that its tasks buy from."""

    airflow: RealAirflow
    ugen: EmulatorServer
    ledgers: dict[str, str]
    """The addresses of the ledgers by their kind of database; PostgreSQL where one answers."""

    @property
    def lineage(self) -> Path:
        """Return the events that OpenLineage got, one a line."""
        return self.airflow.home / LINEAGE

    @property
    def api(self) -> Any:
        return self.airflow.api

    @property
    def desk(self) -> Any:
        return self.ugen.emulator

    def start(self, dag_id: str, **conf: Any) -> Run:
        run = Run(self, dag_id, f"run{next(_runs)}")
        self.start_what_ended()
        self.airflow.wait_for_dag(dag_id)
        self.api.trigger(dag_id, run_id=run.run_id, conf={"product": run.product, **conf})
        return run

    def until_scheduler_has_seen(self) -> None:
        """Wait until the scheduler has taken note of a task that has just put itself to sleep.

        A task that is asked back before that is one that Airflow believes killed, and fails: no person is so quick.
        """
        before = self._scheduler_heartbeat()
        for _ in range(2):
            seen = before
            wait_until(
                lambda seen=seen: self._scheduler_heartbeat() != seen,  # type: ignore[misc]
                what="a heartbeat of the scheduler",
                timeout=PATIENCE,
                interval=0.1,
            )
            before = self._scheduler_heartbeat()

    def until_scheduler_continues(self) -> None:
        """Wait for a turn of the scheduler; one that ended is started again, as a supervisor does.

        Airflow's own scheduler ends with `ObjectDeletedError` where a run is deleted while it works on it.
        """
        before = self._scheduler_heartbeat()

        def continues() -> bool:
            return not self.start_what_ended() and bool(self._scheduler_heartbeat() != before)

        for _ in range(2):
            wait_until(continues, what="a heartbeat of the scheduler", timeout=PATIENCE, interval=0.1)
            before = self._scheduler_heartbeat()

    def _scheduler_heartbeat(self) -> Any:
        said = httpx.get(f"{self.airflow.url}/api/v2/monitor/health").json()
        return said["scheduler"]["latest_scheduler_heartbeat"]

    def kill_part(self, part: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End one of Airflow's processes with all that it started."""
        for running in list(self.airflow.processes.running):
            if running.name == f"airflow {part}":
                self.airflow.processes.running.remove(running)
                running.signal_group(how)
                running.popen.wait(30)

    def start_part(self, part: str) -> None:
        self.airflow.start_part(part)

    def start_what_ended(self) -> list[str]:
        """Start again each part that has ended by itself, as systemd or Kubernetes would, and say which these were."""
        ended = [each for each in self.airflow.processes.running if each.popen.poll() is not None]
        parts = [each.name.removeprefix("airflow ") for each in ended]
        for part in parts:
            self.kill_part(part)  # what it had started ends with it
            self.start_part(part)
        return parts

    def is_healthy(self, part: str) -> bool:
        return bool(self.api.health().get(part) == "healthy")


@dataclass
class Run:
    """One DAG run, whose product has a name of its own, so that the journal shows the owner of each job."""

    stage: Stage
    dag_id: str
    run_id: str

    @property
    def product(self) -> str:
        return f"{self.dag_id} {self.run_id}"

    def task(self, task_id: str = "job", map_index: int = -1) -> dict[str, Any]:
        for each in self.stage.api.task_instances(self.dag_id, run_id=self.run_id):
            if (each["task_id"], each["map_index"]) == (task_id, map_index):
                return each
        return {"state": "gone", "try_number": 0}

    def until(
        self, state: str | tuple[str, ...], *, attempt: int | None = None, task_id: str = "job"
    ) -> dict[str, Any]:
        """Wait until the task is in a state, while the emulator's clock does not move."""
        wanted = (state,) if isinstance(state, str) else state

        def there() -> bool:
            task = self.task(task_id)
            return task["state"] in wanted and (attempt is None or task["try_number"] == attempt)

        self.wait(there, what=f"{self.dag_id}.{task_id} being {' or '.join(wanted)}")
        return self.task(task_id)

    def wait(self, condition: Callable[[], bool], *, what: str) -> None:
        """Wait for a condition, under a supervisor: Airflow's scheduler ends where a run is deleted under it."""

        def met() -> bool:
            self.stage.start_what_ended()
            return condition()

        try:
            wait_until(met, what=what, timeout=PATIENCE, interval=0.1)
        except WaitTimeoutError as error:
            raise AssertionError(f"{error}; the run's logs end:\n{self.log()[-8000:]}") from None

    def jobs(self) -> list[str]:
        """The ids of the jobs that were bought for this run, oldest first."""
        world = self.stage.desk
        with world.lock:
            return [entry.job_id for entry in world.journal.find_purchases(kind="create", product_name=self.product)]

    def statuses(self) -> list[str]:
        """Return what the service says of them now: `active`, or how they ended."""
        from ugen_provider import UGenClient

        with UGenClient(api_key=LOCAL_KEY, base_url=self.stage.ugen.base_url) as client:
            return [client.jobs.get(job_id).state.value for job_id in self.jobs()]

    def bought(self) -> int:
        return len(self.jobs())

    def until_bought(self, count: int = 1) -> None:
        self.wait(lambda: self.bought() == count, what=f"{count} jobs being bought for {self.product}")

    def until_status(self, *statuses: str) -> None:
        self.wait(lambda: self.statuses() == list(statuses), what=f"the jobs of {self.product} being {statuses}")

    def finish(self, task_id: str = "job") -> dict[str, Any]:
        """Move the emulator's clock until the task is over."""

        def over() -> bool:
            self.stage.desk.advance(30.0)
            return self.task(task_id)["state"] in {"success", "failed"}

        self.wait(over, what=f"{self.dag_id} {self.run_id} being over")
        return self.task(task_id)

    def result(self) -> Any:
        return self.stage.api.xcom(self.dag_id, run_id=self.run_id, task_id="job")

    def mark(self, state: str) -> None:
        self.stage.api.mark_task(self.dag_id, run_id=self.run_id, task_id="job", state=state)

    def clear(self) -> None:
        self.stage.until_scheduler_has_seen()
        self.stage.api.clear_task(self.dag_id, run_id=self.run_id, task_id="job")

    def until_run_is(self, state: str) -> None:
        self.wait(
            lambda: self.stage.api.run_state(self.dag_id, run_id=self.run_id) == state,
            what=f"the run of {self.product} being {state}",
        )

    def log(self) -> str:
        folder = self.stage.airflow.home / "logs"
        found = [path for path in folder.rglob("*.log*") if f"run_id={self.run_id}" in str(path)]
        return "\n".join(path.read_text(errors="replace") for path in sorted(found))


@pytest.fixture(scope="session")
def ugen() -> Iterator[EmulatorServer]:
    # From today on, since an event trigger reports only recently ended jobs, by the machine's clock.
    with EmulatorServer(Settings(speed=0, admin=True, start=time.time())) as server:
        yield server


@contextmanager
def real_stage(
    home: Path,
    dags: Path,
    ugen: EmulatorServer,
    *,
    files: Iterable[Path],
    key: str = LOCAL_KEY,
    passwords: Mapping[str, str] | None = None,
    **env: str,
) -> Iterator[Stage]:
    """A real Airflow with some DAG files, and the connections to a U-Gen: without a ledger, and one for each ledger."""
    for source in files:
        shutil.copy(source, dags)
    with ExitStack() as stack:
        ledgers = {"sqlite": str(home / "ugen-ledger.db")}
        server = postgres_url()
        if server is not None:
            ledgers["postgresql"] = stack.enter_context(empty_database(server))
            env[f"AIRFLOW_CONN_{LEDGERS['postgresql'].upper()}"] = (
                "postgres://" + ledgers["postgresql"].partition("://")[2]
            )
        for address in ledgers.values():
            Ledger.init(address, allow_ephemeral=True).close()
        airflow = RealAirflow(home, dags=dags, env={"UGEN_TEST_OUTPUT": str(home / "output")} | env, parallelism=4)
        (home / "passwords.json").write_text(json.dumps({USER: PASSWORD, **(passwords or {})}))
        stack.enter_context(airflow)
        extra = {"base_url": ugen.base_url, "webhook_secret": WEBHOOK_SECRET}
        airflow.api.set_connection("ugen_default", conn_type="ugen", password=key, extra=extra)
        airflow.api.set_connection(LEDGERS["sqlite"], conn_type="sqlite", host=ledgers["sqlite"])
        for kind in ledgers:
            airflow.api.set_connection(
                WITH_LEDGER[kind], conn_type="ugen", password=key, extra={**extra, "ledger_conn_id": LEDGERS[kind]}
            )
        yield Stage(airflow, ugen, ledgers)


@contextmanager
def api_server_beside(
    stage: Stage, path: str = "", *, without: Iterable[str] = ()
) -> Iterator[tuple[httpx.Client, Path]]:
    """Start another API server on the same database; yields a client that is logged in as the admin, and the log.

    Args:
        stage: The Airflow.
        path: The prefix under which it is reached.
        without: Environment variables of the other processes that it does not have.
    """
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}{path}"
    env = {name: value for name, value in stage.airflow.env.items() if name not in set(without)}
    env |= {"AIRFLOW__API__PORT": str(port), "AIRFLOW__API__BASE_URL": url}
    processes = Processes()
    log = stage.airflow.home / "process-logs" / f"api-server-{port}.log"
    processes.start("airflow api-server", python_module("airflow", "api-server"), env=env, log=log, cwd=log.parent)
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:

            def answers() -> bool:
                try:
                    return client.get("/api/v2/version").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(answers, what=f"an API server at {url}", timeout=PATIENCE, watch=[processes])
            answer = client.post("/auth/token", json={"username": USER, "password": PASSWORD})
            client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
            yield client, log
    finally:
        processes.stop()


@pytest.fixture(scope="session")
def stage(ugen: EmulatorServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("airflow")
    dags = tmp_path_factory.mktemp("dags")
    files = [*DAGS.glob("*.py"), *(EXAMPLES / name for name in ("keyframe_gate.py", "on_finished_videos.py"))]
    lineage = {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
            {"type": "file", "log_file_path": str(home / LINEAGE), "append": True}
        ),
        "AIRFLOW__OPENLINEAGE__SELECTIVE_ENABLE": "true",
    }
    with real_stage(home, dags, ugen, files=files, **lineage) as made:
        yield made


@pytest.fixture(autouse=True)
def _steady_clock(ugen: EmulatorServer) -> None:
    """Nothing goes wrong that the test did not ask for."""
    world = ugen.emulator
    with world.lock:
        world.faults.rules.clear()
        world.jobs.outcomes.clear()


@pytest.fixture
def triggerer_back(stage: Stage) -> Iterator[None]:
    """Make sure that the triggerer runs again after a test that ended it."""
    yield
    if not any(each.name == "airflow triggerer" for each in stage.airflow.processes.running):
        stage.start_part("triggerer")
    deadline = time.monotonic() + PATIENCE
    while not stage.is_healthy("triggerer") and time.monotonic() < deadline:
        time.sleep(0.2)
