# SPDX-License-Identifier: Apache-2.0
"""From an asset's context to the engine and back: what a run is to do, and the events that it leaves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from dagster_ugen import _compat
from dagster_ugen.assets import REGENERATE_TAG, UGenVideos, partitions_of
from dagster_ugen.engine import Engine
from dagster_ugen.gate import approval_of
from dagster_ugen.gating import GateLimit, is_on_its_way_to_the_gate, waits_for_a_decision
from dagster_ugen.intents import IntentLog
from dagster_ugen.metadata import describe, version_of
from dagster_ugen.outputs import MADE_TOGETHER, Output
from dagster_ugen.partitions import chunks
from dagster_ugen.results import Delivered, Failed, Result, is_retryable
from dagster_ugen.shell import Shell
from dagster_ugen.work import Interruption, Phase, Work
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.jobs.scope import Scope, partition_scope

if TYPE_CHECKING:
    from dagster_ugen.resource import UGenResource

_TERMINATED = frozenset({dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED})


def run_partitions(
    videos: UGenVideos,
    context: dg.AssetExecutionContext,
    ugen: UGenResource,
    *,
    phase: Phase,
    outputs: Sequence[Output],
    regenerate: str | None,
) -> list[Failed]:
    """Work on all partitions of an asset's run, and record what is selected.

    Returns:
        The partitions that failed; the others are recorded.

    Raises:
        Failure: Nothing could be begun.
        BaseException: The interrupt, after the jobs were dealt with.
    """
    asked = regenerate or context.run.tags.get(REGENERATE_TAG)
    selected = [output for output in outputs if videos.key_of(output) in context.selected_asset_keys]
    results = _run(
        videos,
        context.op_execution_context,
        ugen,
        partitions=partitions_of(context),
        outputs=selected,
        phase=phase,
        regenerate=lambda _partition: None if phase == "rest" else asked,
    )
    return [result for result in results if isinstance(result, Failed)]


def run_list(
    videos: UGenVideos,
    context: dg.OpExecutionContext,
    ugen: UGenResource,
    *,
    partitions: Sequence[str],
    wait: bool,
    regenerate: Mapping[str, str],
) -> list[Result]:
    """Work on any list of partitions, and record all outputs of those that are done.

    Raises:
        Failure: Nothing could be begun.
        BaseException: The interrupt, after the jobs were dealt with.
    """
    return _run(
        videos,
        context,
        ugen,
        partitions=partitions,
        outputs=MADE_TOGETHER,
        phase="whole",
        wait=wait,
        regenerate=regenerate.get,
    )


def _run(
    videos: UGenVideos,
    context: dg.OpExecutionContext,
    ugen: UGenResource,
    *,
    partitions: Sequence[str],
    outputs: Sequence[Output],
    phase: Phase,
    regenerate: Callable[[str], str | None],
    wait: bool = True,
) -> list[Result]:
    try:
        config = ugen.client_config()
        log = IntentLog(context.instance, asset_key=videos.order_key, holder=context.run.run_id)
        work = Work(
            config=config,
            read_config=ugen.client_config,
            scope_of=functools.partial(scope_of, videos.order_key, config.namespace),
            partitions=partitions,
            requests=videos.requests,
            options=videos.options,
            wait=wait,
            regenerate=regenerate,
            phase=phase,
            approval_of=functools.partial(approval_of, context.instance, videos),
            gates=_gate_limit(context.instance, videos, log) if phase == "anchor" else None,
            destination=videos.destination,
            allow_private=ugen.is_local,
            poll_interval=ugen.poll_interval,
            log=log,
            record=Recorder(videos, context, outputs).record,
            interruption=functools.partial(who_interrupted, context.instance, context.run.run_id),
        )
        return Shell(Engine(work), grace=videos.options.interrupt_grace).run()
    except UGenError as error:
        raise dg.Failure(str(error), allow_retries=is_retryable(error)) from error


def scope_of(order_key: dg.AssetKey, namespace: str, partition: str) -> Scope:
    """The scope of an asset's partition."""
    return partition_scope(asset=order_key.to_user_string(), partition=partition, namespace=namespace)


def who_interrupted(instance: dg.DagsterInstance, run_id: str) -> Interruption:
    """Who interrupted a run: a person who terminated or deleted it, or a signal to its process."""
    run = instance.get_run_by_id(run_id)
    return "person" if run is None or run.status in _TERMINATED else "signal"


def _gate_limit(instance: dg.DagsterInstance, videos: UGenVideos, log: IntentLog) -> GateLimit | None:
    gate = videos.gate
    if gate is None or gate.max_open_gates is None:
        return None
    return GateLimit(gate.max_open_gates, functools.partial(open_gates, instance, videos, log))


def open_gates(instance: dg.DagsterInstance, videos: UGenVideos, log: IntentLog) -> set[str]:
    """The partitions whose looks wait for a decision, or are being made by a run under way."""
    from dagster_ugen.sensors import recorded_jobs, under_way

    defined = videos.props.partitions_def
    keys = defined.get_partition_keys(dynamic_partitions_store=instance) if defined is not None else [""]
    intents = log.newest_of(keys)
    coming = {name: intent for name, intent in intents.items() if is_on_its_way_to_the_gate(intent)}
    if coming:
        shown: dict[str, str] = {}
        for group in chunks(list(coming)):
            shown |= recorded_jobs(instance, videos.key_of(Output.ANCHOR_KEYFRAME), group)
        coming = {name: intent for name, intent in coming.items() if shown.get(name) != (intent.job_id or "")}
    runs = under_way(instance, {intent.holder for intent in coming.values()})
    return {name for name, intent in intents.items() if waits_for_a_decision(intent)} | {
        name for name, intent in coming.items() if intent.holder in runs
    }


class Recorder:
    """Records each partition's outputs when it is done, with the versions that Dagster compares."""

    def __init__(self, videos: UGenVideos, context: dg.OpExecutionContext, outputs: Sequence[Output]) -> None:
        self._videos = videos
        self._outputs = outputs
        self._context = context
        self._code_version = videos.props.code_version or context.run.run_id

    def record(self, delivered: Delivered) -> None:
        """Record the outputs of a partition. It blocks, a few milliseconds for each."""
        for output in self._outputs:
            self._context.log_event(
                dg.AssetMaterialization(
                    asset_key=self._videos.key_of(output),
                    partition=delivered.partition or None,
                    metadata=describe(output, delivered),
                    tags=self._versions(output, delivered),
                )
            )

    def _versions(self, output: Output, delivered: Delivered) -> dict[str, str]:
        """The tags by which Dagster tells what is out of date. A log event carries none by itself."""
        tags = {
            _compat.DATA_VERSION_TAG: version_of(output, delivered),
            _compat.DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
            _compat.CODE_VERSION_TAG: self._code_version,
        }
        for dep in self._videos.deps_of(output):
            record = self._newest(dep, delivered.partition)
            if record is not None:
                tags[_compat.get_input_event_pointer_tag(dep)] = str(record.storage_id)
                version = (record.event_log_entry.tags or {}).get(_compat.DATA_VERSION_TAG)
                if version is not None:
                    tags[_compat.get_input_data_version_tag(dep)] = version
        return tags

    def _newest(self, key: dg.AssetKey, partition: str) -> dg.EventLogRecord | None:
        wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
        return next(iter(self._context.instance.fetch_materializations(wanted, limit=1).records), None)
