# SPDX-License-Identifier: Apache-2.0
"""The event trigger: each ended job of the account is reported once, over restarts too, through one shared stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ugen_provider import CreateJob
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.triggers.events import UGenJobEventTrigger


@pytest.fixture(scope="module")
def ugen_emulator_server() -> Iterator[Any]:
    """In real time, and fast: this trigger lives by the machine's clock, like Airflow's scheduler."""
    from ugen_provider.emulator.server import EmulatorServer
    from ugen_provider.emulator.settings import Settings

    with EmulatorServer(Settings(speed=600, admin=True)) as server:
        yield server


class AssetStore:
    """The values that Airflow keeps with an asset."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    async def aget(self, key: str) -> Any:
        return json.loads(self.kept[key]) if key in self.kept else None

    async def aset(self, key: str, value: Any) -> None:
        self.kept[key] = json.dumps(value)


def trigger(store: AssetStore, **more: Any) -> UGenJobEventTrigger:
    made = UGenJobEventTrigger(**{"poll_interval": 0.1, **more})
    made.asset_state_store = store  # type: ignore[assignment]
    return made


async def events(made: UGenJobEventTrigger, count: int, *, buy: Any = None) -> list[dict[str, Any]]:
    """Run the trigger like a triggerer, one stream filtered by it, until it has reported so many."""
    found: list[dict[str, Any]] = []

    async def stream() -> AsyncIterator[Any]:
        if buy is not None:
            await asyncio.to_thread(buy)  # the trigger has begun to listen
        async for ended in type(made).open_shared_stream(made.serialize()[1]):
            yield ended
            if len(found) >= count:
                return

    async with asyncio.timeout(60):
        async for event in made.filter_shared_stream(stream()):
            found.append(event.payload["ugen"])
    return found


@pytest.fixture
def buy(connection: Any, ugen_client: Any) -> Any:
    def one(name: str) -> str:
        lamp = {"product_name": name, "product_image_url": "https://shop.example/l.png", "segment_count": 1}
        return str(ugen_client.jobs.create(CreateJob(**lamp)).job_id)

    return one


def test_each_ended_job_is_reported_once_after_a_restart_too(buy: Any) -> None:
    store, bought = AssetStore(), []
    first = asyncio.run(events(trigger(store), 2, buy=lambda: bought.extend([buy("a"), buy("b")])))
    assert sorted(event["job_id"] for event in first) == sorted(bought)
    assert {event["status"] for event in first} == {"completed"}
    missed = buy("c")  # while no triggerer runs
    second = asyncio.run(events(trigger(store), 1))
    assert [event["job_id"] for event in second] == [missed]


def test_only_the_wanted_ending_is_reported(buy: Any, ugen_client: Any) -> None:
    def order() -> None:
        buy("a")
        ugen_client.jobs.cancel(buy("#ugen:slow:100 b"))

    (event,) = asyncio.run(events(trigger(AssetStore(), status="cancelled"), 1, buy=order))
    assert (event["status"], event["product_name"]) == ("cancelled", "#ugen:slow:100 b")


def test_triggers_of_one_connection_share_a_stream() -> None:
    keys = {UGenJobEventTrigger(status=status).shared_stream_key() for status in ("completed", "failed", None)}
    assert len(keys) == 1
    with pytest.raises(ConfigError, match="status: must be one of"):
        UGenJobEventTrigger(status="done")
