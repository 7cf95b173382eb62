# SPDX-License-Identifier: Apache-2.0
"""Each shell example runs as a user runs it, and twice: the second night buys nothing. The journal is the oracle."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

EXAMPLES = Path(__file__).parents[2] / "examples"
SHOPIFY = """Handle,Title,Body (HTML),Vendor,Published,Variant SKU,Variant Price,Image Src,Image Position,Status
lamp,Aurora Lamp,<p>Warm light</p>,Aurora,TRUE,LA-1,49.00,https://images.example.com/lamp.jpg,1,active
chair,Oak Chair,<p>Solid oak</p>,Oak,TRUE,OC-1,149.00,https://images.example.com/chair.jpg,1,active
"""
BOUGHT = {"warehouse": 2, "shopify_nightly": 2, "two_scripts": 10, "languages": 10}


@pytest.fixture
def night(tmp_path):
    """Run an example in a folder of its own, against a local U-Gen; returns its output."""
    with EmulatorServer(Settings(speed=600)) as server:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {"PATH": path, "HOME": str(tmp_path), "UGEN_API_KEY": LOCAL_KEY, "UGEN_BASE_URL": server.base_url,
               "ALLOW_EPHEMERAL": "1"}  # fmt: skip

        def run(name, *arguments):
            command = ["sh", str(EXAMPLES / f"{name}.sh"), *arguments]
            done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        run.server = server
        shutil.copy(EXAMPLES / "feed.xml", tmp_path)
        (tmp_path / "products_export.csv").write_text(SHOPIFY)
        with sqlite3.connect(tmp_path / "warehouse.db") as warehouse:
            warehouse.execute("CREATE TABLE product (id TEXT, title TEXT, image_link TEXT, price TEXT, for_sale INT)")
            rows = [(f"W-{number}", f"Lamp {number}", f"https://images.example.com/{number}.jpg", "9 EUR", number < 3)
                    for number in (1, 2, 3)]  # fmt: skip
            warehouse.executemany("INSERT INTO product VALUES (?, ?, ?, ?, ?)", rows)
        yield run


def test_every_shell_example_has_a_test():
    assert {path.stem for path in EXAMPLES.glob("*.sh")} - {"curl", "shop_nights"} == {*BOUGHT, "publish_back"}


@pytest.mark.parametrize("name", BOUGHT)
def test_example_buys_each_video_once(night, tmp_path, name):
    said = night(name)
    journal = night.server.emulator.journal
    assert len(journal.find_purchases()) == BOUGHT[name]
    assert re.search(rf"^\s*completed\s+{BOUGHT[name]}\b", said, re.MULTILINE)
    books = night.server.emulator.accounts.by_name["local"].credits
    jobs = {entry.job_id for entry in journal.find_purchases()}
    spent = -sum(row.amount for job_id in jobs for row in books.of_job(job_id) if row.type == "consume")
    assert f"{spent:,}" in said
    night(name)
    assert len(journal.find_purchases()) == BOUGHT[name]
    assert len(list((tmp_path / "videos").rglob("final.mp4"))) == BOUGHT[name]
    if name == "warehouse":
        with sqlite3.connect(tmp_path / "warehouse.db") as warehouse:
            assert warehouse.execute("SELECT count(*) FROM product_video").fetchone() == (2,)


def test_example_publishes_the_videos_back(night, tmp_path):
    night("shopify_nightly")
    night("publish_back")
    assert (tmp_path / "videos.xml").read_text().count("https://cdn.shop.example/videos/") == 2
    assert len((tmp_path / "videos.jsonl").read_text().splitlines()) == 2
