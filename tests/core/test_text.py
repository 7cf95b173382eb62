# SPDX-License-Identifier: Apache-2.0
"""Text from outside in each place where it is shown: it shows itself and does nothing else."""

import csv
import io
import json
import logging
import unicodedata
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown import markdown

from ugen_provider import UGenError
from ugen_provider.core.api.config import redact_text
from ugen_provider.core.text import (
    escape_markdown,
    get_logger,
    is_xml_text,
    json_text,
    markdown_link,
    one_line,
    printable,
    spreadsheet_cell,
    without_passwords,
)

NASTY = st.text(
    st.one_of(st.characters(), st.sampled_from("\x1b\x9b\x07\r\n\x0b\u2028\u202e\u200b=+-@[]()<>`*_|\\&#!'\""))
)


def obeyed(text):
    """The characters that a terminal could obey."""
    return [char for char in text if unicodedata.category(char)[0] == "C"]


@given(NASTY)
@example("ok\nlevel=ERROR forged")
@example("\x1b]0;title\x07")
@example("\u202egpj.exe")
def test_one_line_of_any_text_is_one_line(text):
    assert obeyed(one_line(text)) == []
    assert len(one_line(text).splitlines()) <= 1
    assert len(one_line(text, most=5)) <= 5


@given(NASTY)
def test_printable_of_any_text_keeps_only_layout(text):
    assert set(obeyed(printable(text))) <= {"\n", "\t"}


@given(NASTY)
def test_json_text_of_any_text_reads_as_the_same(text):
    written = json_text({"name": text})
    assert json.loads(written) == {"name": text}
    assert not [char for char in obeyed(written) if unicodedata.category(char) not in {"Co", "Cn", "Cs"}]


@given(NASTY)
@example("<script>alert(1)</script>")
@example("![x](https://evil.example/x.png)")
@example("[Approve](javascript:alert(1))")
@example("Lamp\n\n# Approve this")
@example("`</code>`")
def test_escape_markdown_of_any_text_is_only_text(text):
    tree = ET.fromstring(f"<div>{markdown(f'Name: {escape_markdown(text)} .')}</div>")
    assert {node.tag for node in tree.iter()} == {"div", "p"}
    assert "".join(tree.itertext()).strip() == f"Name: {one_line(text)} ."


@pytest.mark.parametrize("url", [None, "", "javascript:alert(1)", "https://u.example/a)b", "https://u.example/a b",
    "https://u.example/\nx", "https://u.example/a|b", "https://u.example/<b>", 'https://u.example/"x', "//u.example/x",
    "data:text/html,x", "https://u.example/\\x", "https://u.example/](x"])  # fmt: skip
def test_markdown_link_of_an_odd_url_is_none(url):
    assert markdown_link(url) is None


@given(NASTY)
@example('=HYPERLINK("https://evil.example")')
@example("@SUM(1)")
@example("\t=1")
@example("\uff1d1")
def test_spreadsheet_cell_of_any_text_is_no_formula(text):
    file = io.StringIO()
    csv.writer(file).writerow([spreadsheet_cell(text)])
    cell = next(csv.reader(io.StringIO(file.getvalue(), newline="")), [""])[0]
    assert not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20"))


@given(NASTY)
@example("\ud800")
@example("\ufffe")
def test_is_xml_text_says_what_a_parser_reads(text):
    try:
        ET.fromstring(f"<id>{escape(text)}</id>".encode())
        read = True
    except (ET.ParseError, UnicodeError):
        read = False
    assert is_xml_text(text) == read


PASSWORDS = ["secret", "s:e/c?r#e@t", "$ecret", "sec%20ret"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "address",
    ["postgresql://me:{}@db/shop", "postgresql+psycopg://me:{}@db:5432/shop?sslmode=require", "postgres://:{}@db/x",
     "--ledger=postgresql://me:{}@db/shop", "'postgresql://me:{}@db/shop'", "no postgresql://me:{}@db/shop: none"],
)  # fmt: skip
def test_without_passwords_of_a_ledger_hides_it(address, password):
    shown = without_passwords(address.format(password))
    assert password not in shown
    assert shown == address.format("***")


@pytest.mark.parametrize("name", ["password", "sslpassword", "token", "X-Amz-Signature", "sig", "api_key", "secret"])
def test_without_passwords_of_a_parameter_hides_it(name):
    shown = without_passwords(f"https://h.example/x?a=1&{name}=hidden&b=2")
    assert shown == f"https://h.example/x?a=1&{name}=***&b=2"


@pytest.mark.parametrize("text", ["https://h.example:8080/@user/x", "me@shop.example", "a: b@c", "s3://bucket/a@b",
                                  "2026-11-30T10:00:00@x", "/srv/ledger.db"])  # fmt: skip
def test_without_passwords_of_harmless_text_is_unchanged(text):
    assert without_passwords(text) == text


def test_logger_keeps_an_entry_on_one_line():
    stream = io.StringIO()
    logger = get_logger("ugen_provider.test_text")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        logger.warning("job %s: %s after %d s", "j1\nERROR forged", ValueError("postgresql://me:secret@db\x1b[2J"), 3)
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue() == "job j1 ERROR forged: postgresql://me:***@db[2J after 3 s\n"


def test_error_message_with_newlines_is_one_line():
    assert str(UGenError("refused:\nERROR forged\x1b[2J")) == "refused: ERROR forged[2J"


@pytest.mark.parametrize("piece", ["a", "_token", "-secret", "a-", "aA", "x=", "://u:", "token ", '"', "password"])
def test_a_word_of_any_length_is_searched_for_secrets(piece):
    """The time does not grow with the square of the length, or its cube: this would last for minutes."""
    text = piece * (3_000 // len(piece))
    assert redact_text(f"{text} api_key=hidden1 {text}").count("hidden1") == 0
    assert "hidden1" not in without_passwords(f"{text} postgresql://me:hidden1@db/shop {text}")
