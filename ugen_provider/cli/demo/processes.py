# SPDX-License-Identifier: Apache-2.0
"""Processes of other programs: started in groups of their own, logged to files, always ended."""

import os
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

STOP_SECONDS = 10.0
"""How long a group has between SIGTERM and SIGKILL."""
GONE_SECONDS = 2.0
"""How long to wait for what was killed to be gone; not for ever, since nobody may collect an orphan's remains."""
NO_SIGNAL = 0


class ProcessDiedError(RuntimeError):
    """A process that should go on has ended by itself."""


class WaitTimeoutError(RuntimeError):
    """Something that should have become true did not, within its time."""


@dataclass(frozen=True, kw_only=True)
class Running:
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


class Service(ABC):
    """Something that consists of processes: up inside a `with` block, ended after it, whatever happened."""

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
        self.running: list[Running] = []
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
    ) -> Running:
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
        running = Running(name=name, popen=popen, log=log)
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


def stop_together(services: Sequence[Service], /) -> None:
    """End several services at once, since each takes some seconds to go.

    Args:
        services: What to end.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(services))) as pool:
        for ended in [pool.submit(service.stop) for service in services]:
            ended.result()


def python_module(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module with our Python.

    Args:
        module: The module.
        *arguments: What follows.

    Returns:
        Program and arguments.
    """
    # -P: the folder that we stand in never shadows an installed package.
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
    """The last lines of a log, indented.

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
    """Loopback ports that nobody listens on.

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
    """Whether somebody accepts connections on a loopback port.

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
        condition: Tells whether it holds.
        what: What is waited for, for the message.
        timeout: Seconds until giving up.
        interval: Seconds between two looks.
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
            # Whoever asks a process that has died gets a refused connection; that it died says more.
            for processes in watch:
                processes.check()
            raise
        for processes in watch:
            processes.check()
        if time.monotonic() > deadline:
            raise WaitTimeoutError(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(interval)


def child_environment(extra: Mapping[str, str], /) -> dict[str, str]:
    """The environment for a child: ours, without what would change how Airflow and Dagster behave.

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
