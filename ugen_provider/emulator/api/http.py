# SPDX-License-Identifier: Apache-2.0
"""Requests and replies as values."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlencode

from pydantic_core import to_json

from ugen_provider.emulator.api import bodies
from ugen_provider.emulator.world.accounts import Tenant
from ugen_provider.emulator.world.errors import ErrorReply, Invalid, not_found
from ugen_provider.emulator.world.faults import Fault
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.world import World

JSON = "application/json"


@dataclass(slots=True)
class HttpRequest:
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
    """Faults of an answer on its way.

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
    """An answer of the emulator to one request.

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


def refused(refusal: ErrorReply, readings: Readings) -> Reply:
    """Return a refusal in the error envelope, `retry_after` where the readings put it."""
    status, code = refusal.status, refusal.code
    if status == 404 and readings.not_found == "detail":
        return json_reply(404, {"detail": refusal.message})
    if status == 404 and readings.not_found == "forbidden":
        status, code = 403, "FORBIDDEN"
    error: dict[str, Any] = {"code": code, "message": refusal.message}
    details = dict(refusal.details or {})
    body: dict[str, Any] = {"error": error}
    headers = dict(refusal.headers)
    if refusal.retry_after is not None:
        place = readings.retry_after
        if place.startswith("header"):
            headers["retry-after"] = str(refusal.retry_after)
        if place.endswith("details"):
            details["retry_after"] = refusal.retry_after
        if place == "error":
            error["retry_after"] = refusal.retry_after
        if place == "top":
            body["retry_after"] = refusal.retry_after
    if details:
        error["details"] = details
    return json_reply(status, body, headers)


def invalid(problem: Invalid) -> Reply:
    """Return a 422 in the validation envelope."""
    return json_reply(422, {"detail": problem.errors})


_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"
_WORDS = {429: "TOO_MANY_REQUESTS", 500: "INTERNAL_ERROR", 502: "BAD_GATEWAY", 503: "UNAVAILABLE", 504: "TIMEOUT"}


def spoil(reply: Reply, fault: Fault, readings: Readings) -> Reply:
    """Return what the client gets in the place of `reply`."""
    if reply.work is not None and not fault.instead:
        work = reply.work
        return dataclasses.replace(reply, work=lambda: spoil(work(), fault, readings))
    match fault.kind:
        case "status":
            wait = None if fault.retry_after is None else int(fault.retry_after)
            code = fault.code or _WORDS.get(fault.status, f"ERROR_{fault.status}")
            return refused(ErrorReply(fault.status, code, "A fault of the emulator", retry_after=wait), readings)
        case "expired":
            return refused(ErrorReply(403, "URL_EXPIRED", "This URL has expired"), readings)
        case "reset" | "lost":
            return dataclasses.replace(reply, wire=Wire(reset=True))
        case "slow":
            return dataclasses.replace(reply, wire=Wire(first_byte=fault.seconds))
        case "slow_body":
            return dataclasses.replace(reply, wire=Wire(body_seconds=fault.seconds))
        case "truncate":
            # At least the last byte is missing, or it would not be truncated.
            kept = min(int(len(reply.body) * fault.keep), max(0, len(reply.body) - 1))
            return dataclasses.replace(reply, wire=Wire(keep=kept))
        case "cut_short":
            return dataclasses.replace(reply, body=reply.body[: int(len(reply.body) * fault.keep)])
        case "malformed":
            return Reply(200, b'{"job_id": "550e8400-e29b-41d4-a716-446655440000", "status": "comp')
        case "bad_gateway":
            return Reply(502, _PAGE, "text/html")
        case "wrong_type":
            return Reply(200, _PAGE.replace(b"502 Bad Gateway", b"One moment"), "text/html")
        case _:
            return reply


def nothing_done() -> Reply:
    """Return the reply to a request that took no effect, before it is spoiled."""
    return Reply(503)


B = TypeVar("B", bound=bodies.Body)
T = TypeVar("T")
MOST = 1_000_000_000


@dataclass(slots=True)
class Call:
    """A request on its way to a handler.

    Attributes:
        world: The service's state.
        request: What came in.
        tenant: Who asks.
        args: The variable parts of the path.
        now: The time.
        shift: By how many items lists have moved since their first page was read, by a fault.
    """

    world: World
    request: HttpRequest
    tenant: Tenant
    args: tuple[str, ...]
    now: float
    shift: int = 0

    @property
    def readings(self) -> Readings:
        """Switches that decide the form of answers."""
        return self.world.readings

    def body(self, model: type[B]) -> B:
        """Read and check the JSON body.

        Raises:
            Invalid: It breaks a rule.
        """
        return bodies.parse(model, bodies.parse_json(self.request.body), self.readings)

    def optional_body(self, model: type[B]) -> B:
        """Read a body that may be missing."""
        data = bodies.parse_json(self.request.body) if self.request.body.strip() else {}
        return bodies.parse(model, {} if data is None else data, self.readings)


Handler = Callable[[Call], Reply]


def whole_number(params: dict[str, str], name: str, *, default: int, least: int, most: int) -> int:
    """Read a number from the query.

    Raises:
        Invalid: It is none, or out of bounds.
    """
    text = params.get(name)
    if text is None:
        return default
    try:
        value = int(text) if len(text) <= 20 else MOST + 1
    except ValueError:
        raise Invalid.one(
            "int_parsing",
            ("query", name),
            "Input should be a valid integer, unable to parse string as an integer",
            text,
        ) from None
    if value < least:
        raise Invalid.one(
            "greater_than_equal", ("query", name), f"Input should be greater than or equal to {least}", text
        )
    if value > most:
        raise Invalid.one("less_than_equal", ("query", name), f"Input should be less than or equal to {most}", text)
    return value


def page_of(call: Call) -> tuple[int, int]:
    """Return the page and page size that are asked for.

    Raises:
        Invalid: A page below 1, or a size that the readings refuse.
    """
    params = call.request.params()
    page = whole_number(params, "page", default=1, least=1, most=MOST)
    clamp = call.readings.page_size_over == "clamp"
    size = whole_number(params, "page_size", default=20, least=1, most=MOST if clamp else 100)
    if (cursor := params.get("cursor", "")).startswith("page-") and cursor[5:].isdigit():
        page = int(cursor[5:])
    return page, min(size, call.readings.page_most)


def window(items: Sequence[T], page: int, size: int, *, newest_first: bool, shift: int = 0) -> list[T]:
    """Return a page of items that are sorted oldest first.

    Args:
        items: All of them.
        page: From 1.
        size: Items a page.
        newest_first: Whether to read them backwards.
        shift: By how many items the list has moved since the first page was read.
    """
    begin = max(0, (page - 1) * size + (shift if page > 1 else 0))
    if not newest_first:
        return list(items[begin : begin + size])
    end = len(items) - begin
    return list(items[max(0, end - size) : end])[::-1] if end > 0 else []


def page_json(call: Call, rows: list[bytes], *, total: int, page: int, size: int) -> Reply:
    """Return a page of items that are rendered already."""
    content = b"[" + b",".join(rows) + b"]"
    if call.readings.list_shape == "array":
        return Reply(200, content)
    pages = -(-total // size)
    end = call.readings.list_end
    if end != "total":
        return Reply(200, b'{"items":' + content + _onward(call, end, page=page, pages=pages) + b"}")
    tail = f',"total":{total},"page":{page},"page_size":{size},"total_pages":{pages}}}'
    return Reply(200, b'{"items":' + content + tail.encode())


def _onward(call: Call, end: str, *, page: int, pages: int) -> bytes:
    """Return the fields by which a service shows that a list goes on, or that it ends."""
    more = page < pages
    if end == "has_more":
        return b',"has_more":' + to_json(more)
    cursor = f"page-{page + 1}"
    if end == "next_page":
        return b',"next_page":' + to_json(page + 1 if more else None)
    if end == "next_cursor":
        return b',"next_cursor":' + to_json(cursor if more else None)
    query = urlencode({**call.request.params(), "cursor": cursor})
    return b',"next":' + to_json(f"{call.world.base_url}{call.request.path}?{query}" if more else None)


def plain(data: Any) -> Any:
    """Return a body's fields without those that are null."""
    return {name: value for name, value in data.items() if value is not None}


H = TypeVar("H")


class _Entry(NamedTuple, Generic[H]):
    """A path: its fixed parts with their places, the places of its variable parts, and a handler by method."""

    fixed: tuple[tuple[int, str], ...]
    variable: tuple[int, ...]
    methods: dict[str, H]


class Router(Generic[H]):
    """Routes by length and first part, so that looking one up costs little however many there are.

    Args:
        routes: `"GET /jobs/*"` to handler.
    """

    def __init__(self, routes: Mapping[str, H]) -> None:
        methods: dict[tuple[str, ...], dict[str, H]] = {}
        for route, handler in routes.items():
            method, _, path = route.partition(" ")
            methods.setdefault(tuple(path.strip("/").split("/")), {})[method] = handler
        self._entries: dict[tuple[int, str], list[_Entry[H]]] = {}
        # Paths without a variable part win.
        for pattern in sorted(methods, key=lambda parts: parts.count("*")):
            places = range(1, len(pattern))
            entry = _Entry(
                tuple((place, pattern[place]) for place in places if pattern[place] != "*"),
                tuple(place for place in places if pattern[place] == "*"),
                methods[pattern],
            )
            self._entries.setdefault((len(pattern), pattern[0]), []).append(entry)

    def find(self, method: str, path: str) -> tuple[H, tuple[str, ...]]:
        """Return the handler and the variable parts.

        Raises:
            ErrorReply: 404 without such a path, 405 without such a method on it.
        """
        parts = path.strip("/").split("/")
        for fixed, variable, methods in self._entries.get((len(parts), parts[0]), ()):
            for place, wanted in fixed:
                if parts[place] != wanted:
                    break
            else:
                handler = methods.get(method)
                if handler is None:
                    allowed = ", ".join(methods)
                    raise ErrorReply(
                        405, "METHOD_NOT_ALLOWED", f"{method} is not one of {allowed}", headers={"allow": allowed}
                    )
                return handler, tuple([parts[place] for place in variable])
        raise not_found("Endpoint")
