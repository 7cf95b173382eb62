# SPDX-License-Identifier: Apache-2.0
"""Who works on a product: a lease with an owner, an end and a token. Whoever lost it can write and send nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from ugen_provider.core.batch import schema
from ugen_provider.core.batch.errors import LeaseLostError
from ugen_provider.core.batch.ledger import Ledger, change
from ugen_provider.core.batch.plans import LEASE, Run, intent_scope
from ugen_provider.core.jobs.intent import Intent

ItemState = Literal["completed", "failed", "postponed", "running"]
LET_GO: Mapping[str, Any] = {"lease_owner": None, "lease_until": 0.0}
"""A product's columns once nobody works on it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who works on a product; the token tells this time from any other, also of the same owner.

    Attributes:
        catalogue_id: In the ledger.
        product_id: The shop's own id.
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
        """What is raised where the row is not there."""
        return LeaseLostError(f"product {self.product_id} was taken over by another; nothing was sent")


@dataclass(frozen=True, slots=True)
class Claim:
    """One product of a plan, ours to buy until the lease ends.

    Attributes:
        run: Of which run.
        product_id: The shop's own id.
        token: Of the lease.
        fingerprint: Of the request.
        body: The request, without key.
        picture: Address of a picture to upload first.
        picture_digest: Its content's digest.
        intent: What is written down about this request already.
        booked: Credits booked for it in this run already.
        why: `new`, `changed`, `again` or `regenerate`.
    """

    run: Run
    product_id: str
    token: int
    fingerprint: str
    body: Mapping[str, Any] = field(repr=False)
    picture: str | None
    picture_digest: str | None
    intent: Intent | None
    booked: int | None
    why: str

    @property
    def lease(self) -> Lease:
        """Why it is ours."""
        return Lease(self.run.catalogue.id, self.product_id, self.run.owner, self.token)

    @property
    def scope(self) -> str:
        """Under what the intent is kept."""
        return intent_scope(self.run.catalogue, self.product_id, self.fingerprint)

    @property
    def has_job(self) -> bool:
        """Whether taking it up costs nothing, since its job is known."""
        return self.intent is not None and self.intent.job_id is not None


def claim(ledger: Ledger, run: Run, *, most: int) -> list[Claim]:
    """Take products of the plan that nobody holds, those first that are begun, since they cost nothing more.

    Args:
        ledger: Where.
        run: Of which run, and for which owner.
        most: How many.
    """

    def work(connection: sa.Connection) -> list[Claim]:
        now = ledger.now()
        asked = {"catalogue": run.catalogue.id, "run": run.id, "now": now, "most": most}
        claims = []
        for row in connection.execute(_OPEN, asked).all():
            taken = _taken(connection, ledger, run.catalogue.id, row.product_id, owner=run.owner)
            made = _look_again(connection, ledger, run, row) if taken else None
            if made is not None:
                claims.append(made)
        return claims

    return ledger.writer.run(work)


_PRODUCT, _ITEM = schema.product, schema.item
_FREE = sa.or_(_PRODUCT.c.lease_owner.is_(None), _PRODUCT.c.lease_until < sa.bindparam("now", type_=sa.Float))
_OPEN = (
    sa.select(_ITEM)
    .join(
        _PRODUCT,
        sa.and_(_PRODUCT.c.catalogue_id == sa.bindparam("catalogue"), _PRODUCT.c.product_id == _ITEM.c.product_id),
    )
    .where(_ITEM.c.run == sa.bindparam("run"), _ITEM.c.state == "planned", _FREE)
    .order_by(_ITEM.c.begun.desc(), _ITEM.c.seq)
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
_KNOWN = (
    sa.select(
        *(_PRODUCT.c.lease_token, _PRODUCT.c.state, _PRODUCT.c.fingerprint, _PRODUCT.c.job_id, _PRODUCT.c.score),
        _ITEM.c.state.label("item_state"),
        schema.intent.c.document,
    )
    .select_from(_PRODUCT)
    .outerjoin(_ITEM, sa.and_(_ITEM.c.run == sa.bindparam("run"), _ITEM.c.product_id == _PRODUCT.c.product_id))
    .outerjoin(schema.intent, schema.intent.c.scope == sa.bindparam("of"))
    .where(*_THIS_PRODUCT)
)


def take(connection: sa.Connection, ledger: Ledger, catalogue_id: int, product_id: str, *, owner: str) -> Lease | None:
    """Take a product that nobody holds; None where somebody does."""
    if not _taken(connection, ledger, catalogue_id, product_id, owner=owner):
        return None
    token = connection.execute(_TOKEN, {"catalogue": catalogue_id, "product": product_id}).scalar_one()
    return Lease(catalogue_id, product_id, owner, token)


def _taken(connection: sa.Connection, ledger: Ledger, catalogue_id: int, product_id: str, *, owner: str) -> bool:
    now = ledger.now()
    this = {"catalogue": catalogue_id, "product": product_id}
    return connection.execute(_TAKE, {**this, "owner": owner, "until": now + LEASE, "now": now}).rowcount == 1


def _look_again(connection: sa.Connection, ledger: Ledger, run: Run, row: Any) -> Claim | None:
    """What was read before the lease was ours may be old."""
    this = {"run": run.id, "product_id": row.product_id}
    scope = intent_scope(run.catalogue, row.product_id, row.fingerprint)
    asked = {"catalogue": run.catalogue.id, "product": row.product_id, "run": run.id, "of": scope}
    known = connection.execute(_KNOWN, asked).one()
    lease = Lease(run.catalogue.id, row.product_id, run.owner, known.lease_token)
    done = known.state == "completed" and known.fingerprint == row.fingerprint and row.why in {"new", "changed"}
    if known.item_state != "planned" or done:
        if done and known.item_state == "planned":  # another run bought it meanwhile
            taken = {"state": "completed", "how": "taken", "job_id": known.job_id, "score": known.score}
            change(connection, schema.item, {**taken, "finished_at": ledger.now()}, where=this)
        change(connection, schema.product, LET_GO, where=lease.row)
        return None
    if row.started_at is None:
        change(connection, schema.item, {"started_at": ledger.now()}, where=this)
    return Claim(
        run=run,
        product_id=row.product_id,
        token=lease.token,
        fingerprint=row.fingerprint,
        body=json.loads(row.body),
        picture=row.picture,
        picture_digest=row.picture_digest,
        intent=Intent.from_dict(json.loads(known.document)) if known.document is not None else None,
        booked=row.booked,
        why=row.why,
    )


def heartbeat(ledger: Ledger, run: Run) -> None:
    """Hold on to everything that is claimed by this runner."""
    product = schema.product

    def work(connection: sa.Connection) -> None:
        update = sa.update(product).where(product.c.lease_owner == run.owner)
        connection.execute(update.values(lease_until=ledger.now() + LEASE))

    ledger.writer.run(work)


def hold(connection: sa.Connection, ledger: Ledger, lease: Lease) -> None:
    """Renew the lease, and make sure that it still is ours.

    Raises:
        LeaseLostError: It is not.
    """
    if change(connection, schema.product, {"lease_until": ledger.now() + LEASE}, where=lease.row) != 1:
        raise lease.lost()


def release(ledger: Ledger, run: Run, *, reason: str) -> bool:
    """Let go of everything that this runner holds, as when it is stopped: others may go on at once.

    What may have been bought counts as running; what was not begun is as if it had not been touched.

    Returns:
        Whether other runners work on the catalogue.
    """
    item, product, intent = schema.item, schema.product, schema.intent

    def work(connection: sa.Connection) -> bool:
        mine = (product.c.catalogue_id == run.catalogue.id, product.c.lease_owner == run.owner)
        begun = sa.select(intent.c.product_id).where(
            intent.c.catalogue_id == run.catalogue.id,
            intent.c.product_id == item.c.product_id,
            intent.c.fingerprint == item.c.fingerprint,
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
