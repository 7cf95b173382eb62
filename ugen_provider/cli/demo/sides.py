# SPDX-License-Identifier: Apache-2.0
"""The two orchestrators of the demo: each is started, made to run the pipeline, and to run it again."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ugen_provider.cli.demo.airflow import RealAirflow
from ugen_provider.cli.demo.dagster import ENDED, RealDagster
from ugen_provider.cli.demo.processes import LOCAL_KEY, wait_until
from ugen_provider.core.jobs.order import task_key
from ugen_provider.core.ledger.store import Ledger

REPOSITORY = Path(__file__).parents[3]
PACKAGED = Path(__file__).parent / "files"


@dataclass(frozen=True, kw_only=True)
class DemoParts:
    """The feed and the two pipelines.

    Attributes:
        feed: A Google Merchant feed.
        dag: The Airflow DAG file.
        definitions: The file with the Dagster definitions.
    """

    feed: Path
    dag: Path
    definitions: Path


def demo_parts() -> DemoParts:
    """Find the files that the demo needs.

    Returns:
        The paths.

    Raises:
        FileNotFoundError: Neither the repository nor the wheel has them.
    """
    checkout = DemoParts(
        feed=REPOSITORY / "examples" / "feed.xml",
        dag=REPOSITORY / "example_dags" / "feed_to_videos.py",
        definitions=REPOSITORY / "example_dagster" / "feed_to_videos.py",
    )
    wheel = DemoParts(
        feed=PACKAGED / "feed.xml",
        dag=PACKAGED / "feed_to_videos.py",
        definitions=PACKAGED / "dagster_feed_to_videos.py",
    )
    for parts in (checkout, wheel):
        if parts.feed.exists() and parts.dag.exists() and parts.definitions.exists():
            return parts
    raise FileNotFoundError(f"the demo's feed and pipelines are neither in {REPOSITORY} nor in {PACKAGED}")


DAG_ID = "feed_to_videos"
RUN_ID = "demo"
MAKE_VIDEO = "make_video"
CONNECTION_ID = "ugen_default"
LEDGER_ID = "ugen_ledger"
"""Connection of the ledger in Airflow."""
PARTITIONS = "ugen_products"
ASSETS = ("keyframes", "videos", "final_video")
RUN_SECONDS = 240.0
PURCHASES = 5


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
        state: The folder for Airflow's home and the ledger.
        output: Where the DAG stores the videos.
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
        """Start Airflow, and add the connections."""
        self.airflow.up()
        set_connections(self.airflow, base_url=self.base_url, ledger=init_ledger(self.state))
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
        """Return the mapped tasks that were seen waiting in the triggerer.

        Returns:
            Their map indexes.
        """
        return tuple(sorted(index for task, index, state in self.seen if task == MAKE_VIDEO and state == "deferred"))


@dataclass(kw_only=True)
class DagsterSide:
    """A real Dagster with `example_dagster/feed_to_videos.py`.

    Args:
        state: The folder for Dagster's home and the ledger.
        output: Where the assets store the videos.
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
            "UGEN_LEDGER": str(init_ledger(self.state)),
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


def init_ledger(folder: Path) -> Path:
    """Create the ledger of one orchestrator, or keep the existing one; the demo accepts any disk.

    Args:
        folder: Its folder.

    Returns:
        The path of the ledger.
    """
    path = folder.resolve() / "ledger.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    Ledger.init(str(path), allow_ephemeral=True).close()
    return path


def set_connections(airflow: RealAirflow, *, base_url: str, ledger: Path) -> None:
    """Add the connections of the account and of its ledger to an Airflow.

    Args:
        airflow: A running Airflow.
        base_url: The U-Gen API.
        ledger: The ledger's file.
    """
    api = airflow.api
    api.set_connection(LEDGER_ID, conn_type="sqlite", host=str(ledger))
    extra = {"base_url": base_url, "ledger_conn_id": LEDGER_ID}
    api.set_connection(CONNECTION_ID, conn_type="ugen", password=LOCAL_KEY, extra=extra)


def airflow_keys(products: Sequence[str]) -> frozenset[str]:
    """Return the idempotency keys under which Airflow's tasks buy: they follow from dag, run, task and map index.

    Args:
        products: The ids of the good products, in the order of the feed.

    Returns:
        The keys of each task's first purchases.
    """
    orders = [
        task_key(dag_id=DAG_ID, run_id=RUN_ID, task_id=MAKE_VIDEO, map_index=index) for index in range(len(products))
    ]
    orders += [task_key(dag_id=DAG_ID, run_id=RUN_ID, task_id=MAKE_VIDEO, scope_key=product) for product in products]
    return frozenset(order.idempotency_key(number, fingerprint="") for order in orders for number in range(PURCHASES))
