# SPDX-License-Identifier: Apache-2.0
"""What is raised where a feed as a whole cannot be read; a single bad row is a `RejectedRow` instead."""

from __future__ import annotations

from ugen_provider.core.api.errors import ConfigError, UGenError


class MappingError(ConfigError):
    """A mapping cannot be read, or names what does not exist; it says where. Nothing was read or sent."""


class FeedError(UGenError, ValueError):
    """The feed cannot be read, or not to its end.

    A caller that plans before it buys has bought nothing when this is raised.

    Args:
        message: What is wrong and what to do next.
        source: The feed, without credentials and query.
        line: Line, from 1, where known.
        column: Column in that line, from 1, where known.
        item: Items read before it happened, where known.
        offset: Bytes into the (unpacked) feed, where known.
        retryable: Whether reading it again can succeed, as after a broken connection.
    """

    def __init__(
        self,
        message: str,
        *,
        source: str,
        line: int | None = None,
        column: int | None = None,
        item: int | None = None,
        offset: int | None = None,
        retryable: bool = False,
    ) -> None:
        self.retryable = retryable
        self.source = source
        self.line = line
        self.column = column
        self.item = item
        self.offset = offset
        places = (("line", line), ("column", column), ("byte", offset), ("after item", item))
        where = ", ".join(f"{name} {value}" for name, value in places if value is not None)
        super().__init__(f"{source}{f' ({where})' if where else ''}: {message}")
