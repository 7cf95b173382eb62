# SPDX-License-Identifier: Apache-2.0
"""The real command against a real emulator: in this process on its clock, or as a process of its own."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.core.local import EmulatorClock
from ugen_provider.cli import main
from ugen_provider.cli.session import Surroundings
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.emulator.settings import LOCAL_KEY

LAMP = ("--product-name", "Lamp", "--product-image-url", "https://images.example.com/lamp.jpg", "--segment-count", "1")


@dataclass
class Ugen:
    """The command, with a home of its own.

    `environ` is what the command sees of the environment; waiting moves the emulator's clock, unless `real_time`.
    """

    home: Path
    server: object
    environ: dict[str, str] = field(default_factory=dict)
    real_time: bool = False

    def __call__(self, *arguments: object, code: int | None = 0, given: str | None = None) -> Result:
        """Run the command and expect an exit code; None accepts any."""
        clock = None if self.real_time else EmulatorClock(self.server.emulator)
        world = Surroundings(environ=self.environ, clock=clock)
        said = CliRunner().invoke(main, [str(word) for word in arguments], obj=world, input=given)
        if said.exception is not None and not isinstance(said.exception, SystemExit):
            raise said.exception
        assert code is None or said.exit_code == code, said.output
        return said

    def json(self, *arguments: object, code: int = 0):
        """Run the command with `--json` and read what it prints."""
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def one(self, *arguments: object, code: int = 0):
        """Run a command whose JSON is a list, and return its only element."""
        (found,) = self.json(*arguments, code=code)
        return found

    def create(self, *arguments: object, name: str = "Lamp") -> str:
        """Buy a video without waiting for it; returns the job."""
        fields = [word if word != "Lamp" else name for word in LAMP]
        return self.json("jobs", "create", *fields, *arguments)["job_id"]

    def process(self, *arguments: object, most_kb: int | None = None, **options) -> subprocess.Popen:
        """Start the command as a process of its own; no file may become larger than `most_kb`, as on a full disk."""
        env = {**{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}, **self.environ}
        command = [sys.executable, "-m", "ugen_provider"]
        if most_kb is not None:
            env["PYTHONDONTWRITEBYTECODE"] = "1"  # a compiled module that is cut off would break every later import
            limit = most_kb * 1024
            options["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return subprocess.Popen([*command, *map(str, arguments)], env=env, text=True, **options)

    def name_ledger(self, address: str | Path | None = None) -> str:
        """Create a ledger and name it by UGEN_LEDGER; returns its id."""
        address = str(address or self.home / "shop.db")
        self.environ["UGEN_LEDGER"] = address
        with Ledger.init(address, allow_ephemeral=True) as ledger:
            return ledger.ledger_id

    @property
    def purchases(self) -> list:
        """Everything that was ever bought."""
        return self.server.emulator.journal.find_purchases()


@pytest.fixture
def ugen(tmp_path, ugen_emulator) -> Ugen:
    environ = {"HOME": str(tmp_path), "UGEN_API_KEY": LOCAL_KEY, "UGEN_BASE_URL": ugen_emulator.base_url}
    return Ugen(tmp_path, ugen_emulator, environ)


@pytest.fixture
def picture(tmp_path) -> Path:
    from PIL import Image

    path = tmp_path / "lamp.png"
    Image.new("RGB", (72, 128), (200, 120, 40)).save(path)
    return path
