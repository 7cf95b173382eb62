# SPDX-License-Identifier: Apache-2.0
"""The example project's three sensors in a real daemon: a feed that changes becomes partitions, runs and videos.

What was bought is read from the journal of the U-Gen.
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
from ugen_provider.cli.demo.dagster_api import ENDED, LOCATION
from ugen_provider.cli.demo.processes import wait_until

pytestmark = pytest.mark.torture

ASSETS = ["keyframes", "videos", "final_video"]
FEED, COMPLETION, ORPHANS = "ugen_feed_sensor", "ugen_completion_sensor", "ugen_orphan_sensor"
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
    project = project_with(tmp_path, sensors={"feed_interval": 5, "completion_interval": 5, "orphan_interval": 5})
    with real_both(
        tmp_path / "dagster", definitions_of(project), speed=30.0, UGEN_FEED=str(feed), PYTHONPATH=str(project)
    ) as both:
        yield Shop(both, feed)


def test_a_feed_that_changes_is_bought_and_collected_once(shop):
    products = {f"P-{number}": f"Product {number}" for number in range(6)}
    shop.sell(products)
    shop.start(FEED, COMPLETION, ORPHANS)
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

    for sensor in (FEED, COMPLETION, ORPHANS):
        shop.ticks_on(sensor, 2)
    assert shop.bought == expected, "a feed that stays as it is buys nothing"
    assert {key: len(jobs) for key, jobs in shop.videos().items()} == dict.fromkeys(products, 1) | {"P-1": 2}
    assert "0 jobs are not recorded yet" in shop.ticks(COMPLETION)[0]["skipReason"]
    assert {tick["skipReason"] for tick in shop.ticks(ORPHANS)} == {"0 jobs that nobody waits for, 0 cancelled"}, (
        "what was submitted is the completion sensor's"
    )
    states = Counter(run["status"] for run in shop.both.dagster.api.runs())
    assert set(states) == {"SUCCESS"}, states


def test_a_job_whose_run_was_killed_is_named_until_a_run_attaches(shop):
    api = shop.both.dagster.api
    shop.both.server.emulator.clock.set_speed(0.0)
    shop.sell({"P-1": "Product 1"})
    api.add_partitions("ugen_products", keys=["P-1"])
    run = api.launch_run(ASSETS, partitions=["P-1"])
    shop.until(lambda: bool(shop.bought) and _intent_names_its_job(shop), what="the purchase")
    for worker in _run_workers(shop.both):
        os.kill(worker.pid, signal.SIGKILL)
    shop.until(lambda: api.run_status(run) == "FAILURE", what="the end of the killed run")

    shop.start(ORPHANS, COMPLETION)
    shop.until(
        lambda: any("1 jobs that nobody waits for" in (tick["skipReason"] or "") for tick in shop.ticks(ORPHANS)),
        what="the orphan to be named",
    )
    assert "P-1 (" in next(tick["skipReason"] for tick in shop.ticks(ORPHANS))
    shop.both.server.emulator.clock.set_speed(60.0)
    shop.until(lambda: set(shop.videos()) == {"P-1"}, what="the completion sensor to collect it")
    shop.until(lambda: all(each["status"] in ENDED for each in api.runs()), what="all runs to end")
    assert shop.bought == Counter({"Product 1": 1})


def _intent_names_its_job(shop: Shop) -> bool:
    from dagster_ugen.intents import IntentLog

    with shop.both.instance() as instance:
        intent = IntentLog(instance, asset_key=dg.AssetKey("final_video"), holder="test").newest("P-1")
        return intent is not None and intent.job_id is not None


def _run_workers(both: Both) -> list[psutil.Process]:
    """The processes below the code server: run workers and their steps."""
    home = str(both.dagster.home)
    servers = [
        process
        for process in psutil.process_iter(["cmdline"])
        if {"api", "grpc"} <= set(process.info["cmdline"] or ()) and process.environ().get("DAGSTER_HOME") == home
    ]
    return [child for server in servers for child in server.children(recursive=True)]
