# SPDX-License-Identifier: Apache-2.0
"""What an API server does whose own ledger connection is missing, leads elsewhere, or does not answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.conftest import Attempts
from tests.airflow.deferring import run
from ugen_provider.core.jobs.sync.world import World
from ugen_provider.core.jobs.world import AsyncWorld
from ugen_provider.core.ledger.errors import LedgerUnavailableError
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.operators.jobs import UGenCreateJobOperator
from ugen_provider.plugins.database import CLEARED, NO_LEDGER, LedgerAccess
from ugen_provider.triggers.cancellation import acancel_killed_job, cancel_killed_job

LAMP: dict[str, Any] = {"product_name": "Lamp", "product_image_url": "https://shop.example/l.png", "segment_count": 1}
MISSING = json.dumps({"conn_type": "sqlite", "host": "/nowhere/ledger.db"})
AWAY = json.dumps({"conn_type": "postgres", "host": "127.0.0.1", "port": 1, "schema": "shop", "login": "me"})


@pytest.mark.parametrize("found", [None, MISSING, AWAY], ids=["no_connection", "no_ledger", "no_answer"])
def test_access_without_a_ledger_is_logged_once_and_shown(
    monkeypatch: pytest.MonkeyPatch, logged: Any, found: str | None
) -> None:
    name = "ugen_ledger_of_test"
    if found is not None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", found)
    else:
        monkeypatch.setattr("ugen_provider.hooks.ugen.BaseHook.get_connection", _undefined)
    access = LedgerAccess()
    assert [access.notice(name) for _ in range(3)] == [NO_LEDGER] * 3
    assert logged().count(f"cannot open the ledger of connection '{name}'") == 1
    assert name not in NO_LEDGER, "a page does not reveal which connections exist"


def _undefined(conn_id: str) -> Any:
    from ugen_provider.version_compat import AirflowNotFoundException

    raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")


@pytest.mark.usefixtures("ledger")
def test_access_to_a_ledger_that_opens_shows_nothing(logged: Any) -> None:
    assert LedgerAccess().notice("ugen_ledger") is None
    assert "cannot open" not in logged()


@pytest.mark.parametrize("cleared", [True, False])
def test_access_without_a_connection_reports_clear_on_success(
    monkeypatch: pytest.MonkeyPatch, logged: Any, cleared: bool
) -> None:
    monkeypatch.setenv("AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS", str(cleared))
    access = LedgerAccess()
    assert [access.notice(None) for _ in range(2)] == [CLEARED if cleared else None] * 2
    assert logged().count("clear_on_success deletes") == int(cleared)


class AwayStore(LedgerOrderStore):
    """A ledger whose database answers nothing."""

    def read(self, order_key: str) -> Any:
        raise LedgerUnavailableError("connection refused", ledger=order_key)


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.usefixtures("moving_clock")
def test_cancel_of_a_kill_is_sent_although_the_ledger_is_away(
    ledger: Path, ugen_emulator: Any, ugen_client: Any, blocking: bool
) -> None:
    operator = UGenCreateJobOperator(task_id="job", deferrable=False, wait_for_completion=False, **LAMP)
    job_id = run(operator, Attempts().next())["job_id"]
    with Ledger(str(ledger)) as opened:
        stored = LedgerOrderStore(opened).of_job(job_id)
        assert stored is not None
        given: dict[str, Any] = {"job_id": job_id, "order_key": stored.order_key, "token": stored.token}
        if blocking:
            done = cancel_killed_job(World(ugen_client, AwayStore(opened)), may_cancel=lambda: True, **given)
        else:
            done = asyncio.run(_cancel(ugen_emulator.base_url, AwayStore(opened), given))
    assert done is not None
    assert done.confirmed
    assert ugen_client.jobs.get(job_id).status == "cancelled"


async def _cancel(base_url: str, store: LedgerOrderStore, given: dict[str, Any]) -> Any:
    from ugen_provider import AsyncUGenClient
    from ugen_provider.emulator.settings import LOCAL_KEY

    async def may_cancel() -> bool:
        return True

    async with AsyncUGenClient(api_key=LOCAL_KEY, base_url=base_url) as client:
        return await acancel_killed_job(AsyncWorld(client, store), may_cancel=may_cancel, **given)
