# SPDX-License-Identifier: Apache-2.0
"""What stops a feed run as a whole. What stops a single product is its outcome in the report instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ugen_provider.core.api.errors import UGenError

if TYPE_CHECKING:
    from ugen_provider.core.batch.report import Report

RefusedReason = Literal["max_rejected", "max_changed", "budget", "estimate", "ledger"]


class RunRefusedError(UGenError):
    """The run stopped before anything was bought, since going on would surely not be meant.

    Args:
        message: What is wrong and what to do next.
        reason: A stable word for programs.
        report: The counts so far, where there are any.
    """

    reason: RefusedReason

    def __init__(self, message: str, *, reason: RefusedReason, report: Report | None = None) -> None:
        self.reason = reason
        self.report = report
        super().__init__(message)


class LeaseLostError(UGenError):
    """Another runner took the product over, since this one was not heard of for too long; nothing was sent."""


class BudgetUsedUpError(UGenError):
    """What was about to be sent does not fit into the budget; it was not sent.

    Args:
        message: Which budget, and what it holds.
        which: `run`, `day` or `credits`, the account's own.
    """

    def __init__(self, message: str, *, which: Literal["run", "day", "credits"]) -> None:
        self.which = which
        super().__init__(message)
