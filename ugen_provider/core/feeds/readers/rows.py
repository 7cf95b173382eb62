# SPDX-License-Identifier: Apache-2.0
"""Rows that are there already: mappings, tables of data frame libraries, and the results of SQL queries.

A table is read through what it offers itself, so that no library is imported that the user does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.products import RejectedRow, excerpt
from ugen_provider.core.feeds.sources import SQLQuery

_BATCH = 1000


def table_rows(source: Any, *, name: str) -> Iterator[tuple[dict[str, Any], None, int] | RejectedRow]:
    """Yield the rows of an iterable of mappings or of a table, with their number.

    Args:
        source: Mappings; a table of pandas, polars, Arrow or DuckDB; or anything that exports an Arrow stream or the
            data frame interchange protocol.
        name: The feed, for messages.

    Raises:
        FeedError: It has no rows that can be read.
    """
    for number, row in enumerate(_mappings(source, name), 1):
        if isinstance(row, Mapping):
            yield {str(key): value for key, value in row.items()}, None, number
        elif hasattr(row, "_asdict"):
            yield row._asdict(), None, number
        elif hasattr(row, "_mapping"):
            yield dict(row._mapping), None, number  # noqa: SLF001  SQLAlchemy's documented name
        else:
            yield RejectedRow(None, number, None, "row", "is no mapping of columns to values", excerpt(row))


def _mappings(source: Any, name: str) -> Iterator[Any]:
    if (
        in_batches := getattr(source, "to_arrow_reader", getattr(source, "fetch_arrow_reader", None))
    ) is not None:  # DuckDB
        for batch in in_batches(_BATCH):
            yield from batch.to_pylist()
    elif hasattr(source, "iter_rows") or hasattr(source, "collect_schema"):  # polars
        whole = source if hasattr(source, "iter_rows") else source.collect()
        yield from whole.iter_rows(named=True, buffer_size=_BATCH)
    elif hasattr(source, "iloc") and hasattr(source, "to_dict"):  # pandas
        if not hasattr(source, "columns"):
            raise FeedError("is a single column; give a table", source=name)
        for begin in range(0, len(source), _BATCH):
            yield from source.iloc[begin : begin + _BATCH].to_dict("records")
    elif hasattr(source, "to_batches") or hasattr(source, "read_next_batch"):  # a table or a stream of Arrow
        for batch in source.to_batches() if hasattr(source, "to_batches") else source:
            yield from _of_batch(batch)
    elif hasattr(source, "to_pylist") and hasattr(source, "schema"):
        yield from _of_batch(source)
    elif hasattr(source, "__arrow_c_stream__") or hasattr(source, "__dataframe__"):
        yield from _of_arrow(source, name)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | str | bytes):
        yield from source
    else:
        message = f"a {type(source).__name__} is no feed; give a path, an address, rows as mappings, or a table"
        raise FeedError(message, source=name)


def _of_batch(batch: Any) -> Iterator[Any]:
    for begin in range(0, batch.num_rows, _BATCH):
        yield from batch.slice(begin, _BATCH).to_pylist()


def _of_arrow(source: Any, name: str) -> Iterator[Any]:
    try:
        import pyarrow as pa
    except ImportError:
        raise FeedError("is a table of Arrow; install ugen-provider[parquet] to read it", source=name) from None
    if hasattr(source, "__arrow_c_stream__"):
        for batch in pa.RecordBatchReader.from_stream(source):
            yield from _of_batch(batch)
        return
    from pyarrow.interchange import from_dataframe

    for batch in from_dataframe(source).to_batches():
        yield from _of_batch(batch)


def sql_rows(source: SQLQuery, *, name: str) -> Iterator[tuple[dict[str, Any], None, int]]:
    """Yield the rows of a SQL query, in batches from the server's own cursor where the driver has one.

    Raises:
        FeedError: The database cannot be reached, or the query fails.
    """
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

    number = 0
    url = source.url.replace("postgresql://", "postgresql+psycopg://", 1).replace(
        "postgres://", "postgresql+psycopg://", 1
    )
    try:
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            cursor = connection.execution_options(stream_results=True, max_row_buffer=_BATCH, yield_per=_BATCH)
            result = cursor.execute(sa.text(source.query), dict(source.parameters or {}))
            if not result.returns_rows:
                raise FeedError("the query returns no rows; write a SELECT", source=name)
            keys = tuple(result.keys())
            for batch in result.partitions(_BATCH):
                for row in batch:
                    number += 1
                    yield dict(zip(keys, row, strict=True)), None, number
    except (SQLAlchemyError, ImportError, ValueError) as error:
        if isinstance(error, FeedError):
            raise
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()
        raise FeedError(
            f"the query cannot be read: {reason[0] if reason else error}", source=name, item=number or None
        ) from None
