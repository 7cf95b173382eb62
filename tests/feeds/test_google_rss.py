# SPDX-License-Identifier: Apache-2.0
"""Google Merchant RSS, as shops write it, through `read_feed` and `plan_feed`."""

import io
from pathlib import Path

import pytest

from ugen_provider.core.api.errors import InvalidRequestError
from ugen_provider.core.feeds import FeedError, FeedOrder, Product, RejectedRow, plan_feed, read_feed

EXAMPLE = Path(__file__).parents[2] / "examples" / "feed.xml"


def feed(
    items: str, *, head: str = '<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel>'
) -> io.BytesIO:
    tail = "".join(f"</{tag.split()[0]}>" for tag in reversed(head.strip("<>").replace("><", "|").split("|")))
    return io.BytesIO(f"{head}{items}{tail}".encode())


def only(source: io.BytesIO) -> Product:
    (row,) = read_feed(source)
    assert isinstance(row, Product)
    return row


def test_the_example_becomes_five_orders_and_one_rejected_row():
    rows = list(plan_feed(str(EXAMPLE), job_defaults={"segment_count": 2}))
    orders = [row for row in rows if isinstance(row, FeedOrder)]
    (rejected,) = [row for row in rows if isinstance(row, RejectedRow)]
    assert [order.product_id for order in orders] == ["LL-1001", "LL-1002", "LL-1003", "LL-1005", "LL-1006"]
    assert orders[0].fields == {
        "segment_count": 2,
        "product_name": "Aurora Desk Lamp",
        "product_image_url": "https://images.example.com/ll/1001-front.jpg",
        "key_selling_points": [
            "Three warm tones, chosen by a touch",
            "Charges a phone from its foot",
            "Brushed aluminium, made to last",
        ],
    }
    line = next(n for n, text in enumerate(EXAMPLE.read_text().splitlines(), 1) if "LL-1004" in text)
    assert (rejected.line, rejected.item, rejected.product_id, rejected.column) == (
        line - 1,
        4,
        "LL-1004",
        "image_link",
    )
    assert (
        str(rejected) == f"line {line - 1}, item 4, product LL-1004: image_link is required: the product has no picture"
    )


@pytest.mark.parametrize("opened", [str, Path, lambda path: io.BytesIO(path.read_bytes()), lambda path: path.as_uri()])
def test_a_feed_is_read_from_wherever_it_is(opened):
    assert [row.item for row in read_feed(opened(EXAMPLE))] == [1, 2, 3, 4, 5, 6]


def test_attributes_without_the_prefix_are_read_too():
    product = only(feed("<item><id>7</id><title>Cup</title><image_link>https://s.example/7.jpg</image_link></item>"))
    assert (product.id, product.title, product.image_links) == ("7", "Cup", ("https://s.example/7.jpg",))


def test_googles_name_wins_over_a_plain_one_which_is_kept():
    product = only(
        feed(
            "<item><title>Blog title</title><g:id>7</g:id><g:title>Cup</g:title><link>https://s.example/</link></item>"
        )
    )
    assert (product.title, product.attributes["title[2]"], product.link) == ("Cup", "Blog title", "https://s.example/")


def test_an_empty_google_attribute_hides_no_plain_one():
    assert only(feed("<item><g:id>7</g:id><g:title> </g:title><title>Cup</title></item>")).title == "Cup"


def test_another_prefix_for_googles_namespace_is_understood():
    head = '<rss xmlns:merchant="http://base.google.com/ns/1.0"><channel>'
    product = only(feed("<item><merchant:id>7</merchant:id><merchant:title>Cup</merchant:title></item>", head=head))
    assert (product.id, product.title) == ("7", "Cup")


def test_repeated_tags_cdata_and_nested_groups_are_all_kept():
    product = only(
        feed(
            "<item><g:id>7</g:id><g:title><![CDATA[Salt & <b>Pepper</b>]]></g:title>"
            "<g:additional_image_link>https://s.example/a.jpg</g:additional_image_link>"
            "<g:additional_image_link>https://s.example/b.jpg</g:additional_image_link>"
            "<g:shipping><g:country>US</g:country><g:price>5 USD</g:price></g:shipping></item>"
        )
    )
    assert product.title == "Salt & <b>Pepper</b>"
    assert product.image_links == ("https://s.example/a.jpg", "https://s.example/b.jpg")
    assert (product.attributes["shipping.country"], product.attributes["shipping.price"]) == ("US", "5 USD")


def test_atom_entries_with_their_links():
    head = '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0">'
    product = only(
        feed(
            '<title>Shop</title><entry><g:id>7</g:id><title>Cup</title><link rel="self" href="https://s.example/7.atom"/>'
            '<link href="https://s.example/7"/><summary>Holds tea.</summary></entry>',
            head=head,
        )
    )
    assert (product.title, product.link, product.description) == ("Cup", "https://s.example/7", "Holds tea.")


def test_a_feed_of_many_items_is_read_to_its_end():
    items = "".join(
        f"<item><g:id>{n}</g:id><g:title>Cup {n}</g:title><g:brand>F</g:brand></item>" for n in range(30_000)
    )
    rows = list(read_feed(feed(items)))
    assert (len(rows), rows[-1].id, rows[-1].title) == (30_000, "29999", "Cup 29999")


def test_xhtml_inside_a_field_becomes_its_text():
    product = only(
        feed(
            "<item><g:id>7</g:id><g:title>Cup</g:title><g:description>Holds <b>hot <i>tea</i></b>, too.</g:description>"
            "<a><a><a>odd</a></a></a><item>nested</item><g:brand>Fern</g:brand></item>"
        )
    )
    assert product.description == "Holds hot tea, too."
    assert (product.brand, product.attributes["item"]) == ("Fern", "nested")


def test_the_first_usable_picture_is_taken():
    items = (
        "<item><g:id>7</g:id><g:title>Cup</g:title><g:image_link>/7.jpg</g:image_link>"
        "<g:additional_image_link>https://s.example/7b.jpg</g:additional_image_link></item>"
    )
    (order,) = plan_feed(feed(items), job_defaults={"segment_count": 1})
    assert order.fields["product_image_url"] == "https://s.example/7b.jpg"


def test_html_and_entities_become_plain_selling_points():
    items = (
        "<item><g:id>7</g:id><g:title>Cup</g:title><g:image_link>https://s.example/7.jpg</g:image_link>"
        "<g:description>&lt;p&gt;Holds tea &amp;amp; coffee.&lt;/p&gt;"
        "&lt;style&gt;p{}&lt;/style&gt; Dishwasher safe!</g:description></item>"
    )
    (order,) = plan_feed(feed(items), job_defaults={"segment_count": 1})
    assert order.fields["key_selling_points"] == ["Holds tea & coffee.", "Dishwasher safe!"]


@pytest.mark.parametrize(
    ("item", "column", "rule"),
    [
        ("<g:title>Cup</g:title>", "id", "is required"),
        ("<g:id>7</g:id><g:image_link>https://s.example/7.jpg</g:image_link>", "title", "must not be empty"),
        ("<g:id>7</g:id><g:title>Cup</g:title>", "image_link", "is required: the product has no picture"),
        (
            "<g:id>7</g:id><g:title>C</g:title><g:image_link>C:\\7.jpg</g:image_link>",
            "image_link",
            "is no http(s) address of a picture",
        ),
    ],
)
def test_a_bad_row_names_its_column_and_rule_and_stops_nothing(item, column, rule):
    good = "<item><g:id>8</g:id><g:title>Cup</g:title><g:image_link>https://s.example/8.jpg</g:image_link></item>"
    rejected, order = plan_feed(feed(f"<item>{item}</item>{good}"), job_defaults={"segment_count": 1})
    assert (rejected.column, rejected.rule, rejected.item) == (column, rule, 1)
    assert order.product_id == "8"


def test_broken_defaults_are_refused_before_the_feed_is_opened():
    with pytest.raises(InvalidRequestError, match="segment_count: must be at most 10"):
        plan_feed("/nowhere.xml", job_defaults={"segment_count": 11})


def test_line_numbers_are_in_a_large_feed_with_long_items():
    filler = "x\n" * 40_000
    items = "".join(f"<item>\n<g:id>{n}</g:id><g:title>{filler}</g:title></item>\n" for n in range(4))
    rows = list(read_feed(feed("\n" + items)))
    assert [row.line for row in rows] == [2 + n * 40_002 for n in range(4)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x00\x01\x02\x03", "is no product feed that can be read: it begins with"),
        (b"<!doctype html><html><body>Sign in</body></html>", "perhaps a login page"),
        (b"<html><head/></html>", "perhaps a login page"),
        (b"<?xml version='1.0'?>\n<!DOCTYPE rss [<!ENTITY a 'b'>]>\n<rss/>", r"line 2.*has a DOCTYPE"),
        (b"<rss><channel><item><id>1</id>\n<title>Sal", r"line 2, column 11, byte 41, after item 1.*cut off"),
        (b"<rss><channel><item><id>1</id></itme>", "mismatched tag"),
        (b"<configuration><a/></configuration>", "its root is <configuration>"),
        ("<rss><channel><item><id>1</id><title>é</title>".encode()[:-8], "cut off"),
        (b"<rss>" + b"<a>" * 100, "nests deeper"),
        (b"<rss><channel><item><id>1</id>" + b"<a>" * 300_000, "an item with more than 200,000 tags"),
        (b"<rss><channel><item>" + b"<a>" * 99 + b"</a>" * 99 + b"</item></channel></rss><x>", "junk after document"),
        (b"<rss><channel><item><id>1</id><title>" + b"x" * (17 << 20), "larger than 16,777,216 bytes"),
        (b"<rss><channel><item><id>1</id><title a='" + b"x" * (2 << 20), "unclosed token; it seems to be cut off"),
    ],
)
def test_a_file_that_is_no_feed_is_reported_with_its_position(content, message):
    with pytest.raises(FeedError, match=f"(?s){message}"):
        list(read_feed(io.BytesIO(content)))


def test_a_missing_feed_is_reported():
    with pytest.raises(FeedError, match=r"/nowhere/feed\.xml: cannot be opened: .*No such file"):
        list(read_feed("/nowhere/feed.xml"))
