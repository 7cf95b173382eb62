# SPDX-License-Identifier: Apache-2.0
"""How a key is held, so that printing never shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self


class Secret:
    """A value that is never shown: not by `str`, `repr`, a traceback, `vars` or pickle.

    Examples:
        >>> Secret("ugen_sk_local")
        Secret(**********)
    """

    __slots__ = ("_reveal",)

    def __init__(self, value: str) -> None:
        def reveal() -> str:
            return value

        self._reveal: Callable[[], str] = reveal

    def reveal(self) -> str:
        """The value itself, for the one place that puts it on the wire."""
        return self._reveal()

    def __repr__(self) -> str:
        return "Secret(**********)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reveal() == self.reveal()

    def __hash__(self) -> int:
        return hash(self.reveal())

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse: a pickled secret lies in clear in whatever the pickle is written to."""
        raise TypeError("a Secret does not pickle; send the connection id and read the key where it is used")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
