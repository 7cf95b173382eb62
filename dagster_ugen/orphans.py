# SPDX-License-Identifier: Apache-2.0
"""The orphan sensor: jobs that nobody waits for are named, and what was to be cancelled is cancelled."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import dagster as dg

from dagster_ugen.intents import IntentLog
from dagster_ugen.resource import account_of
from dagster_ugen.sensors import TICK_SECONDS, recorded_jobs, submitting, under_way

if TYPE_CHECKING:
    from dagster_ugen.assets import UGenVideos
    from dagster_ugen.resource import UGenResource
    from ugen_provider.core.api._sync_client import UGenClient
    from ugen_provider.core.jobs.intent import CancelReason, Intent

_CHUNK = 1000
_COLLECTED_WITHIN = 86_400.0
"""Seconds after which a submitted job that is still at work is an orphan like any other."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A job that nobody waits for.

    Attributes:
        partition: Its partition.
        job_id: The job; None where an order was sent and never answered.
        why: What is wrong, and what to do.
    """

    partition: str
    job_id: str | None
    why: str


def build_ugen_orphan_sensor(
    videos: UGenVideos,
    *,
    resource: UGenResource | None = None,
    name: str = "ugen_orphan_sensor",
    minimum_interval_seconds: int = 300,
    on_orphan: Literal["name", "cancel"] = "name",
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """A sensor that looks for jobs which cost credits while nobody waits for them. It buys nothing.

    Cancels that could not be sent are sent, and looks that nobody decided on in time are cancelled. A job that is still
    at work although its run is gone is named in the sensor's log, or cancelled where you say so. One that a batch run
    submitted is left to the completion sensor for a day.

    Args:
        videos: The assets.
        resource: The account; else the resource `ugen` of the definitions.
        name: The sensor's name.
        minimum_interval_seconds: Seconds between ticks.
        on_orphan: `name` leaves an orphan to the next run, which attaches to it; `cancel` ends it.
        default_status: Whether it runs from the start.
    """

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        account = account_of(resource, context)
        at = int(json.loads(context.cursor)["at"]) if context.cursor else 0
        finder = _Finder(context.instance, videos, account, on_orphan=on_orphan)
        keys = finder.partitions()
        until = time.monotonic() + TICK_SECONDS
        while True:
            finder.look_at(keys[at : at + _CHUNK])
            at += _CHUNK
            if at >= len(keys) or time.monotonic() > until:
                break
        for orphan in finder.orphans:
            context.log.warning("%s: job %s %s", orphan.partition or "(unpartitioned)", orphan.job_id, orphan.why)
        told = f"{len(finder.orphans)} jobs that nobody waits for, {finder.cancelled} cancelled"
        named = ", ".join(f"{each.partition} ({each.job_id})" for each in finder.orphans[:20])
        return dg.SensorResult(
            skip_reason=dg.SkipReason(f"{told}{': ' if named else ''}{named}"),
            cursor=json.dumps({"at": 0 if at >= len(keys) else at}),
        )

    return dg.SensorDefinition(
        name=name,
        evaluation_fn=evaluate,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys=set() if resource is not None else {"ugen"},
        description="Names U-Gen jobs that nobody waits for, and sends cancels that could not be sent before.",
    )


class _Finder:
    def __init__(
        self,
        instance: dg.DagsterInstance,
        videos: UGenVideos,
        account: UGenResource,
        *,
        on_orphan: Literal["name", "cancel"],
    ) -> None:
        self._instance = instance
        self._videos = videos
        self._account = account
        self._on_orphan = on_orphan
        self.orphans: list[Orphan] = []
        self.cancelled = 0

    def partitions(self) -> list[str]:
        defined = self._videos.props.partitions_def
        if defined is None:
            return [""]
        return list(defined.get_partition_keys(dynamic_partitions_store=self._instance))

    def look_at(self, partitions: list[str]) -> None:
        log = IntentLog(self._instance, asset_key=self._videos.order_key, holder=f"sensor:{time.time():.3f}")
        open_ones = {
            partition: intent
            for partition, intent in log.newest_of(partitions).items()
            if not (intent.action is not None and intent.action.kind == "cancel" and intent.action.confirmed)
            and not intent.refused
        }
        if not open_ones:
            return
        recorded = recorded_jobs(self._instance, self._videos.order_key, list(open_ones))
        holders = {intent.holder for intent in open_ones.values()}
        held = under_way(self._instance, holders)
        submitters = submitting(self._instance, holders)
        with self._account.get_client() as client:
            live = self._live(
                {p: i for p, i in open_ones.items() if i.holder not in held and recorded.get(p) != i.job_id}
            )
            for partition, intent in live.items():
                self._deal_with(client, log, partition, intent, submitted=intent.holder in submitters)

    def _live(self, candidates: dict[str, Intent]) -> dict[str, Intent]:
        """Those whose job has not ended, or is not known."""
        from dagster_ugen.looks import ended_jobs

        job_ids = [intent.job_id for intent in candidates.values() if intent.job_id is not None]
        ended = asyncio.run(ended_jobs(self._account.client_config(), job_ids))
        return {partition: intent for partition, intent in candidates.items() if intent.job_id not in ended}

    def _deal_with(
        self, client: UGenClient, log: IntentLog, partition: str, intent: Intent, *, submitted: bool
    ) -> None:
        action = intent.action
        if action is None and submitted and time.time() - intent.written_at < _COLLECTED_WITHIN:
            return
        if intent.job_id is None:
            why = "was sent and never answered: whether it was bought is not known until its partition is run again"
            self.orphans.append(Orphan(partition, None, why))
        elif action is not None and action.kind == "cancel":
            self._cancel(client, log, partition, intent, cast("CancelReason", action.reason))
        elif action is not None and (action.kind, action.reason) == ("pause", "gate"):
            gate = self._videos.gate
            if gate is not None and gate.expires_after is not None and time.time() - action.at > gate.expires_after:
                self._cancel(client, log, partition, intent, "expired")
        elif self._on_orphan == "cancel":
            self._cancel(client, log, partition, intent, "kill")
        else:
            why = "is at work and no run waits for it: materialize its partition to attach to it"
            self.orphans.append(Orphan(partition, intent.job_id, why))

    def _cancel(self, client: UGenClient, log: IntentLog, partition: str, intent: Intent, reason: CancelReason) -> None:
        from ugen_provider.core.api.errors import UGenError
        from ugen_provider.core.jobs.cancelling import cancel

        assert intent.job_id is not None  # whoever calls looked
        store = log.of(partition)
        try:
            store.read(intent.scope)  # claims the order, so that the cancel is ours to write down
            done = client.run(cancel(client.caller, intent.job_id, reason=reason, store=store, scope=intent.scope))
        except UGenError as error:
            self.orphans.append(
                Orphan(partition, intent.job_id, f"is to be cancelled ({reason}) and cannot be: {error}")
            )
            return
        if done.confirmed:
            self.cancelled += 1
        elif done.job is not None and not done.job.ended:
            self.orphans.append(Orphan(partition, intent.job_id, f"is to be cancelled ({reason}) and does not end"))
