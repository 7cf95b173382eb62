# SPDX-License-Identifier: Apache-2.0
"""Rules that select products, such as `availability == in stock` or `price >= 20 and not title contains outlet`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from ugen_provider.core.feeds.errors import MappingError
from ugen_provider.core.feeds.layouts import Kind, canonical, plain_name
from ugen_provider.core.feeds.products import Product, availability_in

_OPERATORS = (
    r"==|!=|>=|<=|>|<|=|\bis\s+not\s+empty\b|\bis\s+empty\b|\bnot\s+in\b|\bin\b|\bnot\s+starts\s+with\b|\bstarts\s+with\b"
    r"|\bnot\s+ends\s+with\b|\bends\s+with\b|\bnot\s+contains\b|\bcontains\b|\bnot\s+matches\b|\bmatches\b"
)
_COLUMN = r"[^\W\d_][\w .\[\]()/#-]*?|_\w[\w .-]*?|\d[\w .-]*?|\"[^\"]+\"|`[^`]+`"
_RULE = re.compile(rf"\s*({_COLUMN})\s*({_OPERATORS})\s*(.*?)\s*", re.IGNORECASE | re.DOTALL)
_BEGINS_RULE = re.compile(rf"\s*(?:not\s+)?\(*\s*(?:not\s+)?(?:{_COLUMN})\s*(?:{_OPERATORS})", re.IGNORECASE)
_CONNECTIVE = re.compile(r"\s+(and|or)\s+", re.IGNORECASE)
_NOT = re.compile(r"\s*not\b(?!\s*(?:in|contains|starts|ends|matches)\b)\s*", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d[\d.,'’ \u00a0\u202f]*")  # noqa: RUF001
_AROUND = r"[^\d\s]{0,4}"
_LIMIT = re.compile(rf"{_AROUND}\s*{_NUMBER.pattern}\s*{_AROUND}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?(?:Z|[+-]\d{2}:?\d{2})?")
_THREE_DECIMALS = re.compile(r"\b(?:KWD|BHD|OMR|JOD|TND|IQD|LYD)\b", re.IGNORECASE)
_UNITS_FOLLOW = re.compile(r"^\s*(?:kg|g|lb|oz|ml|l|cm|mm|m|in|ft)\b", re.IGNORECASE)
_TRUE = frozenset({"true", "yes", "y", "1", "on", "ja", "oui", "si", "sí", "sim"})
_FALSE = frozenset({"false", "no", "n", "0", "off", "nein", "non", "não"})

_COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, limit: value >= limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    "<": lambda value, limit: value < limit,
}


class Rule(Protocol):
    """A condition on a product."""

    def passes(self, product: Product) -> bool:
        """Return whether a product fulfils it."""
        ...

    def columns(self) -> Iterator[str]:
        """Yield the columns that it reads."""
        ...


@dataclass(frozen=True, slots=True)
class Filter:
    """One comparison. An empty value fulfils `!=`, `is empty` and the negated operators alone.

    Attributes:
        column: Name of the column; `category` is the shop's own category, else Google's.
        operator: `==`, `!=`, `>=`, `<=`, `>`, `<`, `in`, `starts with`, `ends with`, `contains`, `matches` (a regular
            expression), each of the words also with `not` before it, `is empty` or `is not empty`.
        value: The value to compare with; for `in` and `not in` a list with commas between.
        aliases: Further names of the column, read where the first is not in the feed.
    """

    column: str
    operator: str
    value: str = ""
    aliases: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def passes(self, product: Product) -> bool:
        """Return whether a product fulfils it."""
        found = self._found(product)
        operator = self.operator
        if (compare := _COMPARED.get(operator)) is not None:
            if _DATE.fullmatch(self.value):
                when, limit_date = date_in(found), date_in(self.value)
                return when is not None and limit_date is not None and compare(when, limit_date)
            value, limit = number_in(found), number_in(self.value)
            return value is not None and limit is not None and compare(value, limit)
        if operator.startswith("not "):
            return not self._holds(operator.removeprefix("not "), found)
        if operator == "!=":
            return not self._holds("==", found)
        return self._holds(operator, found)

    def columns(self) -> Iterator[str]:
        """Yield the columns that it reads."""
        if self.column != "category":
            yield self.column

    def _found(self, product: Product) -> str:
        if self.column == "category":
            return product.category
        for column in (self.column, *self.aliases):
            if found := product.text(column):
                return found
        return ""

    def _holds(self, operator: str, found: str) -> bool:
        if operator == "is empty":
            return not found
        if operator == "is not empty":
            return bool(found)
        if operator == "matches":
            return re.search(self.value, found, re.IGNORECASE) is not None
        same = availability_in if self.column == "availability" else _plain
        plain = same(found)
        if operator == "in":
            return plain in {same(one) for one in _listed(self.value)}
        wanted = same(self.value)
        match operator:
            case "==":
                return plain == wanted or (wanted in {"true", "false"} and _truth(plain) is (wanted == "true"))
            case "starts with":
                return _plain(found).startswith(_plain(self.value))
            case "ends with":
                return _plain(found).endswith(_plain(self.value))
            case _:
                return _plain(self.value) in _plain(found)

    def __str__(self) -> str:
        return f"{self.column} {self.operator} {self.value}".rstrip()


@dataclass(frozen=True, slots=True)
class Conjunction:
    """A condition that holds where each of its parts does."""

    rules: tuple[Rule, ...]

    def passes(self, product: Product) -> bool:
        """Return whether a product fulfils it."""
        return all(rule.passes(product) for rule in self.rules)

    def columns(self) -> Iterator[str]:
        """Yield the columns that it reads."""
        for rule in self.rules:
            yield from rule.columns()

    def __str__(self) -> str:
        return " and ".join(f"({rule})" if isinstance(rule, Any_) else str(rule) for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Any_:  # noqa: N801  `Any` is typing's
    """A condition that holds where one of its parts does."""

    rules: tuple[Rule, ...]

    def passes(self, product: Product) -> bool:
        """Return whether a product fulfils it."""
        return any(rule.passes(product) for rule in self.rules)

    def columns(self) -> Iterator[str]:
        """Yield the columns that it reads."""
        for rule in self.rules:
            yield from rule.columns()

    def __str__(self) -> str:
        return " or ".join(map(str, self.rules))


@dataclass(frozen=True, slots=True)
class Not:
    """A condition that holds where another does not."""

    rule: Rule

    def passes(self, product: Product) -> bool:
        """Return whether a product fulfils it."""
        return not self.rule.passes(product)

    def columns(self) -> Iterator[str]:
        """Yield the columns that it reads."""
        yield from self.rule.columns()

    def __str__(self) -> str:
        return f"not ({self.rule})"


def parse_rules(written: Any, *, section: str, kind: Kind = "google") -> tuple[Rule, ...]:
    """Read a list of rules, all of which must hold.

    Args:
        written: A list; each entry is a rule in a text, or an object with one of `any`, `all` and `not`.
        section: The section of the mapping, for messages.
        kind: Whose names of columns the rules may use.

    Raises:
        MappingError: An entry is no rule.
    """
    if not isinstance(written, list):
        raise MappingError(f"{section}: must be a list of rules")
    return tuple(_entry(entry, section, kind) for entry in written)


def _entry(entry: Any, section: str, kind: Kind) -> Rule:
    if isinstance(entry, str):
        return parse_filter(entry, kind=kind)
    if isinstance(entry, dict) and len(entry) == 1:
        (name, value), *_ = entry.items()
        if name == "not":
            return Not(_entry(value, section, kind))
        if name in {"any", "or"}:
            return Any_(parse_rules(value, section=f"{section}.{name}", kind=kind))
        if name in {"all", "and"}:
            return Conjunction(parse_rules(value, section=f"{section}.{name}", kind=kind))
    raise MappingError(f"{section}: {entry!r} is no rule; write a text such as 'price >= 20', or any:, all: or not:")


def parse_filter(rule: str, *, kind: Kind = "google") -> Rule:
    """Read a rule: comparisons, joined by `and`, `or`, `not` and parentheses. `and` binds closer than `or`.

    Args:
        rule: Such as `price >= 20 and availability == in stock`.
        kind: Whose names of columns it may use.

    Raises:
        MappingError: It is none.

    Examples:
        >>> parse_filter("Price >= 20 EUR")
        Filter(column='price', operator='>=', value='20 EUR')
        >>> str(parse_filter("brand == Fern or (price < 5 and not title contains set)"))
        'brand == Fern or price < 5 and not (title contains set)'
    """
    parsed, rest = _disjunction(rule, rule, kind)
    if rest.strip():
        raise MappingError(f"filter {rule!r} cannot be read: {rest.strip()!r} is left over")
    return parsed


def _disjunction(text: str, whole: str, kind: Kind) -> tuple[Rule, str]:
    rules: list[Rule] = []
    while True:
        rule, text = _conjunction(text, whole, kind)
        rules.append(rule)
        found = re.match(r"\s*or\s+", text, re.IGNORECASE)
        if found is None:
            return (rules[0] if len(rules) == 1 else Any_(tuple(rules))), text
        text = text[found.end() :]


def _conjunction(text: str, whole: str, kind: Kind) -> tuple[Rule, str]:
    rules: list[Rule] = []
    while True:
        rule, text = _term(text, whole, kind)
        rules.append(rule)
        found = re.match(r"\s*and\s+", text, re.IGNORECASE)
        if found is None:
            return (rules[0] if len(rules) == 1 else Conjunction(tuple(rules))), text
        text = text[found.end() :]


def _term(text: str, whole: str, kind: Kind) -> tuple[Rule, str]:
    if found := _NOT.match(text):
        rule, rest = _term(text[found.end() :], whole, kind)
        return Not(rule), rest
    if text.lstrip().startswith("("):
        inner = text.lstrip()[1:]
        if _BEGINS_RULE.match(inner):
            rule, rest = _disjunction(inner, whole, kind)
            if not rest.lstrip().startswith(")"):
                raise MappingError(f"filter {whole!r} cannot be read: a parenthesis is not closed")
            return rule, rest.lstrip()[1:]
    end = _end_of_comparison(text)
    return _comparison(text[:end], whole, kind), text[end:]


def _end_of_comparison(text: str) -> int:
    """Return where a comparison ends: at `and` or `or` before another rule, or at a closing parenthesis."""
    depth = 0
    quote = ""
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and (position == 0 or text[position - 1] in " (,="):
            quote = character if character in text[position + 1 :] else ""
        elif character == "(":
            depth += 1
        elif character == ")":
            if depth == 0:
                return position
            depth -= 1
        elif character.isspace() and depth == 0:
            found = _CONNECTIVE.match(text, position)
            if found is not None and _BEGINS_RULE.match(text[found.end() :]):
                return position
    return len(text)


def _comparison(text: str, whole: str, kind: Kind) -> Filter:
    found = _RULE.fullmatch(text)
    if found is None:
        raise MappingError(
            f"filter {whole!r} cannot be read; write it like 'availability == in stock' or 'price >= 20'"
        )
    written, operator, value = found.groups()
    operator = "==" if operator == "=" else " ".join(operator.lower().split())
    value = _unquoted(value)
    if operator.startswith("is ") and value:
        raise MappingError(f"filter {whole!r} cannot be read: {value!r} is left over")
    if not operator.startswith("is ") and operator not in {"==", "!="} and not value:
        raise MappingError(f"filter {whole!r} has no value to compare with")
    if operator in _COMPARED and _DATE.fullmatch(value) is None and _LIMIT.fullmatch(value) is None:
        raise MappingError(f"filter {whole!r} compares numbers or dates, and {value!r} is neither")
    if operator.endswith("matches"):
        try:
            re.compile(value)
        except re.error as error:
            raise MappingError(f"filter {whole!r}: {value!r} is no regular expression: {error}") from None
    column, *aliases = column_keys(_unquoted(written.strip()), kind=kind)
    return Filter(column, operator, value, tuple(aliases))


def column_keys(name: str, *, kind: Kind = "google") -> tuple[str, ...]:
    """Return the attributes under which a column that a user names is found: its own name, then its canonical one.

    Examples:
        >>> column_keys("SEO Title"), column_keys("Vendor"), column_keys("category")
        (('seo_title',), ('vendor', 'brand'), ('category',))
    """
    own = plain_name(name)
    if own == "category":
        return (own,)
    meant, _ = canonical(name, kind=kind)
    return (own,) if meant in {own, "id"} else (own, meant)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`" and text[0] not in text[1:-1]:
        return text[1:-1]
    return text


def _listed(text: str) -> list[str]:
    return [_unquoted(one.strip()) for one in text.strip("[]").split(",")]


def number_in(text: str) -> float | None:
    """Return the first number in a text, such as a price in any usual spelling.

    A point before exactly three digits separates thousands where a currency is beside it; without one it is a decimal
    point, as machines write it.

    Examples:
        >>> number_in("1,299.00 USD"), number_in("EUR 12,50"), number_in("1.299 EUR"), number_in("1.250")
        (1299.0, 12.5, 1299.0, 1.25)
    """
    found = _NUMBER.search(text)
    if found is None:
        return None
    digits = re.sub(r"['’ \u00a0\u202f]", "", found[0]).rstrip(".,")  # noqa: RUF001
    if "," in digits and "." in digits:
        thousands = "," if digits.rindex(".") > digits.rindex(",") else "."
        digits = digits.replace(thousands, "").replace(",", ".")
    elif "," in digits:
        whole, _, decimals = digits.rpartition(",")
        separates = (len(decimals) == 3 and whole.lstrip("-") != "0") or "," in whole
        digits = digits.replace(",", "") if separates else f"{whole}.{decimals}"
    elif digits.count(".") > 1:
        digits = digits.replace(".", "")
    elif "." in digits:
        whole, _, decimals = digits.partition(".")
        around = (text[: found.start()] + " " + text[found.end() :]).strip()
        is_price = bool(around) and _UNITS_FOLLOW.match(around) is None and _THREE_DECIMALS.search(around) is None
        if len(decimals) == 3 and 1 <= len(whole.lstrip("-")) <= 3 and whole.lstrip("-0") and is_price:
            digits = whole + decimals
    try:
        return float(digits)
    except ValueError:
        return None


def date_in(text: str) -> float | None:
    """Return the first ISO date in a text as seconds since the epoch; UTC where it names no time zone.

    Examples:
        >>> date_in("2024-01-01"), date_in("2024-01-01T01:00:00+01:00"), date_in("soon")
        (1704067200.0, 1704067200.0, None)
    """
    found = _DATE.search(text)
    if found is None:
        return None
    try:
        when = datetime.fromisoformat(found[0])
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _truth(plain: str) -> bool | None:
    return True if plain in _TRUE else False if plain in _FALSE else None


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())
