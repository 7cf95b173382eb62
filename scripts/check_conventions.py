# SPDX-License-Identifier: Apache-2.0
"""Check what no linter knows: licence lines, docstring sections, no Python in airflow/."""

import re
import subprocess
import sys
from pathlib import Path

LICENCE_LINE = "# SPDX-License-Identifier: Apache-2.0"
SHIPPED = ("ugen_provider", "dagster_ugen")


def problems_of(path: Path, *, text: str) -> list[str]:
    """Return what is wrong with one Python file.

    Args:
        path: The file, relative to the repository.
        text: What it holds.

    Returns:
        One sentence per problem, beginning with the path.
    """
    lines = text.splitlines()
    head = lines[:2] if lines and lines[0].startswith("#!") else lines[:1]
    found = []
    if LICENCE_LINE not in head:
        found.append(f"{path}: begin it with the line {LICENCE_LINE!r}")
    if path.parts[0] == "airflow":
        found.append(f"{path}: airflow/ holds no Python (docs/adr/0001): it would join the installed package")
    if path.parts[0] in SHIPPED and re.search(r"^ +Example:$", text, re.MULTILINE):
        found.append(f"{path}: the section is `Examples:`; the reference would show `Example:` as prose")
    if path.parts[0] in SHIPPED and path.name == "__init__.py" and "Allowed here:" not in text:
        found.append(f"{path}: its docstring says what the package is and, after `Allowed here:`, what belongs in it")
    return found


def main() -> int:
    """Check every tracked Python file.

    Returns:
        The exit code: 1 if something was found.
    """
    command = ["git", "ls-files", "*.py"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    paths = [Path(name) for name in listed if Path(name).exists()]
    found = [problem for path in paths for problem in problems_of(path, text=path.read_text())]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
