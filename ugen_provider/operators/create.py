# SPDX-License-Identifier: Apache-2.0
"""`UGenCreateJobOperator`: one video, bought once."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.configuration import conf

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError, JobTimeoutError
from ugen_provider.operators.base import (
    DEFAULT_CONN_ID,
    DEFAULT_TIMEOUT,
    UGenJobOperator,
    backstop,
    is_pending,
    require_one_of,
    require_positive,
    seconds,
)
from ugen_provider.operators.errors import failing_for_good
from ugen_provider.operators.pictures import uploaded_once
from ugen_provider.operators.state import scope_of, store_of
from ugen_provider.triggers.jobs import DEFAULT_POLL_INTERVAL, UGenJobTrigger, UGenSlotTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api._sync_client import UGenClient
    from ugen_provider.core.api.config import ClientConfig
    from ugen_provider.core.api.polling import Outcome
    from ugen_provider.core.jobs.intent import IntentStore
    from ugen_provider.core.jobs.purchase import Order, Purchase
    from ugen_provider.core.jobs.scope import Scope
    from ugen_provider.operators.resolving import NoSlot

JOB_FIELDS = tuple(rule.name for rule in rules.FIELDS if rule.name != "idempotency_key")
"""The fields of a request that are arguments; the idempotency key is derived from the scope."""


class UGenCreateJobOperator(UGenJobOperator):
    """Make one video, and pay for it once.

    A retry, a cleared task, a lost worker or a restarted triggerer never buys a second video: whatever an earlier
    attempt bought is found again and waited for, or taken where it is finished already. Another one is bought only
    where `regenerate` asks for it by a new value.

    Costs the credits of one job, reserved when it is created. Stands on `POST /jobs` and `GET /jobs/{jobId}`.

    Args:
        job: The request's fields as one dict; the arguments of the same names below go before it.
        product_image: A picture that the service cannot reach, instead of `product_image_url`: a path, an fsspec URL or
            an `ObjectStoragePath`. It is uploaded once per content.
        ugen_conn_id: The connection.
        wait_for_completion: Whether to wait until the job has ended, or stands at `stop_at_stage`.
        deferrable: Whether to wait in the triggerer, where waiting holds no worker slot.
        poll_interval: Seconds between looks; the service asks for 5 to 10.
        timeout: Seconds to wait for the job, or a timedelta; None waits as long as it takes. Waiting for a free slot
            of the account does not count. The job is left, and the next attempt attaches to it.
        output_path: Where the finished job's files go: a path, a URL or an `ObjectStoragePath`. The result then has
            the address of the manifest.
        product_id: The product, for the folder below `output_path`; default is `scope_key`.
        idempotency: What is ordered once: this `task_instance`, or a product of a catalogue by its `content`, whoever
            orders it and however often. The second needs `catalogue`, `product_id` and `ledger_conn_id`.
        catalogue: What the product belongs to.
        ledger_conn_id: The connection of the ledger's database: PostgreSQL, or SQLite for one machine.
        scope_key: What this task instance orders, instead of its map index: for mapped rows that may change places.
        regenerate: A value by which another video is asked for; each new value buys once. Also by
            `dag_run.conf["ugen_regenerate"]`.
        on_earlier_failure: For a job that failed in an earlier attempt for a reason that a repeat can mend:
            `retry_stage` runs it again from the stage that failed, `resubmit` buys another one, `fail` fails.
        max_stage_retries: Stage retries in all, over all attempts.
        on_paused: For a job that somebody else paused: `wait` until they let it go on, or `fail`.
        slot_timeout: Seconds to wait for a free slot of the account; None waits as long as it takes.
        cancel_on_kill: Whether the job is cancelled where a person ends the task instance or its run, or the run times
            out. A cleared task, a lost worker or a stopped node never cancels: the next attempt attaches. Default: yes,
            and no with `content`.
        cancel_on_timeout: Whether `timeout` also cancels the job.
        max_credits: Most credits that the job may reserve.
        min_score: The lowest quality score that is good enough, 0 to 1.
        on_low_quality: For a job below it: `warn` says so in the result, `fail` fails.

    The remaining arguments are the fields of `CreateJob`, all templated.

    Returns:
        A small dict: `job_id`, `status`, `final_video_url`, `credits_consumed`, `keyframe_scores`, `manifest` and how
        the job came to be (`how`, `generation`, `request_changed`, `notes`).

    Example:
        >>> UGenCreateJobOperator(
        ...     task_id="make_video",
        ...     product_name="Lamp",
        ...     product_image_url="https://shop.example/lamp.jpg",
        ...     segment_count=2,
        ...     deferrable=True,
        ... )
        <Task(UGenCreateJobOperator): make_video>
    """

    template_fields: Collection[str] = (
        "ugen_conn_id",
        "job",
        "product_image",
        *JOB_FIELDS,
        "output_path",
        "product_id",
        "catalogue",
        "ledger_conn_id",
        "scope_key",
        "regenerate",
        "max_credits",
        "min_score",
    )
    template_fields_renderers = {"job": "json", "custom_caption_options": "json", "voice_settings": "json"}

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
        regenerate: str | None = None,
        on_earlier_failure: Literal["retry_stage", "resubmit", "fail"] = "retry_stage",
        max_stage_retries: int = 2,
        on_paused: Literal["wait", "fail"] = "wait",
        slot_timeout: float | timedelta | None = None,
        cancel_on_kill: bool | None = None,
        cancel_on_timeout: bool = False,
        max_credits: int | str | None = None,
        min_score: float | str | None = None,
        on_low_quality: Literal["warn", "fail"] = "warn",
        **kwargs: Any,
    ) -> None:
        given = locals()
        # With the product's scope nobody owns the job alone.
        owns = idempotency != "content"
        cancels = owns if cancel_on_kill is None else cancel_on_kill
        super().__init__(ugen_conn_id=ugen_conn_id, cancel_on_kill=cancels, **kwargs)
        self.idempotency: Literal["task_instance", "content"] = idempotency
        self.catalogue = catalogue
        self.ledger_conn_id = ledger_conn_id
        self.job = job
        self.product_image = product_image
        for name in JOB_FIELDS:
            setattr(self, name, given[name])
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.output_path = output_path
        self.product_id = product_id
        self.scope_key = scope_key
        self.regenerate = regenerate
        self.on_earlier_failure: Literal["retry_stage", "resubmit", "fail"] = on_earlier_failure
        self.max_stage_retries = max_stage_retries
        self.on_paused: Literal["wait", "fail"] = on_paused
        self.slot_timeout = slot_timeout
        self.cancel_on_timeout = cancel_on_timeout
        self.max_credits = max_credits
        self.min_score = min_score
        self.on_low_quality: Literal["warn", "fail"] = on_low_quality
        self._check_arguments()

    def _check_arguments(self) -> None:
        """Refuse what can be known to be wrong when the DAG is parsed."""
        require_one_of("idempotency", self.idempotency, ("task_instance", "content"))
        if self.idempotency == "content":
            for name in ("catalogue", "product_id", "ledger_conn_id"):
                if not getattr(self, name):
                    raise ConfigError(f"{name}: must be named with idempotency='content'")
            for name in ("cancel_on_kill", "cancel_on_timeout"):
                if getattr(self, name):
                    raise ConfigError(f"{name}: nobody owns a product's job alone; leave it out with 'content'")
            if self.scope_key is not None:
                raise ConfigError("scope_key: with idempotency='content' the product is the scope; leave it out")
        require_one_of("on_earlier_failure", self.on_earlier_failure, ("retry_stage", "resubmit", "fail"))
        require_one_of("on_paused", self.on_paused, ("wait", "fail"))
        require_one_of("on_low_quality", self.on_low_quality, ("warn", "fail"))
        require_positive("poll_interval", self.poll_interval, or_none=False)
        require_positive("timeout", self.timeout)
        require_positive("slot_timeout", self.slot_timeout)
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

    def _fields(self) -> dict[str, Any]:
        """The request's fields as they are now: the dict, and the arguments before it."""
        fields = dict(self.job) if isinstance(self.job, Mapping) else {}
        if fields.get("idempotency_key") is not None:
            raise ConfigError("job: idempotency_key is derived from the task; use scope_key or regenerate instead")
        given = {name: getattr(self, name) for name in JOB_FIELDS}
        return {**fields, **{name: value for name, value in given.items() if value is not None}}

    # The order, after rendering and before any call.

    @contextmanager
    def _storing(self, context: Context, config: ClientConfig) -> Iterator[IntentStore]:
        """Where the intent is kept: with this task instance, or with the product in the ledger."""
        if self.idempotency == "task_instance":
            yield store_of(context)
            return
        from ugen_provider.core.batch.ledger import Ledger
        from ugen_provider.core.batch.single import product_store
        from ugen_provider.operators.feeds import ledger_address

        catalogue, product_id = str(self._given("catalogue")), str(self._given("product_id"))
        with (
            Ledger(ledger_address(str(self._given("ledger_conn_id")))) as ledger,
            product_store(ledger, catalogue=catalogue, product_id=product_id, namespace=config.namespace) as store,
        ):
            yield store

    def _scope(self, context: Context, config: ClientConfig) -> Scope:
        if self.idempotency == "content":
            from ugen_provider.core.jobs.scope import product_scope

            catalogue, product_id = str(self._given("catalogue")), str(self._given("product_id"))
            return product_scope(catalogue=catalogue, product_id=product_id, namespace=config.namespace)
        return scope_of(context, scope_key=self._given("scope_key"), namespace=config.namespace)

    def _order(self, context: Context, client: UGenClient) -> Order:
        from ugen_provider.core.jobs.buying import BuyingPolicy
        from ugen_provider.core.jobs.purchase import Order

        config = client.config
        if self.job is not None and not isinstance(self.job, Mapping):
            raise ConfigError(f"job: must be a dict of the request's fields, got {type(self.job).__name__}")
        body = rules.coerce(self._fields())
        if config.video_model is not None:
            body.setdefault("video_model", config.video_model)
        late = () if self.product_image is None else ("product_image_url",)
        violations = rules.check(body, model=rules.DEFAULT_VIDEO_MODEL, pending=late)
        if violations:
            raise InvalidRequestError(violations)
        picture = None if self.product_image is None else uploaded_once(context, client, self.product_image)
        if picture is not None:
            body["product_image_url"] = picture.url
        for warning in rules.warnings(body):
            self.log.warning("%s", warning)
        ti = context["ti"]
        return Order(
            scope=self._scope(context, config),
            body=body,
            policy=BuyingPolicy(
                on_earlier_failure=self.on_earlier_failure,
                max_stage_retries=self.max_stage_retries,
                on_paused=self.on_paused,
                spending=config.spending,
                regenerate=self._regenerate(context),
                max_credits=_whole("max_credits", self.max_credits),
            ),
            image_identity=None if picture is None else picture.identity,
            holder=f"{ti.run_id} try {ti.try_number}",
        )

    def _given(self, name: str) -> str | None:
        """A templated text argument; one that was given and came out empty is refused."""
        value = getattr(self, name)
        if value is None:
            return None
        if not str(value).strip():
            raise ConfigError(f"{name}: its template rendered to nothing")
        return str(value)

    def _regenerate(self, context: Context) -> str | None:
        asked = self.regenerate
        if asked is None:
            asked = (getattr(context["dag_run"], "conf", None) or {}).get("ugen_regenerate")
        return str(asked) if asked else None

    # Buying and waiting.

    def execute(self, context: Context) -> dict[str, Any]:
        """Buy, or find what was bought, and wait."""
        with failing_for_good(), self.hook.get_conn() as client, self._storing(context, client.config) as store:
            return self._pursue(context, client, self._order(context, client), store)

    def execute_slot(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for a slot again."""
        with failing_for_good(), self.hook.get_conn() as client, self._storing(context, client.config) as store:
            since = event["carry"]["slot_since"]
            return self._pursue(context, client, self._order(context, client), store, slot_since=since)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Read the job again, believe only that, and go on from there."""
        from ugen_provider.core.api.polling import Outcome, judge, timed_out
        from ugen_provider.core.jobs.purchase import How, Purchase, goal_of

        with failing_for_good(), self.hook.get_conn() as client, self._storing(context, client.config) as store:
            order = self._order(context, client)
            job_id, carry = event["job_id"], event["carry"]
            job = client.jobs.get(job_id)
            intent = store.read(order.intent_scope) or _intent_of(order, job_id, carry["generation"])
            if intent.armed:
                # We came back, so nobody cancelled in our name; a later attempt is to see that.
                intent = replace(intent, armed=False)
                store.write(intent)
            bought = Purchase(job, intent, How(carry["how"]), carry["request_changed"], tuple(carry["notes"]))
            reason = judge(job, goal=goal_of(order))
            if reason is None and event["status"] == "timeout":
                self._timed_out(client, order, store, timed_out(job_id, job))
            if reason is None:
                self.log.warning("job %s goes on: %s", job_id, event.get("message") or "waiting again")
                outcome = self._wait(context, client, order, store, bought, deadline=carry["deadline"])
            else:
                outcome = Outcome(job, reason)
            return self._pursue(context, client, order, store, waited=(bought, outcome))

    def _pursue(
        self,
        context: Context,
        client: UGenClient,
        order: Order,
        store: IntentStore,
        *,
        waited: tuple[Purchase, Outcome] | None = None,
        slot_since: float | None = None,
    ) -> dict[str, Any]:
        """Step by step until the job is there; where the task may defer, a wait ends this process's part."""
        from ugen_provider.operators.resolving import NoSlot, Ready, resolve

        while True:
            step = client.run(resolve(client.caller, order, store=store, waited=waited))
            match step:
                case NoSlot():
                    waited, slot_since = None, self._wait_for_slot(client, step, slot_since)
                case Ready(bought):
                    self._tell(context, order, bought)
                    return self._deliver(context, client, bought)
                case _:
                    bought = step.bought
                    self._tell(context, order, bought)
                    if not self.wait_for_completion:
                        return self._result(context, client, bought)
                    waited = bought, self._wait(context, client, order, store, bought)

    def _tell(self, context: Context, order: Order, bought: Purchase) -> None:
        self.announce(context, job_id=bought.job.job_id, scope=order.intent_scope)
        self.log.info("job %s: %s, status %s", bought.job.job_id, bought.how.value, bought.job.status)
        for note in bought.notes:
            self.log.warning("job %s: %s", bought.job.job_id, note)

    def by_scope_key(self, context: Context) -> bool:
        """Whether another mapped instance may have the same scope key."""
        index = context["ti"].map_index
        return self.scope_key is not None and index is not None and index >= 0

    def _wait_for_slot(self, client: UGenClient, full: NoSlot, since: float | None) -> float:
        now = client.clock.now()
        since = now if since is None else since
        limit = seconds(self.slot_timeout)
        if limit is not None and now - since >= limit:
            raise full.error
        self.log.info("the account has no free slot (%s); asking again in %.0f s", full.error.message, full.pause)
        if self.deferrable:
            self.defer(
                trigger=UGenSlotTrigger(
                    ugen_conn_id=self.ugen_conn_id, not_before=now + full.pause, carry={"slot_since": since}
                ),
                method_name="execute_slot",
            )
        client.run(_sleep(full.pause))
        return since

    def _wait(
        self,
        context: Context,
        client: UGenClient,
        order: Order,
        store: IntentStore,
        bought: Purchase,
        *,
        deadline: float | None = None,
    ) -> Outcome:
        from ugen_provider.core.jobs.purchase import waiting

        if deadline is None:
            deadline = self._deadline(context, client)
        if self.deferrable:
            if self.cancel_on_kill and not bought.intent.armed:
                store.write(replace(bought.intent, armed=True))
            self._defer(context, client, order, bought, deadline)
        wait = waiting(client.caller, order, interval=self.poll_interval, deadline=deadline)
        try:
            with self.holding(context, bought.job.job_id, client.config, store, order.intent_scope):
                return client.run(wait(bought))
        except JobTimeoutError as error:
            self._timed_out(client, order, store, error)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Come back from the triggerer; where Airflow itself gave up on the trigger, the job was left."""
        came_back = next_method in {"execute_complete", "execute_slot"}
        if not came_back and self.idempotency == "task_instance":
            with failing_for_good():
                store = store_of(context)
                intent = store.read(str(self._scope(context, self.hook.config)))
                if intent is not None and intent.armed:
                    store.write(replace(intent, armed=False))
        return super().resume_execution(next_method, next_kwargs, context)

    def _deadline(self, context: Context, client: UGenClient) -> float | None:
        """Absolute; Airflow does not enforce `execution_timeout` while a task is deferred, so it counts here."""
        limits = []
        if (limit := seconds(self.timeout)) is not None:
            limits.append(client.clock.now() + limit)
        started = context["ti"].start_date
        if self.execution_timeout is not None and started is not None:
            limits.append((started + self.execution_timeout).timestamp())
        return min(limits, default=None)

    def _defer(
        self, context: Context, client: UGenClient, order: Order, bought: Purchase, deadline: float | None
    ) -> NoReturn:
        from ugen_provider.core.jobs.purchase import goal_of

        goal, stale = goal_of(order), bought.stale
        trigger = UGenJobTrigger(
            job_id=bought.job.job_id,
            ugen_conn_id=self.ugen_conn_id,
            poll_interval=self.poll_interval,
            end_time=deadline,
            stopped=goal.stopped,
            through_pauses=goal.through_pauses,
            stale=None if stale is None else (stale.status, stale.stage, stale.updated_at),
            cancel_on_kill=self.cancel_on_kill,
            by_scope_key=self.by_scope_key(context),
            carry={
                "how": bought.how.value,
                "notes": list(bought.notes),
                "request_changed": bought.request_changed,
                "generation": bought.intent.generation,
                "deadline": deadline,
            },
        )
        limit = backstop(deadline, now=client.clock.now(), poll_interval=self.poll_interval)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=limit)
        raise AssertionError("defer raises")

    def _timed_out(self, client: UGenClient, order: Order, store: IntentStore, error: JobTimeoutError) -> NoReturn:
        from ugen_provider.core.jobs.cancelling import cancel

        if self.cancel_on_timeout:
            client.run(cancel(client.caller, error.job_id, reason="timeout", store=store, scope=order.intent_scope))
            self.log.warning("job %s was cancelled, since cancel_on_timeout is set", error.job_id)
        raise error

    # Delivering.

    def _deliver(self, context: Context, client: UGenClient, bought: Purchase) -> dict[str, Any]:
        from ugen_provider.core.api.models import JobState

        if bought.job.state is not JobState.COMPLETED:
            return self._result(context, client, bought)
        from ugen_provider.core.jobs.summary import Scores, check_quality

        job = bought.job
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
                request=bought.intent.body,
            )
            manifest = stored["manifest"]
        low = check_quality(
            job, scores, min_score=_number("min_score", self.min_score), on_low_quality=self.on_low_quality
        )
        if low is not None:
            self.log.warning("%s", low)
        return self._result(context, client, bought, scores=scores, manifest=manifest, low_quality=low)

    def _result(
        self,
        context: Context,
        client: UGenClient,  # noqa: ARG002
        bought: Purchase,
        *,
        scores: Any = None,
        manifest: str | None = None,
        low_quality: str | None = None,
    ) -> dict[str, Any]:
        from ugen_provider.core.jobs.summary import Scores, summarize

        result = summarize(bought, scores=scores or Scores.of(bought.job), manifest=manifest, low_quality=low_quality)
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {"ugen": result}
        return result


def _sleep(pause: float) -> Any:
    from ugen_provider.core.api.effects import Sleep

    yield Sleep(seconds=pause)


def _intent_of(order: Order, job_id: str, generation: int) -> Any:
    """What a store would hold, where there is none."""
    from ugen_provider.core.jobs.intent import Intent

    digest = order.fingerprint()
    key = order.scope.key(generation, fingerprint=digest, regenerate=order.policy.regenerate)
    return Intent(
        scope=order.intent_scope,
        generation=generation,
        key=key,
        body={**order.body, "idempotency_key": key},
        fingerprint=digest,
        scheme=order.scheme,
        written_at=time.time(),
        job_id=job_id,
    )


def _number(name: str, value: float | str | None) -> float | None:
    if value is None or value == "":
        return None
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"{name}: must be a number, got {value!r}") from None


def _whole(name: str, value: int | str | None) -> int | None:
    number = _number(name, value)
    return None if number is None else int(number)
