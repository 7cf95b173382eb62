# SPDX-License-Identifier: Apache-2.0
"""Feeds in the shapes of real shops, each with the result that a merchandiser wants, through the installed command.

`cases/expected.json` has one entry per case. `UGEN_FEED_CASES` names another folder of the same form to run as well.
"""

import json
import os
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.core.local import EmulatorClock
from ugen_provider.cli import main
from ugen_provider.cli.session import Surroundings
from ugen_provider.emulator.settings import LOCAL_KEY

FOLDERS = [Path(__file__).parent / "cases", *map(Path, filter(None, [os.environ.get("UGEN_FEED_CASES")]))]
CASES = [
    pytest.param(folder, name, case, id=f"{folder.name if number else ''}{name}")
    for number, folder in enumerate(FOLDERS)
    for name, case in json.loads((folder / "expected.json").read_text("utf-8")).items()
]


def of(*kinds):
    return [case for case in CASES if bool({"nights", "of"} & set(case.values[2])) == bool(kinds) and (
        not kinds or set(kinds) & set(case.values[2])
    )]  # fmt: skip


@dataclass
class Answer:
    code: int
    said: str
    found: dict


def checked(folder, feeds, options, monkeypatch, *, environ=None) -> Answer:
    monkeypatch.chdir(folder)
    command = ["feed", "check", *feeds, "--segment-count", "1", "--no-estimate", "--json", *options]
    result = CliRunner().invoke(main, command, obj=Surroundings(environ=environ or {"HOME": "/nonexistent"}))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    found = json.loads(result.stdout) if result.exit_code == 0 and result.stdout.strip() else {}
    return Answer(result.exit_code, result.output, found)


def words_of(found) -> str:
    """All texts of an answer, and the names of counts that are not zero."""
    match found:
        case dict():
            return " ".join(
                f"{name} {words_of(value)}" if value not in (0, None, [], {}, "") else ""
                for name, value in found.items()
            )
        case list():
            return " ".join(map(words_of, found))
        case _:
            return str(found)


def objects_in(found):
    if isinstance(found, dict):
        yield found
        for value in found.values():
            yield from objects_in(value)
    elif isinstance(found, list):
        for value in found:
            yield from objects_in(value)


def problems(answer: Answer, case: dict) -> list[str]:
    wrong = []
    if (verdict := case.get("verdict")) and (verdict == "accepted") != (answer.code == 0):
        wrong.append(f"verdict: exit code {answer.code}: {answer.said[:300]}")
    for name in ("accepted", "rejected", "skipped"):
        if name in case and answer.found.get(name) != case[name]:
            wrong.append(f"{name}: {answer.found.get(name)} is not {case[name]}")
    if "orders" in case:
        wrong += wrong_orders(answer.found.get("orders", []), case["orders"])
    text = words_of(answer.found) or answer.said
    wrong += [f"says nothing of {says!r}" for says in case.get("says", []) if not re.search(says, text, re.IGNORECASE)]
    for values in case.get("reports", []):
        if not any(all(value in one.values() for value in values) for one in objects_in(answer.found)):
            wrong.append(f"no object holds {values}")
    spoken = words_of(
        {name: answer.found.get(name) for name in ("orders", "warnings", "rejected_rows", "skipped_rows")}
    )
    wrong += [f"says {word!r}" for word in case.get("must_not", []) if word in spoken]
    return wrong


def wrong_orders(orders, expected) -> list[str]:
    if len(orders) != len(expected):
        return [f"{len(orders)} orders, not {len(expected)}: {orders}"]
    wrong = []
    for order, wanted in zip(orders, expected, strict=True):
        has = {**order["request"], "product_id": order["product_id"]}
        for name, value in wanted.items():
            if name == "key_selling_points":
                sent = [point.rstrip(".") for point in has.get(name) or ()]
                least = 1 if value == "any" else min(3, len(value))
                given = sent if value == "any" else [point.rstrip(".") for point in value]
                if len(sent) < least or sent[:least] != given[:least] or not set(sent) <= set(given):
                    wrong.append(f"points {sent}, not {value}")
            elif has.get(name) != value:
                wrong.append(f"{name}: {has.get(name)!r} is not {value!r}")
    return wrong


@pytest.mark.parametrize(("folder", "name", "case"), of())
def test_check_case_gives_expected_result(folder, name, case, monkeypatch, serving):
    feeds = case.get("feed", name)
    feeds = feeds if isinstance(feeds, list) else [feeds]
    if "serve" in case:
        feeds = [serving(folder / feeds[0], **case["serve"])]
    found = []
    for options in [case.get("options", []), *case.get("options_or", [])]:
        answer = checked(folder, feeds, options, monkeypatch)
        for outcome in (case, *case.get("or", [])):
            wrong = problems(answer, outcome)
            if not wrong:
                return
            found.append(wrong)
    pytest.fail(f"{case['why']}\n{found}")


@pytest.mark.parametrize(("folder", "name", "case"), of("of"))
def test_partition_case_orders_what_a_run_would(folder, name, case, monkeypatch):
    from dagster_ugen import FeedRequests

    monkeypatch.chdir(folder)
    requests = FeedRequests(name, job_defaults={"segment_count": 1}).of(case["of"], model=None)
    orders = [{"product_id": product_id, "request": request} for product_id, request in requests.items()]
    assert not wrong_orders(orders, case["orders"])


@pytest.mark.parametrize(("folder", "name", "case"), of("nights"))
def test_nights_case_buys_expected_jobs(folder, name, case, monkeypatch, ugen_emulator, tmp_path):
    monkeypatch.chdir(folder)
    environ = {"HOME": str(tmp_path), "UGEN_API_KEY": LOCAL_KEY, "UGEN_BASE_URL": ugen_emulator.base_url}
    world = Surroundings(environ=environ, clock=EmulatorClock(ugen_emulator.emulator))

    def run(*words):
        return CliRunner().invoke(main, list(map(str, words)), obj=world)

    run("ledger", "init", tmp_path / "ledger.db", "--allow-ephemeral")
    ledger = ("--catalogue", "shop", "--ledger", tmp_path / "ledger.db")
    for number, night in enumerate(case["nights"]):
        options = ("--segment-count", 1, "--budget", 100_000, "--run-id", f"night-{number}", *night.get("options", ()))
        result = run("feed", "run", night["feed"], *ledger, *options)
        assert len(ugen_emulator.emulator.journal.find_purchases()) == night["jobs"], result.output
        assert (result.exit_code != 0) is night.get("stops", False) or "stops" not in night, result.output
    if "export" in case:
        videos = tmp_path / "videos.jsonl"
        result = run(
            "ledger", "export", "shop", "--ledger", tmp_path / "ledger.db", "--format", "jsonl", "--to", videos
        )
        assert len(videos.read_text("utf-8").splitlines()) == case["export"], result.output
    if then := case.get("then_check"):
        answer = checked(folder, [then["feed"]], [*map(str, ledger), *then["options"]], monkeypatch, environ=environ)
        assert {name: answer.found.get(name) for name in then["figures"]} == then["figures"], answer.said


@pytest.fixture
def serving():
    """A web server that redirects to an address whose query must come back, and then gives a file."""
    servers = []

    def serve(path: Path, *, status: list[int], content_type: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                step = int(self.path.partition("step=")[2].partition("&")[0] or 0)
                if step < len(status):
                    self.send_response(status[step])
                    self.send_header("Location", f"/moved?step={step + 1}&key=a%20b&x=1")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                good = not status or "key=a%20b&x=1" in self.path
                body = path.read_bytes() if good else b""
                self.send_response(200 if good else 403)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/feed"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
