# SPDX-License-Identifier: Apache-2.0
"""The tree of errors; those about one job are in `polling`. Imports neither httpx nor pydantic.

One predicate, `may_have_bought`, decides everywhere whether a create, retry or resume may have taken effect although
it ended in an error. Where it is in doubt the answer is yes: to search for a job costs nothing, a second job does.

Every error pickles, since orchestrators pass exceptions between processes; none holds the API key, a header or a body
that was sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ugen_provider.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ugen_provider.core.api.rules import Violation


def _rebuild(kind: type[UGenError], args: tuple[object, ...], state: dict[str, Any]) -> UGenError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class UGenError(Exception):
    """The base of all errors that this package raises.

    Attributes:
        retryable: Whether the same call can succeed later without a change by a person. Set where the error is made;
            Airflow, Dagster, feed runs, downloads and the command line read it.
        request_id: The id to quote to U-Gen's support, where an answer named one.
        body: The service's own answer as text, shortened and without secrets; empty where there was none.
        idempotency_key: The key of the create that failed, None for every other call.
        after_unclear: Whether an earlier attempt of the same call may have bought, its answer being lost.
    """

    retryable: bool = False
    request_id: str | None = None
    body: str = ""
    idempotency_key: str | None = None
    after_unclear: bool = False

    def __str__(self) -> str:
        """Return the message on one line: it may quote a service or a feed, and goes to logs and terminals."""
        return one_line(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by state: subclasses take keyword-only arguments, which the default cannot pass."""
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class ConfigError(UGenError, ValueError):
    """A setting is missing or wrong; nothing was sent. The message names the setting and where it may come from."""


class EmulatorClockError(UGenError):
    """A wait for an emulator whose clock is stopped, so that nothing can happen.

    Args:
        seconds: Seconds that were waited.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the emulator's clock is stopped, and {seconds:.0f} s were waited for it: let each request move it with "
            "ugen_clock.tick(60) or --tick 60, let it run with ugen_clock.run(60) or --speed 60, or advance it from "
            "another thread"
        )


class InvalidRequestError(UGenError):
    """The request breaks a documented rule, found before anything was sent.

    No `ValueError`: pydantic would wrap one that is raised inside a model in its own error.

    Args:
        violations: One entry per field and broken rule.
    """

    violations: tuple[Violation, ...]

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(str(violation) for violation in self.violations))


class TransportError(UGenError):
    """No answer arrived. A later call can succeed.

    Args:
        message: The reason.
        method: The HTTP method.
        path: The path, without host.
        maybe_sent: Whether the service may have acted on the request all the same.
    """

    retryable = True

    def __init__(self, message: str, *, method: str, path: str, maybe_sent: bool) -> None:
        self.method = method
        self.path = path
        self.maybe_sent = maybe_sent
        super().__init__(f"{method} {path}: {message}")


class TransportTimeoutError(TransportError, TimeoutError):
    """No answer arrived in time."""


class ResponseError(UGenError):
    """An answer arrived that cannot be read as what the API promises.

    Such as a proxy's page, broken JSON, a redirect, an answer about another job, or a list whose end is not proven.

    Args:
        message: The fault in the answer.
        method: The HTTP method.
        path: The path, without host.
        status: The HTTP status.
        request_id: The id of the request, where the answer named one.
        excerpt: The beginning of the answer.
        body: More of the answer, without secrets.
        retryable: Whether the same call can succeed later; by default unless it is a redirect.
        cut_short: Whether the answer is empty or ends in the middle, which passes by itself.
        wrong_subject: Whether the answer is about another job or order.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str,
        path: str,
        status: int,
        request_id: str | None = None,
        excerpt: str = "",
        body: str = "",
        retryable: bool | None = None,
        cut_short: bool = False,
        wrong_subject: bool = False,
    ) -> None:
        self.method = method
        self.path = path
        self.status = status
        self.cut_short = cut_short
        self.wrong_subject = wrong_subject
        self.request_id = request_id
        self.excerpt = excerpt
        self.body = body
        self.retryable = not 300 <= status < 400 if retryable is None else retryable
        shown = f": {excerpt!r}" if excerpt else ""
        super().__init__(f"{method} {path} answered {status}: {message}{shown}{_with_id(request_id)}")


_PASSING = frozenset({408, 425, 429, 460, 499})
"""Statuses below 500 that pass by themselves: time was up on either side, too early, too many requests."""


class APIError(UGenError):
    """The service refused the request.

    Attributes:
        status: The HTTP status.
        code: The service's own word for it, opaque except for `INSUFFICIENT_CREDITS`.
        message: The service's sentence.
        details: The service's details.
        fields: For 422, what it says of each field, by dotted name.
        retry_after: Seconds that the service asks to wait, from any of the fields in which it may send it.
        own_form: Whether the body is the service's own error form; False for the page of a gateway or proxy.
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
        own_form: bool = False,
        body: str = "",
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
        self.own_form = own_form
        self.body = body
        self.retryable = status >= 500 or status in _PASSING
        named = f" {code}" if code else ""
        super().__init__(f"{method} {path} answered {status}{named}: {message}{_with_id(request_id)}")


class BadRequestError(APIError):
    """400: the service could not read the request."""


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
    """404: no such thing in this account. Only one in the service's `own_form` says that a job was deleted."""


class ConflictError(APIError):
    """409: the state of the job, or an earlier use of the idempotency key, forbids it.

    Also a 400 or 422 that says that the idempotency key of a create was used already.

    Attributes:
        in_flight: Whether the service is still working on an earlier request with the same idempotency key, so that
            the same request can be answered later.
    """

    in_flight: bool = False


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
    """Return the class for a status: its own where it has one, else `ServerError` from 500 on and `APIError` below."""
    return _BY_STATUS.get(status, ServerError if status >= 500 else APIError)


PASSING_REASONS = frozenset({"cancel_pending", "in_flight", "job_not_found", "key_conflict", "undecidable"})
"""Reasons of a `PurchaseError` that a later attempt can find resolved, without paying twice."""


class PurchaseError(UGenError):
    """The purchase protocol stops, since continuing could pay twice or the settings forbid spending.

    Attributes:
        scope: The order's scope, as written into the intent.
        reason: A stable word for programs, such as `cancelled_by_somebody`.
        job_id: The job in question, where there is one.
        retryable: Whether a later attempt can succeed; by default for the reasons in `PASSING_REASONS`.
    """

    def __init__(
        self, message: str, *, scope: str, reason: str, job_id: str | None = None, retryable: bool | None = None
    ) -> None:
        self.scope = scope
        self.reason = reason
        self.job_id = job_id
        self.retryable = reason in PASSING_REASONS if retryable is None else retryable
        super().__init__(message)


class WebhookError(UGenError, ValueError):
    """A delivery is not authentic, or cannot be read."""


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


_UNCLEAR = frozenset({303, 408, 409, 425, 460, 499})
"""Statuses below 500 after which the request may have taken effect.

303 points to a result. 408, 460 and 499 are written by gateways that gave up, or whose client did, after they may have
forwarded the request. 425 and 409 can be about an earlier copy of the same request.
"""


def may_have_bought(error: UGenError) -> bool:
    """Return whether the request that ended in this error may have taken effect at the service.

    A refusal after an unclear answer to the same call is still unclear: the earlier copy may have bought.

    Returns:
        False only where the service or the network proves that nothing was done; also for errors that no request
        ended in, such as a wrong setting.

    Examples:
        >>> may_have_bought(TransportError("timed out", method="POST", path="/jobs", maybe_sent=True))
        True
        >>> may_have_bought(APIError("no such plan", method="POST", path="/jobs", status=403))
        False
    """
    if error.after_unclear or isinstance(error, ConflictError):
        return True
    if isinstance(error, TransportError):
        return error.maybe_sent
    if isinstance(error, APIError | ResponseError):
        return status_may_have_bought(error.status)
    return False


def status_may_have_bought(status: int) -> bool:
    """Return whether a request with an answer of this status and without a readable result may have taken effect.

    Examples:
        >>> [status_may_have_bought(status) for status in (302, 303, 402, 408, 429, 502)]
        [False, True, False, True, False, True]
    """
    return status in _UNCLEAR or not 300 <= status < 500
