# SPDX-License-Identifier: Apache-2.0
"""`UGenResource`: the account, its ledger, and purchases in assets of your own."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from pydantic import Field

from ugen_provider.core.api.errors import ConfigError

if TYPE_CHECKING:
    from dagster_ugen.account import Account
    from dagster_ugen.definition import UGenOptions
    from ugen_provider.core.api.client import UGenClient
    from ugen_provider.core.api.config import ClientConfig
    from ugen_provider.core.batch.budget import Budget
    from ugen_provider.core.jobs.order import Purchase
    from ugen_provider.core.ledger.store import Ledger


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
        repr=False,
        description="The API key. Give it as `dg.EnvVar('UGEN_API_KEY')`, so that no configuration holds it.",
        json_schema_extra={"dagster__is_secret": True},
    )
    base_url: str | None = Field(
        default=None, description="Address of the API; the real service where not given. A local U-Gen has its own."
    )
    namespace: str = Field(
        default="",
        description="Keeps the orders of two environments apart that share one account, such as staging and "
        "production. Default in Dagster+: the deployment's name.",
    )
    video_model: str | None = Field(
        default=None, description="The model of requests that name none; the service's own default where not given."
    )
    ledger: str | None = Field(
        default=None,
        repr=False,
        description="Where purchases are recorded: a path or a PostgreSQL URL that `ugen ledger init` created. "
        "Default: `UGEN_LEDGER`, else a file in your data folder. An instance on a database server, or Dagster+, must "
        "name one.",
        json_schema_extra={"dagster__is_secret": True},  # its URL may hold a password
    )
    spending: str | None = Field(
        default=None,
        description="`allow` buys; `reuse_only` reuses and waits for the jobs that exist and buys nothing; `off` does "
        "nothing. Default `allow`, and `reuse_only` in a branch deployment of Dagster+.",
    )
    budget: int | None = Field(
        default=None,
        description="Credits that one logical run may reserve: a run with its retries, or all runs of a backfill.",
    )
    daily_budget: int | None = Field(
        default=None,
        description="Credits that may be reserved in a day (UTC) over all runs of the namespace. The feed sensor "
        "buys only with this budget or one of its own.",
    )
    max_credits: int | None = Field(
        default=None, description="Most credits that one job may reserve, where the options of the assets do not say."
    )
    assume_credits: int | None = Field(
        default=None,
        description="Credits to count for a job whose cost is not known; without it, no such job is bought.",
    )
    poll_interval: float = Field(
        default=10.0, gt=0, description="Seconds between polls of a job; U-Gen asks for 5 to 10."
    )
    request_timeout: float = Field(default=30.0, gt=0, description="Seconds for one attempt of one request.")
    max_retries: int | None = Field(
        default=None,
        ge=0,
        description="Repeats of a request beside the first attempt, where it is safe; as often as 180 seconds allow "
        "where not given.",
    )
    allow_insecure: bool = Field(
        default=False, description="Whether the key may travel over plain http to another machine."
    )
    service_profile: dict[str, Any] = Field(
        default={},
        description="Where the service differs from its documentation: rows of the service profile, as "
        "`ugen doctor --json` prints them.",
    )
    allow_base_url_override: bool = Field(
        default=False,
        description=(
            "Whether a run may set another `base_url` and use the key of the environment with it. Only the definition "
            "can allow this; a run's own configuration cannot."
        ),
    )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuse to send a key of the environment to an address that only the run's configuration names.

        A user who may launch a run may write its configuration: with `base_url` of a server of their own, that server
        would receive the key. A key that the configuration itself holds is the launcher's own, and may go anywhere.

        Raises:
            ConfigError: The run sets `base_url`, and the definition does not allow that.
        """
        try:
            definition = context.resource_def
        except dg.DagsterInvariantViolationError:
            return  # outside of a run there is no configuration but the definition's
        schema = definition.config_schema if definition is not None else None
        defined: Any = schema.default_value if schema is not None and schema.default_provided else {}
        if not isinstance(defined, dict) or defined.get("allow_base_url_override") is True:
            return
        if self.base_url != _resolved(defined.get("base_url")) and self._is_shared_key(defined):
            raise ConfigError(
                "base_url: this run sets another address than the definition, and would send the key of the "
                "environment there; set allow_base_url_override=True in the definition if that is meant"
            )

    def _is_shared_key(self, defined: dict[str, Any]) -> bool:
        """Return whether the key comes from the definition or the environment, and not from the run's configuration."""
        return self.api_key in {_resolved(defined.get("api_key")), *os.environ.values()}

    def client_config(self) -> ClientConfig:
        """Return the client's settings, after a check of each.

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
            namespace=self.namespace or os.environ.get("DAGSTER_CLOUD_DEPLOYMENT_NAME", ""),
            spending=self._spending(),
            allow_insecure=self.allow_insecure,
            service_profile=self.service_profile,
            source="UGenResource.api_key",
        )

    def _spending(self) -> str | None:
        is_set = self.spending or os.environ.get("UGEN_SPENDING")
        return "reuse_only" if is_branch_deployment() and not is_set else self.spending

    def budget_of_runs(self, *, credits: int | None = None) -> Budget:  # noqa: A002  the API's own word
        """Return the limits of a logical run and a day.

        Args:
            credits: The limit of a logical run in place of `budget`.

        Raises:
            ConfigError: A limit is negative.
        """
        from ugen_provider.core.batch.budget import Budget

        limit = self.budget if credits is None else credits
        return Budget(credits=limit, daily=self.daily_budget, assume_credits=self.assume_credits)

    def open_ledger(self, instance: dg.DagsterInstance, *, expected_id: str | None = None) -> Ledger:
        """Open the ledger of this account; the caller closes it.

        Args:
            instance: The Dagster instance. One that is local has a default ledger, in your data folder.
            expected_id: The id that the ledger must have, from the tag of a run that was begun with it.

        Raises:
            ConfigError: It does not exist, has another id, or must be named.
            LedgerUnavailableError: Its server does not answer.
        """
        from ugen_provider.core.api.errors import ConfigError
        from ugen_provider.core.ledger.store import Ledger, default_ledger_address, open_default_ledger

        if self.ledger:
            return Ledger(self.ledger, expected_id=expected_id)
        if not is_local_instance(instance) and not os.environ.get("UGEN_LEDGER", "").strip():
            raise ConfigError(
                "UGenResource.ledger: this Dagster instance serves several machines, so name a ledger that all of them "
                "reach: run `ugen ledger init postgresql://…`, and set UGenResource(ledger=…) or UGEN_LEDGER"
            )
        opened = open_default_ledger()
        if expected_id in {None, opened.ledger_id}:
            return opened
        opened.close()
        return Ledger(default_ledger_address(), expected_id=expected_id)  # which raises the error for another ledger

    @contextmanager
    def open_account(self, instance: dg.DagsterInstance, *, run: dg.DagsterRun | None = None) -> Iterator[Account]:
        """Open the account with its ledger; both are closed afterwards.

        Args:
            instance: The Dagster instance.
            run: The run that uses it. It is tagged with the ledger's id, and another ledger is refused from then on.

        Raises:
            ConfigError: The key is missing, a setting is not allowed, or the ledger is another than the run began with.
            LedgerUnavailableError: The ledger's server does not answer.
        """
        from dagster_ugen.account import Account
        from dagster_ugen.event_log import LEDGER_TAG

        config = self.client_config()
        ledger = self.open_ledger(instance, expected_id=None if run is None else run.tags.get(LEDGER_TAG))
        with ledger:
            if run is not None and LEDGER_TAG not in run.tags and instance.has_run(run.run_id):
                instance.add_run_tags(run.run_id, {LEDGER_TAG: ledger.ledger_id})
            yield Account(
                config=config,
                read_config=self.client_config,
                ledger=ledger,
                poll_interval=self.poll_interval,
                budget=self.budget_of_runs(),
                max_credits=self.max_credits,
            )

    def buy(
        self,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        request: Any,
        *,
        order_name: str | None = None,
        partition: str | None = None,
        regenerate: str | None = None,
        options: UGenOptions | None = None,
    ) -> Purchase:
        """Purchase one video in the body of your own asset, and wait for it. Run again, it returns the same video.

        Costs the credits of one job, once for each order: an order is the asset and its partition. The metadata of the
        output says which job it is and what it cost.

        Args:
            context: The body's context.
            request: The request, as a `CreateJob` or a mapping of its fields.
            order_name: Names the order in place of the asset's key. An op needs it, as does an asset that was renamed,
                or that buys several videos.
            partition: The partition; default the run's. A run of several partitions needs it.
            regenerate: A value that asks for another video; each new value buys once. Default: the run's tag
                `ugen/regenerate`.
            options: What to do on failures, interrupts and limits. Default `UGenOptions()`.

        Returns:
            The job, how the call came to it (`outcome`), and warnings.

        Raises:
            PurchaseError: To continue could pay twice; the message says what to do.
            JobFailedError: The job failed; the next run follows `on_earlier_failure`.
            JobTimeoutError: `options.timeout` passed; the job keeps running, and the next run resumes waiting for it.
            ConfigError: The key is missing, or the order has no name.

        Examples:
            ```python
            @dg.asset
            def one_video(context: dg.AssetExecutionContext, ugen: UGenResource) -> None:
                ugen.buy(context, {"product_name": "Lamp", "product_image_url": "https://shop.example/l.jpg",
                                   "segment_count": 1})
            ```
        """
        from dagster_ugen._compat import run_of
        from dagster_ugen.definition import UGenOptions
        from dagster_ugen.execution import buy
        from dagster_ugen.results import describe_purchase

        with self.open_account(context.instance, run=run_of(context)) as account:
            bought = buy(
                context,
                account,
                request,
                order_name=order_name,
                partition=partition,
                regenerate=regenerate,
                options=options or UGenOptions(),
            )
        add_metadata(context, describe_purchase(bought))
        return bought.bought

    @contextmanager
    def get_client(
        self, context: dg.AssetExecutionContext | dg.OpExecutionContext | None = None
    ) -> Iterator[UGenClient]:
        """Open a client for the body of an asset, op or sensor; it is closed afterwards. To purchase, use `buy`.

        Args:
            context: The body's context. With it, the jobs that this client created, and the credits that were reserved
                for them, are added to the output's metadata, as `ugen/jobs` and `ugen/credits_reserved`.

        Raises:
            ConfigError: The key is missing, or a setting is not allowed.

        Examples:
            ```python
            @dg.asset
            def credits_left(ugen: UGenResource) -> dg.MaterializeResult:
                with ugen.get_client() as client:
                    return dg.MaterializeResult(metadata={"credits": client.credits.balance().available_credits})
            ```
        """
        from dagster_ugen.account import CountingClient

        with CountingClient(config=self.client_config()) as client:
            try:
                yield client
            finally:
                if context is not None:
                    add_metadata(context, client.usage())

    @property
    def is_local(self) -> bool:
        """Whether the API is one of your own machines, whose links lead to private addresses as well.

        Over plain http nothing else is asked: this machine, or one that `allow_insecure` accepts.

        Raises:
            ConfigError: The key is missing, or a setting is out of the question.
        """
        return self.client_config().base_url.startswith("http://")


def _resolved(value: Any) -> Any:
    """A value of a definition's configuration, read from the environment where it names a variable."""
    return os.environ.get(value["env"]) if isinstance(value, dict) and set(value) == {"env"} else value


def is_branch_deployment() -> bool:
    """Return whether this code runs in a branch deployment of Dagster+."""
    return os.environ.get("DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT") == "1"


def is_local_instance(instance: dg.DagsterInstance) -> bool:
    """Return whether an instance serves one machine: its events are in memory or in SQLite files."""
    module = type(instance.event_log_storage).__module__
    return module.startswith("dagster._core.storage.event_log.") and ("sqlite" in module or "in_memory" in module)


def add_metadata(context: dg.AssetExecutionContext | dg.OpExecutionContext, metadata: Mapping[str, Any]) -> None:
    """Add metadata to the only output of a body; where Dagster refuses, log it: paid work never fails for that."""
    try:
        context.add_output_metadata(dict(metadata))
    except Exception as error:  # noqa: BLE001  see above
        context.log.warning("U-Gen: %s (not added to the metadata: %s)", dict(metadata), error)


def sensor_account(resource: UGenResource | None, context: dg.SensorEvaluationContext) -> UGenResource:
    """Return the account of a sensor: the given one, else the resource `ugen` of the definitions."""
    if resource is not None:
        return initialized(resource)
    found: UGenResource = context.resources.ugen
    return found


def required_resources(resource: UGenResource | None) -> set[str]:
    """Return the resource keys that a sensor needs of the definitions."""
    return set() if resource is not None else {"ugen"}


def initialized(resource: UGenResource) -> UGenResource:
    """Return a resource whose environment variables are read, for code outside a Dagster run."""
    return cast("UGenResource", resource.process_config_and_initialize())


def bound(body: Callable[..., Any], resource: UGenResource | None) -> Callable[..., Any]:
    """Return a body with its account bound; without one it asks Dagster for the resource `ugen`.

    An account among the definitions' resources would be shown in the launchpad with its key, and a code location could
    have only one under that name.
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
