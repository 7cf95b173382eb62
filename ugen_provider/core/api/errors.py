# SPDX-License-Identifier: Apache-2.0
"""The one tree of errors. Imports neither httpx nor pydantic, so that catching an error costs nothing.

Every error pickles, since orchestrators carry exceptions over process borders; none holds a key, a header or a body
that was sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ugen_provider.core.api.models import Job
    from ugen_provider.core.api.rules import Violation


def _rebuild(kind: type[UGenError], args: tuple[object, ...], state: dict[str, Any]) -> UGenError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class UGenError(Exception):
    """The root of everything that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by state: subclasses take keyword-only arguments, which the default cannot pass."""
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class ConfigError(UGenError, ValueError):
    """A setting is missing or wrong; nothing was sent. The message names the setting and where it may come from."""


class InvalidRequestError(UGenError):
    """The request breaks a documented rule, found before anything was sent.

    No `ValueError`: pydantic would swallow one that is raised inside a model and wrap it in its own words.

    Args:
        violations: What is wrong, one entry per field and rule.
    """

    violations: tuple[Violation, ...]

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(str(violation) for violation in self.violations))


class TransportError(UGenError):
    """No answer arrived.

    Args:
        message: What went wrong.
        method: The HTTP method.
        path: The path, without host.
        maybe_sent: Whether the service may have acted on the request all the same.
    """

    def __init__(self, message: str, *, method: str, path: str, maybe_sent: bool) -> None:
        self.method = method
        self.path = path
        self.maybe_sent = maybe_sent
        super().__init__(f"{method} {path}: {message}")


class TransportTimeoutError(TransportError, TimeoutError):
    """No answer arrived in time."""


class ResponseError(UGenError):
    """An answer arrived that cannot be read as what the API promises (a proxy's page, broken JSON, a redirect)."""

    def __init__(
        self,
        message: str,
        *,
        method: str,
        path: str,
        status: int,
        request_id: str | None = None,
        excerpt: str = "",
    ) -> None:
        self.method = method
        self.path = path
        self.status = status
        self.request_id = request_id
        self.excerpt = excerpt
        shown = f": {excerpt!r}" if excerpt else ""
        super().__init__(f"{method} {path} answered {status}: {message}{shown}{_with_id(request_id)}")


class APIError(UGenError):
    """The service refused the request.

    Attributes:
        status: The HTTP status.
        code: The service's own word for it, opaque except for `INSUFFICIENT_CREDITS`.
        message: The service's sentence.
        details: The service's details.
        fields: For 422, what it says of each field, by dotted name.
        request_id: The id to quote to U-Gen's support.
        retry_after: Seconds that the service asks to wait, from any of the places in which it may stand.
        after_unclear: Whether an earlier attempt of the same call may have been acted on, its answer being lost.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str,
        path: str,
        status: int,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        fields: Mapping[str, str] | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.message = message
        self.method = method
        self.path = path
        self.status = status
        self.code = code
        self.details = dict(details or {})
        self.fields = dict(fields or {})
        self.request_id = request_id
        self.retry_after = retry_after
        self.after_unclear = False
        named = f" {code}" if code else ""
        super().__init__(f"{method} {path} answered {status}{named}: {message}{_with_id(request_id)}")


class BadRequestError(APIError):
    """400: the service could not use what was sent."""


class AuthenticationError(APIError):
    """401: the key is wrong, revoked or missing."""


class InsufficientCreditsError(APIError):
    """402: the account has too few credits available. Never retried.

    Attributes:
        required: Credits that the job needs, where the service says so.
        available: Credits that the account has free, where the service says so.
    """

    @property
    def required(self) -> int | None:
        """Credits that the job needs, where the service says so."""
        return _whole(self.details.get("required"))

    @property
    def available(self) -> int | None:
        """Credits that the account has free, where the service says so."""
        return _whole(self.details.get("available"))


class PermissionDeniedError(APIError):
    """403: the key may not do this."""


class NotFoundError(APIError):
    """404: no such thing in this account."""


class ConflictError(APIError):
    """409: the state of the job, or an earlier use of the idempotency key, forbids it. Never retried."""


class RequestValidationError(APIError):
    """422: the service refused fields of the request; `fields` says which and why. Never retried."""


class RateLimitError(APIError):
    """429: too many requests, or the account's limit of concurrent or daily jobs is reached."""


class ServerError(APIError):
    """5xx: the service, or the gateway before it, failed."""


_BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: RequestValidationError,
    429: RateLimitError,
}


def api_error_type(status: int) -> type[APIError]:
    """The class for a status: its own where it has one, else `ServerError` from 500 on and `APIError` below."""
    return _BY_STATUS.get(status, ServerError if status >= 500 else APIError)


class JobError(UGenError):
    """Something about one job.

    Attributes:
        job_id: The job.
        job: The job as it was last seen, where it was seen.
    """

    def __init__(self, message: str, *, job_id: str, job: Job | None = None) -> None:
        self.job_id = job_id
        self.job = job
        super().__init__(message)


class JobFailedError(JobError):
    """The job ended as failed, or ended without what was ordered. Its reservation is released by the service.

    Attributes:
        retryable: Whether repeating the same request can mend it; false for moderation and validation.
    """

    def __init__(self, message: str, *, job_id: str, job: Job | None = None, retryable: bool = True) -> None:
        self.retryable = retryable
        super().__init__(message, job_id=job_id, job=job)


class JobCancelledError(JobError):
    """The job was cancelled."""


class JobPausedError(JobError):
    """The job is paused, and nobody here asked for that."""


class JobTimeoutError(JobError, TimeoutError):
    """The deadline passed. The job was left as it is; whoever asks next attaches to it."""


class LowQualityError(JobError):
    """The job completed below the score that was asked for, and `on_low_quality` is `fail`."""


class PurchaseError(UGenError):
    """The money protocol refuses to go on, since going on could pay twice, or because it was told not to spend.

    Attributes:
        scope: The order's scope, as written into the intent.
        reason: A stable word for programs, such as `cancelled_by_somebody`.
        job_id: The job in question, where there is one.
    """

    def __init__(self, message: str, *, scope: str, reason: str, job_id: str | None = None) -> None:
        self.scope = scope
        self.reason = reason
        self.job_id = job_id
        super().__init__(message)


class WebhookError(UGenError, ValueError):
    """A delivery is not to be believed."""


class SignatureMismatchError(WebhookError):
    """No signature of the delivery matches any of the secrets."""


class TimestampToleranceError(WebhookError):
    """The delivery is older, or newer, than the tolerance allows."""


class MalformedWebhookError(WebhookError):
    """A header is missing or unreadable, or the body is too large or no such JSON."""


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _with_id(request_id: str | None) -> str:
    return f" (request {request_id})" if request_id else ""
