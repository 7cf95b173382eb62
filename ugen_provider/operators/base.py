# SPDX-License-Identifier: Apache-2.0
"""Common base of all operators: the connection, the job that a task publishes, kills, and lineage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial, wraps
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowRuntimeError

from ugen_provider.core.api.clock import SystemClock
from ugen_provider.core.api.errors import ConfigError, PurchaseError, UGenError
from ugen_provider.core.ledger.errors import AttemptSupersededError
from ugen_provider.hooks.ugen import UGenHook
from ugen_provider.links.ugen import LINKS
from ugen_provider.operators.arguments import is_nothing, refusing, require_named
from ugen_provider.operators.errors import UGenFailure
from ugen_provider.operators.templates import StrictTemplates
from ugen_provider.triggers.cancellation import JOB_REF, JobRef, ask_airflow, attempt_name, cancel_killed_job

if TYPE_CHECKING:
    from airflow.sdk import Asset, BaseOperatorLink, Context

    from ugen_provider.core.api.models import Job
    from ugen_provider.core.jobs.results import Scores
    from ugen_provider.hooks.ugen import UGenSettings
    from ugen_provider.operators.task_state import OpenStore

DEFAULT_CONN_ID = UGenHook.default_conn_name
DEFAULT_TIMEOUT = 6 * 3600.0
"""Seconds that a job is waited for by default; the service names none."""

LINEAGE_FACET = "ugen_job"
RUN_FACET = "ugen_feed_run"
_FACET_FIELDS = ("job_id", "status", "outcome", "purchase_number", "credits_reserved", "credits_consumed")


def without_stack(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that raises `UGenFailure` without the stack of this provider below it.

    Such a failure names what to correct. Airflow logs the stack with it, which says nothing to the reader.

    Args:
        method: A method that Airflow calls.
    """

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except UGenFailure as failure:
            raise failure.with_traceback(None) from None

    return call


class UsesConnection(StrictTemplates):
    """An operator or sensor with a connection."""

    ugen_conn_id: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let the methods that Airflow calls raise failures without the stack below them."""
        super().__init_subclass__(**kwargs)
        for name in ("execute", "execute_complete", "execute_slot"):
            if name in cls.__dict__:
                setattr(cls, name, without_stack(cls.__dict__[name]))

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
    """The base of all operators.

    Args:
        ugen_conn_id: The connection.
    """

    template_fields: Collection[str] = ("ugen_conn_id",)
    ui_color = "#f3e8ff"
    ui_fgcolor = "#4c1d95"

    def __init__(self, *, ugen_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        # So that another task can take one value of the result: `make_video.output["final_video_url"]`.
        kwargs.setdefault("multiple_outputs", True)
        with refusing():
            super().__init__(**kwargs)
        self.ugen_conn_id = ugen_conn_id
        with refusing():
            require_named("ugen_conn_id", ugen_conn_id)


class UGenJobOperator(UGenOperator):
    """An operator whose task instance is about one job, which it publishes as early as it knows it."""

    operator_extra_links: Collection[BaseOperatorLink] = LINKS
    cancel_on_kill: bool
    _kill: KillContext | None
    _lineage: dict[str, Any]

    def __init__(self, *, cancel_on_kill: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = cancel_on_kill
        self._set_up_job()

    def _set_up_job(self) -> None:
        """Begin with no job; not by Airflow's `__setattr__`, which costs a DAG of thousands of operators dearly."""
        vars(self).update(_kill=None, _lineage={})

    @classmethod
    def get_serialized_fields(cls) -> frozenset[str]:
        """Return the fields that Airflow serializes; the plugin takes the right to cancel from there."""
        return frozenset(super().get_serialized_fields() | {"cancel_on_kill"})  # type: ignore[no-untyped-call]

    def has_scope_key(self, context: Context) -> bool:  # noqa: ARG002  some operators know
        """Return whether another mapped instance may have the same order."""
        return False

    def publish_job_id(
        self,
        context: Context,
        settings: UGenSettings,
        *,
        job_id: str,
        order_key: str = "",
        token: int = 0,
        ledger_id: str = "",
        cancel_on_kill: bool | None = None,
    ) -> None:
        """Publish the job while the task runs: for the links, the plugin, and the processes that may cancel it."""
        ref = JobRef(
            job_id=job_id,
            ugen_conn_id=self.ugen_conn_id,
            attempt=attempt_name(context["ti"]),
            order_key=order_key,
            token=token,
            ledger_id=ledger_id,
            cancel_on_kill=self.cancel_on_kill if cancel_on_kill is None else cancel_on_kill,
            has_scope_key=self.has_scope_key(context),
        )
        publish_ref(context, ref, settings)
        self._lineage = {"result": {"job_id": job_id}, "picture": None, "video_model": None}

    def record_lineage(
        self, result: dict[str, Any], *, picture: str | None = None, video_model: str | None = None
    ) -> dict[str, Any]:
        """Keep the task's result for OpenLineage, and return it."""
        self._lineage = {"result": result, "picture": picture, "video_model": video_model}
        return result

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ARG002  OpenLineage's name
        """Return the facets that Airflow's OpenLineage provider asks for when the task is over, well or badly."""
        return lineage(**self._lineage) if self._lineage else None

    @contextmanager
    def kill_context(self, context: Context, settings: UGenSettings, opened: OpenStore) -> Iterator[KillContext]:
        """Handle a kill of this process while the block runs: from before the purchase until the result."""
        kill = KillContext()
        kill.start(partial(self._handle_kill, kill, context, settings, opened))
        self._kill = kill
        try:
            yield kill
        except (AttemptSupersededError, AirflowRuntimeError):
            # Where the run was deleted, this process can learn it from an answer of Airflow before the kill comes.
            if kill.job_id is not None and not kill.is_set:
                kill.signal()
            raise
        finally:
            kill.finish()
            self._kill = None

    def on_kill(self) -> None:
        """Set a flag and wake the threads that wait. It runs inside a signal handler, so it does nothing else."""
        kill = self._kill
        if kill is not None:
            kill.signal()

    def _handle_kill(self, kill: KillContext, context: Context, settings: UGenSettings, opened: OpenStore) -> None:
        """Cancel the job where a person ended the task; leave it where a node stops. Runs in a thread of its own."""
        if not self.cancel_on_kill:
            return
        shares_order = self.has_scope_key(context)

        def may_cancel() -> bool:
            return ask_airflow(context["ti"], job_id=kill.job_id, has_scope_key=shares_order)

        try:
            if not may_cancel():
                self.log.info("The attempt ended; job %s keeps running. The next attempt resumes waiting.", kill.job_id)
                return
            from ugen_provider.core.api.client import UGenClient
            from ugen_provider.core.api.retrying import RetryPolicy
            from ugen_provider.core.jobs.sync.world import World

            # Airflow ends the process after 5 s. The connections of the interrupted thread are not used.
            config = replace(settings.config, timeout=1.5, retries=RetryPolicy(attempts=1))
            with UGenClient(config=config) as client, opened.reopened() as store:
                result = cancel_killed_job(
                    World(client, store),
                    job_id=kill.job_id,
                    order_key=kill.order_key,
                    token=kill.token,
                    may_cancel=may_cancel,
                )
        except Exception as error:  # noqa: BLE001  the reconciler or the listener does what is left
            self.log.error(  # noqa: TRY400
                "job %s: its cancellation could not be sent (%s: %s)", kill.job_id, type(error).__name__, error
            )
            return
        if result is not None and result.confirmed:
            self.log.info("job %s: cancelled, since its task was ended", kill.job_id)


class KillContext:
    """A kill of the task's process: a flag, and two queues, since `SimpleQueue` may be used in a signal handler.

    Attributes:
        job_id: The job; None while it is not known.
        order_key: Text key of the order's record; '' where the task has no order.
        token: The attempt's token; 0 where no record is kept.
        is_set: Whether the process was asked to stop. It then creates, retries and resumes nothing.
    """

    def __init__(self) -> None:
        self.job_id: str | None = None
        self.order_key = ""
        self.token = 0
        self.is_set = False
        self._to_thread: SimpleQueue[bool] = SimpleQueue()
        self._to_wait: SimpleQueue[bool] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, handle: Callable[[], None]) -> None:
        """Start the thread that handles a kill; inside the signal handler that could wait for a lock for ever."""

        def run() -> None:
            if self._to_thread.get():
                handle()

        self._thread = threading.Thread(target=run, daemon=True, name="ugen-kill")
        self._thread.start()

    def signal(self) -> None:
        """Note the kill; for a signal handler."""
        self.is_set = True
        self._to_thread.put(True)
        self._to_wait.put(True)

    def finish(self) -> None:
        """Wait until a kill is handled; without one, end the thread."""
        self._to_thread.put(False)
        if self._thread is not None:
            self._thread.join()

    def sleep(self, seconds: float) -> None:
        """Wait, unless the process was asked to stop.

        Raises:
            PurchaseError: It was; the job keeps running.
        """
        if not self.is_set:
            try:
                self._to_wait.get(timeout=max(0.0, seconds))
            except Empty:
                return
        job = f"job {self.job_id} keeps running" if self.job_id else "no job is known"
        raise PurchaseError(
            f"the task's process was asked to stop; {job}, and the next attempt continues",
            scope=self.order_key,
            reason="stopping",
            job_id=self.job_id,
            retryable=True,
        )


class KillClock(SystemClock):
    """A clock whose waits end when the task is killed.

    Args:
        kill: The kill.
    """

    def __init__(self, kill: KillContext) -> None:
        self._kill = kill

    def sleep(self, seconds: float) -> None:
        """Wait, unless the process was asked to stop."""
        self._kill.sleep(seconds)


def video_asset(ugen_conn_id: str, product: str) -> Asset:
    """Return the asset of a product's video, to which an `AssetAlias` among the outlets of a task adds its events.

    Args:
        ugen_conn_id: The connection.
        product: The product's id, or its name where it has none.

    Examples:
        >>> video_asset("ugen_default", "LL 1").uri
        'ugen://ugen_default/products/LL%201'
    """
    from airflow.sdk import Asset

    uri = f"ugen://{ugen_conn_id}/products/{quote(product, safe='')}"
    return Asset(name=uri, uri=uri)


def send_events(context: Context, outlets: Iterable[Any], result: Mapping[str, Any], *, asset: Asset) -> None:
    """Attach a job's result to the events of a task's outlets, under `extra["ugen"]` as webhooks do.

    Args:
        context: Airflow's.
        outlets: Assets get the result; an `AssetAlias` gets an event of `asset` with it.
        result: The result.
        asset: The asset of the product's video.
    """
    from airflow.sdk import AssetAlias

    for outlet in outlets:
        events = context["outlet_events"][outlet]
        if isinstance(outlet, AssetAlias):
            events.add(asset, extra={"ugen": dict(result)})
        else:
            events.extra = {"ugen": dict(result)}


def publish_ref(context: Context, ref: JobRef, settings: UGenSettings) -> None:
    """Push the XComs by which the links, the plugin and other tasks find the job of a task instance."""
    from ugen_provider.links.ugen import page_of

    ti = context["ti"]
    ti.xcom_push(key="job_id", value=ref.job_id)
    ti.xcom_push(key=JOB_REF, value=ref.signed(ti, settings.signer))
    for link, page in zip(LINKS, ("job", "video"), strict=True):
        ti.xcom_push(key=link.xcom_key, value=page_of(page, ti))


def describe_end(job: Job, *, scores: Scores, manifest_uri: str | None = None) -> str:
    """Return the log's last line about a job: how it ended, what it cost, its scores, how long it took, its files.

    Args:
        job: The job, ended.
        scores: Its quality scores.
        manifest_uri: Address of the manifest, where the outputs were stored.
    """
    said = [job.status if job.error_message is None else f"{job.status}: {job.error_message}"]
    if job.created_at is not None and job.completed_at is not None:
        said.append(f"took {(job.completed_at - job.created_at).total_seconds():.0f} s")
    if job.credits_consumed is not None:
        said.append(f"{job.credits_consumed} credits consumed")
    for name, found in (("keyframe", scores.keyframes), ("segment", scores.segments)):
        known = [f"{score:.2f}" for score in found if score is not None]
        said += [f"{name} scores {' '.join(known)}"] if known else []
    said += [f"files {manifest_uri.rpartition('/')[0]}"] if manifest_uri else []
    said.append(job.final_video_url or "no final video")
    return ", ".join(said)


def describe_deadline(deadline: float | None) -> str:
    """Return a deadline for the log.

    Examples:
        >>> describe_deadline(0.0), describe_deadline(None)
        ('until 1970-01-01 00:00:00Z', 'without a deadline')
    """
    if deadline is None:
        return "without a deadline"
    return f"until {datetime.fromtimestamp(deadline, UTC):%Y-%m-%d %H:%M:%SZ}"


def execution_deadline(context: Context, execution_timeout: timedelta | None) -> float | None:
    """Return when a task's `execution_timeout` is over, in seconds since the epoch; None where it has none.

    Airflow enforces it only while a worker runs the task, and from the beginning each time. A task that comes back
    from the triggerer keeps its start date, so the limit is the same after every deferral.
    """
    started = context["ti"].start_date
    if execution_timeout is None or started is None:
        return None
    return float((started + execution_timeout).timestamp())


def earliest(*moments: float | None) -> float | None:
    """Return the first of several moments; None for none.

    Examples:
        >>> earliest(None, 20.0, 10.0), earliest(None)
        (10.0, None)
    """
    return min((moment for moment in moments if moment is not None), default=None)


def out_of_time(what: str, *, scope: str) -> PurchaseError:
    """Return the error for a task whose `execution_timeout` passed while no single job was waited for.

    Args:
        what: What the task did, and what it leaves.
        scope: The order, or the run.
    """
    return PurchaseError(
        f"execution_timeout passed while {what}", scope=scope, reason="execution_timeout", retryable=True
    )


def trigger_timeout(deadline: float | None, *, now: float, poll_interval: float) -> timedelta | None:
    """Return Airflow's own limit for a trigger: after the trigger's, since after it no process reads the job again."""
    if deadline is None:
        return None
    return timedelta(seconds=max(0.0, deadline - now) + 2 * poll_interval + 60.0)


def is_last_try(context: Context, error: Exception) -> bool:
    """Return whether Airflow does not retry the task after this error."""
    from ugen_provider.operators.errors import is_permanent

    ti: Any = context["ti"]
    permanent = isinstance(error, UGenError) and is_permanent(error)
    return permanent or int(ti.try_number) > int(getattr(ti, "max_tries", 0) or 0)


# Lineage.


def dataset_address(address: str) -> tuple[str, str]:
    """Return OpenLineage's namespace and name of an address, without a signature or a login.

    Examples:
        >>> dataset_address("s3://aws_default@videos/LL-1/manifest.json")
        ('s3://videos', 'LL-1/manifest.json')
        >>> dataset_address("https://shop.example/lamp.jpg?sig=abc")
        ('https://shop.example', '/lamp.jpg')
        >>> dataset_address("/data/videos")
        ('file', '/data/videos')
    """
    parts = urlsplit(address)
    if parts.scheme in {"", "file"}:
        return "file", parts.path
    host = parts.netloc.rpartition("@")[2]
    path = parts.path if parts.scheme in {"http", "https"} else parts.path.lstrip("/")
    return f"{parts.scheme}://{host}", path or "/"


def lineage(result: Mapping[str, Any], *, picture: str | None, video_model: str | None) -> Any:
    """Return an `OperatorLineage` of a job: its picture, its videos and its cost.

    Only Airflow's OpenLineage provider asks for it; without that provider nothing of OpenLineage is imported.

    Args:
        result: The task's result, as far as it came.
        picture: Address of the product's picture.
        video_model: The model that was asked for; None for the service's default.
    """
    extractors = import_module("airflow.providers.openlineage.extractors")
    event, facets = import_module("openlineage.client.event_v2"), import_module("openlineage.client.facet_v2")
    output = result.get("manifest_uri") or result.get("final_video_url")
    if result.get("manifest_uri"):
        output = str(output).rpartition("/")[0]  # the folder: the manifest names its files

    def dataset(kind: Any, address: str) -> Any:
        namespace, name = dataset_address(address)
        return kind(namespace=namespace, name=name)

    fields = {name: result.get(name) for name in _FACET_FIELDS}
    facet = facets.RunFacet().with_additional_properties(**fields, video_model=video_model)
    return extractors.OperatorLineage(
        inputs=[dataset(event.InputDataset, picture)] if picture else [],
        outputs=[dataset(event.OutputDataset, str(output))] if output else [],
        run_facets={LINEAGE_FACET: facet},
    )


def run_lineage(result: Mapping[str, Any], *, feed: str | None, videos: Any) -> Any:
    """Return an `OperatorLineage` of a feed run: the feed, the folder of the videos, and the counts.

    Args:
        result: The run's counts and credits.
        feed: Address of the feed; None for rows.
        videos: The folder; None where outputs are not stored.
    """
    extractors = import_module("airflow.providers.openlineage.extractors")
    event, facets = import_module("openlineage.client.event_v2"), import_module("openlineage.client.facet_v2")

    def dataset(kind: Any, address: str) -> Any:
        namespace, name = dataset_address(address)
        return kind(namespace=namespace, name=name)

    counts = {name: value for name, value in result.items() if isinstance(value, int | str)}
    return extractors.OperatorLineage(
        inputs=[dataset(event.InputDataset, feed)] if feed else [],
        outputs=[dataset(event.OutputDataset, str(videos))] if videos else [],
        run_facets={RUN_FACET: facets.RunFacet().with_additional_properties(**counts)},
    )
