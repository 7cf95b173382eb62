# SPDX-License-Identifier: Apache-2.0
"""A product feed becomes videos: one mapped task per product, waiting in the triggerer.

The feed is `UGEN_FEED`, or `examples/feed.xml`; the videos go to `UGEN_OUTPUT`; the key is in the connection
`ugen_default`. A row that cannot be used is reported with its line and reason, and stops nothing. Clear the run, and
nothing is bought again.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag

from ugen_provider.operators.feeds import feed_products
from ugen_provider.operators.jobs import UGenCreateJobOperator

HERE = Path(__file__).resolve().parent
FEED = os.environ.get("UGEN_FEED") or next(
    (str(path) for path in (HERE / "feed.xml", HERE.parent / "examples" / "feed.xml") if path.exists()),
    str(HERE / "feed.xml"),
)
OUTPUT = os.environ.get("UGEN_OUTPUT") or str(Path.cwd() / "ugen-output")


@dag(
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["ugen"],
    doc_md=__doc__,
)
def feed_to_videos():
    products = feed_products(FEED, job_defaults={"segment_count": 1})
    UGenCreateJobOperator.partial(
        task_id="make_video",
        deferrable=True,
        poll_interval=5,
        output_path=OUTPUT,
        map_index_template="{{ task.scope_key }}: {{ task.job.product_name }}",
    ).expand_kwargs(products)


feed_to_videos()
