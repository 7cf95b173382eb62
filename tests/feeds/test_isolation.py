# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501  a case is one line, in the letters of its shop
"""One bad row costs one row: for every format, every kind of damage, and every position in the feed."""

import csv
import io
import json
from html import escape

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ugen_provider.core.feeds import FeedError, FeedOrder, Product, RejectedRow, plan_feed, read_feed

COUNT = 5
PICTURE = "https://s.example/{}.jpg"


def csv_row(number) -> str:
    return f'{number},"Lamp, no. {number}",{PICTURE.format(number)}'


def tsv_row(number) -> str:
    return f"{number}\tLamp {number}\t{PICTURE.format(number)}"


def xml_row(number) -> str:
    return f"<item><g:id>{number}</g:id><title>Lamp {number}</title><g:image_link>{PICTURE.format(number)}</g:image_link></item>"


def json_row(number) -> str:
    return json.dumps({"id": str(number), "title": f"Lamp {number}", "image_link": PICTURE.format(number)})


def feed_of(format, rows) -> bytes:  # noqa: A002
    rows = [row if isinstance(row, bytes) else row.encode() for row in rows]
    match format:
        case "csv":
            return b"\n".join([b"id,title,image_link", *rows, b""])
        case "tsv":
            return b"\n".join([b"id\ttitle\timage_link", *rows, b""])
        case "xml":
            return b'<rss xmlns:g="http://base.google.com/ns/1.0"><channel>' + b"\n".join(rows) + b"</channel></rss>"
        case "json":
            return b'{"products": [' + b",\n".join(rows) + b"]}"
        case _:
            return b"\n".join([*rows, b""])


GOOD = {"csv": csv_row, "tsv": tsv_row, "xml": xml_row, "json": json_row, "jsonl": json_row}
BAD = {
    ("csv", "lone quote"): b'x,"Lamp,https://s.example/x.jpg',
    ("csv", "quote at the end"): b'x,Lamp,"https://s.example/x.jpg',
    ("csv", "quote only"): b'x,",https://s.example/x.jpg',
    ("csv", "text after a quote"): b'x,"Lamp" "XL, big",https://s.example/x.jpg',
    ("csv", "too short"): b"x,Lamp",
    ("csv", "too long"): b"x,Lamp,https://s.example/x.jpg,y,z",
    ("csv", "bad byte"): b"x,M\xf6bel,https://s.example/x.jpg",
    ("csv", "no id"): b",Lamp,https://s.example/x.jpg",
    ("csv", "long id"): b"x" * 600 + b",Lamp,https://s.example/x.jpg",
    ("csv", "null id"): b"\\N,Lamp,https://s.example/x.jpg",
    ("tsv", "bad byte"): b"x\tM\xf6bel\thttps://s.example/x.jpg",
    ("tsv", "too long"): b"x\tLamp\thttps://s.example/x.jpg\ty",
    (
        "xml",
        "undefined entity",
    ): b"<item><g:id>x</g:id><title>&nothing;</title><g:image_link>https://s.example/x.jpg</g:image_link></item>",
    (
        "xml",
        "bad byte",
    ): b"<item><g:id>x</g:id><title>M\xf6bel</title><g:image_link>https://s.example/x.jpg</g:image_link></item>",
    ("xml", "empty"): b"<item/>",
    ("json", "broken object"): b'{"id": "x", "title" "Lamp"}',
    ("json", "deep"): b'{"id": "x", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ("json", "huge number"): b'{"id": ' + b"9" * 6000 + b', "title": "Lamp"}',
    ("json", "half a pair"): b'{"id": "x", "title": "\\ud800", "image_link": "https://s.example/x.jpg"}',
    ("json", "text"): b'"Lamp"',
    ("json", "list"): b'["Lamp"]',
    ("jsonl", "broken object"): b'{"id": "x", "title" "Lamp"}',
    ("jsonl", "deep"): b'{"id": "x", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ("jsonl", "huge number"): b'{"id": ' + b"9" * 6000 + b', "title": "Lamp"}',
    ("jsonl", "half a pair"): b'{"id": "x", "title": "\\ud800", "image_link": "https://s.example/x.jpg"}',
    ("jsonl", "half a pair in the id"): b'{"id": "\\ud800", "title": "Lamp", "image_link": "https://s.example/x.jpg"}',
    ("jsonl", "bad byte"): b'{"id": "x", "title": "M\xf6bel"}',
    ("jsonl", "NUL in the id"): b'{"id": "a\\u0000b", "title": "Lamp", "image_link": "https://s.example/x.jpg"}',
    ("jsonl", "picture is a number"): b'{"id": "x", "title": "Lamp", "image_link": 7}',
    ("jsonl", "values of other types"): b'{"id": ["x"], "title": {"a": 1}, "image_link": [[[]]]}',
}
REPAIRED = {
    ("xml", "control character"): "<item><g:id>9</g:id><title>La\x01mp</title><g:image_link>https://s.example/9.jpg</g:image_link></item>",
    ("xml", "character number"): "<item><g:id>9</g:id><title>Lamp&#11;</title><g:image_link>https://s.example/9.jpg</g:image_link></item>",
    ("xml", "bare ampersand"): "<item><g:id>9</g:id><title>Lamp</title><g:image_link>https://s.example/9.jpg?a=1&b=2</g:image_link></item>",
    ("xml", "entity of HTML"): "<item><g:id>9</g:id><title>&nbsp;Lamp</title><g:image_link>https://s.example/9.jpg</g:image_link></item>",
    ("xml", "CDATA"): "<item><g:id>9</g:id><title><![CDATA[Lamp]]></title><note><![CDATA[a & b &eacute; <x>]]></note>"
    "<g:image_link>https://s.example/9.jpg</g:image_link></item>",
    ("csv", "inch"): '9,"Lamp",https://s.example/9.jpg',
    ("csv", "quoted line break"): '9,"La\nmp".jpg'.replace('"La\nmp".jpg', '"Lamp\n"') + ",https://s.example/9.jpg",
    ("tsv", "lone quote"): '9\t"Lamp\thttps://s.example/9.jpg',
    ("csv", "huge value"): f'9,Lamp,https://s.example/9.jpg{" " * 200_000}',
    ("csv", "byte order mark"): "\ufeff9,Lamp,https://s.example/9.jpg",
    ("csv", "control character"): "9,La\x02mp,https://s.example/9.jpg",
    ("jsonl", "byte order mark"): "\ufeff" + json.dumps({"id": 9, "title": "Lamp", "image_link": "https://s.example/9.jpg"}),
}  # fmt: skip


def planned(content: bytes):
    return list(plan_feed(io.BytesIO(content), job_defaults={"segment_count": 1}))


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize(("format", "damage"), BAD)
def test_bad_row_costs_itself_alone(format, damage, place):  # noqa: A002
    rows = [GOOD[format](number) for number in range(COUNT)]
    at = {"first": 0, "middle": 2, "last": COUNT}[place]
    rows.insert(at, BAD[format, damage])
    found = planned(feed_of(format, rows))
    assert [row.product_id for row in found if isinstance(row, FeedOrder)] == [str(number) for number in range(COUNT)]
    (bad,) = [row for row in found if isinstance(row, RejectedRow)]
    if format != "xml" and format != "json":
        assert bad.line == at + (2 if format in {"csv", "tsv"} else 1)
    assert bad.rule
    json.dumps(str(bad)).encode()


@pytest.mark.parametrize("place", [0, 2, COUNT])
@pytest.mark.parametrize(("format", "damage"), REPAIRED)
def test_harmless_damage_costs_nothing(format, damage, place):  # noqa: A002
    rows = [GOOD[format](number) for number in range(COUNT)]
    rows.insert(place, REPAIRED[format, damage])
    found = planned(feed_of(format, rows))
    assert all(isinstance(row, FeedOrder) for row in found), found
    nine = next(row for row in found if row.product_id == "9")
    assert nine.fields["product_name"].strip('"') == "Lamp"
    assert nine.fields["product_image_url"].startswith("https://s.example/9.jpg")


VALUES = st.text(st.characters(blacklist_categories=("Cs",)) | st.sampled_from(list("\",;\t\n\r '\\<>&|")), max_size=40)
ROWS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=12)


@settings(max_examples=300, derandomize=True, database=None)
@given(
    ROWS, st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["utf-8", "utf-16"])
)
@example([("a\rb", "")], ",", "\n", "utf-8")
def test_any_values_come_back_from_csv(rows, delimiter, end, encoding):
    """The reader returns each value of a CSV writer, in every dialect and encoding."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "title", "note", "image_link"])
    rows = [(title.replace("\x00", ""), note.replace("\x00", "")) for title, note in rows]
    for number, (title, note) in enumerate(rows):
        writer.writerow([f"p{number}", title, note, PICTURE.format(number)])
    found = list(read_feed(io.BytesIO(file.getvalue().encode(encoding))))
    assert [row.id for row in found] == [f"p{number}" for number in range(len(rows))]
    assert [row.attributes["title"] for row in found] == [title for title, _ in rows]
    assert [row.attributes["note"] for row in found] == [note for _, note in rows]


@settings(max_examples=300, derandomize=True, database=None)
@given(ROWS, st.binary(max_size=40), st.integers(0, 11))
def test_any_bytes_between_rows_leave_the_other_rows(rows, junk, place):
    """A line of any bytes in a TSV, where quotes span no lines, leaves all rows around it."""
    junk = junk.replace(b"\n", b"").replace(b"\r", b"")
    lines = [tsv_row(f"p{number}").encode() for number in range(len(rows))]
    lines.insert(min(place, len(lines)), junk)
    found = list(read_feed(io.BytesIO(feed_of("tsv", lines))))
    ids = {row.id for row in found if isinstance(row, Product)}
    assert {f"p{number}" for number in range(len(rows))} <= ids
    assert len(found) - len(rows) <= 1


XML_TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)


@settings(max_examples=300, derandomize=True, database=None)
@given(st.lists(XML_TEXT, min_size=1, max_size=8), st.sampled_from(["utf-8", "utf-16", "gb18030"]))
def test_any_text_in_xml_leaves_every_item(texts, encoding):
    """Any character, also those that XML does not allow, costs nothing or its own item."""
    items = "".join(
        f"<item><id>p{number}</id><title>Lamp</title><note>{escape(text)}</note><image>{PICTURE.format(number)}</image></item>"
        for number, text in enumerate(texts)
    )
    name = encoding.upper()
    content = f'<?xml version="1.0" encoding="{name}"?><rss><channel>{items}</channel></rss>'.encode(encoding)
    found = list(read_feed(io.BytesIO(content)))
    assert [row.id for row in found] == [f"p{number}" for number in range(len(texts))]


JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=400, derandomize=True, database=None)
@given(st.lists(st.dictionaries(st.sampled_from(["id", "title", "image_link", "images", "price", "status", "offers", "node",
                                                 "variants", "brand", "description", "product_highlight", "availability"]),
                                JSON_VALUE, max_size=8), max_size=6))  # fmt: skip
def test_any_json_values_give_orders_or_rejections(objects):
    """Rows of any JSON values, as rows and as JSONL, are judged alike and never stop the feed."""
    good = {"id": "good", "title": "Lamp", "image_link": PICTURE.format(1)}
    rows = [good, *objects]
    from_rows = list(plan_feed(rows, job_defaults={"segment_count": 1}))
    assert len(from_rows) == len(rows)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    from_lines = planned(text)
    verdicts = [(type(row), row.product_id) for row in from_rows]
    for row, (kind, product_id) in zip(from_lines, verdicts, strict=True):
        if isinstance(row, RejectedRow) and "is no JSON" in row.rule:
            continue  # half a surrogate pair, which the JSON parser itself refuses
        assert (type(row), row.product_id) == (kind, product_id)
    for row in from_rows:
        if isinstance(row, FeedOrder):
            json.dumps(row.fields, ensure_ascii=False).encode()
            assert len(row.product_id) <= 500


def test_feed_that_is_cut_off_gives_no_plan():
    content = feed_of("json", [json_row(1), json_row(2)])[:-30]
    with pytest.raises(FeedError, match="cut off"):
        planned(content)
    with pytest.raises(FeedError, match="cut off"):
        planned(feed_of("xml", [xml_row(1), xml_row(2)])[:-40])


@pytest.mark.parametrize(
    "head",
    [
        "sep=;\n", "\n\n", "Export of 2024-01-01\n", "\ufeff", "# comment\n", '"# comment; with a quote"\n', "Products;;\n",
        "a;b;c\n", "sep=;\r\n\r\n",
    ],
)  # fmt: skip
def test_lines_above_the_header_are_no_header(head):
    content = f"{head}id;title;image_link\n1;Lamp;{PICTURE.format(1)}\n".encode()
    (order,) = planned(content)
    assert (order.product_id, order.fields["product_name"]) == ("1", "Lamp")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("format", ["csv", "tsv", "xml", "jsonl", "json"])
def test_unicode_encodings_are_recognized(format, encoding):  # noqa: A002
    content = feed_of(format, [GOOD[format](1), GOOD[format](2)]).decode().encode(encoding)
    if format == "xml" and encoding == "utf-32":
        pytest.skip("no XML parser reads UTF-32 without a declaration")
    assert [row.product_id for row in planned(content)] == ["1", "2"]


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [("GBK", "gbk"), ("Shift_JIS", "cp932"), ("windows-1251", "cp1251"), ("ISO-8859-1", "cp1252"), ("EUC-KR", "euc_kr"),
     ("Big5", "big5"), ("KOI8-R", "koi8-r"), ("ISO-8859-15", "iso-8859-15"), ("UTF-16", "utf-8"), ("utf8mb4", "utf-8")],
)  # fmt: skip
def test_declared_encoding_of_xml_is_used(declared, encoding):
    title = {"gbk": "台灯", "cp932": "ランプ", "cp1251": "лампа", "euc_kr": "램프", "big5": "台燈", "koi8-r": "лампа"}
    name = title.get(encoding, "Möbel")
    text = f'<?xml version="1.0" encoding="{declared}"?><rss><channel><item><id>1</id><title>{name}</title></item></channel></rss>'
    (row,) = read_feed(io.BytesIO(text.encode(encoding)))
    assert row.title == name
