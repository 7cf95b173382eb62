# SPDX-License-Identifier: Apache-2.0
"""A DAG that runs whenever a webhook reports a finished video, and one whenever the event trigger does."""

from __future__ import annotations

from airflow.sdk import Asset, dag, task

FINISHED = Asset(uri="ugen://ugen_default/jobs/completed", name="ugen_finished")


@dag(schedule=[FINISHED], catchup=False)
def on_finished_video():
    @task
    def report(triggering_asset_events=None) -> list[str]:
        events = [event for events in triggering_asset_events.values() for event in events]
        reported = [event.extra["ugen"] for event in events]
        return [video["job_id"] for video in reported if video["keyframe_scores"]]

    report()


on_finished_video()
