# SPDX-License-Identifier: Apache-2.0
"""`manifest.json`: everything known of one job, beside its files; and what a file's own bytes say.

The schema is versioned: readers take any version whose fields they know, and a field never changes its meaning under
a version. `Manifest.model_json_schema()` is its JSON schema.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ugen_provider.core.media.errors import Reason
from ugen_provider.core.text import get_logger

Family = Literal["video", "image"]

EXTENSIONS = {
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
}
"""The types that are taken, with the ending that their files get."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Facts from a file's own header; None where it is not known, or PyAV or Pillow is not installed.

    Attributes:
        width: Pixels.
        height: Pixels.
        duration: Seconds.
        codec: Of the video stream, such as `h264`; of a picture its format, such as `png`.
    """

    width: int | None = None
    height: int | None = None
    duration: float | None = None
    codec: str | None = None


def media_type_of(head: bytes) -> str | None:
    """The type of a file by its first 16 bytes, None if it is none that is taken.

    Examples:
        >>> media_type_of(b"<!doctype html>"), media_type_of(bytes.fromhex("89504e470d0a1a0a0000000d49484452"))
        (None, 'image/png')
    """
    if head[4:8] == b"ftyp":
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    return "image/gif" if head.startswith((b"GIF87a", b"GIF89a")) else None


def promised_family(content_type: str | None) -> Family | None:
    """Return what a `Content-Type` promises; None where it promises nothing in particular.

    Raises:
        ValueError: It promises something that is neither a video nor a picture, such as a web page.

    Examples:
        >>> promised_family("video/mp4; charset=binary"), promised_family("application/octet-stream")
        ('video', None)
    """
    plain = (content_type or "").partition(";")[0].strip().lower()
    if plain.startswith("video/"):
        return "video"
    if plain.startswith("image/"):
        return "image"
    if plain in {"", "application/octet-stream", "binary/octet-stream", "application/mp4"}:
        return None
    raise ValueError(plain)


def is_whole(path: Path, media_type: str) -> bool:
    """Return whether a file goes to its own end, for a connection that ended without a promised length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if media_type in {"video/mp4", "video/quicktime"}:
            return _boxes_add_up(file.fileno(), size)
        if media_type == "image/webp":
            return int.from_bytes(file.read(8)[4:8], "little") + 8 <= size
        file.seek(max(0, size - 64))
        tail = file.read()
    if media_type == "image/png":
        return tail[-8:-4] == b"IEND"
    if media_type == "image/jpeg":
        return b"\xff\xd9" in tail
    return tail.endswith(b";") if media_type == "image/gif" else True


def _boxes_add_up(descriptor: int, size: int) -> bool:
    position = 0
    kinds = set()
    while position < size:
        head = os.pread(descriptor, 16, position)
        length = int.from_bytes(head[:4], "big")
        kinds.add(head[4:8])
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = size - position
        if length < 8:
            return False
        position += length
    return position == size and b"moov" in kinds


def probe(path: Path, media_type: str) -> Probe:
    """Read width, height, duration and codec, as far as PyAV and Pillow are installed and the file is readable."""
    try:
        return _probe_video(path) if media_type.startswith("video/") else _probe_image(path)
    except ImportError:
        return Probe()


def _probe_video(path: Path) -> Probe:
    import av
    import av.error

    try:
        with av.open(str(path)) as container:
            duration = round(container.duration / av.time_base, 3) if container.duration else None
            if not container.streams.video:
                return Probe(duration=duration)
            context = container.streams.video[0].codec_context
            return Probe(width=context.width, height=context.height, duration=duration, codec=context.name)
    except (av.error.FFmpegError, OSError):
        return Probe()


def _probe_image(path: Path) -> Probe:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return Probe(width=image.width, height=image.height, codec=(image.format or "").lower() or None)
    except (OSError, ValueError, Image.DecompressionBombError):
        return Probe()


_log = get_logger("ugen_provider.media")

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"

OutputKind = Literal["final", "segment", "keyframe", "thumbnail"]


class ManifestFile(BaseModel):
    """One stored file of a job, with its digest."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: OutputKind
    index: int | None = Field(None, description="Of segments and keyframes, from 0")
    path: str = Field(description="Relative to the manifest's folder")
    bytes: int
    sha256: str
    media_type: str
    width: int | None = Field(None, description="Pixels; null without PyAV or Pillow")
    height: int | None = Field(None, description="Pixels; null without PyAV or Pillow")
    duration: float | None = Field(None, description="Seconds; null for pictures and without PyAV")
    codec: str | None = None
    score: float | None = Field(None, description="The service's quality score, 0 to 1; null where it gave none")
    source: str = Field(description="The link it was fetched from, without query")


class MissingFile(BaseModel):
    """One output that could not be stored."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: OutputKind
    index: int | None = None
    reason: Reason
    message: str


class ManifestCredits(BaseModel):
    """Credits of the job."""

    model_config = ConfigDict(frozen=True, extra="allow")

    reserved: int | None = None
    consumed: int | None = None


class ManifestScores(BaseModel):
    """Quality scores, 0 to 1, by index; null where the service gave none."""

    model_config = ConfigDict(frozen=True, extra="allow")

    keyframes: tuple[float | None, ...] = ()
    segments: tuple[float | None, ...] = ()
    lowest: float | None = None


class Manifest(BaseModel):
    """Facts about one job, and the addresses of its files.

    Attributes:
        location: Where the manifest's folder is, ending in `/`; not part of the file, since folders are moved.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_version: int = SCHEMA_VERSION
    job_id: str
    product_id: str | None = None
    variant: str | None = None
    product_name: str | None = None
    status: str
    current_stage: str | None = None
    video_model: str | None = None
    request: dict[str, Any] | None = Field(None, description="The create-job request as sent, where known")
    job: dict[str, Any] = Field(description="The job as the service described it; links without query")
    stages: tuple[Any, ...] = Field((), description="The stages with their times, where the service names them")
    credits: ManifestCredits = ManifestCredits()
    scores: ManifestScores = ManifestScores()
    files: tuple[ManifestFile, ...] = ()
    missing: tuple[MissingFile, ...] = ()
    written_at: str = Field(description="ISO 8601, UTC")
    written_by: str
    location: str = Field(default="", exclude=True)

    def file(self, kind: OutputKind, *, index: int | None = None) -> ManifestFile | None:
        """One stored file, None if there is none."""
        return next((file for file in self.files if file.kind == kind and file.index == index), None)

    def uri(self, kind: OutputKind, *, index: int | None = None) -> str | None:
        """Return the path or URL of one stored file, None if there is none."""
        file = self.file(kind, index=index)
        return self.location + file.path if file else None

    def to_json(self) -> str:
        """Return the content of the manifest file."""
        return self.model_dump_json(indent=2) + "\n"


def read_manifest(content: bytes | str | None, *, name: str = MANIFEST_NAME) -> Manifest | None:
    """Read the manifest of a job's folder.

    Args:
        content: The file's content; None where there is no file.
        name: Where the file is, for the log.

    Returns:
        The manifest; None where there is no file, or one that is cut or damaged. The log then names it.
    """
    if content is None:
        return None
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        _log.warning("manifest %s is cut or damaged and is not used: %s", name, fault["msg"])
        return None


def without_query(url: str) -> str:
    """Return a link without query, fragment and credentials, which may be worth money.

    Examples:
        >>> without_query("https://u:p@storage.u-gen.ai/videos/a.mp4?token=secret")
        'https://storage.u-gen.ai/videos/a.mp4'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no link that can be read)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def links_without_query(value: Any) -> Any:
    """Return a JSON value in which every link lost its query."""
    if isinstance(value, dict):
        return {name: links_without_query(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [links_without_query(item) for item in value]
    if isinstance(value, str) and value.startswith(("http://", "https://")) and not any(c.isspace() for c in value):
        return without_query(value)
    return value


def file_name(kind: OutputKind, index: int | None, media_type: str) -> str:
    """Return the name of an output's file.

    Examples:
        >>> file_name("segment", 0, "video/mp4"), file_name("final", None, "video/mp4")
        ('segment-0.mp4', 'final.mp4')
    """
    numbered = kind if index is None else f"{kind}-{index}"
    return f"{numbered}.{EXTENSIONS[media_type]}"
