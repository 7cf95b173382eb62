# SPDX-License-Identifier: Apache-2.0
"""The gate: a job that stops after its anchor keyframe continues only for the very picture that was approved.

An approval binds the job, the keyframe and the digest of its picture. The keyframe is read again before the job is
resumed, and a difference is refused, so a keyframe that was made again after the approval is never paid for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from ugen_provider.core.api.errors import PurchaseError

if TYPE_CHECKING:
    from ugen_provider.core.api.config import Network

ANCHOR = 0
"""Index of the keyframe that `init` makes and that every later one follows."""

GATE_STAGE = "init"
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class KeyframeSnapshot:
    """A keyframe as it was shown for approval.

    Attributes:
        job_id: The job that is paused at the gate.
        keyframe_id: The service's id of the keyframe, or its index as text.
        digest: SHA-256 of the picture's bytes, in hexadecimal.
        image_url: Where the picture was; the address may expire, and is no identity.
        qai_score: 0 to 1, None where the service has not said.
    """

    job_id: str
    keyframe_id: str
    digest: str
    image_url: str
    qai_score: float | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval of one keyframe. One that is older than the keyframe cannot match: the digest would differ.

    Attributes:
        job_id: The job.
        keyframe_id: The keyframe.
        digest: SHA-256 of the picture that was approved.
        by: Who approved, a person or a check.
        at: Seconds since the epoch.
    """

    job_id: str
    keyframe_id: str
    digest: str
    by: str = ""
    at: float = 0.0

    @classmethod
    def of(cls, keyframe: KeyframeSnapshot, *, by: str, at: float) -> Self:
        """Approve a keyframe as a person or a check."""
        return cls(keyframe.job_id, keyframe.keyframe_id, keyframe.digest, by, at)

    def to_dict(self) -> dict[str, Any]:
        """Return the approval as JSON types, for an XCom or an event's metadata."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Read an approval from the JSON types of `to_dict`.

        Raises:
            ValueError: It is no approval.
        """
        try:
            return cls(**{name: stored[name] for name in ("job_id", "keyframe_id", "digest", "by", "at")})
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no approval: {error} is missing") from None


def mismatch(approval: Approval, keyframe: KeyframeSnapshot) -> str | None:
    """Return why an approval does not cover a keyframe; None where it does.

    Examples:
        >>> keyframe = KeyframeSnapshot("j1", "k1", "aa", "https://u.example/k1.png")
        >>> mismatch(Approval("j1", "k1", "bb"), keyframe)
        'the picture was made again after it was approved'
    """
    if approval.job_id != keyframe.job_id:
        return f"the approval is for job {approval.job_id}"
    if approval.digest != keyframe.digest:
        return "the picture was made again after it was approved"
    if approval.keyframe_id != keyframe.keyframe_id:
        return f"the approval is for keyframe {approval.keyframe_id}"
    return None


def digest_reader(base_url: str, *, network: Network | None = None) -> Callable[[str], str]:
    """Return a reader of the keyframes of a service; those of an emulator may have private addresses.

    Args:
        base_url: Address of the API.
        network: The proxy and the certificates; those of the environment where not given.
    """
    return partial(picture_digest, allow_private=base_url.startswith("http://"), network=network)


def picture_digest(url: str, *, allow_private: bool = False, network: Network | None = None) -> str:
    """Return the SHA-256 of the picture at an address, read without the API key.

    Args:
        url: The address, as the service gives it.
        allow_private: Whether the host may have a private address.
        network: The proxy and the certificates; those of the environment where not given.

    Raises:
        OriginError: The address leads where the service must not send this process.
        TransportError: It could not be read.
        PurchaseError: It is no picture that could be approved.
    """
    from ugen_provider.core.media.http import shared_client

    digest, size = hashlib.sha256(), 0
    with shared_client(network).follow(url, allow_private=allow_private) as stream:
        if stream.status != 200:
            raise PurchaseError(
                f"the keyframe cannot be read: its address answers {stream.status}", scope="", reason="no_picture"
            )
        for chunk in stream.chunks():
            digest.update(chunk)
            size += len(chunk)
            if size > _MOST_BYTES:
                raise PurchaseError("the keyframe is larger than 64 MB", scope="", reason="no_picture")
    return digest.hexdigest()
