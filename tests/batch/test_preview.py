# SPDX-License-Identifier: Apache-2.0
"""A check says before each night what the run of that night then buys, or why it is refused."""

import random

import pytest

from ugen_provider.core.batch import PlanOptions, RunRefusedError
from ugen_provider.core.batch.preview import check_feed
from ugen_provider.core.feeds import FeedMapping

REFUSED = "a run with these options would be refused: "


def checked(shop, mapping=None, **options):
    """Check the shop's feed against its catalog, if it has one yet."""
    catalogue = next((found for found in shop.ledger.catalogues() if found.name == "shop"), None)
    known = (shop.ledger, catalogue) if catalogue is not None else None
    given = {
        "job_defaults": {"segment_count": 1},
        "estimate": lambda fields: 83,
        "plan": PlanOptions(mapping=mapping, **options),
    }
    with check_feed(shop.path, known=known, **given) as check:
        list(check.rows)
        return check.summary


def changed_by(chance, rows, night):
    """Return the rows of another night: renamed, changed, changed back, gone, new, or equal to another one's."""
    kind = chance.choice(
        ["renamed", "titles", "gone", "new", "equal", "few", "same", "broken", "sold out", "twice", "prices"]
    )
    count = chance.randrange(1, 4)
    if kind == "renamed":
        return [{**row, "id": f"{night}-{row['id']}"} for row in rows]
    if kind == "titles":
        return [{**row, "title": f"Cup {night}"} if number < count else row for number, row in enumerate(rows)]
    if kind == "gone":
        return rows[count:] or rows
    if kind == "prices":
        return [{**row, "price": f"{night} EUR"} if number < count else row for number, row in enumerate(rows)]
    if kind == "broken":
        return [{**row, "image_link": ""} if number < count else row for number, row in enumerate(rows)]
    if kind == "sold out":
        return [{**row, "for_sale": "no"} if number < count else row for number, row in enumerate(rows)]
    if kind == "twice":
        return rows + [{**row, "title": f"Mug {night}"} for row in rows[:count]]
    if kind == "new":
        return rows + [
            {"id": f"n{night}{number}", "title": f"Jug {night}{number}", "image_link": "https://s.example/j.jpg"}
            for number in range(count)
        ]
    if kind == "equal":
        return rows + [{**rows[number], "id": f"e{night}{number}"} for number in range(count)]
    return rows[:2] if kind == "few" else rows


MAPPINGS = {
    "plain": {"filters": ["for_sale != no"]},
    "groups": {"group_by": "picture"},
    "ignored": {"columns": {"cta_text": "price"}, "ignore_changes": ["cta_text"]},
    "variants": {"variants": {"wide": {"aspect_ratio": "16:9"}, "tall": {"when": ["id != p3"]}}},
}


def options_of(chance):
    """Return options that a person might have given for a night."""
    given = {
        "max_changed": chance.choice([0.2, 0.2, 0.1, 1.0]),
        "max_gone": chance.choice([0.2, 0.05, 1.0]),
        "max_new": chance.choice([None, None, 2]),
        "on_changed": chance.choice(["refuse", "postpone"]),
        "allow_new_ids": chance.choice([False, False, True]),
        "guard_min": chance.choice([10, 3, 50]),
        "duplicates": chance.choice(["first", "last"]),
        "adopt": chance.choice(["on", "on", "on", "off"]),
        "only": chance.choice([None, None, None, frozenset({"p1", "p2", "p9"})]),
        "limit": chance.choice([None, None, None, 5]),
        "max_rejected": chance.choice([None, None, 1]),
    }
    return {name: given[name] for name in chance.sample(sorted(given), 3)}


@pytest.mark.parametrize("named", MAPPINGS)
@pytest.mark.parametrize("seed", [0, 3, 4])
def test_check_agrees_with_a_run_of_the_same_options(shop, seed, named):
    chance = random.Random(f"{seed} {named}")
    mapping = FeedMapping.from_dict(MAPPINGS[named])
    rows = [
        {"id": f"p{n}", "title": f"Cup {n % 9}", "image_link": f"https://s.example/{n % 12}.jpg"} for n in range(14)
    ]
    rows = [{**row, "price": "9 EUR"} for row in rows]
    for night in range(5):
        shop.offers(*rows)
        options = options_of(chance)
        summary = checked(shop, mapping, **options)
        said = [line.removeprefix(REFUSED) for line in summary.warnings if line.startswith(REFUSED)]
        before = shop.local.created
        refused = None
        try:
            shop.run(f"night {night}", plan=PlanOptions(mapping=mapping, **options))
        except RunRefusedError as error:
            refused = error
        if refused is None:
            assert shop.local.created - before == summary.to_buy, (night, options)
        why = refused.reason if refused is not None else None
        assert (said, summary.refused_by) == ([str(refused)] if refused else [], why), (night, options)
        rows = changed_by(chance, rows, night)


@pytest.mark.parametrize("seed", range(8))
def test_check_agrees_with_the_run_of_each_night(store, seed):
    chance = random.Random(seed)
    rows = [{"id": f"p{n}", "title": f"Cup {n % 9}", "image_link": "https://s.example/c.jpg"} for n in range(14)]
    for night in range(5):
        store.offers(*rows)
        summary = checked(store)
        before = store.local.created
        said = [line.removeprefix(REFUSED) for line in summary.warnings if line.startswith(REFUSED)]
        try:
            report = store.run(f"night {night}")
        except RunRefusedError as error:
            refused = [str(error)]
        else:
            refused = []
            assert (report.unchanged, report.completed) == (summary.unchanged or 0, summary.to_buy)
            assert store.local.created - before == summary.to_buy
            assert summary.estimated_credits == 83 * summary.to_buy
        assert said == refused
        rows = changed_by(chance, rows, night)


@pytest.mark.parametrize(("new_ids", "is_refused"), [(1, True), (8, True), (9, False), (12, False)])
def test_one_new_id_excuses_one_product_that_is_gone(store, new_ids, is_refused):
    """Twelve products share one video. Eleven leave; some new ids take the same video."""
    cup = {"title": "Cup", "image_link": "https://s.example/c.jpg"}
    store.offers(*({"id": f"p{n}", **cup} for n in range(12)))
    store.run("monday")
    store.offers({"id": "p0", **cup}, *({"id": f"x{n}", **cup} for n in range(new_ids)))
    assert any(line.startswith(REFUSED) for line in checked(store).warnings) is is_refused
    if is_refused:
        with pytest.raises(RunRefusedError, match=f"{11 - new_ids} of "):
            store.run("tuesday")
    else:
        assert store.run("tuesday").adopted == new_ids
    assert store.local.created == 1


def test_check_counts_each_variant(store):
    written = {"variants": {"wide": {"aspect_ratio": "16:9"}, "tall": {"aspect_ratio": "9:16"}}}
    mapping = FeedMapping.from_dict(written)
    store.offers(*({"id": name, "title": "Cup", "image_link": "https://s.example/c.jpg"} for name in "ab"))
    summary = checked(store, mapping)
    assert (summary.duplicates, summary.to_buy) == (0, 2)
    assert store.run("monday", plan=PlanOptions(mapping=mapping)).completed == 2
    assert checked(store, mapping).to_buy == 0


CONTRADICTIONS = [
    ({"captions_enabled": False, "caption_style": "bold"}, "captions_enabled is false, so caption_style has no effect"),
    (
        {"music_enabled": False, "music_mood": "calm", "music_volume": 0.2},
        "music_enabled is false, so music_mood and music_volume have no effect",
    ),
    ({"custom_music_id": "m", "music_mood": "calm"}, "custom_music_id is set, so music_mood has no effect"),
    ({"custom_script": "word " * 29}, "custom_script has 29 words, and 1 segment of 8 s has time for about 28"),
    (
        {"custom_script": "word " * 43, "segment_count": 4, "segment_duration": 3, "video_model": "kling3_pro"},
        "custom_script has 43 words, and 4 segments of 3 s have time for about 42",
    ),
]


@pytest.mark.parametrize(("fields", "said"), CONTRADICTIONS, ids=[each[1].split()[0] for each in CONTRADICTIONS])
def test_contradiction_is_named_with_its_line_and_bought(shop, fields, said):
    """The service accepts such a request, so a check warns and a run buys."""
    shop.sells("plain", "odd")
    mapping = FeedMapping.from_dict({"categories": {"Odd": fields}})
    shop.offers(shop_row("plain"), {**shop_row("odd"), "product_type": "Odd"})
    with check_feed(shop.path, job_defaults={"segment_count": 1}, plan=PlanOptions(mapping=mapping)) as check:
        list(check.rows)
        orders = {order["product_id"]: order for order in check.orders()}
    assert check.summary.contradictions == 1
    assert [line for line in check.summary.warnings if said in line] == [
        f"1 request contradicts itself: line 2, item 2: {said}"
    ]
    assert (orders["odd"]["warnings"], "warnings" in orders["plain"]) == ([said], False)
    report = shop.run("monday", plan=PlanOptions(mapping=mapping))
    assert (report.rejected, report.products) == (0, 2)
    assert shop.local.created == (1 if "custom_music_id" in fields else 2), "the service has no such track"


def shop_row(name):
    return {"id": name, "title": f"Cup {name}", "image_link": f"https://s.example/{name}.jpg"}


@pytest.mark.parametrize(
    "fields",
    [
        {"captions_enabled": False},
        {"caption_style": "bold"},
        {"custom_script": "word " * 28},
        {"music_enabled": True, "music_mood": "calm"},
    ],
    ids=["off", "style", "short script", "music"],
)
def test_request_without_contradiction_has_no_warning(shop, fields):
    shop.sells("a")
    with check_feed(shop.path, job_defaults={"segment_count": 1, **fields}) as check:
        list(check.rows)
    assert (check.summary.contradictions, check.summary.accepted) == (0, 1)


def test_many_contradictions_name_the_first(shop):
    shop.sells(*(f"p{n}" for n in range(9)))
    with check_feed(shop.path, job_defaults={"segment_count": 1, "music_enabled": False, "music_mood": "x"}) as check:
        list(check.rows)
    [line] = [each for each in check.summary.warnings if "contradict" in each]
    assert line.startswith("9 requests contradict themselves: line 1, item 1: music_enabled is false")
    assert line.endswith("line 3, item 3: music_enabled is false, so music_mood has no effect; and 6 more")


def test_shape_that_a_model_cannot_make_is_named_by_line(shop):
    """The service refuses it, so the row is rejected beforehand."""
    shop.offers(shop_row("a"), {**shop_row("b"), "product_type": "Odd"})
    mapping = FeedMapping.from_dict({"categories": {"Odd": {"aspect_ratio": "1:1"}}})
    defaults = {"segment_count": 1, "video_model": "veo3_fast"}
    with check_feed(shop.path, job_defaults=defaults, plan=PlanOptions(mapping=mapping)) as check:
        rows = list(check.rows)
    assert (check.summary.accepted, check.summary.rejected, rows[1].line) == (1, 1, 2)
    assert "1:1 is made by Kling models only" in str(rows[1])
