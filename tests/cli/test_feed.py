# SPDX-License-Identifier: Apache-2.0
"""`ugen feed` and `ugen ledger`: a shop's night, from the command line."""

import json
import queue
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import sqlalchemy as sa

from ugen_provider.cli.demo.processes import wait_until
from ugen_provider.core.feeds import mapping
from ugen_provider.core.ledger.database import with_driver

EXAMPLE = Path(__file__).parents[2] / "examples" / "feed.xml"
RUN = ("--catalogue", "shop", "--budget", 5000, "--segment-count", 2)


@pytest.fixture(autouse=True)
def ledger(ugen) -> Path:
    """A named ledger, as a feed run needs it."""
    ugen.name_ledger()
    return Path(ugen.environ["UGEN_LEDGER"])


def run(ugen, *arguments, feed=EXAMPLE, code=0, run_id="monday"):
    return ugen.json("feed", "run", feed, *RUN, "--run-id", run_id, *arguments, code=code)


def test_a_check_shows_requests_refusals_and_costs_for_free(ugen, tmp_path):
    summary = ugen.json("feed", "check", EXAMPLE, "--segment-count", 2, "--rejected", tmp_path / "rejected.jsonl")
    assert (summary["rows"], summary["accepted"], summary["rejected"]) == (6, 5, 1)
    assert summary["estimated_credits"] > 0
    (row,) = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert (row["product_id"], row["column"], row["line"]) == ("LL-1004", "image_link", 61)
    said = ugen("feed", "check", EXAMPLE, "--segment-count", 2)
    assert "LL-1004\tline 61, item 4\timage_link\tis required" in said.stdout
    assert "LL-1001\tAurora Desk Lamp\t" in said.stdout
    assert not ugen.purchases
    # Asked once for each combination of fields that cost, not once for each product.
    assert len(ugen.server.emulator.journal.find_requests(path="/api/v1/credits/estimate")) == 2


def test_a_check_needs_no_key(ugen):
    del ugen.environ["UGEN_API_KEY"]
    said = ugen("feed", "check", EXAMPLE, "--segment-count", 2)
    assert "the cost is not known: no API key" in said.stderr
    assert ugen.json("feed", "check", EXAMPLE, "--segment-count", 2, "--no-estimate")["estimated_credits"] is None


def test_a_check_of_a_catalog_uses_its_pinned_mapping(ugen, monkeypatch):
    run(ugen)
    better = replace(mapping.DEFAULTS[1]["google"], columns={**mapping.DEFAULTS[1]["google"].columns}, version=2)
    better.columns["product_name"] = ("brand",)
    monkeypatch.setitem(mapping.DEFAULTS, 2, {"google": better})
    monkeypatch.setattr("ugen_provider.core.ledger.record.CURRENT_MAPPING_VERSION", 2)
    check = ("feed", "check", EXAMPLE, "--segment-count", 2, "--no-estimate")
    assert "Aurora Desk Lamp" not in ugen(*check).stdout
    assert "LL-1001\tAurora Desk Lamp\t" in ugen(*check, "--catalogue", "shop").stdout
    assert "Aurora Desk Lamp" not in ugen(*check, "--catalogue", "new shop").stdout
    ugen(*check, "--ledger", "ledger.db", code=2)


def test_a_feed_that_cannot_be_read_is_code_2_and_buys_nothing(ugen, tmp_path):
    login = tmp_path / "login.html"
    login.write_text("<!DOCTYPE html><html><body>Please sign in</body></html>")
    for feed in (login, tmp_path / "missing.xml", "http://127.0.0.1:9/feed.xml"):
        for command in (("check",), ("run", "--catalogue", "shop", "--budget", 100)):
            said = ugen("feed", *command, feed, "--segment-count", 1, code=2)
            assert "Error: " in said.stderr
            assert "ugen feed check" in said.stderr
    assert not ugen.purchases


def test_a_report_that_cannot_be_written_leaves_nothing(ugen, tmp_path):
    there = tmp_path / "no such folder" / "rejected.jsonl"
    ugen("feed", "check", EXAMPLE, "--segment-count", 2, "--rejected", there, code=6)
    assert not there.parent.exists()


def test_a_run_buys_and_stores_once_and_the_next_buys_nothing(ugen, tmp_path):
    report = run(ugen, "--to", tmp_path / "videos", "--rejected", tmp_path / "rejected.jsonl")
    assert (report["completed"], report["rejected"], report["bought"]) == (5, 1, 5)
    assert len(list((tmp_path / "videos").rglob("final.mp4"))) == 5
    assert "LL-1004" in (tmp_path / "rejected.jsonl").read_text()
    before = len(ugen.server.emulator.journal.find_requests())
    second = run(ugen, "--to", tmp_path / "videos", run_id="tuesday")
    assert (second["unchanged"], second["completed"]) == (5, 0)
    assert len(ugen.server.emulator.journal.find_requests()) == before
    assert len(ugen.purchases) == 5


def test_plain_progress_is_a_line_per_product_beside_the_report(ugen):
    said = ugen("feed", "run", EXAMPLE, *RUN, "--run-id", "monday")
    assert "completed            5" in said.stdout
    assert "5 products to buy or to wait for" in said.stderr
    assert sum(line.endswith(" completed") for line in said.stderr.splitlines()) == 5
    assert "run monday" in said.stderr


def test_a_run_names_what_became_no_video_and_why(ugen, ugen_faults):
    ugen_faults.job(product_name="Aurora*", fail_at="generation", kind="moderation")
    said = ugen("feed", "run", EXAMPLE, *RUN, code=1)
    assert "LL-1004\tline 61, item 4\timage_link\tis required: the product has no picture" in said.stdout
    (failed,) = [line.split("\t") for line in said.stdout.splitlines() if line.startswith("LL-1001\t")]
    assert len(failed[1]) == 36
    assert "moderation" in failed[2]


def test_a_product_that_failed_is_code_1(ugen, ugen_faults):
    ugen_faults.job(product_name="Aurora*", fail_at="generation", kind="moderation")
    report = run(ugen, code=1)
    assert (report["failed"], report["completed"]) == (1, 4)
    said = ugen("ledger", "show", "shop", "--state", "failed")
    assert said.stdout.startswith("LL-1001\tfailed\t")
    again = run(ugen, "--regenerate", "LL-1001", run_id="tuesday")
    assert (again["completed"], again["unchanged"]) == (1, 4)


def test_a_used_up_budget_is_no_failure_and_names_the_next_step(ugen):
    said = ugen("feed", "run", EXAMPLE, "--catalogue", "shop", "--budget", 120, "--segment-count", 2)
    assert "postponed            4" in said.stdout
    line = said.stderr.splitlines()[-1]
    assert line.startswith("To continue, with a larger --budget: ugen feed run ")
    assert " --run-id " in line


def test_an_empty_account_is_code_4(ugen, ugen_faults):
    ugen_faults.add("status", method="POST", path="/api/v1/jobs", status=402, code="INSUFFICIENT_CREDITS", times=None)
    assert run(ugen, code=4)["postponed_by"] == {"credits": 5}


def test_a_lost_answer_is_an_error_and_the_same_run_continues(ugen, ugen_faults):
    ugen_faults.add("status", method="POST", path="/api/v1/jobs", status=503, times=None)
    assert run(ugen, code=6)["postponed"] == 5
    ugen_faults.clear()
    assert run(ugen)["completed"] == 5
    assert len(ugen.purchases) == 5


def test_an_invalid_feed_stops_before_any_purchase(ugen):
    said = ugen("feed", "run", EXAMPLE, *RUN, "--max-rejected", 0, code=2)
    assert "nothing was bought" in said.stderr
    run(ugen)
    changed = ugen("feed", "run", EXAMPLE, "--catalogue", "shop", "--budget", 5000, "--segment-count", 1,
                   "--guard-min", 1, code=2)  # fmt: skip
    assert "--max-changed allows more" in changed.stderr
    assert len(ugen.purchases) == 5


def test_catalogue_and_budget_must_be_named(ugen):
    assert "--catalogue" in ugen("feed", "run", EXAMPLE, "--budget", 1, code=2).stderr
    assert "--budget" in ugen("feed", "run", EXAMPLE, "--catalogue", "shop", code=2).stderr


def test_ctrl_c_leaves_and_names_jobs_and_the_run_continues(ugen):
    arguments = ("feed", "run", EXAMPLE, *RUN, "--run-id", "monday")
    process = ugen.process(*arguments, "--interval", 600, stderr=-1, stdout=-1)
    lines = []
    while sum("under way" in line for line in lines) < 5:
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert out == ""
    bought = {job["job_id"] for job in ugen.json("jobs", "list")}
    assert "5 jobs still run and nothing is lost" in rest
    assert all(job in rest for job in bought)
    assert f"to continue: ugen feed run {EXAMPLE}" in rest
    assert "--run-id monday" in rest
    assert "Traceback" not in rest
    report = ugen.json(*arguments)
    assert (report["completed"], report["running"]) == (5, 0)
    assert len(ugen.purchases) == 5


def slow_shop(pieces):
    """A shop whose feed comes in pieces, each when it is let go; the last piece never ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            while (piece := pieces.get()) is not None:
                self.wfile.write(piece)
                self.wfile.flush()

        def log_message(self, *arguments):
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def rows_of_a_feed(first, last):
    rows = ({"id": f"p{n}", "title": "Cup", "image_link": f"https://s.example/{n}.jpg"} for n in range(first, last))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("patient", [True, False], ids=["at its next batch", "pressed twice"])
def test_ctrl_c_while_the_feed_is_read_plans_and_buys_nothing(ugen, patient):
    pieces = queue.Queue()
    pieces.put(rows_of_a_feed(0, 12_000))  # more than is read ahead
    with slow_shop(pieces) as shop:
        serving = threading.Thread(target=shop.serve_forever, daemon=True)
        serving.start()
        url = f"http://127.0.0.1:{shop.server_port}/feed.jsonl"
        process = ugen.process("feed", "run", url, *RUN, "--run-id", "monday", stderr=-1, stdout=-1)
        assert process.stderr.readline() == "run monday\n"
        ledger = ugen.home / "shop.db"
        wait_until(lambda: planned(ledger) > 0, what="the first batch", timeout=60)
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("stopping: the feed is read to its next batch")
        if patient:
            pieces.put(rows_of_a_feed(12_000, 36_000))
        else:
            process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
        pieces.put(None)
        shop.shutdown()
        serving.join()
    assert process.returncode == 130, rest
    assert "Error: stopped" in rest
    assert "Traceback" not in rest
    assert not ugen.purchases


def planned(ledger):
    """Rows of the feed that are in the ledger."""
    if not ledger.exists():
        return 0
    with closing(sqlite3.connect(ledger)) as connection:
        try:
            return connection.execute("SELECT count(*) FROM ugen_item").fetchone()[0]
        except sqlite3.OperationalError:  # not made yet, or being written
            return 0


def test_ctrl_c_while_waiting_leaves_the_job(ugen):
    job_id = ugen.create()
    process = ugen.process("jobs", "wait", job_id, "--interval", 600, stderr=-1, stdout=-1)
    assert job_id in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert f"1 job still runs and nothing is lost: {job_id}" in rest
    assert f"ugen jobs wait {job_id}" in rest
    assert ugen.one("jobs", "wait", job_id)["status"] == "completed"


def test_ctrl_c_while_buying_leaves_the_job_and_names_it(ugen):
    from .conftest import LAMP

    process = ugen.process("jobs", "create", *LAMP, "--wait", "--interval", 600, stderr=-1, stdout=-1)
    order, seen = process.stderr.readline(), process.stderr.readline()
    assert order.startswith("order ugen-")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert f"ugen jobs wait {seen.split()[0]}" in rest
    again = ugen.json("jobs", "create", "--order", order.split()[1], *LAMP, "--wait")
    assert (again["status"], again["job_id"]) == ("completed", seen.split()[0])
    assert len(ugen.purchases) == 1


def test_the_ledger_is_shown_in_every_way(ugen):
    run(ugen)
    (catalogue,) = ugen.json("ledger", "show")
    assert (catalogue["catalogue"], catalogue["kind"]) == ("shop", "google")
    entries = ugen.json("ledger", "show", "shop", "--product", "LL-1001")
    assert [(entry["product_id"], entry["state"]) for entry in entries] == [("LL-1001", "completed")]
    (known,) = ugen.json("ledger", "show", "shop", "--runs")
    assert (known["run_id"], known["completed"], known["state"]) == ("monday", 5, "done")
    assert ugen.one("ledger", "show", "shop", "--run", "monday")["products"] == 6
    assert "--runs" in ugen("ledger", "show", "shop", "--run", "never", code=2).stderr
    assert "it has 'shop'" in ugen("ledger", "show", "other", code=2).stderr
    assert len(ugen("ledger", "show", "shop", "--limit", 2).stdout.splitlines()) == 2
    ugen("ledger", "show", "--state", "failed", code=2)


def test_videos_go_back_to_the_shop(ugen, tmp_path):
    run(ugen, "--to", tmp_path / "videos")
    ugen(
        "ledger", "export", "shop", "--to", tmp_path / "videos.xml", "--stored-at", tmp_path / "videos",
        "--public-at", "https://cdn.shop.example/v",
    )  # fmt: skip
    written = (tmp_path / "videos.xml").read_text()
    assert written.count("<g:video_link>https://cdn.shop.example/v/LL-") == 5
    reported = ugen.json("ledger", "export", "shop", "--to", tmp_path / "videos.jsonl", "--format", "jsonl")
    assert reported["products"] == len((tmp_path / "videos.jsonl").read_text().splitlines()) == 5
    none = ugen("ledger", "export", "shop", "--to", tmp_path / "none.tsv", "--format", "tsv", code=3)
    assert "--stored-at with --public-at" in none.stderr


PREVIEW = ("feed", "preview", EXAMPLE, "--catalogue", "shop", "--budget", 200, "--segment-count", 2)


def test_preview_writes_a_page_and_its_selection_is_bought(ugen, tmp_path):
    shown = ugen.json(*PREVIEW, "--out", tmp_path / "night.html", "--picture-seconds", 0)
    assert (shown["shown"], shown["to_buy"], shown["picture_problems"]) == (5, 5, {"not_inspected": 5})
    page = (tmp_path / "night.html").read_text()
    assert 'data-budget="200"' in page
    assert re.search(r'data-balance="\d+"', page)
    command = re.search(r"<pre[^>]*>(.*?)</pre>", page)[1]
    assert command.endswith("--catalogue shop --budget 200 --segment-count 2 --json --only selection.json")
    assert not ugen.purchases
    (tmp_path / "selection.json").write_text('{"catalogue": "shop", "products": ["LL-1002", "LL-1005"]}')
    report = run(ugen, "--only", tmp_path / "selection.json")
    assert (report["completed"], len(ugen.purchases)) == (2, 2)
    again = ugen.json(*PREVIEW, "--out", tmp_path / "night.html", "--no-pictures", "--no-estimate")
    assert (again["to_buy"], again["unchanged"], again["picture_problems"]) == (3, 2, {})
    assert "Unchanged: has its video" in (tmp_path / "night.html").read_text()


def test_preview_needs_no_key_and_creates_no_ledger(ugen, tmp_path, ledger):
    del ugen.environ["UGEN_API_KEY"]
    ledger.unlink()
    said = ugen(*PREVIEW, "--out", tmp_path / "night.html", "--no-pictures")
    assert "the balance is not known" in said.stderr
    assert "Cost not known" in (tmp_path / "night.html").read_text()
    assert not ledger.exists()


def test_preview_that_cannot_be_written_names_its_file(ugen, tmp_path):
    there = tmp_path / "no such folder" / "night.html"
    assert str(there) in ugen(*PREVIEW, "--out", there, "--no-pictures", code=6).stderr


def test_check_applies_the_limits_that_a_run_would_take(ugen, tmp_path):
    run(ugen)
    check = ("feed", "check", EXAMPLE, "--catalogue", "shop", "--segment-count", 1)
    assert ugen.json(*check)["refused_by"] is None  # too few products are known
    strict = (*check, "--guard-min", 1)
    assert ugen.json(*strict)["refused_by"] == "max_changed"
    said = ugen(*strict)
    assert (
        "refuse the run: max_changed (0 new, 5 changed, 0 gone with a video; 5 known products with a video)"
        in said.stdout
    )
    assert "segment_count" in ugen.json(*strict)["orders"][0]["changed"]
    assert ugen.json(*strict, "--max-changed", 1)["refused_by"] is None
    waits = ugen.json(*strict, "--on-changed", "postpone")
    assert (waits["refused_by"], waits["to_buy"]) == (None, 0)
    (tmp_path / "ids.txt").write_text("LL-1001\n")
    chosen = ugen.json(*strict, "--only", tmp_path / "ids.txt")
    assert (chosen["refused_by"], chosen["to_buy"], chosen["gone"]) == (None, 1, 0)


def test_a_lost_ledger_is_repaired_and_nothing_is_bought_again(ugen, tmp_path):
    run(ugen)
    ugen.name_ledger(tmp_path / "new.db")
    done = ugen.json("ledger", "repair", "--catalogue", "shop", "--feed", EXAMPLE, "--segment-count", 2)
    assert (done["jobs"], done["restored"]) == (5, 5)
    report = run(ugen, run_id="tuesday")
    assert report["completed"] + report["unchanged"] == 5
    assert len(ugen.purchases) == 5
    assert ugen.json("ledger", "repair")["found"] == 0
    ugen("ledger", "repair", "--catalogue", "shop", code=2)


@pytest.mark.parametrize("address", ["mysql://x/y", ":memory:", "/dev/null/ledger.db"])
def test_a_ledger_that_would_not_be_safe_is_refused(ugen, address):
    said = ugen("ledger", "show", "--ledger", address, code=2)
    assert "ledger: " in said.stderr


def test_a_ledger_on_a_full_disk_buys_nothing(ugen):
    process = ugen.process("feed", "run", EXAMPLE, *RUN, most_kb=40, stdout=-1, stderr=-1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 6, said
    assert "Error: the ledger's database: " in said
    assert "Next: check the space on its disk" in said
    assert not ugen.purchases


def test_a_check_shows_filtered_products_and_empty_columns(ugen, tmp_path):
    rules = tmp_path / "mapping.yaml"
    rules.write_text("filters: [prise >= 20]\ntemplates: {cta_text: 'Get it from {brand} at {shelf}'}\n")
    check = ("feed", "check", EXAMPLE, "--segment-count", 2, "--no-estimate", "--mapping", rules)
    said = ugen(*check)
    assert "skipped: 6 (6 by prise >= 20)" in said.stdout
    assert "Note: the mapping names columns that no product has: prise, shelf" in said.stderr
    summary = ugen.json(*check)
    assert (summary["skipped_by"], summary["unseen_columns"]) == ({"prise >= 20": 6}, ["prise", "shelf"])
    said = ugen("feed", "run", EXAMPLE, *RUN, "--mapping", rules)
    assert not ugen.purchases


def test_a_check_shows_which_of_two_rows_with_one_id_is_sent(ugen, tmp_path):
    feed = tmp_path / "feed.csv"
    picture = "https://s.example/1.jpg"
    feed.write_text(f"id,title,image_link\n1,First,{picture}\n1,Second,{picture}\n2,Other,{picture}\n")
    said = ugen("feed", "check", feed, "--segment-count", 2, "--no-estimate")
    assert "duplicate ids: 1 of the accepted; the first of each counts" in said.stdout
    assert "1\tFirst\t" in said.stdout
    assert "Second" not in said.stdout
    run(ugen, feed=feed)
    assert {sold.product_name for sold in ugen.purchases} == {"First", "Other"}


def test_plain_lines_separate_rejected_from_sent_rows(ugen):
    lines = ugen("feed", "check", EXAMPLE, "--segment-count", 2).stdout.splitlines()
    places = [lines.index(next(line for line in lines if line.startswith(start))) for start in (
        "REJECTED\tWHERE\t", "LL-1004\t", "WOULD BE SENT\tPRODUCT NAME\t", "LL-1001\t",
    )]  # fmt: skip
    assert places == sorted(places)


@pytest.mark.parametrize("encoding", ["quatsch", "hex", "idna"])
def test_an_encoding_that_is_not_known_is_code_2(ugen, encoding):
    said = ugen("feed", "check", EXAMPLE, "--segment-count", 2, "--encoding", encoding, code=2)
    assert f"encoding '{encoding}' is not known" in said.stderr


def test_a_wrong_mapping_says_what_to_do(ugen, tmp_path):
    rules = tmp_path / "mapping.yaml"
    rules.write_text("constants: {product_name: Lamp}\n")
    said = ugen("feed", "check", EXAMPLE, "--segment-count", 2, "--mapping", rules, code=2)
    assert "product_name comes from the feed" in said.stderr
    assert "Next: correct it; `ugen feed check FEED --mapping FILE` applies it" in said.stderr


def test_what_could_not_be_stored_is_code_6(ugen, tmp_path):
    (tmp_path / "file").write_text("")
    report = run(ugen, "--to", tmp_path / "file" / "videos", code=6)
    assert (report["completed"], report["not_stored"]) == (5, 5)
    assert run(ugen, "--to", tmp_path / "videos", run_id="tuesday")["not_stored"] == 0
    assert len(ugen.purchases) == 5


def test_a_waiting_run_names_its_reason_and_the_next_step(ugen):
    ugen.environ["UGEN_SPENDING"] = "reuse_only"
    said = ugen("feed", "run", EXAMPLE, *RUN)
    assert "To continue, when the profile's `spending`, or UGEN_SPENDING, is `allow`: ugen feed run" in said.stderr
    del ugen.environ["UGEN_SPENDING"]
    said = ugen("feed", "run", EXAMPLE, *RUN, "--daily-budget", 120)
    assert "To continue, on another day, or with a larger --daily-budget: ugen feed run" in said.stderr


def test_a_product_to_regenerate_missing_in_the_feed_is_named(ugen, caplog):
    run(ugen, "--regenerate", "LL-1001", "--regenerate", "LL-9999", "--regenerate", "LL-1004")
    (reported,) = [record.getMessage() for record in caplog.records if "regenerate" in record.getMessage()]
    assert reported == "regenerate: LL-1004, LL-9999 would not be sent: it is not in the feed, or refused"


def test_a_name_as_long_as_a_page_does_not_fill_it(ugen, tmp_path):
    feed = tmp_path / "feed.csv"
    feed.write_text("id,title,image_link\n1," + "Very long " * 60 + ",https://s.example/1.jpg\n")
    said = ugen("feed", "check", feed, "--segment-count", 2, "--no-estimate")
    (line,) = [line for line in said.stdout.splitlines() if line.startswith("1\t")]
    assert len(line) < 150


def test_a_report_that_cannot_be_written_keeps_its_given_name(ugen, tmp_path):
    said = ugen("feed", "check", EXAMPLE, "--segment-count", 2, "--rejected", tmp_path / "no" / "r.jsonl", code=6)
    assert "no/r.jsonl" in said.stderr
    assert ".part" not in said.stderr


def test_two_nights_of_a_shop_as_the_guide_shows(ugen, ugen_clock, address, tmp_path):
    script = EXAMPLE.with_name("shop_nights.sh").read_text()
    guide = (EXAMPLE.parents[1] / "docs" / "howto" / "feed-every-night.md").read_text()
    assert script.partition("set -euo pipefail\n")[2].strip() in guide
    table = address if "://" in address else f"sqlite:///{tmp_path / 'site.db'}"
    bin_ = str(Path(sys.executable).parent)
    env = {**ugen.environ, "PATH": f"{bin_}:/usr/bin:/bin"}
    del env["UGEN_LEDGER"]
    ugen_clock.run(2000)
    told = subprocess.run(
        ["bash", "-s", address, table], input=script, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert "estimated credits: 996" in told.stdout
    assert "limits: refuse the run: max_gone" in told.stdout
    assert "7 of 12 known products are not in the feed" in told.stderr
    assert (tmp_path / "preview.html").read_text().count('class="pick"') == 12
    shown = [(tmp_path / name).read_text().count("<g:video_link>") for name in ("videos-of-tuesday.xml", "videos.xml")]
    assert (shown, len(ugen.purchases)) == ([12, 5], 12)
    engine = sa.create_engine(with_driver(sa.engine.make_url(table)))
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT id, video_link FROM product_video ORDER BY id")).all()
    engine.dispose()
    assert [row.id for row in rows] == [f"A-{number}" for number in range(1, 6)]
    assert all(row.video_link.startswith("https://cdn.shop.example/videos/") for row in rows)
