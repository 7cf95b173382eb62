# SPDX-License-Identifier: Apache-2.0
"""`credits`, `models`, `suggest`, `upload`, `doctor`, `completion`: what costs nothing."""

import os
import subprocess

import pytest

from ugen_provider.cli import SUBCOMMANDS
from ugen_provider.cli.doctor import EXTRAS


def test_balance_estimate_and_transactions_agree(ugen):
    before = ugen.json("credits", "balance")["available_credits"]
    estimate = ugen.json("credits", "estimate", "--segment-count", 1)["total_credits"]
    job_id = ugen.create()
    assert ugen.json("credits", "balance")["available_credits"] == before - estimate
    (reserve,) = ugen.json("credits", "transactions", "--job", job_id)
    assert (reserve["type"], reserve["amount"]) == ("reserve", -estimate)
    said = ugen("credits", "balance").stdout.splitlines()
    assert said[0] == f"available: {before - estimate:,}"
    assert "credits: " in ugen("credits", "estimate", "--segment-count", 1).stdout
    ugen("credits", "estimate", "--segment-count", 99, code=2)
    ugen.create()
    listed = ugen("credits", "transactions", "--limit", 2)
    assert len(listed.stdout.splitlines()) == 2
    assert "more than 2" in listed.stderr


def test_models(ugen):
    assert "veo3_fast" in [model["model_id"] for model in ugen.json("models")]
    assert ugen("models", "kling3_std").stdout.startswith("model: kling3_std\n")
    ugen("models", "nonsense", code=3)


def test_suggest_and_upload(ugen, picture, tmp_path):
    url = ugen("upload", picture).stdout.strip()
    assert url.startswith("http")
    idea = ugen.json("suggest", "--product-name", "Lamp", "--product-image-url", url)
    assert idea["key_selling_points"]
    assert "cta_text: " in ugen("suggest", "--product-name", "Lamp", "--image", picture).stdout
    assert "one of" in ugen("suggest", "--product-name", "Lamp", code=2).stderr
    assert [row["file"] for row in ugen.json("upload", picture, picture)] == [str(picture)] * 2
    (tmp_path / "no.txt").write_text("no picture")
    assert "must be JPEG, PNG, WebP or GIF" in ugen("upload", tmp_path / "no.txt", code=2).stderr


def lines_of(ugen, code=0):
    ugen.real_time = True  # the clocks of two machines are compared
    return {line["name"]: line for line in ugen.json("doctor", code=code)}


def test_the_doctor_checks_everything_and_spends_nothing(ugen):
    lines = lines_of(ugen)
    assert {f"[{extra}]" for extra in EXTRAS} < set(lines)
    for name in ("key", "clock", "balance", "base URL", "key from", "models", "estimate", "limits", "ledger"):
        assert lines[name]["verdict"] == "ok", lines[name]
    assert all(line["advice"] for line in lines.values() if line["verdict"] != "ok")
    assert not ugen.purchases
    assert {entry.method for entry in ugen.server.emulator.journal.find_requests()} <= {"GET", "POST"}
    assert all("ugen_sk" not in line["seen"] for line in lines.values())
    assert "key\tok\taccepted" in ugen("doctor").stdout


@pytest.mark.parametrize(
    ("changes", "code", "line"),
    [
        ({"UGEN_API_KEY": ""}, 2, "key"),
        ({"UGEN_API_KEY": "ugen_sk_wrong"}, 3, "key"),
        ({"UGEN_BASE_URL": "http://127.0.0.1:9/api/v1"}, 6, "reachable"),
        ({"UGEN_BASE_URL": "http://shop.example/api/v1"}, 2, "settings"),
        ({"UGEN_LEDGER": "mysql://x/y"}, 2, "ledger"),
    ],
)
def test_the_doctor_says_what_is_wrong_and_what_to_do(ugen, changes, code, line):
    ugen.environ.update(changes)
    found = lines_of(ugen, code=code)[line]
    assert found["verdict"] == "wrong"
    assert found["seen"]
    assert found["advice"] or "use https" in found["seen"]


def test_the_doctor_notes_what_the_service_does_otherwise(ugen, ugen_faults):
    ugen_faults.add("status", path="/api/v1/credits/estimate", status=404, times=None)
    line = lines_of(ugen)["estimate"]
    assert (line["verdict"], line["advice"]) == ("note", "budgets need `assume_credits`, since the estimate failed")


def test_the_doctor_opens_the_ledger(ugen):
    from .test_feed import run

    ugen.name_ledger()
    run(ugen)
    assert "catalogs shop" in lines_of(ugen)["ledger"]["seen"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(ugen, shell):
    if shell == "bash" and subprocess.run(["bash", "--version"], check=False, capture_output=True).returncode:
        pytest.skip("no bash is installed")
    said = ugen("completion", shell)
    assert "_UGEN_COMPLETE" in said.stdout


def complete(ugen, line: str) -> list[str]:
    env = {**os.environ, **ugen.environ, "_UGEN_COMPLETE": "bash_complete", "COMP_WORDS": line}
    ugen.environ = {**env, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    out, _ = ugen.process(stdout=-1).communicate(timeout=60)
    return [row.partition(",")[2] for row in out.splitlines()]


def test_commands_options_and_words_are_completed(ugen):
    assert set(complete(ugen, "ugen ")) >= set(SUBCOMMANDS)
    assert complete(ugen, "ugen jobs ca") == ["cancel"]
    assert "generation" in complete(ugen, "ugen jobs retry --from-stage ")
    assert complete(ugen, "ugen jobs list --status co") == ["completed"]
    folder = ugen.home / ".config" / "ugen"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("[profiles.staging]\n")
    assert complete(ugen, "ugen jobs list --profile st") == ["staging"]


def test_a_reader_that_closes_the_pipe_is_no_error(ugen):
    ugen.create()
    read, write = os.pipe()
    os.close(read)
    process = ugen.process("jobs", "list", stdout=write, stderr=-1)
    os.close(write)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


def test_doctor_names_the_ledger_address_and_its_remedy(ugen, tmp_path):
    ugen("feed", "run", "nothing.xml", "--catalogue", "shop", "--budget", 1, "--segment-count", 1, code=2)
    ledger = lines_of(ugen)["ledger"]["seen"]
    assert ledger.startswith("~/")
    ugen.environ["UGEN_BASE_URL"] = "http://shop.example/api/v1"
    assert lines_of(ugen, code=2)["settings"]["advice"] == "correct it"
    del ugen.environ["UGEN_API_KEY"], ugen.environ["UGEN_BASE_URL"]
    assert "ugen login" in lines_of(ugen, code=2)["key"]["advice"]


def test_doctor_without_a_key_says_one_sentence(ugen):
    del ugen.environ["UGEN_API_KEY"]
    said = ugen("doctor", code=2)
    wrong = [line for line in said.stdout.splitlines() if "\twrong\t" in line]
    assert wrong == ["key\twrong\tno API key is set\t`ugen login` stores a key in a profile; or set UGEN_API_KEY"]
    assert "Traceback" not in said.output
    assert "InvalidRequestError" not in said.output


def test_doctor_says_what_is_known_of_each_row(ugen, ugen_clock):
    fresh = lines_of(ugen)
    assert (fresh["a purchase"]["verdict"], "first purchase" in fresh["a purchase"]["advice"]) == ("note", True)
    assert fresh["profile.list_names"]["seen"] == "not testable for free: the account has no jobs yet"
    job_id = ugen.create()
    ugen_clock.advance_until_idle()
    after = lines_of(ugen)
    assert after["a purchase"]["seen"] == f"job {job_id} ended with a final video"
    rows = [line["seen"].partition(":")[0] for name, line in after.items() if name.startswith("profile.")]
    assert set(rows) == {"confirmed", "not testable for free"}
    assert rows.count("confirmed") > 8
    assert f"{rows.count('confirmed')} confirmed" in after["service profile"]["seen"]


def test_doctor_output_can_be_pasted(ugen, tmp_path):
    ugen.name_ledger()
    ugen("login", "--profile", "staging", given="ugen_sk_local\n")
    said = ugen("doctor", "--profile", "staging", code=None).output
    assert str(tmp_path) not in said
    assert "ugen_sk" not in said
