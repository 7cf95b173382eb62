# SPDX-License-Identifier: Apache-2.0
"""Last night's failed jobs are run again from the stage that failed; what succeeded is not paid for twice."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from ugen_provider.operators.jobs import UGenRetryJobOperator


@dag(
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["ugen"],
    doc_md=__doc__,
)
def last_nights_failures():
    @task
    def find_failures(hours: float = 24.0) -> list[str]:
        from ugen_provider.core.jobs.policy import failure_kind
        from ugen_provider.hooks.ugen import UGenHook

        def is_recent(job: Any, now: float) -> bool:
            return job.updated_at is None or now - job.updated_at.timestamp() < hours * 3600

        with UGenHook().get_conn() as client:
            now = time.time()
            failed = client.jobs.list(status="failed")
            return [job.job_id for job in failed if is_recent(job, now) and failure_kind(job) == "passing"]

    UGenRetryJobOperator.partial(
        task_id="again", deferrable=True, poll_interval=5, map_index_template="{{ task.job_id }}"
    ).expand(job_id=find_failures())


last_nights_failures()
