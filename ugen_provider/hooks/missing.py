# SPDX-License-Identifier: Apache-2.0
"""A connection that was not found: there is none, or nobody could look."""

from __future__ import annotations

from ugen_provider.core.api.errors import ConfigError, UGenError


class ConnectionUnreadableError(UGenError):
    """Airflow could not look for a connection, as while its own database restarts; a retry of the task may."""


def not_found(conn_id: str, *, advice: str) -> UGenError:
    """What to raise where Airflow says that a connection is not defined.

    A task is told so as well where Airflow's API server could not look, and a task that fails for good by that would
    need a person once the server can.

    Args:
        conn_id: The connection.
        advice: What a person does where there is none.
    """
    if _is_surely_missing(conn_id):
        return ConfigError(f"connection {conn_id!r} is not defined: {advice}")
    return ConnectionUnreadableError(f"connection {conn_id!r} could not be read: Airflow's API server gave no answer")


def _is_surely_missing(conn_id: str) -> bool:
    try:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection

        ask = task_runner.SUPERVISOR_COMMS.send
    except (ImportError, AttributeError):  # no task: whoever looked did so himself
        return True
    try:
        answer = ask(GetConnection(conn_id=conn_id))
    except Exception:  # noqa: BLE001  whatever it is, it is no answer
        return False
    return isinstance(answer, ErrorResponse) and answer.error is ErrorType.CONNECTION_NOT_FOUND
