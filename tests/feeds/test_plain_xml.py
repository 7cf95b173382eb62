# SPDX-License-Identifier: Apache-2.0
"""Plain items of XML are read without the parser: what comes out is what the parser reports, to the line and column."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ugen_provider.core.feeds.errors import FeedError
from ugen_provider.core.feeds.readers import xml
from ugen_provider.core.feeds.readers.xml import PlainItems

BLANK = st.sampled_from(["", " ", "\n", "\r\n", "\t\n  "])
LETTERS = st.sampled_from(["Lamp", "ö “x”", "a > b", "&amp;", "&lt;p&gt;", "&quot;&apos;", " ", "\n", "\r\n", "\xa0"])
ODD_TEXTS = [
    "&#65;",
    "&nbsp;",
    "&odd;",
    "& b",
    "]]>",
    "<![CDATA[<b>]]>",
    "\x0c",
    "<br/>",
    "<!-- c -->",
    "\r",
    "<b>x</b>",
]
ODD_ITEMS = ['<item id="7">', "<item >", "<offer>", "<item>x", '<item><a name="x">y</a>', '<item><a href="u"/>']
TAGS = st.sampled_from(["id", "g:id", "title", "p"])


@st.composite
def items(draw):
    """An item, plain or odd in one respect."""
    odd = draw(st.sampled_from(["", "", "", "begin", "end", "text"]))
    begin = draw(st.sampled_from(ODD_ITEMS)) if odd == "begin" else "<item>"
    end = "</offer>" if begin == "<offer>" else "</item >" if odd == "end" else "</item>"
    inner = draw(BLANK)
    for _ in range(draw(st.integers(0, 4))):
        tag, text = draw(TAGS), "".join(draw(st.lists(LETTERS, max_size=2)))
        inner += f"<{tag}>{text}</{tag}>{draw(BLANK)}"
    if odd == "text":
        inner += f"<title>a {draw(st.sampled_from(ODD_TEXTS))}</title>"
    return f"{begin}{inner}{end}{draw(BLANK)}"


PIECES = st.one_of(
    items(),
    items(),
    items(),
    items().map(lambda item: f"<!--{item * 2}-->"),
    items().map(lambda item: f"<note><![CDATA[{item * 2}]]></note>"),
    items().map(lambda item: f"<shelf>{item * 2}</shelf>"),
    st.sampled_from(["text", "<?php x ?>", "<!-- <item> -->", "<note a='</item>'/>", "</channel><channel>"]),
    st.sampled_from(["</item>", "<item>", "<a></b>"]),
)


def rows_of(document, **options):
    """Everything that a reader reports of a document, its error with its place included."""
    found = []
    try:
        for row in xml.XMLItems(io.BufferedReader(io.BytesIO(document)), source="feed.xml", **options):
            found.append(row)
    except FeedError as error:
        found.append(str(error))
    return found


@settings(max_examples=500)
@given(st.lists(PIECES, max_size=8), st.sampled_from([150, 400, 900]), st.integers(0, 60), st.booleans())
def test_plain_items_are_read_as_the_parser_reads_them(pieces, chunk, cut, is_whole):
    same = "<item><id>0</id><title>x</title></item>\n"
    text = f"<?xml version='1.0'?>\n<rss><channel>\n{same * 24}{''.join(pieces)}{same * 6}</channel></rss>"
    document = text.encode()[: None if is_whole else len(text) - cut]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xml, "_CHUNK", chunk)
        patch.setattr("ugen_provider.core.feeds.readers.xml._WORTH_A_PATTERN", 2)
        found = rows_of(document)
        patch.setattr(PlainItems, "read", lambda *_: None)
        assert found == rows_of(document)


def test_error_after_plain_items_names_its_byte(monkeypatch):
    monkeypatch.setattr(xml, "_CHUNK", 900)
    same = "<item><id>0</id><title>“x”</title></item>\n"
    document = f"<rss><channel>\n{same * 40}<a></b>{same * 3}</channel></rss>".encode()
    assert f"line 42, column 6, byte {document.index(b'</b>') + 2}" in rows_of(document)[-1]


def test_plain_items_of_a_feed_need_no_parser(monkeypatch):
    """The other test compares something: of many plain items, the parser reads those of the first chunk alone."""
    item = "<item>\n<g:id>%d</g:id>\n<title>Lamp &amp; shade</title>\n</item>\n"
    document = "<rss><channel>\n" + "".join(item % number for number in range(5000)) + "</channel></rss>"
    read = PlainItems.read
    plain = []

    def counted(self, text, start):
        found = read(self, text, start)
        plain.append(found is not None)
        return found

    monkeypatch.setattr(PlainItems, "read", counted)
    rows = rows_of(document.encode())
    assert [(row["g:id"], row["title"], line, number) for row, line, number in rows] == [
        (str(n), "Lamp & shade", 2 + 4 * n, n + 1) for n in range(5000)
    ]
    assert sum(plain) > 3500
