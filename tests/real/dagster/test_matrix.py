# SPDX-License-Identifier: Apache-2.0
"""The owner of a job after each event of each kind of run, and one key window later: one video for each order.

A cell is a way in which an order is being worked on, and an event that hits it. `make test` tries a diagonal, and
`make torture` every cell. All cells of a test run beside one another in one real Dagster.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import dagster as dg
import pytest

from tests.real.dagster.conftest import Both, real_both
from ugen_provider import UGenClient
from ugen_provider.cli.demo.dagster import ENDED
from ugen_provider.cli.demo.processes import wait_until
from ugen_provider.core.jobs.order import origin_of, partition_key, record_key
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.emulator.settings import LOCAL_KEY
from ugen_provider.ledger import Ledger

DEFINITIONS = Path(__file__).with_name("matrix_defs.py")
ASSETS = ["keyframes", "videos", "final_video"]
IN_PROCESS = {"execution": {"config": {"in_process": {}}}}
HOLD = {"hold": "yes"}
INSTANCE = {
    "run_queue": {
        "max_concurrent_runs": 10,
        "dequeue_interval_seconds": 1,
        "tag_concurrency_limits": [{"key": "hold", "value": "yes", "limit": 0}],
    }
}
CANCEL_BACKFILL = """mutation($id: String!) {
  result: cancelPartitionBackfill(backfillId: $id) { __typename ... on PythonError { message } } }"""
DAY = 25 * 3600.0

Subject = Literal["step", "worker", "queued", "backfill"]
Event = Literal["terminate", "force", "kill", "delete", "wipe", "rename", "lost"]
SUBJECTS: tuple[Subject, ...] = ("step", "worker", "queued", "backfill")
EVENTS: tuple[Event, ...] = ("terminate", "force", "kill", "delete", "wipe", "rename", "lost")

DIAGONAL = (
    "step-terminate",
    "worker-kill",
    "queued-terminate",
    "queued-delete",
    "backfill-terminate",
    "step-wipe",
)
TABLE: dict[tuple[Subject, Event], tuple[str, int]] = {
    ("step", "terminate"): ("cancelled by its run", 2),
    ("step", "force"): ("cancelled by its run", 2),
    ("step", "kill"): ("left: the next run reattaches", 1),
    ("step", "delete"): ("its process, which delivers", 1),
    ("worker", "terminate"): ("cancelled by its run", 2),
    ("worker", "force"): ("cancelled by its run", 2),
    ("worker", "kill"): ("left: the next run reattaches", 1),
    ("worker", "delete"): ("its process, which delivers", 1),
    ("queued", "terminate"): ("left: the queued run never reached it", 1),
    ("queued", "force"): ("left: the queued run never reached it", 1),
    ("queued", "kill"): ("left: the next run reattaches", 1),
    ("queued", "delete"): ("left: the queued run never reached it", 1),
    ("backfill", "terminate"): ("cancelled by its run", 2),
    ("backfill", "force"): ("cancelled by its run", 2),
    ("backfill", "kill"): ("left: the next run reattaches", 1),
    ("backfill", "delete"): ("its process, which delivers", 1),
    **{(subject, event): ("delivered: reused", 1) for subject in SUBJECTS for event in ("wipe", "rename", "lost")},  # type: ignore[misc]
}
"""The owner of the job after the event, and how many jobs the order has had in all, one key window and a run later."""


@dataclass
class Cell:
    """One order on its way through the matrix."""

    subject: Subject
    event: Event
    runs: list[str] = field(default_factory=list)
    backfill: str = ""

    @property
    def name(self) -> str:
        return f"{self.subject}-{self.event}"

    @property
    def owner(self) -> str:
        return TABLE[self.subject, self.event][0]

    @property
    def jobs(self) -> int:
        return TABLE[self.subject, self.event][1]


class Matrix:
    """A real Dagster with the orders of some cells."""

    def __init__(self, both: Both, folder: Path, cells: Sequence[Cell]) -> None:
        self.both = both
        self.folder = folder
        self.cells = cells
        self.api = both.dagster.api
        self.world = both.server.emulator

    def until(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, what=what, timeout=600.0, interval=0.5, watch=[self.both.dagster.processes])

    def statuses(self) -> dict[str, list[str]]:
        """The status of each order's jobs."""
        found: dict[str, list[str]] = {}
        with UGenClient(api_key=LOCAL_KEY, base_url=self.both.server.base_url) as client:
            for job in client.jobs.list():
                found.setdefault(str(job.product_name), []).append(job.status)
        return found

    def known_jobs(self) -> set[str]:
        """The cells whose order's record names its job."""
        keys = {
            record_key(
                partition_key(asset="final_video", partition=cell.name), origin=origin_of(self.both.server.base_url)
            ): cell.name
            for cell in self.cells
        }
        with Ledger(self.both.dagster.ledger) as ledger:
            records = LedgerOrderStore(ledger).read_many(list(keys))
        return {keys[key] for key, record in records.items() if record.job_id is not None}

    def ended(self, cells: Sequence[Cell]) -> None:
        """Wait until the runs of cells have ended, but for those that wait in the queue."""
        names = {run_id for cell in cells for run_id in cell.runs}

        def done() -> bool:
            self.world.advance(5.0)
            return all(run["status"] in ENDED for run in self.api.runs() if run["runId"] in names)

        self.until(done, "the runs to end")

    def start(self) -> None:
        """Launch a run for each cell, and wait until its job is bought and recorded."""
        for cell in self.cells:
            self.api.add_partitions("ugen_products", keys=[cell.name])
            if cell.subject == "backfill":
                cell.backfill = self.api.launch_backfill(ASSETS, partitions=[cell.name])
            else:
                executor = {} if cell.subject == "step" else IN_PROCESS
                cell.runs = [self.api.launch_run(ASSETS, partitions=[cell.name], run_config=executor)]
        self.until(lambda: self.known_jobs() == {cell.name for cell in self.cells}, "all jobs to be bought")
        for cell in self.cells:
            if cell.backfill:
                cell.runs = [run["runId"] for run in self.api.runs(tags={"dagster/backfill": cell.backfill})]

    def lose_first_runs(self) -> None:
        """The order of a queued run was bought by a run that was lost."""
        queued = [
            cell for cell in self.cells if cell.subject == "queued" and cell.event not in {"wipe", "rename", "lost"}
        ]
        for cell in queued:
            self.kill(cell)
        self.until(
            lambda: all(self.api.run_status(cell.runs[0]) in ENDED for cell in queued), "the lost runs to be noticed"
        )
        for cell in queued:
            cell.runs = [self.api.launch_run(ASSETS, partitions=[cell.name], tags=HOLD)]
        self.until(lambda: all(self.api.run_status(cell.runs[0]) == "QUEUED" for cell in queued), "the queue")

    def kill(self, cell: Cell) -> None:
        """Kill the process that works on an order; of a backfill's run, the step."""
        pid, _parent = (self.folder / f"{cell.name}.pid").read_text().split()
        os.kill(int(pid), signal.SIGKILL)

    def act(self, cell: Cell) -> None:
        match cell.event:
            case "terminate" if cell.backfill:
                answer = self.api.ask(CANCEL_BACKFILL, variables={"id": cell.backfill})["result"]
                assert answer["__typename"] == "CancelBackfillSuccess", answer
            case "terminate" | "force":
                for run_id in cell.runs:
                    self.api.terminate(run_id, at_once=cell.event == "force")
            case "kill" if cell.subject != "queued":
                self.kill(cell)
            case "delete":
                with self.both.instance() as instance:
                    for run_id in cell.runs:
                        instance.delete_run(run_id)
            case _:
                pass  # the events after the delivery follow

    def check_owners(self) -> None:
        """Check the jobs directly after the events: only a person's termination cancels one."""
        cancelled = {cell.name for cell in self.cells if cell.owner.startswith("cancelled")}
        self.until(
            lambda: {name for name, each in self.statuses().items() if each == ["cancelled"]} >= cancelled,
            "the terminated runs' jobs to be cancelled",
        )
        wrong = {
            cell.name: self.statuses()[cell.name]
            for cell in self.cells
            if cell.name not in cancelled and "cancelled" in self.statuses()[cell.name]
        }
        assert not wrong, "no other event cancels a job"

    def deliver(self) -> None:
        """Let all jobs end, and the runs that wait for them."""
        for cell in self.cells:
            if cell.subject == "queued" and cell.event == "kill":
                self.api.terminate(cell.runs[0])  # nothing of a queued run can be killed; it leaves the queue
        self.ended(self.cells)

        def all_jobs_ended() -> bool:
            self.world.advance(30.0)
            return all(set(each) <= {"completed", "cancelled"} for each in self.statuses().values())

        self.until(all_jobs_ended, "all jobs to end")

    def forget_keys(self) -> None:
        """One key window passes: the service has forgotten all idempotency keys."""
        self.world.set_readings({"replay_ended": "new"})
        self.world.advance(DAY)

    def run_again(self, cells: Sequence[Cell], *, prefix: str = "", expect: str = "SUCCESS") -> None:
        """Materialize each order once more."""
        for cell in cells:
            self.api.add_partitions("ugen_products", keys=[cell.name])
            assets = [f"{prefix}{asset}" for asset in ASSETS]
            cell.runs = [self.api.launch_run(assets, partitions=[cell.name], run_config=IN_PROCESS)]
        self.ended(cells)
        states = {cell.name: self.api.run_status(cell.runs[0]) for cell in cells}
        assert set(states.values()) <= {expect}, {
            name: self.api.why_failed(cell.runs[0]) for cell, name in ((each, each.name) for each in cells)
        }

    def rename(self, *words: str) -> None:
        """Rename the assets: write the names, and restart the code server as a deployment does."""
        (self.folder / "names").write_text(" ".join(words))
        server = next(each for each in self.both.dagster.processes.running if each.name == "dagster code server")
        self.both.start_again(server)
        self.until(lambda: self._defines(f"{words[0] if words else ''}final_video"), "the renamed assets")

    def _defines(self, asset: str) -> bool:
        query = "{ assetNodes { assetKey { path } } }"
        try:
            nodes = self.api.ask("mutation { reloadWorkspace { __typename } }") and self.api.ask(query)["assetNodes"]
        except Exception:  # the webserver misses its code server for a moment
            return False
        return any(node["assetKey"]["path"] == [asset] for node in nodes)

    def check(self) -> None:
        """Check the journal: so many jobs for each order, of which one is delivered."""
        statuses = self.statuses()
        for cell in self.cells:
            found = Counter(statuses[cell.name])
            assert found["completed"] == 1, (cell.name, found)
            assert found.total() == cell.jobs, (cell.name, found)
        assert self.world.accounts.by_name["local"].credits.reserved == 0


def try_cells(tmp_path: Path, cells: Sequence[Cell], *, ledger: str) -> None:
    folder = tmp_path / "settings"
    folder.mkdir()
    with real_both(
        tmp_path / "dagster", DEFINITIONS, speed=0.0, instance=INSTANCE, ledger=ledger, UGEN_SETTINGS=str(folder)
    ) as both:
        matrix = Matrix(both, folder, cells)
        matrix.start()
        matrix.lose_first_runs()
        for cell in cells:
            matrix.act(cell)
        matrix.check_owners()
        matrix.deliver()
        delivered = [cell for cell in cells if cell.owner == "delivered: reused"]
        matrix.forget_keys()
        if any(cell.event == "wipe" for cell in delivered):
            with both.instance() as instance:
                for asset in ASSETS:
                    instance.wipe_assets([dg.AssetKey(asset)])
        others = [cell for cell in cells if cell.event not in {"rename", "lost"}]
        if others:
            matrix.run_again(others)
        renamed = [cell for cell in cells if cell.event == "rename"]
        if renamed:
            matrix.rename("new_")
            matrix.run_again(renamed, prefix="new_", expect="FAILURE")
            assert "order_name='final_video'" in both.dagster.api.why_failed(renamed[0].runs[0])
            matrix.rename("new_", "final_video")
            matrix.run_again(renamed, prefix="new_")
            matrix.rename()
        lost = [cell for cell in cells if cell.event == "lost"]
        if lost:
            both.dagster.stop()
            _continue_on_a_new_instance(both, matrix, lost)
        matrix.check()


def _continue_on_a_new_instance(both: Both, matrix: Matrix, cells: Sequence[Cell]) -> None:
    """The instance is gone with its events and runs; a new one on the same machine has the same ledger."""
    from ugen_provider.cli.demo.dagster import RealDagster

    old = both.dagster
    env = {name: value for name, value in old.env.items() if name.startswith("UGEN_") or name == "PYTHONPATH"}
    home = old.home.with_name("new-home")
    with RealDagster(home, definitions=DEFINITIONS, env=env, ledger=old.ledger) as new:
        matrix.both = Both(new, both.server)
        matrix.api = new.api
        matrix.run_again(cells)


def cell_of(name: str) -> Cell:
    subject, event = name.split("-")
    return Cell(subject, event)  # type: ignore[arg-type]


@pytest.mark.timeout(900)
def test_diagonal_of_the_matrix_buys_each_order_once(tmp_path):
    try_cells(tmp_path, [cell_of(name) for name in DIAGONAL], ledger=str(tmp_path / "ledger.db"))


@pytest.mark.torture
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_row_of_the_matrix_buys_each_order_once(tmp_path, subject, address):
    try_cells(tmp_path, [Cell(subject, event) for event in EVENTS], ledger=address)
