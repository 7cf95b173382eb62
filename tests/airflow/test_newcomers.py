# SPDX-License-Identifier: Apache-2.0
"""A DAG in each kind of Airflow that a newcomer has: without a task state store (below 3.3), with one, with a ledger.

Each is run once, cleared, with a day-old data interval and as a backfill, then at a second origin: one purchase for
each order and origin, and no run fails. So is a first run that was refused, for any reason, and then corrected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from tests.airflow.conftest import Attempts
from tests.airflow.deferring import run
from tests.core.local import live_by
from ugen_provider.core.api.errors import UGenError
from ugen_provider.emulator.pytest_plugin import ClockControl
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings
from ugen_provider.operators.base import KillClock
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.operators.jobs import UGenCreateJobOperator

Kind = Literal["key_alone", "store", "ledger"]
KINDS: tuple[Kind, ...] = ("key_alone", "store", "ledger")
LAMP: dict[str, Any] = {"product_name": "Lamp", "product_image_url": "https://shop.example/l.png", "segment_count": 1}
RUNS = {"once": (1, 0.0), "cleared": (2, 0.0), "day_old_interval": (2, 24.0), "backfill": (2, 24.0 * 40)}
"""How many attempts there are, and how many hours ago the run was due: a backfill's runs are due long ago."""


@pytest.fixture
def kind(request: pytest.FixtureRequest, connection: Any) -> Kind:
    found: Kind = request.param
    if found == "ledger":
        request.getfixturevalue("ledger")
    return found


@pytest.fixture
def origins(ugen_emulator: Any) -> Iterator[tuple[Any, Any]]:
    with EmulatorServer(Settings(speed=0, admin=True)) as second:
        yield ugen_emulator, second


def operator(**more: Any) -> UGenCreateJobOperator:
    return UGenCreateJobOperator(**{"task_id": "job", "deferrable": False, **LAMP, **more})


def bought(server: Any) -> int:
    return len(server.emulator.journal.find_purchases(kind="create"))


def due(attempts: Attempts, server: Any, *, hours: float) -> dict[str, Any]:
    context = attempts.next()
    context["dag_run"].run_after = datetime.fromtimestamp(server.emulator.now(), UTC) - timedelta(hours=hours)
    return context


def go_to(server: Any, kind: Kind, connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the connection at a server, and live by its clock."""
    more = {"ledger_conn_id": "ugen_ledger"} if kind == "ledger" else {}
    connection(base_url=server.base_url, **more)
    clock = ClockControl(server)
    live_by(clock, monkeypatch)
    monkeypatch.setattr(KillClock, "sleep", lambda _, seconds: clock.advance(seconds))


@pytest.mark.parametrize("kind", KINDS, indirect=True)
@pytest.mark.parametrize("how", RUNS)
@pytest.mark.usefixtures("moving_clock")
def test_dag_of_a_newcomer_buys_once_for_each_origin(
    kind: Kind, how: str, origins: tuple[Any, Any], connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, hours = RUNS[how]
    attempts = Attempts(with_store=kind != "key_alone")
    for server in origins:
        go_to(server, kind, connection, monkeypatch)
        found = [run(operator(), due(attempts, server, hours=hours))["job_id"] for _ in range(count)]
        assert len(set(found)) == 1
    assert [bought(server) for server in origins] == [1, 1]


@pytest.mark.parametrize("kind", KINDS, indirect=True)
@pytest.mark.parametrize("refusal", [401, 402, 403, 404, 405, 413, 422, 429, "connection"])
@pytest.mark.usefixtures("moving_clock")
def test_refused_task_buys_the_corrected_request_once(
    kind: Kind, refusal: Any, ugen_emulator: Any, ugen_faults: Any, ugen_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = Attempts(with_store=kind != "key_alone")
    with monkeypatch.context() as patch:
        if refusal == "connection":
            patch.setenv("AIRFLOW_CONN_UGEN_DEFAULT", away(kind))
        else:
            ugen_faults.add("status", status=refusal, method="POST", path="/api/v1/jobs", times=None)
        with pytest.raises(Exception, match=r".") as caught:
            run(operator(queue_timeout=1.0), attempts.next())
        assert isinstance(caught.value, (UGenError, UGenFailure))
    ugen_faults.clear()
    assert bought(ugen_emulator) == 0
    first = run(operator(segment_count=3), attempts.next())
    [purchase] = ugen_emulator.emulator.journal.find_purchases(kind="create")
    assert (purchase.job_id, first["request_changed"]) == (first["job_id"], False)
    if kind != "key_alone":  # where the key alone protects, it does so for as long as the service remembers it
        ugen_clock.advance(25 * 3600.0)
    assert run(operator(segment_count=3), attempts.next())["job_id"] == first["job_id"]
    assert bought(ugen_emulator) == 1


def away(kind: Kind) -> str:
    """The connection to an address at which nothing listens."""
    extra = {"base_url": "http://127.0.0.1:1/api/v1", "retries": 0}
    if kind == "ledger":
        extra["ledger_conn_id"] = "ugen_ledger"
    return json.dumps({"conn_type": "ugen", "password": LOCAL_KEY, "extra": extra})


@pytest.mark.parametrize("kind", ["store", "ledger"], indirect=True)
@pytest.mark.parametrize("previous", [True, False], ids=["with_previous_secrets", "without"])
@pytest.mark.usefixtures("moving_clock")
def test_rotated_key_buys_nothing_again(
    kind: Kind, previous: bool, ugen_emulator: Any, ugen_clock: Any, connection: Any
) -> None:
    """A record that cannot be verified has no authority on pages; to its own task it never means *not bought*."""
    more: dict[str, Any] = {"ledger_conn_id": "ugen_ledger"} if kind == "ledger" else {}
    connection(record_secret="the old secret", **more)
    attempts = Attempts()
    first = run(operator(), attempts.next())
    ugen_clock.advance(25 * 3600.0)
    connection(record_secret="the new secret", **more, **({"previous_secrets": ["the old secret"]} if previous else {}))
    again = run(operator(), attempts.next())
    assert (again["job_id"], again["outcome"], bought(ugen_emulator)) == (first["job_id"], "reused", 1)
