# SPDX-License-Identifier: Apache-2.0
"""The frame of every command: shared options, examples in the help, lazy groups, errors as a sentence and a code.

With `--json`, stdout holds one JSON value and stderr holds JSON lines: `{"note": …}`, and one `{"error": …}` for each
error. Ctrl-C ends every command with 130, whatever it does at that moment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from click.shell_completion import get_completion_class

from ugen_provider.cli.exits import ExitCode, exit_of, next_step
from ugen_provider.cli.printer import Printer, clean
from ugen_provider.cli.session import Session, Surroundings, read_config
from ugen_provider.core.text import json_text, without_passwords

_ARGUMENTS = "ugen.arguments"


class CommandFailedError(Exception):
    """Ends a command with a sentence, an exit code and the next step.

    Args:
        message: What failed, and why.
        code: The exit code.
        advice: What to do next.
        kind: A stable word for programs, such as the error's class.
        details: More entries for programs, such as the idempotency key of a create.
    """

    def __init__(
        self,
        message: str,
        *,
        code: ExitCode,
        advice: str = "",
        kind: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(without_passwords(message))
        self.code = code
        self.advice = without_passwords(advice)
        self.kind = kind
        self.details = dict(details or {})

    @property
    def data(self) -> dict[str, Any]:
        """The failure for programs."""
        known = {"exit_code": int(self.code), "error": self.kind, "message": str(self), "next": self.advice}
        return {**known, **self.details}

    def render(self, *, as_json: bool) -> str:
        """Return the text for stderr."""
        if as_json:
            return json_text(self.data, default=str)
        return f"Error: {self}" + (f"\nNext: {clean(self.advice)}" if self.advice else "")


def failure_of(error: BaseException) -> CommandFailedError:
    """Return the failure with which an error ends a command."""
    if isinstance(error, CommandFailedError):
        return error
    key = getattr(error, "idempotency_key", None)
    sentence = _sentence(error)
    if key is not None and key not in sentence:
        sentence = f"{sentence} (idempotency key {key})"
    details: dict[str, Any] = {} if key is None else {"idempotency_key": key}
    for name in ("required", "available", "job_id", "request_id"):
        if (value := getattr(error, name, None)) is not None:
            details[name] = value
    return CommandFailedError(
        sentence, code=exit_of(error), advice=next_step(error), kind=type(error).__name__, details=details
    )


def _sentence(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped"
    if _of_the_database(error):
        return f"the ledger's database: {clean(str(getattr(error, 'orig', None) or error))}"
    return clean(str(error)) or type(error).__name__


class UGenCommand(click.Command):
    """A command that receives a `Session`, may return an exit code, and reports errors as sentences."""

    examples: Sequence[str] = ()

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters and the shared ones."""
        *own, last = super().get_params(ctx)
        return [*own, *_COMMON, last]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments, so that a message can show how to continue."""
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; an exit code that it returns ends the program with it."""
        world = ctx.find_object(Surroundings) or Surroundings()
        arguments = (*ctx.command_path.split(), *ctx.meta.get(_ARGUMENTS, ()))
        as_json = bool(ctx.params.pop("as_json", False))
        ctx.obj = Session(world, profile=ctx.params.pop("profile", None), as_json=as_json, arguments=arguments)
        INTERRUPTS.route_remarks(ctx.obj.out)
        code = super().invoke(ctx)
        if isinstance(code, ExitCode) and code:
            ctx.exit(int(code))
        return code

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options; the fields of a video have their own section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Argument):
                continue  # the text above explains it
            record = _with_short_choices(parameter, parameter.get_help_record(ctx), ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for name in sorted(sections, key=lambda name: name != "Options"):
            with formatter.section(name):
                formatter.write_dl(sections[name])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples below the help text."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


_LONGEST_METAVAR = 36


def _with_short_choices(
    parameter: click.Parameter, record: tuple[str, str] | None, ctx: click.Context
) -> tuple[str, str] | None:
    """Move a long list of words from the name of an option, which cannot be wrapped, into its text."""
    if record is None or not isinstance(parameter.type, click.Choice):
        return record
    words = parameter.make_metavar(ctx)
    if len(words) <= _LONGEST_METAVAR:
        return record
    return record[0].replace(words, "WORD"), f"{record[1]} One of {', '.join(map(str, parameter.type.choices))}."


def _expected(error: BaseException) -> bool:
    from ugen_provider.core.api.errors import UGenError

    expected = (CommandFailedError, UGenError, OSError, KeyboardInterrupt)
    return isinstance(error, expected) or _of_the_database(error)


def _of_the_database(error: BaseException) -> bool:
    """Judge by the module name, since the package is loaded only where a ledger was opened."""
    return type(error).__module__.startswith("sqlalchemy.")


def _profiles(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    del parameter
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
    """Make a command of a function whose first argument is a `Session`.

    Args:
        name: Its name.
        examples: Lines for its help.
    """

    def made(function: Callable[..., ExitCode | None]) -> UGenCommand:
        command = click.command(name, cls=UGenCommand)(click.pass_obj(function))
        command.examples = examples
        return command

    return made


# Groups whose commands are imported when they are called, so that help answers at once.


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """The place of a command, and its line in the help, without importing it.

    Attributes:
        module: Its module.
        attribute: Its name there.
        summary: One sentence.
        extra: The extra that installs its packages; empty if the plain installation does.
    """

    module: str
    attribute: str
    summary: str
    extra: str = ""


class MissingPackageError(click.ClickException):
    """A package that a command needs is not installed."""

    exit_code = ExitCode.TROUBLE


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; `commands_by_name` holds their places."""

    commands_by_name: Mapping[str, Subcommand] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # the base class names it
        """Return the names, without importing anything."""
        return list(self.commands_by_name)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of a name.

        Args:
            ctx: The context of the call.
            cmd_name: The name.

        Returns:
            The command; None if there is none of that name.

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
            raise MissingPackageError(
                f"`{ctx.command_path} {cmd_name}` needs the package {missing.name}: pip install '{wanted}'"
            ) from missing
        if not isinstance(command, click.Command):
            raise TypeError(f"{found.module}.{found.attribute} is not a command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names.

        Raises:
            click.UsageError: There is none of that name; the nearest ones are named.
        """
        if not ctx.resilient_parsing and not args[0].startswith("-") and args[0] not in self.commands_by_name:
            raise click.UsageError(f"No such command {args[0]!r}.{did_you_mean(args[0], self.commands_by_name)}", ctx)
        words = args[: args.index("--")] if "--" in args else args
        asked = [word for word in words if word in {"-h", "--help"}]
        if asked and not ctx.resilient_parsing and (calls := help_of([*ctx.command_path.split()[1:], *words])):
            return args[0], StoredHelp(args[0], calls), asked
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands into the help, without importing them.

        Args:
            ctx: The context of the call.
            formatter: Receives the help.
        """
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands_by_name[name].summary) for name in self.list_commands(ctx)])


class StoredHelp(click.Command):
    """A command that shows the help that `record_help` stored.

    The commands import HTTP clients, models and databases; their help needs none of them, and answers at once.

    Args:
        name: Its name.
        calls: What the real command writes.
    """

    def __init__(self, name: str, calls: Sequence[Sequence[Any]]) -> None:
        super().__init__(name)
        self._calls = calls

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the stored help, wrapped for this terminal."""
        del ctx
        for name, *arguments in self._calls:
            words = [[tuple(row) for row in arguments[0]]] if name == "write_dl" else arguments
            getattr(formatter, name)(*words)


class _HelpRecorder(click.HelpFormatter):
    """Records what a command writes as its help, before it is wrapped."""

    def __init__(self) -> None:
        super().__init__(width=80)
        self.calls: list[list[Any]] = []

    def write(self, string: str) -> None:
        self.calls.append(["write", string])

    def indent(self) -> None:
        self.calls.append(["indent"])
        super().indent()

    def dedent(self) -> None:
        self.calls.append(["dedent"])
        super().dedent()

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:  # noqa: ARG002
        self.calls.append(["write_usage", prog, args])

    def write_heading(self, heading: str) -> None:
        self.calls.append(["write_heading", heading])

    def write_paragraph(self) -> None:
        self.calls.append(["write_paragraph"])

    def write_text(self, text: str) -> None:
        self.calls.append(["write_text", text])

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:  # noqa: ARG002
        # A command made its help option for the first context that asked, perhaps without the short form.
        self.calls.append(
            ["write_dl", [[name.replace("-h, ", "").replace("--help", "-h, --help"), text] for name, text in rows]]
        )


_HELP = Path(__file__).parent / "help.json"


@lru_cache(maxsize=1)
def stored_help() -> Mapping[str, Sequence[Sequence[Any]]]:
    """Return the stored help of each command."""
    found: dict[str, Sequence[Sequence[Any]]] = json.loads(_HELP.read_text("utf-8")) if _HELP.exists() else {}
    return found


def help_of(words: Sequence[str]) -> Sequence[Sequence[Any]] | None:
    """Return the stored help of the command that the first words name; None if there is none."""
    path = ""
    for word in words:
        longer = f"{path} {word}".strip()
        if longer not in stored_help():
            break
        path = longer
    return stored_help().get(path)


def record_help(program: click.Group) -> dict[str, list[list[Any]]]:
    """Return the help of every command below a program, as `help.json` stores it. Imports them all."""
    return dict(_recorded(program, click.Context(program, info_name="ugen", help_option_names=["-h", "--help"])))


def _recorded(group: click.Group, ctx: click.Context) -> Iterator[tuple[str, list[list[Any]]]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is None or command.hidden:
            continue
        below = click.Context(command, info_name=name, parent=ctx)
        recorder = _HelpRecorder()
        command.format_help(below, recorder)
        yield " ".join(below.command_path.split()[1:]), recorder.calls
        if isinstance(command, click.Group):
            yield from _recorded(command, below)


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """Return a sentence with the known words that are nearest to a mistyped one; '' if none is near.

    Examples:
        >>> did_you_mean("complted", ["completed", "failed"])
        ' Did you mean completed?'
        >>> did_you_mean("xyz", ["completed", "failed"])
        ''
    """
    near = get_close_matches(typed.lower(), list(known), n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def lazy_group(name: str, commands: Mapping[str, Subcommand], *, about: str) -> LazyGroup:
    """Make a group of commands.

    Args:
        name: Its name.
        commands: Its commands, in the order of the help.
        about: Its help.
    """
    group = LazyGroup(name, help=about)
    group.commands_by_name = commands
    return group


# The program: how it ends.


class Interrupts:
    """Ctrl-C in the program `ugen`. In other programs, as in a test, this leaves the signals alone.

    Attributes:
        seen: Whether a signal arrived: the program then ends with 130, also if the command ends otherwise.
    """

    def __init__(self) -> None:
        self.seen = False
        self._installed = False

    def install(self) -> None:
        """Raise KeyboardInterrupt at Ctrl-C from now on, unless a shell made this process ignore it."""
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._installed = True
            self.restore()

    def restore(self) -> None:
        """Raise again, after an event loop handled the signal."""
        if self._installed:
            signal.signal(signal.SIGINT, self._raise)

    def route_remarks(self, out: Printer) -> None:
        """Print Python's warnings, and log lines from warnings on, as the command's own remarks."""
        if not self._installed:
            return
        import logging
        import warnings

        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            out.note(f"Warning: {message}")

        class Remarks(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                out.note(f"Warning: {record.getMessage()}")

        warnings.showwarning = show
        logging.lastResort = Remarks(logging.WARNING)

    def leave_at_once(self) -> None:
        """End at once at Ctrl-C from now on: nothing is left to do but to say how the command ended."""
        if self._installed:
            signal.signal(signal.SIGINT, self._leave)

    def _raise(self, number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        self.seen = True
        raise KeyboardInterrupt

    def _leave(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        os._exit(ExitCode.INTERRUPTED)


INTERRUPTS = Interrupts()
"""Ctrl-C in this process."""


class Program(LazyGroup):
    """The whole command: every error ends here, as a sentence or as one JSON object, and with its exit code."""

    def main(  # click's overloads distinguish what this does not
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line; the arguments are those of click."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        words = list(sys.argv[1:] if args is None else args)
        name = prog_name or "ugen"
        self._main_shell_completion(extra, name, complete_var)
        code, failure = self._outcome(words, name, extra)
        INTERRUPTS.leave_at_once()
        if INTERRUPTS.seen and code != ExitCode.INTERRUPTED:
            # The signal arrived where the interpreter drops exceptions, or after the last step.
            code, failure = ExitCode.INTERRUPTED, failure or failure_of(KeyboardInterrupt())
        if failure is not None:
            click.echo(failure.render(as_json=asks_for_json(words)), err=True)
        if code == ExitCode.INTERRUPTED or not _flushed():
            _drop_output()
        sys.exit(int(code))

    def _outcome(self, words: list[str], name: str, extra: Mapping[str, Any]) -> tuple[int, CommandFailedError | None]:
        """Run the command; return its exit code, and the failure that is still to be reported."""
        as_json = asks_for_json(words)
        try:
            with self.make_context(name, words, **extra) as ctx:
                self.invoke(ctx)
        except click.exceptions.Exit as ended:
            return ended.exit_code, None
        except click.UsageError as error:
            if not as_json:
                error.show()
                return error.exit_code, None
            advice = f"`{error.ctx.command_path} --help` shows the options" if error.ctx is not None else ""
            failure = CommandFailedError(error.format_message(), code=ExitCode.USAGE, advice=advice, kind="UsageError")
            return failure.code, failure
        except click.ClickException as error:
            kind = type(error).__name__
            return error.exit_code, CommandFailedError(
                error.format_message(), code=ExitCode(error.exit_code), kind=kind
            )
        except BrokenPipeError:
            # The reader of the output, such as `head`, closed it; the rest of the buffer is dropped.
            _drop_output()
        except (Exception, KeyboardInterrupt) as error:
            # Aborted is what click makes of Ctrl-C at a prompt.
            seen = KeyboardInterrupt() if isinstance(error, click.Abort) else error
            if not _expected(seen) and not INTERRUPTS.seen:
                raise
            failure = failure_of(seen) if _expected(seen) else failure_of(KeyboardInterrupt())
            return failure.code, failure
        return ExitCode.DONE, None


def asks_for_json(words: Sequence[str]) -> bool:
    """Return whether a command line asks for JSON: known also where it cannot be parsed.

    Examples:
        >>> asks_for_json(["jobs", "list", "--json"]), asks_for_json(["upload", "--", "--json"])
        (True, False)
    """
    options = words[: words.index("--")] if "--" in words else words
    return "--json" in options


def _flushed() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _drop_output() -> None:
    """Let the interpreter's last flush go nowhere: the reader is gone, or does not read."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return  # stdout is no file, as in a test


# Shell completion.

_INSTALL = {
    "bash": 'eval "$(ugen completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(ugen completion zsh)" in ~/.zshrc',
    "fish": "ugen completion fish > ~/.config/fish/completions/ugen.fish",
}


@command("completion", examples=tuple(_INSTALL.values()))
@click.argument("shell", type=click.Choice(tuple(_INSTALL)))
def completion_command(session: Session, *, shell: str) -> None:
    """Print the script with which SHELL completes commands, options, stages, statuses and profiles."""
    from ugen_provider.cli import main

    kind = get_completion_class(shell)
    assert kind is not None  # click knows all three
    script = kind(main, {}, "ugen", "_UGEN_COMPLETE").source()
    session.out.text(script, data={"shell": shell, "script": script, "install": _INSTALL[shell]})


# Help as a command.


@command("help", examples=("ugen help", "ugen help jobs create"))
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
def help_command(session: Session, *, words: tuple[str, ...]) -> None:
    """Show the help of COMMAND, or of `ugen`."""
    ctx = click.get_current_context().find_root()
    found: click.Command = ctx.command
    if calls := stored_help().get(" ".join(words)):
        found = StoredHelp(words[-1], calls)
        text = found.get_help(click.Context(found, info_name=words[-1], parent=ctx))
        session.out.text(text, data={"command": f"{ctx.command_path} {' '.join(words)}", "help": text})
        return
    for word in words:
        known = found.commands_by_name if isinstance(found, LazyGroup) else getattr(found, "commands", {})
        if word not in known:
            raise click.UsageError(f"No such command {' '.join(words)!r}.{did_you_mean(word, known)}")
        below = found.get_command(ctx, word) if isinstance(found, click.Group) else None
        assert below is not None  # it is in the table
        found, ctx = below, click.Context(below, info_name=word, parent=ctx)
    text = found.get_help(ctx)
    session.out.text(text, data={"command": ctx.command_path, "help": text})
