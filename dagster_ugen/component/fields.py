# SPDX-License-Identifier: Apache-2.0
"""Fields of the component's YAML: limits that leave templates alone, and refusals with their place in the file."""

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import dagster as dg
from dagster.components import Model, Resolvable
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dagster_ugen._compat import ResolutionException


def limited(
    default: Any,
    *,
    description: str | None = None,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> Any:
    """A number between limits, of a class of `Args`.

    `Field(ge=…)` would be applied to a template's text too, before it becomes a number.

    Args:
        default: The value where none is given.
        description: What it is for.
        least: The smallest that is allowed.
        above: What it must be more than.
        most: The largest that is allowed.
    """
    limits = {"minimum": least, "exclusiveMinimum": above, "maximum": most}
    schema: dict[str, Any] = {name: limit for name, limit in limits.items() if limit is not None}
    return Field(default=default, description=description, json_schema_extra=schema)


class Placed(Resolvable):
    """Says where in the YAML it is that a value is refused, and nothing of the values: the key is among them."""

    model_config = ConfigDict(hide_input_in_errors=True)

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> Self:
        """Make it from the YAML's attributes.

        Raises:
            ResolutionException: A value is refused.
        """
        try:
            return cast("Self", super().resolve_from_model(context, model))
        except ValidationError as error:
            raise refusal_of(error, context, model=type(model)) from None


class Args(Model, Placed):
    """A section of the YAML, whose `limited` fields are checked once their templates are resolved."""

    @model_validator(mode="after")
    def _check_limits(self) -> "Args":
        for name, field in type(self).model_fields.items():
            limits = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            broken = _broken(getattr(self, name), limits)
            if broken is not None:
                raise ValueError(f"{name}: {broken}")
        return self


def _broken(value: Any, limits: Mapping[str, Any]) -> str | None:
    if not isinstance(value, int | float):
        return None
    least, above, most = (limits.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    if least is not None and value < least:
        return f"must be at least {least:g}, got {value:g}"
    if above is not None and value <= above:
        return f"must be more than {above:g}, got {value:g}"
    if most is not None and value > most:
        return f"must be at most {most:g}, got {value:g}"
    return None


def names(*allowed: str) -> dict[str, Any]:
    """A schema for a mapping in which nothing else may stand, so that `dg check yaml` and editors know the names."""
    return {"properties": {name: {} for name in allowed}, "additionalProperties": False}


def refusal(context: dg.ResolutionContext, *, path: Sequence[str | int], told: str) -> ResolutionException:
    """What is wrong with a component's attributes, with its place in the YAML where there is one.

    Args:
        context: That of the attributes.
        path: Where in them.
        told: What is wrong, and what to do.
    """
    at = [*context.path, *path]
    where = ".".join(map(str, at))
    tree = context.source_position_tree
    if tree is None:
        return ResolutionException(f"{where}: {told}")
    source = tree.source_error(yaml_path=at, inline_error_message=told, value_error=True)
    return ResolutionException(f"{source.file_name}:{source.start_line_no} - {where}: {told}\n{source.snippet}")


def refusal_of(error: ValidationError, context: dg.ResolutionContext, *, model: type[BaseModel]) -> ResolutionException:
    """The first of the errors that pydantic found, without what it was given: the key is among that.

    Args:
        error: What pydantic found.
        context: That of the attributes.
        model: Whose attributes they are.
    """
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    told = first["msg"].removeprefix("Value error, ")
    path: Sequence[str | int] = first["loc"]
    field, _, rest = told.partition(": ")
    if not path and rest and field.partition(".")[0] in model.model_fields:
        path, told = field.split("."), rest
    return refusal(context, path=path, told=told)
