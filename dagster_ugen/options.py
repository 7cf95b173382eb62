# SPDX-License-Identifier: Apache-2.0
"""The user's choices for a job, where the money protocol leaves one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ugen_provider.core.jobs.buying import BuyingPolicy

OnInterrupt = Literal["cancel", "pause", "detach"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UGenOptions:
    """What to do where there is a choice.

    Args:
        on_earlier_failure: For a job that failed for a reason that a repeat can mend: `retry_stage` runs it again from
            the stage that failed, `resubmit` buys another one, `fail` does neither.
        max_stage_retries: Stage retries in all, over all runs.
        on_paused: For a job that somebody else paused: `wait` until it is resumed, or `fail`.
        on_interrupt: When a person terminates the run: `cancel` the jobs, `pause` them for the next run, or `detach`.
            A signal to the process, such as a lost pod, always detaches.
        max_credits: Most credits that one job may reserve; a dearer one is not bought.
        timeout: Seconds that a job may take, without the wait for a slot or for a person; then it is left, and the next
            run attaches to it.
        slot_timeout: Seconds to wait where the account has no free slot; None waits as long as it takes.
        min_score: Lowest quality score, 0 to 1, that counts as good.
        on_low_quality: For a job below `min_score`: `warn` in the metadata, or `fail`.
        interrupt_grace: Seconds in which an interrupted run deals with its jobs.
    """

    on_earlier_failure: Literal["retry_stage", "resubmit", "fail"] = "retry_stage"
    max_stage_retries: int = 2
    on_paused: Literal["wait", "fail"] = "wait"
    on_interrupt: OnInterrupt = "cancel"
    max_credits: int | None = None
    timeout: float | None = None
    slot_timeout: float | None = None
    min_score: float | None = None
    on_low_quality: Literal["warn", "fail"] = "warn"
    interrupt_grace: float = 25.0

    def policy(self, *, spending: Literal["allow", "attach_only", "off"], regenerate: str | None) -> BuyingPolicy:
        """These choices as the money protocol reads them."""
        from ugen_provider.core.jobs.buying import BuyingPolicy

        return BuyingPolicy(
            on_earlier_failure=self.on_earlier_failure,
            max_stage_retries=self.max_stage_retries,
            on_paused=self.on_paused,
            spending=spending,
            regenerate=regenerate,
            max_credits=self.max_credits,
        )
