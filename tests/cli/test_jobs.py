# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs`: what is bought, once; what is shown; and with which code it ends."""

import json
import re

import pytest

from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import Settings, TenantSettings

from .conftest import LAMP

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def test_a_video_is_bought_waited_for_and_shown(ugen):
    said = ugen("jobs", "create", *LAMP, "--wait")
    assert "status: completed" in said.stdout
    assert "final video: http://" in said.stdout
    assert "bought" in said.stderr
    (job,) = ugen.json("jobs", "list")
    assert job["status"] == "completed"
    assert job["job_id"] in said.stdout
    assert len(ugen.purchases) == 1


def test_an_order_is_bought_once_however_often_it_is_called(ugen):
    first = ugen.json("jobs", "create", "--order", "spring", *LAMP)
    again = ugen.json("jobs", "create", "--order", "spring", *LAMP, "--wait")
    assert (first["outcome"], again["outcome"]) == ("created", "reattached")
    assert again["job_id"] == first["job_id"]
    taken = ugen("jobs", "create", "--order", "spring", *LAMP)
    assert "nothing was sent" in taken.stderr
    assert len(ugen.purchases) == 1
    another = ugen.json("jobs", "create", "--order", "spring", "--regenerate", "tuesday", *LAMP)
    assert another["job_id"] != first["job_id"]
    assert len(ugen.purchases) == 2


def test_without_a_name_each_call_is_a_new_printed_order(ugen):
    first = ugen.json("jobs", "create", *LAMP)
    second = ugen.json("jobs", "create", *LAMP)
    assert first["job_id"] != second["job_id"]
    again = ugen.json("jobs", "create", "--order", first["order"], *LAMP)
    assert again["job_id"] == first["job_id"]
    assert len(ugen.purchases) == 2


def test_the_printed_order_finds_its_job_after_lost_answers(ugen, ugen_faults):
    ugen_faults.add("lost", method="POST", path="/api/v1/jobs", times=None)
    said = ugen("jobs", "create", *LAMP, code=6)
    assert "buys nothing twice" in said.stderr
    name = said.stderr.split("--order ")[1].split(":")[0]
    ugen_faults.clear()
    assert ugen.json("jobs", "create", "--order", name, *LAMP, "--wait")["status"] == "completed"
    assert len(ugen.purchases) == 1


def test_a_picture_on_this_machine_is_uploaded(ugen, picture):
    fields = ("--product-name", "Lamp", "--segment-count", "1")
    first = ugen.json("jobs", "create", "--order", "x", "--image", picture, *fields)
    again = ugen.json("jobs", "create", "--order", "x", "--image", picture, *fields)
    assert first["job_id"] == again["job_id"]
    both = ugen("jobs", "create", "--image", picture, *LAMP, code=2)
    assert "not both" in both.stderr


def test_a_request_that_breaks_a_rule_is_not_sent(ugen):
    said = ugen("jobs", "create", *LAMP[:-1], "11", code=2)
    assert "segment_count: must be at most 10, got 11" in said.stderr
    assert not ugen.purchases
    ignored = ugen("jobs", "create", *LAMP, "--custom-script", "Look!", "--cta-text", "Buy")
    assert "custom_script is set, so cta_text is ignored" in ignored.stderr


def test_spending_that_is_off_buys_nothing(ugen):
    ugen.environ["UGEN_SPENDING"] = "reuse_only"
    said = ugen("jobs", "create", *LAMP, code=3)
    assert "UGEN_SPENDING" in said.stderr
    assert not ugen.purchases


@pytest.mark.parametrize(
    ("kind", "rule", "code", "says"),
    [
        ("status", {"status": 402, "code": "INSUFFICIENT_CREDITS"}, 4, "ugen credits balance"),
        ("status", {"status": 401}, 3, "ugen doctor"),
        ("status", {"status": 422}, 3, "correct the named fields"),
        ("status", {"status": 429, "retry_after": 30.0}, 3, "--queue-timeout"),
        ("status", {"status": 503}, 6, "try again"),
        ("wrong_type", {}, 6, "base URL"),
    ],
)
def test_what_the_service_says_decides_the_code(ugen, ugen_faults, kind, rule, code, says):
    ugen_faults.add(kind, method="POST", path="/api/v1/jobs", times=None, **rule)
    said = ugen("jobs", "create", *LAMP, code=code)
    assert says in said.stderr
    assert not ugen.purchases


def test_a_full_account_is_waited_for(ugen, ugen_faults):
    ugen_faults.add("status", method="POST", path="/api/v1/jobs", status=429, retry_after=20.0, times=6)
    assert ugen.json("jobs", "create", *LAMP, "--queue-timeout", 600)["outcome"] == "created"


@pytest.mark.parametrize("command", ["get", "wait", "cancel", "pause", "resume", "retry", "keyframes", "videos"])
def test_an_unknown_job_is_refused_in_a_sentence(ugen, command):
    said = ugen("jobs", command, UNKNOWN, code=3)
    assert not said.stdout
    assert len(said.stderr.splitlines()) <= 2


def test_errors_are_json_where_json_is_asked_for(ugen):
    said = ugen("jobs", "get", UNKNOWN, "--json", code=3)
    reported = json.loads(said.stderr)
    assert (reported["exit_code"], reported["error"]) == (3, "NotFoundError")
    assert reported["message"]
    assert reported["next"]


def test_no_network_is_trouble(ugen):
    ugen.environ["UGEN_BASE_URL"] = "http://127.0.0.1:9/api/v1"
    said = ugen("jobs", "list", code=6)
    assert "nothing listens there" in said.stderr


@pytest.mark.parametrize("kind", ["wrong_type", "malformed"])
def test_an_answer_that_is_none_is_trouble(ugen, ugen_faults, kind):
    ugen_faults.add(kind, path="/api/v1/jobs", times=None)
    said = ugen("jobs", "list", code=6)
    assert said.stderr.startswith("Error: GET /jobs answered 200: ")


def test_no_key_says_where_one_may_come_from(ugen):
    del ugen.environ["UGEN_API_KEY"]
    said = ugen("jobs", "list", code=2)
    assert "UGEN_API_KEY" in said.stderr
    assert str(ugen.home / ".config" / "ugen" / "config.toml") in said.stderr


def test_a_list_says_when_there_is_more(ugen):
    assert "No jobs." in ugen("jobs", "list").stderr
    for _ in range(3):
        ugen.create()
    said = ugen("jobs", "list", "--limit", 2)
    assert len(said.stdout.splitlines()) == 2
    assert "more than 2" in said.stderr
    assert len(ugen.json("jobs", "list", "--all")) == 3
    assert ugen.json("jobs", "list", "--status", "failed") == []


def test_plain_lines_have_tabs_and_no_control_characters(ugen):
    job_id = ugen.create(name="Lamp \x1b[2J of\twood")
    (line,) = ugen("jobs", "list").stdout.splitlines()
    cells = line.split("\t")
    assert cells[0] == job_id
    assert cells[4] == "Lamp [2J of wood"


def test_keyframes_and_videos_are_shown(ugen):
    job_id = ugen.create()
    ugen("jobs", "wait", job_id)
    frame, *_ = ugen.json("jobs", "keyframes", job_id)
    assert frame["image_url"].startswith("http://")
    (line,) = ugen("jobs", "videos", job_id).stdout.splitlines()
    assert line.startswith("0\tcompleted\t")
    assert len(ugen.json("jobs", "get", job_id, job_id)) == 2


def test_waiting_says_how_jobs_ended(ugen):
    good, bad = ugen.create(), ugen.create(name="Lamp #ugen:fail:generation:moderation")
    said = ugen("jobs", "wait", good, bad, code=1)
    assert [line.split("\t")[1] for line in said.stdout.splitlines()] == ["completed", "failed"]
    assert f"{good} completed" in said.stderr
    assert ugen.one("jobs", "wait", good)["status"] == "completed"
    shown = ugen("jobs", "wait", bad, code=1)
    assert "moderation" in shown.stdout


def test_waiting_leaves_the_job_when_the_time_is_up(ugen):
    job_id = ugen.create()
    said = ugen("jobs", "wait", job_id, "--timeout", 30, code=5)
    assert "run again to resume waiting for it" in said.stderr
    assert ugen.one("jobs", "get", job_id)["status"] == "processing"
    assert ugen.one("jobs", "wait", job_id, "--stage", "init")["status"] == "processing"
    assert ugen.json("jobs", "wait", job_id, UNKNOWN, code=3)[1]["job_id"] == UNKNOWN


def test_watching_prints_each_change_but_not_the_result(ugen):
    assert "No job is active." in ugen("jobs", "watch").stderr
    bad = ugen.create(name="Lamp #ugen:fail:generation")
    lines = [json.loads(line) for line in ugen("jobs", "watch", "--json").stdout.splitlines()]
    assert {line["job_id"] for line in lines} == {bad}
    assert lines[-1]["status"] == "failed"
    assert len({(line["status"], line["current_stage"]) for line in lines}) == len(lines) > 2


def test_cancelling_reads_first_and_never_touches_an_ended_job(ugen):
    job_id = ugen.create("--order", "spring")
    said = ugen("jobs", "cancel", job_id)
    assert "cancelled; its reservation is released" in said.stderr
    cancelled = ugen("jobs", "create", "--order", "spring", *LAMP, code=1)
    assert "was cancelled (cli)" in cancelled.stderr
    done = ugen.create()
    ugen("jobs", "wait", done)
    late = ugen("jobs", "cancel", done, code=3)
    assert "it was completed first; its result stays" in late.stderr
    assert ugen.one("jobs", "get", done)["status"] == "completed"
    mixed = ugen.json("jobs", "cancel", UNKNOWN, ugen.create(), code=3)
    assert [reported["exit_code"] for reported in mixed] == [3, 0]


def test_a_job_is_paused_and_resumed(ugen, ugen_clock):
    job_id = ugen.create()
    ugen_clock.advance(10)
    assert "pauses after its current stage" in ugen("jobs", "pause", job_id).stderr
    assert ugen.one("jobs", "wait", job_id, code=1)["status"] == "paused"
    assert ugen.one("jobs", "resume", job_id, "--wait")["status"] == "completed"
    assert "it is not paused" in ugen("jobs", "resume", job_id, code=3).stderr
    assert "completed already" in ugen("jobs", "pause", job_id, code=3).stderr


def test_retry_of_a_completed_job_needs_a_named_stage(ugen, ugen_faults):
    ugen_faults.job(fail_at="generation", times=1)
    job_id = ugen.create()
    ugen("jobs", "wait", job_id, code=1)
    assert ugen.one("jobs", "retry", job_id, "--wait")["status"] == "completed"
    said = ugen("jobs", "retry", job_id, code=2)
    assert "--from-stage" in said.stderr
    assert [bought.kind for bought in ugen.purchases] == ["create", "retry"]
    assert ugen.one("jobs", "retry", job_id, "--from-stage", "captions")["result"] == "it runs again"
    assert "it is running; nothing was sent" in ugen("jobs", "retry", job_id).stderr
    assert [bought.kind for bought in ugen.purchases] == ["create", "retry", "retry"]


def test_a_retry_whose_answer_is_lost_is_not_paid_twice(ugen, ugen_faults):
    ugen_faults.job(fail_at="generation", times=1)
    job_id = ugen.create()
    ugen("jobs", "wait", job_id, code=1)
    ugen_faults.add("lost", method="POST", path="/api/v1/jobs/*/retry")
    assert ugen.one("jobs", "retry", job_id, "--wait")["status"] == "completed"
    assert [bought.kind for bought in ugen.purchases] == ["create", "retry"]


def fetched(ugen):
    return ugen.server.emulator.journal.find_requests(path="/media/")


def test_files_come_home_once(ugen, tmp_path):
    job_id = ugen.create()
    early = ugen("jobs", "download", job_id, "--to", tmp_path / "videos", code=5)
    assert f"ugen jobs wait {job_id}" in early.stderr
    ugen("jobs", "wait", job_id)
    said = ugen("jobs", "download", job_id, "--to", tmp_path / "videos", "--product-id", "LL-1")
    folder = tmp_path / "videos" / "LL-1" / job_id
    assert (folder / "final.mp4").read_bytes()[4:8] == b"ftyp"
    assert str(folder / "final.mp4") in said.stdout
    before = len(fetched(ugen))
    assert before >= 4
    (manifest,) = ugen.json("jobs", "download", job_id, "--to", tmp_path / "videos", "--product-id", "LL-1")
    assert {file["kind"] for file in manifest["files"]} == {"final", "segment", "keyframe", "thumbnail"}
    assert len(fetched(ugen)) == before
    page = ugen("gallery", tmp_path / "videos").stdout.strip()
    assert job_id in (tmp_path / "videos" / "index.html").read_text()
    assert page == str(tmp_path / "videos" / "index.html")


def test_what_is_no_video_is_not_stored(ugen, ugen_faults, tmp_path):
    job_id = ugen.create()
    ugen("jobs", "wait", job_id)
    ugen_faults.add("wrong_type", path="/media/*/final*", times=None)
    said = ugen("jobs", "download", job_id, "--to", tmp_path / "videos", code=6)
    assert "run it again" in said.stderr
    assert not list((tmp_path / "videos").rglob("final*"))
    assert not list((tmp_path / "videos").rglob("*.part"))


def test_a_destination_that_cannot_be_written_is_said(ugen, tmp_path):
    job_id = ugen.create()
    ugen("jobs", "wait", job_id)
    (tmp_path / "file").write_text("no folder")
    said = ugen("jobs", "download", job_id, "--to", tmp_path / "file", code=6)
    assert "check that the destination may be written" in said.stderr
    assert (tmp_path / "file").read_text() == "no folder"
    wrong = ugen("jobs", "download", job_id, "--to", "nonsense://x", code=2)
    assert "cannot be used" in wrong.stderr


def test_a_full_disk_leaves_no_half_file_and_is_gone_on_with(ugen, tmp_path):
    job_id = ugen.create()
    ugen("jobs", "wait", job_id)
    process = ugen.process("jobs", "download", job_id, "--to", tmp_path / "videos", most_kb=4, stdout=-1, stderr=-1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 6
    assert "Error: " in said
    assert "Traceback" not in said
    assert not list((tmp_path / "videos").rglob("final*"))
    assert not list((tmp_path / "videos").rglob("*.part"))
    (manifest,) = ugen.json("jobs", "download", job_id, "--to", tmp_path / "videos")
    assert not manifest["missing"]


def test_an_order_that_cannot_be_written_down_is_not_sent(ugen):
    (ugen.home / ".local").write_text("no folder")
    said = ugen("jobs", "create", *LAMP, code=6)
    assert "check the path" in said.stderr
    assert not ugen.purchases


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jobs", "get"), r"Missing argument 'JOB\.\.\.'\."),
        (("jobs", "get", "x", "--nonsense"), r"No such option:? '?--nonsense'?\.?"),  # each click in words of its own
        (("ledger", "repair", "--catalogue", "shop"), "--catalogue and --feed belong together"),
    ],
)
def test_wrong_usage_is_json_too_where_json_is_asked_for(ugen, arguments, message):
    said = ugen(*arguments, "--json", code=2)
    reported = json.loads(said.stderr)
    assert (reported["exit_code"], reported["error"]) == (2, "UsageError")
    assert re.fullmatch(message, reported["message"])
    assert reported["next"].startswith(f"`ugen {arguments[0]} {arguments[1]} --help`")
    assert not said.stdout
    assert "Usage: ugen " in ugen(*arguments, code=2).stderr


def test_an_error_names_the_order_and_its_remedy_names_the_job(ugen, ugen_faults):
    said = ugen("jobs", "create", *LAMP, "--order", "spring", "--max-credits", 1, code=3)
    assert "Error: order 'spring': the job would reserve " in said.stderr
    assert "Next: --max-credits allows more" in said.stderr
    ugen_faults.job(product_name="Lamp*", fail_at="generation", kind="moderation")
    said = ugen("jobs", "create", *LAMP, "--wait", code=1)
    (sold,) = ugen.purchases
    assert f"Next: `ugen jobs get {sold.job_id}` shows why; the same request would fail again" in said.stderr


def test_download_of_a_running_job_is_not_done(ugen, ugen_clock, tmp_path):
    job_id = ugen.create()
    assert ugen("jobs", "download", job_id, "--to", tmp_path, code=5).stdout == ""
    while not any(row["image_url"] for row in ugen.json("jobs", "keyframes", job_id)):
        ugen_clock.advance(10)
    said = ugen("jobs", "download", job_id, "--to", tmp_path, "--include", "keyframes", "--include", "final", code=5)
    assert "more are to come" in said.stderr
    assert f"ugen jobs wait {job_id}" in said.stderr
    assert list(tmp_path.rglob("keyframe-0*"))
    ugen_clock.advance_until_idle()
    ugen("jobs", "download", job_id, "--to", tmp_path)
    assert list(tmp_path.rglob("final.mp4"))


def test_order_name_of_another_product_is_refused(ugen, ugen_clock):
    ugen.create("--order", "spring")
    for _ in range(2):
        said = ugen(
            "jobs", "create", "--order", "spring", *["Chair" if word == "Lamp" else word for word in LAMP], code=3
        )
        assert "'Lamp' was ordered, 'Chair' is asked for" in said.stderr
        ugen_clock.advance_until_idle()
    assert len(ugen.purchases) == 1


def test_mistyped_status_is_refused(ugen):
    said = ugen("jobs", "list", "--status", "complted", code=2)
    assert "Did you mean completed?" in said.stderr
    assert not ugen.server.emulator.journal.find_requests(path="/api/v1/jobs")


def test_too_few_credits_names_both_figures(ugen):
    with EmulatorServer(Settings(tenants=(TenantSettings(credits=12),))) as poor:
        ugen.environ["UGEN_BASE_URL"] = poor.base_url
        cost = ugen.json("credits", "estimate", "--segment-count", 1)["total_credits"]
        said = ugen("jobs", "create", *LAMP, "--json", code=4)
        assert not poor.emulator.journal.find_purchases()
    error = json.loads(said.stderr.splitlines()[-1])
    assert (error["required"], error["available"]) == (cost, 12)
    assert f"{cost} credits are required and 12 are available" in error["next"]
