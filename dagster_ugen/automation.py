# SPDX-License-Identifier: Apache-2.0
"""Ready-made automation conditions. Nothing uses one by itself: what runs by itself is what you asked for."""

from __future__ import annotations

from typing import Any

import dagster as dg

Condition = dg.AutomationCondition[Any]


def after_approval() -> Condition:
    """For `build_ugen_assets(gate=…)`: goes on with a partition as soon as its look is approved, and only then.

    It spends what that approval released: the rest of the job whose look somebody wanted.
    """
    return dg.AutomationCondition.eager().with_label("ugen_after_approval")


def for_new_products() -> Condition:
    """Makes a partition that was never made, once. It spends the credits of one job for each new product."""
    return dg.AutomationCondition.on_missing().with_label("ugen_for_new_products")


def when_out_of_date() -> Condition:
    """Brings what hangs on a video up to date when the video was made again. For your own assets; buys nothing."""
    return dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed()).with_label(
        "ugen_when_out_of_date"
    )
