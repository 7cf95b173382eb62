# SPDX-License-Identifier: Apache-2.0
"""Products whose requests are equal share one purchase. One row of the ledger decides which of them buys it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from ugen_provider.core.feeds.products import FeedOrder
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.record import split_row_id
from ugen_provider.core.ledger.store import Catalogue, among, insert_new

_SHARE, _PRODUCT, _ORDER, _ITEM, _RUN = schema.shared_request, schema.product, schema.order, schema.item, schema.run
_FACTS = ("price", "sale_price", "size", "link")
_PLANNED_FOR = 86_400.0
"""Seconds for which a product that another run planned counts as about to be bought; a killed run buys none."""


def facts_of(order: FeedOrder) -> str | None:
    """Return what may tell two products with equal requests apart: price, size and link."""
    product = order.product
    return None if product is None else json.dumps([product.text(name) for name in _FACTS], ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A product that is to be bought and has no purchase of its own.

    Attributes:
        name: Its row: the product in its variant.
        fingerprint: Of its request, without the fields of `ignore_changes`.
        facts: See `facts_of`.
    """

    name: str
    fingerprint: str
    facts: str | None


@dataclass(frozen=True, slots=True)
class SharedPurchases:
    """Which products of a batch share the purchase of another one.

    Attributes:
        origins: Per product the one whose purchase it shares. All others buy for themselves.
        differing: Those whose price, size or link is another than that of their origin.
    """

    origins: Mapping[str, str] = field(default_factory=dict)
    differing: frozenset[str] = frozenset()


def share(
    connection: sa.Connection, catalogue: Catalogue, run: int, candidates: Collection[Candidate], *, now: float
) -> SharedPurchases:
    """Find the products that need no purchase of their own, and take the others' part in the ledger.

    If the process ends here, nothing is lost: the transaction is undone as a whole. If the plan is given up later, the
    rows that were taken name products that buy nothing; the next planner takes them over.

    Args:
        connection: The ledger's, inside the transaction of the plan.
        catalogue: Whose products.
        run: The run that plans.
        candidates: The products, in the order in which they would be bought.
        now: Seconds since the epoch.
    """
    if not candidates:
        return SharedPurchases()
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault((split_row_id(candidate.name)[1], candidate.fingerprint), []).append(candidate)
    # Sorted, so that two planners never hold a row that the other one waits for.
    rows = [
        {
            "catalogue_id": catalogue.id,
            "variant": variant,
            "fingerprint": digest,
            "product_id": first.name,
            "facts": first.facts,
        }
        for (variant, digest), (first, *_) in sorted(groups.items(), key=lambda group: group[0])
    ]
    insert_new(connection, _SHARE, rows)
    owners = _owners(connection, catalogue, {digest for _, digest in groups})
    elsewhere = {
        (owners[key][0], key[1])
        for key, members in groups.items()
        if owners[key][0] not in {member.name for member in members}
    }
    live = _live(connection, catalogue, run, elsewhere, now=now)
    origins: dict[str, str] = {}
    differing: set[str] = set()
    for key, members in groups.items():
        owner, facts = owners[key]
        if (owner, key[1]) in elsewhere - live:
            # The owner has no video and buys none: the first of these products buys in its place.
            owner, facts = _taken_over(connection, catalogue, key, members[0], owner=owner)
        for member in members:
            if member.name != owner:
                origins[member.name] = owner
                if member.facts != facts:
                    differing.add(member.name)
    return SharedPurchases(origins, frozenset(differing))


def _owners(
    connection: sa.Connection, catalogue: Catalogue, digests: Collection[str]
) -> dict[tuple[str, str], tuple[str, str | None]]:
    query = sa.select(_SHARE).where(
        _SHARE.c.catalogue_id == catalogue.id, among(connection, _SHARE.c.fingerprint, digests)
    )
    return {(row.variant, row.fingerprint): (row.product_id, row.facts) for row in connection.execute(query)}


def videos_to_share(connection: sa.Connection, catalogue: Catalogue, digests: Collection[str]) -> set[tuple[str, str]]:
    """Return those of these requests, each with its variant, whose purchase another product can share. Reads only.

    Args:
        connection: Of the ledger.
        catalogue: Whose products.
        digests: Fingerprints of requests.
    """
    owned = sa.select(_SHARE.c.variant, _SHARE.c.fingerprint).where(
        _SHARE.c.catalogue_id == catalogue.id, among(connection, _SHARE.c.fingerprint, digests)
    )
    found: set[tuple[str, str]] = set()
    for table, states in ((_PRODUCT, ("completed",)), (_ORDER, ("", "completed"))):
        bought = sa.exists().where(
            table.c.catalogue_id == catalogue.id,
            table.c.product_id == _SHARE.c.product_id,
            table.c.fingerprint == _SHARE.c.fingerprint,
            table.c.state.in_(states),
        )
        found |= {(row.variant, row.fingerprint) for row in connection.execute(owned.where(bought))}
    return found


def _taken_over(
    connection: sa.Connection, catalogue: Catalogue, key: tuple[str, str], first: Candidate, *, owner: str
) -> tuple[str, str | None]:
    this = (_SHARE.c.catalogue_id == catalogue.id, _SHARE.c.variant == key[0], _SHARE.c.fingerprint == key[1])
    update = sa.update(_SHARE).where(*this, _SHARE.c.product_id == owner)
    if connection.execute(update.values(product_id=first.name, facts=first.facts)).rowcount == 1:
        return first.name, first.facts
    found = connection.execute(sa.select(_SHARE.c.product_id, _SHARE.c.facts).where(*this)).one()
    return found.product_id, found.facts  # another planner took it over a moment ago


def _live(
    connection: sa.Connection, catalogue: Catalogue, run: int, owners: Collection[tuple[str, str]], *, now: float
) -> set[tuple[str, str]]:
    """Return those of these purchases, each by product and fingerprint, that are delivered, under way or planned."""
    if not owners:
        return set()
    names = {name for name, _ in owners}
    delivered = sa.select(_PRODUCT.c.product_id, _PRODUCT.c.fingerprint).where(
        _PRODUCT.c.catalogue_id == catalogue.id,
        among(connection, _PRODUCT.c.product_id, names),
        _PRODUCT.c.state == "completed",
    )
    # A purchase that ended has a state; one whose answer was lost has none, and counts as under way.
    bought = sa.select(_ORDER.c.product_id, _ORDER.c.fingerprint).where(
        _ORDER.c.catalogue_id == catalogue.id,
        among(connection, _ORDER.c.product_id, names),
        _ORDER.c.state.in_(("", "completed")),
    )
    recent = sa.select(_RUN.c.id).where(
        _RUN.c.catalogue_id == catalogue.id, _RUN.c.state == "buying", _RUN.c.created_at > now - _PLANNED_FOR
    )
    planned = sa.select(_ITEM.c.product_id, _ITEM.c.fingerprint).where(
        sa.or_(_ITEM.c.run == run, _ITEM.c.run.in_(recent)),
        among(connection, _ITEM.c.product_id, names),
        _ITEM.c.state.in_(("planned", "running")),
    )
    found: set[tuple[str, str]] = set()
    for query in (delivered, bought, planned):
        found |= {(row.product_id, row.fingerprint) for row in connection.execute(query)}
    return found & set(owners)


_RESULT = ("fingerprint", "state", "final_failure", "reason", "job_id", "credits", "score", "video", "manifest")


def apply_adoptions(connection: sa.Connection, catalogue: Catalogue, run: int) -> None:
    """Let the products of a complete plan have the purchases that it found for them.

    One that is delivered is theirs at once. One that is under way becomes theirs when it is settled; until then they
    keep the video that they have.
    """
    adoption, other = schema.adoption, schema.adoption.alias()
    here = adoption.c.run == run
    # The origin may share the purchase of a third product, found now or on an earlier night: theirs is the same.
    through_plan = sa.select(other.c.origin).where(
        other.c.run == run,
        other.c.product_id == adoption.c.origin,
        other.c.fingerprint == adoption.c.fingerprint,
        other.c.origin != other.c.product_id,
    )
    through_product = sa.select(_PRODUCT.c.adopted_from).where(
        _PRODUCT.c.catalogue_id == catalogue.id,
        _PRODUCT.c.product_id == adoption.c.origin,
        _PRODUCT.c.adopted_digest == adoption.c.fingerprint,
        _PRODUCT.c.adopted_from.is_not(None),
    )
    for through in (through_plan, through_product):
        found = through.correlate(adoption).scalar_subquery()
        update = sa.update(adoption).where(here, adoption.c.origin != adoption.c.product_id, found.is_not(None))
        connection.execute(update.values(origin=found))
    adopted = (
        _PRODUCT.c.catalogue_id == catalogue.id,
        _PRODUCT.c.product_id.in_(sa.select(adoption.c.product_id).where(here)),
    )

    def found_for_product(value: sa.ColumnElement[Any]) -> Any:
        # A subquery for each column, since SQLAlchemy 1.4 knows no UPDATE ... FROM for SQLite.
        return sa.select(value).where(here, adoption.c.product_id == _PRODUCT.c.product_id).scalar_subquery()

    own = adoption.c.origin == adoption.c.product_id
    connection.execute(
        sa.update(_PRODUCT)
        .where(*adopted)
        .values(
            adopted_from=found_for_product(sa.case((own, sa.null()), else_=adoption.c.origin)),
            adopted_digest=found_for_product(sa.case((own, sa.null()), else_=adoption.c.fingerprint)),
            state=sa.case((_PRODUCT.c.state == "", "buying"), else_=_PRODUCT.c.state),
        )
    )
    delivered = (
        sa.select(_ORDER.c.order_key)
        .where(
            here,
            adoption.c.product_id == _PRODUCT.c.product_id,
            _ORDER.c.catalogue_id == catalogue.id,
            _ORDER.c.product_id == adoption.c.origin,
            _ORDER.c.fingerprint == adoption.c.fingerprint,
            _ORDER.c.state == "completed",
        )
        .correlate(_PRODUCT)
        .order_by(_ORDER.c.updated_at.desc(), _ORDER.c.order_key)
        .limit(1)
    )
    results = {name: delivered.with_only_columns(_ORDER.c[name]).scalar_subquery() for name in _RESULT}
    connection.execute(sa.update(_PRODUCT).where(*adopted, delivered.exists()).values(results))


def pass_on(
    connection: sa.Connection, catalogue_id: int, origin: str, *, fingerprint: str, result: Mapping[str, Any]
) -> None:
    """Give the result of a purchase to every product that shares it.

    Args:
        connection: In the transaction that records the result.
        catalogue_id: The catalog.
        origin: The product that was bought.
        fingerprint: Of its request.
        result: The columns of the product.
    """
    these = (
        _PRODUCT.c.catalogue_id == catalogue_id,
        _PRODUCT.c.adopted_from == origin,
        _PRODUCT.c.adopted_digest == fingerprint,
    )
    connection.execute(sa.update(_PRODUCT).where(*these).values(**result))
