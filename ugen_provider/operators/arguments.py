# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments, when the DAG is parsed and again once their templates are rendered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from enum import Enum

from ugen_provider.core.api.errors import ConfigError, UGenError
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.version_compat import AirflowFailException


class RuntimeValue(Enum):
    """A value that the operator finds itself when it runs."""

    LATER = "later"


def is_pending(value: object) -> bool:
    """Return whether a value is known only when the task runs: a template, or what another task returns."""
    if isinstance(value, RuntimeValue):
        return True
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(is_pending(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(is_pending(item) for item in value)
    return hasattr(value, "resolve") or hasattr(value, "iter_references")


def is_nothing(value: object) -> bool:
    """Return whether a template rendered to nothing: to an empty text, or to the word for it.

    Examples:
        >>> is_nothing(" "), is_nothing("None"), is_nothing("Lamp")
        (True, True, False)
    """
    return value is None or str(value).strip() in {"", "None"}


@contextmanager
def refusing() -> Iterator[None]:
    """Refuse arguments: at parsing with the plain error, in a mapped instance that runs without a retry."""
    try:
        yield
    except UGenError as error:
        if _a_task_runs():
            raise UGenFailure(error) from None
        raise
    except TypeError as error:
        # Airflow's own word for an argument that no operator knows, such as a row's column.
        if _a_task_runs():
            raise AirflowFailException(str(error)) from None
        raise


def _a_task_runs() -> bool:
    from airflow.sdk import get_current_context

    try:
        get_current_context()
    except RuntimeError:
        return False
    return True


def seconds(value: float | timedelta | None) -> float | None:
    """Return a duration as a number of seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def require_one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a word that is not on the list.

    Raises:
        ConfigError: It names the argument and the list.
    """
    if not is_pending(value) and value not in allowed:
        raise ConfigError(f"{name}: must be one of {', '.join(allowed)}, got {value!r}")


def require_positive(name: str, value: object, *, or_none: bool = True) -> None:
    """Refuse a duration that is not above 0.

    Raises:
        ConfigError: It names the argument.
    """
    if (value is None and or_none) or is_pending(value):
        return
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or number <= 0:
        raise ConfigError(f"{name}: must be more than 0, got {value!r}")


def require_interval(name: str, value: object) -> None:
    """Refuse a pause between two polls that is no number of seconds above 0.

    Raises:
        ConfigError: It names the argument.
    """
    if isinstance(value, timedelta):
        raise ConfigError(f"{name}: must be a number of seconds, got {value!r}")
    require_positive(name, value, or_none=False)


def require_named(name: str, value: object) -> None:
    """Refuse what is missing or empty; a template may turn out to be anything.

    Raises:
        ConfigError: It names the argument.
    """
    if not is_pending(value) and is_nothing(value):
        raise ConfigError(f"{name}: must be named, got {value!r}")


def require_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False: a text such as "no" would count as yes.

    Raises:
        ConfigError: It names the argument.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: must be True or False, got {value!r}")


def require_flags(**flags: object) -> None:
    """Refuse all that is neither True nor False, by the rule of `require_flag`.

    Raises:
        ConfigError: It names the argument.
    """
    for name, value in flags.items():
        require_flag(name, value)


def to_number(
    name: str, value: object, *, least: float | None = None, most: float | None = None, whole: bool = False
) -> float | None:
    """Return a number, perhaps given as the text of a template; None where it was left out.

    Raises:
        ConfigError: It is none, or out of its bounds.

    Examples:
        >>> to_number("min_score", "0.8", least=0, most=1)
        0.8
    """
    if value is None:
        return None
    if is_nothing(value):
        raise ConfigError(f"{name}: its template rendered to nothing")
    kind = "a whole number" if whole else "a number"
    try:
        number = float(str(value))
    except ValueError:
        raise ConfigError(f"{name}: must be {kind}, got {value!r}") from None
    if isinstance(value, bool) or not math.isfinite(number) or (whole and number != int(number)):
        raise ConfigError(f"{name}: must be {kind}, got {value!r}")
    if least is not None and number < least:
        raise ConfigError(f"{name}: must be at least {least:g}, got {value!r}")
    if most is not None and number > most:
        raise ConfigError(f"{name}: must be at most {most:g}, got {value!r}")
    return number


def to_whole(name: str, value: object, *, least: float | None = None) -> int | None:
    """Return a whole number, by the rules of `to_number`.

    Raises:
        ConfigError: It is none, or out of its bounds.
    """
    number = to_number(name, value, least=least, whole=True)
    return None if number is None else int(number)


def require_number(
    name: str, value: object, *, least: float | None = None, most: float | None = None, whole: bool = False
) -> None:
    """Refuse a value that is no number within its bounds, if it is known when the DAG is parsed.

    Raises:
        ConfigError: It names the argument.
    """
    if not is_pending(value):
        to_number(name, value, least=least, most=most, whole=whole)
