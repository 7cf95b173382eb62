# SPDX-License-Identifier: Apache-2.0
"""A feed in one task: waves, bought and left; between them no process waits."""

from __future__ import annotations

import json
import sqlite3
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.airflow.deferring import run, through
from tests.torture.postgres import OwnPostgres, own_postgres
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError
from ugen_provider.core.batch import leases
from ugen_provider.ledger import LedgerUnavailableError
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.operators.feeds import UGenCreateJobsFromFeedOperator, UGenExportVideosOperator
from ugen_provider.triggers.jobs import MOST_JOBS, UGenJobBatchTrigger
from ugen_provider.version_compat import AirflowFailException, TaskDeferred

FEED = Path(__file__).parents[2] / "examples" / "feed.xml"
GIVEN = ("task_id", "feed", "catalogue", "budget", "job_defaults", "poll_interval")


@pytest.fixture
def make(connection: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from ugen_provider.core.ledger.store import Ledger

    Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True).close()
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}))

    def operator(**more: Any) -> UGenCreateJobsFromFeedOperator:
        given = {
            "task_id": "videos",
            "feed": str(FEED),
            "catalogue": "shop",
            "ledger_conn_id": "ledger",
            "budget": 5000,
            "job_defaults": {"segment_count": 1},
            "deferrable": True,
            "poll_interval": 5,
        }
        return UGenCreateJobsFromFeedOperator(**{**given, **more})

    return operator


def test_it_buys_in_waves_and_waits_for_each_in_the_triggerer(
    make: Any, attempts: Any, ugen_emulator: Any, ugen_clock: Any
) -> None:
    context = attempts.next()
    step: Any = lambda: make(in_flight=2).execute(context)  # noqa: E731
    bought = []
    while True:
        try:
            result = step()
            break
        except TaskDeferred as deferred:
            trigger, method = deferred.trigger, deferred.method_name
        bought.append(len(ugen_emulator.emulator.journal.find_purchases()))
        assert isinstance(trigger, UGenJobBatchTrigger)
        ugen_clock.advance(3600.0)
        event = through(trigger)
        step = lambda: getattr(make(in_flight=2), method)(context, event)  # noqa: B023, E731
    assert bought == [2, 4, 5]
    assert (result["completed"], result["rejected"], result["products"]) == (5, 1, 6)
    # A wave comes back to what the one before it bought, which is the same run.
    assert (result["bought"], result["attached"]) == (5, 0)


def test_a_wave_takes_all_allowed_slots_and_leaves_early(
    make: Any, attempts: Any, ugen_emulator: Any, tmp_path: Path
) -> None:
    feed = tmp_path / "many.csv"
    lines = (f"p{number},Cup {number},https://shop.example/{number}.jpg" for number in range(30))
    feed.write_text("\n".join(["id,title,image_link", *lines]))
    with pytest.raises(TaskDeferred) as deferred:
        make(feed=str(feed), in_flight=20).execute(attempts.next())
    assert len(deferred.value.trigger.serialize()[1]["job_ids"]) == 20
    assert len(ugen_emulator.emulator.journal.find_purchases()) == 20


def test_wave_stores_what_has_ended_before_it_leaves(
    make: Any, attempts: Any, ugen_emulator: Any, ugen_clock: Any, tmp_path: Path
) -> None:
    """Jobs that have ended are stored by the same wave, however long the storage takes."""
    output = str(tmp_path / "videos")
    with pytest.raises(TaskDeferred):
        make(in_flight=5, output_path=output).execute(attempts.next())
    ugen_clock.advance(3600.0)
    result = make(in_flight=5, output_path=output).execute(attempts.context())
    assert (result["completed"], result["not_stored"]) == (5, 0)


def test_the_next_night_buys_nothing(make: Any, attempts: Any, ugen_emulator: Any, moving_clock: Any) -> None:
    first = make(deferrable=False).execute(attempts.next())
    attempts.ti.run_id = "the next night"
    second = make(deferrable=False, run_key="the next night").execute(attempts.context())
    assert (first["completed"], second["unchanged"]) == (5, 5)
    assert len(ugen_emulator.emulator.journal.find_purchases()) == 5


def test_a_budget_stops_it(make: Any, attempts: Any, ugen_emulator: Any, moving_clock: Any) -> None:
    result = make(deferrable=False, budget=200).execute(attempts.next())
    assert (result["completed"], result["postponed"]) == (2, 3)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"catalogue": ""}, ConfigError, "catalogue: must be named"),
        ({"job_defaults": {"segment_count": 0}}, InvalidRequestError, "segment_count"),
        ({"in_flight": MOST_JOBS + 1}, ConfigError, "in_flight: at most"),
        ({"on_earlier_failure": "hope"}, ConfigError, "on_earlier_failure"),
        ({"budget": "plenty"}, ConfigError, "budget: must be a whole number"),
        ({"budget": -1}, ConfigError, "budget: must be at least 0"),
        ({"max_changed": 20}, ConfigError, "max_changed: must be at most 1"),
        ({"min_score": 80}, ConfigError, "min_score: must be at most 1"),
        ({"job_defaults": "segment_count=1"}, ConfigError, "job_defaults: must be a dict"),
        ({"output_path": ""}, ConfigError, "output_path: must be named"),
        ({"max_rejected": -1}, ConfigError, "max_rejected: must be at least 0"),
        ({"mapping": {"constants": {"product_name": "Lamp"}}}, ConfigError, "product_name comes from the feed"),
    ],
)
def test_wrong_arguments_are_refused_when_the_dag_is_parsed(
    make: Any, wrong: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        make(**wrong)


RULES = {"filters": ["price >= 30"], "constants": {"script_tone": "enthusiastic"}}


@pytest.mark.parametrize("in_a_file", [False, True])
def test_a_mapping_says_what_columns_become(
    make: Any, attempts: Any, ugen_client: Any, moving_clock: Any, tmp_path: Path, in_a_file: bool
) -> None:
    (tmp_path / "mapping.yaml").write_text(json.dumps(RULES))
    mapping: Any = str(tmp_path / "mapping.yaml") if in_a_file else RULES
    result = make(deferrable=False, mapping=mapping).execute(attempts.next())
    assert result["skipped"] > 0
    assert result["skipped"] + result["completed"] + result["rejected"] == 6
    made = [ugen_client.jobs.get(job.job_id).model_dump()["script_tone"] for job in ugen_client.jobs.list()]
    assert made == ["enthusiastic"] * result["completed"]


def test_a_feed_is_read_in_a_named_encoding(make: Any, attempts: Any, moving_clock: Any, tmp_path: Path) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_bytes("id;title;image_link\n1;Käse;https://s.example/1.jpg\n".encode("latin-1"))
    unread = make(deferrable=False, feed=str(feed), run_key="once").execute(attempts.next())
    assert (unread["rejected"], unread["completed"]) == (1, 0)
    result = make(deferrable=False, feed=str(feed), encoding="latin-1").execute(attempts.next())
    assert result["completed"] == 1


def test_an_invalid_feed_fails_the_task_before_any_purchase(make: Any, attempts: Any, ugen_emulator: Any) -> None:
    with pytest.raises(UGenFailure, match="max_rejected is 0: nothing was bought"):
        make(deferrable=False, max_rejected=0).execute(attempts.next())
    assert not ugen_emulator.emulator.journal.find_purchases()


@pytest.mark.parametrize("rendered", ["", "None", None, "plenty"])
def test_a_budget_rendered_to_nothing_is_not_unlimited(
    make: Any, attempts: Any, ugen_emulator: Any, rendered: Any
) -> None:
    task = make(budget="{{ budget }}")
    task.budget = rendered
    with pytest.raises(UGenFailure, match="budget: "):
        task.execute(attempts.next())
    assert ugen_emulator.emulator.journal.find_purchases() == []


def test_a_missing_ledger_is_named(make: Any, attempts: Any) -> None:
    with pytest.raises(UGenFailure, match="connection 'nowhere' is not defined"):
        make(ledger_conn_id="nowhere").execute(attempts.next())


@pytest.mark.parametrize("executor", ["CeleryExecutor", "LocalExecutor,KubernetesExecutor", "LocalExecutor;a=my.Own:x"])
def test_a_ledger_file_is_refused_for_tasks_on_several_machines(
    make: Any, attempts: Any, monkeypatch: pytest.MonkeyPatch, ugen_emulator: Any, executor: str
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    for deferrable in (True, False):
        with pytest.raises(UGenFailure, match="this executor spans several; use PostgreSQL"):
            make(deferrable=deferrable).execute(attempts.next())
    assert not ugen_emulator.emulator.journal.find_purchases()


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnPostgres]:
    """A PostgreSQL of the test's own behind the ledger's connection."""
    driver = "psycopg2" if sa.__version__.startswith("1.") else "psycopg"  # as the ledger chooses it
    pytest.importorskip(driver, reason="the package for PostgreSQL is not installed")
    with own_postgres() as server:
        where = {"host": "127.0.0.1", "port": server.port, "schema": "postgres"}
        login = {"conn_type": "postgres", "login": "postgres", "password": "geheim"}
        monkeypatch.setenv("AIRFLOW_CONN_SHARED", json.dumps(where | login))
        monkeypatch.setattr(leases, "LEASE", 0.5)  # the next attempt does not wait a minute
        from ugen_provider.core.ledger.store import Ledger

        Ledger.init(f"postgresql://postgres:geheim@127.0.0.1:{server.port}/postgres").close()
        yield server


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_lost_ledger_database_is_an_error_airflow_retries(
    make: Any, attempts: Any, database: OwnPostgres, ugen_emulator: Any, moving_clock: Any, deferrable: bool
) -> None:
    class Crashing(UGenCreateJobsFromFeedOperator):
        def _progress(self, progress: Any) -> None:
            if progress.event == "submitted" and database.running:
                database.crash()

    given = {"ledger_conn_id": "shared", "deferrable": deferrable, "in_flight": 2}
    crashing = Crashing(**{name: getattr(make(), name) for name in GIVEN} | given)
    errors = []
    for task in (crashing, make(**given)):  # the second finds no database when it begins
        with pytest.raises(LedgerUnavailableError, match="the ledger's database: ") as caught:
            run(task, attempts.next())
        errors.append(caught.value)
    for error in errors:
        assert not isinstance(error, AirflowFailException)
        assert error.ledger.startswith("postgresql+psycopg://postgres:***@127.0.0.1:")
        assert "geheim" not in "".join(traceback.format_exception(error))
    assert [error.run_id for error in errors] == ["dag/job/run", None]
    database.start()
    report = run(make(**given), attempts.next())
    assert (report["completed"], report["rejected"]) == (5, 1)
    assert len(ugen_emulator.emulator.journal.find_purchases()) == 5


def test_a_trigger_refuses_ten_thousand_ids() -> None:
    with pytest.raises(ConfigError, match="at most 500 jobs"):
        UGenJobBatchTrigger(job_ids=[str(number) for number in range(10_000)], ugen_conn_id="ugen_default")


def test_failed_products_fail_the_task_where_asked(
    make: Any, attempts: Any, ugen_faults: Any, moving_clock: Any
) -> None:
    ugen_faults.job(fail_at="agents", kind="moderation")
    assert make(deferrable=False).execute(attempts.next())["failed"] > 0
    with pytest.raises(UGenFailure, match="products failed and 0 are not wholly stored"):
        make(deferrable=False, fail_on_failures=True).execute(attempts.next())


def test_unstored_videos_fail_the_task_where_asked(
    make: Any, attempts: Any, ugen_emulator: Any, ugen_faults: Any, moving_clock: Any, tmp_path: Path
) -> None:
    ugen_faults.add(kind="wrong_type", path="/media/*final*", times=None)
    given = {"deferrable": False, "output_path": str(tmp_path / "videos"), "fail_on_failures": True}
    with pytest.raises(UGenFailure, match="0 products failed and 5 are not wholly stored"):
        make(**given).execute(attempts.next())
    ugen_faults.clear()
    result = make(**given, run_key="the next night").execute(attempts.next())
    assert (result["completed"], result["attached"]) == (5, 5)
    assert len(list((tmp_path / "videos").rglob("*final.mp4"))) == 5
    assert len(ugen_emulator.emulator.journal.find_purchases()) == 5


@pytest.mark.parametrize("output_path", ["nowhere://videos", "gs://videos"], ids=["unknown", "without its package"])
def test_a_destination_that_nothing_can_write_to_buys_nothing(
    make: Any, attempts: Any, ugen_emulator: Any, moving_clock: Any, output_path: str
) -> None:
    with pytest.raises(UGenFailure, match=f"destination '{output_path}' cannot be used: "):
        make(deferrable=False, output_path=output_path).execute(attempts.next())
    assert ugen_emulator.emulator.journal.find_purchases() == []


def test_limits_of_a_plan_reach_the_run(make: Any, attempts: Any, ugen_clock: Any, tmp_path: Path) -> None:
    (tmp_path / "selection.json").write_text('{"products": ["LL-1002"]}')
    ugen_clock.run(100_000)
    first = make(deferrable=False, only=str(tmp_path / "selection.json")).execute(attempts.next())
    assert (first["completed"], first["skipped"]) == (1, 4)
    assert make(deferrable=False, only=["LL-1003", "LL-1005"], run_key="b").execute(attempts.next())["completed"] == 2
    with pytest.raises(UGenFailure, match="max_new is 1"):
        make(deferrable=False, max_new=1, guard_min=1, run_key="c").execute(attempts.next())
    given = {"max_changed": 0.1, "guard_min": 1, "job_defaults": {"segment_count": 2}}
    with pytest.raises(UGenFailure, match="max_changed is 10%"):
        make(deferrable=False, run_key="d", **given).execute(attempts.next())
    waits = make(deferrable=False, run_key="e", on_changed="postpone", limit=3, **given).execute(attempts.next())
    assert waits["running"] + waits["failed"] == 0
    for wrong in ({"on_changed": "buy"}, {"adopt": "no"}, {"max_gone": 2}, {"limit": 0}, {"supplemental": "yes"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            make(**wrong)


def test_export_writes_a_feed_and_a_table(
    make: Any, attempts: Any, ugen_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ugen_clock.run(100_000)
    make(deferrable=False).execute(attempts.next())
    monkeypatch.setenv("AIRFLOW_CONN_SITE", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "site.db")}))
    given: dict[str, Any] = {"task_id": "export", "catalogue": "shop", "ledger_conn_id": "ledger"}
    path = tmp_path / "videos.xml"
    result = UGenExportVideosOperator(**given, to=str(path)).execute(attempts.next())
    assert result == {"address": str(path), "products": 5, "skipped": 0}
    assert path.read_text().count("<g:video_link>") == 5
    assert UGenExportVideosOperator(**given, to="memory://shop/videos.tsv", format="tsv").execute({})["products"] == 5
    assert UGenExportVideosOperator(**given, table_conn_id="site").execute({})["products"] == 5
    with sqlite3.connect(tmp_path / "site.db") as site:
        assert site.execute("SELECT count(*) FROM ugen_video").fetchone() == (5,)
    with pytest.raises(UGenFailure, match="is unchanged"):
        UGenExportVideosOperator(**given, to=str(path), min_score=1.0).execute({})
    assert path.read_text().count("<g:video_link>") == 5
    for wrong in ({}, {"to": "a", "table_conn_id": "b"}, {"to": "a", "format": "rss"}, {"to": "a", "max_gone": 3}):
        with pytest.raises(ConfigError):
            UGenExportVideosOperator(**given, **wrong)
