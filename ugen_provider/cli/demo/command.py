# SPDX-License-Identifier: Apache-2.0
"""`ugen demo`: the main job with one command, and the pages of the orchestrators with the same pipelines in them."""

import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import click
import httpx
from rich.console import Console

from ugen_provider import UGenError
from ugen_provider.cli.demo.airflow_api import AirflowApiError
from ugen_provider.cli.demo.dagster_api import DagsterApiError
from ugen_provider.cli.demo.pages import AirflowPages, DagsterPages, Pages
from ugen_provider.cli.demo.processes import ProcessDiedError, WaitTimeoutError
from ugen_provider.cli.demo.run import DemoOptions, run_demo
from ugen_provider.cli.demo.sides import SideFailedError
from ugen_provider.cli.lazy import Missing

PLAIN_WIDTH = 160
NEEDED = ("airflow", "av", "dagster", "dagster_webserver", "PIL", "starlette", "uvicorn")
"""What the processes import that the demo starts; missing, each would only die with a traceback in its log."""
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
        raise Missing(f"the demo needs {', '.join(missing)}: pip install 'ugen-provider[demo]'")
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
        console.print("Ended; the next start goes on from here.")
    except EXPECTED_FAILURES as error:
        raise click.ClickException(str(error)) from error


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    sys.exit(128 + number)
