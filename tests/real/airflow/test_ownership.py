# SPDX-License-Identifier: Apache-2.0
"""The ownership matrix in a real Airflow: who owns the job of a task after each way in which the task can end.

A cell is {state of the task} x {event} x {operator} x {no ledger, SQLite, PostgreSQL}. Each cell says who owns the job
afterwards, and is checked against the emulator's journal after its clock has moved one key window on: no second job is
ever bought for one that is alive, and no job stays active without an owner.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import psutil
import pytest
import sqlalchemy as sa

from tests.real.airflow.conftest import Run
from ugen_provider.cli.demo.airflow import AirflowApiError

if TYPE_CHECKING:
    from tests.real.airflow.conftest import Stage

pytestmark = pytest.mark.real

State = Literal["blocking", "deferred", "queued", "up_for_retry", "awaiting_input"]
Event = Literal[
    "failed", "success", "skipped", "cleared", "run_deleted", "run_timeout", "fail_fast", "sigterm", "kill_9"
]
Operator = Literal["create", "decorator", "retry", "resume", "gate", "feed"]
Kind = Literal["none", "sqlite", "postgresql"]
Owner = Literal["cancelled", "next_attempt", "reconciler", "left"]

KEY_WINDOW = 25 * 3600.0
STATES: tuple[State, ...] = ("blocking", "deferred", "queued", "up_for_retry", "awaiting_input")
EVENTS: tuple[Event, ...] = (
    "failed",
    "success",
    "skipped",
    "cleared",
    "run_deleted",
    "run_timeout",
    "fail_fast",
    "sigterm",
    "kill_9",
)
OPERATORS: tuple[Operator, ...] = ("create", "decorator", "retry", "resume", "gate", "feed")
LEDGERS: tuple[Kind, ...] = ("none", "sqlite", "postgresql")


@dataclass(frozen=True)
class Cell:
    """One way in which a task with a job can end."""

    state: State
    event: Event
    operator: Operator
    ledger: Kind

    def __str__(self) -> str:
        return f"{self.state}-{self.event}-{self.operator}-{self.ledger}"

    @property
    def owner(self) -> Owner:
        """Owner of the job afterwards."""
        if self.event in {"cleared", "sigterm", "kill_9"}:
            return "next_attempt"
        if self.operator == "feed":
            return "left"  # the next run of the feed reuses its jobs
        if self.event in {"failed", "success", "skipped"}:
            return "cancelled"
        if self.state in {"blocking", "deferred"}:
            return "cancelled"
        # The run ended while no process of ours worked on the task, and Airflow calls no hook. What a retry or resume
        # acts on was bought elsewhere, so no ledger has its order: a job without an owner is reported, never cancelled.
        return "left" if self.ledger == "none" or self.operator in {"retry", "resume"} else "reconciler"

    @property
    def exists(self) -> bool:
        """Whether Airflow has such a case."""
        if (self.state == "awaiting_input") != (self.operator == "gate"):
            return False
        if self.event in {"sigterm", "kill_9"} and self.state != "blocking":
            return False  # no process of the task runs
        if self.state == "up_for_retry" and self.operator != "create":
            return False
        if self.operator == "feed" and (self.state in {"queued", "up_for_retry"} or self.ledger == "none"):
            return False
        # A paused or queued task has the same state in a run that lasts: Airflow skips it when it is over.
        return not (self.state in {"queued", "up_for_retry"} and self.event in {"run_timeout", "fail_fast"})

    @property
    def dag_id(self) -> str:
        """The DAG of this cell; see dags/ownership.py."""
        kind = "patient" if self.state == "up_for_retry" else self.operator
        waiting = "blocking" if self.state == "blocking" else "deferred"
        ending = {"run_timeout": "_timeout", "fail_fast": "_fail_fast"}.get(self.event, "")
        return f"own_{kind}_{waiting}_{self.ledger}{ending}"


CELLS = [cell for made in itertools.product(STATES, EVENTS, OPERATORS, LEDGERS) if (cell := Cell(*made)).exists]
DIAGONAL = [
    Cell("blocking", "failed", "create", "postgresql"),
    Cell("blocking", "success", "decorator", "none"),
    Cell("blocking", "sigterm", "create", "none"),
    Cell("blocking", "kill_9", "create", "sqlite"),
    Cell("blocking", "fail_fast", "create", "sqlite"),
    Cell("deferred", "skipped", "resume", "sqlite"),
    Cell("deferred", "cleared", "retry", "sqlite"),
    Cell("deferred", "run_deleted", "create", "postgresql"),
    Cell("queued", "failed", "create", "sqlite"),
    Cell("up_for_retry", "failed", "create", "none"),
    Cell("awaiting_input", "failed", "gate", "sqlite"),
    Cell("awaiting_input", "run_timeout", "gate", "postgresql"),
]


def test_cells_diagonal_is_part_of_the_matrix() -> None:
    assert set(DIAGONAL) <= set(CELLS)


@pytest.mark.parametrize("cell", DIAGONAL, ids=str)
def test_ownership_of_diagonal_cell_is_kept(stage: Stage, cell: Cell, pool: None) -> None:
    play(stage, cell)


@pytest.mark.torture
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in DIAGONAL], ids=str)
def test_ownership_of_each_cell_is_kept(stage: Stage, cell: Cell, pool: None) -> None:
    play(stage, cell)


def play(stage: Stage, cell: Cell) -> None:
    if cell.ledger not in {"none", *stage.ledgers}:
        pytest.skip("no PostgreSQL answers on loopback")
    run = reach(stage, cell)
    before = run.jobs()
    happen(stage, cell, run)
    match cell.owner:
        case "cancelled":
            run.until_status(*["cancelled"] * len(before))
        case "reconciler":
            assert "cancelled" not in run.statuses()
            set_pool(stage, 128)
            reconcile(stage, cell.ledger)
            age_actions(stage.ledgers[cell.ledger])
            reconcile(stage, cell.ledger)
            run.until_status("cancelled")
        case "next_attempt":
            follow_next_attempt(cell, run)
        case "left":
            assert "cancelled" not in run.statuses()
    stage.desk.advance(KEY_WINDOW)
    assert run.jobs() == before, "a second job was bought"
    assert "active" not in run.statuses() or cell.owner == "left"


def follow_next_attempt(cell: Cell, run: Run) -> None:
    """Let the next attempt end: it delivers the job that the one before bought."""
    assert "cancelled" not in run.statuses()
    if cell.operator == "gate":
        run.until("awaiting_input")
        return
    run.wait(lambda: run.task()["try_number"] >= 2, what="the next attempt")
    assert run.finish()["state"] == "success"
    assert set(run.statuses()) == {"completed"}


# Reaching the state.


def reach(stage: Stage, cell: Cell) -> Run:
    run = start(stage, cell)
    if cell.state == "blocking":
        run.wait(lambda: bool(run.jobs()), what="a job")
        run.wait(lambda: published(stage, run), what="the job being published")
        return run
    if cell.state == "awaiting_input":

        def asked() -> bool:
            stage.desk.advance(30.0)
            return bool(run.task()["state"] == "awaiting_input")

        run.wait(asked, what="the gate being open")
        stage.until_scheduler_has_seen()
        return run
    if cell.state == "up_for_retry":
        run.until("up_for_retry")
        return run
    run.until("deferred")
    run.wait(lambda: "starting" in run.log(), what="the trigger being loaded")
    if cell.state == "queued":
        set_pool(stage, 0)
        run.clear()
        run.until(("scheduled", "queued"))
        run.wait(lambda: "keeps running" in run.log(), what="the old trigger's end")
    return run


def start(stage: Stage, cell: Cell) -> Run:
    conf: dict[str, Any] = {}
    run = Run(stage, cell.dag_id, f"run{next(_numbers)}")
    if cell.operator in {"retry", "resume"}:
        conf["job_id"] = existing_job(stage, run.product, failed=cell.operator == "retry")
    if cell.operator == "feed":
        feed = stage.airflow.home / f"{run.run_id}.csv"
        feed.write_text(f"id,title,image_link\n1,{run.product},https://shop.example/lamp.png\n")
        conf["feed"] = str(feed)
    stage.airflow.wait_for_dag(cell.dag_id)
    trigger(stage, run, {"product": run.product, **conf})
    return run


def trigger(stage: Stage, run: Run, conf: dict[str, Any]) -> None:
    """Start a run; Airflow's SQLite may be locked for a moment."""

    def started() -> bool:
        try:
            stage.api.trigger(run.dag_id, run_id=run.run_id, conf=conf)
        except AirflowApiError as error:
            if "answered 500" not in str(error):
                raise
        return stage.api.run_state(run.dag_id, run_id=run.run_id) is not None

    run.wait(started, what=f"the run {run.run_id} being started")


_numbers = itertools.count(1000)


def existing_job(stage: Stage, product: str, *, failed: bool) -> str:
    from ugen_provider import CreateJob, UGenClient
    from ugen_provider.emulator.settings import LOCAL_KEY
    from ugen_provider.emulator.world import pipeline

    if failed:
        with stage.desk.lock:
            stage.desk.jobs.outcomes.append(pipeline.parse({"fail_at": "generation", "times": 1}))
    with UGenClient(api_key=LOCAL_KEY, base_url=stage.ugen.base_url) as client:
        lamp = CreateJob(product_name=product, product_image_url="https://shop.example/lamp.png", segment_count=1)
        job = client.jobs.create(lamp)
        if failed:
            stage.desk.advance(3600.0)
        return str(job.job_id)


def published(stage: Stage, run: Run) -> bool:
    path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/job/xcomEntries/ugen_job"
    return stage.api._ask("GET", path, expect=(200, 404)) is not None or "feed" in run.dag_id


def set_pool(stage: Stage, slots: int) -> None:
    body = {"pool": "default_pool", "slots": slots, "include_deferred": False}
    stage.api._ask("PATCH", "/pools/default_pool", body=body, params={"update_mask": ["slots", "include_deferred"]})


@pytest.fixture
def pool(stage: Stage) -> Iterator[None]:
    """Give the default pool its slots back afterwards."""
    yield
    set_pool(stage, 128)


# The event.


def happen(stage: Stage, cell: Cell, run: Run) -> None:
    match cell.event:
        case "failed" | "success" | "skipped":
            stage.api.mark_task(run.dag_id, run_id=run.run_id, task_id="job", state=cell.event)
        case "cleared":
            if cell.state == "queued":
                set_pool(stage, 128)
            run.clear()
        case "run_deleted":
            with sqlite3.connect(stage.airflow.database, timeout=30) as database:
                database.execute("PRAGMA foreign_keys = ON")
                database.execute("DELETE FROM task_instance WHERE run_id = ?", (run.run_id,))
                database.execute("DELETE FROM dag_run WHERE run_id = ?", (run.run_id,))
            stage.until_scheduler_continues()
        case "run_timeout":
            with sqlite3.connect(stage.airflow.database, timeout=30) as database:  # the hour is over
                before = "2020-01-01 00:00:00.000000"
                database.execute("UPDATE dag_run SET start_date = ? WHERE run_id = ?", (before, run.run_id))
            run.until_run_is("failed")
        case "fail_fast":
            folder = stage.airflow.home / "output"
            folder.mkdir(exist_ok=True)
            (folder / f"{run.product}.fail").touch()
            run.until_run_is("failed")
        case "sigterm" | "kill_9":
            how = signal.SIGTERM if cell.event == "sigterm" else signal.SIGKILL
            for process in task_processes(stage):
                os.kill(process.pid, how)


def task_processes(stage: Stage) -> list[psutil.Process]:
    """Return the processes in which tasks of this Airflow run their own code."""
    scheduler = next(each for each in stage.airflow.processes.running if each.name == "airflow scheduler")
    found = []
    for each in psutil.Process(scheduler.popen.pid).children(recursive=True):
        with suppress(psutil.Error):  # one that ended a moment ago has no command line any more
            line = " ".join(each.cmdline())
            if line.startswith("airflow worker -- ") and "LocalExecutor" not in line:
                found.append(each)
    return found


def reconcile(stage: Stage, kind: Kind) -> None:
    """Do one round by the operator, in a run of its own."""
    free_lease(stage.ledgers[kind])
    run = Run(stage, f"reconcile_{kind}", f"run{next(_numbers)}")
    stage.airflow.wait_for_dag(run.dag_id)
    trigger(stage, run, {})
    run.until(("success", "failed"))
    assert run.task()["state"] == "success", run.log()[-4000:]


def age_actions(ledger: str) -> None:
    """Let ten minutes pass since the first reading."""
    _change(ledger, "UPDATE ugen_action SET at = at - 700")


def free_lease(ledger: str) -> None:
    """The triggerer's reconciler may hold the lease for two minutes after its round."""
    _change(ledger, "UPDATE ugen_lease SET until = 0")


def _change(ledger: str, statement: str) -> None:
    if "://" not in ledger:
        with closing(sqlite3.connect(ledger, timeout=30)) as database, database:
            database.execute(statement)
        return
    with sa.create_engine(ledger, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text(statement))
