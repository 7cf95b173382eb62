# SPDX-License-Identifier: Apache-2.0
"""U-Gen videos as Dagster assets: one job per partition, bought once.

The package has the resource, the assets over one job, their gate, checks, sensors, partitions and the component. It is
built on `ugen_provider.core` alone. Each public name loads its module on first use; the HTTP client and the API's
models are loaded when a run starts.

Allowed here: ways to order, record and poll videos in Dagster's terms. `core.jobs` decides about jobs.
"""

from typing import TYPE_CHECKING

from dagster_shared.libraries import DagsterLibraryRegistry

from ugen_provider.__about__ import __version__ as __version__

if TYPE_CHECKING:
    from dagster_ugen.approval import UGenApprovalConfig as UGenApprovalConfig
    from dagster_ugen.approval import approval_of as approval_of
    from dagster_ugen.approval import approve_keyframe as approve_keyframe
    from dagster_ugen.asset_job import build_ugen_approval_jobs as build_ugen_approval_jobs
    from dagster_ugen.asset_job import build_ugen_asset_job as build_ugen_asset_job
    from dagster_ugen.assets import UGenExportConfig as UGenExportConfig
    from dagster_ugen.assets import UGenVideoAssets as UGenVideoAssets
    from dagster_ugen.assets import build_assets_from_definition as build_assets_from_definition
    from dagster_ugen.assets import build_ugen_assets as build_ugen_assets
    from dagster_ugen.assets import build_ugen_export_asset as build_ugen_export_asset
    from dagster_ugen.assets import ugen_assets as ugen_assets
    from dagster_ugen.checks import UGenChecks as UGenChecks
    from dagster_ugen.checks import build_ugen_asset_checks as build_ugen_asset_checks
    from dagster_ugen.component import UGenVideosComponent as UGenVideosComponent
    from dagster_ugen.definition import DagsterUGenTranslator as DagsterUGenTranslator
    from dagster_ugen.definition import Output as Output
    from dagster_ugen.definition import UGenAssetProps as UGenAssetProps
    from dagster_ugen.definition import UGenGate as UGenGate
    from dagster_ugen.definition import UGenOptions as UGenOptions
    from dagster_ugen.definition import UGenRunConfig as UGenRunConfig
    from dagster_ugen.definition import after_approval as after_approval
    from dagster_ugen.definition import for_new_products as for_new_products
    from dagster_ugen.definition import when_out_of_date as when_out_of_date
    from dagster_ugen.feed_sensor import build_ugen_product_feed_sensor as build_ugen_product_feed_sensor
    from dagster_ugen.feed_sensor import sync_product_partitions as sync_product_partitions
    from dagster_ugen.reconcile_sensor import build_ugen_reconcile_sensor as build_ugen_reconcile_sensor
    from dagster_ugen.requests import AssetRequests as AssetRequests
    from dagster_ugen.requests import FeedRequests as FeedRequests
    from dagster_ugen.requests import Requests as Requests
    from dagster_ugen.resource import UGenResource as UGenResource
    from dagster_ugen.results import UGenMetadataSet as UGenMetadataSet
    from dagster_ugen.results import UGenVideo as UGenVideo
    from dagster_ugen.results import video_of as video_of
    from dagster_ugen.sensors import build_ugen_completion_sensor as build_ugen_completion_sensor

DagsterLibraryRegistry.register("ugen-provider", __version__, is_dagster_package=False)

__all__ = [
    "AssetRequests",
    "DagsterUGenTranslator",
    "FeedRequests",
    "Output",
    "Requests",
    "UGenApprovalConfig",
    "UGenAssetProps",
    "UGenChecks",
    "UGenExportConfig",
    "UGenGate",
    "UGenMetadataSet",
    "UGenOptions",
    "UGenResource",
    "UGenRunConfig",
    "UGenVideo",
    "UGenVideoAssets",
    "UGenVideosComponent",
    "after_approval",
    "approval_of",
    "approve_keyframe",
    "build_assets_from_definition",
    "build_ugen_approval_jobs",
    "build_ugen_asset_checks",
    "build_ugen_asset_job",
    "build_ugen_assets",
    "build_ugen_completion_sensor",
    "build_ugen_export_asset",
    "build_ugen_product_feed_sensor",
    "build_ugen_reconcile_sensor",
    "for_new_products",
    "sync_product_partitions",
    "ugen_assets",
    "video_of",
    "when_out_of_date",
]

_HOMES = {
    "AssetRequests": "requests",
    "DagsterUGenTranslator": "definition",
    "FeedRequests": "requests",
    "Output": "definition",
    "Requests": "requests",
    "UGenApprovalConfig": "approval",
    "UGenAssetProps": "definition",
    "UGenChecks": "checks",
    "UGenExportConfig": "assets",
    "UGenGate": "definition",
    "UGenMetadataSet": "results",
    "UGenOptions": "definition",
    "UGenResource": "resource",
    "UGenRunConfig": "definition",
    "UGenVideo": "results",
    "UGenVideoAssets": "assets",
    "UGenVideosComponent": "component",
    "after_approval": "definition",
    "approval_of": "approval",
    "approve_keyframe": "approval",
    "build_assets_from_definition": "assets",
    "build_ugen_approval_jobs": "asset_job",
    "build_ugen_asset_checks": "checks",
    "build_ugen_asset_job": "asset_job",
    "build_ugen_assets": "assets",
    "build_ugen_completion_sensor": "sensors",
    "build_ugen_export_asset": "assets",
    "build_ugen_product_feed_sensor": "feed_sensor",
    "build_ugen_reconcile_sensor": "reconcile_sensor",
    "for_new_products": "definition",
    "sync_product_partitions": "feed_sensor",
    "ugen_assets": "assets",
    "video_of": "results",
    "when_out_of_date": "definition",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"dagster_ugen.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Everything that is public: `dg` lists these names."""
    return sorted({*globals(), *_HOMES})
