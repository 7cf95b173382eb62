# SPDX-License-Identifier: Apache-2.0
"""Damage that shops' servers and exports do to a whole feed, which costs no product; and what it must not hide."""

import io
import json

import pytest

from ugen_provider.core.feeds import FeedError, FeedOrder, RejectedRow, plan_feed
from ugen_provider.core.feeds.pictures import addresses_in
from ugen_provider.core.feeds.plain_text import points_of_phrase

HEADER = "id,title,image_link"
ROWS = [f"{number},Lamp {number},https://s.example/{number}.jpg" for number in (1, 2, 3)]
ITEMS = "".join(
    f"<item><id>{number}</id><title>Lamp {number}</title><image_link>https://s.example/{number}.jpg</image_link></item>"
    for number in (1, 2, 3)
)
XML = f'<?xml version="1.0"?><rss><channel>{ITEMS}</channel></rss>'


def planned(text):
    source = io.BytesIO(text if isinstance(text, bytes) else text.encode())
    return list(plan_feed(source, job_defaults={"segment_count": 1}))


def ids(text):
    rows = planned(text)
    assert not [row for row in rows if isinstance(row, RejectedRow)]
    return [row.product_id for row in rows if isinstance(row, FeedOrder)]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join([HEADER, *ROWS]) + "\n\x1a",
        "\r\n".join([HEADER, *ROWS]) + "\r\n\x1a",
        f"{HEADER}\r{ROWS[0]}\n{ROWS[1]}\r\n{ROWS[2]}\r",
        f"{HEADER}\r{ROWS[0]}\r{ROWS[1]}\n{ROWS[2]}",
    ],
    ids=["end mark", "end mark after CRLF", "mixed line ends", "CR and LF"],
)
def test_text_with_odd_line_ends_is_read_whole(text):
    assert ids(text) == ["1", "2", "3"]


def test_mixed_line_ends_across_pieces_are_read_whole():
    rows = [f"{number},Lamp,https://s.example/{number}.jpg" for number in range(5000)]
    text = HEADER + "\r" + "".join(row + end for row, end in zip(rows, ["\r\n", "\r", "\n"] * 2000, strict=False))
    assert ids(text) == [str(number) for number in range(5000)]


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ('"Lamp \\"deluxe\\""', 'Lamp "deluxe"'),
        ('"\\"Best\\" lamp"', '"Best" lamp'),
        ('"19\\" rack"', '19" rack'),
        ('"A \\\\ B \\"C\\""', 'A \\ B "C"'),
    ],
)
def test_quote_escaped_by_a_backslash_is_a_quote(cell, name):
    rows = planned(f"{HEADER}\n7,{cell},https://s.example/7.jpg\n{ROWS[0]}\n")
    assert [row.fields["product_name"] for row in rows] == [name, "Lamp 1"]


@pytest.mark.parametrize(
    "below",
    [
        "\n<br />\n<b>Warning</b>: mysql_close() in <b>/www/feed.php</b> on line <b>9</b>",
        "\n<!-- 0.3 s --> done",
        "\nNotice: x",
        "\x00\x00",
    ],
)
def test_warning_below_the_root_costs_nothing(below):
    assert ids(XML + below) == ["1", "2", "3"]


@pytest.mark.parametrize("below", [XML, XML.partition("?>")[2], ITEMS, "</channel></rss>", "<offer/>"])
def test_second_document_below_the_root_is_an_error(below):
    with pytest.raises(FeedError, match="not well-formed XML"):
        planned(XML + below)


@pytest.mark.parametrize(
    "comment", ["<!-- a -- b -->", "<!-- a --->", "<!---->", "<!-- <item> -- </item> -->", "<!--\n--\n-->"]
)
@pytest.mark.parametrize("place", ["<channel>", "<item>", "</item>", "</rss>"])
def test_comment_with_double_hyphens_costs_nothing(comment, place):
    assert ids(XML.replace(place, place + comment, 1)) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ('["Bright", "Small"]', ["Bright", "Small"]),
        ("['Bright', 'Small']", ["Bright", "Small"]),
        ("Bright|Small | Red", ["Bright", "Small", "Red"]),
        ("Bright; Small; Red", ["Bright", "Small", "Red"]),
        ("Black &amp; white; Small", ["Black & white", "Small"]),
        ("明るい。小さい。", ["明るい。", "小さい。"]),
        ("Approx. 30 cm, e.g. for desks", ["Approx. 30 cm, e.g. for desks"]),
        ("[]", []),
    ],
)
def test_points_of_phrase_are_its_entries(text, points):
    assert points_of_phrase(text) == points


@pytest.mark.parametrize(
    "text",
    [
        "<img src='https://s.example/1.jpg'>",
        '<a href="https://s.example/p"><IMG class="x" alt="a>b" data-src="//x" src="https://s.example/1.jpg"/></a>',
        "<img src=https://s.example/1.jpg>",
    ],
)
def test_address_in_a_tag_is_found(text):
    assert list(addresses_in(text)) == ["https://s.example/1.jpg"]


OBJECTS = [
    {"id": number, "title": f"Lamp {number}", "image_link": f"https://s.example/{number}.jpg"} for number in (1, 2, 3)
]
AROUND = {"total": 3, "links": [{"next": 'a"]}\\'}]}


@pytest.mark.parametrize("between", ["", "\n", " \r\n\n", ","], ids=["nothing", "line", "blank line", "comma"])
@pytest.mark.parametrize("indent", [None, 2], ids=["compact", "indented"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda row: row,
        lambda row: [row],
        lambda row: {"products": [row], **AROUND},
        lambda row: {**AROUND, "data": {"items": [row], **AROUND}},
    ],
    ids=["objects", "lists", "pages", "nested pages"],
)
def test_json_documents_in_a_row_are_read_whole(wrap, indent, between):
    assert ids(between.join(json.dumps(wrap(row), indent=indent) for row in OBJECTS)) == ["1", "2", "3"]


@pytest.mark.parametrize(("indent", "between"), [(None, ""), (2, ""), (2, "\n")])
def test_json_documents_by_id_in_a_row_are_read_whole(indent, between):
    pages = [{str(row["id"]): {"title": row["title"], "image_link": row["image_link"]}} for row in OBJECTS]
    assert ids(between.join(json.dumps(page, indent=indent) for page in pages)) == ["1", "2", "3"]


def test_json_documents_across_pieces_are_read_whole():
    pages = [
        json.dumps({"products": [{**OBJECTS[0], "id": size}], "text": 'x"]}\\' * size})
        for size in range(0, 120_000, 7919)
    ]
    assert len(ids("".join(pages))) == len(pages)


@pytest.mark.parametrize(
    ("last", "said"),
    [({"products": []}, None), ({"error": "too many requests"}, "too many requests")],
    ids=["empty page", "error"],
)
def test_last_json_page_ends_a_feed_or_stops_it(last, said):
    text = "\n".join(json.dumps(page) for page in ({"products": OBJECTS}, last))
    if said is None:
        assert ids(text) == ["1", "2", "3"]
    else:
        with pytest.raises(FeedError, match=said):
            planned(text)


@pytest.mark.parametrize("delimiter", list("^~|¦;\t\x01"))
@pytest.mark.parametrize("quote", ["", '"'], ids=["bare", "quoted"])
def test_text_with_any_delimiter_is_read(delimiter, quote):
    rows = [line.split(",") for line in (HEADER, *ROWS)]
    text = "\n".join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    assert ids(text) == ["1", "2", "3"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda row: {"_index": "p", "_id": "x", "_source": row},
        lambda row: {"_airbyte_ab_id": "x", "_airbyte_data": row},
        lambda row: {"Item": {name: {"N" if name == "id" else "S": str(value)} for name, value in row.items()}},
        lambda row: {"_id": {"$oid": str(row["id"])}, "title": row["title"], "image": row["image_link"]},
        lambda row: {"id": "x", "fields": row},
        lambda row: {"before": None, "after": row, "op": "c"},
        lambda row: {**row, "title": {"en": row["title"], "de-DE": "x"}},
    ],
    ids=["elasticsearch", "airbyte", "dynamodb", "mongodb", "airtable", "debezium", "languages"],
)
def test_row_of_a_store_is_read_without_its_wrapping(wrap):
    rows = planned("\n".join(json.dumps(wrap(row)) for row in OBJECTS))
    assert [(row.product_id, row.fields["product_name"]) for row in rows] == [
        (str(row["id"]), row["title"]) for row in OBJECTS
    ]


def test_unknown_picture_column_is_named():
    (row,) = planned("id,title,shot_of_it\n1,Lamp,https://s.example/1.jpg\n")
    assert isinstance(row, RejectedRow)
    assert "`columns: {product_image_url: shot_of_it}`" in row.rule


@pytest.mark.parametrize(
    "name", ["_source", "_airbyte_data", "Item", "fields", "after", "payload", "record", "document"]
)
def test_part_of_a_product_is_no_wrapping(name):
    part = {"id": 99, "title": "Manual", "image_link": "https://s.example/99.jpg"}
    rows = planned(json.dumps([{**row, name: part} for row in OBJECTS]))
    assert [(row.product_id, row.fields["product_name"]) for row in rows] == [
        (str(row["id"]), row["title"]) for row in OBJECTS
    ]
