# SPDX-License-Identifier: Apache-2.0
"""Accounts with few slots: twenty mapped tasks without a retry all complete, and the slots are hardly ever empty.

Everything runs in this process on one clock that only moves when everybody waits.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.airflow.conftest import Attempts
from tests.core.local import InProcess
from ugen_provider.core.api import transport as api_transport
from ugen_provider.core.api.clock import EmulatorTime, SystemClock
from ugen_provider.emulator.api.service import Service
from ugen_provider.emulator.settings import Settings, TenantSettings
from ugen_provider.emulator.world.world import World
from ugen_provider.operators.jobs import UGenCreateJobOperator
from ugen_provider.version_compat import TaskDeferred

SCHEDULING = 2.0
"""Seconds between a trigger's event and the task's worker."""


@dataclass
class Simulation:
    """An account, and an Airflow of which only the waiting is real."""

    world: World
    sleepers: list[tuple[float, int, asyncio.Future[None]]] = field(default_factory=list)
    number: Any = field(default_factory=itertools.count)
    moves: int = 0
    skew: float = 0.0
    """Seconds by which the clock of the machine is wrong."""

    async def asleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self.sleepers, (self.world.now() + seconds, next(self.number), future))
        self.moves += 1
        await future

    async def keep_time(self) -> None:
        """Move the clock to the next who wakes, whenever nothing else happens any more."""
        while True:
            before = self.moves
            for _ in range(3):
                await asyncio.sleep(0.002)
            if self.moves != before or not self.sleepers:
                continue
            due = self.sleepers[0][0]
            self.world.advance(max(0.0, due - self.world.now()))
            while self.sleepers and self.sleepers[0][0] <= due:
                _, _, future = heapq.heappop(self.sleepers)
                if not future.done():
                    future.set_result(None)

    def take_the_place_of_time_and_network(self, monkeypatch: pytest.MonkeyPatch, transport: InProcess) -> None:
        """From now on every client reaches this account, and all waits use its clock."""
        monkeypatch.setattr(SystemClock, "now", lambda _: self.world.now() + self.skew)
        monkeypatch.setattr(SystemClock, "tick", lambda _: self.world.now())
        monkeypatch.setattr(SystemClock, "sleep", lambda _, seconds: None)
        monkeypatch.setattr(SystemClock, "asleep", lambda _, seconds: self.asleep(seconds))
        # Each wait moves the emulator's clock by as much: none may be cut short because that clock stands still.
        monkeypatch.setattr(EmulatorTime, "pause", lambda _, seconds: seconds)
        monkeypatch.setattr(EmulatorTime, "count", lambda _, seconds: None)
        sync_client, async_client = httpx.Client, httpx.AsyncClient
        monkeypatch.setattr(api_transport.httpx, "Client", lambda **_: sync_client(transport=transport))
        monkeypatch.setattr(api_transport.httpx, "AsyncClient", lambda **_: async_client(transport=transport))

    async def task(self, number: int) -> dict[str, Any]:
        """Return what Airflow does with one mapped task that has no retry."""
        return await self.attempt(number, Attempts().next())

    async def attempt(self, number: int, context: Any, *, conn: str = "ugen_default") -> dict[str, Any]:
        """One attempt of it, from its start over every deferral to its end."""
        operator = UGenCreateJobOperator(
            task_id="job",
            product_name=f"Product {number}",
            product_image_url="https://shop.example/l.png",
            segment_count=1,
            deferrable=True,
            poll_interval=5,
            ugen_conn_id=conn,
        )
        context["ti"].map_index = number
        method, event = None, None
        while True:
            try:
                if method is None:
                    return dict(operator.execute(context))
                return dict(operator.resume_execution(method, {"event": event}, context))
            except TaskDeferred as deferred:
                method = deferred.method_name
                event = await self.event_of(number, deferred.trigger)
                await self.asleep(SCHEDULING)

    async def event_of(self, number: int, trigger: Any) -> Any:
        """Return the event of a trigger."""
        return await first_event(trigger)

    async def run(self, tasks: int) -> list[dict[str, Any]]:
        keeper = asyncio.create_task(self.keep_time())
        try:
            return list(await asyncio.gather(*(self.task(number) for number in range(tasks))))
        finally:
            keeper.cancel()


async def first_event(trigger: Any) -> Any:
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(**limits: Any) -> Simulation:
        world = World(Settings(speed=0, admin=True, tenants=(TenantSettings(**limits),)))
        world.set_base_url("http://127.0.0.1:1")
        simulation, transport = Simulation(world), InProcess(Service(world))
        simulation.take_the_place_of_time_and_network(monkeypatch, transport)
        stored = {"conn_type": "ugen", "password": "ugen_sk_local", "extra": {"base_url": "http://127.0.0.1:1/api/v1"}}
        monkeypatch.setenv("AIRFLOW_CONN_UGEN_DEFAULT", json.dumps(stored))
        return simulation

    return make


def spans(world: World) -> list[tuple[float, float]]:
    """From when to when each job held its slot."""
    from ugen_provider import UGenClient

    with UGenClient(api_key="ugen_sk_local", base_url="http://127.0.0.1:1/api/v1") as client:
        jobs = [client.jobs.get(job.job_id) for job in client.jobs.list()]
    return [(job.created_at.timestamp(), job.completed_at.timestamp()) for job in jobs]


def test_three_slots_and_twenty_tasks_leave_hardly_a_slot_empty(simulate: Any) -> None:
    simulation = simulate(concurrent_jobs=3)
    results = asyncio.run(simulation.run(20))
    assert [result["status"] for result in results] == ["completed"] * 20
    assert len(simulation.world.journal.find_purchases(kind="create")) == 20
    held = spans(simulation.world)
    began, last = min(start for start, _ in held), max(start for start, _ in held)
    used = sum(min(end, last) - start for start, end in held if start < last)
    assert used / (3 * (last - began)) >= 0.95


def test_a_daily_limit_with_hours_to_wait_is_waited_out(simulate: Any) -> None:
    simulation = simulate(daily_jobs=8)
    began = simulation.world.now()
    results = asyncio.run(simulation.run(20))
    assert [result["status"] for result in results] == ["completed"] * 20
    assert len(simulation.world.journal.find_purchases(kind="create")) == 20
    refused = simulation.world.journal.find_requests(method="POST", path="/api/v1/jobs", status=429)
    assert simulation.world.now() - began > 24 * 3600
    assert len(refused) <= 20 + 12 + 4
