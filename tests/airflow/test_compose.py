# SPDX-License-Identifier: Apache-2.0
"""What `airflow/compose.yaml` mounts, without a Docker: the example DAGs find what they read."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

AIRFLOW = Path(__file__).parents[2] / "airflow"


@pytest.fixture
def containers(tmp_path: Path) -> tuple[dict[str, Any], Path]:
    """The file, and its mounted folders as a container sees them, below a folder of the test."""
    compose = yaml.safe_load((AIRFLOW / "compose.yaml").read_text())
    for volume in compose["x-airflow"]["volumes"]:
        source, target = volume.split(":")[:2]
        if source.startswith("."):
            shutil.copytree(AIRFLOW / source, tmp_path / target.lstrip("/"))
    return compose, tmp_path


@pytest.mark.parametrize("example", ["feed_to_videos", "feed_in_one_task"])
def test_the_feed_of_the_examples_is_in_the_containers(
    containers: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    monkeypatch.delenv("UGEN_FEED", raising=False)
    read = runpy.run_path(str(containers[1] / f"opt/airflow/dags/{example}.py"))
    assert Path(read["FEED"]).is_file()


def test_compose_runs_two_triggerers_with_the_provider(
    containers: tuple[dict[str, Any], Path],
) -> None:
    services = containers[0]["services"]
    ours = {name: service for name, service in services.items() if name not in {"postgres", "redis"}}
    assert [service["command"] for service in ours.values()].count("triggerer") == 2
    assert {service["image"] for service in ours.values()} == {"ugen-airflow:local"}
    assert "pools set ugen" in services["prepare"]["command"][0]
    assert "--include-deferred" in services["prepare"]["command"][0]


def test_the_image_can_read_the_ledger(containers: tuple[dict[str, Any], Path]) -> None:
    airflow = containers[0]["x-airflow"]
    assert airflow["environment"]["AIRFLOW_CONN_UGEN_LEDGER"].startswith("postgres://")
    assert "/opt/ugen-provider[airflow,postgres]" in airflow["build"]["dockerfile_inline"]
