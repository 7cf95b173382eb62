# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every named point, and two runners at once: one job per product, and a report that adds up."""

import json
import select
import subprocess
import sys
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import Pace, Settings

CHILD = Path(__file__).with_name("child.py")
SOON = (0.5, 2.0)
POINTS = [
    ("joined", 1),
    ("plan.begun", 1),
    ("plan.batch", 1),
    ("plan.written", 1),
    ("planned", 1),
    ("claimed", 1),
    ("before.record.read", 10),
    ("after.record.read", 10),
    ("before.record.write", 30),
    ("after.record.write", 31),
    ("before.create", 32),
    ("after.create", 33),
    ("before.record.job_id", 33),
    ("after.record.job_id", 33),
    # A token is taken of a record that another process left, so there have to be some by now.
    ("before.record.token", 2),
    ("after.record.token", 2),
    ("before.actions.read", 33),
    ("after.actions.read", 33),
    ("before.wait", 34),
    ("after.wait", 35),
    ("before.get", 20),
    ("after.get", 20),
    ("before.settle", 36),
    ("after.settle", 37),
    ("before.transactions", 1),
    ("after.transactions", 1),
    ("before.retry", 1),
    ("after.retry", 1),
    ("before.acting", 3),
    ("finished", 1),
]
PLANNED = 5
FEED_OF = 500


@pytest.fixture(scope="module")
def emulator():
    """A U-Gen on a socket, whose jobs take a second or two of a clock that runs a hundred times too fast."""
    fast = dict.fromkeys(("prepare", "agents", "keyframe", "segment", "concat", "audio", "captions", "complete"), SOON)
    with EmulatorServer(Settings(speed=100, admin=True, pace=Pace(queue=SOON, **fast))) as server:
        yield server


@pytest.fixture
def feed(emulator, tmp_path) -> Path:
    from ugen_provider.emulator.world import pipeline

    emulator.emulator.reset()
    for number in range(0, FEED_OF, 25):
        rule = {"product_name": f"Cup {number}", "fail_at": "generation", "times": 1}
        emulator.emulator.jobs.outcomes.append(pipeline.parse(rule))
    path = tmp_path / "feed.csv"
    rows = "".join(f"p{number},Cup {number},https://s.example/{number}.jpg\n" for number in range(FEED_OF))
    path.write_text(f"id,title,image_link\n{rows}p7,Again,https://s.example/7.jpg\nx,No picture,\n")
    return path


def start(emulator, feed: Path, ledger: str, *, ahead: float = 0.0, die_at=None) -> subprocess.Popen:
    order = {"feed": str(feed), "ledger": ledger, "base_url": emulator.base_url, "run_id": "night", "ahead": ahead}
    command = [sys.executable, str(CHILD), json.dumps({**order, "die_at": die_at})]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out)


def check(report: dict, emulator) -> None:
    created = emulator.emulator.journal.find_purchases(kind="create")
    assert len(created) == FEED_OF
    assert report["adds_up"]
    assert (report["products"], report["completed"] + report["failed"]) == (FEED_OF + 2, FEED_OF)
    assert (report["rejected"], report["skipped"]) == (1, 1)
    assert (report["postponed"], report["running"], report["open"]) == (0, 0, 0)


def one_died(processes: list[subprocess.Popen]) -> list[int | None]:
    """Wait until the first of them has ended, then kill the others wherever they are."""
    wait([process.stdout for process in processes], timeout=120)
    for process in processes:
        if process.poll() is None and not select.select([process.stdout], [], [], 0)[0]:
            process.kill()
    return [process.communicate(timeout=30) and process.returncode for process in processes]


def go_through(points, emulator, feed: Path, ledger: str, *, at_once: int) -> float:
    """Kill at each point in turn; returns how far ahead the clock of the next one has to be."""
    for number, point in enumerate(points):
        # Each one starts when the leases of those before have ended.
        ahead = 61.0 * number
        planning = number < PLANNED
        processes = [
            start(emulator, feed, ledger, ahead=ahead, die_at=point) for _ in range(1 if planning else at_once)
        ]
        assert -9 in one_died(processes), f"{point} was not reached"
    return 61.0 * len(points)


def test_these_are_all_the_points_that_a_run_passes(shop):
    shop.sells(*"abcdef")
    shop.local.outcome(product_name="Cup a", fail_at="generation", times=1)
    passed = set()
    for night in ("monday", "tuesday"):  # the first one's failure is run again by the second
        shop.run(night, probe=passed.add, in_flight=2)
    assert passed == {point for point, _ in POINTS}


@pytest.mark.timeout(400)
def test_kill_9_at_every_named_point_buys_each_product_once(emulator, feed, tmp_path):
    ledger = str(tmp_path / "ledger.db")
    ahead = go_through(POINTS, emulator, feed, ledger, at_once=1)
    report = finished(start(emulator, feed, ledger, ahead=ahead))
    if report["failed"]:
        report = finished(start(emulator, feed, ledger, ahead=ahead + 61))
    check(report, emulator)
    assert report["failed"] == 0
    assert len(emulator.emulator.journal.find_purchases(kind="retry")) == FEED_OF // 25


@pytest.mark.timeout(400)
def test_kill_9_with_two_runners_at_once_on_postgresql_too(emulator, feed, postgres):
    ahead = go_through(POINTS[:-6], emulator, feed, postgres, at_once=2)
    both = [start(emulator, feed, postgres, ahead=ahead) for _ in range(2)]
    for report in map(finished, both):
        check(report, emulator)


@pytest.mark.timeout(300)
def test_two_runners_at_once_share_one_plan(emulator, feed, address):
    reports = [finished(process) for process in [start(emulator, feed, address) for _ in range(2)]]
    for report in reports:
        check(report, emulator)
    assert reports[0]["credits_consumed"] == reports[1]["credits_consumed"]
