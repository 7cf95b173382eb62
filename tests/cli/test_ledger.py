# SPDX-License-Identifier: Apache-2.0
"""Which ledger a command uses, and what it does with one that is missing, foreign, another one or on a lost disk."""

import json
import shlex
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from ugen_provider.core.jobs.order import name_key, record_key
from ugen_provider.core.ledger.database import filesystem_of
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.store import Ledger

from .conftest import LAMP

EXAMPLE = Path(__file__).parents[2] / "examples" / "feed.xml"
RUN = ("--catalogue", "shop", "--budget", 5000, "--segment-count", 2)
JOB = "00000000-0000-4000-8000-000000000000"

COMMANDS = {
    "jobs create": ("jobs", "create", *LAMP),
    "jobs create --order": ("jobs", "create", "--order", "lamp", *LAMP),
    "feed run": ("feed", "run", EXAMPLE, *RUN),
    "feed check": ("feed", "check", EXAMPLE, "--catalogue", "shop", "--no-estimate", "--segment-count", 2),
    "ledger show": ("ledger", "show"),
    "ledger show --orders": ("ledger", "show", "--orders"),
    "ledger show --order": ("ledger", "show", "--order", "lamp"),
    "ledger export": ("ledger", "export", "shop", "--to", "videos.jsonl"),
    "ledger repair": ("ledger", "repair"),
    "ledger settle": ("ledger", "settle", "lamp", "--absent"),
    "reconcile": ("reconcile",),
    "jobs cancel": ("jobs", "cancel", JOB),
    "jobs resume": ("jobs", "resume", JOB),
    "jobs retry": ("jobs", "retry", JOB),
}
"""Every command that opens a ledger."""

OPTIONAL = {"feed check", "jobs cancel", "jobs resume", "jobs retry"}
"""Commands that continue without a ledger that the environment names and that cannot be opened, and report it."""


@pytest.fixture
def shm():
    """A folder on a temporary disk."""
    if filesystem_of(Path("/dev/shm")) != "tmpfs":
        pytest.skip("/dev/shm is no temporary disk here")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="ugen-test-"))
    yield folder
    shutil.rmtree(folder)


def foreign(path: Path) -> str:
    """Make the database of another application."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE dag_run (id INTEGER)")
        connection.commit()
    return str(path)


def no_database(path: Path) -> str:
    path.write_text("this is no database, and never was one")
    return str(path)


@pytest.fixture(params=["missing", "missing folder", "empty file", "foreign", "no database", "ephemeral"])
def unusable(request, tmp_path):
    """The address of a ledger that must not be used, and the sentence that says so."""
    path = tmp_path / "other.db"
    init = f"Create it with: ugen ledger init {shlex.quote(str(path))}"
    match request.param:
        case "missing":
            return str(path), init
        case "missing folder":
            path = tmp_path / "no such folder" / "l.db"
            return str(path), f"ugen ledger init {shlex.quote(str(path))}"
        case "empty file":
            path.touch()
            return str(path), init
        case "foreign":
            return foreign(path), init
        case "no database":
            return no_database(path), "file is not a database"
        case _:
            path = request.getfixturevalue("shm") / "l.db"
            Ledger.init(str(path), allow_ephemeral=True).close()
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("DELETE FROM ugen_meta WHERE name = 'allow_ephemeral'")
                connection.commit()
            return str(path), "ugen ledger init --allow-ephemeral"


def content(address: str) -> bytes | None:
    return Path(address).read_bytes() if Path(address).exists() else None


@pytest.mark.parametrize("name", COMMANDS)
def test_command_with_unusable_ledger_fails_with_remedy(ugen, unusable, name):
    address, says = unusable
    before = content(address)
    said = ugen(*COMMANDS[name], "--ledger", address, code=2)
    assert says in said.stderr
    assert content(address) == before
    assert not ugen.purchases


@pytest.mark.parametrize("name", COMMANDS)
def test_command_with_unusable_ledger_variable_fails_or_reports(ugen, unusable, name):
    address, says = unusable
    before = content(address)
    ugen.environ["UGEN_LEDGER"] = address
    said = ugen(*COMMANDS[name], code={"feed check": 0}.get(name, 3 if name in OPTIONAL else 2))
    assert says in said.stderr
    assert content(address) == before
    assert not ugen.purchases


@pytest.mark.parametrize("source", ["environment", "profile"])
@pytest.mark.parametrize("name", COMMANDS)
def test_command_with_another_ledger_id_fails(ugen, name, source, tmp_path):
    ugen.name_ledger()
    address = ugen.environ["UGEN_LEDGER"]
    if source == "environment":
        ugen.environ["UGEN_LEDGER_ID"] = "f" * 32
    else:
        del ugen.environ["UGEN_LEDGER"]
        folder = tmp_path / ".config" / "ugen"
        folder.mkdir(parents=True)
        config = f'default = "shop"\n[profiles.shop]\nledger = "{address}"\nledger_id = "{"f" * 32}"\n'
        (folder / "config.toml").write_text(config)
    said = ugen(*COMMANDS[name], code={"feed check": 0}.get(name, 3 if name in OPTIONAL else 2))
    assert "the task was begun with ledger ffff" in said.stderr or "has the id" in said.stderr
    assert not ugen.purchases


def test_a_profiles_ledger_id_does_not_count_elsewhere(ugen, tmp_path):
    folder = tmp_path / ".config" / "ugen"
    folder.mkdir(parents=True)
    config = 'default = "shop"\n[profiles.shop]\nledger = "x.db"\nledger_id = "ffff"\n'
    (folder / "config.toml").write_text(config)
    ugen.name_ledger()
    assert ugen.json("ledger", "show") == []


def test_feed_run_without_a_named_ledger_is_refused(ugen):
    said = ugen("feed", "run", EXAMPLE, *RUN, code=2)
    assert "ugen ledger init " in said.stderr
    assert not (ugen.home / ".local").exists()
    assert not ugen.purchases


def test_default_ledger_is_created_by_the_first_purchase_only(ugen):
    file = ugen.home / ".local" / "share" / "ugen" / "ledger.db"
    assert f"ugen ledger init {file}" in ugen("ledger", "show", code=2).stderr
    ugen("jobs", "cancel", JOB, code=3)
    ugen.real_time = True
    ugen("doctor")
    assert not file.parent.exists()
    ugen.real_time = False
    ugen.create("--order", "lamp")
    assert file.exists()
    assert file.stat().st_mode & 0o077 == 0
    assert [order["label"] for order in ugen.json("ledger", "show", "--orders")] == ["order 'lamp'"]


def test_default_ledger_on_a_temporary_disk_is_reported(ugen, shm):
    ugen.environ["XDG_DATA_HOME"] = str(shm)
    said = ugen("jobs", "create", "--order", "lamp", *LAMP)
    assert f"Mount a volume at {shm / 'ugen'}" in said.stderr
    assert ugen.create("--order", "lamp")
    assert len(ugen.purchases) == 1


def test_init_prints_the_id_and_the_next_command(ugen, tmp_path):
    made = ugen.json("ledger", "init", tmp_path / "my shop.db")
    assert made["next"] == f"export UGEN_LEDGER={shlex.quote(str(tmp_path / 'my shop.db'))}"
    with Ledger(str(tmp_path / "my shop.db")) as ledger:
        assert ledger.ledger_id == made["ledger_id"]
    again = ugen("ledger", "init", tmp_path / "my shop.db")
    assert made["ledger_id"] in again.stdout
    assert made["next"] in again.stderr


def test_init_refuses_a_temporary_disk_unless_it_is_accepted(ugen, shm):
    said = ugen("ledger", "init", shm / "l.db", code=2)
    assert "ugen ledger init --allow-ephemeral" in said.stderr
    assert not (shm / "l.db").exists()
    ugen("ledger", "init", shm / "l.db", "--allow-ephemeral")
    assert ugen.json("ledger", "show", "--ledger", shm / "l.db") == []


def test_init_refuses_the_file_of_another_application(ugen, tmp_path):
    address = foreign(tmp_path / "airflow.db")
    before = content(address)
    said = ugen("ledger", "init", address, code=2)
    assert "another application" in said.stderr
    assert content(address) == before


def test_init_of_postgresql_never_prints_the_password(ugen, postgres):
    url = postgres.replace("://postgres@", "://postgres:se%40cret@")
    assert "se%40cret" in url
    ugen.real_time = True
    said = [ugen("ledger", "init", url), ugen("ledger", "show", "--ledger", url)]
    ugen.environ["UGEN_LEDGER"] = url
    said.append(ugen("doctor"))
    ugen.environ["UGEN_LEDGER"] = url.replace("5432", "1")
    said += [ugen("doctor", code=6), ugen("ledger", "show", code=6), ugen("reconcile", code=6)]
    assert all("se%40cret" not in each.output and "se@cret" not in each.output for each in said)
    assert "postgres:***@" in said[0].stdout


def test_missing_postgresql_ledger_names_the_command(ugen, postgres):
    said = ugen("ledger", "show", "--ledger", postgres, code=2)
    assert "ugen ledger init " in said.stderr


def doctor(ugen):
    ugen.real_time = True
    return {line["name"]: line for line in ugen.json("doctor")}


def test_doctor_shows_id_location_and_disk(ugen, address):
    ledger_id = ugen.name_ledger(address)
    lines = doctor(ugen)
    assert ledger_id in lines["ledger"]["seen"]
    assert lines["ledger disk"]["verdict"] == "ok"
    if "://" not in address:
        assert Path(address).name in lines["ledger"]["seen"]  # the home folder is left out
        assert filesystem_of(Path(address).parent) in lines["ledger disk"]["seen"]


def test_doctor_warns_until_a_reconciler_ran(ugen, address):
    ugen.name_ledger(address)
    assert doctor(ugen)["reconciler"]["verdict"] == "note"
    ugen("reconcile")
    assert doctor(ugen)["reconciler"]["verdict"] == "ok"


def test_orders_are_shown_with_attempts_and_actions(ugen, address):
    ugen.name_ledger(address)
    job_id = ugen.create("--order", "lamp")
    ugen("jobs", "create", "--order", "lamp", *LAMP)
    ugen("jobs", "cancel", job_id)
    shown = ugen.one("ledger", "show", "--order", "lamp")
    assert (shown["job_id"], len(shown["attempts"])) == (job_id, 2)
    (action,) = shown["actions"]
    assert (action["kind"], action["reason"], action["state"]) == ("cancel", "cli", "confirmed")
    (row,) = ugen.json("ledger", "show", "--orders", "--kind", "name")
    assert row["actions"] == shown["actions"]
    assert ugen.json("ledger", "show", "--orders", "--kind", "task") == []
    plain = ugen("ledger", "show", "--order", shown["order_key"]).stdout
    assert "attempt: 2: ugen " in plain
    assert "1 orders of tasks" in ugen("ledger", "show").stderr
    assert "ledger show --orders" in ugen("ledger", "show", "--order", "no such", code=2).stderr


def test_order_of_an_earlier_version_is_imported_once(ugen):
    """Orders used to be files of the data folder, in the form of version 1."""
    import hashlib

    job_id = ugen.create("--order", "spring")
    base_url = ugen.environ["UGEN_BASE_URL"]
    order_key = record_key(name_key("spring"), origin=base_url)
    with Ledger(str(ugen.home / ".local/share/ugen/ledger.db")) as ledger:
        record = LedgerOrderStore(ledger).read(order_key)
    shutil.rmtree(ugen.home / ".local/share/ugen")
    older = {
        "scope": order_key, "generation": 0, "key": record.key, "body": dict(record.body), "written_at": 0.0,
        "fingerprint": record.fingerprint, "scheme": 1, "refused": False, "job_id": job_id, "holder": "host 1",
        "stage_retries": 0, "pending_retry": None, "regenerate": [], "action": None, "earlier": [], "armed": False,
    }  # fmt: skip
    folder = ugen.home / ".local/share/ugen/orders"
    folder.mkdir(parents=True)
    (folder / f"{hashlib.sha256(order_key.encode()).hexdigest()[:32]}.json").write_text(json.dumps(older))
    again = ugen.json("jobs", "create", "--order", "spring", *LAMP)
    assert (again["job_id"], again["outcome"]) == (job_id, "reattached")
    assert len(ugen.purchases) == 1
