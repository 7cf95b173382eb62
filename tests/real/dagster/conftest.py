# SPDX-License-Identifier: Apache-2.0
"""Real Dagsters, each with a U-Gen in this process, so that its journal can be read."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
import yaml

from ugen_provider.cli.demo.dagster import RealDagster
from ugen_provider.cli.demo.processes import ProcessHandle
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings, TenantSettings

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

    def start_again(self, lost: ProcessHandle) -> None:
        """End what is left of one of Dagster's processes with all that it started, and start it again."""
        processes = self.dagster.processes
        processes.running.remove(lost)
        lost.signal_group(signal.SIGKILL)
        lost.popen.wait(30)
        processes.start(lost.name, lost.popen.args, env=self.dagster.env, log=lost.log, cwd=self.dagster.home)

    def start_what_ended(self) -> list[str]:
        """Start again each process that has ended by itself, as systemd or Kubernetes would, and say which."""
        ended = [each for each in self.dagster.processes.running if each.popen.poll() is not None]
        for each in ended:
            self.start_again(each)
        return [each.name.removeprefix("dagster ") for each in ended]


@contextmanager
def real_both(
    home: Path,
    definitions: Path,
    *,
    speed: float = 60.0,
    runs_at_once: int = 4,
    key: str = LOCAL_KEY,
    instance: Mapping[str, Any] | None = None,
    ledger: str | None = None,
    **env: str,
) -> Iterator[Both]:
    """A real Dagster on some definitions, with a U-Gen of its own; `instance` is added to its dagster.yaml."""
    account = TenantSettings(api_keys=(key,))
    with EmulatorServer(Settings(speed=speed, admin=True, tenants=(account,))) as server:
        settings = {
            "UGEN_API_KEY": key,
            "UGEN_BASE_URL": server.base_url,
            "UGEN_OUTPUT": str(home / "videos"),
            "PYTHONPATH": str(REPOSITORY / "example_dagster"),
        }
        dagster = RealDagster(
            home / "home", definitions=definitions, env=settings | env, runs_at_once=runs_at_once, ledger=ledger
        )
        if instance is not None:
            with (dagster.home / "dagster.yaml").open("a") as file:
                yaml.safe_dump(dict(instance), file)
        with dagster:
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
    """Return what a code server loads of a project."""
    return project / "shop_videos" / "definitions.py"
