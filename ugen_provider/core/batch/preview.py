# SPDX-License-Identifier: Apache-2.0
"""A feed checked without buying: its orders, its rejected rows, its oddities, and what they would cost.

Nothing is sent and nothing is written but a temporary file, in which the rows wait so that memory stays constant.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import sqlalchemy as sa

from ugen_provider.core.api.rules import contradictions
from ugen_provider.core.batch.adoption import videos_to_share
from ugen_provider.core.batch.budget import cost_key
from ugen_provider.core.batch.images import picture_identity
from ugen_provider.core.batch.planner import (
    PlanFigures,
    identify_picture,
    own_purchases,
    postpones_changed,
    refusal,
    unchanged_by,
    with_model,
)
from ugen_provider.core.batch.spec import PlanOptions
from ugen_provider.core.feeds.mapper import OpenPlan, opened_plan
from ugen_provider.core.feeds.mapping import FeedMapping
from ugen_provider.core.feeds.pictures import PLACEHOLDER, is_page
from ugen_provider.core.feeds.products import FeedOrder, Planned, RejectedRow, SkippedRow, place
from ugen_provider.core.feeds.sources import FeedSource
from ugen_provider.core.jobs.order import fingerprint
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.record import CURRENT_SCHEME, row_id, shown_id, split_row_id
from ugen_provider.core.ledger.store import Catalogue, Ledger, among, runs_in_force
from ugen_provider.core.media.origins import OriginError, RowOrigins

_BATCH = 2000
_MOST_NAMED = 3
"""Requests that a warning names with their lines; `orders` has the warnings of each."""
_BUYING = ("new", "changed", "again")
_LONG_TITLE = 150
_MOJIBAKE = re.compile("Ã[\x80-\xbf\u0192\u201a\u201e¤¶¼©¨]|â€|Â[°®©£ ]|\ufffd")
_EXCEL_ID = re.compile(r"\d(?:[.,]\d+)?E\+\d+", re.IGNORECASE)

# Of the products that are gone, those whose video another id of the feed takes: one for each such id.
_RENAMED = """
    SELECT coalesce(sum(min(l.amount, a.amount)), 0)
    FROM (SELECT request, variant, count(*) AS amount FROM lost GROUP BY request, variant) AS l
    JOIN (SELECT request, variant, count(*) AS amount FROM row WHERE what = 'order' AND why = 'adopted'
          GROUP BY request, variant) AS a ON a.request = l.request AND a.variant = l.variant
"""


@dataclass(slots=True)
class FeedCheck:
    """The result of a check; its counts grow while the rows are read.

    Attributes:
        source: The feed, without credentials and query.
        kind: Whose rules it follows.
        format: How it is written.
        rows: Products read, good and bad.
        accepted: Would be sent.
        rejected: Would be refused.
        skipped: Left out on purpose: not for sale, filtered, grouped, or beyond a limit.
        not_for_sale: Of the skipped, those that the shop does not sell.
        duplicates: Accepted, with an id that another one has; one of them would be sent.
        duplicate_used: Which of them: `first` or `last`.
        to_buy: Videos that a run would buy: one for each different request, without those that known products have.
        estimated_credits: The cost of these; None where it is not known.
        skipped_by: How many each rule leaves out.
        unseen_columns: Columns that the mapping names and no product has.
        out_of_stock: Orders whose product is not in stock.
        without_selling_points: Orders without a selling point.
        identical_requests: Orders whose request is identical to that of another product.
        pictures: Different pictures of the orders.
        groups: Different groups of the orders that name one.
        page_pictures: Orders whose picture is the address of a page.
        placeholder_pictures: Orders whose picture is a known placeholder.
        mojibake: Orders whose name was decoded wrongly.
        long_names: Orders whose name is longer than 150 characters.
        suspicious_ids: Orders whose id a spreadsheet has probably changed.
        new: Products that the catalogue does not know; None where no catalogue was named.
        changed: Known products whose request changed.
        unchanged: Known products that would not be bought again.
        again: Known products that have no video yet.
        adopted: New and changed products whose video the catalogue has already, under another id.
        gone: Known products that this feed no longer has.
        known: Known products of this feed's part of the catalogue that have a video: the limits are shares of these.
        lost: Of the gone, those whose video the shop would lose: the figure that `max_gone` limits.
        contradictions: Orders whose request contradicts itself, though the service accepts it; each names its warnings.
        refused_by: The option whose limit a run with these options would break; None where it would buy.
        warnings: Sentences about the oddities above.
    """

    source: str
    kind: str
    format: str
    rows: int = 0
    accepted: int = 0
    rejected: int = 0
    skipped: int = 0
    not_for_sale: int = 0
    duplicates: int = 0
    duplicate_used: str = "first"
    to_buy: int = 0
    estimated_credits: int | None = 0
    skipped_by: dict[str, int] = field(default_factory=dict)
    unseen_columns: list[str] = field(default_factory=list)
    out_of_stock: int = 0
    without_selling_points: int = 0
    identical_requests: int = 0
    pictures: int = 0
    groups: int = 0
    page_pictures: int = 0
    placeholder_pictures: int = 0
    mojibake: int = 0
    long_names: int = 0
    suspicious_ids: int = 0
    contradictions: int = 0
    new: int | None = None
    changed: int | None = None
    unchanged: int | None = None
    again: int | None = None
    adopted: int | None = None
    gone: int | None = None
    known: int | None = None
    lost: int | None = None
    refused_by: str | None = None
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)


class OpenCheck:
    """A check: its rows, its figures so far, and after all rows were read the lists of what it found.

    Args:
        opened: The plan.
        options: The options of the run that is checked.
        estimate: The credits of one request.
        known: The catalogue to compare with, and its ledger.
        identity: The digest of a picture's content, where pictures are read.
        database: A temporary one.
    """

    def __init__(
        self,
        opened: OpenPlan,
        *,
        options: PlanOptions,
        estimate: Callable[[Mapping[str, Any]], int | None] | None,
        known: tuple[Ledger, Catalogue] | None,
        identity: Callable[[str], str] | None,
        database: sqlite3.Connection,
    ) -> None:
        self.summary = FeedCheck(opened.source, opened.kind, opened.format, duplicate_used=options.duplicates)
        self._opened = opened
        self._options = options
        self._estimate = estimate
        self._known = known
        self._identity = identity
        self._database = database
        self._waiting: list[tuple[Any, ...]] = []
        self._contradicting: list[str] = []
        self._scheme = known[1].scheme if known is not None else CURRENT_SCHEME
        self.rows: Iterator[Planned] = self._read()
        database.execute(
            "CREATE TABLE row (seq INTEGER PRIMARY KEY, what, id, line, item, request, picture, grp, cost, body, "
            "variant, why DEFAULT 'new', buys DEFAULT 0, changed)"
        )
        database.execute("CREATE TABLE lost (request, variant)")
        database.execute("CREATE TABLE price (cost PRIMARY KEY, credits)")

    def _read(self) -> Iterator[Planned]:
        for seq, planned in enumerate(self._opened.rows):
            row, identity = planned, None
            if isinstance(row, FeedOrder):
                found = identify_picture(row, self._identity, by_content=self._options.pictures_by_content)
                if isinstance(found, RejectedRow):
                    row = found
                else:
                    identity = found[1]
            self._count(seq, row, identity)
            yield row
        self._flush()
        self._conclude()

    def orders(self) -> Iterator[dict[str, Any]]:
        """Yield every order, one per id, in the order in which they would be bought.

        `buys` says whether a run would buy it, `credits` what a purchase of it costs, `video` is equal for orders that
        share one purchase, and `changed` names the fields that differ from the request that was bought.
        """
        for name, line, item, body, why, buys, request, changed, cost in self._database.execute(
            "SELECT id, line, item, body, why, buys, request, changed, credits FROM row LEFT JOIN price "
            "ON price.cost = row.cost WHERE what = 'order' ORDER BY seq"
        ):
            product_id, variant = split_row_id(name)
            named = {"variant": variant} if variant else {}
            judged: dict[str, Any] = {"why": why} if self._known is not None else {}
            if changed:
                judged["changed"] = json.loads(changed)
            alone = product_id in self._options.regenerate or self._options.adopt == "off"
            video = f"{request[:24]}{name if alone else variant}"
            price = cost if why in _BUYING else 0
            bought = {"buys": bool(buys), "credits": price, "video": fingerprint({"video": video})[:16]}
            place = {"line": line, "item": item}
            yield {"product_id": product_id, **named, **place, **judged, **bought, **json.loads(body)}

    def rejected_rows(self) -> Iterator[dict[str, Any]]:
        """Yield every rejected row with its reason."""
        return self._bodies("rejected")

    def skipped_rows(self) -> Iterator[dict[str, Any]]:
        """Yield every row that is left out on purpose."""
        return self._bodies("skipped")

    def duplicate_rows(self) -> Iterator[dict[str, Any]]:
        """Yield every order whose id came before, with the line of the first."""
        for product_id, line, item, first, first_item in self._database.execute(
            "SELECT r.id, r.line, r.item, f.line, f.item FROM row AS r "
            "JOIN row AS f ON f.what = 'order' AND f.id = r.id WHERE r.what = 'duplicate' ORDER BY r.seq"
        ):
            yield {
                "product_id": shown_id(product_id),
                "line": line,
                "item": item,
                "first_line": first,
                "first_item": first_item,
            }

    def _bodies(self, what: str) -> Iterator[dict[str, Any]]:
        for (body,) in self._database.execute("SELECT body FROM row WHERE what = ? ORDER BY seq", (what,)):
            yield json.loads(body)

    def _count(self, seq: int, row: Planned, identity: str | None) -> None:
        summary = self.summary
        summary.rows += 1
        if isinstance(row, RejectedRow):
            summary.rejected += 1
            self._keep(seq, "rejected", row.product_id, row, body=asdict(row))
        elif isinstance(row, SkippedRow):
            summary.skipped += 1
            summary.not_for_sale += row.reason == "not_for_sale"
            summary.skipped_by[_short(row)] = summary.skipped_by.get(_short(row), 0) + 1
            self._keep(seq, "skipped", row.product_id, row, body=asdict(row))
        else:
            summary.accepted += 1
            self._keep_order(seq, row, identity)

    def _keep_order(self, seq: int, row: FeedOrder, identity: str | None) -> None:
        fields = dict(row.fields)
        counted = {name: value for name, value in fields.items() if name not in self._opened.mapping.ignore_changes}
        body: dict[str, Any] = {
            "request": fields,
            "digest": fingerprint(fields, scheme=self._scheme, image_identity=identity),
            "facts": self._facts(row),
        }
        if warnings := contradictions(fields):
            body |= {"warnings": warnings}
        if row.members > 1:
            body |= {"members": row.members}
        if row.file is not None:
            body["file"] = row.file
        group = row.product.text("item_group_id") if row.product is not None else ""
        picture = str(fields["product_image_url"])
        cost = cost_key(fields)
        digest = fingerprint(counted, scheme=self._scheme, image_identity=identity)
        self._waiting.append(
            (
                *(seq, "order", row_id(row.product_id, row.variant), row.line, row.item, digest, picture),
                *(group or None, cost, json.dumps(body), row.variant),
            )
        )
        self._flush(_BATCH)

    def _facts(self, row: FeedOrder) -> list[str]:
        name = str(row.fields["product_name"])
        picture = str(row.fields["product_image_url"])
        product = row.product
        facts = {
            "out_of_stock": product is not None and product.availability == "out_of_stock",
            "without_selling_points": not row.fields.get("key_selling_points") and not row.fields.get("custom_script"),
            "page_pictures": is_page(picture),
            "placeholder_pictures": PLACEHOLDER.search(picture) is not None,
            "mojibake": not name.isascii() and _MOJIBAKE.search(name) is not None,
            "long_names": len(name) > _LONG_TITLE,
            "suspicious_ids": _EXCEL_ID.fullmatch(row.product_id) is not None or row.product_id.startswith("#"),
        }
        return [fact for fact, is_so in facts.items() if is_so]

    def _keep(
        self, seq: int, what: str, product_id: str | None, row: RejectedRow | SkippedRow, *, body: dict[str, Any]
    ) -> None:
        text = json.dumps(body)
        self._waiting.append((seq, what, product_id, row.line, row.item, None, None, None, None, text, row.variant))
        self._flush(_BATCH)

    def _flush(self, least: int = 0) -> None:
        if len(self._waiting) > least:
            names = "seq, what, id, line, item, request, picture, grp, cost, body, variant"
            self._database.executemany(f"INSERT INTO row ({names}) VALUES ({'?, ' * 10}?)", self._waiting)  # noqa: S608
            self._waiting.clear()

    def _conclude(self) -> None:
        database, summary = self._database, self.summary
        database.execute("CREATE INDEX by_id ON row (id, what, seq)")
        chosen = "min" if self._options.duplicates == "first" else "max"
        database.execute(
            f"UPDATE row SET what = 'duplicate' WHERE what = 'order' AND seq != (SELECT {chosen}(f.seq) "  # noqa: S608
            "FROM row AS f WHERE f.id = row.id AND f.what = 'order')"
        )
        summary.duplicates = self._one("SELECT count(*) FROM row WHERE what = 'duplicate'")
        summary.pictures = self._one("SELECT count(DISTINCT picture) FROM row WHERE what = 'order'")
        summary.groups = self._one("SELECT count(DISTINCT grp) FROM row WHERE what = 'order'")
        summary.identical_requests = self._one(
            "SELECT coalesce(sum(n), 0) FROM (SELECT count(*) - 1 AS n FROM row WHERE what = 'order' "
            "GROUP BY request, variant)"
        )
        for body, line, item in database.execute("SELECT body, line, item FROM row WHERE what = 'order' ORDER BY seq"):
            read = json.loads(body)
            for fact in read["facts"]:
                setattr(summary, fact, getattr(summary, fact) + 1)
            if warnings := read.get("warnings"):
                summary.contradictions += 1
                if summary.contradictions <= _MOST_NAMED:
                    self._contradicting.append(f"{place(line, item)}: {'; '.join(warnings)}")
        summary.unseen_columns = sorted(self._opened.unseen)
        database.execute("CREATE INDEX by_request ON row (request, variant, what, why, seq)")
        if self._known is not None:
            self._compare(*self._known)
        figures = PlanFigures(
            products=summary.rows,
            rejected=summary.rejected,
            known=summary.known or 0,
            new=summary.new or 0,
            changed=summary.changed or 0,
            gone=summary.lost or 0,
        )
        refused = refusal(figures, self._options)
        postponed = postpones_changed(figures, self._options)
        self._choose(("new", "again") if postponed else _BUYING)
        self._add_costs()
        summary.warnings = list(self._warnings())
        if postponed:
            summary.warnings.append(f"{figures.changed:,} changed products are more than max_changed, and would wait")
        if refused is not None:
            summary.refused_by = refused.reason
            summary.warnings.append(f"a run with these options would be refused: {refused.message}")

    def _one(self, query: str, *values: str) -> int:
        found: int = self._database.execute(query, values).fetchone()[0]
        return found

    def _choose(self, whys: tuple[str, ...]) -> None:
        """Mark the orders that a run would buy. Products with equal requests share the purchase of the first."""
        database = self._database
        database.execute("CREATE TABLE wanted (why PRIMARY KEY)")
        database.executemany("INSERT INTO wanted VALUES (?)", [(why,) for why in whys])
        database.execute("CREATE TABLE alone (id PRIMARY KEY)")
        shares = self._options.adopt != "off"
        if not shares or self._options.regenerate:
            names = database.execute("SELECT DISTINCT id FROM row WHERE what = 'order'").fetchall()
            alone = [(name,) for (name,) in names if not shares or split_row_id(name)[0] in self._options.regenerate]
            database.executemany("INSERT INTO alone VALUES (?)", alone)
        database.execute("UPDATE row SET buys = 1 WHERE what = 'order' AND id IN alone AND why IN wanted")
        database.execute(
            "UPDATE row SET buys = 1 WHERE what = 'order' AND id NOT IN alone AND why IN wanted AND seq = "
            "(SELECT min(f.seq) FROM row AS f WHERE f.request = row.request AND f.variant = row.variant "
            "AND f.what = 'order' AND f.why IN wanted AND f.id NOT IN alone)"
        )
        self.summary.to_buy = self._one("SELECT count(*) FROM row WHERE buys = 1")

    def _add_costs(self) -> None:
        summary, estimate = self.summary, self._estimate
        if estimate is None:
            summary.estimated_credits = None
            return
        total: int | None = 0
        query = "SELECT count(*), min(seq), cost FROM row WHERE buys = 1 GROUP BY cost"
        for count, seq, key in self._database.execute(query).fetchall():
            (body,) = self._database.execute("SELECT body FROM row WHERE seq = ?", (seq,)).fetchone()
            cost = estimate(json.loads(body)["request"])
            if cost is None:
                total = None
                break
            self._database.execute("INSERT INTO price VALUES (?, ?)", (key, cost))
            total = count * cost + (total or 0)
        summary.estimated_credits = total

    def _compare(self, ledger: Ledger, catalogue: Catalogue) -> None:
        """Judge each order as the next run of a catalogue would, and count what limits a run. Reads the ledger only."""
        summary, options = self.summary, self._options
        counts = {"new": 0, "changed": 0, "unchanged": 0, "again": 0, "adopted": 0}
        product = schema.product
        ours = product.c.catalogue_id == catalogue.id
        query = sa.select(product.c.product_id, product.c.state, product.c.fingerprint)
        orders = self._database.cursor().execute(
            "SELECT seq, id, request, body, variant FROM row WHERE what = 'order' ORDER BY seq"
        )
        while batch := orders.fetchmany(_BATCH):
            ids, digests = [row[1] for row in batch], list({row[2] for row in batch})

            def known(
                connection: sa.Connection, ids: list[str] = ids, digests: list[str] = digests
            ) -> tuple[dict[str, Any], set[tuple[str, str]]]:
                by_id = connection.execute(query.where(ours, among(connection, product.c.product_id, ids)))
                there = {row.product_id: row for row in by_id}
                return there, videos_to_share(connection, catalogue, digests)

            there, videos = ledger.read(known)
            judged: list[tuple[str, str | None, int]] = []
            own = self._own_orders(ledger, catalogue, ids)
            for seq, name, digest, body, variant in batch:
                read = json.loads(body)
                purchases = own.get(name, {})
                why = _judged(there.get(name), (digest, read["digest"]))
                fields = None
                if split_row_id(name)[0] in options.regenerate:
                    why = "again"
                elif why in {"new", "changed"} and digest in purchases:
                    # It changed back: its old video is its video again.
                    why = "unchanged" if purchases[digest].state == "completed" else "again"
                elif why in {"new", "changed"} and options.adopt != "off" and (variant, digest) in videos:
                    why = "adopted"
                elif why == "changed" and (bought := purchases.get(there[name].fingerprint)) is not None:
                    fields = json.dumps(self._changed_fields(json.loads(bought.document), read["request"]))
                counts[why] += 1
                judged.append((why, fields, seq))
            self._database.executemany("UPDATE row SET why = ?, changed = ? WHERE seq = ?", judged)
        summary.new, summary.changed = counts["new"], counts["changed"]
        summary.unchanged, summary.again, summary.adopted = counts["unchanged"], counts["again"], counts["adopted"]
        self._count_known(ledger, catalogue)

    @staticmethod
    def _own_orders(ledger: Ledger, catalogue: Catalogue, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the purchases of products themselves, by the fingerprint of their requests."""
        order = schema.order

        def work(connection: sa.Connection) -> list[Any]:
            query = sa.select(order.c.product_id, order.c.fingerprint, order.c.state, order.c.document)
            these = (order.c.catalogue_id == catalogue.id, among(connection, order.c.product_id, ids))
            return list(connection.execute(query.where(*these)))

        own: dict[str, dict[str, Any]] = {}
        for row in ledger.read(work):
            own.setdefault(row.product_id, {})[row.fingerprint] = row
        return own

    def _changed_fields(self, record: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
        """Return the fields in which a request differs from the one that was bought."""
        before = record.get("body") or {}
        names = {*before, *request} - {"idempotency_key", *self._opened.mapping.ignore_changes}
        names -= {name for name in self._opened.mapping.suggest if name not in request}
        return sorted(name for name in names if before.get(name) != request.get(name))

    def _count_known(self, ledger: Ledger, catalogue: Catalogue) -> None:
        """Count the known products, and those of them that this feed lacks."""
        summary, options = self.summary, self._options
        product = schema.product
        gone = lost = with_video = 0
        force = ledger.read(lambda connection: runs_in_force(connection, catalogue.id))
        here = force.of(self._opened.mapping.part if options.part is None else options.part)
        there_too = force.all - here
        variants = {variant.name for variant in self._opened.mapping.variants} or {""}
        seen = sa.select(product.c.product_id, product.c.state, product.c.fingerprint, product.c.seen_run,
                         product.c.seen_earlier)  # fmt: skip
        with ledger.streaming() as connection:
            for row in connection.execute(seen.where(product.c.catalogue_id == catalogue.id, product.c.state != "")):
                product_id, variant = split_row_id(row.product_id)
                # A row of no use is one of every variant: the product is in the feed, and not gone.
                in_feed = self._one(
                    "SELECT (SELECT count(*) FROM row WHERE id = ? AND what = 'order') + (SELECT count(*) FROM row "
                    "WHERE id = ? AND what IN ('rejected', 'skipped') AND variant IN ('', ?))",
                    *(row.product_id, product_id, variant),
                )
                known_here = row.seen_run in here or (row.seen_earlier in here and row.seen_run not in there_too)
                with_video += row.state == "completed" and (in_feed > 0 or known_here)
                if known_here and not in_feed:
                    gone += 1
                    if row.state == "completed" and variant in variants:
                        lost += 1
                        self._database.execute("INSERT INTO lost VALUES (?, ?)", (row.fingerprint, variant))
        summary.known = with_video
        summary.gone = gone if options.is_whole else 0
        summary.lost = lost - self._one(_RENAMED)

    def _warnings(self) -> Iterator[str]:
        summary = self.summary
        orders = summary.accepted - summary.duplicates
        if not summary.rows:
            yield "the feed holds no product"
        if summary.duplicates:
            ids = "id occurs" if summary.duplicates == 1 else "ids occur"
            yield f"{summary.duplicates:,} {ids} twice; the {self._options.duplicates} of each counts"
        if summary.identical_requests:
            yield (
                f"{summary.identical_requests:,} products ask for the same video as another product: "
                "their requests are equal, so they share one video"
            )
        if orders > 1 and summary.pictures == 1:
            yield f"all {orders:,} products share the same picture"
        elif summary.pictures < orders:
            groups = f" in {summary.groups:,} groups" if summary.groups else ""
            yield (
                f"{orders:,} products share {summary.pictures:,} pictures{groups}; "
                "`--one-per picture` makes one video for each picture, `--one-per item_group_id` one for each group"
            )
        elif summary.groups and summary.groups < orders:
            yield f"{orders:,} products are variants in {summary.groups:,} groups: see `--one-per item_group_id`"
        sentences = {
            "out_of_stock": "{:,} products are out of stock; the filter `availability != out of stock` leaves them out",
            "without_selling_points": "{:,} products have no selling points",
            "page_pictures": "{:,} products have the address of a page as their picture, and no picture of the product",
            "placeholder_pictures": "{:,} products have a placeholder as their picture",
            "mojibake": "{:,} names look as if they were decoded wrongly; name the encoding of the feed",
            "long_names": "{:,} names are longer than 150 characters",
            "suspicious_ids": "{:,} ids look as if a spreadsheet had changed them, such as 1.23E+12",
        }
        for name, sentence in sentences.items():
            if count := getattr(summary, name):
                yield sentence.format(count)
        if summary.contradictions:
            more = summary.contradictions - len(self._contradicting)
            rest = f"; and {more:,} more" if more else ""
            verb = "request contradicts itself" if summary.contradictions == 1 else "requests contradict themselves"
            yield f"{summary.contradictions:,} {verb}: {'; '.join(self._contradicting)}{rest}"
        if summary.rows and summary.unseen_columns:
            yield f"the mapping names columns that no product has: {', '.join(summary.unseen_columns)}"


def _judged(there: Any, digests: tuple[str, ...]) -> str:
    if there is None or not there.state:
        return "new"
    if there.state != "completed":
        return "again"
    return "unchanged" if unchanged_by(there.fingerprint, digests) else "changed"


def _short(row: SkippedRow) -> str:
    """Return a row's rule without what is particular to the row, so that few rules are counted."""
    return {"grouped": "one video for each group", "variant": "variants of other products"}.get(row.reason, row.rule)


@contextmanager
def check_feed(
    source: FeedSource,
    *,
    job_defaults: Mapping[str, Any],
    estimate: Callable[[Mapping[str, Any]], int | None] | None = None,
    plan: PlanOptions | None = None,
    version: int | None = None,
    model: str | None = None,
    known: tuple[Ledger, Catalogue] | None = None,
) -> Iterator[OpenCheck]:
    """Check a feed without buying. Free; asks for an estimate once for each combination of fields that cost.

    Args:
        source: The feed.
        job_defaults: Fields of every request. Without `segment_count` the feed is checked and nothing is estimated.
        estimate: The credits of one request, None where they are not known.
        plan: The options of the run that is checked: how the feed is read, what is selected, and what a plan may do.
        version: Of the default mapping, where no mapping is given: that of a catalogue is pinned in its ledger.
        model: The model that the account uses where nothing names one.
        known: A ledger and a catalogue in it to compare the feed with.

    Raises:
        FeedError: The feed cannot be opened, or not read to its end.
        InvalidRequestError: `job_defaults` break a rule by themselves.

    Examples:
        >>> with check_feed("feed.xml", job_defaults={"segment_count": 2}) as check:
        ...     for row in check.rows:
        ...         print(row)
        >>> check.summary.rejected
        1
    """
    options = plan or PlanOptions()
    origins = RowOrigins(options.picture_roots)
    mapping = options.mapping
    if options.limit is not None:
        mapping = replace(mapping or FeedMapping.from_dict({}), limit=options.limit)
    with ExitStack() as stack:
        opened = stack.enter_context(
            opened_plan(
                source,
                job_defaults=with_model(job_defaults, model),
                options=options.feed,
                mapping=mapping,
                version=version,
                model=model,
                upload_pictures=options.upload_pictures,
                partial="segment_count" not in job_defaults,
                bought=own_purchases(*known) if known is not None else None,
            )
        )
        rows = (_located(_chosen(row, options.only), origins) for row in opened.rows)
        opened = replace(opened, rows=rows)
        database = stack.enter_context(closing(sqlite3.connect("")))
        reads = options.upload_pictures or options.pictures_by_content
        remembered = known[0] if known is not None else None
        identity = partial(picture_identity, remembered, origins=origins, remember=False) if reads else None
        yield OpenCheck(opened, options=options, estimate=estimate, known=known, identity=identity, database=database)


def _chosen(row: Planned, only: frozenset[str] | None) -> Planned:
    """Return the row, skipped where it is not selected."""
    if only is None or not isinstance(row, FeedOrder) or row.product_id in only:
        return row
    return SkippedRow(
        row.line, row.item, row.product_id, "filtered", "is not selected", row.rows, row.file, variant=row.variant
    )


def _located(row: Planned, origins: RowOrigins) -> Planned:
    """Return the row, rejected where a run would refuse to open its picture."""
    if isinstance(row, FeedOrder):
        address = row.fields["product_image_url"]
        try:
            origins.locate(address)
        except OriginError as error:
            return RejectedRow(row.line, row.item, row.product_id, "image_link", error.rule, error.address, row.rows)
    return row
