# SPDX-License-Identifier: Apache-2.0
"""A gate with a short time to answer."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from ugen_provider.operators.jobs import UGenCreateJobOperator, UGenResumeJobOperator
from ugen_provider.operators.review import UGenKeyframeApprovalOperator

with DAG("short_gate", schedule=None, catchup=False, default_args={"retries": 2, "retry_delay": timedelta(seconds=1)}):
    look = UGenCreateJobOperator(
        task_id="make_keyframe",
        product_name="{{ dag_run.conf['product'] }}",
        product_image_url="https://shop.example/lamp.png",
        segment_count=1,
        stop_at_stage="init",
        deferrable=True,
        poll_interval=1.0,
    )
    approval = UGenKeyframeApprovalOperator(
        task_id="approve", job_id=look.output, response_timeout=timedelta(seconds=10)
    )
    UGenResumeJobOperator(task_id="go_on", approval=approval.output, deferrable=True, poll_interval=1.0)
