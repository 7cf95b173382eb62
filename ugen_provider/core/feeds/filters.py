# SPDX-License-Identifier: Apache-2.0
"""Which products of a feed are wanted: short rules such as `availability == in stock` or `price >= 20`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ugen_provider.core.feeds.columns import Kind, canonical
from ugen_provider.core.feeds.errors import MappingError
from ugen_provider.core.feeds.products import Product

_RULE = re.compile(
    r"\s*([\w .\[\]()-]+?)\s*(==|!=|>=|<=|>|<|\bnot in\b|\bin\b|\bstarts with\b|\bcontains\b)\s*(.*?)\s*"
)
_NUMBER = re.compile(r"-?\d[\d.,' \u00a0]*")

_LIMIT = re.compile(rf"[^\d\s]{{0,4}}\s*{_NUMBER.pattern}\s*[^\d\s]{{0,4}}")
_SECOND_RULE = re.compile(r"==|!=|>=|<=")

_COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, limit: value >= limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    "<": lambda value, limit: value < limit,
}


@dataclass(frozen=True, slots=True)
class Filter:
    """One rule. A product passes if the rule holds; an empty value holds for `!=` and `not in` alone.

    Attributes:
        column: Canonical name of the column; `category` is the shop's own category, else Google's.
        operator: `==`, `!=`, `>=`, `<=`, `>`, `<`, `in`, `not in`, `starts with` or `contains`.
        value: What is compared with; for `in` and `not in` a list with commas between.
    """

    column: str
    operator: str
    value: str

    def passes(self, product: Product) -> bool:
        """Whether the rule holds for a product."""
        found = product.category if self.column == "category" else product.text(self.column)
        if (compare := _COMPARED.get(self.operator)) is not None:
            value, limit = number_in(found), number_in(self.value)
            return value is not None and limit is not None and compare(value, limit)
        plain, wanted = _plain(found), _plain(self.value)
        match self.operator:
            case "==":
                return plain == wanted
            case "!=":
                return plain != wanted
            case "in":
                return plain in map(_plain, self.value.split(","))
            case "not in":
                return plain not in map(_plain, self.value.split(","))
            case "starts with":
                return plain.startswith(wanted)
            case _:
                return wanted in plain

    def __str__(self) -> str:
        return f"{self.column} {self.operator} {self.value}"


def parse_filter(rule: str, *, kind: Kind = "google") -> Filter:
    """Read a rule.

    Args:
        rule: A column, an operator and a value.
        kind: Whose names of columns it may use.

    Raises:
        MappingError: It is none, or more than one.

    Examples:
        >>> parse_filter("Price >= 20 EUR")
        Filter(column='price', operator='>=', value='20 EUR')
    """
    found = _RULE.fullmatch(rule)
    if found is None:
        raise MappingError(f"filter {rule!r} cannot be read; write it like 'availability == in stock' or 'price >= 20'")
    column, operator, value = found.groups()
    if _SECOND_RULE.search(value):
        raise MappingError(
            f"filter {rule!r} is more than one rule; write each as an entry of its own, and all must hold"
        )
    if operator in _COMPARED and _LIMIT.fullmatch(value) is None:
        raise MappingError(f"filter {rule!r} compares numbers, and {value!r} is none")
    return Filter(canonical(column, kind=kind)[0] if column != "category" else column, operator, value)


def number_in(text: str) -> float | None:
    """The first number in a text, with a point or a comma before its decimals.

    Examples:
        >>> number_in("1,299.00 USD"), number_in("EUR 12,50"), number_in("free")
        (1299.0, 12.5, None)
    """
    found = _NUMBER.search(text)
    if found is None:
        return None
    digits = re.sub(r"[' \u00a0]", "", found[0]).rstrip(".,")
    if "," in digits and "." in digits:
        thousands = "," if digits.rindex(".") > digits.rindex(",") else "."
        digits = digits.replace(thousands, "").replace(",", ".")
    elif "," in digits:
        whole, _, decimals = digits.rpartition(",")
        digits = digits.replace(",", "") if len(decimals) == 3 or "," in whole else f"{whole}.{decimals}"
    elif digits.count(".") > 1:
        digits = digits.replace(".", "")
    return float(digits)


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").lower().split())
