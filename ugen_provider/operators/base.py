# SPDX-License-Identifier: Apache-2.0
"""What all operators share: the connection, and how arguments are judged before and after rendering."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.hooks.ugen import UGenHook
from ugen_provider.links.ugen import LINKS
from ugen_provider.triggers.killing import WATCH, Watch

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

DEFAULT_CONN_ID = UGenHook.default_conn_name
DEFAULT_TIMEOUT = 6 * 3600.0
"""Seconds that a job is waited for by default; the service names none."""


class UGenOperator(BaseOperator):
    """What all operators share.

    Args:
        ugen_conn_id: The connection.
    """

    template_fields: Collection[str] = ("ugen_conn_id",)
    ui_color = "#f3e8ff"
    ui_fgcolor = "#4c1d95"

    def __init__(self, *, ugen_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ugen_conn_id = ugen_conn_id

    @cached_property
    def hook(self) -> UGenHook:
        """The hook of the connection."""
        return UGenHook(self.ugen_conn_id)


class UGenJobOperator(UGenOperator):
    """An operator whose task instance is about one job, which it announces as early as it knows it."""

    operator_extra_links: Collection[BaseOperatorLink] = LINKS

    def announce(
        self,
        context: Context,
        *,
        job_id: str,
        scope: str = "",
        cancel_on_kill: bool = False,
        by_scope_key: bool = False,
    ) -> Watch:
        """Make the job known while the task still runs: for the links, the plugin, and whoever may cancel it."""
        from ugen_provider.links.ugen import page_of

        ti = context["ti"]
        watch = Watch(
            job_id=job_id,
            ugen_conn_id=self.ugen_conn_id,
            scope=scope,
            attempt=ti.try_number,
            cancel_on_kill=cancel_on_kill,
            by_scope_key=by_scope_key,
        )
        ti.xcom_push(key="job_id", value=job_id)
        ti.xcom_push(key=WATCH, value=watch.to_dict())
        for link, page in zip(LINKS, ("job", "video"), strict=True):
            ti.xcom_push(key=link.xcom_key, value=page_of(page, ti))
        return watch


def is_pending(value: object) -> bool:
    """Whether a value is known only when the task runs: a template, or what another task returns."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(is_pending(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(is_pending(item) for item in value)
    return hasattr(value, "resolve") or hasattr(value, "iter_references")


def seconds(value: float | timedelta | None) -> float | None:
    """A duration in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def require_one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a word that is not on the list.

    Raises:
        ConfigError: It names the argument and the list.
    """
    if not is_pending(value) and value not in allowed:
        raise ConfigError(f"{name}: must be one of {', '.join(allowed)}, got {value!r}")


def require_positive(name: str, value: object, *, or_none: bool = True) -> None:
    """Refuse a number that is not above 0.

    Raises:
        ConfigError: It names the argument.
    """
    if (value is None and or_none) or is_pending(value):
        return
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or number <= 0:
        raise ConfigError(f"{name}: must be more than 0, got {value!r}")
