# SPDX-License-Identifier: Apache-2.0
"""A client and an emulator in one process, on one clock that the client's own waiting moves."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import pytest

from ugen_provider import AsyncUGenClient, RetryPolicy, UGenClient
from ugen_provider.core.api.clock import SystemClock
from ugen_provider.core.api.effects import Effect, Flow
from ugen_provider.emulator.api.http import Request
from ugen_provider.emulator.api.service import Service
from ugen_provider.emulator.pytest_plugin import ClockControl
from ugen_provider.emulator.settings import LOCAL_KEY, Settings
from ugen_provider.emulator.world.world import World

BASE_URL = "http://127.0.0.1:1/api/v1"


def live_by(clock: ClockControl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients live by the emulator's clock; whenever one would wait, that clock goes on instead."""

    async def asleep(self: SystemClock, seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(SystemClock, "now", lambda self: clock.now())
    monkeypatch.setattr(SystemClock, "tick", lambda self: clock.now())
    monkeypatch.setattr(SystemClock, "sleep", lambda self, seconds: clock.advance(seconds))
    monkeypatch.setattr(SystemClock, "asleep", asleep)


class Killed(BaseException):
    """The process ended here; nothing below may catch it."""


class InProcess(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Hands requests to the emulator without a socket; `meddle` may lose answers or refuse."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.meddle: Callable[[Request, Callable[[], httpx.Response]], httpx.Response] = lambda _, answer: answer()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        asked = Request(
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

    world: World
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
        self.world = World(settings)
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
        from ugen_provider.emulator.world import outcomes

        self.world.desk.outcomes.append(outcomes.parse(rule))

    def set(self, **readings) -> None:
        self.world.set_readings(readings)


class Stepper:
    """Runs a flow on a client up to the nth effect, before or after which the process ends."""

    def __init__(self, client: UGenClient) -> None:
        self._client = client
        self.points: list[str] = []

    def run(self, flow: Flow, *, kill_at: int | None = None, after: bool = False):
        driver = self._client._driver
        original = driver.perform
        count = 0

        def perform(effect: Effect):
            nonlocal count
            count += 1
            self.points.append(_name(effect))
            if count == kill_at and not after:
                raise Killed
            answer = original(effect)
            if count == kill_at:
                raise Killed
            return answer

        driver.perform = perform
        try:
            return self._client.run(flow)
        finally:
            driver.perform = original


def _name(effect: Effect) -> str:
    request = getattr(effect, "request", None)
    return request.point if request is not None else getattr(effect, "point", type(effect).__name__.lower())


NO_RETRIES = RetryPolicy(attempts=1)
