# SPDX-License-Identifier: Apache-2.0
"""The command `ugen`.

Each subcommand has its own module, which is imported only when it is called, so that `ugen --help` answers at once and
works with a part of the extras. It is built on `core` and the emulator.

Decisions are pure functions: `exits` (the exit code of an error), `session` (which settings are used), `printer` (how
results look). A command reads, calls `core`, and prints.
Allowed here: one more command, in its own module. Code that buys, waits or reads a feed belongs to `core`.
"""

from collections.abc import Mapping

import click

from ugen_provider.__about__ import __version__
from ugen_provider.cli.exits import MEANINGS
from ugen_provider.cli.frame import Program, Subcommand

SUBCOMMANDS: Mapping[str, Subcommand] = {
    "init": Subcommand(
        module="ugen_provider.cli.start",
        attribute="init_command",
        summary="Write a starter for Airflow, Dagster or Python, and a profile.",
    ),
    "login": Subcommand(
        module="ugen_provider.cli.start", attribute="login_command", summary="Check an API key and store it. Free."
    ),
    "jobs": Subcommand(
        module="ugen_provider.cli.jobs", attribute="jobs_group", summary="Create, follow, control and download videos."
    ),
    "suggest": Subcommand(
        module="ugen_provider.cli.credits",
        attribute="suggest_command",
        summary="Suggest a script from a picture. Free.",
    ),
    "credits": Subcommand(
        module="ugen_provider.cli.credits", attribute="credits_group", summary="Balance, estimates, transactions. Free."
    ),
    "upload": Subcommand(
        module="ugen_provider.cli.credits", attribute="upload_command", summary="Upload product pictures. Free."
    ),
    "models": Subcommand(
        module="ugen_provider.cli.credits", attribute="models_command", summary="Show the video models. Free."
    ),
    "feed": Subcommand(
        module="ugen_provider.cli.feed", attribute="feed_group", summary="Check a product feed, or create its videos."
    ),
    "ledger": Subcommand(
        module="ugen_provider.cli.ledger",
        attribute="ledger_group",
        summary="Create, read and correct the ledger of purchases.",
    ),
    "reconcile": Subcommand(
        module="ugen_provider.cli.reconciler",
        attribute="reconcile_command",
        summary="Settle owed cancels; report jobs without an owner. Free.",
    ),
    "gallery": Subcommand(
        module="ugen_provider.cli.credits",
        attribute="gallery_command",
        summary="Create a page with the videos of a folder.",
    ),
    "doctor": Subcommand(
        module="ugen_provider.cli.doctor",
        attribute="doctor_command",
        summary="Check settings, key, network, service and ledger. Free.",
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
        summary="Create videos from a feed, in a real Airflow and Dagster.",
        extra="demo",
    ),
    "completion": Subcommand(
        module="ugen_provider.cli.frame",
        attribute="completion_command",
        summary="Print the completion script of a shell.",
    ),
    "help": Subcommand(
        module="ugen_provider.cli.frame", attribute="help_command", summary="Show the help of a command."
    ),
}


class _Main(Program):
    commands_by_name = SUBCOMMANDS

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANINGS.items()])
        with formatter.section("Examples"):
            formatter.write("  ugen login\n  ugen feed check feed.xml --segment-count 2\n  ugen help jobs create\n")


@click.group("ugen", cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ugen")
def main() -> None:
    """U-Gen product videos from the command line.

    The API key comes from UGEN_API_KEY, from a profile in ~/.config/ugen/config.toml (mode 600), or from a prompt.
    `ugen login` writes the profile.
    """
