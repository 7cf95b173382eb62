# SPDX-License-Identifier: Apache-2.0
"""A keyframe is approved, and rejected, in every way that Dagster has: commands, the calls of its pages, automation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.real.dagster.conftest import Both, definitions_of, project_with, real_both
from ugen_provider import UGenClient
from ugen_provider.cli.demo.dagster import ENDED, LOCATION
from ugen_provider.cli.demo.processes import child_environment, wait_until
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

pytestmark = pytest.mark.torture

PRODUCTS = ("P-1", "P-2", "P-3")
REST = ["keyframes", "videos", "final_video"]
REJECT = {"ops": {"ugen_videos_approval": {"config": {"decision": "reject", "by": "anna"}}}}
AUTOMATION = "default_automation_condition_sensor"
REPORT = """mutation($event: ReportRunlessAssetEventsParams!) {
  result: reportRunlessAssetEvents(eventParams: $event) { __typename ... on PythonError { message } } }"""
START = """mutation($sensor: SensorSelector!) {
  result: startSensor(sensorSelector: $sensor) { __typename ... on PythonError { message } } }"""


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    path = tmp_path / "feed.csv"
    rows = [f"{key},{key},https://shop.example/{key}.jpg" for key in PRODUCTS]
    path.write_text("\n".join(["id,title,image_link", *rows]))
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    account = {"base_url": "{{ env('UGEN_BASE_URL') }}", "poll_interval": 0.5}
    return project_with(tmp_path, gate={"max_open_gates": 5}, automation="after_approval", account=account)


def statuses(server: EmulatorServer) -> dict[str, str]:
    with UGenClient(api_key=LOCAL_KEY, base_url=server.base_url) as client:
        return {str(job.product_name): job.status for job in client.jobs.list()}


class Shell:
    """A terminal in the project, with an instance of its own and no daemon."""

    def __init__(self, project: Path, home: Path, feed: Path, server: EmulatorServer) -> None:
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        self._project = project
        self._env = child_environment(
            {
                "DAGSTER_HOME": str(home),
                "DAGSTER_DISABLE_TELEMETRY": "1",
                "UGEN_API_KEY": LOCAL_KEY,
                "UGEN_BASE_URL": server.base_url,
                "UGEN_FEED": str(feed),
                "UGEN_OUTPUT": str(home / "videos"),
                "PYTHONPATH": str(project),
                "VIRTUAL_ENV": str(Path(sys.executable).parents[1]),
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            }
        )
        with dg.DagsterInstance.from_config(str(home)) as instance:
            instance.add_dynamic_partitions("ugen_products", list(PRODUCTS))

    def says(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self._project, env=self._env, capture_output=True, text=True, check=False, timeout=300
        )

    def dagster(self, assets: str, partition: str, config: dict[str, Any] | None = None) -> str:
        more = ["--config-json", json.dumps(config)] if config else []
        where = ["-m", "shop_videos.definitions", "--select", assets, "--partition", partition, *more]
        done = self.says(sys.executable, "-m", "dagster", "asset", "materialize", *where)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def dg(self, assets: str, partition: str, config: dict[str, Any] | None = None) -> str:
        more = ["--config-json", json.dumps(config)] if config else []
        done = self.says("dg", "launch", "--assets", assets, "--partition", partition, *more)
        return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("command", ["dagster", "dg"])
def test_by_command(tmp_path, project, feed, command):
    with EmulatorServer(Settings(speed=100.0, admin=True)) as server:
        shell = Shell(project, tmp_path / "home", feed, server)
        run = getattr(shell, command)
        for product in ("P-1", "P-2"):
            assert run("anchor_keyframe", product) == ""
        assert statuses(server) == {"P-1": "paused", "P-2": "paused"}
        assert "is not approved" in run(",".join(REST), "P-1")

        assert run("keyframe_approval", "P-1") == ""
        assert run("keyframe_approval", "P-2", REJECT) == ""
        assert statuses(server) == {"P-1": "paused", "P-2": "cancelled"}
        assert run(",".join(REST), "P-1") == ""
        assert statuses(server) == {"P-1": "completed", "P-2": "cancelled"}
        assert len(server.emulator.journal.purchases) == 2


@pytest.fixture
def both(tmp_path: Path, project: Path, feed: Path) -> Iterator[Both]:
    env = {"UGEN_FEED": str(feed), "PYTHONPATH": str(project)}
    with real_both(tmp_path / "dagster", definitions_of(project), speed=60.0, **env) as made:
        yield made


def run_to_end(both: Both, assets: list[str], partition: str, config: dict[str, Any] | None = None) -> str:
    run = both.dagster.api.launch_run(assets, partitions=[partition], run_config=config)
    wait_until(
        lambda: both.dagster.api.run_status(run) in ENDED,
        what=f"the run of {assets} of {partition}",
        timeout=180.0,
        interval=0.5,
        watch=[both.dagster.processes],
    )
    return both.dagster.api.run_status(run)


def test_approval_by_calls_of_the_pages_continues_by_itself(both):
    api = both.dagster.api
    api.add_partitions("ugen_products", keys=PRODUCTS)
    for product in PRODUCTS:
        assert run_to_end(both, ["anchor_keyframe"], product) == "SUCCESS"
    assert set(statuses(both.server).values()) == {"paused"}
    sensor = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__", "sensorName": AUTOMATION}
    assert api.ask(START, variables={"sensor": sensor})["result"]["__typename"] == "Sensor"

    # Materialize in the launchpad rejects; "Report materialization" and Materialize approve.
    assert run_to_end(both, ["keyframe_approval"], "P-3", REJECT) == "SUCCESS"
    reported = {"eventType": "ASSET_MATERIALIZATION", "partitionKeys": ["P-1"], "description": "by mail"}
    event = reported | {"assetKey": {"path": ["keyframe_approval"]}}
    assert api.ask(REPORT, variables={"event": event})["result"]["__typename"] == "ReportRunlessAssetEventsSuccess"
    assert run_to_end(both, ["keyframe_approval"], "P-2") == "SUCCESS"

    wait_until(
        lambda: statuses(both.server) == {"P-1": "completed", "P-2": "completed", "P-3": "cancelled"},
        what="the two approved videos",
        timeout=240.0,
        interval=1.0,
        watch=[both.dagster.processes],
    )
    wait_until(
        lambda: all(run["status"] in ENDED for run in api.runs()),
        what="all runs to end",
        timeout=180.0,
        interval=1.0,
        watch=[both.dagster.processes],
    )
    with both.instance() as instance:
        made = instance.fetch_materializations(dg.AssetKey("final_video"), limit=10).records
    assert sorted(str(record.partition_key) for record in made) == ["P-1", "P-2"]
    assert {run["status"] for run in api.runs()} == {"SUCCESS"}
    assert len(both.server.emulator.journal.purchases) == len(PRODUCTS)
