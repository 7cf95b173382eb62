# SPDX-License-Identifier: Apache-2.0
"""The shop's feed while a plan is refused, broken or under way: the last complete plan, and nothing less."""

import pytest

from ugen_provider.core.batch import PlanOptions, RunRefusedError
from ugen_provider.core.feeds import FeedError


def shown(shop):
    return sorted(entry.product_id for entry in shop.ledger.entries("shop") if entry.seen and entry.video)


@pytest.fixture
def known(shop):
    shop.sells(*"abcdefghij")
    assert shop.run("monday").completed == 10
    assert shown(shop) == list("abcdefghij")
    return shop


def test_export_after_a_refused_plan_is_whole(known):
    known.sells(*"abcde", f="Other 1", g="Other 2", h="Other 3", i="Other 4", j="Other 5")
    with pytest.raises(RunRefusedError):
        known.run("tuesday", plan=PlanOptions(max_changed=0.1))
    assert shown(known) == list("abcdefghij")


def test_export_after_a_broken_feed_is_whole(known):
    known.path.write_text("")
    with pytest.raises(FeedError):
        known.run("tuesday")
    assert shown(known) == list("abcdefghij")


class StoppedError(Exception):
    """The process ends here."""


@pytest.mark.parametrize(
    ("point", "times"), [("plan.begun", 1), ("plan.begun", 2), ("plan.batch", 1), ("plan.batch", 2)]
)
def test_export_while_a_plan_is_written_is_whole(known, point, times):
    def stop(name):
        if name == point:
            raise StoppedError

    known.sells(*"abcdefgh")
    for _ in range(times):
        with pytest.raises(StoppedError):
            known.run("tuesday", probe=stop)
        assert shown(known) == list("abcdefghij")
    assert known.run("tuesday").unchanged == 8
    assert shown(known) == list("abcdefgh")
