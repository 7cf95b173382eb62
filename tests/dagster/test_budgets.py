# SPDX-License-Identifier: Apache-2.0
"""No run, day or sensor reserves more credits than its budget; what does not fit waits, and costs nothing."""

import dagster as dg
import pytest

from dagster_ugen import UGenResource
from tests.dagster.shop import Shop, failure_of, request_of
from tests.dagster.test_sensors import feed_of, feed_ticks
from ugen_provider.emulator.pytest_plugin import ClockControl
from ugen_provider.emulator.settings import LOCAL_KEY

SUBMIT, COLLECT = {"ugen/run_kind": "submit"}, {"ugen/run_kind": "collect"}
NAMES = ("lamp", "mug", "sofa", "vase", "rug")


def reserved(shop: Shop) -> int:
    """All that the service reserved, by its journal."""
    return sum(entry.reserved for entry in shop.server.emulator.journal.find_purchases(kind="create"))


@pytest.fixture
def price(shop: Shop) -> int:
    """Credits that one job reserves."""
    from ugen_provider import CreateJob

    with shop.resource.get_client() as client:
        return client.credits.estimate(CreateJob(**request_of("lamp"))).total_credits


@pytest.mark.parametrize("limit", ["budget", "daily_budget"])
@pytest.mark.parametrize("jobs", [0, 1, 3])
@pytest.mark.parametrize("kind", ["waits", "submits"])
def test_run_reserves_no_more_than_its_budget(shop, price, limit, jobs, kind):
    shop.limits = {limit: jobs * price + price // 2}
    result = shop.run(*NAMES, tags=SUBMIT if kind == "submits" else {})
    assert len(shop.created) == jobs
    assert reserved(shop) <= shop.limits[limit]
    assert result.success is (kind == "submits"), "what a person asked for and did not get is a failure"
    if kind == "waits":
        assert f"{5 - jobs} of 5 partitions failed" in failure_of(result).description
        assert limit in failure_of(result).description
        assert len(shop.materialized("final_video")) == jobs


def test_what_a_job_did_not_use_can_be_reserved_again(shop, price):
    shop.server.emulator.clock.tick = 0.0
    shop.limits = {"daily_budget": price}
    assert shop.run("lamp", "mug", tags=SUBMIT).success
    assert len(shop.created) == 1
    ClockControl(shop.server).advance_until_idle()
    assert shop.run(shop.created[0], tags=COLLECT).success
    used = shop.materialized("final_video")[shop.created[0]]["ugen/credits"]
    assert used < price, "a reservation holds the retries of quality checks too"
    shop.limits = {"daily_budget": price + used}
    assert shop.run("lamp", "mug", tags=SUBMIT).success
    assert len(shop.created) == 2


def test_budget_of_a_run_holds_over_its_retries(shop, price):
    shop.limits = {"budget": price}
    first = shop.run("lamp", "mug", tags=SUBMIT)
    root = {**SUBMIT, "dagster/backfill": "b1"}
    assert first.success
    for _ in range(2):
        assert shop.run("sofa", "vase", tags=root).success
    assert len(shop.created) == 2, "one of each logical run"


def test_regenerate_beyond_the_budget_keeps_the_running_job(shop, price):
    shop.server.emulator.clock.tick = 0.0
    shop.limits = {"daily_budget": price}
    assert shop.run("lamp", tags=SUBMIT).success
    ClockControl(shop.server).advance(30)
    assert shop.run("lamp", tags={**SUBMIT, "ugen/regenerate": "1"}).success
    assert "cancelled" not in shop.jobs.values()
    assert shop.created == ["lamp"]


def test_job_above_max_credits_of_the_account_is_not_bought(shop, price):
    shop.limits = {"max_credits": price - 1}
    assert "max_credits" in failure_of(shop.run("lamp")).description
    assert shop.created == []


def test_without_an_estimate_nothing_is_bought_unless_assumed(shop, ugen_faults, price):
    ugen_faults.add("status", status=500, method="POST", path="*/credits/estimate", times=None)
    impatient = {"max_retries": 0}
    for assumed, bought in ((None, 0), (price, 1)):
        shop.limits = {"budget": 2 * price, "assume_credits": assumed, **impatient}
        assert shop.run("lamp", tags=SUBMIT).success
        assert len(shop.created) == bought


# The feed sensor.


def test_feed_sensor_without_a_budget_buys_nothing(shop, tmp_path):
    ticks = feed_ticks(shop, feed_of(tmp_path, 3), budget=None)
    assert ticks.tick() == []
    assert "no budget is set" in ticks.skipped
    assert len(shop.instance.get_dynamic_partitions("ugen_products")) == 3
    shop.limits = {"daily_budget": 10_000}
    assert len(ticks.tick()) == 1
    assert len(shop.created) == 3


@pytest.mark.parametrize("where", ["sensor", "variable", "account"])
def test_feed_sensor_requests_what_its_budget_covers(shop, tmp_path, price, monkeypatch, where):
    """A new catalog that nobody watches: the runs reserve the budget at most, and then no run is requested."""
    monkeypatch.setenv("SHOP_BUDGET", str(4 * price))
    budget = {"sensor": 4 * price, "variable": dg.EnvVar("SHOP_BUDGET"), "account": None}[where]
    shop.limits = {"daily_budget": 4 * price} if where == "account" else {}
    shop.server.emulator.clock.tick = 0.0
    ticks = feed_ticks(shop, feed_of(tmp_path, 30), budget=budget, products_per_run=3)
    requests = [len(ticks.tick()) for _ in range(4)]
    assert len(shop.created) == 4
    assert reserved(shop) <= 4 * price
    assert requests == [2, 0, 0, 0]
    assert "products wait: 0 credits of the budget are left" in ticks.skipped


def test_feed_sensor_of_another_environment_requests_nothing(shop, tmp_path):
    shop.spending = "reuse_only"
    ticks = feed_ticks(shop, feed_of(tmp_path, 3))
    assert ticks.tick() == []
    assert "spending is reuse_only" in ticks.skipped


# Settings.


def test_every_setting_of_money_may_be_a_variable(shop, monkeypatch):
    for name, value in {"B": "500", "D": "900", "M": "300", "A": "80", "S": "allow"}.items():
        monkeypatch.setenv(f"SHOP_{name}", value)
    account = UGenResource(
        api_key=LOCAL_KEY,
        base_url=shop.server.base_url,
        poll_interval=0.01,
        budget=dg.EnvVar.int("SHOP_B"),
        daily_budget=dg.EnvVar.int("SHOP_D"),
        max_credits=dg.EnvVar.int("SHOP_M"),
        assume_credits=dg.EnvVar.int("SHOP_A"),
        spending=dg.EnvVar("SHOP_S"),
    )
    assert shop.run("lamp", resource=account).success
    monkeypatch.setenv("SHOP_B", "1")
    assert "budget is 1 credits" in failure_of(shop.run("mug", resource=account)).description


@pytest.mark.parametrize(("branch", "bought"), [("", 1), ("1", 0)])
def test_branch_deployment_buys_nothing_by_default(shop, monkeypatch, branch, bought):
    monkeypatch.setenv("DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT", branch)
    account = UGenResource(api_key=LOCAL_KEY, base_url=shop.server.base_url, poll_interval=0.01)
    assert shop.run("lamp", resource=account).success is bool(bought)
    assert len(shop.created) == bought


# A request function that raises.


@pytest.mark.parametrize("error", [KeyError("mug"), TimeoutError("the warehouse"), ValueError("no picture")])
def test_request_function_that_raises_fails_its_partition(shop, error):
    def request(partition: str):
        if partition == "mug":
            raise error
        return request_of(partition)

    result = shop.run("lamp", "mug", "sofa", requests=request)
    assert "1 of 3 partitions failed: mug: " in failure_of(result).description
    assert set(shop.materialized("final_video")) == {"lamp", "sofa"}
