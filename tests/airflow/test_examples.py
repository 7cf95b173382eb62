# SPDX-License-Identifier: Apache-2.0
"""Each example DAG runs to its end in `dag.test()`; those that need a person or a scheduler run in tests/real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "example_dags"
NEED_MORE = {"keyframe_gate", "on_finished_videos"}


@pytest.fixture(scope="module")
def ugen_emulator_server() -> Iterator[Any]:
    """Fast, and in real time: `dag.test()` waits for its triggers."""
    from ugen_provider.emulator.server import EmulatorServer
    from ugen_provider.emulator.settings import Settings

    with EmulatorServer(Settings(speed=600, admin=True)) as server:
        yield server


async def _no_hold(event_after: float | None) -> None:
    """Send an event at once."""


@pytest.fixture
def bag(airflow_database: None, ugen_emulator: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    extra = {"base_url": ugen_emulator.base_url, "ledger_conn_id": "ugen_ledger"}
    stored = {"conn_type": "ugen", "password": "ugen_sk_local", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_UGEN_DEFAULT", json.dumps(stored))
    monkeypatch.setenv("UGEN_FEED", str(EXAMPLES.parent / "examples" / "feed.xml"))
    monkeypatch.setenv("UGEN_OUTPUT", str(tmp_path))
    from ugen_provider.core.ledger.store import Ledger

    Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True).close()
    ledger = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_UGEN_LEDGER", json.dumps(ledger))
    # `dag.test()` has no executor whose report an early event could meet.
    monkeypatch.setattr("ugen_provider.triggers.jobs._hold", _no_hold)
    from airflow.dag_processing.dagbag import DagBag

    found = DagBag(str(EXAMPLES))
    assert found.import_errors == {}
    return found


def test_every_example_is_known(bag: Any) -> None:
    assert {"one_job", "suggest_then_create", "feed_to_videos", "feed_in_one_task", *NEED_MORE} <= set(bag.dag_ids)


@pytest.mark.parametrize("dag_id", ["one_job", "suggest_then_create", "make_a_video_asset"])
def test_an_example_buys_one_job(bag: Any, dag_id: str, ugen_emulator: Any) -> None:
    run = bag.get_dag(dag_id).test()
    assert str(run.state) == "success"
    assert len(ugen_emulator.emulator.journal.find_purchases()) == 1


def test_a_feed_becomes_a_video_per_good_product(bag: Any, ugen_emulator: Any, tmp_path: Path) -> None:
    run = bag.get_dag("feed_to_videos").test()
    assert str(run.state) == "success"
    assert len(list(tmp_path.glob("*/*/final.mp4"))) == 5
    labels = {ti.rendered_map_index for ti in run.get_task_instances() if ti.task_id == "make_video"}
    assert "LL-1001: Aurora Desk Lamp" in labels
    assert len(ugen_emulator.emulator.journal.find_purchases()) == 5


def test_feed_in_one_task_buys_waves_then_nothing(bag: Any, ugen_emulator: Any, tmp_path: Path) -> None:
    for _ in range(2):
        run = bag.get_dag("feed_in_one_task").test()
        assert str(run.state) == "success"
    assert len(ugen_emulator.emulator.journal.find_purchases()) == 5
    assert len(list(tmp_path.glob("*/*/final.mp4"))) == 5


def test_last_nights_failures_run_again(bag: Any, ugen_emulator: Any, ugen_faults: Any, ugen_client: Any) -> None:
    from ugen_provider import CreateJob

    ugen_faults.job(fail_at="generation", times=1)
    lamp = {"product_name": "Lamp", "product_image_url": "https://shop.example/l.png", "segment_count": 1}
    job = ugen_client.jobs.create(CreateJob(**lamp))
    ugen_emulator.emulator.advance(3600.0)
    assert ugen_client.jobs.get(job.job_id).status == "failed"
    run = bag.get_dag("last_nights_failures").test()
    assert str(run.state) == "success"
    assert ugen_client.jobs.get(job.job_id).status == "completed"
    assert len(ugen_emulator.emulator.journal.find_purchases(kind="retry")) == 1


SINGLE_VALUES = """
from datetime import timedelta
from airflow.sdk import dag, task
from ugen_provider.operators.jobs import UGenCreateJobOperator
from ugen_provider.sensors.jobs import UGenJobSensor

LAMP = {"product_image_url": "https://shop.example/lamp.jpg", "segment_count": 1}
FAST = {"poll_interval": 0.1}

@dag(schedule=None, default_args={"retries": 0})
def single_values():
    @task
    def check(url, urls, status, decorated, from_template):
        assert url.startswith("http"), url
        assert [each.startswith("http") for each in urls] == [True, True], list(urls)
        assert (status, decorated) == ("completed", "completed")
        assert from_template == url

    one = UGenCreateJobOperator(task_id="one", product_name="Lamp", **LAMP, **FAST)
    many = UGenCreateJobOperator.partial(task_id="many", **LAMP, **FAST).expand(product_name=["Mug", "Pen"])
    waited = UGenJobSensor(task_id="waited", job_id=one.output["job_id"], poke_interval=0.1)

    @task.ugen_job(**FAST)
    def decorated():
        return {"product_name": "Cup", **LAMP}

    check(
        one.output["final_video_url"],
        many.output["final_video_url"],
        waited.output["status"],
        decorated()["status"],
        "{{ ti.xcom_pull(task_ids='one', key='final_video_url') }}",
    )

single_values()
"""


def test_output_key_is_taken_without_multiple_outputs(
    bag: Any, tmp_path: Path, ugen_emulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (tmp_path / "single_values.py").write_text(SINGLE_VALUES)
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
    found = DagBag(str(tmp_path))
    assert found.import_errors == {}
    assert str(found.get_dag("single_values").test().state) == "success"
    assert len(ugen_emulator.emulator.journal.find_purchases()) == 4
