# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL of a test's own, that it may crash and start again."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ugen_provider.cli.demo.processes import free_ports
from ugen_provider.emulator.world.journal import Journal


class OwnPostgres:
    """A server on loopback with its own folder and without passwords."""

    def __init__(self, programs: Path, folder: Path, account: dict[str, Any]) -> None:
        self._programs = programs
        self._folder = folder
        self._account = account
        self.port = free_ports(1)[0]

    @property
    def folder(self) -> Path:
        """All that it has written."""
        return self._folder

    @property
    def running(self) -> bool:
        return (self._folder / "data/postmaster.pid").exists()

    def url(self, driver: str, name: str = "postgres") -> str:
        return f"postgresql+{driver}://postgres@127.0.0.1:{self.port}/{name}"

    def make(self) -> None:
        self._call("initdb", "--auth=trust", "--username=postgres", "--no-sync", "--pgdata", f"{self._folder}/data")
        self.start()

    def start(self) -> None:
        settings = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c max_connections=200"
        self._control("start", "-w", "-o", settings, "-l", f"{self._folder}/log")

    def crash(self) -> None:
        """End it as a power cut does: no connection is closed in peace, and the next start repairs."""
        self._control("stop", "-w", "-m", "immediate")

    def crash_when_bought(self, journal: Journal, count: int) -> None:
        """Crash once that many jobs are bought, before the buyer of the last one has his answer."""
        real = journal.bought

        def bought(kind: str, **more: Any) -> None:
            real(kind, **more)
            if len(journal.purchases) == count:
                self.crash()

        journal.bought = bought  # type: ignore[method-assign]

    def _control(self, *words: str) -> None:
        self._call("pg_ctl", "--pgdata", f"{self._folder}/data", *words)

    def _call(self, program: str, *words: str) -> None:
        # Not into pipes, which the server would keep open for as long as it runs.
        with (self._folder / "said").open("w") as said:
            command = [str(self._programs / program), *words]
            done = subprocess.run(
                command, stdout=said, stderr=said, cwd=self._folder, check=False, timeout=60, **self._account
            )
        assert done.returncode == 0, (self._folder / "said").read_text()


def programs() -> Path | None:
    """The folder with `initdb` and `pg_ctl`; Debian keeps it off the PATH."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """Start one; skips where none is installed, or where the system's administrator has no other account for it."""
    where = programs()
    if where is None:
        pytest.skip("no PostgreSQL server is installed here")
    account: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="ugen-postgres-"))
    if os.geteuid() == 0:  # which PostgreSQL refuses to run as
        try:
            entry = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no account for it")
        account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    server = OwnPostgres(where, folder, account)
    try:
        server.make()
        yield server
    finally:
        if server.running:
            server.crash()
        shutil.rmtree(folder, ignore_errors=True)
