# SPDX-License-Identifier: Apache-2.0
"""What a request is recognised by: whole, for its idempotency key; and by its looks, for the seed."""

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import to_json

_NOT_LOOKED_AT = ("webhook_url", "idempotency_key", "product_image_url")


def digest(data: Mapping[str, Any]) -> str:
    """Return a digest of everything in a request that is not null."""
    ordered = {name: data[name] for name in sorted(data) if data[name] is not None}
    return hashlib.sha256(to_json(ordered)).hexdigest()[:32]


def look(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job is recognised by for the seed: nothing that differs between two runs of the same test."""
    seen = {name: value for name, value in params.items() if name not in _NOT_LOOKED_AT}
    # Uploads and local servers stand on another port each time.
    return {**seen, "image": urlsplit(params["product_image_url"]).path}
