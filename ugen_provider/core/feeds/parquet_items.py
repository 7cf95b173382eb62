# SPDX-License-Identifier: Apache-2.0
"""Parquet, batch by batch. Needs pyarrow: the extra `parquet`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.unpacking import seekable

_ROWS = 1024


def parquet_rows(file: io.BufferedReader, *, source: str) -> Iterator[tuple[dict[str, Any], None, int]]:
    """Rows as dicts, with their number.

    Raises:
        FeedError: pyarrow is missing, or the file is broken.
    """
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise FeedError("is Parquet; install ugen-provider[parquet] to read it", source=source) from None
    number = 0
    with seekable(file) as whole:
        try:
            for batch in ParquetFile(whole).iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield row, None, number
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise FeedError(f"is no Parquet that can be read: {error}", source=source, item=number) from None
