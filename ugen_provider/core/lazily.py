# SPDX-License-Identifier: Apache-2.0
"""Lazy imports: a program that only names a package, or only makes a client, loads no more than that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def on_first_use(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return what a package takes as its `__getattr__`.

    Args:
        package: Its name.
        homes: The module of each public name, below the package.

    Examples:
        >>> on_first_use("json", {"JSONDecodeError": "decoder"})("JSONDecodeError").__name__
        'JSONDecodeError'
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return load


class LazyModule:
    """A module that is imported when something of it is first asked for.

    Args:
        name: Its name.

    Examples:
        >>> LazyModule("json").dumps([1])
        '[1]'
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> object:
        """Something of the module."""
        return getattr(import_module(self._name), name)
