# SPDX-License-Identifier: Apache-2.0
"""What holds for every command, made from the tree of commands: its errors, its JSON, its help, its words."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ugen_provider.cli import main
from ugen_provider.cli.frame import record_help, stored_help
from ugen_provider.core.api import rules

from .conftest import LAMP
from .test_docstrings import ALL

ROOT = Path(__file__).parents[2]
BY_NAME = {" ".join(words[1:]): command for words, command in ALL}
EVERY = pytest.mark.parametrize("name", sorted(BY_NAME))
LISTS = {
    "credits transactions", "doctor", "jobs cancel", "jobs download", "jobs get", "jobs keyframes", "jobs list",
    "jobs pause", "jobs resume", "jobs retry", "jobs videos", "jobs wait", "ledger show", "models", "upload",
}  # fmt: skip
"""Commands whose JSON is a list, for one element too."""
LINES = {"jobs watch"}
CALLS = {
    "completion": ["bash"],
    "credits balance": [],
    "credits estimate": ["--segment-count", "1"],
    "credits transactions": [],
    "doctor": [],
    "feed check": ["feed.xml", "--segment-count", "1"],
    "feed preview": ["feed.xml", "--segment-count", "1", "--to", "preview.html"],
    "feed run": ["feed.xml", "--catalogue", "shop", "--budget", "5000", "--segment-count", "1", "--run-id", "one"],
    "gallery": ["videos"],
    "help": ["jobs", "list"],
    "init": ["starter", "--for", "python"],
    "jobs cancel": ["JOB"],
    "jobs create": ["--order", "lamp", *LAMP],
    "jobs download": ["JOB", "--to", "videos"],
    "jobs get": ["JOB"],
    "jobs keyframes": ["JOB"],
    "jobs list": [],
    "jobs pause": ["JOB"],
    "jobs resume": ["JOB"],
    "jobs retry": ["JOB", "--from-stage", "generation"],
    "jobs videos": ["JOB"],
    "jobs wait": ["JOB"],
    "jobs watch": ["JOB"],
    "ledger export": ["shop", "--to", "videos.jsonl", "--format", "jsonl"],
    "ledger init": ["other.db"],
    "ledger repair": [],
    "ledger settle": ["lamp", "--absent"],
    "ledger show": [],
    "login": [],
    "models": [],
    "reconcile": [],
    "suggest": ["--product-name", "Lamp", "--product-image-url", "https://shop.example/lamp.jpg"],
    "upload": ["lamp.png"],
}
"""A call of each command that succeeds or fails by the state of the world, and not by its usage."""


@pytest.fixture
def called(ugen, tmp_path, picture, monkeypatch):
    """A world in which each call of `CALLS` makes sense; returns the words of a call."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "feed.xml").write_text((ROOT / "examples" / "feed.xml").read_text())
    (tmp_path / "videos").mkdir()
    ugen.name_ledger()
    job_id = ugen.create()

    def words(name):
        return [*name.split(), *(job_id if word == "JOB" else word for word in CALLS[name])]

    return words


def read(said, code):
    """Read what a call with `--json` printed: its results, and its errors, one JSON object each."""
    lines = [json.loads(line) for line in said.stderr.splitlines()]
    assert all(("error" in line) is not ("note" in line) for line in lines), said.stderr
    errors = [line for line in lines if "error" in line]
    assert all({"exit_code", "error", "message", "next"} <= set(error) for error in errors)
    assert all(error["message"] for error in errors)
    results = json.loads(said.stdout) if said.stdout and not said.stdout.startswith('{"job_id') else said.stdout
    if not said.stdout and code:
        assert [error["exit_code"] for error in errors] == [code], said.stderr
    return results, errors


def run(ugen, words, given="ugen_sk_local\n"):
    said = ugen(*words, "--json", code=None, given=given)
    return said.exit_code, *read(said, said.exit_code)


def test_every_command_has_a_call():
    assert set(CALLS) >= set(BY_NAME)


def test_result_is_one_json_value_of_one_shape(ugen, called, ugen_clock):
    ended = {"jobs wait", "jobs watch", "jobs download", "jobs retry"}
    wrong = []
    for name in sorted(BY_NAME, key=lambda name: name in ended):
        if name in ended:
            ugen_clock.advance_until_idle()
        _, results, errors = run(ugen, called(name))
        if name in LINES:
            continue
        if results == "" and not errors:
            wrong.append(f"{name}: neither a result nor an error")
        if results != "" and isinstance(results, list) is not (name in LISTS):
            wrong.append(f"{name}: {type(results).__name__}")
    assert wrong == []


FAULTS = {
    "no key": ({"UGEN_API_KEY": ""}, None),
    "refused connection": ({"UGEN_BASE_URL": "http://127.0.0.1:9/api/v1"}, None),
    "wrong key": ({}, {"status": 401}),
    "no credits": ({}, {"status": 402}),
    "not found": ({}, {"status": 404}),
    "conflict": ({}, {"status": 409}),
    "limit": ({}, {"status": 429, "retry_after": 1.0}),
    "broken service": ({}, {"status": 500}),
}
NEXT = {
    "no key": "ugen login",
    "refused connection": "is `ugen emulator` running?",
    "wrong key": "ugen login",
    "no credits": "credits",
}
"""What the next step of an error must name."""


@pytest.mark.parametrize("fault", FAULTS)
def test_each_error_is_one_json_object(ugen, called, ugen_faults, fault):
    environ, answer = FAULTS[fault]
    ugen.environ.update(environ)
    calls = {name: called(name) for name in sorted(BY_NAME)}
    if answer is not None:
        ugen_faults.add("status", path="/api/v1/**", times=None, **answer)
    failed = 0
    for name, words in calls.items():
        bounded = ("--timeout", 30) if name in {"jobs wait", "jobs watch"} else ()
        code, results, errors = run(ugen, [*words, *bounded], "\n" if fault == "no key" else "ugen_sk_local\n")
        if not code or results:
            continue
        failed += 1
        (error,) = errors
        assert error["next"], (name, error)
        kinds = {"TransportError", "AuthenticationError", "InsufficientCreditsError"}
        if "no API key" in error["message"] or (error["error"] in kinds and name != "login"):
            assert NEXT[fault] in error["next"], (name, error)
        if error["error"] == "TransportError":
            assert "127.0.0.1:9" in error["message"], (name, error)
    assert failed > 15


@EVERY
def test_wrong_option_names_the_nearest(name):
    said = CliRunner().invoke(main, [*name.split(), "--profil"])
    assert said.exit_code == 2
    assert "--profile" in said.stderr
    as_json = CliRunner().invoke(main, [*name.split(), "--jsno", "--json"])
    assert (as_json.exit_code, as_json.stdout) == (2, "")
    error = json.loads(as_json.stderr)
    assert error["exit_code"] == 2
    assert "--help" in error["next"]


def groups(group, words):
    yield group, words
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        below = group.get_command(ctx, name)
        if isinstance(below, click.Group) and name != "demo":
            yield from groups(below, [*words, name])


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        (words, name[:-1] + "x", name)
        for group, words in groups(main, [])
        for name in group.list_commands(click.Context(group))
        if len(name) > 3
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_mistyped_command_names_the_nearest(words, wrong, right):
    said = CliRunner().invoke(main, [*words, wrong])
    assert said.exit_code == 2
    assert "Did you mean" in said.stderr
    assert right in said.stderr.split("Did you mean")[1]
    error = json.loads(CliRunner().invoke(main, [*words, wrong, "--json"]).stderr)
    assert right in error["message"]


@EVERY
def test_help_command_shows_the_same_as_the_option(name):
    asked = CliRunner().invoke(main, ["help", *name.split()], prog_name="ugen")
    option = CliRunner().invoke(main, [*name.split(), "--help"], prog_name="ugen")
    assert asked.exit_code == option.exit_code == 0
    assert asked.stdout == option.stdout


@EVERY
def test_every_option_is_explained(name):
    for parameter in BY_NAME[name].get_params(click.Context(BY_NAME[name])):
        if isinstance(parameter, click.Option):
            assert len((parameter.help or "").split()) > 1, parameter.name


def test_every_field_of_the_video_is_explained():
    said = " ".join(CliRunner().invoke(main, ["jobs", "create", "--help"]).output.split())
    for rule in rules.FIELDS:
        assert len(rule.about.split()) > 2
        assert rule.about.endswith(".")
        if rule.name != "idempotency_key":
            assert f"--{rule.name.replace('_', '-')}" in said
            assert rule.about in said


@EVERY
def test_help_fits_sixty_columns(name):
    said = CliRunner().invoke(main, [*name.split(), "--help"], terminal_width=60)
    example = False
    for line in said.output.splitlines():
        example = example or line == "Examples:"
        assert example or len(line) <= 60 or len(line.split()) == 1, line


HEAVY = ("airflow", "dagster", "httpx", "pydantic", "rich", "sqlalchemy", "starlette", "uvicorn", "asyncio")


def test_help_of_every_command_imports_nothing_heavy():
    """In one process: what a command imports for its help is there for all that follow."""
    script = (
        "import sys\n"
        "from ugen_provider.cli import main\n"
        f"for name in {['', 'jobs', 'feed', 'ledger', 'credits', 'emulator', *sorted(BY_NAME)]!r}:\n"
        "    main([*name.split(), '--help'], standalone_mode=False)\n"
        f"    print('HEAVY', name, [module for module in {HEAVY!r} if module in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert [line for line in said.splitlines() if line.startswith("HEAVY") and not line.endswith("[]")] == []


def test_stored_help_is_that_of_the_commands():
    """`scripts/docs_tables.py` writes it; a changed option changes it too."""
    assert stored_help() == record_help(main)
