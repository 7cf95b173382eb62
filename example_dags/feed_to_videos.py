# SPDX-License-Identifier: Apache-2.0
"""A product feed becomes videos: one mapped task per product, waiting in the triggerer.

The feed is `UGEN_FEED`, or `examples/feed.xml`; the videos go to `UGEN_OUTPUT`; the key is in the connection
`ugen_default`. A row that cannot be used is reported with its line and reason, and stops nothing. Clear the run, and
nothing is bought again.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag, get_current_context, task

from ugen_provider.operators.jobs import UGenCreateJobOperator

HERE = Path(__file__).resolve().parent
FEED = os.environ.get("UGEN_FEED") or next(
    (str(path) for path in (HERE / "feed.xml", HERE.parent / "examples" / "feed.xml") if path.exists()),
    str(HERE / "feed.xml"),
)
OUTPUT = os.environ.get("UGEN_OUTPUT") or str(Path.cwd() / "ugen-output")


@dag(schedule=None, catchup=False, tags=["ugen"], doc_md=__doc__)
def feed_to_videos():
    @task
    def read_feed() -> list[dict[str, Any]]:
        from ugen_provider.core.feeds import Order, RejectedRow, plan_feed

        orders, rejected = [], []
        for row in plan_feed(FEED, job_defaults={"segment_count": 1}):
            if isinstance(row, Order):
                orders.append({"scope_key": row.product_id, "job": dict(row.fields)})
            elif isinstance(row, RejectedRow):
                rejected.append({"line": row.line, "product_id": row.product_id, "reason": str(row)})
                logging.getLogger("airflow.task").warning("rejected: %s", row)
        get_current_context()["ti"].xcom_push(key="rejected", value=rejected)
        return orders

    UGenCreateJobOperator.partial(
        task_id="make_video",
        deferrable=True,
        poll_interval=5,
        output_path=OUTPUT,
        retries=2,
        retry_delay=timedelta(seconds=10),
        map_index_template="{{ task.scope_key }}: {{ task.job.product_name }}",
    ).expand_kwargs(read_feed())


feed_to_videos()
