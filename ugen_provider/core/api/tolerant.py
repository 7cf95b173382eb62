# SPDX-License-Identifier: Apache-2.0
"""Field types that never refuse: what cannot be read is None, so that one odd field hides no paid result."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

if TYPE_CHECKING:
    from pendulum import DateTime


def lenient(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """What pydantic reads, or None where it would refuse."""
    if value is None:
        return None
    try:
        return read(value)
    except ValidationError:
        return None


def _plain_utc(text: str) -> datetime | None:
    """What nearly every answer writes; pendulum, which reads far more, takes fourteen times as long for it."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return read if read.tzinfo is UTC else None


def _timestamp(value: Any) -> Any:
    import pendulum

    try:
        if isinstance(value, bool) or value is None:
            return None
        if isinstance(value, int | float):
            return pendulum.from_timestamp(value / 1000 if abs(value) > 1e11 else value)
        if isinstance(value, str):
            if (plain := _plain_utc(value)) is not None:
                return pendulum.DateTime(*plain.timetuple()[:6], plain.microsecond, tzinfo=pendulum.UTC)
            parsed = pendulum.parse(value, tz="UTC")
            return parsed.in_timezone("UTC") if isinstance(parsed, pendulum.DateTime) else None
    except (ValueError, OverflowError, OSError):
        return None
    return value if isinstance(value, pendulum.DateTime) else None


def text_of(value: Any) -> Any:
    """A number as text, as an id may come; everything else as it is."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str | None, WrapValidator(lenient)]
Whole = Annotated[int | None, WrapValidator(lenient)]
Number = Annotated[float | None, WrapValidator(lenient)]
Flag = Annotated[bool | None, WrapValidator(lenient)]
Anything = Annotated[dict[str, Any] | None, WrapValidator(lenient)]
Id = Annotated[str, BeforeValidator(text_of)]
if TYPE_CHECKING:
    Timestamp = DateTime | None
else:
    Timestamp = Annotated[Any, BeforeValidator(_timestamp)]
