# SPDX-License-Identifier: Apache-2.0
"""Concurrent requests of one async client: how many connections they open, keep and close."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from ugen_provider import AsyncUGenClient
from ugen_provider.core.api.clock import SystemClock
from ugen_provider.emulator.settings import LOCAL_KEY

BALANCE = {"credit_balance": 5, "credit_reserved": 0, "available_credits": 5}
KEPT = 20
MOST = 100
STEPS = 40


class Later(SystemClock):
    """A clock that a test can move forward."""

    passed = 0.0

    def tick(self):
        return super().tick() + self.passed


class Service:
    """Answers each request with a balance, once it is opened."""

    def __init__(self):
        self.opened = self.waiting = 0
        self.live = set()
        self.asked = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.changed = asyncio.Condition()

    async def serve(self, reader, writer):
        async with self.changed:
            self.opened += 1
            self.live.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._wait(head)
                body = json.dumps(BALANCE).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            async with self.changed:
                self.live.discard(writer)
                self.changed.notify_all()

    async def _wait(self, head):
        async with self.changed:
            self.asked.append(head.decode().split("\r\n")[0])
            self.waiting += 1
            self.changed.notify_all()
        await self.gate.wait()
        async with self.changed:
            self.waiting -= 1
            self.changed.notify_all()

    async def until(self, condition):
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(condition)


@asynccontextmanager
async def serving(**settings):
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    given = {"api_key": LOCAL_KEY, "base_url": f"http://127.0.0.1:{service.port}/api/v1", **settings}
    async with server:
        async with AsyncUGenClient(**given) as client:
            yield service, client
        await service.until(lambda: not service.live)  # what a closed client leaves open would hang here


async def at_once(service, client, count):
    """Send so many requests, all of them before the first is answered."""
    service.gate.clear()
    asked = [asyncio.ensure_future(client.credits.balance()) for _ in range(count)]
    await service.until(lambda: service.waiting == count)
    service.gate.set()
    return await asyncio.gather(*asked)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_pool_sequential_requests_share_a_connection():
    async def run():
        async with serving() as (service, client):
            for _ in range(10):
                await client.credits.balance()
            assert service.opened == 1

    asyncio.run(run())


def test_pool_reuses_concurrent_connections():
    async def run():
        async with serving() as (service, client):
            for _ in range(3):
                assert len(await at_once(service, client, KEPT)) == KEPT
            assert service.opened == KEPT

    asyncio.run(run())


def test_pool_answers_more_requests_than_it_keeps():
    async def run():
        async with serving() as (service, client):
            for _ in range(2):
                assert len(await at_once(service, client, MOST)) == MOST
                await service.until(lambda: len(service.live) <= 2 * KEPT)

    asyncio.run(run())


def test_pool_cancelled_requests_free_their_connections():
    async def run():
        async with serving() as (service, client):
            for _ in range(3):
                service.gate.clear()
                asked = [asyncio.ensure_future(client.credits.balance()) for _ in range(KEPT)]
                await service.until(lambda: service.waiting == KEPT)
                for one in asked:
                    one.cancel()
                ended = await asyncio.gather(*asked, return_exceptions=True)
                assert all(isinstance(one, asyncio.CancelledError) for one in ended)
                service.gate.set()
                await service.until(lambda: not service.waiting and not service.live)
            assert len(await at_once(service, client, MOST)) == MOST

    asyncio.run(run())


@pytest.mark.parametrize("kept", [False, True], ids=["new-connection", "kept-connection"])
@pytest.mark.parametrize("steps", range(STEPS))
def test_pool_survives_a_cancel_at_any_step_of_a_request(steps, kept):
    """The same moment as often as there are connections: each of them may be left in a state of its own."""

    async def run():
        async with serving() as (service, client):
            if kept:
                await client.credits.balance()
            for _ in range(2):
                asked = asyncio.ensure_future(client.credits.balance())
                for _ in range(steps):
                    await asyncio.sleep(0)
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
            async with asyncio.timeout(20):
                assert len(await asyncio.gather(*(client.credits.balance() for _ in range(3)))) == 3
                assert len(await at_once(service, client, KEPT)) == KEPT

    asyncio.run(run())


def test_pool_requests_beyond_the_most_wait_for_a_connection():
    async def run():
        async with serving() as (service, client):
            service.gate.clear()
            asked = [asyncio.ensure_future(client.credits.balance()) for _ in range(MOST + 50)]
            await service.until(lambda: service.waiting == MOST)
            for one in asked[MOST + 25 :]:
                one.cancel()
            service.gate.set()
            ended = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(isinstance(one, asyncio.CancelledError) for one in ended) == 25
            assert not any(isinstance(one, Exception) for one in ended)
            assert service.opened <= MOST + 25

    asyncio.run(run())


def test_pool_closes_expired_connections():
    async def run():
        clock = Later()
        async with serving(clock=clock) as (service, client):
            await at_once(service, client, KEPT)
            clock.passed += 20
            for _ in range(KEPT):
                await client.credits.balance()
            clock.passed += 20
            await client.credits.balance()
            await service.until(lambda: len(service.live) == 1)
            assert service.opened == KEPT

    asyncio.run(run())


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_pool_uses_the_proxy_of_the_environment(monkeypatch, variable):
    async def run():
        async with serving() as (proxy, _):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
            far = {"base_url": "http://ugen.example/v1", "allow_insecure": True}
            async with AsyncUGenClient(api_key=LOCAL_KEY, **far) as client:
                await client.credits.balance()
            assert proxy.asked == ["GET http://ugen.example/v1/credits/balance HTTP/1.1"]

    asyncio.run(run())


def test_pool_bypasses_the_proxy_for_no_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    async def run():
        async with serving() as (service, client):
            await client.credits.balance()
            assert service.asked == ["GET /api/v1/credits/balance HTTP/1.1"]

    asyncio.run(run())
