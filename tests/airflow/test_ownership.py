# SPDX-License-Identifier: Apache-2.0
"""Records, tokens and kills of Airflow's tasks: what each attempt may do, and what happens to a job after its task."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.airflow.conftest import Attempts
from tests.airflow.deferring import run, through
from ugen_provider.core.api.config import Secret
from ugen_provider.core.api.errors import PurchaseError, UGenError
from ugen_provider.core.api.polling import JobTimeoutError
from ugen_provider.core.ledger.errors import AttemptSupersededError
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.record import Action, OrderRecord, RecordSigner
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.operators.base import KillContext
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.operators.jobs import UGenCreateJobOperator, UGenResumeJobOperator
from ugen_provider.operators.reconcile import UGenReconcileOperator
from ugen_provider.operators.task_state import RECORD_PREFIX, TaskStateOrderStore
from ugen_provider.triggers.cancellation import attempt_name
from ugen_provider.version_compat import TaskDeferred

pytestmark = pytest.mark.usefixtures("connection", "moving_clock")

LAMP: dict[str, Any] = {
    "product_name": "Lamp",
    "product_image_url": "https://shop.example/lamp.png",
    "segment_count": 1,
}
SIGNER = RecordSigner(Secret("ugen_sk_local"))


def operator(**more: Any) -> UGenCreateJobOperator:
    return UGenCreateJobOperator(**{"task_id": "job", "deferrable": False, **LAMP, **more})


def bought(ugen_emulator: Any, **filters: Any) -> int:
    return len(ugen_emulator.emulator.journal.find_purchases(**filters))


def record(**more: Any) -> OrderRecord:
    given = {"purchase_number": 0, "key": "k", "body": {}, "fingerprint": "f", "scheme": 1, "written_at": 1.0}
    return OrderRecord(**{"order_key": "order", "attempt": "1 job -1", **given, **more})


class TestTaskStateOrderStore:
    @pytest.fixture
    def store(self, attempts: Attempts) -> TaskStateOrderStore:
        assert attempts.store is not None
        return TaskStateOrderStore(attempts.store, signer=SIGNER)

    def test_write_new_record_takes_token_one(self, store: TaskStateOrderStore) -> None:
        assert store.write(record()).token == 1
        assert store.read("order") == replace(record(), token=1)
        assert store.read("another") is None

    def test_take_token_orders_attempts(self, store: TaskStateOrderStore) -> None:
        first = store.write(record())
        second = store.take_token("order", "2 job -1")
        assert (second.token, store.take_token("order", "2 job -1").token) == (2, 2)
        for call in (lambda: store.write(first), lambda: store.take_token("order", "1 job -1")):
            with pytest.raises(AttemptSupersededError):
                call()
        assert store.record_job_id(first, "j1").job_id == "j1"
        found = store.read("order")
        assert found is not None
        assert (found.token, found.job_id) == (2, "j1")

    def test_write_for_cleared_task_instance_is_superseded(
        self, store: TaskStateOrderStore, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written = store.write(record())

        class NotFoundError(Exception):
            error = SimpleNamespace(detail={"status_code": 404})

        def refuse(*_: Any, **__: Any) -> None:
            raise NotFoundError

        monkeypatch.setattr(attempts.store, "set", refuse)
        with pytest.raises(AttemptSupersededError):
            store.write(written)
        assert store.record_job_id(written, "j1").job_id == "j1"

    def test_actions_are_appended_and_marked(self, store: TaskStateOrderStore) -> None:
        action = store.append_action(Action("order", 0, "j1", "cancel", "kill", 1, 2.0))
        store.append_action(Action("order", 0, "j1", "pause", "gate", 1, 3.0))
        store.mark_action(action, "confirmed")
        assert [(each.kind, each.state) for each in store.actions("order")] == [
            ("cancel", "confirmed"),
            ("pause", "recorded"),
        ]

    def test_read_verified_changed_record_is_none(self, store: TaskStateOrderStore, attempts: Attempts) -> None:
        store.write(record(cancel_on_kill=False))
        assert store.read_verified("order") is not None
        assert attempts.store is not None
        (key,) = (name for name in attempts.store.kept if name.startswith(RECORD_PREFIX))
        stored = attempts.store.get(key)
        stored["document"]["cancel_on_kill"] = True
        attempts.store.set(key, stored)
        assert store.read_verified("order") is None
        assert store.read("order") is not None  # an unverifiable record never means that nothing was bought

    def test_actions_with_forged_signature_are_ignored(self, store: TaskStateOrderStore, attempts: Attempts) -> None:
        store.append_action(Action("order", 0, "j1", "cancel", "kill", 1, 2.0))
        other = TaskStateOrderStore(attempts.store, signer=RecordSigner(Secret("another")))  # type: ignore[arg-type]
        assert other.actions("order") == ()


class TestLedger:
    def test_create_with_ledger_records_signed_order(self, attempts: Any, ledger: Path) -> None:
        context = attempts.next()
        result = run(operator(), context)
        with Ledger(str(ledger)) as opened:
            stored = LedgerOrderStore(opened, signer=SIGNER).of_job(result["job_id"])
            assert stored is not None
            assert LedgerOrderStore(opened, signer=SIGNER).read_verified(stored.order_key) == stored
            ref = context["ti"].xcoms["ugen_job"]
        assert (stored.attempt, ref["ledger_id"]) == (attempt_name(context["ti"]), opened.ledger_id)

    def test_create_record_of_state_store_is_imported_once(
        self, attempts: Any, ugen_emulator: Any, ugen_clock: Any, connection: Any, request: pytest.FixtureRequest
    ) -> None:
        first = run(operator(), attempts.next())
        request.getfixturevalue("ledger")
        ugen_clock.advance(25 * 3600.0)
        second = run(operator(), attempts.next())
        assert (second["job_id"], second["outcome"], bought(ugen_emulator)) == (first["job_id"], "reused", 1)

    def test_create_in_deleted_state_store_reuses_from_ledger(
        self, ledger: Path, ugen_emulator: Any, ugen_clock: Any
    ) -> None:
        first = run(operator(), Attempts().next())
        ugen_clock.advance(25 * 3600.0)
        second = run(operator(), Attempts().next())  # `clear_on_success`, or a run that was created again
        assert (second["job_id"], bought(ugen_emulator)) == (first["job_id"], 1)

    def test_execute_complete_in_another_ledger_fails(
        self, attempts: Any, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        context = attempts.next()
        with pytest.raises(TaskDeferred) as deferred:
            operator(deferrable=True).execute(context)
        event = through(deferred.value.trigger)
        other = tmp_path / "other.db"
        Ledger.init(str(other), allow_ephemeral=True).close()
        monkeypatch.setenv("AIRFLOW_CONN_UGEN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(other)}))
        with pytest.raises(UGenFailure, match="the task was begun with ledger"):
            operator(deferrable=True).execute_complete(context, event)

    def test_missing_ledger_fails_with_the_command(
        self, attempts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connection: Any, ugen_emulator: Any
    ) -> None:
        missing = json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "typo.db")})
        monkeypatch.setenv("AIRFLOW_CONN_UGEN_LEDGER", missing)
        connection(ledger_conn_id="ugen_ledger")
        with pytest.raises(UGenFailure, match=r"ugen ledger init .*typo\.db"):
            run(operator(), attempts.next())
        assert bought(ugen_emulator) == 0


class TestWithoutLedger:
    @staticmethod
    def old_run(attempts: Attempts, ugen_clock: Any, *, hours: float) -> dict[str, Any]:
        context = attempts.next()
        context["dag_run"].run_after = datetime.fromtimestamp(ugen_clock.now(), UTC) - timedelta(hours=hours)
        return context

    @pytest.mark.parametrize("with_store", [True, False], ids=["store", "key_alone"])
    def test_create_in_recreated_run_finds_its_job(self, ugen_emulator: Any, ugen_clock: Any, with_store: bool) -> None:
        first = run(operator(), Attempts(with_store=with_store).next())
        ugen_clock.advance(25 * 3600.0)
        context = self.old_run(Attempts(with_store=with_store), ugen_clock, hours=25.5)
        second = run(operator(), context)
        assert (second["job_id"], bought(ugen_emulator)) == (first["job_id"], 1)

    def test_create_in_old_run_without_proof_fails(self, ugen_emulator: Any, ugen_clock: Any, ugen_faults: Any) -> None:
        run(operator(), Attempts().next())
        ugen_clock.advance(25 * 3600.0)
        context = self.old_run(Attempts(), ugen_clock, hours=30.0)
        ugen_faults.add("status", status=500, method="GET", path="/api/v1/jobs", times=None)
        with pytest.raises(UGenError):
            run(operator(), context)
        assert bought(ugen_emulator) == 1

    def test_create_in_fresh_run_searches_nothing(self, attempts: Any, ugen_emulator: Any, ugen_clock: Any) -> None:
        run(operator(), self.old_run(attempts, ugen_clock, hours=1.0))
        lists = ugen_emulator.emulator.journal.find_requests(method="GET", path="/api/v1/jobs")
        assert [seen for seen in lists if seen.path.rstrip("/").endswith("/jobs")] == []

    def test_settle_by_conf_deleted_job_needs_regenerate(
        self, attempts: Any, ugen_emulator: Any, ugen_client: Any
    ) -> None:
        run(operator(), attempts.next())
        attempts.conf["ugen_settle"] = "deleted"
        with pytest.raises(UGenFailure, match="settled as deleted"):
            run(operator(), attempts.next())
        run(operator(regenerate="x"), attempts.next())
        assert bought(ugen_emulator) == 2


class TestFinalFailure:
    def test_timeout_in_last_try_is_collected_by_reconciler(
        self, attempts: Any, ledger: Path, ugen_faults: Any, ugen_clock: Any, tmp_path: Path, ugen_emulator: Any
    ) -> None:
        ugen_faults.job(slow=50.0)
        with pytest.raises(JobTimeoutError):
            run(operator(timeout=60, output_path=str(tmp_path / "out"), product_id="LL-1"), attempts.next())
        ugen_clock.advance(24 * 3600.0)
        report = UGenReconcileOperator(task_id="reconcile").execute({})  # type: ignore[typeddict-item]
        assert (report["done"], report["owed"]) == (1, [])
        assert len(list((tmp_path / "out").glob("LL-1/*/final.mp4"))) == 1
        assert bought(ugen_emulator) == 1

    def test_timeout_before_last_try_is_left(self, attempts: Any, ledger: Path, ugen_faults: Any) -> None:
        ugen_faults.job(slow=50.0)
        context = attempts.next()
        context["ti"].max_tries = 1
        with pytest.raises(JobTimeoutError):
            run(operator(timeout=60), context)
        assert UGenReconcileOperator(task_id="reconcile").execute({})["done"] == 0  # type: ignore[typeddict-item]

    @pytest.mark.parametrize("with_ledger", [True, False])
    def test_timeout_with_cancel_cancels_and_next_attempt_buys(
        self, attempts: Any, ugen_faults: Any, ugen_emulator: Any, request: pytest.FixtureRequest, with_ledger: bool
    ) -> None:
        if with_ledger:
            request.getfixturevalue("ledger")
        ugen_faults.job(slow=50.0)
        with pytest.raises(JobTimeoutError):
            run(operator(timeout=60, on_final_failure="cancel"), attempts.next())
        result = run(operator(), attempts.next())
        assert (result["purchase_number"], bought(ugen_emulator)) == (1, 2)


class TestKill:
    def test_kill_context_wakes_the_wait_and_runs_its_thread(self) -> None:
        handled = threading.Event()
        kill = KillContext()
        kill.start(handled.set)
        kill.signal()
        with pytest.raises(PurchaseError, match="asked to stop"):
            kill.sleep(3600.0)
        kill.finish()
        assert (handled.is_set(), kill.is_set) == (True, True)

    def test_kill_context_without_kill_ends_its_thread(self) -> None:
        kill = KillContext()
        kill.start(lambda: pytest.fail("there was no kill"))
        kill.finish()
        kill.sleep(0.0)

    @pytest.mark.parametrize("with_ledger", [True, False])
    def test_killed_attempt_never_buys_again(
        self,
        attempts: Any,
        ugen_emulator: Any,
        ugen_client: Any,
        monkeypatch: pytest.MonkeyPatch,
        request: pytest.FixtureRequest,
        with_ledger: bool,
    ) -> None:
        """The process lives on after its job was cancelled: it stops, and the next attempt buys."""
        if with_ledger:
            request.getfixturevalue("ledger")
        from ugen_provider.operators import base

        monkeypatch.setattr(base, "ask_airflow", lambda *_, **__: True)
        task, context = operator(), attempts.next()
        clock_sleep = base.KillClock.sleep

        def kill_while_waiting(clock: Any, seconds: float) -> None:
            if task._kill is not None and not task._kill.is_set and task._kill.job_id:
                task.on_kill()
                thread = task._kill._thread
                assert thread is not None
                thread.join()
            clock_sleep(clock, seconds)

        monkeypatch.setattr(base.KillClock, "sleep", kill_while_waiting)
        with pytest.raises(UGenFailure, match="cancelled with this attempt"):
            run(task, context)
        assert bought(ugen_emulator) == 1
        monkeypatch.setattr(base.KillClock, "sleep", clock_sleep)
        result = run(operator(), attempts.next())
        assert (result["purchase_number"], bought(ugen_emulator)) == (1, 2)

    @pytest.mark.parametrize("gone", [True, False])
    @pytest.mark.parametrize("learned_by", ["record", "answer"])
    @pytest.mark.parametrize("with_ledger", [True, False])
    def test_attempt_of_a_deleted_run_cancels_its_job(
        self,
        attempts: Any,
        ugen_emulator: Any,
        monkeypatch: pytest.MonkeyPatch,
        request: pytest.FixtureRequest,
        gone: bool,
        learned_by: str,
        with_ledger: bool,
    ) -> None:
        """Its own call fails before the kill comes. Where the run is there, the job is the next attempt's."""
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse

        from ugen_provider.core.ledger.errors import AttemptSupersededError
        from ugen_provider.operators import base

        if with_ledger:
            request.getfixturevalue("ledger")
        monkeypatch.setattr(base, "ask_airflow", lambda *_, **__: gone)
        task = operator()
        answer = AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR, detail={"status_code": 404}))
        superseded = AttemptSupersededError(order_key="order", attempt="a", newest="a")

        def fail_while_waiting(_clock: Any, _seconds: float) -> None:
            raise superseded if learned_by == "record" else answer

        monkeypatch.setattr(base.KillClock, "sleep", fail_while_waiting)
        with pytest.raises((AirflowRuntimeError, UGenError, UGenFailure)):
            run(task, attempts.next())
        (job,) = ugen_emulator.emulator.jobs.by_id.values()
        assert (job.timeline[-1].status == "cancelled", bought(ugen_emulator)) == (gone, 1)

    def test_stopping_process_sends_no_create(
        self, attempts: Any, ugen_emulator: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ugen_provider.operators import base

        monkeypatch.setattr(base, "ask_airflow", lambda *_, **__: False)
        task = operator()
        order = task._order

        def killed_before_the_purchase(*given: Any) -> Any:
            task.on_kill()
            return order(*given)

        monkeypatch.setattr(task, "_order", killed_before_the_purchase)
        with pytest.raises(UGenError, match="create was not sent"):
            run(task, attempts.next())
        assert bought(ugen_emulator) == 0


class TestOwnership:
    def test_resume_takes_the_order_over(self, ledger: Path) -> None:
        made = run(operator(wait_for_completion=False), Attempts().next())
        context = Attempts(task_id="resume").next()
        assert run(UGenResumeJobOperator(task_id="resume", job_id=made["job_id"]), context)["status"] == "completed"
        with Ledger(str(ledger)) as opened:
            owned = LedgerOrderStore(opened).of_job(made["job_id"])
        assert owned is not None
        assert (owned.attempt, owned.token) == (attempt_name(context["ti"]), 2)


class TestRenamedTask:
    def attempt(self, task_id: str, *, of: Attempts | None = None, tasks: tuple[str, ...] = (), **more: Any) -> Any:
        from airflow.sdk import DAG

        with DAG("dag") as dag:
            task = UGenCreateJobOperator(**{"task_id": task_id, "deferrable": False, **LAMP, **more})
            for other in tasks:
                UGenCreateJobOperator(task_id=other, **LAMP)
        attempts = of or Attempts(task_id=task_id)
        context = {**attempts.next(), "dag": dag}
        return run(task, context)

    def test_create_under_new_name_says_so(self, ledger: Path, ugen_emulator: Any, logged: Callable[[], str]) -> None:
        old = self.attempt("make_video")
        logged()
        self.attempt("group.make_video")
        said = logged()
        assert f"job {old['job_id']}: was ordered in this run with an equal request by task 'make_video'" in said
        assert len(ugen_emulator.emulator.journal.find_purchases()) == 2

    def test_create_with_order_key_reuses_under_new_name(
        self, ledger: Path, ugen_emulator: Any, logged: Callable[[], str]
    ) -> None:
        old = self.attempt("make_video")
        new = self.attempt("group.make_video", order_key="make_video")
        assert (new["job_id"], new["outcome"]) == (old["job_id"], "reused")
        assert len(ugen_emulator.emulator.journal.find_purchases()) == 1
        assert "was ordered in this run" not in logged()

    @pytest.mark.parametrize("change", ["other_request", "task_still_there", "same_task_again"])
    def test_create_without_rename_says_nothing(self, ledger: Path, logged: Callable[[], str], change: str) -> None:
        self.attempt("make_video")
        if change == "other_request":
            self.attempt("second", product_name="Mug")
        elif change == "task_still_there":
            self.attempt("second", tasks=("make_video",))
        else:
            self.attempt("make_video")
        assert "was ordered in this run" not in logged()
