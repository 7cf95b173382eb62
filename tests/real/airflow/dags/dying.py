# SPDX-License-Identifier: Apache-2.0
"""A job whose first attempt dies by kill -9, at the step that the run's configuration names; and twenty jobs.

A step is `WHEN PHASE POINT NTH`: before or after the n-th time that a process of the task passes a point, which is
whatever its flows ask of the world and each read and write of the task state store. The phases are the task's methods
that Airflow calls. Where no step is named, the task lives, and its steps are written down.
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
"""How often a point is told from itself: looks at a job that runs are all the same."""


class Dying(UGenCreateJobOperator):
    """Dies in its first attempt."""

    def execute(self, context: Any) -> Any:
        _watch(context, "begin")
        return super().execute(context)

    def execute_complete(self, context: Any, event: Any) -> Any:
        _watch(context, "end")
        return super().execute_complete(context, event)


def _watch(context: Any, phase: str) -> None:
    from ugen_provider.core.api._transport import SyncDriver
    from ugen_provider.operators.state import TaskStateIntentStore

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

    def watched(real: Callable[..., Any], name_of: Callable[[Any], str]) -> Callable[..., Any]:
        def call(self: Any, first: Any) -> Any:
            point = name_of(first)
            if not point:
                return real(self, first)
            seen[point] += 1
            passes("before", point)
            answer = real(self, first)
            passes("after", point)
            return answer

        return call

    def effect(asked: Any) -> str:
        return getattr(getattr(asked, "request", asked), "point", "")

    SyncDriver.perform = watched(SyncDriver.perform, effect)  # type: ignore[method-assign]
    for name in ("read", "write"):
        real = getattr(TaskStateIntentStore, name)
        setattr(TaskStateIntentStore, name, watched(real, lambda _, name=name: f"state.{name}"))


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
