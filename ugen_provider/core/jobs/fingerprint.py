# SPDX-License-Identifier: Apache-2.0
"""When two requests are the same request: a digest under a numbered scheme.

A scheme never changes once it was released. A new one gets the next number, and what is already known is compared
under the scheme that it was written with, so that an upgrade buys nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

CURRENT_SCHEME = 1
_NO_PART = frozenset({"webhook_url", "idempotency_key", "stop_at_stage"})
_DEFAULTS_1: Mapping[str, Any] = {
    "video_model": "veo3_fast",
    "video_resolution": "standard",
    "aspect_ratio": "9:16",
    "segment_duration": 8,
    "interaction_mode": "holdable",
    "script_structure": "standard_5phase",
    "script_tone": "conversational",
    "captions_enabled": True,
    "caption_style": "tiktok_karaoke",
    "music_enabled": True,
    "music_volume": 0.15,
    "qai_enabled": True,
    "qai_mode": "lenient",
    "max_retries_keyframe": 1,
    "max_retries_video": 0,
    "human_review": "off",
    "human_review_max_rejections": 0,
    "human_review_budget": "accept_best",
    "failure_behavior": "accept_best",
}
_SIGNATURES_1 = frozenset(
    {
        "awsaccesskeyid",
        "expires",
        "googleaccessid",
        "key-pair-id",
        "policy",
        "se",
        "sig",
        "signature",
        "sip",
        "sks",
        "skoid",
        "skt",
        "sktid",
        "skv",
        "sp",
        "spr",
        "sr",
        "st",
        "sv",
        "token",
    }
)
_SIGNATURE_PREFIXES_1 = ("x-amz-", "x-goog-", "x-oss-")


def fingerprint(body: Mapping[str, Any], *, scheme: int = CURRENT_SCHEME, image_identity: str | None = None) -> str:
    """The digest of a create-job request.

    Fields equal to the service's default count as left out, and `webhook_url`, `idempotency_key` and `stop_at_stage`
    never count. The picture counts by its identity: its address without the parameters of a signature, or what
    `image_identity` says of it.

    Args:
        body: The request.
        scheme: The scheme's number.
        image_identity: For a picture that was uploaded for this request, the digest of its content.

    Raises:
        ValueError: This version does not know the scheme.

    Example:
        >>> one = {"product_name": "Lamp", "product_image_url": "https://s.example/l.jpg?sig=a", "segment_count": 1}
        >>> two = {**one, "product_image_url": "https://s.example/l.jpg?sig=b", "aspect_ratio": "9:16"}
        >>> fingerprint(one) == fingerprint(two)
        True
    """
    digest = _SCHEMES.get(scheme)
    if digest is None:
        raise ValueError(f"fingerprint scheme {scheme} is unknown: a newer version of ugen-provider wrote it")
    return digest(body, image_identity)


def _scheme_1(body: Mapping[str, Any], image_identity: str | None) -> str:
    counted = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in body.items()
        if value is not None and name not in _NO_PART and _DEFAULTS_1.get(name) != value
    }
    if image_identity is not None:
        counted["product_image_url"] = image_identity
    elif isinstance(address := counted.get("product_image_url"), str):
        counted["product_image_url"] = _unsigned(address)
    text = json.dumps(counted, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _unsigned(address: str) -> str:
    if "?" not in address:
        return address
    parts = urlsplit(address)
    kept = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name.lower() not in _SIGNATURES_1 and not name.lower().startswith(_SIGNATURE_PREFIXES_1)
    ]
    return urlunsplit(parts._replace(query=urlencode(kept)))


_SCHEMES: Mapping[int, Callable[[Mapping[str, Any], str | None], str]] = {1: _scheme_1}
