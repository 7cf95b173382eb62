# SPDX-License-Identifier: Apache-2.0
"""`UGenCreateJobsFromFeedOperator`: one task, one feed, as many jobs as it has products."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from airflow.configuration import conf

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError
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
from ugen_provider.operators.base import DEFAULT_CONN_ID, UGenOperator
from ugen_provider.operators.errors import failing_for_good
from ugen_provider.operators.machines import tasks_span_machines
from ugen_provider.triggers.jobs import DEFAULT_POLL_INTERVAL, MOST_JOBS, UGenJobBatchTrigger, UGenSlotTrigger
from ugen_provider.version_compat import BaseHook

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api.config import ClientConfig
    from ugen_provider.core.batch.spec import FeedRun, Progress
    from ugen_provider.core.feeds.mapping import FeedMapping


class UGenCreateJobsFromFeedOperator(UGenOperator):
    """Make a video for each product of a feed that is new or changed, within a budget, each of them paid for once.

    The feed is read once, into a plan in the ledger, before anything is bought. Then it buys in waves, as many jobs at
    once as the account allows, and waits for each wave in the triggerer, where waiting holds no worker slot. A retry,
    a cleared task or a lost worker goes on where the run was. Killing the task leaves the jobs; the next run takes
    them.

    Costs the credits of the jobs, never more than `budget`.

    Args:
        feed: A path, an http(s) or fsspec URL, or an `ObjectStoragePath`: Google Merchant, Shopify, Meta and others.
        catalogue: What the videos belong to; there is no default.
        ledger_conn_id: The connection of the ledger's database: PostgreSQL, or SQLite for one machine.
        budget: Credits that one run may use; None for no limit, said on purpose.
        job_defaults: Fields of every request, such as `segment_count`.
        daily_budget: Credits of all runs of the namespace in a day.
        assume_credits: What to count for a job whose cost the service does not tell.
        mapping: What the feed's columns become, as a dict or as the path of a YAML file; else the default of its kind.
        encoding: Of a text feed without a byte order mark; default UTF-8.
        max_rejected: Rejected rows above which the run stops before buying; None for any number.
        max_changed: Share of known products above which the run stops before buying them again.
        output_path: Where the files go.
        run_key: Names the logical run; default is the DAG run and the task.
        in_flight: Jobs under way at once, at most; fewer where the account allows fewer.
        on_earlier_failure: For jobs that failed for a reason that a repeat can mend: `retry_stage`, `resubmit`, `fail`.
        min_score: The lowest quality score that is good enough; what is below is counted.
        fail_on_failures: Whether products that failed, or whose files could not be stored, fail the task.
        deferrable: Whether to wait in the triggerer.
        poll_interval: Seconds between looks.
        ugen_conn_id: The connection.

    Returns:
        The report's counts and credits: `completed`, `failed`, `rejected`, `unchanged`, `postponed`, `skipped` and
        `running` add up to `products`.

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
        "catalogue",
        "ledger_conn_id",
        "budget",
        "job_defaults",
        "mapping",
        "output_path",
        "run_key",
    )
    template_fields_renderers = {"job_defaults": "json", "mapping": "json"}

    def __init__(
        self,
        *,
        feed: Any,
        catalogue: str,
        ledger_conn_id: str,
        budget: int | str | None,
        job_defaults: Mapping[str, Any],
        daily_budget: int | None = None,
        assume_credits: int | None = None,
        mapping: Mapping[str, Any] | str | None = None,
        encoding: str | None = None,
        max_rejected: int | None = None,
        max_changed: float = 0.2,
        output_path: Any = None,
        run_key: str | None = None,
        in_flight: int = 20,
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
        require_flags(deferrable=self.deferrable, fail_on_failures=self.fail_on_failures)
        require_interval("poll_interval", self.poll_interval)
        require_positive("in_flight", self.in_flight, or_none=False)
        for name in ("budget", "daily_budget", "assume_credits", "max_rejected"):
            require_number(name, getattr(self, name), least=0, whole=True)
        for name in ("max_changed", "min_score"):
            require_number(name, getattr(self, name), least=0, most=1)
        if self.output_path is not None:
            require_named("output_path", self.output_path)
        if self.in_flight > MOST_JOBS:
            raise ConfigError(f"in_flight: at most {MOST_JOBS} at once, got {self.in_flight}")
        for name in ("feed", "catalogue", "ledger_conn_id"):
            require_named(name, getattr(self, name))
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
        """Buy a wave, and wait for it; then the next, until the feed is done."""
        with failing_for_good(self.ugen_conn_id):
            self._check_arguments()
            if self.budget is None and not self._without_limit:
                raise ConfigError("budget: its template rendered to nothing")
            config, address = self.hook.config, ledger_address(self.ledger_conn_id)
            spec = self._spec(context, config)
            if not self.deferrable:
                return self._blocking(spec, config, address)
            from ugen_provider.core.batch.ledger import Ledger
            from ugen_provider.core.batch.waves import run_wave

            with Ledger(address, shared=tasks_span_machines()) as ledger:
                wave = asyncio.run(run_wave(spec, config=config, ledger=ledger, on_progress=self._progress))
            if wave.report is not None:
                return self._report(wave.report)
            self._defer(wave.job_ids, wave.retry_in)
        raise AssertionError("defer raises")

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on with the same run; what the event says is read again from the service and the ledger."""
        self.log.info("%s jobs ended; the next wave", event.get("ended", 0))
        return self.execute(context)

    def _defer(self, job_ids: tuple[str, ...], retry_in: float) -> None:
        import time

        if not job_ids:
            waits: Any = UGenSlotTrigger(ugen_conn_id=self.ugen_conn_id, not_before=time.time() + retry_in)
        else:
            self.log.info("%d jobs run; waiting in the triggerer", len(job_ids))
            # A wave per ended job would start a worker for each; per quarter of them few slots stand empty.
            waits = UGenJobBatchTrigger(
                job_ids=job_ids,
                ugen_conn_id=self.ugen_conn_id,
                at_least=math.ceil(len(job_ids) / 4),
                poll_interval=self.poll_interval,
            )
        self.defer(trigger=waits, method_name="execute_complete")

    def _blocking(self, spec: FeedRun, config: ClientConfig, address: str) -> dict[str, Any]:
        from ugen_provider.core.batch.blocking import run_feed
        from ugen_provider.core.batch.ledger import Ledger

        with Ledger(address, shared=tasks_span_machines()) as ledger:
            return self._report(run_feed(spec, config=config, ledger=ledger, on_progress=self._progress))

    def _progress(self, progress: Progress) -> None:
        if progress.event == "settled":
            self.log.info("%s: %s %s", progress.product_id, progress.state, progress.reason or "")
        elif progress.event in {"planned", "stopping"}:
            self.log.info("%s: %d products %s", progress.event, progress.total, progress.reason or "")

    def _report(self, report: Any) -> dict[str, Any]:
        self.log.info("%s", report.table())
        if self.fail_on_failures and (report.failed or report.not_stored):
            raise ConfigError(
                f"{report.failed} products failed and {report.not_stored} are not wholly stored (the next run fetches "
                "the rest), and fail_on_failures is set; the log names them"
            )
        small: dict[str, Any] = report.small()
        return small

    def _spec(self, context: Context, config: ClientConfig) -> FeedRun:
        from ugen_provider.core.batch.budget import Budget
        from ugen_provider.core.batch.planning import PlanOptions
        from ugen_provider.core.batch.spec import FeedRun, Outputs
        from ugen_provider.core.feeds.planning import FeedOptions
        from ugen_provider.core.jobs.buying import BuyingPolicy

        ti = context["ti"]
        outputs = None
        if self.output_path is not None:
            outputs = Outputs(self.output_path, allow_private=config.base_url.startswith("http://"))
        conf_of_run = getattr(context["dag_run"], "conf", None) or {}
        again = conf_of_run.get("ugen_regenerate") or ()
        return FeedRun(
            source=self.feed,
            catalogue=self.catalogue,
            run_id=self.run_key or f"{ti.dag_id}/{ti.task_id}/{ti.run_id}",
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
                stored=outputs is not None,
                regenerate=frozenset([again] if isinstance(again, str) else again),
            ),
            policy=BuyingPolicy(on_earlier_failure=self.on_earlier_failure, spending=config.spending),
            outputs=outputs,
            min_score=self.min_score,
            in_flight=self.in_flight,
            interval=self.poll_interval,
        )


def _mapping(given: Mapping[str, Any] | str | None) -> FeedMapping | None:
    """What columns become, for the kind of feed that will be found."""
    from ugen_provider.core.feeds.mapping import FeedMapping

    if given is None:
        return None
    return FeedMapping.from_file(given) if isinstance(given, str) else FeedMapping.from_dict(dict(given))


def ledger_address(ledger_conn_id: str) -> str:
    """The address of a ledger, from an Airflow connection to PostgreSQL or SQLite.

    Raises:
        ConfigError: The connection is missing or of another kind.
        ConnectionUnreadableError: Airflow could not look for it.
    """
    from ugen_provider.hooks.missing import not_found
    from ugen_provider.version_compat import AirflowNotFoundException

    try:
        connection = BaseHook.get_connection(ledger_conn_id)
    except AirflowNotFoundException:
        raise not_found(ledger_conn_id, advice="add it for the ledger's database, PostgreSQL or SQLite") from None
    if connection.conn_type == "sqlite":
        return str(connection.host or connection.schema or "")
    if connection.conn_type in {"postgres", "postgresql"}:
        return "postgresql://" + str(connection.get_uri()).split("://", 1)[1]
    raise ConfigError(f"connection {ledger_conn_id!r} is of type {connection.conn_type!r}; use postgres or sqlite")
