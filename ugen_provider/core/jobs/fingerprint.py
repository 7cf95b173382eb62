# SPDX-License-Identifier: Apache-2.0
"""When two requests are the same request: a digest under a numbered scheme.

A scheme never changes once it was released. A new one gets the next number, and what is already known is compared
under the scheme that it was written with, so that an upgrade buys nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from json.encoder import encode_basestring
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

    Examples:
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
    if image_identity is not None:
        body = {**body, "product_image_url": image_identity}
    parts = []
    for name, label in _labels_1(tuple(body)):
        value = body[name]
        if value is None or _DEFAULTS_1.get(name) == value:
            continue
        if name == "product_image_url" and image_identity is None and isinstance(value, str):
            value = _unsigned(value)
        # A million products are compared every night: their texts go around the general encoder.
        parts.append(label + (encode_basestring(value) if type(value) is str else _encoded(value)))
    return hashlib.sha256(f"{{{','.join(parts)}}}".encode()).hexdigest()


@lru_cache(maxsize=256)
def _labels_1(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The fields that count, in the order in which they are digested, each with its beginning."""
    return tuple((name, encode_basestring(name) + ":") for name in sorted(names) if name not in _NO_PART)


_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _encoded(value: Any) -> str:
    kind = type(value)
    if kind is int:
        return str(value)
    if kind is list and all(type(item) is str for item in value):
        return f"[{','.join(map(encode_basestring, value))}]"
    return _ENCODER.encode(value)


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
