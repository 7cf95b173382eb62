# SPDX-License-Identifier: Apache-2.0
"""A stack dump during a purchase shows its functions, from the entry point to the HTTP request."""

import asyncio
import sys
import traceback

import httpx
import pytest

from tests.core.local import BASE_URL, Local
from ugen_provider import AsyncUGenClient, UGenClient
from ugen_provider.core.jobs import purchase as async_purchase
from ugen_provider.core.jobs.order import Order, name_key
from ugen_provider.core.jobs.sync import purchase as sync_purchase
from ugen_provider.core.jobs.sync.world import World
from ugen_provider.core.jobs.world import AsyncWorld
from ugen_provider.core.ledger.record import KeyOnlyStore
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

LAMP = Order(
    key=name_key("lamp"),
    body={"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.jpg", "segment_count": 1},
)
CREATE = ["purchase_and_wait", "create", "contact", "call", "_send", "send", "_exchange"]
WAIT = ["purchase_and_wait", "wait", "contact", "wait_until", "call", "_send", "send", "_exchange"]


def in_order(wanted, names):
    """Return whether the wanted names occur in this order."""
    found = iter(names)
    return all(name in found for name in wanted)


@pytest.fixture
def local():
    return Local(Settings(speed=0, admin=True))


@pytest.mark.parametrize(("method", "wanted"), [("POST", CREATE), ("GET", WAIT)], ids=["create", "wait"])
def test_blocked_request_shows_all_frames_of_a_purchase(local, method, wanted):
    stacks = {}

    def note(request, answer):
        stacks[request.method] = [frame.f_code.co_name for frame, _ in traceback.walk_stack(sys._getframe())][::-1]
        return answer()

    local.transport.meddle = note
    with local.client() as client:
        sync_purchase.purchase_and_wait(World(client, KeyOnlyStore()), LAMP)
    assert in_order(wanted, stacks[method])


class Stuck(httpx.AsyncBaseTransport):
    """Answers through the emulator until a request with this method comes; that one waits without end."""

    def __init__(self, inner, method):
        self._inner, self._method = inner, method
        self.reached = asyncio.Event()

    async def handle_async_request(self, request):
        if request.method == self._method:
            self.reached.set()
            await asyncio.Event().wait()
        return await self._inner.handle_async_request(request)


def suspended(awaitable):
    """The functions in which a task is suspended, the outermost first."""
    while awaitable is not None:
        code = getattr(awaitable, "cr_code", None) or getattr(awaitable, "gi_code", None)
        if code is None:
            return
        yield code.co_name
        awaitable = getattr(awaitable, "cr_await", None)


@pytest.mark.parametrize(("method", "wanted"), [("POST", CREATE), ("GET", WAIT)], ids=["create", "wait"])
def test_awaited_request_shows_all_frames_of_a_purchase(local, method, wanted):
    async def run():
        transport = Stuck(local.transport, method)
        async with httpx.AsyncClient(transport=transport) as http:
            client = AsyncUGenClient(api_key=LOCAL_KEY, base_url=BASE_URL, http_client=http, clock=local.clock)
            world = AsyncWorld(client, KeyOnlyStore())
            task = asyncio.ensure_future(async_purchase.purchase_and_wait(world, LAMP))
            await transport.reached.wait()
            names = list(suspended(task.get_coro()))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return names

    assert in_order(wanted, asyncio.run(run()))


def test_clients_have_no_generator_flows_left():
    for client in (UGenClient(api_key=LOCAL_KEY), AsyncUGenClient(api_key=LOCAL_KEY)):
        assert not hasattr(client, "run")
        assert not hasattr(client, "caller")
