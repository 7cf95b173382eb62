# SPDX-License-Identifier: Apache-2.0
"""Requests and replies as values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from pydantic_core import to_json

JSON = "application/json"


@dataclass(slots=True)
class Request:
    """A request; header names in lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def params(self) -> dict[str, str]:
        """Return the query, the last value of each name."""
        return dict(parse_qsl(self.query, keep_blank_values=True)) if self.query else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What happens to an answer on its way.

    Attributes:
        reset: Nothing arrives; the connection is reset.
        first_byte: Seconds of silence before it.
        body_seconds: Seconds that the body takes.
        keep: Bytes of the body after which the connection closes.
    """

    reset: bool = False
    first_byte: float = 0.0
    body_seconds: float = 0.0
    keep: int | None = None


@dataclass(slots=True)
class Reply:
    """An answer.

    Attributes:
        status: HTTP status.
        body: Content.
        media_type: Its type.
        headers: Further headers.
        work: Computes the real reply where that takes long; the edge runs it off its loop.
        wire: What happens to it on its way; `None` if it simply arrives.
        settle: Whether it waits until every webhook that is due by now has been sent.
    """

    status: int
    body: bytes = b""
    media_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    work: "Callable[[], Reply] | None" = None
    wire: Wire | None = None
    settle: bool = False


def json_reply(status: int, data: Any, headers: dict[str, str] | None = None) -> Reply:
    """Return an answer in JSON."""
    return Reply(status, to_json(data, inf_nan_mode="null"), JSON, headers or {})
