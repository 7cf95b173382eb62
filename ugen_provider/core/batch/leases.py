# SPDX-License-Identifier: Apache-2.0
"""Leases of products, and the orders that are kept and sent under them.

A lease has an owner, an end and a token. A worker that lost it writes and sends nothing; nor does one whose credits the
budget does not cover.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

import sqlalchemy as sa

from ugen_provider.core.batch.errors import LeaseLostError
from ugen_provider.core.batch.runs import LEASE, Run
from ugen_provider.core.jobs.order import OrderKey, product_key, record_key
from ugen_provider.core.jobs.threads import in_ledger_thread
from ugen_provider.core.jobs.watcher import JobWatcher, WatchedWorld
from ugen_provider.core.jobs.world import CHANGES_JOB
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.errors import LedgerUnavailableError
from ugen_provider.core.ledger.orders import LedgerOrderStore, ProductRow
from ugen_provider.core.ledger.record import OrderRecord, shown_id, split_row_id
from ugen_provider.core.ledger.store import Catalogue, Ledger, among, change, insert_new

ItemState = Literal["completed", "failed", "postponed", "running"]
LET_GO: Mapping[str, Any] = {"lease_owner": None, "lease_until": 0.0}
"""A product's columns while no worker holds its lease."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Lease of one product; the token distinguishes it from every other, also of the same owner.

    Attributes:
        catalogue_id: In the ledger.
        product_id: The product in its variant, as the ledger names it.
        owner: Who works on it.
        token: Of this lease.
    """

    catalogue_id: int
    product_id: str
    owner: str
    token: int

    @property
    def row(self) -> dict[str, object]:
        """Where the product's row is only while this lease holds."""
        return {
            "catalogue_id": self.catalogue_id,
            "product_id": self.product_id,
            "lease_owner": self.owner,
            "lease_token": self.token,
        }

    def lost(self) -> LeaseLostError:
        """Return what is raised where the row is not there."""
        return LeaseLostError(f"product {shown_id(self.product_id)} was taken over by another; nothing was sent")


@dataclass(frozen=True, slots=True)
class Claim:
    """One product of a plan, ours to buy until the lease ends.

    Attributes:
        run: Of which run.
        product_id: The product in its variant, as the ledger names it.
        token: Of the lease.
        fingerprint: Of the request.
        body: The request, without key.
        picture: Address of a picture to upload first.
        picture_digest: Its content's digest.
        record: The order's record, where there is one.
        booked: Credits booked for it in this run already.
        why: `new`, `changed`, `again` or `regenerate`.
        suggest: Fields that the service suggests before the purchase.
    """

    run: Run
    product_id: str
    token: int
    fingerprint: str
    body: Mapping[str, Any] = field(repr=False)
    picture: str | None
    picture_digest: str | None
    record: OrderRecord | None
    booked: int | None
    why: str
    suggest: tuple[str, ...] = ()

    @property
    def lease(self) -> Lease:
        """Lease under which this runner works on the product."""
        return Lease(self.run.catalogue.id, self.product_id, self.run.owner, self.token)

    @property
    def order_key(self) -> str:
        """The key of the order's record."""
        return order_key_of(self.run.catalogue, self.product_id, self.fingerprint)

    @property
    def has_job(self) -> bool:
        """Whether taking it up costs nothing, since its job is known."""
        return self.record is not None and self.record.job_id is not None


@dataclass(slots=True)
class ClaimPosition:
    """How far a runner's claims have come in the plan, so that the next one does not read its own products again.

    Attributes:
        after: The place in the plan of the newest product that was claimed; -1 at the beginning.
    """

    after: int = -1


def claim(ledger: Ledger, run: Run, *, most: int, position: ClaimPosition | None = None) -> list[Claim]:
    """Take products of the plan that no runner holds, begun ones first, since they cost nothing more.

    It takes as long for a million planned products as for a hundred, and runners do not wait for each other.

    Args:
        ledger: Where.
        run: Of which run, and for which owner.
        most: How many.
        position: Where the runner's earlier claims ended; default: the beginning of the plan. The search goes from
            there to the end of the plan, and then on from its beginning.
    """
    position = position or ClaimPosition()

    def work(connection: sa.Connection) -> tuple[list[Claim], int]:
        rows, after = _open_items(connection, ledger, run, most=most, after=position.after)
        return (_take_all(connection, ledger, run, rows) if rows else []), after

    claims, position.after = ledger.writer.run_alone(work)
    return claims


_WIDEST = 1024
_PRODUCT, _ITEM, _ORDER = schema.product, schema.item, schema.order
_FREE = sa.or_(_PRODUCT.c.lease_owner.is_(None), _PRODUCT.c.lease_until < sa.bindparam("now", type_=sa.Float))
_HEADS = (
    sa.select(_ITEM)
    .where(
        _ITEM.c.run == sa.bindparam("run"),
        _ITEM.c.state == "planned",
        _ITEM.c.begun == sa.bindparam("begun", type_=sa.Boolean),
        _ITEM.c.seq > sa.bindparam("after"),
    )
    .order_by(_ITEM.c.seq)
    .limit(sa.bindparam("most"))
)
_THIS_PRODUCT = (
    _PRODUCT.c.catalogue_id == sa.bindparam("catalogue"),
    _PRODUCT.c.product_id == sa.bindparam("product"),
)
_TAKE = (
    sa.update(_PRODUCT)
    .where(*_THIS_PRODUCT, _FREE)
    .values(
        lease_owner=sa.bindparam("owner"),
        lease_token=_PRODUCT.c.lease_token + 1,
        lease_until=sa.bindparam("until"),
    )
)
_TOKEN = sa.select(_PRODUCT.c.lease_token).where(*_THIS_PRODUCT)


def _open_items(connection: sa.Connection, ledger: Ledger, run: Run, *, most: int, after: int) -> tuple[list[Any], int]:
    """Read planned items whose products are free, in the order of the plan, and lock those products.

    Each statement reads a slice of an index, so that its cost depends neither on the number of planned items nor on the
    database's statistics. Items of products that are held are passed over, at most as many as are in flight.

    Returns:
        The items, and the place of the newest one that was not begun.
    """
    rows, _ = _search(connection, ledger, run, begun=True, after=-1, until=None, most=most)
    found, newest = _search(connection, ledger, run, begun=False, after=after, until=None, most=most - len(rows))
    rows += found
    if len(rows) < most and after >= 0:
        # The end of the plan: products before this runner's place may be free again.
        found, newest = _search(connection, ledger, run, begun=False, after=-1, until=after, most=most - len(rows))
        rows += found
    return rows, newest


def _search(
    connection: sa.Connection, ledger: Ledger, run: Run, *, begun: bool, after: int, until: int | None, most: int
) -> tuple[list[Any], int]:
    """Search a part of the plan; return the items, and the place of the last one, or `after` where there is none."""
    rows: list[Any] = []
    place, window = after, most
    while len(rows) < most:
        asked = {"run": run.id, "begun": begun, "after": place, "most": window}
        read: list[Any] = list(connection.execute(_HEADS, asked))
        heads = read if until is None else [row for row in read if row.seq <= until]
        if heads:
            rows += _locked(connection, ledger, run, heads, most=most - len(rows))
            place = heads[-1].seq
        if len(heads) < window:
            break
        window = min(2 * window, _WIDEST)
    return rows, rows[-1].seq if rows else after


def _locked(connection: sa.Connection, ledger: Ledger, run: Run, heads: list[Any], *, most: int) -> list[Any]:
    """Lock the first free products of these items; another runner passes over them instead of waiting."""
    now = {"now": ledger.now()}
    names = [row.product_id for row in heads]
    found = set(connection.execute(_free(connection, run, names), now).scalars())
    left = [row for row in heads if row.product_id in found]
    if connection.dialect.name == "sqlite":
        return left[:most]  # SQLite has one writer at a time
    rows: list[Any] = []
    while left and len(rows) < most:
        wanted = left[: most - len(rows)]
        left = left[len(wanted) :]
        locking = _free(connection, run, [row.product_id for row in wanted]).with_for_update(skip_locked=True)
        locked = set(connection.execute(locking, now).scalars())
        # Its item too: another runner may postpone or reopen it at this moment.
        this = (_ITEM.c.run == run.id, _ITEM.c.state == "planned", among(connection, _ITEM.c.product_id, locked))
        planned = sa.select(_ITEM.c.product_id).where(*this).with_for_update(skip_locked=True)
        locked = set(connection.execute(planned).scalars()) if locked else locked
        rows += [row for row in wanted if row.product_id in locked]
    return rows


def _free(connection: sa.Connection, run: Run, names: list[str]) -> Any:
    these = (_PRODUCT.c.catalogue_id == run.catalogue.id, among(connection, _PRODUCT.c.product_id, names))
    return sa.select(_PRODUCT.c.product_id).where(*these, _FREE)


def _take_all(connection: sa.Connection, ledger: Ledger, run: Run, rows: list[Any]) -> list[Claim]:
    """Lease the products of these items, and read what another run may have made of them meanwhile."""
    now = ledger.now()
    items = {row.product_id: row for row in rows}
    here = sa.and_(_PRODUCT.c.catalogue_id == run.catalogue.id, among(connection, _PRODUCT.c.product_id, items))
    taken = sa.update(_PRODUCT).where(here, _FREE)
    leased = {"lease_owner": run.owner, "lease_token": _PRODUCT.c.lease_token + 1, "lease_until": now + LEASE}
    connection.execute(taken.values(leased), {"now": now})
    item_of = sa.and_(_ITEM.c.run == run.id, _ITEM.c.product_id == _PRODUCT.c.product_id)
    mine = sa.select(_PRODUCT, _ITEM.c.state.label("item_state")).join(_ITEM, item_of)
    mine = mine.where(here, _PRODUCT.c.lease_owner == run.owner)
    products = {row.product_id: row for row in connection.execute(mine)}
    keys = {name: order_key_of(run.catalogue, name, items[name].fingerprint) for name in products}
    known = sa.select(_ORDER.c.order_key, _ORDER.c.document).where(
        among(connection, _ORDER.c.order_key, set(keys.values()))
    )
    documents = {row.order_key: row.document for row in connection.execute(known)}
    claims = []
    for name, item in items.items():
        product = products.get(name)
        if product is None:
            continue
        if product.item_state != "planned" or _is_done(product, item):  # another runner finished it meanwhile
            _pass_over(connection, ledger, run, product)
        else:
            claims.append(_claim_of(run, item, product.lease_token, documents.get(keys[name])))
    fresh = [claim.product_id for claim in claims if items[claim.product_id].started_at is None]
    if fresh:
        these = sa.and_(_ITEM.c.run == run.id, among(connection, _ITEM.c.product_id, fresh))
        connection.execute(sa.update(_ITEM).where(these).values(started_at=now))
    return claims


def _is_done(product: Any, item: Any) -> bool:
    same = product.state == "completed" and product.fingerprint == item.fingerprint
    return same and item.why in {"new", "changed"}


def _pass_over(connection: sa.Connection, ledger: Ledger, run: Run, product: Any) -> None:
    reused = {"state": "completed", "outcome": "reused", "job_id": product.job_id, "score": product.score}
    this = {"run": run.id, "product_id": product.product_id, "state": "planned"}
    change(connection, _ITEM, {**reused, "finished_at": ledger.now()}, where=this)
    lease = Lease(run.catalogue.id, product.product_id, run.owner, product.lease_token)
    change(connection, _PRODUCT, LET_GO, where=lease.row)


def _claim_of(run: Run, item: Any, token: int, document: str | None) -> Claim:
    return Claim(
        run=run,
        product_id=item.product_id,
        token=token,
        fingerprint=item.fingerprint,
        body=json.loads(item.body),
        picture=item.picture,
        picture_digest=item.picture_digest,
        record=OrderRecord.from_dict(json.loads(document)) if document is not None else None,
        booked=item.booked,
        why=item.why,
        suggest=tuple(item.suggest.split()) if item.suggest else (),
    )


def take(connection: sa.Connection, ledger: Ledger, catalogue_id: int, product_id: str, *, owner: str) -> Lease | None:
    """Take a product that no process holds; None where another one does."""
    now = ledger.now()
    this = {"catalogue": catalogue_id, "product": product_id}
    if connection.execute(_TAKE, {**this, "owner": owner, "until": now + LEASE, "now": now}).rowcount != 1:
        return None
    token = connection.execute(_TOKEN, this).scalar_one()
    return Lease(catalogue_id, product_id, owner, token)


def heartbeat(ledger: Ledger, run: Run) -> None:
    """Hold on to everything that is claimed by this runner, in a transaction that waits for no other write of it.

    A product that another transaction has locked is passed over: while it is locked no claim takes it either.
    """
    mine = _PRODUCT.c.lease_owner == run.owner

    def work(connection: sa.Connection) -> None:
        these = mine
        if connection.dialect.name != "sqlite":  # which has one writer at a time
            key = (_PRODUCT.c.catalogue_id, _PRODUCT.c.product_id)
            these = sa.tuple_(*key).in_(sa.select(*key).where(mine).with_for_update(skip_locked=True))
        connection.execute(sa.update(_PRODUCT).where(these).values(lease_until=ledger.now() + LEASE))

    # Beside this runner's other writes: they may wait for a lock, and passing over locked products cannot deadlock.
    ledger.writer.run_alone(work)


def hold(connection: sa.Connection, ledger: Ledger, lease: Lease) -> None:
    """Renew the lease, and make sure that it still is ours.

    Raises:
        LeaseLostError: It is not.
    """
    if change(connection, schema.product, {"lease_until": ledger.now() + LEASE}, where=lease.row) != 1:
        raise lease.lost()


def release(ledger: Ledger, run: Run, *, reason: str) -> bool:
    """Let go of everything that this runner holds, as when it is stopped: others may continue at once.

    A product that may have been bought counts as running; one that was not begun is unchanged.

    Returns:
        Whether other runners work on the catalogue.
    """
    item, product, order = schema.item, schema.product, schema.order

    def work(connection: sa.Connection) -> bool:
        mine = (product.c.catalogue_id == run.catalogue.id, product.c.lease_owner == run.owner)
        begun = sa.select(order.c.product_id).where(
            order.c.catalogue_id == run.catalogue.id,
            order.c.product_id == item.c.product_id,
            order.c.fingerprint == item.c.fingerprint,
        )
        connection.execute(
            sa.update(item)
            .where(
                item.c.run == run.id,
                item.c.state == "planned",
                item.c.product_id.in_(sa.select(product.c.product_id).where(*mine)),
                begun.correlate(item).exists(),
            )
            .values(state="running", reason=reason, begun=True)
        )
        connection.execute(sa.update(product).where(*mine).values(LET_GO))
        others = sa.select(sa.func.count()).where(
            product.c.catalogue_id == run.catalogue.id,
            product.c.lease_owner.is_not(None),
            product.c.lease_until >= ledger.now(),
        )
        return bool(connection.execute(others).scalar_one())

    return ledger.writer.run(work)


def key_of(catalogue: Catalogue, name: str) -> OrderKey:
    """Return the key of the order of a product in its variant, by its name in the ledger."""
    product_id, variant = split_row_id(name)
    return product_key(catalogue=catalogue.name, product_id=product_id, variant=variant, namespace=catalogue.namespace)


def order_key_of(catalogue: Catalogue, name: str, digest: str) -> str:
    """Return the key of the record of that order."""
    return record_key(key_of(catalogue, name), fingerprint=digest, origin=catalogue.origin)


T = TypeVar("T")
_log = logging.getLogger("ugen_provider.batch")
_REQUESTS = frozenset({*CHANGES_JOB, "get", "list", "search", "estimate", "transactions", "keyframes", "videos"})


class Reservation(Protocol):
    """The credits of one product, reserved once before each request that costs."""

    def is_due(self, point: str) -> bool:
        """Return whether the request of this name is not covered yet."""
        ...

    def covered(self, write: Callable[[], T]) -> T:
        """Do a write that calls `reserve` in its transaction; raises where the budget does not cover the credits."""
        ...

    def reserve(self, connection: sa.Connection) -> None:
        """Reserve its credits; raises where the budget does not cover them."""
        ...

    def committed(self) -> None:
        """Note that the reservation is on disk."""
        ...


class ProductOrderStore(LedgerOrderStore):
    """The order of one product, under a lease: each write renews the lease, or fails if it is lost.

    Args:
        ledger: Where.
        lease: The right to work on the product.
        known: The order's record, if it was read together with the lease; no other worker can have written it since.
        is_claimed: Whether `known` is all that there is, so that a read needs no query.
    """

    def __init__(
        self, ledger: Ledger, lease: Lease, *, known: OrderRecord | None = None, is_claimed: bool = False
    ) -> None:
        product = ProductRow(lease.catalogue_id, lease.product_id)
        super().__init__(ledger, product=product, guard=lambda connection: hold(connection, ledger, lease))
        self._is_claimed = is_claimed
        self.newest = known
        self.reservation: Reservation | None = None

    def read(self, order_key: str) -> OrderRecord | None:
        """Return the record of an order."""
        if not self._is_claimed:
            return super().read(order_key)
        return self.newest if self.newest is not None and self.newest.order_key == order_key else None

    def take_token(self, order_key: str, attempt: str) -> OrderRecord:
        """Make this attempt the newest one of the order."""
        self.newest = super().take_token(order_key, attempt)
        return self.newest

    def write(self, record: OrderRecord) -> OrderRecord:
        """Store a record; one that is about to be sent is stored together with the reservation of its credits.

        Raises:
            LeaseLostError: Another runner has the product.
            BudgetUsedUpError: It is about to be sent, and the budget does not cover it; nothing was stored.
        """
        reservation = self.reservation
        is_sent = record.job_id is None and record.maybe_bought
        if reservation is None or not is_sent or not reservation.is_due("create"):
            self.before_send = None
            self.newest = super().write(record)
            return self.newest
        self.before_send = reservation.reserve
        self.newest = reservation.covered(partial(super().write, record))
        reservation.committed()
        return self.newest

    def record_job_id(self, record: OrderRecord, job_id: str) -> OrderRecord:
        """Store the answer of a create that was sent."""
        self.newest = super().record_job_id(record, job_id)
        return self.newest


class LeasedWorld(WatchedWorld):
    """A world in which a job is created or changed only while the product's lease holds and the budget covers it.

    Args:
        watcher: Waits for all jobs of the run; its client calls the API.
        store: Keeps the product's order.
        ledger: Where the lease is.
        claimed: The product.
        slots: How many requests may run at once, over all products: more than there are connections would open a new
            one for each.
        probe: Called before and after each contact, with its name; tests end the process there.
    """

    def __init__(
        self,
        watcher: JobWatcher,
        store: ProductOrderStore,
        *,
        ledger: Ledger,
        claimed: Claim,
        slots: asyncio.Semaphore,
        probe: Callable[[str], None],
    ) -> None:
        super().__init__(watcher, store)
        self._orders = store
        self._ledger = ledger
        self._claim = claimed
        self._slots = slots
        self._probe = probe

    async def read(self, order_key: str) -> OrderRecord | None:
        """Return the record of the order, which was read with the claim. No thread: products begin in their order."""
        self._probe("before.record.read")
        record = self._orders.read(order_key)
        self._probe("after.record.read")
        return record

    async def contact(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make one contact; one that changes a job renews the lease first, and reserves credits where they are due.

        Raises:
            LeaseLostError: Another runner has the product; nothing was sent.
            BudgetUsedUpError: The budget does not cover the request; nothing was sent.
        """
        if name in CHANGES_JOB:
            self._probe("before.acting")
            reservation = self._orders.reservation
            due = reservation if reservation is not None and reservation.is_due(name) else None
            # A create's record was stored under the lease a moment ago, and its idempotency key is safe.
            if due is not None or name != "create":
                await in_ledger_thread(partial(reserve_under_lease, self._ledger, self._claim.lease, reservation=due))
        self._probe(f"before.{name}")
        if name in _REQUESTS:
            async with self._slots:
                answer = await super().contact(name, call)
        else:
            answer = await super().contact(name, call)
        self._probe(f"after.{name}")
        return answer


def reserve_under_lease(ledger: Ledger, lease: Lease, *, reservation: Reservation | None) -> None:
    """Renew a product's lease and reserve credits, in one transaction; when this returns, both are on disk.

    Raises:
        LeaseLostError: Another runner has the product.
        BudgetUsedUpError: The budget does not cover them.
    """

    def work(connection: sa.Connection) -> None:
        hold(connection, ledger, lease)
        if reservation is not None:
            reservation.reserve(connection)

    if reservation is None:
        ledger.writer.run(work)
        return
    reservation.covered(partial(ledger.writer.run, work))
    reservation.committed()


@contextmanager
def product_store(
    ledger: Ledger, *, catalogue: str, product_id: str, namespace: str = "", origin: str = ""
) -> Iterator[ProductOrderStore]:
    """Lease one product outside a feed run, and yield the store of its order; the lease is released afterwards.

    Args:
        ledger: An open ledger.
        catalogue: The product's catalog.
        product_id: The shop's own id.
        namespace: Of the connection.
        origin: Of the API.

    Raises:
        LeaseLostError: Another process holds the product now.
        LedgerUnavailableError: The ledger's database does not answer.
    """
    owner = uuid.uuid4().hex
    found = ledger.catalogue(catalogue, namespace=namespace, origin=origin)

    def work(connection: sa.Connection) -> Lease | None:
        insert_new(connection, schema.product, {"catalogue_id": found.id, "product_id": product_id})
        return take(connection, ledger, found.id, product_id, owner=owner)

    lease = ledger.writer.run(work)
    if lease is None:
        raise LeaseLostError(
            f"product {shown_id(product_id)} is being bought by another process at the moment; try again"
        )
    try:
        yield ProductOrderStore(ledger, lease)
    finally:
        try:
            ledger.writer.run(lambda connection: change(connection, schema.product, LET_GO, where=lease.row))
        except LedgerUnavailableError as error:  # the lease ends by itself, and keeps no result back
            _log.warning("product %s: its lease stays until it ends by itself: %s", shown_id(product_id), error)
