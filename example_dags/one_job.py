# SPDX-License-Identifier: Apache-2.0
"""One product becomes one video. Run it twice, clear it, kill it: it is bought once."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from ugen_provider.operators.jobs import UGenCreateJobOperator

with DAG(
    "one_job",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["ugen"],
    doc_md=__doc__,
):
    UGenCreateJobOperator(
        task_id="make_video",
        product_name="Aurora Desk Lamp",
        product_image_url="https://shop.example/aurora.jpg",
        segment_count=1,
        deferrable=True,
        poll_interval=5,
    )
