# SPDX-License-Identifier: Apache-2.0
"""How one product ended, written down in one step: outcome, budget, lease."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ugen_provider.core.batch import schema
from ugen_provider.core.batch.budget import correct
from ugen_provider.core.batch.claims import LET_GO, Claim, ItemState
from ugen_provider.core.batch.ledger import Ledger, change
from ugen_provider.core.jobs.order import How


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one product ended.

    Attributes:
        state: Its outcome in the report.
        reason: Why, where it did not simply complete.
        final_failure: Whether the same request is not tried again by itself.
        how: How the job came to be ours.
        job_id: The job, where there is one.
        consumed: Credits that it consumed, once it has ended.
        score: Its lowest quality score.
        video: Where its video is.
        manifest: Where its manifest is.
        stage_retries: How often a stage of its job was run again.
    """

    state: ItemState
    reason: str | None = None
    final_failure: bool = False
    how: str | None = None
    job_id: str | None = None
    consumed: int | None = None
    score: float | None = None
    video: str | None = None
    manifest: str | None = None
    stage_retries: int = 0


_CAME_BACK = frozenset({How.ATTACHED.value, How.TAKEN.value})
"""How a job is ours that an earlier runner submitted."""


def settle(ledger: Ledger, claimed: Claim, ended: Settlement) -> None:
    """Write down how a product ended, and let go of it.

    Raises:
        LeaseLostError: Another runner has it; its word counts.
    """

    def work(connection: sa.Connection) -> None:
        now = ledger.now()
        remembered = _remembered(ended, now) if ended.state in {"completed", "failed"} else {}
        known = {**remembered, "fingerprint": claimed.fingerprint} if remembered else {}
        if change(connection, schema.product, {**LET_GO, **known}, where=claimed.lease.row) != 1:
            raise claimed.lease.lost()
        values: dict[str, Any] = {
            "state": ended.state,
            "reason": ended.reason,
            "how": ended.how,
            "job_id": ended.job_id,
            "score": ended.score,
            "finished_at": now,
        }
        if ended.job_id is not None:
            values["begun"] = True
        if remembered:
            change(connection, schema.intent, remembered, where={"scope": claimed.scope})
            # What was found under its key was paid for before: the budget is for what is bought.
            consumed = 0 if ended.how == How.FOUND.value else ended.consumed or 0
            if correct(connection, claimed, consumed=consumed):
                values.update(booked=consumed, consumed=consumed)
                # What this run has booked without a stage retry it has submitted, in an earlier wave or process.
                if ended.how in _CAME_BACK and not ended.stage_retries:
                    values["how"] = How.SUBMITTED.value
        change(connection, schema.item, values, where={"run": claimed.run.id, "product_id": claimed.product_id})

    ledger.writer.run(work)


def _remembered(ended: Settlement, now: float) -> dict[str, Any]:
    """What the product and its intent keep of it."""
    values: dict[str, Any] = {
        "state": ended.state,
        "reason": ended.reason,
        "final_failure": ended.final_failure,
        "updated_at": now,
    }
    if ended.job_id is not None:
        values["job_id"] = ended.job_id
    if ended.state == "completed":  # a video that is there stays the product's until there is a newer one
        values.update(credits=ended.consumed, score=ended.score, video=ended.video, manifest=ended.manifest)
    return values
