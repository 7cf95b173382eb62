# SPDX-License-Identifier: Apache-2.0
"""`UGenCreateJobsFromFeedOperator`: one task, one feed, as many jobs as it has products.

`SQLRows` are the rows of a query over an Airflow connection, as a feed.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from airflow.configuration import conf

from ugen_provider.core.api import rules
from ugen_provider.core.api.clock import SystemClock
from ugen_provider.core.api.config import redact_text
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError, UGenError
from ugen_provider.core.text import one_line
from ugen_provider.hooks.ugen import not_found
from ugen_provider.operators.arguments import (
    is_pending,
    refusing,
    require_flags,
    require_interval,
    require_named,
    require_number,
    require_one_of,
    require_positive,
    to_whole,
)
from ugen_provider.operators.base import (
    DEFAULT_CONN_ID,
    UGenOperator,
    execution_deadline,
    out_of_time,
    run_lineage,
    send_events,
    trigger_timeout,
    video_asset,
)
from ugen_provider.operators.errors import fail_without_retry
from ugen_provider.triggers.jobs import (
    DEFAULT_POLL_INTERVAL,
    MOST_JOBS,
    UGenJobBatchTrigger,
    UGenSlotTrigger,
    earliest_event,
)
from ugen_provider.version_compat import AirflowNotFoundException, BaseHook

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.xcom_arg import XComArg

    from ugen_provider.core.api.config import ClientConfig
    from ugen_provider.core.batch.report import Report
    from ugen_provider.core.batch.runs import Run
    from ugen_provider.core.batch.spec import FeedRun, Progress
    from ugen_provider.core.batch.supplemental_feed import ShopFormat
    from ugen_provider.core.feeds.errors import FeedError
    from ugen_provider.core.feeds.mapping import FeedMapping
    from ugen_provider.core.ledger.store import Ledger


_BATCH = 1000
_SERVER_SIDE = frozenset({"psycopg", "psycopg2"})
"""Drivers whose usual cursor loads the whole result; a named one reads it in batches."""


class SQLRows:
    """The rows of a query over any connection of `common.sql`, read in batches while the feed is planned.

    A run that continues does not read them again: its plan is in the ledger.

    Args:
        sql: A query whose columns are those of a feed.
        sql_conn_id: An Airflow connection of a database.
        parameters: Parameters of the query, in the form that the database's driver takes.
    """

    def __init__(
        self, sql: str, *, sql_conn_id: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None
    ) -> None:
        self.name = f"the query over connection {sql_conn_id!r}"
        self._sql = sql
        self._sql_conn_id = sql_conn_id
        self._parameters = parameters

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Read the rows.

        Raises:
            ConfigError: The connection is missing, or is none of a database.
            FeedError: The query failed, or returns no rows.
        """
        hook = self._hook()
        number = 0
        try:
            for number, row in enumerate(self._rows(hook), 1):  # noqa: B007  counted for the message
                yield row
        except UGenError:
            raise
        except Exception as error:  # noqa: BLE001  each driver has a tree of errors of its own
            said = one_line(redact_text(str(error) or type(error).__name__), most=300)
            raise self._error(f"it failed after {number} rows: {said}") from None

    def _rows(self, hook: Any) -> Iterator[dict[str, Any]]:
        with closing(hook.get_conn()) as connection, closing(_cursor(connection)) as cursor:
            if self._parameters is None:
                cursor.execute(self._sql)
            else:
                cursor.execute(self._sql, self._parameters)
            batch = cursor.fetchmany(_BATCH)
            if cursor.description is None:
                raise self._error("it returns no rows; write a SELECT")
            names = [str(column[0]) for column in cursor.description]
            while batch:
                for row in batch:
                    yield dict(zip(names, row, strict=True))
                batch = cursor.fetchmany(_BATCH)

    def _hook(self) -> Any:
        try:
            connection = BaseHook.get_connection(self._sql_conn_id)
        except AirflowNotFoundException:
            advice = "sql_conn_id names the connection of the products' database"
            raise not_found(self._sql_conn_id, advice=advice) from None
        try:
            hook: Any = connection.get_hook()  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001  an unknown type, or a provider that cannot be imported
            said = one_line(str(error), most=200)
            raise ConfigError(f"sql_conn_id: connection {self._sql_conn_id!r} cannot be used: {said}") from None
        if not hasattr(hook, "get_conn") or not hasattr(hook, "get_records"):
            raise ConfigError(
                f"sql_conn_id: connection {self._sql_conn_id!r} is of type {connection.conn_type!r}, which is no "
                "database of Airflow's common.sql"
            )
        return hook

    def _error(self, said: str) -> FeedError:
        from ugen_provider.core.feeds.errors import FeedError

        return FeedError(said, source=self.name)


def _cursor(connection: Any) -> Any:
    driver = type(connection).__module__.partition(".")[0]
    return connection.cursor(name="ugen_feed") if driver in _SERVER_SIDE else connection.cursor()


MOST_LOGGED = 20
"""Products that the log names, of each kind."""


class UGenCreateJobsFromFeedOperator(UGenOperator):
    """Make a video for each product of a feed that is new or changed, within a budget, each of them paid for once.

    The feed is read once, into a plan in the ledger, before anything is bought. Then it buys in waves, as many jobs at
    once as the account allows, and waits for each wave in the triggerer, where waiting holds no worker slot. A retry,
    a cleared task or a lost worker continues the run. If the task is killed, its jobs keep running, and the next run
    reuses them.

    Costs the credits of the jobs, never more than `budget`.

    Args:
        feed: A path, an http(s) or fsspec URL, or an `ObjectStoragePath`: Google Merchant, Shopify, Meta and others; or
            rows, as the output of another task.
        sql: Instead of a feed, a query whose columns are those of a feed. Its rows are read in batches.
        sql_conn_id: The connection of the query's database, of any type of `common.sql`.
        sql_parameters: Parameters of the query, in the form of the database's driver.
        catalogue: The catalog of the products; there is no default.
        ledger_conn_id: The connection of the ledger's database: PostgreSQL, or SQLite for one machine. Default: the
            `ledger_conn_id` that the connection names.
        budget: Credits that one run may use; None for no limit; it has no default.
        job_defaults: Fields of every request, such as `segment_count`.
        daily_budget: Credits of all runs of the namespace in a day.
        assume_credits: Credits to count for a job for which the service gives no estimate.
        mapping: The mapping of the feed's columns, as a dict or the path of a YAML file; default: that of its kind.
        encoding: Of a text feed without a byte order mark; default UTF-8.
        max_rejected: Rejected rows above which the run stops before buying; None for any number.
        max_changed: Share of the known products, 0 to 1, above which the run stops before buying them again. Default
            0.2. From this option to `guard_min` they are limits of a whole feed; each refusal names its figures.
        on_changed: Above `max_changed`: `refuse` the run, or `postpone` the changed products and buy the new ones.
        max_gone: Share of the known products, 0 to 1, that the feed may lack. Default 0.2.
        max_new: Products that may be new at most; None for any number.
        allow_new_ids: Whether many products may be new while many others are gone.
        guard_min: Known products from which on these limits apply. Default 10.
        adopt: Whether products with equal requests share one video: `on`; `ask` postpones those that differ in price,
            size or link; `off` buys one for each.
        part: The part of the catalog that the feed is; None for the one that the mapping names.
        only: Ids of the products to plan, or the path of a selection from `ugen feed preview`; None for all.
        limit: Products that are ordered at most; None for the number that the mapping names.
        supplemental: Whether the feed adds to another one, so that no product is gone.
        duplicates: Which row of two with one id counts: `first` or `last`.
        output_path: Where the files go.
        run_key: Names the logical run; default is the DAG run and the task.
        in_flight: Jobs under way at once, at most; None (the default) for as many as the account allows, at most 500.
        on_earlier_failure: For jobs that failed for a reason that a repeat can help: `retry_stage`, `resubmit`, `fail`.
        min_score: The lowest quality score that is good enough; videos below it are counted.
        fail_on_failures: Whether products that failed, or whose files could not be stored, fail the task.
        deferrable: Whether to wait in the triggerer.
        poll_interval: Seconds between polls.
        ugen_conn_id: The connection.

    Returns:
        The report's counts and credits: `completed`, `failed`, `rejected`, `unchanged`, `postponed`, `skipped` and
        `running` add up to `products`. With `output_path`, `report_uri`, `products_uri` and `rejected_uri` are the
        addresses of the report, of the outcome of each product and of the rejected rows. An asset among the outlets
        gets the same; an `AssetAlias` gets an event for each video, of the asset `ugen://CONNECTION/products/PRODUCT`.

    Examples:
        >>> UGenCreateJobsFromFeedOperator(
        ...     task_id="videos",
        ...     feed="s3://shop/feed.xml",
        ...     catalogue="shop",
        ...     ledger_conn_id="ugen_ledger",
        ...     budget=5000,
        ...     job_defaults={"segment_count": 2},
        ... )
        <Task(UGenCreateJobsFromFeedOperator): videos>
    """

    template_fields: Collection[str] = (
        "ugen_conn_id",
        "feed",
        "sql",
        "sql_conn_id",
        "sql_parameters",
        "catalogue",
        "ledger_conn_id",
        "budget",
        "job_defaults",
        "mapping",
        "output_path",
        "run_key",
        "only",
    )
    template_fields_renderers = {"job_defaults": "json", "mapping": "json", "sql": "sql"}
    template_ext = (".sql",)

    def __init__(
        self,
        *,
        catalogue: str,
        feed: Any = None,
        sql: str | None = None,
        sql_conn_id: str | None = None,
        sql_parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        ledger_conn_id: str | None = None,
        budget: int | str | None,
        job_defaults: Mapping[str, Any],
        daily_budget: int | None = None,
        assume_credits: int | None = None,
        mapping: Mapping[str, Any] | str | None = None,
        encoding: str | None = None,
        max_rejected: int | None = None,
        max_changed: float = 0.2,
        on_changed: Literal["refuse", "postpone"] = "refuse",
        max_gone: float = 0.2,
        max_new: int | None = None,
        allow_new_ids: bool = False,
        guard_min: int = 10,
        adopt: Literal["on", "ask", "off"] = "on",
        part: str | None = None,
        only: Sequence[str] | str | None = None,
        limit: int | None = None,
        supplemental: bool = False,
        duplicates: Literal["first", "last"] = "first",
        output_path: Any = None,
        run_key: str | None = None,
        in_flight: int | None = None,
        on_earlier_failure: Literal["retry_stage", "resubmit", "fail"] = "retry_stage",
        min_score: float | None = None,
        fail_on_failures: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        ugen_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(ugen_conn_id=ugen_conn_id, **kwargs)
        self.feed = feed
        self._lineage: dict[str, Any] | None = None
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.sql_parameters = sql_parameters
        self.catalogue = catalogue
        self.ledger_conn_id = ledger_conn_id
        self.budget = budget
        self._without_limit = budget is None
        self.job_defaults = job_defaults
        self.daily_budget = daily_budget
        self.assume_credits = assume_credits
        self.mapping = mapping
        self.encoding = encoding
        self.max_rejected = max_rejected
        self.max_changed = max_changed
        self.on_changed: Literal["refuse", "postpone"] = on_changed
        self.max_gone = max_gone
        self.max_new = max_new
        self.allow_new_ids = allow_new_ids
        self.guard_min = guard_min
        self.adopt: Literal["on", "ask", "off"] = adopt
        self.part = part
        self.only = only
        self.limit = limit
        self.supplemental = supplemental
        self.duplicates: Literal["first", "last"] = duplicates
        self.output_path = output_path
        self.run_key = run_key
        self.in_flight = in_flight
        self.on_earlier_failure: Literal["retry_stage", "resubmit", "fail"] = on_earlier_failure
        self.min_score = min_score
        self.fail_on_failures = fail_on_failures
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        with refusing():
            self._check_arguments()

    def _check_arguments(self) -> None:
        require_one_of("on_earlier_failure", self.on_earlier_failure, ("retry_stage", "resubmit", "fail"))
        require_one_of("on_changed", self.on_changed, ("refuse", "postpone"))
        require_one_of("adopt", self.adopt, ("on", "ask", "off"))
        require_one_of("duplicates", self.duplicates, ("first", "last"))
        require_flags(
            deferrable=self.deferrable,
            fail_on_failures=self.fail_on_failures,
            allow_new_ids=self.allow_new_ids,
            supplemental=self.supplemental,
        )
        require_positive("limit", self.limit, or_none=True)
        require_interval("poll_interval", self.poll_interval)
        require_positive("in_flight", self.in_flight, or_none=True)
        for name in ("budget", "daily_budget", "assume_credits", "max_rejected", "max_new", "guard_min"):
            require_number(name, getattr(self, name), least=0, whole=True)
        for name in ("max_changed", "max_gone", "min_score"):
            require_number(name, getattr(self, name), least=0, most=1)
        if self.output_path is not None:
            require_named("output_path", self.output_path)
        if self.in_flight is not None and self.in_flight > MOST_JOBS:
            raise ConfigError(f"in_flight: at most {MOST_JOBS} at once, got {self.in_flight}")
        require_named("catalogue", self.catalogue)
        if (self.feed is None) == (self.sql is None):
            raise ConfigError("feed: name a feed, or a query by sql and sql_conn_id; one of the two")
        if isinstance(self.feed, str):
            require_named("feed", self.feed)
        if self.sql is not None:
            require_named("sql", self.sql)
            require_named("sql_conn_id", self.sql_conn_id)
        elif self.sql_conn_id is not None or self.sql_parameters is not None:
            raise ConfigError("sql_conn_id: is used only with sql")
        if self.ledger_conn_id is not None:
            require_named("ledger_conn_id", self.ledger_conn_id)
        if isinstance(self.mapping, Mapping) and not is_pending(self.mapping):
            _mapping(self.mapping)
        defaults: object = self.job_defaults
        if not isinstance(defaults, Mapping) and not is_pending(defaults):
            raise ConfigError(f"job_defaults: must be a dict of the request's fields, got {type(defaults).__name__}")
        if isinstance(self.job_defaults, Mapping) and not is_pending(self.job_defaults):
            violations = rules.check(self.job_defaults, pending=("product_name", "product_image_url"))
            if violations:
                raise InvalidRequestError(violations)

    def execute(self, context: Context) -> dict[str, Any]:
        """Buy a wave and wait for it, then the next, until the feed is done."""
        with fail_without_retry(self.ugen_conn_id):
            self._check_arguments()
            if self.budget is None and not self._without_limit:
                raise ConfigError("budget: its template rendered to nothing")
            return self._run(context)

    def _run(self, context: Context, *, expected_id: str | None = None) -> dict[str, Any]:
        from ugen_provider.hooks.ugen import open_ledger

        settings = self.hook.get_settings()
        named = self.ledger_conn_id or settings.ledger_conn_id
        if named is None:
            raise ConfigError(f"ledger_conn_id: must be named here or in connection {self.ugen_conn_id!r}")
        config = settings.config
        spec = self._spec(context, config)
        with open_ledger(named, expected_id=expected_id) as ledger:
            if not self.deferrable:
                from ugen_provider.core.batch.runner import run_feed

                report = run_feed(spec, config=config, ledger=ledger, on_progress=self._progress)
                return self._report(context, report, ledger=ledger, namespace=config.namespace)
            from ugen_provider.core.batch.runner import run_wave

            wave = asyncio.run(run_wave(spec, config=config, ledger=ledger, on_progress=self._progress))
            ledger_id = ledger.ledger_id
            if wave.report is not None:
                return self._report(context, wave.report, ledger=ledger, namespace=config.namespace)
        self._defer(context, wave.job_ids, wave.retry_in, ledger_id=ledger_id)
        raise AssertionError("defer raises")

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Continue with the same run; the jobs are read again from the service and the ledger."""
        self.log.info("%s jobs ended; continuing with the next wave", event.get("ended", 0))
        with fail_without_retry(self.ugen_conn_id):
            self._require_time(context)
            return self._run(context, expected_id=(event.get("payload") or {}).get("ledger_id"))

    def _require_time(self, context: Context) -> None:
        """Refuse to continue a run whose time is up.

        Raises:
            PurchaseError: The task's `execution_timeout` passed.
        """
        end_time = execution_deadline(context, self.execution_timeout)
        if end_time is not None and SystemClock().now() >= end_time:
            doing = "the jobs of the feed ran; they keep running, and the next attempt continues the run"
            raise out_of_time(doing, scope=self._run_id(context))

    def _run_id(self, context: Context) -> str:
        ti = context["ti"]
        return self.run_key or f"{ti.dag_id}/{ti.task_id}/{ti.run_id}"

    def _defer(self, context: Context, job_ids: tuple[str, ...], retry_in: float, *, ledger_id: str) -> None:
        now = SystemClock().now()
        end_time = execution_deadline(context, self.execution_timeout)
        event_after = earliest_event(now, poll_interval=self.poll_interval)
        payload = {"ledger_id": ledger_id}
        if not job_ids:
            trigger: Any = UGenSlotTrigger(
                ugen_conn_id=self.ugen_conn_id,
                not_before=now + retry_in,
                end_time=end_time,
                event_after=event_after,
                payload=payload,
            )
        else:
            self.log.info("%d jobs run; waiting in the triggerer", len(job_ids))
            # A wave for each ended job would start a worker for each; with a quarter of them few slots stay empty.
            trigger = UGenJobBatchTrigger(
                job_ids=job_ids,
                ugen_conn_id=self.ugen_conn_id,
                at_least=math.ceil(len(job_ids) / 4),
                poll_interval=self.poll_interval,
                end_time=end_time,
                event_after=event_after,
                payload=payload,
            )
        after = trigger_timeout(end_time, now=now, poll_interval=self.poll_interval)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=after)

    def _progress(self, progress: Progress) -> None:
        if progress.event == "settled":
            self.log.info("%s: %s %s", progress.product_id, progress.state, progress.reason or "")
        elif progress.event == "stopping" and self.deferrable and progress.reason == "interrupted":
            return  # this process leaves the wave to the triggerer, which `_defer` reports
        elif progress.event in {"planned", "stopping"}:
            self.log.info("%s: %d products %s", progress.event, progress.total, progress.reason or "")

    def _source(self) -> Any:
        """Return the feed, or the rows of the query."""
        if self.sql is None:
            return self.feed
        return SQLRows(self.sql, sql_conn_id=str(self.sql_conn_id), parameters=self.sql_parameters)

    def _report(self, context: Context, report: Report, *, ledger: Ledger, namespace: str) -> dict[str, Any]:
        from ugen_provider.core.batch.report import find_run

        self.log.info("%s", report.table())
        run = find_run(ledger, ledger.find_catalogue(report.catalogue, namespace=namespace), report.run_id)
        stored = self._store_report(report, run, ledger=ledger)
        self._log_products(report, run, ledger=ledger, stored=stored)
        result = {**report.small(), **stored}
        self._send_events(context, result, run, ledger=ledger)
        self.record_lineage(result)
        if self.fail_on_failures and (report.failed or report.not_stored):
            raise ConfigError(
                f"{report.failed} products failed and {report.not_stored} are not wholly stored (the next run fetches "
                "the rest), and fail_on_failures is set; the log names them"
            )
        return result

    def _store_report(self, report: Report, run: Run, *, ledger: Ledger) -> dict[str, str | None]:
        """Store the report beside the videos, and return the addresses of its files."""
        addresses: dict[str, str | None] = {"report_uri": None, "products_uri": None, "rejected_uri": None}
        if self.output_path is None:
            return addresses
        from ugen_provider.core.batch.report import outcomes, rejected_rows
        from ugen_provider.core.media.outputs import safe_name
        from ugen_provider.core.media.stores import Store

        store, folder = Store(self.output_path), f"_runs/{safe_name(report.run_id)}"
        try:
            for name, rows in (("products", outcomes(ledger, run)), ("rejected", rejected_rows(ledger, run))):
                with store.spool(f"{folder}/{name}.jsonl") as part:
                    with part.open("w", encoding="utf-8") as file:
                        file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
                    store.publish(part, f"{folder}/{name}.jsonl")
                addresses[f"{name}_uri"] = store.location(f"{folder}/{name}.jsonl")
            store.write(f"{folder}/report.json", json.dumps(report.to_dict(), indent=2).encode())
            addresses["report_uri"] = store.location(f"{folder}/report.json")
        except OSError as error:  # the videos are stored and paid for; their report is in the ledger too
            self.log.warning("the report could not be stored below %s: %s", self.output_path, error)
        return addresses

    def _log_products(self, report: Report, run: Run, *, ledger: Ledger, stored: Mapping[str, str | None]) -> None:
        """Name the first products that were rejected or failed, then how many more there are and where."""
        from ugen_provider.core.batch.report import outcomes, rejected_rows

        failed = (
            f"{each.product_id}: failed: {each.reason or 'no reason is known'}"
            for each in outcomes(ledger, run)
            if each.state == "failed"
        )
        for count, lines, address in (
            (report.rejected, (f"rejected: {row}" for row in rejected_rows(ledger, run)), stored["rejected_uri"]),
            (report.failed, failed, stored["products_uri"]),
        ):
            with closing(lines):
                for line in islice(lines, MOST_LOGGED):
                    self.log.warning("%s", line)
            where = address or f"`ugen feed report` of run {report.run_id}"
            if count > MOST_LOGGED:
                self.log.warning("... and %d more; see %s", count - MOST_LOGGED, where)

    def _send_events(self, context: Context, result: Mapping[str, Any], run: Run, *, ledger: Ledger) -> None:
        """Attach the result to the events of outlets, and to an alias an event for each video of the run."""
        if not self.outlets:
            return
        from airflow.sdk import AssetAlias

        from ugen_provider.core.batch.report import outcomes

        aliases = [outlet for outlet in self.outlets if isinstance(outlet, AssetAlias)]
        for outlet in self.outlets:
            if outlet not in aliases:
                context["outlet_events"][outlet].extra = {"ugen": dict(result)}
        if not aliases:
            return
        for each in outcomes(ledger, run):
            if each.state == "completed":
                video = {
                    "product_id": each.product_id,
                    "job_id": each.job_id,
                    "status": each.state,
                    "credits_consumed": each.credits,
                    "products_uri": result["products_uri"],
                }
                send_events(context, aliases, video, asset=video_asset(self.ugen_conn_id, each.product_id))

    def record_lineage(self, result: dict[str, Any]) -> None:
        """Keep the run's datasets for OpenLineage."""
        self._lineage = {"feed": self._source_address(), "videos": self.output_path, "result": result}

    def _source_address(self) -> str | None:
        from ugen_provider.core.feeds.sources import is_file, source_name

        return source_name(self.feed) if self.sql is None and is_file(self.feed) else None

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:  # noqa: ARG002  OpenLineage's name
        """Return the datasets of the run: the feed, and the folder of the videos."""
        known = self._lineage
        return None if known is None else run_lineage(known["result"], feed=known["feed"], videos=known["videos"])

    def _spec(self, context: Context, config: ClientConfig) -> FeedRun:
        from ugen_provider.core.batch.budget import Budget
        from ugen_provider.core.batch.spec import FeedRun, Outputs, PlanOptions
        from ugen_provider.core.feeds.mapper import FeedOptions
        from ugen_provider.core.jobs.policy import PurchasePolicy

        outputs = None
        if self.output_path is not None:
            outputs = Outputs(self.output_path, allow_private=config.base_url.startswith("http://"))
        conf_of_run = getattr(context["dag_run"], "conf", None) or {}
        again = conf_of_run.get("ugen_regenerate") or ()
        return FeedRun(
            source=self._source(),
            catalogue=self.catalogue,
            run_id=self._run_id(context),
            job_defaults=rules.coerce(dict(self.job_defaults)),
            budget=Budget(
                credits=to_whole("budget", self.budget, least=0),
                daily=self.daily_budget,
                assume_credits=self.assume_credits,
            ),
            plan=PlanOptions(
                feed=FeedOptions(encoding=self.encoding),
                mapping=_mapping(self.mapping),
                max_rejected=self.max_rejected,
                max_changed=self.max_changed,
                on_changed=self.on_changed,
                max_gone=self.max_gone,
                max_new=self.max_new,
                allow_new_ids=self.allow_new_ids,
                guard_min=self.guard_min,
                adopt=self.adopt,
                part=self.part,
                only=_selection(self.only),
                limit=self.limit,
                supplemental=self.supplemental,
                duplicates=self.duplicates,
                stored=outputs is not None,
                regenerate=frozenset([again] if isinstance(again, str) else again),
            ),
            policy=PurchasePolicy(on_earlier_failure=self.on_earlier_failure, spending=config.spending),
            outputs=outputs,
            min_score=self.min_score,
            in_flight=self.in_flight or MOST_JOBS,
            interval=self.poll_interval,
        )


class UGenExportVideosOperator(UGenOperator):
    """Write which product of a catalog has which video: a feed for a shop, JSONL, or a table of a database. Free.

    It reads the last complete plan of the ledger and asks the service for nothing: a night that was refused or broken
    takes no video from the shop. The file, or the catalog's rows of the table, are replaced as a whole. The task fails
    and leaves them unchanged where there is no product to write, or where too many would lose their videos.

    Args:
        catalogue: The catalog of the products.
        to: A path, or the URL of an object store such as `s3://shop/videos.xml`.
        table_conn_id: Instead of `to`, the connection of a database: one row for each product and variant.
        table: The table. Default `ugen_video`.
        ledger_conn_id: The connection of the ledger's database. Default: the one that the connection names.
        format: `google` (a supplemental RSS feed; default), `tsv`, `meta`, `tiktok`, `pinterest` or `jsonl`.
        stored_at: Where outputs are stored: the feed operator's `output_path`.
        public_at: The URL under which that place is public; both or none.
        min_score: The lowest quality score, 0 to 1, that is shown.
        variant: The variant that a shop shows; default is the first that has a video.
        id_template: The id under which the target knows a product, such as `shopify_DE_{id}`.
        max_gone: Share of the products in the file, 0 to 1, that may lose their videos. Default 0.2.
        allow_shrink: Whether any number of them may.
        ugen_conn_id: The connection.

    Returns:
        A dict: `address`, `products` (how many were written) and `skipped` (how many could not be written). An asset
        among the outlets gets the same.

    Examples:
        >>> UGenExportVideosOperator(task_id="export", catalogue="shop", to="videos.xml", ledger_conn_id="ugen_ledger")
        <Task(UGenExportVideosOperator): export>
    """

    template_fields: Collection[str] = (
        "ugen_conn_id",
        "catalogue",
        "to",
        "table_conn_id",
        "table",
        "ledger_conn_id",
        "stored_at",
        "public_at",
    )

    def __init__(
        self,
        *,
        catalogue: str,
        to: str | None = None,
        table_conn_id: str | None = None,
        table: str = "ugen_video",
        ledger_conn_id: str | None = None,
        format: ShopFormat = "google",  # noqa: A002  the usual word for it
        stored_at: str | None = None,
        public_at: str | None = None,
        min_score: float | None = None,
        variant: str | None = None,
        id_template: str = "{id}",
        max_gone: float = 0.2,
        allow_shrink: bool = False,
        ugen_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(ugen_conn_id=ugen_conn_id, **kwargs)
        self.catalogue = catalogue
        self.to = to
        self.table_conn_id = table_conn_id
        self.table = table
        self.ledger_conn_id = ledger_conn_id
        self.format: ShopFormat = format
        self.stored_at = stored_at
        self.public_at = public_at
        self.min_score = min_score
        self.variant = variant
        self.id_template = id_template
        self.max_gone = max_gone
        self.allow_shrink = allow_shrink
        with refusing():
            require_named("catalogue", catalogue)
            require_one_of("format", format, ("google", "tsv", "meta", "tiktok", "pinterest", "jsonl"))
            require_flags(allow_shrink=allow_shrink)
            for name in ("max_gone", "min_score"):
                require_number(name, getattr(self, name), least=0, most=1)
            if (to is None) == (table_conn_id is None):
                raise ConfigError("to: name a file, or a database by table_conn_id; one of the two")

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the file or the table."""
        from ugen_provider.core.batch.supplemental_feed import Export, TargetIds, export_videos
        from ugen_provider.core.text import without_passwords
        from ugen_provider.hooks.ugen import open_ledger

        skipped = 0

        def on_skipped(product_id: str, reason: str) -> None:
            nonlocal skipped
            skipped += 1
            if skipped <= MOST_LOGGED:
                self.log.warning("product %s is left out: %s", product_id, reason)

        with fail_without_retry(self.ugen_conn_id):
            settings = self.hook.get_settings()
            named = self.ledger_conn_id or settings.ledger_conn_id
            if named is None:
                raise ConfigError(f"ledger_conn_id: must be named here or in connection {self.ugen_conn_id!r}")
            target = self.to if self.table_conn_id is None else _database_url(self.table_conn_id)
            export = Export(
                format=self.format,
                table=self.table,
                stored_at=self.stored_at,
                public_at=self.public_at,
                min_score=self.min_score,
                variant=self.variant,
                ids=TargetIds(self.id_template),
                max_gone=self.max_gone,
                allow_shrink=self.allow_shrink,
            )
            with open_ledger(named) as ledger:
                count = export_videos(
                    ledger,
                    self.catalogue,
                    str(target),
                    namespace=settings.config.namespace,
                    export=export,
                    on_skipped=on_skipped,
                )
        address = str(self.to) if self.table_conn_id is None else f"{without_passwords(str(target))}/{self.table}"
        result: dict[str, Any] = {"address": address, "products": count, "skipped": skipped}
        self.log.info("%s: %d products have their videos there", address, count)
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {"ugen": dict(result)}
        return result


def _database_url(conn_id: str) -> str:
    """Return the SQLAlchemy URL of a connection.

    Raises:
        ConfigError: The connection is missing, or is none of a database.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise not_found(conn_id, advice="table_conn_id names the connection of the table's database") from None
    if connection.conn_type == "sqlite":
        return f"sqlite:///{connection.host or connection.schema or ''}"
    return str(connection.get_uri()).replace("postgres://", "postgresql://", 1)


class UGenReadFeedOperator(UGenOperator):
    """Read a feed, and return what `expand_kwargs` of the create operator takes; see `feed_products`. Free.

    Args:
        feed: As for `UGenCreateJobsFromFeedOperator`.
        job_defaults: Fields of every request, such as `segment_count`.
        mapping: The mapping of the feed's columns, as a dict or the path of a YAML file; default: that of its kind.
        by_product: Whether `scope_key` identifies each instance by its product, which needs a ledger.
    """

    template_fields: Collection[str] = ("ugen_conn_id", "feed", "job_defaults", "mapping")
    template_fields_renderers = {"job_defaults": "json", "mapping": "json"}

    def __init__(
        self,
        *,
        feed: Any,
        job_defaults: Mapping[str, Any],
        mapping: Mapping[str, Any] | str | None = None,
        by_product: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("multiple_outputs", False)  # it returns a list
        super().__init__(**kwargs)
        self.feed = feed
        self.job_defaults = job_defaults
        self.mapping = mapping
        self.by_product = by_product
        with refusing():
            require_flags(by_product=by_product)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Read it, and name the rejected rows in the log."""
        from ugen_provider.core.feeds import FeedOrder, RejectedRow, plan_feed

        orders: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        with fail_without_retry(self.ugen_conn_id):
            defaults = rules.coerce(dict(self.job_defaults))
            mapping = _mapping(self.mapping)
            if mapping is not None:
                mapping.require_no_suggestions()
            for row in plan_feed(self.feed, job_defaults=defaults, mapping=mapping):
                if isinstance(row, FeedOrder):
                    key = {"scope_key": row.product_id} if self.by_product else {"product_id": row.product_id}
                    orders.append({**key, "job": dict(row.fields)})
                elif isinstance(row, RejectedRow):
                    if len(rejected) < MOST_LOGGED:
                        self.log.warning("rejected: %s", row)
                    rejected.append({"line": row.line, "product_id": row.product_id, "reason": str(row)})
        if len(rejected) > MOST_LOGGED:
            self.log.warning("... and %d more; see the XCom 'rejected'", len(rejected) - MOST_LOGGED)
        context["ti"].xcom_push(key="rejected", value=rejected)
        return orders


def feed_products(
    feed: Any,
    *,
    job_defaults: Mapping[str, Any],
    mapping: Mapping[str, Any] | str | None = None,
    by_product: bool = True,
    task_id: str = "read_feed",
) -> XComArg:
    """Return the products of a feed for one mapped task each: what `expand_kwargs` of the create operator takes.

    It adds a task that reads the feed. Rejected rows are named in its log and are its XCom `rejected`.

    Args:
        feed: A path, a URL, an `ObjectStoragePath`, or rows as the output of another task.
        job_defaults: Fields of every request, such as `segment_count`.
        mapping: The mapping of the feed's columns; default: that of its kind.
        by_product: Whether each instance is identified by its product, so that rows may move; needs a ledger.
        task_id: Name of the task that reads.

    Examples:
        ```python
        products = feed_products("s3://shop/feed.xml", job_defaults={"segment_count": 2})
        UGenCreateJobOperator.partial(task_id="make_video", deferrable=True).expand_kwargs(products)
        ```
    """
    reader = UGenReadFeedOperator(
        task_id=task_id, feed=feed, job_defaults=job_defaults, mapping=mapping, by_product=by_product
    )
    return reader.output


def _selection(given: Sequence[str] | str | None) -> frozenset[str] | None:
    """Return the ids of selected products: as a list, or from the file of a selection."""
    from ugen_provider.core.feeds.mapper import read_selection
    from ugen_provider.core.feeds.products import normalized_id

    if given is None or given == "":
        return None
    return read_selection(given) if isinstance(given, str) else frozenset(filter(None, map(normalized_id, given)))


def _mapping(given: Mapping[str, Any] | str | None) -> FeedMapping | None:
    """Return the mapping of the columns, for the kind of feed that will be found."""
    from ugen_provider.core.feeds.mapping import FeedMapping

    if given is None:
        return None
    return FeedMapping.from_file(given) if isinstance(given, str) else FeedMapping.from_dict(dict(given))
