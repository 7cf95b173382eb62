# SPDX-License-Identifier: Apache-2.0
"""Runs of the real assets on a Dagster instance and a U-Gen, and reads of their results."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import pytest

from dagster_ugen import UGenOptions, UGenResource, build_ugen_assets
from ugen_provider.core.jobs.order import partition_key, record_key
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.record import Action, OrderRecord
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY

PRODUCTS = dg.DynamicPartitionsDefinition(name="ugen_products")


def request_of(partition: str) -> dict[str, Any]:
    """Return what is ordered for a partition in these tests."""
    name = partition or "only"
    return {"product_name": name, "product_image_url": f"https://shop.example/{name}.jpg", "segment_count": 2}


@dataclass
class Shop:
    """An account, an instance, and the assets over both."""

    instance: dg.DagsterInstance
    server: EmulatorServer
    folder: Path
    ledger: str | None = None
    spending: Literal["allow", "reuse_only"] = "allow"
    video_model: str | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    built: dict[str, Any] = field(default_factory=dict)

    @property
    def resource(self) -> UGenResource:
        return UGenResource(
            api_key=LOCAL_KEY,
            base_url=self.server.base_url,
            poll_interval=0.01,
            ledger=self.ledger,
            spending=self.spending,
            video_model=self.video_model,
            **self.limits,
        )

    @contextmanager
    def store(self) -> Iterator[LedgerOrderStore]:
        """The store of this account's orders."""
        with self.resource.open_account(self.instance) as account:
            yield account.store()

    def order(self, partition: str = "lamp", *, name: str = "final_video") -> OrderRecord:
        """The record of a partition's order."""
        return self.find_order(partition, name=name) or pytest.fail(f"no order of {name}, {partition}")

    def find_order(self, partition: str = "lamp", *, name: str = "final_video") -> OrderRecord | None:
        with self.resource.open_account(self.instance) as account:
            key = record_key(partition_key(asset=name, partition=partition), origin=account.origin)
            return account.store().read_many([key]).get(key)

    def actions(self, partition: str = "lamp") -> list[Action]:
        """Our actions on a partition's order, oldest first."""
        with self.store() as store:
            return list(store.actions(self.order(partition).order_key))

    def assets(self, requests: Any = request_of, **arguments: Any) -> list[Any]:
        arguments.setdefault("partitions_def", PRODUCTS)
        return build_ugen_assets(requests=requests, **arguments)

    def run(
        self,
        *partitions: str,
        assets: list[Any] | None = None,
        select: list[str] | None = None,
        tags: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        resource: UGenResource | None = None,
        options: UGenOptions | None = None,
        raise_on_error: bool = False,
        **arguments: Any,
    ) -> dg.ExecuteInProcessResult:
        """Run the assets for some partitions in one run, as a single-run backfill does."""
        checks = arguments.pop("asset_checks", None)
        if assets is None:
            assets = self.assets(options=options, backfill_policy=dg.BackfillPolicy.single_run(), **arguments)
        if partitions:
            self.instance.add_dynamic_partitions("ugen_products", list(partitions))
        defs = dg.Definitions(assets=assets, asset_checks=checks, resources={"ugen": resource or self.resource})
        job = defs.resolve_implicit_global_asset_job_def()
        chosen = [dg.AssetKey(key.split("/")) for key in select] if select else None
        all_tags = dict(tags or {})
        partition = None
        if len(partitions) == 1:
            partition = partitions[0]
        elif partitions:
            all_tags["dagster/asset_partition_range_start"] = partitions[0]
            all_tags["dagster/asset_partition_range_end"] = partitions[-1]
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=chosen,
            partition_key=partition,
            tags=all_tags,
            run_config=dict(config or {}),
            raise_on_error=raise_on_error,
        )

    @property
    def created(self) -> list[str]:
        """Products for which a job was created, oldest first."""
        return [entry.product_name for entry in self.server.emulator.journal.find_purchases(kind="create")]

    @property
    def jobs(self) -> dict[str, str]:
        """Each job's status, as the service reports it."""
        with self.resource.get_client() as client:
            return {job.job_id: job.status for job in client.jobs.list()}

    def materialized(self, asset: str) -> dict[str, Mapping[str, Any]]:
        """The newest materialization's metadata by partition, as plain values."""
        found: dict[str, Mapping[str, Any]] = {}
        for record in self.instance.fetch_materializations(dg.AssetKey(asset.split("/")), limit=1000).records:
            made = record.asset_materialization
            if made is not None and (made.partition or "") not in found:
                found[made.partition or ""] = {
                    key: getattr(value, "value", value) for key, value in made.metadata.items()
                }
        return found


@contextmanager
def when(condition: Callable[[], bool], act: Callable[[], None]) -> Iterator[None]:
    """Do something, from another thread, as soon as a condition holds; it is over with the block.

    Raises:
        AssertionError: The condition never held, so nothing was done.
    """
    over = threading.Event()
    done = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            if condition():
                act()
                done.set()
                return

    thread = threading.Thread(target=look, name="test-when", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()  # else it would act in a later test, with a signal to all of them
        thread.join(timeout=60)
    assert done.is_set(), "what was waited for never came, or what was to be done failed"


def interrupt_process() -> None:
    """Return what an executor or a machine does to a step: a signal."""
    os.kill(os.getpid(), signal.SIGINT)


def failure_of(result: dg.ExecuteInProcessResult) -> Any:
    """The `Failure` that a run ended with, as its event shows it."""
    return next(event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure)
