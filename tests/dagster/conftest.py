# SPDX-License-Identifier: Apache-2.0
"""A Dagster instance, and a U-Gen whose clock moves a minute with each request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.dagster.shop import Shop
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import Settings


@pytest.fixture(scope="session")
def ugen_emulator_settings() -> Settings:
    """Each request moves the clock by a minute, so that whoever polls gets somewhere without waiting."""
    return Settings(speed=0, tick=60.0, admin=True)


@pytest.fixture(scope="session")
def session_instance() -> Iterator[dg.DagsterInstance]:
    """A real instance on SQLite files; making its databases takes longer than a test does."""
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_goes_on_behind() -> Iterator[None]:
    """What a test starts ends with it: the instance, the emulator and this process serve the next one too."""
    yield
    ours = [each for each in threading.enumerate() if each.name in {"dagster-ugen", "test-when"}]
    for thread in ours:
        thread.join(timeout=30)
    assert not [thread.name for thread in ours if thread.is_alive()]


@pytest.fixture
def instance(session_instance: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """The instance, with no runs and no events in it."""
    yield session_instance
    session_instance.wipe()
    session_instance.schedule_storage.wipe()
    for key in session_instance.get_dynamic_partitions("ugen_products"):
        session_instance.delete_dynamic_partition("ugen_products", key)


@pytest.fixture
def shop(instance: dg.DagsterInstance, ugen_emulator: EmulatorServer, tmp_path: Path) -> Shop:
    """The account, the instance and the assets."""
    clock = ugen_emulator.emulator.clock
    clock.tick = 60.0
    return Shop(instance, ugen_emulator, tmp_path / "videos")
