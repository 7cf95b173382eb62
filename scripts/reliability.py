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
SETTINGS = ("UGEN_TORTURE_RUNS", "UGEN_TORTURE_SEED", "UGEN_TORTURE_DELIVERIES", "UGEN_SOAK_MINUTES", "UGEN_SOAK_JOBS")


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def command() -> str:
    """What was typed."""
    said = (f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ)
    return " ".join([*said, "make torture"])


def rows(reports: Sequence[str]) -> Iterator[str]:
    """One row per test function: how many runs, how they ended, seconds."""
    runs, bad, left, seconds = Counter(), Counter(), Counter(), Counter()
    notes: dict[str, list[str]] = {}
    for report in reports:
        for case in ET.parse(report).getroot().iter("testcase"):
            name = f"{case.get('classname').removeprefix('tests.')}: {case.get('name').partition('[')[0]}"
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
        run = f"{count - left[name]:,}"
        yield f"| {title} | {run} | {bad[name]:,} | {left[name] or ''} | {seconds[name]:,.0f} | {about} |"


def main(reports: Sequence[str]) -> None:
    seed = os.environ.get("UGEN_TORTURE_SEED", "1")
    lines = [
        BEGIN,
        f"Run on {datetime.now(UTC):%Y-%m-%d}; {machine()}; `{command()}`; first seed {seed}.",
        "",
        "| what | runs | failed | skipped | seconds | |",
        "|---|---|---|---|---|---|",
        *rows([report for report in reports if Path(report).exists()]),
        END,
    ]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + "\n".join(lines) + rest.partition(END)[2])
    print(f"reliability: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
