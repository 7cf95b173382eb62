# SPDX-License-Identifier: Apache-2.0
"""Reports of a real Airflow to OpenLineage about a job, read from the events that it sends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ugen_provider.emulator.settings import LOCAL_KEY

if TYPE_CHECKING:
    from tests.real.airflow.conftest import Run, Stage

pytestmark = [pytest.mark.real, pytest.mark.torture]


def ended(stage: Stage, run: Run) -> list[dict[str, Any]]:
    """Return the reports about the run's task when it was over."""
    reported = [json.loads(line) for line in stage.lineage.read_text().splitlines()] if stage.lineage.exists() else []
    return [each for each in reported if each["job"]["name"] == f"{run.dag_id}.job" and each["eventType"] == "COMPLETE"]


@pytest.mark.parametrize("dag_id", ["told_blocking", "told_deferred"])
def test_the_picture_the_video_and_the_credits_are_reported(stage: Stage, dag_id: str) -> None:
    pytest.importorskip("airflow.providers.openlineage", reason="Airflow's OpenLineage provider is not installed")
    run = stage.start(dag_id)
    run.until_bought()
    run.finish()
    result = run.result()
    run.wait(lambda: bool(ended(stage, run)), what="the event of its end")
    (event,) = ended(stage, run)
    assert [(each["namespace"], each["name"]) for each in event["inputs"]] == [("https://shop.example", "/lamp.png")]
    (video,) = event["outputs"]
    assert result["final_video_url"].startswith(video["namespace"] + video["name"])
    facet = event["run"]["facets"]["ugen_job"]
    assert (facet["job_id"], facet["status"], facet["outcome"]) == (run.jobs()[0], "completed", "created")
    assert facet["credits_consumed"] == result["credits_consumed"] > 0
    everything = stage.lineage.read_text()
    assert "sig=secret" not in everything
    assert LOCAL_KEY not in everything
