# SPDX-License-Identifier: Apache-2.0
"""The installed package in Airflow, Dagster and the type checkers, from the repository's root."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PROBE = """\
from airflow.sdk import DAG
reveal_type(DAG)
"""


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    return os.environ | {
        "AIRFLOW_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "DAGSTER_HOME": str(home),
        "HOME": str(home),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }


def run(*command, env, cwd=ROOT):
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr


def test_airflow_lists_the_provider(env):
    said, error = run(BIN / "airflow", "providers", "list", "--output", "json", env=env)
    providers = {each["package_name"]: each for each in json.loads(said[said.index("[") :])}
    assert "ugen-provider" in providers, error


def test_dg_lists_the_registry_module(env):
    said, error = run(BIN / "dg", "list", "registry-modules", env=env)
    assert "dagster_ugen" in said, error


def test_python_finds_the_installed_airflow(env):
    said, error = run(sys.executable, "-c", "import airflow; print(airflow.__file__)", env=env)
    assert "site-packages" in said, error


def test_pytest_finds_the_installed_airflow():
    import airflow

    assert "site-packages" in airflow.__file__


def test_mypy_finds_the_installed_airflow(env):
    said, error = run(BIN / "mypy", "--config-file=", "--follow-imports=silent", "-c", PROBE, env=env)
    assert "airflow.sdk.definitions.dag.DAG" in said, said + error


def test_pyright_finds_the_installed_airflow(env, tmp_path):
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE)
    said, error = run(BIN / "pyright", "--pythonpath", sys.executable, "--outputjson", probe, env=env)
    problems = [(each["severity"], each["message"]) for each in json.loads(said)["generalDiagnostics"]]
    assert problems == [("information", 'Type of "DAG" is "type[DAG]"')], error
