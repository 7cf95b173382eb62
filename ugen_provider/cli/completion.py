# SPDX-License-Identifier: Apache-2.0
"""`ugen completion`: what a shell needs to complete `ugen`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ugen_provider.cli.frame import command
from ugen_provider.cli.session import Session

_HOW = {
    "bash": 'eval "$(ugen completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(ugen completion zsh)" in ~/.zshrc',
    "fish": "ugen completion fish > ~/.config/fish/completions/ugen.fish",
}


@command("completion", examples=tuple(_HOW.values()))
@click.argument("shell", type=click.Choice(tuple(_HOW)))
def completion_command(session: Session, *, shell: str) -> None:
    """Print the script that lets SHELL complete commands, options, stages, statuses and profiles."""
    from ugen_provider.cli import main

    kind = get_completion_class(shell)
    assert kind is not None  # click knows all three
    script = kind(main, {}, "ugen", "_UGEN_COMPLETE").source()
    session.out.text(script, data={"shell": shell, "script": script, "install": _HOW[shell]})
