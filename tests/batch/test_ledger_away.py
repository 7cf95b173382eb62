# SPDX-License-Identifier: Apache-2.0
"""The ledger's PostgreSQL crashes under a run: one error of ours says what to do, and the next run loses nothing."""

from __future__ import annotations

import asyncio
import pickle
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from tests.batch.conftest import Shop
from tests.batch.test_around import picture
from tests.torture.postgres import OwnPostgres, own_postgres
from ugen_provider.core.batch import PlanOptions, Report
from ugen_provider.core.batch.leases import product_store
from ugen_provider.core.batch.report import find_run, outcomes
from ugen_provider.core.batch.runs import LEASE
from ugen_provider.ledger import Ledger, LedgerUnavailableError

PASSWORD = "geheim"


@pytest.fixture(scope="module")
def server() -> Iterator[OwnPostgres]:
    with own_postgres() as made:
        yield made


@pytest.fixture
def database(server: OwnPostgres, request: pytest.FixtureRequest) -> Iterator[OwnPostgres]:
    """The server, empty, running, and running again after the test."""
    admin = sa.create_engine(server.url("psycopg"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text("DROP DATABASE IF EXISTS shop WITH (FORCE)"))
        connection.execute(sa.text("CREATE DATABASE shop"))
    admin.dispose()
    yield server
    if not server.running:
        server.start()


def address_of(database: OwnPostgres) -> str:
    return database.url("psycopg", "shop").replace("//postgres@", f"//postgres:{PASSWORD}@")


@pytest.fixture
def ledger(database: OwnPostgres) -> Iterator[Ledger]:
    with Ledger.init(address_of(database)) as made:
        yield made


@pytest.fixture
def shop(tmp_path: Path, local, ledger: Ledger) -> Shop:
    made = Shop(tmp_path, local, ledger)
    made.sells(*(f"p{number}" for number in range(6)))
    return made


def at(point: str, count: int, act: Callable[[], None]) -> Callable[[str], None]:
    """A probe that does something once, when a point is passed for the n-th time."""
    passed = 0

    def probe(name: str) -> None:
        nonlocal passed
        passed += name == point
        if name == point and passed == count:
            act()

    return probe


def at_the_first_write_to(ledger: Ledger, table: str, act: Callable[[], None]) -> None:
    """Act once, in the middle of a transaction."""
    left = [act]

    @event.listens_for(ledger.engine, "before_cursor_execute")
    def _(connection, cursor, statement: str, *rest) -> None:
        if statement.startswith(f"INSERT INTO {table}") and left:
            left.pop()()


def lost(shop: Shop, **options) -> LedgerUnavailableError:
    """The error that a run ended with; it names the ledger, the run and what to do, and holds no secret."""
    with pytest.raises(LedgerUnavailableError) as caught:
        asyncio.run(shop.runner(**options).run())
    error = caught.value
    assert error.run_id == "monday"
    assert "nothing is lost" in str(error)
    assert "'monday'" in str(error)
    assert error.ledger.startswith("postgresql+psycopg://postgres:***@127.0.0.1:")
    assert error.ledger in str(error)
    assert PASSWORD not in "".join(traceback.format_exception(error)) + repr(vars(error))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))
    return error


def continue_run(shop: Shop, **options) -> Report:
    """The next runner, once the leases of the one before have ended."""
    shop.ledger.now = lambda: time.time() + LEASE + 1.0
    return shop.run(**options)


@pytest.mark.parametrize(
    ("point", "count"),
    [("planned", 1), ("claimed", 1), ("before.record.write", 3), ("after.record.write", 3), ("after.create", 2),
     ("after.wait", 2), ("after.settle", 2)],
)  # fmt: skip
def test_a_run_that_loses_its_ledger_says_so_and_continues_later(shop, database, point, count):
    lost(shop, probe=at(point, count, database.crash))
    database.start()
    report = continue_run(shop)
    assert (report.completed, shop.local.created) == (6, 6)


def test_a_product_is_not_failed_by_a_short_ledger_outage(shop, database, ledger):
    def crash_and_be_back() -> None:
        database.crash()
        database.start()

    at_the_first_write_to(ledger, "ugen_order", crash_and_be_back)
    lost(shop)
    assert not [entry for entry in ledger.entries("shop") if entry.state == "failed"]
    report = continue_run(shop)
    assert (report.completed, shop.local.created) == (6, 6)


def test_ledger_loss_during_planning_rejects_no_row(shop, database, ledger, tmp_path):
    link = picture(tmp_path / "cup.png", "red")
    for product in shop.products.values():
        product["image_link"] = link
    shop.write()
    at_the_first_write_to(ledger, "ugen_picture_source", lambda: (database.crash(), database.start()))
    lost(shop, plan=PlanOptions(upload_pictures=True, picture_roots=(str(tmp_path),)))
    report = continue_run(shop, plan=PlanOptions(upload_pictures=True, picture_roots=(str(tmp_path),)))
    assert (report.rejected, report.completed) == (0, 6)


def test_the_error_that_stopped_a_run_survives_a_ledger_loss(shop, database):
    def give_up() -> None:
        database.crash()
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        asyncio.run(shop.runner(probe=at("after.create", 2, give_up)).run())


def test_a_ledger_that_does_not_answer_is_no_wrong_setting(database):
    database.crash()
    with pytest.raises(LedgerUnavailableError, match="does not answer") as caught:
        Ledger(address_of(database))
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert caught.value.run_id is None


def test_rows_that_are_read_one_by_one_say_it_too(shop, database, ledger):
    shop.run()
    run = find_run(ledger, ledger.find_catalogue("shop"), "monday")
    assert len(list(outcomes(ledger, run))) == 6
    database.crash()
    with pytest.raises(LedgerUnavailableError):
        list(outcomes(ledger, run))


def test_a_product_that_cannot_be_let_go_of_keeps_no_result_back(database, ledger, caplog):
    with product_store(ledger, catalogue="shop", product_id="p1") as store:
        assert store.read("nothing") is None
        database.crash()
    assert "p1" in caplog.text
