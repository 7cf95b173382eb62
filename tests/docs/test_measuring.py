# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, in their small form and judging nothing, and what they say becomes the page on performance."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import make_peers
import performance
import pytest
import reliability
import test_matrix

from benchmarks import peers

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


@pytest.mark.torture  # two minutes; `make bench` runs the same programs
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


def test_benchmark_results_become_rows_with_missed_targets():
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


SUITE = '<testsuites><testsuite timestamp="{day}T03:04:05+00:00">{cases}</testsuite></testsuites>'


def test_the_report_counts_failed_and_skipped_runs_apart(tmp_path):
    report = tmp_path / "report.xml"
    cases = (
        '<testcase classname="tests.a" name="test_b[1]" time="2"/>'
        '<testcase classname="tests.a" name="test_b[2]" time="1"><failure/></testcase>'
        '<testcase classname="tests.a" name="test_c" time="0"><skipped message="no server"/></testcase>'
        '<testcase classname="tests.a" name="test_d" time="0"><properties><property name="mb" value="9"/></properties>'
        "</testcase>"
    )
    report.write_text(SUITE.format(day="2026-01-02", cases=cases))
    assert list(reliability.rows([str(report)])) == [
        "| a: b | 2 | 1 |  | 3 | 2026-01-02 |  |",
        "| a: c | 0 | 0 | 1 | 0 | 2026-01-02 | no server |",
        "| a: d | 1 | 0 |  | 0 | 2026-01-02 | mb: 9 |",
    ]


def test_case_that_was_run_again_counts_once(tmp_path):
    first, again = tmp_path / "first.xml", tmp_path / "again.xml"
    failed = '<testcase classname="tests.a" name="test_b[1]" time="9"><failure/></testcase>'
    other = '<testcase classname="tests.a" name="test_b[2]" time="1"/>'
    first.write_text(SUITE.format(day="2026-01-02", cases=failed + other))
    again.write_text(SUITE.format(day="2026-01-03", cases='<testcase classname="tests.a" name="test_b[1]" time="2"/>'))
    reports = [str(first), str(again)]
    assert list(reliability.rows(reports)) == ["| a: b | 2 | 0 |  | 3 | 2026-01-03 |  |"]
    assert list(reliability.rows(reports[::-1])) == ["| a: b | 2 | 1 |  | 10 | 2026-01-02 |  |"]


def test_some_tests_of_another_day_leave_the_rows_of_the_others(tmp_path, monkeypatch):
    page = tmp_path / "reliability.md"
    page.write_text(f"Before.\n{reliability.BEGIN}\n{reliability.END}\nAfter.\n")
    monkeypatch.setattr(reliability, "PAGE", page)

    def seen(day, *names, beside):
        report = tmp_path / f"{day}.xml"
        cases = "".join(f'<testcase classname="tests.a" name="test_{name}" time="1"/>' for name in names)
        report.write_text(SUITE.format(day=day, cases=cases))
        more = ["--beside"] if beside else []
        monkeypatch.setattr(sys, "argv", ["reliability.py", *more, str(report)])
        reliability.main()
        text = page.read_text()
        assert text.startswith("Before.\n")
        assert text.endswith("\nAfter.\n")
        return [(row.split(" | ")[0], row.split(" | ")[5]) for row in text.splitlines() if row.startswith("| a: ")]

    first, second, third = "2026-01-01", "2026-01-02", "2026-01-03"
    assert seen(first, "b", "c", beside=False) == [("| a: b", first), ("| a: c", first)]
    after = [("| a: b", second), ("| a: c", first), ("| a: d", second)]
    assert seen(second, "b", "d", beside=True) == after
    assert "make torture" in page.read_text()
    assert seen(third, "c", beside=False) == [("| a: c", third)]


# The peers: what is measured beside them.

TABLE = {"title": "Importing", "columns": ["imports", "ms"], "rows": [["ours", "1.3"], ["theirs", "204.0"]]}


def test_our_rows_and_the_peers_rows_share_one_table(capsys):
    table = peers.side_by_side(TABLE["title"], TABLE["columns"], TABLE["rows"])
    printed = capsys.readouterr().out
    assert not list(performance.figures(printed))
    page = list(performance.tables(f"{printed}{json.dumps({'tables': [table]})}\n"))
    assert page == ["Importing:", "", "| imports | ms |", "| --- | --- |", "| ours | 1.3 |", "| theirs | 204.0 |", ""]


def test_a_peer_that_was_not_installed_has_a_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(peers, "HOME", tmp_path)
    (tmp_path / "missing.json").write_text(json.dumps({"dagster-fivetran": "no such version"}))
    found = peers.versions(["dagster-fivetran", "dagster", "dagster-hightouch"])
    assert sorted(found) == ["dagster", "ugen-provider"]
    assert capsys.readouterr().out.splitlines() == [
        "dagster-fivetran is not there: no such version",
        "dagster-hightouch is not there: `make peers` brings it",
    ]


def locked(name):
    text = (ROOT / "requirements" / name).read_text()
    return set(re.findall(r"^[a-z0-9][^\s#]*==[^\s;#]+", text, re.MULTILINE))


def test_peers_are_locked_to_the_versions_of_the_project():
    ours, theirs = locked("dev.txt"), locked("bench.txt")
    names = {pin.partition("==")[0] for pin in theirs}
    asked = make_peers.peers((ROOT / "requirements/bench.in").read_text())
    assert asked
    assert set(asked) <= names
    assert {"apache-airflow-core", "dagster"} <= names
    assert {pin for pin in ours if pin.partition("==")[0] in names} <= theirs


UV = """#!/bin/sh
case "$*" in
  venv*) for home; do mkdir -p "$home"; done ;;
  *--requirements*|*dagster-hightouch*) echo "no answer from https://packages.example/simple of late" >&2; exit 2 ;;
esac
"""


def test_a_peer_that_fails_to_install_spares_the_others(tmp_path, monkeypatch, capsys):
    uv = tmp_path / "uv"
    uv.write_text(UV)
    uv.chmod(0o755)
    home = tmp_path / "peers"
    for name, value in {
        "UV": str(uv),
        "HOME": home,
        "STAMP": home / ".installed-from",
        "MISSING": home / "missing.json",
    }.items():
        monkeypatch.setattr(make_peers, name, value)
    for _ in range(2):
        make_peers.main()
        assert "peers: dagster-hightouch is not there: no answer from ... of late" in capsys.readouterr().out
        assert json.loads((home / "missing.json").read_text()) == {"dagster-hightouch": "no answer from ... of late"}
    assert "-e" not in (home / "versions.txt").read_text().split()
    uv.write_text(UV.replace("exit 2", "exit 0"))
    make_peers.main()
    assert json.loads((home / "missing.json").read_text()) == {}
    capsys.readouterr()
    make_peers.main()
    assert capsys.readouterr().out == ""


BENCH = """
import json, sys
print("  ok  {name}: 1 (at most 2)")
{more}
"""


def run_all(monkeypatch, tmp_path, scripts, *asked):
    """Let scripts/performance.py run these benchmarks instead of the real ones; gives its exit code and the page."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs/performance.md"
    page.write_text(f"{performance.BEGIN}\n{performance.END}\n")
    for name, more in scripts.items():
        (tmp_path / f"benchmarks/bench_{name}.py").write_text(BENCH.format(name=name, more=more))
    monkeypatch.setattr(performance, "ROOT", tmp_path)
    monkeypatch.setattr(performance, "KEPT", tmp_path / ".bench")
    monkeypatch.setattr(performance, "BENCHES", tuple(scripts))
    monkeypatch.setattr(sys, "argv", ["performance.py", *asked])
    return performance.main(), page.read_text()


def test_a_missed_figure_or_broken_benchmark_stops_no_other(tmp_path, monkeypatch, capfd):
    missed = "print('  NO  size: 9 (at most 2)'); sys.exit(1)"
    scripts = {"cli": missed, "core": "raise ValueError('no stub')", "media": ""}
    code, page = run_all(monkeypatch, tmp_path, scripts)
    assert code == 1
    assert "performance: cli missed, core broke: see above" in capfd.readouterr().err
    assert "| size | 9 | <= 2 | **missed** |" in page
    assert "| media | 1 | <= 2 | met |" in page
    assert "### `bench_core.py`\n\nNot measured yet." in page


def test_when_every_figure_is_met_the_exit_code_says_so(tmp_path, monkeypatch):
    code, page = run_all(monkeypatch, tmp_path, {"cli": "", "core": f"print(json.dumps({{'tables': [{TABLE}]}}))"})
    assert code == 0
    assert "| theirs | 204.0 |" in page


def test_the_small_form_judges_nothing_and_leaves_the_page_alone(tmp_path, monkeypatch):
    code, page = run_all(monkeypatch, tmp_path, {"cli": "print('  NO  size: 9 (at most 2)')"}, "--smoke")
    assert code == 0
    assert page == f"{performance.BEGIN}\n{performance.END}\n"
    assert "size" in (tmp_path / ".bench/smoke/performance.md").read_text()


def test_every_cell_of_the_matrix_names_what_exists():
    cells = [*test_matrix.cells(), *test_matrix.compatibility_cells("3.11")]
    for cell in cells:
        missing = [name for name in cell.imports if importlib.util.find_spec(name) is None]
        assert missing == [], cell.name
        paths = [word.removeprefix("--deselect=").removeprefix("--ignore=") for word in cell.tests]
        for path, _, name in (each.partition("::") for each in paths):
            assert (ROOT / path).exists(), cell.name
            assert f"def {name}" in (ROOT / path).read_text() if name else True, (cell.name, name)
