# SPDX-License-Identifier: Apache-2.0
"""`make test-matrix`: the tests of a package against each version of its orchestrator, in its own environment.

    python scripts/test_matrix.py                 all cells
    python scripts/test_matrix.py airflow-3.0.6   some of them
    python scripts/test_matrix.py --list
    python scripts/test_matrix.py --page          write what each cell said last into docs/compatibility.md

`make compat` runs two more cells: `lowest`, the oldest versions that pyproject.toml allows, and `extras`, each extra
installed alone. Environments live in `.matrix/` and are kept, each with what it said last; `--fresh` makes them again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".matrix"
UV = ROOT / ".venv" / "bin" / "uv"
PAGE = ROOT / "docs" / "compatibility.md"
MARKED = re.compile(r"(<!-- cells -->\n).*?(<!-- end -->)", re.DOTALL)
SAID = "said.json"

TEST_TOOLS = ("pytest", "pytest-timeout", "cryptography", "hypothesis", "jsonschema", "markdown", "psutil")
PYTHONS = ("3.11", "3.12", "3.13")
AIRFLOW = {
    "3.0.6": ("2025-09-10", ("3.11", "3.12")),
    "3.1.8": ("2026-03-20", PYTHONS),
    "3.2.2": ("2026-06-10", PYTHONS),
    "3.3.2": ("2026-11-20", PYTHONS),
}
"""Each Airflow with a day on which it was new, and the Pythons that it supports, of those that we do. Its dependencies
have no upper bounds, so it is resolved as of that day: what came later need not work with it."""

DAGSTER = {"1.12.0": "2025-11-05", "": None}
"""The oldest that is allowed, and the newest there is; with the day, as for Airflow."""

# `test_examples` starts whole DAG runs, which the real tests do on the locked versions.
AIRFLOW_TESTS = ("tests/airflow", "--ignore=tests/airflow/test_examples.py")
DAGSTER_TESTS = ("tests/dagster",)


@dataclass(frozen=True)
class Cell:
    """One environment and what runs in it.

    Attributes:
        base: What is installed first, as of a day.
        install: What is installed on top, as of now.
        absent: What must not be importable then.
    """

    name: str
    python: str
    base: tuple[str, ...] = ()
    day: str | None = None
    install: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    resolution: str = "highest"
    env: dict[str, str] = field(default_factory=dict)


AIRFLOW_PACKAGES = tuple(
    f"ugen_provider.{package}"
    for package in (
        "hooks.ugen",
        "operators.jobs",
        "operators.feeds",
        "operators.media",
        "operators.reconcile",
        "triggers.jobs",
        "triggers.events",
        "sensors.jobs",
        "decorators.jobs",
        "links.ugen",
        "plugins.ugen",
    )
)


def cells() -> Iterator[Cell]:
    """Everything that `make test-matrix` runs."""
    for version, (day, pythons) in AIRFLOW.items():
        for python in pythons:
            # The human-in-the-loop operators that the approval is built on came with Airflow 3.1.
            review = () if version.startswith("3.0.") else ("ugen_provider.operators.review",)
            yield Cell(
                name=f"airflow-{version}-py{python}",
                python=python,
                base=(f"apache-airflow=={version}", "apache-airflow-providers-standard"),
                day=day,
                install=(f"apache-airflow=={version}", "-e", ".[airflow,emulator]"),
                tests=AIRFLOW_TESTS,
                imports=(*AIRFLOW_PACKAGES, *review),
            )
    for version, since in DAGSTER.items():
        for python in PYTHONS:
            exactly = f"=={version}" if version else ""
            wanted = tuple(f"{name}{exactly}" for name in ("dagster", "dagster-dg-cli", "dagster-webserver"))
            yield Cell(
                name=f"dagster-{version or 'newest'}-py{python}",
                python=python,
                base=wanted,
                day=since,
                install=(*wanted, "-e", ".[dagster,emulator]"),
                tests=DAGSTER_TESTS,
                imports=("dagster_ugen",),
            )


def compatibility_cells(python: str) -> Iterator[Cell]:
    """Return what `make compat` runs: the oldest versions, and each extra alone."""
    core_tests = (
        *("tests/core", "tests/feeds", "tests/media", "tests/cli"),
        # These need Airflow, Dagster, or DuckDB, pandas and polars.
        "--ignore=tests/core/jobs/test_review.py",
        "--ignore=tests/core/api/test_outcomes.py",
        "--ignore=tests/feeds/test_sources.py",
        # An old click stores and words help otherwise.
        "--deselect=tests/cli/test_every_command.py::test_stored_help_is_that_of_the_commands",
        "--deselect=tests/cli/test_every_command.py::test_mistyped_command_names_the_nearest",
        # One path is Airflow's own; each pydantic writes schemas otherwise, and an old rich draws a session otherwise.
        "--deselect=tests/cli/test_terminal.py::test_a_session_at_a_terminal",
        "--deselect=tests/media/test_outputs.py::test_a_path_that_knows_its_filesystem_is_a_destination",
        "--deselect=tests/media/test_manifest_schema.py::test_the_documented_schema_is_true",
    )
    yield Cell(
        name="lowest",
        python=python,
        install=("-e", ".[emulator,parquet]"),
        tests=core_tests,
        imports=("ugen_provider", "ugen_provider.cli"),
        resolution="lowest-direct",
    )
    yield Cell(
        name="extra-none",
        python=python,
        install=("-e", "."),
        imports=("ugen_provider", "ugen_provider.cli", "ugen_provider.core.batch", "ugen_provider.core.media"),
        absent=("airflow", "dagster", "starlette", "av", "PIL", "pyarrow"),
    )
    for extra, imports, absent in (
        ("airflow", AIRFLOW_PACKAGES, ("dagster",)),
        ("dagster", ("dagster_ugen",), ("airflow",)),
        ("emulator", ("ugen_provider.emulator.server",), ("airflow", "dagster")),
        ("excel", ("openpyxl",), ("airflow", "dagster")),
        ("media", ("av", "PIL"), ("airflow", "dagster")),
        ("parquet", ("pyarrow",), ("airflow", "dagster")),
        ("postgres", ("psycopg",), ("airflow", "dagster")),
    ):
        yield Cell(
            name=f"extra-{extra}",
            python=python,
            install=("-e", f".[{extra}]"),
            imports=("ugen_provider", *imports),
            absent=absent,
        )


def interpreter(version: str) -> str | None:
    """A Python of that version on this machine, if there is one."""
    for wanted in (version, *_pyenv_pythons(version)):
        found = subprocess.run(
            [UV, "python", "find", "--no-python-downloads", "--no-project", wanted],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode == 0:
            return found.stdout.strip()
    return None


def _pyenv_pythons(version: str) -> Iterator[str]:
    """Return what pyenv has: its shims are in the way of a search where a version is installed and not switched on."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from (str(path) for path in sorted((root / "versions").glob(f"{version}.*/bin/python"), reverse=True))


def in_its_own(environment: Path, cell: Cell) -> dict[str, str]:
    """The variables of a cell: nothing of the caller's Airflow or Dagster, and homes of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "DAGSTER", "UGEN"))}
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
        kept.pop(name, None)
    path = f"{environment / 'bin'}{os.pathsep}{kept.get('PATH', '')}"
    return (
        kept | {"PATH": path, "AIRFLOW_HOME": str(environment / "airflow"), "DAGSTER_DISABLE_TELEMETRY": "1"} | cell.env
    )


def make(cell: Cell, *, fresh: bool) -> Path:
    """The cell's environment, made where it is missing or for something else."""
    environment = HOME / cell.name
    made_for = environment / "made-for"
    tools = TEST_TOOLS if cell.tests else ()
    project = (ROOT / "pyproject.toml").read_text()
    wanted = "\n".join((*cell.base, str(cell.day), *cell.install, cell.resolution, project, *tools))
    if not fresh and made_for.exists() and made_for.read_text() == wanted:
        return environment
    shutil.rmtree(environment, ignore_errors=True)
    python = interpreter(cell.python)
    assert python is not None
    subprocess.run([UV, "venv", "--quiet", "--no-project", "--python", python, environment], cwd=ROOT, check=True)
    install: list[str | Path] = [UV, "pip", "install", "--quiet", "--python", environment / "bin" / "python"]
    if cell.base:
        as_of = ["--exclude-newer", cell.day] if cell.day else []
        subprocess.run([*install, *as_of, *cell.base], cwd=ROOT, check=True)
    subprocess.run([*install, "--resolution", cell.resolution, *cell.install], cwd=ROOT, check=True)
    if cell.tests:
        # The tools are never old ones; installed packages stay unchanged.
        subprocess.run([*install, *tools], cwd=ROOT, check=True)
    made_for.write_text(wanted)
    return environment


def versions(environment: Path) -> str:
    """The orchestrator that is really there."""
    listed = subprocess.run(
        [UV, "pip", "list", "--python", environment / "bin" / "python", "--format", "freeze"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = ("apache-airflow==", "apache-airflow-task-sdk==", "dagster==", "pydantic==", "sqlalchemy==", "httpx==")
    return " ".join(line for line in listed.stdout.lower().splitlines() if line.startswith(names))


def imports_of(cell: Cell) -> str:
    """A program that imports what must be there, and finds out that nothing else is."""
    return (
        "import importlib, importlib.util, sys\n"
        f"for name in {list(cell.imports)!r}: importlib.import_module(name)\n"
        f"found = {{name: importlib.util.find_spec(name) for name in {list(cell.absent)!r}}}\n"
        # A folder beside the package, as our airflow/, is a namespace without an origin.
        "there = [name for name, spec in found.items() if spec is not None and spec.origin is not None]\n"
        "sys.exit(f'installed, and should not be: {there}' if there else 0)\n"
    )


def run(cell: Cell, *, fresh: bool, pytest: Sequence[str]) -> tuple[str, str]:
    """Make the cell and run what it is for.

    Returns:
        `ok`, `failed` or `skipped`, and a word about it.
    """
    if interpreter(cell.python) is None:
        return "skipped", f"no Python {cell.python} on this machine"
    try:
        environment = make(cell, fresh=fresh)
    except subprocess.CalledProcessError:
        return "failed", "it cannot be installed"
    env = in_its_own(environment, cell)
    python = environment / "bin" / "python"
    reported = versions(environment)
    # -P and another folder: the installed package must be found, not what lies beside.
    if subprocess.run([python, "-P", "-c", imports_of(cell)], cwd=environment, env=env, check=False).returncode:
        return "failed", f"imports ({reported})"
    if cell.tests:
        report = environment / "tests.xml"
        command: list[str | Path] = [
            python,
            "-P",
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
        ]
        command += ["-m", "not real and not torture and not browser", *cell.tests, *pytest]
        failed = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
        # A part of the tests says nothing of a whole cell.
        if not pytest and report.exists():
            keep(environment, reported=reported, counts=counted(report))
        if failed:
            return "failed", f"tests ({reported})"
    else:
        keep(environment, reported=reported, counts="installs and imports")
    return "ok", reported


def counted(report: Path) -> str:
    """How many tests passed, failed and were skipped."""
    suite = next(ET.parse(report).getroot().iter("testsuite"))
    failed, skipped = int(suite.get("failures", 0)) + int(suite.get("errors", 0)), int(suite.get("skipped", 0))
    passed = int(suite.get("tests", 0)) - failed - skipped
    counts = ((passed, "passed"), (failed, "failed"), (skipped, "skipped"))
    return ", ".join(f"{count} {word}" for count, word in counts if count)


def keep(environment: Path, *, reported: str, counts: str) -> None:
    """Write down what a cell said, for the page."""
    said = {"day": time.strftime("%Y-%m-%d"), "reported": reported, "counts": counts}
    (environment / SAID).write_text(json.dumps(said) + "\n")


def said_by(name: str) -> dict[str, str] | None:
    """Return what a cell said last, if it ever ran here."""
    path = HOME / name / SAID
    said: dict[str, str] | None = json.loads(path.read_text()) if path.exists() else None
    return said


def page(here: str) -> str:
    """The table of what was run: a row per orchestrator, a column per Python."""
    rows = []
    groups: dict[str, dict[str, Cell]] = {}
    for cell in cells():
        groups.setdefault(cell.name.rpartition("-py")[0], {})[cell.python] = cell
    for name, by_python in groups.items():
        seen = {python: said_by(cell.name) for python, cell in by_python.items()}
        reported = " ".join(said["reported"] for said in seen.values() if said)
        package = "apache-airflow" if name.startswith("airflow") else "dagster"
        exact = sorted(set(re.findall(rf"(?<!\S){package}==(\S+)", reported)))
        shown = [
            (said["counts"] if said else "not run") if python in by_python else "not supported by it"
            for python in PYTHONS
            for said in (seen.get(python),)
        ]
        rows.append(
            (f"{name.partition('-')[0].title()} {', '.join(exact) or name.partition('-')[2]}", *shown, days(seen))
        )
    for cell in compatibility_cells(here):
        said = said_by(cell.name)
        row = [said["counts"] if said and python == here else "" for python in PYTHONS]
        names = {"lowest": "oldest dependencies", "extra-none": "no extra, and neither orchestrator"}
        what = names.get(cell.name, f"the extra `{cell.install[-1].lstrip('.')}` alone")
        rows.append((what, *row, days({here: said})))
    header = ("", *(f"Python {python}" for python in PYTHONS), "run on")
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)) + "\n"


def days(seen: dict[str, dict[str, str] | None]) -> str:
    """On which days something was said."""
    return ", ".join(sorted({said["day"] for said in seen.values() if said})) or "not run"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of the cells' names; all where none is given")
    parser.add_argument("--compat", action="store_true", help="the lowest versions and the extras instead")
    parser.add_argument("--fresh", action="store_true", help="make the environments again")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--page", action="store_true", help="write the page from what the cells said last")
    parser.add_argument("--pytest", action="append", default=[], help="an argument for pytest; may be repeated")
    asked = parser.parse_args()
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if asked.page:
        text = PAGE.read_text("utf-8")
        PAGE.write_text(MARKED.sub(lambda found: found[1] + page(here) + found[2], text), "utf-8")
        return 0
    everything = list(compatibility_cells(here) if asked.compat else cells())
    chosen = [cell for cell in everything if not asked.names or cell.name.startswith(tuple(asked.names))]
    if asked.list:
        print("\n".join(cell.name for cell in chosen))
        return 0
    if not chosen:
        print(f"no cell begins with {' or '.join(asked.names)}; --list names them", file=sys.stderr)
        return 2
    outcomes = []
    for cell in chosen:
        print(f"== {cell.name}", flush=True)
        begun = time.monotonic()
        outcome, reported = run(cell, fresh=asked.fresh, pytest=asked.pytest)
        outcomes.append((cell.name, outcome, f"{reported} ({time.monotonic() - begun:.0f} s)"))
    print()
    for name, outcome, reported in outcomes:
        print(f"{name:26} {outcome:8} {reported}")
    return int(any(outcome == "failed" for _, outcome, _ in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
