# SPDX-License-Identifier: Apache-2.0
"""Pictures that the service cannot reach: uploaded once per content, and known by it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ugen_provider.core.api.errors import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api._sync_client import UGenClient

_KEY = "ugen_picture_"


@dataclass(frozen=True, slots=True)
class Picture:
    """An uploaded picture.

    Attributes:
        url: What the service calls it.
        identity: The digest of its content, by which a request is recognised whatever the address.
    """

    url: str
    identity: str


def uploaded_once(context: Context, client: UGenClient, image: Any) -> Picture:
    """Upload a picture, unless this task instance uploaded the same content before. Free.

    Args:
        context: Airflow's.
        client: Sends it.
        image: A local path, an fsspec URL, or an `ObjectStoragePath`.

    Raises:
        ConfigError: It cannot be read.
    """
    name, content = _read(image)
    identity = hashlib.sha256(content).hexdigest()
    state = context.get("task_state_store")
    known = None if state is None else state.get(_KEY + identity[:24])
    if isinstance(known, str):
        return Picture(known, identity)
    made = client.uploads.create_product_image(content, filename=name)
    if state is not None:
        from ugen_provider.version_compat import NEVER_EXPIRE

        state.set(_KEY + identity[:24], made.url, retention=NEVER_EXPIRE)
    return Picture(made.url, identity)


def _read(image: Any) -> tuple[str, bytes]:
    import fsspec

    if image is None or not str(image).strip():
        raise ConfigError("image: there is none; its template rendered to nothing")
    name = str(image).rstrip("/").rsplit("/", 1)[-1]
    try:
        if hasattr(image, "open"):
            opened: Any = image.open("rb")
        else:
            filesystem, path = fsspec.url_to_fs(str(image))
            opened = filesystem.open(path, "rb")
        with opened as file:
            content: bytes = file.read(_READ_BYTES)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"image: {image} cannot be read: {error}") from None
    return name, content


_READ_BYTES = 16 << 20
"""More than the service takes; the client then refuses the picture by its size."""
