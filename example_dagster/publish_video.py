# SPDX-License-Identifier: Apache-2.0
"""A finished video is published: its file is copied to where the shop serves it, and the shop's list names it."""

import json
import os
import shutil
from pathlib import Path

import dagster as dg

from dagster_ugen import UGenResource, UGenVideo, build_ugen_assets

PUBLIC = Path(os.environ.get("SHOP_PUBLIC", "public"))
products = dg.StaticPartitionsDefinition(["LL-1001", "LL-1002"])


def request_of(product: str) -> dict[str, object]:
    return {
        "product_name": f"Lamp {product}",
        "product_image_url": f"https://shop.example/{product}.jpg",
        "segment_count": 1,
    }


@dg.asset(partitions_def=products)
def published_video(final_video: UGenVideo) -> dg.MaterializeResult:
    """Copy the file of one product, and say what it is."""
    if final_video.lowest_score is not None and final_video.lowest_score < 0.5:
        raise dg.Failure(f"{final_video.partition}: the score is {final_video.lowest_score}", allow_retries=False)
    PUBLIC.mkdir(parents=True, exist_ok=True)
    target = PUBLIC / f"{final_video.partition}.mp4"
    shutil.copyfile(final_video.path, target)
    return dg.MaterializeResult(
        metadata={"dagster/uri": str(target), "job": final_video.job_id, "credits": final_video.credits}
    )


@dg.asset(deps=[published_video])
def shop_list(final_video: dict[str, UGenVideo]) -> dg.MaterializeResult:
    """List the videos of all products for the shop: an input without partitions gets all of them."""
    rows = [{"id": key, "video": f"{key}.mp4", "seconds": video.duration} for key, video in final_video.items()]
    (PUBLIC / "videos.json").write_text(json.dumps(rows, indent=2))
    return dg.MaterializeResult(metadata={"videos": len(rows)})


defs = dg.Definitions(
    assets=[
        *build_ugen_assets(
            requests=request_of, partitions_def=products, destination=os.environ.get("UGEN_OUTPUT", "videos")
        ),
        published_video,
        shop_list,
    ],
    resources={"ugen": UGenResource(api_key=dg.EnvVar("UGEN_API_KEY"), base_url=os.environ.get("UGEN_BASE_URL"))},
)
