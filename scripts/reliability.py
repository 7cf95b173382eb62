# SPDX-License-Identifier: Apache-2.0
"""Write what `make torture` saw into docs/reliability.md: counts, times, seeds, dates and machine.

    .venv/bin/python scripts/reliability.py .torture/orders.xml .torture/systems.xml    # as `make torture` does
    .venv/bin/python scripts/reliability.py --beside .torture/soak.xml                  # some; the other rows stay

The reports are pytest's, by `--junitxml`. A row says on which day it was seen.
"""

import argparse
import os
import platform
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- torture: begin -->", "<!-- torture: end -->"
SETTINGS = ("UGEN_TORTURE_RUNS", "UGEN_TORTURE_SEED", "UGEN_TORTURE_DELIVERIES", "UGEN_SOAK_MINUTES", "UGEN_SOAK_JOBS")
HEAD = ("| what | runs | failed | skipped | seconds | on | |", "|---|---|---|---|---|---|---|")


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def command() -> str:
    """Return what was typed."""
    said = (f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ)
    return " ".join([*said, "make torture"])


def rows(reports: Sequence[str]) -> Iterator[str]:
    """One row per test function: how many runs, how they ended, seconds, the day of the last.

    A case that was run again counts once, as the last report has it.
    """
    runs, bad, left, seconds = Counter(), Counter(), Counter(), Counter()
    notes: dict[str, list[str]] = {}
    days: dict[str, str] = {}
    newest: dict[tuple[str | None, str | None], tuple[str, ET.Element]] = {}
    for report in reports:
        for suite in ET.parse(report).getroot().iter("testsuite"):
            day = suite.get("timestamp", f"{datetime.now(UTC):%Y-%m-%d}")[:10]
            for case in suite.iter("testcase"):
                if case.get("classname") and case.get("name"):
                    newest[case.get("classname"), case.get("name")] = day, case
    for day, case in newest.values():
        name = f"{case.get('classname').removeprefix('tests.')}: {case.get('name').partition('[')[0]}"
        days[name] = max(day, days.get(name, ""))
        runs[name] += 1
        seconds[name] += float(case.get("time"))
        bad[name] += any(child.tag in {"failure", "error"} for child in case)
        for child in case:
            if child.tag == "skipped":
                left[name] += 1
                notes.setdefault(name, [child.get("message")])
        notes.setdefault(name, []).extend(f"{p.get('name')}: {p.get('value')}" for p in case.iter("property"))
    for name, count in runs.items():
        title = name.replace("test_", "").replace("_", " ").replace("|", "\\|")
        about = "; ".join(dict.fromkeys(notes.get(name, [])))
        counts = f"{count - left[name]:,} | {bad[name]:,} | {left[name] or ''} | {seconds[name]:,.0f}"
        yield f"| {title} | {counts} | {days[name]} | {about} |"


def beside(known: Iterable[str], seen: Iterable[str]) -> list[str]:
    """Return the known rows in their order, each replaced by the new result of the same test, if there is one."""

    def title(row: str) -> str:
        return row.partition(" | ")[0]

    new = {title(row): row for row in seen}
    kept = [new.pop(title(row), row) for row in known]
    return [*kept, *new.values()]


def write(reports: Sequence[str], *, some: bool) -> None:
    """Put the rows between the page's marks; `some` leaves those of other tests."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    between, _, after = rest.partition(END)
    head, *_ = between.strip().splitlines() or [""]
    known = [line for line in between.splitlines() if line.startswith("| ") and line not in HEAD]
    if not some:
        seed = os.environ.get("UGEN_TORTURE_SEED", "1")
        head, known = f"Run on {machine()}; `{command()}`; first seed {seed}.", []
    found = beside(known, rows([report for report in reports if Path(report).exists()]))
    PAGE.write_text(before + "\n".join([BEGIN, head, "", *HEAD, *found, END]) + after)
    print(f"reliability: {PAGE}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", help="what pytest wrote")
    parser.add_argument("--beside", action="store_true", help="leave what the page says of other tests")
    asked = parser.parse_args()
    write(asked.reports, some=asked.beside)


if __name__ == "__main__":
    main()
