# SPDX-License-Identifier: Apache-2.0
"""What a plan is: whose run, under which options, held for how long. Values that the rest of this package shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import sqlalchemy as sa

from ugen_provider.core.batch import schema
from ugen_provider.core.batch.errors import LeaseLostError
from ugen_provider.core.batch.ledger import Catalogue
from ugen_provider.core.feeds.mapping import FeedMapping
from ugen_provider.core.feeds.planning import FeedOptions
from ugen_provider.core.jobs.scope import product_scope

Duplicates = Literal["first", "last"]
LEASE = 60.0
"""Seconds after which work is taken over from a runner that was not heard of."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How a feed becomes a plan.

    Attributes:
        feed: How to read the feed.
        mapping: What its columns become; the catalogue's pinned default where not given.
        newest_mapping: Whether to move on to the newest default mapping, and pin that.
        duplicates: Which of several products with one id counts.
        max_rejected: Rejected rows above which the run stops before buying; None for any number.
        max_changed: Share of the known products, 0 to 1, above which the run stops before buying them again.
        regenerate: Ids of products that are bought again on purpose, once per run.
        stored: Whether outputs are to be stored, so that a product without them is not finished.
        upload_pictures: Whether pictures that the service cannot reach are uploaded.
    """

    feed: FeedOptions = field(default_factory=FeedOptions)
    mapping: FeedMapping | None = None
    newest_mapping: bool = False
    duplicates: Duplicates = "first"
    max_rejected: int | None = None
    max_changed: float = 0.2
    regenerate: frozenset[str] = frozenset()
    stored: bool = False
    upload_pictures: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a catalogue, planned or about to be.

    Attributes:
        id: In this ledger.
        catalogue: Whose.
        run_id: The name that the user, or the orchestrator, gave it.
        owner: The runner that works on it now.
    """

    id: int
    catalogue: Catalogue
    run_id: str
    owner: str


def touch(connection: sa.Connection, run: Run, *, until: float) -> None:
    """Say that this runner still works on the run, and make sure that it may.

    Raises:
        LeaseLostError: Another runner took it over.
    """
    table = schema.run
    update = sa.update(table).where(table.c.id == run.id, table.c.owner == run.owner).values(lease_until=until)
    if connection.execute(update).rowcount != 1:
        raise LeaseLostError(f"run {run.run_id!r} was taken over by another runner")


def intent_scope(catalogue: Catalogue, product_id: str, digest: str) -> str:
    """Under what the intent of a product's request is kept."""
    scope = product_scope(catalogue=catalogue.name, product_id=product_id, namespace=catalogue.namespace)
    return f"{scope}{digest}"
