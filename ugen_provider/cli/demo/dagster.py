# SPDX-License-Identifier: Apache-2.0
"""A real Dagster on this machine: its processes (code server, webserver, daemon) and its GraphQL API."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from ugen_provider.cli.demo.processes import (
    Processes,
    ProcessGroup,
    child_environment,
    free_ports,
    listens,
    python_module,
    run_to_end,
    wait_until,
)
from ugen_provider.ledger import Ledger

LOCATION = "demo"

STATE = """{
  workspaceOrError { ... on Workspace { locationEntries {
    loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"""
ADD_PARTITION = """mutation($set: String!, $key: String!, $repository: RepositorySelector!) {
  result: addDynamicPartition(partitionsDefName: $set, partitionKey: $key, repositorySelector: $repository) {
    __typename ... on PythonError { message } } }"""
BACKFILL = """mutation($params: LaunchBackfillParams!) {
  result: launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL_STATUS = """query($id: String!) {
  result: partitionBackfillOrError(backfillId: $id) {
    __typename ... on PartitionBackfill { status } ... on PythonError { message } } }"""
LAUNCH = """mutation($params: ExecutionParams!) {
  result: launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
RUNS = """query($tags: [ExecutionTag!]) {
  result: runsOrError(filter: {tags: $tags}) {
    __typename ... on Runs { results { runId status tags { key value } } }
    ... on PythonError { message } } }"""
TERMINATE = """mutation($id: String!, $policy: TerminateRunPolicy) {
  result: terminateRun(runId: $id, terminatePolicy: $policy) {
    __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }"""
RUN_STATUS = """query($id: ID!) { result: runOrError(runId: $id) { __typename ... on Run { status } } }"""
FAILURES = """query($id: ID!) {
  result: runOrError(runId: $id) { __typename ... on Run { eventConnection { events {
    __typename ... on ExecutionStepFailureEvent { error { message causes { message } } }
    ... on RunFailureEvent { message error { message } } } } } } }"""
ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
BACKFILL_ENDED = frozenset({"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"})


class DagsterApiError(RuntimeError):
    """Dagster answered with an error."""


class DagsterApi:
    """A client of the webserver's GraphQL.

    Args:
        url: Where it listens, such as `http://127.0.0.1:3000`.
        location: The name of the code location with the definitions.

    Examples:
        ```python
        backfill = DagsterApi(url).launch_backfill(["videos"], partitions=["mug", "lamp"])
        ```
    """

    def __init__(self, url: str, *, location: str = LOCATION) -> None:
        self.url = url
        self._repository = {"repositoryLocationName": location, "repositoryName": "__repository__"}
        # Straight to the loopback address, without the environment's proxy.
        self._http = httpx.Client(base_url=url, timeout=30.0, trust_env=False)

    def close(self) -> None:
        """Close the connections to the webserver."""
        self._http.close()

    def ready(self) -> bool:
        """Return whether the webserver answers, the definitions are loaded, and the daemons work.

        Returns:
            True when runs can be launched.

        Raises:
            DagsterApiError: The definitions cannot be loaded.
        """
        try:
            said = self._http.post("/graphql", json={"query": STATE}, timeout=5.0)
        except httpx.TransportError:
            return False
        if said.status_code != 200:
            return False
        data = said.json()["data"]
        entries = data["workspaceOrError"].get("locationEntries", [])
        if not entries or any(entry["loadStatus"] != "LOADED" for entry in entries):
            return False
        for entry in entries:
            loaded = entry["locationOrLoadError"]
            if loaded["__typename"] != "RepositoryLocation":
                raise DagsterApiError(f"Dagster could not load the definitions: {loaded.get('message')}")
        daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(daemon["healthy"] for daemon in daemons if daemon["required"])

    def add_partitions(self, partitions_def: str, *, keys: Iterable[str]) -> None:
        """Add dynamic partitions; those that exist already are left.

        Args:
            partitions_def: The name of the dynamic partitions definition.
            keys: The partition keys.
        """
        for key in keys:
            variables = {"set": partitions_def, "key": key, "repository": self._repository}
            good = ("AddDynamicPartitionSuccess", "DuplicateDynamicPartitionError")
            self._ask(ADD_PARTITION, variables, expect=good)

    def launch_backfill(self, assets: Sequence[str], *, partitions: Sequence[str]) -> str:
        """Materialize some partitions of some assets.

        Args:
            assets: The assets' names.
            partitions: The partition keys.

        Returns:
            The id of the backfill.
        """
        selection = [{"path": [asset]} for asset in assets]
        params = {"assetSelection": selection, "partitionNames": list(partitions)}
        return str(self._ask(BACKFILL, {"params": params}, expect=("LaunchBackfillSuccess",))["backfillId"])

    def backfill_status(self, backfill_id: str, /) -> str:
        """Return the status of a backfill.

        Args:
            backfill_id: The backfill.

        Returns:
            Dagster's word for it, such as `REQUESTED` or `COMPLETED_SUCCESS`.
        """
        return str(self._ask(BACKFILL_STATUS, {"id": backfill_id}, expect=("PartitionBackfill",))["status"])

    def launch_run(
        self,
        assets: Sequence[str],
        *,
        partitions: Sequence[str],
        tags: Mapping[str, str] | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> str:
        """Materialize some assets in one run.

        Args:
            assets: The assets' names.
            partitions: One partition key, or several that follow one another in the order in which they were added.
            tags: More tags for the run.
            run_config: The run's configuration.

        Returns:
            The id of the run.
        """
        one = {"dagster/partition": partitions[0]}
        several = {
            "dagster/asset_partition_range_start": partitions[0],
            "dagster/asset_partition_range_end": partitions[-1],
        }
        all_tags = (one if len(partitions) == 1 else several) | dict(tags or {})
        params = {
            "selector": self._repository
            | {"jobName": "__ASSET_JOB", "assetSelection": [{"path": [asset]} for asset in assets]},
            "runConfigData": dict(run_config or {}),
            "mode": "default",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in all_tags.items()]},
        }
        return str(self._ask(LAUNCH, {"params": params}, expect=("LaunchRunSuccess",))["run"]["runId"])

    def runs(self, *, tags: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Return the runs, newest first.

        Args:
            tags: Only those with these tags.

        Returns:
            For each its `runId`, `status` and `tags`.
        """
        wanted = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        found: list[dict[str, Any]] = self._ask(RUNS, {"tags": wanted}, expect=("Runs",))["results"]
        return [each | {"tags": {tag["key"]: tag["value"] for tag in each["tags"]}} for each in found]

    def run_status(self, run_id: str, /) -> str:
        """Return the status of a run.

        Args:
            run_id: The run.

        Returns:
            Dagster's word for it, such as `STARTED` or `SUCCESS`.
        """
        return str(self._ask(RUN_STATUS, {"id": run_id}, expect=("Run",))["status"])

    def why_failed(self, run_id: str, /) -> str:
        """Return the error of a failed run.

        Args:
            run_id: The run.

        Returns:
            The messages of its failed steps and their causes, else what Dagster says of the run as a whole.
        """
        events = self._ask(FAILURES, {"id": run_id}, expect=("Run",))["eventConnection"]["events"]
        steps = [event["error"] for event in events if event["__typename"] == "ExecutionStepFailureEvent"]
        said = [step["message"] + "".join(cause["message"] for cause in step["causes"]) for step in steps if step]
        whole = [event["message"] for event in events if event["__typename"] == "RunFailureEvent"]
        return " ".join(" ".join(said or whole).split())

    def terminate(self, run_id: str, /, *, at_once: bool = False) -> None:
        """Terminate a run, as a person does in the pages.

        Args:
            run_id: The run.
            at_once: Mark it as cancelled without waiting for its process.
        """
        policy = "MARK_AS_CANCELED_IMMEDIATELY" if at_once else "SAFE_TERMINATE"
        self._ask(TERMINATE, {"id": run_id, "policy": policy}, expect=("TerminateRunSuccess",))

    def ask(self, query: str, /, *, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a GraphQL query and return its data.

        Args:
            query: GraphQL.
            variables: Its variables.

        Returns:
            The answer's data.

        Raises:
            DagsterApiError: Dagster refused the query.
        """
        body = {"query": query, "variables": dict(variables or {})}
        answer = self._http.post("/graphql", json=body)
        said: dict[str, Any] = {"errors": answer.text[:500]}
        if answer.status_code in {200, 400}:
            said = answer.json()
        if said.get("errors"):
            raise DagsterApiError(f"Dagster answered {answer.status_code}: {said['errors']}")
        data: dict[str, Any] = said["data"]
        return data

    def _ask(self, query: str, variables: Mapping[str, Any], *, expect: tuple[str, ...]) -> dict[str, Any]:
        result: dict[str, Any] = self.ask(query, variables=variables)["result"]
        if result["__typename"] not in expect:
            raise DagsterApiError(f"Dagster answered {result['__typename']}: {result.get('message', '')}")
        return result


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


class RealDagster(ProcessGroup):
    """One Dagster with a home of its own.

    Args:
        home: The folder for its runs, events and logs; a second start on it continues where it was.
        definitions: The Python file with the definitions.
        env: What its processes, and so the runs, get beside Dagster's own settings.
        port: Where the webserver listens; a free port without it.
        runs_at_once: How many runs the daemon lets run at a time.
        ledger: The ledger of the runs, created where it is missing; default a file beside the home.

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
        ledger: str | None = None,
    ) -> None:
        self.home = home.resolve()
        self.ledger = ledger or str(self.home.with_name(f"{self.home.name}-ledger.db"))
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
            {"DAGSTER_HOME": str(self.home), "DAGSTER_DISABLE_TELEMETRY": "1", "UGEN_LEDGER": self.ledger}
            | dict(env or {})
        )
        self.processes = Processes()
        self.api = DagsterApi(self.url)

    def up(self) -> None:
        """Start the three processes, and wait until runs can be launched."""
        self.start()
        self.wait_ready()

    def migrate(self) -> None:
        """Create the ledger, and the instance's databases, once.

        Three processes that find none would each make them, and break each other's.

        Raises:
            ProcessDiedError: Dagster could not make them.
        """
        Ledger.init(self.ledger, allow_ephemeral=True).close()
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
        """End all processes of this Dagster."""
        self.api.close()
        self.processes.stop()
