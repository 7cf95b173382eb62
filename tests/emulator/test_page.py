# SPDX-License-Identifier: Apache-2.0
import shutil

import pytest

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, ugen_emulator):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.goto(ugen_emulator.url)
    yield page
    assert not page.problems
    page.close()


def test_a_person_makes_a_video_and_sees_it_play(page, api, ugen_emulator, tmp_path):
    page.get_by_label("Product name").fill("Red <b>Kettle</b>")
    page.get_by_role("button", name="Make a video").click()
    card = page.locator("article")
    card.wait_for()
    assert card.locator("h2").inner_text() == "Red <b>Kettle</b>"
    assert card.locator(".status").inner_text() == "pending"
    page.get_by_role("button", name="+10 s").click()
    page.locator(".status.processing").wait_for()
    page.get_by_role("button", name="+10 min").click()
    page.locator(".status.completed").wait_for()
    assert card.locator("img").count() == 4
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth === 360)")
    video = card.locator("video").first
    video.evaluate("async video => { await video.play(); }")
    page.wait_for_function("document.querySelector('video').currentTime > 0.2")
    assert video.evaluate("video => [video.duration, video.videoWidth, video.videoHeight]") == [24, 360, 640]
    assert page.locator("#reserved").inner_text() == "0"
    assert page.locator("#available").inner_text() == f"{api.available():,}"
    page.screenshot(path=tmp_path / "page.png")


def test_buttons_control_the_job_and_problems_are_shown(page, api):
    job = api.create(product_name="Mug", failure_behavior="fail")
    page.locator(".status.pending").wait_for()
    page.get_by_role("button", name="cancel").click()
    page.locator(".status.cancelled").wait_for()
    assert api.job(job["job_id"])["status"] == "cancelled"
    page.problems.clear()
    page.get_by_label("API key").fill("wrong")
    page.get_by_label("API key").press("Enter")
    page.get_by_text("401").wait_for()
    page.problems.clear()


def test_looking_on_leaves_no_trace(page, ugen_emulator):
    page.locator(".empty").wait_for()
    paths = [entry.path for entry in ugen_emulator.emulator.journal.find_requests()]
    assert not [path for path in paths if path.startswith("/api")]
