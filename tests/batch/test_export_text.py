# SPDX-License-Identifier: Apache-2.0
"""Ids that a file cannot hold or a spreadsheet would obey: each row is written as text or is reported."""

import csv
import json
import xml.etree.ElementTree as ET

import pytest

from ugen_provider.core.batch.supplemental_feed import write_shop_feed

GOOD = "plain"
ODD = {
    "formula": "=HYPERLINK(1)",
    "plus": "+49",
    "minus": "-1",
    "at": "@SUM(A1)",
    "formula after a tab": "\t=1+1",
    "tab": "a\tb",
    "newline": "a\n=1",
    "return": "a\r=1",
    "quote": 'a"b',
    "markup": "<b>&amp;]]>",
    "nul": "a\x00b",
    "control": "a\x01b",
    "escape": "a\x1b[2J",
    "delete": "a\x7fb",
    "not a character": "a\ufffeb",
    "right to left": "a\u202eb",
    "beyond the basic plane": "a\U0001f600b",
}


def ids_of(path, form):
    match form:
        case "google":
            tag = "{http://base.google.com/ns/1.0}id"
            return [each.text for each in ET.parse(path).iter(tag)]
        case "tsv":
            with path.open(newline="", encoding="utf-8") as file:
                return [row[0] for row in csv.reader(file, delimiter="\t")][1:]
        case _:
            return [json.loads(line)["id"] for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("form", ["google", "tsv", "jsonl"])
@pytest.mark.parametrize("odd", ODD)
def test_export_writes_or_reports_an_odd_id_and_keeps_the_rest(shop, tmp_path, odd, form):
    shop.sells(GOOD, ODD[odd])
    report = shop.run()
    known = [entry.product_id for entry in shop.ledger.entries("shop") if entry.video]
    path, skipped = tmp_path / f"videos.{form}", []
    written = write_shop_feed(shop.ledger, "shop", path, format=form, on_skipped=lambda name, _: skipped.append(name))
    found = ids_of(path, form)
    assert GOOD in found
    assert (len(found), len(found) + len(skipped)) == (written, len(known))
    assert len(known) + report.rejected == 2
    if form == "tsv":
        assert not [name for name in found if name.lstrip().startswith(("=", "+", "-", "@"))]
    else:
        assert {*found, *skipped} == {*known}
