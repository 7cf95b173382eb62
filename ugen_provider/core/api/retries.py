# SPDX-License-Identifier: Apache-2.0
"""When a request is sent again, and how long to wait before: decisions only."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ugen_provider.core.api.effects import Repeat, Request
from ugen_provider.core.api.errors import APIError, RateLimitError, ResponseError, TransportError, UGenError

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently requests are repeated.

    A connection that was never made is always tried again. A timeout, 408, 425, 429 and 5xx are tried again only where
    a second request cannot act twice: reads, cancels, and creates, which carry an idempotency key. 402, 404, 409 and
    422 are never tried again.

    Args:
        attempts: Attempts in all, the first included.
        base: Seconds that the first wait is drawn from; it doubles with each attempt.
        cap: Seconds above which the drawn wait never goes.
        retry_after_cap: Seconds; a longer `Retry-After` is not waited for here but raised, with the value on the error.
        total: Seconds for all attempts and waits of one call together.

    Examples:
        >>> RetryPolicy(attempts=1)  # never repeat
        RetryPolicy(attempts=1, base=0.5, cap=8.0, retry_after_cap=60.0, total=180.0)
    """

    attempts: int = 4
    base: float = 0.5
    cap: float = 8.0
    retry_after_cap: float = 60.0
    total: float = 180.0

    def delay(
        self, error: UGenError, *, request: Request, attempt: int, draw: Callable[[], float] = random.random
    ) -> float | None:
        """Seconds to wait before attempt `attempt + 1`, or None where the error stands.

        Args:
            error: What the last attempt ended with.
            request: What was sent.
            attempt: How many attempts there were.
            draw: Source of jitter in [0, 1).
        """
        if attempt >= self.attempts or not may_repeat(error, request):
            return None
        asked = error.retry_after if isinstance(error, APIError) else None
        if asked is None:
            return draw() * min(self.cap, self.base * 2.0 ** (attempt - 1))
        return asked if asked <= self.retry_after_cap else None


def may_repeat(error: UGenError, request: Request) -> bool:
    """Whether sending the request again cannot make things worse, and may help."""
    if isinstance(error, TransportError):
        return not error.maybe_sent or request.repeat is not Repeat.UNSAFE
    if isinstance(error, RateLimitError):
        return True
    if isinstance(error, APIError):
        return error.status in _PASSING and request.repeat is not Repeat.UNSAFE
    if isinstance(error, ResponseError):
        return error.status in _PASSING and request.repeat is not Repeat.UNSAFE
    return False


def ambiguous(error: UGenError) -> bool:
    """Whether the service may have acted on the request although it ended in this error."""
    if isinstance(error, TransportError):
        return error.maybe_sent
    if isinstance(error, APIError):
        return error.status >= 500 or error.status == 408
    return isinstance(error, ResponseError)


class CoolDown:
    """One pause after a 429, shared by everything that one client sends.

    Examples:
        >>> pause = CoolDown()
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
        """Seconds still to wait."""
        return max(0.0, self._until - now)
