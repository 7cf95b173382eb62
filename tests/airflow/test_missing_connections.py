# SPDX-License-Identifier: Apache-2.0
"""Airflow reports a connection as not defined also where its API server could not look it up, as while its database
restarts: a missing connection fails the task for good, one that could not be looked up does not."""

from __future__ import annotations

from typing import Any

import pytest

from ugen_provider.core.api.errors import ConfigError, UGenError
from ugen_provider.hooks.ugen import ConnectionUnreadableError, UGenHook, ledger_address
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.operators.jobs import UGenCreateJobOperator
from ugen_provider.version_compat import AIRFLOW_3_1_PLUS, AirflowFailException

pytestmark = pytest.mark.skipif(not AIRFLOW_3_1_PLUS, reason="a task of Airflow 3.0 asks in another way")
ASKED = [
    pytest.param(lambda: UGenHook("nowhere").config, id="ugen"),
    pytest.param(lambda: ledger_address("nowhere"), id="ledger"),
]


class Supervisor:
    """The receiver of a task's questions; it answers as the test says."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def send(self, asked: Any) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Any:
    from airflow.sdk.execution_time import task_runner

    def set_answer(answer: Any) -> None:
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(answer), raising=False)

    return set_answer


def error(kind: str) -> Any:
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    return ErrorResponse(error=ErrorType[kind], detail={"conn_id": "nowhere"})


def no_answer() -> Exception:
    from airflow.sdk.exceptions import AirflowRuntimeError

    return AirflowRuntimeError(error("API_SERVER_ERROR"))


def refused() -> Any:
    return error("GENERIC_ERROR")


@pytest.mark.parametrize("ask", ASKED)
def test_a_missing_connection_is_reported_as_missing(answers: Any, ask: Any) -> None:
    answers(error("CONNECTION_NOT_FOUND"))
    with pytest.raises(ConfigError, match="connection 'nowhere' is not defined: add it "):
        ask()


@pytest.mark.parametrize("answer", [no_answer, refused])
@pytest.mark.parametrize("ask", ASKED)
def test_an_unreadable_connection_is_reported_as_unreadable(answers: Any, ask: Any, answer: Any) -> None:
    answers(answer())
    with pytest.raises(ConnectionUnreadableError, match="connection 'nowhere' could not be read"):
        ask()


def test_a_task_fails_for_good_only_without_its_connection(answers: Any, attempts: Any) -> None:
    order = {"product_name": "Lamp", "product_image_url": "https://shop.example/l.png", "segment_count": 1}
    task = UGenCreateJobOperator(task_id="job", ugen_conn_id="nowhere", **order)
    answers(error("CONNECTION_NOT_FOUND"))
    with pytest.raises(UGenFailure):
        task.execute(attempts.next())
    answers(no_answer())
    with pytest.raises(UGenError) as caught:
        task.execute(attempts.next())
    assert not isinstance(caught.value, AirflowFailException)
