# SPDX-License-Identifier: Apache-2.0
"""A synchronous shell around an async core, so that a termination always reaches the jobs.

Dagster interrupts a run by raising in whatever the main thread executes. Were that the event loop, the interrupt could
end up inside any task, or in half a database write. So the loop runs in a thread of its own, the main thread does
nothing but wait, and an interrupt finds it there.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from time import monotonic
from typing import Generic, Protocol, TypeVar

from dagster_ugen._compat import INTERRUPTS

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_log = logging.getLogger("dagster_ugen")
_CLOSING_SECONDS = 2.0


class Core(Protocol[T_co]):
    """What runs in the loop."""

    async def run(self) -> T_co:
        """Do the work."""
        ...

    async def stop(self) -> None:
        """The run was interrupted: end the work, and do with the jobs what is to be done.

        It runs beside `run`, in the same loop, and has to end within the grace period.
        """
        ...


class Shell(Generic[T]):
    """Runs a core, waits for it, and passes an interrupt on to it.

    Args:
        core: What to run.
        grace: Seconds that `Core.stop` gets; Dagster, or the machine, ends the process some time after.
    """

    def __init__(self, core: Core[T], *, grace: float) -> None:
        self._core = core
        self._grace = grace
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._result: Future[T] = Future()

    def run(self) -> T:
        """Run the core to its end.

        Raises:
            BaseException: The interrupt, raised again after the core was told of it; else what the core raised.
        """
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(self._thread), name="dagster-ugen", daemon=True)
        try:
            thread.start()
            return self._result.result()
        except INTERRUPTS:
            self._stop()
            raise

    def _stop(self) -> None:
        """Tell the core, and wait for it whatever else arrives: a second signal must not cut a cancel short.

        When this returns, nothing of the run goes on behind: what the grace did not suffice for is given up.
        """
        until = monotonic() + self._grace
        told: Future[None] | None = None
        while True:
            try:
                if told is None:
                    told = asyncio.run_coroutine_threadsafe(self._core.stop(), self._loop.result(timeout=self._grace))
                told.result(timeout=max(0.0, until - monotonic()))
            except INTERRUPTS:
                continue
            except FutureTimeoutError:
                _log.warning(
                    "the jobs could not all be dealt with in %.0f s; the next run goes on with them", self._grace
                )
                if told is not None:
                    told.cancel()
                break
            except Exception:  # noqa: BLE001  an interrupt is raised again whatever becomes of this
                _log.exception("an interrupted run could not deal with its jobs; the next run goes on with them")
                break
            else:
                break
        self._wait_for_the_end(until=max(until, monotonic() + _CLOSING_SECONDS))

    def _wait_for_the_end(self, *, until: float) -> None:
        while True:
            try:
                self._result.exception(timeout=max(0.0, until - monotonic()))
            except INTERRUPTS:
                continue
            except (FutureTimeoutError, CancelledError):
                return
            else:
                return

    def _thread(self) -> None:
        try:
            result = asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001  carried to the thread that waits
            self._result.set_exception(error)
        else:
            self._result.set_result(result)

    async def _main(self) -> T:
        self._loop.set_result(asyncio.get_running_loop())
        return await self._core.run()
