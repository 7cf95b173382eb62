# SPDX-License-Identifier: Apache-2.0
"""`ugen ledger init`, `show`, `settle`, `export` and `repair`."""

from __future__ import annotations

import csv
import json
import shlex
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import click
import sqlalchemy as sa

from ugen_provider.cli.exits import ExitCode
from ugen_provider.cli.frame import CommandFailedError, command
from ugen_provider.cli.options import ReadingOptions, feed_field_options, ledger_option, reading_options
from ugen_provider.cli.printer import Listing, Sheet, clean, time_of
from ugen_provider.cli.session import Session, shown_address
from ugen_provider.core.api.errors import ConfigError, NotFoundError
from ugen_provider.core.batch.repair import repair
from ugen_provider.core.batch.report import report_of
from ugen_provider.core.batch.runs import Run, RunState
from ugen_provider.core.batch.runs import state_of as state_of_run
from ugen_provider.core.batch.supplemental_feed import (
    Export,
    ShopFormat,
    TargetIds,
    entries_as_json,
    export_videos,
)
from ugen_provider.core.feeds.mapper import plan_feed
from ugen_provider.core.feeds.products import FeedOrder, Planned
from ugen_provider.core.jobs.order import OrderKind, name_key, origin_of, parse_record_key, record_key
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.orders import LedgerOrderStore
from ugen_provider.core.ledger.record import Action, OrderRecord, row_id, shown_id
from ugen_provider.core.ledger.store import Entry, Ledger
from ugen_provider.core.text import without_passwords

STATES = ("completed", "failed", "buying")
KINDS = get_args(OrderKind)
_TWO = 2


# Create.


@command(
    "init",
    examples=(
        "ugen ledger init shop.db",
        "ugen ledger init postgresql://ugen@db.example/videos",
    ),
)
@click.argument("address", metavar="PATH|URL")
@click.option("--allow-ephemeral", is_flag=True, help="Accept a disk that is lost with the container (overlay, tmpfs).")
def init_command(session: Session, *, address: str, allow_ephemeral: bool) -> None:
    """Create a ledger in a SQLite file or a PostgreSQL database, and print its id. An existing one stays unchanged."""
    with Ledger.init(address, allow_ephemeral=allow_ephemeral) as opened:
        ledger_id = opened.ledger_id
    is_url = "://" in address
    shown = shown_address(address) if is_url else str(Path(address).expanduser().absolute())
    following = f"export UGEN_LEDGER={shlex.quote(shown)}"
    data = {"ledger": shown, "ledger_id": ledger_id, "next": following}
    session.out.show(Sheet([("ledger", shown), ("id", ledger_id)], data=data))
    password = ", with the password in place of ***" if "***" in shown else ""
    session.out.note(f"Next: {following}    # or --ledger, or `ledger` in a profile{password}")


# Read.


@command(
    "show",
    examples=(
        "ugen ledger show",
        "ugen ledger show shop --state failed",
        "ugen ledger show shop --product LL-1001 --json",
        "ugen ledger show shop --runs",
        "ugen ledger show shop --run monday",
        "ugen ledger show --orders --kind name",
        "ugen ledger show --order lamp-spring",
    ),
)
@click.argument("catalogue", metavar="[CATALOG]", required=False)
@ledger_option
@click.option("--product", "products", multiple=True, metavar="ID", help="Only this product; may be repeated.")
@click.option("--state", type=click.Choice(STATES), help="Only products of this state.")
@click.option("--runs", is_flag=True, help="Show the catalog's runs instead.")
@click.option("--run", "run_id", help="Show the report of this run instead.")
@click.option("--orders", is_flag=True, help="Show orders of tasks, partitions, names and products instead.")
@click.option("--kind", type=click.Choice(KINDS), help="With --orders: only those of this kind.")
@click.option("--order", metavar="ORDER", help="Show one order: its key or name, with its attempts and actions.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Maximum number of rows.")
@click.option("--all", "everything", is_flag=True, help="All rows.")
def show_command(
    session: Session,
    *,
    catalogue: str | None,
    ledger: str | None,
    products: tuple[str, ...],
    state: str | None,
    runs: bool,
    run_id: str | None,
    orders: bool,
    kind: str | None,
    order: str | None,
    limit: int,
    everything: bool,
) -> None:
    """Show the ledger's catalogs and orders; with CATALOG, its products, its runs, or the report of one run. Free."""
    if catalogue is None and (products or state or runs or run_id):
        raise click.UsageError("name the CATALOG; `ugen ledger show` alone lists them")
    if catalogue is not None and (orders or order):
        raise click.UsageError("give a CATALOG, or --orders or --order, not both")
    if kind is not None and not orders:
        raise click.UsageError("--kind belongs to --orders")
    most = None if everything else limit
    with session.existing_ledger(ledger) as opened:
        if order is not None:
            session.out.show_each(_order_sheet(opened, _find_order(session, opened, order)))
        elif orders:
            _show_orders(session, opened, kind=kind, most=most)
        elif catalogue is None:
            _show_contents(session, opened)
        elif run_id is not None:
            _show_report(session, opened, catalogue, run_id)
        elif runs:
            session.out.show(_runs(opened, catalogue, namespace=session.namespace, most=most))
        else:
            wanted = (
                entry
                for entry in opened.entries(catalogue, namespace=session.namespace)
                if (not products or entry.product_id in products) and (state is None or entry.state == state)
            )
            found = list(islice(wanted, most + 1 if most is not None else None))
            session.out.show(entries_listing(found[:most]))
            if most is not None and len(found) > most:
                session.out.note(f"There are more than {most}: --limit or --all shows them.")


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A feed run in the ledger.

    Attributes:
        run: The run, for its report.
        created_at: Seconds since the epoch.
        state: `planning`, `interrupted`, `refused`, `buying` or `done`.
    """

    run: Run
    created_at: float
    state: RunState


def known_runs(ledger: Ledger, catalogue: str, *, namespace: str) -> list[KnownRun]:
    """Return all runs of a catalog, the newest first.

    Raises:
        ConfigError: The catalog is not in the ledger.
    """
    known = ledger.find_catalogue(catalogue, namespace=namespace)
    table = schema.run
    query = sa.select(table).where(table.c.catalogue_id == known.id).order_by(table.c.id.desc())
    rows = ledger.read(lambda connection: connection.execute(query).all())
    now = ledger.now()
    return [
        KnownRun(Run(row.id, known, row.run_id, row.owner or ""), row.created_at, state_of_run(row, now=now))
        for row in rows
    ]


def _show_contents(session: Session, ledger: Ledger) -> None:
    """Show the catalogs, and how to see the other orders."""
    session.out.show(_catalogues(ledger))
    count = sa.select(sa.func.count()).where(schema.order.c.catalogue_id.is_(None))
    others = ledger.read(lambda connection: int(connection.execute(count).scalar_one()))
    if others:
        session.out.note(f"{others:,} orders of tasks, partitions and names: `ugen ledger show --orders` lists them.")


def _show_orders(session: Session, ledger: Ledger, *, kind: str | None, most: int | None) -> None:
    """Show orders, the newest first."""
    table = schema.order
    query = sa.select(table.c.document, table.c.updated_at).order_by(table.c.updated_at.desc(), table.c.order_key)
    rows: list[tuple[OrderRecord, float]] = []
    with ledger.streaming() as connection:
        for row in connection.execute(query):
            record = OrderRecord.from_dict(json.loads(row.document))
            if kind is not None and kind_of(record.order_key) != kind:
                continue
            rows.append((record, row.updated_at))
            if most is not None and len(rows) > most:
                break
    actions = _actions_of(ledger, [record.order_key for record, _ in rows[:most]])
    session.out.show(orders_listing(rows[:most], actions))
    if most is not None and len(rows) > most:
        session.out.note(f"There are more than {most}: --limit or --all shows them.")


def _actions_of(ledger: Ledger, order_keys: Iterable[str]) -> dict[str, tuple[Action, ...]]:
    store = LedgerOrderStore(ledger)
    return {order_key: store.actions(order_key) for order_key in order_keys}


def orders_listing(rows: Sequence[tuple[OrderRecord, float]], actions: dict[str, tuple[Action, ...]]) -> Listing:
    """Return orders as a table."""
    cells = [
        (
            label_of(record.order_key),
            state_of(record),
            record.job_id or "",
            str(record.purchase_number),
            str(record.token),
            "; ".join(f"{action.kind} ({action.reason}) {action.state}" for action in actions[record.order_key]),
            _time(updated_at),
        )
        for record, updated_at in rows
    ]
    data = [
        {**_order_data(record), "actions": [action.to_dict() for action in actions[record.order_key]]}
        for record, _ in rows
    ]
    columns = ("ORDER", "STATE", "JOB", "PURCHASE", "ATTEMPTS", "ACTIONS", "UPDATED")
    return Listing(columns, cells, data=data, nothing="No orders.")


def kind_of(order_key: str) -> str:
    """Return the kind of an order: `task`, `partition`, `product` or `name`; '' for a key of another form.

    Examples:
        >>> kind_of('["","name","lamp"]@loopback:8000')
        'name'
    """
    key = parse_record_key(order_key)
    return "" if key is None else key.kind


def label_of(order_key: str) -> str:
    """Return an order in words; the key itself if it has another form.

    Examples:
        >>> label_of('["","product","shop","LL-1"]9f2c')
        'product LL-1 of catalog shop'
    """
    key = parse_record_key(order_key)
    return order_key if key is None else key.label


def state_of(record: OrderRecord) -> str:
    """Return what the record says of its purchase.

    Examples:
        >>> state_of(OrderRecord("k", 0, "key", {}, "", 1, 0.0, maybe_bought=True))
        'sent, answer lost'
    """
    if record.deleted:
        return "job deleted"
    if record.job_id is not None:
        return "job missing since " + _time(record.missing_since) if record.missing_since is not None else "has a job"
    if record.maybe_bought:
        return "sent, answer lost"
    return "refused" if record.refusals else "not sent"


def _order_data(record: OrderRecord) -> dict[str, Any]:
    return {"label": label_of(record.order_key), "kind": kind_of(record.order_key), **record.to_dict()}


def _order_sheet(ledger: Ledger, record: OrderRecord) -> Sheet:
    """Return one order with its attempts and actions."""
    actions = LedgerOrderStore(ledger).actions(record.order_key)
    table = schema.attempt
    query = sa.select(table.c.token, table.c.name).where(table.c.order_key == record.order_key).order_by(table.c.token)
    attempts = ledger.read(lambda connection: connection.execute(query).all())
    facts = [
        ("order", label_of(record.order_key)),
        ("order key", record.order_key),
        ("state", state_of(record)),
        ("job", record.job_id or ""),
        ("purchase number", str(record.purchase_number)),
        ("idempotency key", record.key),
        ("origin", record.origin),
        ("recorded", _time(record.written_at)),
        ("last sent", _time(record.sent_at)),
        ("refusals", str(record.refusals or "")),
        ("stage retries", str(record.stage_retries or "")),
        ("earlier jobs", " ".join(filter(None, record.earlier))),
        *(("attempt", f"{row.token}: {row.name}") for row in attempts),
        *(("action", _action_line(action)) for action in actions),
    ]
    data = {
        **_order_data(record),
        "attempts": [{"token": row.token, "attempt": row.name} for row in attempts],
        "actions": [action.to_dict() for action in actions],
    }
    return Sheet(facts, data=data)


def _action_line(action: Action) -> str:
    about = f"of job {action.job_id}" if action.job_id else f"of purchase {action.purchase_number}"
    return f"{action.kind} {about} ({action.reason}, attempt {action.token}): {action.state}, {_time(action.at)}"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else time_of(datetime.fromtimestamp(seconds, UTC))


def _find_order(session: Session, ledger: Ledger, order: str, *, catalogue: str | None = None) -> OrderRecord:
    """Find an order by its key, its name, or a product of a catalog.

    Raises:
        CommandFailedError: There is no such order, or the product has several.
    """
    store = LedgerOrderStore(ledger)
    found = store.read(order)
    if found is None and catalogue is None:
        found = _find_name(session, store, order)
    if found is not None:
        return found
    candidates = [] if catalogue is None else _orders_of_product(ledger, session, catalogue, order)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        keys = "; ".join(shlex.quote(record.order_key) for record in candidates)
        raise CommandFailedError(
            f"product {order!r} of catalog {catalogue!r} has {len(candidates)} orders: {keys}",
            code=ExitCode.USAGE,
            advice="name one by its key",
            kind="ambiguous_order",
        )
    raise CommandFailedError(
        f"there is no order {order!r} in this ledger" + (f" in catalog {catalogue!r}" if catalogue else ""),
        code=ExitCode.USAGE,
        advice="`ugen ledger show --orders` lists them; for a product give its id and --catalogue",
        kind="unknown_order",
    )


def _find_name(session: Session, store: LedgerOrderStore, name: str) -> OrderRecord | None:
    """Find the order of a name, of the origin in use first."""
    key = name_key(name, namespace=session.namespace)
    base_url = session.chosen.profile.base_url
    keys = [record_key(key, origin=origin_of(base_url))] if base_url else []
    return next((found for each in (*keys, str(key)) if (found := store.read(each)) is not None), None)


def _orders_of_product(ledger: Ledger, session: Session, catalogue: str, product_id: str) -> list[OrderRecord]:
    """Return the orders of a product: only the one of its present request, if the ledger knows that."""
    base_url = session.chosen.profile.base_url
    origin = origin_of(base_url) if base_url else None
    known = ledger.find_catalogue(catalogue, namespace=session.namespace, origin=origin)
    order, product = schema.order, schema.product
    query = sa.select(order.c.document, order.c.fingerprint).where(
        order.c.catalogue_id == known.id, order.c.product_id == product_id
    )
    present = sa.select(product.c.fingerprint).where(
        product.c.catalogue_id == known.id, product.c.product_id == product_id
    )
    rows = ledger.read(lambda connection: connection.execute(query).all())
    fingerprint = ledger.read(lambda connection: connection.execute(present).scalar())
    chosen = [row for row in rows if row.fingerprint == fingerprint] or list(rows)
    return [OrderRecord.from_dict(json.loads(row.document)) for row in chosen]


def _catalogues(ledger: Ledger) -> Listing:
    known = ledger.catalogues()
    rows = [(one.name, one.namespace, one.kind or "", str(one.mapping_version)) for one in known]
    data = [
        {"catalogue": one.name, "namespace": one.namespace, "kind": one.kind, "mapping_version": one.mapping_version}
        for one in known
    ]
    columns = ("CATALOG", "NAMESPACE", "KIND", "MAPPING")
    return Listing(columns, rows, data=data, nothing="No catalogs: the first `ugen feed run` creates one.")


def _runs(ledger: Ledger, catalogue: str, *, namespace: str, most: int | None) -> Listing:
    rows, data = [], []
    for known in known_runs(ledger, catalogue, namespace=namespace)[:most]:
        report = report_of(ledger, known.run)
        began = datetime.fromtimestamp(known.created_at, UTC)
        counts = (report.products, report.completed, report.failed, report.rejected, report.unchanged)
        rest = (report.postponed, report.running + report.open, report.credits_consumed)
        rows.append((known.run.run_id, known.state, time_of(began), *(f"{count:,}" for count in (*counts, *rest))))
        data.append({"state": known.state, "created_at": began.isoformat(), **report.small()})
    columns = ("RUN", "STATE", "BEGAN", "PRODUCTS", "COMPLETED", "FAILED", "REJECTED", "UNCHANGED", "POSTPONED", "OPEN",
               "CREDITS")  # fmt: skip
    return Listing(columns, rows, data=data, nothing="No runs.")


def _show_report(session: Session, ledger: Ledger, catalogue: str, run_id: str) -> None:
    known = known_runs(ledger, catalogue, namespace=session.namespace)
    found = next((one.run for one in known if one.run.run_id == run_id), None)
    if found is None:
        raise CommandFailedError(
            f"catalog {catalogue!r} has no run {run_id!r}",
            code=ExitCode.USAGE,
            advice=f"`ugen ledger show {catalogue} --runs` lists them",
            kind="unknown_run",
        )
    report = report_of(ledger, found)
    session.out.text(report.table(), data=[report.to_dict()])


def entries_listing(entries: list[Entry]) -> Listing:
    """Return products of a catalog as a table."""
    rows = [
        (
            shown_id(row_id(entry.product_id, entry.variant)),
            entry.state,
            entry.job_id or "",
            "" if entry.credits is None else f"{entry.credits:,}",
            "" if entry.score is None else f"{entry.score:.2f}",
            entry.reason or entry.video or "",
            _remark(entry),
        )
        for entry in entries
    ]
    columns = ("PRODUCT", "STATE", "JOB", "CREDITS", "SCORE", "VIDEO, OR WHY NOT", "")
    return Listing(columns, rows, data=list(entries_as_json(iter(entries))), nothing="No products.")


def _remark(entry: Entry) -> str:
    gone = "" if entry.seen else "no longer in the feed"
    shared = f"shares the video of {entry.adopted_from}" if entry.adopted_from is not None else ""
    return "; ".join(filter(None, (gone, shared)))


# Settle.


@command(
    "settle",
    examples=(
        "ugen ledger settle lamp-spring --job 10229ac7-b0b5-4280-819c-5aca6c790286",
        "ugen ledger settle LL-1001 --catalogue shop --absent",
        'ugen ledger settle \'["","name","lamp"]\' --deleted',
    ),
)
@click.argument("order", metavar="ORDER")
@click.option("--catalogue", metavar="CATALOG", help="ORDER is the id of a product of this catalog.")
@click.option("--job", "job_id", metavar="ID", help="This job of the account is the order's.")
@click.option("--absent", is_flag=True, help="You checked the account: the order's request created no job.")
@click.option("--deleted", is_flag=True, help="You checked the account: the order's job was deleted.")
@ledger_option
def settle_command(
    session: Session,
    *,
    order: str,
    catalogue: str | None,
    job_id: str | None,
    absent: bool,
    deleted: bool,
    ledger: str | None,
) -> None:
    """Record what you found out about ORDER, if the service's answers do not decide it. Free; sends at most a GET.

    ORDER is the order's key as the error shows it, the name of an order, or with --catalogue the id of a product.
    """
    if sum((job_id is not None, absent, deleted)) != 1:
        raise click.UsageError("give exactly one of --job ID, --absent and --deleted")
    with session.existing_ledger(ledger) as opened:
        found = _find_order(session, opened, order, catalogue=catalogue)
        _check_settlement(session, found, job_id=job_id, absent=absent)
        store = session.order_store(opened)
        settled = store.settle(found.order_key, lambda record: settlement(record, job_id=job_id, deleted=deleted))
        if not job_id:
            # Nothing is owed to a job that does not exist.
            for action in store.actions(found.order_key):
                if action.concerns(found) and action.state in {"recorded", "sent"}:
                    store.mark_action(action, "confirmed" if deleted else "withdrawn")
        session.out.show(_order_sheet(opened, settled))
    session.out.note(_after_settlement(settled, job_id=job_id, deleted=deleted))


def settlement(record: OrderRecord, *, job_id: str | None, deleted: bool) -> OrderRecord:
    """Return the record as a person settled it.

    For `--absent` and `--deleted` it gets the next token, so that an attempt that still runs sends nothing more. The
    count of refusals begins anew: a conflict of keys later on then leads to a search, never to a further purchase.

    Args:
        record: As stored.
        job_id: The order's job; None for one that is absent or deleted.
        deleted: Whether the job was deleted.

    Examples:
        >>> lost = OrderRecord("k", 0, "key", {}, "", 1, 0.0, maybe_bought=True, token=1)
        >>> settlement(lost, job_id=None, deleted=False).surely_not_bought
        True
    """
    if job_id is not None:
        return replace(record, job_id=job_id, maybe_bought=True, missing_since=None, deleted=False)
    fenced = replace(record, token=record.token + 1, attempt=f"settle {uuid.uuid4().hex}", armed_token=None)
    if deleted:
        return replace(fenced, deleted=True, pending_retry=None)
    return replace(fenced, maybe_bought=False, refusals=0, content_refusals=0, job_id=None, missing_since=None)


def _check_settlement(session: Session, record: OrderRecord, *, job_id: str | None, absent: bool) -> None:
    """Refuse a settlement that contradicts the ledger or the service.

    Raises:
        CommandFailedError: The record has a job, or the job is unknown or belongs to another order.
    """
    if absent and record.job_id is not None:
        raise CommandFailedError(
            f"{label_of(record.order_key)} has job {record.job_id}; nothing was changed",
            code=ExitCode.REFUSED,
            advice="if that job was deleted: --deleted",
            kind="has_job",
        )
    if job_id is None:
        return
    if session.chosen.profile.api_key is None:
        session.out.note("Warning: no API key is configured, so the job was not checked")
        return
    with session.client() as client:
        try:
            job = client.jobs.get(job_id)
        except NotFoundError as error:
            raise CommandFailedError(
                f"the account has no job {job_id} ({error}); nothing was changed",
                code=ExitCode.REFUSED,
                advice="`ugen jobs list` shows the account's jobs",
                kind="unknown_job",
            ) from None
    if job.idempotency_key is not None and job.idempotency_key != record.key:
        raise CommandFailedError(
            f"job {job_id} was created under the key {job.idempotency_key}, and the order's key is {record.key}; "
            "nothing was changed",
            code=ExitCode.REFUSED,
            advice="`ugen jobs list --json` shows the key of each job",
            kind="other_order",
        )


def _after_settlement(record: OrderRecord, *, job_id: str | None, deleted: bool) -> str:
    if job_id is not None:
        return f"The next attempt waits for job {job_id}, or reuses it."
    if deleted:
        return "The next attempt fails and buys nothing; a new `regenerate` value buys another video."
    return f"The next attempt sends the request as it is then, under the key {record.key}."


# Write the videos of a catalog.


@command(
    "export",
    examples=(
        "ugen ledger export shop --to videos.xml --stored-at s3://videos/ --public-at https://cdn.shop.example/videos/",
        "ugen ledger export shop --to videos.jsonl --format jsonl",
        "ugen ledger export shop --to meta.csv --format meta --id-template 'shopify_DE_{id}'",
        "ugen ledger export shop --to postgresql://db.example/shop --table product_video",
    ),
)
@click.argument("catalogue", metavar="CATALOG")
@click.option("--to", "target", required=True, metavar="FILE|URL",
              help="A file, the URL of one in an object store, or a database's SQLAlchemy URL.")  # fmt: skip
@click.option(
    "--format",
    "format_",
    type=click.Choice(get_args(ShopFormat)),
    default="google",
    show_default=True,
    help="google: a supplemental feed; tsv: the same as text; meta, tiktok, pinterest; jsonl: all fields.",
)
@click.option("--table", default="ugen_video", show_default=True, help="The table, where --to is a database.")
@click.option("--stored-at", metavar="DEST", help="Where the outputs are stored, as in `ugen feed run --to`.")
@click.option("--public-at", metavar="URL", help="The URL under which that place is public.")
@click.option("--min-score", type=click.FloatRange(0, 1), help="Leave out videos below this score.")
@click.option("--variant", help="The variant that a shop shows; default: the first that has a video.")
@click.option("--id-template", default="{id}", help="The id under which the target knows a product: shopify_DE_{id}.")
@click.option(
    "--ids",
    "ids_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="CSV",
    help="A file of two columns: the id in the ledger, and the one that the target knows.",
)
@click.option(
    "--max-gone",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Share of the products in the file that may lose their videos.",
)
@click.option("--allow-shrink", is_flag=True, help="Any number of them may.")
@ledger_option
def export_command(
    session: Session,
    *,
    catalogue: str,
    target: str,
    format_: ShopFormat,
    table: str,
    stored_at: str | None,
    public_at: str | None,
    min_score: float | None,
    variant: str | None,
    id_template: str,
    ids_file: Path | None,
    max_gone: float,
    allow_shrink: bool,
    ledger: str | None,
) -> None:
    """Write the id and the video of each product of CATALOG that has one, from its last complete plan.

    The file, or the catalog's rows in the table, are replaced as a whole. Nothing is written if there is no product to
    write, or if too many would lose their videos.
    """
    ids = TargetIds(id_template, None if ids_file is None else _ids_from(ids_file))
    with session.existing_ledger(ledger) as opened:
        known = opened.find_catalogue(catalogue, namespace=session.namespace)
        if known.kind == "shopify" and ids == TargetIds() and format_ != "jsonl":
            session.out.note(
                "Note: the products of a Shopify CSV are named by their handles; if the target knows other ids, give "
                "--ids or --id-template"
            )
        count = export_videos(
            opened,
            catalogue,
            target,
            namespace=session.namespace,
            export=Export(
                format=format_,
                table=table,
                stored_at=stored_at,
                public_at=public_at,
                min_score=min_score,
                variant=variant,
                ids=ids,
                max_gone=max_gone,
                allow_shrink=allow_shrink,
            ),
            on_skipped=lambda product_id, reason: session.out.note(f"Note: product {clean(product_id)}: {reason}"),
        )
    shown = without_passwords(target) if "://" in target else target
    session.out.text(f"{shown}: {count:,} products", data={"file": shown, "products": count})


def _ids_from(path: Path) -> dict[str, str]:
    """Read the target's ids by those of the ledger.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--ids: {path} cannot be read: {error}") from None
    if any(len(row) < _TWO for row in rows):
        raise ConfigError(f"--ids: {path} needs two columns: the id in the ledger, and the target's")
    return {row[0].strip(): row[1].strip() for row in rows if row[1].strip()}


# Repair.


@command(
    "repair",
    examples=(
        "ugen ledger repair",
        "ugen ledger repair --catalogue shop --feed feed.xml --segment-count 2    # for a ledger that was lost",
    ),
)
@ledger_option
@click.option("--catalogue", metavar="CATALOG", help="With --feed: the catalog of its products.")
@click.option("--feed", help="Today's feed: its products find the jobs that a lost ledger recorded.")
@reading_options
@feed_field_options()
def repair_command(
    session: Session,
    *,
    fields: dict[str, Any],
    ledger: str | None,
    catalogue: str | None,
    feed: str | None,
    reading: ReadingOptions,
) -> None:
    """Add to the ledger the job ids whose answers were lost. Free; buys and cancels nothing.

    For a ledger that was lost as a whole, create a new one, and give the catalog, the feed and the fields of its last
    run.
    """
    if (catalogue is None) != (feed is None):
        raise click.UsageError("--catalogue and --feed belong together")
    if reading.upload_pictures or reading.picture_roots:
        raise click.UsageError("uploaded pictures cannot be recognized; repair finds products whose picture has a URL")
    with session.client() as client, session.ledger(ledger) as opened:
        origin = origin_of(client.config.base_url)
        known = None if catalogue is None else opened.catalogue(catalogue, namespace=session.namespace, origin=origin)
        orders: Iterator[FeedOrder] = iter(())
        if feed is not None:
            orders = _orders(
                plan_feed(
                    feed,
                    job_defaults=_with_model(fields, client.config.video_model),
                    options=reading.feed_options(),
                    mapping=reading.feed_mapping(),
                    model=client.config.video_model,
                )
            )
        done = repair(opened, client, catalogue=known, orders=orders)
    facts = [
        ("jobs read", f"{done.jobs:,}"),
        ("orders whose job was found", f"{done.found:,}"),
        ("products whose job was found", f"{done.restored:,}"),
        ("jobs that the account no longer lists", f"{done.vanished:,}"),
    ]
    session.out.show(Sheet(facts, data=asdict(done)))
    if done.found or done.restored:
        session.out.note("The next `ugen feed run` reuses them, and buys none of them again.")


def _with_model(fields: dict[str, Any], model: str | None) -> dict[str, Any]:
    """Add the account's model: a run sends it with each request, so it is part of the key."""
    return {**fields, "video_model": model} if model is not None and "video_model" not in fields else fields


def _orders(rows: Iterable[Planned]) -> Iterator[FeedOrder]:
    return (row for row in rows if isinstance(row, FeedOrder))
