# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every named point, and two runners at once: one job per product, and a report that adds up."""

import json
import subprocess
import sys
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
    ("after.booked", 20),
    ("before.intent.write", 30),
    ("after.intent.write", 31),
    ("before.create", 32),
    ("after.create", 33),
    ("before.wait", 34),
    ("after.wait", 35),
    ("before.get", 20),
    ("after.get", 20),
    ("before.settle", 36),
    ("after.settle", 37),
    ("before.retry", 1),
    ("after.retry", 1),
    ("before.acting", 3),
    ("finished", 1),
]
FEED_OF = 500


@pytest.fixture(scope="module")
def emulator():
    """A U-Gen on a socket, whose jobs take a second or two of a clock that runs a hundred times too fast."""
    fast = dict.fromkeys(("prepare", "agents", "keyframe", "segment", "concat", "audio", "captions", "complete"), SOON)
    with EmulatorServer(Settings(speed=100, admin=True, pace=Pace(queue=SOON, **fast))) as server:
        yield server


@pytest.fixture
def feed(emulator, tmp_path) -> Path:
    from ugen_provider.emulator.world import outcomes

    emulator.emulator.reset()
    for number in range(0, FEED_OF, 25):
        rule = {"product_name": f"Cup {number}", "fail_at": "generation", "times": 1}
        emulator.emulator.desk.outcomes.append(outcomes.parse(rule))
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


@pytest.mark.timeout(400)
def test_kill_9_at_every_named_point_buys_each_product_once(emulator, feed, address):
    killed = []
    for number, point in enumerate(POINTS):
        # Each one starts when the lease of the one before has ended.
        process = start(emulator, feed, address, ahead=61.0 * number, die_at=point)
        _, err = process.communicate(timeout=120)
        assert process.returncode == -9, f"{point} was not reached: {err}"
        killed.append(point)
    ahead = 61.0 * len(POINTS)
    report = finished(start(emulator, feed, address, ahead=ahead))
    if report["failed"]:
        report = finished(start(emulator, feed, address, ahead=ahead + 61))
    check(report, emulator)
    assert report["failed"] == 0
    assert killed == POINTS
    assert len(emulator.emulator.journal.find_purchases(kind="retry")) == FEED_OF // 25


@pytest.mark.timeout(300)
def test_two_runners_at_once_share_one_plan(emulator, feed, address):
    both = [start(emulator, feed, address) for _ in range(2)]
    reports = [finished(process) for process in both]
    for report in reports:
        check(report, emulator)
    assert reports[0]["credits_consumed"] == reports[1]["credits_consumed"]


@pytest.mark.timeout(300)
def test_a_second_runner_takes_over_while_the_first_is_killed(emulator, feed, address):
    first = start(emulator, feed, address, die_at=("after.create", 60))
    second = start(emulator, feed, address, ahead=0.0)
    first.communicate(timeout=120)
    assert first.returncode == -9
    second.kill()
    second.communicate(timeout=30)
    check(finished(start(emulator, feed, address, ahead=61.0)), emulator)
