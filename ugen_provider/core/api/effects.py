# SPDX-License-Identifier: Apache-2.0
"""What a flow may ask of the world. A flow is a generator that yields effects; a driver performs them.

The flow holds every decision, so the sync and the async client, the deferred and the blocking path share it. Since
each contact with the world is a named value, a test can stop a flow before or after any of them.

Examples:
    >>> def ask() -> Flow[int]:
    ...     yield Sleep(seconds=2.0)
    ...     response = yield Send(request=Request(method="GET", path="/jobs/1"))
    ...     return response.status
    >>> flow = ask()
    >>> next(flow)
    Sleep(seconds=2.0)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


class Repeat(Enum):
    """When a request may be sent again without an answer to the first."""

    SAFE = "safe"
    """It changes nothing, or changes it to the same end."""
    KEYED = "keyed"
    """It carries an idempotency key, so that the service answers a second one with the first's result."""
    UNSAFE = "unsafe"
    """A second one may act a second time; what happened has to be looked at first."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a multipart request."""

    name: str
    content: bytes = field(repr=False)
    content_type: str


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, without host and without key; the driver adds both."""

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    upload: Upload | None = None
    form: tuple[tuple[str, str], ...] = ()
    repeat: Repeat = Repeat.SAFE
    point: str = ""
    """The name of this step, for logs and for tests that stop a flow there."""


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer: header names in lower case, the body whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request. Answered with a `Response`; a `TransportError` is thrown into the flow."""

    request: Request


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait. Answered with nothing."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Now:
    """The time of day. Answered with seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A clock that is never set back, for durations inside one process. Answered with seconds."""


@dataclass(frozen=True, slots=True)
class Perform:
    """Call something that blocks, such as a store. Answered with what it returns; the async driver uses a thread."""

    point: str
    call: Callable[[], Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Await:
    """Await something, such as a watcher. Only the async driver can perform it."""

    point: str
    call: Callable[[], Awaitable[Any]] = field(repr=False)


Effect = Send | Sleep | Now | Tick | Perform | Await
Flow = Generator[Effect, Any, T]
"""A generator of effects that returns a `T`."""


def passed_on(flow: Flow[T], *, by: Callable[[Effect], Flow[Any]]) -> Flow[T]:
    """A flow of which each effect goes through other hands, to be counted, noted or refused.

    Args:
        flow: Whose effects.
        by: Yields the effect that it is given, or does not, and returns the answer; what it raises is raised in the
            flow, which decides what it means.
    """
    answer: Any = None
    error: Exception | None = None
    try:
        while True:
            try:
                effect = flow.throw(error) if error is not None else flow.send(answer)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            error = None
            try:
                answer = yield from by(effect)
            except Exception as thrown:  # noqa: BLE001  the flow decides what an error means
                error = thrown
    finally:
        flow.close()
