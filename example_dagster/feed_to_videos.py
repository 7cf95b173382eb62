# SPDX-License-Identifier: Apache-2.0
"""A product feed becomes videos: one partition per product, and no product is ever bought twice."""

import os
from pathlib import Path

import dagster as dg

from dagster_ugen import FeedRequests, UGenResource, build_ugen_assets

HERE = Path(__file__).parent
NEAREST_FEED = next((feed for feed in (HERE.parent / "examples" / "feed.xml", HERE / "feed.xml") if feed.exists()), "")

products = dg.DynamicPartitionsDefinition(name="ugen_products")

defs = dg.Definitions(
    assets=build_ugen_assets(
        requests=FeedRequests(os.environ.get("UGEN_FEED", str(NEAREST_FEED)), job_defaults={"segment_count": 1}),
        partitions_def=products,
        destination=os.environ.get("UGEN_OUTPUT", "videos"),
    ),
    resources={
        "ugen": UGenResource(
            api_key=dg.EnvVar("UGEN_API_KEY"),
            base_url=os.environ.get("UGEN_BASE_URL"),
            ledger=os.environ.get("UGEN_LEDGER"),
            poll_interval=5.0,
        )
    },
)
