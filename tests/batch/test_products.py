# SPDX-License-Identifier: Apache-2.0
"""Products, not rows: which of them share a video, which look is which order, and what is bought first."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ugen_provider.core.batch import Budget, PlanOptions, RunRefusedError
from ugen_provider.core.feeds import FeedMapping


def cup(product_id, *, title="Cup", picture="cup", **columns) -> dict[str, Any]:
    return {"id": product_id, "title": title, "image_link": f"https://s.example/{picture}.jpg", **columns}


def plan(written=None, **options) -> PlanOptions:
    return PlanOptions(mapping=None if written is None else FeedMapping.from_dict(written), **options)


# Identity.


def test_id_in_another_spelling_is_the_same_product(store):
    store.offers(cup("1001"), cup("Caf\u00e9", title="Other"))
    assert store.run("monday").completed == 2
    store.offers(cup(1001.0), cup(" Cafe\u0301 ", title="Other"))
    assert store.run("tuesday").unchanged == 2


def test_ids_that_gained_a_prefix_adopt_their_videos(store):
    store.sells(*(f"p{n}" for n in range(20)))
    store.run("monday")
    before = store.videos()
    store.offers(*({**row, "id": f"EU-{row['id']}"} for row in list(store.products.values())))
    report = store.run("tuesday")
    assert (report.adopted, report.completed, store.local.created) == (20, 0, 20)
    assert store.videos() == {f"EU-{name}": job for name, job in before.items()}
    assert store.run("wednesday").unchanged == 20


@pytest.mark.parametrize(("adopt", "bought"), [("on", 1), ("off", 3)])
def test_equal_requests_of_one_run_share_one_purchase(store, adopt, bought):
    store.offers(cup("a"), cup("b"), cup("c"))
    report = store.run("monday", plan=plan(adopt=adopt))
    assert (report.completed, report.adopted) == (bought, 3 - bought)
    assert store.local.created == bought
    assert sorted(store.videos()) == ["a", "b", "c"]
    assert len(set(store.videos().values())) == bought
    assert store.run("tuesday", plan=plan(adopt=adopt)).unchanged == 3


def test_equal_requests_far_apart_share_one_purchase(store):
    rows = [cup(f"p{n}", title=f"Cup {n}") for n in range(4100)]  # more than are judged at once
    store.offers(*rows, cup("last", title="Cup 0"))
    report = store.run("monday", budget=Budget(credits=200))
    assert report.adopted == 1
    assert store.videos()["last"] == store.videos()["p0"]


def test_adopting_product_waits_for_the_purchase_that_it_shares(store):
    """The first night is stopped while the job runs; the second id appears before it has ended."""
    store.offers(cup("a"))

    class StoppedError(Exception):
        """The process ends here."""

    def stop(point):
        if point == "before.wait":
            raise StoppedError

    with pytest.raises(StoppedError):
        store.run("monday", probe=stop)
    store.offers(cup("a"), cup("b"))
    report = store.run("tuesday")
    assert (report.adopted, store.local.created) == (1, 1)
    assert store.videos()["a"] == store.videos()["b"]


def test_failed_purchase_is_not_adopted(store):
    store.local.outcome(product_name="Cup", fail_at="agents", kind="moderation", times=1)
    store.offers(cup("a"))
    assert store.run("monday").failed == 1
    store.offers(cup("b"))
    assert store.run("tuesday", plan=plan(max_gone=1.0)).completed == 1


def test_regenerated_product_ends_its_adoption(store):
    store.offers(cup("a"), cup("b"))
    store.run("monday")
    report = store.run("tuesday", plan=plan(regenerate=frozenset({"b"})))
    assert (report.completed, report.unchanged) == (1, 1)
    videos = store.videos()
    assert videos["a"] != videos["b"]
    store.run("wednesday", plan=plan(regenerate=frozenset({"a"})))
    assert store.videos()["b"] == videos["b"]


def test_changed_product_buys_and_finds_the_shared_video_again(store):
    store.offers(cup("a"), cup("b"))
    store.run("monday")
    shared = store.videos()["b"]
    store.offers(cup("a"), cup("b", title="Mug"))
    assert store.run("tuesday").changed == 1
    assert store.videos()["b"] != shared
    store.offers(cup("a"), cup("b"))
    assert store.run("wednesday").adopted == 1
    assert (store.videos()["b"], store.local.created) == (shared, 2)


def test_refused_plan_adopts_nothing(store):
    store.sells(*(f"p{n}" for n in range(10)))
    store.run("monday")
    before = store.videos()
    store.offers(cup("p0", title="Cup p1", picture="p1"), *list(store.products.values())[1:7])
    with pytest.raises(Exception, match="max_gone"):
        store.run("tuesday")
    assert store.videos() == before


def test_adopt_ask_lists_products_that_differ_in_price(store):
    store.offers(cup("a", price="5 EUR"), cup("b", price="5 EUR"), cup("c", price="9 EUR"))
    report = store.run("monday", plan=plan(adopt="ask"))
    assert (report.completed, report.adopted, report.postponed_by) == (1, 1, {"adopt": 1})
    (question,) = report.questions
    assert (question.product_id, "equal to that of a" in question.reason) == ("c", True)
    assert store.run("tuesday", plan=plan(adopt="on")).adopted == 1
    assert store.local.created == 1


def test_ignored_fields_make_no_new_video_and_no_new_adoption(store):
    written = {"templates": {"cta_text": "Only {price}"}, "ignore_changes": ["cta_text"]}
    store.offers(cup("a", price="5 EUR"))
    store.run("monday", plan=plan(written))
    store.offers(cup("a", price="6 EUR"), cup("b", price="7 EUR"))
    report = store.run("tuesday", plan=plan(written))
    assert (report.unchanged, report.adopted, store.local.created) == (1, 1, 1)


def test_two_planners_at_once_buy_one_video_for_equal_requests(store):
    """Each run plans and buys in turn with the other: the row of the ledger decides, not the order of reading."""
    store.offers(cup("a"))
    first = store.runner("north", plan=plan(part="north"))
    store.path = store.path.with_name("south.jsonl")
    store.offers(cup("b"))
    second = store.runner("south", plan=plan(part="south"))

    async def both():
        return await asyncio.gather(first.run(), second.run())

    reports = asyncio.run(both())
    assert sorted(report.adopted for report in reports) == [0, 1]
    assert store.local.created == 1
    assert len(set(store.videos().values())) == 1


def test_pictures_count_by_content_where_asked(store):
    pictures = store.path.parent / "pictures"
    pictures.mkdir()
    for name in ("one", "two"):
        (pictures / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n same")
    options = plan(upload_pictures=True, picture_roots=(str(pictures),), pictures_by_content=True)
    store.offers({**cup("a"), "image_link": str(pictures / "one.png")})
    store.run("monday", plan=options)
    store.offers({**cup("a"), "image_link": str(pictures / "two.png")})
    assert store.run("tuesday", plan=options).unchanged == 1


# Which first, and what for.


def test_budget_buys_in_the_order_of_the_mapping(store):
    store.offers(*(cup(f"p{n}", title=f"Cup {n}", price=f"{n} EUR") for n in range(9)))
    report = store.run("monday", budget=Budget(credits=300), plan=plan({"order_by": "price desc"}))
    # A job that cost less than its estimate makes way for one more; which ones are bought never depends on that.
    assert report.completed in {3, 4}
    assert report.postponed_by == {"budget": 9 - report.completed}
    assert sorted(store.videos(), reverse=True) == ["p8", "p7", "p6", "p5"][: report.completed]


def test_limit_is_divided_among_categories(store):
    rows = [cup(f"p{n}", title=f"Cup {n}", product_type="Cups" if n < 4 else "Mugs > Large") for n in range(6)]
    store.offers(*rows)
    report = store.run("monday", plan=plan({"limit": 4, "shares": {"cups": 0.5}}))
    assert (report.completed, sorted(store.videos())) == (4, ["p0", "p1", "p4", "p5"])


@pytest.mark.parametrize("budget", [Budget(credits=82), Budget(credits=1000, daily=82), Budget(credits=0)])
def test_budget_below_the_cheapest_purchase_is_an_error(store, budget):
    store.offers(cup("a"))
    with pytest.raises(RunRefusedError, match="below the cheapest planned purchase of 83 credits") as caught:
        store.run("monday", budget=budget)
    assert (caught.value.reason, store.local.created) == ("budget", 0)
    assert store.run("monday", budget=Budget(credits=83)).completed == 1


def test_rest_that_is_too_small_postpones(store):
    store.offers(cup("a"), cup("b", title="Mug"))
    report = store.run("monday", budget=Budget(credits=100))
    assert (report.completed, report.postponed_by) == (1, {"budget": 1})


def test_unchanged_night_needs_no_budget(store):
    store.offers(cup("a"))
    store.run("monday")
    assert store.run("tuesday", budget=Budget(credits=0)).unchanged == 1


# Groups.


def family(*colors, group="cup"):
    return [cup(f"cup-{c}", title=f"Cup {c}", picture=c, item_group_id=group) for c in colors]


def test_group_is_bought_once_and_every_id_shows_the_video(store):
    options = plan({"group_by": "item_group_id"})
    store.offers(*family("red", "blue"), *family("one", group="mug"), cup("alone", title="Alone"))
    report = store.run("monday", plan=options)
    assert (report.completed, report.skipped) == (3, 1)
    videos = store.videos()
    assert sorted(videos) == ["alone", "cup-blue", "cup-one", "cup-red"]
    assert videos["cup-red"] == videos["cup-blue"]
    assert store.run("tuesday", plan=options).unchanged == 3
    assert store.local.created == 3


def test_group_keeps_the_row_that_it_was_bought_with(store):
    options = plan({"group_by": "item_group_id"})
    store.offers(*family("red", "white"))
    store.run("monday", plan=options)
    store.offers(*family("red", "white", "blue"))  # a lower id than that of the row that was bought
    report = store.run("tuesday", plan=options)
    assert (report.unchanged, store.local.created) == (1, 1)
    assert len(set(store.videos().values())) == 1
    store.offers(*family("white", "blue"))  # the row is gone: the lowest id is bought
    assert store.run("wednesday", plan=options).completed == 1
    assert next(job.product_name for job in store.jobs()) == "Cup blue"
    assert len(set(store.videos().values())) == 1


def test_group_by_switched_on_and_off_buys_nothing(store):
    store.offers(*family("red", "blue"))
    store.run("monday")
    own = store.videos()
    report = store.run("tuesday", plan=plan({"group_by": "item_group_id"}))
    assert (report.completed, report.unchanged) == (0, 1)
    assert set(store.videos().values()) == {own["cup-blue"]}
    assert store.run("wednesday").completed == 0
    assert (store.videos(), store.local.created) == (own, 2)


def test_picture_groups_share_a_video(store):
    store.offers(cup("a", title="Cup, small"), cup("b", title="Cup, large"), cup("c", title="Mug", picture="mug"))
    report = store.run("monday", plan=plan({"group_by": "picture"}))
    assert (report.completed, store.local.created, len(store.videos())) == (2, 2, 3)


def test_failed_group_is_tried_again_as_one(store):
    options = plan({"group_by": "item_group_id"})
    store.local.outcome(product_name="Cup blue", fail_at="generation", times=1)
    store.offers(*family("red", "blue"))
    assert store.run("monday", plan=options).failed == 1
    assert store.videos() == {}
    assert store.run("tuesday", plan=options).completed == 1
    assert sorted(store.videos()) == ["cup-blue", "cup-red"]
    assert store.local.created == 1


# Variants.

LOOKS = {"variants": {"tall": {"aspect_ratio": "9:16"}, "wide": {"aspect_ratio": "16:9"}}}


def test_variants_are_orders_of_their_own(store):
    store.sells("a", "b")
    report = store.run("monday", plan=plan(LOOKS))
    assert (report.products, report.completed, store.local.created) == (4, 4, 4)
    assert sorted(store.videos()) == ["a (tall)", "a (wide)", "b (tall)", "b (wide)"]
    assert {job.aspect_ratio for job in store.jobs()} == {"9:16", "16:9"}
    assert store.run("tuesday", plan=plan(LOOKS)).unchanged == 4


def test_variants_never_adopt_from_each_other(store):
    same = {"variants": {"one": {}, "two": {}}}
    store.offers(cup("a"), cup("b"))
    report = store.run("monday", plan=plan(same))
    assert (report.completed, report.adopted, store.local.created) == (2, 2, 2)
    videos = store.videos()
    assert videos["a (one)"] == videos["b (one)"] != videos["a (two)"] == videos["b (two)"]


def test_product_without_variants_keeps_its_key(store):
    store.sells("a")
    store.run("monday")
    report = store.run("tuesday", plan=plan(LOOKS))
    assert report.completed == 2  # the plain look has another order key, and so another video
    assert store.run("wednesday").unchanged == 1
    assert store.local.created == 3


def test_variant_by_category_and_condition(store):
    written = {
        "variants": {
            "all": {"categories": {"Lamps": {"script_tone": "enthusiastic"}}},
            "gift": {"script_tone": "casual", "when": ["category contains gift"]},
        }
    }
    store.offers(
        cup("a", product_type="Lamps > Desk"), cup("b", title="Box", product_type="Gifts"), cup("c", title="Mug")
    )
    assert store.run("monday", plan=plan(written)).completed == 4
    tones = {(job.product_name, job.script_tone) for job in store.jobs()}
    assert tones >= {("Cup", "enthusiastic"), ("Box", "casual")}


def test_variant_is_a_folder_of_its_own(store):
    from ugen_provider.core.batch import Outputs

    store.sells("a")
    folder = store.path.parent / "videos"
    store.run("monday", plan=plan(LOOKS, stored=True), outputs=Outputs(str(folder), allow_private=True))
    assert sorted(path.name for path in (folder / "a").iterdir()) == ["tall", "wide"]


def test_regenerate_buys_every_variant_of_a_product(store):
    store.sells("a", "b")
    store.run("monday", plan=plan(LOOKS))
    report = store.run("tuesday", plan=replace(plan(LOOKS), regenerate=frozenset({"a"})))
    assert (report.completed, report.unchanged) == (2, 2)


def test_groups_and_variants_together(store):
    options = plan({**LOOKS, "group_by": "item_group_id"})
    store.offers(*family("red", "blue"))
    store.run("monday", plan=options)
    videos = store.videos()
    assert len(videos) == 4
    assert videos["cup-red (wide)"] == videos["cup-blue (wide)"] != videos["cup-blue (tall)"]
