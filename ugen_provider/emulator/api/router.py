# SPDX-License-Identifier: Apache-2.0
"""From method and path to handler. A variable part of a path is written `*`."""

from collections.abc import Mapping
from typing import Generic, TypeVar

from ugen_provider.emulator.world.refusals import Refusal, not_found

H = TypeVar("H")


class Router(Generic[H]):
    """Routes as a tree of path parts, so that looking one up costs the same however many there are.

    Args:
        routes: `"GET /jobs/*"` to handler.
    """

    def __init__(self, routes: Mapping[str, H]) -> None:
        self._methods: dict[tuple[str, ...], dict[str, H]] = {}
        for route, handler in routes.items():
            method, _, path = route.partition(" ")
            self._methods.setdefault(tuple(path.strip("/").split("/")), {})[method] = handler
        # By length and first part; patterns without a variable part win.
        self._candidates: dict[tuple[int, str], list[tuple[str, ...]]] = {}
        for pattern in sorted(self._methods, key=lambda parts: parts.count("*")):
            self._candidates.setdefault((len(pattern), pattern[0]), []).append(pattern)

    def find(self, method: str, path: str) -> tuple[H, tuple[str, ...]]:
        """Return the handler and the variable parts.

        Raises:
            Refusal: 404 without such a path, 405 without such a method on it.
        """
        parts = path.strip("/").split("/")
        for pattern in self._candidates.get((len(parts), parts[0]), ()):
            if all(want in ("*", part) for want, part in zip(pattern, parts, strict=True)):
                methods = self._methods[pattern]
                if method not in methods:
                    allowed = ", ".join(methods)
                    raise Refusal(
                        405, "METHOD_NOT_ALLOWED", f"{method} is not one of {allowed}", headers={"allow": allowed}
                    )
                args = tuple(part for want, part in zip(pattern, parts, strict=True) if want == "*")
                return methods[method], args
        raise not_found("Endpoint")
