# SPDX-License-Identifier: Apache-2.0
"""Files on their way to the service: read, and refused before they are sent where the service would refuse them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ugen_provider.core.api.effects import Upload
from ugen_provider.core.api.errors import InvalidRequestError
from ugen_provider.core.api.rules import Violation


@dataclass(frozen=True, slots=True)
class Limits:
    """What an upload may be. Types are known by their first bytes; those without a mark, by the name's ending."""

    field: str
    most_bytes: int
    kinds: str
    by_start: tuple[tuple[bytes, str], ...]
    by_ending: Mapping[str, str]


PRODUCT_IMAGE = Limits(
    field="image",
    most_bytes=10 * 1024 * 1024,
    kinds="JPEG, PNG, WebP or GIF",
    by_start=(
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
    ),
    by_ending={},
)
MUSIC = Limits(
    field="track",
    most_bytes=20 * 1024 * 1024,
    kinds="MP3, WAV, OGG, AAC or M4A",
    by_start=(
        (b"ID3", "audio/mpeg"),
        (b"OggS", "audio/ogg"),
        (b"\xff\xfb", "audio/mpeg"),
        (b"\xff\xf1", "audio/aac"),
    ),
    by_ending={
        ".mp3": "audio/mpeg",
        ".wav": "audio/wav",
        ".ogg": "audio/ogg",
        ".aac": "audio/aac",
        ".m4a": "audio/mp4",
    },
)


def read_upload(source: str | os.PathLike[str] | bytes | BinaryIO, *, filename: str | None, limits: Limits) -> Upload:
    """Read a file that is to be sent.

    Raises:
        InvalidRequestError: It is empty, too large, unreadable or of a kind that the service refuses.
    """
    name = filename or "upload"
    if isinstance(source, bytes):
        content = source
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        name = filename or path.name
        try:
            with path.open("rb") as file:
                content = file.read(limits.most_bytes + 1)
        except OSError as error:
            raise _refused(limits, f"cannot be read: {error.strerror or error}", name) from None
    else:
        opened = getattr(source, "name", None)
        name = filename or (Path(opened).name if isinstance(opened, str) else name)
        content = source.read(limits.most_bytes + 1)
    if not content:
        raise _refused(limits, "must not be empty", name)
    if len(content) > limits.most_bytes:
        raise _refused(limits, f"must be at most {limits.most_bytes // 1024 // 1024} MB", name)
    content_type = _type_of(content, name, limits)
    if content_type is None:
        raise _refused(limits, f"must be {limits.kinds}", name)
    return Upload(name=name, content=content, content_type=content_type)


def _type_of(content: bytes, name: str, limits: Limits) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp" if limits is PRODUCT_IMAGE else None
    for start, content_type in limits.by_start:
        if content.startswith(start):
            return content_type
    return limits.by_ending.get(Path(name).suffix.lower())


def _refused(limits: Limits, rule: str, name: str) -> InvalidRequestError:
    return InvalidRequestError([Violation(limits.field, rule, repr(name))])
