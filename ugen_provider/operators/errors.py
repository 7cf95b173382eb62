# SPDX-License-Identifier: Apache-2.0
"""Which errors a repeat by Airflow cannot mend, and how a task says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ugen_provider.core.api.errors import (
    APIError,
    ConfigError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    LowQualityError,
    PurchaseError,
    UGenError,
)
from ugen_provider.version_compat import AirflowFailException

_HOPELESS_STATUSES = frozenset({400, 401, 402, 403, 404, 409, 422})


class UGenFailure(AirflowFailException):
    """The task fails without a retry, since a retry would meet the same.

    Attributes:
        error: What happened, as one of the tree under `UGenError`.
    """

    def __init__(self, error: UGenError) -> None:
        self.error = error
        super().__init__(str(error))


def hopeless(error: UGenError) -> bool:
    """Whether a retry of the task would meet the same.

    Examples:
        >>> hopeless(ConfigError("connection 'ugen_default' has no API key"))
        True
    """
    match error:
        case ConfigError() | InvalidRequestError() | JobCancelledError() | LowQualityError():
            return True
        case APIError():
            return error.status in _HOPELESS_STATUSES
        case JobFailedError():
            return not error.retryable
        case PurchaseError():
            return error.reason != "cancel_pending"
        case _:
            return False


@contextmanager
def failing_for_good() -> Iterator[None]:
    """Turn an error that a retry cannot mend into one that Airflow does not retry, without the stack behind it."""
    try:
        yield
    except UGenError as error:
        if hopeless(error):
            raise UGenFailure(error) from None
        raise
