# SPDX-License-Identifier: Apache-2.0
"""Parquet, batch by batch. Needs pyarrow: the extra `parquet`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.products import RejectedRow
from ugen_provider.core.feeds.sources import Bounds, seekable

_ROWS = 1024
_NESTED_ROWS = 64  # texts in lists are unpacked before their size is known
_LARGEST_GROUP = 2 << 30
_LARGEST_SLICE = 16 << 20
_LARGEST_FIXED = 1 << 16


def parquet_rows(
    file: io.BufferedReader, *, source: str, bounds: Bounds | None = None
) -> Iterator[tuple[dict[str, Any], None, int] | RejectedRow]:
    """Yield rows as dicts, with their number; a row that is larger than any product is rejected.

    Parquet writes equal values once. Texts therefore stay in their dictionaries until the size of each row is known,
    and are unpacked in slices of bounded size.

    Raises:
        FeedError: pyarrow is missing, the file is broken, or it is larger than its bounds.
    """
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise FeedError("is Parquet; install ugen-provider[parquet] to read it", source=source) from None
    bounds = bounds or Bounds()
    number = unpacked = 0
    with seekable(file) as whole:
        packed = whole.seek(0, io.SEEK_END)
        whole.seek(0)
        try:
            texts, nested = _checked(ParquetFile(whole), packed, bounds=bounds, source=source)
            whole.seek(0)
            parquet = ParquetFile(whole, read_dictionary=texts, pre_buffer=False)
            for batch in parquet.iter_batches(batch_size=_NESTED_ROWS if nested else _ROWS, use_threads=False):
                sizes = _sizes_of(batch)
                unpacked += sum(sizes)
                if _too_large(unpacked, packed, bounds):
                    raise FeedError(_of_the_ratio(bounds), source=source, item=number)
                for begin, count in _slices(sizes):
                    if sizes[begin] > _LARGEST_SLICE:
                        number += 1
                        yield RejectedRow(None, number, None, "row", f"is larger than {_LARGEST_SLICE:,} bytes")
                        continue
                    for row in batch.slice(begin, count).to_pylist():
                        number += 1
                        yield row, None, number
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
            raise FeedError(f"is no Parquet that can be read: {error}", source=source, item=number) from None


def _checked(parquet: Any, packed: int, *, bounds: Bounds, source: str) -> tuple[list[str], bool]:
    """Refuse a file whose own figures are beyond the bounds, before anything of it is decoded.

    Returns:
        The paths of the columns that hold texts and are no lists, and whether lists of texts are there too.
    """
    metadata, schema = parquet.metadata, parquet.schema
    total = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.total_byte_size > _LARGEST_GROUP:
            raise FeedError(f"has a row group of {group.total_byte_size:,} bytes; write smaller ones", source=source)
        total += group.total_byte_size
        # One row of a list can have any number of values.
        total += sum(
            8 * group.column(index).num_values
            for index in range(group.num_columns)
            if schema.column(index).max_repetition_level
        )
    if total > bounds.most_bytes or _too_large(total, packed, bounds):
        raise FeedError(_of_the_ratio(bounds), source=source)
    columns = [schema.column(index) for index in range(len(schema))]
    if any(column.physical_type == "FIXED_LEN_BYTE_ARRAY" and column.length > _LARGEST_FIXED for column in columns):
        raise FeedError("has values of a fixed length that no product has", source=source)
    texts = [column for column in columns if column.physical_type == "BYTE_ARRAY"]
    flat = [column.path for column in texts if not column.max_repetition_level and "." not in column.path]
    return flat, len(flat) < len(texts)


def _sizes_of(batch: Any) -> list[int]:
    """Return the bytes of the texts of each row, from the lengths of the values in their dictionaries."""
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute  # its functions are made when it is loaded
    total = pa.array([0] * batch.num_rows, pa.int64())
    for column in batch.columns:
        if pa.types.is_dictionary(column.type) and _is_text(column.dictionary.type):
            lengths = pc.binary_length(column.dictionary).take(column.indices)
        elif _is_text(column.type):
            lengths = pc.binary_length(column)
        elif pa.types.is_nested(column.type):
            lengths = pa.array([column.slice(number, 1).nbytes for number in range(batch.num_rows)], pa.int64())
        else:
            continue
        total = pc.add(total, pc.fill_null(lengths.cast(pa.int64()), 0))
    sizes: list[int] = total.to_pylist()
    return sizes


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _slices(sizes: list[int]) -> Iterator[tuple[int, int]]:
    begin = size = 0
    for number, one in enumerate(sizes):
        if number > begin and size + one > _LARGEST_SLICE:
            yield begin, number - begin
            begin, size = number, 0
        size += one
    if begin < len(sizes):
        yield begin, len(sizes) - begin


def _of_the_ratio(bounds: Bounds) -> str:
    return f"unpacks to more than {bounds.most_ratio} times its size; this is no product feed"


def _too_large(unpacked: int, packed: int, bounds: Bounds) -> bool:
    return unpacked > bounds.spared and unpacked > bounds.most_ratio * max(packed, 1)
