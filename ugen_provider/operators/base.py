# SPDX-License-Identifier: Apache-2.0
"""What all operators share: the connection, and how arguments are judged before and after rendering."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from ugen_provider.core.api.errors import ConfigError, UGenError
from ugen_provider.hooks.ugen import UGenHook
from ugen_provider.links.ugen import LINKS
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.triggers.killing import WATCH, Watch, ask_airflow
from ugen_provider.version_compat import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from ugen_provider.core.api.config import ClientConfig
    from ugen_provider.core.jobs.intent import IntentStore

DEFAULT_CONN_ID = UGenHook.default_conn_name
DEFAULT_TIMEOUT = 6 * 3600.0
"""Seconds that a job is waited for by default; the service names none."""


class UsesConnection:
    """An operator or sensor with a connection, whatever else it is."""

    ugen_conn_id: str

    @cached_property
    def hook(self) -> UGenHook:
        """The hook of the connection.

        Raises:
            ConfigError: The template of `ugen_conn_id` rendered to nothing.
        """
        if is_nothing(self.ugen_conn_id):
            raise ConfigError("ugen_conn_id: its template rendered to nothing")
        return UGenHook(self.ugen_conn_id)


class UGenOperator(UsesConnection, BaseOperator):
    """What all operators share.

    Args:
        ugen_conn_id: The connection.
    """

    template_fields: Collection[str] = ("ugen_conn_id",)
    ui_color = "#f3e8ff"
    ui_fgcolor = "#4c1d95"

    def __init__(self, *, ugen_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        with refusing():
            super().__init__(**kwargs)
        self.ugen_conn_id = ugen_conn_id
        with refusing():
            require_named("ugen_conn_id", ugen_conn_id)


class UGenJobOperator(UGenOperator):
    """An operator whose task instance is about one job, which it announces as early as it knows it."""

    operator_extra_links: Collection[BaseOperatorLink] = LINKS

    def __init__(self, *, cancel_on_kill: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = cancel_on_kill
        self._held: Held | None = None
        self._lineage: dict[str, Any] = {}

    def by_scope_key(self, context: Context) -> bool:  # noqa: ARG002  some operators know
        """Whether another mapped instance may have ordered the very same."""
        return False

    def announce(
        self,
        context: Context,
        *,
        job_id: str,
        scope: str = "",
        cancel_on_kill: bool | None = None,
    ) -> Watch:
        """Make the job known while the task still runs: for the links, the plugin, and whoever may cancel it."""
        watch = Watch(
            job_id=job_id,
            ugen_conn_id=self.ugen_conn_id,
            scope=scope,
            attempt=context["ti"].try_number,
            cancel_on_kill=self.cancel_on_kill if cancel_on_kill is None else cancel_on_kill,
            by_scope_key=self.by_scope_key(context),
        )
        push_watch(context, watch)
        self._lineage = {"result": {"job_id": job_id}, "picture": None, "video_model": None}
        return watch

    def told(
        self, result: dict[str, Any], *, picture: str | None = None, video_model: str | None = None
    ) -> dict[str, Any]:
        """Keep what the task returns, for whoever asks where its video came from."""
        self._lineage = {"result": result, "picture": picture, "video_model": video_model}
        return result

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ARG002  OpenLineage's name
        """What Airflow's OpenLineage provider asks for when the task is over, well or badly."""
        if not self._lineage:
            return None
        from ugen_provider.operators.lineage import lineage

        return lineage(**self._lineage)

    @contextmanager
    def holding(
        self, context: Context, job_id: str, config: ClientConfig, store: IntentStore, scope: str
    ) -> Iterator[None]:
        """While this process waits for a job, a kill of the process finds it."""
        self._held = Held(context["ti"], job_id, config, store, scope, self.by_scope_key(context))
        try:
            yield
        finally:
            self._held = None

    def on_kill(self) -> None:
        """Called in a worker that is told to stop: cancel where a person ended the task, leave where a node stops."""
        held = self._held
        if held is None or not self.cancel_on_kill:
            return
        if not ask_airflow(held.ti, job_id=held.job_id, by_scope_key=held.by_scope_key):
            self.log.info("job %s is left: the next attempt attaches to it", held.job_id)
            return
        from ugen_provider.core.api._sync_client import UGenClient
        from ugen_provider.core.api.retries import RetryPolicy
        from ugen_provider.core.jobs.cancelling import cancel

        # Airflow kills for good after 5 s; the client of the interrupted wait is not to be used inside a signal.
        config = replace(held.config, timeout=1.5, retries=RetryPolicy(attempts=1))
        with UGenClient(config=config) as client:
            client.run(cancel(client.caller, held.job_id, reason="kill", store=held.store, scope=held.scope))
        self.log.info("job %s was cancelled, since its task was ended", held.job_id)


def push_watch(context: Context, watch: Watch) -> None:
    """Let everybody see which job a task instance is about: the links, the plugin, whoever may cancel it."""
    from ugen_provider.links.ugen import page_of

    ti = context["ti"]
    ti.xcom_push(key="job_id", value=watch.job_id)
    ti.xcom_push(key=WATCH, value=watch.to_dict())
    for link, page in zip(LINKS, ("job", "video"), strict=True):
        ti.xcom_push(key=link.xcom_key, value=page_of(page, ti))


@dataclass(frozen=True, slots=True)
class Held:
    """What a kill needs to know while a process waits."""

    ti: Any
    job_id: str
    config: ClientConfig
    store: IntentStore
    scope: str
    by_scope_key: bool


class Later(Enum):
    """Stands for a value that the operator finds out itself when it runs."""

    LATER = "later"


def is_pending(value: object) -> bool:
    """Whether a value is known only when the task runs: a template, or what another task returns."""
    if isinstance(value, Later):
        return True
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(is_pending(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(is_pending(item) for item in value)
    return hasattr(value, "resolve") or hasattr(value, "iter_references")


def is_nothing(value: object) -> bool:
    """Whether a template rendered to nothing: to an empty text, or to the word for it.

    Examples:
        >>> is_nothing(" "), is_nothing("None"), is_nothing("Lamp")
        (True, True, False)
    """
    return value is None or str(value).strip() in {"", "None"}


@contextmanager
def refusing() -> Iterator[None]:
    """Refuse arguments: of a DAG that is parsed as they are, of a mapped instance that runs without a retry."""
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


def backstop(deadline: float | None, *, now: float, poll_interval: float) -> timedelta | None:
    """Airflow's own limit for a trigger: after the trigger's, since after it nobody would read the job again."""
    if deadline is None:
        return None
    return timedelta(seconds=max(0.0, deadline - now) + 2 * poll_interval + 60.0)


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
    """Refuse a pause between two looks that is no number of seconds above 0.

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


def require_flags(**flags: object) -> None:
    """Refuse what is neither True nor False: a text such as "no" would count as yes.

    Raises:
        ConfigError: It names the argument.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: must be True or False, got {value!r}")


def to_number(
    name: str, value: object, *, least: float | None = None, most: float | None = None, whole: bool = False
) -> float | None:
    """A number, perhaps as the text of a template; None where it was left out.

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
    """A whole number, as `to_number`.

    Raises:
        ConfigError: It is none, or out of its bounds.
    """
    number = to_number(name, value, least=least, whole=True)
    return None if number is None else int(number)


def require_number(
    name: str, value: object, *, least: float | None = None, most: float | None = None, whole: bool = False
) -> None:
    """Refuse what is no number within its bounds, as far as it is known when the DAG is parsed.

    Raises:
        ConfigError: It names the argument.
    """
    if not is_pending(value):
        to_number(name, value, least=least, most=most, whole=whole)
