# SPDX-License-Identifier: Apache-2.0
"""The use of columns: the default mappings, mapping files, filters, categories."""

import io
from pathlib import Path

import pytest

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import ConfigError, InvalidRequestError
from ugen_provider.core.feeds import FeedMapping, FeedOrder, Mapper, Product, RejectedRow, SkippedRow, plan_feed
from ugen_provider.core.feeds.errors import MappingError
from ugen_provider.core.feeds.filters import parse_filter
from ugen_provider.core.feeds.pictures import is_http

FILES = Path(__file__).parent / "files"


def product(**attributes) -> Product:
    base = {"id": "1", "title": "Lamp", "image_link": "https://s.example/1.jpg"}
    return Product("1", {**base, **attributes}, 7, 1)


def mapped(written, *, defaults=None, **attributes):
    return Mapper(FeedMapping.from_dict(written), job_defaults=defaults or {"segment_count": 2})(product(**attributes))


def test_shopify_drafts_are_skipped_and_html_becomes_points():
    shirt, cap, tote = plan_feed(FILES / "shopify_old.csv", job_defaults={"segment_count": 1})
    assert isinstance(shirt, FeedOrder)
    assert shirt.fields["key_selling_points"] == ["Cool & light.", "Washed linen"]
    assert (shirt.rows, shirt.fields["product_image_url"]) == (3, "https://cdn.example/shirt-1.jpg")
    assert isinstance(cap, SkippedRow)
    assert str(cap) == "line 5, item 4, product wool-cap: not_for_sale (not for sale: status is draft)"
    assert isinstance(tote, RejectedRow)
    assert tote.column == "image_link"


def test_a_mapping_file_with_everything_in_it(tmp_path):
    path = tmp_path / "mapping.yaml"
    path.write_text(
        """
columns:
  product_name: [SEO Title, title]
  environment_description: custom label 0
  segment_duration: seconds
  key_selling_points: [product_highlight]
templates:
  cta_text: "Get the {brand} lamp for {price}"
constants:
  script_tone: enthusiastic
filters:
  - availability == in stock
  - price >= 20
categories:
  "Home": {persona_id: homely}
  "Home > Lamps": {persona_id: bright, video_model: kling3_pro}
"""
    )
    mapping = FeedMapping.from_file(path)
    mapper = Mapper(mapping, job_defaults={"segment_count": 2, "script_tone": "conversational"})
    attributes = {
        "seo_title": "Aurora, the lamp",
        "custom_label_0": "A desk at night",
        "seconds": "5",
        "brand": "Lumen",
        "price": "49.90 USD",
        "availability": "in_stock",
        "product_type": "Home > Lamps > Desk",
        "product_highlight": ["Bright", "Warm"],
    }
    assert mapper(product(**attributes)) == {
        "segment_count": 2,
        "script_tone": "enthusiastic",
        "product_name": "Aurora, the lamp",
        "product_image_url": "https://s.example/1.jpg",
        "persona_id": "bright",
        "video_model": "kling3_pro",
        "environment_description": "A desk at night",
        "segment_duration": 5,
        "cta_text": "Get the Lumen lamp for 49.90 USD",
        "key_selling_points": ["Bright", "Warm"],
    }
    assert mapper(product(**{**attributes, "price": "9 USD"})).rule == "price >= 20"
    assert mapper(product(**{**attributes, "availability": "preorder"})).rule == "availability == in stock"
    rejected = mapper(product(**{**attributes, "seconds": "20"}))
    assert (rejected.column, rejected.rule) == ("seconds", "kling3_pro makes segments of 3 to 10 s")
    assert mapper(product(**{**attributes, "seconds": "long"})).rule == "must be a whole number"
    assert "cta_text" not in mapper(product(**{**attributes, "brand": " "}))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"colums": {}}, "colums: is no section"),
        ({"columns": {"produkt": "title"}}, "columns: produkt is not a field of POST /jobs"),
        ({"columns": {"product_name": []}}, "columns.product_name: must be a column or a list"),
        ({"columns": ["title"]}, "columns: must be a mapping"),
        ({"templates": {"cta_text": "{brand.__class__}"}}, "must be the name of a column and nothing more"),
        ({"templates": {"cta_text": "{0}"}}, "must be the name of a column"),
        ({"templates": {"cta_text": "{brand"}}, "templates.cta_text: "),
        ({"constants": {"music_volume": 3}}, "constants: music_volume: must be at most 1"),
        ({"categories": {"Home": {"aspect_ratio": "1:1", "video_model": "veo3"}}}, "categories.Home: aspect_ratio"),
        ({"filters": ["price about 20"]}, "filter 'price about 20' cannot be read"),
        ({"filters": ["price >= cheap"]}, "compares numbers"),
        ({"filters": "price > 3"}, "must be a list of rules"),
        ("text", "the mapping: must be a mapping"),
    ],
)
def test_a_wrong_mapping_says_where(written, message):
    with pytest.raises(ConfigError) as caught:
        FeedMapping.from_dict(written)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", ["a: [", "!!python/object/apply:os.system ['true']", "\x00"])
def test_a_mapping_file_that_is_no_yaml_is_reported(tmp_path, content):
    path = tmp_path / "mapping.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"mapping .*mapping\.yaml"):
        FeedMapping.from_file(path)


@pytest.mark.parametrize(
    ("rule", "value", "passes"),
    [
        ("price >= 20", "1,299.00 USD", True),
        ("price >= 20", "EUR 12,50", False),
        ("price < 1300", "1.299,00 EUR", True),
        ("price < 1300", "1'299 CHF", True),
        ("price > 0", "free", False),
        ("price == 5 USD", "5 USD", True),
        ("brand in Lumen, Fern", "fern", True),
        ("brand not in Lumen, Fern", "", True),
        ("brand != Fern", "FERN", False),
        ("category starts with home > lamps", "Home > Lamps > Desk", True),
        ("title contains outlet", "Outlet lamp", True),
        ("availability == in_stock", "In Stock", True),
    ],
)
def test_filters(rule, value, passes):
    parsed = parse_filter(rule)
    column = "product_type" if parsed.column == "category" else parsed.column
    assert parsed.passes(product(**{column: value})) is passes


def test_points_of_the_caller_or_a_script_keep_the_feeds_own_out():
    fields = mapped({}, defaults={"segment_count": 1, "custom_script": "Look!"}, product_highlight="Bright")
    assert "key_selling_points" not in fields
    fields = mapped({}, defaults={"segment_count": 1, "key_selling_points": ["Ours"]}, product_highlight="Bright")
    assert fields["key_selling_points"] == ["Ours"]


def test_segment_count_needs_a_category_or_an_explicit_value():
    written = {"categories": {"home": {"segment_count": 3}}}
    mapper = Mapper(FeedMapping.from_dict(written), job_defaults={})
    assert mapper(product(product_type="Home"))["segment_count"] == 3
    assert mapper(product(product_type="Garden")).column == "segment_count"
    with pytest.raises(InvalidRequestError, match="segment_count: is required"):
        Mapper(FeedMapping.default(), job_defaults={})


def test_a_default_mapping_of_a_known_version_never_changes():
    assert FeedMapping.default("google", version=1).columns["product_image_url"] == (
        *("image_link", "image_link[2]", "image_link[3]"),
        *("additional_image_link", "additional_image_link[2]"),
    )
    with pytest.raises(ConfigError, match="default mapping 99 is unknown"):
        FeedMapping.default("google", version=99)


@pytest.mark.parametrize(
    "address",
    [
        "https://s.example/a.jpg", "http://s.example:8080", "HTTPS://S.example/a", "https://", "https:///a.jpg",
        "https://s.example/a b.jpg", "https://[::1]/a.jpg", "https://u@s.example/a", "https://s.example/ä.jpg",
        "s3://b/a", "//s.example/a",
        "https://s.example:port/a", "javascript:alert(1)", "", "https://s.example/a.jpg\n",
    ],
)  # fmt: skip
def test_the_fast_look_at_an_address_agrees_with_the_apis_rule(address):
    assert is_http(address) == rules.is_http_url(address)


def test_any_mapping_result_keeps_the_documented_rules():
    content = "id,title,image_link,description\n" + "".join(
        f'{n},"{title}",{picture},"{text}"\n'
        for n, (title, picture, text) in enumerate(
            (title, picture, text)
            for title in ("Cup", " ", "ü" * 300)
            for picture in ("https://s.example/1.jpg", "", "x", "https://a")
            for text in ("", "One. Two! Three? Four.", "<b>bold</b>", "w" * 500)
        )
    )
    rows = list(plan_feed(io.BytesIO(content.encode()), job_defaults={"segment_count": 1}))
    orders = [row for row in rows if isinstance(row, FeedOrder)]
    assert len(rows) == 48
    assert len(orders) == 16
    assert not [violation for order in orders for violation in rules.check(order.fields)]


def shopify(tmp_path, *rows):
    path = tmp_path / "products.csv"
    header = "Handle,Title,Body (HTML),Vendor,Variant Price,Image Src,Status"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


TEE = "tee,Tee,<p>Soft</p><ul><li>Organic cotton</li><li>Made in Porto</li></ul>,Nord,25.00,https://s.example/1.jpg,active"
DRAFT = "mug,Mug,,Nord,9.00,https://s.example/2.jpg,draft"


def test_a_mapping_file_keeps_what_the_default_filters_out(tmp_path):
    feed = shopify(tmp_path, TEE, DRAFT)
    mapping = FeedMapping.from_dict({"constants": {"script_tone": "enthusiastic"}})
    tee, draft = plan_feed(feed, job_defaults={"segment_count": 1}, mapping=mapping)
    assert tee.fields["script_tone"] == "enthusiastic"
    assert isinstance(draft, SkippedRow), "a draft of the shop would be bought"


def test_a_mapping_file_names_columns_as_the_found_kind_does(tmp_path):
    written = {
        "columns": {"environment_description": "Body (HTML)"},
        "templates": {"cta_text": "Get it from {Vendor} for {Variant Price}"},
        "filters": ["Variant Price >= 20", "status in active, draft"],
    }
    rows = list(
        plan_feed(
            shopify(tmp_path, TEE, DRAFT), job_defaults={"segment_count": 1}, mapping=FeedMapping.from_dict(written)
        )
    )
    assert rows[0].fields["cta_text"] == "Get it from Nord for 25.00"
    assert rows[0].fields["environment_description"].startswith("<p>Soft")
    assert rows[1].rule == "variant_price >= 20", "the user's own rule for `status` goes before the default's"


def test_a_users_filter_is_added_to_those_of_the_default(tmp_path):
    mapping = FeedMapping.from_dict({"filters": ["price >= 5"]})
    tee, draft = plan_feed(shopify(tmp_path, TEE, DRAFT), job_defaults={"segment_count": 1}, mapping=mapping)
    assert isinstance(tee, FeedOrder)
    assert draft.rule == "not for sale: status is draft"


def test_entries_of_a_list_in_html_are_points_of_their_own(tmp_path):
    (tee,) = plan_feed(shopify(tmp_path, TEE), job_defaults={"segment_count": 1})
    assert tee.fields["key_selling_points"] == ["Soft", "Organic cotton", "Made in Porto"]
    assert mapped({}, description="<script>document.write('<p>x</p>')</script>Warm<br>light")["key_selling_points"] == [
        "Warm",
        "light",
    ]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"constants": {"product_name": "Lamp"}}, "constants: product_name comes from the feed"),
        ({"categories": {"Home": {"product_name": "Lamp"}}}, "categories.Home: product_name comes from the feed"),
        ({"filters": ["price >= 20-50"]}, "compares numbers or dates, and '20-50' is neither"),
        ({"filters": ["(price >= 20"]}, "a parenthesis is not closed"),
        ({"filters": ["price >= 20)"]}, "is left over"),
        ({"filters": ["title matches ("]}, "is no regular expression"),
        ({"filters": ["title contains"]}, "no value to compare with"),
        ({"filters": [{"some": ["price > 1"]}]}, "is no rule"),
    ],
)
def test_what_would_be_passed_over_in_silence_is_refused(written, message):
    with pytest.raises(MappingError, match=message):
        FeedMapping.from_dict(written)
