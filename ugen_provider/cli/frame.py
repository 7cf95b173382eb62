# SPDX-License-Identifier: Apache-2.0
"""The frame around every command: the options that all have, examples in the help, errors as a sentence and a code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from ugen_provider.cli.exits import ExitCode, exit_of, next_step
from ugen_provider.cli.printing import clean
from ugen_provider.cli.session import Session, Surroundings

_ARGUMENTS = "ugen.arguments"


class CommandFailedError(Exception):
    """A command ended in an error: a sentence, an exit code and what to do next.

    Args:
        message: What is wrong.
        code: The exit code.
        advice: What to do next.
        kind: A stable word for programs, such as the error's class.
    """

    def __init__(self, message: str, *, code: ExitCode, advice: str = "", kind: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.advice = advice
        self.kind = kind

    def told(self, *, as_json: bool) -> str:
        """What is printed to stderr."""
        if as_json:
            told = {"exit_code": int(self.code), "error": self.kind, "message": str(self), "next": self.advice}
            return json.dumps(told, ensure_ascii=False)
        return f"Error: {self}" + (f"\nNext: {self.advice}" if self.advice else "")


def failure_of(error: BaseException) -> CommandFailedError:
    """The failure that an error ends a command with."""
    if isinstance(error, CommandFailedError):
        return error
    return CommandFailedError(_sentence(error), code=exit_of(error), advice=next_step(error), kind=type(error).__name__)


def _sentence(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped"
    if _of_the_database(error):
        return f"the ledger's database: {clean(str(getattr(error, 'orig', None) or error))}"
    return clean(str(error)) or type(error).__name__


class UGenCommand(click.Command):
    """A command that is given a `Session`, may return an exit code, and fails in words."""

    examples: Sequence[str] = ()

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, and those that every command has."""
        *own, last = super().get_params(ctx)
        return [*own, *_COMMON, last]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember the arguments, to be able to say how to go on."""
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of one call; wrong usage is told as any other error where a program reads it."""
        as_json = "--json" in args
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if not as_json:
                raise
            _tell_usage(error)
            raise click.exceptions.Exit(int(ExitCode.USAGE)) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; its errors become a sentence, a code and what to do next."""
        as_json = bool(ctx.params.pop("as_json", False))
        world = ctx.find_object(Surroundings) or Surroundings()
        arguments = (*ctx.command_path.split(), *ctx.meta.get(_ARGUMENTS, ()))
        ctx.obj = Session(world, profile=ctx.params.pop("profile", None), as_json=as_json, arguments=arguments)
        try:
            code = super().invoke(ctx)
        except click.UsageError as error:
            if not as_json:
                raise
            _tell_usage(error)
            code = ExitCode.USAGE
        except (click.exceptions.Exit, click.ClickException):
            raise
        except BrokenPipeError:
            # Whoever read the output, such as `head`, has enough; what is still buffered goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None
        except (Exception, KeyboardInterrupt) as error:
            # Aborted is what click makes of Ctrl-C at a prompt.
            seen = KeyboardInterrupt() if isinstance(error, click.Abort) else error
            if not _expected(seen):
                raise
            failure = failure_of(seen)
            click.echo(failure.told(as_json=as_json), err=True)
            code = failure.code
        if isinstance(code, ExitCode) and code:
            ctx.exit(int(code))
        return code

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, those that are fields of a video in a section of their own."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for name in sorted(sections, key=lambda name: name != "Options"):
            with formatter.section(name):
                formatter.write_dl(sections[name])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, as they are to be typed."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def _tell_usage(error: click.UsageError) -> None:
    advice = f"`{error.ctx.command_path} --help` shows what there is" if error.ctx is not None else ""
    failure = CommandFailedError(error.format_message(), code=ExitCode.USAGE, advice=advice, kind="UsageError")
    click.echo(failure.told(as_json=True), err=True)


def _expected(error: BaseException) -> bool:
    from ugen_provider.core.api.errors import UGenError

    expected = (CommandFailedError, UGenError, OSError, KeyboardInterrupt)
    return isinstance(error, expected) or _of_the_database(error)


def _of_the_database(error: BaseException) -> bool:
    """Told by its module, since the package is only loaded where a ledger was opened."""
    return type(error).__module__.startswith("sqlalchemy.")


def _profiles(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    del parameter
    from ugen_provider.cli.profiles import read_config
    from ugen_provider.core.api.errors import ConfigError

    world = ctx.find_object(Surroundings) or Surroundings()
    try:
        return [name for name in read_config(world.environ).profiles if name.startswith(incomplete)]
    except ConfigError:
        return []


_COMMON: tuple[click.Parameter, ...] = (
    click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
    click.Option(["--profile"], metavar="NAME", shell_complete=_profiles, help="Settings from config.toml."),
)


def command(name: str, *, examples: Sequence[str]) -> Callable[[Callable[..., ExitCode | None]], UGenCommand]:
    """Make a command of a function that takes a `Session` first.

    Args:
        name: What it is called by.
        examples: Lines for its help.
    """

    def made(function: Callable[..., ExitCode | None]) -> UGenCommand:
        command = click.command(name, cls=UGenCommand)(click.pass_obj(function))
        command.examples = examples
        return command

    return made
