# SPDX-License-Identifier: Apache-2.0
"""`UGenCreateJobOperator`: one video, bought once. Its arguments, its order, and the loop that ends with the video."""

from __future__ import annotations

import html
import inspect
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.configuration import conf

from ugen_provider.core.api import rules
from ugen_provider.core.api.clock import clock_of
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError, NotFoundError, PurchaseError, UGenError
from ugen_provider.core.api.polling import JobError, JobTimeoutError
from ugen_provider.core.ledger.errors import AttemptSupersededError
from ugen_provider.links.ugen import page_of
from ugen_provider.operators.arguments import (
    is_nothing,
    is_pending,
    refusing,
    require_flag,
    require_interval,
    require_named,
    require_number,
    require_one_of,
    require_positive,
    seconds,
    to_number,
    to_whole,
)
from ugen_provider.operators.base import (
    DEFAULT_CONN_ID,
    DEFAULT_TIMEOUT,
    KillClock,
    KillContext,
    UGenJobOperator,
    UGenOperator,
    describe_deadline,
    describe_end,
    earliest,
    execution_deadline,
    is_last_try,
    out_of_time,
    send_events,
    trigger_timeout,
    video_asset,
)
from ugen_provider.operators.errors import fail_without_retry
from ugen_provider.operators.task_state import (
    OpenStore,
    import_cancels,
    open_order_store,
    order_key_of,
    search_since,
    settle_by_conf,
)
from ugen_provider.operators.templates import GivenFields, rendered_fields
from ugen_provider.triggers.cancellation import attempt_name
from ugen_provider.triggers.jobs import DEFAULT_POLL_INTERVAL, UGenJobTrigger, UGenSlotTrigger, earliest_event

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api.client import UGenClient
    from ugen_provider.core.api.config import ClientConfig
    from ugen_provider.core.api.polling import WaitOutcome
    from ugen_provider.core.jobs.order import Order, OrderKey, Purchase
    from ugen_provider.core.jobs.results import WaitForSlot
    from ugen_provider.core.jobs.sync.world import World
    from ugen_provider.core.ledger.record import OrderRecord
    from ugen_provider.hooks.ugen import UGenSettings

JOB_FIELDS = tuple(rule.name for rule in rules.FIELDS if rule.name != "idempotency_key")
"""The fields of a request that are arguments; the idempotency key is derived from the order."""


@dataclass(slots=True)
class Attempt:
    """One attempt of a task at its order.

    Attributes:
        context: Airflow's.
        settings: Of the connection.
        client: Calls the API.
        opened: Where the order's record is kept.
        world: Contacts with the outside.
        order: The order.
        kill: A kill of this process.
        last: The purchase as last seen; None before there is one.
    """

    context: Context
    settings: UGenSettings
    client: UGenClient
    opened: OpenStore
    world: World
    order: Order
    kill: KillContext
    last: Purchase | None = None


class UGenCreateJobOperator(UGenJobOperator):
    """Make one video, and pay for it once.

    A retry, a cleared task, a lost worker or a restarted triggerer never buys a second video: the next attempt finds
    the job of an earlier one, and waits for it or reuses it. To buy another video, set a new value of `regenerate`.

    Costs the credits of one job, reserved when it is created. Calls `POST /jobs` and `GET /jobs/{jobId}`.

    Args:
        job: The request's fields as one dict; the arguments of the same names below replace its entries.
        product_image: A picture that the service cannot reach, instead of `product_image_url`: a path, an fsspec URL or
            an `ObjectStoragePath`. It is uploaded once per content.
        ugen_conn_id: The connection.
        wait_for_completion: Whether to wait until the job has ended, or is paused at `stop_at_stage`.
        deferrable: Whether to wait in the triggerer, where waiting holds no worker slot.
        poll_interval: Seconds between polls; the service asks for 5 to 10.
        timeout: Seconds to wait for the job, or a timedelta; None waits without limit. Default 6 hours. Waiting for a
            job slot of the account does not count. The job keeps running, and the next attempt resumes waiting for it.
        output_path: Where the finished job's files go: a path, a URL or an `ObjectStoragePath`. The result then has
            the address of the manifest.
        product_id: The product, for the folder below `output_path`; default is `scope_key`.
        idempotency: The unit that is ordered once: this `task_instance`, or a product of a catalog by its `content`,
            over all tasks and runs. The second needs `catalogue`, `product_id` and `ledger_conn_id`.
        catalogue: The catalog of the product.
        ledger_conn_id: The connection of the ledger's database: PostgreSQL, or SQLite for one machine. Default: the
            `ledger_conn_id` that the connection names.
        scope_key: Identifies a mapped row in place of its map index, for rows that may be reordered. Needs a ledger.
        order_key: Replaces the task id in the order's identity, for tasks that are renamed. Needs a ledger.
        regenerate: A value that asks for another video; each new value buys once. Also by
            `dag_run.conf["ugen_regenerate"]`.
        on_earlier_failure: For a job that failed in an earlier attempt for a reason that a repeat can help:
            `retry_stage` (default) runs it again from the failed stage, `resubmit` buys another one, `fail` fails.
        max_stage_retries: Stage retries in all, over all attempts. Default 2.
        on_paused: For a job that another user paused: `wait` until it is resumed (default), or `fail`.
        queue_timeout: Seconds to wait while the account's job limit is reached; None waits without limit.
        cancel_on_kill: Whether the job is cancelled when a person ends the task instance or its run, or the run times
            out. A cleared task, a lost worker or a stopped node never cancels: the next attempt reattaches. Default:
            yes, and no with `content`.
        cancel_on_timeout: Whether `timeout` also cancels the job.
        on_final_failure: For a job that runs on after its task failed for good: `collect` (default) lets the
            reconciler store its outputs when it ends, `cancel` cancels it. To collect needs a ledger.
        max_credits: Most credits that the job may reserve.
        min_score: The lowest quality score that is good enough, 0 to 1.
        on_low_quality: For a job below it: `warn` adds a warning to the result, `fail` fails.

    The remaining arguments are the fields of `CreateJob`, all templated.

    Returns:
        A small dict: `job_id`, `status`, `product_name`, `final_video_url`, `credits_consumed`, `keyframe_scores`,
        `manifest_uri`, how the attempt came to the job (`outcome`), `purchase_number`, `request_changed` and
        `warnings`. Other tasks take single values: `make_video.output["final_video_url"]`. The events of outlets carry
        it as `extra["ugen"]`; for an `AssetAlias` they are events of the asset `ugen://CONNECTION/products/PRODUCT`.

    Examples:
        >>> UGenCreateJobOperator(
        ...     task_id="make_video",
        ...     product_name="Lamp",
        ...     product_image_url="https://shop.example/lamp.jpg",
        ...     segment_count=2,
        ...     deferrable=True,
        ... )
        <Task(UGenCreateJobOperator): make_video>
    """

    template_fields: Collection[str] = GivenFields(
        (
            "ugen_conn_id",
            "job",
            "product_image",
            *JOB_FIELDS,
            "output_path",
            "product_id",
            "catalogue",
            "ledger_conn_id",
            "scope_key",
            "order_key",
            "regenerate",
            "max_credits",
            "min_score",
        )
    )
    template_fields_renderers = {"job": "json", "custom_caption_options": "json", "voice_settings": "json"}

    # The fields of the request are attributes of the same names, too.
    job: Any
    product_image: Any
    wait_for_completion: bool
    deferrable: bool
    poll_interval: float
    timeout: float | timedelta | None
    output_path: Any
    product_id: str | None
    idempotency: Literal["task_instance", "content"]
    catalogue: str | None
    ledger_conn_id: str | None
    scope_key: str | None
    order_key: str | None
    regenerate: str | None
    on_earlier_failure: Literal["retry_stage", "resubmit", "fail"]
    max_stage_retries: int
    on_paused: Literal["wait", "fail"]
    queue_timeout: float | timedelta | None
    cancel_on_timeout: bool
    on_final_failure: Literal["collect", "cancel"]
    max_credits: int | str | None
    min_score: float | str | None
    on_low_quality: Literal["warn", "fail"]

    def __init__(
        self,
        *,
        job: Any = None,
        product_image: Any = None,
        product_name: str | None = None,
        product_image_url: str | None = None,
        segment_count: int | str | None = None,
        video_model: str | None = None,
        video_resolution: str | None = None,
        aspect_ratio: str | None = None,
        segment_duration: int | str | None = None,
        interaction_mode: str | None = None,
        environment_description: str | None = None,
        key_selling_points: Sequence[str] | str | None = None,
        cta_text: str | None = None,
        custom_script: str | None = None,
        script_structure: str | None = None,
        script_tone: str | None = None,
        persona_id: str | None = None,
        captions_enabled: bool | str | None = None,
        caption_style: str | None = None,
        custom_caption_options: Mapping[str, Any] | str | None = None,
        music_enabled: bool | str | None = None,
        music_mood: str | None = None,
        music_volume: float | str | None = None,
        custom_music_id: str | None = None,
        elevenlabs_voice_id: str | None = None,
        voice_settings: Mapping[str, Any] | str | None = None,
        qai_enabled: bool | str | None = None,
        qai_mode: str | None = None,
        max_retries_keyframe: int | str | None = None,
        max_retries_video: int | str | None = None,
        human_review: str | None = None,
        human_review_max_rejections: int | str | None = None,
        human_review_budget: str | None = None,
        failure_behavior: str | None = None,
        stop_at_stage: str | None = None,
        webhook_url: str | None = None,
        ugen_conn_id: str = DEFAULT_CONN_ID,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        timeout: float | timedelta | None = DEFAULT_TIMEOUT,
        output_path: Any = None,
        product_id: str | None = None,
        idempotency: Literal["task_instance", "content"] = "task_instance",
        catalogue: str | None = None,
        ledger_conn_id: str | None = None,
        scope_key: str | None = None,
        order_key: str | None = None,
        regenerate: str | None = None,
        on_earlier_failure: Literal["retry_stage", "resubmit", "fail"] = "retry_stage",
        max_stage_retries: int = 2,
        on_paused: Literal["wait", "fail"] = "wait",
        queue_timeout: float | timedelta | None = None,
        cancel_on_kill: bool | None = None,
        cancel_on_timeout: bool = False,
        on_final_failure: Literal["collect", "cancel"] = "collect",
        max_credits: int | str | None = None,
        min_score: float | str | None = None,
        on_low_quality: Literal["warn", "fail"] = "warn",
        **kwargs: Any,
    ) -> None:
        given = locals()
        chosen = {name: given[name] for name, default in DEFAULTS.items() if given[name] is not default}
        # An order of a product belongs to no task alone.
        cancels = idempotency != "content" if cancel_on_kill is None else cancel_on_kill
        # A DAG may have thousands of operators, so what costs most is left out: Airflow's work on each further
        # `__init__` (the arguments of the two between here and Airflow's are arguments here) and for each attribute.
        kwargs.setdefault("multiple_outputs", True)
        with refusing():
            super(UGenOperator, self).__init__(**kwargs)
            self._set_up_job()
            vars(self).update(DEFAULTS, **{**chosen, "cancel_on_kill": cancels})
            self._check_arguments(chosen)

    def _check_arguments(self, chosen: Mapping[str, Any]) -> None:
        """Refuse arguments that are known to be wrong when the DAG is parsed; those with their default are right."""
        for name, value in chosen.items():
            if (check := CHECKS.get(name)) is not None:
                check(name, value)
        self._check_identity()
        whole_job_pending = self.job is not None and not isinstance(self.job, Mapping)
        if whole_job_pending and not is_pending(self.job):
            raise ConfigError(f"job: must be a dict of the request's fields, got {type(self.job).__name__}")
        fields = self._fields()
        if self.product_image is not None and fields.get("product_image_url") is not None:
            raise ConfigError("product_image: is uploaded instead of product_image_url; give one of the two")
        pending = [name for name, value in fields.items() if is_pending(value)]
        if self.product_image is not None:
            pending.append("product_image_url")
        violations = rules.check(fields, pending=pending, partial=whole_job_pending)
        if violations:
            raise InvalidRequestError(violations)

    def _check_identity(self) -> None:
        """Refuse arguments that contradict the unit that is ordered once."""
        if self.idempotency == "content":
            for name in ("catalogue", "product_id"):
                if not getattr(self, name):
                    raise ConfigError(f"{name}: must be named with idempotency='content'")
            for name in ("cancel_on_kill", "cancel_on_timeout"):
                if getattr(self, name):
                    raise ConfigError(f"{name}: a product's job belongs to no task alone; leave it out with 'content'")
            for name in ("scope_key", "order_key"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name}: with idempotency='content' the product is the order; leave it out")
            if self.on_final_failure == "cancel":
                raise ConfigError("on_final_failure: a product's job belongs to no task alone; leave it out")
        elif self.catalogue is not None:  # with a catalog a user expects to pay once for each product, over all runs
            raise ConfigError("catalogue: is used only with idempotency='content'; add that, or leave it out")

    def _fields(self) -> dict[str, Any]:
        """Return the request's fields as they are now: the dict, with the arguments replacing its entries."""
        fields = dict(self.job) if isinstance(self.job, Mapping) else {}
        if fields.get("idempotency_key") is not None:
            raise ConfigError("job: idempotency_key is derived from the task; use scope_key or regenerate instead")
        given = vars(self)
        return {**fields, **{name: given[name] for name in JOB_FIELDS if given[name] is not None}}

    # One attempt.

    def execute(self, context: Context) -> dict[str, Any]:
        """Buy, or find the job of an earlier attempt, and wait."""
        with self._attempt(context) as attempt:
            self._report_renamed(attempt)
            return self._run_until_done(attempt)

    def _report_renamed(self, attempt: Attempt) -> None:
        """Log that a task which is cleared under a new name orders again what it has ordered under its old one."""
        opened, order = attempt.opened, attempt.order
        from ugen_provider.core.jobs.order import parse_record_key
        from ugen_provider.core.ledger.orders import LedgerOrderStore

        is_new = opened.in_ledger and order.key.kind == "task" and attempt.world.read(order.record_key) is None
        if not is_new or not isinstance(opened.store, LedgerOrderStore):
            return
        dag_id, run_id, task_id, *_ = order.key.parts
        present = {task.task_id for task in getattr(attempt.context.get("dag"), "tasks", ())}
        prefix = str(replace(order.key, parts=(dag_id, run_id))).removesuffix("]") + ","
        for record, _ in opened.store.find(prefix, fingerprint=order.fingerprint()):
            key = parse_record_key(record.order_key)
            if key is None or key.parts[2] in {task_id, *present} or record.job_id is None:
                continue
            self.log.warning(
                "job %s: was ordered in this run with an equal request by task %r, which this DAG no longer has. "
                "A task that is renamed or moved to another group is a new order, and paid for; order_key=%r keeps it",
                record.job_id,
                key.parts[2],
                key.parts[2],
            )

    def execute_slot(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Try again after the account's job limit was reached."""
        carry = event["payload"]
        with self._attempt(context, expected_id=carry.get("ledger_id")) as attempt:
            self._require_time(attempt)
            return self._run_until_done(attempt, queued_since=carry["queued_since"])

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Read the job again, believe only that, and continue from there."""
        with self._attempt(context, expected_id=event["payload"].get("ledger_id")) as attempt:
            return self._run_until_done(attempt, waited=self._judge_event(attempt, event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after the triggerer; where Airflow itself ended the trigger, the job keeps running."""
        if next_method not in {"execute_complete", "execute_slot"} and self.idempotency == "task_instance":
            with fail_without_retry(self.ugen_conn_id):
                self._disarm(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def _disarm(self, context: Context) -> None:
        """Record, where a state store keeps the order, that its attempt returned."""
        settings = self.hook.get_settings()
        named = self._given("ledger_conn_id") or settings.ledger_conn_id
        if named is not None or context.get("task_state_store") is None:
            return
        from ugen_provider.core.jobs.order import origin_of, record_key

        key = record_key(self._order_key(context, settings.config), origin=origin_of(settings.config.base_url))
        with open_order_store(context, settings) as opened:
            record = opened.store.read(key)
            if record is not None and record.armed_token is not None and record.attempt == attempt_name(context["ti"]):
                opened.store.write(replace(record, armed_token=None))

    @contextmanager
    def _attempt(self, context: Context, *, expected_id: str | None = None) -> Iterator[Attempt]:
        """Open all that one attempt needs; a kill is handled from before the purchase on."""
        with fail_without_retry(self.ugen_conn_id):
            settings = self.hook.get_settings()
            with (
                self._open_store(context, settings, expected_id=expected_id) as opened,
                self.kill_context(context, settings, opened) as kill,
                self.hook.get_conn(config=settings.config, clock=KillClock(kill)) as client,
            ):
                from ugen_provider.core.jobs.sync.world import World

                order = self._order(context, client, opened)
                world = World(client, opened.store, is_stopping=lambda: kill.is_set)
                kill.order_key = order.record_key
                attempt = Attempt(context, settings, client, opened, world, order, kill)
                if self.idempotency == "task_instance" and not opened.in_ledger:
                    import_cancels(context, world, order.record_key, settings.signer)
                    settle_by_conf(context, opened.store, order.record_key)
                try:
                    yield attempt
                except Exception as error:
                    self._follow_final_failure(attempt, error)
                    if isinstance(error, AttemptSupersededError) and self.has_scope_key(context):
                        error.retryable = True  # another mapped instance has the same order; both are alive
                    raise

    def _run_until_done(
        self,
        attempt: Attempt,
        *,
        waited: tuple[Purchase, WaitOutcome] | None = None,
        queued_since: float | None = None,
    ) -> dict[str, Any]:
        """Follow the purchase loop until the job is there; where the task may defer, a wait ends this process."""
        from ugen_provider.core.jobs.results import FinishedJob
        from ugen_provider.core.jobs.results import WaitForSlot as Limited
        from ugen_provider.core.jobs.sync.purchase import next_step

        while True:
            try:
                step = next_step(attempt.world, attempt.order, waited=waited)
            except (PurchaseError, JobError) as error:
                if waited is None and error.job_id is not None:
                    # For the page and the links of an attempt that came no further; its end cancels nothing.
                    self._publish(attempt, job_id=error.job_id, cancel_on_kill=False)
                raise
            if isinstance(step, Limited):
                waited, queued_since = None, self._wait_for_slot(attempt, step, queued_since)
                continue
            bought = attempt.last = self._require_own_product(attempt, step.purchase)
            attempt.kill.job_id, attempt.kill.token = bought.job.job_id, bought.record.token
            self._publish(attempt, job_id=bought.job.job_id)
            is_over = isinstance(step, FinishedJob)
            self._log_status(attempt, bought, after_waiting=waited is not None, waits=not is_over)
            if is_over:
                return self._deliver(attempt, bought)
            if not self.wait_for_completion:
                return self._result(attempt, bought)
            waited = bought, self._wait(attempt, bought)

    def _judge_event(self, attempt: Attempt, event: Mapping[str, Any]) -> tuple[Purchase, WaitOutcome] | None:
        """Return the result of the wait in the triggerer; None where the purchase begins anew."""
        from ugen_provider.core.api.polling import WaitOutcome, judge, timed_out
        from ugen_provider.core.jobs.order import Purchase, PurchaseOutcome
        from ugen_provider.core.jobs.results import wait_condition

        job_id, carry, order = event["job_id"], event["payload"], attempt.order
        record = attempt.world.read(order.record_key)
        if record is None:
            record = self._unrecorded(attempt, job_id, purchase_number=carry["purchase_number"])
        elif record.armed_token is not None and record.attempt == order.attempt:
            from ugen_provider.core.jobs.sync.actions import disarm

            # This attempt returned: a cancel from now on is not ours, and a later attempt has to see that.
            record = disarm(attempt.world, record)
        if record.job_id != job_id:
            return None
        try:
            job = attempt.client.jobs.get(job_id)
        except NotFoundError:
            return None  # the purchase waits until a 404 counts
        warnings = tuple(carry["warnings"])
        bought = Purchase(job, record, PurchaseOutcome(carry["outcome"]), carry["request_changed"], warnings)
        attempt.last = bought
        attempt.kill.job_id, attempt.kill.token = job_id, record.token
        reason = judge(job, goal=wait_condition(order))
        if reason is not None:
            return bought, WaitOutcome(job, reason)
        if event["status"] == "timeout":
            self._time_out(attempt, timed_out(job_id, job))
        self.log.warning("job %s: still %s; %s", job_id, job.status, event.get("message") or "waiting again")
        return bought, self._wait(attempt, bought, deadline=carry["deadline"])

    def _unrecorded(self, attempt: Attempt, job_id: str, *, purchase_number: int) -> OrderRecord:
        """Return the record as a store would hold it, where there is none."""
        order = attempt.order
        record = order.record(
            purchase_number=purchase_number, written_at=attempt.world.now(), regenerate=order.policy.regenerate
        )
        return replace(record, job_id=job_id)

    def _require_own_product(self, attempt: Attempt, bought: Purchase) -> Purchase:
        """Refuse a job that another mapped instance ordered for another product under the same key.

        Raises:
            PurchaseError: It was made for another product.
        """
        made_for = bought.job.product_name or bought.record.body.get("product_name")
        wanted = attempt.order.body.get("product_name")
        if not made_for or _same_name(str(made_for), str(wanted)):
            return bought
        if self.has_scope_key(attempt.context):
            raise PurchaseError(
                f"{attempt.order.label}: job {bought.job.job_id} under this key is for {made_for!r}, and {wanted!r} is "
                "wanted; give each mapped instance a scope_key of its own",
                scope=str(attempt.order.key),
                reason="other_product",
                job_id=bought.job.job_id,
            )
        if bought.request_changed:
            return bought
        warning = f"it was made for {made_for!r}; to buy one for {wanted!r}, use a new `regenerate` value"
        return replace(bought, request_changed=True, warnings=(*bought.warnings, warning))

    def _publish(self, attempt: Attempt, *, job_id: str, cancel_on_kill: bool | None = None) -> None:
        self.publish_job_id(
            attempt.context,
            attempt.settings,
            job_id=job_id,
            order_key=attempt.order.record_key if self.idempotency == "task_instance" else "",
            token=attempt.kill.token,
            ledger_id=attempt.opened.ledger_id,
            cancel_on_kill=cancel_on_kill,
        )

    def _log_status(self, attempt: Attempt, bought: Purchase, *, after_waiting: bool, waits: bool) -> None:
        job = bought.job
        if not after_waiting and waits:
            reserved = "" if job.credits_reserved is None else f", {job.credits_reserved} credits reserved"
            waiting = f", waiting {describe_deadline(self._deadline(attempt))}" if self.wait_for_completion else ""
            page = page_of("job", attempt.context["ti"])
            self.log.info(
                "job %s: %s, status %s%s%s, %s", job.job_id, bought.outcome.value, job.status, reserved, waiting, page
            )
        elif not after_waiting:
            self.log.info("job %s: %s, status %s", job.job_id, bought.outcome.value, job.status)
        elif not job.ended:
            self.log.info("job %s: %s in stage %s", job.job_id, job.status, job.current_stage)
        for warning in bought.warnings:
            self.log.warning("job %s: %s", job.job_id, warning)

    def has_scope_key(self, context: Context) -> bool:
        """Return whether another mapped instance may have the same order."""
        index = context["ti"].map_index
        mapped = index is not None and index >= 0
        return mapped and self.scope_key is not None

    # Waiting.

    def _wait_for_slot(self, attempt: Attempt, limited: WaitForSlot, since: float | None) -> float:
        now = attempt.world.now()
        since = now if since is None else since
        limit = seconds(self.queue_timeout)
        if limit is not None and now - since >= limit:
            raise limited.error
        # The service may say hours; a task that may not wait that long tries once more when its time is up.
        pause = limited.pause if limit is None else min(limited.pause, since + limit - now)
        self.log.info("U-Gen's job limit is reached (%s); retrying in %.0f s", limited.error.message, pause)
        end_time = execution_deadline(attempt.context, self.execution_timeout)
        if self.deferrable:
            trigger = UGenSlotTrigger(
                ugen_conn_id=self.ugen_conn_id,
                not_before=now + pause,
                end_time=end_time,
                event_after=earliest_event(now, poll_interval=self.poll_interval),
                payload={"queued_since": since, "ledger_id": attempt.opened.ledger_id},
            )
            after = trigger_timeout(end_time, now=now, poll_interval=self.poll_interval)
            self.defer(trigger=trigger, method_name="execute_slot", timeout=after)
        attempt.world.sleep(pause if end_time is None else min(pause, max(0.0, end_time - now)))
        self._require_time(attempt)
        return since

    def _require_time(self, attempt: Attempt) -> None:
        """Refuse to create a job for a task whose time is up, since no process would wait for it.

        Raises:
            PurchaseError: The task's `execution_timeout` passed.
        """
        end_time = execution_deadline(attempt.context, self.execution_timeout)
        if end_time is not None and attempt.world.now() >= end_time:
            raise out_of_time("waiting for a job slot; no job was created", scope=attempt.order.record_key)

    def _wait(self, attempt: Attempt, bought: Purchase, *, deadline: float | None = None) -> WaitOutcome:
        from ugen_provider.core.jobs.sync.purchase import wait_for_purchase

        if deadline is None:
            deadline = self._deadline(attempt)
        if self.deferrable:
            self._defer(attempt, bought, deadline)
        try:
            return wait_for_purchase(
                attempt.world, attempt.order, bought, interval=self.poll_interval, deadline=deadline
            )
        except JobTimeoutError as error:
            self._time_out(attempt, error)

    def _deadline(self, attempt: Attempt) -> float | None:
        """Absolute; Airflow does not enforce `execution_timeout` while a task is deferred, so it counts here."""
        limit = seconds(self.timeout)
        by_timeout = None if limit is None else attempt.world.now() + limit
        return earliest(by_timeout, execution_deadline(attempt.context, self.execution_timeout))

    def _defer(self, attempt: Attempt, bought: Purchase, deadline: float | None) -> NoReturn:
        from ugen_provider.core.jobs.results import wait_condition
        from ugen_provider.core.jobs.sync.actions import arm

        opened, record = attempt.opened, bought.record
        if self.cancel_on_kill and record.token and not opened.in_ledger:
            # A trigger cannot write into the state store: an armed record says that its cancel was ours.
            record = arm(attempt.world, record)
        goal, stale = wait_condition(attempt.order), bought.stale
        trigger = UGenJobTrigger(
            job_id=bought.job.job_id,
            ugen_conn_id=self.ugen_conn_id,
            poll_interval=self.poll_interval,
            end_time=deadline,
            event_after=earliest_event(attempt.world.now(), poll_interval=self.poll_interval),
            wait_for_pause=goal.stopped,
            ignore_pauses=goal.through_pauses,
            ignore_state=None if stale is None else (stale.status, stale.stage, stale.updated_at),
            cancel_on_kill=self.cancel_on_kill,
            has_scope_key=self.has_scope_key(attempt.context),
            order_key=attempt.order.record_key if opened.in_ledger and self.idempotency == "task_instance" else "",
            token=record.token,
            ledger_conn_id=opened.ledger_conn_id,
            ledger_id=opened.ledger_id,
            payload={
                "outcome": bought.outcome.value,
                "warnings": list(bought.warnings),
                "request_changed": bought.request_changed,
                "purchase_number": record.purchase_number,
                "deadline": deadline,
                "ledger_id": opened.ledger_id,
            },
        )
        limit = trigger_timeout(deadline, now=attempt.world.now(), poll_interval=self.poll_interval)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=limit)
        raise AssertionError("defer raises")

    def _time_out(self, attempt: Attempt, error: JobTimeoutError) -> NoReturn:
        if self.cancel_on_timeout:
            self._cancel(attempt, error.job_id)
            self.log.warning("job %s: cancelled, since cancel_on_timeout is set", error.job_id)
        raise error

    def _cancel(self, attempt: Attempt, job_id: str) -> None:
        from ugen_provider.core.jobs.sync.actions import cancel_job, cancel_order

        result = cancel_order(
            attempt.world, attempt.order.record_key, reason="timeout", job_id=job_id, only_while_newest=True
        )
        if result is None:
            cancel_job(attempt.world, job_id)

    # The job after its task.

    def _follow_final_failure(self, attempt: Attempt, error: Exception) -> None:
        """Decide about a job that runs on after its task failed for good: `on_final_failure`."""
        from ugen_provider.core.jobs.order import PurchaseOutcome

        last = attempt.last
        if last is None or attempt.kill.is_set or not is_last_try(attempt.context, error):
            return
        ended_by_us = isinstance(error, PurchaseError) and error.reason == "attempt_ended"
        if isinstance(error, AttemptSupersededError) or ended_by_us or self.idempotency == "content":
            return
        if last.outcome is PurchaseOutcome.AWAITING_APPROVAL or (isinstance(error, JobError) and _has_ended(error)):
            return
        job_id = last.job.job_id
        try:
            if self.on_final_failure == "cancel":
                self._cancel(attempt, job_id)
                self.log.warning("job %s: cancelled, since its task failed for good (on_final_failure)", job_id)
            elif attempt.opened.in_ledger and not last.job.ended:
                attempt.world.append_action(_collection(attempt, last))
                self.log.warning("job %s: keeps running; the reconciler stores its outputs when it ends", job_id)
            else:
                self.log.warning("job %s: may keep running; clear the task to wait for it again", job_id)
        except UGenError as trouble:
            self.log.warning("job %s: on_final_failure could not be followed: %s", job_id, trouble)

    # Delivering.

    def _deliver(self, attempt: Attempt, bought: Purchase) -> dict[str, Any]:
        from ugen_provider.core.api.models import JobState

        if bought.job.state is not JobState.COMPLETED:
            return self._result(attempt, bought)
        from ugen_provider.core.jobs.results import Scores, check_quality

        job, client = bought.job, attempt.client
        keyframes = job.keyframes or client.jobs.list_keyframes(job.job_id)
        scores = Scores.of(job, keyframes=keyframes)
        manifest = None
        if self.output_path is not None:
            from ugen_provider.operators.media import store_outputs

            stored = store_outputs(
                client,
                job,
                self.output_path,
                keyframes=keyframes,
                product_id=self._given("product_id") or self._given("scope_key"),
                request=bought.record.body,
            )
            manifest = stored["manifest_uri"]
        low = check_quality(
            job, scores, min_score=to_number("min_score", self.min_score), on_low_quality=self.on_low_quality
        )
        if low is not None:
            self.log.warning("%s", low)
        return self._result(attempt, bought, scores=scores, manifest=manifest, low_quality=low)

    def _result(
        self,
        attempt: Attempt,
        bought: Purchase,
        *,
        scores: Any = None,
        manifest: str | None = None,
        low_quality: str | None = None,
    ) -> dict[str, Any]:
        from ugen_provider.core.jobs.results import Scores, summarize

        scores = scores or Scores.of(bought.job)
        if bought.job.ended:
            ending = describe_end(bought.job, scores=scores, manifest_uri=manifest)
            self.log.info("job %s: %s", bought.job.job_id, ending)
        result = summarize(bought, scores=scores, manifest_uri=manifest, low_quality=low_quality)
        body = bought.record.body
        if self.outlets:
            product = self._given("product_id") or self._given("scope_key") or str(body.get("product_name"))
            send_events(attempt.context, self.outlets, result, asset=video_asset(self.ugen_conn_id, product))
        return self.record_lineage(result, picture=body.get("product_image_url"), video_model=body.get("video_model"))

    # The order, after rendering and before any call.

    @contextmanager
    def _open_store(
        self, context: Context, settings: UGenSettings, *, expected_id: str | None = None
    ) -> Iterator[OpenStore]:
        """Open the store of the order: of this task instance, or of the product in its ledger."""
        named = self._given("ledger_conn_id") or settings.ledger_conn_id
        if named is None:
            for name, why in (
                ("scope_key", "a row that moved is found only there"),
                ("order_key", "a task that was renamed is found only there"),
                ("catalogue", "purchases of products are kept only there"),
            ):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name}: needs a ledger, since {why}; name ledger_conn_id in connection {self.ugen_conn_id!r}"
                    )
        if self.idempotency == "task_instance":
            with open_order_store(context, settings, ledger_conn_id=named, expected_id=expected_id) as opened:
                yield opened
            return
        from ugen_provider.core.batch.leases import product_store
        from ugen_provider.core.jobs.order import origin_of
        from ugen_provider.hooks.ugen import open_ledger

        catalogue, product_id = str(self._given("catalogue")), str(self._given("product_id"))
        config = settings.config
        with (
            open_ledger(str(named), expected_id=expected_id) as ledger,
            product_store(
                ledger,
                catalogue=catalogue,
                product_id=product_id,
                namespace=config.namespace,
                origin=origin_of(config.base_url),
            ) as store,
        ):
            yield OpenStore(store, ledger.ledger_id, named)

    def _order_key(self, context: Context, config: ClientConfig) -> OrderKey:
        """Return the identity of the order: this task instance, or the product."""
        if self.idempotency == "content":
            from ugen_provider.core.jobs.order import product_key

            catalogue, product_id = str(self._given("catalogue")), str(self._given("product_id"))
            return product_key(catalogue=catalogue, product_id=product_id, namespace=config.namespace)
        return order_key_of(
            context,
            scope_key=self._given("scope_key"),
            order_key=self._given("order_key"),
            namespace=config.namespace,
        )

    def _order(self, context: Context, client: UGenClient, opened: OpenStore) -> Order:
        """Return the order, after rendering and before anything is bought.

        Raises:
            ConfigError: An argument is wrong.
            InvalidRequestError: A field is.
        """
        from ugen_provider.core.jobs.order import Order, origin_of
        from ugen_provider.core.jobs.policy import PurchasePolicy

        config = client.config
        if self.job is not None and not isinstance(self.job, Mapping):
            raise ConfigError(
                f"job: must be a dict of the request's fields, got {type(self.job).__name__}; a template renders to "
                "text, unless the DAG has render_template_as_native_obj=True: hand over the output of a task"
            )
        fields = rendered_fields(self._fields())
        # Checked here, since it would be too late once the job is bought.
        to_number("min_score", self.min_score, least=0, most=1)
        if self._given("output_path") is not None:
            from ugen_provider.core.media.stores import Store

            Store(self.output_path)
        body = rules.coerce(fields)
        if config.video_model is not None:
            body.setdefault("video_model", config.video_model)
        late = () if self.product_image is None else ("product_image_url",)
        violations = rules.check(body, model=rules.DEFAULT_VIDEO_MODEL, pending=late)
        if violations:
            raise InvalidRequestError(violations)
        picture = None
        if self.product_image is not None:
            from ugen_provider.operators.media import upload_once

            picture = upload_once(context, client, self.product_image)
            body["product_image_url"] = picture.url
        for warning in rules.warnings(body):
            self.log.warning("%s", warning)
        policy = PurchasePolicy(
            on_earlier_failure=self.on_earlier_failure,
            max_stage_retries=self.max_stage_retries,
            on_paused=self.on_paused,
            spending=config.spending,
            regenerate=self._regenerate(context),
            max_credits=to_whole("max_credits", self.max_credits, least=1),
        )
        destination, outputs = self._destination()
        return Order(
            key=self._order_key(context, config),
            body=body,
            policy=policy,
            attempt=attempt_name(context["ti"]),
            origin=origin_of(config.base_url),
            image_identity=None if picture is None else picture.identity,
            search_since=search_since(
                context, in_ledger=opened.in_ledger, key_window=policy.key_window, now=clock_of(client).now()
            ),
            cancel_on_kill=self.cancel_on_kill,
            on_final_failure=self.on_final_failure,
            destination=destination,
            outputs=outputs,
        )

    def _destination(self) -> tuple[str | None, tuple[str, ...]]:
        """Return where the outputs of this product go, and which, for the reconciler."""
        if self.output_path is None:
            return None, ()
        from ugen_provider.core.media.outputs import safe_name
        from ugen_provider.operators.media import INCLUDE

        product = self._given("product_id") or self._given("scope_key")
        folder = str(self.output_path).rstrip("/")
        return (f"{folder}/{safe_name(product)}" if product else folder), INCLUDE

    def _given(self, name: str) -> str | None:
        """Return a templated text argument; one that was given and rendered to nothing is refused."""
        value = getattr(self, name)
        if value is None:
            return None
        if is_nothing(value):
            raise ConfigError(f"{name}: its template rendered to nothing")
        return str(value)

    def _regenerate(self, context: Context) -> str | None:
        asked = self.regenerate
        if asked is None:
            asked = (getattr(context["dag_run"], "conf", None) or {}).get("ugen_regenerate")
        return str(asked) if asked else None


_ARGUMENTS = inspect.signature(UGenCreateJobOperator).parameters.values()
DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in _ARGUMENTS if each.kind is each.KEYWORD_ONLY}
"""The arguments of `UGenCreateJobOperator` with their defaults; each is an attribute of the operator."""


def _require(kind: Callable[..., None], *args: Any, **bounds: Any) -> Callable[[str, object], None]:
    def check(name: str, value: object) -> None:
        kind(name, value, *args, **bounds)

    return check


CHECKS: Mapping[str, Callable[[str, object], None]] = {
    "ugen_conn_id": require_named,
    **dict.fromkeys(("wait_for_completion", "deferrable", "cancel_on_kill", "cancel_on_timeout"), require_flag),
    "idempotency": _require(require_one_of, ("task_instance", "content")),
    "on_earlier_failure": _require(require_one_of, ("retry_stage", "resubmit", "fail")),
    "on_paused": _require(require_one_of, ("wait", "fail")),
    "on_low_quality": _require(require_one_of, ("warn", "fail")),
    "on_final_failure": _require(require_one_of, ("collect", "cancel")),
    "poll_interval": require_interval,
    **dict.fromkeys(("timeout", "queue_timeout"), require_positive),
    "max_stage_retries": _require(require_number, least=0, whole=True),
    "max_credits": _require(require_number, least=1, whole=True),
    "min_score": _require(require_number, least=0, most=1),
    **dict.fromkeys(("output_path", "scope_key", "order_key"), require_named),
}
"""How an argument of `UGenCreateJobOperator` that is known at parsing is checked, unless it has its default."""


def _collection(attempt: Attempt, last: Purchase) -> Any:
    from ugen_provider.core.ledger.record import Action

    return Action(
        order_key=last.record.order_key,
        purchase_number=last.record.purchase_number,
        job_id=last.job.job_id,
        kind="collect",
        reason="final_failure",
        token=last.record.token,
        at=attempt.world.now(),
    )


def _has_ended(error: JobError) -> bool:
    return error.job is not None and error.job.ended


def _same_name(one: str, other: str) -> bool:
    """Return whether two names are one, however the service trims, cuts, cases, escapes or strips them.

    Examples:
        >>> _same_name("Salt & Pepper\u2122 Mill", "salt &amp; pepper mill"), _same_name("Lamp", "Mug")
        (True, False)
    """
    first, second = (
        "".join(filter(str.isalnum, unicodedata.normalize("NFC", html.unescape(name)).casefold()))
        for name in (one, other)
    )
    return first.startswith(second) or second.startswith(first)
