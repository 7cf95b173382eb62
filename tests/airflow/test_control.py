# SPDX-License-Identifier: Apache-2.0
"""Operators, the sensor and the decorator for jobs that exist already, or come from a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.deferring import run, through
from ugen_provider import CreateJob
from ugen_provider.core.api.clock import clock_of
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError
from ugen_provider.core.api.polling import JobTimeoutError
from ugen_provider.decorators.jobs import UGenJobDecoratedOperator
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.operators.jobs import (
    UGenCancelJobOperator,
    UGenPauseJobOperator,
    UGenResumeJobOperator,
    UGenRetryJobOperator,
)
from ugen_provider.operators.media import (
    UGenDownloadOutputsOperator,
    UGenSuggestFieldsOperator,
    UGenUploadImageOperator,
)
from ugen_provider.operators.reconcile import UGenReconcileOperator
from ugen_provider.sensors.jobs import UGenJobSensor
from ugen_provider.version_compat import AirflowSensorTimeout, AirflowSkipException, TaskDeferred

pytestmark = pytest.mark.usefixtures("connection", "moving_clock")
LAMP = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.png", "segment_count": 1}


@pytest.fixture(params=[False, True], ids=["blocking", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def job(ugen_client: Any) -> Any:
    """A job at work."""
    made = ugen_client.jobs.create(CreateJob(**LAMP))
    clock_of(ugen_client).sleep(20.0)
    return made


def retries(ugen_emulator: Any) -> int:
    return len(ugen_emulator.emulator.journal.find_purchases(kind="retry"))


class TestRetry:
    @pytest.fixture
    def failed(self, ugen_client: Any, ugen_faults: Any, ugen_clock: Any) -> Any:
        ugen_faults.job(fail_at="generation", times=1)
        made = ugen_client.jobs.create(CreateJob(**LAMP))
        ugen_clock.advance(3600.0)
        assert ugen_client.jobs.get(made.job_id).status == "failed"
        return made

    def test_it_runs_again_and_is_waited_for(
        self, failed: Any, attempts: Any, ugen_emulator: Any, deferrable: bool
    ) -> None:
        task = UGenRetryJobOperator(task_id="again", job_id=failed.job_id, deferrable=deferrable)
        assert run(task, attempts.next())["status"] == "completed"
        assert retries(ugen_emulator) == 1

    def test_another_attempt_asks_for_no_other_run(self, failed: Any, attempts: Any, ugen_emulator: Any) -> None:
        for _ in range(3):
            task = UGenRetryJobOperator(task_id="again", job_id=failed.job_id, deferrable=False)
            assert run(task, attempts.next())["status"] == "completed"
        assert retries(ugen_emulator) == 1

    def test_the_log_says_that_a_cleared_task_asks_for_no_other_run(
        self, failed: Any, attempts: Any, logged: Callable[[], str]
    ) -> None:
        for said in ("runs again; status", "not retried, since"):
            run(UGenRetryJobOperator(task_id="again", job_id=failed.job_id, deferrable=False), attempts.next())
            assert said in logged()

    def test_an_answer_that_was_lost_is_looked_for(
        self, failed: Any, attempts: Any, ugen_emulator: Any, ugen_faults: Any
    ) -> None:
        ugen_faults.add("lost", method="POST", path="/api/v1/jobs/*/retry", times=1)
        task = UGenRetryJobOperator(task_id="again", job_id=failed.job_id, deferrable=False)
        assert run(task, attempts.next())["status"] == "completed"
        assert retries(ugen_emulator) == 1

    def test_no_such_stage_is_refused_when_the_dag_is_parsed(self) -> None:
        with pytest.raises(InvalidRequestError, match="restart_from_stage"):
            UGenRetryJobOperator(task_id="again", job_id="x", restart_from_stage="polish")

    def test_spending_off_sends_nothing(self, failed: Any, attempts: Any, connection: Any, ugen_emulator: Any) -> None:
        connection(spending="reuse_only")
        with pytest.raises(UGenFailure, match="spending is reuse_only"):
            run(UGenRetryJobOperator(task_id="again", job_id=failed.job_id, deferrable=False), attempts.next())
        assert retries(ugen_emulator) == 0


class TestPauseResumeCancel:
    def test_a_job_is_paused_and_resumed(self, job: Any, attempts: Any, deferrable: bool) -> None:
        paused = run(UGenPauseJobOperator(task_id="pause", job_id=job.job_id, deferrable=deferrable), attempts.next())
        assert paused["status"] == "paused"
        resumed = run(UGenResumeJobOperator(task_id="go_on", job_id=job.job_id, deferrable=deferrable), attempts.next())
        assert resumed["status"] == "completed"

    def test_an_approval_of_another_picture_does_not_resume(self, attempts: Any, ugen_client: Any) -> None:
        made = ugen_client.jobs.create(CreateJob(**LAMP, stop_at_stage="init"))
        clock_of(ugen_client).sleep(3600.0)
        approval = {"job_id": made.job_id, "keyframe_id": "k", "digest": "0" * 64, "by": "me", "at": 0.0}
        with pytest.raises(UGenFailure, match="made again after it was approved"):
            run(UGenResumeJobOperator(task_id="go_on", approval=approval, deferrable=False), attempts.next())

    def test_a_job_is_cancelled_and_an_ended_one_keeps_its_result(
        self, job: Any, attempts: Any, ugen_client: Any
    ) -> None:
        task = UGenCancelJobOperator(task_id="stop", job_id=job.job_id)
        assert run(task, attempts.next())["status"] == "cancelled"
        done = ugen_client.jobs.create(CreateJob(**LAMP), idempotency_key="another")
        clock_of(ugen_client).sleep(3600.0)
        assert run(UGenCancelJobOperator(task_id="stop", job_id=done.job_id), attempts.next())["status"] == "completed"

    @pytest.mark.parametrize("job_id", ["", None, "None", {"job_id": ""}])
    def test_a_template_that_renders_to_nothing_is_named(self, attempts: Any, job_id: Any) -> None:
        task = UGenCancelJobOperator(task_id="stop", job_id="{{ job }}")
        task.job_id = job_id
        with pytest.raises(UGenFailure, match="job_id: there is none"):
            run(task, attempts.next())

    def test_a_job_that_does_not_exist_is_not_retried(self, attempts: Any) -> None:
        nobodys = "11111111-1111-1111-1111-111111111111"
        said = f"job {nobodys} is unknown to the account of connection 'ugen_default' .*404"
        with pytest.raises(UGenFailure, match=said):
            run(UGenCancelJobOperator(task_id="stop", job_id=nobodys), attempts.next())

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: UGenCancelJobOperator(task_id="t", job_id=""), "job_id: must be named"),
            (lambda: UGenRetryJobOperator(task_id="t", job_id=None), "job_id: must be named"),
            (lambda: UGenJobSensor(task_id="t", job_id=""), "job_id: must be named"),
            (
                lambda: UGenPauseJobOperator(task_id="t", job_id="x", deferrable="no"),
                "deferrable: must be True or False",
            ),
            (lambda: UGenResumeJobOperator(task_id="t"), "job_id: name the job"),
            (lambda: UGenResumeJobOperator(task_id="t", approval="yes"), "approval: must be the result"),
            (lambda: UGenResumeJobOperator(task_id="t", approval={"job_id": "x"}), "approval: "),
            (lambda: UGenUploadImageOperator(task_id="t", image=""), "image: must be named"),
            (
                lambda: UGenDownloadOutputsOperator(task_id="t", job_id="x", output_path=""),
                "output_path: must be named",
            ),
            (lambda: UGenDownloadOutputsOperator(task_id="t", job_id="x", output_path="o", include=()), "include: "),
            (lambda: UGenReconcileOperator(task_id="t", ledger_conn_id=""), "ledger_conn_id: must be named"),
            (lambda: UGenReconcileOperator(task_id="t", collect="x"), "collect: must be True or False"),
        ],
    )
    def test_what_can_be_known_is_refused_when_the_dag_is_parsed(self, make: Any, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            make()


class TestSensor:
    def sensor(self, job_id: str, **more: Any) -> UGenJobSensor:
        return UGenJobSensor(**{"task_id": "look", "job_id": job_id, "deferrable": True, **more})

    def test_it_waits_for_the_end_and_returns_the_scores(self, job: Any, attempts: Any) -> None:
        result = run(self.sensor(job.job_id), attempts.next())
        assert (result["status"], len(result["keyframe_scores"])) == ("completed", 2)

    def test_it_waits_for_a_stage(self, job: Any, attempts: Any) -> None:
        found = run(self.sensor(job.job_id, target_stage="generation"), attempts.next())
        assert (found["current_stage"], found["status"]) == ("generation", "processing")

    def test_it_polls_once_at_each_poke(self, job: Any, attempts: Any, ugen_clock: Any) -> None:
        sensor = self.sensor(job.job_id, deferrable=False)
        assert not sensor.poke(attempts.next())
        ugen_clock.advance(3600.0)
        assert sensor.poke(attempts.context()).xcom_value["status"] == "completed"

    def test_a_finished_job_never_defers(self, job: Any, attempts: Any, ugen_clock: Any) -> None:
        ugen_clock.advance(3600.0)
        assert self.sensor(job.job_id).execute(attempts.next())["status"] == "completed"

    def test_a_cancelled_job_fails_it_or_skips_it(self, job: Any, attempts: Any, ugen_client: Any) -> None:
        ugen_client.jobs.cancel(job.job_id)
        with pytest.raises(UGenFailure, match="was cancelled"):
            run(self.sensor(job.job_id), attempts.next())
        with pytest.raises(AirflowSkipException):
            run(self.sensor(job.job_id, soft_fail=True), attempts.next())

    def test_a_failed_job_is_reported_without_asking_for_scores(
        self, job: Any, attempts: Any, ugen_client: Any, ugen_faults: Any
    ) -> None:
        ugen_client.jobs.cancel(job.job_id)
        ugen_faults.add("status", status=404, method="GET", path="/api/v1/jobs/*/keyframes", times=None)
        with pytest.raises(UGenFailure, match="was cancelled"):
            run(self.sensor(job.job_id), attempts.next())

    def test_its_time_may_run_out(self, attempts: Any, ugen_client: Any, ugen_faults: Any) -> None:
        ugen_faults.job(slow=100.0)
        made = ugen_client.jobs.create(CreateJob(**LAMP))

        with pytest.raises(AirflowSensorTimeout):
            run(self.sensor(made.job_id, timeout=5), attempts.next())

    @pytest.mark.parametrize("never", [False, True], ids=["soft_fail", "never_fail"])
    @pytest.mark.parametrize("broken", ["key", "address", "job", "connection"])
    def test_sensor_wrong_setting_is_never_skipped(
        self, job: Any, attempts: Any, connection: Any, broken: str, never: bool, deferrable: bool
    ) -> None:
        job_id, more = job.job_id, {"never_fail": True} if never else {"soft_fail": True}
        if broken == "key":
            connection(password="ugen_sk_wrong")
        elif broken == "address":
            connection(spending="perhaps")
        elif broken == "connection":
            more["ugen_conn_id"] = "nowhere"
        else:
            job_id = "11111111-2222-4333-8444-555555555555"
        with pytest.raises(UGenFailure):
            run(self.sensor(job_id, deferrable=deferrable, **more), attempts.next())

    @pytest.mark.parametrize("never", [False, True], ids=["soft_fail", "never_fail"])
    def test_sensor_setting_broken_while_deferred_is_never_skipped(
        self, job: Any, attempts: Any, connection: Any, never: bool
    ) -> None:
        more = {"never_fail": True} if never else {"soft_fail": True}
        sensor = self.sensor(job.job_id, **more)
        context = attempts.next()
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute(context)
        event = through(deferred.value.trigger)
        connection(password="ugen_sk_wrong")
        with pytest.raises(UGenFailure):
            sensor.resume_execution(deferred.value.method_name, {"event": event}, context)

    @pytest.mark.parametrize("ending", ["failed", "moderation", "cancelled", "timeout"])
    def test_soft_fail_skips_the_same_deferred_or_not(
        self, attempts: Any, ugen_client: Any, ugen_faults: Any, ugen_clock: Any, ending: str, deferrable: bool
    ) -> None:
        if ending in {"failed", "moderation"}:
            kind = {"kind": "moderation"} if ending == "moderation" else {}
            ugen_faults.job(fail_at="generation", **kind)
        elif ending == "timeout":
            ugen_faults.job(slow=100.0)
        job_id = ugen_client.jobs.create(CreateJob(**LAMP)).job_id
        if ending == "cancelled":
            ugen_client.jobs.cancel(job_id)
        elif not deferrable and ending != "timeout":
            ugen_clock.advance(3600.0)
        timeout = 5 if deferrable else 0
        given = {"timeout": timeout} if ending == "timeout" else {}
        with pytest.raises(AirflowSkipException):
            run(self.sensor(job_id, soft_fail=True, deferrable=deferrable, **given), attempts.next())

    def test_no_such_stage_is_refused_when_the_dag_is_parsed(self) -> None:
        with pytest.raises(InvalidRequestError, match="target_stage"):
            self.sensor("x", target_stage="polish")


class TestDecorator:
    def task(self, function: Any, **more: Any) -> Any:
        return UGenJobDecoratedOperator(
            task_id="job", python_callable=function, op_args=[], op_kwargs={}, deferrable=True, **more
        )

    def test_the_function_returns_the_fields_and_is_called_once(self, attempts: Any, ugen_emulator: Any) -> None:
        calls = []

        def lamp() -> dict[str, Any]:
            calls.append(1)
            return dict(LAMP)

        assert run(self.task(lamp), attempts.next())["status"] == "completed"
        assert (len(calls), len(ugen_emulator.emulator.journal.find_purchases())) == (1, 1)

    def test_what_is_no_dict_is_refused(self, attempts: Any) -> None:
        with pytest.raises(UGenFailure, match="must return the job's fields as a dict, got str"):
            run(self.task(lambda: "Lamp"), attempts.next())

    def test_what_breaks_a_rule_is_named(self, attempts: Any) -> None:
        with pytest.raises(UGenFailure, match="segment_count: must be at most 10"):
            run(self.task(lambda: {**LAMP, "segment_count": 11}), attempts.next())

    def test_airflow_finds_it_by_its_name(self) -> None:
        from airflow.sdk import DAG, task

        with DAG("decorated", schedule=None):

            @task.ugen_job(deferrable=True)
            def make(name: str) -> dict[str, Any]:
                return {**LAMP, "product_name": name}

            made = make("Lamp")
        assert made.operator.task_type == "UGenJobDecoratedOperator"


class TestMedia:
    def test_suggestions_feed_a_job_with_either_script_or_points(self, attempts: Any) -> None:
        fields = {"product_name": "Lamp", "product_image_url": "https://shop.example/lamp.png"}
        script = UGenSuggestFieldsOperator(task_id="s", **fields).execute(attempts.next())
        points = UGenSuggestFieldsOperator(task_id="s", prefer="selling_points", **fields).execute(attempts.next())
        assert ("custom_script" in script, "key_selling_points" in script) == (True, False)
        assert ("custom_script" in points, "key_selling_points" in points) == (False, True)
        CreateJob(**script, segment_count=1)
        CreateJob(**points, segment_count=1)

    def test_a_picture_is_uploaded_once_per_content(self, attempts: Any, tmp_path: Path, ugen_emulator: Any) -> None:
        from PIL import Image

        Image.new("RGB", (8, 8), "red").save(tmp_path / "lamp.png")
        task = UGenUploadImageOperator(task_id="upload", image=str(tmp_path / "lamp.png"))
        first, second = task.execute(attempts.next()), task.execute(attempts.next())
        uploads = ugen_emulator.emulator.journal.find_requests(method="POST", path="/api/v1/uploads/product-image")
        assert (first, len(uploads)) == (second, 1)

    def test_a_picture_that_is_none_is_refused(self, attempts: Any, tmp_path: Path) -> None:
        (tmp_path / "lamp.png").write_text("no picture")
        with pytest.raises(UGenFailure, match="image"):
            UGenUploadImageOperator(task_id="upload", image=str(tmp_path / "lamp.png")).execute(attempts.next())

    def test_outputs_are_downloaded(self, job: Any, attempts: Any, tmp_path: Path, ugen_clock: Any) -> None:
        ugen_clock.advance(3600.0)
        task = UGenDownloadOutputsOperator(task_id="collect", job_id=job.job_id, output_path=str(tmp_path))
        stored = task.execute(attempts.next())
        assert Path(stored["manifest_uri"]).exists()
        assert all(Path(file).stat().st_size for file in stored["files"])

    def test_an_unknown_kind_is_refused_when_the_dag_is_parsed(self) -> None:
        with pytest.raises(ConfigError, match="include: must be one of"):
            UGenDownloadOutputsOperator(task_id="collect", job_id="x", output_path="/tmp", include=["film"])  # type: ignore[list-item]


def test_a_deadline_leaves_the_job(attempts: Any, ugen_client: Any, ugen_faults: Any, deferrable: bool) -> None:
    ugen_faults.job(slow=100.0)
    made = ugen_client.jobs.create(CreateJob(**LAMP))
    task = UGenResumeJobOperator(task_id="go_on", job_id=made.job_id, deferrable=deferrable, timeout=60)
    with pytest.raises(JobTimeoutError):
        run(task, attempts.next())
    assert not ugen_client.jobs.get(made.job_id).ended
