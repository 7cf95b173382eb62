# SPDX-License-Identifier: Apache-2.0
"""Order records, attempts and actions in the ledger's database: one class for every entry point."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import sqlalchemy as sa

from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.errors import AttemptSupersededError
from ugen_provider.core.ledger.record import Action, ActionState, OrderRecord, RecordSigner
from ugen_provider.core.ledger.store import Ledger, change, insert_new

Guard: TypeAlias = "Callable[[sa.Connection], None]"  # as text, since SQLAlchemy 1.4 has no such name
_KEYS_AT_ONCE = 500

_ORDER, _ATTEMPT, _ACTION = schema.order, schema.attempt, schema.action


@dataclass(frozen=True, slots=True)
class OlderOrder:
    """An order as an older place kept it.

    Attributes:
        record: Its record.
        actions: Our actions on its present job.
    """

    record: OrderRecord
    actions: tuple[Action, ...] = ()


FindOlder = Callable[[str], OrderRecord | OlderOrder | None]


@dataclass(frozen=True, slots=True)
class ProductRow:
    """Which product an order belongs to.

    Attributes:
        catalogue_id: Of the catalog, in this ledger.
        product_id: The shop's own id.
    """

    catalogue_id: int
    product_id: str


class LedgerOrderStore:
    """Keeps orders in a ledger. Safe for several threads, processes and, on PostgreSQL, machines.

    Args:
        ledger: An open ledger.
        product: For orders of a product: its row. None for tasks, partitions and names.
        guard: Called in each transaction that writes a record, before it writes, such as to renew a lease; what it
            raises undoes the transaction.
        before_send: Called in the transaction that stores a record directly before its request is sent, such as to
            reserve budget.
        signer: Signs records; None leaves them unsigned.
        older: Finds the record of an order in a place that an earlier version or setup used. It is asked once for an
            order that the ledger lacks, and the record that it finds is imported.

    Examples:
        >>> store = LedgerOrderStore(ledger)
        >>> store.read("no such order") is None
        True
    """

    durable = True

    def __init__(
        self,
        ledger: Ledger,
        *,
        product: ProductRow | None = None,
        guard: Guard | None = None,
        before_send: Guard | None = None,
        signer: RecordSigner | None = None,
        older: Sequence[FindOlder] = (),
    ) -> None:
        self._ledger = ledger
        self._product = product
        self._guard = guard
        self.before_send = before_send
        self._signer = signer
        self._older = tuple(older)

    def read(self, order_key: str) -> OrderRecord | None:
        """Return the record of an order; None where there is none."""
        found = self._ledger.read(lambda connection: _read(connection, order_key))
        if found is not None:
            return found.record
        for find in self._older:
            found_there = find(order_key)
            if found_there is None:
                continue
            older = found_there if isinstance(found_there, OlderOrder) else OlderOrder(found_there)
            if older.record.order_key == order_key:
                return self._import(older)
        return None

    @property
    def signs(self) -> bool:
        """Whether records are signed, so that a reader knows who wrote them."""
        return self._signer is not None

    def read_verified(self, order_key: str) -> OrderRecord | None:
        """Return a record only if its signature holds, for readers that did not write it."""
        found = self._ledger.read(lambda connection: _read(connection, order_key))
        if found is None or self._signer is None or not self._signer.verifies(found.document, found.mac):
            return None
        return found.record

    def take_token(self, order_key: str, attempt: str) -> OrderRecord:
        """Make an attempt the newest one of an order.

        Raises:
            AttemptSupersededError: A newer attempt has begun since this one took its token.
            LookupError: The order has no record.
        """

        def work(connection: sa.Connection) -> OrderRecord:
            found = _read(connection, order_key, lock=True)
            if found is None:
                raise LookupError(f"order {order_key} has no record")
            record = found.record
            if record.attempt == attempt:
                return record
            if token_of(connection, order_key, attempt) is not None:
                raise _superseded(record, attempt)
            self._check(connection)
            taken = replace(record, token=record.token + 1, attempt=attempt)
            self._update(connection, taken, token=record.token)
            _add_attempt(connection, taken)
            return taken

        return self._ledger.writer.run(work)

    def write(self, record: OrderRecord) -> OrderRecord:
        """Store a record for the attempt that it names, and return it as stored.

        Raises:
            AttemptSupersededError: A newer attempt has begun; nothing was written.
        """

        def work(connection: sa.Connection) -> OrderRecord:
            self._check(connection)
            if record.token == 0:
                stored = self._insert(connection, replace(record, token=1))
            else:
                found = _read(connection, record.order_key, lock=True)
                if found is None or found.record.token != record.token:
                    raise _superseded(found.record if found else record, record.attempt)
                stored = _keep_answer(record, found.record)
                self._update(connection, stored, token=record.token)
            if stored.job_id is None and stored.maybe_bought and self.before_send is not None:
                # The reservation and the record that allows the POST are one transaction: neither exists alone.
                self.before_send(connection)
            return stored

        return self._ledger.writer.run(work)

    def record_job_id(self, record: OrderRecord, job_id: str) -> OrderRecord:
        """Store the answer of a request that was sent already, even if another attempt is the newest now."""

        def work(connection: sa.Connection) -> OrderRecord:
            found = _read(connection, record.order_key, lock=True)
            newest = found.record if found is not None else record
            if newest.purchase_number == record.purchase_number:
                stored = replace(newest, job_id=job_id, maybe_bought=True, missing_since=None)
            else:  # a later purchase was begun: the id belongs to the list of earlier ones
                earlier = list(newest.earlier)
                earlier[record.purchase_number] = job_id
                stored = replace(newest, earlier=tuple(earlier))
            self._update(connection, stored, token=newest.token)
            # The attempt that sent the request continues with its own purchase and token.
            return replace(record, job_id=job_id, maybe_bought=True, missing_since=None)

        return self._ledger.writer.run(work)

    def settle(self, order_key: str, change_of: Callable[[OrderRecord], OrderRecord]) -> OrderRecord:
        """Apply what a person decided about an order (`ugen ledger settle`), even if another attempt is the newest.

        Raises:
            LookupError: The order has no record.
        """

        def work(connection: sa.Connection) -> OrderRecord:
            found = _read(connection, order_key, lock=True)
            if found is None:
                raise LookupError(f"order {order_key} has no record")
            settled = change_of(found.record)
            self._update(connection, settled, token=found.record.token)
            return settled

        return self._ledger.writer.run(work)

    def without_job(self) -> Iterator[OrderRecord]:
        """Yield the records of orders whose job is not known."""
        query = sa.select(_ORDER.c.document).where(_ORDER.c.job_id.is_(None))
        for document in self._ledger.read(lambda connection: connection.execute(query).scalars().all()):
            yield OrderRecord.from_dict(json.loads(document))

    def of_job(self, job_id: str) -> OrderRecord | None:
        """Return the record of the order whose present job this is; None where the ledger knows no such order."""
        query = sa.select(_ORDER.c.document).where(_ORDER.c.job_id == job_id).limit(1)
        document = self._ledger.read(lambda connection: connection.execute(query).scalar())
        return None if document is None else OrderRecord.from_dict(json.loads(document))

    def read_many(self, order_keys: Sequence[str]) -> dict[str, OrderRecord]:
        """Return the records of many orders by their keys, without those that have none. Older places are not asked."""
        found: dict[str, OrderRecord] = {}
        for start in range(0, len(order_keys), _KEYS_AT_ONCE):
            wanted = _ORDER.c.order_key.in_(order_keys[start : start + _KEYS_AT_ONCE])
            found |= {record.order_key: record for record, _ in self._find(wanted)}
        return found

    def find(
        self, prefix: str, *, changed_since: float | None = None, fingerprint: str | None = None
    ) -> list[tuple[OrderRecord, float]]:
        """Return the records of the orders whose keys begin with a text, each with when it last changed, oldest first.

        Args:
            prefix: Beginning of the order keys.
            changed_since: Only records that changed then or later, in seconds since the epoch.
            fingerprint: Only records whose request has this fingerprint.
        """
        condition = self._begins_with(_ORDER.c.order_key, prefix)
        if changed_since is not None:
            condition = sa.and_(condition, _ORDER.c.updated_at >= changed_since)
        if fingerprint is not None:
            condition = sa.and_(condition, _ORDER.c.fingerprint == fingerprint)
        return self._find(condition)

    def find_by_fingerprint(self, fingerprint: str) -> list[OrderRecord]:
        """Return the records of the orders whose request has this fingerprint."""
        return [record for record, _ in self._find(_ORDER.c.fingerprint == fingerprint)]

    def _begins_with(self, column: sa.Column[str], prefix: str) -> sa.ColumnElement[bool]:
        if self._ledger.engine.dialect.name == "sqlite":  # its LIKE ignores case, and uses no index
            return sa.and_(column >= prefix, column < prefix + "\U0010ffff")
        return column.startswith(prefix, autoescape=True)

    def _find(self, condition: sa.ColumnElement[bool]) -> list[tuple[OrderRecord, float]]:
        query = sa.select(_ORDER.c.document, _ORDER.c.updated_at).where(condition).order_by(_ORDER.c.updated_at)
        rows = self._ledger.read(lambda connection: connection.execute(query).all())
        return [(OrderRecord.from_dict(json.loads(row.document)), row.updated_at) for row in rows]

    def find_actions(self, prefix: str) -> dict[str, tuple[Action, ...]]:
        """Return the actions of the orders whose keys begin with a text, by order key."""
        query = sa.select(_ACTION).where(self._begins_with(_ACTION.c.order_key, prefix)).order_by(_ACTION.c.id)
        found: dict[str, tuple[Action, ...]] = {}
        for action in _fold(self._ledger.read(lambda connection: connection.execute(query).all())):
            found[action.order_key] = (*found.get(action.order_key, ()), action)
        return found

    def token_of(self, order_key: str, attempt: str) -> int | None:
        """Return the token that an attempt took; None where it never reached the record."""
        return self._ledger.read(lambda connection: token_of(connection, order_key, attempt))

    def actions(self, order_key: str) -> tuple[Action, ...]:
        """Return the actions of an order, oldest first, each with its newest state."""
        query = sa.select(_ACTION).where(_ACTION.c.order_key == order_key).order_by(_ACTION.c.id)
        return tuple(_fold(self._ledger.read(lambda connection: connection.execute(query).all())))

    def owed_actions(self, *, now: float) -> tuple[Action, ...]:
        """Return the actions of all orders that are still owed, oldest first.

        These are cancels and collections that are neither confirmed nor withdrawn, and pauses at a gate that expired.

        Args:
            now: Seconds since the epoch.
        """
        settled = sa.select(_ACTION.c.action_id).where(_ACTION.c.state.in_(("confirmed", "withdrawn")))
        withdrawn = sa.select(_ACTION.c.action_id).where(_ACTION.c.state == "withdrawn")
        work = sa.and_(_ACTION.c.kind.in_(("cancel", "collect")), _ACTION.c.action_id.not_in(settled))
        gate = sa.and_(_ACTION.c.kind == "pause", _ACTION.c.expires_at <= now, _ACTION.c.action_id.not_in(withdrawn))
        query = sa.select(_ACTION).where(sa.or_(work, gate)).order_by(_ACTION.c.id)
        return tuple(_fold(self._ledger.read(lambda connection: connection.execute(query).all())))

    def append_action(self, action: Action) -> Action:
        """Store a new action and return it with its id."""
        added = replace(action, action_id=action.action_id or uuid.uuid4().hex)
        self._append(added)
        return added

    def mark_action(self, action: Action, state: ActionState) -> None:
        """Append the new state of an action."""
        self._append(replace(action, state=state, at=self._ledger.now()))

    def _append(self, action: Action) -> None:
        self._ledger.writer.run(lambda connection: connection.execute(sa.insert(_ACTION), action.to_dict()))

    def _check(self, connection: sa.Connection) -> None:
        if self._guard is not None:
            self._guard(connection)

    def _import(self, older: OlderOrder) -> OrderRecord:
        """Import an order of another place. It keeps its facts; the attempt that asks takes the next token."""

        def work(connection: sa.Connection) -> OrderRecord:
            found = _read(connection, older.record.order_key)
            if found is not None:
                return found.record
            # An action without its record would count for nothing, and the reverse could buy again: one transaction.
            for action in older.actions:
                row = replace(action, token=1, action_id=action.action_id or uuid.uuid4().hex)
                connection.execute(sa.insert(_ACTION), row.to_dict())
            return self._insert(connection, replace(older.record, token=1))

        return self._ledger.writer.run(work)

    def _insert(self, connection: sa.Connection, record: OrderRecord) -> OrderRecord:
        product = self._product
        values = {
            **self._columns(record),
            "order_key": record.order_key,
            "catalogue_id": None if product is None else product.catalogue_id,
            "product_id": None if product is None else product.product_id,
        }
        insert_new(connection, _ORDER, values)
        found = _read(connection, record.order_key)
        assert found is not None  # it was inserted, or another attempt inserted it first
        if found.record.attempt != record.attempt or found.record.key != record.key:
            raise _superseded(found.record, record.attempt)
        _add_attempt(connection, record)
        return record

    def _update(self, connection: sa.Connection, record: OrderRecord, *, token: int) -> None:
        where = {"order_key": record.order_key, "token": token}
        if change(connection, _ORDER, self._columns(record), where=where) != 1:
            raise _superseded(record, record.attempt)

    def _columns(self, record: OrderRecord) -> dict[str, Any]:
        document = json.dumps(record.to_dict(), ensure_ascii=False, separators=(",", ":"))
        return {
            "fingerprint": record.fingerprint,
            "key": record.key,
            "job_id": record.job_id,
            "token": record.token,
            "document": document,
            "mac": self._signer.sign(document) if self._signer is not None else None,
            "updated_at": self._ledger.now(),
        }


@dataclass(frozen=True, slots=True)
class _StoredRecord:
    record: OrderRecord
    document: str
    mac: str | None


def _read(connection: sa.Connection, order_key: str, *, lock: bool = False) -> _StoredRecord | None:
    row = connection.execute(_LOCKED if lock else _READ, {"key": order_key}).one_or_none()
    if row is None:
        return None
    return _StoredRecord(OrderRecord.from_dict(json.loads(row.document)), row.document, row.mac)


_READ = sa.select(_ORDER.c.document, _ORDER.c.mac).where(_ORDER.c.order_key == sa.bindparam("key"))
_LOCKED = _READ.with_for_update()


def token_of(connection: sa.Connection, order_key: str, attempt: str) -> int | None:
    """Return the token that an attempt took of an order; None where it took none."""
    query = sa.select(_ATTEMPT.c.token).where(_ATTEMPT.c.order_key == order_key, _ATTEMPT.c.name == attempt)
    found: int | None = connection.execute(query).scalar()
    return found


def _add_attempt(connection: sa.Connection, record: OrderRecord) -> None:
    values = {"order_key": record.order_key, "token": record.token, "name": record.attempt}
    insert_new(connection, _ATTEMPT, values)


def _keep_answer(record: OrderRecord, stored: OrderRecord) -> OrderRecord:
    """Keep a job id that an older attempt's answer brought since this attempt read the record."""
    if record.job_id is None and stored.job_id is not None and stored.purchase_number == record.purchase_number:
        return replace(record, job_id=stored.job_id)
    return record


def _superseded(newest: OrderRecord, attempt: str) -> AttemptSupersededError:
    return AttemptSupersededError(
        order_key=newest.order_key, attempt=attempt, newest=newest.attempt, job_id=newest.job_id
    )


def _fold(rows: Sequence[Any]) -> Iterator[Action]:
    """Return one action for each id, in the order of their first rows, with the state of their last rows."""
    folded: dict[str, Action] = {}
    for row in rows:
        first = folded.get(row.action_id)
        if first is None:
            names = (name for name in Action.__dataclass_fields__)
            folded[row.action_id] = Action(**{name: getattr(row, name) for name in names})
        else:
            folded[row.action_id] = replace(first, state=row.state)
    yield from folded.values()
