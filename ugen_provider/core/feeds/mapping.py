# SPDX-License-Identifier: Apache-2.0
"""How the columns of a feed become products and requests, as a value that a file can hold. Pure."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from types import MappingProxyType
from typing import Any, Literal, Self, cast, get_args

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError
from ugen_provider.core.feeds.errors import MappingError
from ugen_provider.core.feeds.filters import Filter, Rule, column_keys, parse_rules
from ugen_provider.core.feeds.layouts import Kind, canonical, plain_name
from ugen_provider.core.feeds.pictures import DEFAULT as PICTURES
from ugen_provider.core.feeds.pictures import WIX, PictureRules
from ugen_provider.core.ledger import record as ledger_record

_CASES: Mapping[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
    "sentence": lambda text: text[:1].upper() + text[1:].lower(),
}
_KNOWN = ("map", "replace", "case", "truncate")


@dataclass(frozen=True, slots=True)
class ValueRule:
    """How the values of one column change, in this order.

    Attributes:
        map: A whole value and its replacement, compared without case.
        replace: Regular expressions and their replacements.
        case: `lower`, `upper`, `title` or `sentence`.
        truncate: Characters at most, cut between two words where that is possible.
    """

    map: Mapping[str, str] = field(default_factory=dict)
    replace: tuple[tuple[re.Pattern[str], str], ...] = ()
    case: str | None = None
    truncate: int | None = None

    def __call__(self, text: str) -> str:
        """Return the changed value.

        Examples:
            >>> ValueRule(map={"ja": "in stock"})("Ja"), ValueRule(truncate=7)("Desk lamp")
            ('in stock', 'Desk')
        """
        text = self.map.get(" ".join(text.casefold().split()), text)
        for pattern, replacement in self.replace:
            text = pattern.sub(replacement, text)
        if self.case is not None:
            text = _CASES[self.case](text)
        if self.truncate is not None and len(text) > self.truncate:
            cut = text[: self.truncate + 1].rfind(" ")
            text = text[: cut if cut > 0 else self.truncate].rstrip(" ,;:-")
        return text


def parse_value_rules(written: Any, *, kind: Kind = "google") -> dict[str, ValueRule]:
    """Read the section `values`: per column any of `map`, `replace`, `case` and `truncate`.

    Raises:
        MappingError: It names a rule that does not exist, or a rule has the wrong form.
    """
    if written is None:
        return {}
    if not isinstance(written, dict):
        raise MappingError("values: must be a mapping of columns")
    return {_key(str(column), kind): _rule(str(column), rule) for column, rule in written.items()}


def _key(column: str, kind: Kind) -> str:
    own = plain_name(column)
    meant, _ = canonical(column, kind=kind)
    return own if meant == "id" else meant


def _rule(column: str, written: Any) -> ValueRule:
    where = f"values.{column}"
    if not isinstance(written, dict) or set(written) - set(_KNOWN):
        raise MappingError(f"{where}: must have any of {', '.join(_KNOWN)}")
    mapped, replaced = written.get("map") or {}, written.get("replace") or {}
    if not isinstance(mapped, dict) or not isinstance(replaced, dict):
        raise MappingError(f"{where}: map and replace must be mappings of one text to another")
    case, truncate = written.get("case"), written.get("truncate")
    if case is not None and case not in _CASES:
        raise MappingError(f"{where}.case: must be one of {', '.join(_CASES)}")
    if truncate is not None and (not isinstance(truncate, int) or isinstance(truncate, bool) or truncate < 1):
        raise MappingError(f"{where}.truncate: must be a whole number of at least 1")
    try:
        patterns = tuple((re.compile(str(old)), str(new)) for old, new in replaced.items())
        for pattern, new in patterns:
            pattern.sub(new, "")
    except (re.error, IndexError) as error:
        raise MappingError(f"{where}.replace: {error}") from None
    return ValueRule(
        map={" ".join(_written(old).casefold().split()): _written(new) for old, new in mapped.items()},
        replace=patterns,
        case=case,
        truncate=truncate,
    )


def _written(value: Any) -> str:
    """Return a YAML value as the text that its author meant; YAML reads `yes` and `no` as true and false."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


GroupBy = Literal["item_group_id", "picture", "none"]
"""Which products share one video."""

_LARGEST_FILE = 1 << 20
_LONGEST_PART = 100
_VARIANT_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")
_LARGEST_TABLE = 64 << 20
FROM_FEED = ("product_name", "product_image_url")
"""Fields that no constant can be right for."""
_SECTIONS = (
    *("id", "title", "group_by", "for_sale", "clean", "pictures", "columns", "values", "templates", "constants"),
    *("lookup", "categories", "filters", "order_by", "limit", "shares", "ignore_changes", "suggest", "variants"),
    "part",
)
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SortKey:
    """One column of `order_by`, with its direction."""

    columns: tuple[str, ...]
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Lookup:
    """A table that gives a field its value by a column: one entry of the section `lookup`.

    Attributes:
        by: The column, under the names at which it may be found.
        values: The result for each of its values, in lower case.
        default: The result for any other value; None for no result.
    """

    by: tuple[str, ...]
    values: Mapping[str, Any]
    default: Any = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant of every product: one entry of the section `variants`.

    Its fields take precedence over the rest of the mapping.

    Attributes:
        name: Part of the order: a product in this variant is an order of its own.
        fields: Fields of the request.
        categories: Fields for products whose category begins with a text; the longest that fits counts.
        lookups: Per field a table that gives it its value.
        when: Rules that a product must fulfil to get this look.
    """

    name: str
    fields: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    categories: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _NONE)
    lookups: Mapping[str, Lookup] = field(default_factory=lambda: _NONE)
    when: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Cleaning:
    """Which texts are cleaned of markup, entities and null words: the section `clean`."""

    names: bool = True
    points: bool = True


@dataclass(frozen=True, slots=True)
class FeedMapping:
    """Which columns products and requests are made of, by their canonical names.

    For one field, a lookup goes before a template, a template before a column, a column before a category's default,
    that before a constant, and a constant before the caller's `job_defaults`; one that yields nothing is ignored.
    `product_name` and `product_image_url` always come from the feed.

    Attributes:
        columns: Per field the columns to take it from; the first that is filled counts.
        prose: Columns whose first sentences become `key_selling_points` where nothing else gives any.
        templates: Per field a text with column names in braces; one with an empty column yields nothing.
        constants: Fields that are the same for all products.
        filters: Rules that a product must fulfil; one that does not is skipped.
        categories: Fields for products whose category begins with a text; the longest that fits counts.
        id: The columns of the product id; the first that is filled counts.
        id_template: The product id as a text with column names in braces, in place of `id`.
        for_sale: Rules that a product must fulfil to count as on sale; None for those of the kind of feed.
        group_by: Which products share one video.
        order_by: The order in which products are bought; empty for that of the feed.
        limit: Products that are ordered at most.
        shares: Per beginning of a category the share of `limit`, 0 to 1, that its products may have.
        lookups: Per field a table that gives it its value.
        values: Rules that change the values of columns before anything else reads them.
        pictures: How addresses of pictures are read.
        clean: Which texts are cleaned.
        ignore_changes: Fields of the request whose change alone makes no new video.
        suggest: Fields that the service suggests, before a purchase, for products that lack them.
        variants: The variants in which every product is ordered; empty for one that has no name.
        part: The part of the catalog that the feed is; what a feed lacks is gone from its own part alone.
        version: The number of a default mapping; None for one that a user wrote.
        kind: Whose names of columns it uses.
        named: The columns that the user named, by their own names.
        written: The sections as the user wrote them, from which it can be made for another kind of feed.
        folder: The folder of the mapping file, from which tables of `lookup` are read.
    """

    columns: Mapping[str, tuple[str, ...]]
    prose: tuple[str, ...] = ("description",)
    templates: Mapping[str, str] = field(default_factory=lambda: _NONE)
    constants: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    filters: tuple[Rule, ...] = ()
    categories: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _NONE)
    id: tuple[str, ...] = ("id",)
    id_template: str | None = None
    for_sale: tuple[Rule, ...] | None = None
    group_by: GroupBy = "none"
    order_by: tuple[SortKey, ...] = ()
    limit: int | None = None
    shares: Mapping[str, float] = field(default_factory=lambda: _NONE)
    lookups: Mapping[str, Lookup] = field(default_factory=lambda: _NONE)
    values: Mapping[str, ValueRule] = field(default_factory=lambda: _NONE)
    pictures: PictureRules = PICTURES
    clean: Cleaning = field(default_factory=Cleaning)
    ignore_changes: tuple[str, ...] = ()
    suggest: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    part: str = ""
    version: int | None = None
    kind: Kind = "google"
    named: frozenset[str] = frozenset()
    written: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    folder: str | None = field(default=None, repr=False, compare=False)

    @classmethod
    def default(cls, kind: Kind = "google", *, version: int | None = None) -> FeedMapping:
        """Return the mapping for a kind of feed where the user wrote none.

        The ledger pins the version, so that a better default in a later release buys nothing by itself.

        Args:
            kind: Whose rules the feed follows.
            version: Of the defaults; the newest where not given.

        Raises:
            ConfigError: This release does not know the version.
        """
        made = DEFAULTS.get(ledger_record.CURRENT_MAPPING_VERSION if version is None else version)
        if made is None:
            raise ConfigError(f"default mapping {version} is unknown: a newer version of ugen-provider wrote it")
        return made.get(kind) or replace(made["google"], kind=kind)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, kind: Kind = "google") -> Self:
        """Read a mapping file and check it.

        Args:
            path: A YAML file with any of the sections.
            kind: Whose default it extends, for the fields that it does not name. Reading a feed takes the kind that
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
            return cls.from_dict(read, kind=kind, folder=str(Path(path).parent))
        except MappingError as error:
            raise MappingError(f"mapping {path}: {error}") from None

    @classmethod
    def from_dict(
        cls, written: Any, *, kind: Kind = "google", version: int | None = None, folder: str | None = None
    ) -> Self:
        """Read a mapping as YAML or JSON gives it.

        Args:
            written: The sections of the file.
            kind: Whose default it extends, for the fields that it does not name.
            version: Of that default; the newest where not given.
            folder: Where tables that `lookup` names are.

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
            name: _columns(f"columns.{name}", value, kind)
            for name, value in _section(sections.get("columns"), "columns").items()
        }
        templates = dict(_section(sections.get("templates"), "templates"))
        _add_title(sections.get("title"), columns, templates, kind)
        in_templates = {
            column
            for name, text in templates.items()
            for _, keys in template_parts(f"templates.{name}", text, kind=kind)
            for column in keys
        }
        ids, id_template = _identity(sections.get("id"), kind)
        if id_template is not None:
            in_templates |= {key for _, keys in template_parts("id", id_template, kind=kind) for key in keys}
        filters = parse_rules(sections.get("filters") or [], section="filters", kind=kind)
        for_sale = sections.get("for_sale")
        on_sale = parse_rules(for_sale, section="for_sale", kind=kind) if for_sale is not None else None
        order_by = _order(sections.get("order_by"), kind)
        lookups = {
            name: _lookup(name, value, kind, folder)
            for name, value in _section(sections.get("lookup"), "lookup").items()
        }
        changed = parse_value_rules(sections.get("values"), kind=kind)
        variants = _variants(sections.get("variants"), kind, folder)
        conditions = [rule for variant in variants for rule in variant.when]
        rules_columns = {column for rule in (*filters, *(on_sale or ()), *conditions) for column in rule.columns()}
        named = {
            *(keys[0] for name, value in _section(sections.get("columns"), "columns").items()
              for keys in _each_column(f"columns.{name}", value, kind)),
            *(key for key in in_templates),
            *rules_columns,
            *ids,
            *(lookup.by[0] for lookup in lookups.values()),
            *(lookup.by[0] for variant in variants for lookup in variant.lookups.values()),
            *(key.columns[0] for key in order_by),
            *changed,
        }  # fmt: skip
        if isinstance(sections.get("title"), str | list) and "product_name" in columns:
            named |= {columns["product_name"][0]}
        made = cls(
            columns={**base.columns, **columns},
            prose=base.prose,
            templates=templates,
            constants=_section(sections.get("constants"), "constants"),
            filters=filters,
            categories={
                str(prefix): _section(values, f"categories.{prefix}")
                for prefix, values in _section(sections.get("categories"), "categories").items()
            },
            id=ids or base.id,
            id_template=id_template,
            for_sale=_for_sale(on_sale, base, filters),
            group_by=_group_by(sections.get("group_by")),
            order_by=order_by,
            limit=_limit(sections.get("limit")),
            shares=_shares(sections.get("shares"), sections.get("limit")),
            lookups=lookups,
            values=changed,
            pictures=_pictures(sections.get("pictures"), base.pictures),
            clean=_clean(sections.get("clean")),
            ignore_changes=_ignored(sections.get("ignore_changes")),
            suggest=_suggested(sections.get("suggest")),
            variants=variants,
            part=_part(sections.get("part")),
            kind=kind,
            named=frozenset(named - {"category", "id"}),
            written=sections,
            folder=folder,
        )
        made.check()
        return made

    def for_kind(self, kind: Kind, *, version: int | None = None) -> FeedMapping:
        """Return the same mapping for the kind of feed that was found, on that kind's default.

        Shops name the same column differently, and the default of one kind leaves out what no other has, such as
        Shopify's drafts.

        Args:
            kind: Whose rules the feed follows.
            version: Of the default for what it does not name; the newest where not given.
        """
        if self.written is None:
            return self
        made = FeedMapping.from_dict(self.written, kind=kind, version=version, folder=self.folder)
        return replace(made, group_by=self.group_by, limit=self.limit)

    def check(self) -> None:
        """Refuse what would make every product's request wrong.

        Raises:
            MappingError: It names the field and the rule.
        """
        fields = (
            ("columns", self.columns),
            ("templates", self.templates),
            ("lookup", self.lookups),
            ("ignore_changes", self.ignore_changes),
        )
        for section, names in fields:
            if unknown := sorted(set(names) - set(rules.BY_NAME)):
                raise MappingError(f"{section}: {', '.join(unknown)} is not a field of POST /jobs")
        fixed = [("constants", self.constants)]
        fixed += [(f"categories.{prefix}", values) for prefix, values in self.categories.items()]
        tables = [(f"lookup.{name}", name, lookup) for name, lookup in self.lookups.items()]
        for variant in self.variants:
            where = f"variants.{variant.name}"
            fixed += [(where, variant.fields)]
            fixed += [(f"{where}.categories.{prefix}", values) for prefix, values in variant.categories.items()]
            tables += [(f"{where}.lookup.{name}", name, lookup) for name, lookup in variant.lookups.items()]
            if unknown := sorted({*variant.fields, *variant.lookups} - set(rules.BY_NAME)):
                raise MappingError(f"{where}: {', '.join(unknown)} is not a field of POST /jobs")
        for section, values in fixed:
            if ours := next((name for name in FROM_FEED if name in values), None):
                message = f"{section}: {ours} comes from the feed; `columns` and `templates` say from which columns"
                raise MappingError(message)
            if violations := rules.check(values, partial=True):
                raise MappingError(f"{section}: {InvalidRequestError(violations)}")
        for where, name, lookup in tables:
            for result in (*lookup.values.values(), lookup.default):
                if result is not None and (broken := rules.check({name: result}, partial=True)):
                    raise MappingError(f"{where}: {InvalidRequestError(broken)}")

    def require_no_suggestions(self) -> None:
        """Refuse `suggest`, where a request is made without a feed run, which alone asks for suggestions.

        Raises:
            MappingError: It names fields; without them the request would have a hole.
        """
        if self.suggest:
            raise MappingError("suggest: works in feed runs alone; leave it out, or order by a feed run")

    def for_variant(self, variant: Variant) -> FeedMapping:
        """Return the mapping of one variant, whose fields take precedence over everything else."""
        named = {*variant.fields, *variant.lookups}
        by_category = {name for values in variant.categories.values() for name in values}

        def others(table: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in table.items() if name not in named | by_category}

        categories = {prefix: others(values) for prefix, values in self.categories.items()}
        for prefix, values in variant.categories.items():
            categories[prefix] = {**categories.get(prefix, {}), **values}
        return replace(
            self,
            columns={name: keys for name, keys in self.columns.items() if name in FROM_FEED or name not in named},
            templates=others(self.templates),
            lookups={**others(self.lookups), **variant.lookups},
            categories={prefix: values for prefix, values in categories.items() if values},
            constants={**self.constants, **variant.fields},
            filters=(*self.filters, *variant.when),
            variants=(),
        )

    @property
    def selects(self) -> bool:
        """Whether orders depend on more than their own row: grouped, sorted or limited."""
        return self.group_by != "none" or bool(self.order_by) or self.limit is not None


def template_parts(where: str, text: Any, *, kind: Kind = "google") -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return a template as pairs of the text before a column, and the names of the column.

    Args:
        where: The section that it is in, for messages.
        text: The template.
        kind: Whose names of columns it may use.

    Raises:
        MappingError: It is no template, or does more than name columns.

    Examples:
        >>> template_parts("templates.cta_text", "Get {Brand Name} now")
        (('Get ', ('brand_name', 'brand')), (' now', ()))
    """
    if not isinstance(text, str):
        raise MappingError(f"{where}: must be a text")
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise MappingError(f"{where}: {error}") from None
    for _, column, form, conversion in parts:
        if column is not None and (form or conversion or not _is_column(column)):
            raise MappingError(f"{where}: {{{column}}} must be the name of a column and nothing more")
    return tuple(
        (before, column_keys(column, kind=kind) if column is not None else ()) for before, column, _, _ in parts
    )


def _is_column(name: str) -> bool:
    bare = "".join("_" if character in " -()" else character for character in name)
    return bare.isidentifier()


def _section(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str | int | float) for key in value):
        raise MappingError(f"{name}: must be a mapping of names")
    return {str(key): one for key, one in value.items()}


def _each_column(where: str, value: Any, kind: Kind) -> list[tuple[str, ...]]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(column, str) and column.strip() for column in names):
        raise MappingError(f"{where}: must be a column or a list of columns")
    return [column_keys(column, kind=kind) for column in names]


def _columns(where: str, value: Any, kind: Kind) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for keys in _each_column(where, value, kind) for key in keys))


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and "{" in value


def _add_title(value: Any, columns: dict[str, tuple[str, ...]], templates: dict[str, Any], kind: Kind) -> None:
    if value is None:
        return
    if "product_name" in columns or "product_name" in templates:
        raise MappingError("title: columns or templates name `product_name` already; keep one of the two")
    if _is_template(value):
        templates["product_name"] = value
    else:
        columns["product_name"] = _columns("title", value, kind)


def _identity(value: Any, kind: Kind) -> tuple[tuple[str, ...], str | None]:
    """Return the columns of the id, by their own names alone: an id from another column would be another product."""
    if value is None:
        return (), None
    if _is_template(value):
        template_parts("id", value, kind=kind)
        return (), value
    return tuple(keys[0] for keys in _each_column("id", value, kind)), None


def _for_sale(own: tuple[Rule, ...] | None, base: FeedMapping, filters: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return the user's rules, else those of the default; a filter of the user's replaces the default of its column."""
    if own is not None:
        return own
    filtered = {column for rule in filters for column in rule.columns()}
    return tuple(rule for rule in base.for_sale or () if not filtered.intersection(rule.columns()))


def _group_by(value: Any) -> GroupBy:
    if value is None or value is False:
        return "none"
    if value not in get_args(GroupBy):
        raise MappingError(f"group_by: must be one of {', '.join(get_args(GroupBy))}, got {value!r}")
    return cast("GroupBy", value)


def _order(value: Any, kind: Kind) -> tuple[SortKey, ...]:
    if value is None:
        return ()
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) and entry.strip() for entry in entries):
        raise MappingError("order_by: must be a column or a list of columns, each optionally with `desc`")
    keys = []
    for entry in entries:
        *words, last = entry.split()
        direction = last.lower() if words and last.lower() in {"asc", "ascending", "desc", "descending"} else ""
        name = " ".join(words) if direction else entry
        keys.append(SortKey(column_keys(name, kind=kind), descending=direction.startswith("desc")))
    return tuple(keys)


def _limit(value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise MappingError(f"limit: must be a whole number of at least 1, got {value!r}")
    return value


def _shares(value: Any, limit: Any) -> dict[str, float]:
    section = _section(value, "shares")
    if section and limit is None:
        raise MappingError("shares: need `limit`, of which each is a share")
    for category, share in section.items():
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1:
            raise MappingError(f"shares.{category}: must be more than 0 and at most 1, got {share!r}")
    return section


def _part(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_PART:
        raise MappingError(f"part: must be a name of at most {_LONGEST_PART} characters")
    return value.strip()


def _variants(value: Any, kind: Kind, folder: str | None) -> tuple[Variant, ...]:
    made = []
    for name, written in _section(value, "variants").items():
        if not _VARIANT_NAME.fullmatch(name):
            raise MappingError(f"variants.{name}: a name has up to 50 letters, digits, `-` and `_`")
        section = _section(written, f"variants.{name}")
        where = f"variants.{name}"
        lookups = _section(section.pop("lookup", None), f"{where}.lookup")
        categories = _section(section.pop("categories", None), f"{where}.categories")
        when = section.pop("when", None)
        made.append(
            Variant(
                name,
                fields=section,
                categories={
                    prefix: _section(values, f"{where}.categories.{prefix}") for prefix, values in categories.items()
                },
                lookups={field: _lookup(field, table, kind, folder) for field, table in lookups.items()},
                when=parse_rules(when, section=f"{where}.when", kind=kind) if when is not None else (),
            )
        )
    return tuple(made)


def _ignored(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(name, str) for name in names):
        raise MappingError("ignore_changes: must be a list of fields")
    if ours := next((name for name in names if name in FROM_FEED), None):
        raise MappingError(f"ignore_changes: {ours} is what the video shows; its change always makes a new one")
    return tuple(names)


SUGGESTED = ("custom_script", "key_selling_points", "cta_text", "environment_description")
"""Fields that `POST /jobs/suggest-fields` answers."""


def _suggested(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [] if value is None else [value]
    if unknown := [name for name in names if name not in SUGGESTED]:
        raise MappingError(f"suggest: {unknown[0]!r} is not suggested by the service; {', '.join(SUGGESTED)} are")
    return tuple(names)


def _pictures(value: Any, base: PictureRules) -> PictureRules:
    section = _section(value, "pictures")
    known = {"base": str, "split": str, "encode": bool, "roots": list}
    if unknown := sorted(set(section) - set(known)):
        raise MappingError(f"pictures: {', '.join(unknown)} is unknown; there are {', '.join(known)}")
    for name, kind in known.items():
        if name in section and not isinstance(section[name], kind):
            raise MappingError(
                f"pictures.{name}: must be {'a list' if kind is list else 'text' if kind is str else 'true or false'}"
            )
    return PictureRules(
        base=section.get("base", base.base),
        split=section.get("split", base.split),
        encode=section.get("encode", base.encode),
        roots=tuple(map(str, section.get("roots", base.roots))),
    )


def _clean(value: Any) -> Cleaning:
    if value is None or isinstance(value, bool):
        return Cleaning(names=value is not False, points=value is not False)
    section = _section(value, "clean")
    if set(section) - {"names", "points"} or not all(isinstance(one, bool) for one in section.values()):
        raise MappingError("clean: must be true or false, or one of both for `names` and `points`")
    return Cleaning(names=section.get("names", True), points=section.get("points", True))


def _lookup(name: str, value: Any, kind: Kind, folder: str | None) -> Lookup:
    section = _section(value, f"lookup.{name}")
    known = {"by", "values", "file", "key", "value", "default"}
    if unknown := sorted(set(section) - known):
        raise MappingError(f"lookup.{name}: {', '.join(unknown)} is unknown; there are by, values, file, default")
    if not isinstance(section.get("by"), str) or ("values" in section) == ("file" in section):
        raise MappingError(f"lookup.{name}: must name a column in `by`, and a table in either `values` or `file`")
    written = section.get("values")
    table = _table(name, section, folder) if "file" in section else _section(written, f"lookup.{name}.values")
    read = {_looked_up(key): result for key, result in table.items()}
    by = section["by"]
    return Lookup(("id",) if plain_name(by) == "id" else column_keys(by, kind=kind), read, section.get("default"))


def _table(name: str, section: Mapping[str, Any], folder: str | None) -> dict[str, Any]:
    path = Path(folder or ".") / str(section["file"])
    try:
        if path.stat().st_size > _LARGEST_TABLE:
            raise MappingError(f"lookup.{name}: {path} is larger than {_LARGEST_TABLE:,} bytes")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            key, value = section.get("key"), section.get("value")
            names = list(rows.fieldnames or ())
            key, value = key or next(iter(names), None), value or next(iter(names[1:]), None)
            if key not in names or value not in names:
                raise MappingError(f"lookup.{name}: {path} has no columns {key} and {value}; it has {', '.join(names)}")
            found = {row[key]: row[value] for row in rows if row[key] and row[value]}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MappingError(f"lookup.{name}: {path} cannot be read: {error}") from None
    return {key: rules.coerce({name: result}).get(name, result) for key, result in found.items()}


def _looked_up(text: str) -> str:
    return " ".join(text.casefold().split())


# ruff: noqa: RUF001  words of shops are in all alphabets
_FALSE = (
    "false, 0, no, n, off, nein, non, falsch, faux, falso, nee, onwaar, nie, fałsz, ne, nepravda, nej, nei, ei, não, "
    "нет, ложь, いいえ, 否, 아니요, hayır"
)
_ON = (
    *("published", "is_published", "publish", "online_store_published", "visible", "is_visible", "product_visible"),
    *(
        "visible_individually",
        "active",
        "is_active",
        "enabled",
        "is_enabled",
        "online",
        "is_online",
        "aktiv",
        "for_sale",
    ),
    *("is_for_sale", "sellable", "purchasable", "available_for_order", "show_online", "is_eligible_search"),
    *("eligible_search", "enable_search", "published_on_current_publication"),
)
_OFF = ("archived", "is_archived", "deleted", "is_deleted", "hidden", "is_hidden", "draft", "is_draft", "discontinued",
        "is_discontinued", "disabled", "is_disabled")  # fmt: skip
_NOT_SOLD = (
    "draft, archived, private, pending, trash, trashed, unpublished, inactive, disabled, deleted, hidden, auto-draft, "
    "autodraft, future, unlisted, not approved, disapproved, suspended, discontinued, 0, false, "
    "inaktiv, entwurf, archiviert, brouillon, archivé, inactif, borrador, archivado, inactivo, bozza, archiviato, "
    "inattivo, rascunho, arquivado, inativo, concept, gearchiveerd, inactief, szkic, zarchiwizowany, nieaktywny, "
    "koncept, archivováno, utkast, kladde, luonnos, черновик, 下書き, アーカイブ, 非公開, 草稿, 임시저장, taslak"
)
_FOR_SALE: tuple[Rule, ...] = (
    Filter("status", "not in", _NOT_SOLD),
    Filter("product_status", "not in", _NOT_SOLD),
    *(Filter(column, "not in", f"{_FALSE}, -1") for column in _ON),
    *(Filter(column, "not in", "true, 1, yes, on, ja") for column in _OFF),
    *(
        Filter(column, "not in", f"{_FALSE}, hidden, staging, none, private, draft, not visible individually")
        for column in ("visibility", "visibility_in_catalog", "catalog_visibility")
    ),
    Filter("product_online", "not in", f"{_FALSE}, 2"),
    Filter("update_delete", "not in", "delete"),
    Filter("record_action", "not in", "delete"),
    Filter("command", "not in", "delete, ignore"),
)
"""Drafts, archived, hidden and unpublished products of every known shop, by the words of its own columns."""

_NOT_OFFERED = Filter("availability", "not in", "disabled, archived, discontinued, hidden")

_PICTURES = ("image_link", "image_link[2]", "image_link[3]", "additional_image_link", "additional_image_link[2]")
_GOOGLE_1 = FeedMapping(
    columns={
        "product_name": ("title", "title[2]"),
        "product_image_url": _PICTURES,
        "key_selling_points": ("product_highlight",),
    },
    for_sale=_FOR_SALE,
    version=1,
)
DEFAULTS: dict[int, Mapping[Kind, FeedMapping]] = {
    1: {
        "google": _GOOGLE_1,
        "shopify": replace(_GOOGLE_1, kind="shopify"),
        "magento": replace(
            _GOOGLE_1,
            kind="magento",
            for_sale=(*_FOR_SALE, Filter("visibility", "!=", "1"), Filter("status", "!=", "2")),
        ),
        "wix": replace(_GOOGLE_1, kind="wix", pictures=WIX),
        "bigcommerce": replace(_GOOGLE_1, kind="bigcommerce", for_sale=(*_FOR_SALE, _NOT_OFFERED)),
        "schema_org": replace(_GOOGLE_1, kind="schema_org", for_sale=(*_FOR_SALE, _NOT_OFFERED)),
    }
}
"""All default mappings that were ever released: a version never changes once it was."""
