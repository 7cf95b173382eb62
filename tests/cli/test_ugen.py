# SPDX-License-Identifier: Apache-2.0
"""The command as a whole: quick, and helpful where an extra is missing."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from ugen_provider.__about__ import __version__
from ugen_provider.cli import SUBCOMMANDS, main
from ugen_provider.cli.exits import ExitCode

NEEDS_UVICORN = "the local U-Gen needs the package uvicorn: pip install 'ugen-provider[emulator]'"
HEAVY = ("airflow", "dagster", "httpx", "pydantic", "rich", "starlette", "uvicorn")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_names_every_command(arguments):
    said = CliRunner().invoke(main, arguments)
    assert said.exit_code == 0
    for name, command in SUBCOMMANDS.items():
        assert f"  {name}" in said.output
        assert command.summary in said.output


def test_help_imports_nothing_heavy():
    script = (
        "import json, sys\n"
        "from ugen_provider.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert json.loads(said.splitlines()[-1]) == []


def test_version():
    assert CliRunner().invoke(main, ["--version"]).output == f"ugen, version {__version__}\n"


def test_an_unknown_command_is_refused():
    assert CliRunner().invoke(main, ["nonsense"]).exit_code == 2


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delitem(sys.modules, "ugen_provider.cli.demo.command", raising=False)
    said = CliRunner().invoke(main, ["demo"])
    assert said.exit_code != 0
    assert "demo` needs the package rich.console: pip install 'ugen-provider[demo]'" in said.output


def test_the_local_ugen_says_which_extra_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "ugen_provider.emulator.server", raising=False)
    said = CliRunner().invoke(main, ["emulator"])
    assert said.exit_code == ExitCode.TROUBLE
    assert said.output == f"Error: {NEEDS_UVICORN}\n"


def test_its_fixtures_say_so_too(tmp_path):
    (tmp_path / "test_mine.py").write_text("def test_mine(ugen_client): pass\n")
    script = "import sys, pytest; sys.modules['uvicorn'] = None; sys.exit(pytest.main(['-q', 'test_mine.py']))"
    said = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert said.returncode == 1
    assert NEEDS_UVICORN in said.stdout
    assert "Error" not in said.stdout


def test_a_missing_part_of_the_demo_is_named_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr("ugen_provider.cli.demo.command.NEEDED", ("click", "no_such_package"))
    said = CliRunner().invoke(main, ["demo", "--output", str(tmp_path / "output")])
    assert said.exit_code == ExitCode.TROUBLE
    assert "the demo needs no_such_package: pip install 'ugen-provider[demo]'" in said.output
    assert not (tmp_path / "output").exists()


def test_a_gallery_of_nothing_says_so(tmp_path):
    said = CliRunner().invoke(main, ["gallery", str(tmp_path)])
    assert f"there is no manifest.json below {tmp_path}" in " ".join(said.stderr.split())
