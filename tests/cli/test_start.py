# SPDX-License-Identifier: Apache-2.0
"""`ugen login` and `ugen init`: a key is checked before it is stored, nothing is overwritten, each starter runs."""

import ast
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ugen_provider.cli.start import STARTERS, with_entries
from ugen_provider.emulator.settings import LOCAL_KEY


@pytest.fixture
def newcomer(ugen, tmp_path, monkeypatch):
    """A home without a key."""
    monkeypatch.chdir(tmp_path)
    del ugen.environ["UGEN_API_KEY"]
    return ugen


def config(ugen):
    return ugen.home / ".config" / "ugen" / "config.toml"


def test_login_stores_a_checked_key_that_later_commands_use(newcomer):
    said = newcomer("login", given=f"{LOCAL_KEY}\n")
    assert LOCAL_KEY not in said.output
    assert "available: " in said.stdout
    assert "a video of 2 segments: " in said.stdout
    file = config(newcomer)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = tomllib.loads(file.read_text())
    base_url = newcomer.server.base_url
    assert written == {"default": "default", "profiles": {"default": {"api_key": LOCAL_KEY, "base_url": base_url}}}
    del newcomer.environ["UGEN_BASE_URL"]
    assert newcomer.json("credits", "balance")["available_credits"] > 0
    assert not newcomer.purchases


def test_login_says_what_a_first_video_costs(newcomer):
    data = newcomer("login", "--segment-count", 3, "--json", given=LOCAL_KEY)
    cost = newcomer.json("credits", "estimate", "--segment-count", 3)["total_credits"]
    assert f'"estimated_credits": {cost}' in data.stdout


@pytest.mark.parametrize(
    ("key", "code", "says"),
    [
        ("ugen_sk_wrong", 3, "refused the key; nothing was stored"),
        ("", 2, "no key was given; nothing was stored"),
        ("ugen sk", 2, "character that no key has"),
    ],
)
def test_login_stores_nothing_that_the_service_refuses(newcomer, key, code, says):
    said = newcomer("login", given=f"{key}\n", code=code)
    assert says in said.stderr
    assert not config(newcomer).exists()


def test_login_stores_nothing_without_an_answer(newcomer):
    newcomer.environ["UGEN_BASE_URL"] = "http://127.0.0.1:9/api/v1"
    assert "127.0.0.1:9" in newcomer("login", given=LOCAL_KEY, code=6).stderr
    assert not config(newcomer).exists()


def test_login_keeps_the_rest_of_the_file(newcomer):
    file = config(newcomer)
    file.parent.mkdir(parents=True)
    text = '# mine\ndefault = "shop"\n\n[profiles.shop]  # the shop\nnamespace = "a" # of the shop\n\n[profiles.b]\n'
    file.write_text(text)
    newcomer("login", given=LOCAL_KEY)
    assert "# mine" in file.read_text()
    assert "# of the shop" in file.read_text()
    profiles = tomllib.loads(file.read_text())["profiles"]
    assert profiles["shop"]["namespace"] == "a"
    assert profiles["shop"]["api_key"] == LOCAL_KEY
    assert profiles["b"] == {}
    newcomer("login", "--profile", "staging", given=LOCAL_KEY)
    assert tomllib.loads(file.read_text())["profiles"]["staging"]["api_key"] == LOCAL_KEY


def test_login_replaces_a_key_only_if_asked(newcomer):
    file = config(newcomer)
    file.parent.mkdir(parents=True)
    file.write_text('default = "a"\n[profiles.a]\napi_key = "ugen_sk_old"\n')
    file.chmod(0o600)
    said = newcomer("login", given=LOCAL_KEY, code=2)
    assert "another key; nothing was stored" in said.stderr
    assert "ugen_sk_old" in file.read_text()
    newcomer("login", "--replace", given=LOCAL_KEY)
    assert "ugen_sk_old" not in file.read_text()


def test_file_in_a_form_that_cannot_be_edited_stays(newcomer):
    file = config(newcomer)
    file.parent.mkdir(parents=True)
    text = 'default = "a"\nprofiles = {a = {namespace = "x"}}\n'
    file.write_text(text)
    said = newcomer("login", given=LOCAL_KEY, code=2)
    assert "cannot be edited here" in said.stderr
    assert file.read_text() == text


@pytest.mark.parametrize("name", ["a", "two words", 'quo"te', "a.b"])
def test_entries_are_set_for_each_name_of_a_profile(name):
    entries = {"api_key": 'k"', "base_url": "u"}
    text = with_entries("", name, entries)
    assert tomllib.loads(text) == {"profiles": {name: entries}}
    assert tomllib.loads(with_entries(text, name, {"api_key": "new"}))["profiles"][name]["api_key"] == "new"


def start(ugen, kind, *more):
    return ugen.json("init", kind, "--for", kind, "--segment-count", 1, "--budget", 5000, "--allow-ephemeral", *more)


@pytest.mark.parametrize("kind", STARTERS)
def test_init_writes_a_starter_and_a_profile_once(newcomer, tmp_path, kind):
    made = start(newcomer, kind)
    names = {*STARTERS[kind], "feed.xml", "videos.db"}
    assert {Path(path).name for path in made["written"]} == names
    for file in (tmp_path / kind).glob("*.py"):
        ast.parse(file.read_text())
        assert "$" not in file.read_text()
    written = tomllib.loads(config(newcomer).read_text())
    assert written["profiles"]["default"]["ledger"] == str(tmp_path / kind / "videos.db")
    before = {path: path.read_bytes() for path in (tmp_path / kind).iterdir()}
    said = newcomer("init", kind, "--for", kind, code=2)
    assert "exists already; nothing was written" in said.stderr
    assert {path: path.read_bytes() for path in (tmp_path / kind).iterdir()} == before


def test_init_overwrites_no_single_file(newcomer, tmp_path):
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "make_videos.py").write_text("# mine")
    newcomer("init", "python", "--for", "python", code=2)
    assert [path.name for path in (tmp_path / "python").iterdir()] == ["make_videos.py"]
    assert not config(newcomer).exists()


def test_init_without_a_terminal_names_the_missing_option(newcomer):
    assert "give --for: airflow, dagster, python" in newcomer("init", "x", code=2).stderr


def program(ugen, folder, *words):
    env = {**os.environ, **ugen.environ, "UGEN_API_KEY": LOCAL_KEY, "DAGSTER_HOME": str(folder / "home")}
    (folder / "home").mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python_starter_buys_once(ugen, tmp_path, monkeypatch, live_emulator):
    monkeypatch.chdir(tmp_path)
    ugen.environ["UGEN_BASE_URL"] = live_emulator.base_url
    start(ugen, "python")
    folder = tmp_path / "python"
    for _ in range(2):
        assert "completed            5" in program(ugen, folder, "make_videos.py")
    assert len(live_emulator.emulator.journal.find_purchases()) == 5
    assert len(list((folder / "videos").rglob("final.mp4"))) == 5


@pytest.fixture
def live_emulator():
    from ugen_provider.emulator.server import EmulatorServer
    from ugen_provider.emulator.settings import Settings

    with EmulatorServer(Settings(speed=600)) as server:
        yield server


def test_dagster_starter_buys_once(ugen, tmp_path, monkeypatch, live_emulator):
    pytest.importorskip("dagster")
    monkeypatch.chdir(tmp_path)
    ugen.environ["UGEN_BASE_URL"] = live_emulator.base_url
    start(ugen, "dagster")
    folder = tmp_path / "dagster"
    assert "5 new products" in program(ugen, folder, "add_partitions.py")
    for _ in range(2):
        program(ugen, folder, "-m", "dagster", "asset", "materialize", "-f", "definitions.py", "--select", "*",
                "--partition", "LL-1001")  # fmt: skip
    assert len(live_emulator.emulator.journal.find_purchases()) == 1


def test_airflow_starter_is_a_dag(ugen, tmp_path, monkeypatch):
    pytest.importorskip("airflow")
    monkeypatch.chdir(tmp_path)
    start(ugen, "airflow")
    file = tmp_path / "airflow" / "ugen_videos.py"
    module = {"__file__": str(file), "__name__": "starter"}
    exec(compile(file.read_text(), file.name, "exec"), module)
    dag = module["dag"]
    assert dag.dag_id == "shop_videos"
    (task,) = dag.tasks
    assert task.retries == 3
    assert task.budget == 5000
