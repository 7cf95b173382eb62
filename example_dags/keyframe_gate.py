# SPDX-License-Identifier: Apache-2.0
"""Money goes only into approved keyframes: the job stops after its first keyframe, a person approves that
picture in Airflow's pages, and the same job continues. A rejection, or a day without an answer, cancels it."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from ugen_provider.operators.jobs import UGenCreateJobOperator, UGenResumeJobOperator
from ugen_provider.operators.review import UGenKeyframeApprovalOperator

with DAG(
    "keyframe_gate",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["ugen"],
    doc_md=__doc__,
):
    look = UGenCreateJobOperator(
        task_id="make_keyframe",
        product_name="Aurora Desk Lamp",
        product_image_url="https://shop.example/aurora.jpg",
        segment_count=1,
        stop_at_stage="init",
        deferrable=True,
        poll_interval=5,
    )
    approval = UGenKeyframeApprovalOperator(task_id="approve", job_id=look.output, response_timeout=timedelta(days=1))
    UGenResumeJobOperator(task_id="go_on", approval=approval.output, deferrable=True, poll_interval=5)
