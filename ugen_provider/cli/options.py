# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share: the fields of a video, how a feed is read, waiting, the ledger."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import click

from ugen_provider.core.api import polling, rules

if TYPE_CHECKING:
    from ugen_provider.core.batch.spec import PlanOptions
    from ugen_provider.core.feeds.layouts import Kind
    from ugen_provider.core.feeds.mapper import FeedOptions
    from ugen_provider.core.feeds.mapping import FeedMapping, GroupBy
    from ugen_provider.core.feeds.reader import Format
    from ugen_provider.core.feeds.sources import FeedSource

INTERVAL = click.FloatRange(min=0.1)
interval_option = click.option(
    "--interval",
    type=INTERVAL,
    default=polling.DEFAULT_INTERVAL,
    show_default=True,
    help="Seconds between polls; the service asks for 5 to 10.",
)
timeout_option = click.option(
    "--timeout", type=click.FloatRange(min=0), help="Seconds after which to stop waiting; the jobs keep running."
)


ledger_option = click.option(
    "--ledger",
    metavar="PATH|URL",
    help="A SQLite file or a PostgreSQL URL; default: UGEN_LEDGER, the profile's ledger, or the default ledger.",
)
on_earlier_failure_option = click.option(
    "--on-earlier-failure",
    type=click.Choice(("retry_stage", "resubmit", "fail")),
    default="retry_stage",
    show_default=True,
    help="What to do if the last job of the order failed: run it again from the failed stage, buy another, or fail.",
)


# The fields of `POST /jobs`, made from the table of rules.

_SECTION = "Fields of the video"
_OF_ONE_PRODUCT = frozenset({"product_name", "product_image_url"})
_OURS = frozenset({"idempotency_key"})


class FieldOption(click.Option):
    """An option that is a field of `POST /jobs`."""

    section = _SECTION


def _option(rule: rules.FieldRule) -> FieldOption:
    words = rule.name.replace("_", "-")
    shown = _help(rule)
    match rule.kind:
        case "boolean":
            return FieldOption([f"--{words}/--no-{words}", rule.name], default=None, help=shown)
        case "integer":
            return FieldOption([f"--{words}", rule.name], type=int, metavar="N", help=shown)
        case "number":
            return FieldOption([f"--{words}", rule.name], type=float, metavar="X", help=shown)
        case "strings":
            return FieldOption([f"--{words}", rule.name], multiple=True, metavar="TEXT", help=shown)
        case kind:
            metavar = {"url": "URL", "object": "JSON"}.get(kind, "TEXT")
            choice = click.Choice(rule.one_of) if rule.one_of else None
            return FieldOption([f"--{words}", rule.name], type=choice, metavar=metavar, help=shown)


def _help(rule: rules.FieldRule) -> str:
    """Return what a field is, its range and its default."""
    parts = []
    if rule.least is not None:
        parts.append(f"from {rule.least:g}" + (f" to {rule.most:g}" if rule.most is not None else ""))
    if rule.kind == "strings":
        parts.append("may be repeated")
    if rule.default is not None:
        parts.append(f"default of the service: {str(rule.default).lower() if rule.kind == 'boolean' else rule.default}")
    known = "; ".join(parts)
    return rule.about + (f" {known[:1].upper()}{known[1:]}." if known else "")


def field_options(*, without: Collection[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for each field of `POST /jobs`; it receives the given ones as `fields`.

    Args:
        without: Fields that the command does not accept.
    """
    taken = [rule for rule in rules.FIELDS if rule.name not in _OURS and rule.name not in without]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **given: Any) -> Any:
            fields = given_fields({rule.name: given.pop(rule.name) for rule in taken})
            return function(*args, fields=fields, **given)

        # click keeps the parameters of other decorators on the function itself.
        called.__dict__.update(function.__dict__)
        called.__name__, called.__doc__ = function.__name__, function.__doc__
        for rule in reversed(taken):
            called = _declare(called, _option(rule))
        return called

    return decorate


def _declare(function: Callable[..., Any], option: click.Option) -> Callable[..., Any]:
    parameters: list[click.Parameter] = function.__dict__.setdefault("__click_params__", [])
    parameters.append(option)
    return function


def feed_field_options() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the fields that apply to every product of a feed."""
    return field_options(without=_OF_ONE_PRODUCT)


def given_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options as the API takes them.

    Examples:
        >>> given_fields({"segment_count": 2, "key_selling_points": (), "voice_settings": '{"speed": 1}'})
        {'segment_count': 2, 'voice_settings': {'speed': 1}}
    """
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return rules.coerce({name: value for name, value in given.items() if value is not None and value != []})


# How a feed is read.


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How a feed is read, as given on the command line."""

    kind: str | None
    format_: str | None
    encoding: str | None
    items: str | None
    query: str | None
    mapping: Path | None
    one_per: str | None
    upload_pictures: bool
    picture_roots: tuple[str, ...]

    def feed_options(self, *, kind: str | None = None) -> FeedOptions:
        """Return how to read the feed.

        Args:
            kind: The standard that it follows, if none was given.
        """
        from ugen_provider.core.feeds.mapper import FeedOptions

        return FeedOptions(
            kind=cast("Kind | None", self.kind or kind),
            format=cast("Format | None", self.format_),
            encoding=self.encoding,
            items=self.items,
            query=self.query,
        )

    def feed_mapping(self) -> FeedMapping | None:
        """Read the mapping of columns to fields.

        Raises:
            ConfigError: The file cannot be read, or names a field that does not exist.
        """
        from ugen_provider.core.feeds.mapping import FeedMapping

        kind = cast("Kind", self.kind or "google")
        if self.mapping is None and self.one_per is None:
            return None
        found = FeedMapping.from_dict({}) if self.mapping is None else FeedMapping.from_file(self.mapping, kind=kind)
        return found if self.one_per is None else replace(found, group_by=cast("GroupBy", self.one_per))


def reading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say how a feed is read; it receives them as `reading`."""
    from ugen_provider.core.feeds.layouts import Kind
    from ugen_provider.core.feeds.mapping import GroupBy
    from ugen_provider.core.feeds.reader import Format

    file = click.Path(dir_okay=False, path_type=Path)
    options = (
        click.option("--kind", type=click.Choice(get_args(Kind)), help="The standard it follows; default: detected."),
        click.option(
            "--format", "format_", type=click.Choice(get_args(Format)), help="Its file format; default: detected."
        ),
        click.option("--encoding", help="Of text without a byte order mark; default: as declared, or UTF-8."),
        click.option("--items", metavar="PATH", help="Path of the products in XML or JSON: export/stock/ware."),
        click.option("--query", metavar="SQL", help="A query whose rows are products; FEED is a database's URL."),
        click.option("--mapping", type=file, help="YAML: which column becomes which field."),
        click.option("--one-per", type=click.Choice(get_args(GroupBy)), help="One video for each of these."),
        click.option("--upload-pictures", is_flag=True, help="Upload pictures that the service cannot reach."),
        click.option(
            "--picture-root",
            "picture_roots",
            metavar="FOLDER",
            multiple=True,
            help="A folder, or its URL in an object store, below which the feed may name such pictures.",
        ),
    )
    names = tuple(ReadingOptions.__dataclass_fields__)

    def called(*args: Any, **given: Any) -> Any:
        reading = ReadingOptions(**{name: given.pop(name) for name in names})
        return function(*args, reading=reading, **given)

    called.__dict__.update(function.__dict__)
    called.__name__, called.__doc__ = function.__name__, function.__doc__
    return reduce(lambda made, option: option(made), reversed(options), called)


# How a feed becomes a plan.


@dataclass(frozen=True, slots=True)
class PlanningOptions:
    """The limits of a plan, as given on the command line."""

    max_rejected: int | None
    max_changed: float
    on_changed: str
    max_gone: float
    max_new: int | None
    allow_new_ids: bool
    guard_min: int
    adopt: str
    part: str | None
    only: Path | None
    supplemental: bool
    pictures_by_content: bool
    regenerate: tuple[str, ...]
    duplicates: str
    newest_mapping: bool

    def plan_options(self, reading: ReadingOptions, *, stored: bool = False, limit: int | None = None) -> PlanOptions:
        """Return how the feed becomes a plan.

        Args:
            reading: How it is read.
            stored: Whether outputs are to be stored.
            limit: Products that are ordered at most.

        Raises:
            ConfigError: The file of a selection cannot be read.
        """
        from ugen_provider.core.batch.spec import Adopt, Duplicates, OnChanged, PlanOptions
        from ugen_provider.core.feeds.mapper import read_selection

        return PlanOptions(
            feed=reading.feed_options(),
            mapping=reading.feed_mapping(),
            newest_mapping=self.newest_mapping,
            duplicates=cast("Duplicates", self.duplicates),
            max_rejected=self.max_rejected,
            max_changed=self.max_changed,
            on_changed=cast("OnChanged", self.on_changed),
            max_gone=self.max_gone,
            max_new=self.max_new,
            allow_new_ids=self.allow_new_ids,
            guard_min=self.guard_min,
            adopt=cast("Adopt", self.adopt),
            part=self.part,
            only=None if self.only is None else read_selection(self.only),
            limit=limit,
            supplemental=self.supplemental,
            pictures_by_content=self.pictures_by_content,
            regenerate=frozenset(self.regenerate),
            stored=stored,
            upload_pictures=reading.upload_pictures or bool(reading.picture_roots),
            picture_roots=reading.picture_roots,
        )


def planning_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what a plan may do; it receives them as `planning`."""
    from ugen_provider.core.batch.spec import Adopt, Duplicates, OnChanged

    share = click.FloatRange(0, 1)
    options = (
        click.option("--max-rejected", type=click.IntRange(min=0), help="Stop before buying if more rows are refused."),
        click.option(
            "--max-changed",
            type=share,
            default=0.2,
            show_default=True,
            help="Stop before buying if a larger share of the known products would be bought again.",
        ),
        click.option(
            "--on-changed",
            type=click.Choice(get_args(OnChanged)),
            default="refuse",
            show_default=True,
            help="Above --max-changed: stop, or postpone the changed products and buy the new ones.",
        ),
        click.option(
            "--max-gone",
            type=share,
            default=0.2,
            show_default=True,
            help="Stop before buying if the feed lacks a larger share of the known products.",
        ),
        click.option("--max-new", type=click.IntRange(min=0), help="Stop before buying if more products are new."),
        click.option("--allow-new-ids", is_flag=True, help="Accept many new products while many others are gone."),
        click.option(
            "--guard-min",
            type=click.IntRange(min=0),
            default=10,
            show_default=True,
            help="Known products from which on these limits apply.",
        ),
        click.option(
            "--adopt",
            type=click.Choice(get_args(Adopt)),
            default="on",
            show_default=True,
            help="Share one video among products with equal requests; ask: not if price, size or link differ.",
        ),
        click.option("--part", help="The part of the catalog that the feed is; nothing is gone from other parts."),
        click.option(
            "--only",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Plan only the products in FILE: a selection from `ugen feed preview`, or one id a line.",
        ),
        click.option("--supplemental", is_flag=True, help="The feed adds to another one; nothing is gone."),
        click.option("--pictures-by-content", is_flag=True, help="Read each picture: a new address is no change."),
        click.option(
            "--regenerate", multiple=True, metavar="PRODUCT", help="Buy another video of this product, once per run."
        ),
        click.option(
            "--duplicates",
            type=click.Choice(get_args(Duplicates)),
            default="first",
            show_default=True,
            help="Which row of two with one id is used.",
        ),
        click.option("--newest-mapping", is_flag=True, help="Use this version's default mapping from now on."),
    )
    names = tuple(PlanningOptions.__dataclass_fields__)

    def called(*args: Any, **given: Any) -> Any:
        planning = PlanningOptions(**{name: given.pop(name) for name in names})
        return function(*args, planning=planning, **given)

    called.__dict__.update(function.__dict__)
    called.__name__, called.__doc__ = function.__name__, function.__doc__
    return reduce(lambda made, option: option(made), reversed(options), called)


def feed_source(feed: Sequence[str]) -> FeedSource:
    """Return the feed that a command's arguments name; `-` is the standard input."""
    if list(feed) == ["-"]:
        return cast("FeedSource", sys.stdin.buffer)
    return feed[0] if len(feed) == 1 else list(feed)
