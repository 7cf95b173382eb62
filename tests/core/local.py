# SPDX-License-Identifier: Apache-2.0
"""A client and an emulator in one process, on one clock that the client's own waiting moves."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from ugen_provider import AsyncUGenClient, RetryPolicy, UGenClient
from ugen_provider.core.api.clock import EmulatorTime, SystemClock
from ugen_provider.core.jobs.order import Order, Purchase
from ugen_provider.core.jobs.sync.actions import cancel_order, pause_order
from ugen_provider.core.jobs.sync.purchase import purchase, purchase_and_wait
from ugen_provider.core.jobs.sync.world import World
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.record import OrderStore
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.emulator.api.http import HttpRequest
from ugen_provider.emulator.api.service import Service
from ugen_provider.emulator.pytest_plugin import ClockControl
from ugen_provider.emulator.settings import LOCAL_KEY, Settings
from ugen_provider.emulator.world.world import World as EmulatedWorld

BASE_URL = "http://127.0.0.1:1/api/v1"


def live_by(clock: ClockControl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients live by the emulator's clock; whenever one would wait, that clock moves instead."""

    async def asleep(self: SystemClock, seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(SystemClock, "now", lambda self: clock.now())
    monkeypatch.setattr(SystemClock, "tick", lambda self: clock.now())
    monkeypatch.setattr(SystemClock, "sleep", lambda self, seconds: clock.advance(seconds))
    monkeypatch.setattr(SystemClock, "asleep", asleep)
    # Each wait moves the emulator's clock by as much: none may be cut short because that clock stands still.
    monkeypatch.setattr(EmulatorTime, "pause", lambda self, seconds: seconds)
    monkeypatch.setattr(EmulatorTime, "count", lambda self, seconds: None)
    # An answer that is under way takes no time of this clock, even if another waiter moves it meanwhile.
    monkeypatch.setattr("ugen_provider.core.api.transport.MOST_TIMEOUTS", 1_000_000)


class Killed(BaseException):
    """The process ended here; nothing below may catch it."""


class InProcess(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Hands requests to the emulator without a socket; `meddle` may lose answers or refuse."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.meddle: Callable[[HttpRequest, Callable[[], httpx.Response]], httpx.Response] = lambda _, answer: answer()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        asked = HttpRequest(
            request.method,
            request.url.path,
            request.url.query.decode(),
            {name.lower(): value for name, value in request.headers.items()},
            request.read(),
        )

        def answer() -> httpx.Response:
            reply = self._service.handle(asked)
            if reply.work is not None:
                reply = reply.work()
            return httpx.Response(reply.status, headers=dict(reply.headers), content=reply.body)

        return self.meddle(asked, answer)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


@dataclass
class EmulatorClock:
    """A client's clock that is the emulator's: waiting moves it."""

    world: EmulatedWorld
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.world.now()

    def tick(self) -> float:
        return self.world.now()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.world.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


class Local:
    """An emulator with clients of it."""

    def __init__(self, settings: Settings) -> None:
        self.world = EmulatedWorld(settings)
        self.world.set_base_url("http://127.0.0.1:1")
        self.clock = EmulatorClock(self.world)
        self.transport = InProcess(Service(self.world))
        self.lock = threading.Lock()

    def client(self, **settings) -> UGenClient:
        http = httpx.Client(transport=self.transport)
        settings = {"api_key": LOCAL_KEY, "base_url": BASE_URL, **settings}
        return UGenClient(http_client=http, clock=self.clock, **settings)

    def async_client(self, **settings) -> AsyncUGenClient:
        http = httpx.AsyncClient(transport=self.transport)
        settings = {"api_key": LOCAL_KEY, "base_url": BASE_URL, **settings}
        return AsyncUGenClient(http_client=http, clock=self.clock, **settings)

    @property
    def created(self) -> int:
        """Jobs that were ever bought."""
        return len(self.world.journal.find_purchases(kind="create"))

    @property
    def retried(self) -> int:
        """Stage retries that were ever bought."""
        return len(self.world.journal.find_purchases(kind="retry"))

    def requests(self, method: str | None = None, path: str | None = None) -> int:
        return len(self.world.journal.find_requests(method=method, path=path))

    def outcome(self, **rule) -> None:
        from ugen_provider.emulator.world import pipeline

        self.world.jobs.outcomes.append(pipeline.parse(rule))

    def set(self, **readings) -> None:
        self.world.set_readings(readings)


class SteppedWorld(World):
    """A world that ends the process before or after its nth contact, and notes the contacts."""

    def __init__(self, client: UGenClient, store: OrderStore, *, kill_at: int | None = None, after: bool = False):
        super().__init__(client, store)
        self.points: list[str] = []
        self._kill_at = kill_at
        self._after = after

    def contact(self, name, call):
        self.points.append(name)
        here = len(self.points) == self._kill_at
        if here and not self._after:
            raise Killed
        answer = super().contact(name, call)
        if here:
            raise Killed
        return answer


class Attempts:
    """Successive attempts at one order, as an orchestrator's retries are: only the store is left between them."""

    def __init__(self, client: UGenClient, store: OrderStore, *, name: str = "attempt") -> None:
        self.client, self.store = client, store
        self._name = name
        self._numbers = itertools.count(1)

    def next(self, order: Order) -> Order:
        """The order as a new attempt has it."""
        return order if order.attempt else replace(order, attempt=f"{self._name} {next(self._numbers)}")

    def world(self, *, kill_at: int | None = None, after: bool = False) -> SteppedWorld:
        return SteppedWorld(self.client, self.store, kill_at=kill_at, after=after)

    def buy(self, order: Order) -> Purchase:
        return purchase(self.world(), self.next(order))

    def obtain(self, order: Order, *, kill_at: int | None = None, after: bool = False, **limits) -> Purchase:
        world = self.world(kill_at=kill_at, after=after)
        return purchase_and_wait(world, self.next(order), interval=5, **limits)

    def cancel(self, order: Order, reason: str = "kill", **more):
        return cancel_order(self.world(), order.record_key, reason=reason, **more)

    def pause(self, order: Order):
        return pause_order(self.world(), self.store.read(order.record_key))


def ledger_store(folder: Path) -> LedgerOrderStore:
    """A store in a ledger of its own, on SQLite."""
    return LedgerOrderStore(Ledger.init(str(folder / "ledger.db"), allow_ephemeral=True))


NO_RETRIES = RetryPolicy(attempts=1)
