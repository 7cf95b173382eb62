# SPDX-License-Identifier: Apache-2.0
"""A DAG that runs whenever a job of the account ends. Paused, so that it reports the jobs of one test only."""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher, dag, task

from ugen_provider.triggers.events import UGenJobEventTrigger

ENDED = Asset(
    "ugen_ended",
    watchers=[AssetWatcher(name="ended", trigger=UGenJobEventTrigger(status="completed", poll_interval=1.0))],
)


@dag(schedule=[ENDED], catchup=False, is_paused_upon_creation=True)
def on_ended_job():
    @task
    def report(triggering_asset_events=None) -> list[str]:
        events = [event for events in triggering_asset_events.values() for event in events]
        return [event.extra["payload"]["job_id"] for event in events]

    report()


on_ended_job()
