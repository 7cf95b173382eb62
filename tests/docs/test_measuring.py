# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, in their small form and judging nothing, and what they say becomes the page on performance."""

import subprocess
import sys
from pathlib import Path

import performance
import pytest
import reliability

ROOT = Path(__file__).parents[2]
# bench_emulator.py is run by tests/emulator.
BENCHES = sorted(path.name for path in (ROOT / "benchmarks").glob("bench_*.py") if path.name != "bench_emulator.py")

SAID = """
  sync jobs.get / bare httpx GET and json.loads                    1.24    target <= 1.25        met
  1,000 waiters: loop lag p99                                     11.1ms  target <= 10 ms       MISSED
  1,000 waiters: CPU                                              0.30s   target -
  rows of CSV, share of the bare reader's speed                      0.52   target >= 0.5
  ok  modules: 13 (at most 30)
  NO  share of its CPU, %: 9.5 (at most 8)
ugen --help        +  99.2 ms   at most 120
ratio to bare (target 0.60)                                   0.72
start, s                                                      0.61
50 partitions in one run: 12 s, 150 events, peak memory 40 MB above import dagster
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BENCHES)
def test_a_benchmark_runs(name):
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}", "--smoke"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    stem = name.removeprefix("bench_").removesuffix(".py")
    assert stem in performance.BENCHES
    if stem != "growth":
        assert list(performance.figures(done.stdout))


def test_what_a_benchmark_says_becomes_rows_and_a_missed_target_stays_missed():
    found = {figure.name: (figure.value, figure.met) for figure in performance.figures(SAID)}
    assert found == {
        "sync jobs.get / bare httpx GET and json.loads": ("1.24", True),
        "1,000 waiters: loop lag p99": ("11.1ms", False),
        "1,000 waiters: CPU": ("0.30s", None),
        "rows of CSV, share of the bare reader's speed": ("0.52", True),
        "modules": ("13", True),
        "share of its CPU, %": ("9.5", False),
        "ugen --help, over bare Python": ("99 ms", True),
        "ratio to bare": ("0.72", True),
        "start, s": ("0.61", None),
        "50 partitions in one run": ("12 s, 150 events, peak memory 40 MB above import dagster", None),
    }
    assert "**missed**" in next(f.row() for f in performance.figures(SAID) if f.met is False)


def test_growth_is_drawn_from_little_to_much():
    import xml.etree.ElementTree as ET

    svg = performance.plot("Growth", "jobs", {"one": [(10, 1), (100, 10)], "other": [(10, 5), (100, 5)]})
    lines = [each.get("points").split() for each in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}polyline")]
    heights = [[float(point.partition(",")[2]) for point in line] for line in lines]
    assert heights[0][0] > heights[0][1]
    assert heights[1][0] == heights[1][1]


def test_the_report_counts_failed_and_skipped_runs_apart(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="tests.a" name="test_b[1]" time="2"/>'
        '<testcase classname="tests.a" name="test_b[2]" time="1"><failure/></testcase>'
        '<testcase classname="tests.a" name="test_c" time="0"><skipped message="no server"/></testcase>'
        '<testcase classname="tests.a" name="test_d" time="0"><properties><property name="mb" value="9"/></properties>'
        "</testcase></testsuite></testsuites>"
    )
    assert list(reliability.rows([str(report)])) == [
        "| a: b | 2 | 1 |  | 3 |  |",
        "| a: c | 0 | 0 | 1 | 0 | no server |",
        "| a: d | 1 | 0 |  | 0 | mb: 9 |",
    ]
