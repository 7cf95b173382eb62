# SPDX-License-Identifier: Apache-2.0
"""Product feeds from Python: read them, map them, and see what they would order. Nothing here sends or buys.

Allowed here: a public name of `ugen_provider.core.feeds`, loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ugen_provider.core.lazily import on_first_use

if TYPE_CHECKING:
    from ugen_provider.core.feeds import (
        Bounds,
        FeedError,
        FeedMapping,
        FeedOptions,
        FeedOrder,
        Mapper,
        MappingError,
        Product,
        RejectedRow,
        SkippedRow,
        SQLQuery,
        plan_feed,
        read_feed,
        to_job_fields,
    )

__all__ = [
    "Bounds",
    "FeedError",
    "FeedMapping",
    "FeedOptions",
    "FeedOrder",
    "Mapper",
    "MappingError",
    "Product",
    "RejectedRow",
    "SQLQuery",
    "SkippedRow",
    "plan_feed",
    "read_feed",
    "to_job_fields",
]

__getattr__ = on_first_use("ugen_provider.core", dict.fromkeys(__all__, "feeds"))
