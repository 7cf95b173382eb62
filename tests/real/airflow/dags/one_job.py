# SPDX-License-Identifier: Apache-2.0
"""One job, waited for in the triggerer, in a worker, and in a run that may not take long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from ugen_provider.operators.jobs import UGenCreateJobOperator

JOB: dict[str, Any] = {
    "product_name": "{{ dag_run.conf['product'] }}",
    "product_image_url": "https://shop.example/lamp.png",
    "segment_count": 1,
    "poll_interval": 1.0,
}

# With a retry, since Airflow itself now and then fails a task that comes back at once (executor event races).
with DAG("deferred_job", schedule=None, catchup=False):
    UGenCreateJobOperator(task_id="job", deferrable=True, retries=1, retry_delay=timedelta(seconds=1), **JOB)

with DAG("deferred_job_with_retries", schedule=None, catchup=False):
    UGenCreateJobOperator(
        task_id="job", deferrable=True, retries=2, retry_delay=timedelta(seconds=1), timeout=8.0, **JOB
    )

with DAG("blocking_job", schedule=None, catchup=False):
    UGenCreateJobOperator(task_id="job", deferrable=False, retries=2, retry_delay=timedelta(seconds=1), **JOB)

# Long enough for a busy machine to put the task to sleep, and for its trigger to be loaded.
with DAG("short_run", schedule=None, catchup=False, dagrun_timeout=timedelta(seconds=30)):
    UGenCreateJobOperator(task_id="job", deferrable=True, retries=1, retry_delay=timedelta(seconds=1), **JOB)

# Two rows of a feed that name the same product: one job, which neither of them owns alone.
with DAG("shared_job", schedule=None, catchup=False):
    UGenCreateJobOperator.partial(
        task_id="job",
        deferrable=True,
        retries=1,
        retry_delay=timedelta(seconds=1),
        scope_key="lamp",
        ugen_conn_id="ugen_with_ledger",
        **JOB,
    ).expand(cta_text=["Buy now", "Buy now"])
