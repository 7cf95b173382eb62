# SPDX-License-Identifier: Apache-2.0
"""Many jobs: a product feed bought product by product, once, within a budget, resumable at any point.

A first pass (`planning`) writes what a feed orders into the `ledger`; the `runner` claims products of that plan, under
leases, and buys them through the flows of `core.jobs`; `report` reads what became of them. `budget` books credits
before anything is sent. Airflow, Dagster and the command line use the same `FeedRun` and the same names.

What may come in: what concerns many products at once. What happens to one job is decided in `core.jobs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ugen_provider.core.lazily import on_first_use

if TYPE_CHECKING:
    from ugen_provider.core.batch.blocking import run_feed
    from ugen_provider.core.batch.budget import Budget
    from ugen_provider.core.batch.errors import (
        BudgetUsedUpError,
        LeaseLostError,
        LedgerUnavailableError,
        RunRefusedError,
    )
    from ugen_provider.core.batch.ledger import Ledger
    from ugen_provider.core.batch.plans import PlanOptions
    from ugen_provider.core.batch.report import Report
    from ugen_provider.core.batch.runner import FeedRunner
    from ugen_provider.core.batch.spec import FeedRun, Outputs, Progress

__all__ = [
    "Budget",
    "BudgetUsedUpError",
    "FeedRun",
    "FeedRunner",
    "LeaseLostError",
    "Ledger",
    "LedgerUnavailableError",
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
    "LedgerUnavailableError": "errors",
    "Outputs": "spec",
    "PlanOptions": "plans",
    "Progress": "spec",
    "Report": "report",
    "RunRefusedError": "errors",
    "run_feed": "blocking",
}

__getattr__ = on_first_use(__name__, _HOMES)
