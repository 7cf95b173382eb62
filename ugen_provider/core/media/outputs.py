# SPDX-License-Identifier: Apache-2.0
"""A job's outputs, brought to the user's storage and described there."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from ugen_provider.__about__ import __version__
from ugen_provider.core.api._streams import StreamClient
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.api.models import Job, Keyframe
from ugen_provider.core.media.content import Family, probe
from ugen_provider.core.media.errors import DownloadError
from ugen_provider.core.media.fetching import MAX_BYTES, Fetcher, FetchPolicy
from ugen_provider.core.media.manifest import (
    MANIFEST_NAME,
    Credits,
    Manifest,
    ManifestFile,
    MissingFile,
    OutputKind,
    Scores,
    file_name,
    links_without_query,
    read_manifest,
    without_query,
)
from ugen_provider.core.media.naming import DEFAULT_TEMPLATE, check_template, folder_for
from ugen_provider.core.media.stores import Destination, Store

Include = Literal["final", "segments", "keyframes", "thumbnail"]
INCLUDE: tuple[Include, ...] = ("final", "segments", "keyframes", "thumbnail")


@dataclass(frozen=True, slots=True)
class Output:
    """One thing to fetch."""

    kind: OutputKind
    index: int | None
    url: str = field(repr=False)
    score: float | None = None

    @property
    def family(self) -> Family:
        """What its file must be."""
        return "video" if self.kind in {"final", "segment"} else "image"


@dataclass(frozen=True, slots=True)
class Coming:
    """How much of a file has come.

    Attributes:
        kind: Which output.
        index: Of a segment or keyframe.
        bytes: That have come.
        total: That will come; None where the server does not say.
    """

    kind: OutputKind
    index: int | None
    bytes: int
    total: int | None


def _nobody(coming: Coming) -> None:
    """Nobody wants to be told."""


def outputs_of(job: Job, *, keyframes: Sequence[Keyframe] = (), include: Collection[Include] = INCLUDE) -> list[Output]:
    """What of a job can be fetched: everything included that has a link.

    Args:
        job: As the service last described it.
        keyframes: From `client.jobs.list_keyframes`, where the job does not carry them.
        include: Which kinds.
    """
    found: list[Output] = []
    if "final" in include and job.final_video_url:
        found.append(Output("final", None, job.final_video_url))
    if "segments" in include:
        for index, segment in _numbered(job.segments):
            if segment.video_url:
                found.append(Output("segment", index, segment.video_url, segment.qai_score))
    if "keyframes" in include:
        for index, keyframe in _numbered(keyframes or job.keyframes):
            if keyframe.image_url:
                found.append(Output("keyframe", index, keyframe.image_url, keyframe.qai_score))
    if "thumbnail" in include and job.thumbnail_url:
        found.append(Output("thumbnail", None, job.thumbnail_url))
    return found


def download_outputs(
    job: Job,
    destination: Destination,
    *,
    keyframes: Sequence[Keyframe] = (),
    refresh: Callable[[], Job] | None = None,
    refresh_keyframes: Callable[[], Sequence[Keyframe]] | None = None,
    include: Collection[Include] = INCLUDE,
    product_id: str | None = None,
    request: Mapping[str, Any] | None = None,
    template: str = DEFAULT_TEMPLATE,
    allow_private: bool = False,
    max_bytes: int = MAX_BYTES,
    parallel: int = 4,
    timeout: float = 60.0,
    client: StreamClient | None = None,
    on_progress: Callable[[Coming], None] | None = None,
) -> Manifest:
    """Bring a job's outputs home: streamed, checked, moved into place whole, described in `manifest.json`.

    What is there already with the digest that its manifest tells is not fetched again. Links that have expired are
    asked for anew. The API key is never sent to a storage host. It blocks; call it in a thread from async code.
    Costs no credits.

    Args:
        job: As the service last described it.
        destination: A local folder, any fsspec URL, or a path object that knows its filesystem (`ObjectStoragePath`).
        keyframes: From `client.jobs.list_keyframes`, where the job does not carry them.
        refresh: Gives the job again, with fresh links: `lambda: client.jobs.get(job.job_id)`.
        refresh_keyframes: Gives the keyframes again, with fresh links.
        include: Which kinds of output.
        product_id: The product, for the template and the manifest.
        request: The create-job request, for the manifest.
        template: Where each file goes, below the destination.
        allow_private: Whether links may lead to private addresses, as those of a local U-Gen do.
        max_bytes: A larger file is refused.
        parallel: Files fetched at once.
        timeout: Seconds without a byte after which a connection is given up and resumed.
        client: Connections to share between many jobs.
        on_progress: Told how much of each file has come, from the threads that fetch them.

    Returns:
        The manifest; `manifest.uri("final")` says where the video is.

    Raises:
        ConfigError: The destination or the template cannot be used; nothing was fetched.
        DownloadError: Something could not be stored. The rest was, and the manifest names what is missing.

    Examples:
        >>> manifest = download_outputs(job, "s3://videos/", refresh=lambda: client.jobs.get(job.job_id))
        >>> manifest.uri("final")
        's3://videos/550e8400-e29b-41d4-a716-446655440000/final.mp4'
    """
    check_template(template)
    if unknown := sorted(set(include) - set(INCLUDE)):
        raise ConfigError(f"include names {', '.join(unknown)}; it may name {', '.join(INCLUDE)}")
    store = Store(destination)
    folder = folder_for(template, job_id=job.job_id, product_id=product_id)
    own = client or StreamClient(timeout=timeout)
    policy = FetchPolicy(max_bytes=max_bytes, allow_private=allow_private)
    links = _Links(refresh=refresh, refresh_keyframes=refresh_keyframes, include=include)
    try:
        with _storage_errors(store, job.job_id):
            store.sweep(folder)
            known = read_manifest(store.read(folder + MANIFEST_NAME))
        # A job that was worked on since may have other outputs under the same links.
        current = (
            known if known is not None and known.job.get("updated_at") == _described(job).get("updated_at") else None
        )
        keeper = _Keeper(
            store, folder, Fetcher(own, policy), links, known=current, job_id=job.job_id, tell=on_progress or _nobody
        )
        wanted = outputs_of(job, keyframes=keyframes, include=include)
        with ThreadPoolExecutor(max_workers=max(1, min(parallel, len(wanted)))) as pool:
            results = list(pool.map(keeper.keep, wanted))
    finally:
        if client is None:
            own.close()
    files = tuple(result for result in results if isinstance(result, ManifestFile))
    errors = [
        (output, result) for output, result in zip(wanted, results, strict=True) if isinstance(result, DownloadError)
    ]
    manifest = _describe(job, keyframes, files, errors, product_id=product_id, request=request)
    manifest = _write(manifest, known, store, folder, job_id=job.job_id)
    if errors:
        raise _summary(job, errors, manifest)
    return manifest


class _Links:
    """Fresh links, asked for once however many files need them at the same moment."""

    def __init__(
        self,
        *,
        refresh: Callable[[], Job] | None,
        refresh_keyframes: Callable[[], Sequence[Keyframe]] | None,
        include: Collection[Include],
    ) -> None:
        self._refresh = refresh
        self._refresh_keyframes = refresh_keyframes
        self._include = include
        self._lock = threading.Lock()
        self._fresh: dict[tuple[OutputKind, int | None], str] = {}

    def renew(self, output: Output, url: str) -> str | None:
        with self._lock:
            known = self._fresh.get((output.kind, output.index))
            if known is None or known == url:
                self._ask_again(output)
            return self._fresh.get((output.kind, output.index))

    def _ask_again(self, output: Output) -> None:
        job = self._refresh() if self._refresh is not None else None
        keyframes: Sequence[Keyframe] = ()
        if output.kind == "keyframe" and self._refresh_keyframes is not None:
            keyframes = self._refresh_keyframes()
        if job is None and keyframes:
            job = Job(job_id="")
        if job is not None:
            for fresh in outputs_of(job, keyframes=keyframes, include=self._include):
                self._fresh[fresh.kind, fresh.index] = fresh.url


class _Keeper:
    """Keeps one output in the store, by fetching it or by finding it there."""

    def __init__(
        self,
        store: Store,
        folder: str,
        fetcher: Fetcher,
        links: _Links,
        *,
        known: Manifest | None,
        job_id: str,
        tell: Callable[[Coming], None],
    ) -> None:
        self._store = store
        self._folder = folder
        self._fetcher = fetcher
        self._links = links
        self._known = known
        self._job_id = job_id
        self._tell = tell

    def keep(self, output: Output) -> ManifestFile | DownloadError:
        try:
            with _storage_errors(self._store, self._job_id):
                return self._there(output) or self._fetch(output)
        except DownloadError as error:
            error.job_id = self._job_id
            return error

    def _there(self, output: Output) -> ManifestFile | None:
        known = self._known.file(output.kind, index=output.index) if self._known else None
        if known is None or (known.source, known.score) != (without_query(output.url), output.score):
            return None
        there = self._store.holds(self._folder + known.path, size=known.bytes, sha256=known.sha256)
        return known if there else None

    def _fetch(self, output: Output) -> ManifestFile:
        with self._store.spool(self._folder + output.kind) as part:
            fetched = self._fetcher.fetch(
                output.url,
                part,
                family=output.family,
                renew=lambda url: self._links.renew(output, url),
                tell=lambda size, total: self._tell(Coming(output.kind, output.index, size, total)),
            )
            name = file_name(output.kind, output.index, fetched.media_type)
            seen = probe(part, fetched.media_type)
            self._store.publish(part, self._folder + name)
        return ManifestFile(
            kind=output.kind,
            index=output.index,
            path=name,
            bytes=fetched.size,
            sha256=fetched.sha256,
            media_type=fetched.media_type,
            width=seen.width,
            height=seen.height,
            duration=seen.duration,
            codec=seen.codec,
            score=output.score,
            source=without_query(output.url),
        )


@contextmanager
def _storage_errors(store: Store, job_id: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC
        hint = "the disk is full; make room and run it again" if full else "check that the destination may be written"
        raise DownloadError(f"{store.name}: {error}; {hint}", reason="storage", job_id=job_id) from error


def _describe(
    job: Job,
    keyframes: Sequence[Keyframe],
    files: tuple[ManifestFile, ...],
    errors: Sequence[tuple[Output, DownloadError]],
    *,
    product_id: str | None,
    request: Mapping[str, Any] | None,
) -> Manifest:
    described = _described(job)
    if keyframes:
        described["keyframes"] = links_without_query(
            [item.model_dump(mode="json", exclude_none=True) for item in keyframes]
        )
    of_keyframes = tuple(keyframe.qai_score for _, keyframe in _numbered(keyframes or job.keyframes))
    of_segments = tuple(segment.qai_score for _, segment in _numbered(job.segments))
    known = [score for score in (*of_keyframes, *of_segments) if score is not None]
    stages = described.get("stages")
    return Manifest(
        job_id=job.job_id,
        product_id=product_id,
        product_name=job.product_name or (request or {}).get("product_name"),
        status=job.status,
        current_stage=job.current_stage,
        video_model=job.video_model or (request or {}).get("video_model"),
        request=None if request is None else links_without_query(dict(request)),
        job=described,
        stages=tuple(stages) if isinstance(stages, list) else (),
        credits=Credits(reserved=job.credits_reserved, consumed=job.credits_consumed),
        scores=Scores(keyframes=of_keyframes, segments=of_segments, lowest=min(known, default=None)),
        files=files,
        missing=tuple(
            MissingFile(kind=output.kind, index=output.index, reason=error.reason, message=str(error))
            for output, error in errors
        ),
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        written_by=f"ugen-provider {__version__}",
    )


def _described(job: Job) -> dict[str, Any]:
    described: dict[str, Any] = links_without_query(job.model_dump(mode="json", exclude_none=True))
    return described


def _write(manifest: Manifest, known: Manifest | None, store: Store, folder: str, *, job_id: str) -> Manifest:
    """Write the manifest unless it would say what stands there already."""
    location = store.location(folder + MANIFEST_NAME).removesuffix(MANIFEST_NAME)
    if known is not None:
        same = manifest.model_copy(update={"written_at": known.written_at, "written_by": known.written_by})
        if same.to_json() == known.to_json():
            return known.model_copy(update={"location": location})
    with _storage_errors(store, job_id):
        store.write(folder + MANIFEST_NAME, manifest.to_json().encode())
    return manifest.model_copy(update={"location": location})


def _summary(job: Job, errors: Sequence[tuple[Output, DownloadError]], manifest: Manifest) -> DownloadError:
    first = errors[0][1]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    stored = f"{len(manifest.files)} of {len(manifest.files) + len(errors)} files are stored"
    message = f"job {job.job_id}: {first}{more}; {stored}, download again to fetch the rest"
    return DownloadError(message, reason=first.reason, url=first.url, job_id=job.job_id, manifest=manifest)


def _numbered(items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Items with their own index, or with their place where the service gave none or gave one twice."""
    own = [item.index for item in items]
    trusted = None not in own and len(set(own)) == len(own)
    return ((item.index if trusted else place, item) for place, item in enumerate(items))
