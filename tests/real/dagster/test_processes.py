# SPDX-License-Identifier: Apache-2.0
"""Every process of a real Dagster, killed in turn under a hundred jobs: while they are bought, and while they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.real.dagster.conftest import Both, real_both
from ugen_provider import UGenClient
from ugen_provider.cli.demo.dagster import BACKFILL_ENDED, ENDED
from ugen_provider.cli.demo.processes import wait_until
from ugen_provider.emulator.settings import LOCAL_KEY

pytestmark = pytest.mark.torture
DEFINITIONS = Path(__file__).with_name("hundred_defs.py")
ASSETS = ["keyframes", "videos", "final_video"]
PRODUCTS = [f"p{number:03}" for number in range(100)]
PATIENCE = 400.0


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    with real_both(tmp_path / "dagster", DEFINITIONS, speed=0.0) as made:
        yield made


def lose(both: Both, name: str) -> None:
    """Kill a process with all that it started, and start it again."""
    both.start_again(next(each for each in both.dagster.processes.running if each.name == f"dagster {name}"))
    both.dagster.wait_ready()


@pytest.mark.timeout(1800)
def test_each_process_killed_under_a_hundred_jobs_buys_once(both: Both) -> None:
    api, world = both.dagster.api, both.server.emulator

    def jobs() -> Counter[str]:
        with UGenClient(api_key=LOCAL_KEY, base_url=both.server.base_url) as client:
            return Counter(job.status for job in client.jobs.list())

    def until(condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, what=what, timeout=PATIENCE, interval=0.5, watch=[both.dagster.processes])

    def bought(count: int) -> None:
        until(lambda: len(world.journal.find_purchases(kind="create")) >= count, f"{count} jobs being bought")

    backfill = api.launch_backfill(ASSETS, partitions=PRODUCTS)
    bought(10)
    lose(both, "daemon")
    bought(40)
    lose(both, "webserver")
    bought(70)
    # The runs are children of the code server's, and end with it. Dagster is not informed: a person has to end them.
    lose(both, "code server")
    for run in api.runs():
        if run["status"] not in ENDED:
            api.terminate(run["runId"], at_once=True)
    until(lambda: api.backfill_status(backfill) in BACKFILL_ENDED, "the backfill being over")

    again = api.launch_backfill(ASSETS, partitions=PRODUCTS)
    bought(len(PRODUCTS))
    for count, name in ((20, "daemon"), (50, "webserver")):

        def ended(count: int = count) -> bool:
            world.advance(5.0)
            return jobs()["completed"] >= count

        until(ended, f"{count} jobs being completed")
        lose(both, name)
    world.clock.set_speed(100.0)
    until(lambda: api.backfill_status(again) in BACKFILL_ENDED, "the second backfill being over")
    world.clock.set_speed(0.0)
    assert api.backfill_status(again) == "COMPLETED_SUCCESS"
    made = Counter(entry.product_name for entry in world.journal.find_purchases(kind="create"))
    assert made == Counter(PRODUCTS)
    assert jobs() == {"completed": len(PRODUCTS)}
    with both.instance() as instance:
        records = instance.fetch_materializations(dg.AssetKey("final_video"), limit=1000).records
    assert {record.partition_key for record in records} == set(PRODUCTS)
    assert world.accounts.by_name["local"].credits.reserved == 0
