# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests against U-Gen: installed with the package, found by pytest on its own.

    def test_my_pipeline(ugen_emulator, ugen_clock):
        order_a_video(base_url=ugen_emulator.base_url, api_key="ugen_sk_local")
        ugen_clock.advance(300)
        assert len(ugen_emulator.emulator.journal.purchases) == 1

One server runs for the whole session; it is reset before each test. Its clock does not move until the test moves it: by
hand with `advance`, or with each request after `tick`. The clients of this package know that and do not sleep; one that
waits for a stopped clock for 10 s raises `EmulatorClockError`.
Override `ugen_emulator_settings` in a conftest for another seed, speed, tenants or readings.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ugen_provider.emulator.cli import needs_extra

if TYPE_CHECKING:
    from pathlib import Path

    from dagster_ugen import UGenResource
    from ugen_provider import UGenClient
    from ugen_provider.emulator.server import EmulatorServer
    from ugen_provider.emulator.settings import Settings
    from ugen_provider.emulator.transport import EmulatorTransport
    from ugen_provider.emulator.world.faults import Fault
    from ugen_provider.emulator.world.world import World


class ClockControl:
    """Moves the emulator's clock, from the test's own thread. Webhooks that become due are sent before it returns.

    Args:
        server: The emulator.
    """

    def __init__(self, server: "EmulatorServer") -> None:
        self._server = server
        self._world = server.emulator

    def now(self) -> float:
        """Return the emulator's time in seconds since the epoch."""
        return self._world.now()

    def advance(self, seconds: float, *, deliver: bool = True) -> float:
        """Let that many seconds pass, with everything that happens in them; returns the new time.

        Args:
            seconds: How many.
            deliver: Whether to wait for webhooks; not if this very thread has to answer them.
        """
        moment = self._world.advance(seconds)
        if deliver:
            self._server.settle()
        return moment

    def advance_to_next_change(self) -> bool:
        """Go to the moment at which the next job changes its status; returns whether there is one."""
        with self._world.lock:
            now = self._world.now()
            coming = self._world.jobs.next_due()
        if coming is None:
            return False
        self.advance(max(0.0, coming - now))
        return True

    def advance_until_idle(self) -> float:
        """Let time pass until no job changes by itself any more; returns the new time."""
        while self.advance_to_next_change():
            pass
        return self.now()

    def run(self, speed: float) -> None:
        """Let the clock run by itself for the rest of the test, at `speed` emulated seconds a real second."""
        self._world.clock.set_speed(speed)

    def tick(self, seconds: float) -> None:
        """Let each API request move the clock, for the rest of the test: each poll makes the time pass."""
        self._world.clock.tick = seconds


@pytest.fixture(scope="session")
def ugen_emulator_settings() -> "Settings":
    """Return what the session's emulator starts with; override it in a conftest."""
    from ugen_provider.emulator.settings import Settings

    return Settings(speed=0, admin=True, patience=10.0)


@pytest.fixture(scope="session")
def ugen_emulator_server(ugen_emulator_settings: "Settings") -> Iterator["EmulatorServer"]:
    """The one server of the session; tests take `ugen_emulator`, which is reset for them."""
    try:
        from ugen_provider.emulator.server import EmulatorServer
    except ModuleNotFoundError as error:
        pytest.fail(needs_extra(error), pytrace=False)
    with EmulatorServer(ugen_emulator_settings) as server:
        yield server


@pytest.fixture
def ugen_emulator(ugen_emulator_server: "EmulatorServer") -> "EmulatorServer":
    """A U-Gen with no jobs, full credits and a clock at its start: `.url`, `.base_url`, `.emulator`."""
    ugen_emulator_server.emulator.reset()
    return ugen_emulator_server


@pytest.fixture
def ugen_clock(ugen_emulator: "EmulatorServer") -> ClockControl:
    """Return the clock of the emulator."""
    return ClockControl(ugen_emulator)


class FaultControl:
    """Faults that a test sets on the emulator.

    Args:
        world: The emulator.
    """

    def __init__(self, world: "World") -> None:
        self._world = world

    def add(self, kind: str, **rule: Any) -> "Fault":
        """Add a rule: `ugen_faults.add("lost", method="POST", path="/api/v1/jobs")`.

        Args:
            kind: What goes wrong; `ugen_provider.emulator.world.faults` lists the kinds.
            **rule: The other fields of a rule: which requests, from which on, how many times.

        Returns:
            The rule, whose `hits` counts how often it has happened.
        """
        with self._world.lock:
            return self._world.faults.add({"kind": kind, **rule})

    def clear(self) -> None:
        """Remove every rule for faults."""
        with self._world.lock:
            self._world.faults.rules.clear()

    def job(self, **outcome: Any) -> None:
        """Decide how a job ends: `ugen_faults.job(product_name="Lamp", fail_at="generation", kind="moderation")`.

        Args:
            **outcome: The fields of `ugen_provider.emulator.world.pipeline.Outcome`.
        """
        from ugen_provider.emulator.world.pipeline import parse

        with self._world.lock:
            self._world.jobs.outcomes.append(parse(outcome))


@pytest.fixture
def ugen_faults(ugen_emulator: "EmulatorServer") -> FaultControl:
    """Return what goes wrong in this test: on the wire, and with jobs."""
    return FaultControl(ugen_emulator.emulator)


@pytest.fixture
def ugen_client(ugen_emulator: "EmulatorServer") -> Iterator["UGenClient"]:
    """Return a client of the emulator."""
    from ugen_provider import UGenClient
    from ugen_provider.emulator.settings import LOCAL_KEY

    with UGenClient(api_key=LOCAL_KEY, base_url=ugen_emulator.base_url) as client:
        yield client


@pytest.fixture
def ugen_dagster_resource(
    ugen_emulator: "EmulatorServer", ugen_clock: ClockControl, tmp_path: "Path"
) -> "UGenResource":
    """Return the resource `ugen` of the emulator, with a ledger of its own. Each request moves the clock by a minute.

    A test of your own assets then takes no longer than their code:

        def test_my_videos(ugen_dagster_resource):
            assert dg.materialize([*my_videos, my_report], resources={"ugen": ugen_dagster_resource}).success
    """
    from dagster_ugen import UGenResource
    from ugen_provider.core.ledger.store import Ledger
    from ugen_provider.emulator.settings import LOCAL_KEY

    ugen_clock.tick(60.0)
    ledger = str(tmp_path / "ugen-ledger.db")
    Ledger.init(ledger, allow_ephemeral=True).close()
    return UGenResource(api_key=LOCAL_KEY, base_url=ugen_emulator.base_url, ledger=ledger)


@pytest.fixture
def ugen_airflow_connection(
    ugen_emulator: "EmulatorServer",
    ugen_clock: ClockControl,
    tmp_path: "Path",
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Define the connection `ugen_default` to the emulator, and `ugen_ledger` to a ledger of its own; returns its name.

    Each request moves the clock by a minute, so that a test of your own DAG takes no longer than its code. `dag.test()`
    needs Airflow's database: `airflow db migrate`.

        def test_my_videos(ugen_airflow_connection, ugen_emulator):
            assert my_dag.test().state == "success"
            assert len(ugen_emulator.emulator.journal.find_purchases()) == 2
    """
    from ugen_provider.core.ledger.store import Ledger
    from ugen_provider.emulator.settings import LOCAL_KEY

    ugen_clock.tick(60.0)
    ledger = str(tmp_path / "ugen-ledger.db")
    Ledger.init(ledger, allow_ephemeral=True).close()
    extra = {"base_url": ugen_emulator.base_url, "ledger_conn_id": "ugen_ledger"}
    connection = {"conn_type": "ugen", "password": LOCAL_KEY, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_UGEN_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_CONN_UGEN_LEDGER", json.dumps({"conn_type": "sqlite", "host": ledger}))

    async def hold_nothing(event_after: float | None) -> None:
        del event_after

    # A trigger holds an early event until the executor has reported the task; `dag.test()` has no executor.
    monkeypatch.setattr("ugen_provider.triggers.jobs._hold", hold_nothing)
    return "ugen_default"


@pytest.fixture
def ugen_transport(ugen_emulator_settings: "Settings") -> "EmulatorTransport":
    """An emulator of its own without a socket, for `httpx.Client(transport=...)` or the asynchronous one."""
    from ugen_provider.emulator.transport import EmulatorTransport

    return EmulatorTransport(ugen_emulator_settings)
