# SPDX-License-Identifier: Apache-2.0
"""The first pass: a feed is read once, and what it orders is written into the ledger. Nothing is sent or bought.

Buying reads only the plan, so a feed that changes meanwhile changes nothing, and a run that was killed continues where
it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast

import sqlalchemy as sa

from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.batch.adoption import Candidate, SharedPurchases, apply_adoptions, facts_of, share
from ugen_provider.core.batch.budget import cost_key
from ugen_provider.core.batch.errors import RefusedReason, RunRefusedError
from ugen_provider.core.batch.runs import LEASE, Run, touch
from ugen_provider.core.batch.spec import PlanOptions
from ugen_provider.core.feeds.layouts import Kind
from ugen_provider.core.feeds.mapper import Bought, OpenPlan, opened_plan
from ugen_provider.core.feeds.mapping import FeedMapping
from ugen_provider.core.feeds.products import FeedOrder, Planned, RejectedRow, SkippedRow
from ugen_provider.core.feeds.sources import FeedSource
from ugen_provider.core.jobs.order import fingerprint
from ugen_provider.core.ledger import record as ledger_record
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.errors import LedgerUnavailableError
from ugen_provider.core.ledger.record import row_id, shown_id, split_row_id, variant_pattern
from ugen_provider.core.ledger.store import Catalogue, Ledger, RunsInForce, among, insert_new, runs_in_force
from ugen_provider.core.media.origins import OriginError
from ugen_provider.core.text import get_logger

# Whether a plan may buy, decided on its figures before the first purchase. A feed that broke looks like a shop that
# changed, and both ways cost: products that look new or changed are bought again, and products that look gone lose
# their videos in the shop. A plan that does more than its options allow buys nothing.

_NEW_IDS = 0.2
"""Share of the known products from which new ones together with gone ones mean that the shop changed its ids."""


@dataclass(frozen=True, slots=True)
class PlanFigures:
    """The effects of a plan, in products and their variants.

    Attributes:
        products: Products in the feed, good and bad.
        rejected: Of these, those that become no order.
        known: Products of this part of the catalog that have a video.
        new: Products to be bought that have no video.
        changed: Products to be bought although they have a video.
        gone: Known products that the feed lacks; one whose video another id adopted is not gone.
    """

    products: int
    rejected: int
    known: int
    new: int
    changed: int
    gone: int


@dataclass(frozen=True, slots=True)
class PlanRefusal:
    """The reason why a plan may not buy.

    Attributes:
        reason: A stable word for programs.
        message: The figures, and the option that allows them.
    """

    reason: RefusedReason
    message: str


def refusal(figures: PlanFigures, options: PlanOptions) -> PlanRefusal | None:
    """Decide whether a plan may buy. None lets it.

    Args:
        figures: What the plan would do.
        options: What it may do.

    Examples:
        >>> night = PlanFigures(products=100, rejected=0, known=100, new=0, changed=21, gone=0)
        >>> refusal(night, PlanOptions()).reason
        'max_changed'
        >>> refusal(night, PlanOptions(max_changed=0.21)) is None
        True
    """
    if options.max_rejected is not None and figures.rejected > options.max_rejected:
        return PlanRefusal(
            "max_rejected",
            f"{figures.rejected} of {figures.products} products are rejected and max_rejected is "
            f"{options.max_rejected}: nothing was bought",
        )
    # Too few products say nothing about the feed, and a selection says nothing about what it leaves out.
    if figures.known < options.guard_min or not options.is_whole:
        return None
    return (
        _id_refusal(figures, options) or _gone(figures, options) or _changed(figures, options) or _new(figures, options)
    )


def postpones_changed(figures: PlanFigures, options: PlanOptions) -> bool:
    """Return whether the changed products wait for a person while the new ones are bought."""
    return options.on_changed == "postpone" and _too_many_changed(figures, options)


def _id_refusal(figures: PlanFigures, options: PlanOptions) -> PlanRefusal | None:
    both = min(figures.new, figures.gone)
    if options.allow_new_ids or both <= _NEW_IDS * figures.known:
        return None
    return PlanRefusal(
        "new_ids",
        f"{figures.new} products are new and {figures.gone} of {figures.known} known ones are gone, as after a change "
        "of the shop's ids: nothing was bought. If they are other products, allow it with allow_new_ids; if they are "
        "the same, let `id:` in the mapping name the column with the old ids",
    )


def _gone(figures: PlanFigures, options: PlanOptions) -> PlanRefusal | None:
    # A user who allows new ids knows that the old ones are gone.
    if options.allow_new_ids or figures.gone <= options.max_gone * figures.known:
        return None
    return PlanRefusal(
        "max_gone",
        f"{figures.gone} of {figures.known} known products are not in the feed and max_gone is "
        f"{options.max_gone:.0%}: nothing was bought, and exports keep their videos. Is the feed whole? Raise max_gone "
        "if the products are gone; name a `part` if the feed is one of several",
    )


def _too_many_changed(figures: PlanFigures, options: PlanOptions) -> bool:
    enough = figures.known >= options.guard_min and options.is_whole
    return enough and figures.changed > options.max_changed * figures.known


def _changed(figures: PlanFigures, options: PlanOptions) -> PlanRefusal | None:
    if options.on_changed == "postpone" or not _too_many_changed(figures, options):
        return None
    return PlanRefusal(
        "max_changed",
        f"{figures.changed} of {figures.known} known products would be bought again and max_changed is "
        f"{options.max_changed:.0%}: nothing was bought. Did job_defaults or the feed's texts change? Raise "
        "max_changed if that is meant, let ignore_changes name a field that changed, or buy only the new products "
        "with on_changed=postpone",
    )


def _new(figures: PlanFigures, options: PlanOptions) -> PlanRefusal | None:
    if options.max_new is None or figures.new <= options.max_new:
        return None
    return PlanRefusal(
        "max_new",
        f"{figures.new} products are new and max_new is {options.max_new}: nothing was bought. Raise max_new if that "
        "is meant",
    )


_ANALYZE_FIRST, _ANALYZE_GROWTH = 5_000, 4
"""Items after which a new database counts its rows: often enough that no batch is planned on wrong statistics."""

_log = get_logger("ugen_provider.batch")
_BATCH = 4000
"""Rows at most that are judged in one transaction: each must reach the disk."""
_COUNTED = ("rows", "products", "unchanged", "adopted", "rejected", "filtered", "duplicates")
_COUNTS = (*_COUNTED, "new", "changed", "disappeared")
_MOST_SAMPLES = 100
"""Requests of different cost that are kept to find the cheapest purchase."""


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
        self._selected: set[str] = set()  # of those that `only` names
        self._ignored: frozenset[str] = frozenset()
        self._suggest: tuple[str, ...] = ()
        self._variants: tuple[str, ...] = ("",)
        self._part = ""
        self._force = RunsInForce({}, {})
        self._last: WantedOrder | None = None
        self._samples: dict[str, Mapping[str, Any]] = {}
        self.figures = PlanFigures(products=0, rejected=0, known=0, new=0, changed=0, gone=0)

    def plan(self, source: FeedSource, *, job_defaults: Mapping[str, Any], model: str | None = None) -> None:
        """Read the feed and write the plan, whole or not at all.

        Raises:
            FeedError: The feed cannot be read to its end; nothing is planned.
            RunRefusedError: The plan does more than its options allow.
            InvalidRequestError: `job_defaults` break a rule by themselves.
        """
        options = self._options
        self._probe("plan.begun")
        version = ledger_record.CURRENT_MAPPING_VERSION if options.newest_mapping else self._catalogue.mapping_version
        defaults = with_model(job_defaults, model)
        feed = (
            options.feed if options.feed.kind else replace(options.feed, kind=cast("Kind | None", self._catalogue.kind))
        )
        mapping = options.mapping
        if options.limit is not None:
            mapping = replace(mapping or FeedMapping.from_dict({}), limit=options.limit)
        with opened_plan(
            source,
            job_defaults=defaults,
            options=feed,
            mapping=mapping,
            version=version,
            upload_pictures=options.upload_pictures,
            bought=own_purchases(self._ledger, self._catalogue),
        ) as opened:
            self.plan_opened(opened)
        self._catalogue = self._ledger.pin(self._catalogue, kind=opened.kind, mapping_version=version)
        self._probe("plan.written")

    def plan_opened(self, opened: OpenPlan) -> None:
        """Write the plan of a feed that is open already; `plan` does both.

        Raises:
            FeedError: The feed cannot be read to its end; nothing is planned.
            RunRefusedError: The plan does more than its options allow.
        """
        mapping, options = opened.mapping, self._options
        self._ignored = frozenset(mapping.ignore_changes)
        self._suggest = mapping.suggest
        self._variants = tuple(variant.name for variant in mapping.variants) or ("",)
        self._part = mapping.part if options.part is None else options.part
        self._write(self._begin)
        analyze_at = _ANALYZE_FIRST
        for batch in self._batches(opened.rows):
            self._write(partial(self._add, rows=batch))
            self._probe("plan.batch")
            if self._seq >= analyze_at:
                self._ledger.analyze()
                analyze_at *= _ANALYZE_GROWTH
        if self._seq and opened.unseen:
            _log.warning("the mapping names columns that no product has: %s", ", ".join(sorted(opened.unseen)))
        if gone := options.regenerate - self._wanted:
            _log.warning("regenerate: %s would not be sent: it is not in the feed, or refused", ", ".join(sorted(gone)))
        if options.only is not None and (missing := options.only - self._selected):
            _log.warning("only: %s is not in the feed", ", ".join(sorted(missing)))
        self._write(lambda connection: self._count(connection, opened.source))
        refused = refusal(self.figures, options)
        if refused is not None:
            raise RunRefusedError(refused.message, reason=refused.reason)
        self._write(self._complete)

    def _batches(self, rows: Iterable[Planned]) -> Iterator[list[Prepared]]:
        """The rows in batches, each written long before the lease ends: pictures are read, and a source may be slow."""
        batch: list[Prepared] = []
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

    def _prepare(self, row: Planned) -> Prepared:
        """Return what costs time and needs no database."""
        if not isinstance(row, FeedOrder):
            last = self._last  # the products of a group follow the one that is bought
            if isinstance(row, SkippedRow) and row.shared_with is not None and last is not None:
                name = row_id(row.product_id, row.variant)
                if last.product_id == row_id(row.shared_with, row.variant) != name:
                    return Member(row, name, last.product_id, last.fingerprint)
            return row
        only = self._options.only
        if only is not None:
            if row.product_id not in only:
                self._last = None
                rule = "is not selected"
                return SkippedRow(
                    row.line, row.item, row.product_id, "filtered", rule, row.rows, row.file, variant=row.variant
                )
            self._selected.add(row.product_id)
        prepared = self._identified(row)
        self._last = prepared if isinstance(prepared, WantedOrder) else None
        return prepared

    def _identified(self, row: FeedOrder) -> RejectedRow | WantedOrder:
        if row.product_id in self._options.regenerate:
            self._wanted.add(row.product_id)
        found = identify_picture(row, self._identity, by_content=self._options.pictures_by_content)
        if isinstance(found, RejectedRow):
            return found
        picture, identity = found
        fields = row.fields
        digest = fingerprint(fields, scheme=self._catalogue.scheme, image_identity=identity)
        if not self._ignored.intersection(fields):
            return WantedOrder(row, digest, picture, identity)
        # A change of these fields alone is no change: the product is known by the rest of its request. The whole
        # request is sent, and a product that was bought before the setting is still found under the whole.
        rest = {name: value for name, value in fields.items() if name not in self._ignored}
        known_by = fingerprint(rest, scheme=self._catalogue.scheme, image_identity=identity)
        return WantedOrder(row, known_by, picture, identity, whole=digest)

    def _begin(self, connection: sa.Connection) -> None:
        """Forget what an earlier attempt at this plan wrote."""
        for table in (schema.item, schema.rejected, schema.adoption):
            connection.execute(sa.delete(table).where(table.c.run == self._run.id))
        product, run = schema.product, schema.run
        # The runs that saw a product before this plan did see it again.
        connection.execute(
            sa.update(product)
            .where(product.c.catalogue_id == self._catalogue.id, product.c.seen_run == self._run.id)
            .values(seen_run=product.c.seen_earlier, seen_as=None)
        )
        self._force = runs_in_force(connection, self._catalogue.id)
        options = self._options
        values = {
            **dict.fromkeys(_COUNTS, 0),
            "part": self._part,
            "whole": options.is_whole,
            "max_gone": 1.0 if options.allow_new_ids else options.max_gone,
        }
        connection.execute(sa.update(run).where(run.c.id == self._run.id).values(values))

    def _add(self, connection: sa.Connection, *, rows: list[Prepared]) -> None:
        adding = BatchInsert(
            connection,
            self._run.id,
            self._catalogue,
            self._options,
            seq=self._seq,
            force=self._force.all,
            variants=self._variants,
            suggest=self._suggest,
            now=self._ledger.now(),
        )
        adding.add(rows)
        self._seq = adding.seq
        for key, body in adding.samples.items():
            if len(self._samples) < _MOST_SAMPLES:
                self._samples.setdefault(key, body)

    def _count(self, connection: sa.Connection, source: str) -> None:
        """Count what the plan does, before it is decided whether it may."""
        run, product, item, adoption = schema.run, schema.product, schema.item, schema.adoption
        ours = product.c.catalogue_id == self._catalogue.id
        here, there = self._force.of(self._part), self._force.all - self._force.of(self._part)
        unseen = sa.or_(product.c.seen_run.is_(None), product.c.seen_run != self._run.id)
        # A product of this part: the plan in force saw it here, and no plan of another part saw it since.
        seen_before = sa.or_(
            product.c.seen_run.in_(here),
            sa.and_(
                product.c.seen_earlier.in_(here), sa.or_(product.c.seen_run.is_(None), product.c.seen_run.not_in(there))
            ),
        )
        has_video = product.c.state == "completed"
        gone = (ours, has_video, seen_before, unseen, self._in_these_variants())
        # A product that is gone was renamed if another id of this feed takes its video: one for each such id, since
        # ten products that shared one video and left together are nine that are gone.
        origin = sa.func.coalesce(product.c.adopted_from, product.c.product_id)
        lost_of = sa.select(origin.label("origin"), sa.func.count().label("amount")).where(*gone).group_by(origin)
        lost_of_origin = lost_of.subquery()
        taken = sa.select(adoption.c.origin, sa.func.count().label("amount")).where(
            adoption.c.run == self._run.id, adoption.c.origin != adoption.c.product_id
        )
        taken_of_origin = taken.group_by(adoption.c.origin).subquery()
        lost_here, taken_here = lost_of_origin.c.amount, taken_of_origin.c.amount
        fewer = sa.case((lost_here < taken_here, lost_here), else_=taken_here)
        renamed = sa.select(sa.func.coalesce(sa.func.sum(fewer), 0)).select_from(
            lost_of_origin.join(taken_of_origin, lost_of_origin.c.origin == taken_of_origin.c.origin)
        )

        def count(*conditions: Any) -> int:
            query = sa.select(sa.func.count()).select_from(product).where(*conditions)
            return int(connection.execute(query).scalar_one())

        lost = sa.and_(
            product.c.state != "", unseen, sa.or_(product.c.seen_run.is_(None), product.c.seen_run.not_in(there))
        )
        whys = sa.select(item.c.why, sa.func.count().label("amount")).where(item.c.run == self._run.id)
        by_why = {row.why: row.amount for row in connection.execute(whys.group_by(item.c.why))}
        row = connection.execute(sa.select(run).where(run.c.id == self._run.id)).one()
        self.figures = PlanFigures(
            products=row.products,
            rejected=row.rejected,
            known=count(ours, has_video, sa.or_(seen_before, product.c.seen_run == self._run.id)),
            new=by_why.get("new", 0),
            changed=by_why.get("changed", 0),
            gone=count(*gone) - int(connection.execute(renamed).scalar_one()),
        )
        values = {
            "source": source,
            "disappeared": count(ours, lost) if self._options.is_whole else 0,
            "new": self.figures.new,
            "changed": self.figures.changed,
            "samples": json.dumps(list(self._samples.values())),
        }
        connection.execute(sa.update(run).where(run.c.id == self._run.id).values(values))

    def _in_these_variants(self) -> sa.ColumnElement[bool]:
        """Whether a row is of a variant that the mapping still has: one that it no longer has is not gone."""
        name = schema.product.c.product_id
        return sa.or_(
            *(
                name.like(variant_pattern(variant), escape="\\")
                if variant
                else name.not_like(variant_pattern("") + "%")
                for variant in self._variants
            )
        )

    def _complete(self, connection: sa.Connection) -> None:
        """Put the plan in force. If the process ends before this is on disk, the plan changed nothing."""
        run, item = schema.run, schema.item
        apply_adoptions(connection, self._catalogue, self._run.id)
        if postpones_changed(self.figures, self._options):
            changed = (item.c.run == self._run.id, item.c.why == "changed", item.c.begun.is_(False))
            connection.execute(
                sa.update(item)
                .where(*changed, item.c.state == "planned")
                .values(state="postponed", reason="max_changed")
            )
        now = self._ledger.now()
        connection.execute(
            sa.update(run).where(run.c.id == self._run.id).values(state="buying", planned_at=now, reason=None)
        )


def own_purchases(ledger: Ledger, catalogue: Catalogue) -> Bought:
    """Return a function that says which products, each with its variant, have a purchase of their own.

    Args:
        ledger: Where they are recorded.
        catalogue: Whose products.
    """

    def bought(products: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        names = {row_id(product_id, variant) for product_id, variant in products}
        product = schema.product

        def known(connection: sa.Connection) -> set[tuple[str, str]]:
            query = sa.select(product.c.product_id).where(
                product.c.catalogue_id == catalogue.id,
                among(connection, product.c.product_id, names),
                product.c.fingerprint.is_not(None),
                product.c.adopted_from.is_(None),
            )
            return {split_row_id(name) for name in connection.execute(query).scalars()}

        return ledger.read(known)

    return bought


def identify_picture(
    row: FeedOrder, identity: Callable[[str], str] | None, *, by_content: bool
) -> tuple[str | None, str | None] | RejectedRow:
    """Return the picture that has to be uploaded and the digest of the content; the row rejected if it is unreadable.

    Args:
        row: An order.
        identity: The digest of the content of an address; None where no picture is read.
        by_content: Whether a picture that the service can reach is read too.

    Raises:
        LedgerUnavailableError: The ledger that remembers digests went away.
    """
    address = row.fields["product_image_url"]
    uploaded = not address.startswith(("http://", "https://"))
    if identity is None or not (uploaded or by_content):
        return None, None
    try:
        return address if uploaded else None, identity(address)
    except LedgerUnavailableError:
        raise
    except OriginError as error:
        return RejectedRow(row.line, row.item, row.product_id, "image_link", error.rule, error.address, row.rows)
    except (OSError, ValueError, ImportError, UGenError) as error:
        rule = f"cannot be read: {error}"
        return RejectedRow(row.line, row.item, row.product_id, "image_link", rule, address, row.rows)


def lacking(fields: Mapping[str, Any], suggest: Collection[str]) -> list[str]:
    """Return the fields that the service shall suggest for a request: a script of its own makes the others pointless.

    Examples:
        >>> lacking({"cta_text": "Buy"}, ["key_selling_points", "cta_text"])
        ['key_selling_points']
        >>> lacking({"custom_script": "Look!"}, ["custom_script", "key_selling_points", "environment_description"])
        ['environment_description']
    """
    pointless = {"key_selling_points", "cta_text"} if fields.get("custom_script") else set()
    return [name for name in suggest if not fields.get(name) and name not in pointless]


def with_model(job_defaults: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """Return the fields of every request, with the account's model where they name none: it is part of the request."""
    named = job_defaults.get("video_model") is not None or model is None
    return dict(job_defaults) if named else {**job_defaults, "video_model": model}


_KNOWN = tuple(
    schema.product.c[name]
    for name in (
        *("product_id", "fingerprint", "state", "final_failure", "reason", "job_id", "manifest"),
        *("seen_run", "seen_as", "adopted_from", "adopted_digest"),
    )
)


class WantedOrder(NamedTuple):
    """An order with what decides whether it is known: its fingerprint, and the picture it would upload.

    A tuple, as `Product` and `FeedOrder` are.

    Attributes:
        order: The order.
        fingerprint: Of its request, without the fields of `ignore_changes`.
        picture: The address of a picture that has to be uploaded.
        identity: The digest of that picture.
        whole: The fingerprint of the whole request, where it is another one.
    """

    order: FeedOrder
    fingerprint: str
    picture: str | None = None
    identity: str | None = None
    whole: str | None = None

    @property
    def product_id(self) -> str:
        """Id of the product in its variant, as the ledger names it."""
        return row_id(self.order.product_id, self.order.variant)


class Member(NamedTuple):
    """A product of a group whose video is bought with another one.

    Attributes:
        row: Its row in the feed.
        name: The product in its variant, as the ledger names it.
        origin: The product that is bought.
        fingerprint: Of that one's request.
    """

    row: SkippedRow
    name: str
    origin: str
    fingerprint: str


Prepared = RejectedRow | SkippedRow | Member | WantedOrder


def unchanged_by(known: str | None, digests: Collection[str]) -> bool:
    """Return whether a known fingerprint is one of those that a request has.

    A request has two where the mapping ignores changes of some fields: with and without these. The first night with
    `ignore_changes` finds what was bought under the whole request, so that the setting alone buys nothing.
    """
    return known is not None and known in digests


class BatchInsert:
    """Adds one batch of rows to a plan, in one transaction."""

    def __init__(
        self,
        connection: sa.Connection,
        run: int,
        catalogue: Catalogue,
        options: PlanOptions,
        *,
        seq: int,
        force: frozenset[int],
        variants: tuple[str, ...],
        suggest: tuple[str, ...],
        now: float,
    ) -> None:
        self._connection = connection
        self._run = run
        self._catalogue = catalogue
        self._options = options
        self._force = force
        self._variants = variants
        self._suggest = suggest
        self._now = now
        self._counts: dict[str, int] = dict.fromkeys(_COUNTED, 0)
        self._adoptions: dict[str, tuple[str, str]] = {}
        self.samples: dict[str, Mapping[str, Any]] = {}
        self.seq = seq

    def add(self, rows: list[Prepared]) -> None:
        """Count the rows, and write what is to be bought."""
        known = self._known({name for row in rows for name in self._names(row)})
        wanted: dict[str, WantedOrder] = {}
        seen_as: dict[str, str] = {}
        refused: list[dict[str, Any]] = []
        for row in rows:
            match row:
                case WantedOrder():
                    self._counts["rows"] += row.order.rows
                    if self._is_new(row.product_id, known, seen_as):
                        wanted[row.product_id] = row
                        seen_as[row.product_id] = "planned"
                    else:
                        self._want_again(row, known, seen_as, wanted)
                    continue
                case Member():
                    self._counts["rows"] += row.row.rows
                    self._counts["filtered"] += 1
                    how = "grouped"
                    if self._is_new(row.name, known, seen_as):
                        self._join(row, known.get(row.name))
                case RejectedRow():
                    self._counts["rows"] += row.rows
                    self._counts["rejected"] += 1
                    refused.append(self._rejected(row))
                    how = "rejected"
                case SkippedRow():
                    self._counts["rows"] += row.rows
                    self._counts["filtered"] += 1
                    how = "filtered"
            for name in self._names(row):
                if self._is_new(name, known, seen_as):
                    seen_as[name] = how
        self._counts["products"] += len(rows)
        unchanged = self._unchanged(wanted, known)
        for product_id in unchanged:
            del wanted[product_id]
        items, restored = self._judge(wanted, known, seen_as)
        self._save(items, unchanged + restored, seen_as, refused)

    def _names(self, row: Prepared) -> tuple[str, ...]:
        """Return the ledger's names of the products that a row is about."""
        match row:
            case WantedOrder():
                return (row.product_id,)
            case Member():
                return (row.name,)
            case _:
                if row.product_id is None:
                    return ()
                # A row that is of no use at all is so in every variant.
                variants = (row.variant,) if row.variant else self._variants
                return tuple(row_id(row.product_id, variant) for variant in variants)

    def _known(self, ids: Collection[str]) -> dict[str, Any]:
        product = schema.product
        query = sa.select(*_KNOWN).where(
            product.c.catalogue_id == self._catalogue.id, among(self._connection, product.c.product_id, ids)
        )
        return {row[0]: row for row in self._connection.execute(query).all()}

    def _is_new(self, product_id: str, known: Mapping[str, Any], seen_as: Mapping[str, str]) -> bool:
        """Return whether this run sees the product for the first time."""
        row = known.get(product_id)
        return product_id not in seen_as and (row is None or row.seen_run != self._run)

    def _join(self, member: Member, known: Any) -> None:
        """Let a product of a group have the video of the one that is bought."""
        if known is None or (known.adopted_from, known.adopted_digest) != (member.origin, member.fingerprint):
            self._adoptions[member.name] = (member.origin, member.fingerprint)

    def _want_again(
        self, row: WantedOrder, known: Mapping[str, Any], seen_as: dict[str, str], wanted: dict[str, WantedOrder]
    ) -> None:
        """A product that this run has seen before."""
        product_id = row.product_id
        earlier = seen_as.get(product_id) or known[product_id].seen_as
        if earlier in {"rejected", "filtered", "grouped"}:
            self._forget_adoption(product_id)  # the good one of several counts, at any position
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
        if earlier in {"unchanged", "adopted"}:
            self._counts[earlier] -= 1
            self._forget_adoption(product_id)
        else:
            item = schema.item
            self._connection.execute(sa.delete(item).where(item.c.run == self._run, item.c.product_id == product_id))

    def _forget_adoption(self, product_id: str) -> None:
        table = schema.adoption
        self._adoptions.pop(product_id, None)
        self._connection.execute(sa.delete(table).where(table.c.run == self._run, table.c.product_id == product_id))

    def _unchanged(self, wanted: Mapping[str, WantedOrder], known: Mapping[str, Any]) -> list[str]:
        """Return what is there already, and is asked for unchanged."""
        return [
            product_id
            for product_id, row in wanted.items()
            if (there := known.get(product_id)) is not None
            and unchanged_by(there.fingerprint, (row.fingerprint, row.whole or row.fingerprint))
            and not self._regenerates(row)
            and self._is_done(there)
        ]

    def _regenerates(self, row: WantedOrder) -> bool:
        return row.order.product_id in self._options.regenerate

    def _judge(
        self, wanted: Mapping[str, WantedOrder], known: Mapping[str, Any], seen_as: dict[str, str]
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Return what of the rest is to be bought, and what has only changed back."""
        items: list[dict[str, Any]] = []
        restored: list[str] = []
        own = self._own(wanted, known)
        shared = self._shared(wanted, own)
        for product_id, row in wanted.items():
            same, again = own.get(product_id), self._regenerates(row)
            if same is not None and not again and self._is_done(same):
                # It changed back: its old video is its video again.
                self._adoptions[product_id] = (product_id, row.fingerprint)
                restored.append(product_id)
                continue
            origin = shared.origins.get(product_id)
            if origin is None:
                items.append(self._item(row, same, known.get(product_id), again=again))
            elif self._options.adopt == "ask" and product_id in shared.differing:
                question = self._item(row, None, known.get(product_id), again=False)
                reason = f"adopt: the request is equal to that of {shown_id(origin)}, and price, size or link differ"
                items.append({**question, "state": "postponed", "reason": reason})
            else:
                self._adoptions[product_id] = (origin, row.fingerprint)
                self._counts["adopted"] += 1
                seen_as[product_id] = "adopted"
        return items, restored

    def _shared(self, wanted: Mapping[str, WantedOrder], own: Mapping[str, Any]) -> SharedPurchases:
        """Find the products that share a purchase. One that has, or deliberately wants, its own shares none."""
        candidates = [
            Candidate(product_id, row.fingerprint, facts_of(row.order))
            for product_id, row in wanted.items()
            if product_id not in own and not self._regenerates(row)
        ]
        found = share(self._connection, self._catalogue, self._run, candidates, now=self._now)
        # Also a night that shares nothing records who bought what: a later night may share it.
        return SharedPurchases() if self._options.adopt == "off" else found

    def _is_done(self, there: Any) -> bool:
        return there.state == "completed" and (not self._options.stored or there.manifest is not None)

    def _own(self, wanted: Mapping[str, WantedOrder], known: Mapping[str, Any]) -> dict[str, Any]:
        """Purchases of the products themselves for the same request, in any state."""
        own: dict[str, Any] = {}
        asked: list[str] = []
        for product_id, row in wanted.items():
            there = known.get(product_id)
            if there is None:
                continue
            if there.adopted_from is None and there.fingerprint == row.fingerprint:
                own[product_id] = there
            else:
                asked.append(product_id)
        if asked:
            order = schema.order
            query = sa.select(order).where(
                order.c.catalogue_id == self._catalogue.id, among(self._connection, order.c.product_id, asked)
            )
            for found in self._connection.execute(query):
                if found.fingerprint == wanted[found.product_id].fingerprint:
                    own[found.product_id] = found
        return own

    def _item(self, row: WantedOrder, same: Any, known: Any, *, again: bool) -> dict[str, Any]:
        order = row.order
        self.seq += 1
        state, reason = "planned", None
        if same is not None and same.final_failure and not again and same.job_id is None:
            # The same request would only be refused again. One whose job is known is planned: its job is read first,
            # since a verdict of an earlier night, as with another account's key, may be wrong.
            state = "failed"
            reason = f"{same.reason}; buy it again with --regenerate {order.product_id}"
        if again:
            why = "regenerate"
        elif same is not None:
            why = "again"
        else:
            why = "changed" if known is not None and known.state == "completed" else "new"
        if same is None or again:
            self.samples.setdefault(cost_key(order.fields), order.fields)
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
            "suggest": " ".join(lacking(order.fields, self._suggest)) or None,
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
            "product_id": None if row.product_id is None else row_id(row.product_id, row.variant),
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
        if self._adoptions:
            adoptions = [
                {"run": self._run, "product_id": name, "origin": origin, "fingerprint": digest}
                for name, (origin, digest) in self._adoptions.items()
            ]
            connection.execute(sa.insert(schema.adoption), adoptions)
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
        in_force = sorted(self._force)
        earlier = sa.case((product.c.seen_run.in_(in_force), product.c.seen_run), else_=product.c.seen_earlier)
        for how in set(seen_as.values()):
            ids = [product_id for product_id, other in seen_as.items() if other == how]
            self._connection.execute(
                sa.update(product)
                .where(product.c.catalogue_id == self._catalogue.id, among(self._connection, product.c.product_id, ids))
                .values(seen_run=self._run, seen_as=how, seen_earlier=earlier)
            )
