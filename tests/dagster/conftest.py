# SPDX-License-Identifier: Apache-2.0
"""A Dagster instance, and a U-Gen whose clock moves a minute with each request."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.dagster.shop import Shop
from ugen_provider.core.ledger.store import EphemeralLedgerWarning
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import Settings


@pytest.fixture(scope="session")
def ugen_emulator_settings() -> Settings:
    """Each request moves the clock by a minute, so that each poll makes progress without waiting."""
    return Settings(speed=0, tick=60.0, admin=True)


@pytest.fixture(scope="session")
def ugen_emulator_server(ugen_emulator_settings: Settings) -> Iterator[EmulatorServer]:
    """A server of these tests alone: the session's own begins with the settings of its first test."""
    with EmulatorServer(ugen_emulator_settings) as server:
        yield server


@pytest.fixture(scope="session")
def session_instance() -> Iterator[dg.DagsterInstance]:
    """A real instance on SQLite files; making its databases takes longer than a test does."""
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture(autouse=True)
def _background_ends() -> Iterator[None]:
    """End all background work of a test with it: instance, emulator and process serve the next one too."""
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


@pytest.fixture(autouse=True)
def _data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default ledger of a test is its own, and never the developer's."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("UGEN_LEDGER", raising=False)
    warnings.simplefilter("ignore", EphemeralLedgerWarning)


@pytest.fixture
def shop(instance: dg.DagsterInstance, ugen_emulator: EmulatorServer, tmp_path: Path) -> Shop:
    """The account, the instance and the assets."""
    clock = ugen_emulator.emulator.clock
    clock.tick = 60.0
    return Shop(instance, ugen_emulator, tmp_path / "videos")
