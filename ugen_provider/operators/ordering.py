# SPDX-License-Identifier: Apache-2.0
"""What the create operator is given, and the order that follows from it: checked at parsing, and after rendering."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.configuration import conf

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError
from ugen_provider.operators.arguments import (
    is_nothing,
    is_pending,
    refusing,
    require_flags,
    require_interval,
    require_named,
    require_number,
    require_one_of,
    require_positive,
    to_number,
    to_whole,
)
from ugen_provider.operators.base import DEFAULT_CONN_ID, DEFAULT_TIMEOUT, UGenJobOperator
from ugen_provider.operators.pictures import uploaded_once
from ugen_provider.operators.state import scope_of, store_of
from ugen_provider.triggers.jobs import DEFAULT_POLL_INTERVAL

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api._sync_client import UGenClient
    from ugen_provider.core.api.config import ClientConfig
    from ugen_provider.core.jobs.intent import IntentStore
    from ugen_provider.core.jobs.purchase import Order
    from ugen_provider.core.jobs.scope import Scope

JOB_FIELDS = tuple(rule.name for rule in rules.FIELDS if rule.name != "idempotency_key")
"""The fields of a request that are arguments; the idempotency key is derived from the scope."""


class UGenOrderOperator(UGenJobOperator):
    """Arguments and order of `UGenCreateJobOperator`, which documents them."""

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
        with refusing():
            self._check_arguments()

    def _check_arguments(self) -> None:
        """Refuse what can be known to be wrong when the DAG is parsed."""
        require_flags(
            wait_for_completion=self.wait_for_completion,
            deferrable=self.deferrable,
            cancel_on_kill=self.cancel_on_kill,
            cancel_on_timeout=self.cancel_on_timeout,
        )
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
        elif self.catalogue is not None:  # whoever named it expects to pay once for each product, over all runs
            raise ConfigError(
                "catalogue: tells products apart only with idempotency='content'; add that, or leave it out"
            )
        require_one_of("on_earlier_failure", self.on_earlier_failure, ("retry_stage", "resubmit", "fail"))
        require_one_of("on_paused", self.on_paused, ("wait", "fail"))
        require_one_of("on_low_quality", self.on_low_quality, ("warn", "fail"))
        require_interval("poll_interval", self.poll_interval)
        require_positive("timeout", self.timeout)
        require_positive("slot_timeout", self.slot_timeout)
        require_number("max_stage_retries", self.max_stage_retries, least=0, whole=True)
        require_number("max_credits", self.max_credits, least=1, whole=True)
        require_number("min_score", self.min_score, least=0, most=1)
        for name in ("output_path", "scope_key"):
            if getattr(self, name) is not None:
                require_named(name, getattr(self, name))
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
    def storing(self, context: Context, config: ClientConfig) -> Iterator[IntentStore]:
        """Where the intent is kept: with this task instance, or with the product in the ledger."""
        if self.idempotency == "task_instance":
            yield store_of(context)
            return
        from ugen_provider.core.batch.ledger import Ledger
        from ugen_provider.core.batch.single import product_store
        from ugen_provider.operators.feeds import ledger_address
        from ugen_provider.operators.machines import tasks_span_machines

        catalogue, product_id = str(self.given("catalogue")), str(self.given("product_id"))
        address = ledger_address(str(self.given("ledger_conn_id")))
        with (
            Ledger(address, shared=tasks_span_machines()) as ledger,
            product_store(ledger, catalogue=catalogue, product_id=product_id, namespace=config.namespace) as store,
        ):
            yield store

    def scope_in(self, context: Context, config: ClientConfig) -> Scope:
        """What is ordered once: this task instance, or the product."""
        if self.idempotency == "content":
            from ugen_provider.core.jobs.scope import product_scope

            catalogue, product_id = str(self.given("catalogue")), str(self.given("product_id"))
            return product_scope(catalogue=catalogue, product_id=product_id, namespace=config.namespace)
        return scope_of(context, scope_key=self.given("scope_key"), namespace=config.namespace)

    def order_of(self, context: Context, client: UGenClient) -> Order:
        """The order, after rendering and before anything is bought.

        Raises:
            ConfigError: An argument is wrong.
            InvalidRequestError: A field is.
        """
        from ugen_provider.core.jobs.buying import BuyingPolicy
        from ugen_provider.core.jobs.purchase import Order

        config = client.config
        if self.job is not None and not isinstance(self.job, Mapping):
            raise ConfigError(
                f"job: must be a dict of the request's fields, got {type(self.job).__name__}; a template renders to "
                "text, unless the DAG has render_template_as_native_obj=True: hand over the output of a task"
            )
        fields = self._fields()
        for name, value in fields.items():
            if value == "None":
                raise ConfigError(f"{name}: its template rendered to nothing (None)")
        # Looked at here, since it would be too late once the job is bought.
        to_number("min_score", self.min_score, least=0, most=1)
        if self.given("output_path") is not None:
            from ugen_provider.core.media.stores import Store

            Store(self.output_path)
        body = rules.coerce(fields)
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
            scope=self.scope_in(context, config),
            body=body,
            policy=BuyingPolicy(
                on_earlier_failure=self.on_earlier_failure,
                max_stage_retries=self.max_stage_retries,
                on_paused=self.on_paused,
                spending=config.spending,
                regenerate=self._regenerate(context),
                max_credits=to_whole("max_credits", self.max_credits, least=1),
            ),
            image_identity=None if picture is None else picture.identity,
            holder=f"{ti.run_id} try {ti.try_number}",
        )

    def given(self, name: str) -> str | None:
        """A templated text argument; one that was given and came out empty is refused."""
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
