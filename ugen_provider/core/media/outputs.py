# SPDX-License-Identifier: Apache-2.0
"""A job's outputs, brought to the user's storage and described there.

`Downloader` makes one link one whole, checked file on local disk, or raises an error; it leaves nothing in between.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, Literal

from ugen_provider.__about__ import __version__
from ugen_provider.core.api.errors import ConfigError, TransportError
from ugen_provider.core.api.models import Job, Keyframe
from ugen_provider.core.api.polling import JobError
from ugen_provider.core.api.profile import DEFAULT_PROFILE, ServiceProfile
from ugen_provider.core.media.errors import DownloadError, Reason
from ugen_provider.core.media.http import MediaClient, shared_client
from ugen_provider.core.media.manifest import (
    MANIFEST_NAME,
    Family,
    Manifest,
    ManifestCredits,
    ManifestFile,
    ManifestScores,
    MissingFile,
    OutputKind,
    file_name,
    is_whole,
    links_without_query,
    media_type_of,
    probe,
    promised_family,
    read_manifest,
    without_query,
)
from ugen_provider.core.media.origins import OriginError, PrivateAddressError
from ugen_provider.core.media.stores import Destination, Store

if TYPE_CHECKING:
    from ugen_provider.core.media.http import ByteStream


_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes ([0-9]{1,20})-[0-9]{1,20}/([0-9]{1,20})")
_PROGRESS = 1 << 20
MAX_BYTES = 4 << 30
"""Bytes above which a file is refused where the caller sets no limit."""


@dataclass(frozen=True, slots=True)
class DownloadPolicy:
    """The limits of a download.

    Attributes:
        max_bytes: A larger file is refused.
        attempts: Attempts in a row that bring nothing new; one that brought 1 MiB starts the count again.
        deadline: Seconds for one file in all.
        allow_private: Whether links may lead to loopback and private addresses, as those of a local U-Gen do.
        redirects: Redirects that are followed, each checked like the first link.
        timeout: Seconds without a byte after which a connection is given up and resumed; the client's where not given.
        expired_statuses: Statuses by which a link says that it has expired: a fresh one is asked for once.
    """

    max_bytes: int = MAX_BYTES
    attempts: int = 5
    deadline: float = 3600.0
    allow_private: bool = False
    redirects: int = 5
    timeout: float | None = None
    expired_statuses: tuple[int, ...] = DEFAULT_PROFILE.expired_statuses


@dataclass(frozen=True, slots=True)
class DownloadedFile:
    """A file that was downloaded.

    Attributes:
        size: Bytes.
        sha256: Digest of its content, in hex.
        media_type: As its first bytes show, not as the server said.
        source: The link, without query.
    """

    size: int
    sha256: str
    media_type: str
    source: str


@dataclass(slots=True)
class _Part:
    """The bytes on disk so far, with what a resumption must match."""

    path: Path
    on_progress: Callable[[int, int | None], None]
    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    validator: str | None = None
    total: int | None = None

    def restart(self) -> None:
        self.path.touch()
        if self.path.stat().st_size:  # ext4 writes out at once a file that was truncated to nothing before
            os.truncate(self.path, 0)
        self.size, self.digest, self.validator, self.total = 0, hashlib.sha256(), None, None


class Downloader:
    """Downloads links to local disk.

    Args:
        client: Reads the links; it holds no key.
        policy: The limits.
        sleep: Waits between attempts.
        tick: A clock that is never set back.
    """

    def __init__(
        self,
        client: MediaClient,
        policy: DownloadPolicy,
        *,
        sleep: Callable[[float], None] = time.sleep,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._policy = policy
        self._sleep = sleep
        self._tick = tick

    def download(
        self,
        url: str,
        path: Path,
        *,
        family: Family,
        refresh_url: Callable[[str], str | None],
        on_progress: Callable[[int, int | None], None] = lambda size, total: None,  # noqa: ARG005
    ) -> DownloadedFile:
        """Download one link, and resume it where the connection breaks.

        Args:
            url: The link.
            path: The file to write; left half-written on an error.
            family: The kind of file that is expected.
            refresh_url: Returns a fresh link for one that has expired, None where there is none.
            on_progress: Called with the bytes so far, and the total where the server names it.

        Raises:
            DownloadError: The file could not be downloaded whole, or is not of the expected kind.
        """
        part = _Part(path, on_progress)
        part.restart()
        until = self._tick() + self._policy.deadline
        failures = 0
        renewed = False
        while True:
            before = part.size
            try:
                outcome = self._attempt(url, part, family, until=until)
            except OriginError as error:
                reason: Reason = "private_address" if isinstance(error, PrivateAddressError) else "refused"
                raise _error(error.rule, reason, url) from None
            except TransportError as error:
                outcome = str(error)
            if isinstance(outcome, DownloadedFile):
                return outcome
            if outcome in self._policy.expired_statuses:
                fresh = None if renewed else refresh_url(url)
                renewed = True
                if not fresh:
                    raise _error(f"the link answers {outcome}, and the service gives no fresh one", "expired", url)
                url = fresh
                continue
            failures = 0 if part.size - before >= _PROGRESS else failures + 1
            if failures >= self._policy.attempts or self._tick() > until:
                raise _error(f"could not be downloaded in {failures} attempts, at last: {outcome}", "network", url)
            self._sleep(random.uniform(0.5, 1.0) * min(8.0, 0.25 * 2.0**failures))  # noqa: S311  jitter, no secret

    def _attempt(self, url: str, part: _Part, family: Family, *, until: float) -> DownloadedFile | int | str:
        headers: dict[str, str] = {}
        if part.size and part.validator:
            headers = {"Range": f"bytes={part.size}-", "If-Range": part.validator}
        policy = self._policy
        with self._client.follow(
            url,
            headers=headers,
            allow_private=policy.allow_private,
            redirects=policy.redirects,
            timeout=policy.timeout,
        ) as stream:
            if stream.status in policy.expired_statuses:
                return stream.status
            if stream.status == 416:
                part.restart()
                return "the server refused to resume where the connection broke"
            if stream.status in _RETRYABLE:
                return f"the server answered {stream.status}"
            if stream.status not in {200, 206}:
                raise _error(f"the server answered {stream.status}", "refused", url)
            self._check_headers(stream, family, url)
            if not self._position(stream, part):
                return "the server resumed at another position than requested"
            self._receive(stream, part, url, until=until)
        return self._finish(part, family, url)

    def _check_headers(self, stream: ByteStream, family: Family, url: str) -> None:
        try:
            promised = promised_family(stream.headers.get("content-type"))
        except ValueError as error:
            raise _error(f"the server sends {error} where a {family} was promised", "wrong_type", url) from None
        if promised not in {None, family}:
            raise _error(f"the server sends a {promised} where a {family} was promised", "wrong_type", url)

    def _position(self, stream: ByteStream, part: _Part) -> bool:
        """Resume where the part ends if this is the same file, else begin again."""
        validator = _validator(stream.headers)
        if stream.status == 200:
            part.restart()
            part.validator = validator
            length = stream.headers.get("content-length", "")
            part.total = int(length) if length.isdigit() else None
            return True
        found = _RANGE.fullmatch(stream.headers.get("content-range", ""))
        same = validator in {None, part.validator} and found is not None
        if not same or found is None or int(found[1]) != part.size or part.total not in {None, int(found[2])}:
            part.restart()
            return False
        part.total = int(found[2])
        return True

    def _receive(self, stream: ByteStream, part: _Part, url: str, *, until: float) -> None:
        if (part.total or 0) > self._policy.max_bytes:
            raise self._too_large(url)
        with part.path.open("ab", buffering=0) as file:
            for piece in stream.chunks():
                part.size += len(piece)
                if part.size > self._policy.max_bytes:
                    raise self._too_large(url)
                part.digest.update(piece)
                rest = memoryview(piece)
                while rest:  # a disk that is nearly full takes a part
                    rest = rest[file.write(rest) :]
                part.on_progress(part.size, part.total)
                if self._tick() > until:
                    message = f"took longer than {self._policy.deadline:g} s ({part.size:,} bytes came)"
                    raise _error(message, "network", url)

    def _too_large(self, url: str) -> DownloadError:
        limit = f"{self._policy.max_bytes:,}"
        return _error(f"is larger than max_bytes ({limit}); raise that to download it", "too_large", url)

    def _finish(self, part: _Part, family: Family, url: str) -> DownloadedFile | str:
        if part.total is not None and part.size != part.total:
            return f"{part.size:,} of {part.total:,} bytes came"
        with part.path.open("rb") as file:
            media_type = media_type_of(file.read(16))
        if media_type is None or not media_type.startswith(family):
            raise _error(f"the content is no {family} ({part.size:,} bytes)", "wrong_type", url)
        if not is_whole(part.path, media_type):
            if part.total is not None:
                raise _error(f"the {family} ends in the middle, as the server stores it", "cut_short", url)
            size = part.size
            part.restart()
            return f"the {family} ends in the middle, after {size:,} bytes"
        return DownloadedFile(part.size, part.digest.hexdigest(), media_type, without_query(url))


def _validator(headers: Mapping[str, str]) -> str | None:
    etag = headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("last-modified")


def _error(message: str, reason: Reason, url: str) -> DownloadError:
    return DownloadError(f"{without_query(url)}: {message}", reason=reason, url=without_query(url))


DEFAULT_TEMPLATE = "{product_id}/{variant}/{job_id}/{name}"
"""`name` is `final.mp4`, `segment-0.mp4`, `keyframe-0.png`, `thumbnail.png` or `manifest.json`."""

FIELDS = ("product_id", "variant", "job_id", "name")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})
_MOST_LETTERS = 100


def safe_name(value: str) -> str:
    """Return one path segment that every storage takes, and that differs where the values differ.

    Examples:
        >>> safe_name("LL-1001"), safe_name("../etc")
        ('LL-1001', 'etc-6d0e4fbd')
    """
    safe = _UNSAFE.sub("_", value).strip("._ ")[:_MOST_LETTERS]
    if safe == value and safe.partition(".")[0].lower() not in _RESERVED:
        return safe
    return f"{safe.strip('_') or 'x'}-{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def check_template(template: str) -> None:
    """Refuse a template that could put two files in one place, or a file outside the destination.

    Raises:
        ConfigError: It says what the template lacks.
    """
    try:
        used = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ConfigError(f"template {template!r} cannot be read: {error}") from None
    unknown = sorted(set(used) - set(FIELDS))
    if unknown:
        raise ConfigError(f"template {template!r} names {', '.join(unknown)}; it may use {', '.join(FIELDS)}")
    if "job_id" not in used or "name" not in used:
        raise ConfigError(f"template {template!r} needs {{job_id}} and {{name}}, or files would replace one another")
    if not template.rpartition("/")[2].startswith("{name}") or template.count("{name}") > 1:
        raise ConfigError(f"template {template!r} must end in /{{name}}")
    if template.startswith("/") or ".." in template.split("/") or "\\" in template or ":" in template:
        raise ConfigError(f"template {template!r} must stay below the destination: no leading /, .., \\ or :")


def folder_for(template: str, *, job_id: str, product_id: str | None, variant: str = "") -> str:
    """The folder of one job's files, relative to the destination, ending in `/` unless it is empty.

    Examples:
        >>> folder_for(DEFAULT_TEMPLATE, job_id="j1", product_id=None)
        'j1/'
        >>> folder_for(DEFAULT_TEMPLATE, job_id="j1", product_id="p1", variant="wide")
        'p1/wide/j1/'
    """
    values: Mapping[str, str] = {
        "job_id": safe_name(job_id),
        "product_id": safe_name(product_id) if product_id else "",
        "variant": safe_name(variant) if variant else "",
        "name": "",
    }
    path = template.format(**values)
    return "".join(f"{part}/" for part in path.split("/") if part)


Include = Literal["final", "segments", "keyframes", "thumbnail"]
INCLUDE: tuple[Include, ...] = ("final", "segments", "keyframes", "thumbnail")


@dataclass(frozen=True, slots=True)
class JobOutput:
    """One output of a job to download."""

    kind: OutputKind
    index: int | None
    url: str = field(repr=False)
    score: float | None = None

    @property
    def family(self) -> Family:
        """Return what its file must be."""
        return "video" if self.kind in {"final", "segment"} else "image"


@dataclass(frozen=True, slots=True)
class PendingOutput:
    """A file that is being downloaded.

    Attributes:
        kind: Which output.
        index: Of a segment or keyframe.
        bytes: Bytes so far.
        total: Bytes in all; None where the server does not say.
    """

    kind: OutputKind
    index: int | None
    bytes: int
    total: int | None


def outputs_of(
    job: Job, *, keyframes: Sequence[Keyframe] = (), include: Collection[Include] = INCLUDE
) -> list[JobOutput]:
    """List the outputs of a job that can be downloaded: everything included that has a link.

    Args:
        job: As the service last described it.
        keyframes: From `client.jobs.list_keyframes`, where the job does not carry them.
        include: Which kinds.
    """
    found: list[JobOutput] = []
    if "final" in include and job.final_video_url:
        found.append(JobOutput("final", None, job.final_video_url))
    if "segments" in include:
        for index, segment in _numbered(job.segments):
            if segment.video_url:
                found.append(JobOutput("segment", index, segment.video_url, segment.qai_score))
    if "keyframes" in include:
        for index, keyframe in _numbered(keyframes or job.keyframes):
            if keyframe.image_url:
                found.append(JobOutput("keyframe", index, keyframe.image_url, keyframe.qai_score))
    if "thumbnail" in include and job.thumbnail_url:
        found.append(JobOutput("thumbnail", None, job.thumbnail_url))
    return found


def without_outputs(job: Job) -> JobError:
    """Return the error for a job that has none of the requested files."""
    why = f": {job.error_message or 'read the job'}" if job.ended else " yet: wait for it first"
    error = JobError(
        f"job {job.job_id} is {job.status} and has none of the requested files{why}", job_id=job.job_id, job=job
    )
    error.retryable = not job.ended
    return error


def download_outputs(
    job: Job,
    destination: Destination,
    *,
    keyframes: Sequence[Keyframe] = (),
    refresh: Callable[[], Job] | None = None,
    refresh_keyframes: Callable[[], Sequence[Keyframe]] | None = None,
    include: Collection[Include] = INCLUDE,
    product_id: str | None = None,
    variant: str = "",
    request: Mapping[str, Any] | None = None,
    template: str = DEFAULT_TEMPLATE,
    allow_private: bool = False,
    max_bytes: int = MAX_BYTES,
    parallel: int = 4,
    timeout: float = 60.0,
    profile: ServiceProfile | None = None,
    client: MediaClient | None = None,
    on_progress: Callable[[PendingOutput], None] | None = None,
) -> Manifest:
    """Download a job's outputs: streamed, checked, moved into place whole, and described in `manifest.json`.

    A file that is stored already with the digest in its manifest is not downloaded again. Links that have expired are
    requested anew. The API key is never sent to a storage host. The call blocks; run it in a thread from async code.
    Costs no credits.

    Args:
        job: As the service last described it.
        destination: A local folder, any fsspec URL, or a path object that knows its filesystem (`ObjectStoragePath`).
        keyframes: From `client.jobs.list_keyframes`, where the job does not carry them.
        refresh: Gives the job again, with fresh links: `lambda: client.jobs.get(job.job_id)`.
        refresh_keyframes: Gives the keyframes again, with fresh links.
        include: Which kinds of output.
        product_id: The product, for the template and the manifest.
        variant: Its variant, for the same; '' for none.
        request: The create-job request, for the manifest.
        template: Where each file goes, below the destination.
        allow_private: Whether links may lead to private addresses, as those of a local U-Gen do.
        max_bytes: A larger file is refused.
        parallel: Files downloaded at once.
        timeout: Seconds without a byte after which a connection is given up and resumed.
        profile: The assumptions about the service; the documented ones where not given.
        client: Connections to use; those that this process shares where not given.
        on_progress: Called with the progress of each file, from the threads that download them.

    Returns:
        The manifest; `manifest.uri("final")` says where the video is.

    Raises:
        ConfigError: The destination or the template cannot be used; nothing was downloaded.
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
    folder = folder_for(template, job_id=job.job_id, product_id=product_id, variant=variant)
    policy = DownloadPolicy(
        max_bytes=max_bytes,
        allow_private=allow_private,
        timeout=timeout,
        expired_statuses=(profile or DEFAULT_PROFILE).expired_statuses,
    )
    downloader = Downloader(client or shared_client(), policy)
    links = _Links(refresh=refresh, refresh_keyframes=refresh_keyframes, include=include)
    with _storage_errors(store, job.job_id):
        store.sweep(folder)
        known = read_manifest(store.read(folder + MANIFEST_NAME), name=store.location(folder + MANIFEST_NAME))
    # A job that was worked on since may have other outputs under the same links.
    current = known if known is not None and known.job.get("updated_at") == _described(job).get("updated_at") else None
    writer = _OutputWriter(store, folder, downloader, links, known=current, job_id=job.job_id, on_progress=on_progress)
    wanted = outputs_of(job, keyframes=keyframes, include=include)
    with ThreadPoolExecutor(max_workers=max(1, min(parallel, len(wanted)))) as pool:
        results = list(pool.map(writer.write, wanted))
    files = tuple(result for result in results if isinstance(result, ManifestFile))
    errors = [
        (output, result) for output, result in zip(wanted, results, strict=True) if isinstance(result, DownloadError)
    ]
    manifest = _describe(job, keyframes, files, errors, product_id=product_id, variant=variant, request=request)
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

    def refresh_url(self, output: JobOutput, url: str) -> str | None:
        with self._lock:
            known = self._fresh.get((output.kind, output.index))
            if known is None or known == url:
                self._ask_again(output)
            return self._fresh.get((output.kind, output.index))

    def _ask_again(self, output: JobOutput) -> None:
        job = self._refresh() if self._refresh is not None else None
        keyframes: Sequence[Keyframe] = ()
        if output.kind == "keyframe" and self._refresh_keyframes is not None:
            keyframes = self._refresh_keyframes()
        if job is None and keyframes:
            job = Job(job_id="")
        if job is not None:
            for fresh in outputs_of(job, keyframes=keyframes, include=self._include):
                self._fresh[fresh.kind, fresh.index] = fresh.url


class _OutputWriter:
    """Stores one output, by downloading it or by finding it stored."""

    def __init__(
        self,
        store: Store,
        folder: str,
        downloader: Downloader,
        links: _Links,
        *,
        known: Manifest | None,
        job_id: str,
        on_progress: Callable[[PendingOutput], None] | None,
    ) -> None:
        self._store = store
        self._folder = folder
        self._downloader = downloader
        self._links = links
        self._known = known
        self._job_id = job_id
        self._on_progress = on_progress

    def write(self, output: JobOutput) -> ManifestFile | DownloadError:
        try:
            with _storage_errors(self._store, self._job_id):
                return self._stored(output) or self._download(output)
        except DownloadError as error:
            error.job_id = self._job_id
            return error

    def _stored(self, output: JobOutput) -> ManifestFile | None:
        known = self._known.file(output.kind, index=output.index) if self._known else None
        if known is None or (known.source, known.score) != (without_query(output.url), output.score):
            return None
        same = self._store.holds(self._folder + known.path, size=known.bytes, sha256=known.sha256)
        return known if same else None

    def _download(self, output: JobOutput) -> ManifestFile:
        def on_progress(size: int, total: int | None) -> None:
            if self._on_progress is not None:
                self._on_progress(PendingOutput(output.kind, output.index, size, total))

        with self._store.spool(self._folder + output.kind) as part:
            downloaded = self._downloader.download(
                output.url,
                part,
                family=output.family,
                refresh_url=lambda url: self._links.refresh_url(output, url),
                on_progress=on_progress,
            )
            name = file_name(output.kind, output.index, downloaded.media_type)
            seen = probe(part, downloaded.media_type)
            self._store.publish(part, self._folder + name)
        return ManifestFile(
            kind=output.kind,
            index=output.index,
            path=name,
            bytes=downloaded.size,
            sha256=downloaded.sha256,
            media_type=downloaded.media_type,
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
        hint = (
            "the disk is full; free some space and run it again"
            if full
            else "check that the destination may be written"
        )
        raise DownloadError(f"{store.name}: {error}; {hint}", reason="storage", job_id=job_id) from error


def _describe(
    job: Job,
    keyframes: Sequence[Keyframe],
    files: tuple[ManifestFile, ...],
    errors: Sequence[tuple[JobOutput, DownloadError]],
    *,
    product_id: str | None,
    variant: str,
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
        variant=variant or None,
        product_name=job.product_name or (request or {}).get("product_name"),
        status=job.status,
        current_stage=job.current_stage,
        video_model=job.video_model or (request or {}).get("video_model"),
        request=None if request is None else links_without_query(dict(request)),
        job=described,
        stages=tuple(stages) if isinstance(stages, list) else (),
        credits=ManifestCredits(reserved=job.credits_reserved, consumed=job.credits_consumed),
        scores=ManifestScores(keyframes=of_keyframes, segments=of_segments, lowest=min(known, default=None)),
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
    """Write the manifest unless the stored one says the same."""
    location = store.location(folder + MANIFEST_NAME).removesuffix(MANIFEST_NAME)
    if known is not None:
        same = manifest.model_copy(update={"written_at": known.written_at, "written_by": known.written_by})
        if same.to_json() == known.to_json():
            return known.model_copy(update={"location": location})
    with _storage_errors(store, job_id):
        store.write(folder + MANIFEST_NAME, manifest.to_json().encode())
    return manifest.model_copy(update={"location": location})


def _summary(job: Job, errors: Sequence[tuple[JobOutput, DownloadError]], manifest: Manifest) -> DownloadError:
    first = errors[0][1]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    stored = f"{len(manifest.files)} of {len(manifest.files) + len(errors)} files are stored"
    message = f"job {job.job_id}: {first}{more}; {stored}, download again to get the rest"
    return DownloadError(message, reason=first.reason, url=first.url, job_id=job.job_id, manifest=manifest)


def _numbered(items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Items with their own index, or with their place where the service gave none or gave one twice."""
    own = [item.index for item in items]
    trusted = None not in own and len(set(own)) == len(own)
    return ((item.index if trusted else place, item) for place, item in enumerate(items))
