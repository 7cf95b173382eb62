# SPDX-License-Identifier: Apache-2.0
"""Jobs that are reported to OpenLineage, where its provider is installed; the other DAGs here report nothing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from airflow.sdk import DAG

from ugen_provider.operators.jobs import UGenCreateJobOperator

JOB: dict[str, Any] = {
    "product_name": "{{ dag_run.conf['product'] }}",
    "product_image_url": "https://shop.example/lamp.png?sig=secret",
    "segment_count": 1,
    "poll_interval": 1.0,
}

if find_spec("airflow.providers.openlineage"):
    from airflow.providers.openlineage.utils.selective_enable import enable_lineage

    for deferrable in (False, True):
        with DAG(f"told_{'deferred' if deferrable else 'blocking'}", schedule=None, catchup=False) as dag:
            UGenCreateJobOperator(task_id="job", deferrable=deferrable, **JOB)
        enable_lineage(dag)
        globals()[dag.dag_id] = dag
