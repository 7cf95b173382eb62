# SPDX-License-Identifier: Apache-2.0
"""Public names of a package that are loaded on first use, so that a DAG that only names the package pays nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def on_first_use(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """What a package takes as its `__getattr__`.

    Args:
        package: Its name.
        homes: The module of each public name, below the package.

    Example:
        >>> on_first_use("json", {"JSONDecodeError": "decoder"})("JSONDecodeError").__name__
        'JSONDecodeError'
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return load
