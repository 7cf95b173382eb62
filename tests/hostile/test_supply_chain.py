# SPDX-License-Identifier: Apache-2.0
"""Every package that a lock file names is pinned to one version and to the digests of its files."""

import re
from pathlib import Path

import pytest

LOCKS = sorted((Path(__file__).parents[2] / "requirements").glob("*.txt"))


def entries(text):
    """The entries of a lock file, each with its continuation lines."""
    return [entry for entry in re.split(r"\n(?=[^\s#])", text) if re.match(r"[A-Za-z0-9]", entry)]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locked_package_has_one_version_and_its_digests(path):
    found = entries(path.read_text())
    assert len(found) > 20
    loose = [each.splitlines()[0] for each in found if not re.match(r"[\w.\[\]-]+==[^\s;]+", each)]
    assert loose == []
    assert [each.splitlines()[0] for each in found if "--hash=sha256:" not in each] == []


def test_entry_without_a_digest_is_found():
    assert len(entries("a==1 \\\n    --hash=sha256:00\nb==2\n# c\n")) == 2
