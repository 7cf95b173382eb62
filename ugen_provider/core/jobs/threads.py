# SPDX-License-Identifier: Apache-2.0
"""Blocking calls made in a thread where an event loop must not stop.

Calls of a ledger have threads of their own, so that no download, and no question to an orchestrator, keeps a record
from being written.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TypeVar

import anyio
from anyio.lowlevel import RunVar

from ugen_provider.core.api.clock import in_line as in_line  # noqa: PLC0414
from ugen_provider.core.api.clock import in_thread as in_thread  # noqa: PLC0414
from ugen_provider.core.ledger.errors import LedgerUnavailableError

T = TypeVar("T")
LEDGER_THREADS = 40
"""Calls of a ledger at a time in one event loop. Writes that come together share a commit, so few would be slow."""

LEDGER_SECONDS = 75.0
"""Longer than SQLite waits for another process that writes (60 s), which is no reason to stop a run."""

_limiters: RunVar[anyio.CapacityLimiter] = RunVar("ugen_ledger_limiter")


async def in_ledger_thread(call: Callable[..., T], *args: object) -> T:
    """Make a blocking call of a ledger in a thread, and wait for at most `LEDGER_SECONDS`, a free thread included.

    A call that is given up may still be done later, as where the answer of a commit is lost: the caller sends nothing
    that costs credits after it, and the next attempt reads the record. Until then it counts against `LEDGER_THREADS`.

    Raises:
        LedgerUnavailableError: There was no answer in time.
    """
    limiter = _limiters.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(LEDGER_THREADS)
        _limiters.set(limiter)
    with anyio.move_on_after(LEDGER_SECONDS):
        await limiter.acquire_on_behalf_of(borrower := object())
        loop, release = asyncio.get_running_loop(), partial(limiter.release_on_behalf_of, borrower)
        future = in_daemon(partial(call, *args))
        future.add_done_callback(partial(_call_in_loop, loop, release))
        return await asyncio.wrap_future(future)
    raise LedgerUnavailableError(f"no answer within {LEDGER_SECONDS:g} s")


def _call_in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None], _done: Future[T]) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(call)


def in_daemon(call: Callable[[], T]) -> Future[T]:
    """Make a blocking call in a thread of its own, which waits for no pool and keeps no process from ending."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # a caller that gives up leaves it running
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(call)
        except BaseException as error:  # noqa: BLE001  the waiter gets it
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, daemon=True, name="ugen-ledger").start()
    return future
