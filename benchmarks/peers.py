# SPDX-License-Identifier: Apache-2.0
"""The real peers in `.peers`, which `make peers` makes; and their rows, measured or missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HOME = Path(__file__).parents[1] / ".peers"
ITSELF = "ugen-provider"

VERSIONS = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def python(*, alone: bool) -> str:
    """The interpreter that both sides are measured in: the peers' where they are, so that all else is the same."""
    there = HOME / "bin" / "python"
    return str(there if there.exists() and not alone else sys.executable)


def versions(names: Sequence[str]) -> dict[str, str]:
    """Return what is installed of these, ours too; what is not is said, with the reason."""
    asked = [python(alone=not names), "-P", "-c", VERSIONS, ITSELF, *names]
    found = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    missing = HOME / "missing.json"
    why = json.loads(missing.read_text()) if missing.exists() else {}
    for name in names:
        if name not in found:
            print(f"{name} is not there: {why.get(name, '`make peers` brings it')}", flush=True)
    return dict(found)


def side_by_side(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> dict[str, object]:
    """The table of ours beside theirs: printed, and given as what the page on performance is written from."""
    texts = [[str(each) for each in row] for row in (columns, *rows)]
    widths = [max(len(row[at]) for row in texts) for at in range(len(columns))]
    print(title)
    for row in texts:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return {"title": title, "columns": list(columns), "rows": texts[1:]}
