# SPDX-License-Identifier: Apache-2.0
"""Real processes, a local U-Gen for them, and a server that notes who should never have called it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.media.conftest import Storage, mp4, png  # noqa: F401  fixtures
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

UGEN = Path(sys.executable).with_name("ugen")
Ran = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def server() -> Iterator[EmulatorServer]:
    """A U-Gen whose jobs end after a few requests."""
    with EmulatorServer(Settings(speed=0, tick=600.0, admin=True)) as opened:
        yield opened


@pytest.fixture
def canary() -> Iterator[Storage]:
    """A server on loopback that no process here has a reason to call."""
    opened = Storage()
    yield opened
    opened.close()


@pytest.fixture
def ugen(server: EmulatorServer, tmp_path: Path) -> Callable[..., Ran]:
    """Runs `ugen` as a process of its own."""
    server.emulator.reset()

    def run(*arguments: object, umask: int = 0o022, **environ: str) -> Ran:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "UGEN_API_KEY": LOCAL_KEY,
            "UGEN_BASE_URL": server.base_url,
            **environ,
        }
        command = [str(UGEN), *map(str, arguments)]
        return subprocess.run(
            command, env=env, cwd=tmp_path, umask=umask, capture_output=True, text=True, check=False, timeout=120
        )

    return run
