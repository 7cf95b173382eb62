# SPDX-License-Identifier: Apache-2.0
"""The assets of the matrix; the file `UGEN_SETTINGS` renames them, and keeps the old name of their orders."""

import os
from pathlib import Path

import dagster as dg

from dagster_ugen import (
    DagsterUGenTranslator,
    Output,
    UGenAssetProps,
    UGenOptions,
    UGenResource,
    UGenVideoAssets,
    build_assets_from_definition,
    build_ugen_reconcile_sensor,
)
from dagster_ugen.requests import as_requests

FOLDER = Path(os.environ["UGEN_SETTINGS"])
SETTINGS = (FOLDER / "names").read_text().split() if (FOLDER / "names").exists() else []
PREFIX = SETTINGS[0] if SETTINGS else ""
ORDER_NAME = SETTINGS[1] if len(SETTINGS) > 1 else None


class Renamed(DagsterUGenTranslator):
    def get_asset_spec(self, props: UGenAssetProps) -> dg.AssetSpec:
        spec = super().get_asset_spec(props)
        return spec.replace_attributes(key=dg.AssetKey(f"{PREFIX}{props.output.value}"))


def request_of(product: str) -> dict[str, object]:
    """Return the request, and note the process that works on it."""
    (FOLDER / f"{product}.pid").write_text(f"{os.getpid()} {os.getppid()}")
    return {"product_name": product, "product_image_url": "https://shop.example/p.jpg", "segment_count": 1}


videos = UGenVideoAssets(
    requests=as_requests(request_of),
    options=UGenOptions(interrupt_grace=20.0),
    order_name=ORDER_NAME,
    translator=Renamed(),
    props=UGenAssetProps(
        output=Output.FINAL_VIDEO, partitions_def=dg.DynamicPartitionsDefinition(name="ugen_products")
    ),
)
account = UGenResource(api_key=dg.EnvVar("UGEN_API_KEY"), base_url=os.environ["UGEN_BASE_URL"], poll_interval=1.0)
defs = dg.Definitions(
    assets=build_assets_from_definition(videos, backfill_policy=dg.BackfillPolicy.multi_run(1)),
    sensors=[
        build_ugen_reconcile_sensor(
            videos, resource=account, minimum_interval_seconds=3, default_status=dg.DefaultSensorStatus.RUNNING
        )
    ],
    resources={"ugen": account},
)
