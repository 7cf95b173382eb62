# SPDX-License-Identifier: Apache-2.0
"""What the status of a job means. Imports no pydantic, so that a client can be made without it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class JobState(Enum):
    """What a status means for whoever waits."""

    ACTIVE = "active"
    """It works, or will; also every status that this version does not know."""
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the service will do nothing more of its own accord."""
        return self in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}


_STATES: Mapping[str, JobState] = {
    "paused": JobState.PAUSED,
    "completed": JobState.COMPLETED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
    "canceled": JobState.CANCELLED,
}


def state_of(status: str) -> JobState:
    """What a status means; an unknown one is active, since ending it here could lose a paid result.

    Examples:
        >>> state_of("canceled"), state_of("awaiting_review")
        (<JobState.CANCELLED: 'cancelled'>, <JobState.ACTIVE: 'active'>)
    """
    return _STATES.get(status.strip().lower(), JobState.ACTIVE)
