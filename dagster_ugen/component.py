# SPDX-License-Identifier: Apache-2.0
"""`UGenVideosComponent`: a feed's videos in a few lines of YAML, its fields, and what `dg scaffold` writes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast
from urllib.parse import urlsplit

import dagster as dg
from dagster.components import (
    Component,
    ComponentLoadContext,
    Model,
    Resolvable,
    Scaffolder,
    ScaffoldRequest,
    scaffold_component,
    scaffold_with,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dagster_ugen._compat import ResolutionException
from dagster_ugen.asset_job import AssetJob, build_ugen_approval_jobs, build_ugen_asset_job
from dagster_ugen.assets import UGenVideoAssets, build_assets_from_definition
from dagster_ugen.checks import UGenChecks, build_ugen_asset_checks, checks_of
from dagster_ugen.definition import (
    DagsterUGenTranslator,
    Output,
    UGenAssetProps,
    UGenGate,
    UGenOptions,
    after_approval,
    for_new_products,
)
from dagster_ugen.feed_sensor import build_ugen_product_feed_sensor
from dagster_ugen.reconcile_sensor import build_ugen_reconcile_sensor
from dagster_ugen.requests import FeedRequests
from dagster_ugen.resource import UGenResource
from dagster_ugen.sensors import build_ugen_completion_sensor
from ugen_provider.core.api.rules import BY_NAME

Automation = Literal["after_approval", "for_new_products"]


def limited(
    default: Any,
    *,
    description: str | None = None,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> Any:
    """Define a number between limits, of a class of `Args`.

    `Field(ge=…)` would be applied to a template's text too, before it becomes a number.

    Args:
        default: The value where none is given.
        description: What it is for.
        least: The smallest that is allowed.
        above: What it must be more than.
        most: The largest that is allowed.
    """
    limits = {"minimum": least, "exclusiveMinimum": above, "maximum": most}
    schema: dict[str, Any] = {name: limit for name, limit in limits.items() if limit is not None}
    return Field(default=default, description=description, json_schema_extra=schema)


class YamlPosition(Resolvable):
    """Reports the position in the YAML of a value that is refused, and no values: the key is among them."""

    model_config = ConfigDict(hide_input_in_errors=True)

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> Self:
        """Make it from the YAML's attributes.

        Raises:
            ResolutionException: A value is refused.
        """
        try:
            return cast("Self", super().resolve_from_model(context, model))
        except ValidationError as error:
            raise refusal_of(error, context, model=type(model)) from None


class Args(Model, YamlPosition):
    """A section of the YAML, whose `limited` fields are checked once their templates are resolved."""

    @model_validator(mode="after")
    def _check_limits(self) -> "Args":
        for name, field in type(self).model_fields.items():
            limits = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            broken = _broken(getattr(self, name), limits)
            if broken is not None:
                raise ValueError(f"{name}: {broken}")
        return self


def _broken(value: Any, limits: Mapping[str, Any]) -> str | None:
    if not isinstance(value, int | float):
        return None
    least, above, most = (limits.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    if least is not None and value < least:
        return f"must be at least {least:g}, got {value:g}"
    if above is not None and value <= above:
        return f"must be more than {above:g}, got {value:g}"
    if most is not None and value > most:
        return f"must be at most {most:g}, got {value:g}"
    return None


def names(*allowed: str) -> dict[str, Any]:
    """Return a schema for a mapping with these names only, so that `dg check yaml` and editors know them."""
    return {"properties": {name: {} for name in allowed}, "additionalProperties": False}


def refusal(context: dg.ResolutionContext, *, path: Sequence[str | int], message: str) -> ResolutionException:
    """Return the error about a component's attributes, with its position in the YAML where there is one.

    Args:
        context: That of the attributes.
        path: Where in them.
        message: What is wrong, and what to do.
    """
    at = [*context.path, *path]
    where = ".".join(map(str, at))
    tree = context.source_position_tree
    if tree is None:
        return ResolutionException(f"{where}: {message}")
    source = tree.source_error(yaml_path=at, inline_error_message=message, value_error=True)
    return ResolutionException(f"{source.file_name}:{source.start_line_no} - {where}: {message}\n{source.snippet}")


def refusal_of(error: ValidationError, context: dg.ResolutionContext, *, model: type[BaseModel]) -> ResolutionException:
    """Return the first of the errors that pydantic found, without the values: the key is among them.

    Args:
        error: What pydantic found.
        context: That of the attributes.
        model: Whose attributes they are.
    """
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    path: Sequence[str | int] = first["loc"]
    field, _, rest = message.partition(": ")
    if not path and rest and field.partition(".")[0] in model.model_fields:
        path, message = field.split("."), rest
    return refusal(context, path=path, message=message)


_EXAMPLE_FEED = """\
id,title,image_link,description
LL-1001,Aurora Desk Lamp,https://shop.example/lamp.jpg,Warm light for late work.
LL-1002,Harbor Mug,https://shop.example/mug.jpg,Keeps coffee hot for an hour.
"""


class UGenVideosParams(BaseModel):
    """Parameters of `dg scaffold defs`."""

    feed: str = Field(default="feed.csv", description="The product feed: a file beside defs.yaml, or a URL.")
    partitions: str = Field(default="ugen_products", description="Name of the dynamic partitions.")
    storage: str = Field(default="videos", description="Where results are stored: a folder or an fsspec URL.")
    segment_count: int = Field(default=3, ge=1, le=10, description="Segments of each video.")


class UGenVideosScaffolder(Scaffolder[UGenVideosParams]):
    """Writes a `defs.yaml` that loads once the environment variable `UGEN_API_KEY` is set, and an example feed."""

    @classmethod
    def get_scaffold_params(cls) -> type[UGenVideosParams]:
        """Return parameters of `dg scaffold defs`."""
        return UGenVideosParams

    def scaffold(self, request: ScaffoldRequest[UGenVideosParams]) -> None:
        """Write the YAML, which declares the variable that it needs, and an example of the feed where there is none.

        The key is asked for by the function form of `env`: the attribute form gives nothing, without a word, where the
        variable is not set.
        """
        params = request.params or UGenVideosParams()
        scaffold_component(
            request,
            {
                "api_key": "{{ env('UGEN_API_KEY') }}",
                "feed": params.feed,
                "job": {"segment_count": params.segment_count},
                "partitions": {"name": params.partitions},
                "storage": params.storage,
            },
        )
        if request.scaffold_format != "yaml" or request.append:
            return
        with (request.target_path / "defs.yaml").open("a", encoding="utf-8") as file:
            file.write("\nrequirements:\n  env:\n    - UGEN_API_KEY\n")
        feed = request.target_path / params.feed
        if not urlsplit(params.feed).scheme and feed.suffix == ".csv" and not feed.exists():
            feed.write_text(_EXAMPLE_FEED, encoding="utf-8")


class PartitionsArgs(Args):
    """The products as dynamic partitions."""

    name: str = Field(default="ugen_products", min_length=1, description="Name of the dynamic partitions definition.")


class AccountArgs(Args):
    """How the account is used."""

    base_url: str | None = Field(default=None, description="Address of the API; the real service where not given.")
    namespace: str = Field(default="", description="Keeps the orders of environments apart that share an account.")
    video_model: str | None = Field(default=None, description="The model of requests that name none.")
    ledger: str | None = Field(
        default=None, description="Where purchases are recorded: a path or URL that `ugen ledger init` created."
    )
    spending: Literal["allow", "reuse_only", "off"] | None = Field(
        default=None,
        description="`allow` buys; `reuse_only` reuses and waits for the jobs that exist; `off` does nothing. Default "
        "`allow`, and `reuse_only` in a branch deployment of Dagster+.",
    )
    budget: int | None = limited(None, least=0, description="Credits that one run, or one backfill, may reserve.")
    daily_budget: int | None = limited(
        None, least=0, description="Credits that may be reserved in a day; the feed sensor buys only with a budget."
    )
    max_credits: int | None = limited(None, least=1, description="Most credits that one job may reserve.")
    assume_credits: int | None = limited(
        None, least=0, description="Credits to count for a job whose cost is not known."
    )
    poll_interval: float = limited(10.0, above=0, description="Seconds between polls of a job.")
    allow_insecure: bool = Field(
        default=False, description="Whether the key may travel over plain http to another machine."
    )
    service_profile: dict[str, Any] = Field(
        default={}, description="Rows of the service profile in which the service differs from its documentation."
    )

    @model_validator(mode="after")
    def _check_address(self) -> "AccountArgs":
        from ugen_provider.core.api.config import check_base_url

        if self.base_url is not None:
            check_base_url(self.base_url, allow_insecure=self.allow_insecure)
        return self


class OptionsArgs(Args):
    """The choices that the purchase protocol leaves to you; see `UGenOptions`."""

    on_earlier_failure: Literal["retry_stage", "resubmit", "fail"] = "retry_stage"
    max_stage_retries: int = limited(2, least=0)
    on_paused: Literal["wait", "fail"] = "wait"
    on_interrupt: Literal["cancel", "pause", "detach"] = "cancel"
    on_final_failure: Literal["collect", "cancel"] = "collect"
    max_credits: int | None = limited(None, least=1)
    timeout: float | None = limited(None, above=0)
    queue_timeout: float | None = limited(None, least=0)
    min_score: float | None = limited(None, least=0, most=1)
    on_low_quality: Literal["warn", "fail"] = "warn"


class GateArgs(Args):
    """How keyframes are approved; see `UGenGate`."""

    approve_score: float | None = limited(None, least=0, most=1)
    max_open_gates: int | None = limited(10, least=1)
    expires_after: float | None = limited(None, above=0, description="Seconds.")


class ChecksArgs(Args):
    """Selection of the asset checks; see `UGenChecks`."""

    min_score: float | None = limited(0.55, least=0, most=1)
    counts: bool = True
    file: bool = True
    credits: bool = True
    urls: bool = False
    blocking: bool | list[str] = Field(
        default=False, description="Whether a failed check stops what hangs on its asset; or the checks that do."
    )

    @model_validator(mode="after")
    def _check_blocking(self) -> "ChecksArgs":
        checks_of(self.asked())
        return self

    def asked(self) -> UGenChecks:
        """Return the arguments as the checks take them."""
        return UGenChecks(**self.model_dump())


class SensorsArgs(Args):
    """Which sensors are defined. They are stopped until you start them."""

    feed: bool = Field(default=True, description="Partitions, and runs, for products that are new or changed.")
    budget: int | None = limited(
        None, least=0, description="Credits that the runs of the feed sensor may reserve in a day."
    )
    max_changed: float = limited(
        0.2, least=0, most=1, description="Share of the known products above which no changed one is bought again."
    )
    max_gone: float = limited(0.2, least=0, most=1, description="Share of the known products that the feed may lack.")
    max_new: int | None = limited(None, least=0, description="Products that may be new at most.")
    max_rejected: int | None = limited(None, least=0, description="Rejected rows above which nothing is bought.")
    allow_new_ids: bool = Field(
        default=False, description="Whether many products may be new while many others are gone."
    )
    guard_min: int = limited(10, least=0, description="Known products from which on these limits apply.")
    completion: bool | None = Field(
        default=None, description="Runs that collect submitted jobs; where not given, without a gate only."
    )
    reconcile: bool = Field(default=True, description="Sends owed cancels and collects results of failed partitions.")
    feed_interval: int = limited(60, least=1, description="Seconds between ticks of the feed sensor.")
    completion_interval: int = limited(30, least=1, description="Seconds between polls of submitted jobs.")
    reconcile_interval: int = limited(300, least=1, description="Seconds between ticks of the reconcile sensor.")


class RetryArgs(Args):
    """Dagster's own retries of a failed step."""

    max_retries: int = limited(1, least=1)
    delay: float | None = limited(None, above=0, description="Seconds before a retry.")

    def policy(self) -> dg.RetryPolicy:
        """Return them as Dagster takes them."""
        return dg.RetryPolicy(max_retries=self.max_retries, delay=self.delay)


@scaffold_with(UGenVideosScaffolder)
class UGenVideosComponent(Component, Model, YamlPosition):
    """The videos of a product feed: one partition per product, one U-Gen job per partition, never bought twice.

    Override `get_asset_spec` to name and describe the assets your way, and `execute` to do more in a run.

    ```yaml
    type: dagster_ugen.UGenVideosComponent
    attributes:
      api_key: "{{ env('UGEN_API_KEY') }}"
      feed: feed.xml
      job: {segment_count: 3, aspect_ratio: "9:16"}
      storage: s3://my-bucket/videos
    ```
    """

    api_key: str = Field(
        repr=False, min_length=1, description="The API key, as `{{ env('UGEN_API_KEY') }}`; it stays out of the pages."
    )
    feed: str = Field(description="The product feed: a file beside defs.yaml, or an http(s) or fsspec URL.")
    job: dict[str, Any] = Field(
        description="Fields of each create-job request; `segment_count` must be among them.",
        json_schema_extra=names(*BY_NAME),
    )
    mapping: dict[str, Any] | None = Field(
        default=None,
        description="Which columns of the feed become which fields; see the docs of feeds.",
        json_schema_extra=names("columns", "templates", "constants", "filters", "categories"),
    )
    # Values instead of factories, which a component of Dagster 1.12 does not take; pydantic copies them.
    partitions: PartitionsArgs = Field(default=PartitionsArgs(), description="The products as partitions.")
    account: AccountArgs = Field(default=AccountArgs(), description="How the account is used.")
    options: OptionsArgs = Field(default=OptionsArgs(), description="Choices of the purchase protocol.")
    gate: GateArgs | None = Field(default=None, description="Approve the first keyframe before the rest is made.")
    storage: str | None = Field(default=None, description="Where results are stored: a folder or an fsspec URL.")
    checks: ChecksArgs | None = Field(default=None, description="Asset checks over what was made.")
    automation: Automation | None = Field(default=None, description="Steps that run automatically; default none.")
    sensors: SensorsArgs = Field(default=SensorsArgs(), description="Which sensors are defined.")
    order_name: str | None = Field(
        default=None,
        description="Name under which purchases are recorded; default the key of final_video. Set it to the old key "
        "when you change key_prefix.",
    )
    key_prefix: list[str] = Field(default=[], description="Prefix of the asset keys.")
    group_name: str | None = Field(default=None, description="Group of the assets.")
    owners: list[str] = Field(default=[], description="Owners of the assets.")
    tags: dict[str, str] = Field(default={}, description="Tags of the assets.")
    code_version: str | None = Field(default=None, description="Code version of the assets.")
    deps: list[str] = Field(default=[], description="Keys of the assets that they depend on.")
    pool: str | None = Field(default=None, description="Concurrency pool of the runs.")
    partitions_per_run: int = limited(25, least=1, description="Most partitions of one run of a backfill.")
    retry_policy: RetryArgs | None = Field(default=None, description="Dagster's own retries of a failed step; free.")

    @field_validator("job")
    @classmethod
    def _check_job(cls, job: dict[str, Any]) -> dict[str, Any]:
        from ugen_provider.core.api import rules

        violations = rules.check(job, pending=("product_name", "product_image_url"))
        if violations:
            raise ValueError("; ".join(map(str, violations)))
        return job

    @field_validator("mapping")
    @classmethod
    def _check_mapping(cls, mapping: dict[str, Any] | None) -> dict[str, Any] | None:
        from ugen_provider.core.feeds.mapping import FeedMapping

        if mapping is not None:
            FeedMapping.from_dict(
                mapping
            )  # a ConfigError is a ValueError, which is reported with its position in the YAML
        return mapping

    @field_validator("api_key", mode="before")
    @classmethod
    def _check_key(cls, key: Any) -> Any:
        if key is None:
            raise ValueError(
                "the environment variable that it names is not set; \"{{ env('UGEN_API_KEY') }}\" would say which"
            )
        if isinstance(key, str) and key.startswith("{{"):
            raise ValueError("is a template that was not resolved; write \"{{ env('UGEN_API_KEY') }}\"")
        return key

    @model_validator(mode="after")
    def _check_gate(self) -> "UGenVideosComponent":
        if self.gate is not None and self.sensors.completion:
            raise ValueError(
                "sensors.completion: with a gate no job is submitted to be collected later, since each keyframe awaits "
                "a decision; leave out sensors.completion, or the gate"
            )
        if self.gate is None and self.automation == "after_approval":
            raise ValueError(
                "automation: without a gate there is no approval, and after_approval would buy every new partition; "
                "add a gate, or say for_new_products if that is what you want"
            )
        return self

    def get_asset_spec(self, props: UGenAssetProps) -> dg.AssetSpec:
        """Return the spec of one of the assets; override it to name and describe them your way.

        Args:
            props: What is known of it; `props.output` says which it is.

        Examples:
            ```python
            class ShopVideos(UGenVideosComponent):
                def get_asset_spec(self, props: UGenAssetProps) -> dg.AssetSpec:
                    return super().get_asset_spec(props).replace_attributes(owners=["team:video"])
            ```
        """
        return DagsterUGenTranslator().get_asset_spec(props)

    def execute(
        self, context: dg.AssetExecutionContext, ugen: UGenResource, *, videos: UGenVideoAssets, regenerate: str | None
    ) -> Iterator[Any]:
        """The body of the assets; override it to do more in a run.

        Args:
            context: The assets' context.
            ugen: The account.
            videos: What they are.
            regenerate: Buy again although there is a job; each new value buys once.
        """
        yield from videos.materialize(context, ugen, regenerate=regenerate)

    def build_defs(self, context: ComponentLoadContext) -> dg.Definitions:
        """Return the assets, their job, checks and sensors."""
        feed = FeedRequests(self._feed_at(context.path), job_defaults=self.job, mapping=self._mapping())
        videos = self.videos(feed)
        account = self.resource()
        jobs, sensors = self._sensors(videos, feed, account)
        checks = self.checks.asked() if self.checks is not None else None

        def execute(
            execution: dg.AssetExecutionContext, ugen: UGenResource, *, regenerate: str | None = None
        ) -> Iterator[Any]:
            yield from self.execute(execution, ugen, videos=videos, regenerate=regenerate)

        return dg.Definitions(
            assets=build_assets_from_definition(
                videos,
                name=self._name("videos"),
                resource=account,
                pool=self.pool,
                backfill_policy=dg.BackfillPolicy.multi_run(self.partitions_per_run),
                retry_policy=self.retry_policy.policy() if self.retry_policy is not None else None,
                execute=execute,
            ),
            asset_checks=build_ugen_asset_checks(videos, checks=checks, resource=account) if checks else None,
            jobs=jobs,
            sensors=sensors,
        )

    def resource(self) -> UGenResource:
        """The account. It stays inside the assets: among the definitions' resources, the pages would show its key."""
        return UGenResource(api_key=self.api_key, **self.account.model_dump())

    def videos(self, feed: FeedRequests) -> UGenVideoAssets:
        """Return what the assets are."""
        component = self

        class Translator(DagsterUGenTranslator):
            def get_asset_spec(self, props: UGenAssetProps) -> dg.AssetSpec:
                return component.get_asset_spec(props)

        return UGenVideoAssets(
            requests=feed,
            destination=self.storage,
            options=UGenOptions(**self.options.model_dump()),
            gate=UGenGate(**self.gate.model_dump()) if self.gate is not None else None,
            translator=Translator(),
            order_name=self.order_name,
            props=UGenAssetProps(
                output=Output.FINAL_VIDEO,
                key_prefix=self.key_prefix,
                group_name=self.group_name,
                owners=self.owners,
                tags=self.tags,
                deps=[dg.AssetDep(dg.AssetKey.from_user_string(key)) for key in self.deps],
                code_version=self.code_version,
                partitions_def=dg.DynamicPartitionsDefinition(name=self.partitions.name),
                automation_condition=_condition(self.automation),
            ),
        )

    def _sensors(
        self, videos: UGenVideoAssets, feed: FeedRequests, account: UGenResource
    ) -> tuple[list[AssetJob], list[dg.SensorDefinition]]:
        job = build_ugen_asset_job(videos, name=self._name("videos_job")) if self.gate is None else None
        sensors: list[dg.SensorDefinition] = []
        if self.sensors.feed:
            sensors.append(
                build_ugen_product_feed_sensor(
                    videos,
                    feed=feed,
                    partitions_name=self.partitions.name,
                    job=job,
                    resource=account,
                    name=self._name("feed_sensor"),
                    minimum_interval_seconds=self.sensors.feed_interval,
                    budget=self.sensors.budget,
                    max_changed=self.sensors.max_changed,
                    max_gone=self.sensors.max_gone,
                    max_new=self.sensors.max_new,
                    max_rejected=self.sensors.max_rejected,
                    allow_new_ids=self.sensors.allow_new_ids,
                    guard_min=self.sensors.guard_min,
                )
            )
        if self.sensors.completion is not False and job is not None:
            sensors.append(
                build_ugen_completion_sensor(
                    videos,
                    job=job,
                    resource=account,
                    name=self._name("completion_sensor"),
                    minimum_interval_seconds=self.sensors.completion_interval,
                )
            )
        if self.sensors.reconcile:
            sensors.append(
                build_ugen_reconcile_sensor(
                    videos,
                    resource=account,
                    name=self._name("reconcile_sensor"),
                    minimum_interval_seconds=self.sensors.reconcile_interval,
                )
            )
        decisions = build_ugen_approval_jobs(videos, prefix=self._name("")) if self.gate is not None else []
        return [job] if job is not None else decisions, sensors

    def _name(self, what: str) -> str:
        return "_".join([*self.key_prefix, "ugen", what])

    def _mapping(self) -> Any:
        from ugen_provider.core.feeds.mapping import FeedMapping

        return FeedMapping.from_dict(self.mapping) if self.mapping is not None else None

    def _feed_at(self, folder: Path) -> str:
        """Return the feed's address. A file that is missing fails the runs that read it, and not the code location."""
        return self.feed if urlsplit(self.feed).scheme else str(folder / self.feed)


_CONDITIONS: Mapping[str, Any] = {
    "after_approval": after_approval,
    "for_new_products": for_new_products,
}


def _condition(name: Automation | None) -> dg.AutomationCondition[Any] | None:
    made: dg.AutomationCondition[Any] | None = _CONDITIONS[name]() if name is not None else None
    return made
