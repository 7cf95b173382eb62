# SPDX-License-Identifier: Apache-2.0
"""Clients of an emulator whose clock is fast, moved by requests, or moved by hand: they do not sleep real seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ugen_provider import AsyncUGenClient, UGenClient
from ugen_provider.core.api.clock import EmulatorTime, SystemClock
from ugen_provider.core.api.errors import EmulatorClockError
from ugen_provider.core.api.polling import Goal
from ugen_provider.core.jobs.watcher import JobWatcher
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

ORDER = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.jpg", "segment_count": 2}


class CountingClock(SystemClock):
    """The machine's clock, which counts the seconds that were slept."""

    def __init__(self) -> None:
        self.slept = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        super().sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        self.slept += seconds
        await super().asleep(seconds)


@contextmanager
def serving(**settings: Any) -> Iterator[EmulatorServer]:
    with EmulatorServer(Settings(admin=True, **settings)) as server:
        yield server


def wait_blocking(server: EmulatorServer, clock: SystemClock) -> str:
    with UGenClient(api_key=LOCAL_KEY, base_url=server.base_url, clock=clock) as client:
        return client.jobs.wait_until(client.jobs.create(ORDER).job_id, goal=Goal()).job.status


def wait_by_watcher(server: EmulatorServer, clock: SystemClock) -> str:
    async def wait() -> str:
        async with AsyncUGenClient(api_key=LOCAL_KEY, base_url=server.base_url, clock=clock) as client:
            jobs = [await client.jobs.create(ORDER) for _ in range(6)]
            watcher = JobWatcher(client)
            outcomes = await asyncio.gather(*(watcher.wait(job.job_id) for job in jobs))
            return str({outcome.job.status for outcome in outcomes}.pop())

    return asyncio.run(wait())


WAITS = pytest.mark.parametrize("wait", [wait_blocking, wait_by_watcher], ids=["client", "watcher"])


@WAITS
@pytest.mark.parametrize(
    ("settings", "most"), [({"speed": 0, "tick": 60.0}, 2.0), ({"speed": 240}, 5.0)], ids=["requests", "fast"]
)
def test_wait_for_minutes_sleeps_few_seconds(wait: Any, settings: Any, most: float) -> None:
    with serving(**settings) as server:
        clock = CountingClock()
        assert wait(server, clock) == "completed"
        assert clock.slept < most  # at the default interval, a poll alone is 10 s apart


@WAITS
def test_wait_for_a_stopped_clock_raises(wait: Any) -> None:
    with serving(speed=0, patience=0.5) as server, pytest.raises(EmulatorClockError, match="ugen_clock"):
        wait(server, SystemClock())


def test_wait_for_a_clock_moved_by_hand_ends() -> None:
    with serving(speed=0, patience=5.0) as server, UGenClient(api_key=LOCAL_KEY, base_url=server.base_url) as client:
        job = client.jobs.create(ORDER)
        seen: list[str] = []

        def advance(answer: Any) -> None:
            seen.append(answer.status)
            server.emulator.advance(30.0)  # as another thread of a test would

        assert client.jobs.wait_until(job.job_id, goal=Goal(), on_progress=advance).job.status == "completed"
        assert len(seen) > 2


def test_stopped_clock_without_patience_warns(caplog: pytest.LogCaptureFixture) -> None:
    stopped = EmulatorTime("stopped", 1.0)
    for _ in range(200):
        stopped.count(0.05)
    assert caplog.text.count("clock is stopped") == 1


def test_clock_of_the_real_service_is_not_read() -> None:
    clock = SystemClock()
    with UGenClient(api_key=LOCAL_KEY, clock=clock, http_client=_answering({"x-ugen-clock": "requests"})) as client:
        client.credits.balance()
    assert clock.emulator is None


@pytest.mark.parametrize("header", ["", "speed=fast", "stopped=1; patience=-1", "requests; now", "speed=1e999999"])
def test_header_that_is_not_understood_changes_nothing(header: str) -> None:
    read = EmulatorTime.read(header)
    assert read is None or read.pause(10.0) > 0


def _answering(headers: dict[str, str]) -> Any:
    import httpx

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"balance": 1, "reserved": 0, "available": 1}, headers=headers)

    return httpx.Client(transport=httpx.MockTransport(answer))
