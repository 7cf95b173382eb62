# SPDX-License-Identifier: Apache-2.0
"""The create operator: attempts of one task instance, blocking and deferred alike, buy one job."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Asset

from tests.airflow.deferring import run, through
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError, RateLimitError, TransportError
from ugen_provider.core.api.polling import JobFailedError, JobTimeoutError
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.operators.jobs import UGenCreateJobOperator
from ugen_provider.triggers.jobs import UGenJobTrigger
from ugen_provider.version_compat import AirflowFailException, TaskDeferred

pytestmark = pytest.mark.usefixtures("connection", "moving_clock")

LAMP: dict[str, Any] = {
    "product_name": "Lamp",
    "product_image_url": "https://shop.example/lamp.png",
    "segment_count": 1,
}


def operator(**more: Any) -> UGenCreateJobOperator:
    return UGenCreateJobOperator(**{"task_id": "job", "deferrable": False, **LAMP, **more})


def bought(ugen_emulator: Any, **filters: Any) -> int:
    return len(ugen_emulator.emulator.journal.find_purchases(**filters))


@pytest.fixture(params=[False, True], ids=["blocking", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=["store", "key_alone", "ledger"])
def any_attempts(request: pytest.FixtureRequest) -> Any:
    from tests.airflow.conftest import Attempts

    if request.param == "ledger":
        request.getfixturevalue("ledger")
    return Attempts(with_store=request.param != "key_alone")


@pytest.fixture(params=["store", "ledger"])
def recorded_attempts(request: pytest.FixtureRequest) -> Any:
    from tests.airflow.conftest import Attempts

    if request.param == "ledger":
        request.getfixturevalue("ledger")
    return Attempts()


class TestBuying:
    def test_a_job_is_bought_waited_for_and_described(
        self, attempts: Any, ugen_emulator: Any, deferrable: bool
    ) -> None:
        result = run(operator(deferrable=deferrable), attempts.next())
        assert result["status"] == "completed"
        assert result["final_video_url"]
        assert result["credits_consumed"] > 0
        assert all(0 <= score <= 1 for score in result["keyframe_scores"])
        assert (result["outcome"], result["purchase_number"], bought(ugen_emulator)) == ("created", 0, 1)

    def test_another_attempt_takes_what_was_bought(
        self, any_attempts: Any, ugen_emulator: Any, deferrable: bool
    ) -> None:
        first = run(operator(deferrable=deferrable), any_attempts.next())
        second = run(operator(deferrable=deferrable), any_attempts.next())
        assert (second["job_id"], bought(ugen_emulator)) == (first["job_id"], 1)

    def test_an_attempt_that_finds_its_job_at_work_attaches(
        self, any_attempts: Any, ugen_emulator: Any, deferrable: bool
    ) -> None:
        started = operator(wait_for_completion=False).execute(any_attempts.next())
        result = run(operator(deferrable=deferrable), any_attempts.next())
        assert (result["job_id"], result["status"]) == (started["job_id"], "completed")
        assert bought(ugen_emulator) == 1

    def test_a_finished_job_never_defers(self, attempts: Any) -> None:
        run(operator(), attempts.next())
        result = operator(deferrable=True).execute(attempts.next())
        assert result["outcome"] == "reused"

    def test_an_answer_that_was_lost_buys_nothing_twice(
        self, any_attempts: Any, ugen_emulator: Any, ugen_faults: Any, deferrable: bool
    ) -> None:
        ugen_faults.add("lost", method="POST", path="/api/v1/jobs", times=1)
        with pytest.raises(Exception, match="POST /jobs"):
            run(operator(deferrable=deferrable), any_attempts.next())
        run(operator(deferrable=deferrable), any_attempts.next())
        assert bought(ugen_emulator) == 1

    def test_a_changed_request_takes_the_bought_job_and_says_so(self, attempts: Any, ugen_emulator: Any) -> None:
        run(operator(), attempts.next())
        result = run(operator(segment_count=2), attempts.next())
        assert (result["request_changed"], bought(ugen_emulator)) == (True, 1)

    def test_each_new_value_of_regenerate_buys_once(self, attempts: Any, ugen_emulator: Any) -> None:
        run(operator(), attempts.next())
        for value, jobs in [("a", 2), ("a", 2), ("b", 3)]:
            run(operator(regenerate=value), attempts.next())
            assert bought(ugen_emulator) == jobs

    def test_the_run_may_ask_to_regenerate(self, attempts: Any, ugen_emulator: Any) -> None:
        run(operator(), attempts.next())
        attempts.conf["ugen_regenerate"] = "again"
        result = run(operator(), attempts.next())
        assert (result["purchase_number"], bought(ugen_emulator)) == (1, 2)

    def test_records_never_expire_and_hold_no_api_key(self, attempts: Any) -> None:
        from ugen_provider.version_compat import NEVER_EXPIRE

        run(operator(), attempts.next())
        assert set(attempts.store.retentions.values()) == {NEVER_EXPIRE}
        assert "ugen_sk_local" not in str(attempts.store.kept)

    @pytest.mark.usefixtures("ledger")
    def test_mapped_rows_that_change_places_keep_their_jobs(self, ugen_emulator: Any, ugen_clock: Any) -> None:
        from tests.airflow.conftest import Attempts

        places = [Attempts(), Attempts()]

        def attempt(index: int, key: str) -> Any:
            context = places[index].next()
            context["ti"].map_index = index
            return run(operator(scope_key=key, product_name=f"Product {key}"), context)["job_id"]

        first = [attempt(0, "a"), attempt(1, "b")]
        ugen_clock.advance(25 * 3600.0)  # the service has forgotten the keys
        assert [attempt(0, "b"), attempt(1, "a")] == first[::-1]
        assert [attempt(0, "a"), attempt(1, "b")] == first
        assert bought(ugen_emulator) == 2

    @pytest.mark.parametrize("name", ["scope_key", "order_key"])
    def test_scope_and_order_key_without_ledger_are_refused(self, attempts: Any, name: str) -> None:
        with pytest.raises(UGenFailure, match=f"{name}: needs a ledger.*ledger_conn_id"):
            run(operator(**{name: "lamp"}), attempts.next())

    @pytest.mark.usefixtures("ledger")
    def test_a_renamed_task_with_an_order_key_keeps_its_job(self, ugen_emulator: Any) -> None:
        from tests.airflow.conftest import Attempts

        first = run(operator(order_key="video"), Attempts(task_id="old").next())
        second = run(operator(order_key="video"), Attempts(task_id="new").next())
        assert (first["job_id"], second["outcome"], bought(ugen_emulator)) == (second["job_id"], "reused", 1)

    @pytest.mark.usefixtures("ledger")
    def test_two_mapped_instances_with_one_scope_key_share_one_job(self, ugen_emulator: Any) -> None:
        from tests.airflow.conftest import Attempts

        found = []
        for index in (0, 1):
            context = Attempts().next()
            context["ti"].map_index = index
            found.append(run(operator(scope_key="lamp", deferrable=True), context))
        assert [result["status"] for result in found] == ["completed"] * 2
        assert (found[0]["job_id"], bought(ugen_emulator)) == (found[1]["job_id"], 1)

    @pytest.mark.usefixtures("ledger")
    def test_two_products_with_one_scope_key_stay_apart(self, ugen_emulator: Any) -> None:
        from tests.airflow.conftest import Attempts

        def attempt(index: int, product: str) -> Any:
            context = Attempts().next()
            context["ti"].map_index = index
            return run(operator(scope_key="lamp", product_name=product), context)

        attempt(0, "Lamp")
        with pytest.raises(UGenFailure, match="scope_key"):
            attempt(1, "Chair")
        assert bought(ugen_emulator) == 1

    def test_a_job_costs_six_requests_beside_the_shared_polls(
        self, attempts: Any, ugen_emulator: Any, tmp_path: Path
    ) -> None:
        journal, task, context = ugen_emulator.emulator.journal, operator(deferrable=True), attempts.next()
        task.output_path = str(tmp_path)
        with pytest.raises(TaskDeferred) as deferred:
            task.execute(context)
        before = journal.count
        event = through(deferred.value.trigger)
        shared = journal.count - before  # what the watcher asked for, for everybody who waits
        result = task.resume_execution(deferred.value.method_name, {"event": event}, context)
        assert Path(result["manifest_uri"]).exists()
        own = [seen for seen in journal.find_requests(path="/api/") if not before <= seen.number < before + shared]
        assert len(own) <= 6, [(seen.method, seen.path) for seen in own]

    def test_two_namespaces_never_meet(self, attempts: Any, connection: Any, ugen_emulator: Any) -> None:
        run(operator(), attempts.next())
        connection(namespace="staging")
        run(operator(), attempts.next())
        assert bought(ugen_emulator) == 2

    def test_the_connection_names_the_model(self, attempts: Any, connection: Any, ugen_client: Any) -> None:
        connection(video_model="kling3_std")
        result = run(operator(segment_duration=5), attempts.next())
        assert ugen_client.jobs.get(result["job_id"]).video_model == "kling3_std"

    def test_spending_off_buys_nothing(self, attempts: Any, connection: Any, ugen_emulator: Any) -> None:
        connection(spending="reuse_only")
        with pytest.raises(UGenFailure, match="reuse_only"):
            run(operator(), attempts.next())
        assert bought(ugen_emulator) == 0

    def test_a_job_above_max_credits_is_not_bought(self, attempts: Any, ugen_emulator: Any) -> None:
        with pytest.raises(UGenFailure, match="max_credits is 1"):
            run(operator(max_credits=1), attempts.next())
        assert bought(ugen_emulator) == 0


class TestProducts:
    @pytest.fixture
    def product(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        from ugen_provider.core.ledger.store import Ledger

        Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True).close()
        ledger = json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")})
        monkeypatch.setenv("AIRFLOW_CONN_LEDGER", ledger)
        return {"idempotency": "content", "catalogue": "shop", "product_id": "LL-1", "ledger_conn_id": "ledger"}

    def test_each_request_for_a_product_gets_its_one_job(
        self, product: dict[str, Any], ugen_emulator: Any, deferrable: bool
    ) -> None:
        from tests.airflow.conftest import Attempts

        found = {run(operator(deferrable=deferrable, **product), Attempts().next())["job_id"] for _ in range(3)}
        assert (len(found), bought(ugen_emulator)) == (1, 1)

    def test_a_changed_product_is_new_and_one_changed_back_is_known(
        self, product: dict[str, Any], ugen_emulator: Any, attempts: Any
    ) -> None:
        names = ["Lamp", "Lamp 2", "Lamp"]
        found = [run(operator(**product, product_name=name), attempts.next())["job_id"] for name in names]
        assert (found[0] == found[2], found[0] == found[1], bought(ugen_emulator)) == (True, False, 2)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"catalogue": None}, "catalogue: must be named"),
            ({"cancel_on_kill": True}, "cancel_on_kill: a product's job belongs to no task alone"),
            ({"cancel_on_timeout": True}, "cancel_on_timeout: a product's job belongs"),
            ({"scope_key": "x"}, "scope_key: with idempotency='content'"),
            ({"idempotency": "task_instance"}, "catalogue: is used only with idempotency='content'"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, product: dict[str, Any], wrong: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            operator(**{**product, **wrong})


class TestFailures:
    def test_the_next_attempt_runs_the_failed_stage_again(
        self, any_attempts: Any, ugen_emulator: Any, ugen_faults: Any, deferrable: bool
    ) -> None:
        ugen_faults.job(fail_at="generation", kind="transient", times=1)
        with pytest.raises(JobFailedError):
            run(operator(deferrable=deferrable), any_attempts.next())
        result = run(operator(deferrable=deferrable), any_attempts.next())
        assert result["status"] == "completed"
        assert (bought(ugen_emulator, kind="create"), bought(ugen_emulator, kind="retry")) == (1, 1)

    def test_moderation_fails_without_a_retry(self, attempts: Any, ugen_faults: Any, deferrable: bool) -> None:
        ugen_faults.job(fail_at="agents", kind="moderation")
        with pytest.raises(UGenFailure, match="moderation"):
            run(operator(deferrable=deferrable), attempts.next())

    def test_a_job_another_user_cancelled_fails_until_regenerate(
        self, recorded_attempts: Any, ugen_client: Any, ugen_emulator: Any, deferrable: bool
    ) -> None:
        attempts = recorded_attempts
        started = operator(wait_for_completion=False).execute(attempts.next())
        ugen_client.jobs.cancel(started["job_id"])
        with pytest.raises(UGenFailure, match="another user cancelled"):
            run(operator(deferrable=deferrable), attempts.next())
        run(operator(deferrable=deferrable, regenerate="x"), attempts.next())
        assert bought(ugen_emulator) == 2

    def test_a_job_cancelled_during_a_deferral_has_another_author(self, attempts: Any, ugen_client: Any) -> None:
        task, context = operator(deferrable=True), attempts.next()
        with pytest.raises(TaskDeferred) as deferred:
            task.execute(context)
        ugen_client.jobs.cancel(deferred.value.trigger.job_id)
        event = through(deferred.value.trigger)
        with pytest.raises(UGenFailure, match="another user cancelled"):
            task.resume_execution("execute_complete", {"event": event}, context)

    def test_a_job_cancelled_by_our_trigger_is_bought_anew_at_once(
        self, attempts: Any, ugen_client: Any, ugen_emulator: Any
    ) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            operator(deferrable=True).execute(attempts.next())
        ugen_client.jobs.cancel(
            deferred.value.trigger.job_id
        )  # as the trigger's on_kill does, after which the task does not resume
        result = run(operator(deferrable=True), attempts.next())
        assert (result["purchase_number"], bought(ugen_emulator)) == (1, 2)

    def test_an_unsent_cancel_is_sent_by_the_next_attempt(
        self, attempts: Any, ugen_client: Any, ugen_emulator: Any
    ) -> None:
        from ugen_provider.core.api.config import Secret
        from ugen_provider.core.ledger.record import Action, RecordSigner
        from ugen_provider.operators.task_state import TaskStateOrderStore

        context = attempts.next()
        started = operator(wait_for_completion=False).execute(context)
        store = TaskStateOrderStore(attempts.store, signer=RecordSigner(Secret("ugen_sk_local")))
        record = store.read_verified(context["ti"].xcoms["ugen_job"]["order_key"])
        assert record is not None
        sent = Action(record.order_key, 0, started["job_id"], "cancel", "kill", record.token, 0.0, "sent")
        store.append_action(sent)  # as the listener does first
        result = run(operator(), attempts.next())
        assert ugen_client.jobs.get(started["job_id"]).status == "cancelled"
        assert (result["purchase_number"], bought(ugen_emulator)) == (1, 2)

    def test_a_deadline_leaves_the_job_and_the_next_attempt_attaches(
        self, attempts: Any, ugen_emulator: Any, ugen_faults: Any, deferrable: bool
    ) -> None:
        ugen_faults.job(slow=50.0)
        with pytest.raises(JobTimeoutError):
            run(operator(deferrable=deferrable, timeout=60), attempts.next())
        result = run(operator(deferrable=deferrable), attempts.next())
        assert (result["outcome"], bought(ugen_emulator)) == ("reattached", 1)

    def test_cancel_on_timeout_cancels_and_the_next_attempt_buys(
        self, attempts: Any, ugen_emulator: Any, ugen_faults: Any, deferrable: bool
    ) -> None:
        ugen_faults.job(slow=50.0)
        with pytest.raises(JobTimeoutError):
            run(operator(deferrable=deferrable, timeout=60, cancel_on_timeout=True), attempts.next())
        result = run(operator(deferrable=deferrable), attempts.next())
        assert (result["purchase_number"], bought(ugen_emulator)) == (1, 2)

    def test_passing_errors_while_waiting_fail_nothing(self, attempts: Any, ugen_faults: Any, deferrable: bool) -> None:
        ugen_faults.add("status", status=500, method="GET", times=5)
        assert run(operator(deferrable=deferrable), attempts.next())["status"] == "completed"

    def test_an_event_is_not_believed(self, attempts: Any) -> None:
        task, context = operator(deferrable=True), attempts.next()
        with pytest.raises(TaskDeferred) as deferred:
            task.execute(context)
        forged = {"job_id": deferred.value.trigger.job_id, "status": "ended", "payload": deferred.value.trigger.payload}
        with pytest.raises(TaskDeferred):
            task.resume_execution("execute_complete", {"event": forged}, context)

    def test_low_quality_warns_or_fails(self, attempts: Any, ugen_faults: Any) -> None:
        ugen_faults.job(score=0.31, times=None)
        result = run(operator(min_score=0.5), attempts.next())
        assert "below min_score" in result["warnings"][-1]
        with pytest.raises(UGenFailure, match="below min_score"):
            run(operator(min_score="0.5", on_low_quality="fail"), attempts.next())


class TestSlots:
    @pytest.fixture
    def full(self, ugen_faults: Any) -> Any:
        return ugen_faults.add("status", status=429, retry_after=7, method="POST", path="/api/v1/jobs", times=3)

    def test_a_full_account_is_waited_for(
        self, any_attempts: Any, full: Any, ugen_emulator: Any, deferrable: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = run(operator(deferrable=deferrable), any_attempts.next())
        assert (result["status"], full.hits, bought(ugen_emulator)) == ("completed", 3, 1)

    def test_but_no_longer_than_it_may(self, attempts: Any, full: Any, deferrable: bool) -> None:
        with pytest.raises(RateLimitError):
            run(operator(deferrable=deferrable, queue_timeout=10), attempts.next())

    def test_who_may_not_wait_for_hours_asks_when_the_time_is_up(
        self, attempts: Any, ugen_faults: Any, ugen_clock: Any, deferrable: bool
    ) -> None:
        ugen_faults.add("status", status=429, retry_after=40000, method="POST", path="/api/v1/jobs", times=None)
        began = ugen_clock.now()
        with pytest.raises(RateLimitError):
            run(operator(deferrable=deferrable, queue_timeout=600), attempts.next())
        assert ugen_clock.now() - began < 700


class TestOutputs:
    def test_files_and_a_manifest_are_stored(self, attempts: Any, tmp_path: Path, deferrable: bool) -> None:
        result = run(operator(deferrable=deferrable, output_path=str(tmp_path), product_id="LL-1"), attempts.next())
        folder = tmp_path / "LL-1" / result["job_id"]
        assert Path(result["manifest_uri"]) == folder / "manifest.json"
        assert (folder / "final.mp4").stat().st_size > 0
        assert (folder / "keyframe-0.png").exists()

    def test_object_storage_paths_are_destinations(self, attempts: Any, tmp_path: Path) -> None:
        from airflow.sdk import ObjectStoragePath

        result = run(operator(output_path=ObjectStoragePath(f"file://{tmp_path}")), attempts.next())
        assert (tmp_path / result["job_id"] / "final.mp4").exists()

    def test_an_outlet_gets_what_was_made(self, attempts: Any) -> None:
        videos = Asset("videos")
        result = run(operator(outlets=[videos]), attempts.next())
        assert attempts.outlet_events[videos].extra["ugen"] == result

    def test_the_job_is_known_before_it_ends(self, attempts: Any) -> None:
        context = attempts.next()
        with pytest.raises(TaskDeferred) as deferred:
            operator(deferrable=True).execute(context)
        assert context["ti"].xcoms["job_id"] == deferred.value.trigger.job_id
        assert "dag_id=dag&run_id=run&task_id=job&map_index=-1" in context["ti"].xcoms["_link_UGenJobLink"]

    def test_a_failing_attempt_still_knows_the_job_bought_earlier(
        self, attempts: Any, ugen_faults: Any, deferrable: bool
    ) -> None:
        ugen_faults.job(fail_at="agents", kind="moderation")
        jobs = []
        for _ in range(2):
            context = attempts.next()  # whose XComs Airflow has cleared
            with pytest.raises(UGenFailure, match=r"task job of DAG dag, run run.*moderation"):
                run(operator(deferrable=deferrable), context)
            jobs.append(context["ti"].xcoms["job_id"])
        assert jobs[0] == jobs[1]
        assert context["ti"].xcoms["ugen_job"]["cancel_on_kill"] is False

    def test_the_log_ends_with_what_it_cost_and_where_the_video_is(
        self, attempts: Any, logged: Callable[[], str], deferrable: bool
    ) -> None:
        result = run(operator(deferrable=deferrable), attempts.next())
        scores = " ".join(f"{score:.2f}" for score in result["keyframe_scores"])
        said = rf"completed, took \d+ s, {result['credits_consumed']} credits consumed, keyframe scores {scores}, "
        ours = [line for line in logged().splitlines() if "HTTP Request" not in line]  # httpx's own, in Airflow 3.0
        assert re.search(f"job {result['job_id']}: {said}.*{re.escape(result['final_video_url'])}", ours[-1])

    def test_create_log_begins_with_cost_deadline_and_link(
        self, attempts: Any, logged: Callable[[], str], deferrable: bool
    ) -> None:
        result = run(operator(deferrable=deferrable), attempts.next())
        (first, *_) = [line for line in logged().splitlines() if f"job {result['job_id']}: created" in line]
        said = r"created, status \w+, \d+ credits reserved, waiting until 2\S+ \S+Z, \S*/ugen/job\?dag_id=dag"
        assert re.search(said, first)

    def test_failure_is_raised_without_the_providers_stack(self, attempts: Any, connection: Any) -> None:
        import traceback

        connection(password="")
        with pytest.raises(UGenFailure) as failure:
            operator().execute(attempts.next())
        frames = traceback.extract_tb(failure.value.__traceback__)
        assert len([frame for frame in frames if "ugen_provider" in frame.filename]) == 1
        assert failure.value.__cause__ is None
        assert failure.value.__suppress_context__

    @pytest.fixture
    def own_picture(self, tmp_path: Path) -> dict[str, Any]:
        from PIL import Image

        Image.new("RGB", (8, 8), "red").save(tmp_path / "lamp.png")
        return {"product_image_url": None, "product_image": str(tmp_path / "lamp.png")}

    def test_a_picture_of_ones_own_is_uploaded_once(
        self, attempts: Any, own_picture: dict[str, Any], ugen_emulator: Any
    ) -> None:
        first = run(operator(**own_picture), attempts.next())
        second = run(operator(**own_picture), attempts.next())
        uploads = ugen_emulator.emulator.journal.find_requests(method="POST", path="/api/v1/uploads/product-image")
        assert (second["job_id"], second["request_changed"], len(uploads)) == (first["job_id"], False, 1)

    @pytest.mark.parametrize("ended", [True, False], ids=["ended", "at_work"])
    def test_without_a_store_the_job_is_found_by_its_key(
        self, own_picture: dict[str, Any], ugen_emulator: Any, ended: bool
    ) -> None:
        from tests.airflow.conftest import Attempts

        attempts = Attempts(with_store=False)
        first = run(operator(**own_picture, wait_for_completion=ended), attempts.next())
        second = run(operator(**own_picture), attempts.next())
        conflicts = ugen_emulator.emulator.journal.find_requests(method="POST", path="/api/v1/jobs", status=409)
        assert (second["job_id"], second["status"], bought(ugen_emulator)) == (first["job_id"], "completed", 1)
        assert len(conflicts) == 1


class TestBadInput:
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"segment_count": 11}, "segment_count: must be at most 10"),
            ({"product_image_url": "lamp.png"}, r"product_image_url: must be an http\(s\) URL"),
            ({"product_name": None}, "product_name: is required"),
            ({"stop_at_stage": "polish"}, "stop_at_stage: must be one of"),
            ({"aspect_ratio": "1:1", "video_model": "veo3_fast"}, "1:1 is made by Kling models only"),
            ({"on_paused": "hope"}, "on_paused: must be one of wait, fail"),
            ({"poll_interval": 0}, "poll_interval: must be more than 0"),
            ({"timeout": -1}, "timeout: must be more than 0"),
            ({"job": {"idempotency_key": "x"}}, "idempotency_key is derived"),
            ({"job": {"colour": "red"}}, "colour: is not a field"),
            ({"product_image": "lamp.png"}, "give one of the two"),
            ({"poll_interval": timedelta(seconds=5)}, "poll_interval: must be a number of seconds"),
            ({"max_stage_retries": -1}, "max_stage_retries: must be at least 0"),
            ({"max_credits": "plenty"}, "max_credits: must be a whole number, got 'plenty'"),
            ({"max_credits": 1.5}, "max_credits: must be a whole number"),
            ({"max_credits": 0}, "max_credits: must be at least 1"),
            ({"min_score": 80}, "min_score: must be at most 1, got 80"),
            ({"min_score": float("nan")}, "min_score: must be a number"),
            ({"output_path": ""}, "output_path: must be named"),
            ({"scope_key": " "}, "scope_key: must be named"),
            ({"ugen_conn_id": ""}, "ugen_conn_id: must be named"),
            ({"deferrable": "no"}, "deferrable: must be True or False, got 'no'"),
            ({"cancel_on_kill": 0}, "cancel_on_kill: must be True or False"),
        ],
    )
    def test_what_can_be_known_is_refused_when_the_dag_is_parsed(self, wrong: dict[str, Any], said: str) -> None:
        with pytest.raises((InvalidRequestError, ConfigError), match=said):
            operator(**wrong)

    def test_templates_are_checked_after_rendering_before_any_call(self, attempts: Any, ugen_emulator: Any) -> None:
        task = operator(product_image_url="{{ url }}", segment_count="{{ n }}")
        task.render_template_fields({"url": "lamp.png", "n": "three"})
        with pytest.raises(UGenFailure, match=r"product_image_url: must be .*segment_count: must be a whole number"):
            run(task, attempts.next())
        assert ugen_emulator.emulator.journal.count == 0

    @pytest.mark.parametrize(
        ("name", "rendered", "said"),
        [
            ("product_name", "None", "product_name: its template rendered to nothing"),
            ("output_path", "", "output_path: its template rendered to nothing"),
            ("output_path", "nowhere://videos", "destination 'nowhere://videos' cannot be used: "),
            ("output_path", "gs://videos", "destination 'gs://videos' cannot be used: "),
            ("ugen_conn_id", "", "ugen_conn_id: its template rendered to nothing"),
            ("max_credits", "", "max_credits: its template rendered to nothing"),
            ("max_credits", "-3", "max_credits: must be at least 1, got '-3'"),
            ("min_score", "80", "min_score: must be at most 1, got '80'"),
            ("min_score", "good", "min_score: must be a number, got 'good'"),
            ("job", "{'product_name': 'Lamp'}", "job: must be a dict .* hand over the output of a task"),
        ],
    )
    def test_rendered_values_are_checked_before_any_purchase(
        self, attempts: Any, ugen_emulator: Any, name: str, rendered: str, said: str
    ) -> None:
        task = operator(**{name: "{{ given }}"})

        def attempt() -> None:
            task.render_template_fields({"given": rendered})
            run(task, attempts.next())

        with pytest.raises(UGenFailure, match=said):
            attempt()
        assert ugen_emulator.emulator.journal.count == 0

    @pytest.mark.parametrize(
        "row", [{"product_name": ""}, {"segment_count": 0}, {"min_score": 80}, {"colour_of_the_lamp": "red"}]
    )
    def test_a_mapped_row_that_cannot_be_used_fails_without_a_retry(self, attempts: Any, row: dict[str, Any]) -> None:
        from airflow.sdk.execution_time.context import set_current_context

        context: Any = attempts.next()
        with set_current_context(context), pytest.raises(AirflowFailException, match=next(iter(row))):
            operator(**row)  # Airflow makes a mapped instance in the worker

    def test_rendered_text_becomes_what_the_field_holds(self, attempts: Any) -> None:
        task = operator(segment_count="{{ n }}", music_enabled="{{ m }}")
        task.render_template_fields({"n": 1, "m": "no"})
        assert run(task, attempts.next())["status"] == "completed"

    @pytest.mark.parametrize(
        ("broken", "said"),
        [
            ({"password": ""}, "connection 'ugen_default' has no API key"),
            ({"base_url": "ftp://x"}, "connection 'ugen_default': base_url"),
            ({"spending": "maybe"}, "connection 'ugen_default': spending"),
            (
                {"password": "ugen_sk_wrong"},
                "refused the API key .401: .*into the password of connection 'ugen_default'",
            ),
        ],
    )
    def test_a_broken_connection_is_named_and_not_retried(
        self, attempts: Any, connection: Any, broken: dict[str, Any], said: str
    ) -> None:
        connection(**broken)
        with pytest.raises(UGenFailure, match=said) as failure:
            run(operator(), attempts.next())
        assert failure.value.__cause__ is None
        assert "ugen_sk_wrong" not in str(failure.value)

    def test_an_address_that_is_not_the_services_names_its_field(
        self, attempts: Any, connection: Any, ugen_emulator: Any
    ) -> None:
        connection(base_url=ugen_emulator.url + "/api")
        with pytest.raises(UGenFailure, match=r"404.*check base_url of connection 'ugen_default'"):
            run(operator(), attempts.next())

    def test_no_network_is_retried_and_names_what_to_look_at(self, attempts: Any, connection: Any) -> None:
        connection(base_url="http://127.0.0.1:9/api/v1")
        with pytest.raises(TransportError) as failure:
            run(operator(), attempts.next())
        assert "base_url of connection 'ugen_default'" in failure.value.__notes__[0]

    def test_the_password_of_another_connection_type_is_not_sent(
        self, attempts: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shop = {"conn_type": "http", "host": "http://127.0.0.1:9", "password": "of the shop"}
        monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps(shop))
        with pytest.raises(UGenFailure, match="connection 'shop' is of type 'http'"):
            run(operator(ugen_conn_id="shop"), attempts.next())

    def test_a_missing_connection_is_named(self, attempts: Any) -> None:
        with pytest.raises(UGenFailure, match="connection 'nowhere' is not defined"):
            run(operator(ugen_conn_id="nowhere"), attempts.next())

    def test_a_422_names_the_field(self, attempts: Any, ugen_faults: Any) -> None:
        with pytest.raises(UGenFailure, match="interaction_mode"):
            run(operator(interaction_mode="x" * 3000), attempts.next())


def test_triggers_carry_primitives_and_no_secret(attempts: Any) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        operator(deferrable=True).execute(attempts.next())
    path, arguments = deferred.value.trigger.serialize()
    assert path == f"{UGenJobTrigger.__module__}.UGenJobTrigger"
    assert "ugen_sk_local" not in str(arguments)
    assert "Lamp" not in str(arguments)
    assert UGenJobTrigger(**arguments).serialize() == (path, arguments)
    assert deferred.value.timeout is not None
