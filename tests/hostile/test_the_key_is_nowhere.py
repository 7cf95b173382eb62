# SPDX-License-Identifier: Apache-2.0
"""After everything was bought, waited for, failed and stored: every byte that was written, and the key is in none."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.airflow.conftest import Attempts, connection, moving_clock  # noqa: F401  fixtures
from tests.airflow.deferring import run as run_task
from tests.batch.conftest import Shop as FeedShop
from tests.core.local import Local
from tests.dagster.shop import Shop as DagsterShop
from tests.hostile.written import FORMS, KEY, nowhere
from ugen_provider import TransportError, UGenError
from ugen_provider.emulator.settings import Settings, TenantSettings
from ugen_provider.ledger import Ledger


@pytest.fixture(scope="module")
def ugen_emulator_settings() -> Settings:
    return Settings(speed=0, tick=30.0, admin=True, tenants=(TenantSettings(api_keys=(KEY,)),))


@pytest.fixture(scope="module")
def ugen_emulator_server(ugen_emulator_settings: Settings) -> Any:
    from ugen_provider.emulator.server import EmulatorServer

    with EmulatorServer(ugen_emulator_settings) as server:
        yield server


@pytest.fixture
def logged() -> Any:
    """Everything that any logger says, at every level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.setLevel(before)
    root.removeHandler(handler)


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    for number, form in enumerate(FORMS):
        (tmp_path / str(number)).write_bytes(b"x" + form + b"y")
        with pytest.raises(AssertionError):
            nowhere(tmp_path)
        (tmp_path / str(number)).write_bytes(b"")


def test_after_a_feed(tmp_path: Path, logged: Any, capfd: Any) -> None:
    local = Local(Settings(speed=0, admin=True, tenants=(TenantSettings(api_keys=(KEY,)),)))
    local.outcome(product_name="Cup b", fail_at="audio", kind="moderation")
    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as ledger:
        shop = FeedShop(tmp_path, local, ledger)
        shop.sells("a", "b", "c")
        report = asyncio.run(shop.runner(client=local.async_client(api_key=KEY)).run())
        local.transport.meddle = lambda *_: (_ for _ in ()).throw(ValueError("anything"))
        shop.sells("a", "b", "c", d="New")
        with pytest.raises(TransportError, match="anything"):
            asyncio.run(shop.runner("tuesday", client=local.async_client(api_key=KEY)).run())
    assert (report.completed, report.failed) == (2, 1)
    nowhere(tmp_path, json.dumps(report.to_dict()), shop.events, logged.getvalue(), *capfd.readouterr())


def test_after_dagster_runs(tmp_path: Path, ugen_emulator: Any, logged: Any, capfd: Any, monkeypatch: Any) -> None:
    from dagster_ugen import UGenResource

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        shop = DagsterShop(instance, ugen_emulator, tmp_path / "videos")
        resource = UGenResource(api_key=KEY, base_url=ugen_emulator.base_url, poll_interval=0.01)
        assert shop.run("mug", "lamp", resource=resource).success
        wrong = UGenResource(api_key=KEY + "_", base_url=ugen_emulator.base_url, poll_interval=0.01)
        assert not shop.run("shoe", resource=wrong).success
        events = [entry for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]
        assert events
        nowhere(tmp_path, *events, logged.getvalue(), *capfd.readouterr())


def test_after_airflow_tasks(
    tmp_path: Path,
    connection: Any,  # noqa: F811  fixture
    moving_clock: Any,  # noqa: F811  fixture
    ugen_emulator: Any,
    logged: Any,
    capfd: Any,
) -> None:
    from ugen_provider.operators.jobs import UGenCreateJobOperator
    from ugen_provider.version_compat import TaskDeferred

    order = {"product_name": "Lamp", "product_image_url": "https://shop.example/l.png", "segment_count": 1}
    task = UGenCreateJobOperator(
        task_id="job", deferrable=True, poll_interval=5, output_path=str(tmp_path / "videos"), **order
    )
    connection(password=KEY)
    attempts = Attempts()
    try:
        task.execute(attempts.next())
    except TaskDeferred as deferred:
        stored = repr(deferred.trigger.serialize()) + repr(vars(deferred.trigger)) + repr(deferred)
    errors = []
    connection(password=KEY + "_wrong")
    try:
        run_task(task, Attempts().next())
    except Exception as error:
        errors.append(repr(error) + repr(vars(error)))
    assert errors
    connection(password=KEY)
    try:
        result = run_task(task, attempts.next())
    except UGenError as error:  # storing may fail on loopback addresses; what is asked is what was written
        result = repr(error)
    (tmp_path / "store.json").write_text(json.dumps(attempts.store.kept))
    (tmp_path / "xcoms.json").write_text(json.dumps(attempts.ti.xcoms))
    nowhere(tmp_path, stored, *errors, result, vars(task), logged.getvalue(), *capfd.readouterr())
