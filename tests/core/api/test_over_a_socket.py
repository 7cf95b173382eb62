# SPDX-License-Identifier: Apache-2.0
"""The client does the same in process and over a real socket: the same bodies of tests."""

import inspect

import anyio
import pytest

from tests.core.api import test_client, test_other_endpoints
from tests.core.local import EmulatorClock
from ugen_provider import AsyncUGenClient, UGenClient
from ugen_provider.emulator.settings import LOCAL_KEY
from ugen_provider.emulator.world import pipeline


class OverASocket:
    """Has the interface of the local emulator; its clients go through a socket."""

    def __init__(self, server):
        self.base_url, self.world = server.base_url, server.emulator
        self.clock = EmulatorClock(self.world)

    def client(self, **settings):
        return UGenClient(**{"api_key": LOCAL_KEY, "base_url": self.base_url, "clock": self.clock, **settings})

    def async_client(self, **settings):
        return AsyncUGenClient(**{"api_key": LOCAL_KEY, "base_url": self.base_url, "clock": self.clock, **settings})

    @property
    def created(self):
        return len(self.world.journal.find_purchases(kind="create"))

    def requests(self, method=None, path=None):
        return len(self.world.journal.find_requests(method=method, path=path))

    def outcome(self, **rule):
        self.world.jobs.outcomes.append(pipeline.parse(rule))


def bodies():
    for module in (test_client, test_other_endpoints):
        for name, test in vars(module).items():
            if not name.startswith("test_") or getattr(test, "pytestmark", None):
                continue
            wanted = set(inspect.signature(test).parameters)
            faulty = "transport" in inspect.getsource(test) or {"lose_answers", "refuse"} & set(test.__code__.co_names)
            if "call" in wanted and wanted <= {"call", "local"} and not faulty:
                yield pytest.param(test, id=name)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("body", list(bodies()))
def test_over_a_socket(body, kind, ugen_emulator):
    local = OverASocket(ugen_emulator)
    given = {"call": test_client.Both(local, kind), "local": local}
    body(**{name: given[name] for name in inspect.signature(body).parameters})


def test_connections_are_kept(ugen_emulator):
    with UGenClient(api_key=LOCAL_KEY, base_url=ugen_emulator.base_url) as client:
        for _ in range(20):
            client.credits.balance()
        pool = client._executor.transport._http._transport._pool
        assert len(pool.connections) == 1


def test_the_user_agent_names_both_versions():
    assert UGenClient(api_key="k").config.user_agent.startswith("ugen-provider/")
    assert " Python/3." in UGenClient(api_key="k").config.user_agent


def test_a_client_inside_a_running_loop_works(ugen_emulator):
    async def run():
        with UGenClient(api_key=LOCAL_KEY, base_url=ugen_emulator.base_url) as client:
            return client.credits.balance()

    assert anyio.run(run).available_credits
