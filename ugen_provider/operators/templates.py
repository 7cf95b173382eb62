# SPDX-License-Identifier: Apache-2.0
"""Templates that render to nothing are refused where they render, before the text around them hides it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any

import jinja2

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.operators.arguments import is_nothing, is_pending
from ugen_provider.operators.errors import UGenFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Context


class _NothingRenderedError(Exception):
    """An expression of a template is None or undefined."""


def _refuse_nothing(value: Any) -> Any:
    """Return the value of an expression; Jinja calls this for each one before it becomes text."""
    if value is None or isinstance(value, jinja2.Undefined):
        raise _NothingRenderedError
    return value


class GivenFields(tuple[str, ...]):
    """Names of templated fields, of which an operator has those that are set.

    Airflow goes through an operator's templated fields at parsing, at each rendering and for its pages. An operator
    of this provider has up to 47, of which a task sets four or five: the others cost a DAG of thousands of tasks more
    than all else, and fill its page of rendered fields with nothing.

    Examples:
        >>> class Task:
        ...     template_fields = GivenFields(("product_name", "cta_text"))
        >>> task = Task()
        >>> task.product_name, task.cta_text = "Lamp", None
        >>> task.template_fields, Task.template_fields
        (('product_name',), ('product_name', 'cta_text'))
    """

    __slots__ = ()

    def __get__(self, instance: object | None, owner: type | None = None) -> tuple[str, ...]:
        """Return all names for the class, such as for a mapped task, and those that are set for an operator."""
        if instance is None:
            return self
        values = vars(instance)
        return tuple([name for name in self if values.get(name) is not None])


class StrictTemplates:
    """Refuses, in all templated fields and at any depth, an expression that is None or undefined, and an empty result.

    Airflow renders `"{{ none }} lamp"` to "None lamp", and an undefined name of a DAG with a lenient
    `template_undefined` to an empty text. Neither is a request that a person meant to pay for.
    """

    unchecked_fields: Collection[str] = ()
    """Templated fields that are no arguments of this provider, such as those of a decorated function."""
    template_fields: Collection[str] = ()
    _field = ""
    """The field that is rendered now; '' for none."""

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render a value as Airflow does, and refuse one that renders to nothing.

        Raises:
            UGenFailure: It did. A retry would render the same.
        """
        with self._rendering(content):
            return self._render_strictly(content, context, jinja_env, seen_oids)

    @contextmanager
    def _rendering(self, content: Any) -> Iterator[None]:
        """Note the field that a value belongs to; Airflow renders the parts of a value by the same method."""
        if self._field:
            yield
            return
        self._field = next((name for name in self.template_fields if getattr(self, name, None) is content), "template")
        try:
            yield
        finally:
            self._field = ""

    def _render_strictly(self, content: Any, context: Context, env: Any, seen_oids: set[int] | None) -> Any:
        base: Any = super()
        if self._field in self.unchecked_fields:
            return base.render_template(content, context, env, seen_oids)
        this: Any = self
        env = env or this.get_template_env()
        if env.finalize is not _refuse_nothing:
            env = env.overlay(finalize=_refuse_nothing)
        try:
            rendered = base.render_template(content, context, env, seen_oids)
        except _NothingRenderedError:
            raise self._nothing(f"a part of its template {content!r} is None or undefined") from None
        except jinja2.UndefinedError as error:
            raise self._nothing(f"a part of its template {content!r} is undefined: {error}") from None
        if is_pending(content) and (rendered is None or (isinstance(rendered, str) and is_nothing(rendered))):
            named = f" ({content!r})" if isinstance(content, str) else ", the output of another task"
            raise self._nothing(f"its template rendered to nothing{named}")
        return rendered

    def _nothing(self, why: str) -> UGenFailure:
        return UGenFailure(ConfigError(f"{self._field}: {why}"))


def rendered_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's fields after rendering: numbers are text where the API wants text, and no part is empty.

    Args:
        fields: The fields. One that is None, or an optional one that is an empty text, counts as not set.

    Raises:
        ConfigError: A field rendered to the word for nothing, or a part of a list or object is empty.

    Examples:
        >>> rendered_fields({"product_name": 501, "segment_count": 2, "key_selling_points": ["bright", 7]})
        {'product_name': '501', 'segment_count': 2, 'key_selling_points': ['bright', '7']}
    """
    made: dict[str, Any] = {}
    for name, value in fields.items():
        if value == "None":
            raise ConfigError(f"{name}: its template rendered to nothing (None)")
        if (empty := _empty_part(value)) is not None:
            raise ConfigError(f"{name}{empty}: is empty")
        rule = rules.BY_NAME.get(name)
        made[name] = _as_text(rule.kind, value) if rule is not None else value
    return made


def _as_text(kind: str, value: Any) -> Any:
    """Return a number as the text that a field holds; Airflow's native rendering makes a number of a text."""
    if kind in {"string", "url"} and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if kind == "strings" and isinstance(value, list | tuple):
        return [_as_text("string", item) for item in value]
    return value


def _empty_part(value: Any) -> str | None:
    """Return the path of an empty part of a list or an object; None where there is none."""
    parts: Any = ()
    if isinstance(value, Mapping):
        parts = ((f".{name}", item) for name, item in value.items())
    elif isinstance(value, list | tuple):
        parts = ((f"[{index}]", item) for index, item in enumerate(value))
    for path, item in parts:
        if item is None or (isinstance(item, str) and is_nothing(item)):
            return str(path)
        if (deeper := _empty_part(item)) is not None:
            return f"{path}{deeper}"
    return None


# The fields that a decorated function returns.

_NAME = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.\w+)*)\s*\}\}")
_PLAIN = ("ds", "ds_nodash", "ts", "ts_nodash", "run_id", "logical_date", "data_interval_start", "data_interval_end")


def fill_in(value: Any, context: Mapping[str, Any], *, where: str = "") -> Any:
    """Replace the names of a run's plain values in what a function returned: `{{ ds }}`, `{{ params.color }}`.

    The returned value is data, perhaps from a product feed. As a template it could read connections and variables
    and call methods, so only names of plain values are replaced; for anything else the function has Python.

    Args:
        value: A text, list or dict.
        context: Airflow's.
        where: The path of the value, for messages.

    Raises:
        ConfigError: A name is unknown or None, or braces are left.

    Examples:
        >>> fill_in({"product_name": "Lamp of {{ ds }}"}, {"ds": "2026-11-30"})
        {'product_name': 'Lamp of 2026-11-30'}
    """
    if isinstance(value, Mapping):
        return {name: fill_in(item, context, where=f"{where}.{name}".lstrip(".")) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill_in(item, context, where=f"{where}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, str) or not is_pending(value):
        return value

    def replace(found: re.Match[str]) -> str:
        return _plain_value(found[1], context, where=where)

    rest = _NAME.sub("", value)
    if is_pending(rest):
        raise ConfigError(f"{where}: holds more than the name of a value ({value!r}); build the text in the function")
    return _NAME.sub(replace, value)


def _plain_value(name: str, context: Mapping[str, Any], *, where: str) -> str:
    """Return a plain value of the run as text; only mappings are entered, so no method of an object is reached."""
    first, *path = name.split(".")
    found: Any = None
    if first == "params":
        found = context.get("params")
    elif (first, path[:1]) == ("dag_run", ["conf"]):
        found, path = getattr(context.get("dag_run"), "conf", None), path[1:]
    elif first in _PLAIN and not path:
        found = context.get(first)
    for part in path:
        found = found[part] if isinstance(found, Mapping) and part in found else None
    if isinstance(found, date):
        found = found.isoformat()
    if not isinstance(found, str | int | float) or is_nothing(found):
        known = ", ".join((*_PLAIN, "params.NAME", "dag_run.conf.NAME"))
        raise ConfigError(f"{where}: {{{{ {name} }}}} has no value here; known are {known}")
    return str(found)
