# SPDX-License-Identifier: Apache-2.0
"""Every row of the cancelling table, in a real Airflow: who may cancel, who must not, what the next attempt does."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import pytest
import sqlalchemy as sa

if TYPE_CHECKING:
    from tests.real.airflow.conftest import Run, Stage

pytestmark = pytest.mark.real


def deferred(stage: Stage, dag_id: str = "deferred_job") -> Run:
    """A run whose task waits in the triggerer, its trigger loaded."""
    run = stage.start(dag_id)
    run.until("deferred")
    run.wait(lambda: "starting" in run.log(), what="the trigger being loaded")
    return run


def test_marked_failed_cancels_and_the_next_attempt_buys_at_once(stage: Stage) -> None:
    run = deferred(stage)
    run.mark("failed")
    run.until_status("cancelled")
    run.clear()
    run.until("deferred", attempt=2)
    assert run.statuses() == ["cancelled", "active"]
    assert run.finish()["state"] == "success"
    assert (run.result()["purchase_number"], run.bought()) == (1, 2)


def test_marked_failed_before_the_triggerer_loads_it_cancels(stage: Stage, triggerer_back: None) -> None:
    stage.kill_part("triggerer")
    run = stage.start("deferred_job")
    run.until("deferred")
    run.mark("failed")
    run.until_status("cancelled")
    stage.start_part("triggerer")
    run.clear()
    run.until("deferred", attempt=2)
    assert run.finish()["state"] == "success"
    assert run.bought() == 2


def test_marked_successful_cancels(stage: Stage) -> None:
    run = deferred(stage)
    run.mark("success")
    run.until_status("cancelled")


def test_the_run_marked_failed_cancels(stage: Stage) -> None:
    run = deferred(stage)
    stage.api.mark_run(run.dag_id, run_id=run.run_id, state="failed")
    run.until_status("cancelled")


def test_the_run_deleted_cancels(stage: Stage) -> None:
    run = deferred(stage)
    # Airflow's pages delete no run that still runs, but its database can be cleaned under one.
    with sqlite3.connect(stage.airflow.database, timeout=30) as database:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("DELETE FROM task_instance WHERE run_id = ?", (run.run_id,))
        database.execute("DELETE FROM dag_run WHERE run_id = ?", (run.run_id,))
    run.until_status("cancelled")


def test_a_run_timeout_cancels_and_the_next_attempt_buys(stage: Stage) -> None:
    run = deferred(stage, "short_run")
    run.until_status("cancelled")
    assert run.task()["state"] in {"failed", "skipped"}
    run.clear()
    run.until("deferred", attempt=2)
    assert run.finish()["state"] == "success"
    assert (run.result()["purchase_number"], run.bought()) == (1, 2)


@pytest.mark.torture
def test_cleared_while_deferred_leaves_and_next_try_reattaches(stage: Stage) -> None:
    run = deferred(stage)
    run.clear()
    run.until("deferred", attempt=2)
    run.wait(lambda: "keeps running" in run.log(), what="the old trigger having looked")
    assert run.statuses() == ["active"]
    assert run.finish()["state"] == "success"
    assert (run.result()["outcome"], run.bought()) == ("reattached", 1)


@pytest.mark.torture
def test_marked_failed_and_cleared_at_once_never_pays_for_two(stage: Stage) -> None:
    run = deferred(stage)
    run.mark("failed")
    # Cleared any earlier, the scheduler fails the run after it was cleared, and nothing runs at all.
    run.until_run_is("failed")
    run.clear()
    run.until("deferred", attempt=2)
    assert run.finish()["state"] == "success"
    assert run.statuses()[-1] == "completed"
    assert run.statuses().count("completed") == 1


def test_a_cleared_finished_task_takes_what_it_bought(stage: Stage) -> None:
    run = deferred(stage)
    assert run.finish()["state"] == "success"
    run.clear()
    run.until("success", attempt=2)
    assert (run.result()["outcome"], run.bought()) == ("reused", 1)


@pytest.mark.torture
def test_two_instances_with_one_scope_key_deliver_uncancelled(stage: Stage) -> None:
    run = stage.start("shared_job")

    def both() -> list[str]:
        return [run.task(map_index=index)["state"] for index in (0, 1)]

    run.wait(lambda: both() == ["deferred"] * 2, what="both waiting")
    run.wait(lambda: run.log().count("starting") >= 2, what="both triggers being loaded")
    assert run.bought() == 1
    stage.api.mark_task(run.dag_id, run_id=run.run_id, task_id="job", state="failed", map_index=0)
    run.wait(lambda: "keeps running" in run.log(), what="on_kill having looked")
    assert run.statuses() == ["active"]
    stage.until_scheduler_has_seen()
    stage.api.clear_task(run.dag_id, run_id=run.run_id, task_id="job")
    run.wait(lambda: both() == ["deferred"] * 2, what="both waiting again")

    def over() -> bool:
        stage.desk.advance(30.0)
        return all(state in {"success", "failed"} for state in both())

    run.wait(over, what="both being over")
    assert (both(), run.statuses()) == (["success"] * 2, ["completed"])


@pytest.mark.torture
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_a_lost_triggerer_leaves_and_the_next_one_continues(
    stage: Stage, triggerer_back: None, how: signal.Signals
) -> None:
    run = deferred(stage)
    stage.kill_part("triggerer", how)
    assert run.statuses() == ["active"]
    stage.start_part("triggerer")
    assert run.finish()["state"] == "success"
    assert run.bought() == 1


@pytest.mark.torture
def test_triggers_given_to_another_triggerer_leave(stage: Stage) -> None:
    """A triggerer whose heartbeat lapsed finds its triggers with another, and must cancel them all (#73454)."""
    run = deferred(stage)
    with sqlite3.connect(stage.airflow.database, timeout=30) as database:
        mine = database.execute("SELECT max(id) FROM job WHERE job_type = 'TriggererJob'").fetchone()[0]
        columns = "dag_id, state, job_type, start_date, end_date, executor_class, hostname, unixname"
        database.execute(
            f"INSERT INTO job ({columns}, latest_heartbeat) "
            f"SELECT {columns}, '2099-01-01 00:00:00.000000' FROM job WHERE id = ?",
            (mine,),
        )
        other = database.execute("SELECT max(id) FROM job").fetchone()[0]
        database.execute("UPDATE trigger SET triggerer_id = ?", (other,))
    run.wait(lambda: "keeps running" in run.log(), what="on_kill having looked")
    assert run.statuses() == ["active"]
    with sqlite3.connect(stage.airflow.database, timeout=30) as database:
        database.execute("DELETE FROM job WHERE id = ?", (other,))
        database.execute("UPDATE trigger SET triggerer_id = NULL")
    assert run.finish()["state"] == "success"
    assert run.bought() == 1


def test_polling_errors_leave(stage: Stage) -> None:
    run = deferred(stage)
    world = stage.desk
    with world.lock:
        rule = world.faults.add({"kind": "status", "status": 500, "method": "GET", "times": 6})
    run.wait(lambda: rule.hits == 6, what="the errors having happened")
    assert run.finish()["state"] == "success"
    assert run.bought() == 1


def test_a_deadline_leaves_and_the_next_attempt_attaches(stage: Stage) -> None:
    run = stage.start("deferred_job_with_retries")
    run.until("deferred", attempt=2)
    assert run.statuses() == ["active"]
    assert run.finish()["state"] == "success"
    assert run.bought() == 1


def test_a_blocking_task_marked_failed_cancels(stage: Stage) -> None:
    run = stage.start("blocking_job")
    run.until_bought()
    run.mark("failed")
    run.until_status("cancelled")


@pytest.mark.torture
def test_a_blocking_task_on_a_stopping_node_leaves_its_job(stage: Stage) -> None:
    run = stage.start("blocking_job")
    run.until_bought()
    run.wait(lambda: bool(_task_processes(stage)), what="the task's process")
    for process in _task_processes(stage):
        os.kill(process.pid, signal.SIGTERM)
    run.wait(lambda: "keeps running" in run.log(), what="on_kill having looked")
    for process in _task_processes(stage):
        process.kill()
    assert run.statuses() == ["active"]
    assert run.finish()["state"] == "success"
    assert run.bought() == 1


def _task_processes(stage: Stage) -> list[psutil.Process]:
    """The processes in which tasks of this Airflow run their own code."""
    scheduler = next(each for each in stage.airflow.processes.running if each.name == "airflow scheduler")
    found = []
    for each in psutil.Process(scheduler.popen.pid).children(recursive=True):
        with suppress(psutil.Error):  # one that ended a moment ago has no command line any more
            line = " ".join(each.cmdline())
            if line.startswith("airflow worker -- ") and "LocalExecutor" not in line:
                found.append(each)
    return found


@pytest.mark.parametrize("trouble", ["delete_answers_503", "ledger_is_away"])
def test_cancel_of_the_listener_that_fails_is_sent_again(stage: Stage, trouble: str, triggerer_back: None) -> None:
    """No process works on the task, so the listener alone can cancel: it repeats what failed."""
    if "postgresql" not in stage.ledgers:
        pytest.skip("no PostgreSQL answers on loopback")
    run = deferred(stage, "own_create_deferred_postgresql")
    stage.until_scheduler_has_seen()
    stage.kill_part("triggerer")
    if trouble == "delete_answers_503":
        with stage.desk.lock:
            stage.desk.faults.add({"kind": "status", "status": 503, "method": "DELETE", "path": "*", "times": 6})
        run.mark("failed")
    else:
        log = stage.airflow.logs / "api-server.log"
        before = log.read_text().count("could not be cancelled yet")
        with away(stage.ledgers["postgresql"]):
            run.mark("failed")
            run.wait(
                lambda: log.read_text().count("could not be cancelled yet") > before, what="the listener's first try"
            )
            assert run.statuses() == ["active"]
    run.until_status("cancelled")
    stage.desk.advance(25 * 3600.0)
    assert run.bought() == 1


@contextmanager
def away(database: str) -> Iterator[None]:
    """Let a database of PostgreSQL accept no connection, as while its server restarts."""
    url = sa.engine.make_url(database)
    admin = sa.create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f"ALTER DATABASE {url.database} WITH ALLOW_CONNECTIONS false"))
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
        connection.execute(sa.text(end), {"name": url.database})
        try:
            yield
        finally:
            connection.execute(sa.text(f"ALTER DATABASE {url.database} WITH ALLOW_CONNECTIONS true"))
