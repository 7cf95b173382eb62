# SPDX-License-Identifier: Apache-2.0
"""An Airflow in this process with a database of its own, and a connection to the emulator. Nothing here is real time:
the emulator's clock is moved by hand, and so is the wait of a blocking task."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

_HOME = Path(tempfile.mkdtemp(prefix="ugen-airflow-"))
os.environ.setdefault("AIRFLOW_HOME", str(_HOME))
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(Path(__file__).parents[2] / "example_dags")
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"


class StateStore:
    """Airflow's task state store in memory: JSON in, JSON out."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.retentions: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.kept[key]) if key in self.kept else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.kept[key] = json.dumps(value)
        self.retentions[key] = retention

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)


@dataclass
class TaskInstance:
    """The part of a task instance that operators use."""

    dag_id: str = "dag"
    run_id: str = "run"
    task_id: str = "job"
    map_index: int = -1
    try_number: int = 1
    start_date: datetime = field(default_factory=lambda: datetime.now(UTC))
    xcoms: dict[str, Any] = field(default_factory=dict)
    max_tries: int = 0
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))

    others: list[TaskInstance] = field(default_factory=list)

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int | None = None) -> Any:
        """Return the value of one instance where its index is given, else of all the task's instances, like Airflow."""
        found = [ti.xcoms[key] for ti in [self, *self.others] if ti.task_id == task_ids and key in ti.xcoms]
        return found[0] if len(found) == 1 else (found or None)


@dataclass
class DagRun:
    conf: dict[str, Any] = field(default_factory=dict)


@dataclass
class Event:
    extra: dict[str, Any] = field(default_factory=dict)


class Events:
    """By the asset's name: before Airflow 3.2 assets have no hash."""

    def __init__(self) -> None:
        self.kept: dict[str, Event] = {}

    def __getitem__(self, asset: Any) -> Event:
        return self.kept.setdefault(asset.name, Event())


@dataclass
class Dag:
    """The tasks of a DAG, as a worker sees them."""

    tasks: list[Any] = field(default_factory=list)


class Attempts:
    """One task instance over its attempts: what survives a retry and a clear survives here.

    Args:
        with_store: Whether this Airflow has a task state store.
        task_id: The task.
        dag: The DAG, where other tasks of it count.
    """

    def __init__(self, *, with_store: bool = True, task_id: str = "job", dag: Dag | None = None) -> None:
        self.store = StateStore() if with_store else None
        self.ti = TaskInstance(try_number=0, task_id=task_id)
        self.dag = dag
        self.beside: list[Attempts] = []
        self.conf: dict[str, Any] = {}
        self.outlet_events = Events()

    def context(self) -> dict[str, Any]:
        """Return the context of the present attempt."""
        self.ti.others = [other.ti for other in self.beside]
        made: dict[str, Any] = {"ti": self.ti, "dag_run": DagRun(self.conf), "outlet_events": self.outlet_events}
        made["task_instance"] = self.ti
        if self.dag is not None:
            made["dag"] = self.dag
        return made if self.store is None else {**made, "task_state_store": self.store}

    def next(self) -> dict[str, Any]:
        """Of a new attempt, whose XComs Airflow has cleared."""
        self.ti = TaskInstance(try_number=self.ti.try_number + 1, task_id=self.ti.task_id)
        return self.context()


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


@pytest.fixture
def connection(ugen_emulator: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the connection `ugen_default`, with extras."""

    def set_connection(password: str = "ugen_sk_local", **extra: Any) -> None:
        stored = {
            "conn_type": "ugen",
            "password": password,
            "extra": {"base_url": ugen_emulator.base_url, "retries": 0, **extra},
        }
        monkeypatch.setenv("AIRFLOW_CONN_UGEN_DEFAULT", json.dumps(stored))

    set_connection()
    return set_connection


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connection: Callable[..., None]) -> Path:
    """A SQLite ledger that the connection `ugen_default` names."""
    from ugen_provider.core.ledger.store import Ledger

    path = tmp_path / "ledger.db"
    Ledger.init(str(path), allow_ephemeral=True).close()
    monkeypatch.setenv("AIRFLOW_CONN_UGEN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    connection(ledger_conn_id="ugen_ledger")
    return path


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return what tasks have logged since it was asked last; where Airflow logs to changes."""

    def since() -> str:
        seen, messages = capsys.readouterr(), caplog.messages
        # Airflow 3.0 writes each message to its own handler too.
        others = [line for line in f"{seen.err}\n{seen.out}".splitlines() if not any(text in line for text in messages)]
        said = "\n".join([*messages, *others]).strip()
        caplog.clear()
        return said

    caplog.set_level("INFO")
    return since


@pytest.fixture
def moving_clock(ugen_clock: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Clients live by the emulator's clock, and whenever one would wait, that clock moves instead."""
    from tests.core.local import live_by
    from ugen_provider.operators.base import KillClock

    live_by(ugen_clock, monkeypatch)
    monkeypatch.setattr(KillClock, "sleep", lambda self, seconds: ugen_clock.advance(seconds))
    return ugen_clock
