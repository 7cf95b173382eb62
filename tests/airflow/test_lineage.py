# SPDX-License-Identifier: Apache-2.0
"""Reports to OpenLineage about a job. The facets need its library, with which they are tested where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.deferring import run
from ugen_provider.operators.base import LINEAGE_FACET, dataset_address
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.operators.jobs import UGenCreateJobOperator
from ugen_provider.operators.media import UGenDownloadOutputsOperator

LAMP: dict[str, Any] = {
    "product_name": "Lamp",
    "product_image_url": "https://shop.example/lamp.png?sig=secret",
    "segment_count": 1,
}


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("s3://videos/LL-1/x", ("s3://videos", "LL-1/x")),
        ("s3://aws_default@videos/LL-1", ("s3://videos", "LL-1")),
        ("gs://videos/", ("gs://videos", "/")),
        ("file:///data/videos", ("file", "/data/videos")),
        ("/data/videos", ("file", "/data/videos")),
        ("https://shop.example/lamp.png?sig=secret", ("https://shop.example", "/lamp.png")),
        ("https://user:pass@shop.example:8443/a", ("https://shop.example:8443", "/a")),
    ],
)
def test_datasets_have_openlineage_names_without_secrets(address: str, named: tuple[str, str]) -> None:
    assert dataset_address(address) == named


class TestFacets:
    @pytest.fixture(autouse=True)
    def _openlineage(self, connection: Any, moving_clock: Any) -> None:
        pytest.importorskip("airflow.providers.openlineage", reason="Airflow's OpenLineage provider is not installed")

    def reported(self, task: Any) -> dict[str, Any]:
        """As it would be sent."""
        from openlineage.client.serde import Serde

        found = task.get_openlineage_facets_on_complete(None)
        return {
            "inputs": [json.loads(Serde.to_json(one)) for one in found.inputs],
            "outputs": [json.loads(Serde.to_json(one)) for one in found.outputs],
            "facet": json.loads(Serde.to_json(found.run_facets[LINEAGE_FACET])),
        }

    @pytest.mark.parametrize("deferrable", [False, True], ids=["blocking", "deferred"])
    def test_a_job_has_its_picture_its_folder_and_what_it_cost(
        self, attempts: Any, tmp_path: Path, deferrable: bool
    ) -> None:
        task = UGenCreateJobOperator(task_id="job", deferrable=deferrable, output_path=str(tmp_path), **LAMP)
        result = run(task, attempts.next())
        reported = self.reported(task)
        assert [(one["namespace"], one["name"]) for one in reported["inputs"]] == [
            ("https://shop.example", "/lamp.png")
        ]
        assert [(one["namespace"], one["name"]) for one in reported["outputs"]] == [
            ("file", str(tmp_path / result["job_id"]))
        ]
        assert {name: reported["facet"][name] for name in ("job_id", "status", "credits_consumed", "outcome")} == {
            name: result[name] for name in ("job_id", "status", "credits_consumed", "outcome")
        }
        assert "secret" not in json.dumps(reported)

    def test_without_a_destination_the_video_has_the_service_address(self, attempts: Any) -> None:
        task = UGenCreateJobOperator(task_id="job", **LAMP)
        result = run(task, attempts.next())
        (video,) = self.reported(task)["outputs"]
        assert result["final_video_url"].startswith(video["namespace"] + video["name"])

    def test_a_failed_job_is_reported_by_its_id(self, attempts: Any, ugen_faults: Any) -> None:
        ugen_faults.job(fail_at="agents", kind="moderation")
        context, task = attempts.next(), UGenCreateJobOperator(task_id="job", **LAMP)
        with pytest.raises(UGenFailure):
            run(task, context)
        reported = self.reported(task)
        assert (reported["facet"]["job_id"], reported["outputs"]) == (context["ti"].xcoms["job_id"], [])

    def test_a_download_has_the_folder(self, attempts: Any, tmp_path: Path) -> None:
        job_id = run(UGenCreateJobOperator(task_id="job", **LAMP), attempts.next())["job_id"]
        task = UGenDownloadOutputsOperator(task_id="collect", job_id=job_id, output_path=str(tmp_path))
        run(task, attempts.next())
        (folder,) = self.reported(task)["outputs"]
        assert folder["name"] == str(tmp_path / job_id)

    def test_a_task_without_a_job_reports_nothing(self) -> None:
        assert UGenCreateJobOperator(task_id="job", **LAMP).get_openlineage_facets_on_complete(None) is None
