# SPDX-License-Identifier: Apache-2.0
"""What a feed's row means for what is known: new, changed, changed back, unchanged, or one that came before."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from ugen_provider.core.batch import schema
from ugen_provider.core.batch.ledger import Catalogue, among, insert_new
from ugen_provider.core.batch.plans import PlanOptions
from ugen_provider.core.feeds.mapper import SkippedRow
from ugen_provider.core.feeds.planning import Order
from ugen_provider.core.feeds.products import RejectedRow

_KNOWN = tuple(
    schema.product.c[name]
    for name in (
        *("product_id", "fingerprint", "state", "final_failure", "reason", "job_id", "manifest"),
        *("seen_run", "seen_as"),
    )
)


class Wanted(NamedTuple):
    """An order with what decides whether it is known: its fingerprint, and the picture it would upload.

    A tuple, as `Product` and `Order` are.
    """

    order: Order
    fingerprint: str
    picture: str | None = None
    identity: str | None = None

    @property
    def product_id(self) -> str:
        """The shop's own id."""
        return self.order.product_id


class Adding:
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

    def add(self, rows: list[RejectedRow | SkippedRow | Wanted]) -> None:
        """Count the rows, and write what is to be bought."""
        known = self._known({row.product_id for row in rows if row.product_id is not None})
        wanted: dict[str, Wanted] = {}
        seen_as: dict[str, str] = {}
        refused: list[dict[str, Any]] = []
        for row in rows:
            if isinstance(row, Wanted):
                product_id = row.order.product_id
                self._counts["rows"] += row.order.rows
                if self._is_new(product_id, known, seen_as):
                    wanted[product_id] = row
                    seen_as[product_id] = "planned"
                else:
                    self._want_again(row, known, seen_as, wanted)
                continue
            self._counts["rows"] += row.rows
            if isinstance(row, RejectedRow):
                self._counts["rejected"] += 1
                refused.append(self._rejected(row))
                if row.product_id is not None and self._is_new(row.product_id, known, seen_as):
                    seen_as[row.product_id] = "rejected"
            elif isinstance(row, SkippedRow):
                self._counts["filtered"] += 1
                if self._is_new(row.product_id, known, seen_as):
                    seen_as[row.product_id] = "filtered"
        self._counts["products"] += len(rows)
        unchanged = self._unchanged(wanted, known)
        for product_id in unchanged:
            del wanted[product_id]
        items, restored = self._judge(wanted, known)
        self._save(items, unchanged + restored, seen_as, refused)

    def _known(self, ids: Collection[str]) -> dict[str, Any]:
        product = schema.product
        query = sa.select(*_KNOWN).where(
            product.c.catalogue_id == self._catalogue.id, among(self._connection, product.c.product_id, ids)
        )
        return {row[0]: row for row in self._connection.execute(query).all()}

    def _is_new(self, product_id: str, known: Mapping[str, Any], seen_as: Mapping[str, str]) -> bool:
        """Whether this run sees the product for the first time."""
        row = known.get(product_id)
        return product_id not in seen_as and (row is None or row.seen_run != self._run)

    def _want_again(
        self, row: Wanted, known: Mapping[str, Any], seen_as: dict[str, str], wanted: dict[str, Wanted]
    ) -> None:
        """A product that this run has seen before."""
        product_id = row.product_id
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

    def _unchanged(self, wanted: Mapping[str, Wanted], known: Mapping[str, Any]) -> list[str]:
        """What is there already, and is asked for as it was."""
        regenerate = self._options.regenerate
        return [
            product_id
            for product_id, row in wanted.items()
            if (there := known.get(product_id)) is not None
            and there.fingerprint == row.fingerprint
            and product_id not in regenerate
            and self._is_done(there)
        ]

    def _judge(self, wanted: Mapping[str, Wanted], known: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        """What of the rest is to be bought, and what has only changed back."""
        items: list[dict[str, Any]] = []
        restored: list[str] = []
        back = self._earlier({product_id: row.fingerprint for product_id, row in wanted.items()}, known)
        for product_id, row in wanted.items():
            there = known.get(product_id)
            same = there is not None and there.fingerprint == row.fingerprint
            again = product_id in self._options.regenerate
            if not same and (earlier := back.get(product_id)) is not None:
                there, same = earlier, True
                if not again and self._is_done(there):
                    self._restore(earlier)
                    restored.append(product_id)
                    continue
            items.append(self._item(row, there if same else None, known.get(product_id), again=again))
        return items, restored

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
        query = sa.select(intent).where(
            intent.c.catalogue_id == self._catalogue.id, among(self._connection, intent.c.product_id, changed)
        )
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

    def _item(self, row: Wanted, same: Any, known: Any, *, again: bool) -> dict[str, Any]:
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
            insert_new(self._connection, product, new)
        for how in set(seen_as.values()):
            ids = [product_id for product_id, other in seen_as.items() if other == how]
            self._connection.execute(
                sa.update(product)
                .where(product.c.catalogue_id == self._catalogue.id, among(self._connection, product.c.product_id, ids))
                .values(seen_run=self._run, seen_as=how)
            )
