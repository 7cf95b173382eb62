# SPDX-License-Identifier: Apache-2.0
"""The service reads the picture and proposes the script; the job is made from it. The proposal is free."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from ugen_provider.operators.jobs import UGenCreateJobOperator
from ugen_provider.operators.media import UGenSuggestFieldsOperator

with DAG(
    "suggest_then_create",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["ugen"],
    doc_md=__doc__,
):
    suggest = UGenSuggestFieldsOperator(
        task_id="suggest",
        product_name="Aurora Desk Lamp",
        product_image_url="https://shop.example/aurora.jpg",
        segment_count=1,
    )
    UGenCreateJobOperator(task_id="make_video", job=suggest.output, deferrable=True, poll_interval=5)
