# SPDX-License-Identifier: Apache-2.0
"""The gallery, as a browser shows it: posters, scores, filters, videos that play, and no network."""

import json
import os
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from ugen_provider.core.api.models import Job, Keyframe
from ugen_provider.core.media import download_outputs, write_gallery


@pytest.fixture
def results(storage, mp4, png, tmp_path):
    for number, (name, score) in enumerate([("Aurora Lamp", 0.82), ("<script>alert(1)</script> & Söns", 0.41)]):
        job = Job.model_validate(
            {
                "job_id": f"job {number}",
                "status": "completed",
                "product_name": name,
                "credits_consumed": 86 + number,
                "final_video_url": storage.serve("/final", mp4),
                "thumbnail_url": storage.serve("/thumb", png, content_type="image/png"),
            }
        )
        keyframe = Keyframe(index=0, image_url=storage.serve("/k", png, content_type="image/png"), qai_score=score)
        download_outputs(job, tmp_path, keyframes=[keyframe], product_id=f"LL {number}#", allow_private=True)
    return tmp_path


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        links = {"src", "href", "poster", "data-poster"}
        self.found += [value for name, value in attrs if name in links and value]


def test_every_link_leads_below_the_folder_and_none_to_the_web(results):
    page = write_gallery(results)
    text = page.read_text()
    links = Links()
    links.feed(text)
    assert len(links.found) >= 12
    assert all((results / unquote(link)).is_file() for link in links.found)
    assert not re.search(r"https?://", text)
    assert links.tags.count("article") == 2
    assert links.tags.count("script") == 1


def test_an_empty_folder_and_a_foreign_file_cause_no_error(tmp_path):
    (tmp_path / "manifest.json").write_text("[]")
    assert "<article" not in write_gallery(tmp_path).read_text()


@pytest.mark.browser
def test_the_page_plays_filters_and_sorts_in_a_browser(results, chromium):
    sync_api = pytest.importorskip("playwright.sync_api")
    page_file = write_gallery(results)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(page_file.as_uri())
        assert page.locator("article:visible h2").all_inner_texts() == [
            "<script>alert(1)</script> & Söns",
            "Aurora Lamp",
        ]
        page.select_option("select[name=order]", "credits")
        assert page.locator("article:visible h2").first.inner_text().startswith("<script>")
        page.fill("input[name=words]", "aurora")
        assert page.locator("article:visible").count() == 1
        seconds = page.evaluate(
            """async () => {
                const video = document.querySelector("article:not([hidden]) video");
                video.muted = true;
                await video.play();
                return video.duration;
            }"""
        )
        assert seconds == pytest.approx(1.0, abs=0.1)
        page.fill("input[name=words]", "")
        page.evaluate("""() => { const range = document.querySelector("input[name=score]"); range.value = 0.7;
            range.dispatchEvent(new Event("input", {bubbles: true})); }""")
        assert page.locator("article:visible h2").all_inner_texts() == ["Aurora Lamp"]
        page.fill("input[name=words]", "nothing like it")
        assert page.locator("#none").is_visible()
        assert problems == []
        browser.close()


# Many products, made by two sides and in variants.

PRODUCTS = 500


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder as `make demo` leaves it, with 500 products: every second by both sides, every fifth in two variants."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(PRODUCTS):
        sides = ("airflow", "dagster") if number % 2 == 0 else ("airflow",)
        variants = ("wide", "tall") if number % 5 == 0 else (None,)
        for side in sides:
            for variant in variants:
                _write_result(folder, number, side=side, variant=variant)
    return folder


def _write_result(folder, number, *, side, variant):
    name = f"LL-{number:04}"
    job_id = f"job-{number}-{side}-{variant}"
    place = folder.joinpath(side, name, *filter(None, (variant,)), job_id)
    place.mkdir(parents=True)
    (place / "final.mp4").write_bytes(b"no video")
    (place / "thumbnail.svg").write_text(POSTER.format(hue=number * 37 % 360, name=name))
    shot = {"bytes": 8, "sha256": "0" * 64, "source": "https://u-gen.example/file"}
    manifest = {
        "job_id": job_id,
        "product_id": name,
        "variant": variant,
        "product_name": f"Lamp {number}",
        "status": "completed" if number % 9 else "failed",
        "video_model": "veo3_fast",
        "job": {"completed_at": f"2026-11-{1 + number % 28:02}T10:00:00Z"},
        "credits": {"consumed": 80 + number % 7},
        "scores": {"lowest": round(0.4 + number % 60 / 100, 2)},
        "files": [
            {"kind": "final", "path": "final.mp4", "media_type": "video/mp4", **shot},
            {"kind": "thumbnail", "path": "thumbnail.svg", "media_type": "image/svg+xml", **shot},
        ],
        "written_at": "2026-11-30T10:00:00Z",
        "written_by": "a test",
    }
    (place / "manifest.json").write_text(json.dumps(manifest))


POSTER = """<svg xmlns="http://www.w3.org/2000/svg" width="270" height="480" viewBox="0 0 270 480">
<rect width="270" height="480" fill="hsl({hue} 45% 45%)"/><circle cx="135" cy="190" r="70" fill="#fff8"/>
<text x="135" y="400" font-size="28" text-anchor="middle" fill="#fff" font-family="sans-serif">{name}</text></svg>"""


@pytest.fixture
def opened(chromium):
    """Open a page in a browser; returns a function, which reports the files that were read."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def open_page(address, **options):
            page = browser.new_page(**options)
            page.read = []
            page.on("request", lambda request: page.read.append(request.url))
            page.on("pageerror", lambda error: page.read.append(f"error: {error}"))
            page.goto(address)
            return page

        yield open_page
        browser.close()


def headings(page):
    return page.locator("article:visible h2").all_inner_texts()


@pytest.mark.browser
def test_each_product_is_one_entry_with_its_variants(many, opened):
    page = opened(write_gallery(many).as_uri())
    assert page.locator("article").count() == PRODUCTS
    entry = page.locator("article").filter(has_text="LL-0010").first
    takes = entry.get_by_role("button").filter(visible=True).all_inner_texts()
    assert takes == ["Airflow, tall", "Airflow, wide", "Dagster, tall", "Dagster, wide"]
    assert entry.locator(".take:visible .badge").all_inner_texts() == ["Airflow", "tall"]
    entry.get_by_role("button", name="Dagster, wide").click()
    assert entry.locator(".take:visible .badge").all_inner_texts() == ["Dagster", "wide"]
    assert entry.get_by_role("button", name="Dagster, wide").get_attribute("aria-pressed") == "true"
    assert entry.locator(".take:visible").count() == 1


@pytest.mark.browser
def test_only_posters_in_view_are_read(many, opened):
    page = opened(write_gallery(many).as_uri(), viewport={"width": 1200, "height": 800})
    page.wait_for_function("() => document.querySelectorAll('video[poster]').length > 3")
    first = [url for url in page.read if url.endswith(".svg")]
    assert 3 < len(first) < 60
    page.locator("article").last.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('article:last-of-type video')].some((one) => one.poster)"
    )
    assert len([url for url in page.read if url.endswith(".svg")]) < 200
    assert not [url for url in page.read if url.startswith("error") or url.endswith(".mp4")]


@pytest.mark.browser
def test_filters_are_in_the_address(many, opened):
    address = write_gallery(many).as_uri()
    page = opened(address)
    page.select_option("select[name=status]", "failed")
    page.select_option("select[name=side]", "dagster")
    page.select_option("select[name=order]", "score")
    page.fill("input[name=words]", "lamp 1")
    shown = headings(page)
    assert 0 < len(shown) < PRODUCTS
    assert page.locator("#count").inner_text() == f"{len(shown)} of {PRODUCTS} products"
    assert set(page.locator(".take:visible .badge:first-child").all_inner_texts()) == {"Dagster"}
    again = opened(page.url)
    assert again.url.partition("#")[2]
    assert headings(again) == shown
    assert again.locator("select[name=side]").input_value() == "dagster"
    assert len(headings(opened(f"{address}#status=no-such&order=nonsense"))) == PRODUCTS


@pytest.mark.browser
def test_everything_has_a_name_for_assistive_technology(results, opened):
    _write_result(results, 1, side="airflow", variant="wide")
    _write_result(results, 1, side="dagster", variant="wide")
    page = opened(write_gallery(results).as_uri())
    for summary in page.locator("summary:visible").all():
        summary.click()
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    spoken = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and "role" in node
    ]
    wanted = {"button", "combobox", "image", "link", "searchbox", "slider", "Video", "article", "heading", "main"}
    assert {role for role, _ in spoken} >= wanted - {"image", "Video"}
    nameless = [role for role, name in spoken if role in wanted and not name.strip()]
    assert nameless == []
    assert page.get_by_label("Video of Lamp 1").count() == 2
    # Tab reaches the buttons, and Enter chooses.
    page.get_by_role("button", name="Dagster").focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="Dagster").get_attribute("aria-pressed") == "true"


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_phone_and_desktop(many, opened, scheme, width):
    page = opened(write_gallery(many).as_uri(), viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.wait_for_function("() => document.querySelectorAll('video[poster]').length > 1")
    if folder := os.environ.get("UGEN_PICTURES"):
        page.screenshot(path=f"{folder}/gallery-{width}-{scheme}.png")
