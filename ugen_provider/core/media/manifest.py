# SPDX-License-Identifier: Apache-2.0
"""`manifest.json`: everything known of one job, beside its files.

The schema is versioned: readers take any version whose fields they know, and a field never changes its meaning under
a version. `Manifest.model_json_schema()` is its JSON schema.
"""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ugen_provider.core.media.content import EXTENSIONS
from ugen_provider.core.media.errors import Reason

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"

OutputKind = Literal["final", "segment", "keyframe", "thumbnail"]


class ManifestFile(BaseModel):
    """One stored file."""

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


class Credits(BaseModel):
    """Credits of the job."""

    model_config = ConfigDict(frozen=True, extra="allow")

    reserved: int | None = None
    consumed: int | None = None


class Scores(BaseModel):
    """Quality scores, 0 to 1, by index; null where the service gave none."""

    model_config = ConfigDict(frozen=True, extra="allow")

    keyframes: tuple[float | None, ...] = ()
    segments: tuple[float | None, ...] = ()
    lowest: float | None = None


class Manifest(BaseModel):
    """What is known of one job and where its files are.

    Attributes:
        location: Where the manifest's folder is, ending in `/`; not part of the file, since folders are moved.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_version: int = SCHEMA_VERSION
    job_id: str
    product_id: str | None = None
    product_name: str | None = None
    status: str
    current_stage: str | None = None
    video_model: str | None = None
    request: dict[str, Any] | None = Field(None, description="The create-job request as sent, where known")
    job: dict[str, Any] = Field(description="The job as the service described it; links without query")
    stages: tuple[Any, ...] = Field((), description="The stages with their times, where the service tells them")
    credits: Credits = Credits()
    scores: Scores = Scores()
    files: tuple[ManifestFile, ...] = ()
    missing: tuple[MissingFile, ...] = ()
    written_at: str = Field(description="ISO 8601, UTC")
    written_by: str
    location: str = Field(default="", exclude=True)

    def file(self, kind: OutputKind, *, index: int | None = None) -> ManifestFile | None:
        """One stored file, None if there is none."""
        return next((file for file in self.files if file.kind == kind and file.index == index), None)

    def uri(self, kind: OutputKind, *, index: int | None = None) -> str | None:
        """Where one stored file is, as a path or URL, None if there is none."""
        file = self.file(kind, index=index)
        return self.location + file.path if file else None

    def to_json(self) -> str:
        """The file's content."""
        return self.model_dump_json(indent=2) + "\n"


def read_manifest(content: bytes | str | None) -> Manifest | None:
    """Read a manifest; None where there is none, or what stands there is none."""
    if content is None:
        return None
    try:
        return Manifest.model_validate_json(content)
    except ValidationError:
        return None


def without_query(url: str) -> str:
    """A link without query, fragment and credentials, which may be worth money.

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
    """A JSON value in which every link lost its query."""
    if isinstance(value, dict):
        return {name: links_without_query(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [links_without_query(item) for item in value]
    if isinstance(value, str) and value.startswith(("http://", "https://")) and not any(c.isspace() for c in value):
        return without_query(value)
    return value


def file_name(kind: OutputKind, index: int | None, media_type: str) -> str:
    """The name of an output's file.

    Examples:
        >>> file_name("segment", 0, "video/mp4"), file_name("final", None, "video/mp4")
        ('segment-0.mp4', 'final.mp4')
    """
    numbered = kind if index is None else f"{kind}-{index}"
    return f"{numbered}.{EXTENSIONS[media_type]}"
