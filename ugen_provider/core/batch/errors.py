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


class LedgerUnavailableError(UGenError):
    """The ledger's database went away, or takes nothing at the moment; whoever tries again later goes on.

    Nothing is lost: what was bought is in the ledger, or is found again by the key that was written there before it was
    asked for.

    Args:
        trouble: What the database or its driver said.
        ledger: Its address, without password and options.
        run_id: The feed run that ended by it, which goes on when it is started again under the same name.
    """

    def __init__(self, trouble: str, *, ledger: str, run_id: str | None = None) -> None:
        self.trouble = trouble
        self.ledger = ledger
        self.run_id = run_id
        told = f"the ledger's database: {trouble.rstrip('.')} ({ledger})"
        if run_id is not None:
            told += f"; nothing is lost: start the run again with the same run_id, {run_id!r}, and it goes on"
        super().__init__(told)

    def of_run(self, run_id: str) -> LedgerUnavailableError:
        """The same, and which run ended by it."""
        return LedgerUnavailableError(self.trouble, ledger=self.ledger, run_id=run_id)


class BudgetUsedUpError(UGenError):
    """What was about to be sent does not fit into the budget; it was not sent.

    Args:
        message: Which budget, and what it holds.
        which: `run`, `day` or `credits`, the account's own.
    """

    def __init__(self, message: str, *, which: Literal["run", "day", "credits"]) -> None:
        self.which = which
        super().__init__(message)
