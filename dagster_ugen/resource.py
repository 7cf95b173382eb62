# SPDX-License-Identifier: Apache-2.0
"""`UGenResource`: the account, and how it is used."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from ugen_provider.core.api._sync_client import UGenClient
    from ugen_provider.core.api.config import ClientConfig


class UGenResource(dg.ConfigurableResource[Any]):
    """The U-Gen account, and how it is used.

    ```python
    defs = dg.Definitions(
        assets=build_ugen_assets(
            requests=FeedRequests("feed.xml", job_defaults={"segment_count": 3}),
            partitions_def=dg.DynamicPartitionsDefinition(name="ugen_products"),
        ),
        resources={"ugen": UGenResource(api_key=dg.EnvVar("UGEN_API_KEY"))},
    )
    ```
    """

    # The example is not indented, since Dagster's page of the resource shows this text as Markdown.

    api_key: str = Field(
        repr=False, description="The API key. Give it as `dg.EnvVar('UGEN_API_KEY')`, or Dagster's pages show it."
    )
    base_url: str | None = Field(
        default=None, description="Address of the API; the real service where not given. A local U-Gen has its own."
    )
    namespace: str = Field(
        default="",
        description="Keeps the orders of two environments apart that share one account, such as staging and live.",
    )
    video_model: str | None = Field(
        default=None, description="The model of requests that name none; the service's own default where not given."
    )
    spending: Literal["allow", "attach_only", "off"] = Field(
        default="allow",
        description="`attach_only` takes and waits for what was bought already and buys nothing; `off` does nothing.",
    )
    poll_interval: float = Field(
        default=10.0, gt=0, description="Seconds between looks at a job; U-Gen asks for 5 to 10."
    )
    request_timeout: float = Field(default=30.0, gt=0, description="Seconds for one attempt of one request.")
    max_retries: int = Field(
        default=3, ge=0, description="Repeats of a request beside the first attempt, where it is safe."
    )
    allow_insecure: bool = Field(
        default=False, description="Whether the key may travel over plain http to another machine."
    )

    def client_config(self) -> ClientConfig:
        """The settings, checked.

        Raises:
            ConfigError: The key is missing, or a setting is out of the question.
        """
        from ugen_provider.core.api.config import resolve

        return resolve(
            api_key=self.api_key,
            base_url=self.base_url,
            timeout=self.request_timeout,
            retries=self.max_retries,
            video_model=self.video_model,
            namespace=self.namespace,
            spending=self.spending,
            allow_insecure=self.allow_insecure,
            source="UGenResource.api_key",
        )

    @contextmanager
    def get_client(
        self, context: dg.AssetExecutionContext | dg.OpExecutionContext | None = None
    ) -> Iterator[UGenClient]:
        """A client for the body of an asset, op or sensor; it is closed afterwards.

        Args:
            context: The body's context. With it, the jobs that were bought and the credits that were reserved for them
                land in the output's metadata, as `ugen/jobs` and `ugen/credits_reserved`.

        Raises:
            ConfigError: The key is missing, or a setting is out of the question.

        Examples:
            ```python
            @dg.asset
            def one_video(context: dg.AssetExecutionContext, ugen: UGenResource) -> dg.MaterializeResult:
                with ugen.get_client(context) as client:
                    return dg.MaterializeResult(metadata={"job": client.jobs.create(my_request).job_id})
            ```
        """
        from dagster_ugen.usage import CountingClient

        with CountingClient(config=self.client_config()) as client:
            try:
                yield client
            finally:
                if context is not None:
                    context.add_output_metadata(client.usage())

    @property
    def is_local(self) -> bool:
        """Whether the API is one of your own machines, whose links lead to private addresses as well.

        Over plain http nothing else is asked: this machine, or one that `allow_insecure` stands for.

        Raises:
            ConfigError: The key is missing, or a setting is out of the question.
        """
        return self.client_config().base_url.startswith("http://")


def initialized(resource: UGenResource) -> UGenResource:
    """A resource that Dagster was not given, with the environment variables that it names read."""
    return cast("UGenResource", resource.process_config_and_initialize())


def account_of(resource: UGenResource | None, context: dg.SensorEvaluationContext) -> UGenResource:
    """The account of a sensor: the one that it was given, else the resource `ugen`."""
    return initialized(resource) if resource is not None else cast("UGenResource", context.resources.ugen)


def bound(body: Callable[..., Any], resource: UGenResource | None) -> Callable[..., Any]:
    """A body with its account at hand; without one it asks Dagster for the resource `ugen`.

    An account that were given to Dagster would be shown in the launchpad, with its key, and could stand in one code
    location only once under its name.
    """
    if resource is None:
        return body

    def with_account(*arguments: Any, **named: Any) -> Any:
        return body(*arguments, **named, ugen=initialized(resource))

    def generating(*arguments: Any, **named: Any) -> Any:
        yield from with_account(*arguments, **named)

    made: Any = functools.wraps(body)(generating if inspect.isgeneratorfunction(body) else with_account)
    asked = inspect.signature(body)
    others = [parameter for name, parameter in asked.parameters.items() if name != "ugen"]
    made.__annotations__ = {name: kind for name, kind in body.__annotations__.items() if name != "ugen"}
    made.__signature__ = asked.replace(parameters=others)
    return cast("Callable[..., Any]", made)
