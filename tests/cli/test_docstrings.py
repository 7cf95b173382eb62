# SPDX-License-Identifier: Apache-2.0
"""Every example in a docstring of the command line runs, and every command shows examples that it understands."""

import doctest
import importlib
import pkgutil
import shlex

import click
import pytest

import ugen_provider.cli
from ugen_provider.cli import main
from ugen_provider.cli.frame import UGenCommand

MODULES = [
    info.name
    for info in pkgutil.walk_packages(ugen_provider.cli.__path__, "ugen_provider.cli.")
    if not info.name.startswith("ugen_provider.cli.demo")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def commands(group, words):
    ctx = click.Context(group, info_name=words[-1])
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from commands(command, [*words, name])
        elif isinstance(command, UGenCommand):
            yield [*words, name], command


ALL = list(commands(main, ["ugen"]))


def test_every_command_is_there():
    names = {" ".join(words[1:]) for words, _ in ALL}
    jobs = "create get list watch wait cancel pause resume retry keyframes videos download"
    wanted = {f"jobs {name}" for name in jobs.split()} | {"init", "login", "help"}
    wanted |= {"suggest", "upload", "models", "gallery", "doctor", "completion", "feed check", "feed preview"}
    wanted |= {"feed run"}
    wanted |= {"credits balance", "credits estimate", "credits transactions"}
    wanted |= {f"ledger {name}" for name in ("init", "show", "settle", "export", "repair")} | {"reconcile"}
    assert names == wanted


@pytest.mark.parametrize(
    ("words", "command"), ALL, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_examples_of_commands_are_understood(words, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("lamp.jpg", "feed.xml", "feed.csv"):
        (tmp_path / name).touch()
    (tmp_path / "videos").mkdir()
    assert command.examples
    examples = "\n".join(command.examples).replace("\\\n", " ").splitlines()
    for example in examples:
        if not example.startswith("ugen "):  # how a shell takes it in
            continue
        line = example.split(" | ")[0].split(" && ")[0].split(" > ")[0].split(" < ")[0]
        typed = shlex.split(line, comments=True)
        assert typed[: len(words)] == words
        arguments = [word.replace("*.jpg", "lamp.jpg") for word in typed[len(words) :]]
        command.make_context(words[-1], arguments).close()
