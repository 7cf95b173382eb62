# SPDX-License-Identifier: Apache-2.0
"""Every public name is in the reference, by itself or with its module; and what the reference names is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from public_api import LIST, MODULES, PACKAGES

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
NAMED = {
    found for page in REFERENCE.glob("*.md") for found in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
}


def public_names(package: str) -> list[str]:
    module = importlib.import_module(package)
    listed = getattr(module, "__all__", None) or vars(module)["_HOMES"]
    return [f"{package}.{name}" for name in listed if name != "__version__"]


def found(path: str) -> Any:
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            thing = getattr(thing, name)
        return thing
    raise AssertionError(path)


def names_in_modules() -> list[str]:
    """Those of the list of public names that are imported from where they live."""
    listed = {line.partition("(")[0] for line in LIST.read_text().splitlines()}
    return sorted(name for name in listed if name.rpartition(".")[0] in set(MODULES) - set(PACKAGES))


@pytest.mark.parametrize("name", [name for package in PACKAGES for name in public_names(package)] + names_in_modules())
def test_a_public_name_is_in_the_reference(name: str) -> None:
    thing = found(name)
    home = getattr(thing, "__module__", "")
    module = name.rpartition(".")[0]
    assert {name, module, home, f"{home}.{name.rpartition('.')[2]}"} & NAMED or any(
        thing is found(path) for path in NAMED
    )


@pytest.mark.parametrize("path", sorted(NAMED))
def test_what_the_reference_names_has_a_docstring(path: str) -> None:
    assert found(path).__doc__


def test_every_field_of_a_request_is_explained() -> None:
    from ugen_provider import CreateJob
    from ugen_provider.core.api import rules

    explained = re.findall(r"^        (\w+): \S", CreateJob.__doc__ or "", re.MULTILINE)
    assert [rule.name for rule in rules.FIELDS if rule.name not in explained] == []
