# SPDX-License-Identifier: Apache-2.0
"""The process of a client and a watcher: its clock, which tests move themselves, and its forks."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ugen_provider.core.api.errors import EmulatorClockError
from ugen_provider.core.text import get_logger

if TYPE_CHECKING:
    import asyncio

CLOCK_HEADER = "x-ugen-clock"
"""Header of an emulator's answers whose clock does not run as real time does."""

_STOPPED_PAUSE = 0.05
_LEAST_SCALED_PAUSE = 0.5
_REPORTED_AFTER = 5.0
_VALUE = re.compile(r"(speed|requests|stopped)(?:=([0-9.e+-]{1,40}))?(?:; patience=([0-9.]{1,20}))?")
_log = get_logger("ugen_provider.api")


T = TypeVar("T")


class Clock(Protocol):
    """Time of day, a steady tick, and waiting."""

    def now(self) -> float:
        """Return the seconds since the epoch; may be set back."""
        ...

    def tick(self) -> float:
        """Return the seconds of a clock that is never set back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the thread for some seconds."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Wait for some seconds, letting other tasks run."""
        ...


class HasClock(Protocol):
    """A client, sync or async."""

    _clock: Clock


def clock_of(client: HasClock) -> Clock:
    """Return the clock by which a client waits: what `core.jobs` is built on."""
    return client._clock  # noqa: SLF001  hidden from users alone


@dataclass(slots=True)
class EmulatorTime:
    """The time of an emulator, as its answers report it, and how long a client waited while it was stopped.

    Attributes:
        kind: `speed` for a clock that runs faster or slower, `requests` for one that each request moves, `stopped` for
            one that is moved by hand.
        value: The speed; for a stopped clock, its time.
        patience: Seconds of waiting after which a stopped clock is an error; None waits without limit.
        waited: Seconds that were waited while it was stopped.
    """

    kind: str
    value: float = 0.0
    patience: float | None = None
    waited: float = field(default=0.0, compare=False)

    @classmethod
    def read(cls, header: str) -> EmulatorTime | None:
        """Read the header; None where it is not understood.

        Examples:
            >>> EmulatorTime.read("speed=60").pause(120.0)
            2.0
            >>> EmulatorTime.read("requests").pause(120.0)
            0.0
        """
        found = _VALUE.fullmatch(header)
        if found is None:
            return None
        try:
            return cls(found[1], float(found[2] or 0.0), float(found[3]) if found[3] else None)
        except ValueError:
            return None

    def pause(self, seconds: float) -> float:
        """Return the real seconds to wait where the service's own time asks for some."""
        if self.kind == "requests":
            return 0.0
        if self.kind == "stopped":
            return min(seconds, _STOPPED_PAUSE)
        return min(seconds, max(_LEAST_SCALED_PAUSE, seconds / self.value)) if self.value > 0 else seconds

    def count(self, seconds: float) -> None:
        """Count a wait.

        Raises:
            EmulatorClockError: The clock is stopped, and the emulator does not want that to be waited for.
        """
        if self.kind != "stopped":
            return
        before, self.waited = self.waited, self.waited + seconds
        if self.patience is not None and self.waited > self.patience:
            raise EmulatorClockError(self.waited)
        if before <= _REPORTED_AFTER < self.waited:
            _log.warning("%s", EmulatorClockError(self.waited))


class SystemClock:
    """Clock of the machine, for production use.

    Attributes:
        emulator: The time of an emulator that answered; None for the real service.
    """

    emulator: EmulatorTime | None = None

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    def tick(self) -> float:
        """Return the seconds of the monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block the thread for some seconds."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Wait for some seconds, letting other tasks run."""
        import anyio

        await anyio.sleep(seconds)


def hear_clock(clock: Clock, header: str | None) -> None:
    """Keep what an answer says about the service's clock. A clock that a test moves itself is left alone."""
    if not isinstance(clock, SystemClock) or (header is None and clock.emulator is None):
        return
    heard = EmulatorTime.read(header) if header is not None else None
    if heard != clock.emulator:
        clock.emulator = heard


def poll_pause(clock: Clock, seconds: float) -> float:
    """Return the real seconds between two polls that are some seconds of the service's time apart.

    They are the same, except with an emulator whose clock is fast, is stopped, or is moved by the requests.
    """
    emulator = clock.emulator if isinstance(clock, SystemClock) else None
    return seconds if emulator is None else emulator.pause(seconds)


def count_wait(clock: Clock, seconds: float) -> None:
    """Count a wait for the service.

    Raises:
        EmulatorClockError: An emulator's clock is stopped, and it does not want that to be waited for.
    """
    emulator = clock.emulator if isinstance(clock, SystemClock) else None
    if emulator is not None:
        emulator.count(seconds)


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """Make a blocking call in a thread and return its result. Cancelling the caller does not end the call."""
    import anyio.to_thread

    return await anyio.to_thread.run_sync(call, *args)


def in_line(call: Callable[..., T], *args: object) -> T:
    """Make the call here: what `in_thread` becomes in the blocking twin."""
    return call(*args)


@asynccontextmanager
async def calls_from_threads() -> AsyncIterator[Callable[..., Any]]:
    """Give a function by which threads make this event loop's calls: `call(function, *args)` returns the result."""
    from anyio.from_thread import BlockingPortal

    async with BlockingPortal() as portal:
        yield portal.call


@contextmanager
def calls_in_line() -> Iterator[Callable[..., Any]]:
    """Give a function that makes the calls where it is called: what `calls_from_threads` becomes in the twin."""
    yield in_line


async def asleep_unless(event: asyncio.Event, *, clock: Clock, seconds: float) -> None:
    """Wait for some seconds or until an event is set, and cancel the other of the two.

    Args:
        event: Ends the wait early.
        clock: The clock.
        seconds: The longest wait; infinite to wait for the event alone.
    """
    import asyncio

    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait())]
    if seconds != float("inf"):
        waits.append(asyncio.ensure_future(clock.asleep(seconds)))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()


class _Forks:
    count = 0


def _count_fork() -> None:
    _Forks.count += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def fork_count() -> int:
    """Return the number of forks between the first process that imported this package and this one.

    An object that was created under another count belongs to another process. Its connections and event loops must
    neither be used nor closed, since the other process shares them. A process id proves less: it can be reused.
    """
    return _Forks.count


_abandoned: list[object] = []


def abandon(*objects: object) -> None:
    """Keep another process's objects until this process ends, neither used nor closed nor collected.

    Collecting a connection or a task lets the event loop clean up, which can reach the other process's loop: both share
    the kernel's list of watched sockets.
    """
    _abandoned.append(objects)
