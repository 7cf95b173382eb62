# SPDX-License-Identifier: Apache-2.0
"""A ledger is opened only where it was created, and never created in the database of another application."""

import sqlite3
from contextlib import closing

import pytest

from ugen_provider import ConfigError
from ugen_provider.core.ledger.store import Ledger, last_taken, release_lease, take_lease


def foreign(path, journal):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("CREATE TABLE dag_run (id INTEGER)")
        connection.commit()
    return path


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize("how", ["open", "init"])
def test_database_of_another_application_stays_unchanged(tmp_path, journal, how):
    path = foreign(tmp_path / "airflow.db", journal)
    before = path.read_bytes()
    message = "there is no ledger at" if how == "open" else "another application"
    with pytest.raises(ConfigError, match=message):
        Ledger(str(path)) if how == "open" else Ledger.init(str(path), allow_ephemeral=True)
    assert path.read_bytes() == before


def test_created_ledger_in_an_empty_file_opens(tmp_path):
    path = tmp_path / "l?#%20.db"
    path.touch()
    with pytest.raises(ConfigError, match="ugen ledger init"):
        Ledger(str(path))
    Ledger.init(str(path), allow_ephemeral=True).close()
    Ledger(str(path)).close()


def test_released_lease_is_free_for_the_next_owner(address):
    with Ledger.init(address, allow_ephemeral=True) as ledger:
        assert take_lease(ledger, "work", owner="a", seconds=100)
        release_lease(ledger, "work", owner="b")
        assert not take_lease(ledger, "work", owner="b", seconds=100)
        taken = last_taken(ledger, "work")
        release_lease(ledger, "work", owner="a")
        assert last_taken(ledger, "work") == taken
        assert take_lease(ledger, "work", owner="b", seconds=100)
