# SPDX-License-Identifier: Apache-2.0
"""The page of a preview: pictures are inspected, texts stay texts, and a selection is made by keyboard."""

import io
import json
import re
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest
from PIL import Image

from tests.media.conftest import Answer, Storage
from ugen_provider.core.batch.images import LARGEST, InspectedPicture, inspect_pictures
from ugen_provider.core.batch.preview import check_feed
from ugen_provider.core.batch.preview_page import PreviewFacts, picture_addresses, shown_products, write_preview
from ugen_provider.core.batch.spec import PlanOptions
from ugen_provider.core.media.origins import RowOrigins

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)> & Söns'


def jpeg(width, height, colour):
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def pictures():
    """A host of pictures, each with another fault."""
    opened = Storage()
    opened.serve("/good.jpg", jpeg(600, 800, "red"), content_type="image/jpeg")
    opened.serve("/small.jpg", jpeg(120, 90, "blue"), content_type="image/jpeg")
    opened.serve("/no-image.jpg", jpeg(600, 600, "grey"), content_type="image/jpeg")
    opened.serve("/page.jpg", b"  <!DOCTYPE html><html><body>Sign in</body></html>", content_type="image/jpeg")
    opened.serve("/vector.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", content_type="image/svg+xml")
    opened.serve("/empty.jpg", b"", content_type="image/jpeg")
    opened.serve("/moved.jpg", lambda *_: Answer(302, b"", {"Location": f"{opened.url}/good.jpg"}))
    opened.serve("/broken.jpg", lambda *_: Answer(500, b"no"))
    opened.serve("/cut.jpg", lambda *_: Answer(200, b"x" * 900, {"Content-Type": "image/jpeg"}, sent=0))
    large = jpeg(600, 800, "green")
    opened.serve("/large.jpg", large + b"\0" * LARGEST, content_type="image/jpeg")
    for name in "abc":
        opened.serve(f"/same-{name}.jpg", jpeg(500, 500, "white"), content_type="image/jpeg")
    yield opened
    opened.close()


KINDS = {
    "/good.jpg": "ok",
    "/moved.jpg": "ok",
    "/small.jpg": "small",
    "/no-image.jpg": "placeholder",
    "/same-a.jpg": "placeholder",
    "/page.jpg": "page",
    "/vector.svg": "type",
    "/empty.jpg": "type",
    "/gone.jpg": "missing",
    "/broken.jpg": "unreachable",
    "/cut.jpg": "unreachable",
    "/large.jpg": "large",
}


def test_each_fault_of_a_picture_is_named(pictures):
    paths = [*KINDS, "/same-b.jpg", "/same-c.jpg"]
    found = inspect_pictures([pictures.url + path for path in paths], origins=RowOrigins(), allow_private=True)
    assert {path: found[pictures.url + path].kind for path in KINDS} == KINDS
    assert all(bool(picture.problem) is (picture.kind != "ok") for picture in found.values())
    good = found[f"{pictures.url}/good.jpg"]
    assert (good.media_type, good.width, good.height) == ("image/jpeg", 600, 800)
    assert good.size == len(jpeg(600, 800, "red"))


def test_a_picture_is_asked_for_once_and_read_in_part(pictures):
    address = f"{pictures.url}/large.jpg"
    inspect_pictures([address] * 5, origins=RowOrigins(), allow_private=True)
    assert len(pictures.asked("/large.jpg")) == 1


@pytest.mark.parametrize("named", ["http", "file", "metadata"])
def test_no_row_makes_the_inspection_open_a_private_thing(pictures, tmp_path, named):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg(600, 800, "red"))
    addresses = {"http": f"{pictures.url}/good.jpg", "file": str(secret), "metadata": "http://169.254.169.254/latest"}
    (found,) = inspect_pictures([addresses[named]], origins=RowOrigins()).values()
    assert found.kind == "refused"
    assert pictures.requests == []


def test_pictures_after_the_time_are_not_inspected(pictures):
    (found,) = inspect_pictures([f"{pictures.url}/good.jpg"], origins=RowOrigins(), seconds=-1).values()
    assert (found.kind, pictures.requests) == ("not_inspected", [])


def test_a_picture_below_a_named_root_is_inspected(tmp_path):
    (tmp_path / "lamp.jpg").write_bytes(jpeg(600, 800, "red"))
    address = str(tmp_path / "lamp.jpg")
    (found,) = inspect_pictures([address], origins=RowOrigins([tmp_path])).values()
    assert (found.kind, found.width) == ("ok", 600)


# The page.


def rows_of(count, host="https://s.example"):
    return [
        {
            "id": f"LL-{number}",
            "title": f"Lamp {number}" if number else HOSTILE,
            "image_link": f"{host}/{number}.jpg",
            "product_highlight": HOSTILE if number < 2 else "Warm light",
        }
        for number in range(count)
    ]


@contextmanager
def page_of(tmp_path, rows, *, facts=None, **options):
    feed = tmp_path / "feed.jsonl"
    feed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = PlanOptions(**options)
    defaults = {"segment_count": 2, "cta_text": HOSTILE, "environment_description": HOSTILE}
    given = {"job_defaults": defaults, "estimate": lambda fields: 110, "plan": plan}
    with check_feed(feed, **given) as check:
        list(check.rows)
        products = shown_products(check)
        yield write_preview(check, tmp_path / "preview.html", products=products, facts=facts)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.count, self.handlers = [], {}, []

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [(tag, value) for name, value in attrs if name in {"src", "href", "srcset", "action", "data"}]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_texts_of_the_feed_stay_texts_and_only_pictures_load(tmp_path):
    rejected = [{"id": HOSTILE, "title": HOSTILE}, {"id": "x", "title": "T", "image_link": HOSTILE}]
    problem = {"https://s.example/1.jpg": InspectedPicture("page", HOSTILE, HOSTILE)}
    facts = PreviewFacts(title=HOSTILE, catalogue=HOSTILE, command=HOSTILE, pictures=problem, written_at=HOSTILE)
    with page_of(tmp_path, [*rows_of(4), *rejected], facts=facts) as page:
        tags = Tags()
        tags.feed(page.read_text())
    assert (tags.count["script"], tags.handlers) == (1, [])
    assert {tag for tag, _ in tags.links} == {"a", "img"}
    assert sorted(link for tag, link in tags.links if tag == "img") == [f"https://s.example/{n}.jpg" for n in (0, 2, 3)]
    assert [link for tag, link in tags.links if tag == "a"] == ["#cards"]


def test_page_names_what_it_shows_and_what_it_leaves_out(tmp_path):
    rows = [*rows_of(3), {"id": "r", "title": "No picture"}, {**rows_of(3)[2], "title": "Twice"}]
    rows.append({"id": "n", "title": "Draft", "image_link": "https://s.example/n.jpg", "status": "draft"})
    with page_of(tmp_path, rows, facts=PreviewFacts(budget=200, balance=1_000)) as page:
        text = re.sub(r"<[^>]+>", " ", page.read_text().partition("<body>")[2])
    for said in (
        "The run costs 330 credits and the budget is 200: the last products would wait.",
        "image_link is required: the product has no picture",
        "not for sale: status is draft",
        "Ids that occur twice (1)",
        "No selling points",
        "2 segments",
    ):
        assert (said in text) is (said != "No selling points"), said


TICKED = {"ok": True, "small": True, "placeholder": True, "unreachable": True, "missing": False, "page": False}


def ticked_on(page):
    boxes = re.findall(r'<input type="checkbox" class="pick"( checked)? value="([^"]*)"', page.read_text())
    return {product: bool(checked) for checked, product in boxes}


def test_product_without_a_picture_is_not_ticked(tmp_path):
    """A video of a page, or of nothing, is bought only if a person asks for it."""
    rows = rows_of(len(TICKED))
    found = {row["image_link"]: InspectedPicture(kind, "is odd") for row, kind in zip(rows, TICKED, strict=True)}
    with page_of(tmp_path, rows, facts=PreviewFacts(pictures=found)) as page:
        assert list(ticked_on(page).values()) == list(TICKED.values())
        assert "Products whose picture is missing, or is a page, are not ticked." in page.read_text()


def test_address_of_a_page_is_ticked_once_it_was_opened(tmp_path):
    address = "https://s.example/lamp.html"
    row = {**rows_of(1)[0], "image_link": address}
    for inspected, ticked in (({}, False), ({address: InspectedPicture("ok")}, True)):
        with page_of(tmp_path, [row], facts=PreviewFacts(pictures=inspected)) as page:
            assert list(ticked_on(page).values()) == [ticked]


def test_page_is_whole_or_the_earlier_one(tmp_path):
    with page_of(tmp_path, rows_of(2)) as page:
        before = page.read_text()
    with pytest.raises(AttributeError), page_of(tmp_path, rows_of(2), facts=PreviewFacts(pictures={"a": None})):
        pass
    assert page.read_text() == before
    assert list(tmp_path.glob(".*.part")) == []


@contextmanager
def browser_page(chromium, page, **options):
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(**options)
        problems, asked = [], []
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("console", lambda message: problems.append(message.text) if "Security" in message.text else None)
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(page.as_uri())
        yield opened, asked
        assert problems == []
        browser.close()


def selected_in(opened, press):
    with opened.expect_download() as coming:
        press()
    assert coming.value.suggested_filename == "selection.json"
    return json.loads(coming.value.path().read_text())


@pytest.mark.browser
def test_five_products_are_selected_by_keyboard_alone(tmp_path, chromium, pictures):
    rows = [{**row, "image_link": f"{pictures.url}/good.jpg?{n}"} for n, row in enumerate(rows_of(5))]
    facts = PreviewFacts(catalogue="shop", budget=300, command="ugen feed run feed.jsonl --only selection.json")
    with page_of(tmp_path, rows, facts=facts) as page, browser_page(chromium, page) as (opened, asked):
        status = opened.get_by_role("status")
        assert status.inner_text().startswith(
            "5 of 5 products ticked · 5 videos · 550 credits · 250 more than the budget"
        )
        opened.keyboard.press("/")
        assert opened.evaluate("document.activeElement.name") == "words"
        opened.keyboard.press("Escape")
        assert opened.evaluate("document.activeElement.value") == "LL-0"
        assert opened.get_by_role("checkbox", name="Lamp 3", exact=True).count() == 1  # labelled by the product's name
        opened.keyboard.press("Space")
        for key in ("ArrowDown", "End", "Space", "ArrowUp", "Space", "Home"):
            opened.keyboard.press(key)
        assert opened.get_by_role("checkbox", checked=True).count() == 2
        assert status.inner_text() == "2 of 5 products ticked · 2 videos · 220 credits"
        selection = selected_in(opened, lambda: opened.keyboard.press("s"))
        assert selection["products"] == ["LL-1", "LL-2"]
        assert opened.get_by_text("--only selection.json").is_visible()
        loaded = [url for url in asked if not url.startswith(("file:", "blob:"))]
        assert loaded
        assert all(url.startswith(f"{pictures.url}/good.jpg") for url in loaded)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_overflows_at_any_width(tmp_path, chromium, scheme, width):
    rows = [
        *rows_of(3),
        {"id": "i" * 300, "title": "W" * 140, "image_link": "https://s.example/w.jpg"},
        {"id": "r" * 90},
    ]
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with page_of(tmp_path, rows) as page, browser_page(chromium, page, **options) as (opened, _):
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        paper, ink = opened.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        light = [sum(map(int, re.findall(r"\d+", colour))) for colour in (paper, ink)]
        assert (light[0] > light[1]) is (scheme == "light")


@pytest.mark.browser
def test_five_thousand_products_are_searched_and_selected(tmp_path, chromium):
    with page_of(tmp_path, rows_of(5000)) as page, browser_page(chromium, page) as (opened, asked):
        status = opened.get_by_role("status")
        assert status.inner_text() == "5,000 of 5,000 products ticked · 5,000 videos · 550,000 credits"
        opened.get_by_role("button", name="Untick shown").press("Enter")
        assert status.inner_text() == "0 of 5,000 products ticked · 0 videos · 0 credits"
        assert opened.get_by_role("button", name="Save selection").is_disabled()
        opened.get_by_role("searchbox").fill("lamp 4321")
        assert opened.locator("#cards > li:visible").count() == 1
        opened.get_by_role("button", name="Tick shown", exact=True).press("Enter")
        opened.get_by_role("searchbox").fill("")
        opened.get_by_role("combobox", name="Which products are shown").select_option("ticked")
        assert opened.locator("#cards > li:visible").count() == 1
        opened.get_by_role("combobox", name="Which products are shown").select_option("")
        opened.locator("input[value=LL-4999]").focus()
        opened.keyboard.press("Space")
        opened.keyboard.press("ArrowUp")
        opened.keyboard.press("Space")
        selection = selected_in(opened, lambda: opened.get_by_role("button", name="Save selection").press("Enter"))
        assert selection["products"] == ["LL-4321", "LL-4998", "LL-4999"]
        assert (
            len([url for url in asked if url.startswith("https:")]) < 1000
        )  # the others load when they are scrolled to


@pytest.mark.browser
def test_products_of_one_request_are_paid_once_on_the_page(tmp_path, chromium):
    same = {"title": "Cup", "image_link": "https://s.example/c.jpg"}
    rows = [{"id": "a", **same}, {"id": "b", **same}, {"id": "c", **same, "title": "Jug"}]
    with page_of(tmp_path, rows) as page, browser_page(chromium, page) as (opened, _):
        status = opened.get_by_role("status")
        assert status.inner_text() == "3 of 3 products ticked · 2 videos · 220 credits"
        opened.get_by_role("checkbox").first.press("Space")
        assert status.inner_text() == "2 of 3 products ticked · 2 videos · 220 credits"
        opened.get_by_role("checkbox").nth(1).press("Space")
        assert status.inner_text() == "1 of 3 products ticked · 1 video · 110 credits"


def test_addresses_are_listed_once(tmp_path):
    rows = [{"id": name, "title": name, "image_link": "https://s.example/c.jpg"} for name in "abc"]
    with page_of(tmp_path, rows) as page:
        assert page.is_file()
    with check_feed(tmp_path / "feed.jsonl", job_defaults={"segment_count": 1}) as check:
        list(check.rows)
        assert picture_addresses(shown_products(check)) == ["https://s.example/c.jpg"]
        assert len(shown_products(check, limit=2)) == 2
