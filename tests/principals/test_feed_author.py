# SPDX-License-Identifier: Apache-2.0
"""The author of a feed: writes rows, and thereby never opens a file, reaches a host or runs code of this machine."""

import csv
import json

import pytest

GOOD = "https://shop.example/{}.jpg"


def attacks(secret, port):
    """Addresses that a row must not have opened, by name."""
    inside = f"http://127.0.0.1:{port}/secret.png"
    code = "{{ cycler.__init__.__globals__.os.system('touch owned') }}"
    reference = json.dumps({"version": 1, "templates": {"f": code}, "refs": {"secret.png": ["{{f}}"]}})
    return {
        "path": str(secret),
        "parent": f"{secret.parent}/pictures/../{secret.name}",
        "link": f"{secret.parent}/pictures/link.png",
        "file": f"file://{secret}",
        "local": f"local://{secret}",
        "chain-http": f"simplecache::{inside}",
        "chain-file": f"filecache::file://{secret}",
        "block": f"blockcache::{inside}",
        "reference": f"reference://?fo={inside}",
        "data": f"data:application/json,{reference}",
        "zip": f"zip://secret.png::file://{secret}",
        "tar": f"tar://secret.png::{inside}",
        "ftp": f"ftp://127.0.0.1:{port}/secret.png",
        "sftp": f"sftp://127.0.0.1:{port}/secret.png",
        "webhdfs": f"webhdfs://127.0.0.1:{port}/secret.png",
        "smb": "smb://127.0.0.1/share/secret.png",
        "github": "github://org:repo@main/secret.png",
        "jupyter": f"jupyter://127.0.0.1:{port}/secret.png",
        "memory": "memory://secret.png",
        "s3": "s3://someone-else/secret.png",
        "newline": f"{secret}\nx",
        "relative": f"../{secret.name}",
        "home": "~/secret.png",
        "device": "/dev/zero",
        "procfs": "/proc/self/environ",
    }


@pytest.fixture
def feed(tmp_path, canary, png):
    """A feed of every attack between two good products."""
    canary.serve("/secret.png", png, content_type="image/png")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "lamp.png").write_bytes(png)
    (tmp_path / "secret.png").write_bytes(png)
    (tmp_path / "pictures" / "link.png").symlink_to(tmp_path / "secret.png")
    rows = {"first": GOOD.format("first"), **attacks(tmp_path / "secret.png", canary.port),
            "own": str(tmp_path / "pictures" / "lamp.png")}  # fmt: skip
    path = tmp_path / "feed.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "image_link"])
        writer.writerows((name, f"Product {name}", address) for name, address in rows.items())
    return path


@pytest.mark.parametrize("rooted", [True, False], ids=["root", "no-root"])
def test_attack_in_a_row_is_rejected_and_others_are_made(ugen, server, canary, feed, tmp_path, rooted):
    root = ("--picture-root", tmp_path / "pictures") if rooted else ("--upload-pictures",)
    report, ledger = tmp_path / "rejected.jsonl", tmp_path / "ledger.db"
    assert ugen("ledger", "init", ledger, "--allow-ephemeral").returncode == 0
    ran = ugen("feed", "run", feed, "--catalogue", "shop", "--budget", 100_000, "--segment-count", 1, "--run-id", "a",
               "--interval", 5, "--rejected", report, "--ledger", ledger, *root, "--json")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    rejected = {row["product_id"] for row in map(json.loads, report.read_text().splitlines())}
    assert rejected == {*attacks(tmp_path / "secret.png", 1), *(() if rooted else ("own",))}
    made = {purchase.product_name for purchase in server.emulator.journal.find_purchases(kind="create")}
    assert made == {"Product first", *(("Product own",) if rooted else ())}
    uploads = server.emulator.journal.find_requests(method="POST", path="/api/v1/uploads/product-image")
    assert len(uploads) == (1 if rooted else 0)
    assert canary.requests == []
    assert not (tmp_path / "owned").exists()


def test_attack_in_a_row_is_shown_by_the_check(ugen, canary, feed, tmp_path):
    ran = ugen("feed", "check", feed, "--segment-count", 1, "--no-estimate", "--json", "--limit", 100,
               "--picture-root", tmp_path / "pictures")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert {row["product_id"] for row in found["rejected_rows"]} == set(attacks(tmp_path / "secret.png", 1))
    assert canary.requests == []


def test_text_of_a_row_does_not_control_the_terminal(ugen, tmp_path):
    names = {"esc": "\x1b]0;owned\x07\x1b[2J", "lines": "a\nERROR: forged", "bidi": "\u202egnp.exe", "c1": "\x9b2J"}
    path = tmp_path / "feed.jsonl"
    rows = ({"id": name, "title": text, "image_link": text} for name, text in names.items())
    path.write_text("\n".join(map(json.dumps, rows)))
    for more in ((), ("--json",)):
        ran = ugen("feed", "check", path, "--segment-count", 1, "--no-estimate", *more)
        shown = ran.stdout + ran.stderr
        assert "esc" in shown
        assert not [char for char in shown if char in "\x1b\x07\x9b\u202e"]
        assert "\nERROR: forged" not in shown
