# SPDX-License-Identifier: Apache-2.0
"""U-Gen videos as Dagster assets that know what they cost and never run twice.

Here live the resource, the assets over one job, their gate, checks, sensors, partitions and the component. It stands on
`ugen_provider.core` alone, and importing it loads neither an HTTP client nor the API's models.
"""

from dagster_ugen.assets import UGenRunConfig as UGenRunConfig
from dagster_ugen.assets import UGenVideos as UGenVideos
from dagster_ugen.assets import assets_of as assets_of
from dagster_ugen.assets import build_ugen_assets as build_ugen_assets
from dagster_ugen.assets import ugen_assets as ugen_assets
from dagster_ugen.batch import UGenBatchConfig as UGenBatchConfig
from dagster_ugen.batch import build_ugen_batch_job as build_ugen_batch_job
from dagster_ugen.checks import UGenChecks as UGenChecks
from dagster_ugen.checks import build_ugen_asset_checks as build_ugen_asset_checks
from dagster_ugen.feed_sensor import build_ugen_product_feed_sensor as build_ugen_product_feed_sensor
from dagster_ugen.gate import UGenApprovalConfig as UGenApprovalConfig
from dagster_ugen.gate import UGenGate as UGenGate
from dagster_ugen.gate import approve_keyframe as approve_keyframe
from dagster_ugen.metadata import UGenMetadataSet as UGenMetadataSet
from dagster_ugen.options import UGenOptions as UGenOptions
from dagster_ugen.orphans import build_ugen_orphan_sensor as build_ugen_orphan_sensor
from dagster_ugen.outputs import Output as Output
from dagster_ugen.partitions import sync_product_partitions as sync_product_partitions
from dagster_ugen.requests import FeedRequests as FeedRequests
from dagster_ugen.resource import UGenResource as UGenResource
from dagster_ugen.sensors import build_ugen_completion_sensor as build_ugen_completion_sensor
from dagster_ugen.translator import DagsterUGenTranslator as DagsterUGenTranslator
from dagster_ugen.translator import UGenAssetProps as UGenAssetProps
from ugen_provider.__about__ import __version__ as __version__
