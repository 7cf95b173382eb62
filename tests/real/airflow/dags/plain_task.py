# SPDX-License-Identifier: Apache-2.0
"""A DAG of another team, without any operator of this provider."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False)
def plain_task():
    @task
    def job() -> None:
        pass

    job()


plain_task()
