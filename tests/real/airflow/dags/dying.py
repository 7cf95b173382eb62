# SPDX-License-Identifier: Apache-2.0
"""A job whose first attempt dies by kill -9, at the step that the run's configuration names; and twenty jobs.

A step is `WHEN PHASE POINT NTH`: before or after the n-th contact of this name with the outside world. The phases are
the task's methods that Airflow calls. Where no step is named, the task lives, and its steps are recorded.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from ugen_provider.operators.jobs import UGenCreateJobOperator

MOST = 2
"""How many visits of one point are distinguished: polls of a running job are all the same."""


class Dying(UGenCreateJobOperator):
    """Dies in its first attempt."""

    def execute(self, context: Any) -> Any:
        _watch(context, "begin")
        return super().execute(context)

    def execute_complete(self, context: Any, event: Any) -> Any:
        _watch(context, "end")
        return super().execute_complete(context, event)


def _watch(context: Any, phase: str) -> None:
    from ugen_provider.core.jobs.sync.world import World

    asked = context["dag_run"].conf
    if context["ti"].try_number > 1:
        return
    steps = Path(os.environ["UGEN_TEST_OUTPUT"]) / f"{asked['product']}.steps"
    steps.parent.mkdir(parents=True, exist_ok=True)
    seen: Counter[str] = Counter()

    def passes(when: str, point: str) -> None:
        if seen[point] > MOST:
            return
        step = f"{when} {phase} {point} {seen[point]}"
        with steps.open("a") as file:
            file.write(f"{step}\n")
        if step == asked["die"]:
            os.kill(os.getpid(), signal.SIGKILL)

    real = World.contact

    def contact(self: Any, name: str, call: Callable[[], Any]) -> Any:
        seen[name] += 1
        passes("before", name)
        answer = real(self, name, call)
        passes("after", name)
        return answer

    World.contact = contact  # type: ignore[method-assign,assignment]


JOB: dict[str, Any] = {
    "product_image_url": "https://shop.example/lamp.png",
    "segment_count": 1,
    "poll_interval": 1.0,
    "retries": 9,
    "retry_delay": timedelta(seconds=1),
}

for deferrable in (True, False):
    with DAG(
        "dying_deferred_job" if deferrable else "dying_blocking_job", schedule=None, catchup=False, max_active_runs=500
    ) as dag:
        Dying(task_id="job", product_name="{{ dag_run.conf['product'] }}", deferrable=deferrable, **JOB)
    globals()[dag.dag_id] = dag

with DAG("twenty_jobs", schedule=None, catchup=False):
    UGenCreateJobOperator.partial(task_id="job", deferrable=True, **JOB).expand(
        product_name=[f"Product {number}" for number in range(20)]
    )
