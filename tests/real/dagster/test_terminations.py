# SPDX-License-Identifier: Apache-2.0
"""Runs that a person terminates, a node evicts, or the kernel kills, at each contact of the purchase; then run again.

One job for each product ordered, and none left running. The contacts are those of an undisturbed run. A few are tried
with every `make test`, all of them under the mark `torture`.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import psutil
import pytest

from tests.real.dagster.conftest import Both, real_both
from ugen_provider import UGenClient
from ugen_provider.cli.demo.dagster import ENDED
from ugen_provider.cli.demo.processes import wait_until
from ugen_provider.emulator.settings import LOCAL_KEY

DEFINITIONS = Path(__file__).with_name("halting_defs.py")
ASSETS = ["keyframes", "videos", "final_video"]
IN_PROCESS = {"execution": {"config": {"in_process": {}}}}
ACTIONS = ("terminate", "at_once", "term", "kill")
WAITS = "before--wait--1"

FEW = [
    *(f"after--create--1--{action}" for action in ACTIONS),
    "after--record.write--1--kill",
    f"{WAITS}--terminate",
]
"""The POST was answered and the answer is not recorded; only the record exists; the job runs."""


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


def launch(both: Both, products: Sequence[str], *, executor: dict[str, object] = IN_PROCESS) -> dict[str, str]:
    return {
        product: both.dagster.api.launch_run(ASSETS, partitions=[product], run_config=executor) for product in products
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


@pytest.fixture
def halts(tmp_path: Path) -> Path:
    folder = tmp_path / "halts"
    folder.mkdir()
    return folder


@pytest.fixture
def both(tmp_path: Path, halts: Path) -> Iterator[Both]:
    with real_both(tmp_path / "dagster", DEFINITIONS, speed=0.0, UGEN_HALTS=str(halts)) as made:
        yield made


def steps_of(both: Both, halts: Path, name: str) -> list[str]:
    """The steps of a run that ended, in their order, as it wrote them down itself."""
    return list(dict.fromkeys((halts / f"{name}.steps").read_text().split()))


def end_each(both: Both, halts: Path, products: Sequence[str], *, timeout: float, advance: bool) -> dict[str, str]:
    """Run each, end it when it gets to its step, and wait until Dagster knows that it is over."""
    for product in products:
        both.dagster.api.add_partitions("ugen_products", keys=[product])
    runs = launch(both, products)
    acted: set[str] = set()

    def all_acted() -> bool:
        if advance:
            both.server.emulator.advance(2.0)  # each waiter reaches the end of its job; keys are remembered for a day
        for name in products:
            marker = halts / name
            if name not in acted and marker.exists() and (pid := marker.read_text()):
                acted.add(name)
                act(both, name, runs[name], int(pid))
        return len(acted) == len(products)

    wait_until(
        all_acted, what="every run to get to its step", timeout=timeout, interval=0.3, watch=[both.dagster.processes]
    )
    return wait_ended(both, runs, timeout=timeout)


def run_again_and_count(both: Both, products: Sequence[str], *, timeout: float) -> dict[str, int]:
    """Run all again, and find one finished job for each and none at work; returns the jobs that each had in all."""
    both.server.emulator.clock.set_speed(300.0)
    again = wait_ended(both, launch(both, products), timeout=timeout)
    both.server.emulator.clock.set_speed(0.0)
    assert set(again.values()) == {"SUCCESS"}, {name: state for name, state in again.items() if state != "SUCCESS"}
    with UGenClient(api_key=LOCAL_KEY, base_url=both.server.base_url) as client:
        jobs = [(job.product_name, job.status) for job in client.jobs.list() if job.product_name in set(products)]
    assert {status for _, status in jobs} <= {"completed", "cancelled"}, "none is left running"
    delivered = Counter(name for name, status in jobs if status == "completed")
    assert delivered == Counter(products), "one finished job for each product ordered"
    return dict(Counter(name for name, _ in jobs))


def try_all(both: Both, halts: Path, products: Sequence[str], *, timeout: float, late: Sequence[str] = ()) -> None:
    states = end_each(both, halts, products, timeout=timeout, advance=False) if products else {}
    if late:
        states |= end_each(both, halts, late, timeout=timeout, advance=True)
    wrong = {
        name: state
        for name, state in states.items()
        if (state == "CANCELED") != name.endswith(("--terminate", "--at_once"))
    }
    assert not wrong, "a person's termination is CANCELED, everything else is a failure"
    created = run_again_and_count(both, [*products, *late], timeout=timeout)
    for name in (*products, *late):
        signalled = name.endswith(("--term", "--kill"))
        assert created[name] == 1 or (not signalled and created[name] == 2), name


def reference(both: Both, halts: Path, name: str = "reference") -> list[str]:
    """Return the steps of a run that is not ended."""
    both.dagster.api.add_partitions("ugen_products", keys=[name])
    both.server.emulator.clock.set_speed(300.0)
    assert wait_ended(both, launch(both, [name]), timeout=180.0) == {name: "SUCCESS"}
    both.server.emulator.clock.set_speed(0.0)
    return steps_of(both, halts, name)


def test_the_steps_at_which_most_can_go_wrong(both, halts):
    try_all(both, halts, FEW, timeout=240.0)


@pytest.mark.torture
@pytest.mark.parametrize("action", ACTIONS)
def test_every_step(both, halts, action):
    steps = reference(both, halts)
    assert {name.rpartition("--")[0] for name in FEW} <= set(steps)
    assert {step.split("--")[1] for step in steps} >= {
        "record.read",
        "record.write",
        "create",
        "record.job_id",
        "wait",
        "event",
    }
    until = steps.index(WAITS) + 1
    early, late = ([f"{step}--{action}" for step in part] for part in (steps[:until], steps[until:]))
    try_all(both, halts, early, late=late, timeout=900.0)


@pytest.mark.torture
def test_killed_at_every_step_of_the_cancel_of_a_termination(both, halts):
    """The node is lost while a terminated run is still dealing with its job."""

    def terminate_when_waiting(products: Sequence[str]) -> dict[str, str]:
        both.dagster.api.add_partitions("ugen_products", keys=products)
        runs = launch(both, products)
        terminated: set[str] = set()
        killed: set[str] = set()

        def all_ended() -> bool:
            for name in products:
                if name not in terminated and (halts / f"{name}.waits").exists():
                    terminated.add(name)
                    both.dagster.api.terminate(runs[name])
                if name not in killed and (halts / name).exists() and (pid := (halts / name).read_text()):
                    killed.add(name)
                    act(both, name, runs[name], int(pid))
            return terminated == set(products) and killed == {name for name in products if "--" in name}

        wait_until(all_ended, what="the terminations", timeout=600.0, interval=0.3, watch=[both.dagster.processes])
        return wait_ended(both, runs, timeout=300.0)

    assert terminate_when_waiting(["reference"]) == {"reference": "CANCELED"}
    steps = [step for step in steps_of(both, halts, "reference") if "--stop." in step]
    assert {step.split("--")[1] for step in steps} >= {
        "stop.record.read",
        "stop.actions.append",
        "stop.get",
        "stop.cancel",
    }
    products = [f"{step}--kill" for step in steps]
    terminate_when_waiting(products)
    created = run_again_and_count(both, products, timeout=600.0)
    assert set(created.values()) <= {1, 2}


@pytest.mark.torture
def test_orphaned_step_follows_the_run_that_took_over(both, halts):
    """With the multiprocess executor the step lives on, and nothing in Dagster reaches it any more."""
    multiprocess: dict[str, object] = {"execution": {"config": {"multiprocess": {"max_concurrent": 1}}}}
    both.dagster.api.add_partitions("ugen_products", keys=["orphan"])

    def steps_that_wait() -> list[tuple[int, int]]:
        waits = halts / "orphan.waits"
        lines = waits.read_text().splitlines() if waits.exists() else []
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]

    def wait_for_steps(count: int) -> None:
        wait_until(
            lambda: len(steps_that_wait()) == count,
            what=f"{count} steps that wait for the job",
            timeout=180.0,
            watch=[both.dagster.processes],
        )

    first = launch(both, ["orphan"], executor=multiprocess)
    wait_for_steps(1)
    [(step, worker)] = steps_that_wait()
    orphan = psutil.Process(step)
    assert worker not in {os.getpid(), 1}
    os.kill(worker, signal.SIGKILL)
    assert wait_ended(both, first, timeout=120.0) == {"orphan": "FAILURE"}
    assert orphan.is_running(), "it lives on"

    second = launch(both, ["orphan"], executor=multiprocess)
    wait_for_steps(2)
    assert orphan.is_running()
    both.server.emulator.clock.set_speed(300.0)
    assert wait_ended(both, second, timeout=180.0) == {"orphan": "SUCCESS"}
    wait_until(lambda: not _runs(orphan), what="the orphan to stop", timeout=120.0)

    with both.instance() as instance:
        for asset in ASSETS:
            made = instance.fetch_materializations(dg.AssetKey(asset), limit=10).records
            assert {record.event_log_entry.run_id for record in made} <= {first["orphan"], second["orphan"]}
            jobs = {record.asset_materialization.metadata["ugen/job_id"].value for record in made}
            assert len(jobs) == 1, "the orphan records the newer run's job, and no other"
    assert f"run {second['orphan']} took this order over" in both.dagster.api.why_failed(first["orphan"])
    assert [entry.product_name for entry in both.server.emulator.journal.purchases] == ["orphan"]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
