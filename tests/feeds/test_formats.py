# SPDX-License-Identifier: Apache-2.0
"""Every kind of feed as shops write it, and every way in which it can be packed, encoded and broken."""

import bz2
import gzip
import io
import itertools
import json
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from ugen_provider.core.feeds import FeedError, Product, RejectedRow, read_feed
from ugen_provider.core.feeds.reader import open_feed
from ugen_provider.core.feeds.sources import Bounds

FILES = Path(__file__).parent / "files"


def products(source, **options) -> list[Product]:
    return [row for row in read_feed(source, **options) if isinstance(row, Product)]


@pytest.mark.parametrize(
    ("name", "kind", "format", "ids"),
    [
        ("google.tsv", "google", "text", ["A1", "A2"]),
        ("google.csv", "google", "text", ["B1", "B2"]),
        ("atom.xml", "google", "xml", ["T1"]),
        ("windows1252.xml", "google", "xml", ["W1"]),
        ("utf16.tsv", "google", "text", ["U1"]),
        ("shopify_old.csv", "shopify", "text", ["linen-shirt", "wool-cap", "tote"]),
        ("shopify_new.csv", "shopify", "text", ["linen-shirt"]),
        ("meta.csv", "meta", "text", ["M1"]),
        ("openai.jsonl", "openai", "jsonl", ["O1", "2"]),
        ("products.json", "shopify", "json", ["632910392", "x]}"]),
    ],
)
def test_the_kind_of_a_feed_follows_its_content_not_its_name(tmp_path, name, kind, format, ids):  # noqa: A002
    nameless = tmp_path / "feed"
    nameless.write_bytes((FILES / name).read_bytes())
    with open_feed(nameless) as opened:
        assert (opened.kind, opened.format) == (kind, format)
        assert [row.id for row in opened.rows if isinstance(row, Product)] == ids


def test_google_tsv_with_lists_in_cells_and_quotes_inside_text():
    lamp, kettle = products(FILES / "google.tsv")
    assert lamp.title == 'Desk lamp, "Aurora" 12 inch'
    assert lamp.image_links[1:] == ("https://s.example/a1b.jpg", "https://s.example/a1c.jpg")
    assert lamp.highlights == ("Three tones, by touch", "Charges phones")
    assert (lamp.availability, lamp.price, lamp.category) == ("in_stock", "49.90 USD", "Home > Lamps")
    assert kettle.image_links == ("https://s.example/a2b.jpg",)


def test_quoted_line_breaks_keep_the_line_numbers_right():
    assert [product.line for product in products(FILES / "google.csv")] == [2, 5]


def test_a_shopify_product_is_one_product_over_all_its_rows():
    shirt, cap, tote = products(FILES / "shopify_old.csv")
    assert (shirt.rows, shirt.line, cap.rows) == (3, 2, 1)
    assert shirt.image_links == ("https://cdn.example/shirt-1.jpg", "https://cdn.example/shirt-2.jpg")
    assert (shirt.brand, shirt.price, shirt.description[:11]) == ("Fern", "59.00", "<p>Cool &am")
    assert tote.image_links == ()
    (new,) = products(FILES / "shopify_new.csv")
    assert (new.id, new.image_links, new.price) == (shirt.id, shirt.image_links, shirt.price)


def test_meta_pictures_are_in_path_columns_after_comment_lines():
    (sandals,) = products(FILES / "meta.csv")
    assert sandals.line == 4
    assert sandals.image_links == ("https://s.example/m1.jpg", "https://s.example/m1b.jpg")


def test_bad_jsonl_lines_are_rejected_and_numbers_become_ids():
    first, broken, second, no_object = read_feed(FILES / "openai.jsonl")
    assert (first.link, first.image_links) == (
        "https://s.example/o1",
        ("https://s.example/o1.jpg", "https://s.example/o1b.jpg"),
    )
    assert isinstance(broken, RejectedRow)
    assert (broken.line, broken.column, broken.excerpt) == (2, "row", "not json at all")
    assert (second.id, second.description) == ("2", "")
    assert str(no_object) == "line 4, item 4: row is no JSON object, got 'a list'"


def test_scattered_rows_of_a_shopify_product_are_reported(tmp_path):
    path = tmp_path / "sorted.csv"
    path.write_text(
        "Handle,Title,Image Src\n"
        "shirt,Linen shirt,https://s.example/1.jpg\n"
        "cap,Wool cap,https://s.example/2.jpg\n"
        "shirt,,https://s.example/3.jpg\n"
    )
    shirt, torn, cap = read_feed(path)
    assert (shirt.id, shirt.image_links, cap.id) == ("shirt", ("https://s.example/1.jpg",), "cap")
    assert (torn.line, torn.product_id, torn.column) == (4, "shirt", "title")
    assert "was it sorted?" in torn.rule


def test_json_from_shopifys_own_api():
    nano, quote = products(FILES / "products.json")
    assert (nano.id, nano.brand, nano.description) == ("632910392", "Apple", "<p>It's small.</p>")
    assert nano.image_links == ("https://cdn.example/nano.png", "https://cdn.example/nano2.png")
    assert (quote.id, quote.line) == ("x]}", 5)


def test_json_is_read_across_the_borders_of_pieces():
    rows = [{"id": n, "title": "x" * (n % 977), "price": n} for n in range(3000)]
    assert [p.id for p in products(io.BytesIO(json.dumps(rows, indent=1).encode()))] == [str(n) for n in range(3000)]


def test_parquet(tmp_path):
    path = tmp_path / "shard"
    table = pa.table({"id": [1, 2], "title": ["Cup", "Mug"], "image_link": ["https://s.example/1.jpg", None]})
    pa.parquet.write_table(table, path, compression="zstd")
    one, two = products(path)
    assert (one.id, one.line, one.image_links, two.image_links) == ("1", None, ("https://s.example/1.jpg",), ())
    with path.open("rb") as file:
        assert len(products(io.BytesIO(file.read()))) == 2


def test_latin_1_is_read_when_named_and_explained_when_not():
    assert products(FILES / "latin1_semicolon.csv", encoding="latin-1")[0].title == "Käse für zwei"
    rows = list(read_feed(FILES / "latin1_semicolon.csv"))
    assert [row.line for row in rows if isinstance(row, RejectedRow)] == [2]
    assert "not utf-8; name the encoding, such as latin-1" in rows[0].rule


def packed(how: str, content: bytes) -> bytes:
    if how == "zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("__MACOSX/._feed", b"x")
            archive.writestr("feed", content)
        return file.getvalue()
    if how == "zstd":
        return pa.compress(content, codec="zstd", asbytes=True)
    return {"gzip": gzip.compress, "bzip2": bz2.compress, "not": bytes}[how](content)


@pytest.mark.parametrize("how", ["gzip", "bzip2", "zip", "zstd", "not"])
@pytest.mark.parametrize("name", ["google.csv", "atom.xml", "openai.jsonl"])
def test_packed_feeds_are_unpacked_by_their_content(tmp_path, how, name):
    path = tmp_path / "feed.xyz"
    content = (FILES / name).read_bytes()
    path.write_bytes(packed(how, content))
    expected = [str(row) for row in read_feed(FILES / name)]
    assert [str(row) for row in read_feed(path)] == expected
    assert [str(row) for row in read_feed(io.BytesIO(packed(how, content)))] == expected


def test_several_gzip_members_are_one_feed():
    content = (FILES / "google.csv").read_bytes()
    assert len(products(io.BytesIO(gzip.compress(content[:40]) + gzip.compress(content[40:])))) == 2


def csv_of(count: int, *, column: str = "") -> io.BytesIO:
    rows = (f"{n},Cup {n},https://s.example/{n}.jpg,{column}\n" for n in range(count))
    return io.BytesIO(("id,title,image_link,note\n" + "".join(rows)).encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"just a line of text", "no header that can be read"),
        (
            b"nr,colour\n1,red\n",
            r"line 1.*no column for id and title; its columns are nr, colour.*`id: nr` and `title: colour`",
        ),
        (b'{"nr": 1}\n{"nr": 2}', "no column for id and title; its columns are nr"),
        (b'{"error": "not found", "detail": {"a": 1}}', "is an error and no feed; the server said: 'not found'"),
        (b'{\n "status": "fine"\n}', "JSON without a list of products"),
        (b"id,\x00title\n1,a\n", "is no product feed that can be read"),
        ("id,title\n1,é".encode()[:-1], r"line 2.*cut off in the middle of a character"),
        (b"id,title\n1," + b"x" * (5 << 20), "line 2.*longer than 4,194,304 characters"),
        (b'{"id":1,"title":"a"}\n{"id":"' + b"x" * (17 << 20), "line 2.*longer than 16,777,216 bytes"),
        (b'[{"id":1,"title":"a"},{"id":"' + b"x" * (17 << 20), "larger than 16,777,216"),
        (
            b'[{"id":1,"title":"a"},\n{"id":2,"title" "b"' + b" " * 100 + b"]",
            r"line 2.*after item 1.*is no JSON|cut off",
        ),
        (b'[{"id":1,"title":"a"},', "cut off: its list never ends"),
        (gzip.compress(csv_of(5000).read())[:-2000], "could not be read to its end"),
        (b"\x1f\x8b\x08\x00broken" + b"x" * 99, "could not be read to its end"),
        (b"PAR1 no parquet", "no Parquet that can be read"),
        (b"PK\x03\x04 no zip", "could not be read to its end"),
        (b"%PDF-1.7 binary", "no product feed that can be read"),
    ],
)
def test_bad_feeds_are_reported_with_position_and_limit(content, message):
    with pytest.raises(FeedError, match=f"(?s){message}"):
        list(read_feed(io.BytesIO(content)))


def test_a_bomb_stays_small():
    content = gzip.compress(b"id,title\n1," + b"A" * (40 << 20), compresslevel=1)
    tracemalloc.start()
    try:
        with pytest.raises(FeedError, match=r"longer than 4,194,304"):
            list(read_feed(io.BytesIO(content)))
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


def test_a_bomb_of_many_small_rows_is_stopped_by_its_ratio():
    content = gzip.compress(b"id,title\n" + b"1,a\n" * 500_000)
    with pytest.raises(FeedError, match="unpacks to more than 200 times its size"):
        for _ in read_feed(io.BytesIO(content), bounds=Bounds(spared=1 << 20)):
            pass


def test_a_feed_that_never_ends_is_stopped_by_its_size():
    class Endless(io.RawIOBase):
        rows = itertools.count()

        def readable(self):
            return True

        def read(self, size=-1):
            if next(self.rows) == 0:
                return b"id,title\n"
            return b"1,a\n" * 10_000

    with pytest.raises(FeedError, match="is larger than 1,000,000 bytes"):
        for _ in read_feed(Endless(), bounds=Bounds(most_bytes=1_000_000)):
            pass


def test_zip_with_feeds_of_two_kinds_is_refused_by_name():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.xml", "y")
    with pytest.raises(FeedError, match=r"a zip with 2 files \(a\.csv, b\.xml\)"):
        list(read_feed(io.BytesIO(file.getvalue())))


def test_zip_with_several_members_is_one_feed():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("b.csv", "id,title\n2,Mug\n,none\n")
        archive.writestr("a.csv", "id,title\n1,Cup\n")
        archive.writestr("README.md", "Two shards")
    first, second, bad = read_feed(io.BytesIO(file.getvalue()))
    assert [first.id, second.id] == ["1", "2"]
    assert str(bad) == "b.csv, line 3, item 2: id is required, got 'none'"


def test_rows_of_the_wrong_width_are_rejected_with_their_line():
    source = io.BytesIO(b"id,title,price\n1,Cup,5\n2,Mug, green,6\n3,Jug\n")
    one, wrong, short = read_feed(source)
    assert (one.id, short.id, short.price) == ("1", "3", "")
    assert str(wrong).startswith("line 3, item 2, product 2: row has 4 values, and the header names 3")


def test_memory_does_not_grow_with_the_feed():
    def peak(count: int) -> int:
        source = csv_of(count, column="x" * 200)
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_feed(source)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(20_000) - peak(2_000) < 1 << 20


def test_format_kind_and_encoding_can_be_named():
    content = "id|title|image_link\n1|Tür|https://s.example/1.jpg\n".encode("latin-1")
    with open_feed(io.BytesIO(content), format="text", kind="meta", encoding="latin-1") as opened:
        (row,) = opened.rows
    assert (opened.kind, row.title) == ("meta", "Tür")


def test_a_feed_over_http(httpd):
    url = httpd({"/feed": (200, (FILES / "google.csv").read_bytes()), "/gone": (404, b"")})
    assert [p.id for p in products(f"{url}/feed?token=secret")] == ["B1", "B2"]
    with pytest.raises(FeedError, match=r"/gone: the server answered 404") as caught:
        products(f"{url}/gone?token=secret")
    assert "secret" not in str(caught.value)


def test_a_feed_behind_any_fsspec_address():
    import fsspec

    fsspec.filesystem("memory").pipe_file("/shop/feed", (FILES / "google.csv").read_bytes())
    assert [p.id for p in products("memory://shop/feed")] == ["B1", "B2"]


def test_an_error_in_a_jsonl_line_names_its_column_alone():
    content = b'{"id":"1","title":"a"}\n{"id": 2,\n{"id": nonsense}\n'
    _, cut, wrong = read_feed(io.BytesIO(content))
    assert str(cut).startswith("line 2, item 2: row is no JSON (EOF while parsing")
    assert "line 1 column" not in cut.rule
    assert wrong.rule == "is no JSON (expected ident at column 9)"
