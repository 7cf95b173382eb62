# SPDX-License-Identifier: Apache-2.0
"""Webhooks: whether a delivery is to be believed. Imports neither httpx nor pydantic.

A delivery is signed with HMAC-SHA256 over `timestamp + "." + raw body`. A verified one is still only a hint: states
and money are read from `GET /jobs/{jobId}`, and polling continues, since the service gives up after about a minute.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from ugen_provider.core.api.config import Secret
from ugen_provider.core.api.errors import MalformedWebhookError, SignatureMismatchError, TimestampToleranceError

SIGNATURE_HEADER = "X-UGen-Signature"
TIMESTAMP_HEADER = "X-UGen-Timestamp"
TOLERANCE = 300.0
"""Seconds that a delivery may be old, or from the future."""

MOST_BYTES = 1 << 20
"""Bytes of the largest body that is read."""

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """Webhook delivery whose signature was verified.

    Attributes:
        event: `job.completed`, `job.failed`, or a word that this version does not know.
        job_id: The job.
        status: The job's status as the delivery says it.
        timestamp: The body's own time, as sent, if any.
        data: The whole body.
    """

    event: str
    job_id: str
    status: str | None
    timestamp: str | None
    data: Mapping[str, Any] = field(repr=False)

    @property
    def identity(self) -> tuple[str, str, str]:
        """Return the identity of the event, the same for two deliveries of it: the service sends no delivery id."""
        return self.job_id, self.event, self.timestamp or ""


def verify(
    body: bytes,
    headers: Headers,
    secrets: str | Secret | Sequence[str | Secret],
    *,
    tolerance: float = TOLERANCE,
    most_bytes: int = MOST_BYTES,
    now: Callable[[], float] = time.time,
) -> WebhookEvent:
    """Believe a delivery, or say why not.

    Args:
        body: The raw bytes as they arrived, never JSON that was written again.
        headers: The request's headers, in any case; a list of pairs shows duplicates, which are refused.
        secrets: The secret, or several while one is being replaced.
        tolerance: Seconds that the delivery may be old, or from the future.
        most_bytes: Largest body that is read.
        now: Seconds since the epoch.

    Raises:
        MalformedWebhookError: A header is missing, twice or unreadable, or the body is too large or no such JSON.
        TimestampToleranceError: It is too old, or from the future.
        SignatureMismatchError: No signature matches any of the secrets.

    Examples:
        >>> body = b'{"event": "job.completed", "job_id": "j1", "status": "completed"}'
        >>> headers = sign(body, "s3cret", timestamp=1_700_000_000)
        >>> verify(body, headers, "s3cret", now=lambda: 1_700_000_010).job_id
        'j1'
    """
    keys = _keys(secrets)
    if len(body) > most_bytes:
        raise MalformedWebhookError(f"the body has {len(body)} bytes, more than {most_bytes}")
    stamp = _header(headers, TIMESTAMP_HEADER)
    signature = _header(headers, SIGNATURE_HEADER)
    moment = _moment(stamp)
    if not abs(now() - moment) <= tolerance:
        raise TimestampToleranceError(
            f"the delivery is {abs(now() - moment):.0f} s away from now, more than {tolerance:g}"
        )
    offered = [_hex(part) for part in signature.split(",")]
    signed = stamp.encode("latin-1", "replace") + b"." + body
    matches = False
    for key in keys:
        expected = hmac.new(key, signed, hashlib.sha256).hexdigest().encode()
        for candidate in offered:
            matches |= hmac.compare_digest(expected, candidate)
    if not matches:
        raise SignatureMismatchError("no signature of the delivery matches any of the secrets")
    return _event(body)


def sign(body: bytes, secret: str | Secret, *, timestamp: float | None = None) -> dict[str, str]:
    """Return the headers of a delivery, for tests of a receiver.

    Args:
        body: The raw bytes.
        secret: The secret.
        timestamp: Seconds since the epoch; default now.
    """
    stamp = str(int(time.time() if timestamp is None else timestamp))
    (key,) = _keys(secret)
    digest = hmac.new(key, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {SIGNATURE_HEADER: digest, TIMESTAMP_HEADER: stamp}


def _keys(secrets: str | Secret | Sequence[str | Secret]) -> list[bytes]:
    several = [secrets] if isinstance(secrets, str | Secret) else list(secrets)
    keys = [(item.reveal() if isinstance(item, Secret) else item).encode() for item in several]
    if not keys or not all(keys):
        raise MalformedWebhookError("no webhook secret is set: unsigned deliveries are refused")
    return keys


def _header(headers: Headers, name: str) -> str:
    found = [value for key, value in _pairs(headers) if key.lower() == name.lower()]
    if len(found) != 1 or not found[0].strip():
        raise MalformedWebhookError(f"the header {name} {'is missing' if not found else 'is repeated or empty'}")
    return found[0].strip()


def _pairs(headers: Headers) -> Iterable[tuple[str, str]]:
    if isinstance(headers, Mapping):
        return cast("Mapping[str, str]", headers).items()
    return headers


def _hex(part: str) -> bytes:
    return part.strip().removeprefix("sha256=").lower().encode("ascii", "replace")


def _moment(stamp: str) -> float:
    try:
        number = float(stamp)
    except ValueError:
        try:
            moment = datetime.fromisoformat(stamp)
        except ValueError:
            raise MalformedWebhookError(f"the header {TIMESTAMP_HEADER} is no time") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return number / 1000 if abs(number) > 1e11 else number


def _event(body: bytes) -> WebhookEvent:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedWebhookError("the body is not JSON") from None
    if not isinstance(data, dict):
        raise MalformedWebhookError("the body is no JSON object")
    event, job_id = data.get("event"), data.get("job_id", data.get("id"))
    if not isinstance(event, str) or not isinstance(job_id, str) or not event or not job_id:
        raise MalformedWebhookError("the body names no event or no job_id")
    status, timestamp = data.get("status"), data.get("timestamp")
    return WebhookEvent(
        event=event,
        job_id=job_id,
        status=status if isinstance(status, str) else None,
        timestamp=timestamp if isinstance(timestamp, str) else None,
        data=data,
    )
