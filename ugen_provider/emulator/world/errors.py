# SPDX-License-Identifier: Apache-2.0
"""How the service says no. The codes are our own, except `INSUFFICIENT_CREDITS`, which is documented."""

from collections.abc import Mapping
from typing import Any


class ErrorReply(Exception):  # noqa: N818 - it is an answer, not a defect
    """An answer in the error envelope.

    Args:
        status: HTTP status.
        code: Machine-readable word.
        message: What a person reads.
        details: The envelope's `details`.
        retry_after: Seconds after which to ask again, where waiting helps.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details = dict(details) if details else None
        self.retry_after = retry_after
        self.headers = dict(headers or {})


class Invalid(Exception):  # noqa: N818 - it is an answer, not a defect
    """A 422 in the validation envelope.

    Args:
        errors: Each with `type`, `loc`, `msg` and `input`.
    """

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__("; ".join(str(error.get("msg")) for error in errors))
        self.errors = errors

    @classmethod
    def one(cls, kind: str, loc: tuple[str | int, ...], message: str, value: Any) -> "Invalid":
        """Return a refusal of a single value."""
        return cls([{"type": kind, "loc": list(loc), "msg": message, "input": value}])


def conflict(message: str) -> ErrorReply:
    """Return a 409 for something that the job's state does not allow."""
    return ErrorReply(409, "CONFLICT", message)


def not_found(what: str) -> ErrorReply:
    """Return a 404 that names what was looked for."""
    return ErrorReply(404, "NOT_FOUND", f"{what} not found")
