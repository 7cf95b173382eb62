# SPDX-License-Identifier: Apache-2.0
"""Processes of other programs, the local U-Gen among them: in groups of their own, logged to files, always ended."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from ugen_provider import UGenClient

STOP_SECONDS = 10.0
"""How long a group has between SIGTERM and SIGKILL."""
GONE_SECONDS = 2.0
"""How long to wait for killed processes to be gone; not for ever, since an orphan's remains may never be collected."""
NO_SIGNAL = 0


class ProcessDiedError(RuntimeError):
    """A process that should continue has ended by itself."""


class WaitTimeoutError(RuntimeError):
    """Something that should have become true did not, within its time."""


@dataclass(frozen=True, kw_only=True)
class ProcessHandle:
    """One process group that was started here."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def signal_group(self, number: int, /) -> bool:
        """Send a signal to all of the group, its orphans included.

        Args:
            number: The signal; 0 only asks.

        Returns:
            Whether anybody was there to get it.
        """
        try:
            os.killpg(self.popen.pid, number)
        except ProcessLookupError:
            return False
        return True


class ProcessGroup(ABC):
    """Something that consists of processes: up inside a `with` block, ended after it, also after an error."""

    @abstractmethod
    def up(self) -> None:
        """Start it, and return once it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """End all of its processes."""

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            # `__exit__` is not called for a block that was never entered.
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Processes:
    """A set of process groups that live and end together; `stop` has to be called, so see `Service`.

    Examples:
        ```python
        processes = Processes()
        processes.start("web", ["python", "-m", "http.server"], env=os.environ, log=Path("web.log"))
        processes.stop()
        ```
    """

    def __init__(self) -> None:
        self.running: list[ProcessHandle] = []
        self.stopped = False

    def start(
        self,
        name: str,
        command: Sequence[str],
        /,
        *,
        env: Mapping[str, str],
        log: Path,
        cwd: Path | None = None,
    ) -> ProcessHandle:
        """Start a process in a session of its own, so that a signal reaches all that it starts.

        Args:
            name: What messages call it.
            command: Program and arguments.
            env: The whole environment of the process.
            log: Where its output goes, appended.
            cwd: The folder that it runs in.

        Returns:
            The running group.

        Raises:
            ProcessDiedError: The set was stopped already.
        """
        if self.stopped:
            raise ProcessDiedError(f"{name} is not started: the others were stopped")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            popen = subprocess.Popen(
                command,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = ProcessHandle(name=name, popen=popen, log=log)
        self.running.append(running)
        return running

    def check(self) -> None:
        """Make sure that all of them still run.

        Raises:
            ProcessDiedError: One has ended, and the message has the end of its log; or all were stopped.
        """
        if self.stopped:
            raise ProcessDiedError("it was stopped")
        for process in self.running:
            code = process.popen.poll()
            if code is not None:
                raise ProcessDiedError(
                    f"{process.name} ended with exit code {code}; its log is {process.log} and ends:\n"
                    f"{tail(process.log)}"
                )

    def stop(self) -> None:
        """End all groups: SIGTERM to each, SIGKILL to what is left after 10 s."""
        self.stopped = True
        ended, self.running = self.running, []
        for process in ended:
            process.signal_group(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in ended:
            try:
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
        for process in ended:
            # The leader may be gone while a child of it lives on, and holds a port.
            process.signal_group(signal.SIGKILL)
            process.popen.wait()
        deadline = time.monotonic() + GONE_SECONDS
        while any(process.signal_group(NO_SIGNAL) for process in ended) and time.monotonic() < deadline:
            time.sleep(0.01)


def stop_together(services: Sequence[ProcessGroup], /) -> None:
    """End several services at once, since each takes some seconds to go.

    Args:
        services: What to end.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(services))) as pool:
        for ended in [pool.submit(service.stop) for service in services]:
            ended.result()


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module with our Python.

    Args:
        module: The module.
        *arguments: What follows.

    Returns:
        Program and arguments.
    """
    # -P: the working directory never shadows an installed package.
    return [sys.executable, "-P", "-m", module, *arguments]


def run_to_end(command: Sequence[str], /, *, env: Mapping[str, str], log: Path, cwd: Path) -> None:
    """Run a command that ends by itself.

    Args:
        command: Program and arguments.
        env: Its whole environment.
        log: Where its output goes.
        cwd: The folder that it runs in.

    Raises:
        ProcessDiedError: It failed; the message has the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        done = subprocess.run(command, env=dict(env), cwd=cwd, stdout=out, stderr=out, check=False)
    if done.returncode != 0:
        said = " ".join(command[1:])
        raise ProcessDiedError(f"`{said}` failed; its log is {log} and ends:\n{tail(log)}")


def tail(log: Path, *, lines: int = 15) -> str:
    """Return the last lines of a log, indented.

    Args:
        log: The file; it may be missing.
        lines: How many.

    Returns:
        The lines, or a remark that there are none.
    """
    if not log.exists():
        return "  (no log)"
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-lines:])


def free_ports(count: int, /) -> list[int]:
    """Return loopback ports without a listener.

    Args:
        count: How many different ones.

    Returns:
        The ports.
    """
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def listens(port: int, /) -> bool:
    """Return whether a server accepts connections on a loopback port.

    Args:
        port: The port.

    Returns:
        True if a connection could be made.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def wait_until(
    condition: Callable[[], bool],
    /,
    *,
    what: str,
    timeout: float,
    interval: float = 0.2,
    watch: Iterable[Processes] = (),
) -> None:
    """Look again and again until a condition holds.

    Args:
        condition: Returns whether it holds.
        what: What is waited for, for the message.
        timeout: Seconds until giving up.
        interval: Seconds between two checks.
        watch: Processes without which waiting is of no use.

    Raises:
        ProcessDiedError: One of the watched processes has ended.
        WaitTimeoutError: The time is over.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            if condition():
                return
        except Exception:
            # A request to an ended process gives a refused connection; the end of the process says more.
            for processes in watch:
                processes.check()
            raise
        for processes in watch:
            processes.check()
        if time.monotonic() > deadline:
            raise WaitTimeoutError(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(interval)


def child_environment(extra: Mapping[str, str], /) -> dict[str, str]:
    """Return the environment for a child: ours, without what would change how Airflow and Dagster behave.

    Args:
        extra: What is set on top.

    Returns:
        The environment.
    """
    ours = {
        name: value
        for name, value in os.environ.items()
        # Without .pyc files each of the processes would compile what it imports again.
        if not name.startswith(("AIRFLOW_", "DAGSTER_", "UGEN_")) and name != "PYTHONDONTWRITEBYTECODE"
    }
    return ours | {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"} | dict(extra)


LOCAL_KEY = "ugen_sk_local"
ANNOUNCED = re.compile(r"U-Gen emulator listening on (http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPurchase:
    """A job that was bought, as the emulator's journal keeps it for good."""

    job_id: str
    idempotency_key: str


class LocalUGen(ProcessGroup):
    """An emulator with a database of its own; a second start on it continues where it was.

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
        """End the process of the emulator."""
        self.client.close()
        self.processes.stop()

    def available_credits(self) -> int:
        """Return the credits that the account could still spend.

        Returns:
            The balance without what is reserved.
        """
        return self.client.credits.balance().available_credits

    def purchases(self) -> list[DemoPurchase]:
        """Return every job that was ever created here.

        Returns:
            Oldest first.
        """
        # The journal has requests too, from a number on; of those we want none.
        query: dict[str, str | int] = {"kind": "create", "since": 1_000_000_000}
        answer = httpx.get(f"{self.url}/_emulator/journal", params=query, trust_env=False)
        answer.raise_for_status()
        return [
            DemoPurchase(job_id=str(entry["job_id"]), idempotency_key=str(entry["idempotency_key"]))
            for entry in answer.json()["purchases"]
        ]


def _kept_port(path: Path) -> int:
    """Return the port of the last time, so that links from then still lead somewhere; a free one if it is taken."""
    port = int(path.read_text()) if path.exists() else 0
    if not port or listens(port):
        port = free_ports(1)[0]
        path.write_text(str(port))
    return port
