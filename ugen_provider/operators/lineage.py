# SPDX-License-Identifier: Apache-2.0
"""OpenLineage: which picture a job was made from, where its videos are, and what it cost.

Airflow's OpenLineage provider asks an operator for its facets when its task is over, and nobody else does; without that
provider nothing of this is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

FACET = "ugen_job"
_TOLD = ("job_id", "status", "how", "generation", "credits_reserved", "credits_consumed")


def dataset_address(address: str) -> tuple[str, str]:
    """Namespace and name of what stands at an address, by OpenLineage's naming; without a signature or a login.

    Examples:
        >>> dataset_address("s3://aws_default@videos/LL-1/manifest.json")
        ('s3://videos', 'LL-1/manifest.json')
        >>> dataset_address("https://shop.example/lamp.jpg?sig=abc")
        ('https://shop.example', '/lamp.jpg')
        >>> dataset_address("/data/videos")
        ('file', '/data/videos')
    """
    parts = urlsplit(address)
    if parts.scheme in {"", "file"}:
        return "file", parts.path
    host = parts.netloc.rpartition("@")[2]
    path = parts.path if parts.scheme in {"http", "https"} else parts.path.lstrip("/")
    return f"{parts.scheme}://{host}", path or "/"


def lineage(result: Mapping[str, Any], *, picture: str | None, video_model: str | None) -> Any:
    """An `OperatorLineage` of a job.

    Args:
        result: What the task returned, as far as it came.
        picture: Address of the product's picture.
        video_model: The model that was asked for; None for the service's default.
    """
    extractors = import_module("airflow.providers.openlineage.extractors")
    event, facets = import_module("openlineage.client.event_v2"), import_module("openlineage.client.facet_v2")
    made = result.get("manifest") or result.get("final_video_url")
    if result.get("manifest"):
        made = str(made).rpartition("/")[0]  # the folder: the manifest names its files

    def named(kind: Any, address: str) -> Any:
        namespace, name = dataset_address(address)
        return kind(namespace=namespace, name=name)

    told = {name: result.get(name) for name in _TOLD}
    facet = facets.RunFacet().with_additional_properties(**told, video_model=video_model)
    return extractors.OperatorLineage(
        inputs=[named(event.InputDataset, picture)] if picture else [],
        outputs=[named(event.OutputDataset, str(made))] if made else [],
        run_facets={FACET: facet},
    )
