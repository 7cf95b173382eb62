# SPDX-License-Identifier: Apache-2.0
"""Which errors a repeat by Airflow cannot mend, and how a task says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ugen_provider.core.api.errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    LowQualityError,
    NotFoundError,
    PermissionDeniedError,
    PurchaseError,
    TransportError,
    UGenError,
)
from ugen_provider.hooks.ugen import explain
from ugen_provider.version_compat import AirflowFailException

_HOPELESS_STATUSES = frozenset({400, 401, 402, 403, 404, 409, 422})


class UGenFailure(AirflowFailException):
    """The task fails without a retry, since a retry would meet the same.

    Attributes:
        error: What happened, as one of the tree under `UGenError`.
    """

    def __init__(self, error: UGenError, said: str | None = None) -> None:
        self.error = error
        super().__init__(said or str(error))


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
def failing_for_good(ugen_conn_id: str) -> Iterator[None]:
    """Turn an error that a retry cannot mend into one that Airflow does not retry, without the stack behind it.

    Args:
        ugen_conn_id: The connection, which the sentence names where it is what to mend.
    """
    try:
        yield
    except UGenError as error:
        if hopeless(error):
            raise UGenFailure(error, _in_words(error, conn_id=ugen_conn_id)) from None
        if isinstance(error, TransportError):
            error.add_note(f"if this stays so: check the network, a proxy, and base_url of connection {ugen_conn_id!r}")
        raise


def _in_words(error: UGenError, *, conn_id: str) -> str:
    match error:
        case AuthenticationError() | PermissionDeniedError():
            return explain(error, conn_id=conn_id)
        case NotFoundError(path=path):
            parts = path.strip("/").split("/")
            if len(parts) > 1 and parts[0] == "jobs":
                return f"job {parts[1]} is unknown to the account of connection {conn_id!r} ({error})"
            return f"{error}; where every request is answered so, check base_url of connection {conn_id!r}"
        case _:
            return str(error)
