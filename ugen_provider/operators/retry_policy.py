# SPDX-License-Identifier: Apache-2.0
"""`UGEN_RETRY_POLICY`, for tasks of your own that use the client, on Airflow from 3.3 on.

The operators need none: they fail without a retry where a retry would meet the same, on every version.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import RetryDecision, RetryPolicy

from ugen_provider.core.api.errors import APIError, UGenError
from ugen_provider.operators.errors import hopeless

if TYPE_CHECKING:
    from airflow.sdk import Context


class UGenRetryPolicy(RetryPolicy):
    """Fails at once where a retry would meet the same, waits as long as the service says, and else does as ever.

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
        """Decide by the kind of the error."""
        if not isinstance(exception, UGenError):
            return RetryDecision.default()
        if hopeless(exception):
            return RetryDecision.fail(f"{type(exception).__name__}: a retry would meet the same")
        if isinstance(exception, APIError) and exception.retry_after is not None:
            return RetryDecision.retry(timedelta(seconds=exception.retry_after), "the service says when")
        return RetryDecision.default()


UGEN_RETRY_POLICY = UGenRetryPolicy()
