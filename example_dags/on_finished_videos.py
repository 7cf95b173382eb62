# SPDX-License-Identifier: Apache-2.0
"""Whenever a video is finished, something is done with it: one DAG updates the asset, the other is scheduled by it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, dag, task

from ugen_provider.operators.jobs import UGenCreateJobOperator

VIDEOS = Asset("ugen_videos")

with DAG(
    "make_a_video_asset",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["ugen"],
):
    UGenCreateJobOperator(
        task_id="make_video",
        product_name="Tidal Steel Bottle",
        product_image_url="https://shop.example/tidal.jpg",
        segment_count=1,
        deferrable=True,
        poll_interval=5,
        outlets=[VIDEOS],
    )


@dag(
    schedule=[VIDEOS],
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["ugen"],
    doc_md=__doc__,
)
def on_finished_videos():
    @task
    def publish(triggering_asset_events: Any = None) -> list[str]:
        events = [event for events in triggering_asset_events.values() for event in events]
        return [event.extra["ugen"]["final_video_url"] for event in events]

    publish()


on_finished_videos()
