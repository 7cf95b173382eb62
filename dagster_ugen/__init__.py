# SPDX-License-Identifier: Apache-2.0
"""U-Gen videos as Dagster assets that know what they cost and never run twice.

Here live the resource, the assets over one job, their gate, checks, sensors, partitions and the component. It stands on
`ugen_provider.core` alone. Importing it loads next to nothing; each public name loads its module on first use, and the
HTTP client and the API's models wait until a run starts.

What may come in: one more way to order, record or watch videos in Dagster's own words. What happens to a job is
decided in `core.jobs`.
"""

from typing import TYPE_CHECKING

from ugen_provider.__about__ import __version__ as __version__

if TYPE_CHECKING:
    from dagster_ugen.assets import UGenRunConfig as UGenRunConfig
    from dagster_ugen.assets import UGenVideos as UGenVideos
    from dagster_ugen.assets import assets_of as assets_of
    from dagster_ugen.assets import build_ugen_assets as build_ugen_assets
    from dagster_ugen.assets import ugen_assets as ugen_assets
    from dagster_ugen.automation import after_approval as after_approval
    from dagster_ugen.automation import for_new_products as for_new_products
    from dagster_ugen.automation import when_out_of_date as when_out_of_date
    from dagster_ugen.batch import UGenBatchConfig as UGenBatchConfig
    from dagster_ugen.batch import build_ugen_batch_job as build_ugen_batch_job
    from dagster_ugen.checks import UGenChecks as UGenChecks
    from dagster_ugen.checks import build_ugen_asset_checks as build_ugen_asset_checks
    from dagster_ugen.component import UGenVideosComponent as UGenVideosComponent
    from dagster_ugen.feed_sensor import build_ugen_product_feed_sensor as build_ugen_product_feed_sensor
    from dagster_ugen.gate import UGenApprovalConfig as UGenApprovalConfig
    from dagster_ugen.gate import UGenGate as UGenGate
    from dagster_ugen.gate import approval_of as approval_of
    from dagster_ugen.gate import approve_keyframe as approve_keyframe
    from dagster_ugen.metadata import UGenMetadataSet as UGenMetadataSet
    from dagster_ugen.options import UGenOptions as UGenOptions
    from dagster_ugen.orphans import build_ugen_orphan_sensor as build_ugen_orphan_sensor
    from dagster_ugen.outputs import Output as Output
    from dagster_ugen.partitions import sync_product_partitions as sync_product_partitions
    from dagster_ugen.requests import FeedRequests as FeedRequests
    from dagster_ugen.requests import Requests as Requests
    from dagster_ugen.resource import UGenResource as UGenResource
    from dagster_ugen.sensors import build_ugen_completion_sensor as build_ugen_completion_sensor
    from dagster_ugen.translator import DagsterUGenTranslator as DagsterUGenTranslator
    from dagster_ugen.translator import UGenAssetProps as UGenAssetProps

_HOMES = {
    "DagsterUGenTranslator": "translator",
    "FeedRequests": "requests",
    "Output": "outputs",
    "Requests": "requests",
    "UGenApprovalConfig": "gate",
    "UGenAssetProps": "translator",
    "UGenBatchConfig": "batch",
    "UGenChecks": "checks",
    "UGenGate": "gate",
    "UGenMetadataSet": "metadata",
    "UGenOptions": "options",
    "UGenResource": "resource",
    "UGenRunConfig": "assets",
    "UGenVideos": "assets",
    "UGenVideosComponent": "component",
    "after_approval": "automation",
    "approval_of": "gate",
    "approve_keyframe": "gate",
    "assets_of": "assets",
    "build_ugen_asset_checks": "checks",
    "build_ugen_assets": "assets",
    "build_ugen_batch_job": "batch",
    "build_ugen_completion_sensor": "sensors",
    "build_ugen_orphan_sensor": "orphans",
    "build_ugen_product_feed_sensor": "feed_sensor",
    "for_new_products": "automation",
    "sync_product_partitions": "partitions",
    "ugen_assets": "assets",
    "when_out_of_date": "automation",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"dagster_ugen.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Everything that is public: `dg` looks here for what it can list."""
    return sorted({*globals(), *_HOMES})
