# SPDX-License-Identifier: Apache-2.0
"""What a handler gets, and the few readers that all handlers share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ugen_provider.emulator.api import bodies
from ugen_provider.emulator.api.http import Reply, Request
from ugen_provider.emulator.world.accounts import Tenant
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.refusals import Invalid
from ugen_provider.emulator.world.world import World

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
    request: Request
    tenant: Tenant
    args: tuple[str, ...]
    now: float
    shift: int = 0

    @property
    def readings(self) -> Readings:
        """The switches."""
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
    return page, min(size, 100)


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
    tail = f',"total":{total},"page":{page},"page_size":{size},"total_pages":{pages}}}'
    return Reply(200, b'{"items":' + content + tail.encode())


def plain(data: Any) -> Any:
    """Return a body's fields without those that are null."""
    return {name: value for name, value in data.items() if value is not None}
