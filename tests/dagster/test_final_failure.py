# SPDX-License-Identifier: Apache-2.0
"""`on_final_failure` follows only a failure that Dagster retries neither in its run nor by another run.

A wrong "last" cancels a job that the next attempt waits for. So each way in which Dagster retries is tried with each
policy, and what Dagster cannot say counts as a retry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import dagster as dg
import pytest

from dagster_ugen import UGenOptions, build_ugen_reconcile_sensor
from tests.dagster.shop import PRODUCTS, Shop, request_of

pytestmark = pytest.mark.filterwarnings("ignore:Error parsing int from tag dagster/max_retries")

Policy = Literal["collect", "cancel"]
POLICIES: tuple[Policy, ...] = ("collect", "cancel")
RETRIES_ON: Mapping[str, Any] = {"enabled": True, "max_retries": 1}


@dataclass(frozen=True)
class Way:
    """One way in which Dagster retries or does not.

    Attributes:
        name: Its id.
        attempts: The attempts that one run makes; each ends by its timeout while the job runs.
        is_retried: Whether Dagster starts another run afterwards.
        op: Retries by the policy of the op.
        job: Retries by the policy of the job.
        instance: The setting `run_retries` of the instance.
        tags: The run's tags.
        cloud: Whether it runs in Dagster+.
        is_mute: Whether Dagster's run storage does not answer the question.
    """

    name: str
    attempts: int
    is_retried: bool
    op: int = 0
    job: int = 0
    instance: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    cloud: bool = False
    is_mute: bool = False

    def __str__(self) -> str:
        return self.name


WAYS = (
    Way("none", 1, False),
    Way("op", 2, False, op=1),
    Way("job", 2, False, job=1),
    Way("op before job", 2, False, op=1, job=5),
    Way("run", 1, True, instance=RETRIES_ON),
    Way("op and run", 2, True, op=1, instance=RETRIES_ON),
    Way("tag", 1, True, instance={"enabled": True, "max_retries": 0}, tags={"dagster/max_retries": "1"}),
    Way("tag that forbids", 1, False, instance=RETRIES_ON, tags={"dagster/max_retries": "0"}),
    Way("tag that is no number", 1, False, instance=RETRIES_ON, tags={"dagster/max_retries": "many"}),
    Way("tag without a daemon", 1, False, tags={"dagster/max_retries": "1"}),
    Way("only lost workers", 1, False, instance={**RETRIES_ON, "retry_on_asset_or_op_failure": False}),
    Way("tag for failed steps", 1, False, instance=RETRIES_ON, tags={"dagster/retry_on_asset_or_op_failure": "false"}),
    Way("Dagster+", 1, True, cloud=True),
    Way("Dagster+ with a tag that forbids", 1, False, cloud=True, tags={"dagster/max_retries": "0"}),
    Way("storage away", 1, True, instance=RETRIES_ON, is_mute=True),
)


Instances = Callable[[Mapping[str, Any]], dg.DagsterInstance]


@pytest.fixture(scope="module")
def made_instances() -> Iterator[dict[str, dg.DagsterInstance]]:
    """Real instances by their settings: making the databases of one takes longer than a test."""
    with ExitStack() as stack:

        class Made(dict[str, dg.DagsterInstance]):
            def __missing__(self, settings: str) -> dg.DagsterInstance:
                overrides = {"run_retries": json.loads(settings)}
                self[settings] = stack.enter_context(dg.instance_for_test(overrides=overrides))
                return self[settings]

        yield Made()


@pytest.fixture
def instance_with(instance: dg.DagsterInstance, made_instances: dict[str, dg.DagsterInstance]) -> Iterator[Instances]:
    """Return an empty instance with some settings of run retries; without any, the one that all tests share."""
    used = []

    def get(settings: Mapping[str, Any]) -> dg.DagsterInstance:
        used.append(made_instances[json.dumps(dict(settings))] if settings else instance)
        return used[-1]

    yield get
    for each in used:
        each.wipe()


def run(shop: Shop, way: Way, policy: Policy) -> dg.ExecuteInProcessResult:
    """One run whose attempts all end by their timeout."""
    options = UGenOptions(timeout=0.2, on_final_failure=policy)
    assets = shop.assets(
        request_of, options=options, retry_policy=dg.RetryPolicy(max_retries=way.op) if way.op else None
    )
    shop.instance.add_dynamic_partitions(str(PRODUCTS.name), ["lamp"])
    job = dg.define_asset_job("videos", op_retry_policy=dg.RetryPolicy(max_retries=way.job) if way.job else None)
    defs = dg.Definitions(assets=assets, jobs=[job], resources={"ugen": shop.resource})
    return defs.resolve_job_def("videos").execute_in_process(
        instance=shop.instance, partition_key="lamp", tags=dict(way.tags), raise_on_error=False
    )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_policy_is_followed_in_the_last_attempt_only(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, instance_with: Instances, way: Way, policy: Policy
) -> None:
    shop.server.emulator.clock.tick = 0.0
    shop.instance = instance_with(way.instance)
    if way.cloud:
        monkeypatch.setenv("DAGSTER_CLOUD_DEPLOYMENT_NAME", "prod")
    if way.is_mute:
        monkeypatch.setattr(shop.instance, "get_run_group", away_once(shop.instance.get_run_group))
    assert not run(shop, way, policy).success
    actions = [(each.kind, each.token) for each in shop_actions(shop)]
    assert actions == ([] if way.is_retried else [(policy, way.attempts)])
    assert shop.created == ["lamp"], "no attempt cancelled the job of the next"
    assert ("cancelled" in shop.jobs.values()) == (policy == "cancel" and not way.is_retried)


def away_once(real: Callable[[str], Any]) -> Callable[[str], Any]:
    """The run storage does not answer the first question, which is ours, and answers Dagster's."""
    asked = iter([True])

    def get(run_id: str) -> Any:
        if next(asked, False):
            raise ConnectionError("the run storage is away")
        return real(run_id)

    return get


def shop_actions(shop: Shop) -> list[Any]:
    with shop.store() as store:
        [(record, _)] = list(store.find(""))
        return list(store.actions(record.order_key))


class Retry:
    """A failed run whose process recorded nothing, and its retry by Dagster's daemon."""

    def __init__(self, shop: Shop, policy: Policy) -> None:
        self.shop = shop
        way = Way("lost", 1, True, instance=RETRIES_ON)  # the run's own attempt leaves its job
        assert not run(shop, way, policy).success
        [self.failed] = shop.instance.get_runs()
        self.sensor = build_ugen_reconcile_sensor(resource=shop.resource)

    def tick(self) -> list[str]:
        """The kinds of what is recorded after a tick."""
        self.sensor.evaluate_tick(dg.build_sensor_context(instance=self.shop.instance))
        return [each.kind for each in shop_actions(self.shop)]

    def start(self, status: dg.DagsterRunStatus) -> None:
        """Start the retry as the daemon does; it has not reached the order yet."""
        tags = {
            "dagster/parent_run_id": self.failed.run_id,
            "dagster/root_run_id": self.failed.run_id,
            "dagster/retry_number": "1",
        }
        self.shop.instance.add_run(
            dg.DagsterRun(
                job_name="videos",
                run_id=dg.DagsterRun(job_name="videos").run_id,
                status=status,
                tags=tags,
                parent_run_id=self.failed.run_id,
                root_run_id=self.failed.run_id,
            )
        )
        self.shop.instance.add_run_tags(self.failed.run_id, {"dagster/auto_retry_run_id": "started"})


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("status", "is_final"),
    [
        (None, False),
        (dg.DagsterRunStatus.NOT_STARTED, False),
        (dg.DagsterRunStatus.STARTED, False),
        (dg.DagsterRunStatus.FAILURE, True),
        (dg.DagsterRunStatus.CANCELED, True),
    ],
    ids=lambda value: value.value if isinstance(value, dg.DagsterRunStatus) else str(value),
)
def test_reconciler_waits_for_the_retry_of_a_failed_run(
    shop: Shop, instance_with: Instances, policy: Policy, status: dg.DagsterRunStatus | None, is_final: bool
) -> None:
    shop.server.emulator.clock.tick = 0.0
    shop.instance = instance_with(RETRIES_ON)
    retry = Retry(shop, policy)
    assert retry.tick() == []
    if status is not None:
        retry.start(status)
    assert retry.tick() == ([policy] if is_final else [])
    assert ("cancelled" in shop.jobs.values()) == (policy == "cancel" and is_final)
