# SPDX-License-Identifier: Apache-2.0
"""What all operators share: the connection, and how a job is announced to whoever may watch or cancel it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.hooks.ugen import UGenHook
from ugen_provider.links.ugen import LINKS
from ugen_provider.operators.arguments import is_nothing, refusing, require_named
from ugen_provider.triggers.killing import WATCH, Watch, ask_airflow

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


def backstop(deadline: float | None, *, now: float, poll_interval: float) -> timedelta | None:
    """Airflow's own limit for a trigger: after the trigger's, since after it nobody would read the job again."""
    if deadline is None:
        return None
    return timedelta(seconds=max(0.0, deadline - now) + 2 * poll_interval + 60.0)
