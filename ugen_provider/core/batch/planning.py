# SPDX-License-Identifier: Apache-2.0
"""The first pass: a feed is read once, and what it orders is written into the ledger. Nothing is sent or bought.

Buying reads only the plan, so a feed that changes meanwhile changes nothing, and a run that was killed goes on where
it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Literal

import sqlalchemy as sa

from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.batch import schema
from ugen_provider.core.batch.errors import RunRefusedError
from ugen_provider.core.batch.ledger import Catalogue, Ledger, insert_new
from ugen_provider.core.feeds.mapper import SkippedRow
from ugen_provider.core.feeds.mapping import CURRENT_VERSION, FeedMapping
from ugen_provider.core.feeds.planning import FeedOptions, Order, Planned, opened_plan
from ugen_provider.core.feeds.products import RejectedRow
from ugen_provider.core.feeds.sources import FeedSource
from ugen_provider.core.jobs.fingerprint import fingerprint
from ugen_provider.core.jobs.scope import product_scope

Duplicates = Literal["first", "last"]
_BATCH = 1000
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
            while batch := list(islice(opened.rows, _BATCH)):
                prepared = [self._prepare(row) for row in batch]
                self._write(partial(self._add, rows=prepared))
                self._probe("plan.batch")
            kind, name = opened.kind, opened.source
        self._catalogue = self._ledger.pin(self._catalogue, kind=kind, mapping_version=version)
        self._write(lambda connection: self._end(connection, name))
        self._probe("plan.written")

    def _write(self, work: Callable[[sa.Connection], None]) -> None:
        def fenced(connection: sa.Connection) -> None:
            touch(connection, self._run, until=self._ledger.now() + LEASE)
            work(connection)

        self._ledger.writer.run(fenced)

    def _prepare(self, row: Planned) -> RejectedRow | SkippedRow | _Wanted:
        """What costs time and needs no database."""
        if not isinstance(row, Order):
            return row
        picture = identity = None
        fields = dict(row.fields)
        address = fields["product_image_url"]
        if self._identity is not None and not address.startswith(("http://", "https://")):
            try:
                picture, identity = address, self._identity(address)
            except (OSError, ValueError, ImportError, UGenError) as error:
                rule = f"cannot be read: {error}"
                return RejectedRow(row.line, row.item, row.product_id, "image_link", rule, address, row.rows)
        digest = fingerprint(fields, scheme=self._catalogue.scheme, image_identity=identity)
        return _Wanted(row, digest, picture, identity)

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

    def _add(self, connection: sa.Connection, *, rows: list[RejectedRow | SkippedRow | _Wanted]) -> None:
        adding = _Adding(connection, self._run.id, self._catalogue, self._options, seq=self._seq)
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


@dataclass(frozen=True, slots=True)
class _Wanted:
    order: Order
    fingerprint: str
    picture: str | None = None
    identity: str | None = None

    @property
    def product_id(self) -> str:
        return self.order.product_id


class _Adding:
    """Adds one batch of rows to a plan, in one transaction."""

    def __init__(
        self, connection: sa.Connection, run: int, catalogue: Catalogue, options: PlanOptions, *, seq: int
    ) -> None:
        self._connection = connection
        self._run = run
        self._catalogue = catalogue
        self._options = options
        self._counts = dict.fromkeys(("rows", "products", "unchanged", "rejected", "filtered", "duplicates"), 0)
        self.seq = seq

    def add(self, rows: list[RejectedRow | SkippedRow | _Wanted]) -> None:
        known = self._known([row.product_id for row in rows if row.product_id is not None])
        wanted: dict[str, _Wanted] = {}
        seen_as: dict[str, str] = {}
        refused: list[dict[str, Any]] = []
        for row in rows:
            self._counts["products"] += 1
            self._counts["rows"] += row.rows if not isinstance(row, _Wanted) else row.order.rows
            if isinstance(row, RejectedRow):
                self._counts["rejected"] += 1
                refused.append(self._rejected(row))
                if row.product_id is not None and self._is_new(row.product_id, known, seen_as):
                    seen_as[row.product_id] = "rejected"
            elif isinstance(row, SkippedRow):
                self._counts["filtered"] += 1
                if self._is_new(row.product_id, known, seen_as):
                    seen_as[row.product_id] = "filtered"
            elif isinstance(row, _Wanted):
                self._want(row, known, seen_as, wanted)
        items, unchanged = self._judge(wanted, known)
        self._save(items, unchanged, seen_as, refused)

    def _known(self, ids: Collection[str]) -> dict[str, Any]:
        product = schema.product
        query = sa.select(product).where(
            product.c.catalogue_id == self._catalogue.id, product.c.product_id.in_(list(set(ids)))
        )
        return {row.product_id: row for row in self._connection.execute(query)}

    def _is_new(self, product_id: str, known: Mapping[str, Any], seen_as: Mapping[str, str]) -> bool:
        """Whether this run sees the product for the first time."""
        row = known.get(product_id)
        return product_id not in seen_as and (row is None or row.seen_run != self._run)

    def _want(
        self, row: _Wanted, known: Mapping[str, Any], seen_as: dict[str, str], wanted: dict[str, _Wanted]
    ) -> None:
        product_id = row.product_id
        if not self._is_new(product_id, known, seen_as):
            earlier = seen_as.get(product_id) or known[product_id].seen_as
            if earlier in {"rejected", "filtered"}:
                pass  # the good one of several counts, whatever its place
            elif self._options.duplicates == "first":
                self._counts["duplicates"] += 1
                return
            else:
                self._counts["duplicates"] += 1
                if product_id not in wanted:
                    self._take_back(product_id, earlier)
        wanted[product_id] = row
        seen_as[product_id] = "planned"

    def _take_back(self, product_id: str, earlier: str) -> None:
        """An earlier batch of this run counted the product; the later one counts instead."""
        if earlier == "unchanged":
            self._counts["unchanged"] -= 1
        else:
            item = schema.item
            self._connection.execute(sa.delete(item).where(item.c.run == self._run, item.c.product_id == product_id))

    def _judge(self, wanted: Mapping[str, _Wanted], known: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        """What of the wanted is to be bought, and what is there already."""
        items: list[dict[str, Any]] = []
        unchanged: list[str] = []
        back = self._earlier({row.product_id: row.fingerprint for row in wanted.values()}, known)
        for row in wanted.values():
            there = known.get(row.product_id)
            same = there is not None and there.fingerprint == row.fingerprint
            again = row.product_id in self._options.regenerate
            if not same and (earlier := back.get(row.product_id)) is not None:
                there, same = earlier, True
                if not again and self._is_done(there):
                    self._restore(earlier)
            if same and not again and self._is_done(there):
                unchanged.append(row.product_id)
                continue
            items.append(self._item(row, there if same else None, known.get(row.product_id), again=again))
        return items, unchanged

    def _is_done(self, there: Any) -> bool:
        return there.state == "completed" and (not self._options.stored or there.manifest is not None)

    def _earlier(self, wanted: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, Any]:
        """Requests that are known from before: of products that changed back, or whose buying never came to its end."""
        changed = [
            product_id
            for product_id, digest in wanted.items()
            if (row := known.get(product_id)) is not None and row.fingerprint != digest
        ]
        if not changed:
            return {}
        intent = schema.intent
        query = sa.select(intent).where(intent.c.catalogue_id == self._catalogue.id, intent.c.product_id.in_(changed))
        rows = self._connection.execute(query)
        return {row.product_id: row for row in rows if row.fingerprint == wanted[row.product_id]}

    def _restore(self, earlier: Any) -> None:
        """A product changed back: its old video is its video again."""
        product = schema.product
        names = ("fingerprint", "state", "final_failure", "reason", "job_id", "credits", "score", "video", "manifest")
        self._connection.execute(
            sa.update(product)
            .where(product.c.catalogue_id == self._catalogue.id, product.c.product_id == earlier.product_id)
            .values({name: getattr(earlier, name) for name in names})
        )

    def _item(self, row: _Wanted, same: Any, known: Any, *, again: bool) -> dict[str, Any]:
        order = row.order
        self.seq += 1
        state, reason = "planned", None
        if same is not None and same.final_failure and not again:
            # The same request would only be refused again, or somebody cancelled it on purpose.
            state = "failed"
            reason = f"{same.reason}; buy it again with --regenerate {row.product_id}"
        if again:
            why = "regenerate"
        elif same is not None:
            why = "again"
        else:
            why = "changed" if known is not None and known.state == "completed" else "new"
        return {
            "run": self._run,
            "product_id": row.product_id,
            "seq": self.seq,
            "line": order.line,
            "item": order.item,
            "why": why,
            "fingerprint": row.fingerprint,
            "body": json.dumps(order.fields, ensure_ascii=False, separators=(",", ":")),
            "picture": row.picture,
            "picture_digest": row.identity,
            "begun": same is not None,
            "state": state,
            "reason": reason,
            "job_id": same.job_id if same is not None else None,
        }

    def _rejected(self, row: RejectedRow) -> dict[str, Any]:
        self.seq += 1
        return {
            "run": self._run,
            "seq": self.seq,
            "line": row.line,
            "item": row.item,
            "product_id": row.product_id,
            "column": row.column,
            "rule": row.rule,
            "excerpt": row.excerpt.replace("\x00", ""),
        }

    def _save(
        self,
        items: list[dict[str, Any]],
        unchanged: Collection[str],
        seen_as: dict[str, str],
        refused: list[dict[str, Any]],
    ) -> None:
        connection = self._connection
        self._counts["unchanged"] += len(unchanged)
        for product_id in unchanged:
            seen_as[product_id] = "unchanged"
        if items:
            connection.execute(sa.insert(schema.item), items)
        if refused:
            connection.execute(sa.insert(schema.rejected), refused)
        self._mark(seen_as)
        changes = {name: schema.run.c[name] + count for name, count in self._counts.items() if count}
        if changes:
            connection.execute(sa.update(schema.run).where(schema.run.c.id == self._run).values(changes))

    def _mark(self, seen_as: Mapping[str, str]) -> None:
        product = schema.product
        if not seen_as:
            return
        new = [
            {"catalogue_id": self._catalogue.id, "product_id": product_id, "seen_run": self._run, "seen_as": how}
            for product_id, how in seen_as.items()
            if how != "unchanged"
        ]
        if new:
            self._connection.execute(insert_new(self._connection, product, new))
        for how in set(seen_as.values()):
            ids = [product_id for product_id, other in seen_as.items() if other == how]
            self._connection.execute(
                sa.update(product)
                .where(product.c.catalogue_id == self._catalogue.id, product.c.product_id.in_(ids))
                .values(seen_run=self._run, seen_as=how)
            )


def touch(connection: sa.Connection, run: Run, *, until: float) -> None:
    """Say that this runner still works on the run, and make sure that it may.

    Raises:
        LeaseLostError: Another runner took it over.
    """
    from ugen_provider.core.batch.errors import LeaseLostError

    table = schema.run
    update = sa.update(table).where(table.c.id == run.id, table.c.owner == run.owner).values(lease_until=until)
    if connection.execute(update).rowcount != 1:
        raise LeaseLostError(f"run {run.run_id!r} was taken over by another runner")


def intent_scope(catalogue: Catalogue, product_id: str, digest: str) -> str:
    """Under what the intent of a product's request is kept."""
    scope = product_scope(catalogue=catalogue.name, product_id=product_id, namespace=catalogue.namespace)
    return f"{scope}{digest}"
