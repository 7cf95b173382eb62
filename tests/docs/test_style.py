# SPDX-License-Identifier: Apache-2.0
"""The check of the project's language finds each advised-against phrase, and leaves plain sentences alone."""

from __future__ import annotations

import ast

import check_style
import pytest

UNPLAIN = {
    "nobody": "# Nobody waits for it.",
    "told": 'raise ValueError("The user is told.")',
    "continues": "# The run goes on.",
    "over_two_lines": "# The run goes\n# on.",
    "stands": '"""It stands on the client."""',
    "poll": "# One look per minute.",
    "looks": 'print(f"it looks at {job}")',
    "unchanged": "# Left as it is.",
    "whoever": "# Whoever comes next attaches to it.",
    "repair": "# A clear mends it.",
    "noun_clause": "# It is paid. What was bought is kept.",
    "noun_clause_first": '"""What one product costs."""',
    "test_name": "def test_nobody_pays_twice(): ...",
    "variable": "told = []",
    "class_name": "class DeadJob: ...",
}
PLAIN = {
    "standard": "# The standard library understands it.",
    "deadline": "# The deadline of a deadlocked roommate.",
    "looks_like": "# It looks like a UUID.",
    "question": '"""What does a job cost?"""',
    "code": "if mapping.lookup(home):\n    indoor = 1",
    "whether": "# Whether to wait.",
}


@pytest.mark.parametrize("source", UNPLAIN.values(), ids=UNPLAIN)
def test_mannerism_in_python_is_found_once(source: str) -> None:
    hits, _ = check_style.mannerisms_of("a.py", source=source)
    assert len(hits) == 1


@pytest.mark.parametrize("source", PLAIN.values(), ids=PLAIN)
def test_plain_python_has_no_mannerism(source: str) -> None:
    assert check_style.mannerisms_of("a.py", source=source)[0] == []


@pytest.mark.parametrize("prefix", ["", "- ", "12. ", "| a | ", "# "], ids=["text", "item", "step", "row", "heading"])
def test_mannerism_in_markdown_has_its_line(prefix: str) -> None:
    hits, words = check_style.mannerisms_of("a.md", source=f"A first paragraph.\n\n{prefix}Then nobody pays.\n")
    assert [hit.line for hit in hits] == [3]
    assert words >= 6


def test_line_of_a_mannerism_in_a_docstring_is_its_own() -> None:
    hits, _ = check_style.mannerisms_of("a.py", source='x = 1\n"""Say it.\n\nA user is told so.\n"""\n')
    assert hits == [check_style.Hit("a.py", 4, "told")]


@pytest.mark.parametrize(
    ("path", "source", "problems"),
    [
        pytest.param("ugen_provider/core/making.py", "", 1, id="activity"),
        pytest.param("ugen_provider/core/api/retrying.py", "", 0, id="standard-term"),
        pytest.param("tests/core/test_making.py", "", 0, id="module-of-tests"),
        pytest.param("tests/a.py", f"def test_{'x' * 56}(): ...", 1, id="long-test"),
        pytest.param("tests/a.py", f"def test_{'x' * 55}(): ...", 0, id="longest-test"),
        pytest.param("ugen_provider/core/a.py", "class Checked: ...", 1, id="participle"),
        pytest.param("ugen_provider/core/a.py", "class CheckedFeed: ...", 0, id="noun"),
        pytest.param("ugen_provider/cli/a.py", "from ugen_provider.core.b import _c", 1, id="private-name"),
        pytest.param("ugen_provider/cli/a.py", "from ugen_provider.core._b import c", 1, id="private-module"),
        pytest.param("ugen_provider/core/a.py", "from ugen_provider.core.b import _c", 0, id="own-private-name"),
        pytest.param("ugen_provider/core/a.py", "from ugen_provider.core._b import c", 0, id="own-private-module"),
        pytest.param("ugen_provider/core/a.py", "from yaml import _yaml", 0, id="other-project"),
    ],
)
def test_problems_of_names_are_found(path: str, source: str, problems: int) -> None:
    assert len(check_style.problems_of_names(path, tree=ast.parse(source))) == problems


def test_class_defined_in_two_modules_is_found() -> None:
    trees = {"a.py": ast.parse("class Ledger: ...\nclass Lease: ..."), "b.py": ast.parse("class Ledger: ...")}
    assert check_style.duplicate_classes(trees) == ["class Ledger is defined in a.py and b.py"]
