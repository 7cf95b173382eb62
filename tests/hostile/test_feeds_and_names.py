# SPDX-License-Identifier: Apache-2.0
"""Feeds that want more than to be read, and names that want to be elsewhere.

Cases of tests/feeds (DOCTYPE, login pages, bombs of one line and of many, endless files) are not repeated.
"""

import io
import json
import struct
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ugen_provider import CreateJob, UGenClient
from ugen_provider.core.feeds import FeedError, plan_feed, read_feed
from ugen_provider.core.feeds.sources import Bounds
from ugen_provider.core.media.outputs import DEFAULT_TEMPLATE, folder_for, safe_name

MOST = 64 << 20
"""Bytes of memory."""


def refused(content, match, **bounds):
    """Reading it ends in one of our errors, with little memory."""
    source = content if hasattr(content, "read") else io.BytesIO(content)
    tracemalloc.start()
    try:
        with pytest.raises(FeedError, match=match):
            for _ in read_feed(source, bounds=Bounds(**bounds)):
                pass
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
ENTITIES = {
    "a billion laughs": f'<!DOCTYPE rss [<!ENTITY l0 "ha">{LAUGHS}]><rss><channel><item><id>&l9;</id></item>',
    "one that is long": f'<!DOCTYPE rss [<!ENTITY a "{"x" * 100_000}">]><rss><channel>{"<item><id>&a;</id>" * 9}',
    "a file of this machine": '<!DOCTYPE rss [<!ENTITY a SYSTEM "file:///etc/passwd">]><rss><channel><item><id>&a;</id>',
    "an address": '<!DOCTYPE rss [<!ENTITY a SYSTEM "http://127.0.0.1:9/x">]><rss><channel><item><id>&a;</id></item>',
    "a parameter": '<!DOCTYPE rss [<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]><rss><channel/></rss>',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("what", ENTITIES)
def test_no_entity_is_ever_followed(what, encoding):
    refused(ENTITIES[what].encode(encoding), "has a DOCTYPE")


def test_an_entity_without_a_declaration_costs_its_item():
    items = b"<item><id>&boom;</id><title>a</title></item><item><id>2</id><title>b</title></item>"
    bad, good = read_feed(io.BytesIO(b"<rss><channel>" + items + b"</channel></rss>"))
    assert (bad.column, bad.rule) == ("id", "has the undefined entity &boom;")
    assert good.id == "2"


def test_a_document_type_elsewhere_is_not_fetched():
    doctype = b'<!DOCTYPE rss SYSTEM "http://127.0.0.1:9/x.dtd">'
    (row,) = read_feed(io.BytesIO(doctype + b"<rss><channel><item><id>1</id><title>a</title></item></channel></rss>"))
    assert row.id == "1"


class OneLine(io.RawIOBase):
    """A line of two gigabytes, made as it is read."""

    def __init__(self, begin: bytes, size: int = 2 << 30) -> None:
        self.left, self._begin = size, begin
        self.given = 0

    def readable(self):
        return True

    def read(self, size=-1):
        piece = (self._begin or b"A" * (1 << 18))[: self.left]
        self._begin = b""
        self.left -= len(piece)
        self.given += len(piece)
        return piece


@pytest.mark.parametrize(
    "begin",
    [b"id,title\n1,", b"", b'id,title\n1,"', b'{"id":"1","title":"', b'[{"id":"1","title":"',
     b"<rss><channel><item><id>", b"<rss><channel><item a='", b"<rss><channel><!--"],
    ids=lambda begin: begin[:12].decode() or "header",
)  # fmt: skip
def test_a_line_of_two_gigabytes_is_left_early(begin):
    line = OneLine(begin)
    refused(line, r"longer than|larger than|no header|is no|more than")
    assert line.given < 64 << 20


def zip_that_lies() -> bytes:
    """A member whose header says that it has ten bytes, and that unpacks to a hundred million."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("feed.csv", b"id,title\n" + b"1,a\n" * (25 << 20))
    raw = bytearray(file.getvalue())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 10)
    return bytes(raw)


def zip_of(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def test_a_zip_that_lies_about_its_size_is_no_way_around():
    with pytest.raises(FeedError):
        list(read_feed(io.BytesIO(zip_that_lies()), bounds=Bounds(spared=1 << 20)))


def test_a_zip_in_a_zip_is_not_opened_again():
    bomb = zip_of("feed.csv", b"id,title\n" + b"1,a\n" * (1 << 20))
    refused(zip_of("feed.zip", bomb), "is a zip in a zip, and no feed")


def test_a_member_with_a_path_is_read_and_written_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packed = zip_of("../../escaped.csv", b"id,title\n1,Cup\n")
    assert [row.id for row in read_feed(io.BytesIO(packed))] == ["1"]
    assert list(tmp_path.rglob("*")) == []
    assert not (tmp_path.parent / "escaped.csv").exists()


@pytest.mark.parametrize(
    "text", ["\\ud800", "\\udfff\\ud800", "a\\u0000b", "\\u202e\\u2066", "\\u001b[2J", "=cmd|' /C calc'!A0", "../../x"]
)
@pytest.mark.parametrize("column", ["id", "title"])
def test_unusable_text_is_reported_or_carried(tmp_path, column, text):
    """Half a surrogate pair, a NUL, turned directions: the row is an order or a rejection, never a crash."""
    row = {"id": "1", "title": "Cup", "image_link": "https://s.example/1.jpg"}
    line = json.dumps(row).replace(f'"{row[column]}"', f'"{text}"')
    (found,) = plan_feed(io.BytesIO(line.encode()), job_defaults={"segment_count": 1})
    fields = getattr(found, "fields", None)
    if fields is not None:
        json.dumps(fields, ensure_ascii=False).encode()
        safe_name(found.product_id)


NAMES = st.text(st.characters(), max_size=400)


@settings(max_examples=1500, derandomize=True, database=None)
@given(NAMES, NAMES.filter(bool))
def test_any_product_name_keeps_files_below_the_destination(product_id, job_id):
    folder = folder_for(DEFAULT_TEMPLATE, job_id=job_id, product_id=product_id)
    parts = folder.split("/")[:-1]
    assert len(parts) == (2 if product_id else 1)
    for part in parts:
        assert part not in {"", ".", ".."}
        assert part.isascii()
        assert not set(part) & set('\\/:*?"<>|\x00\n\r')
        assert len(part) < 200


@pytest.mark.parametrize(
    "name", ['a"\r\nX-API-Key: evil\r\n\r\n.png', "a\x00b.png", "../../a.png", "ä/ö.png", "x" * 3000]
)
def test_the_name_of_an_upload_stays_a_name(ugen_emulator, ugen_client: UGenClient, name):
    picture = b"\x89PNG\r\n\x1a\n" + b"x" * 100
    url = ugen_client.uploads.create_product_image(picture, filename=name).url
    assert "evil" not in url
    assert ugen_client.jobs.create(CreateJob(product_name="Lamp", product_image_url=url, segment_count=1)).job_id
