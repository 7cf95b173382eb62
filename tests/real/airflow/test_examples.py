# SPDX-License-Identifier: Apache-2.0
"""The examples that need a person or a scheduler, in a real Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.real.airflow.conftest import Run, Stage

pytestmark = pytest.mark.real


def gate(stage: Stage, dag_id: str = "keyframe_gate") -> Run:
    """A run of the gate that waits for a person."""
    run = stage.start(dag_id)

    def asked() -> bool:
        stage.desk.advance(20.0)
        return run.task("approve")["state"] in {"awaiting_input", "deferred", "failed"}

    run.wait(asked, what="a person being asked")
    assert run.task("approve")["state"] == "awaiting_input"
    return run


def detail(stage: Stage, run: Run) -> str:
    return f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/approve/-1/hitlDetails"


def answer(stage: Stage, run: Run, option: str) -> None:
    body = {"chosen_options": [option], "params_input": {}}
    stage.api._ask("PATCH", detail(stage, run), body=body, expect=(200, 404, 409))


def clear_create(stage: Stage, run: Run) -> None:
    """Clear the create task alone; what the tasks behind it said stays."""
    stage.api.clear_task(run.dag_id, run_id=run.run_id, task_id="make_keyframe")


def job_of(stage: Stage, run: Run) -> Any:
    from ugen_provider import UGenClient
    from ugen_provider.emulator.settings import LOCAL_KEY

    job_id = stage.api.xcom(run.dag_id, run_id=run.run_id, task_id="make_keyframe")["job_id"]
    with UGenClient(api_key=LOCAL_KEY, base_url=stage.ugen.base_url) as client:
        return client.jobs.get(job_id)


def finish(stage: Stage, run: Run, *, option: str | None = None) -> None:
    """Let the run come to a good end; where it is another one, its logs say why."""

    def over() -> bool:
        stage.desk.advance(30.0)
        # A person who was asked again answers again.
        if option is not None and run.task("approve")["state"] == "awaiting_input":
            stage.until_scheduler_has_seen()
            answer(stage, run, option)
        return stage.api.run_state(run.dag_id, run_id=run.run_id) in {"success", "failed"}

    run.wait(over, what="the run being over")
    state = stage.api.run_state(run.dag_id, run_id=run.run_id)
    assert state == "success", run.log()


def test_an_approved_look_becomes_a_video(stage: Stage) -> None:
    run = gate(stage)
    asked = stage.api._ask("GET", detail(stage, run)) or {}
    assert "![keyframe](http" in asked["body"]
    finish(stage, run, option="Approve")
    assert job_of(stage, run).final_video_url
    approval = stage.api.xcom(run.dag_id, run_id=run.run_id, task_id="approve")
    assert (approval["by"], len(approval["digest"])) == ("admin", 64)


@pytest.mark.torture
def test_a_rejected_look_cancels_the_job_and_skips_the_rest(stage: Stage) -> None:
    run = gate(stage)
    finish(stage, run, option="Reject")
    assert run.task("go_on")["state"] == "skipped"
    assert job_of(stage, run).status == "cancelled"
    clear_create(stage, run)
    run.until("failed", task_id="make_keyframe")
    assert "the job was cancelled (rejected)" in run.log()


@pytest.mark.torture
def test_an_unanswered_keyframe_expires_and_a_clear_says_so(stage: Stage) -> None:
    run = gate(stage, "short_gate")
    run.until("failed", task_id="approve")
    assert run.task("approve")["try_number"] == 1  # not retried: a retry would meet the same
    assert "no answer arrived in time" in run.log()
    assert run.statuses() == ["cancelled"]
    clear_create(stage, run)
    run.until("failed", task_id="make_keyframe")
    assert "the job was cancelled (expired)" in run.log()
    assert run.bought() == 1


@pytest.mark.torture
def test_a_rejected_gate_is_bought_again_after_a_clear(stage: Stage) -> None:
    run = gate(stage, "keyframe_gate")
    stage.api.mark_task(run.dag_id, run_id=run.run_id, task_id="approve", state="failed")
    first = job_of(stage, run)
    run.wait(lambda: job_of(stage, run).status == "cancelled", what="the job being cancelled")
    run.until_run_is("failed")
    clear_create(stage, run)
    run.until("deferred", task_id="make_keyframe")

    def over() -> bool:
        stage.desk.advance(20.0)
        return bool(run.task("make_keyframe")["state"] == "success")

    run.wait(over, what="another keyframe")
    assert job_of(stage, run).job_id != first.job_id


def test_a_gate_that_a_person_ends_cancels_the_job(stage: Stage) -> None:
    run = gate(stage)
    stage.api.mark_task(run.dag_id, run_id=run.run_id, task_id="approve", state="failed")
    run.wait(lambda: job_of(stage, run).status == "cancelled", what="the job being cancelled")


@pytest.mark.torture
def test_a_cleared_gate_asks_again_and_leaves_the_job(stage: Stage) -> None:
    run = gate(stage)
    stage.api.clear_task(run.dag_id, run_id=run.run_id, task_id="approve")
    run.wait(
        lambda: run.task("approve")["state"] == "awaiting_input" and run.task("approve")["try_number"] >= 2,
        what="a person being asked again",
    )
    assert job_of(stage, run).status == "paused"
    finish(stage, run, option="Approve")
    assert job_of(stage, run).final_video_url


def test_a_finished_video_starts_the_dag_that_waits_for_it(stage: Stage) -> None:
    stage.airflow.wait_for_dag("on_finished_videos")
    run = stage.start("make_a_video_asset")
    finish(stage, run)

    def runs() -> list[dict[str, Any]]:
        return list((stage.api._ask("GET", "/dags/on_finished_videos/dagRuns") or {})["dag_runs"])

    run.wait(lambda: any(each["state"] == "success" for each in runs()), what="the DAG on the asset")
    published = stage.api.xcom("on_finished_videos", run_id=runs()[0]["dag_run_id"], task_id="publish")
    made = stage.api.xcom(run.dag_id, run_id=run.run_id, task_id="make_video")
    assert published == [made["final_video_url"]]
