# SPDX-License-Identifier: Apache-2.0
"""Groups of commands that import a command only when it is called, so that help answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

import click

from ugen_provider.cli.exits import ExitCode


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """Where a command is found, and what the help says of it without importing it.

    Attributes:
        module: Where it lives.
        attribute: Its name there.
        summary: One sentence.
        extra: What brings the packages that it needs; empty where the plain installation does.
    """

    module: str
    attribute: str
    summary: str
    extra: str = ""


class Missing(click.ClickException):
    """A package that a command needs is not installed."""

    exit_code = ExitCode.TROUBLE


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; `commands_by_name` says where they are."""

    commands_by_name: Mapping[str, Subcommand] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # the base class names it
        """The names, without importing anything."""
        return list(self.commands_by_name)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
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
        found = self.commands_by_name.get(cmd_name)
        if found is None:
            return None
        try:
            command = getattr(import_module(found.module), found.attribute)
        except ModuleNotFoundError as missing:
            if (missing.name or "").startswith("ugen_provider"):
                raise
            wanted = f"ugen-provider[{found.extra}]" if found.extra else "ugen-provider"
            raise Missing(
                f"`{ctx.command_path} {cmd_name}` needs the package {missing.name}: pip install '{wanted}'"
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
            formatter.write_dl([(name, self.commands_by_name[name].summary) for name in self.list_commands(ctx)])


def lazy_group(name: str, commands: Mapping[str, Subcommand], *, about: str) -> LazyGroup:
    """A group of commands.

    Args:
        name: What it is called by.
        commands: Its commands, in the order of the help.
        about: What its help says.
    """
    group = LazyGroup(name, help=about)
    group.commands_by_name = commands
    return group
