# SPDX-License-Identifier: Apache-2.0
"""A ledger that hangs: the loop continues, each call is bounded, and an order is still bought once."""

import asyncio
import itertools
import subprocess
import sys
import threading
from dataclasses import replace

import anyio
import pytest

from tests.core.jobs.test_purchase import order
from tests.core.local import Local
from ugen_provider.core.jobs import threads
from ugen_provider.core.jobs.purchase import purchase_and_wait
from ugen_provider.core.jobs.threads import in_daemon, in_ledger_thread, in_thread
from ugen_provider.core.jobs.world import AsyncWorld
from ugen_provider.core.ledger.errors import LedgerUnavailableError
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.emulator.settings import Settings


@pytest.fixture
def released():
    """What hangs, until the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(threads, "LEDGER_SECONDS", 0.3)


@pytest.mark.usefixtures("impatient")
def test_hung_ledger_call_is_bounded_and_the_loop_continues(released):
    async def main():
        turns = 0

        async def other_work():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(other_work())
        with pytest.raises(LedgerUnavailableError, match="no answer within") as caught:
            await in_ledger_thread(released.wait)
        other.cancel()
        return turns, caught.value.retryable

    turns, retryable = asyncio.run(main())
    assert turns > 10
    assert retryable


@pytest.mark.usefixtures("impatient")
def test_exhausted_ledger_threads_hold_up_no_other_work(released, monkeypatch):
    monkeypatch.setattr(threads, "LEDGER_THREADS", 4)

    async def main():
        hung = [asyncio.create_task(in_ledger_thread(released.wait)) for _ in range(6)]
        await asyncio.sleep(0)
        assert await in_thread(int, "7") == 7, "downloads and questions have threads of their own"
        assert await asyncio.wrap_future(in_daemon(lambda: 8)) == 8
        found = await asyncio.gather(*hung, in_ledger_thread(int, "9"), return_exceptions=True)
        assert [type(each) for each in found] == [LedgerUnavailableError] * 7
        released.set()
        with anyio.fail_after(10):
            while True:  # the threads are free again as soon as the ledger answers
                try:
                    return await in_ledger_thread(int, "9")
                except LedgerUnavailableError:
                    continue

    assert asyncio.run(main()) == 9


def test_daemon_call_that_fails_raises_its_error():
    with pytest.raises(ValueError, match="invalid literal"):
        in_daemon(lambda: int("x")).result(timeout=10)


class HangingStore:
    """A store whose nth call hangs until it is released: it is done late, or was done and its answer is late."""

    def __init__(self, store, *, at, after, released):
        self._store, self._at, self._after, self._released = store, at, after, released
        self._calls = itertools.count(1)
        self.late = threading.Event()

    def __getattr__(self, name):
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def call(*arguments, **more):
            if next(self._calls) != self._at:
                return found(*arguments, **more)
            try:
                answer = found(*arguments, **more) if self._after else None
                self._released.wait()
                return answer if self._after else found(*arguments, **more)
            finally:
                self.late.set()

        return call


CALLS = 4
"""Calls of the store in an undisturbed purchase."""


@pytest.fixture
def local():
    return Local(Settings(speed=0, admin=True))


def obtain(local, store, attempt):
    async def main():
        async with local.async_client() as client:
            return await purchase_and_wait(AsyncWorld(client, store), replace(order(), attempt=attempt), interval=5)

    return asyncio.run(main())


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, CALLS + 1))
def test_purchase_with_a_ledger_that_hangs_buys_once(local, tmp_path, released, monkeypatch, at, after):
    """The next attempt begins while the call still hangs, and the call is done after that attempt has bought."""
    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger:
        store = LedgerOrderStore(ledger)
        hanging = HangingStore(store, at=at, after=after, released=released)
        with monkeypatch.context() as patch:
            patch.setattr(threads, "LEDGER_SECONDS", 0.3)
            with pytest.raises(LedgerUnavailableError):
                obtain(local, hanging, "first")
        second = obtain(local, store, "second")
        released.set()
        assert hanging.late.wait(10)
        third = obtain(local, store, "third")
        assert third.job.job_id == second.job.job_id
        assert third.record.job_id == second.job.job_id
    assert local.created == 1


def test_purchase_without_trouble_makes_these_calls(local, tmp_path, released):
    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger:
        store = HangingStore(LedgerOrderStore(ledger), at=CALLS + 1, after=True, released=released)
        assert obtain(local, store, "first").job.final_video_url
        assert not store.late.is_set()
        released.set()
        store.read("another order")
        assert store.late.is_set()


def test_waiting_for_jobs_imports_no_database():
    """A triggerer without a ledger waits, cancels and keeps records without SQLAlchemy."""
    code = (
        "import sys, ugen_provider.core.jobs.watcher, ugen_provider.core.jobs.purchase;"
        "print([name for name in ('sqlalchemy', 'psycopg') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
