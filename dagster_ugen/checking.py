# SPDX-License-Identifier: Apache-2.0
"""What the checks look at: a partition's newest results, what was ordered, and the stored file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
import fsspec

from dagster_ugen._compat import check_evaluation
from dagster_ugen.assets import partitions_of
from dagster_ugen.checks import Check, Verdict
from dagster_ugen.intents import IntentLog
from dagster_ugen.outputs import Output
from ugen_provider.core.api import operations
from ugen_provider.core.api._streams import open_stream
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.api.rules import DEFAULTS
from ugen_provider.core.media.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from dagster_ugen.assets import UGenVideos
    from dagster_ugen.resource import UGenResource
    from ugen_provider.core.api._sync_client import UGenClient


@dataclass
class Known:
    """What is known of one partition.

    Args:
        records: The newest materialization of each output, where there is one.
        body: The request as it was sent.
        client: Calls the service.
    """

    records: Mapping[Output, dg.EventLogRecord]
    body: Mapping[str, Any]
    client: UGenClient

    def told(self, output: Output, name: str) -> Any:
        """What an output's metadata says under a name."""
        record = self.records.get(output)
        made = record.asset_materialization if record is not None else None
        value = made.metadata.get(f"ugen/{name}") if made is not None else None
        return getattr(value, "value", None)

    def scores(self, output: Output) -> list[float | None]:
        """The quality scores of an output's items."""
        return list(self.told(output, "scores") or ())

    def count(self, output: Output) -> int:
        """How many items of an output there are."""
        return len(self.told(output, "urls") or ([self.told(output, "url")] if self.told(output, "url") else []))

    @property
    def segments(self) -> int:
        """Segments that were ordered."""
        return int(self.body.get("segment_count", 0))

    @property
    def seconds(self) -> float:
        """Length that was ordered."""
        return float(self.segments * self.body.get("segment_duration", DEFAULTS["segment_duration"]))

    @property
    def shape(self) -> float | None:
        """Width by height that was ordered."""
        width, _, height = str(self.body.get("aspect_ratio", DEFAULTS["aspect_ratio"])).partition(":")
        return int(width) / int(height) if width.isdigit() and height.isdigit() and int(height) else None

    @property
    def consumed(self) -> int | None:
        """Credits that it cost."""
        consumed = self.told(Output.FINAL_VIDEO, "credits_consumed")
        return consumed if isinstance(consumed, int) else None

    def estimated(self) -> int | None:
        """Credits that it is estimated to cost."""
        estimated = self.told(Output.FINAL_VIDEO, "credits_estimated")
        if isinstance(estimated, int):
            return estimated
        with suppress(UGenError):
            return self.client.call(operations.estimate(self.body)).total_credits
        return None

    @cached_property
    def manifest(self) -> Manifest | None:
        """What was stored."""
        path = self.told(Output.FINAL_VIDEO, "manifest")
        if path is None:
            return None
        filesystem, name = fsspec.url_to_fs(str(path))
        with suppress(OSError):
            return read_manifest(bytes(filesystem.cat_file(name)))
        return None

    @property
    def final_file(self) -> Mapping[str, Any] | None:
        """The stored video."""
        file = self.manifest.file("final") if self.manifest is not None else None
        return file.model_dump() if file is not None else None

    def dead_links(self) -> list[str]:
        """Links of the newest results that no longer answer, without their queries."""
        links = [str(url) for output in self.records for url in self.told(output, "urls") or ()]
        links += [str(url) for output in self.records if (url := self.told(output, "url"))]
        return [link.partition("?")[0] for link in dict.fromkeys(links) if not _answers(link)]


def evaluate(
    context: dg.AssetCheckExecutionContext,
    videos: UGenVideos,
    ugen: UGenResource,
    checks: Mapping[tuple[dg.AssetKey, str], Check],
) -> Iterator[dg.AssetCheckResult]:
    """Evaluate checks for the partitions of a run.

    A run of one partition yields its results, as Dagster's own checks do; one of many records each partition's.

    Raises:
        Failure: Blocking checks failed in a run of many partitions; it names them. Of one, Dagster itself says so.
    """
    op_context = context.op_execution_context
    partitions = partitions_of(op_context)
    log = IntentLog(context.instance, asset_key=videos.order_key, holder="")
    intents = log.newest_of(partitions)
    stopped: list[str] = []
    with ugen.get_client() as client:
        for partition in partitions:
            intent = intents.get(partition)
            records = {
                output: record for output in Output if (record := _newest(context, videos.key_of(output), partition))
            }
            known = Known(records, intent.body if intent is not None else {}, client)
            for (key, name), check in checks.items():
                verdict = _judge(check, known)
                if len(partitions) == 1:
                    yield dg.AssetCheckResult(
                        asset_key=key, check_name=name, passed=verdict.passed, description=verdict.told
                    )
                    continue
                op_context.log_event(
                    check_evaluation(
                        asset_key=key,
                        check_name=name,
                        passed=verdict.passed,
                        description=verdict.told,
                        blocking=check.blocking,
                        partition=partition,
                        target=records.get(check.output),
                    )
                )
                if check.blocking and not verdict.passed:
                    stopped.append(f"{partition}: {name} ({verdict.told})")
    if stopped:
        raise dg.Failure(_stopped(stopped), allow_retries=False)


def _stopped(names: Sequence[str]) -> str:
    more = f"; and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{len(names)} blocking checks failed: {'; '.join(names[:20])}{more}"


def _judge(check: Check, known: Known) -> Verdict:
    if check.output not in known.records:
        return Verdict(False, "there is nothing to check yet; materialize the partition first")
    return check.judge(known)


def _newest(context: dg.AssetCheckExecutionContext, key: dg.AssetKey, partition: str) -> dg.EventLogRecord | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
    return next(iter(context.instance.fetch_materializations(wanted, limit=1).records), None)


def _answers(url: str) -> bool:
    try:
        with open_stream(url, timeout=10.0) as stream:
            return stream.status < 400
    except UGenError:
        return False
