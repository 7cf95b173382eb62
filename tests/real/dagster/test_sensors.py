# SPDX-License-Identifier: Apache-2.0
"""The example project's three sensors in a real daemon: a feed that changes becomes partitions, runs and videos.

The journal of the U-Gen shows the purchases.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from tests.real.dagster.conftest import Both, definitions_of, project_with, real_both
from ugen_provider.cli.demo.dagster import ENDED, LOCATION
from ugen_provider.cli.demo.processes import wait_until

pytestmark = pytest.mark.torture

ASSETS = ["keyframes", "videos", "final_video"]
INTERVALS = {"feed_interval": 5, "completion_interval": 5, "reconcile_interval": 5, "budget": 5000}
FEED, COMPLETION, RECONCILE = "ugen_feed_sensor", "ugen_completion_sensor", "ugen_reconcile_sensor"
START = """mutation($sensor: SensorSelector!) {
  result: startSensor(sensorSelector: $sensor) { __typename ... on PythonError { message } } }"""
TICKS = """query($sensor: SensorSelector!) {
  result: sensorOrError(sensorSelector: $sensor) {
    __typename ... on Sensor { sensorState { ticks(limit: 100) { tickId status skipReason error { message } } } } } }"""


class Shop:
    """A feed that a test writes, and what a real Dagster makes of it."""

    def __init__(self, both: Both, feed: Path) -> None:
        self.both = both
        self._feed = feed

    def sell(self, products: Mapping[str, str]) -> None:
        """Write the feed: titles by product id."""
        rows = [f"{key},{title},https://shop.example/{key}.jpg" for key, title in products.items()]
        written = self._feed.with_suffix(".new")
        written.write_text("\n".join(["id,title,image_link", *rows]))
        written.replace(self._feed)

    @property
    def bought(self) -> Counter[str]:
        return Counter(
            str(each.product_name) for each in self.both.server.emulator.journal.find_purchases(kind="create")
        )

    def videos(self) -> dict[str, set[str]]:
        """The jobs that were recorded for each product."""
        found: dict[str, set[str]] = {}
        with self.both.instance() as instance:
            for record in instance.fetch_materializations(dg.AssetKey("final_video"), limit=1000).records:
                made = record.asset_materialization
                assert made is not None
                found.setdefault(str(made.partition), set()).add(str(made.metadata["ugen/job_id"].value))
        return found

    def start(self, *sensors: str) -> None:
        for name in sensors:
            answer = self.both.dagster.api.ask(START, variables={"sensor": _selector(name)})["result"]
            assert answer["__typename"] == "Sensor", answer

    def ticks(self, sensor: str) -> list[dict[str, Any]]:
        """The ticks that ended, newest first."""
        answer = self.both.dagster.api.ask(TICKS, variables={"sensor": _selector(sensor)})["result"]
        ended = [tick for tick in answer["sensorState"]["ticks"] if tick["status"] != "STARTED"]
        assert not [tick for tick in ended if tick["status"] == "FAILURE"], ended
        return ended

    def ticks_on(self, sensor: str, count: int) -> None:
        """Wait for some more ticks."""
        seen = {tick["tickId"] for tick in self.ticks(sensor)}
        self.until(
            lambda: len({tick["tickId"] for tick in self.ticks(sensor)} - seen) >= count,
            what=f"{count} more ticks of {sensor}",
        )

    def until(self, condition: Callable[[], bool], *, what: str, timeout: float = 240.0) -> None:
        wait_until(condition, what=what, timeout=timeout, interval=1.0, watch=[self.both.dagster.processes])


def _selector(sensor: str) -> dict[str, str]:
    return {"repositoryLocationName": LOCATION, "repositoryName": "__repository__", "sensorName": sensor}


@pytest.fixture
def shop(tmp_path):
    feed = tmp_path / "feed.csv"
    feed.write_text("id,title,image_link\n")
    project = project_with(tmp_path, sensors=INTERVALS)
    with real_both(
        tmp_path / "dagster", definitions_of(project), speed=30.0, UGEN_FEED=str(feed), PYTHONPATH=str(project)
    ) as both:
        yield Shop(both, feed)


def test_a_feed_that_changes_is_bought_and_collected_once(shop):
    products = {f"P-{number}": f"Product {number}" for number in range(6)}
    shop.sell(products)
    shop.start(FEED, COMPLETION, RECONCILE)
    shop.until(lambda: set(shop.videos()) == set(products), what="the videos of six products")
    assert shop.bought == Counter(products.values())

    products |= {"P-1": "Better Product 1", "P-6": "Product 6", "P-7": "Product 7"}
    shop.sell(products)
    shop.until(
        lambda: set(shop.videos()) == set(products) and len(shop.videos()["P-1"]) == 2,
        what="the videos of two new products and of one that changed",
    )
    expected = Counter({**{f"Product {number}": 1 for number in range(8)}, "Better Product 1": 1})
    assert shop.bought == expected

    for sensor in (FEED, COMPLETION, RECONCILE):
        shop.ticks_on(sensor, 2)
    assert shop.bought == expected, "an unchanged feed buys nothing"
    assert {key: len(jobs) for key, jobs in shop.videos().items()} == dict.fromkeys(products, 1) | {"P-1": 2}
    assert "0 jobs are not recorded yet" in shop.ticks(COMPLETION)[0]["skipReason"]
    assert {tick["skipReason"] for tick in shop.ticks(RECONCILE)} == {"0 settled, 0 withdrawn, 0 owed"}, (
        "submitted jobs are the completion sensor's"
    )
    states = Counter(run["status"] for run in shop.both.dagster.api.runs())
    assert set(states) == {"SUCCESS"}, states


def test_job_of_a_killed_run_is_collected_once(shop):
    api = shop.both.dagster.api
    shop.both.server.emulator.clock.set_speed(0.0)
    shop.sell({"P-1": "Product 1"})
    api.add_partitions("ugen_products", keys=["P-1"])
    run = api.launch_run(ASSETS, partitions=["P-1"])
    shop.until(lambda: bool(shop.bought) and _record_names_its_job(shop), what="the purchase")
    for worker in _run_workers(shop.both):
        os.kill(worker.pid, signal.SIGKILL)
    shop.until(lambda: api.run_status(run) == "FAILURE", what="the end of the killed run")

    shop.start(RECONCILE, COMPLETION)
    shop.until(
        lambda: any("1 owed" in (tick["skipReason"] or "") for tick in shop.ticks(RECONCILE)),
        what="the collection to be owed",
    )
    shop.both.server.emulator.clock.set_speed(60.0)
    shop.until(lambda: set(shop.videos()) == {"P-1"}, what="the completion sensor to collect it")
    shop.until(lambda: all(each["status"] in ENDED for each in api.runs()), what="all runs to end")
    assert shop.bought == Counter({"Product 1": 1})


def test_products_of_a_run_terminated_in_the_queue_are_bought(tmp_path):
    """The run that the feed sensor requested is terminated while it waits in the queue."""
    feed = tmp_path / "feed.csv"
    feed.write_text("id,title,image_link\n")
    project = project_with(tmp_path, sensors=INTERVALS)
    queue = {"run_queue": {"max_concurrent_runs": 0, "dequeue_interval_seconds": 1}}
    env = {"UGEN_FEED": str(feed), "PYTHONPATH": str(project)}
    with real_both(tmp_path / "dagster", definitions_of(project), speed=30.0, instance=queue, **env) as both:
        shop = Shop(both, feed)
        shop.sell({f"P-{number}": f"Product {number}" for number in range(3)})
        shop.start(FEED)
        shop.until(lambda: len(both.dagster.api.runs()) == 1, what="the request of a run")
        [first] = both.dagster.api.runs()
        both.dagster.api.terminate(first["runId"])
        shop.until(lambda: len(both.dagster.api.runs()) == 2, what="the request of another run")
        shop.ticks_on(FEED, 2)
        assert [run["status"] for run in both.dagster.api.runs()] == ["QUEUED", "CANCELED"]
        assert not shop.bought


def _record_names_its_job(shop: Shop) -> bool:
    from ugen_provider.core.ledger.orders import LedgerOrderStore
    from ugen_provider.ledger import Ledger

    with Ledger(shop.both.dagster.ledger) as ledger:
        found = LedgerOrderStore(ledger).find('["","partition","final_video","P-1"')
    return bool(found) and found[0][0].job_id is not None


def _run_workers(both: Both) -> list[psutil.Process]:
    """The processes below the code server: run workers and their steps."""
    home = str(both.dagster.home)
    servers = [
        process
        for process in psutil.process_iter(["cmdline"])
        if {"api", "grpc"} <= set(process.info["cmdline"] or ()) and process.environ().get("DAGSTER_HOME") == home
    ]
    return [child for server in servers for child in server.children(recursive=True)]
