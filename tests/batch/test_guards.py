# SPDX-License-Identifier: Apache-2.0
"""A plan that does more than its options allow buys nothing, both ways: what it buys again, and what it would lose."""

from dataclasses import replace

import pytest

from ugen_provider.core.batch import PlanOptions, RunRefusedError
from ugen_provider.core.batch.planner import PlanFigures, postpones_changed, refusal
from ugen_provider.core.feeds import FeedMapping

IDS = [f"p{n}" for n in range(10)]
QUIET = PlanFigures(products=100, rejected=0, known=100, new=0, changed=0, gone=0)


@pytest.mark.parametrize(
    ("figures", "options", "reason"),
    [
        pytest.param({}, {}, None, id="quiet night"),
        pytest.param({"changed": 20}, {}, None, id="changed at the limit"),
        pytest.param({"changed": 21}, {}, "max_changed", id="changed above the limit"),
        pytest.param({"changed": 21}, {"max_changed": 0.21}, None, id="changed, allowed"),
        pytest.param({"changed": 100}, {"on_changed": "postpone"}, None, id="changed, postponed"),
        pytest.param({"gone": 20}, {}, None, id="gone at the limit"),
        pytest.param({"gone": 21}, {}, "max_gone", id="gone above the limit"),
        pytest.param({"gone": 100}, {"max_gone": 1.0}, None, id="gone, allowed"),
        pytest.param({"new": 10_000}, {}, None, id="new without a limit"),
        pytest.param({"new": 11}, {"max_new": 10}, "max_new", id="new above the limit"),
        pytest.param({"new": 10}, {"max_new": 10}, None, id="new at the limit"),
        pytest.param({"new": 100, "gone": 100}, {}, "new_ids", id="ids changed"),
        pytest.param({"new": 100, "gone": 100}, {"max_gone": 1.0}, "new_ids", id="ids changed, gone allowed"),
        pytest.param({"new": 100, "gone": 100}, {"allow_new_ids": True}, None, id="ids changed, allowed"),
        pytest.param({"new": 20, "gone": 20}, {}, None, id="as many new as gone, few"),
        pytest.param({"known": 9, "changed": 9, "gone": 9}, {}, None, id="too few known"),
        pytest.param({"known": 10, "changed": 10}, {}, "max_changed", id="just enough known"),
        pytest.param({"known": 9, "changed": 9}, {"guard_min": 1}, "max_changed", id="guard_min lowered"),
        pytest.param({"gone": 100}, {"only": frozenset({"a"})}, None, id="a selection"),
        pytest.param({"gone": 100}, {"limit": 5}, None, id="a limit"),
        pytest.param({"gone": 100}, {"supplemental": True}, None, id="a supplemental feed"),
        pytest.param({"rejected": 6}, {"max_rejected": 5, "limit": 5}, "max_rejected", id="rejected, whatever else"),
    ],
)
def test_refusal_decides_by_the_figures(figures, options, reason):
    found = refusal(replace(QUIET, **figures), PlanOptions(**options))
    assert (found.reason if found else None) == reason
    if found and reason != "max_rejected":
        amounts = (figures.get(name) for name in ("changed", "gone", "new"))
        assert all(str(amount) in found.message for amount in amounts if amount)
        assert {"new_ids": "allow_new_ids"}.get(reason, reason) in found.message


@pytest.mark.parametrize(("changed", "postpones"), [(20, False), (21, True)])
def test_changed_products_are_postponed_above_the_limit(changed, postpones):
    figures = replace(QUIET, changed=changed)
    assert postpones_changed(figures, PlanOptions(on_changed="postpone")) is postpones
    assert not postpones_changed(figures, PlanOptions())


@pytest.fixture
def known(store):
    store.sells(*IDS)
    assert store.run("monday").completed == len(IDS)
    return store


@pytest.mark.parametrize(
    ("reason", "sells", "allows"),
    [
        ("max_gone", IDS[:7], {"max_gone": 0.3}),
        ("new_ids", [f"n{n}" for n in range(10)], {"allow_new_ids": True}),
        ("max_new", [*IDS, "n1", "n2"], {"max_new": 2}),
    ],
)
def test_refused_plan_buys_nothing_and_the_option_allows_it(known, reason, sells, allows):
    shown, created = known.videos(), known.local.created
    known.sells(*sells)
    strict = {"max_new": 1} if reason == "max_new" else {}
    for _ in range(2):  # the same run is refused again, as long as it is asked for in the same way
        with pytest.raises(RunRefusedError) as caught:
            known.run("tuesday", plan=PlanOptions(**strict))
        assert caught.value.reason == reason
        assert (known.videos(), known.local.created) == (shown, created)
    report = known.run("tuesday", plan=PlanOptions(**allows))
    assert report.completed == len(set(sells) - set(IDS))
    assert sorted(known.videos()) == sorted(sells)


def test_changed_products_can_wait_while_new_ones_are_bought(known):
    known.sells(*IDS[5:], "new", **{name: f"Other {name}" for name in IDS[:5]})
    report = known.run("tuesday", plan=PlanOptions(on_changed="postpone"))
    assert (report.completed, report.unchanged, report.postponed_by) == (1, 5, {"max_changed": 5})
    assert known.local.created == len(IDS) + 1
    assert known.run("tuesday").postponed == 5  # continuing buys none of them either
    assert known.run("wednesday", plan=PlanOptions(max_changed=0.5)).completed == 5


def test_part_that_is_missing_takes_nothing_from_the_others(store):
    north, south = IDS[:5], IDS[5:]
    options = {part: PlanOptions(part=part, guard_min=1) for part in ("north", "south")}
    store.sells(*north)
    store.run("monday north", plan=options["north"])
    store.sells(*south)
    assert store.run("monday south", plan=options["south"]).completed == 5
    assert sorted(store.videos()) == IDS
    store.sells(*south[:1])
    with pytest.raises(RunRefusedError, match="4 of 5 known products are not in the feed"):
        store.run("tuesday south", plan=options["south"])
    allowed = replace(options["south"], max_gone=0.8)
    assert store.run("tuesday south", plan=allowed).disappeared == 4
    assert sorted(store.videos()) == [*north, *south[:1]]


def test_product_that_moved_to_another_part_is_not_gone(store):
    for part, ids in (("north", IDS), ("south", IDS[:3]), ("north", IDS[3:])):
        store.sells(*ids)
        store.run(f"{part} {len(ids)}", plan=PlanOptions(part=part))
    assert sorted(store.videos()) == IDS


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"only": frozenset({"p0", "n1"})}, id="only"),
        pytest.param({"limit": 1}, id="limit"),
        pytest.param({"supplemental": True}, id="supplemental"),
    ],
)
def test_selection_makes_nothing_gone(known, options):
    known.sells("p0", "n1")
    report = known.run("tuesday", plan=PlanOptions(**options))
    assert report.disappeared == 0
    assert set(known.videos()) >= set(IDS)
    if "limit" not in options:
        assert report.completed == 1
        assert set(known.videos()) == {*IDS, "n1"}


def test_only_plans_the_products_that_it_names(store):
    store.sells(*IDS)
    report = store.run("monday", plan=PlanOptions(only=frozenset(IDS[:2])))
    assert (report.completed, report.filtered) == (2, 8)


@pytest.mark.parametrize("state", ["refused", "broken", "killed"])
def test_run_without_a_plan_is_shown_for_what_it_is(known, state):
    from ugen_provider.core.batch.report import find_run, report_of

    class StoppedError(BaseException):
        """The process ends here."""

    def stop(point):
        if point == "plan.batch":
            raise StoppedError

    known.sells(*IDS[:1])
    if state == "broken":
        known.path.write_text("")
    with pytest.raises((RunRefusedError, StoppedError, ValueError)):
        known.run("tuesday", probe=stop if state == "killed" else lambda point: None)
    run = find_run(known.ledger, known.ledger.find_catalogue("shop"), "tuesday")
    report = report_of(known.ledger, run)
    assert report.state == {"killed": "interrupted"}.get(state, "refused")
    assert (report.refused is None) == (state == "killed")
    assert (report.refused or report.state) in report.table()
    known.sells(*IDS)
    assert known.run("tuesday").unchanged == len(IDS)


def test_plan_that_started_last_is_in_force(known):
    """Of two plans the one that was begun later counts, also if the other one is complete after it."""

    class StoppedError(BaseException):
        """The process ends here."""

    def stop(point):
        if point == "plan.batch":
            raise StoppedError

    known.sells(*IDS[:8])
    with pytest.raises(StoppedError):
        known.run("tuesday", probe=stop)
    known.sells(*IDS[:9])
    known.run("wednesday")
    assert sorted(known.videos()) == IDS[:9]
    known.sells(*IDS[:8])
    known.run("tuesday")
    assert sorted(known.videos()) == IDS[:9]


def test_removed_variant_is_not_gone(store):
    def looks(*names):
        return FeedMapping.from_dict({"variants": {name: {"aspect_ratio": name.replace("x", ":")} for name in names}})

    store.sells(*IDS)
    store.run("monday", plan=PlanOptions(mapping=looks("9x16", "16x9")))
    assert len(store.videos()) == 20
    assert store.run("tuesday", plan=PlanOptions(mapping=looks("9x16"))).unchanged == 10
    assert len(store.videos()) == 10
