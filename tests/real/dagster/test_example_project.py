# SPDX-License-Identifier: Apache-2.0
"""The example project on a real webserver and daemon: a backfill of eight products, and their pages in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.dagster.conftest import REPOSITORY, Both
from ugen_provider.cli.demo.dagster import BACKFILL_ENDED, LOCATION
from ugen_provider.cli.demo.processes import wait_until

PRODUCTS = [f"P-{number:02}" for number in range(8)]
ASSETS = ["keyframes", "videos", "final_video"]
SELECTOR = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}
RESOURCES = """query($selector: RepositorySelector!) {
  allTopLevelResourceDetailsOrError(repositorySelector: $selector) {
    ... on ResourceDetailsList { results { name configuredValues { key value type } } } } }"""


@pytest.fixture(scope="module")
def project(real, tmp_path_factory) -> Both:
    feed = tmp_path_factory.mktemp("feed") / "feed.csv"
    rows = [f"{key},Product {key},https://shop.example/{key}.jpg" for key in PRODUCTS]
    feed.write_text("\n".join(["id,title,image_link", *rows]))
    definitions = REPOSITORY / "example_dagster" / "shop_videos" / "definitions.py"
    return real(definitions, speed=200.0, UGEN_FEED=str(feed))


def backfill(both: Both) -> str:
    api = both.dagster.api
    api.add_partitions("ugen_products", keys=PRODUCTS)
    backfill_id = api.launch_backfill(ASSETS, partitions=PRODUCTS)
    wait_until(
        lambda: api.backfill_status(backfill_id) in BACKFILL_ENDED,
        what="the backfill",
        timeout=240.0,
        watch=[both.dagster.processes],
    )
    return api.backfill_status(backfill_id)


@pytest.fixture(scope="module")
def filled(project) -> Both:
    assert backfill(project) == "COMPLETED_SUCCESS"
    return project


def test_a_backfill_of_eight_products_buys_eight_jobs_once(filled):
    created = filled.server.emulator.journal.find_purchases(kind="create")
    assert sorted(entry.product_name for entry in created) == [f"Product {key}" for key in PRODUCTS]
    assert backfill(filled) == "COMPLETED_SUCCESS"
    assert len(filled.server.emulator.journal.purchases) == len(PRODUCTS)


def test_no_page_shows_the_key(filled):
    answer = filled.dagster.api.ask(RESOURCES, variables={"selector": SELECTOR})
    assert "ugen_sk_local" not in str(answer)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield made
        made.close()


LOADED = """([prefix, count]) => {
  const found = [...document.querySelectorAll('td img')].filter(each => each.src.startsWith(prefix));
  return found.length >= count && found.every(each => each.complete && each.naturalWidth > 0); }"""


@pytest.mark.browser
def test_the_asset_pages_show_the_pictures(filled, browser):
    page = browser.new_page(viewport={"width": 1500, "height": 1100})
    address = f"{filled.dagster.url}/assets/{{}}?view=partitions&partition=P-07"
    page.goto(address.format("keyframes"))
    page.wait_for_function(LOADED, arg=[filled.server.url, 3], timeout=60_000)
    assert page.locator('td img[alt="keyframe 0"]').count() >= 1
    page.goto(address.format("final_video"))
    page.wait_for_function(LOADED, arg=[filled.server.url, 1], timeout=60_000)
    link = page.evaluate("() => document.querySelector('a:has(img[alt=poster])').href")
    assert link.startswith(filled.server.url)
    assert link.endswith(".mp4")
