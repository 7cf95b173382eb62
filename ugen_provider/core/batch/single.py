# SPDX-License-Identifier: Apache-2.0
"""One product of a catalogue, bought outside a feed run: the same ledger, the same scope, the same lease."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from ugen_provider.core.batch import schema
from ugen_provider.core.batch.errors import LeaseLostError
from ugen_provider.core.batch.ledger import Ledger, insert_new, upsert
from ugen_provider.core.batch.plans import LEASE
from ugen_provider.core.jobs.intent import Intent


class ProductIntentStore:
    """The intents of one product, under a lease; see `product_store`."""

    durable = True

    def __init__(self, ledger: Ledger, *, catalogue_id: int, product_id: str, owner: str, token: int) -> None:
        self._ledger = ledger
        self._catalogue_id = catalogue_id
        self._product_id = product_id
        self._owner = owner
        self._token = token

    def read(self, scope: str) -> Intent | None:
        """The newest intent of a scope."""
        query = sa.select(schema.intent.c.document).where(schema.intent.c.scope == scope)
        document = self._ledger.read(lambda connection: connection.execute(query).scalar())
        return None if document is None else Intent.from_dict(json.loads(document))

    def write(self, intent: Intent) -> None:
        """Keep an intent; when this returns, it is on disk.

        Raises:
            LeaseLostError: Another has taken the product over.
        """
        values = {
            "scope": intent.scope,
            "catalogue_id": self._catalogue_id,
            "product_id": self._product_id,
            "fingerprint": intent.fingerprint,
            "key": intent.key,
            "job_id": intent.job_id,
            "document": json.dumps(intent.to_dict(), ensure_ascii=False, separators=(",", ":")),
            "updated_at": self._ledger.now(),
        }

        def work(connection: sa.Connection) -> None:
            self._hold(connection)
            upsert(connection, schema.intent, values)

        self._ledger.writer.run(work)

    def _hold(self, connection: sa.Connection) -> None:
        product = schema.product
        mine = sa.update(product).where(
            product.c.catalogue_id == self._catalogue_id,
            product.c.product_id == self._product_id,
            product.c.lease_owner == self._owner,
            product.c.lease_token == self._token,
        )
        if connection.execute(mine.values(lease_until=self._ledger.now() + LEASE)).rowcount != 1:
            raise LeaseLostError(f"product {self._product_id} was taken over by another; nothing was sent")


@contextmanager
def product_store(
    ledger: Ledger, *, catalogue: str, product_id: str, namespace: str = ""
) -> Iterator[ProductIntentStore]:
    """Hold one product, and give the store of its intents; it is let go of afterwards.

    Args:
        ledger: Knows what was bought.
        catalogue: Whose product.
        product_id: The shop's own id.
        namespace: Of the connection.

    Raises:
        LeaseLostError: Another holds it now.
    """
    owner = uuid.uuid4().hex
    found = ledger.catalogue(catalogue, namespace=namespace)
    product = schema.product
    this = (product.c.catalogue_id == found.id, product.c.product_id == product_id)

    def take(connection: sa.Connection) -> int:
        now = ledger.now()
        insert_new(connection, product, {"catalogue_id": found.id, "product_id": product_id})
        free = sa.or_(product.c.lease_owner.is_(None), product.c.lease_until < now)
        lease = {"lease_owner": owner, "lease_token": product.c.lease_token + 1, "lease_until": now + LEASE}
        if connection.execute(sa.update(product).where(*this, free).values(lease)).rowcount != 1:
            raise LeaseLostError(f"product {product_id} is being bought by another at this moment; try again")
        return int(connection.execute(sa.select(product.c.lease_token).where(*this)).scalar_one())

    token = ledger.writer.run(take)
    try:
        yield ProductIntentStore(ledger, catalogue_id=found.id, product_id=product_id, owner=owner, token=token)
    finally:
        mine = sa.update(product).where(*this, product.c.lease_owner == owner)
        ledger.writer.run(lambda connection: connection.execute(mine.values(lease_owner=None, lease_until=0.0)))
