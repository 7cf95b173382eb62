# SPDX-License-Identifier: Apache-2.0
"""The credits in Dagster's event log add up to what the account was charged, by whichever way a job was bought."""

from collections.abc import Callable

import dagster as dg
import pytest

from dagster_ugen import UGenOptions, UGenResource
from tests.dagster.shop import Shop, request_of
from ugen_provider.emulator.pytest_plugin import ClockControl
from ugen_provider.emulator.world.pipeline import parse

SUBMIT, COLLECT = {"ugen/run_kind": "submit"}, {"ugen/run_kind": "collect"}
RESUBMIT = UGenOptions(on_earlier_failure="resubmit")


def charged(shop: Shop) -> int:
    """What the service charged, by its own transactions."""
    with shop.resource.get_client() as client:
        return -sum(row.amount for row in client.credits.transactions() if row.type == "consume")


def written(shop: Shop) -> tuple[int, int]:
    """Credits and jobs, as SQL over the event log sums them: every event of every asset."""
    total = jobs = 0
    for key in shop.instance.all_asset_keys():
        for fetch in (shop.instance.fetch_materializations, shop.instance.fetch_observations):
            for record in fetch(key, limit=1000).records:
                metadata = (record.asset_materialization or record.asset_observation).metadata
                total += metadata["ugen/credits"].value if "ugen/credits" in metadata else 0
                jobs += metadata["ugen/jobs"].value if "ugen/jobs" in metadata else 0
    return total, jobs


def decide(shop: Shop, **outcome: object) -> None:
    """Decide how jobs end."""
    with shop.server.emulator.lock:
        shop.server.emulator.jobs.outcomes.append(parse(outcome))


def waits(shop: Shop) -> None:
    assert shop.run("lamp", "mug").success
    assert shop.run("lamp").success


def submits_and_collects(shop: Shop) -> None:
    shop.server.emulator.clock.tick = 0.0
    assert shop.run("lamp", "mug", tags=SUBMIT).success
    assert written(shop) == (0, 0)
    ClockControl(shop.server).advance_until_idle()
    for _ in range(2):
        assert shop.run("lamp", "mug", tags=COLLECT).success


def regenerates(shop: Shop) -> None:
    for tags in ({}, {"ugen/regenerate": "1"}, {"ugen/regenerate": "1"}):
        assert shop.run("lamp", tags=tags).success


def takes_parts(shop: Shop) -> None:
    for part in ("keyframes", "videos", "final_video"):
        assert shop.run("lamp", select=[part]).success
    assert shop.run("mug", select=["videos"]).success


def fails_and_buys_again(shop: Shop) -> None:
    decide(shop, product_name="lamp", fail_at="concat", kind="transient", times=1)
    for _ in range(2):
        shop.run("lamp", options=RESUBMIT)
    assert shop.materialized("final_video")


def fails_and_retries_the_stage(shop: Shop) -> None:
    decide(shop, product_name="lamp", fail_at="concat", kind="transient", times=1)
    for _ in range(2):
        shop.run("lamp")
    assert shop.materialized("final_video")


def fails_for_good(shop: Shop) -> None:
    decide(shop, product_name="lamp", fail_at="concat", kind="moderation")
    for _ in range(2):
        assert not shop.run("lamp", "mug").success


def is_below_its_score(shop: Shop) -> None:
    decide(shop, product_name="*", score=0.3, times=None)
    assert not shop.run("lamp", options=UGenOptions(min_score=0.9, on_low_quality="fail")).success


def is_cancelled_and_bought_again(shop: Shop) -> None:
    shop.server.emulator.clock.tick = 0.0
    shop.run("lamp", tags=SUBMIT)
    ClockControl(shop.server).advance(100.0)
    with shop.resource.get_client() as client:
        client.jobs.cancel(shop.order().job_id)
    shop.server.emulator.clock.tick = 60.0
    assert shop.run("lamp", tags={"ugen/regenerate": "1"}).success


def wipes_the_asset(shop: Shop) -> None:
    assert shop.run("lamp").success
    shop.instance.wipe_assets([dg.AssetKey("final_video")])
    assert shop.run("lamp").success


def buys_in_a_body_of_its_own(shop: Shop) -> None:
    @dg.asset(name="final_video")
    def own(context: dg.AssetExecutionContext, ugen: UGenResource) -> None:
        ugen.buy(context, request_of("lamp"))

    for _ in range(2):
        assert shop.run(assets=[own]).success


WAYS: list[Callable[[Shop], None]] = [
    waits,
    submits_and_collects,
    regenerates,
    takes_parts,
    fails_and_buys_again,
    fails_and_retries_the_stage,
    fails_for_good,
    is_below_its_score,
    is_cancelled_and_bought_again,
    wipes_the_asset,
    buys_in_a_body_of_its_own,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_event_log_sums_to_the_accounts_transactions(shop, way):
    before = charged(shop)
    way(shop)
    total, jobs = written(shop)
    assert total == charged(shop) - before > 0
    assert jobs == len(shop.created)
