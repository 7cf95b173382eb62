# SPDX-License-Identifier: Apache-2.0
"""Product feeds in, create-job requests out: streaming, in constant memory, and nothing here sends or buys.

One way through: `sources` opens bytes from wherever they are, `read_feed` finds out what they are and yields a
`Product` or a `RejectedRow` per item, `FeedMapping` says what a column becomes, `plan_feed` does all of it and yields
an `Order` per product. Both orchestrators and the command line use `plan_feed`.

What may come in: one more format or kind of feed. Whether an order is bought, and once, is decided in `core.batch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ugen_provider.core.lazily import on_first_use

if TYPE_CHECKING:
    from ugen_provider.core.feeds.errors import FeedError
    from ugen_provider.core.feeds.mapper import Mapper, SkippedRow, to_job_fields
    from ugen_provider.core.feeds.mapping import FeedMapping
    from ugen_provider.core.feeds.planning import FeedOptions, Order, plan_feed
    from ugen_provider.core.feeds.products import Product, RejectedRow
    from ugen_provider.core.feeds.reading import read_feed

__all__ = [
    "FeedError",
    "FeedMapping",
    "FeedOptions",
    "Mapper",
    "Order",
    "Product",
    "RejectedRow",
    "SkippedRow",
    "plan_feed",
    "read_feed",
    "to_job_fields",
]

_HOMES = {
    "FeedError": "errors",
    "FeedMapping": "mapping",
    "FeedOptions": "planning",
    "Mapper": "mapper",
    "Order": "planning",
    "Product": "products",
    "RejectedRow": "products",
    "SkippedRow": "mapper",
    "plan_feed": "planning",
    "read_feed": "reading",
    "to_job_fields": "mapper",
}

__getattr__ = on_first_use(__name__, _HOMES)
