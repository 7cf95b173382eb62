# SPDX-License-Identifier: Apache-2.0
"""A user's own tests of DAGs: the fixture `ugen_airflow_connection` and `dag.test()`, waiting or deferred."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ugen_provider.core.api.clock import SystemClock
from ugen_provider.emulator.server import EmulatorServer

DagBag = pytest.importorskip("airflow.dag_processing.dagbag", reason="Airflow 3.0 has it elsewhere").DagBag
CAMPAIGN = """
from airflow.sdk import DAG

from ugen_provider.operators.jobs import UGenCreateJobOperator

for deferrable in (False, True):
    with DAG(f"campaign_{deferrable}", schedule=None):
        for name in ("lamp", "mug"):
            UGenCreateJobOperator(
                task_id=f"make_{name}",
                product_name=name,
                product_image_url=f"https://shop.example/{name}.jpg",
                segment_count=1,
                deferrable=deferrable,
            )
"""


@pytest.mark.parametrize("deferrable", [False, True], ids=["waits", "defers"])
def test_two_jobs_in_a_users_own_test(
    airflow_database: None,
    ugen_airflow_connection: str,
    ugen_emulator: EmulatorServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    deferrable: bool,
) -> None:
    slept: list[float] = []
    asleep = SystemClock.asleep

    async def counted(clock: Any, seconds: float) -> None:
        await asleep(clock, seconds)
        slept.append(seconds)  # one that is cut short is no wait

    monkeypatch.setattr(SystemClock, "sleep", lambda _, seconds: slept.append(seconds))
    monkeypatch.setattr(SystemClock, "asleep", counted)
    (tmp_path / "campaign.py").write_text(CAMPAIGN)
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))  # read when Airflow was imported
    videos = DagBag().get_dag(f"campaign_{deferrable}")
    assert videos is not None
    run = videos.test()
    assert str(run.state) == "success"
    assert ugen_airflow_connection == "ugen_default"
    assert len(ugen_emulator.emulator.journal.find_purchases()) == 2
    assert sum(slept) < 1.0, "no wait sleeps"
    videos.test(logical_date=datetime(2026, 1, 2, tzinfo=UTC))
    assert len(ugen_emulator.emulator.journal.find_purchases()) == 4, "another run is another order"
