# SPDX-License-Identifier: Apache-2.0
"""The two orchestrators of the demo: each is started, made to run the pipeline, and to run it again."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ugen_provider.cli.demo.airflow_processes import RealAirflow
from ugen_provider.cli.demo.dagster_api import ENDED
from ugen_provider.cli.demo.dagster_processes import RealDagster
from ugen_provider.cli.demo.local_ugen import LOCAL_KEY
from ugen_provider.cli.demo.parts import DemoParts
from ugen_provider.cli.demo.processes import wait_until
from ugen_provider.core.jobs.scope import task_scope

DAG_ID = "feed_to_videos"
RUN_ID = "demo"
MAKE_VIDEO = "make_video"
CONNECTION_ID = "ugen_default"
PARTITIONS = "ugen_products"
ASSETS = ("keyframes", "videos", "final_video")
RUN_SECONDS = 240.0
GENERATIONS = 5


class SideFailedError(RuntimeError):
    """The pipeline ran and did not succeed."""


class Side(Protocol):
    """One orchestrator with the demo's pipeline in it."""

    name: str
    output: Path

    def prepare(self) -> None:
        """Start its processes and wait until they can run something."""

    def run(self) -> None:
        """Run the pipeline to its end: the first time anew, later the same run or partitions again."""


@dataclass(kw_only=True)
class AirflowSide:
    """A real Airflow that runs `example_dags/feed_to_videos.py`.

    Args:
        state: The folder for Airflow's home.
        output: Where the DAG puts the videos.
        parts: The feed and the DAG file.
        base_url: The U-Gen API.

    Attributes:
        seen: The states in which the tasks were seen: task id, map index, state.
    """

    state: Path
    output: Path
    parts: DemoParts
    base_url: str
    name: str = "airflow"
    seen: set[tuple[str, int, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        dags = self.state / "dags"
        dags.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.parts.dag, dags / "feed_to_videos.py")
        env = {"UGEN_FEED": str(self.parts.feed), "UGEN_OUTPUT": str(self.output)}
        self.airflow = RealAirflow(self.state / "home", dags=dags, env=env, parallelism=5)

    def prepare(self) -> None:
        """Start Airflow, and give it the connection."""
        self.airflow.up()
        self.airflow.api.set_connection(
            CONNECTION_ID, conn_type="ugen", password=LOCAL_KEY, extra={"base_url": self.base_url}
        )
        self.airflow.wait_for_dag(DAG_ID)

    def run(self) -> None:
        """Trigger the run; if it is there already, clear it.

        Raises:
            SideFailedError: The run failed.
        """
        api = self.airflow.api
        if api.run_state(DAG_ID, run_id=RUN_ID) is None:
            api.trigger(DAG_ID, run_id=RUN_ID)
        else:
            api.clear_run(DAG_ID, run_id=RUN_ID)

        def ended() -> bool:
            instances = api.task_instances(DAG_ID, run_id=RUN_ID)
            self.seen.update((each["task_id"], each["map_index"], str(each["state"])) for each in instances)
            return api.run_state(DAG_ID, run_id=RUN_ID) in {"success", "failed"}

        wait_until(
            ended,
            what=f"Airflow's run {DAG_ID}/{RUN_ID}",
            timeout=RUN_SECONDS,
            watch=[self.airflow.processes],
        )
        if api.run_state(DAG_ID, run_id=RUN_ID) != "success":
            failed = [
                f"{each['task_id']}[{each['map_index']}]"
                for each in api.task_instances(DAG_ID, run_id=RUN_ID)
                if each["state"] == "failed"
            ]
            raise SideFailedError(
                f"Airflow's run failed in {', '.join(failed) or 'no task'}; "
                f"the tasks' logs are in {self.airflow.home / 'logs'}"
            )

    def deferred(self) -> tuple[int, ...]:
        """Which of the mapped tasks were seen waiting in the triggerer.

        Returns:
            Their map indexes.
        """
        return tuple(sorted(index for task, index, state in self.seen if task == MAKE_VIDEO and state == "deferred"))


@dataclass(kw_only=True)
class DagsterSide:
    """A real Dagster with `example_dagster/feed_to_videos.py`.

    Args:
        state: The folder for Dagster's home.
        output: Where the assets put the videos.
        parts: The feed and the file with the definitions.
        base_url: The U-Gen API.
        products: The partition keys: the ids of the good products.
    """

    state: Path
    output: Path
    parts: DemoParts
    base_url: str
    products: Sequence[str]
    name: str = "dagster"

    def __post_init__(self) -> None:
        env = {
            "UGEN_API_KEY": LOCAL_KEY,
            "UGEN_BASE_URL": self.base_url,
            "UGEN_FEED": str(self.parts.feed),
            "UGEN_OUTPUT": str(self.output),
        }
        self.dagster = RealDagster(
            self.state / "home",
            definitions=self.parts.definitions,
            env=env,
        )

    def prepare(self) -> None:
        """Start Dagster, and add the partitions."""
        self.dagster.up()
        self.dagster.api.add_partitions(PARTITIONS, keys=self.products)

    def run(self) -> None:
        """Materialize the assets of all partitions, in one run: one process then waits for all of the jobs.

        Raises:
            SideFailedError: The run failed.
        """
        api = self.dagster.api
        # Without the second process that a run has otherwise: on two cores, processes are what a run costs most.
        config: dict[str, object] = {"execution": {"config": {"in_process": {}}}}
        run_id = api.launch_run(ASSETS, partitions=self.products, run_config=config)
        wait_until(
            lambda: api.run_status(run_id) in ENDED,
            what="Dagster's run",
            timeout=RUN_SECONDS,
            watch=[self.dagster.processes],
        )
        if api.run_status(run_id) != "SUCCESS":
            raise SideFailedError(
                f"Dagster's run failed: {api.why_failed(run_id)}\nIts logs are in {self.dagster.logs}"
            )


def airflow_keys(products: Sequence[str]) -> frozenset[str]:
    """The idempotency keys under which Airflow's tasks buy: they follow from dag, run, task and map index.

    Args:
        products: The ids of the good products, in the order of the feed.

    Returns:
        The keys of each task's first generations.
    """
    scopes = [
        task_scope(dag_id=DAG_ID, run_id=RUN_ID, task_id=MAKE_VIDEO, map_index=index) for index in range(len(products))
    ]
    scopes += [task_scope(dag_id=DAG_ID, run_id=RUN_ID, task_id=MAKE_VIDEO, scope_key=product) for product in products]
    return frozenset(scope.key(generation, fingerprint="") for scope in scopes for generation in range(GENERATIONS))
