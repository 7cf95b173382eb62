# SPDX-License-Identifier: Apache-2.0
"""One product of a catalogue, bought outside a feed run: the same ledger, the same scope, the same lease."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from ugen_provider.core.batch import schema
from ugen_provider.core.batch.claims import LET_GO, Lease, take
from ugen_provider.core.batch.errors import LeaseLostError, LedgerUnavailableError
from ugen_provider.core.batch.fencing import write_under
from ugen_provider.core.batch.ledger import Ledger, change, insert_new
from ugen_provider.core.jobs.intent import Intent

_log = logging.getLogger("ugen_provider.batch")


class ProductIntentStore:
    """The intents of one product, under a lease; see `product_store`."""

    durable = True

    def __init__(self, ledger: Ledger, lease: Lease) -> None:
        self._ledger = ledger
        self._lease = lease

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
        write_under(self._ledger, self._lease, intent=intent)


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
        LedgerUnavailableError: The ledger's database went away.
    """
    owner = uuid.uuid4().hex
    found = ledger.catalogue(catalogue, namespace=namespace)

    def work(connection: sa.Connection) -> Lease | None:
        insert_new(connection, schema.product, {"catalogue_id": found.id, "product_id": product_id})
        return take(connection, ledger, found.id, product_id, owner=owner)

    lease = ledger.writer.run(work)
    if lease is None:
        raise LeaseLostError(f"product {product_id} is being bought by another at this moment; try again")
    try:
        yield ProductIntentStore(ledger, lease)
    finally:
        try:
            ledger.writer.run(lambda connection: change(connection, schema.product, LET_GO, where=lease.row))
        except LedgerUnavailableError as error:  # the lease ends by itself, and keeps no result back
            _log.warning("product %s is held until its lease ends: %s", product_id, error)
