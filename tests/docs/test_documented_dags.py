# SPDX-License-Identifier: Apache-2.0
"""Every DAG that users copy has retries: without one, a lost worker or a race inside Airflow ends a task that paid."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"^( *)```python[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def sources() -> Iterator[tuple[str, str]]:
    """Yield every program that users may copy, with its name."""
    for path in sorted((ROOT / "example_dags").glob("*.py")):
        yield path.name, path.read_text("utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if path.parent.name == "adr":
            continue
        for found in FENCED.finditer(path.read_text("utf-8")):
            indent = len(found[1])
            yield path.name, "\n".join(line[indent:] for line in found[2].splitlines())


def dags() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call that defines a DAG, with the name of its page."""
    for name, text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"DAG", "dag"}:
                yield name, node


def retries_of(call: ast.Call) -> int:
    for keyword in call.keywords:
        if keyword.arg == "default_args" and isinstance(keyword.value, ast.Dict):
            pairs = zip(keyword.value.keys, keyword.value.values, strict=True)
            found = [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "retries"]
            return max((int(value.value) for value in found if isinstance(value, ast.Constant)), default=0)
    return 0


def test_documented_dags_are_found() -> None:
    assert len(list(dags())) >= 18


@pytest.mark.parametrize(("page", "call"), [pytest.param(*each, id=f"{each[0]}:{i}") for i, each in enumerate(dags())])
def test_documented_dag_has_retries(page: str, call: ast.Call) -> None:
    assert retries_of(call) >= 2, page
