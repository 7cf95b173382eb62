# SPDX-License-Identifier: Apache-2.0
"""Readers: from the bytes or objects of one format to raw rows, each with its position.

A reader knows its format and nothing of shops. A bad row is a `RejectedRow`; only what ends the feed is a `FeedError`.

Allowed here: the reader of one more format.
"""

from __future__ import annotations

from typing import Any

RawRow = tuple[dict[str, Any], int | None, int]
"""A row under the names of its feed, its line and its number."""
