# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: UP045
"""The results of partitions: the failure of a run that is made from them, and the metadata of each materialization."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import dagster as dg

from dagster_ugen._compat import NamespacedMetadataSet
from dagster_ugen.definition import Output
from dagster_ugen.event_log import CostLog, newest_materializations
from ugen_provider.core.text import markdown_link

if TYPE_CHECKING:
    from dagster_ugen.event_log import Cost
    from ugen_provider.core.api.models import Job, Keyframe, Segment
    from ugen_provider.core.jobs.approval import KeyframeSnapshot
    from ugen_provider.core.jobs.order import Purchase
    from ugen_provider.core.media import Manifest

_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """A job that is complete, or awaits approval at its gate, with its outputs.

    Attributes:
        partition: The partition; '' for an unpartitioned asset.
        bought: The purchase.
        keyframes: Its keyframes.
        segments: Its segments.
        manifest: The manifest of the stored files, where some were stored.
        shown: The anchor keyframe that awaits approval.
        credits_estimated: Credits that it was estimated to cost, where that was asked.
        costs: Credits that the event log does not have yet, of earlier purchases and last of this job.
        warnings: Sentences for a person.
    """

    partition: str
    bought: Purchase
    keyframes: tuple[Keyframe, ...] = ()
    segments: tuple[Segment, ...] = ()
    manifest: Manifest | None = None
    shown: KeyframeSnapshot | None = None
    credits_estimated: int | None = None
    costs: tuple[Cost, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def created(self) -> bool:
        """Whether this run bought the job."""
        from ugen_provider.core.jobs.order import PurchaseOutcome

        return self.bought.outcome is PurchaseOutcome.CREATED

    @property
    def cost(self) -> Cost | None:
        """What is to be written of this job; None where nothing is counted."""
        return self.costs[-1] if self.costs else None


def spent_on(job: Job) -> int:
    """Return the credits that a job consumed; while the service does not say, those that it reserved."""
    return job.credits_consumed if job.credits_consumed is not None else job.credits_reserved or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPartition:
    """A partition without a result.

    Attributes:
        partition: The partition.
        error: Why.
        retryable: Whether a repeat may help.
    """

    partition: str
    error: Exception
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InProgress:
    """A partition whose job has not ended, in a run that does not wait.

    Attributes:
        partition: The partition.
        job_id: Its job; None where the account's job limit was reached.
        why: Its state.
    """

    partition: str
    job_id: str | None
    why: str


Result = Succeeded | FailedPartition | InProgress


def is_retryable(error: Exception) -> bool:
    """Return whether a retry by Dagster may help: the error's own judgement; an unknown error may pass."""
    from ugen_provider.core.api.errors import UGenError

    return error.retryable if isinstance(error, UGenError) else True


def failure_of(failed: Sequence[FailedPartition], *, of: int) -> dg.Failure:
    """Return the failure of a run, which names the partitions that failed and the reasons.

    Dagster's own retries are allowed only where they may help at least one of them.

    Args:
        failed: The partitions that failed.
        of: How many partitions the run had.
    """
    named = "; ".join(f"{each.partition}: {each.error}" if each.partition else str(each.error) for each in failed[:20])
    more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    counted = f"{len(failed)} of {of} partitions failed: " if of > 1 else ""
    failure = dg.Failure(
        description=f"{counted}{named}{more}",
        metadata={
            "ugen/failed_partitions": dg.MetadataValue.json([each.partition for each in failed]),
            "ugen/errors": dg.MetadataValue.json(
                {each.partition: f"{type(each.error).__name__}: {each.error}" for each in failed}
            ),
        },
        allow_retries=any(each.retryable for each in failed),
    )
    failure.__cause__ = failed[0].error if len(failed) == 1 else None
    return failure


# Metadata.

PREVIEW_LIMIT = 1000
"""From this many characters on, Dagster's asset page hides Markdown behind a link."""

LOOK = "ugen/look"
"""Under which an anchor keyframe says what an approval of it binds."""

_SOURCE_KINDS = {
    Output.ANCHOR_KEYFRAME: "keyframe",
    Output.APPROVAL: "keyframe",
    Output.KEYFRAMES: "keyframe",
    Output.VIDEOS: "segment",
    Output.FINAL_VIDEO: "final",
}


class UGenMetadataSet(NamespacedMetadataSet):
    """Facts about the job behind a materialization; every entry begins with `ugen/`.

    Args:
        warnings: Sentences for a person.
        preview: Pictures that the asset page shows.
        url: Where the service serves it; such links may expire.
        urls: The same, where there are several.
        manifest_uri: Where its `manifest.json` is.
        outcome: How the run came to its job: `created`, `reattached`, `reused`, `recovered` (the service had it
            under the order's key, complete: nothing was paid), `resumed`, `stage_retried`, `awaiting_approval`.
        credits: Credits that this event adds; on the final video alone. Their sum over all events of the asset is what
            its jobs cost: a job that is recorded again adds none.
        jobs: 1 for the event that adds a job to that sum, else 0.
        credits_estimated: Credits that the job was estimated to cost.
        lowest_score: The lowest quality score of the output, 0 to 1.
        scores: All quality scores of the output.
        attempts: Attempts that the service made at each of the output's items.
        fail_categories: What its quality checks found.
        duration_seconds: Length of the video.
        job_seconds: From the job's creation to its end.
        video_model: The model that made it.
        job_id: The job.
        purchase_number: 0, plus one for each deliberate further purchase.
        request_changed: True if the request is another one now than what the job was made from.
    """

    # Dagster 1.12 reads `Optional[X]` of a metadata set, and not `X | None`. Its pages keep this order: what a
    # person should know, the pictures and the links come first.
    warnings: Optional[str] = None
    preview: Optional[dg.MarkdownMetadataValue] = None
    url: Optional[dg.UrlMetadataValue] = None
    urls: Optional[dg.JsonMetadataValue] = None
    manifest_uri: Optional[dg.PathMetadataValue] = None
    outcome: Optional[str] = None
    credits: Optional[int] = None
    jobs: Optional[int] = None
    credits_estimated: Optional[int] = None
    lowest_score: Optional[float] = None
    scores: Optional[dg.JsonMetadataValue] = None
    attempts: Optional[dg.JsonMetadataValue] = None
    fail_categories: Optional[dg.JsonMetadataValue] = None
    duration_seconds: Optional[float] = None
    job_seconds: Optional[float] = None
    video_model: Optional[str] = None
    job_id: str
    purchase_number: Optional[int] = None
    request_changed: Optional[bool] = None

    @classmethod
    def namespace(cls) -> str:
        """Return the prefix of the entries."""
        return "ugen"


def describe(output: Output, result: Succeeded) -> dict[str, Any]:
    """Return the metadata of one output's materialization.

    Args:
        output: Which output.
        result: The job with its results.
    """
    job = result.bought.job
    items = items_of(output, result)
    scores = [item.qai_score for item in items]
    known = [score for score in scores if score is not None]
    urls = [url for url in urls_of(output, result) if url]
    lengths = _durations(output, result)
    seconds = None
    if job.created_at is not None and job.completed_at is not None:
        seconds = round((job.completed_at - job.created_at).total_seconds(), 3)
    preview = gallery(output, result)
    is_video = output is Output.FINAL_VIDEO
    cost = result.cost if is_video else None
    described = UGenMetadataSet(
        warnings="; ".join(result.warnings) or None,
        preview=dg.MetadataValue.md(preview) if preview else None,
        url=dg.MetadataValue.url(urls[0]) if len(urls) == 1 else None,
        urls=dg.MetadataValue.json(urls) if len(urls) > 1 else None,
        manifest_uri=_manifest(result.manifest),
        outcome=result.bought.outcome.value,
        credits=cost.credits if cost is not None else None,
        jobs=int(cost.is_new) if cost is not None else None,
        credits_estimated=result.credits_estimated if is_video else None,
        lowest_score=min(known, default=None),
        scores=dg.MetadataValue.json(scores) if scores else None,
        attempts=_json([item.attempts if item.attempts != 1 else None for item in items]),
        fail_categories=_json([item.fail_category for item in items]),
        duration_seconds=round(sum(lengths), 3) if lengths else None,
        job_seconds=seconds if is_video else None,
        video_model=job.video_model if is_video else None,
        job_id=job.job_id,
        purchase_number=result.bought.record.purchase_number,
        request_changed=result.bought.request_changed or None,
    )
    uris = stored_at(output, result)
    home = {"dagster/uri": uris[0] if len(uris) == 1 else _folder(uris)} if uris else {}
    shown = result.shown if output is Output.ANCHOR_KEYFRAME else None
    keyframe = {LOOK: dg.MetadataValue.json(binding_of(shown))} if shown is not None else {}
    return {**described, **home, **keyframe}


def describe_purchase(result: Succeeded) -> dict[str, Any]:
    """Return the metadata of a purchase in an asset of the user's own."""
    bought, cost = result.bought, result.cost
    job = bought.job
    described = UGenMetadataSet(
        warnings="; ".join(bought.warnings) or None,
        url=dg.MetadataValue.url(job.final_video_url) if job.final_video_url else None,
        outcome=bought.outcome.value,
        credits=cost.credits if cost is not None else spent_on(job) if result.created else 0,
        jobs=int(cost.is_new if cost is not None else result.created),
        video_model=job.video_model,
        job_id=job.job_id,
        purchase_number=bought.record.purchase_number,
        request_changed=bought.request_changed or None,
    )
    return {**described}


def binding_of(shown: KeyframeSnapshot) -> dict[str, Any]:
    """Return what an approval binds: job, keyframe and picture. Links are no identity and may be worth money."""
    return {
        "job_id": shown.job_id,
        "keyframe_id": shown.keyframe_id,
        "digest": shown.digest,
        "qai_score": shown.qai_score,
    }


def items_of(output: Output, result: Succeeded) -> Sequence[Keyframe | Segment]:
    """Return the keyframes or segments that an output consists of."""
    match output:
        case Output.ANCHOR_KEYFRAME | Output.APPROVAL:
            return result.keyframes[:1]
        case Output.KEYFRAMES:
            return result.keyframes
        case _:
            return result.segments


def urls_of(output: Output, result: Succeeded) -> list[str | None]:
    """Return the addresses at which the service serves an output."""
    match output:
        case Output.ANCHOR_KEYFRAME | Output.APPROVAL:
            return [frame.image_url for frame in result.keyframes[:1]]
        case Output.KEYFRAMES:
            return [frame.image_url for frame in result.keyframes]
        case Output.VIDEOS:
            return [segment.video_url for segment in result.segments]
        case Output.FINAL_VIDEO:
            return [result.bought.job.final_video_url]


def stored_at(output: Output, result: Succeeded) -> list[str]:
    """Return the addresses of an output's files in the user's storage."""
    manifest = result.manifest
    if manifest is None:
        return []
    kind = _SOURCE_KINDS[output]
    files = [file for file in manifest.files if file.kind == kind]
    if output is Output.ANCHOR_KEYFRAME:
        files = files[:1]
    return [manifest.location + file.path for file in files]


def version_of(output: Output, result: Succeeded) -> str:
    """Return the data version of an output: the same files give the same version, a re-made one gives another.

    Without files the job and its quality scores replace them; links are no identity, since they may be signed anew.
    """
    manifest = result.manifest
    kind = _SOURCE_KINDS[output]
    parts: Iterable[str]
    if manifest is not None and (files := [file for file in manifest.files if file.kind == kind]):
        parts = [file.sha256 for file in (files[:1] if output is Output.ANCHOR_KEYFRAME else files)]
    else:
        parts = [
            result.bought.job.job_id,
            output.value,
            *(f"{item.qai_score}:{item.attempts}" for item in items_of(output, result)),
        ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def gallery(output: Output, result: Succeeded) -> str | None:
    """Markdown that Dagster's asset page shows as pictures: a row of keyframes, or the poster linking to the video.

    It stays below `PREVIEW_LIMIT` by leaving pictures out at the end; None where not one fits.
    """
    job = result.bought.job
    frames = [(f"keyframe {index}", frame.image_url) for index, frame in enumerate(result.keyframes)]
    pictures = [(name, url) for name, url in frames if url and _fits(url)]
    match output:
        case Output.ANCHOR_KEYFRAME | Output.APPROVAL:
            return _row(pictures[:1])
        case Output.KEYFRAMES:
            return _row(pictures)
        case Output.VIDEOS:
            return None
        case Output.FINAL_VIDEO:
            poster = job.thumbnail_url or next((url for _, url in pictures), None)
            if not poster or not _fits(poster) or not job.final_video_url or not _fits(job.final_video_url):
                return None
            made = f"[![poster]({poster})]({job.final_video_url})"
            return made if len(made) < PREVIEW_LIMIT else None


def _fits(url: str) -> bool:
    return markdown_link(url) is not None


def _row(pictures: Sequence[tuple[str, str]]) -> str | None:
    for count in range(len(pictures), 0, -1):
        shown = pictures[:count]
        head = "| " + " | ".join(name.removeprefix("keyframe ") for name, _ in shown) + " |"
        rule = "|" + "---|" * count
        row = "| " + " | ".join(f"![{name}]({url})" for name, url in shown) + " |"
        more = f"\n\n{len(pictures) - count} more" if count < len(pictures) else ""
        made = f"{head}\n{rule}\n{row}{more}"
        if len(made) < PREVIEW_LIMIT:
            return made
    return None


def _json(values: Sequence[Any]) -> dg.JsonMetadataValue | None:
    return dg.MetadataValue.json(list(values)) if any(value is not None for value in values) else None


def _durations(output: Output, result: Succeeded) -> list[float]:
    if result.manifest is not None and output in {Output.VIDEOS, Output.FINAL_VIDEO}:
        kind = _SOURCE_KINDS[output]
        return [file.duration for file in result.manifest.files if file.kind == kind and file.duration is not None]
    if output in {Output.VIDEOS, Output.FINAL_VIDEO}:
        return [segment.duration for segment in result.segments if segment.duration is not None]
    return []


def _manifest(manifest: Manifest | None) -> dg.PathMetadataValue | None:
    return dg.MetadataValue.path(f"{manifest.location}manifest.json") if manifest is not None else None


def _folder(uris: Sequence[str]) -> str:
    return uris[0].rpartition("/")[0] + "/"


# The handle of a recorded output, for what is made from it.


@dataclass(frozen=True, slots=True, kw_only=True)
class UGenVideo:
    """A recorded output of a job: `final_video`, or `keyframes` and `videos`, as their newest materialization says.

    An asset of your own that has an argument of an output's name gets it, and `video_of` returns it. It is read from
    the event log: nothing is bought, downloaded or asked of the service.

    Attributes:
        asset_key: The output's asset.
        partition: The partition; '' for an unpartitioned asset.
        job_id: The job.
        purchase_number: 0, plus one for each deliberate further purchase.
        path: Path or URL of the file in your own storage, of the folder where there are several; None without a
            `destination`.
        manifest_uri: Path or URL of its `manifest.json`; None without a `destination`.
        urls: Addresses at which the service serves it. They may expire.
        scores: Quality scores, 0 to 1, in order; None where the service gave none.
        lowest_score: The lowest of them; None without scores.
        credits: Credits that the job cost, over all events that recorded it; 0 for outputs other than the final video.
        duration: Length in seconds; None where it is not known, and for keyframes.
        outcome: How the run came to the job, such as `created` or `reused`.
        warnings: Sentences for a person; '' without any.
        recorded_at: When it was recorded, in seconds since the epoch.
        run_id: The run that recorded it.
    """

    asset_key: dg.AssetKey
    partition: str
    job_id: str
    purchase_number: int
    path: str | None
    manifest_uri: str | None
    urls: tuple[str, ...]
    scores: tuple[float | None, ...]
    lowest_score: float | None
    credits: int
    duration: float | None
    outcome: str
    warnings: str
    recorded_at: float
    run_id: str

    @property
    def url(self) -> str | None:
        """The address at which the service serves it, where it is one file. It may expire."""
        return self.urls[0] if len(self.urls) == 1 else None

    def read_manifest(self) -> Manifest | None:
        """Read `manifest.json` from your storage; None without a `destination`, or where the file is damaged.

        Raises:
            DownloadError: The storage cannot be read.
        """
        if self.manifest_uri is None:
            return None
        from ugen_provider.core.media.manifest import read_manifest
        from ugen_provider.core.media.stores import Store

        folder, _, name = self.manifest_uri.rpartition("/")
        manifest = read_manifest(Store(folder).read(name), name=self.manifest_uri)
        return manifest.model_copy(update={"location": f"{folder}/"}) if manifest is not None else None


def video_of(
    context: dg.AssetExecutionContext | dg.OpExecutionContext | dg.SensorEvaluationContext | dg.DagsterInstance,
    partition: str | None = None,
    *,
    asset: dg.CoercibleToAssetKey = "final_video",
) -> UGenVideo:
    """Return the recorded output of a partition. Free: it reads Dagster's event log and nothing else.

    Args:
        context: The context of an asset, op or sensor, or an instance.
        partition: The partition; default that of the context's run, and of an unpartitioned asset none.
        asset: The key of the output's asset.

    Raises:
        LookupError: Nothing is recorded for that partition.

    Examples:
        ```python
        @dg.asset(deps=["final_video"], partitions_def=products)
        def shop_entry(context: dg.AssetExecutionContext) -> dict[str, str | None]:
            video = video_of(context)
            return {"id": video.partition, "video": video.path}
        ```
    """
    instance = context if isinstance(context, dg.DagsterInstance) else context.instance
    if partition is None:
        partition = ""
        if isinstance(context, dg.AssetExecutionContext | dg.OpExecutionContext) and context.has_partition_key:
            partition = context.partition_key
    key = dg.AssetKey.from_coercible(asset)
    return videos_of(instance, key, [partition])[partition]


def videos_of(instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str]) -> dict[str, UGenVideo]:
    """Return the recorded outputs of many partitions, read together.

    Raises:
        LookupError: Nothing is recorded for one of them.
    """
    found = recorded_videos(instance, key, partitions)
    for each in partitions:
        if each not in found:
            named = f", partition {each!r}" if each else ""
            raise LookupError(f"{key.to_user_string()}{named}: no video is recorded; materialize it first")
    return found


def recorded_videos(instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str]) -> dict[str, UGenVideo]:
    """Return the recorded outputs of those of some partitions that have one, in the order of the partitions."""
    records = newest_materializations(instance, key, partitions)
    costs = CostLog(instance, asset_key=key, partitions=partitions)
    found: dict[str, UGenVideo] = {}
    for each in partitions:
        record = records.get(each)
        made = record.asset_materialization if record is not None else None
        if record is not None and made is not None and "ugen/job_id" in made.metadata:
            found[each] = _video_in(record, made, key, each, costs)
    return found


def _video_in(
    record: dg.EventLogRecord, made: dg.AssetMaterialization, key: dg.AssetKey, partition: str, costs: CostLog
) -> UGenVideo:
    def value(name: str, default: Any = None) -> Any:
        entry = made.metadata.get(name)
        return default if entry is None else entry.value

    job_id = str(value("ugen/job_id"))
    url = value("ugen/url")
    return UGenVideo(
        asset_key=key,
        partition=partition,
        job_id=job_id,
        purchase_number=value("ugen/purchase_number", 0),
        path=value("dagster/uri"),
        manifest_uri=value("ugen/manifest_uri"),
        urls=(url,) if url is not None else tuple(value("ugen/urls", ())),
        scores=tuple(value("ugen/scores", ())),
        lowest_score=value("ugen/lowest_score"),
        credits=costs.of(partition).get(job_id, 0),
        duration=value("ugen/duration_seconds"),
        outcome=value("ugen/outcome", ""),
        warnings=value("ugen/warnings", ""),
        recorded_at=record.timestamp,
        run_id=record.run_id,
    )


class UGenVideoIOManager(dg.IOManager):
    """Passes the handle of an output to the assets that take it as an argument; it stores nothing."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Store nothing: the files are stored by the run itself, and the event log has the rest."""

    def load_input(self, context: dg.InputContext) -> UGenVideo | dict[str, UGenVideo]:
        """Return the handle of the partition, or those of several by partition.

        Raises:
            LookupError: Nothing is recorded for one of them.
        """
        partitions = context.asset_partition_keys if context.has_asset_partitions else [""]
        found = videos_of(context.instance, context.asset_key, partitions)
        is_single = not context.has_asset_partitions or (len(partitions) == 1 and context.has_partition_key)
        return found[partitions[0]] if is_single else found


VIDEO_IO_MANAGER = "ugen_video_io_manager"
"""The resource under which the assets bring their IO manager."""

video_io_manager = dg.IOManagerDefinition.hardcoded_io_manager(UGenVideoIOManager())
