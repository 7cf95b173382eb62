# SPDX-License-Identifier: Apache-2.0
"""What is ordered, and what it became: the values that every door passes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.api.polling import Seen
from ugen_provider.core.jobs.buying import BuyingPolicy
from ugen_provider.core.jobs.fingerprint import CURRENT_SCHEME, fingerprint
from ugen_provider.core.jobs.intent import Intent
from ugen_provider.core.jobs.scope import Scope


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be bought once.

    Args:
        scope: The order's identity.
        body: The request, without `idempotency_key`.
        policy: The user's choices.
        image_identity: For a picture uploaded for this request, the digest of its content.
        scheme: Number of the fingerprint scheme; the ledger pins it.
        holder: Who works on it, for the intent.
    """

    scope: Scope
    body: Mapping[str, Any] = field(repr=False)
    policy: BuyingPolicy = field(default_factory=BuyingPolicy)
    image_identity: str | None = None
    scheme: int = CURRENT_SCHEME
    holder: str = ""

    def fingerprint(self, *, scheme: int | None = None) -> str:
        """The digest of the request as it is now."""
        return fingerprint(self.body, scheme=scheme or self.scheme, image_identity=self.image_identity)

    @property
    def intent_scope(self) -> str:
        """Under what the intent is kept: the scope, and for products the fingerprint too."""
        return f"{self.scope}{self.fingerprint()}" if self.scope.by_content else str(self.scope)

    def intent(self, *, generation: int, written_at: float, regenerate: str | None = None) -> Intent:
        """What is written down of one generation before it is sent.

        Args:
            generation: Which one.
            written_at: Seconds since the epoch.
            regenerate: A value that goes into the key, where no store could count generations.
        """
        digest = self.fingerprint()
        key = self.scope.key(generation, fingerprint=digest, regenerate=regenerate)
        return Intent(
            scope=self.intent_scope,
            generation=generation,
            key=key,
            body={**self.body, "idempotency_key": key},
            fingerprint=digest,
            scheme=self.scheme,
            written_at=written_at,
            holder=self.holder,
        )


class How(Enum):
    """How a job came to be ours.

    `FOUND`: the service had it under this order's key, complete, and made before the order was, as after a store was
    lost. Nothing was paid.
    """

    SUBMITTED = "submitted"
    ATTACHED = "attached"
    TAKEN = "taken"
    FOUND = "found"
    RESUMED = "resumed"
    STAGE_RETRIED = "stage_retried"
    AT_THE_GATE = "at_the_gate"

    @classmethod
    def of_answer(cls, job: Job | None, *, first: bool, age: float) -> How:
        """What a POST answered with.

        A job that took longer than its order is old was there before. That it is complete does not say so: the answer
        may have been lost, and the same request sent again once the job had ended. Each of the two is a difference of
        one clock, so that the service's need not agree with ours.

        Args:
            job: The answer; None where nothing was sent.
            first: Whether the order's intent was written just now.
            age: Seconds since it was written.
        """
        if not first or job is None or job.state is not JobState.COMPLETED:
            return cls.SUBMITTED
        if job.created_at is None or job.completed_at is None:
            return cls.SUBMITTED
        return cls.FOUND if (job.completed_at - job.created_at).total_seconds() > age else cls.SUBMITTED


@dataclass(frozen=True, slots=True)
class Purchase:
    """A job that is ours, as it was last seen.

    Attributes:
        job: The job; it may have ended.
        intent: What is written down about it.
        how: How it came to be ours.
        request_changed: Whether the request is another one now than what the job was made from.
        notes: What a person should be told.
        stale: A state that does not count while waiting, after a retry or a resume.
    """

    job: Job
    intent: Intent
    how: How
    request_changed: bool = False
    notes: tuple[str, ...] = ()
    stale: Seen | None = None
