# SPDX-License-Identifier: Apache-2.0
"""Excel workbooks, row by row. Needs openpyxl: the extra `excel`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from datetime import date, datetime
from itertools import chain
from typing import Any

from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.sources import Bounds

_MOST_HEAD = 40
_LARGEST_TEXTS = 256 << 20


def excel_rows(
    file: io.BufferedReader, *, source: str, bounds: Bounds | None = None, is_header: Callable[[tuple[str, ...]], bool]
) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Yield the rows of the first sheet with the header of a feed, with their line and number.

    Args:
        file: The workbook; it must be seekable.
        source: The feed, for messages.
        bounds: How large it may become.
        is_header: Whether these names are the header of a feed; rows above it are titles and comments.

    Raises:
        FeedError: openpyxl is missing, the workbook is broken, or no sheet has a header.
    """
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise FeedError("is an Excel workbook; install ugen-provider[excel] to read it", source=source) from None
    _check_size(file, source=source, bounds=bounds or Bounds())
    try:
        workbook = load_workbook(file, read_only=True, data_only=True)
        try:
            fallback: str | None = None
            for sheet in workbook.worksheets:
                rows = sheet.iter_rows(values_only=True)
                head = [cells for _, cells in zip(range(_MOST_HEAD), rows, strict=False)]
                if fallback is None and any(any(cell is not None for cell in cells) for cells in head):
                    fallback = ", ".join(_names(next(c for c in head if any(cell is not None for cell in c)))[:12])
                found = next((number for number, cells in enumerate(head) if is_header(_names(cells))), None)
                if found is None:
                    continue
                yield from _rows(_names(head[found]), chain(head[found + 1 :], rows), found + 1)
                return
        finally:
            workbook.close()
    except FeedError:
        raise
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, SyntaxError, EOFError, TypeError, IndexError) as error:
        raise FeedError(f"is no Excel workbook that can be read: {error}", source=source) from None
    message = f"has no sheet with a column for the id and one for the title; its first row is {fallback or 'empty'}"
    raise FeedError(message, source=source)


def _check_size(file: io.BufferedReader, *, source: str, bounds: Bounds) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        packed = sum(member.compress_size for member in members)
        # The texts of all cells are held in memory, since a cell names its text by its number.
        texts = sum(member.file_size for member in members if member.filename.endswith("sharedStrings.xml"))
    if texts > _LARGEST_TEXTS or unpacked > bounds.most_bytes:
        raise FeedError(f"its texts have {texts:,} bytes; save it as CSV", source=source)
    if unpacked > bounds.spared and unpacked > bounds.most_ratio * max(packed, 1):
        message = f"unpacks to more than {bounds.most_ratio} times its size; this is no product feed"
        raise FeedError(message, source=source)
    file.seek(0)


def _names(cells: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple("" if cell is None else str(cell).strip() for cell in cells)


def _rows(names: tuple[str, ...], rows: Any, line: int) -> Iterator[tuple[dict[str, Any], int, int]]:
    number = 0
    keys = _unique(names)
    for cells in rows:
        line += 1
        if all(cell is None for cell in cells):
            continue
        number += 1
        yield {name: _plain(cell) for name, cell in zip(keys, cells, strict=False) if name}, line, number


def _unique(names: tuple[str, ...]) -> list[str]:
    """Return the names with a number after those that occur again, since a dict holds each once."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 or not name else f"{name} {seen[name]}")
    return found


def _plain(cell: Any) -> Any:
    if isinstance(cell, datetime | date):
        return cell.isoformat()
    return cell
