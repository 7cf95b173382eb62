# SPDX-License-Identifier: Apache-2.0
"""The DAGs of the ownership matrix: each operator, waiting in a worker or in the triggerer, and each kind of ledger.

Beside the operator under test, task `job`, each DAG has a sibling that fails when the test creates a file.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from ugen_provider.operators.feeds import UGenCreateJobsFromFeedOperator
from ugen_provider.operators.jobs import UGenCreateJobOperator, UGenResumeJobOperator, UGenRetryJobOperator
from ugen_provider.operators.review import UGenKeyframeApprovalOperator

CONNECTIONS = {
    "none": "ugen_default",
    "sqlite": "ugen_with_ledger",
    "postgresql": "ugen_with_ledger_postgresql",
}
REQUEST: dict[str, Any] = {
    "product_name": "{{ dag_run.conf['product'] }}",
    "product_image_url": "https://shop.example/lamp.png",
    "segment_count": 1,
}
COMMON: dict[str, Any] = {"poll_interval": 5.0, "retries": 1, "retry_delay": timedelta(seconds=1)}
JOB_ID = "{{ dag_run.conf['job_id'] }}"


def build(kind: str, *, connection: str, deferrable: bool) -> None:
    given: dict[str, Any] = {"task_id": "job", "ugen_conn_id": connection, "deferrable": deferrable, **COMMON}
    match kind:
        case "create":
            UGenCreateJobOperator(**REQUEST, **given)
        case "patient":  # its first attempt gives up soon, its second comes late
            UGenCreateJobOperator(**REQUEST, **{**given, "retry_delay": timedelta(hours=1)}, timeout=3.0)
        case "decorator":

            @task.ugen_job(**given)
            def make(**context: Any) -> dict[str, Any]:
                return {**REQUEST, "product_name": context["dag_run"].conf["product"]}

            make()
        case "retry":
            UGenRetryJobOperator(job_id=JOB_ID, **given)
        case "resume":
            UGenResumeJobOperator(job_id=JOB_ID, **given)
        case "gate":
            first = UGenCreateJobOperator(**REQUEST, **{**given, "task_id": "make_keyframe"}, stop_at_stage="init")
            gate = UGenKeyframeApprovalOperator(task_id="job", job_id=first.output, ugen_conn_id=connection)
            UGenResumeJobOperator(**{**given, "task_id": "resume"}, approval=gate.output)
        case "feed":
            UGenCreateJobsFromFeedOperator(
                feed="{{ dag_run.conf['feed'] }}",
                catalogue="{{ dag_run.conf['product'] }}",
                budget=5000,
                job_defaults={"segment_count": 1},
                **given,
            )


def build_sibling() -> None:
    @task(retries=0)
    def sibling(**context: Any) -> None:
        path = Path(os.environ["UGEN_TEST_OUTPUT"]) / f"{context['dag_run'].conf['product']}.fail"
        while not path.exists():
            time.sleep(0.2)
        raise RuntimeError("the sibling fails, as the test wants")

    sibling()


KINDS = ("create", "patient", "decorator", "retry", "resume", "gate", "feed")
for kind in KINDS:
    for ledger, connection in CONNECTIONS.items():
        for waiting in ("deferred", "blocking"):
            for ending, settings in {
                "": {},
                "_timeout": {"dagrun_timeout": timedelta(hours=1)},
                "_fail_fast": {"fail_fast": True},
            }.items():
                dag_id = f"own_{kind}_{waiting}_{ledger}{ending}"
                with DAG(dag_id, schedule=None, catchup=False, **settings) as dag:  # type: ignore[arg-type]
                    build(kind, connection=connection, deferrable=waiting == "deferred")
                    if ending == "_fail_fast":
                        build_sibling()
                globals()[dag_id] = dag

from ugen_provider.operators.reconcile import UGenReconcileOperator  # noqa: E402

for ledger in ("sqlite", "postgresql"):
    with DAG(f"reconcile_{ledger}", schedule=None, catchup=False, max_active_runs=1):
        UGenReconcileOperator(task_id="job", ugen_conn_id=CONNECTIONS[ledger])
