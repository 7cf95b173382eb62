# SPDX-License-Identifier: Apache-2.0
"""Product feeds in, create-job requests out: streaming, in constant memory; nothing here sends or buys.

One way through: `sources` opens bytes or rows, `read_feed` finds out what they are and yields a `Product` or a
`RejectedRow` per item, `FeedMapping` says what a column becomes, `plan_feed` does all of it and yields one `FeedOrder`
per product. Both orchestrators and the command line use `plan_feed`. Its public names are in `ugen_provider.feeds`.

Allowed here: one more format, layout or cleaning rule. Whether an order is bought, and once, is decided in
`core.batch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ugen_provider.core.lazily import on_first_use

if TYPE_CHECKING:
    from ugen_provider.core.feeds.errors import FeedError, MappingError
    from ugen_provider.core.feeds.mapper import FeedOptions, Mapper, plan_feed, to_job_fields
    from ugen_provider.core.feeds.mapping import FeedMapping
    from ugen_provider.core.feeds.products import FeedOrder, Product, RejectedRow, SkippedRow
    from ugen_provider.core.feeds.reader import read_feed
    from ugen_provider.core.feeds.sources import Bounds, SQLQuery

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

_HOMES = {
    "Bounds": "sources",
    "FeedError": "errors",
    "FeedMapping": "mapping",
    "FeedOptions": "mapper",
    "Mapper": "mapper",
    "MappingError": "errors",
    "FeedOrder": "products",
    "Product": "products",
    "RejectedRow": "products",
    "SQLQuery": "sources",
    "SkippedRow": "products",
    "plan_feed": "mapper",
    "read_feed": "reader",
    "to_job_fields": "mapper",
}

__getattr__ = on_first_use(__name__, _HOMES)
