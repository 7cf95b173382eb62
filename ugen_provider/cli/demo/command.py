# SPDX-License-Identifier: Apache-2.0
"""`ugen demo`: the main job with one command, and the pages of the orchestrators with the same pipelines in them."""

import os
import signal
import sys
import time
from abc import abstractmethod
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import click
import httpx
from rich.console import Console

from ugen_provider import UGenError
from ugen_provider.cli.demo.airflow import PASSWORD, USER, AirflowApiError, RealAirflow
from ugen_provider.cli.demo.dagster import DagsterApi, DagsterApiError
from ugen_provider.cli.demo.processes import (
    LOCAL_KEY,
    LocalUGen,
    ProcessDiedError,
    Processes,
    ProcessGroup,
    WaitTimeoutError,
    child_environment,
    listens,
    python_module,
    wait_until,
)
from ugen_provider.cli.demo.run import DemoOptions, run_demo
from ugen_provider.cli.demo.sides import (
    ASSETS,
    CONNECTION_ID,
    LEDGER_ID,
    PARTITIONS,
    SideFailedError,
    demo_parts,
    init_ledger,
    set_connections,
)
from ugen_provider.cli.frame import MissingPackageError
from ugen_provider.core.feeds import FeedOrder, plan_feed


class Pages(ProcessGroup):
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
        """Return the message for a person once the pages are open."""

    @abstractmethod
    def check(self) -> None:
        """Make sure that everything still runs.

        Raises:
            ProcessDiedError: Something has ended by itself.
        """


class AirflowPages(Pages):
    """Pages of `make airflow`, open until Ctrl-C.

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
        """Start both, and add the connections to Airflow."""
        self.ugen.up()
        self.airflow.up()
        set_connections(self.airflow, base_url=self.ugen.base_url, ledger=init_ledger(self.home))

    def welcome(self) -> str:
        """Return the message for a person once the pages are open."""
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
            "UGEN_LEDGER": str(init_ledger(self.home)),
        }
        command = python_module("dagster", "dev", "-f", str(self.parts.definitions))
        command += ["-h", "127.0.0.1", "-p", str(self.port)]
        log = self.home / "dagster-dev.log"
        self.processes.start("dagster dev", command, env=child_environment(env), log=log, cwd=home)
        # Of a file given by -f, Dagster makes the name of the code location.
        api = DagsterApi(f"http://127.0.0.1:{self.port}", location=self.parts.definitions.name)
        wait_until(api.ready, what="Dagster's pages", timeout=120.0, watch=[self.processes])
        rows = plan_feed(self.parts.feed, job_defaults={"segment_count": 1})
        api.add_partitions(PARTITIONS, keys=[row.product_id for row in rows if isinstance(row, FeedOrder)])
        api.close()

    def welcome(self) -> str:
        """Return the message for a person once the pages are open."""
        assets = ", ".join(ASSETS)
        return (
            f"Dagster: http://127.0.0.1:{self.port}, definitions from {self.parts.definitions}\n"
            f"         materialize {assets} for the partitions of {PARTITIONS}\n"
            f"U-Gen:   {self.ugen.base_url}; videos go to {self.output}\n"
            f"Ledger:  {self.home / 'ledger.db'}\n"
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


PLAIN_WIDTH = 160
NEEDED = ("airflow", "av", "dagster", "dagster_webserver", "PIL", "starlette", "uvicorn")
"""Imports of the processes that the demo starts; without one, a process would end with a traceback in its log."""
EXPECTED_FAILURES = (
    httpx.HTTPError,
    UGenError,
    AirflowApiError,
    DagsterApiError,
    ProcessDiedError,
    SideFailedError,
    WaitTimeoutError,
)


@click.group("demo", invoke_without_command=True)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Where the videos, the gallery and the state go.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=1),
    default=20.0,
    show_default=True,
    help="How many times faster than the real service the local one works.",
)
@click.pass_context
def demo_command(ctx: click.Context, *, output: Path, speed: float) -> None:
    """Make videos from a feed, in a real Airflow and a real Dagster.

    Everything runs on this machine, on a local U-Gen: no account, no credits. Run it again on the same output, and
    it clears the same DAG run, runs the same partitions, and buys nothing.
    """
    missing = [package for package in NEEDED if find_spec(package) is None]
    if missing:
        raise MissingPackageError(f"the demo needs {', '.join(missing)}: pip install 'ugen-provider[demo]'")
    # So that a plain `kill` leaves no process behind either.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    options = DemoOptions(output=output, speed=speed)
    ctx.obj = options
    if ctx.invoked_subcommand is not None:
        return
    try:
        held = run_demo(options, console=console)
    except EXPECTED_FAILURES as error:
        raise click.ClickException(f"{error}\nAll logs are in {output.resolve() / '.state'}") from error
    ctx.exit(0 if held else 1)


@demo_command.command("airflow")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Port of its pages.")
@click.pass_obj
def airflow_command(options: DemoOptions, *, port: int) -> None:
    """Open an Airflow with the example DAGs and a connection to a local U-Gen, until Ctrl-C."""
    _keep_open(AirflowPages(options, port=port))


@demo_command.command("dagster")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of its pages.")
@click.pass_obj
def dagster_command(options: DemoOptions, *, port: int) -> None:
    """Run `dagster dev` with the example definitions on a local U-Gen, until Ctrl-C."""
    _keep_open(DagsterPages(options, port=port))


def _keep_open(pages: Pages) -> None:
    console = Console()
    try:
        with pages:
            console.print(pages.welcome(), highlight=False, soft_wrap=True)
            while True:
                pages.check()
                time.sleep(1.0)
    except KeyboardInterrupt:
        console.print("Ended; the next start continues from here.")
    except EXPECTED_FAILURES as error:
        raise click.ClickException(str(error)) from error


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    sys.exit(128 + number)
