# SPDX-License-Identifier: Apache-2.0
"""Errors that stop a feed run as a whole. The error of a single product is its outcome in the report."""

from __future__ import annotations

from typing import Literal

from ugen_provider.core.api.errors import UGenError

RefusedReason = Literal["max_rejected", "max_changed", "max_gone", "max_new", "new_ids", "budget", "estimate", "ledger"]


class RunRefusedError(UGenError):
    """The run stopped before anything was bought, since continuing is surely not intended.

    Args:
        message: What is wrong and what to do next.
        reason: A stable word for programs.
    """

    reason: RefusedReason

    def __init__(self, message: str, *, reason: RefusedReason) -> None:
        self.reason = reason
        super().__init__(message)


class ExportRefusedError(UGenError):
    """An export was not written, since the shop would take videos away; what was there is unchanged.

    Args:
        message: The figures.
        reason: `empty` (there is no product to write) or `shrinks` (too many products would go).
    """

    def __init__(self, message: str, *, reason: Literal["empty", "shrinks"]) -> None:
        self.reason = reason
        super().__init__(message)


class NoSuggestionError(UGenError):
    """The service suggests nothing that a request lacks; nothing was bought, and the next run asks again."""

    retryable = True


class LeaseLostError(UGenError):
    """Another runner holds the product, since this one renewed its lease too late; nothing was sent."""

    retryable = True


class BudgetUsedUpError(UGenError):
    """The next request does not fit into the budget; it was not sent.

    Args:
        message: Which budget, and what it holds.
        which: `run`, `day` or `credits`, the account's own.
    """

    def __init__(self, message: str, *, which: Literal["run", "day", "credits"]) -> None:
        self.which = which
        super().__init__(message)
