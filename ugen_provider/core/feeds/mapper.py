# SPDX-License-Identifier: Apache-2.0
"""From products to orders: one mapping, made ready to be applied to a million products, and the plan of a feed.

Which products are ordered, and in which order (`group_by`, `order_by`, `limit`, `shares`), takes constant memory.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError
from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.filters import Rule, number_in
from ugen_provider.core.feeds.layouts import Kind
from ugen_provider.core.feeds.mapping import FROM_FEED, FeedMapping, Lookup, SortKey, template_parts
from ugen_provider.core.feeds.pictures import PICTURE_FILE, addresses_in, is_http, is_surely_http, whole_address
from ugen_provider.core.feeds.plain_text import (
    MOST_POINTS,
    cleaned,
    is_plain_point,
    one_line,
    points_of_phrase,
    points_of_prose,
)
from ugen_provider.core.feeds.products import (
    FeedOrder,
    Planned,
    Product,
    RejectedRow,
    SkippedRow,
    as_text,
    excerpt,
    normalized_id,
)
from ugen_provider.core.feeds.reader import Format, open_feed
from ugen_provider.core.feeds.sources import Bounds, FeedSource

_BATCH = 1000
Bought = Callable[[Collection[tuple[str, str]]], Collection[tuple[str, str]]]
"""Return which of several products, each with its variant, have a purchase of their own."""


def _none_bought(products: Collection[tuple[str, str]]) -> Collection[tuple[str, str]]:  # noqa: ARG001
    return ()


def selected(rows: Iterable[Planned], mapping: FeedMapping, *, bought: Bought = _none_bought) -> Iterator[Planned]:
    """Yield one order for each group, sorted and limited as the mapping says; all other rows unchanged.

    Orders wait in a temporary file until the feed has been read to its end, because its last row can be the first to
    buy. A limit alone needs no waiting.

    Args:
        rows: The plan in the order of the feed.
        mapping: Names `group_by`, `order_by`, `limit` and `shares`.
        bought: Returns which products have a purchase of their own: a group keeps the row that it was bought with.
    """
    if mapping.group_by == "none" and not mapping.order_by:
        yield from _limited(rows, mapping.limit, mapping.shares)
        return
    with closing(sqlite3.connect("")) as database:  # a file of its own that is deleted when it is closed
        yield from _stored(database, rows, mapping, bought)
        yield from _limited(_sorted(database, mapping), mapping.limit, mapping.shares)


def group_of(order: FeedOrder, group_by: str) -> str:
    """Return the group of a product and variant; a product that names none is a group of its own."""
    look = f" as {order.variant}" if order.variant else ""
    if group_by == "picture":
        return f"picture {order.fields['product_image_url']}{look}"
    group = order.product.text("item_group_id") if order.product is not None else ""
    return (f"group {group}" if group else f"id {order.product_id}") + look


def _stored(
    database: sqlite3.Connection, rows: Iterable[Planned], mapping: FeedMapping, bought: Bought
) -> Iterator[Planned]:
    keys = ", ".join(f"k{number}" for number in range(len(mapping.order_by)))
    database.execute(f"CREATE TABLE planned (seq INTEGER PRIMARY KEY, grp, id, rank, body{', ' if keys else ''}{keys})")
    marks = ", ".join("?" * (5 + len(mapping.order_by)))
    insert = f"INSERT INTO planned VALUES ({marks})"  # noqa: S608  only our own names and question marks
    grouped = mapping.group_by != "none"
    batch: list[tuple[int, FeedOrder]] = []

    def flush() -> None:
        # A group is bought with the row that it was bought with before, else with the lowest id: the same every night.
        own = set(bought([(row.product_id, row.variant) for _, row in batch])) if grouped else set()
        database.executemany(
            insert,
            [
                (
                    seq,
                    group_of(row, mapping.group_by) if grouped else f"row {seq}",
                    row.product_id,
                    ("0" if (row.product_id, row.variant) in own else "1") + row.product_id,
                    json.dumps(row, default=as_text),
                    *(_sort_value(row.product, key) for key in mapping.order_by),
                )
                for seq, row in batch
            ],
        )
        batch.clear()

    for seq, row in enumerate(rows):
        if not isinstance(row, FeedOrder):
            yield row
            continue
        batch.append((seq, row))
        if len(batch) >= _BATCH:
            flush()
    flush()
    if grouped:
        database.execute("CREATE INDEX by_group ON planned (grp, rank)")


def _order_from(body: str) -> FeedOrder:
    """Return the order that was stored as JSON; a value that JSON lacks, such as a date, became its text."""
    found = FeedOrder(*json.loads(body))
    product = Product(*found.product) if found.product is not None else None
    return found._replace(product=product)


def _sort_value(product: Product | None, key: SortKey) -> float | str | None:
    if product is None:
        return None
    text = product.id if key.columns == ("id",) else next(filter(None, map(product.text, key.columns)), "")
    if not text:
        return None
    number = number_in(text) if any(character.isdigit() for character in text[:6]) else None
    return number if number is not None and "-" not in text[1:] else text.casefold()


def _sorted(database: sqlite3.Connection, mapping: FeedMapping) -> Iterator[Planned]:
    """Yield one order per group, and the other members as skipped rows after it. Empty values come last."""
    order = "".join(
        f"p.k{number} IS NULL, p.k{number} {'DESC' if key.descending else 'ASC'}, "
        for number, key in enumerate(mapping.order_by)
    )
    if mapping.group_by == "none":
        for (body,) in database.execute(f"SELECT body FROM planned AS p ORDER BY {order}p.seq"):  # noqa: S608
            yield _order_from(body)
        return
    query = (
        "SELECT p.seq, p.grp, p.body, g.members FROM planned AS p JOIN (SELECT grp, min(rank) AS chosen, "  # noqa: S608
        "min(seq) AS first, count(DISTINCT id) AS members FROM planned GROUP BY grp) AS g "
        "ON p.grp = g.grp AND p.rank = g.chosen "
        f"WHERE p.seq = (SELECT min(seq) FROM planned WHERE grp = g.grp AND rank = g.chosen) ORDER BY {order}g.first"
    )
    for seq, group, body, members in database.execute(query):
        found = _order_from(body)
        yield found._replace(members=members)
        # One by one: the products of a whole shop may share one picture.
        others = "SELECT body FROM planned WHERE grp = ? AND seq != ? ORDER BY rank"
        for (other_body,) in database.execute(others, (group, seq)):
            other = _order_from(other_body)
            rule = f"shares the video of product {found.product_id}"
            yield SkippedRow(
                other.line,
                other.item,
                other.product_id,
                "grouped",
                rule,
                other.rows,
                other.file,
                other.variant,
                found.product_id,
            )


def share_limits(limit: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Return how many products of a limit each category may have; at least one.

    Examples:
        >>> share_limits(10, {"Lamps": 0.25, "Home > Rugs": 0.01})
        {'lamps': 2, 'home > rugs': 1}
    """
    return {category.casefold(): max(1, int(limit * share)) for category, share in shares.items()}


def _limited(rows: Iterable[Planned], limit: int | None, shares: Mapping[str, float]) -> Iterator[Planned]:
    if limit is None:
        yield from rows
        return
    ordered: set[str] = set()
    left = share_limits(limit, shares)
    prefixes = sorted(left, key=len, reverse=True)
    beyond: str | None = None  # of the last order, whose group follows it
    for row in rows:
        if isinstance(row, FeedOrder):
            beyond = None
            if row.product_id not in ordered:
                category = row.product.category.casefold() if row.product is not None else ""
                prefix = next((one for one in prefixes if category.startswith(one)), None)
                if len(ordered) >= limit:
                    beyond = f"is beyond limit {limit}"
                elif prefix is not None and not left[prefix]:
                    beyond = f"is beyond the share of category {prefix!r}"
                else:
                    ordered.add(row.product_id)
                    if prefix is not None:
                        left[prefix] -= 1
            if beyond is not None:
                yield SkippedRow(
                    row.line, row.item, row.product_id, "limit", beyond, row.rows, row.file, variant=row.variant
                )
                continue
        elif beyond is not None and isinstance(row, SkippedRow) and row.reason == "grouped":
            yield replace(row, reason="limit", rule=beyond, shared_with=None)
            continue
        yield row


# Which products a person selected.

_LARGEST_SELECTION = 64 << 20


def read_selection(path: str | os.PathLike[str]) -> frozenset[str]:
    """Read the ids of selected products: `{"products": [...]}`, a JSON list, or one id a line.

    Args:
        path: The file, as a preview's page saves it.

    Raises:
        ConfigError: The file cannot be read, or names no product.
    """
    try:
        found = frozenset(filter(None, map(normalized_id, _selected_ids(Path(path)))))
    except (OSError, ValueError) as error:
        raise ConfigError(f"only: {path} cannot be read: {error}") from None
    if not found:
        raise ConfigError(f"only: {path} names no product")
    return found


def _selected_ids(path: Path) -> list[Any]:
    if path.stat().st_size > _LARGEST_SELECTION:
        raise ValueError(f"it is larger than {_LARGEST_SELECTION:,} bytes")
    text = path.read_text("utf-8-sig")
    if not text.lstrip().startswith(("{", "[")):
        return text.splitlines()
    read = json.loads(text)
    listed = read.get("products") if isinstance(read, dict) else read
    if not isinstance(listed, list):
        raise ValueError("it has no list `products`")  # noqa: TRY004  of a file, not of an argument
    return listed


_MOST_KNOWN = 1000
_VARIANTS: Mapping[str, tuple[str, frozenset[str]]] = {
    "woocommerce": ("type", frozenset({"variation", "product_variation"})),
    "amazon": ("parentage_level", frozenset({"child"})),
}
"""Per kind the column and the values of a row that is a variant of another product."""


class Mapper:
    """Mapper from products to create-job requests.

    Everything that does not change from product to product is checked here, once.

    Args:
        mapping: What the columns become.
        job_defaults: Fields for every product, such as `segment_count`.
        model: The model that the account uses where nothing names one.
        upload_pictures: Whether a picture may have an address that the service cannot reach, since it is uploaded.
        partial: Whether required fields of the request may be missing, as in a check before they are chosen.
        doubts_text: Whether texts may hold halves of surrogate pairs, as no text does that was decoded from bytes.

    Raises:
        InvalidRequestError: `job_defaults` break a rule by themselves, so that every product would.

    Attributes:
        unseen: Columns that the user's mapping names and that no product had so far.

    Examples:
        >>> lamp = Product("1", {"title": "Lamp", "image_link": "https://shop.example/lamp.jpg"}, 7, 1)
        >>> Mapper(FeedMapping.default(), job_defaults={"segment_count": 2})(lamp)["product_name"]
        'Lamp'
    """

    def __init__(
        self,
        mapping: FeedMapping,
        *,
        job_defaults: Mapping[str, Any],
        model: str | None = None,
        upload_pictures: bool = False,
        partial: bool = False,
        doubts_text: bool = True,
    ) -> None:
        self._doubts_text = doubts_text
        self._mapping = mapping
        self._model = model
        self._partial = partial
        self._usable = _any_address if upload_pictures else is_http
        self._base = {name: value for name, value in {**job_defaults, **mapping.constants}.items() if value is not None}
        later = partial or bool(mapping.categories) or bool(mapping.lookups)
        if violations := rules.check(self._base, model=model, pending=FROM_FEED, partial=later):
            raise InvalidRequestError(violations)
        self.unseen = set(mapping.named)
        self._values = tuple(mapping.values.items())
        self._variants = _VARIANTS.get(mapping.kind)
        self._for_sale = _by_column(mapping.for_sale or ())
        self._for_sale_columns = frozenset(self._for_sale)
        self._sold: dict[str, dict[str, bool]] = {column: {} for column in self._for_sale}
        self._filters = mapping.filters
        self._leaves_out = self._variants is not None or bool(mapping.filters) or "" in self._for_sale
        self._clean = cleaned if mapping.clean.names else one_line
        self._name = mapping.columns["product_name"]
        self._picture = mapping.columns["product_image_url"]
        given = {*self._base, *mapping.templates, *mapping.lookups}
        self._wants_points = not {"key_selling_points", "custom_script"} & given
        self._points = [(column, f"{column}[2]") for column in mapping.columns.get("key_selling_points", ())]
        self._others = [
            (name, columns, _readers[rules.BY_NAME[name].kind])
            for name, columns in mapping.columns.items()
            if name not in {*FROM_FEED, "key_selling_points"}
        ]
        templates = {
            name: template_parts(f"templates.{name}", text, kind=mapping.kind)
            for name, text in mapping.templates.items()
        }
        self._made_of_feed = {name: templates.pop(name) for name in FROM_FEED if name in templates}
        self._templates = [(name, parts, _readers[rules.BY_NAME[name].kind]) for name, parts in templates.items()]
        self._lookups = [(name, lookup) for name, lookup in mapping.lookups.items() if name not in FROM_FEED]
        self._made = bool(self._made_of_feed) or any(name in mapping.lookups for name in FROM_FEED)
        self._found_of_feed = {name: mapping.lookups[name] for name in FROM_FEED if name in mapping.lookups}
        by_length = sorted(mapping.categories.items(), key=lambda entry: -len(entry[0]))
        self._categories = [(prefix.lower(), values) for prefix, values in by_length]
        # Name, picture and points are right by construction; anything else from the feed is checked.
        self._needs_check = bool(self._others or self._templates or self._categories or self._lookups)

    def __call__(self, product: Product) -> dict[str, Any] | RejectedRow | SkippedRow:
        """Return the fields of the create-job request, or why there are none."""
        if self.unseen:
            self.unseen.difference_update(product.attributes)
        if self._values:
            product = self._changed(product)
        if self._leaves_out or not self._for_sale_columns.isdisjoint(product.attributes):
            skipped = self._left_out(product)
            if skipped is not None:
                return skipped
        name = self._name_of(product)
        if not name:
            return self._rejected(product, self._name[0], "must not be empty")
        picture = self._picture_of(product)
        if picture is None:
            broken = next((text for column in self._picture for text in product.addresses(column)), "")
            rule = "is no http(s) address of a picture" if broken else f"is required: {_missing_picture(product)}"
            return self._rejected(product, self._picture[0], rule, broken)
        fields = {**self._base, "product_name": name, "product_image_url": picture}
        if self._needs_check:
            self._add(product, fields)
        if self._wants_points and (points := self._selling_points(product)):
            fields["key_selling_points"] = points
        if self._needs_check:
            pending = () if is_http(picture) else ("product_image_url",)
            for violation in rules.check(fields, model=self._model, pending=pending, partial=self._partial):
                column = self._mapping.columns.get(violation.field, (violation.field,))[0]
                return self._rejected(product, column, violation.rule, violation.value)
        if self._doubts_text and (broken_field := _not_text(fields)) is not None:
            return self._rejected(product, broken_field, "has a character that is no text", str(fields[broken_field]))
        return fields

    def _left_out(self, product: Product) -> SkippedRow | None:
        attributes = product.attributes
        if self._variants is not None and self._is_variant(product):
            parent = product.text("item_group_id")
            rule = f"is a variant of {parent}" if parent else "is a variant of another product"
            return self._skipped(product, "variant", rule)
        for column in self._for_sale:
            if column in attributes and not self._is_sold(product, column):
                value = excerpt(product.text(column), most=40)
                return self._skipped(product, "not_for_sale", f"not for sale: {column} is {value or 'empty'}")
        for rule_ in self._for_sale.get("", ()):
            if not rule_.passes(product):
                return self._skipped(product, "not_for_sale", f"not for sale: {rule_}")
        for wanted in self._filters:
            if not wanted.passes(product):
                return self._skipped(product, "filtered", str(wanted))
        return None

    def _is_sold(self, product: Product, column: str) -> bool:
        """Return whether a column says that a product is sold. Its few values are judged once each."""
        value = product.attributes[column]
        if type(value) is not str:
            return all(rule.passes(product) for rule in self._for_sale[column])
        known = self._sold[column]
        found = known.get(value)
        if found is None:
            found = all(rule.passes(product) for rule in self._for_sale[column])
            if len(known) < _MOST_KNOWN:
                known[value] = found
        return found

    def _is_variant(self, product: Product) -> bool:
        assert self._variants is not None
        column, values = self._variants
        return product.text(column).lower() in values

    def _skipped(self, product: Product, reason: str, rule: str) -> SkippedRow:
        return SkippedRow(product.line, product.item, product.id, reason, rule, product.rows)

    def _rejected(self, product: Product, column: str, rule: str, value: str = "") -> RejectedRow:
        return RejectedRow(product.line, product.item, product.id, column, rule, excerpt(value), product.rows)

    def _changed(self, product: Product) -> Product:
        attributes = dict(product.attributes)
        for column, rule in self._values:
            value = attributes.get(column)
            if isinstance(value, list):
                attributes[column] = [rule(as_text(one)) for one in value]
            elif value is not None:
                attributes[column] = rule(as_text(value))
        return product._replace(attributes=attributes)

    def _name_of(self, product: Product) -> str:
        if self._made:
            for made in (self._looked_up(product, "product_name"), self._template(product, "product_name")):
                if made and (name := self._clean(made)):
                    return name
        get = product.attributes.get
        clean = self._clean
        for column in self._name:
            value = get(column)
            if type(value) is str:
                if name := clean(value):
                    return name
            elif value is not None:
                for text in product.texts(column):
                    if name := clean(text):
                        return name
        if "model" in product.attributes:  # an offer without a name, as Yandex takes it
            parts = [clean(product.text(column)) for column in ("type_prefix", "brand", "model")]
            return " ".join(filter(None, parts)) if parts[2] else ""
        return ""

    def _looked_up(self, product: Product, name: str) -> str:
        lookup = self._found_of_feed.get(name)
        found = self._result(product, lookup) if lookup is not None else None
        return found if isinstance(found, str) else ""

    def _result(self, product: Product, lookup: Lookup) -> Any:
        value = product.id if lookup.by == ("id",) else self._first(product, lookup.by)
        return lookup.values.get(" ".join(value.casefold().split()), lookup.default)

    def _template(self, product: Product, name: str) -> str:
        parts = self._made_of_feed.get(name)
        return self._filled(product, parts) if parts is not None else ""

    def _filled(self, product: Product, parts: tuple[tuple[str, tuple[str, ...]], ...]) -> str:
        texts = [(before, self._first(product, columns) if columns else "") for before, columns in parts]
        if not all(text for (_, columns), (_, text) in zip(parts, texts, strict=True) if columns):
            return ""
        return "".join(before + text for before, text in texts)

    def _add(self, product: Product, fields: dict[str, Any]) -> None:
        if self._categories:
            category = product.category.lower()
            for prefix, values in self._categories:
                if category.startswith(prefix):
                    fields.update(values)
                    break
        for name, columns, read in self._others:
            text = self._first(product, columns)
            if text:
                fields[name] = read(text)
        for name, parts, read in self._templates:
            if text := self._filled(product, parts):
                fields[name] = read(text)
        for name, lookup in self._lookups:
            if (found := self._result(product, lookup)) is not None:
                fields[name] = found

    def _first(self, product: Product, columns: tuple[str, ...]) -> str:
        get = product.attributes.get
        for column in columns:
            value = get(column)
            if type(value) is str:  # what nearly every value of nearly every feed is
                if value := " ".join(value.split()):
                    return value
            elif value is not None and (text := one_line(product.text(column))):
                return text
            elif column == "id":
                return product.id
        return ""

    def _picture_of(self, product: Product) -> str | None:
        picture = self._mapping.pictures
        if self._made:
            for made in (self._looked_up(product, "product_image_url"), self._template(product, "product_image_url")):
                if made and self._usable(address := whole_address(made, picture=picture)):
                    return address
        for column in self._picture:
            value = product.attributes.get(column)
            if type(value) is str and is_surely_http(value):
                return value
            if value:
                for address in addresses_in(value, picture=picture):
                    if self._usable(address):
                        return address
        return None

    def _selling_points(self, product: Product) -> list[str]:
        """Return short sentences that sell the product: its highlights, else the first sentences of its description."""
        attributes = product.attributes
        for column, second in self._points:
            value = attributes.get(column)
            if value is None:
                continue
            if type(value) is str and is_plain_point(value) and second not in attributes:
                return [" ".join(value.split())]
            points: list[str] = []
            number = 1
            name = column
            while name in attributes and len(points) < MOST_POINTS:
                for text in product.phrases(name):
                    points += self._points_of(text)
                number += 1
                name = f"{column}[{number}]"
            if points:
                return list(dict.fromkeys(points))[:MOST_POINTS]
        for column in self._mapping.prose:
            if (value := attributes.get(column)) and (text := value if type(value) is str else product.text(column)):
                if not self._mapping.clean.points:
                    return [one_line(text)]
                if found := points_of_prose(text):
                    return found
        return []

    def _points_of(self, text: str) -> list[str]:
        return points_of_phrase(text) if self._mapping.clean.points else [one_line(text)]


def _by_column(for_sale: tuple[Rule, ...]) -> dict[str, list[Rule]]:
    """Return the rules by the one column that each reads; those that read several, or might want it, under ''.

    A rule that an empty value fulfils needs no check of products without its column.
    """
    found: dict[str, list[Rule]] = {}
    empty = Product("", {}, None, 0)
    for rule in for_sale:
        columns = list(rule.columns())
        key = columns[0] if len(columns) == 1 and rule.passes(empty) else ""
        found.setdefault(key, []).append(rule)
    return found


def _not_text(fields: Mapping[str, Any]) -> str | None:
    """Return the field with half a surrogate pair in it, which neither the service nor a database takes."""
    for name, value in fields.items():
        for text in value if isinstance(value, list) else (value,):
            if isinstance(text, str) and not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError:
                    return name
    return None


def to_job_fields(
    product: Product, mapping: FeedMapping, *, job_defaults: Mapping[str, Any], model: str | None = None
) -> dict[str, Any] | RejectedRow | SkippedRow:
    """Return the fields of the create-job request for one product; for many, keep a `Mapper`.

    Args:
        product: From `read_feed`.
        mapping: What the columns become.
        job_defaults: Fields for every product.
        model: The model that the account uses where nothing names one.
    """
    return Mapper(mapping, job_defaults=job_defaults, model=model)(product)


def _any_address(address: str) -> bool:
    return is_http(address) or "://" in address or address.startswith("/")


def _number(text: str) -> Any:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text


def _boolean(text: str) -> Any:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower(), text)


def _strings(text: str) -> Any:
    return [part for part in map(one_line, text.split(",")) if part]


def _same(text: str) -> Any:
    return text


_readers: Mapping[str, Callable[[str], Any]] = {
    "string": _same,
    "url": _same,
    "object": _same,
    "integer": _number,
    "number": _number,
    "boolean": _boolean,
    "strings": _strings,
}


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """How to read a feed, where its content does not say, or is not to be asked.

    Attributes:
        kind: Whose rules it follows.
        format: How it is written.
        encoding: Of CSV, TSV, JSON and XML without a byte order mark; default: what the feed declares, else UTF-8.
        items: The path from the root to the elements or objects that are products, such as `export/stock/ware`.
        query: The SQL query whose rows are the products, where the source is a database's address.
        timeout: For http(s): seconds without a byte after which it is given up.
        bounds: How large it may become.
    """

    kind: Kind | None = None
    format: Format | None = None
    encoding: str | None = None
    items: str | None = None
    query: str | None = None
    timeout: float = 60.0
    bounds: Bounds = field(default_factory=Bounds)


def plan_feed(
    source: FeedSource,
    *,
    job_defaults: Mapping[str, Any],
    options: FeedOptions | None = None,
    mapping: FeedMapping | None = None,
    model: str | None = None,
) -> Iterator[Planned]:
    """Return the orders of a feed, in one streaming pass; spends nothing. Duplicate ids are not removed here.

    Args:
        source: A file, an address, several of them, rows, a data frame or a database; see `FeedSource`.
        job_defaults: Fields for every product; `segment_count` must be among them, or among those of the mapping.
        options: How to read it; found in its content where not given.
        mapping: What the columns become; the default of the feed's kind where not given.
        model: The model that the account uses where nothing names one.

    Yields:
        A `FeedOrder` per good product, a `RejectedRow` per bad one, a `SkippedRow` per one that is left out on purpose.

    Raises:
        InvalidRequestError: `job_defaults` break a rule by themselves, so that every product would. Raised at once.
        FeedError: The feed cannot be opened, holds no product, or cannot be read to its end.

    Examples:
        >>> for row in plan_feed("examples/feed.xml", job_defaults={"segment_count": 2}):
        ...     print(row)
    """
    for look in _variants_of(mapping or FeedMapping.default()).values():  # refuses before anything is read
        Mapper(look, job_defaults=job_defaults, model=model)

    def rows() -> Iterator[Planned]:
        with opened_plan(source, job_defaults=job_defaults, options=options, mapping=mapping, model=model) as opened:
            yield from opened.rows

    return rows()


@dataclass(frozen=True, slots=True)
class OpenPlan:
    """A plan that is being made: what the feed is, and what it orders.

    Attributes:
        source: The feed, without credentials and query.
        kind: Whose rules it follows.
        format: How it is written.
        rows: What it orders.
        unseen: Columns that the mapping names and that no row had, as far as `rows` was read.
        mapping: The mapping in use: the user's on the default of the feed's kind.
    """

    source: str
    kind: Kind
    format: Format
    rows: Iterator[Planned]
    unseen: AbstractSet[str]
    mapping: FeedMapping


def _variants_of(mapping: FeedMapping) -> dict[str, FeedMapping]:
    """Return the mapping of each variant by its name; '' for that of products without variants."""
    return {variant.name: mapping.for_variant(variant) for variant in mapping.variants} or {"": mapping}


@contextmanager
def opened_plan(
    source: FeedSource,
    *,
    job_defaults: Mapping[str, Any],
    options: FeedOptions | None = None,
    mapping: FeedMapping | None = None,
    version: int | None = None,
    model: str | None = None,
    upload_pictures: bool = False,
    partial: bool = False,
    bought: Bought | None = None,
) -> Iterator[OpenPlan]:
    """Open a feed as `plan_feed` does, and say what the feed is.

    Args:
        source: As for `plan_feed`.
        job_defaults: As for `plan_feed`.
        options: As for `plan_feed`.
        mapping: As for `plan_feed`.
        version: Of the default mapping, for what `mapping` does not name.
        model: As for `plan_feed`.
        upload_pictures: Whether a picture may have an address that the service cannot reach.
        partial: Whether required fields of the request may be missing.
        bought: Returns which products have a purchase of their own; see `selected`.

    Raises:
        InvalidRequestError: As for `plan_feed`.
        FeedError: As for `plan_feed`.
    """
    options = options or FeedOptions()
    with open_feed(
        source,
        kind=options.kind,
        format=options.format,
        encoding=options.encoding,
        items=options.items,
        query=options.query,
        mapping=mapping,
        timeout=options.timeout,
        bounds=options.bounds,
    ) as opened:
        in_use = (
            mapping.for_kind(opened.kind, version=version)
            if mapping is not None
            else FeedMapping.default(opened.kind, version=version)
        )
        mappers = {
            name: Mapper(
                look,
                job_defaults=job_defaults,
                model=model,
                upload_pictures=upload_pictures,
                partial=partial,
                doubts_text=opened.format not in {"text", "xml", "jsonl"},
            )
            for name, look in _variants_of(in_use).items()
        }
        first = next(iter(mappers.values()))
        for mapper in mappers.values():
            mapper.unseen = first.unseen
        rows = (
            _in_variants(opened.rows, mappers, opened.name)
            if in_use.variants
            else _planned(opened.rows, first, opened.name)
        )
        if in_use.selects:
            rows = selected(rows, in_use, bought=bought) if bought is not None else selected(rows, in_use)
        yield OpenPlan(opened.name, opened.kind, opened.format, rows, first.unseen, in_use)


_BAD_VALUES = (ValueError, TypeError, ArithmeticError, LookupError, RecursionError)


def _planned(rows: Iterator[Product | RejectedRow], mapper: Mapper, source: str) -> Iterator[Planned]:
    row: Product | RejectedRow | None = None
    new_tuple: Callable[..., FeedOrder] = tuple.__new__
    for row in rows:
        if isinstance(row, RejectedRow):
            yield row
            continue
        try:
            made = mapper(row)
        except _BAD_VALUES as error:  # one bad row never stops a feed, with any error in its values
            reason = f"cannot be mapped: {type(error).__name__}: {error}"
            yield RejectedRow(row.line, row.item, row.id, "row", reason, excerpt(row.attributes.get("title")), row.rows)
            continue
        if isinstance(made, dict):
            # The tuple itself, since the constructor of a named tuple costs as much as the mapping of a column.
            yield new_tuple(FeedOrder, (row[0], made, row[2], row[3], row[4], None, row, "", 1))
        else:
            yield made
    if row is None:
        raise _without_products(source)


def _in_variants(
    rows: Iterator[Product | RejectedRow], mappers: Mapping[str, Mapper], source: str
) -> Iterator[Planned]:
    """Yield each product once for each of its variants."""
    found = False
    for row in rows:
        found = True
        if isinstance(row, RejectedRow):
            yield row
            continue
        for variant, mapper in mappers.items():
            for made in _planned(iter((row,)), mapper, source):
                yield made._replace(variant=variant) if isinstance(made, FeedOrder) else replace(made, variant=variant)
    if not found:
        raise _without_products(source)


def _without_products(source: str) -> FeedError:
    return FeedError("holds no product: it has a header or a root, and no row; nothing was planned", source=source)


def _missing_picture(product: Product) -> str:
    """Return that a product has no picture, and the column that holds one under a name that is not known."""
    likely = next((name for name in product.attributes if PICTURE_FILE.search(product.text(name))), None)
    if likely is None:
        return "the product has no picture"
    return f"the product has no picture; if `{likely}` is one, map it by `columns: {{product_image_url: {likely}}}`"
