# SPDX-License-Identifier: Apache-2.0
"""What is on offer: video models, music, and the files that can be uploaded."""

import uuid
from dataclasses import dataclass
from typing import Any

_PNG, _JPEG, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8"


@dataclass(frozen=True, slots=True)
class UploadRule:
    """What an upload endpoint takes."""

    kinds: tuple[str, ...]
    most: int


MEGABYTE = 1024 * 1024
UPLOADS = {
    "product-image": UploadRule(("jpeg", "png", "webp", "gif"), 10 * MEGABYTE),
    "logo": UploadRule(("png", "svg", "webp"), 2 * MEGABYTE),
    "avatar": UploadRule(("png", "jpeg", "webp"), 2 * MEGABYTE),
    "music": UploadRule(("mp3", "wav", "ogg", "aac", "m4a"), 20 * MEGABYTE),
}
MEDIA_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "svg": "image/svg+xml",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
    "m4a": "audio/mp4",
}
TRACKS = tuple(
    {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"ugen-emulator/track/{title}")),
        "title": title,
        "artist": "U-Gen Emulator",
        "mood": mood,
        "tempo": tempo,
        "energy_level": energy,
        "bpm": bpm,
        "has_vocals": False,
        "tags": [mood, tempo],
        "url": None,
    }
    for title, mood, tempo, energy, bpm in (
        ("Morning Light", "upbeat", "fast", "high", 124),
        ("Open Window", "upbeat", "medium", "medium", 108),
        ("Slow Tide", "calm", "slow", "low", 72),
        ("Paper Boats", "calm", "medium", "low", 90),
        ("First Step", "inspiring", "medium", "medium", 100),
        ("Skyline", "inspiring", "fast", "high", 128),
        ("Side Street", "playful", "fast", "medium", 118),
        ("Velvet", "luxury", "slow", "low", 80),
    )
)

_THREE = ["9:16", "16:9", "1:1"]
_TWO = ["9:16", "16:9"]
_KLING_SECONDS = list(range(3, 11))


def _model(name: str, family: str, variant: str, aspects: list[str], seconds: list[int]) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "family": family,
        "status": "available",
        "default_variant": variant,
        "available_for_jobs": family in ("Veo 3.1", "Kling 3.0"),
        "capabilities": {
            "supported_aspect_ratios": aspects,
            "supported_durations": seconds,
            "supports_sound": family == "Kling 3.0",
            "supports_elements": family == "Kling 3.0",
        },
    }


_IMAGES = _model("nano_banana_2", "NanoBanana 2", "standard", [*_THREE, "Auto"], [])
_KLING = (
    _model("kling3_std", "Kling 3.0", "standard", _THREE, _KLING_SECONDS),
    _model("kling3_pro", "Kling 3.0", "premium", _THREE, _KLING_SECONDS),
    _model("kling3_4k", "Kling 3.0", "4k", _THREE, _KLING_SECONDS),
)
KLING_ONLY: tuple[dict[str, Any], ...] = (*_KLING, _IMAGES)
ALL_MODELS: tuple[dict[str, Any], ...] = (
    _model("veo3_fast", "Veo 3.1", "standard", [*_TWO, "Auto"], [8]),
    _model("veo3", "Veo 3.1", "premium", [*_TWO, "Auto"], [8]),
    *_KLING,
    _model("sora-2-text-to-video", "Sora 2", "standard", _TWO, [10, 15]),
    _model("sora-2-image-to-video", "Sora 2", "standard", _TWO, [10, 15]),
    _model("sora-2-pro-text-to-video", "Sora 2 Pro", "premium", _TWO, [10, 15, 25]),
    _model("sora-2-pro-image-to-video", "Sora 2 Pro", "premium", _TWO, [10, 15, 25]),
    _model("sora2_storyboard", "Sora 2 Pro", "premium", _TWO, [10, 15, 25]),
    _IMAGES,
)


def kind_of(content: bytes) -> str | None:
    """Return what a file is, by its first bytes; `None` if it is nothing that can be uploaded."""
    head = content[:512]
    checks: tuple[tuple[str, bool], ...] = (
        ("png", head.startswith(_PNG)),
        ("jpeg", head.startswith(_JPEG)),
        ("gif", head.startswith(_GIF)),
        ("webp", head[:4] == b"RIFF" and head[8:12] == b"WEBP"),
        ("wav", head[:4] == b"RIFF" and head[8:12] == b"WAVE"),
        ("ogg", head.startswith(b"OggS")),
        ("m4a", head[4:8] == b"ftyp"),
        ("aac", head[:2] in (b"\xff\xf1", b"\xff\xf9")),
        ("mp3", head.startswith(b"ID3") or head[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")),
        ("svg", b"<svg" in head),
    )
    return next((kind for kind, found in checks if found), None)
