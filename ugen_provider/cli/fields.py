# SPDX-License-Identifier: Apache-2.0
"""The fields of a video as options, made from the one table of rules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import click

from ugen_provider.core.api import rules

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
    parts = []
    if rule.least is not None:
        parts.append(f"from {rule.least:g}" + (f" to {rule.most:g}" if rule.most is not None else ""))
    if rule.kind == "strings":
        parts.append("may be repeated")
    if rule.one_of:
        parts.append(", ".join(rule.one_of))
    if rule.default is not None:
        parts.append(f"the service's default: {str(rule.default).lower() if rule.kind == 'boolean' else rule.default}")
    return "; ".join(parts)


def field_options(*, without: Collection[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for each field of `POST /jobs`; it gets what was given as `fields`.

    Args:
        without: Fields that the command does not take.
    """
    taken = [rule for rule in rules.FIELDS if rule.name not in _OURS and rule.name not in without]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **given: Any) -> Any:
            fields = given_fields({rule.name: given.pop(rule.name) for rule in taken})
            return function(*args, fields=fields, **given)

        # click keeps what other decorators declared on the function itself.
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
    """The fields that hold for every product of a feed."""
    return field_options(without=_OF_ONE_PRODUCT)


def given_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, as the API takes it.

    Examples:
        >>> given_fields({"segment_count": 2, "key_selling_points": (), "voice_settings": '{"speed": 1}'})
        {'segment_count': 2, 'voice_settings': {'speed': 1}}
    """
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return rules.coerce({name: value for name, value in given.items() if value is not None and value != []})
