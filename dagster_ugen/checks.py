# SPDX-License-Identifier: Apache-2.0
"""Asset checks over the outputs of jobs: scores, counts, length and shape, credits, and whether links still answer.

Each check decides by a pure function over the facts about one partition.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_ugen import _compat
from dagster_ugen.definition import Output, VideoDefinition, no_beta_warnings, partitions_of
from dagster_ugen.event_log import RUN_KIND_TAG
from dagster_ugen.resource import UGenResource, bound

if TYPE_CHECKING:
    from dagster_ugen.account import Account
    from ugen_provider.core.api.client import UGenClient
    from ugen_provider.core.media.manifest import Manifest

_SLACK_SECONDS = 1.0
_SLACK_SHAPE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class UGenChecks:
    """Which checks, and what they ask for.

    Args:
        min_score: Lowest quality score, 0 to 1, of every keyframe and segment; None leaves the scores alone.
        counts: Whether N segments and N+1 keyframes are there.
        file: Whether the stored video has the length and shape that were ordered; needs a destination, and PyAV.
        credits: Whether no more was consumed than was estimated.
        urls: Whether the service's links still answer; one request each.
        blocking: Whether a check that fails keeps what hangs on its asset from running, in the same run; or the names
            of the checks of which that holds. The results are there all the same, since they are recorded first.
    """

    min_score: float | None = 0.55
    counts: bool = True
    file: bool = True
    credits: bool = True
    urls: bool = False
    blocking: bool | Collection[str] = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of a check."""

    passed: bool
    message: str


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, what it is of, and how it decides."""

    name: str
    output: Output
    description: str
    judge: "Callable[[PartitionFacts], Verdict]"
    blocking: bool = False


def checks_of(asked: UGenChecks) -> list[Check]:
    """Return the checks that are asked for.

    Raises:
        ValueError: `blocking` names a check that is not among them.
    """
    found = _chosen(asked)
    names = {check.name for check in found}
    blocking = asked.blocking if not isinstance(asked.blocking, bool) else names if asked.blocking else ()
    if unknown := sorted(set(blocking) - names):
        raise ValueError(
            f"blocking: {', '.join(unknown)} is not among the checks that are asked for: {', '.join(sorted(names))}"
        )
    return [replace(check, blocking=check.name in blocking) for check in found]


def _chosen(asked: UGenChecks) -> list[Check]:
    found: list[Check] = []
    if asked.min_score is not None:
        least = asked.min_score
        for name, output in (("keyframe_scores", Output.KEYFRAMES), ("segment_scores", Output.VIDEOS)):
            found.append(
                Check(
                    name,
                    output,
                    f"Every quality score is at least {least:.2f}.",
                    lambda known, output=output: judge_scores(known.scores(output), least=least),  # type: ignore[misc]
                )
            )
    if asked.counts:
        found.append(
            Check(
                "keyframe_count",
                Output.KEYFRAMES,
                "One keyframe more than segments.",
                lambda known: judge_count(known.count(Output.KEYFRAMES), known.segments + 1, "keyframes"),
            )
        )
        found.append(
            Check(
                "segment_count",
                Output.VIDEOS,
                "As many segments as were ordered.",
                lambda known: judge_count(known.count(Output.VIDEOS), known.segments, "segments"),
            )
        )
    if asked.file:
        found.append(
            Check(
                "length_and_shape",
                Output.FINAL_VIDEO,
                "The stored video has the length and shape that were ordered.",
                lambda known: judge_file(known.final_file, seconds=known.seconds, shape=known.shape),
            )
        )
    if asked.credits:
        found.append(
            Check(
                "credits_within_estimate",
                Output.FINAL_VIDEO,
                "No more credits were consumed than estimated.",
                lambda known: judge_credits(known.consumed, known.estimated()),
            )
        )
    if asked.urls:
        found.append(
            Check(
                "urls_alive", Output.FINAL_VIDEO, "The links answer.", lambda known: judge_links(known.broken_links())
            )
        )
    return found


def build_ugen_asset_checks(
    videos: VideoDefinition, *, checks: UGenChecks | None = None, resource: UGenResource | None = None
) -> list[dg.AssetChecksDefinition]:
    """Build checks over the stored results, one result for each partition. Free.

    Args:
        videos: The assets.
        checks: Which, and what they ask for.
        resource: The account; else the resource `ugen` of the definitions.

    Raises:
        ValueError: `blocking` names a check that is not asked for.

    Examples:
        ```python
        dg.Definitions(assets=assets_of(videos), asset_checks=build_ugen_asset_checks(videos))
        ```
    """
    asked = checks_of(checks or UGenChecks())
    if not asked:
        return []
    made = {(videos.key_of(check.output), check.name): check for check in asked}
    partitions_def = videos.props.partitions_def

    def body(context: dg.AssetCheckExecutionContext, ugen: UGenResource) -> Iterator[dg.AssetCheckResult]:
        selected = {
            (key.asset_key, key.name): made[key.asset_key, key.name] for key in context.selected_asset_check_keys
        }
        with ugen.open_account(context.instance) as account:
            yield from evaluate(context, videos, account, selected)

    with no_beta_warnings():
        specs = [
            _compat.partitioned_check(
                name=check.name,
                asset=videos.key_of(check.output),
                description=check.description,
                blocking=check.blocking,
                partitions_def=partitions_def,
            )
            for check in asked
        ]
        return [
            dg.multi_asset_check(
                name="_".join([*videos.props.key_prefix, "ugen_checks"]),
                specs=specs,
                can_subset=True,
            )(bound(body, resource))
        ]


def judge_scores(scores: Sequence[float | None], *, least: float) -> Verdict:
    """Return whether every score is high enough. A completed job does not prove that its own checks passed."""
    if not scores or any(score is None for score in scores):
        missing = sum(score is None for score in scores)
        return Verdict(False, f"{missing or 'all'} of the scores are not known, so nothing says that they are good")
    low = [f"{index}: {score:.2f}" for index, score in enumerate(scores) if score is not None and score < least]
    if low:
        return Verdict(False, f"below {least:.2f}: {', '.join(low)}; `regenerate` buys another one")
    return Verdict(True, f"{len(scores)} scores, none below {least:.2f}")


def judge_count(found: int, wanted: int, what: str) -> Verdict:
    """Return whether as many are there as there should be."""
    return Verdict(found == wanted, f"{found} {what}, {wanted} were to be made")


def judge_file(file: Mapping[str, Any] | None, *, seconds: float, shape: float | None) -> Verdict:
    """Return whether the stored video is as long, and as wide to its height, as was ordered.

    Args:
        file: Its `duration`, `width` and `height`; None where nothing is stored.
        seconds: The length that was ordered.
        shape: Width by height; None where any will do.
    """
    if file is None:
        return Verdict(False, "nothing is stored that could be measured; give the assets a destination")
    length, width, height = file.get("duration"), file.get("width"), file.get("height")
    if not length or not width or not height:
        return Verdict(False, "the file could not be measured; install ugen-provider[media]")
    wrong = []
    if abs(length - seconds) > max(_SLACK_SECONDS, 0.1 * seconds):
        wrong.append(f"{length:.1f} s long, {seconds:.1f} s were ordered")
    if shape is not None and abs(width / height - shape) > _SLACK_SHAPE:
        wrong.append(f"{width}x{height}, which is not the shape that was ordered")
    return Verdict(not wrong, "; ".join(wrong) or f"{length:.1f} s, {width}x{height}")


def judge_credits(consumed: int | None, estimated: int | None) -> Verdict:
    """Return whether it cost no more than was estimated."""
    if consumed is None or estimated is None:
        return Verdict(False, "what it cost, or was estimated to cost, is not known")
    return Verdict(consumed <= estimated, f"{consumed} credits, {estimated} were estimated")


def judge_links(broken: Sequence[str]) -> Verdict:
    """Return whether all links answer."""
    return Verdict(not broken, f"no answer from {', '.join(broken)}" if broken else "all links answer")


@dataclass
class PartitionFacts:
    """The facts about one partition that checks read.

    Args:
        records: The newest materialization of each output, where there is one.
        body: The request as it was sent.
        client: Calls the service.
        destination: Where outputs are stored. Other users can write events, so no other file is read.
    """

    records: Mapping[Output, dg.EventLogRecord]
    body: Mapping[str, Any]
    client: "UGenClient"
    destination: str | None = None

    def value(self, output: Output, name: str) -> Any:
        """Return an entry of an output's metadata."""
        record = self.records.get(output)
        made = record.asset_materialization if record is not None else None
        value = made.metadata.get(f"ugen/{name}") if made is not None else None
        return getattr(value, "value", None)

    def scores(self, output: Output) -> list[float | None]:
        """Return the quality scores of an output's items."""
        return list(self.value(output, "scores") or ())

    def count(self, output: Output) -> int:
        """Return the number of an output's items."""
        return len(self.value(output, "urls") or ([self.value(output, "url")] if self.value(output, "url") else []))

    @property
    def segments(self) -> int:
        """Number of segments that were ordered."""
        return int(self.body.get("segment_count", 0))

    @property
    def seconds(self) -> float:
        """Length in seconds that was ordered."""
        from ugen_provider.core.api.rules import DEFAULTS

        return float(self.segments * self.body.get("segment_duration", DEFAULTS["segment_duration"]))

    @property
    def shape(self) -> float | None:
        """Width by height that was ordered."""
        from ugen_provider.core.api.rules import DEFAULTS

        width, _, height = str(self.body.get("aspect_ratio", DEFAULTS["aspect_ratio"])).partition(":")
        return int(width) / int(height) if width.isdigit() and height.isdigit() and int(height) else None

    @property
    def consumed(self) -> int | None:
        """Credits that the job has cost, from its event; for a job recorded earlier, from the service."""
        if consumed := self.value(Output.FINAL_VIDEO, "credits"):
            return int(consumed)
        from ugen_provider.core.api.errors import UGenError

        job_id = self.value(Output.FINAL_VIDEO, "job_id")
        if job_id is not None:
            with suppress(UGenError):
                return self.client.jobs.get(str(job_id)).credits_consumed
        return None

    def estimated(self) -> int | None:
        """Return the credits that it is estimated to cost."""
        estimated = self.value(Output.FINAL_VIDEO, "credits_estimated")
        if isinstance(estimated, int):
            return estimated
        from ugen_provider.core.api import endpoints
        from ugen_provider.core.api.client import call_endpoint
        from ugen_provider.core.api.errors import UGenError

        with suppress(UGenError):
            return call_endpoint(self.client, endpoints.estimate(self.body)).total_credits
        return None

    @cached_property
    def manifest(self) -> "Manifest | None":
        """Manifest of the job's stored outputs."""
        path = self.value(Output.FINAL_VIDEO, "manifest_uri")
        if path is None:
            return None
        from ugen_provider.core.media.manifest import read_manifest

        with suppress(OSError):
            return read_manifest(stored_content(str(path), destination=self.destination), name=str(path))
        return None

    @property
    def final_file(self) -> Mapping[str, Any] | None:
        """Path or URL of the stored video."""
        file = self.manifest.file("final") if self.manifest is not None else None
        return file.model_dump() if file is not None else None

    def broken_links(self) -> list[str]:
        """Return the links of the newest results that no longer answer, without their queries."""
        links = [str(url) for output in self.records for url in self.value(output, "urls") or ()]
        links += [str(url) for output in self.records if (url := self.value(output, "url"))]
        local = self.client.config.base_url.startswith("http://")
        return [link.partition("?")[0] for link in dict.fromkeys(links) if not _answers(link, local=local)]


def stored_content(path: str, *, destination: str | None) -> bytes | None:
    """Read a stored file that an event names; None where it is not below the destination.

    Any user who may write events may name a file, so no other one is opened.

    Args:
        path: Of the file, as the event names it.
        destination: As the definition names it; None where nothing is stored.

    Raises:
        OSError: The file cannot be read.
    """
    from ugen_provider.core.media.stores import Store

    if destination is None:
        return None
    store = Store(destination)
    prefix = store.location("")
    if not path.startswith(prefix) or ".." in path.replace("\\", "/").split("/"):
        return None
    return store.read(path.removeprefix(prefix))


def evaluate(
    context: dg.AssetCheckExecutionContext,
    videos: VideoDefinition,
    account: "Account",
    checks: Mapping[tuple[dg.AssetKey, str], Check],
) -> Iterator[dg.AssetCheckResult]:
    """Evaluate checks for the partitions of a run. Free.

    A run of one partition yields its results, as Dagster's own checks do; one of many records each partition's. A run
    that collects checks what it recorded.

    Raises:
        Failure: Blocking checks failed in a run of many partitions; it names them. Of one, Dagster itself says so.
    """
    op_context = context.op_execution_context
    partitions = partitions_of(op_context)
    run = context.run
    only_run = run.run_id if RUN_KIND_TAG in run.tags else None
    keys = {partition: account.record_key(videos, partition) for partition in partitions}
    orders = account.store().read_many(list(keys.values()))
    stopped: list[str] = []
    with account.client() as client:
        for partition in partitions:
            order = orders.get(keys[partition])
            records = {
                output: record for output in Output if (record := _newest(context, videos.key_of(output), partition))
            }
            known = PartitionFacts(records, order.body if order is not None else {}, client, videos.destination)
            for (key, name), check in checks.items():
                found = records.get(check.output)
                if only_run is not None and (found is None or found.run_id != only_run):
                    continue  # in progress: the run that collects it checks it
                verdict = _judge(check, known)
                if len(partitions) == 1:
                    yield dg.AssetCheckResult(
                        asset_key=key, check_name=name, passed=verdict.passed, description=verdict.message
                    )
                    continue
                op_context.log_event(
                    _compat.check_evaluation(
                        asset_key=key,
                        check_name=name,
                        passed=verdict.passed,
                        description=verdict.message,
                        blocking=check.blocking,
                        partition=partition,
                        target=records.get(check.output),
                    )
                )
                if check.blocking and not verdict.passed:
                    stopped.append(f"{partition}: {name} ({verdict.message})")
    if stopped:
        raise dg.Failure(_stopped(stopped), allow_retries=False)


def _stopped(names: Sequence[str]) -> str:
    more = f"; and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{len(names)} blocking checks failed: {'; '.join(names[:20])}{more}"


def _judge(check: Check, known: PartitionFacts) -> Verdict:
    if check.output not in known.records:
        return Verdict(False, "there is nothing to check yet; materialize the partition first")
    return check.judge(known)


def _newest(context: dg.AssetCheckExecutionContext, key: dg.AssetKey, partition: str) -> dg.EventLogRecord | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
    return next(iter(context.instance.fetch_materializations(wanted, limit=1).records), None)


def _answers(url: str, *, local: bool) -> bool:
    from ugen_provider.core.api.errors import UGenError
    from ugen_provider.core.media.http import open_url

    try:
        with open_url(url, timeout=10.0, allow_private=local) as stream:
            return stream.status < 400
    except UGenError:
        return False
