# SPDX-License-Identifier: Apache-2.0
"""The store of orders in a ledger: tokens, conditional writes, actions, on both databases."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.core.jobs.test_purchase import order
from tests.core.local import Local
from ugen_provider import ConfigError
from ugen_provider.core.api.config import Secret
from ugen_provider.core.jobs.order import name_key
from ugen_provider.core.jobs.sync.purchase import purchase_and_wait
from ugen_provider.core.jobs.sync.world import World
from ugen_provider.core.ledger.database import engine_for
from ugen_provider.core.ledger.errors import AttemptSupersededError, LedgerUnavailableError
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.record import Action, OrderRecord, RecordSigner
from ugen_provider.core.ledger.store import Ledger
from ugen_provider.emulator.settings import Settings


def test_no_statement_is_prepared_for_a_connection(postgres):
    """A pooler such as PgBouncer gives the next transaction another connection, which does not know it."""
    engine = engine_for(postgres)
    with engine.begin() as connection:
        for _ in range(20):
            connection.execute(sa.text("SELECT 1 WHERE :a = 'a'"), {"a": "a"})
        assert connection.execute(sa.text("SELECT count(*) FROM pg_prepared_statements")).scalar() == 0
    engine.dispose()


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_no_order_is_bought_by_a_file_that_is_gone(tmp_path, change):
    """SQLite writes on into a deleted file; the next process would find no order, and buy again."""
    local = Local(Settings(speed=0, admin=True))
    path = tmp_path / "ledger.db"
    with local.client() as client, Ledger.init(str(path), allow_ephemeral=True) as opened:
        store = LedgerOrderStore(opened)
        purchase_and_wait(
            World(client, store), replace(order(name_key("first", namespace="")), attempt="1"), interval=5
        )
        path.rename(tmp_path / "old.db")
        if change == "replaced":
            Ledger.init(str(path), allow_ephemeral=True).close()
        with pytest.raises(LedgerUnavailableError, match=r"deleted or replaced|no such table"):
            purchase_and_wait(
                World(client, store), replace(order(name_key("second", namespace="")), attempt="1"), interval=5
            )
    assert local.created == 1


def test_a_damaged_file_ends_inside_the_error_tree(tmp_path):
    path = tmp_path / "ledger.db"
    with Ledger.init(str(path), allow_ephemeral=True) as opened:
        opened.engine.dispose()
        content = path.read_bytes()
        path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
        with pytest.raises(LedgerUnavailableError, match="malformed"):
            LedgerOrderStore(opened).read("an order")


def test_an_interrupted_write_keeps_no_other_thread_waiting(tmp_path):
    """Ctrl-C reaches the thread that commits for all; the others neither wait for it nor believe that it is done."""
    ready = threading.Event()

    def interrupted(_connection):
        raise KeyboardInterrupt

    def count(connection):
        return connection.execute(sa.text("SELECT 7")).scalar()

    with Ledger.init(str(tmp_path / "ledger.db"), allow_ephemeral=True) as opened, ThreadPoolExecutor(3) as pool:
        run = opened.writer.run
        first = pool.submit(run, lambda connection: ready.wait(30) and count(connection))
        together = [pool.submit(run, work) for work in (interrupted, count)]
        while len(opened.writer._waiting) < 2:
            threading.Event().wait(0.01)
        ready.set()
        assert first.result(30) == 7
        assert {type(one.exception(30)) for one in together} == {KeyboardInterrupt, LedgerUnavailableError}
        assert run(count) == 7


@pytest.fixture
def ledger(address):
    with Ledger.init(address, allow_ephemeral=True) as made:
        yield made


@pytest.fixture
def store(ledger):
    return LedgerOrderStore(ledger)


def record(attempt="one", **more):
    fields = {"order_key": "o", "purchase_number": 0, "key": "k", "body": {"a": 1}, "fingerprint": "f", "scheme": 1}
    return OrderRecord(**{**fields, "written_at": 1.0, "attempt": attempt, **more})


def test_take_token_gives_each_attempt_a_higher_one(store):
    store.write(record())
    tokens = [store.take_token("o", name).token for name in ("one", "two", "two", "three")]
    assert tokens == [1, 2, 2, 3]
    assert store.token_of("o", "two") == 2
    assert store.token_of("o", "never") is None


def test_take_token_of_an_older_attempt_is_refused(store):
    store.write(record())
    store.take_token("o", "two")
    with pytest.raises(AttemptSupersededError) as caught:
        store.take_token("o", "one")
    assert (caught.value.newest, caught.value.attempt) == ("two", "one")


def test_write_of_an_older_attempt_changes_nothing(store):
    old = store.write(record())
    new = store.take_token("o", "two")
    with pytest.raises(AttemptSupersededError):
        store.write(replace(old, job_id="zombie"))
    assert store.read("o") == new


def test_write_of_a_new_record_by_two_attempts_keeps_the_first(store):
    store.write(record())
    with pytest.raises(AttemptSupersededError):
        store.write(record("two"))
    assert store.read("o").attempt == "one"


def test_take_token_by_many_threads_gives_each_its_own(store):
    store.write(record())
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda number: store.take_token("o", f"attempt {number}").token, range(40)))
    assert sorted(tokens) == list(range(2, 42))


def test_record_job_id_of_an_older_attempt_is_kept(store):
    old = store.write(record(maybe_bought=True))
    new = store.take_token("o", "two")
    store.record_job_id(old, "j1")
    assert store.read("o").job_id == "j1"
    # The newer attempt read the record before: its next write does not erase the answer.
    assert store.write(replace(new, sent_at=2.0)).job_id == "j1"


def test_record_job_id_of_an_earlier_purchase_is_listed(store):
    first = store.write(record(maybe_bought=True))
    store.write(replace(first, purchase_number=1, key="k1", earlier=("",)))
    store.record_job_id(first, "late")
    stored = store.read("o")
    assert (stored.job_id, stored.earlier) == (None, ("late",))


def test_actions_are_appended_and_folded(store):
    store.write(record(job_id="j"))
    first = store.append_action(Action("o", 0, "j", "cancel", "kill", 1, 1.0))
    second = store.append_action(Action("o", 0, "j", "pause", "gate", 1, 2.0, state="confirmed", expires_at=50.0))
    store.mark_action(first, "sent")
    assert [(each.kind, each.state) for each in store.actions("o")] == [("cancel", "sent"), ("pause", "confirmed")]
    assert [each.kind for each in store.owed_actions(now=10.0)] == ["cancel"]
    assert [each.kind for each in store.owed_actions(now=60.0)] == ["cancel", "pause"]
    store.mark_action(first, "confirmed")
    store.mark_action(second, "withdrawn")
    assert store.owed_actions(now=60.0) == ()


def test_older_record_is_imported_once(ledger):
    asked = []

    def find(order_key):
        asked.append(order_key)
        return record(job_id="j", token=7) if order_key == "o" else None

    store = LedgerOrderStore(ledger, older=[find])
    assert store.read("o").job_id == "j"
    assert store.take_token("o", "next").token == 2
    assert store.read("o").job_id == "j"
    assert store.read("unknown") is None
    assert asked == ["o", "unknown"]


def test_read_verified_believes_only_its_own_secrets(ledger):
    old, new = RecordSigner(Secret("old")), RecordSigner(Secret("new"), previous=(Secret("old"),))
    LedgerOrderStore(ledger, signer=old).write(record())
    assert LedgerOrderStore(ledger, signer=new).read_verified("o") is not None
    assert LedgerOrderStore(ledger, signer=RecordSigner(Secret("other"))).read_verified("o") is None
    # One that was changed by another user of the database has no valid signature.
    ledger.writer.run(
        lambda c: c.execute(sa.text("UPDATE ugen_order SET document = replace(document, '\"a\"', '\"b\"')"))
    )
    assert LedgerOrderStore(ledger, signer=old).read_verified("o") is None


def test_purchase_adds_at_most_two_commits(ledger):
    commits = []
    sa.event.listen(ledger.engine, "commit", lambda _: commits.append(1))
    local = Local(Settings(speed=0, admin=True))
    with local.client() as client:
        purchase_and_wait(World(client, LedgerOrderStore(ledger)), order())
    assert len(commits) <= 2
    assert local.created == 1


def test_ledger_is_opened_only_where_it_exists(tmp_path):
    path = tmp_path / "my shop" / "ledger.db"
    with pytest.raises(ConfigError, match="ugen ledger init") as caught:
        Ledger(str(path))
    assert f"'{path}'" in str(caught.value)
    assert not path.parent.exists()
    with Ledger.init(str(path), allow_ephemeral=True) as made, Ledger(str(path)) as opened:
        assert opened.ledger_id == made.ledger_id
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_ledger_with_another_id_is_refused(ledger, address):
    with pytest.raises(ConfigError, match="another ledger could be bought twice"):
        Ledger(address, expected_id="0" * 32)


@pytest.mark.parametrize("kind", ["overlay", "tmpfs"])
def test_ledger_on_an_ephemeral_disk_needs_consent(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("ugen_provider.core.ledger.database.filesystem_of", lambda path: kind)
    path = str(tmp_path / "ledger.db")
    with pytest.raises(ConfigError, match=f"temporary disk \\({kind}\\).*--allow-ephemeral"):
        Ledger.init(path)
    Ledger.init(path, allow_ephemeral=True).close()
    Ledger(path).close()  # the consent is remembered


def test_default_ledger_on_an_ephemeral_disk_warns(tmp_path, monkeypatch):
    from ugen_provider.ledger import EphemeralLedgerWarning, open_default_ledger

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("UGEN_LEDGER", raising=False)
    monkeypatch.setattr("ugen_provider.core.ledger.database.filesystem_of", lambda path: "overlay")
    with pytest.warns(EphemeralLedgerWarning, match="Mount a volume at"):
        open_default_ledger().close()


def test_connection_to_postgresql_notices_a_silent_network(postgres):
    """Without limits a connection that a firewall dropped holds every write of a process for a quarter of an hour."""
    url = sa.engine.make_url(postgres)
    for given, expected in (({}, "10"), ({"connect_timeout": "3"}, "3")):
        engine = engine_for(url.update_query_dict(given).render_as_string(hide_password=False))
        with engine.connect() as connection:
            parameters = connection.connection.dbapi_connection.info.get_parameters()
        assert parameters["connect_timeout"] == expected
        assert int(parameters["tcp_user_timeout"]) <= 20_000
        assert sum(int(parameters[f"keepalives_{name}"]) for name in ("idle", "interval")) <= 20
        engine.dispose()
