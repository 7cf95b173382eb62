# SPDX-License-Identifier: Apache-2.0
"""The review board in a real browser: by keyboard, one by one and many at once, with 3 and with 300 gates."""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ugen_provider.plugins.gates import PAGE, PAGE_POLICY, GateAnswer, OpenGate, review_data

pytestmark = pytest.mark.browser
PREFIX = "/behind/a/prefix"


def picture() -> bytes:
    """A grey PNG of 9 by 16 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = b"".join(b"\0" + b"\x80" * 9 for _ in range(16))
    header = struct.pack(">IIBBBBB", 9, 16, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@dataclass
class Board:
    """A server of the page, and the gates that it knows."""

    gates: int = 3
    without_answers: frozenset[int] = frozenset()
    unreadable: frozenset[int] = frozenset()
    answered_already: frozenset[int] = frozenset()
    answers: dict[str, str] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def data(self) -> dict[str, Any]:
        def gate(number: int) -> OpenGate:
            answers = {
                name: GateAnswer("PATCH", f"../api/v2/gate/{number}", {"chosen_options": [word]})
                for name, word in (("approve", "Approve"), ("reject", "Reject"))
            }
            return OpenGate(
                str(number),
                f"Lamp {number} <b>& more</b>: does this keyframe look right?",
                f"job.json?n={number}",
                since="2026-11-30T18:00:00+00:00",
                page_url=f"job?n={number}",
                answers={} if number in self.without_answers else answers,
            )

        return review_data(gate(number) for number in range(self.gates))

    def job(self, number: int) -> tuple[int, dict[str, Any]]:
        if number in self.unreadable:
            return 404, {"message": "This task instance has no U-Gen job."}
        frames = [{"index": index, "status": "completed", "score": 0.9, "url": self.url + "/p.png"} for index in (0, 1)]
        return 200, {
            "job_id": f"job-{number}",
            "product_name": f"Lamp {number}",
            "status": "paused",
            "credits_reserved": 40,
            "keyframes": frames,
        }


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board()

    class Handler(BaseHTTPRequestHandler):
        def reply(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            match parts.path.removeprefix(PREFIX):
                case "/ugen/review":
                    page = PAGE.read_bytes()
                    self.reply(200, page, "text/html; charset=utf-8", Content_Security_Policy=PAGE_POLICY)
                case "/ugen/review.json":
                    self.reply(200, json.dumps(made.data()).encode())
                case "/ugen/job.json":
                    number = parse_qs(parts.query)["n"][0]
                    with made.lock:
                        made.read.append(number)
                    status, job = made.job(int(number))
                    self.reply(status, json.dumps(job).encode())
                case "/p.png":
                    self.reply(200, picture(), "image/png")
                case _:
                    self.reply(404, b"{}")

        def do_PATCH(self) -> None:
            number = self.path.rpartition("/")[2]
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path.startswith(f"{PREFIX}/api/v2/gate/"), self.path
            with made.lock:
                if number in made.answers or int(number) in made.answered_already:
                    self.reply(409, b'{"detail": "already"}')
                    return
                made.answers[number] = body["chosen_options"][0]
            self.reply(200, b"{}")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        args = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]
        started = playwright.chromium.launch(executable_path=chromium, args=args)
        yield started
        started.close()


@pytest.fixture
def pages(browser: Any, board: Board) -> Iterator[Any]:
    """Open the board, and fail for whatever the page's console reports as an error."""
    opened, errors = [], []

    def open_page(**more: Any) -> Any:
        page = browser.new_page(viewport={"width": 1280, "height": 720}, **more)
        opened.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{board.url}{PREFIX}/ugen/review")
        page.locator("article").first.wait_for()
        return page

    yield open_page
    for page in opened:
        page.close()
    assert errors == []


def told(board: Board, page: Any, count: int) -> dict[str, str]:
    page.wait_for_function(f"() => document.querySelectorAll('article.answered').length === {count}")
    return dict(board.answers)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_board_is_answered_by_keyboard(board: Board, pages: Any, scheme: str) -> None:
    page = pages(color_scheme=scheme)
    page.locator("article img").nth(5).wait_for()
    page.keyboard.press("a")
    page.wait_for_function("() => document.activeElement.dataset.gate === '1'")
    page.keyboard.press("r")
    page.wait_for_function("() => document.activeElement.dataset.gate === '2'")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("() => document.activeElement.dataset.gate") == "1"
    assert told(board, page, 2) == {"0": "Approve", "1": "Reject"}
    background, text = page.evaluate(
        "() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; }"
    )
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    assert background != text


def test_board_buttons_are_above_the_fold_and_pictures_scaled(board: Board, pages: Any) -> None:
    page = pages()
    page.locator("article img").nth(5).wait_for()
    for button in page.locator("article .actions button").all():
        box = button.bounding_box()
        assert box["y"] + box["height"] <= 720
    shown = (
        page.locator("article")
        .first.locator("img")
        .evaluate_all("all => all.map(i => [i.naturalWidth, i.clientWidth])")
    )
    assert [natural for natural, _ in shown] == [9, 9]
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert "<b>& more</b>" in page.locator("article strong").first.inner_text()  # names are text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_board_of_300_gates_answers_all_at_once(board: Board, pages: Any, scheme: str) -> None:
    board.gates = 300
    page = pages(color_scheme=scheme)
    page.locator("article img").first.wait_for()
    assert len(board.read) < 100  # only what is near the screen is read
    page.click("#all")
    page.click("#reject")
    assert board.answers == {}  # one press sends nothing
    assert page.locator("#reject").inner_text() == "Reject 300: press again"
    page.click("#reject")
    assert told(board, page, 300) == {str(number): "Reject" for number in range(300)}
    assert "0 of 300 open" in page.locator("#said").inner_text()


def test_board_approves_only_pictures_that_it_read(board: Board, pages: Any) -> None:
    board.unreadable = frozenset({1})
    page = pages()
    page.locator("article .error").wait_for()
    page.click("#all")
    page.click("#approve")
    page.click("#approve")
    assert told(board, page, 2) == {"0": "Approve", "2": "Approve"}


def test_board_reader_without_rights_sees_no_way_to_answer(board: Board, pages: Any) -> None:
    board.without_answers = frozenset(range(3))
    page = pages()
    page.locator("article img").nth(5).wait_for()
    assert page.locator("article .actions button:enabled").count() == 0
    page.keyboard.press("a")
    page.keyboard.press("r")
    assert board.answers == {}


def test_board_gate_that_was_answered_elsewhere_says_so(board: Board, pages: Any) -> None:
    board.answered_already = frozenset({0})
    page = pages()
    page.locator("article img").nth(5).wait_for()
    page.keyboard.press("a")
    page.get_by_text("Not sent: it was answered already").wait_for()
    assert board.answers == {}
