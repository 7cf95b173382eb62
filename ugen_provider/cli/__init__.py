# SPDX-License-Identifier: Apache-2.0
"""The command `ugen`.

Each subcommand lives in a module of its own and is imported only when it is called, so that `ugen --help`
answers at once and works where only a part of the extras is installed. It stands on `core` and the emulator.
"""

from dataclasses import dataclass
from importlib import import_module

import click

from ugen_provider.__about__ import __version__


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """Where a subcommand is found, and what the help says of it without importing it."""

    module: str
    attribute: str
    summary: str
    extra: str


SUBCOMMANDS = {
    "demo": Subcommand(
        module="ugen_provider.cli.demo.command",
        attribute="demo_command",
        summary="Make videos from a feed, in a real Airflow and a real Dagster.",
        extra="demo",
    ),
    "emulator": Subcommand(
        module="ugen_provider.emulator.cli",
        attribute="emulator_command",
        summary="Run a local U-Gen.",
        extra="emulator",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # the base class names it
        """The names, without importing anything."""
        return sorted(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command of a name.

        Args:
            ctx: What click knows of the call.
            cmd_name: The name.

        Returns:
            The command, or None if there is none of that name.

        Raises:
            click.ClickException: A package that it needs is not installed.
            TypeError: The module holds no command under the attribute.
        """
        found = SUBCOMMANDS.get(cmd_name)
        if found is None:
            return None
        try:
            command = getattr(import_module(found.module), found.attribute)
        except ModuleNotFoundError as missing:
            if (missing.name or "").startswith("ugen_provider"):
                raise
            raise click.ClickException(
                f"`ugen {cmd_name}` needs the package {missing.name}: pip install 'ugen-provider[{found.extra}]'"
            ) from missing
        if not isinstance(command, click.Command):
            raise TypeError(f"{found.module}.{found.attribute} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands into the help, without importing them.

        Args:
            ctx: What click knows of the call.
            formatter: What the help is written to.
        """
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUBCOMMANDS[name].summary) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ugen")
def main() -> None:
    """U-Gen product videos from the command line."""
