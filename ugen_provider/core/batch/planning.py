# SPDX-License-Identifier: Apache-2.0
"""The first pass: a feed is read once, and what it orders is written into the ledger. Nothing is sent or bought.

Buying reads only the plan, so a feed that changes meanwhile changes nothing, and a run that was killed goes on where
it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import sqlalchemy as sa

from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.batch import schema
from ugen_provider.core.batch.errors import LedgerUnavailableError, RunRefusedError
from ugen_provider.core.batch.judging import Adding, Wanted
from ugen_provider.core.batch.ledger import Ledger
from ugen_provider.core.batch.plans import LEASE, Duplicates, PlanOptions, Run, touch
from ugen_provider.core.feeds.mapper import SkippedRow
from ugen_provider.core.feeds.mapping import CURRENT_VERSION
from ugen_provider.core.feeds.planning import Order, Planned, opened_plan
from ugen_provider.core.feeds.products import RejectedRow
from ugen_provider.core.feeds.sources import FeedSource
from ugen_provider.core.jobs.fingerprint import fingerprint

__all__ = ["LEASE", "Duplicates", "PlanOptions", "Planner", "Run"]

_log = logging.getLogger("ugen_provider.batch")
_BATCH = 4000
"""Rows at most that are judged in one transaction: each must reach the disk."""


class Planner:
    """Writes the plan of one run.

    Args:
        ledger: Where to.
        run: Which.
        options: How.
        identity: The digest of a picture that has to be uploaded, by its address.
        probe: Called at each named point.
    """

    def __init__(
        self,
        ledger: Ledger,
        run: Run,
        options: PlanOptions,
        *,
        identity: Callable[[str], str] | None = None,
        probe: Callable[[str], None] = lambda point: None,  # noqa: ARG005
    ) -> None:
        self._ledger = ledger
        self._run = run
        self._catalogue = run.catalogue
        self._options = options
        self._identity = identity
        self._probe = probe
        self._seq = 0
        self._wanted: set[str] = set()  # of those to be bought again

    def plan(self, source: FeedSource, *, job_defaults: Mapping[str, Any], model: str | None = None) -> None:
        """Read the feed and write the plan, whole or not at all.

        Raises:
            FeedError: The feed cannot be read to its end; nothing is planned.
            RunRefusedError: Too many rows are rejected, or too many products would be bought again.
            InvalidRequestError: `job_defaults` break a rule by themselves.
        """
        self._write(self._begin)
        self._probe("plan.begun")
        options = self._options
        version = CURRENT_VERSION if options.newest_mapping else self._catalogue.mapping_version
        defaults = dict(job_defaults)
        if model is not None and defaults.get("video_model") is None:
            defaults["video_model"] = model
        feed = options.feed if options.feed.kind else replace(options.feed, kind=self._catalogue.kind)
        with opened_plan(
            source,
            job_defaults=defaults,
            options=feed,
            mapping=options.mapping,
            version=version,
            upload_pictures=options.upload_pictures,
        ) as opened:
            for batch in self._batches(opened.rows):
                self._write(partial(self._add, rows=batch))
                self._probe("plan.batch")
            kind, name = opened.kind, opened.source
            if self._seq and opened.unseen:
                _log.warning("the mapping names what no product has: %s", ", ".join(sorted(opened.unseen)))
        if gone := options.regenerate - self._wanted:
            _log.warning("regenerate: %s would not be sent: it is not in the feed, or refused", ", ".join(sorted(gone)))
        self._catalogue = self._ledger.pin(self._catalogue, kind=kind, mapping_version=version)
        self._write(lambda connection: self._end(connection, name))
        self._probe("plan.written")

    def _batches(self, rows: Iterable[Planned]) -> Iterator[list[RejectedRow | SkippedRow | Wanted]]:
        """The rows in batches, each written long before the lease ends: pictures are read, and a source may be slow."""
        batch: list[RejectedRow | SkippedRow | Wanted] = []
        until = self._ledger.now() + LEASE / 4
        for row in rows:
            batch.append(self._prepare(row))
            if len(batch) >= _BATCH or self._ledger.now() >= until:
                yield batch
                batch, until = [], self._ledger.now() + LEASE / 4
        if batch:
            yield batch

    def _write(self, work: Callable[[sa.Connection], None]) -> None:
        def fenced(connection: sa.Connection) -> None:
            touch(connection, self._run, until=self._ledger.now() + LEASE)
            work(connection)

        self._ledger.writer.run(fenced)

    def _prepare(self, row: Planned) -> RejectedRow | SkippedRow | Wanted:
        """What costs time and needs no database."""
        if not isinstance(row, Order):
            return row
        if row.product_id in self._options.regenerate:
            self._wanted.add(row.product_id)
        picture = identity = None
        fields = row.fields
        address = fields["product_image_url"]
        if self._identity is not None and not address.startswith(("http://", "https://")):
            try:
                picture, identity = address, self._identity(address)
            except LedgerUnavailableError:
                raise
            except (OSError, ValueError, ImportError, UGenError) as error:
                rule = f"cannot be read: {error}"
                return RejectedRow(row.line, row.item, row.product_id, "image_link", rule, address, row.rows)
        digest = fingerprint(fields, scheme=self._catalogue.scheme, image_identity=identity)
        return Wanted(row, digest, picture, identity)

    def _begin(self, connection: sa.Connection) -> None:
        """Forget what an earlier attempt at this plan wrote."""
        for table in (schema.item, schema.rejected):
            connection.execute(sa.delete(table).where(table.c.run == self._run.id))
        product = schema.product
        connection.execute(
            sa.update(product)
            .where(product.c.catalogue_id == self._catalogue.id, product.c.seen_run == self._run.id)
            .values(seen_run=None, seen_as=None)
        )
        names = ("rows", "products", "unchanged", "rejected", "filtered", "duplicates", "new", "changed", "disappeared")
        run = schema.run
        connection.execute(sa.update(run).where(run.c.id == self._run.id).values(dict.fromkeys(names, 0)))

    def _add(self, connection: sa.Connection, *, rows: list[RejectedRow | SkippedRow | Wanted]) -> None:
        adding = Adding(connection, self._run.id, self._catalogue, self._options, seq=self._seq)
        adding.add(rows)
        self._seq = adding.seq

    def _end(self, connection: sa.Connection, source: str) -> None:
        run, product, item = schema.run, schema.product, schema.item
        ours = product.c.catalogue_id == self._catalogue.id
        # Known from an earlier run, and not seen by this one.
        gone = sa.select(sa.func.count()).where(
            ours,
            product.c.state != "",
            sa.or_(product.c.seen_run.is_(None), product.c.seen_run != self._run.id),
        )
        disappeared = connection.execute(gone).scalar_one()
        counts = connection.execute(sa.select(run).where(run.c.id == self._run.id)).one()
        known = connection.execute(sa.select(sa.func.count()).where(ours, product.c.state == "completed")).scalar_one()
        whys = (
            sa.select(item.c.why, sa.func.count().label("amount"))
            .where(item.c.run == self._run.id)
            .group_by(item.c.why)
        )
        by_why: dict[str, int] = {row.why: row.amount for row in connection.execute(whys)}
        changed = by_why.get("changed", 0)
        values = {"source": source, "disappeared": disappeared, "new": by_why.get("new", 0), "changed": changed}
        connection.execute(sa.update(run).where(run.c.id == self._run.id).values(values))
        refusal = self._refusal(rejected=counts.rejected, rows=counts.products, changed=changed, known=known)
        if refusal is not None:
            raise refusal
        now = self._ledger.now()
        connection.execute(sa.update(run).where(run.c.id == self._run.id).values(state="buying", planned_at=now))

    def _refusal(self, *, rejected: int, rows: int, changed: int, known: int) -> RunRefusedError | None:
        most = self._options.max_rejected
        if most is not None and rejected > most:
            message = f"{rejected} of {rows} products are rejected and max_rejected is {most}: nothing was bought"
            return RunRefusedError(message, reason="max_rejected")
        share = self._options.max_changed
        if known and changed > share * known:
            message = (
                f"{changed} of {known} known products would be bought again and max_changed is {share:.0%}: "
                "nothing was bought. Did job_defaults or the feed's texts change? Raise max_changed if that is meant"
            )
            return RunRefusedError(message, reason="max_changed")
        return None
