# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests with real Airflow and Dagster processes."""

import os
import tempfile

import pytest

from ugen_provider.cli.demo.processes import LocalUGen

# Importing Airflow writes a configuration into its home; a developer's own home is not ours to write into.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="ugen-airflow-"))


def pytest_collection_modifyitems(items):
    for item in items:
        if "/tests/real/" in item.path.as_posix():
            item.add_marker("real")


@pytest.fixture(scope="session")
def local_ugen(tmp_path_factory):
    with LocalUGen(tmp_path_factory.mktemp("ugen"), speed=60) as ugen:
        yield ugen
