# SPDX-License-Identifier: Apache-2.0
"""From method and path to handler. A variable part of a path is written `*`."""

from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

from ugen_provider.emulator.world.refusals import Refusal, not_found

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
            Refusal: 404 without such a path, 405 without such a method on it.
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
                    raise Refusal(
                        405, "METHOD_NOT_ALLOWED", f"{method} is not one of {allowed}", headers={"allow": allowed}
                    )
                return handler, tuple([parts[place] for place in variable])
        raise not_found("Endpoint")
