# SPDX-License-Identifier: Apache-2.0
"""The service's offer, and what tenants keep beside jobs: uploaded files, templates, music, and tries of a model."""

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ugen_provider.emulator.world.errors import ErrorReply, not_found
from ugen_provider.emulator.world.store import RecordStore

_PNG, _JPEG, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8"


@dataclass(frozen=True, slots=True)
class UploadRule:
    """Files that an upload endpoint accepts."""

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


TEMPLATES_MOST = 20
TRY_SECONDS = 30.0


@dataclass(slots=True)
class StoredUpload:
    """A file that was sent."""

    id: str
    tenant: str
    purpose: str
    kind: str
    size: int
    at: float


@dataclass(slots=True)
class StoredTemplate:
    """A saved configuration of a tenant's jobs."""

    id: str
    tenant: str
    name: str
    description: str | None
    config: dict[str, Any]
    is_default: bool
    use_count: int
    created_at: float
    updated_at: float


@dataclass(slots=True)
class Track:
    """A music track that a tenant uploaded."""

    id: str
    tenant: str
    title: str
    upload: str
    is_active: bool
    created_at: float


class Library:
    """Uploads, templates and music of all tenants.

    Args:
        store: Where they are kept.
        seed: What ids come from.
        base_url: Where files are served.
    """

    def __init__(self, store: RecordStore, *, seed: int, base_url: Callable[[], str]) -> None:
        self._store = store
        self._seed = seed
        self._base_url = base_url
        self.uploads = {record: StoredUpload(**data) for record, _, data in store.load("upload")}
        self.templates = {record: StoredTemplate(**data) for record, _, data in store.load("template")}
        self.tracks = {record: Track(**data) for record, _, data in store.load("track")}
        self.tries: dict[str, dict[str, Any]] = {record: data for record, _, data in store.load("try")}
        self._made = len(self.uploads) + len(self.templates) + len(self.tracks) + len(self.tries)

    def _new_id(self) -> str:
        while True:
            digest = hashlib.sha256(f"{self._seed}/library/{self._made}".encode()).digest()
            self._made += 1
            fresh = str(uuid.UUID(bytes=digest[:16], version=4))
            # Deleted records leave their numbers free for a count that starts anew after a restart.
            if not any(fresh in known for known in (self.uploads, self.templates, self.tracks, self.tries)):
                return fresh

    # Files

    def upload(self, tenant: str, purpose: str, content: bytes, at: float, *, too_large: int) -> StoredUpload:
        """Store an uploaded file of a tenant.

        Args:
            tenant: Whose.
            purpose: A key of `UPLOADS`.
            content: The file.
            at: The time.
            too_large: Status of the refusal of a file that is too large.

        Raises:
            ErrorReply: 400 if it is empty or of a kind that is not taken; 400 or 413 if it is too large.
        """
        rule = UPLOADS[purpose]
        if not content:
            raise ErrorReply(400, "EMPTY_FILE", "The file is empty")
        if len(content) > rule.most:
            most = rule.most // MEGABYTE
            raise ErrorReply(too_large, "FILE_TOO_LARGE", f"The file is larger than {most} MB")
        kind = kind_of(content)
        if kind not in rule.kinds:
            raise ErrorReply(400, "UNSUPPORTED_FILE", f"Send one of: {', '.join(rule.kinds)}")
        made = StoredUpload(self._new_id(), tenant, purpose, kind, len(content), at)
        self.uploads[made.id] = made
        self._store.put("upload", made.id, len(self.uploads), asdict(made))
        self._store.put_blob(made.id, content)
        return made

    def url(self, upload: StoredUpload) -> str:
        """Return where an upload can be fetched by anybody."""
        scope = hashlib.sha256(f"{self._seed}/{upload.tenant}".encode()).hexdigest()[:12]
        return f"{self._base_url()}/media/uploads/{scope}/{upload.id}.{upload.kind}"

    def content(self, upload_id: str) -> bytes | None:
        """Return the bytes of an upload."""
        return self._store.blob(upload_id)

    def tenant_file(self, tenant: str, purpose: str) -> str | None:
        """Return the URL of a tenant's newest logo or avatar."""
        own = [item for item in self.uploads.values() if item.tenant == tenant and item.purpose == purpose]
        return self.url(max(own, key=lambda item: item.at)) if own else None

    # Templates

    def templates_of(self, tenant: str) -> list[StoredTemplate]:
        """Return a tenant's templates: the default first, then by use, then the newest."""
        own = [item for item in self.templates.values() if item.tenant == tenant]
        return sorted(own, key=lambda item: (item.is_default, item.use_count, item.updated_at), reverse=True)

    def add_template(
        self, tenant: str, *, name: str, description: str | None, config: dict[str, Any], is_default: bool, at: float
    ) -> StoredTemplate:
        """Save a template of a tenant."""
        kept = {field: value for field, value in config.items() if value is not None}
        made = StoredTemplate(self._new_id(), tenant, name, description, kept, is_default, 0, at, at)
        self.templates[made.id] = made
        self._save_template(made)
        return made

    def template(self, tenant: str, template_id: str) -> StoredTemplate:
        """Return a template of a tenant.

        Raises:
            ErrorReply: 404.
        """
        found = self.templates.get(template_id)
        if found is None or found.tenant != tenant:
            raise not_found("StoredTemplate")
        return found

    def change_template(self, template: StoredTemplate, changes: dict[str, Any], at: float) -> None:
        """Change the fields that are given."""
        for name, value in changes.items():
            setattr(template, name, value)
        template.config = {name: value for name, value in template.config.items() if value is not None}
        template.updated_at = at
        self._save_template(template)

    def remove_template(self, template: StoredTemplate) -> None:
        """Delete a template of a tenant."""
        del self.templates[template.id]
        self._store.remove("template", template.id)

    def _save_template(self, template: StoredTemplate) -> None:
        if template.is_default:
            for other in self.templates_of(template.tenant):
                if other.is_default and other is not template:
                    other.is_default = False
                    self._store.put("template", other.id, 0, asdict(other))
        self._store.put("template", template.id, 0, asdict(template))

    # Music

    def tracks_of(self, tenant: str) -> list[Track]:
        """Return a tenant's own active tracks, newest first."""
        own = [item for item in self.tracks.values() if item.tenant == tenant and item.is_active]
        return own[::-1]

    def add_track(self, tenant: str, title: str, upload: StoredUpload, at: float) -> Track:
        """Store a music track of a tenant."""
        made = Track(self._new_id(), tenant, title, upload.id, True, at)
        self.tracks[made.id] = made
        self._store.put("track", made.id, len(self.tracks), asdict(made))
        return made

    def remove_track(self, tenant: str, track_id: str) -> None:
        """Make a track inactive; its file stays.

        Raises:
            ErrorReply: 403 for a track of the catalog, 404 for one that there is not.
        """
        if any(track["id"] == track_id for track in TRACKS):
            raise ErrorReply(403, "FORBIDDEN", "Tracks of the catalog are read-only")
        track = self.tracks.get(track_id)
        if track is None or track.tenant != tenant or not track.is_active:
            raise not_found("Track")
        track.is_active = False
        self._store.put("track", track.id, list(self.tracks).index(track.id) + 1, asdict(track))

    def knows_music(self, tenant: str, music_id: str) -> bool:
        """Return whether a job of a tenant can use a track."""
        return any(track["id"] == music_id for track in TRACKS) or any(
            track.id == music_id for track in self.tracks_of(tenant)
        )

    # Tries

    def try_model(self, tenant: str, model_id: str, at: float) -> str:
        """Begin a try of a model, and return its task's id."""
        task = self._new_id()
        self.tries[task] = {"tenant": tenant, "model_id": model_id, "at": at}
        self._store.put("try", task, len(self.tries), self.tries[task])
        return task
