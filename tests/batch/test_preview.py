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
