# SPDX-License-Identifier: Apache-2.0
"""Real Dagsters, each with a U-Gen in this process, so that its journal can be read."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
import yaml

from ugen_provider.cli.demo.dagster_processes import RealDagster
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

REPOSITORY = Path(__file__).parents[3]


class Both(NamedTuple):
    """A Dagster and its U-Gen."""

    dagster: RealDagster
    server: EmulatorServer

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """The same runs and events, read from here."""
        with dg.DagsterInstance.from_config(str(self.dagster.home)) as made:
            yield made


@contextmanager
def real_both(
    home: Path, definitions: Path, *, speed: float = 60.0, runs_at_once: int = 4, **env: str
) -> Iterator[Both]:
    """A real Dagster on some definitions, with a U-Gen of its own."""
    with EmulatorServer(Settings(speed=speed, admin=True)) as server:
        settings = {
            "UGEN_API_KEY": LOCAL_KEY,
            "UGEN_BASE_URL": server.base_url,
            "UGEN_OUTPUT": str(home / "videos"),
            "PYTHONPATH": str(REPOSITORY / "example_dagster"),
        }
        with RealDagster(
            home / "home", definitions=definitions, env=settings | env, runs_at_once=runs_at_once
        ) as dagster:
            yield Both(dagster, server)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Both]]:
    """Start a real Dagster on some definitions; it is ended after the module."""
    with ExitStack() as stack:

        def start(definitions: Path, **arguments: Any) -> Both:
            return stack.enter_context(real_both(tmp_path_factory.mktemp("dagster"), definitions, **arguments))

        yield start


def project_with(folder: Path, **attributes: Any) -> Path:
    """A copy of the example project whose YAML says more; returns the folder that its package is in."""
    project = folder / "example_dagster"
    shutil.copytree(REPOSITORY / "example_dagster", project, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    path = project / "shop_videos" / "defs" / "videos" / "defs.yaml"
    component = yaml.safe_load(path.read_text())
    component["attributes"] |= attributes
    path.write_text(yaml.safe_dump(component, sort_keys=False))
    return project


def definitions_of(project: Path) -> Path:
    """What a code server loads of a project."""
    return project / "shop_videos" / "definitions.py"
