# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM while a command changes jobs: a flag, which ends waits and forbids further purchases.

Python's own Ctrl-C raises in any frame, also between a purchase and the record of its answer. Here a signal only sets a
flag in the event loop: a request in flight is answered and recorded, nothing is created, retried or resumed after it,
and waits end at once. A second signal cancels the request in flight too.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ugen_provider.cli.frame import INTERRUPTS
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.jobs.watcher import JobWatcher, WatchedWorld
from ugen_provider.core.ledger.record import OrderStore

T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_WAITS = frozenset({"wait", "sleep"})
_PATIENCE = 1.0
_NOTICE = "stopping: waiting for the answer to a request; press Ctrl-C again to end at once"


class StoppedError(UGenError):
    """The command received a stop signal; it sent nothing more that could change a job."""

    retryable = True


class StopFlag:
    """Flag: the command received a stop signal."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        """Whether a stop signal has arrived."""
        return self._event.is_set()

    def set(self) -> None:
        """Stop the command; called in the event loop."""
        self._event.set()

    async def wait_unless_set(self, wait: Awaitable[T]) -> T:
        """Wait for something that changes nothing; a signal ends the wait.

        Raises:
            StoppedError: A signal arrived.
        """
        waiting = asyncio.ensure_future(wait)
        stopped = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            raise StoppedError("stopped while waiting")
        finally:
            stopped.cancel()
            waiting.cancel()
            await asyncio.gather(waiting, stopped, return_exceptions=True)


class StoppableWorld(WatchedWorld):
    """A world whose waits a signal ends, and in which nothing is bought after it.

    Args:
        watcher: Waits for all jobs of the command; its client calls the API.
        store: Keeps the order's record.
        stop: The flag.
    """

    def __init__(self, watcher: JobWatcher, store: OrderStore, *, stop: StopFlag) -> None:
        super().__init__(watcher, store, is_stopping=lambda: stop.is_set)
        self._stop = stop

    async def contact(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make one contact; a wait ends at a signal.

        Raises:
            StoppedError: A signal arrived during a wait, or before a request that could cost credits.
        """
        if name in _WAITS:
            return await self._stop.wait_unless_set(super().contact(name, call))
        return await super().contact(name, call)


def run_stoppable(work: Callable[[StopFlag], Coroutine[Any, Any, T]], *, note: Callable[[str], None]) -> T:
    """Run a coroutine that watches a flag, which SIGINT and SIGTERM set.

    Args:
        work: Makes the coroutine.
        note: Shows a remark.

    Raises:
        KeyboardInterrupt: A second signal arrived, or one that the interpreter dropped before.
    """
    if INTERRUPTS.seen:
        raise KeyboardInterrupt

    async def main() -> T:
        stop = StopFlag()
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work(stop))
        notices: list[asyncio.TimerHandle] = []

        def on_signal() -> None:
            if stop.is_set:
                task.cancel()
            stop.set()
            INTERRUPTS.seen = True
            notices.append(loop.call_later(_PATIENCE, note, _NOTICE))

        # Signals reach the main thread alone; elsewhere, as in a test runner, the caller owns them.
        is_main = threading.current_thread() is threading.main_thread()
        for number in _SIGNALS if is_main else ():
            loop.add_signal_handler(number, on_signal)
        try:
            return await task
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            for notice in notices:
                notice.cancel()
            for number in _SIGNALS if is_main else ():
                loop.remove_signal_handler(number)
            INTERRUPTS.restore()

    return asyncio.run(main())
