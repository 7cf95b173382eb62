# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, RUF001  a case is one line, in the letters of its shop
"""Names, selling points and pictures as people would write them, out of the texts of shops."""

import html
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ugen_provider.core.api import rules
from ugen_provider.core.feeds import FeedMapping, Mapper, Product
from ugen_provider.core.feeds.mapper import selected
from ugen_provider.core.feeds.pictures import PLACEHOLDER, PictureRules, addresses_in, is_page
from ugen_provider.core.feeds.plain_text import cleaned, points_of_phrase, points_of_prose, without_markup
from ugen_provider.core.feeds.products import FeedOrder, RejectedRow, availability_in, normalized_id
from ugen_provider.core.jobs.order import fingerprint

A, B = "https://img.example/a.jpg", "https://img.example/b.jpg"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Oak Desk", "Oak Desk"),
        ("<b>Oak</b> Desk", "Oak Desk"),
        ("Caf&eacute; Table &amp; Chair", "Café Table & Chair"),
        ("Caf&amp;eacute; &amp;amp; Bar", "Café & Bar"),
        ("&lt;b&gt;Oak&lt;/b&gt; Desk", "Oak Desk"),
        ("H<sub>2</sub>O bottle", "H2O bottle"),
        ("Cable < 5 m & > 2 m", "Cable < 5 m & > 2 m"),
        ("5 &lt; 6", "5 < 6"),
        ("<!--StartFragment -->Tea<!--EndFragment -->", "Tea"),
        ("<o:p></o:p>Tea<style>p {color: red}</style><script>x()</script>", "Tea"),
        ("<!--[if gte mso 9]><xml><w:x>1</w:x></xml><![endif]-->Tea", "Tea"),
        ('[vc_row][vc_column width="1/2"]Tea[/vc_column][/vc_row]', "Tea"),
        ('Tea [caption id="1" align="left"]cup[/caption]', "Tea cup"),
        ("[gallery] Tea [/quote]", "Tea"),
        ("[tabs][tab]Tea[/tab][/tabs]", "Tea"),
        ("Lamp [2 pieces] [limited]", "Lamp [2 pieces] [limited]"),
        ("Tea\\n500 g\\t", "Tea 500 g"),
        ("Tea\u00a0500\u202fg", "Tea 500 g"),
        ("Te\u00ada\u200b \ufeff", "Tea"),
        ("Tea\x02 500\x0bg", "Tea 500 g"),
        ("Te\u202ea", "Tea"),
        ('19" Monitor', '19" Monitor'),
        ("AT&T R&D", "AT&T R&D"),
        *((word, "") for word in (r"\N", "NULL", "null", "None", "nan", "NaN", "<NA>", "N/A", "(null)", " None ")),
        ("Nancy", "Nancy"),
        ("None of your business", "None of your business"),
    ],
)
def test_name_is_cleaned(text, expected):
    assert cleaned(text) == expected
    assert cleaned(cleaned(text)) == expected


@settings(max_examples=500, derandomize=True, database=None)
@given(
    st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="<&[\\"), max_size=60),
    st.integers(0, 3),
)
def test_text_survives_any_number_of_escapes(text, times):
    expected = cleaned(text)
    for _ in range(times):
        text = html.escape(text, quote=False)
    assert cleaned(text) == expected


@settings(max_examples=500, derandomize=True, database=None)
@given(st.text(st.sampled_from(list("<>&;[]/\\\"'= abP-!n\n.:•")), max_size=60))
def test_any_markup_is_cleaned_without_error(text):
    for one in (cleaned(text), *points_of_prose(text), *points_of_phrase(text)):
        assert "\n" not in one
        assert one == " ".join(one.split())
        assert len(one) <= max(150, len(text))
    assert isinstance(without_markup(text), str)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Warm. Bright! Big?", ["Warm.", "Bright!", "Big?"]),
        ("Approx. 30 cm, incl. bulb. Fits e.g. desks. No. 1 here.", ["Approx. 30 cm, incl. bulb.", "Fits e.g. desks.", "No. 1 here."]),
        ("Maße ca. 30 cm. Inkl. Netzteil, z. B. für Büros. Nr. 1.", ["Maße ca. 30 cm.", "Inkl. Netzteil, z. B. für Büros.", "Nr. 1."]),
        ("Designed by J. Smith. Made of oak.", ["Designed by J. Smith.", "Made of oak."]),
        ("Runs 3.5 h. Weighs 1.2 kg.", ["Runs 3.5 h.", "Weighs 1.2 kg."]),
        ("Say no. Then go.", ["Say no.", "Then go."]),
        ("Wow!! Really?! Yes…", ["Wow!!", "Really?!", "Yes…"]),
        ("明るい。木です！二メートル？", ["明るい。", "木です！", "二メートル？"]),
        ("Features:\n- One\n- Two\n- Three", ["One", "Two", "Three"]),
        ("Intro here.\n* One\n* Two", ["Intro here.", "One", "Two"]),
        ("1. One\n2. Two\n3. Three", ["One", "Two", "Three"]),
        ("• One • Two • Three", ["One", "Two", "Three"]),
        ("✔ One ✔ Two", ["One", "Two"]),
        ("Good lamp: • One • Two", ["One", "Two"]),
        ("<ul><li>One</li><li>Two</li></ul>", ["One", "Two"]),
        ("<p>Intro</p><ul><li><b>One</b></li><li>Two</li></ul>", ["Intro", "One", "Two"]),
        ("One<br>Two<br/>Three", ["One", "Two", "Three"]),
        ("One\\nTwo", ["One", "Two"]),
        ("Same. Same. Other.", ["Same.", "Other."]),
        ("NULL", []),
        ("<p> </p>", []),
        ("Well-known - and loved - by all", ["Well-known - and loved - by all"]),
        ("・明るい\n・木製", ["明るい", "木製"]),
    ],
)  # fmt: skip
def test_points_of_description(text, expected):
    assert points_of_prose(text) == expected


def test_long_sentence_gives_a_shorter_point():
    (point,) = points_of_prose("Our lamp, " + "which is made with care, " * 12 + "is warm.")
    assert 20 < len(point) <= 150
    assert not point.endswith(",")
    (words,) = points_of_prose("lamp " * 60)
    assert len(words) <= 150


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (A, [A]),
        *((f"{A}{between}{B}", [A, B]) for between in ("|", ";", ",", " ", ", ", " | ", "\n", "; ", "|  ", ",,")),
        ([A, B], [A, B]),
        ([{"src": A}, {"src": B}], [A, B]),
        ({"url": A}, [A]),
        ({"image": {"url": A}}, [A]),
        ({"edges": [{"node": {"originalSrc": A}}]}, [A]),
        (f'["{A}","{B}"]', [A, B]),
        (f"['{A}', '{B}']", [A, B]),
        (f'[{{"src": "{A}"}}]', [A]),
        ("//img.example/a.jpg", [A]),
        ("//img.example/a.jpg,//img.example/b.jpg", [A, B]),
        ("www.img.example/a.jpg", ["https://www.img.example/a.jpg"]),
        ("img.example/a.jpg", [A]),
        ("https:\\/\\/img.example\\/a.jpg", [A]),
        ("https://img.example/a b.jpg", ["https://img.example/a%20b.jpg"]),
        ("https://img.example/My Image, Front.jpg", ["https://img.example/My%20Image,%20Front.jpg"]),
        ("https://img.example/ä.jpg", ["https://img.example/%C3%A4.jpg"]),
        ("https://img.example/a%20b.jpg", ["https://img.example/a%20b.jpg"]),
        ("https://img.example/i?a=1&amp;b=2", ["https://img.example/i?a=1&b=2"]),
        ("https://img.example/i?a=1&amp;amp;b=2", ["https://img.example/i?a=1&b=2"]),
        ("https://img.example/i?a=1&copy=2", ["https://img.example/i?a=1&copy=2"]),
        (f' "{A}" ', [A]),
        (f"{A};", [A]),
        ("https://müller.example/a.jpg", ["https://xn--mller-kva.example/a.jpg"]),
        ("HTTPS://img.example/a.jpg", [A]),
        (None, []),
        ("", []),
        ("NULL", []),
        ("no_selection", []),
        ([], []),
        ({}, []),
        (7, []),
    ],
)  # fmt: skip
def test_pictures_are_found_in_every_form(value, expected):
    found = list(addresses_in(value))
    assert found == expected
    assert all(map(rules.is_http_url, found))


@pytest.mark.parametrize(
    ("base", "value", "expected"),
    [
        ("https://img.example/", "/media/a.jpg", "https://img.example/media/a.jpg"),
        ("https://img.example/media", "a b.jpg", "https://img.example/media/a%20b.jpg"),
        ("https://img.example", A, A),
        ("https://img.example", "//img.example/a.jpg", A),
    ],
)
def test_base_completes_relative_pictures(base, value, expected):
    assert list(addresses_in(value, picture=PictureRules(base=base))) == [expected]


def test_split_characters_and_encoding_are_the_users():
    assert list(addresses_in("a.jpg#b.jpg", picture=PictureRules(base="https://img.example", split="#"))) == [A, B]
    assert list(addresses_in("https://img.example/ä.jpg", picture=PictureRules(encode=False))) == [
        "https://img.example/ä.jpg"
    ]


@pytest.mark.parametrize(
    "address",
    [
        "https://s.example/uploads/woocommerce-placeholder.png", "https://s.example/no-image.jpg", "https://s.example/noimage.png",
        "https://s.example/image_not_available.png", "https://via.placeholder.com/300", "https://s.example/blank.gif",
        "https://s.example/img/no_photo.png", "https://s.example/coming-soon.jpg", "https://s.example/default_image.png",
    ],
)  # fmt: skip
def test_placeholder_is_known(address):
    assert PLACEHOLDER.search(address)


@pytest.mark.parametrize(
    "address",
    [A, "https://s.example/nora-image.jpg", "https://s.example/blankets.jpg", "https://s.example/noimagery.jpg"],
)
def test_picture_is_no_placeholder(address):
    assert not PLACEHOLDER.search(address)
    assert not is_page(address)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1001, "1001"), (1001.0, "1001"), ("1001.0", "1001"), ("1001.00", "1001"), ("1.10", "1.10"), ("0010", "0010"),
        (" a\u00a0b ", "a b"), ("e\u0301", "é"), (True, "true"), (None, ""), (float("nan"), ""), ("nan", ""), ("\\N", ""),
        (10**18, "1" + "0" * 18), (1e18, str(1e18)), ("A1.0", "A1.0"), (["x"], "x"), ({"value": "x"}, "x"), ("\ufeff1", "1"),
    ],
)  # fmt: skip
def test_id_is_normalized(value, expected):
    assert normalized_id(value) == expected


@pytest.mark.parametrize("value", ["a\x00b", "\ud800", "x" * 501, 10**5000], ids=["NUL", "half", "long", "huge"])
def test_id_that_cannot_be_stored_is_refused(value):
    with pytest.raises(ValueError, match=r"has a character|longer than|too large"):
        normalized_id(value)


@pytest.mark.parametrize(
    "text", ["in stock", "in_stock", "InStock", "in-stock", "IN STOCK", "https://schema.org/InStock", "http://schema.org/InStock",
             "available", "true", "1", "auf Lager", "en stock", "op voorraad", "在庫あり"],
)  # fmt: skip
def test_in_stock_has_many_spellings(text):
    assert availability_in(text) == "in_stock"


def orders(*rows):
    made = []
    for number, (product_id, attributes) in enumerate(rows, 1):
        product = Product(product_id, {"title": product_id, "image_link": A, **attributes}, number, number)
        fields = {"product_name": product_id, "product_image_url": attributes.get("image_link", A)}
        made.append(FeedOrder(product_id, fields, number, number, 1, None, product))
    return made


def chosen(rows, written):
    return [
        row.product_id for row in selected(iter(rows), FeedMapping.from_dict(written)) if isinstance(row, FeedOrder)
    ]


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("price desc", ["c", "d", "a", "b"]), ("price", ["a", "d", "c", "b"]), (["brand", "price desc"], ["d", "a", "c", "b"]),
        ("id desc", ["d", "c", "b", "a"]), ("title", ["a", "b", "c", "d"]),
    ],
)  # fmt: skip
def test_order_by_sorts_numbers_as_numbers(order_by, expected):
    rows = orders(
        ("a", {"price": "9.50 EUR", "brand": "A"}), ("b", {}), ("c", {"price": "1.299 EUR", "brand": "B"}),
        ("d", {"price": "45 EUR", "brand": "a"}),
    )  # fmt: skip
    assert chosen(rows, {"order_by": order_by}) == expected


def test_limit_counts_products_and_names_the_rest():
    rows = orders(("a", {}), ("a", {}), ("b", {}), ("c", {}))
    found = list(selected(iter(rows), FeedMapping.from_dict({"limit": 2})))
    assert [type(row).__name__ for row in found] == ["FeedOrder", "FeedOrder", "FeedOrder", "SkippedRow"]
    assert (found[3].reason, found[3].product_id) == ("limit", "c")


@pytest.mark.parametrize(
    ("group_by", "expected"), [("item_group_id", ["a", "c", "x"]), ("picture", ["a", "b"]), ("none", list("cabx"))]
)
def test_group_is_represented_by_its_lowest_id(group_by, expected):
    rows = orders(
        ("c", {"item_group_id": "2", "image_link": A}), ("a", {"item_group_id": "1", "image_link": A}),
        ("b", {"item_group_id": "1", "image_link": B}), ("x", {"image_link": B}),
    )  # fmt: skip
    found = [
        row for row in selected(iter(rows), FeedMapping.from_dict({"group_by": group_by})) if isinstance(row, FeedOrder)
    ]
    assert sorted(row.product_id for row in found) == sorted(expected)
    if group_by == "item_group_id":
        assert next(row for row in found if row.product_id == "a").members == 2


@pytest.mark.parametrize(
    "value",
    [
        None, "", "Lamp\u2028", "\ud800", True, 3, 3.5, float("nan"), 10**30, Decimal("9.50"), date(2026, 11, 25),
        datetime(2026, 11, 25, 3, tzinfo=UTC), UUID(int=7), b"bytes", ["a", 2.0, None], ("a", Decimal(1)),
        {"amount": "9.50", "currency": "EUR"}, {"href": "x", "when": date(2026, 1, 1)},
    ],
)  # fmt: skip
def test_value_of_any_type_reads_the_same_after_selection(value):
    (before,) = orders(("a", {"extra": value}))
    (after,) = selected(iter([before]), FeedMapping.from_dict({"order_by": "id"}))
    assert (type(after), type(after.product), after.members) == (FeedOrder, Product, 1)
    assert after._replace(product=None) == before._replace(product=None)
    assert list(after.product.texts("extra")) == list(before.product.texts("extra"))


def test_selection_keeps_the_fingerprint_of_the_request():
    (order,) = orders(("1", {"brand": "Aurora", "additional_image_link": [A, B], "price": "9.50 EUR"}))
    order = order._replace(fields=mapped({}, title="Käse \U0001f9c0", product_highlight=["By touch", "Three tones"]))
    assert order.fields["key_selling_points"]
    for written in ({"order_by": "id"}, {"group_by": "item_group_id"}, {"group_by": "picture", "order_by": "price"}):
        (after,) = selected(iter([order]), FeedMapping.from_dict(written))
        assert after.fields == order.fields
        assert fingerprint(after.fields) == fingerprint(order.fields)


def test_rejected_rows_pass_selection():
    rejected = RejectedRow(1, 1, "x", "title", "must not be empty")
    assert list(selected(iter([rejected]), FeedMapping.from_dict({"order_by": "price"}))) == [rejected]


def mapped(written, **attributes):
    base = {"id": "1", "title": "Lamp", "image_link": A}
    return Mapper(FeedMapping.from_dict(written), job_defaults={"segment_count": 1})(
        Product("1", {**base, **attributes}, 7, 1)
    )


def test_values_change_before_anything_reads_them():
    written = {
        "values": {"title": {"replace": {"(?i)outlet ": ""}, "case": "title", "truncate": 9},
                   "availability": {"map": {"Ja": "in stock", True: "in stock"}}},
        "filters": ["availability == in stock"],
    }  # fmt: skip
    assert mapped(written, title="OUTLET desk lamp big", availability="ja")["product_name"] == "Desk Lamp"
    assert mapped(written, availability="nein").reason == "filtered"
    assert mapped(written, availability=True)["product_name"] == "Lamp"


def test_lookup_gives_fields_by_column(tmp_path):
    (tmp_path / "personas.csv").write_text("brand,persona\nAcme,p-1\nOther,p-2\n")
    (tmp_path / "mapping.yaml").write_text(
        "lookup:\n  persona_id: {by: brand, file: personas.csv}\n  segment_count: {by: id, values: {1: 3}, default: 1}\n"
        "  product_name: {by: id, values: {'1': Better lamp}}\n"
    )
    mapper = Mapper(FeedMapping.from_file(tmp_path / "mapping.yaml"), job_defaults={})
    fields = mapper(Product("1", {"title": "Lamp", "brand": " ACME ", "image_link": A}, 1, 1))
    assert (fields["persona_id"], fields["segment_count"], fields["product_name"]) == ("p-1", 3, "Better lamp")
    fields = mapper(Product("2", {"title": "Mug", "image_link": A}, 1, 1))
    assert "persona_id" not in fields
    assert (fields["segment_count"], fields["product_name"]) == (1, "Mug")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"group_by": "colour"}, "group_by: must be one of"),
        ({"limit": 0}, "limit: must be"),
        ({"limit": True}, "limit: must be"),
        ({"order_by": [7]}, "order_by: must be"),
        ({"ignore_changes": ["product_name"]}, "is what the video shows"),
        ({"ignore_changes": ["price"]}, "price is not a field"),
        ({"lookup": {"persona_id": {"values": {}}}}, "must name a column in `by`"),
        ({"lookup": {"persona": {"by": "brand", "values": {}}}}, "persona is not a field"),
        ({"lookup": {"music_volume": {"by": "brand", "values": {"a": 7}}}}, "at most 1"),
        ({"lookup": {"persona_id": {"by": "brand", "file": "nowhere.csv"}}}, "cannot be read"),
        ({"pictures": {"bas": "x"}}, "pictures: bas is unknown"),
        ({"pictures": {"base": 7}}, "pictures.base: must be"),
        ({"clean": "x"}, "clean: must be"),
        ({"values": {"title": {"cas": "upper"}}}, "values.title: must have any of"),
        ({"values": {"title": {"replace": {"(": ""}}}}, "values.title.replace"),
        ({"values": {"title": {"truncate": 0}}}, "truncate: must be"),
        ({"title": "a", "columns": {"product_name": "b"}}, "keep one of the two"),
        ({"id": []}, "id: must be a column"),
        ({"id": "{sku"}, "id: "),
    ],
)
def test_wrong_section_says_where(written, message):
    with pytest.raises(ValueError, match=message):
        FeedMapping.from_dict(written)


@pytest.mark.parametrize(
    ("rule", "attributes", "passes"),
    [
        ("price >= 20 and availability == in stock", {"price": "30", "availability": "InStock"}, True),
        ("price >= 20 and availability == in stock", {"price": "30", "availability": "out of stock"}, False),
        ("brand == Fern or price < 5", {"price": "3"}, True),
        ("brand == Fern or price < 5", {"brand": "fern", "price": "30"}, True),
        ("(brand == Fern or price < 5) and title contains lamp", {"brand": "fern", "title": "Mug"}, False),
        ("not title contains mug", {"title": "Mug"}, False),
        ("not (price > 5 or title contains mug)", {"title": "Lamp", "price": "1"}, True),
        ("title not contains mug", {"title": "Lamp"}, True),
        ("title matches ^lamp \\d+$", {"title": "Lamp 12"}, True),
        ("title not matches ^lamp", {"title": "Lamp 12"}, False),
        ("title ends with lamp", {"title": "Desk lamp"}, True),
        ("brand is empty", {}, True),
        ("brand is not empty", {"brand": "x"}, True),
        ("brand is not empty", {}, False),
        ("category == Home and Garden", {"product_type": "Home and Garden"}, True),
        ("brand in 'A', \"B\"", {"brand": "b"}, True),
        ("created >= 2024-02-01", {"created": "2024-03-01T10:00:00Z"}, True),
        ("created < 2024-02-01", {"created": "2024-03-01"}, False),
        ("created >= 2024-02-01", {"created": "soon"}, False),
        ("price >= 1000", {"price": "1.299 EUR"}, True),
        ("price >= 1000", {"price": "€ 1.299"}, True),
        ("price >= 1000", {"price": "12.500 KWD"}, False),
        ("price >= 1000", {"price": "1 299,00 €"}, True),
        ("price >= 1000", {"price": "CHF 1’299.–"}, True),
        ("price >= 1000", {"price": "R$ 1.299,00"}, True),
        ("price >= 1000", {"price": "¥1,299"}, True),
        ("price < 2", {"price": "1.299"}, True),
        ("price >= 100000", {"price": "1,29,999.00 INR"}, True),
        ("price == 12.5", {"price": 12.5}, True),
        ("visible == true", {"visible": "1"}, True),
        ("visible = yes", {"visible": "yes"}, True),
    ],
)  # fmt: skip
def test_filter_selects_product(rule, attributes, passes):
    made = mapped({"filters": [rule], "for_sale": []}, **attributes)
    assert isinstance(made, dict) is passes, made


def test_filters_nest_as_objects():
    written = {"filters": [{"any": ["price > 100", {"all": ["brand == Fern", {"not": "title contains mug"}]}]}]}
    assert isinstance(mapped(written, brand="Fern"), dict)
    assert not isinstance(mapped(written, brand="Fern", title="Mug"), dict)
    assert isinstance(mapped(written, price="101 USD"), dict)
