# SPDX-License-Identifier: Apache-2.0
"""Looks for jobs that nobody comes back for, and cancels them, or waits for them."""

from __future__ import annotations

from airflow.sdk import DAG

from ugen_provider.operators.orphans import UGenFindOrphansOperator

with DAG("find_orphans", schedule=None, catchup=False):
    # The emulator's clock stands still, or jumps ahead of ours: any age will do.
    UGenFindOrphansOperator(task_id="orphans", airflow_conn_id="airflow_api", action="cancel", min_age=-1e12)

with DAG("attach_orphans", schedule=None, catchup=False):
    UGenFindOrphansOperator(
        task_id="orphans",
        airflow_conn_id="airflow_api",
        action="attach",
        min_age=-1e12,
        product_name="{{ dag_run.conf['product'] }}",
        deferrable=True,
        poll_interval=5,
    )
