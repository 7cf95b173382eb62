# SPDX-License-Identifier: Apache-2.0
"""A hundred products in four runs of 25 partitions each."""

import os
from typing import Any

import dagster as dg

from dagster_ugen import UGenOptions, UGenResource, build_ugen_assets

PRODUCTS = [f"p{number:03}" for number in range(100)]


def request_of(product: str) -> dict[str, Any]:
    return {"product_name": product, "product_image_url": f"https://shop.example/{product}.jpg", "segment_count": 1}


defs = dg.Definitions(
    assets=build_ugen_assets(
        requests=request_of,
        partitions_def=dg.StaticPartitionsDefinition(PRODUCTS),
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=25),
        options=UGenOptions(interrupt_grace=20.0),
    ),
    resources={
        "ugen": UGenResource(api_key=dg.EnvVar("UGEN_API_KEY"), base_url=os.environ["UGEN_BASE_URL"], poll_interval=1.0)
    },
)
