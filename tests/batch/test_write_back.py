# SPDX-License-Identifier: Apache-2.0
"""Back to the shop: every format holds the videos, a file never shrinks silently, and a table is one transaction."""

import csv
import json
import re

import pytest
import sqlalchemy as sa

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.batch import PlanOptions
from ugen_provider.core.batch.errors import ExportRefusedError
from ugen_provider.core.batch.supplemental_feed import TargetIds, write_shop_feed, write_table
from ugen_provider.core.feeds import FeedMapping

IDS = [f"p{n}" for n in range(10)]
LOOKS = FeedMapping.from_dict({"variants": {"tall": {}, "wide": {"aspect_ratio": "16:9"}}})
FORMATS = ["google", "tsv", "meta", "tiktok", "pinterest", "jsonl"]
HEADERS = {
    "tsv": ["id", "video_link"],
    "meta": ["id", "video[0].url"],
    "tiktok": ["sku_id", "video_link"],
    "pinterest": ["id", "video_link"],
}


def ids_of(path, format_):
    text = path.read_text()
    if format_ == "google":
        return re.findall("<g:id>(.*?)</g:id>", text)
    if format_ == "jsonl":
        return [json.loads(line)["id"] for line in text.splitlines()]
    header, *rows = csv.reader(text.splitlines(), delimiter="\t" if format_ in {"tsv", "pinterest"} else ",")
    assert header == HEADERS[format_]
    assert all(row[1].startswith("http") for row in rows)
    return [row[0] for row in rows]


@pytest.fixture
def delivered(shop):
    shop.sells(*IDS)
    shop.run("monday")
    return shop


@pytest.mark.parametrize("format_", FORMATS)
def test_export_never_shrinks_by_more_than_it_may(delivered, tmp_path, format_):
    path = tmp_path / "videos"
    assert write_shop_feed(delivered.ledger, "shop", path, format=format_) == 10
    assert ids_of(path, format_) == IDS
    whole = path.read_bytes()
    delivered.sells(*IDS[:7])
    delivered.run("tuesday", plan=PlanOptions(guard_min=99))  # too few are known for the plan, not for the file
    with pytest.raises(ExportRefusedError, match="3 of the 10 products in it would lose their videos") as caught:
        write_shop_feed(delivered.ledger, "shop", path, format=format_)
    assert (caught.value.reason, path.read_bytes()) == ("shrinks", whole)
    assert write_shop_feed(delivered.ledger, "shop", path, format=format_, allow_shrink=True) == 7
    assert ids_of(path, format_) == IDS[:7]
    assert [each.name for each in tmp_path.iterdir() if each.name.endswith(".part")] == []


def test_export_may_shrink_as_much_as_the_plan_in_force(delivered, tmp_path):
    path = tmp_path / "videos.xml"
    write_shop_feed(delivered.ledger, "shop", path)
    delivered.sells(*IDS[:4])
    delivered.run("tuesday", plan=PlanOptions(max_gone=0.6))
    assert write_shop_feed(delivered.ledger, "shop", path) == 4


@pytest.mark.parametrize("options", [{"min_score": 1.0}, {"variant": "none"}])
def test_export_without_products_writes_nothing(delivered, tmp_path, options):
    path = tmp_path / "videos.xml"
    path.write_text("untouched")
    with pytest.raises(ExportRefusedError) as caught:
        write_shop_feed(delivered.ledger, "shop", path, **options)
    assert (caught.value.reason, path.read_text()) == ("empty", "untouched")


@pytest.mark.parametrize("format_", FORMATS)
def test_formula_and_markup_stay_text(shop, tmp_path, format_):
    shop.sells("=1+1", "a<b", "plain")
    shop.run("monday")
    path = tmp_path / "videos"
    assert write_shop_feed(shop.ledger, "shop", path, format=format_) == 3
    if format_ not in {"google", "jsonl"}:
        assert "'=1+1" in ids_of(path, format_)
    assert "<g:id>a<b" not in path.read_text()
    assert write_shop_feed(shop.ledger, "shop", path, format=format_) == 3


def test_ids_are_those_of_the_target(delivered, tmp_path):
    path = tmp_path / "videos.csv"
    write_shop_feed(delivered.ledger, "shop", path, format="meta", ids=TargetIds("shopify_DE_{id}"))
    assert ids_of(path, "meta")[0] == "shopify_DE_p0"
    skipped = []
    path.unlink()
    count = write_shop_feed(
        delivered.ledger,
        "shop",
        path,
        format="meta",
        ids=TargetIds(table={"p1": "4711"}),
        on_skipped=lambda product_id, reason: skipped.append((product_id, reason)),
    )
    assert (count, ids_of(path, "meta"), len(skipped)) == (1, ["4711"], 9)


def test_shop_shows_one_variant_and_jsonl_all(shop, tmp_path):
    shop.sells("a", "b")
    shop.run("monday", plan=PlanOptions(mapping=LOOKS))
    videos = shop.videos()
    path = tmp_path / "videos"
    for variant, shown in ((None, "tall"), ("wide", "wide")):
        assert write_shop_feed(shop.ledger, "shop", path, variant=variant) == 2
        assert videos[f"a ({shown})"] in path.read_text()
    assert write_shop_feed(shop.ledger, "shop", tmp_path / "all", format="jsonl") == 4


def test_table_has_a_row_for_each_product_and_variant(store, address, tmp_path):
    url = address if "://" in address else f"sqlite:///{tmp_path / 'shop.db'}"
    store.sells(*IDS)
    store.run("monday", plan=PlanOptions(mapping=LOOKS))
    for _ in range(2):  # it is replaced, not added to
        assert write_table(store.ledger, "shop", url, table="product_video") == 20

    def rows():
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            query = sa.text("SELECT * FROM product_video ORDER BY id, variant")
            found = connection.execute(query).mappings().all()
        engine.dispose()
        return found

    first = rows()[0]
    assert (first["id"], first["variant"], first["job_id"]) == ("p0", "tall", store.videos()["p0 (tall)"])
    assert first["credits"] > 0
    assert first["video_link"].startswith("http")
    store.sells(*IDS[:5])
    store.run("tuesday", plan=PlanOptions(mapping=LOOKS, guard_min=99))
    with pytest.raises(ExportRefusedError, match="10 of the 20"):
        write_table(store.ledger, "shop", url, table="product_video")
    assert len(rows()) == 20
    assert write_table(store.ledger, "shop", url, table="product_video", allow_shrink=True) == 10


def test_password_of_a_database_is_never_shown(delivered):
    with pytest.raises(ConfigError) as caught:
        write_table(delivered.ledger, "shop", "postgresql+psycopg://me:pa55word@127.0.0.1:1/shop")
    assert "pa55word" not in str(caught.value)
