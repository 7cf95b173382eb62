# SPDX-License-Identifier: Apache-2.0
"""A hundred jobs of one run, with retries enough for processes that are lost under them."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from ugen_provider.operators.jobs import UGenCreateJobOperator

with DAG("hundred_jobs", schedule=None, catchup=False):
    UGenCreateJobOperator.partial(
        task_id="job",
        product_image_url="https://shop.example/lamp.png",
        segment_count=1,
        poll_interval=1.0,
        deferrable=True,
        retries=9,
        retry_delay=timedelta(seconds=1),
    ).expand(product_name=[f"One of a hundred: {number}" for number in range(100)])
