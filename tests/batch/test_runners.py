# SPDX-License-Identifier: Apache-2.0
"""Several runners on one ledger: they neither wait for each other, nor take a product twice, nor spend too much."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from tests.batch.conftest import Shop
from ugen_provider.core.batch import Budget, leases, runs
from ugen_provider.core.batch import runner as runner_module
from ugen_provider.core.batch.budget import BudgetShare, give_back_ended
from ugen_provider.core.batch.errors import BudgetUsedUpError
from ugen_provider.core.batch.leases import (
    LET_GO,
    ClaimPosition,
    ProductOrderStore,
    claim,
    heartbeat,
    release,
    reserve_under_lease,
)
from ugen_provider.core.batch.runs import Run
from ugen_provider.core.batch.worker import CreditReservation, ProductResult, settle
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.errors import LedgerUnavailableError
from ugen_provider.core.ledger.record import OrderRecord
from ugen_provider.core.ledger.store import Ledger

PRODUCTS = 600


@pytest.fixture
def ledger(address):
    with Ledger.init(address, allow_ephemeral=True) as made:
        yield made


@pytest.fixture
def on_postgresql(postgres):
    """Only PostgreSQL has several writers at a time."""
    with Ledger.init(postgres) as made:
        yield made


@pytest.fixture
def catalogue(ledger):
    return planned(ledger, PRODUCTS)


def planned(ledger, count, *, run=1):
    """A catalog whose run has this many planned products."""
    catalogue = ledger.catalogue(f"shop {run}")
    body = '{"product_name": "Cup"}'
    items = [
        {"run": run, "product_id": f"p{n}", "seq": n, "item": n, "why": "new", "fingerprint": "f", "body": body,
         "begun": n % 100 == 99, "state": "planned"}
        for n in range(count)
    ]  # fmt: skip
    products = [{"catalogue_id": catalogue.id, "product_id": item["product_id"]} for item in items]
    run_row = {"id": run, "catalogue_id": catalogue.id, "run_id": "r", "state": "planned", "created_at": 0.0}
    for table, rows in ((schema.run, [run_row]), (schema.product, products), (schema.item, items)):
        ledger.writer.run(lambda c, table=table, rows=rows: c.execute(sa.insert(table), rows))
    return catalogue


def run_of(catalogue, owner):
    return Run(int(catalogue.name.split()[-1]), catalogue, "r", owner)


def test_claim_takes_begun_products_first_then_by_plan(ledger, catalogue):
    claims = claim(ledger, run_of(catalogue, "a"), most=10)
    assert [each.product_id for each in claims] == [
        "p99",
        "p199",
        "p299",
        "p399",
        "p499",
        "p599",
        "p0",
        "p1",
        "p2",
        "p3",
    ]
    assert {each.token for each in claims} == {1}


def test_claims_of_eight_runners_share_the_products(ledger, catalogue):
    start = threading.Barrier(8)

    def runner(number):
        run = run_of(catalogue, f"runner {number}")
        start.wait()
        taken = []
        while claims := claim(ledger, run, most=16):
            taken += [each.product_id for each in claims]
        return taken

    with ThreadPoolExecutor(8) as pool:
        shares = list(pool.map(runner, range(8)))
    taken = [product_id for share in shares for product_id in share]
    assert len(taken) == len(set(taken))
    # A runner that found all free rows locked ends early; the next claim of any runner takes what is left.
    left = claim(ledger, run_of(catalogue, "last"), most=PRODUCTS)
    assert len(taken) + len(left) == PRODUCTS


def test_claim_while_another_runner_claims_does_not_wait(on_postgresql):
    ledger = on_postgresql
    catalogue = planned(ledger, PRODUCTS)
    other = Ledger(ledger.engine.url.render_as_string(hide_password=False))
    inside, ready = threading.Event(), threading.Event()

    def hold(connection):
        connection.execute(
            sa.select(schema.product).where(schema.product.c.product_id.in_(["p0", "p1", "p99"])).with_for_update()
        ).all()
        inside.set()
        assert ready.wait(60)

    with other, ThreadPoolExecutor(1) as pool:
        holding = pool.submit(other.writer.run_alone, hold)
        assert inside.wait(60)
        claims = claim(ledger, run_of(catalogue, "b"), most=7)
        ready.set()
        holding.result()
    assert [each.product_id for each in claims] == ["p199", "p299", "p399", "p499", "p599", "p2", "p3"]


def test_writer_repeats_what_the_database_gave_up_for_a_deadlock(on_postgresql):
    """Two processes that update the same two rows in opposite order: PostgreSQL ends one, and it is repeated."""
    ledger = on_postgresql
    planned(ledger, 3)
    both = threading.Barrier(2)
    tries = []

    def update(connection, product_id):
        table = schema.product
        connection.execute(sa.update(table).where(table.c.product_id == product_id).values(LET_GO))

    def opposite(first, second):
        def work(connection):
            tries.append(first)
            update(connection, first)
            if len(tries) <= 2:
                both.wait(60)
            update(connection, second)
            return first

        with Ledger(ledger.engine.url.render_as_string(hide_password=False)) as own:
            return own.writer.run(work)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(opposite, ("p1", "p2"), ("p2", "p1")))
    assert done == ["p1", "p2"]
    assert len(tries) == 3


def test_claims_of_a_runner_do_not_read_its_own_products_again(ledger, catalogue):
    run, position = run_of(catalogue, "a"), ClaimPosition()
    read = []
    sa.event.listen(ledger.engine, "before_cursor_execute", lambda *call: read.append("LIMIT" in call[2]))
    taken = []
    for _ in range(50):
        claims = claim(ledger, run, most=8, position=position)
        taken += [claimed.product_id for claimed in claims]
    assert len(set(taken)) == 400
    assert sum(read) <= 50 * 2
    # What becomes free behind its place is found at the end of the plan.
    free = {"p3", "p5", "p99"}
    table = schema.product
    ledger.writer.run(lambda c: c.execute(sa.update(table).where(table.c.product_id.in_(free)).values(LET_GO)))
    while claims := claim(ledger, run, most=64, position=position):
        taken += [claimed.product_id for claimed in claims]
    assert sorted(taken) == sorted([*(f"p{n}" for n in range(PRODUCTS)), *free])


def test_claim_without_statistics_reads_only_what_it_takes(on_postgresql):
    """PostgreSQL has no statistics of a new ledger; a claim must not read all planned items to find the begun ones."""
    catalogue = planned(on_postgresql, 5000)
    asked = []
    sa.event.listen(on_postgresql.engine, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
    claim(on_postgresql, run_of(catalogue, "a"), most=8)
    heads = [(statement, given) for statement, given in asked if "LIMIT" in statement]
    assert heads
    with on_postgresql.engine.connect() as connection:
        for statement, given in heads:
            plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", given))
            assert "Index Scan using ugen_item_claim" in plan
            assert "begun" in plan.partition("Index Cond:")[2].partition("\n")[0]


class Runner:
    """One runner of a run, with four products that it holds."""

    def __init__(self, ledger, catalogue, name, *, budget=None):
        self.ledger = ledger
        self.run = run_of(catalogue, name)
        self.spec = SimpleNamespace(budget=budget or Budget(credits=10_000, daily=10_000))
        self.share = BudgetShare(self.ledger, self.run, self.spec.budget)
        self.claims = claim(self.ledger, self.run, most=4)

    def reserved(self, claimed, cost=10):
        """The store of a product whose reservation is due."""
        store = ProductOrderStore(self.ledger, claimed.lease, is_claimed=True)
        store.reservation = CreditReservation(self, claimed, cost, on_committed=lambda: None)
        return store

    def record(self, claimed):
        """The record of a product that is about to be sent."""
        return OrderRecord(
            order_key=claimed.order_key, fingerprint="f", scheme=1, body={}, key="k", purchase_number=0, written_at=1.0,
            token=0, attempt=self.run.owner, maybe_bought=True,
        )  # fmt: skip

    def send(self, claimed):
        return self.reserved(claimed).write(self.record(claimed))


WRITES = {
    "claim": lambda runner: claim(runner.ledger, runner.run, most=2),
    "record": lambda runner: runner.send(runner.claims[1]),
    "job id": lambda runner: runner.reserved(runner.claims[0]).record_job_id(runner.sent, "job"),
    "retry": lambda runner: reserve_under_lease(
        runner.ledger,
        runner.claims[2].lease,
        reservation=CreditReservation(runner, runner.claims[2], 10, on_committed=lambda: None),
    ),
    "settle": lambda runner: settle(
        runner.ledger, runner.claims[0], ProductResult("completed", job_id="job", consumed=7, outcome="created")
    ),
    "heartbeat": lambda runner: heartbeat(runner.ledger, runner.run),
    "renew": lambda runner: runner.share.renew(),
    "postpone": lambda runner: runs.postpone_rest(runner.ledger, runner.run, reason="budget"),
    "reopen": lambda runner: runs.reopen_items(runner.ledger, runner.run),
    "release": lambda runner: release(runner.ledger, runner.run, reason="interrupted"),
}
"""Everything that runners write while they buy, except what is done once for many products: to take a share."""


ALONE = ["claim", "postpone", "reopen"]
"""What a runner does in transactions beside those of its own purchases, and where it locks several rows."""


@pytest.mark.parametrize("held", WRITES)
def test_write_beside_the_runners_own_waits_for_nothing(held, on_postgresql):
    wanted = WRITES if held in ALONE else [*ALONE, "heartbeat"]  # which passes over what is locked
    check_waits(on_postgresql, held, [name for name in wanted if name != held], is_same=True)


@pytest.mark.parametrize("held", WRITES)
def test_write_while_another_runner_commits_waits_for_nothing(held, on_postgresql):
    """A transaction that waits for no other is part of no deadlock, and makes no other runner slower."""
    check_waits(on_postgresql, held, WRITES, is_same=False)


def check_waits(on_postgresql, held, others, *, is_same):
    """Hold one kind of write at its commit, and let no other wait for it: of another runner, or of the same one."""
    # A statement that would wait for a lock fails at once.
    impatient = on_postgresql.engine.url.update_query_dict({"options": "-c lock_timeout=1ms"})
    with Ledger(impatient.render_as_string(hide_password=False)) as another, ThreadPoolExecutor(1) as pool:
        for number, wanted in enumerate(others, 1):
            catalogue = planned(on_postgresql, 20, run=number)
            first, second = Runner(on_postgresql, catalogue, "a"), Runner(another, catalogue, "b")
            second.sent = None
            if is_same:
                second.run, second.claims = first.run, first.claims
                second.share = BudgetShare(another, first.run, first.spec.budget)
            for runner in (first,) if is_same else (first, second):
                runner.sent = runner.send(runner.claims[0])  # both have taken a share of the budget
            second.sent = first.sent if is_same else second.sent
            with paused(on_postgresql) as (at_commit, go_on):
                holding = pool.submit(WRITES[held], first)
                assert at_commit.wait(60)
                try:
                    WRITES[wanted](second)
                except LedgerUnavailableError as error:
                    pytest.fail(f"{wanted} waits for {held}: {error}")
                finally:
                    go_on.set()
                holding.result()


@pytest.mark.parametrize("wanted", ["record", "retry", "settle"])
@pytest.mark.parametrize("held", ["record", "retry", "settle"])
def test_writes_that_begin_one_share_at_once_all_count(held, wanted, on_postgresql):
    """A product takes credits while another one of the same runner is settled, and the share was given back before."""
    catalogue = planned(on_postgresql, 20)
    with Ledger(on_postgresql.engine.url.render_as_string(hide_password=False)) as another:
        first, second = Runner(on_postgresql, catalogue, "a"), Runner(another, catalogue, "b")
        second.run, second.claims = first.run, first.claims[::-1]
        first.sent, second.sent = first.send(first.claims[0]), second.send(second.claims[0])
        for runner in (first, second):
            runner.share.give_back()
            runner.share = BudgetShare(runner.ledger, runner.run, runner.spec.budget)
        with paused(on_postgresql) as (at_commit, go_on), ThreadPoolExecutor(2) as pool:
            one = pool.submit(WRITES[held], first)
            assert at_commit.wait(60)
            two = pool.submit(WRITES[wanted], second)
            while not two.done() and not waiting_for_locks(on_postgresql):
                pass
            go_on.set()
            one.result(), two.result()
        first.share.give_back()
    booked = booked_of(on_postgresql)
    assert len(set(booked)) == 1, booked


def waiting_for_locks(ledger):
    """How many statements wait for a lock of PostgreSQL."""
    with ledger.engine.connect() as connection:
        return connection.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted"))


@contextmanager
def paused(ledger):
    """Yield two events: a transaction of this ledger is about to commit, and it may."""
    at_commit, go_on = threading.Event(), threading.Event()

    def pause(_connection):
        at_commit.set()
        assert go_on.wait(60)

    sa.event.listen(ledger.engine, "commit", pause)
    try:
        yield at_commit, go_on
    finally:
        sa.event.remove(ledger.engine, "commit", pause)


@pytest.mark.parametrize("limit", [{"credits": 100}, {"credits": 10_000, "daily": 100}], ids=["run", "day"])
def test_shares_of_runners_never_exceed_the_budget(limit, ledger, catalogue):
    runners = [Runner(ledger, catalogue, f"runner {n}", budget=Budget(**limit)) for n in range(4)]
    sent = []

    def buy(runner):
        for claimed in runner.claims:
            try:
                sent.append(runner.send(claimed))
            except BudgetUsedUpError:
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(buy, runners))
    assert len(sent) <= 10
    for runner in runners:
        runner.share.give_back()
    booked = len(sent) * 10
    assert booked_of(ledger) == (booked, booked, booked)


def booked_of(ledger):
    """What run, day and items have booked."""
    queries = (
        sa.select(schema.run.c.booked),
        sa.select(sa.func.coalesce(sa.func.sum(schema.day.c.booked), 0)),
        sa.select(sa.func.coalesce(sa.func.sum(schema.item.c.booked), 0)),
    )
    return tuple(ledger.read(lambda connection, query=query: connection.execute(query).scalar()) for query in queries)


def test_share_of_a_dead_runner_is_given_back_after_its_lease(ledger, catalogue):
    time = [ledger.now()]
    ledger.now = lambda: time[0]
    budget = Budget(credits=1000)
    died = Runner(ledger, catalogue, "died", budget=budget)
    died.send(died.claims[0])
    assert booked_of(ledger)[0] > 10  # more than its product needs
    other = Runner(ledger, catalogue, "other", budget=Budget(credits=booked_of(ledger)[0]))
    with pytest.raises(BudgetUsedUpError):
        other.send(other.claims[0])
    time[0] += 61
    other.claims = [claimed for claimed in claim(other.ledger, other.run, most=4) if claimed.record is None]
    other.send(other.claims[0])
    # It was not dead but slow: it takes a share anew, and spends nothing twice.
    died.claims = [claimed for claimed in claim(died.ledger, died.run, most=8) if claimed.record is None]
    died.send(died.claims[0])
    for runner in (died, other):
        runner.share.give_back()
    assert not give_back_ended(ledger)
    assert booked_of(ledger)[0] == booked_of(ledger)[2] == 30


def test_correction_of_anothers_booking_reaches_run_and_day(ledger, catalogue):
    first = Runner(ledger, catalogue, "first")
    first.send(first.claims[0])
    release(first.ledger, first.run, reason="stopped")
    first.share.give_back()
    runs.reopen(ledger, first.run)
    second = Runner(ledger, catalogue, "second")
    taken_up = next(claimed for claimed in second.claims if claimed.record is not None)
    settle(second.ledger, taken_up, ProductResult("completed", job_id="job", consumed=7, outcome="created"))
    second.share.give_back()
    assert booked_of(ledger) == (7, 7, 7)


def test_items_are_postponed_and_reopened_in_slices(ledger, monkeypatch):
    catalogue = planned(ledger, 250)
    monkeypatch.setattr(runs, "_SLICE", 100)
    run = run_of(catalogue, "a")
    held = claim(ledger, run, most=12)
    begun = len([claimed for claimed in held if int(claimed.product_id[1:]) % 100 == 99])
    assert runs.postpone_rest(ledger, run, reason="budget") == 250 - len(held) - (2 - begun)
    assert runs.open_items(ledger, run) == len(held) + 2 - begun
    runs.reopen(ledger, run)
    assert runs.open_items(ledger, run) == 250


def test_leases_are_renewed_while_every_write_of_the_run_waits(on_postgresql, local, tmp_path, monkeypatch):
    """Another session holds a table: the run's writes wait in one queue, and its heartbeats wait for none of them."""
    for module in (leases, runner_module):
        monkeypatch.setattr(module, "LEASE", 2.0)
    shop = Shop(tmp_path, local, on_postgresql)
    names = [f"p{number}" for number in range(20)]
    shop.sells(*names)
    held, renewed = threading.Event(), []

    def hold_once(point):
        if point == "before.record.write" and not held.is_set():
            holder.execute(sa.text("LOCK TABLE ugen_order IN SHARE MODE"))
            held.set()

    def watch():
        held.wait(60)
        seen = set()
        until = sa.select(sa.func.max(schema.product.c.lease_until)).where(schema.product.c.lease_owner.is_not(None))
        while len(seen) < 4 and not over.wait(0.05):  # the claim's own, and three heartbeats
            seen.add(on_postgresql.read(lambda connection: connection.execute(until).scalar()))
        renewed.append(len(seen))
        holder.rollback()

    over = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    with on_postgresql.engine.connect() as holder:
        giving_up = threading.Timer(30, over.set)
        giving_up.start()
        report = shop.run("monday", probe=hold_once)
        giving_up.cancel()
        watcher.join()
    assert renewed == [4]
    assert (report.completed, local.created) == (20, 20)
