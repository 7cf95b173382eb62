# SPDX-License-Identifier: Apache-2.0
"""Results: single values of them for other tasks, and one payload in every event about a job."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from airflow.sdk import Asset, AssetAlias

from tests.airflow.deferring import run
from tests.airflow.test_create import operator
from ugen_provider.core.jobs.results import Scores, describe
from ugen_provider.triggers.events import UGenJobEventTrigger


def test_alias_event_carries_result(attempts: Any, connection: Any, moving_clock: Any) -> None:
    from airflow.sdk.execution_time.context import OutletEventAccessors

    events = OutletEventAccessors()
    alias, videos = AssetAlias("lamp_videos"), Asset("videos")
    context = {**attempts.next(), "outlet_events": events}
    result = run(operator(outlets=[alias, videos], product_id="LL 1"), context)
    (event,) = events[alias].asset_alias_events
    assert (event.dest_asset_key.uri, event.extra) == ("ugen://ugen_default/products/LL%201", {"ugen": result})
    assert events[videos].extra == {"ugen": result}
    json.dumps(event.extra)


def test_event_trigger_and_webhook_share_the_payload(
    attempts: Any, connection: Any, moving_clock: Any, ugen_client: Any
) -> None:
    result = run(operator(), attempts.next())
    job = ugen_client.jobs.get(result["job_id"])
    by_webhook = describe(job, scores=Scores.of(job))  # as `plugins.webhook.receive` makes it

    async def first() -> Any:
        trigger = UGenJobEventTrigger(poll_interval=0.01)

        async def ended() -> Any:
            from ugen_provider.triggers.events import describe_ended

            yield [describe_ended(job, 10.0**12)]

        async for event in trigger.filter_shared_stream(ended()):
            return event.payload
        raise AssertionError("no event")

    by_trigger = asyncio.run(first())["ugen"]
    assert set(by_trigger) == set(by_webhook) <= set(result)
    assert by_trigger["product_name"] == result["product_name"] == "Lamp"
