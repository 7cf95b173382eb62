# SPDX-License-Identifier: Apache-2.0
"""The gallery, as a browser shows it: posters, scores, filters, videos that play, and no network."""

import re
from html.parser import HTMLParser
from pathlib import Path
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
        self.found += [value for name, value in attrs if name in {"src", "href", "poster"} and value]


def test_every_link_leads_to_a_file_below_the_folder_and_none_to_the_network(results):
    page = write_gallery(results)
    text = page.read_text()
    links = Links()
    links.feed(text)
    assert len(links.found) >= 12
    assert all((results / unquote(link)).is_file() for link in links.found)
    assert not re.search(r"https?://", text)
    assert links.tags.count("article") == 2
    assert links.tags.count("script") == 1


def test_a_folder_without_results_and_a_file_that_is_no_manifest_are_no_trouble(tmp_path):
    (tmp_path / "manifest.json").write_text("[]")
    assert "<article" not in write_gallery(tmp_path).read_text()


@pytest.mark.browser
def test_the_page_plays_filters_and_sorts_in_a_browser(results):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip("no Chromium")
    page_file = write_gallery(results)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
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
