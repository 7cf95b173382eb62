# SPDX-License-Identifier: Apache-2.0
"""What a file is, by its own bytes: its type, whether it is whole, its size in pixels and seconds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
    """What a file's own header says; None where it is not known, or PyAV or Pillow is not installed.

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
    """What a `Content-Type` promises; None where it promises nothing in particular.

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
    """Whether a file goes to its own end, for a connection that ended without a promised length."""
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
