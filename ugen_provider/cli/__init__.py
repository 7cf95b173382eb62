# SPDX-License-Identifier: Apache-2.0
"""The command `ugen`.

Each subcommand lives in a module of its own and is imported only when it is called, so that `ugen --help`
answers at once and works where only a part of the extras is installed. It stands on `core` and the emulator.

What is decided is decided in pure functions: `exits` (which code an error ends with), `profiles` (which settings
count), `printing` and `jobs/views` (how things are shown). A command reads, calls `core`, and shows.
What may come in: one more command, in a module of its own. What buys, waits or reads a feed belongs to `core`.
"""

from collections.abc import Mapping

import click

from ugen_provider.__about__ import __version__
from ugen_provider.cli.exits import MEANINGS
from ugen_provider.cli.lazy import LazyGroup, Subcommand

SUBCOMMANDS: Mapping[str, Subcommand] = {
    "jobs": Subcommand(
        module="ugen_provider.cli.jobs", attribute="jobs_group", summary="Create, watch, steer and fetch videos."
    ),
    "suggest": Subcommand(
        module="ugen_provider.cli.suggesting",
        attribute="suggest_command",
        summary="Let the service propose a script from a picture. Free.",
    ),
    "credits": Subcommand(
        module="ugen_provider.cli.credits", attribute="credits_group", summary="Balance, estimates, transactions. Free."
    ),
    "upload": Subcommand(
        module="ugen_provider.cli.suggesting", attribute="upload_command", summary="Upload product pictures. Free."
    ),
    "models": Subcommand(
        module="ugen_provider.cli.credits", attribute="models_command", summary="Show the video models on offer. Free."
    ),
    "feed": Subcommand(
        module="ugen_provider.cli.feed", attribute="feed_group", summary="Check a product feed, or make its videos."
    ),
    "ledger": Subcommand(
        module="ugen_provider.cli.ledger", attribute="ledger_group", summary="What was bought for which product."
    ),
    "gallery": Subcommand(
        module="ugen_provider.cli.gallery", attribute="gallery_command", summary="Make one page of a folder of videos."
    ),
    "doctor": Subcommand(
        module="ugen_provider.cli.doctor",
        attribute="doctor_command",
        summary="Look whether everything is in place, and say what to do. Free.",
    ),
    "emulator": Subcommand(
        module="ugen_provider.emulator.cli",
        attribute="emulator_command",
        summary="Run a local U-Gen.",
        extra="emulator",
    ),
    "demo": Subcommand(
        module="ugen_provider.cli.demo.command",
        attribute="demo_command",
        summary="Make videos from a feed, in a real Airflow and a real Dagster.",
        extra="demo",
    ),
    "completion": Subcommand(
        module="ugen_provider.cli.completion",
        attribute="completion_command",
        summary="Print what a shell needs to complete `ugen`.",
    ),
}


class _Main(LazyGroup):
    commands_by_name = SUBCOMMANDS

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANINGS.items()])
        with formatter.section("Examples"):
            formatter.write("  ugen doctor\n  ugen feed check feed.xml --segment-count 2\n  ugen jobs list --json\n")


@click.group("ugen", cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ugen")
def main() -> None:
    """U-Gen product videos from the command line.

    The API key comes from UGEN_API_KEY, from a profile in ~/.config/ugen/config.toml (mode 600), or from a prompt.
    """
