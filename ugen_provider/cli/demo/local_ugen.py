# SPDX-License-Identifier: Apache-2.0
"""The local U-Gen as a process, and what the demo asks of it."""

import re
from dataclasses import dataclass
from pathlib import Path

import httpx

from ugen_provider import UGenClient
from ugen_provider.cli.demo.processes import (
    Processes,
    Service,
    child_environment,
    free_ports,
    listens,
    python_module,
    wait_until,
)

LOCAL_KEY = "ugen_sk_local"
ANNOUNCED = re.compile(r"U-Gen emulator listening on (http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """A job that somebody bought, as the emulator's journal keeps it for good."""

    job_id: str
    idempotency_key: str


class LocalUGen(Service):
    """An emulator with a database of its own; a second start on it goes on where it was.

    Args:
        folder: Where its database and its log are.
        speed: Emulated seconds a real second.

    Examples:
        ```python
        with LocalUGen(Path("state"), speed=20) as ugen:
            print(ugen.base_url, ugen.available_credits())
        ```
    """

    def __init__(self, folder: Path, *, speed: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.database = folder.resolve() / "ugen.db"
        self.log = folder.resolve() / "ugen.log"
        self.port = _kept_port(folder / "ugen.port")
        self.speed = speed
        self.url = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.url}/api/v1"
        self.processes = Processes()
        self.client = UGenClient(api_key=LOCAL_KEY, base_url=self.base_url)

    def up(self) -> None:
        """Start it, and wait until it says that it listens."""
        self.log.unlink(missing_ok=True)
        command = python_module("ugen_provider.emulator", "--port", str(self.port))
        command += ["--speed", f"{self.speed:g}", "--db", str(self.database), "--admin"]
        self.processes.start("the local U-Gen", command, env=child_environment({}), log=self.log)
        wait_until(
            lambda: ANNOUNCED.search(self.log.read_text()) is not None,
            what="the local U-Gen",
            timeout=60.0,
            watch=[self.processes],
        )

    def stop(self) -> None:
        """End it."""
        self.client.close()
        self.processes.stop()

    def available_credits(self) -> int:
        """The credits that the account could still spend.

        Returns:
            The balance without what is reserved.
        """
        return self.client.credits.balance().available_credits

    def purchases(self) -> list[Purchase]:
        """Every job that was ever created here.

        Returns:
            Oldest first.
        """
        # The journal tells of requests too, from a number on; of those we want none.
        query: dict[str, str | int] = {"kind": "create", "since": 1_000_000_000}
        answer = httpx.get(f"{self.url}/_emulator/journal", params=query, trust_env=False)
        answer.raise_for_status()
        return [
            Purchase(job_id=str(entry["job_id"]), idempotency_key=str(entry["idempotency_key"]))
            for entry in answer.json()["purchases"]
        ]


def _kept_port(path: Path) -> int:
    """The port of the last time, so that links from then still lead somewhere; a free one if it is taken."""
    port = int(path.read_text()) if path.exists() else 0
    if not port or listens(port):
        port = free_ports(1)[0]
        path.write_text(str(port))
    return port
