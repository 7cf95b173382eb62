# SPDX-License-Identifier: Apache-2.0
"""One OpenTelemetry span per call, all its attempts included; none where the application does not trace.

Nothing is imported for it: an application that traces has imported `opentelemetry.trace` itself by then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ugen_provider.__about__ import __version__
from ugen_provider.core.api.effects import Request
from ugen_provider.core.api.errors import APIError, UGenError


class CallSpan:
    """What a call tells its span; does nothing where there is none."""

    __slots__ = ("_span",)

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def sent(self, *, attempt: int) -> None:
        """An attempt was sent."""
        if self._span is not None and attempt > 1:
            self._span.set_attribute("http.request.resend_count", attempt - 1)

    def answered(self, status: int) -> None:
        """An answer arrived."""
        if self._span is not None:
            self._span.set_attribute("http.response.status_code", status)


@contextmanager
def call_span(request: Request) -> Iterator[CallSpan]:
    """A span around one call. Names and attributes follow the HTTP conventions; no header and no body is recorded."""
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
