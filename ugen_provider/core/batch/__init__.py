# SPDX-License-Identifier: Apache-2.0
"""Many jobs: a product feed bought product by product, once, within a budget, resumable at any point.

A first pass (`planner`) writes what a feed orders into the `ledger`; the `runner` claims products of that plan, under
leases, and buys them through the flows of `core.jobs`; `report` reads what became of them. `budget` books credits
before anything is sent. Airflow, Dagster and the command line use the same `FeedRun` and the same names.

Allowed here: what concerns many products at once. What happens to one job is decided in `core.jobs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ugen_provider.core.lazily import on_first_use

if TYPE_CHECKING:
    from ugen_provider.core.batch.budget import Budget
    from ugen_provider.core.batch.errors import BudgetUsedUpError, LeaseLostError, RunRefusedError
    from ugen_provider.core.batch.report import Report
    from ugen_provider.core.batch.runner import FeedRunner, run_feed
    from ugen_provider.core.batch.spec import FeedRun, Outputs, PlanOptions, Progress

__all__ = [
    "Budget",
    "BudgetUsedUpError",
    "FeedRun",
    "FeedRunner",
    "LeaseLostError",
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
    "Outputs": "spec",
    "PlanOptions": "spec",
    "Progress": "spec",
    "Report": "report",
    "RunRefusedError": "errors",
    "run_feed": "runner",
}

__getattr__ = on_first_use(__name__, _HOMES)
