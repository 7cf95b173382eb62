# SPDX-License-Identifier: Apache-2.0
"""Many jobs: a product feed bought product by product, once, within a budget, resumable at any point.

A first pass (`planning`) writes what a feed orders into the `ledger`; the `runner` claims products of that plan, under
leases, and buys them through the flows of `core.jobs`; `report` reads what became of them. `budget` books credits
before anything is sent. Airflow, Dagster and the command line use the same `FeedRun` and the same names.

What may come in: what concerns many products at once. What happens to one job is decided in `core.jobs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ugen_provider.core.batch.budget import Budget
    from ugen_provider.core.batch.errors import BudgetUsedUpError, LeaseLostError, RunRefusedError
    from ugen_provider.core.batch.ledger import Ledger
    from ugen_provider.core.batch.plans import PlanOptions
    from ugen_provider.core.batch.report import Report
    from ugen_provider.core.batch.runner import FeedRunner, run_feed
    from ugen_provider.core.batch.spec import FeedRun, Outputs, Progress

__all__ = [
    "Budget",
    "BudgetUsedUpError",
    "FeedRun",
    "FeedRunner",
    "LeaseLostError",
    "Ledger",
    "Outputs",
    "PlanOptions",
    "Progress",
    "Report",
    "RunRefusedError",
    "run_feed",
]

_HOMES = {
    "Budget": "budget",
    "BudgetUsedUpError": "errors",
    "FeedRun": "spec",
    "FeedRunner": "runner",
    "LeaseLostError": "errors",
    "Ledger": "ledger",
    "Outputs": "spec",
    "PlanOptions": "plans",
    "Progress": "spec",
    "Report": "report",
    "RunRefusedError": "errors",
    "run_feed": "runner",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
