# SPDX-License-Identifier: Apache-2.0
"""Real Dagsters, each with a U-Gen in this process, so that its journal can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from ugen_provider.cli.demo.dagster_processes import RealDagster
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

REPOSITORY = Path(__file__).parents[3]


class Both(NamedTuple):
    """A Dagster and its U-Gen."""

    dagster: RealDagster
    server: EmulatorServer


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Both]]:
    """Start a real Dagster on some definitions; it is ended after the module."""
    ended = []

    @contextmanager
    def both(definitions: Path, speed: float, runs_at_once: int, env: dict[str, str]) -> Iterator[Both]:
        home = tmp_path_factory.mktemp("dagster")
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

    def start(definitions: Path, *, speed: float = 60.0, runs_at_once: int = 4, **env: str) -> Both:
        made = both(definitions, speed, runs_at_once, env)
        ended.append(made)
        return made.__enter__()

    yield start
    for made in ended:
        made.__exit__(None, None, None)
