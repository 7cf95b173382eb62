# SPDX-License-Identifier: Apache-2.0
"""The gate: its page, the effects of a rejection and an expiry, and their report to the create task."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.airflow.conftest import Attempts, Dag
from tests.airflow.deferring import run
from ugen_provider.core.api.errors import ServerError
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.operators.jobs import UGenCancelJobOperator, UGenCreateJobOperator, UGenResumeJobOperator
from ugen_provider.version_compat import AIRFLOW_3_1_PLUS, AIRFLOW_3_3_PLUS, TaskDeferred

pytestmark = [
    pytest.mark.usefixtures("connection", "moving_clock"),
    pytest.mark.skipif(not AIRFLOW_3_1_PLUS, reason="Airflow asks people from 3.1 on"),
]

LAMP: dict[str, Any] = {
    "product_name": "Lamp",
    "product_image_url": "https://shop.example/lamp.png",
    "segment_count": 1,
}


class Gate:
    """One run of create, gate and resume; the scheduler and the person are played here."""

    def __init__(self, asked: list[dict[str, Any]], **arguments: Any) -> None:
        from ugen_provider.operators.review import UGenKeyframeApprovalOperator

        self.asked = asked
        self.arguments = arguments
        self.new_gate = UGenKeyframeApprovalOperator
        self.dag = Dag()
        self.make = Attempts(task_id="make", dag=self.dag)
        self.look = Attempts(task_id="look", dag=self.dag)
        self.make.beside.append(self.look)
        self.dag.tasks += [self.create_task(), self.gate("unknown")]
        self.job_id = str(self.create()["job_id"])

    def create_task(self, **more: Any) -> UGenCreateJobOperator:
        return UGenCreateJobOperator(
            **{"task_id": "make", "stop_at_stage": "init", "deferrable": False, **LAMP, **more}
        )

    def create(self, **more: Any) -> Any:
        """The next attempt of the create task: the first, or one that was cleared."""
        return run(self.create_task(**more), self.make.next())

    def gate(self, job_id: str) -> Any:
        return self.new_gate(task_id="look", job_id=job_id, **self.arguments)

    def ask(self) -> Any:
        """The next attempt of the gate, until a person is asked; what it returned if none had to be."""
        context = self.look.next()
        try:
            return self.gate(self.job_id).execute(context)
        except TaskDeferred:
            return None
        except BaseException as asking:  # Airflow's TaskAwaitingInput is no Exception, and not there before 3.3
            if type(asking).__name__ != "TaskAwaitingInput":
                raise
            return None

    def answer(self, option: str) -> Any:
        event = {
            "chosen_options": [option],
            "params_input": {},
            "responded_at": datetime(2026, 4, 9, tzinfo=UTC),
            "responded_by_user": {"id": "1", "name": "anna"},
            "timedout": False,
        }
        return self.gate(self.job_id).execute_complete(self.look.context(), event)

    def expire(self) -> Any:
        event = {"error": "The timeout has passed, and the response is not yet received.", "error_type": "timeout"}
        return self.gate(self.job_id).execute_complete(self.look.context(), event)


@pytest.fixture
def open_gate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Gate]:
    """A gate at which its job waits. Airflow's own table of questions, for which there is no server here, is a list."""
    from airflow.providers.standard.operators import hitl

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **question: asked.append(question))
    return lambda **arguments: Gate(asked, **arguments)


def status(ugen_client: Any, gate: Gate) -> str:
    return str(ugen_client.jobs.get(gate.job_id).status)


def bought(ugen_emulator: Any) -> int:
    return len(ugen_emulator.emulator.journal.find_purchases())


class TestAsking:
    def test_a_person_sees_the_picture_and_a_yes_is_about_it(
        self, open_gate: Callable[..., Gate], ugen_client: Any
    ) -> None:
        gate = open_gate(response_timeout=timedelta(hours=2))
        assert gate.ask() is None
        assert "![keyframe](http" in gate.asked[-1]["body"]
        approval = gate.answer("Approve")
        assert (approval["job_id"], approval["by"], len(approval["digest"])) == (gate.job_id, "anna", 64)
        resumed = run(UGenResumeJobOperator(task_id="go_on", approval=approval), Attempts(task_id="go_on").next())
        assert resumed["status"] == "completed"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [({}, "Lamp: does this keyframe look right?"), ({"subject": "For the spring?"}, "For the spring?")],
    )
    def test_the_list_of_open_actions_distinguishes_products(
        self, open_gate: Callable[..., Gate], arguments: dict[str, Any], said: str
    ) -> None:
        gate = open_gate(**arguments)
        gate.ask()
        assert gate.asked[-1]["subject"] == said

    def test_approval_of_a_keyframe_made_again_since_is_refused(
        self, open_gate: Callable[..., Gate], ugen_client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = open_gate()
        gate.ask()
        approval = gate.answer("Approve")
        made_again(monkeypatch)
        with pytest.raises(UGenFailure, match="made again after it was approved"):
            run(UGenResumeJobOperator(task_id="go_on", approval=approval), Attempts(task_id="go_on").next())

    def test_a_clear_after_a_new_keyframe_approves_the_new_one(
        self, open_gate: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = open_gate()
        gate.ask()
        old = gate.answer("Approve")
        url = made_again(monkeypatch)
        gate.ask()
        assert url in gate.asked[-1]["body"]
        new = gate.answer("Approve")
        assert (old["digest"] == new["digest"], new["keyframe_id"]) == (False, "again")
        resume = UGenResumeJobOperator(task_id="go_on", approval=new, wait_for_completion=False)
        assert run(resume, Attempts(task_id="go_on").next())["job_id"] == gate.job_id

    def test_a_job_beyond_its_gate_asks_no_question(self, open_gate: Callable[..., Gate], ugen_client: Any) -> None:
        gate = open_gate()
        ugen_client.jobs.resume(gate.job_id)
        assert (gate.ask()["job_id"], gate.asked) == (gate.job_id, [])


class TestClosing:
    @pytest.fixture(params=["rejected", "expired"])
    def close(self, request: pytest.FixtureRequest) -> Callable[[Gate], Any]:
        def rejected(gate: Gate) -> None:
            assert gate.answer("Reject") == {"job_id": gate.job_id, "approved": False}

        def expired(gate: Gate) -> None:
            with pytest.raises(UGenFailure, match="no answer arrived in time"):
                gate.expire()

        made = {"rejected": rejected, "expired": expired}[request.param]
        made.word = request.param  # type: ignore[attr-defined]
        return made

    def test_the_job_is_cancelled_and_its_credits_are_released(
        self, open_gate: Callable[..., Gate], close: Any, ugen_client: Any
    ) -> None:
        gate = open_gate()
        gate.ask()
        close(gate)
        assert status(ugen_client, gate) == "cancelled"
        assert ugen_client.credits.balance().credit_reserved == 0

    @pytest.mark.skipif(not AIRFLOW_3_3_PLUS, reason="without a task state store the key alone protects")
    def test_a_cleared_create_task_names_the_reason_and_buys_nothing(
        self, open_gate: Callable[..., Gate], close: Any, ugen_emulator: Any
    ) -> None:
        gate = open_gate()
        gate.ask()
        close(gate)
        for _ in range(2):
            with pytest.raises(UGenFailure, match=rf"was cancelled \({close.word}\)"):
                gate.create()
        assert bought(ugen_emulator) == 1
        assert gate.create(regenerate="another look")["purchase_number"] == 1

    def test_attempt_after_a_failed_cancel_cancels_without_asking(
        self, open_gate: Callable[..., Gate], close: Any, ugen_client: Any, ugen_faults: Any
    ) -> None:
        gate = open_gate()
        gate.ask()
        ugen_faults.add("status", status=500, method="DELETE", times=1)
        with pytest.raises(ServerError):
            close(gate)
        assert status(ugen_client, gate) == "paused"
        if close.word == "rejected":
            assert gate.ask() == {"job_id": gate.job_id, "approved": False}
        else:
            with pytest.raises(UGenFailure, match="no answer arrived in time"):
                gate.ask()
        assert (status(ugen_client, gate), len(gate.asked)) == ("cancelled", 1)

    def test_an_unsent_cancel_is_sent_by_a_cleared_create_task(
        self, open_gate: Callable[..., Gate], close: Any, ugen_client: Any, ugen_faults: Any, ugen_emulator: Any
    ) -> None:
        gate = open_gate()
        gate.ask()
        ugen_faults.add("status", status=500, method="DELETE", times=1)
        with pytest.raises(ServerError):
            close(gate)
        with pytest.raises(UGenFailure, match=close.word):
            gate.create()
        assert (status(ugen_client, gate), bought(ugen_emulator)) == ("cancelled", 1)

    def test_a_no_may_fail_the_task_and_is_not_asked_for_again(
        self, open_gate: Callable[..., Gate], ugen_client: Any
    ) -> None:
        gate = open_gate(fail_on_reject=True)
        gate.ask()
        with pytest.raises(UGenFailure, match="the keyframe was rejected"):
            gate.answer("Reject")
        assert status(ugen_client, gate) == "cancelled"


class TestCancelTask:
    def test_a_cleared_create_task_names_it(self, ugen_emulator: Any) -> None:
        dag = Dag()
        make, stop = Attempts(task_id="make", dag=dag), Attempts(task_id="stop", dag=dag)
        make.beside.append(stop)
        create = UGenCreateJobOperator(task_id="make", wait_for_completion=False, **LAMP)
        job_id = run(create, make.next())["job_id"]
        cancel = UGenCancelJobOperator(task_id="stop", job_id=job_id)
        dag.tasks += [create, cancel]
        assert run(cancel, stop.next())["status"] == "cancelled"
        with pytest.raises(UGenFailure, match=r"was cancelled \(operator\)"):
            run(create, make.next())
        assert bought(ugen_emulator) == 1

    def test_a_late_rejection_leaves_a_job_that_runs_again(
        self, ugen_client: Any, ugen_faults: Any, ugen_clock: Any
    ) -> None:
        ugen_faults.job(fail_at="generation", times=1)
        dag = Dag()
        make, stop = Attempts(task_id="make", dag=dag), Attempts(task_id="stop", dag=dag)
        make.beside.append(stop)
        create = UGenCreateJobOperator(task_id="make", wait_for_completion=False, **LAMP)
        job_id = run(create, make.next())["job_id"]
        ugen_clock.advance(3600.0)
        cancel = UGenCancelJobOperator(task_id="stop", job_id=job_id)
        dag.tasks += [create, cancel]
        assert run(cancel, stop.next())["status"] == "failed"
        ugen_client.jobs.retry(job_id)
        assert run(create, make.next())["outcome"] == "reattached"
        assert not ugen_client.jobs.get(job_id).ended


def made_again(monkeypatch: pytest.MonkeyPatch) -> str:
    """From now on the service reports another keyframe with another picture; returns its address."""
    from dataclasses import replace

    from ugen_provider.core.jobs.sync import actions

    read_keyframe, url = actions.read_keyframe, "http://127.0.0.1:1/again.png"

    def read_again(world: Any, job_id: str, **more: Any) -> Any:
        seen = read_keyframe(world, job_id, **more)
        return replace(seen, keyframe_id="again", digest="a" * 64, image_url=url)

    monkeypatch.setattr(actions, "read_keyframe", read_again)
    return url
