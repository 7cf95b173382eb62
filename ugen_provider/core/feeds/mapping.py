# SPDX-License-Identifier: Apache-2.0
"""What a feed's columns become in a create-job request, as a value that can be written down. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from string import Formatter
from types import MappingProxyType
from typing import Any, Self

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError
from ugen_provider.core.feeds.columns import Kind, canonical
from ugen_provider.core.feeds.errors import MappingError
from ugen_provider.core.feeds.filters import Filter, parse_filter

_LARGEST_FILE = 1 << 20
FROM_FEED = ("product_name", "product_image_url")
"""Fields that no constant can be right for."""
_SECTIONS = ("columns", "templates", "constants", "filters", "categories")
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class FeedMapping:
    """Which columns a request is made of, by their canonical names.

    For one field, a template goes before a column, a column before a category's default, that before a constant, and
    a constant before the caller's `job_defaults`; what yields nothing is passed over. `product_name` and
    `product_image_url` always come from the feed.

    Attributes:
        columns: Per field the columns to take it from; the first that is filled counts.
        prose: Columns whose first sentences become `key_selling_points` where nothing else gives any.
        templates: Per field a text with column names in braces; one with an empty column yields nothing.
        constants: Fields that are the same for all products.
        filters: Rules that a product must pass; one that does not is skipped.
        categories: Fields for products whose category begins with a text; the longest that fits counts.
        version: The number of a default mapping; None for one that a user wrote.
        kind: Whose names of columns it uses.
        named: The columns that the user named, by their canonical names.
        written: The sections as the user wrote them, from which it can be made for another kind of feed.
    """

    columns: Mapping[str, tuple[str, ...]]
    prose: tuple[str, ...] = ("description",)
    templates: Mapping[str, str] = field(default_factory=lambda: _NONE)
    constants: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    filters: tuple[Filter, ...] = ()
    categories: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _NONE)
    version: int | None = None
    kind: Kind = "google"
    named: frozenset[str] = frozenset()
    written: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def default(cls, kind: Kind = "google", *, version: int | None = None) -> FeedMapping:
        """The mapping for a kind of feed where the user wrote none.

        The ledger pins the version, so that a better default in a later release buys nothing by itself.

        Args:
            kind: Whose rules the feed follows.
            version: Of the defaults; the newest where not given.

        Raises:
            ConfigError: This release does not know the version.
        """
        made = DEFAULTS.get(CURRENT_VERSION if version is None else version)
        if made is None:
            raise ConfigError(f"default mapping {version} is unknown: a newer version of ugen-provider wrote it")
        return made.get(kind) or made["google"]

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, kind: Kind = "google") -> Self:
        """Read a mapping file.

        Args:
            path: A YAML file with any of `columns`, `templates`, `constants`, `filters`, `categories`.
            kind: Whose default it stands on, for the fields that it does not name. Reading a feed takes the kind that
                is found in it instead (`for_kind`).

        Raises:
            MappingError: It cannot be read, or names what does not exist; it says where.
        """
        import yaml

        try:
            text = Path(path).read_text("utf-8")
            if len(text) > _LARGEST_FILE:
                raise MappingError(f"mapping {path} is larger than {_LARGEST_FILE:,} characters")
            read = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise MappingError(f"mapping {path} cannot be read: {error}") from None
        try:
            return cls.from_dict(read, kind=kind)
        except MappingError as error:
            raise MappingError(f"mapping {path}: {error}") from None

    @classmethod
    def from_dict(cls, written: Any, *, kind: Kind = "google", version: int | None = None) -> Self:
        """Read a mapping as YAML or JSON gives it.

        Args:
            written: The sections of the file. Its filters are added to those of the default, except where they name
                the same column.
            kind: Whose default it stands on, for the fields that it does not name.
            version: Of that default; the newest where not given.

        Raises:
            MappingError: It names what does not exist; it says where.

        Examples:
            >>> FeedMapping.from_dict({"columns": {"product_name": "seo title"}}).columns["product_name"]
            ('seo_title',)
        """
        sections = _section(written or {}, "the mapping")
        if unknown := sorted(set(sections) - set(_SECTIONS)):
            raise MappingError(f"{', '.join(unknown)}: is no section; there are {', '.join(_SECTIONS)}")
        base = cls.default(kind, version=version)
        columns = {
            name: _columns(name, value, kind) for name, value in _section(sections.get("columns"), "columns").items()
        }
        templates = _section(sections.get("templates"), "templates")
        in_templates = {
            column for name, text in templates.items() for _, column in template_parts(name, text, kind=kind) if column
        }
        constants = _section(sections.get("constants"), "constants")
        categories = {
            str(prefix): _section(values, f"categories.{prefix}")
            for prefix, values in _section(sections.get("categories"), "categories").items()
        }
        rules_ = sections.get("filters") or []
        if not isinstance(rules_, list):
            raise MappingError("filters: must be a list of rules")
        filters = tuple(parse_filter(str(rule), kind=kind) for rule in rules_)
        filtered = {wanted.column for wanted in filters}
        made = cls(
            columns={**base.columns, **columns},
            prose=base.prose,
            templates=templates,
            constants=constants,
            filters=(*filters, *(wanted for wanted in base.filters if wanted.column not in filtered)),
            categories=categories,
            kind=kind,
            named=frozenset({*chain.from_iterable(columns.values()), *in_templates, *filtered} - {"category"}),
            written=sections,
        )
        made.check()
        return made

    def for_kind(self, kind: Kind, *, version: int | None = None) -> FeedMapping:
        """The same mapping for the kind of feed that was found, on that kind's default.

        Shops name the same column differently, and the default of one kind keeps out what no other has, such as
        Shopify's drafts.

        Args:
            kind: Whose rules the feed follows.
            version: Of the default for what it does not name; the newest where not given.
        """
        return self if self.written is None else FeedMapping.from_dict(self.written, kind=kind, version=version)

    def check(self) -> None:
        """Refuse what would make every product's request wrong.

        Raises:
            MappingError: It names the field and the rule.
        """
        for section, names in (("columns", self.columns), ("templates", self.templates)):
            if unknown := sorted(set(names) - set(rules.BY_NAME)):
                raise MappingError(f"{section}: {', '.join(unknown)} is not a field of POST /jobs")
        fixed = [("constants", self.constants)]
        fixed += [(f"categories.{prefix}", values) for prefix, values in self.categories.items()]
        for section, values in fixed:
            if ours := next((name for name in FROM_FEED if name in values), None):
                message = f"{section}: {ours} comes from the feed; `columns` and `templates` say from which columns"
                raise MappingError(message)
            if violations := rules.check(values, partial=True):
                raise MappingError(f"{section}: {InvalidRequestError(violations)}")

    def without_filters(self) -> FeedMapping:
        """The same mapping for every product."""
        return replace(self, filters=())


def template_parts(name: str, text: Any, *, kind: Kind = "google") -> tuple[tuple[str, str | None], ...]:
    """A template as pairs of the text before a column, and the column.

    Args:
        name: The field that it is for.
        text: The template.
        kind: Whose names of columns it may use.

    Raises:
        MappingError: It is no template, or does more than name columns.

    Examples:
        >>> template_parts("cta_text", "Get {Brand Name} now")
        (('Get ', 'brand_name'), (' now', None))
    """
    if not isinstance(text, str):
        raise MappingError(f"templates.{name}: must be a text")
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise MappingError(f"templates.{name}: {error}") from None
    for _, column, form, conversion in parts:
        if column is not None and (form or conversion or not column.replace(" ", "_").isidentifier()):
            raise MappingError(f"templates.{name}: {{{column}}} must be the name of a column and nothing more")
    return tuple(
        (before, canonical(column, kind=kind)[0] if column is not None else None) for before, column, _, _ in parts
    )


def _section(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise MappingError(f"{name}: must be a mapping of names")
    return value


def _columns(name: str, value: Any, kind: Kind) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(column, str) and column.strip() for column in names):
        raise MappingError(f"columns.{name}: must be a column or a list of columns")
    return tuple(canonical(column, kind=kind)[0] for column in names)


_GOOGLE_1 = FeedMapping(
    columns={
        "product_name": ("title",),
        "product_image_url": ("image_link", "additional_image_link"),
        "key_selling_points": ("product_highlight",),
    },
    version=1,
)
CURRENT_VERSION = 1
"""The newest version of the default mappings."""
DEFAULTS: dict[int, Mapping[Kind, FeedMapping]] = {
    1: {
        "google": _GOOGLE_1,
        "meta": _GOOGLE_1,
        "openai": _GOOGLE_1,
        "shopify": replace(_GOOGLE_1, kind="shopify", filters=(Filter("status", "not in", "draft, archived"),)),
    }
}
"""All default mappings that were ever released: a version never changes once it was."""
