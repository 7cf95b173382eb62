# SPDX-License-Identifier: Apache-2.0
"""The ledger is gone and not repaired: purchases are found by their keys, for as long as these are known."""

import httpx

from ugen_provider.core.batch import Budget
from ugen_provider.ledger import Ledger


def test_a_lost_ledger_costs_nothing_while_keys_are_known(shop, tmp_path):
    shop.sells("a", "b", "c")
    shop.run("monday")
    consumed = shop.local.world.accounts.by_name["local"].credits.balance
    with Ledger.init(str(tmp_path / "another.db"), allow_ephemeral=True) as empty:
        shop.ledger = empty
        report = shop.run("tuesday")
        assert (report.completed, report.bought, report.attached, report.found) == (3, 0, 3, 3)
        assert (report.credits_consumed, report.credits_estimated, report.credits_released) == (0, 0, 0)
        assert "3 of the completed were found by their key: nothing was paid for them now" in report.table()
        assert shop.run("wednesday").unchanged == 3
    assert shop.local.created == 3
    assert shop.local.world.accounts.by_name["local"].credits.balance == consumed


def test_what_is_found_leaves_the_budget_to_what_is_bought(shop, tmp_path):
    shop.sells("a", "b", "c")
    cost = shop.run("monday").credits_consumed // 3
    day = Budget(credits=10_000, daily=4 * cost - 1)
    with Ledger.init(str(tmp_path / "another.db"), allow_ephemeral=True) as empty:
        shop.ledger = empty
        assert shop.run("tuesday", budget=day).found == 3
        shop.sells("a", "b", "c", "d")
        report = shop.run("wednesday", budget=day)
        assert (report.unchanged, report.bought, report.credits_consumed) == (3, 1, cost)
    assert shop.local.created == 4


def test_a_purchase_with_a_lost_answer_counts_as_bought(shop):
    """The job is complete by the time that the same request is sent again."""
    shop.sells("a")
    local = shop.local

    def lose(request, answer):
        reply = answer()
        if (request.method, request.path) == ("POST", "/api/v1/jobs"):
            local.transport.meddle = lambda _, answer: answer()
            local.world.advance(170.0)
            raise httpx.ReadTimeout("the answer was lost")
        return reply

    local.transport.meddle = lose
    report = shop.run("monday")
    assert shop.posts == 2
    assert (report.completed, report.bought, report.found) == (1, 1, 0)
    assert report.credits_consumed == sum(job.credits_consumed for job in shop.jobs()) > 0
    assert local.created == 1
