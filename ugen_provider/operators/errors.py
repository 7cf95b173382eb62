# SPDX-License-Identifier: Apache-2.0
"""Errors that a retry by Airflow cannot resolve, and `UGEN_RETRY_POLICY` for tasks of your own.

Each error says by `retryable` whether a later attempt can succeed; the operators read it on every version of Airflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from ugen_provider.core.api.errors import (
    APIError,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    TransportError,
    UGenError,
)
from ugen_provider.hooks.ugen import explain
from ugen_provider.version_compat import AIRFLOW_3_3_PLUS, AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context, RetryDecision, RetryPolicy
elif AIRFLOW_3_3_PLUS:
    from airflow.sdk import RetryDecision, RetryPolicy
else:
    RetryPolicy = object


class UGenFailure(AirflowFailException):
    """The task fails without a retry, since a retry would meet the same error.

    Attributes:
        error: The error, one of the tree under `UGenError`.
    """

    def __init__(self, error: UGenError, message: str | None = None) -> None:
        self.error = error
        super().__init__(message or str(error))


def is_permanent(error: UGenError) -> bool:
    """Return whether a retry of the task would meet the same error.

    Examples:
        >>> from ugen_provider.core.api.errors import ConfigError
        >>> is_permanent(ConfigError("connection 'ugen_default' has no API key"))
        True
    """
    return not error.retryable


@contextmanager
def fail_without_retry(ugen_conn_id: str) -> Iterator[None]:
    """Turn a permanent error into one that Airflow does not retry, without the stack below it.

    Args:
        ugen_conn_id: The connection, which the message names where it is to be corrected.
    """
    try:
        yield
    except UGenError as error:
        if is_permanent(error):
            raise UGenFailure(error, _message(error, conn_id=ugen_conn_id)) from None
        if isinstance(error, TransportError):
            error.add_note(f"if it persists: check the network, a proxy, and base_url of connection {ugen_conn_id!r}")
        raise


def _message(error: UGenError, *, conn_id: str) -> str:
    match error:
        case AuthenticationError() | PermissionDeniedError():
            return explain(error, conn_id=conn_id)
        case NotFoundError(path=path):
            parts = path.strip("/").split("/")
            if len(parts) > 1 and parts[0] == "jobs":
                return f"job {parts[1]} is unknown to the account of connection {conn_id!r} ({error})"
            return f"{error}; if every request is answered so, check base_url of connection {conn_id!r}"
        case _:
            return str(error)


class UGenRetryPolicy(RetryPolicy):
    """Fail at once where a retry would meet the same error, wait as long as the service says, else do as usual.

    The operators need no policy. From Airflow 3.3 on.

    Examples:
        ```python
        @task(retries=5, retry_policy=UGEN_RETRY_POLICY)
        def balance() -> int:
            with UGenHook().get_conn() as client:
                return client.credits.balance().available_credits
        ```
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Decide by the error whether a retry can help."""
        if not isinstance(exception, UGenError):
            return RetryDecision.default()
        if is_permanent(exception):
            return RetryDecision.fail(f"{type(exception).__name__}: a retry would meet the same error")
        if isinstance(exception, APIError) and exception.retry_after is not None:
            return RetryDecision.retry(timedelta(seconds=exception.retry_after), "the service says when")
        return RetryDecision.default()


if AIRFLOW_3_3_PLUS:
    UGEN_RETRY_POLICY = UGenRetryPolicy()
    """The policy, for `retry_policy=` of a task; defined from Airflow 3.3 on."""
