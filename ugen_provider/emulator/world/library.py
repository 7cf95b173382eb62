# SPDX-License-Identifier: Apache-2.0
"""What tenants keep beside jobs: uploaded files, templates, music, and tries of a model."""

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ugen_provider.emulator.world.catalog import MEGABYTE, TRACKS, UPLOADS, kind_of
from ugen_provider.emulator.world.refusals import Refusal, not_found
from ugen_provider.emulator.world.store import Store

TEMPLATES_MOST = 20
TRY_SECONDS = 30.0


@dataclass(slots=True)
class Upload:
    """A file that was sent."""

    id: str
    tenant: str
    purpose: str
    kind: str
    size: int
    at: float


@dataclass(slots=True)
class Template:
    """A saved configuration."""

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
    """A tenant's own music."""

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

    def __init__(self, store: Store, *, seed: int, base_url: Callable[[], str]) -> None:
        self._store = store
        self._seed = seed
        self._base_url = base_url
        self.uploads = {record: Upload(**data) for record, _, data in store.load("upload")}
        self.templates = {record: Template(**data) for record, _, data in store.load("template")}
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

    def upload(self, tenant: str, purpose: str, content: bytes, at: float, *, too_large: int) -> Upload:
        """Keep a file.

        Args:
            tenant: Whose.
            purpose: A key of `UPLOADS`.
            content: The file.
            at: The time.
            too_large: Status of the refusal of a file that is too large.

        Raises:
            Refusal: 400 if it is empty or of a kind that is not taken; 400 or 413 if it is too large.
        """
        rule = UPLOADS[purpose]
        if not content:
            raise Refusal(400, "EMPTY_FILE", "The file is empty")
        if len(content) > rule.most:
            most = rule.most // MEGABYTE
            raise Refusal(too_large, "FILE_TOO_LARGE", f"The file is larger than {most} MB")
        kind = kind_of(content)
        if kind not in rule.kinds:
            raise Refusal(400, "UNSUPPORTED_FILE", f"Send one of: {', '.join(rule.kinds)}")
        made = Upload(self._new_id(), tenant, purpose, kind, len(content), at)
        self.uploads[made.id] = made
        self._store.put("upload", made.id, len(self.uploads), asdict(made))
        self._store.put_blob(made.id, content)
        return made

    def url(self, upload: Upload) -> str:
        """Return where an upload can be fetched by anybody."""
        scope = hashlib.sha256(f"{self._seed}/{upload.tenant}".encode()).hexdigest()[:12]
        return f"{self._base_url()}/media/uploads/{scope}/{upload.id}.{upload.kind}"

    def content(self, upload_id: str) -> bytes | None:
        """Return an upload's bytes."""
        return self._store.blob(upload_id)

    def tenant_file(self, tenant: str, purpose: str) -> str | None:
        """Return the URL of a tenant's newest logo or avatar."""
        own = [item for item in self.uploads.values() if item.tenant == tenant and item.purpose == purpose]
        return self.url(max(own, key=lambda item: item.at)) if own else None

    # Templates

    def templates_of(self, tenant: str) -> list[Template]:
        """Return a tenant's templates: the default first, then by use, then the newest."""
        own = [item for item in self.templates.values() if item.tenant == tenant]
        return sorted(own, key=lambda item: (item.is_default, item.use_count, item.updated_at), reverse=True)

    def add_template(
        self, tenant: str, *, name: str, description: str | None, config: dict[str, Any], is_default: bool, at: float
    ) -> Template:
        """Save a template."""
        kept = {field: value for field, value in config.items() if value is not None}
        made = Template(self._new_id(), tenant, name, description, kept, is_default, 0, at, at)
        self.templates[made.id] = made
        self._save_template(made)
        return made

    def template(self, tenant: str, template_id: str) -> Template:
        """Return a template.

        Raises:
            Refusal: 404.
        """
        found = self.templates.get(template_id)
        if found is None or found.tenant != tenant:
            raise not_found("Template")
        return found

    def change_template(self, template: Template, changes: dict[str, Any], at: float) -> None:
        """Change the fields that are given."""
        for name, value in changes.items():
            setattr(template, name, value)
        template.config = {name: value for name, value in template.config.items() if value is not None}
        template.updated_at = at
        self._save_template(template)

    def remove_template(self, template: Template) -> None:
        """Delete a template."""
        del self.templates[template.id]
        self._store.remove("template", template.id)

    def _save_template(self, template: Template) -> None:
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

    def add_track(self, tenant: str, title: str, upload: Upload, at: float) -> Track:
        """Keep a track."""
        made = Track(self._new_id(), tenant, title, upload.id, True, at)
        self.tracks[made.id] = made
        self._store.put("track", made.id, len(self.tracks), asdict(made))
        return made

    def remove_track(self, tenant: str, track_id: str) -> None:
        """Make a track inactive; its file stays.

        Raises:
            Refusal: 403 for a track of the catalog, 404 for one that there is not.
        """
        if any(track["id"] == track_id for track in TRACKS):
            raise Refusal(403, "FORBIDDEN", "Tracks of the catalog are read-only")
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
