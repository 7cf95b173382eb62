# SPDX-License-Identifier: Apache-2.0
"""What `feed check` and `feed run` are both told: how to read a feed, and what its columns become."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, cast, get_args

import click

from ugen_provider.core.feeds.columns import Kind
from ugen_provider.core.feeds.mapping import FeedMapping
from ugen_provider.core.feeds.planning import FeedOptions
from ugen_provider.core.feeds.reading import Format

_OPTIONS = (
    click.option("--kind", type=click.Choice(get_args(Kind)), help="Whose rules it follows; else found in it."),
    click.option("--format", "format_", type=click.Choice(get_args(Format)), help="How it is written; else found."),
    click.option("--encoding", help="Of text without a byte order mark; default UTF-8."),
    click.option("--mapping", type=click.Path(dir_okay=False, path_type=Path), help="YAML: what its columns become."),
    click.option("--upload-pictures", is_flag=True, help="Upload pictures that the service cannot reach."),
)


def reading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say how a feed is read."""
    return reduce(lambda made, option: option(made), reversed(_OPTIONS), function)


def feed_options(*, kind: str | None, format_: str | None, encoding: str | None) -> FeedOptions:
    """How to read the feed."""
    return FeedOptions(kind=cast("Kind | None", kind), format=cast("Format | None", format_), encoding=encoding)


def feed_mapping(mapping: Path | None, *, kind: str | None) -> FeedMapping | None:
    """What its columns become.

    Raises:
        ConfigError: The file cannot be read, or names what does not exist.
    """
    if mapping is None:
        return None
    return FeedMapping.from_file(mapping, kind=cast("Kind", kind or "google"))
