# SPDX-License-Identifier: Apache-2.0
"""The component."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import dagster as dg
from dagster.components import Component, ComponentLoadContext, Model, scaffold_with
from pydantic import Field, field_validator, model_validator

from dagster_ugen import automation
from dagster_ugen.assets import UGenVideos, assets_of
from dagster_ugen.batch import build_ugen_batch_job
from dagster_ugen.checks import UGenChecks, build_ugen_asset_checks, checks_of
from dagster_ugen.component.fields import Args, Placed, limited, names
from dagster_ugen.component.scaffolder import UGenVideosScaffolder
from dagster_ugen.feed_sensor import build_ugen_product_feed_sensor
from dagster_ugen.gate import UGenGate
from dagster_ugen.options import UGenOptions
from dagster_ugen.orphans import build_ugen_orphan_sensor
from dagster_ugen.outputs import Output
from dagster_ugen.requests import FeedRequests
from dagster_ugen.resource import UGenResource
from dagster_ugen.sensors import build_ugen_completion_sensor
from dagster_ugen.translator import DagsterUGenTranslator, UGenAssetProps
from ugen_provider.core.api.rules import BY_NAME

Automation = Literal["after_approval", "for_new_products"]


class PartitionsArgs(Args):
    """The products as dynamic partitions."""

    name: str = Field(default="ugen_products", min_length=1, description="Name of the dynamic partitions definition.")


class AccountArgs(Args):
    """How the account is used."""

    base_url: str | None = Field(default=None, description="Address of the API; the real service where not given.")
    namespace: str = Field(default="", description="Keeps the orders of environments apart that share an account.")
    video_model: str | None = Field(default=None, description="The model of requests that name none.")
    spending: Literal["allow", "attach_only", "off"] = Field(
        default="allow", description="`attach_only` takes and waits for what was bought; `off` does nothing."
    )
    poll_interval: float = limited(10.0, above=0, description="Seconds between looks at a job.")
    allow_insecure: bool = Field(
        default=False, description="Whether the key may travel over plain http to another machine."
    )

    @model_validator(mode="after")
    def _check_address(self) -> "AccountArgs":
        from ugen_provider.core.api.config import check_base_url

        if self.base_url is not None:
            check_base_url(self.base_url, allow_insecure=self.allow_insecure)
        return self


class OptionsArgs(Args):
    """The choices that the money protocol leaves to you; see `UGenOptions`."""

    on_earlier_failure: Literal["retry_stage", "resubmit", "fail"] = "retry_stage"
    max_stage_retries: int = limited(2, least=0)
    on_paused: Literal["wait", "fail"] = "wait"
    on_interrupt: Literal["cancel", "pause", "detach"] = "cancel"
    max_credits: int | None = limited(None, least=1)
    timeout: float | None = limited(None, above=0)
    slot_timeout: float | None = limited(None, least=0)
    min_score: float | None = limited(None, least=0, most=1)
    on_low_quality: Literal["warn", "fail"] = "warn"


class GateArgs(Args):
    """How looks are approved; see `UGenGate`."""

    approve_score: float | None = limited(None, least=0, most=1)
    max_open_gates: int | None = limited(10, least=1)
    expires_after: float | None = limited(None, above=0, description="Seconds.")


class ChecksArgs(Args):
    """Which checks; see `UGenChecks`."""

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
        """As the checks take them."""
        return UGenChecks(**self.model_dump())


class SensorsArgs(Args):
    """Which sensors are defined. They are stopped until somebody starts them."""

    feed: bool = Field(default=True, description="Partitions, and runs, for products that are new or changed.")
    completion: bool | None = Field(
        default=None, description="Runs that collect submitted jobs; where not given, without a gate only."
    )
    orphans: bool = Field(default=True, description="Names jobs that nobody waits for.")
    feed_interval: int = limited(300, least=1, description="Seconds between looks at the feed.")
    completion_interval: int = limited(30, least=1, description="Seconds between looks at submitted jobs.")
    orphan_interval: int = limited(300, least=1, description="Seconds between looks for orphans.")


@scaffold_with(UGenVideosScaffolder)
class UGenVideosComponent(Component, Model, Placed):
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
    options: OptionsArgs = Field(default=OptionsArgs(), description="Choices of the money protocol.")
    gate: GateArgs | None = Field(default=None, description="Approve the look of a video before the rest is made.")
    storage: str | None = Field(default=None, description="Where results are stored: a folder or an fsspec URL.")
    checks: ChecksArgs | None = Field(default=None, description="Asset checks over what was made.")
    automation: Automation | None = Field(default=None, description="What runs by itself; nothing where not given.")
    sensors: SensorsArgs = Field(default=SensorsArgs(), description="Which sensors are defined.")
    key_prefix: list[str] = Field(default=[], description="Prefix of the asset keys.")
    group_name: str | None = Field(default=None, description="Group of the assets.")
    owners: list[str] = Field(default=[], description="Owners of the assets.")
    tags: dict[str, str] = Field(default={}, description="Tags of the assets.")
    code_version: str | None = Field(default=None, description="Code version of the assets.")
    pool: str | None = Field(default=None, description="Concurrency pool of the runs.")

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
            FeedMapping.from_dict(mapping)  # a ConfigError is a ValueError, which is told with its place in the YAML
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
                "sensors.completion: with a gate nothing is submitted to be collected, since each look waits for a "
                "decision; leave out sensors.completion, or the gate"
            )
        if self.gate is None and self.automation == "after_approval":
            raise ValueError(
                "automation: without a gate there is no approval, and after_approval would buy every new partition; "
                "add a gate, or say for_new_products if that is what you want"
            )
        return self

    def get_asset_spec(self, props: UGenAssetProps) -> dg.AssetSpec:
        """The spec of one of the assets; override it to name and describe them your way.

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
        self, context: dg.AssetExecutionContext, ugen: UGenResource, *, videos: UGenVideos, regenerate: str | None
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
        """The assets, checks, sensors and the batch job.

        Raises:
            DagsterInvalidDefinitionError: The feed is a file that is not there.
        """
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
            assets=assets_of(videos, name=self._name("videos"), resource=account, pool=self.pool, execute=execute),
            asset_checks=build_ugen_asset_checks(videos, checks=checks, resource=account) if checks else None,
            jobs=jobs,
            sensors=sensors,
        )

    def resource(self) -> UGenResource:
        """The account. It stays inside the assets: among the definitions' resources, the pages would show its key."""
        return UGenResource(api_key=self.api_key, **self.account.model_dump())

    def videos(self, feed: FeedRequests) -> UGenVideos:
        """What the assets are."""
        component = self

        class Translator(DagsterUGenTranslator):
            def get_asset_spec(self, props: UGenAssetProps) -> dg.AssetSpec:
                return component.get_asset_spec(props)

        return UGenVideos(
            requests=feed,
            destination=self.storage,
            options=UGenOptions(**self.options.model_dump()),
            gate=UGenGate(**self.gate.model_dump()) if self.gate is not None else None,
            translator=Translator(),
            props=UGenAssetProps(
                output=Output.FINAL_VIDEO,
                key_prefix=self.key_prefix,
                group_name=self.group_name,
                owners=self.owners,
                tags=self.tags,
                code_version=self.code_version,
                partitions_def=dg.DynamicPartitionsDefinition(name=self.partitions.name),
                automation_condition=_condition(self.automation),
            ),
        )

    def _sensors(
        self, videos: UGenVideos, feed: FeedRequests, account: UGenResource
    ) -> tuple[list[dg.JobDefinition], list[dg.SensorDefinition]]:
        batch = None
        if self.gate is None:
            batch = build_ugen_batch_job(videos, name=self._name("batch_job"), resource=account)
        sensors: list[dg.SensorDefinition] = []
        if self.sensors.feed:
            sensors.append(
                build_ugen_product_feed_sensor(
                    videos,
                    feed=feed,
                    partitions_name=self.partitions.name,
                    job=batch,
                    namespace=self.account.namespace,
                    name=self._name("feed_sensor"),
                    minimum_interval_seconds=self.sensors.feed_interval,
                )
            )
        if self.sensors.completion is not False and batch is not None:
            sensors.append(
                build_ugen_completion_sensor(
                    videos,
                    job=batch,
                    resource=account,
                    name=self._name("completion_sensor"),
                    minimum_interval_seconds=self.sensors.completion_interval,
                )
            )
        if self.sensors.orphans:
            sensors.append(
                build_ugen_orphan_sensor(
                    videos,
                    resource=account,
                    name=self._name("orphan_sensor"),
                    minimum_interval_seconds=self.sensors.orphan_interval,
                )
            )
        return [batch] if batch is not None else [], sensors

    def _name(self, what: str) -> str:
        return "_".join([*self.key_prefix, "ugen", what])

    def _mapping(self) -> Any:
        from ugen_provider.core.feeds.mapping import FeedMapping

        return FeedMapping.from_dict(self.mapping) if self.mapping is not None else None

    def _feed_at(self, folder: Path) -> str:
        if urlsplit(self.feed).scheme:
            return self.feed
        feed = folder / self.feed
        if not feed.is_file():
            raise dg.DagsterInvalidDefinitionError(
                f"{folder / 'defs.yaml'}, attributes.feed: there is no file {feed}; "
                "put the feed beside defs.yaml, or write its path or URL"
            )
        return str(feed)


_CONDITIONS: Mapping[str, Any] = {
    "after_approval": automation.after_approval,
    "for_new_products": automation.for_new_products,
}


def _condition(name: Automation | None) -> dg.AutomationCondition[Any] | None:
    made: dg.AutomationCondition[Any] | None = _CONDITIONS[name]() if name is not None else None
    return made
