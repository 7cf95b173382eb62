# SPDX-License-Identifier: Apache-2.0
"""When a request is sent again and how long to wait before, and the span of its attempts: decisions only."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ugen_provider.__about__ import __version__
from ugen_provider.core.api.endpoints import Repeat, Request
from ugen_provider.core.api.errors import (
    APIError,
    RateLimitError,
    ResponseError,
    TransportError,
    UGenError,
    may_have_bought,
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often requests are sent again, and after how long.

    Patience is a time: by default a call is repeated until `total` seconds have passed. A 429 uses no attempt.
    Only `retryable` errors lead to another attempt. After an unclear answer, such as a timeout or a 5xx, only a request
    that cannot act twice is sent again: a read, a cancel, or a create, which carries an idempotency key. 402, 404, 422
    and 409 end the call, except a 409 that says that an earlier copy of the same create is in progress.

    Args:
        attempts: Attempts in all, the first included and those that a 429 ended not; None for as many as fit into
            `total`. A connection that is never made, and a page in the place of an answer, count to four at most.
        base: Upper bound in seconds of the first random wait; it doubles with each attempt.
        cap: Upper bound in seconds of every random wait.
        retry_after_cap: Seconds; a longer `Retry-After` is not waited for here but raised, with the value on the error.
        total: Seconds for all attempts and waits of one call together.

    Examples:
        >>> RetryPolicy(attempts=1)  # never repeat
        RetryPolicy(attempts=1, base=0.5, cap=8.0, retry_after_cap=60.0, total=180.0)
    """

    attempts: int | None = None
    base: float = 0.5
    cap: float = 8.0
    retry_after_cap: float = 60.0
    total: float = 180.0

    def delay(
        self,
        error: UGenError,
        *,
        request: Request,
        attempt: int,
        fruitless: int = 0,
        draw: Callable[[], float] = random.random,
    ) -> float | None:
        """Return the seconds to wait before attempt `attempt + 1`, or None where the error is final.

        Args:
            error: The error of the last attempt.
            request: The request that was sent.
            attempt: The number of attempts so far, without those that a 429 ended.
            fruitless: How many attempts in a row ended in `is_fruitless`.
            draw: Source of jitter in [0, 1).
        """
        limited = isinstance(error, RateLimitError) and (self.attempts is None or self.attempts > 1)
        spent = self.attempts is not None and attempt >= self.attempts
        if (spent and not limited) or fruitless >= MOST_FRUITLESS or not may_repeat(error, request):
            return None
        asked = error.retry_after if isinstance(error, APIError) else None
        if asked is None:
            return draw() * min(self.cap, self.base * 2.0 ** min(10, max(0, attempt - 1)))
        return asked if asked <= self.retry_after_cap else None


MOST_FRUITLESS = 4
"""Attempts in a row after which a wrong address or a broken network is reported instead of borne."""


def is_fruitless(error: UGenError) -> bool:
    """Whether an error shows no sign of the service: the connection was never made, or a page answered."""
    never_sent = isinstance(error, TransportError) and not error.maybe_sent
    return never_sent or (isinstance(error, ResponseError) and not error.cut_short)


def may_repeat(error: UGenError, request: Request) -> bool:
    """Return whether sending the request again can help and cannot act twice."""
    return error.retryable and (request.repeat is not Repeat.UNSAFE or not may_have_bought(error))


class RateLimitPause:
    """One pause after a 429, shared by everything that one client sends.

    Examples:
        >>> pause = RateLimitPause()
        >>> pause.start(now=100.0, seconds=5.0)
        >>> pause.remaining(now=102.0)
        3.0
    """

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = 0.0

    def start(self, *, now: float, seconds: float) -> None:
        """Pause until `seconds` from now, unless a longer pause is under way."""
        self._until = max(self._until, now + seconds)

    def remaining(self, *, now: float) -> float:
        """Return the seconds still to wait."""
        return max(0.0, self._until - now)


class CallSpan:
    """The span of one call; does nothing where the application does not trace."""

    __slots__ = ("_span",)

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def sent(self, *, attempt: int) -> None:
        """Record that an attempt was sent."""
        if self._span is not None and attempt > 1:
            self._span.set_attribute("http.request.resend_count", attempt - 1)

    def answered(self, status: int) -> None:
        """Record that an answer has arrived."""
        if self._span is not None:
            self._span.set_attribute("http.response.status_code", status)


@contextmanager
def call_span(request: Request) -> Iterator[CallSpan]:
    """Open a span around one call, all its attempts included.

    Names and attributes follow OpenTelemetry's HTTP conventions; no header and no body is recorded.

    Nothing is imported for it: an application that traces has imported `opentelemetry.trace` itself by then.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        yield CallSpan()
        return
    tracer = trace.get_tracer("ugen_provider", __version__)
    span = tracer.start_span(
        f"ugen {request.point or request.method}",
        kind=trace.SpanKind.CLIENT,
        attributes={"http.request.method": request.method, "url.path": request.path},
    )
    try:
        yield CallSpan(span)
    except UGenError as error:
        span.set_attribute("error.type", type(error).__name__)
        if isinstance(error, APIError) and error.request_id:
            span.set_attribute("ugen.request_id", error.request_id)
        span.set_status(trace.Status(trace.StatusCode.ERROR))
        raise
    finally:
        span.end()
