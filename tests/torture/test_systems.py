# SPDX-License-Identifier: Apache-2.0
"""A hundred jobs in flight while something happens to the service, the clock, the key or the triggerer.

The real operators and triggers run in this process on one clock that only moves when everybody waits, and so does the
real feed runner. The oracle is the emulator's journal and books. Real processes are ended in `tests/real`, PostgreSQL
in `test_database.py`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.airflow.conftest import Attempts
from tests.airflow.test_slots import Simulation, first_event
from tests.batch.conftest import Shop
from tests.core.local import InProcess, Local
from ugen_provider.emulator.api.service import Service
from ugen_provider.emulator.settings import LOCAL_KEY, Settings, TenantSettings
from ugen_provider.emulator.world.world import World
from ugen_provider.ledger import Ledger
from ugen_provider.version_compat import TaskDeferred

JOBS = 100
NEW_KEY = "ugen_sk_after_the_rotation"
BASE = "http://127.0.0.1:1/api/v1"


class Stage(Simulation):
    """An Airflow of which only the waiting is real, and a service to which things happen at some moment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(World(Settings(speed=0, admin=True, tenants=(TenantSettings(api_keys=(LOCAL_KEY, NEW_KEY)),))))
        self.world.set_base_url("http://127.0.0.1:1")
        self.transport = InProcess(Service(self.world))
        self.began = self.world.now()
        self.lost = 0
        self.connections = ["ugen_default"]
        self.patch = monkeypatch
        self.waiting: dict[int, asyncio.Task[Any]] = {}
        self.take_the_place_of_time_and_network(monkeypatch, self.transport)
        self.set_key(LOCAL_KEY)

    @property
    def passed(self) -> float:
        return self.world.now() - self.began

    def set_key(self, key: str) -> None:
        stored = json.dumps({"conn_type": "ugen", "password": key, "extra": {"base_url": BASE}})
        for name in ("UGEN_DEFAULT", "UGEN_OTHER"):
            self.patch.setenv(f"AIRFLOW_CONN_{name}", stored)

    def whenever(self, during: Callable[[float], bool], answer: Callable[[], httpx.Response]) -> None:
        """Let something else be answered while a time lasts."""
        self.transport.meddle = lambda _, real: answer() if during(self.passed) else real()

    async def at(self, seconds: float, act: Callable[[], None]) -> None:
        await self.asleep(seconds)
        act()

    async def task(self, number: int) -> dict[str, Any]:
        """One mapped task, begun when the morning's other tasks are: over two minutes. Retried as often as it takes."""
        await self.asleep(1.2 * number)
        attempts, conn = Attempts(), self.connections[number % len(self.connections)]
        for _ in range(30):
            try:
                return await self.attempt(number, attempts.next(), conn=conn)
            except TaskDeferred:
                raise
            except Exception:  # Airflow retries after any error
                await self.asleep(60.0)
        raise AssertionError(f"task {number} never came to an end")

    async def event_of(self, number: int, trigger: Any) -> Any:
        """Run a trigger; a triggerer that is lost ends it, and another one makes it again from what is stored."""
        path, arguments = trigger.serialize()
        kind = type(trigger)
        assert path.endswith(kind.__name__)
        while True:
            running = asyncio.ensure_future(first_event(kind(**arguments)))
            self.waiting[number] = running
            try:
                return await running
            except asyncio.CancelledError:
                if not running.cancelled():
                    raise
                await self.asleep(30.0)

    def lose_triggers(self, share: float) -> None:
        draw = random.Random(1)
        for running in list(self.waiting.values()):
            if not running.done() and draw.random() < share:
                running.cancel()
                self.lost += 1

    async def play(self, *scenes: Any) -> list[dict[str, Any]]:
        keeper = asyncio.create_task(self.keep_time())
        acting = [asyncio.create_task(scene) for scene in scenes]
        try:
            return list(await asyncio.gather(*(self.task(number) for number in range(JOBS))))
        finally:
            for each in (keeper, *acting):
                each.cancel()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def check(stage: Stage, results: list[dict[str, Any]]) -> None:
    journal = stage.world.journal
    bought = journal.find_purchases(kind="create")
    assert [result["status"] for result in results] == ["completed"] * JOBS
    assert len({result["job_id"] for result in results}) == JOBS
    assert len(bought) == JOBS
    assert {entry.job_id for entry in bought} == {result["job_id"] for result in results}
    assert journal.find_purchases(kind="retry") == []
    assert stage.world.accounts.by_name["local"].credits.reserved == 0


def refuse() -> httpx.Response:
    raise httpx.ConnectError("the service is away")


def busy() -> httpx.Response:
    return httpx.Response(429, headers={"Retry-After": "60"}, json={"error": {"code": "RATE_LIMITED", "message": "no"}})


@pytest.mark.torture
@pytest.mark.parametrize("begins", [30.0, 100.0])
def test_the_service_is_away_for_ten_minutes(stage: Stage, begins: float) -> None:
    stage.whenever(lambda passed: begins <= passed < begins + 600, refuse)
    check(stage, asyncio.run(stage.play()))
    assert stage.passed > begins + 600


@pytest.mark.torture
@pytest.mark.parametrize("begins", [30.0, 100.0])
def test_every_request_is_refused_by_429_for_an_hour(stage: Stage, begins: float) -> None:
    stage.whenever(lambda passed: begins <= passed < begins + 3600, busy)
    check(stage, asyncio.run(stage.play()))
    assert stage.passed > begins + 3600


@pytest.mark.torture
@pytest.mark.parametrize("by", [-3600.0, -7 * 86400.0, 3600.0])
def test_the_clock_of_the_machine_is_set(stage: Stage, by: float) -> None:
    check(stage, asyncio.run(stage.play(stage.at(60.0, lambda: setattr(stage, "skew", by)))))


def test_the_key_is_rotated_while_a_hundred_wait(stage: Stage) -> None:
    """The old one is refused from one moment on; the connection gets the new one two minutes later."""

    def revoke() -> None:
        def meddle(request: Any, real: Callable[[], httpx.Response]) -> httpx.Response:
            if request.headers.get("x-api-key") == LOCAL_KEY:
                return httpx.Response(401, json={"error": {"code": "UNAUTHORIZED", "message": "unknown key"}})
            return real()

        stage.transport.meddle = meddle

    scenes = [stage.at(90.0, revoke), stage.at(210.0, lambda: stage.set_key(NEW_KEY))]
    check(stage, asyncio.run(stage.play(*scenes)))


@pytest.mark.torture
def test_two_watchers_of_one_account(stage: Stage) -> None:
    stage.connections = ["ugen_default", "ugen_other"]
    check(stage, asyncio.run(stage.play()))


@pytest.mark.parametrize("share", [pytest.param(0.5, marks=pytest.mark.torture), 1.0])
def test_triggers_are_lost_again_and_again(stage: Stage, share: float) -> None:
    scenes = [stage.at(seconds, lambda: stage.lose_triggers(share)) for seconds in (20.0, 75.0, 110.0, 150.0)]
    check(stage, asyncio.run(stage.play(*scenes)))
    assert stage.lost > JOBS * share


# The same for a feed: a hundred products and the one runner.


def way_in(local: Local, answer: Callable[[], httpx.Response], *, begins: float, lasts: float) -> None:
    began = local.world.now()

    def meddle(_: Any, real: Callable[[], httpx.Response]) -> httpx.Response:
        return answer() if begins <= local.world.now() - began < begins + lasts else real()

    local.transport.meddle = meddle


@pytest.mark.parametrize("begins", [pytest.param(0.5, marks=pytest.mark.torture), 20.0])
@pytest.mark.parametrize(("answer", "lasts"), [(refuse, 600.0), (busy, 3600.0)], ids=["away", "429"])
def test_a_feed_run_while_the_service_is_away(
    tmp_path: Any, answer: Callable[[], httpx.Response], lasts: float, begins: float
) -> None:
    """A run may end early and say so; the next run buys nothing twice, and in the end each product has its video."""
    local = Local(Settings(speed=0, admin=True))
    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger:
        shop = Shop(tmp_path, local, ledger)
        shop.sells(*(f"p{number}" for number in range(JOBS)))
        way_in(local, answer, begins=begins, lasts=lasts)
        reports = []
        for _ in range(8):
            try:
                reports.append(asyncio.run(shop.runner("night").run()))
            except Exception:  # a run that could not continue; the next one does
                local.world.advance(900)
                continue
            if reports[-1].completed == JOBS:
                break
            local.world.advance(900)
        assert reports[-1].completed == JOBS
        assert reports[-1].adds_up
    assert local.created == JOBS
    assert local.world.accounts.by_name["local"].credits.reserved == 0
