# SPDX-License-Identifier: Apache-2.0
"""A job whose first attempt dies by kill -9, at the step that the run's configuration names."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from ugen_provider.operators.jobs import UGenCreateJobOperator


class Dying(UGenCreateJobOperator):
    """Dies before or after the n-th time that it writes an intent: between intent, POST, job id and deferral."""

    def execute(self, context: Any) -> Any:
        if context["ti"].try_number == 1:
            _die_at(context["dag_run"].conf["die"])
        return super().execute(context)


def _die_at(step: str) -> None:
    from ugen_provider.operators.state import TaskStateIntentStore

    when, _, number = step.partition(" ")
    left = int(number)
    write = TaskStateIntentStore.write

    def dying_write(self: Any, intent: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, intent)
        if left == 0 and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    TaskStateIntentStore.write = dying_write


with DAG("dying_job", schedule=None, catchup=False):
    Dying(
        task_id="job",
        product_name="{{ dag_run.conf['product'] }}",
        product_image_url="https://shop.example/lamp.png",
        segment_count=1,
        poll_interval=1.0,
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=1),
    )

with DAG("twenty_jobs", schedule=None, catchup=False):
    UGenCreateJobOperator.partial(
        task_id="job",
        product_image_url="https://shop.example/lamp.png",
        segment_count=1,
        poll_interval=1.0,
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=1),
    ).expand(product_name=[f"Product {number}" for number in range(20)])
