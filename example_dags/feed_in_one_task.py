# SPDX-License-Identifier: Apache-2.0
"""A whole feed in one task: planned once, bought in waves within a budget, waited for in the triggerer. The next night
buys only what is new or changed. The ledger is the connection `ugen_ledger`; `ugen ledger init` creates it."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

from ugen_provider.operators.feeds import UGenCreateJobsFromFeedOperator

HERE = Path(__file__).resolve().parent
FEED = os.environ.get("UGEN_FEED") or str(HERE.parent / "examples" / "feed.xml")

with DAG(
    "feed_in_one_task",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["ugen"],
    doc_md=__doc__,
):
    UGenCreateJobsFromFeedOperator(
        task_id="make_videos",
        feed=FEED,
        catalogue="shop",
        ledger_conn_id="ugen_ledger",
        budget=5000,
        job_defaults={"segment_count": 1},
        output_path=os.environ.get("UGEN_OUTPUT"),
        deferrable=True,
        poll_interval=5,
    )
