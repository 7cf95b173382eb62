# SPDX-License-Identifier: Apache-2.0
"""The password of a ledger is in no frame that an error leaves, and in no text of an error."""

import socket

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from tests.leaks import leaks
from ugen_provider.core.api.config import Secret
from ugen_provider.core.api.errors import UGenError
from ugen_provider.ledger import Ledger

PASSWORD = "a-pa55word-of-the-database"


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


ADDRESSES = {
    "refused": lambda: f"postgresql://ugen:{PASSWORD}@127.0.0.1:{closed_port()}/ugen",
    "host-unknown": lambda: f"postgresql://ugen:{PASSWORD}@no-such-host.invalid/ugen",
    "password-in-options": lambda: f"postgresql://ugen@127.0.0.1:{closed_port()}/ugen?password={PASSWORD}",
    "option-unknown": lambda: f"postgresql://ugen:{PASSWORD}@127.0.0.1:{closed_port()}/ugen?nonsense=1",
    "port-wrong": lambda: f"postgresql://ugen:{PASSWORD}@127.0.0.1:port/ugen",
    "driver-unknown": lambda: f"postgresql+nonsense://ugen:{PASSWORD}@127.0.0.1/ugen",
    "database-unsupported": lambda: f"mysql://ugen:{PASSWORD}@127.0.0.1/ugen",
    "sqlite-with-login": lambda: f"sqlite://ugen:{PASSWORD}@host/shop.db",
}
WAYS = {"open": Ledger, "init": Ledger.init}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ADDRESSES)
def test_no_frame_of_a_failed_open_holds_the_password(kind, way):
    address = Secret(ADDRESSES[kind]())
    with pytest.raises(UGenError) as caught:
        WAYS[way](address)
    assert leaks(caught.value, PASSWORD, own=__file__) == []


@pytest.mark.parametrize("kind", ["no-ledger", "other-ledger", "newer-ledger", "gone"])
def test_no_frame_of_an_unsuitable_ledger_holds_the_password(postgres, kind):
    """PostgreSQL on loopback trusts its users, so that any password leads to the database."""
    address = Secret(make_url(postgres).set(password=PASSWORD).render_as_string(hide_password=False))

    def use():
        if kind == "no-ledger":
            Ledger(address)
        with Ledger.init(address) as ledger:
            if kind == "newer-ledger":
                ledger.writer.run(lambda connection: connection.execute(sa.text("UPDATE ugen_meta SET value = '9999'")))
                Ledger(address)
            if kind == "gone":
                ledger.engine.dispose()
                server = make_url(postgres)
                with sa.create_engine(server.set(database="postgres"), isolation_level="AUTOCOMMIT").connect() as admin:
                    admin.execute(sa.text(f"ALTER DATABASE {server.database} ALLOW_CONNECTIONS false"))
                ledger.catalogue("shop")
        Ledger(address, expected_id="another")

    with pytest.raises(UGenError) as caught:
        use()
    assert leaks(caught.value, PASSWORD, own=__file__) == []


def test_the_password_is_seen_where_a_frame_holds_it():
    url = make_url(f"postgresql://u:{PASSWORD}@127.0.0.1:{closed_port()}/d")
    pytest.importorskip("psycopg")
    with pytest.raises(sa.exc.OperationalError) as caught:
        sa.create_engine(url.set(drivername="postgresql+psycopg")).connect()
    assert leaks(caught.value, PASSWORD, own=__file__) != []
