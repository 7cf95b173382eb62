# SPDX-License-Identifier: Apache-2.0
"""Runs that a person terminates, a node evicts, or the kernel kills, at each step of the protocol; then run again.

One job for each product ordered, and none left running. A few steps are tried with every `make test`, all of them under
the mark `torture`.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.real.dagster.conftest import Both
from ugen_provider import UGenClient
from ugen_provider.cli.demo.dagster_api import ENDED
from ugen_provider.cli.demo.processes import wait_until
from ugen_provider.emulator.settings import LOCAL_KEY

DEFINITIONS = Path(__file__).with_name("halting_defs.py")
ASSETS = ["keyframes", "videos", "final_video"]
IN_PROCESS = {"execution": {"config": {"in_process": {}}}}
ACTIONS = ("terminate", "at_once", "term", "kill")

POINTS = (
    ("before", "intent.read", 1),
    ("before", "intent.write", 1),
    ("after", "intent.write", 1),
    ("before", "create", 1),
    ("after", "create", 1),
    ("before", "intent.write", 2),
    ("after", "intent.write", 2),
    ("before", "wait", 1),
    ("after", "wait", 1),
    ("before", "keyframes", 1),
)
"""The flow's contacts with the world, in their order."""

FEW = [
    *(f"after--create--1--{action}" for action in ACTIONS),
    "after--intent.write--1--kill",
    "before--wait--1--terminate",
]
"""The POST was answered and nobody knows it yet; the intent is all there is; the job runs."""


def every(points) -> list[str]:
    return [f"{when}--{point}--{number}--{action}" for when, point, number in points for action in ACTIONS]


def act(both: Both, name: str, run_id: str, pid: int) -> None:
    match name.rpartition("--")[2]:
        case "terminate":
            both.dagster.api.terminate(run_id)
        case "at_once":
            both.dagster.api.terminate(run_id, at_once=True)
        case "term":
            os.kill(pid, signal.SIGTERM)
        case "kill":
            os.kill(pid, signal.SIGKILL)


def launch(both: Both, products: list[str]) -> dict[str, str]:
    return {
        product: both.dagster.api.launch_run(ASSETS, partitions=[product], run_config=IN_PROCESS)
        for product in products
    }


def wait_ended(both: Both, runs: dict[str, str], *, timeout: float) -> dict[str, str]:
    def states() -> dict[str, str]:
        known = {run["runId"]: run["status"] for run in both.dagster.api.runs()}
        return {product: known[run_id] for product, run_id in runs.items()}

    wait_until(
        lambda: set(states().values()) <= ENDED,
        what=f"{len(runs)} runs to end",
        timeout=timeout,
        interval=1.0,
        watch=[both.dagster.processes],
    )
    return states()


def try_all(real, tmp_path: Path, products: list[str], *, timeout: float) -> None:
    halts = tmp_path / "halts"
    halts.mkdir()
    both: Both = real(DEFINITIONS, speed=0.0, runs_at_once=4, UGEN_HALTS=str(halts))
    both.dagster.api.add_partitions("ugen_products", keys=products)
    runs = launch(both, products)
    acted: set[str] = set()

    def all_acted() -> bool:
        if any("after--wait" in name or "keyframes" in name for name in products):
            both.server.emulator.advance(2.0)  # what waits for its end reaches it, before the service forgets its key
        for name in products:
            marker = halts / name
            if name not in acted and marker.exists() and (pid := marker.read_text()):
                acted.add(name)
                act(both, name, runs[name], int(pid))
        return len(acted) == len(products)

    wait_until(
        all_acted, what="every run to get to its step", timeout=timeout, interval=0.3, watch=[both.dagster.processes]
    )
    states = wait_ended(both, runs, timeout=timeout)
    wrong = {
        name: state for name, state in states.items() if (state == "CANCELED") != ("termi" in name or "at_o" in name)
    }
    assert not wrong, "a person's termination is CANCELED, everything else is a failure"

    both.server.emulator.clock.set_speed(300.0)
    again = wait_ended(both, launch(both, products), timeout=timeout)
    assert set(again.values()) == {"SUCCESS"}, {name: state for name, state in again.items() if state != "SUCCESS"}

    with UGenClient(api_key=LOCAL_KEY, base_url=both.server.base_url) as client:
        jobs = [(job.product_name, job.status) for job in client.jobs.list()]
    assert {status for _, status in jobs} <= {"completed", "cancelled"}, "none is left running"
    delivered = Counter(name for name, status in jobs if status == "completed")
    assert delivered == Counter(products), "one finished job for each product ordered"
    created = Counter(name for name, _ in jobs)
    for name in products:
        signalled = name.endswith(("--term", "--kill"))
        assert created[name] == 1 or (not signalled and created[name] == 2), name


def test_the_steps_at_which_most_can_go_wrong(real, tmp_path):
    try_all(real, tmp_path, FEW, timeout=240.0)


@pytest.mark.torture
def test_every_step(real, tmp_path):
    try_all(real, tmp_path, every(POINTS), timeout=900.0)
