# SPDX-License-Identifier: Apache-2.0
"""What happens around one request: attempts, cool-down, reading the answer. Pure flows; see `effects`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

from ugen_provider.core.api.effects import Flow, Now, Request, Response, Send, Sleep, Tick
from ugen_provider.core.api.errors import (
    APIError,
    RateLimitError,
    ResponseError,
    TransportError,
    api_error_type,
)
from ugen_provider.core.api.retries import CoolDown, RetryPolicy, ambiguous
from ugen_provider.core.api.tracing import CallSpan, call_span

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One endpoint, called: what to send, and how its JSON becomes a `T`."""

    request: Request
    read: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Caller:
    """Calls operations under one policy, with one cool-down for everything that it sends."""

    policy: RetryPolicy
    cool_down: CoolDown

    def call(self, operation: Operation[T], *, wait_when_limited: bool = True) -> Flow[T]:
        """Send the request until it is answered for good, and read the answer.

        Args:
            operation: What to call.
            wait_when_limited: Whether a 429 is waited out here, within the policy; otherwise it is raised at once, for
                a caller that can wait more cheaply.

        Raises:
            UGenError: One of the tree in `errors`.
        """
        response = yield from self.answer(operation.request, wait_when_limited=wait_when_limited)
        return _read(response, operation)

    def answer(self, request: Request, *, wait_when_limited: bool = True) -> Flow[Response]:
        """Send a request until it is answered for good, and give the answer as it came; arguments as for `call`."""
        with call_span(request) as span:
            return (yield from self._attempts(request, span, wait_when_limited=wait_when_limited))

    def _attempts(self, request: Request, span: CallSpan, *, wait_when_limited: bool) -> Flow[Response]:
        began: float = yield Tick()
        now = began
        attempt = 0
        unclear = False
        while True:
            pause = self.cool_down.remaining(now=now)
            if pause > 0:
                yield Sleep(seconds=min(pause, self.policy.retry_after_cap))
            attempt += 1
            span.sent(attempt=attempt)
            try:
                response: Response = yield Send(request=request)
            except TransportError as error:
                failure: TransportError | APIError | ResponseError = error
            else:
                span.answered(response.status)
                if 200 <= response.status < 300:
                    return response
                wall: float = yield Now()
                failure = error_of(response, request, now=wall)
                if isinstance(failure, APIError):
                    failure.after_unclear = unclear
            unclear = unclear or ambiguous(failure)
            now = yield Tick()
            delay = self.policy.delay(failure, request=request, attempt=attempt)
            if isinstance(failure, RateLimitError):
                self.cool_down.start(
                    now=now,
                    seconds=min(failure.retry_after or delay or self.policy.base, self.policy.retry_after_cap),
                )
                if not wait_when_limited:
                    raise failure
            if delay is None or now - began + delay > self.policy.total:
                raise failure
            yield Sleep(seconds=delay)
            now = yield Tick()


def request_id_of(response: Response) -> str | None:
    """The id that the service gave this request, under whichever header it stands."""
    for name in ("x-request-id", "request-id", "x-correlation-id"):
        if value := response.headers.get(name):
            return value
    return None


def error_of(response: Response, request: Request, *, now: float) -> APIError | ResponseError:
    """Read an answer that is no success as an error: either envelope, or no JSON at all.

    Args:
        response: The answer.
        request: What was asked.
        now: Seconds since the epoch, for a `Retry-After` that is a date.
    """
    request_id = request_id_of(response)
    body = _json_or_none(response.body)
    if response.status < 400:
        return ResponseError(
            "a redirect is not followed, since it could carry the key to another host; correct the base URL",
            method=request.method,
            path=request.path,
            status=response.status,
            request_id=request_id,
        )
    error = body.get("error") if isinstance(body, Mapping) else None
    fields: dict[str, str] = {}
    details: Mapping[str, Any] = {}
    code = None
    if isinstance(error, Mapping):
        message = str(error.get("message") or error.get("code") or "no message")
        code = str(error["code"]) if error.get("code") else None
        details = error["details"] if isinstance(error.get("details"), Mapping) else {}
    elif isinstance(body, Mapping) and isinstance(body.get("detail"), list):
        fields = _validation_fields(body["detail"])
        message = "; ".join(f"{name}: {why}" for name, why in fields.items()) or "the request was refused"
    elif isinstance(body, Mapping) and isinstance(body.get("detail") or body.get("message"), str):
        message = str(body.get("detail") or body.get("message"))
    else:
        message = f"no JSON in the answer ({_excerpt(response.body)!r})" if body is None else "no message"
    return api_error_type(response.status)(
        message,
        method=request.method,
        path=request.path,
        status=response.status,
        code=code,
        details=details,
        fields=fields,
        request_id=request_id,
        retry_after=_retry_after(response, body, now=now),
    )


def _validation_fields(detail: list[Any]) -> dict[str, str]:
    fields = {}
    for entry in detail:
        if isinstance(entry, Mapping):
            location = entry.get("loc")
            parts = [str(part) for part in location] if isinstance(location, list) else []
            name = ".".join(parts[1:] if parts[:1] == ["body"] else parts) or "request"
            fields[name] = str(entry.get("msg") or "refused")
    return fields


def _retry_after(response: Response, body: object, *, now: float) -> float | None:
    header = response.headers.get("retry-after")
    if header is not None:
        if (seconds := _seconds(header)) is not None:
            return seconds
        try:
            return max(0.0, parsedate_to_datetime(header).timestamp() - now)
        except (TypeError, ValueError):
            pass
    error = body.get("error") if isinstance(body, Mapping) else None
    details = error.get("details") if isinstance(error, Mapping) else None
    for place in (details, error, body):
        if isinstance(place, Mapping) and (seconds := _seconds(place.get("retry_after"))) is not None:
            return seconds
    return None


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _excerpt(body: bytes) -> str:
    return " ".join(body[:200].decode("utf-8", "replace").split())


def _read(response: Response, operation: Operation[T]) -> T:
    body: Any = None
    if response.body.strip():
        try:
            body = json.loads(response.body)
        except (ValueError, RecursionError):
            raise _unreadable(response, operation.request, "the body is not JSON") from None
    try:
        return operation.read(body)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(response, operation.request, _first_line(error)) from None


def _first_line(error: Exception) -> str:
    return f"the JSON is not what this endpoint promises ({str(error).splitlines()[0] if str(error) else error!r})"


def _unreadable(response: Response, request: Request, why: str) -> ResponseError:
    return ResponseError(
        why,
        method=request.method,
        path=request.path,
        status=response.status,
        request_id=request_id_of(response),
        excerpt=_excerpt(response.body),
    )


def at_point(operation: Operation[T], point: str) -> Operation[T]:
    """The same operation under another name for its step."""
    return replace(operation, request=replace(operation.request, point=point))
