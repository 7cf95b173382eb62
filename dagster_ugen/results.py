# SPDX-License-Identifier: Apache-2.0
"""What a partition ended with: its job with its results, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ugen_provider.core.api.models import Keyframe, Segment
    from ugen_provider.core.jobs.gate import Look
    from ugen_provider.core.jobs.purchase import Purchase
    from ugen_provider.core.media import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A job that is done, or stands at its gate, with everything that is known of it.

    Attributes:
        partition: The partition; '' for an unpartitioned asset.
        bought: The job and how it came to be ours.
        keyframes: Its keyframes.
        segments: Its segments.
        manifest: What was stored, where something was.
        look: The anchor keyframe as it stands at the gate.
        credits_estimated: Credits that it was estimated to cost, where that was asked.
        notes: What a person should be told.
    """

    partition: str
    bought: Purchase
    keyframes: tuple[Keyframe, ...] = ()
    segments: tuple[Segment, ...] = ()
    manifest: Manifest | None = None
    look: Look | None = None
    credits_estimated: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def created(self) -> bool:
        """Whether this run bought the job."""
        from ugen_provider.core.jobs.purchase import How

        return self.bought.how is How.SUBMITTED

    @property
    def credits_spent(self) -> int:
        """Credits that this run spent on it; what was there already cost nothing."""
        job = self.bought.job
        return (job.credits_consumed or job.credits_reserved or 0) if self.created else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A partition without a result.

    Attributes:
        partition: The partition.
        error: Why.
        retryable: Whether doing the same again may mend it.
    """

    partition: str
    error: Exception
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A partition whose job is not done yet, in a run that does not wait.

    Attributes:
        partition: The partition.
        job_id: Its job; None where the account had no free slot for one.
        why: What it is at.
    """

    partition: str
    job_id: str | None
    why: str


Result = Delivered | Failed | Left


def is_retryable(error: Exception) -> bool:
    """Whether the orchestrator's own retry may mend an error.

    Billing, validation, moderation and everything that the money protocol refuses stay as they are until a person
    changes something; what passes by itself does not.
    """
    from dagster_ugen.intents import StorageUnavailableError
    from ugen_provider.core.api.errors import (
        APIError,
        ConfigError,
        InvalidRequestError,
        JobFailedError,
        JobTimeoutError,
        RateLimitError,
        ServerError,
        TransportError,
        UGenError,
    )
    from ugen_provider.core.batch import LedgerUnavailableError
    from ugen_provider.core.feeds import FeedError
    from ugen_provider.core.media import DownloadError

    if isinstance(error, JobFailedError):
        return error.retryable
    if isinstance(error, FeedError):
        return isinstance(error.__cause__, TransportError)
    if isinstance(error, ConfigError | InvalidRequestError):
        return False
    if isinstance(error, APIError):
        return isinstance(error, ServerError | RateLimitError) or error.status in {408, 425}
    if isinstance(error, DownloadError):
        return error.reason in {"expired", "cut_short", "network", "storage"}
    if isinstance(error, TransportError | JobTimeoutError | LedgerUnavailableError | StorageUnavailableError):
        return True
    return not isinstance(error, UGenError)
