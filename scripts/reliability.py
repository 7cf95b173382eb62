# SPDX-License-Identifier: Apache-2.0
"""Write what `make torture` saw into docs/reliability.md: counts, times, seeds, date and machine."""

import os
import platform
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- torture: begin -->", "<!-- torture: end -->"


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def rows(report: str) -> Iterator[str]:
    """One row per test function: how many runs, how they ended, seconds."""
    runs, bad, seconds = Counter(), Counter(), Counter()
    for case in ET.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname').removeprefix('tests.')}: {case.get('name').partition('[')[0]}"
        runs[name] += 1
        seconds[name] += float(case.get("time"))
        bad[name] += any(child.tag in {"failure", "error"} for child in case)
        if any(child.tag == "skipped" for child in case):
            runs[name] -= 1
    for name, count in runs.items():
        title = name.replace("test_", "", 1).replace("_", " ")
        yield f"| {title} | {count:,} | {bad[name]:,} | {seconds[name]:,.0f} |"


def main(reports: Sequence[str]) -> None:
    seed = os.environ.get("UGEN_TORTURE_SEED", "1")
    lines = [
        BEGIN,
        f"Run on {datetime.now(UTC):%Y-%m-%d}; {machine()}; `make torture`; first seed {seed}.",
        "",
        "| what | runs | failed | seconds |",
        "|---|---|---|---|",
        *(row for report in reports for row in rows(report)),
        END,
    ]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + "\n".join(lines) + rest.partition(END)[2])
    print(f"reliability: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
