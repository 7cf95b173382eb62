# SPDX-License-Identifier: Apache-2.0
"""The orchestrators with their pages open, for a person: the same homes, pipelines and local U-Gen every time."""

import os
from abc import abstractmethod
from pathlib import Path

from ugen_provider.cli.demo.airflow_processes import PASSWORD, USER, RealAirflow
from ugen_provider.cli.demo.dagster_api import DagsterApi
from ugen_provider.cli.demo.local_ugen import LOCAL_KEY, LocalUGen
from ugen_provider.cli.demo.parts import demo_parts
from ugen_provider.cli.demo.processes import (
    ProcessDiedError,
    Processes,
    Service,
    child_environment,
    listens,
    python_module,
    wait_until,
)
from ugen_provider.cli.demo.run import DemoOptions
from ugen_provider.cli.demo.sides import ASSETS, CONNECTION_ID, PARTITIONS
from ugen_provider.core.feeds import Order, plan_feed

LEDGER_ID = "ugen_ledger"


class Pages(Service):
    """A local U-Gen and one orchestrator on it.

    Args:
        home: Where everything is kept between two starts.
        speed: Emulated seconds a real second.
        port: Where the pages are.
    """

    def __init__(self, home: Path, *, speed: float, port: int) -> None:
        if listens(port):
            raise ProcessDiedError(f"port {port} is taken; choose another one with --port")
        self.home = home.resolve()
        self.port = port
        self.parts = demo_parts()
        self.ugen = LocalUGen(self.home / "ugen", speed=speed)

    @abstractmethod
    def welcome(self) -> str:
        """What a person is told once the pages are open."""

    @abstractmethod
    def check(self) -> None:
        """Make sure that everything still runs.

        Raises:
            ProcessDiedError: Something has ended by itself.
        """


class AirflowPages(Pages):
    """`make airflow`.

    Args:
        options: Those of the demo.
        port: Where Airflow's pages are.
    """

    def __init__(self, options: DemoOptions, *, port: int) -> None:
        super().__init__(Path(".airflow"), speed=options.speed, port=port)
        self.output = options.output.resolve() / "airflow"
        self.airflow = RealAirflow(
            self.home / "home",
            dags=self.parts.dag.parent,
            env={
                "UGEN_FEED": str(self.parts.feed),
                "UGEN_OUTPUT": str(self.output),
                "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            },
            port=port,
        )

    def up(self) -> None:
        """Start both, and give Airflow the connection."""
        self.ugen.up()
        self.airflow.up()
        self.airflow.api.set_connection(
            CONNECTION_ID, conn_type="ugen", password=LOCAL_KEY, extra={"base_url": self.ugen.base_url}
        )
        self.airflow.api.set_connection(LEDGER_ID, conn_type="sqlite", host=str(self.home / "ledger.db"))

    def welcome(self) -> str:
        """What a person is told once the pages are open."""
        return (
            f"Airflow: {self.airflow.url} (user {USER}, password {PASSWORD}); DAGs from {self.parts.dag.parent}\n"
            f"U-Gen:   {self.ugen.base_url}, connection {CONNECTION_ID}; videos go to {self.output}\n"
            f"Ledger:  {self.home / 'ledger.db'}, connection {LEDGER_ID}\n"
            "Ctrl-C ends both."
        )

    def check(self) -> None:
        """Make sure that everything still runs."""
        self.ugen.processes.check()
        self.airflow.processes.check()

    def stop(self) -> None:
        """End both."""
        self.airflow.stop()
        self.ugen.stop()


class DagsterPages(Pages):
    """`make dagster`: `dagster dev`, as a developer runs it.

    Args:
        options: Those of the demo.
        port: Where Dagster's pages are.
    """

    def __init__(self, options: DemoOptions, *, port: int) -> None:
        super().__init__(Path(".dagster"), speed=options.speed, port=port)
        self.output = options.output.resolve() / "dagster"
        self.processes = Processes()

    def up(self) -> None:
        """Start both."""
        self.ugen.up()
        home = self.home / "home"
        home.mkdir(parents=True, exist_ok=True)
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
        env = {
            "DAGSTER_HOME": str(home),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "UGEN_API_KEY": LOCAL_KEY,
            "UGEN_BASE_URL": self.ugen.base_url,
            "UGEN_FEED": str(self.parts.feed),
            "UGEN_OUTPUT": str(self.output),
        }
        command = python_module("dagster", "dev", "-f", str(self.parts.definitions))
        command += ["-h", "127.0.0.1", "-p", str(self.port)]
        log = self.home / "dagster-dev.log"
        self.processes.start("dagster dev", command, env=child_environment(env), log=log, cwd=home)
        # Of a file given by -f, Dagster makes the name of the code location.
        api = DagsterApi(f"http://127.0.0.1:{self.port}", location=self.parts.definitions.name)
        wait_until(api.ready, what="Dagster's pages", timeout=120.0, watch=[self.processes])
        rows = plan_feed(self.parts.feed, job_defaults={"segment_count": 1})
        api.add_partitions(PARTITIONS, keys=[row.product_id for row in rows if isinstance(row, Order)])
        api.close()

    def welcome(self) -> str:
        """What a person is told once the pages are open."""
        assets = ", ".join(ASSETS)
        return (
            f"Dagster: http://127.0.0.1:{self.port}, definitions from {self.parts.definitions}\n"
            f"         materialize {assets} for the partitions of {PARTITIONS}\n"
            f"U-Gen:   {self.ugen.base_url}; videos go to {self.output}\n"
            f"Ctrl-C ends both; the log is {os.path.relpath(self.home / 'dagster-dev.log')}."
        )

    def check(self) -> None:
        """Make sure that everything still runs."""
        self.ugen.processes.check()
        self.processes.check()

    def stop(self) -> None:
        """End both."""
        self.processes.stop()
        self.ugen.stop()
