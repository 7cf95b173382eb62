# SPDX-License-Identifier: Apache-2.0
"""Tables of the ledger and their migrations. Times are seconds since the epoch, UTC."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from ugen_provider.core.api.errors import ConfigError

metadata = sa.MetaData()

meta = sa.Table(
    "ugen_meta",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

catalogue = sa.Table(
    "ugen_catalogue",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("namespace", sa.String(200), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    # Of an emulator; empty for the service. Purchases of an emulator never count for the service, and the reverse.
    sa.Column("origin", sa.String(200), nullable=False, server_default=""),
    # Pinned, so that a release with better defaults buys nothing by itself.
    sa.Column("kind", sa.String(32)),
    sa.Column("mapping_version", sa.Integer, nullable=False),
    sa.Column("scheme", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.UniqueConstraint("namespace", "name", "origin"),
)

# `product_id` names a product in one variant; see `variants`.
product = sa.Table(
    "ugen_product",
    metadata,
    sa.Column("catalogue_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("product_id", sa.String(512), primary_key=True),
    # Of the request that the columns below are about.
    sa.Column("fingerprint", sa.String(64)),
    sa.Column("state", sa.String(16), nullable=False, server_default=""),
    sa.Column("final_failure", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("reason", sa.Text),
    sa.Column("job_id", sa.String(200)),
    sa.Column("credits", sa.Integer),
    sa.Column("score", sa.Float),
    sa.Column("video", sa.Text),
    sa.Column("manifest", sa.Text),
    sa.Column("updated_at", sa.Float),
    # The newest run that saw it in its feed, and what that made of it.
    sa.Column("seen_run", sa.Integer),
    sa.Column("seen_as", sa.String(16)),
    # The plan in force that saw it before `seen_run` did: a plan that never becomes complete takes nothing away.
    sa.Column("seen_earlier", sa.Integer),
    # The product whose purchase it shares, and the fingerprint of that purchase's request.
    sa.Column("adopted_from", sa.String(512)),
    sa.Column("adopted_digest", sa.String(64)),
    # The runner that works on it.
    sa.Column("lease_owner", sa.String(64)),
    sa.Column("lease_token", sa.Integer, nullable=False, server_default="0"),
    sa.Column("lease_until", sa.Float, nullable=False, server_default="0"),
)
sa.Index("ugen_product_lease", product.c.lease_owner)
sa.Index("ugen_product_adopted", product.c.catalogue_id, product.c.adopted_from)

order = sa.Table(
    "ugen_order",
    metadata,
    sa.Column("order_key", sa.String(1536), primary_key=True),
    # Both are empty for orders of tasks, partitions and names.
    sa.Column("catalogue_id", sa.Integer),
    sa.Column("product_id", sa.String(512)),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("job_id", sa.String(200)),
    # Of the newest attempt: a record is replaced only by the attempt that holds it.
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("mac", sa.String(100)),
    # How it ended, so that a product that changed back finds its old video without a request.
    sa.Column("state", sa.String(16), nullable=False, server_default=""),
    sa.Column("final_failure", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("reason", sa.Text),
    sa.Column("credits", sa.Integer),
    sa.Column("score", sa.Float),
    sa.Column("video", sa.Text),
    sa.Column("manifest", sa.Text),
    sa.Column("updated_at", sa.Float, nullable=False),
)
sa.Index("ugen_order_product", order.c.catalogue_id, order.c.product_id)
sa.Index("ugen_order_by_key", order.c.key)
sa.Index("ugen_order_by_job", order.c.job_id)

attempt = sa.Table(
    "ugen_attempt",
    metadata,
    sa.Column("order_key", sa.String(1536), primary_key=True),
    sa.Column("token", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(512), nullable=False),
)

action = sa.Table(
    "ugen_action",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("action_id", sa.String(64), nullable=False),
    sa.Column("order_key", sa.String(1536), nullable=False),
    sa.Column("purchase_number", sa.Integer, nullable=False),
    sa.Column("job_id", sa.String(200)),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(32), nullable=False),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
)
sa.Index("ugen_action_order", action.c.order_key)
sa.Index("ugen_action_state", action.c.action_id, action.c.state)

lease = sa.Table(
    "ugen_lease",
    metadata,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("taken_at", sa.Float, nullable=False),
)

run = sa.Table(
    "ugen_run",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("catalogue_id", sa.Integer, nullable=False),
    sa.Column("run_id", sa.String(300), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("owner", sa.String(64)),
    sa.Column("lease_until", sa.Float, nullable=False, server_default="0"),
    sa.Column("source", sa.Text, nullable=False, server_default=""),
    sa.Column("budget", sa.Integer),
    sa.Column("booked", sa.Integer, nullable=False, server_default="0"),
    sa.Column("rows", sa.Integer, nullable=False, server_default="0"),
    sa.Column("products", sa.Integer, nullable=False, server_default="0"),
    sa.Column("unchanged", sa.Integer, nullable=False, server_default="0"),
    sa.Column("rejected", sa.Integer, nullable=False, server_default="0"),
    sa.Column("filtered", sa.Integer, nullable=False, server_default="0"),
    sa.Column("duplicates", sa.Integer, nullable=False, server_default="0"),
    sa.Column("new", sa.Integer, nullable=False, server_default="0"),
    sa.Column("changed", sa.Integer, nullable=False, server_default="0"),
    sa.Column("disappeared", sa.Integer, nullable=False, server_default="0"),
    sa.Column("adopted", sa.Integer, nullable=False, server_default="0"),
    # Why the plan was refused.
    sa.Column("reason", sa.Text),
    # The part of the catalog that the feed is, and whether it is the whole of that part.
    sa.Column("part", sa.String(100), nullable=False, server_default=""),
    sa.Column("whole", sa.Boolean, nullable=False, server_default=sa.true()),
    # The share of products that the plan was allowed to lose; an export of the plan in force may shrink as much.
    sa.Column("max_gone", sa.Float),
    # One request for each cost that the plan holds, as JSON, so that the cheapest purchase is known.
    sa.Column("samples", sa.Text),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("planned_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.UniqueConstraint("catalogue_id", "run_id"),
)

item = sa.Table(
    "ugen_item",
    metadata,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("product_id", sa.String(512), primary_key=True),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("line", sa.Integer),
    sa.Column("item", sa.Integer, nullable=False),
    sa.Column("why", sa.String(16), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("picture", sa.Text),
    sa.Column("picture_digest", sa.String(64)),
    # Fields that the service suggests before the purchase; they are no part of the fingerprint.
    sa.Column("suggest", sa.String(200)),
    # Whether an earlier attempt may have bought it already, so that taking it up costs nothing.
    sa.Column("begun", sa.Boolean, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("estimate", sa.Integer),
    sa.Column("booked", sa.Integer),
    sa.Column("booked_day", sa.String(10)),
    sa.Column("consumed", sa.Integer),
    sa.Column("job_id", sa.String(200)),
    sa.Column("outcome", sa.String(24)),
    sa.Column("score", sa.Float),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
)
# A claim takes the first of these without reading the others, however many are planned. There is no other index by run
# and state: without statistics, PostgreSQL would take that one and read every planned item.
sa.Index("ugen_item_claim", item.c.run, item.c.state, item.c.begun, item.c.seq)

# Which product buys the video of a request, for all products with equal requests: one row decides between planners.
shared_request = sa.Table(
    "ugen_shared_request",
    metadata,
    sa.Column("catalogue_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("variant", sa.String(50), primary_key=True),
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("product_id", sa.String(512), nullable=False),
    # Price, size and link of the product, by which `adopt: ask` distinguishes two products.
    sa.Column("facts", sa.Text),
)

# Products that a plan found to share a purchase, or to have changed back. It takes effect together with the plan.
adoption = sa.Table(
    "ugen_adoption",
    metadata,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("product_id", sa.String(512), primary_key=True),
    sa.Column("origin", sa.String(512), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
)

rejected = sa.Table(
    "ugen_rejected",
    metadata,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("line", sa.Integer),
    sa.Column("item", sa.Integer, nullable=False),
    sa.Column("product_id", sa.String(512)),
    sa.Column("column", sa.String(200), nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("excerpt", sa.Text, nullable=False),
)

day = sa.Table(
    "ugen_day",
    metadata,
    sa.Column("namespace", sa.String(200), primary_key=True),
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("booked", sa.Integer, nullable=False),
)

# The rest that one runner may reserve, taken in advance from a run and a day. Each runner has its own row: to wait
# for the row of the run would be to wait for every other runner's commit.
share = sa.Table(
    "ugen_share",
    metadata,
    sa.Column("run", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("namespace", sa.String(200), nullable=False),
    # The run and the day have this booked; the runner's products have booked that much of it.
    sa.Column("taken", sa.Integer, nullable=False),
    sa.Column("booked", sa.Integer, nullable=False),
    # Afterwards another runner may give back what is left of it.
    sa.Column("until", sa.Float, nullable=False),
)
sa.Index("ugen_share_until", share.c.until)

# Credits reserved for one purchase of an order that is no product of a plan, such as an asset's partition.
booking = sa.Table(
    "ugen_booking",
    metadata,
    sa.Column("order_key", sa.String(1536), primary_key=True),
    sa.Column("purchase_number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("run", sa.String(300), nullable=False),
    sa.Column("namespace", sa.String(200), nullable=False),
    sa.Column("day", sa.String(10), nullable=False),
    sa.Column("credits", sa.Integer, nullable=False),
)

logical_run = sa.Table(
    "ugen_logical_run",
    metadata,
    sa.Column("name", sa.String(300), primary_key=True),
    sa.Column("booked", sa.Integer, nullable=False),
)

picture = sa.Table(
    "ugen_picture",
    metadata,
    sa.Column("namespace", sa.String(200), primary_key=True),
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("uploaded_at", sa.Float, nullable=False),
)

picture_source = sa.Table(
    "ugen_picture_source",
    metadata,
    sa.Column("address", sa.String(2000), primary_key=True),
    sa.Column("stamp", sa.String(300), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)


def _create(connection: sa.Connection) -> None:
    metadata.create_all(connection)


def _move_intents_to_orders(connection: sa.Connection) -> None:
    """Before version 2, only orders of products were in a ledger, in a table `ugen_intent`."""
    columns = {column["name"] for column in sa.inspect(connection).get_columns("ugen_catalogue")}
    if "origin" not in columns:
        _add_origin_to_catalogues(connection)
        connection.execute(sa.text("ALTER TABLE ugen_item RENAME COLUMN how TO outcome"))
        connection.execute(sa.text("CREATE INDEX ugen_item_claim ON ugen_item (run, state, begun, seq)"))
    metadata.create_all(connection)
    if not sa.inspect(connection).has_table("ugen_intent"):
        return
    intent = sa.Table("ugen_intent", sa.MetaData(), autoload_with=connection)
    kept = [column.name for column in order.columns if column.name in intent.columns]
    rows = connection.execute(sa.select(intent).execution_options(yield_per=1000))
    for rows_of_part in rows.mappings().partitions(1000):
        moved, actions = [], []
        for row in rows_of_part:
            record, action_row = order_of_intent(json.loads(row["document"]))
            document = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
            values = {name: row[name] for name in kept}
            moved.append({**values, "order_key": row["scope"], "token": 1, "document": document})
            actions += [action_row] if action_row is not None else []
        connection.execute(sa.insert(order), moved)
        if actions:
            connection.execute(sa.insert(action), actions)
    intent.drop(connection)


def _add_origin_to_catalogues(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        for change in (
            "ADD COLUMN origin VARCHAR(200) NOT NULL DEFAULT ''",
            "DROP CONSTRAINT ugen_catalogue_namespace_name_key",
            "ADD UNIQUE (namespace, name, origin)",
        ):
            connection.execute(sa.text(f"ALTER TABLE ugen_catalogue {change}"))
        return
    # SQLite changes no constraint of a table that exists.
    connection.execute(sa.text("ALTER TABLE ugen_catalogue RENAME TO ugen_catalogue_1"))
    old = sa.Table("ugen_catalogue_1", sa.MetaData(), autoload_with=connection)
    catalogue.create(connection)
    names = [column.name for column in old.columns]
    connection.execute(sa.insert(catalogue).from_select(names, sa.select(old)))
    old.drop(connection)


def order_of_intent(stored: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the order record, and our last action, from an intent of version 1."""
    done = stored.pop("action", None)
    refused = bool(stored.pop("refused", False))
    record = {
        **stored,
        "order_key": stored.pop("scope"),
        "purchase_number": stored.pop("generation"),
        "attempt": stored.pop("holder", ""),
        "token": 1,
        "maybe_bought": not refused,
        "refusals": int(refused),
        "sent_at": None if refused else stored["written_at"],
    }
    for name in ("scope", "generation", "holder", "armed"):
        record.pop(name, None)
    if done is None:
        return record, None
    action_row = {
        "action_id": uuid.uuid4().hex,
        "order_key": record["order_key"],
        "purchase_number": record["purchase_number"],
        "job_id": record.get("job_id"),
        "kind": done["kind"],
        "reason": done["reason"],
        # It ended an attempt before the one that will read it.
        "token": 1,
        "state": "confirmed" if done["confirmed"] else "sent",
        "at": done["at"],
    }
    return record, action_row


def _drop_index_by_state(connection: sa.Connection) -> None:
    connection.execute(sa.text("DROP INDEX IF EXISTS ugen_item_state"))


def _add_missing_columns(connection: sa.Connection, table: sa.Table) -> None:
    there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in there:
            ddl = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {ddl}"))


def _add_suggestions(connection: sa.Connection) -> None:
    """Before version 7, no field of a planned request was left to the service's suggestions."""
    _add_missing_columns(connection, item)


def _share_purchases(connection: sa.Connection) -> None:
    """Before version 5, products shared no purchase, and a plan took effect while it was written."""
    for table in (product, run):
        _add_missing_columns(connection, table)
    metadata.create_all(connection)
    indexes = {index["name"] for index in sa.inspect(connection).get_indexes(product.name)}
    for index in product.indexes:
        if index.name not in indexes:
            index.create(connection)
    bought = sa.select(
        product.c.catalogue_id, sa.literal(""), product.c.fingerprint, sa.func.min(product.c.product_id), sa.null()
    ).where(product.c.state == "completed", product.c.fingerprint.is_not(None))
    names = ["catalogue_id", "variant", "fingerprint", "product_id", "facts"]
    bought = bought.group_by(product.c.catalogue_id, product.c.fingerprint)
    if not connection.execute(sa.select(shared_request.c.fingerprint).limit(1)).first():
        connection.execute(sa.insert(shared_request).from_select(names, bought))


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (
    _create,
    _move_intents_to_orders,
    _create,
    _create,
    _share_purchases,
    _drop_index_by_state,
    _add_suggestions,
)
"""Each takes the tables from its index to the next number; one that was released never changes."""


def migrate(connection: sa.Connection) -> None:
    """Bring a ledger to this version's tables; a second call, or a second process at the same moment, does nothing.

    Raises:
        ConfigError: A newer version wrote it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(83749265)"))
    found = 0
    if sa.inspect(connection).has_table(meta.name):
        value = connection.execute(sa.select(meta.c.value).where(meta.c.name == "version")).scalar()
        found = int(value) if value is not None else 0
    if found > len(MIGRATIONS):
        raise ConfigError(f"the ledger has tables of version {found}, and this version of ugen-provider knows "
                          f"{len(MIGRATIONS)}; upgrade ugen-provider")  # fmt: skip
    for step in MIGRATIONS[found:]:
        step(connection)
    if connection.execute(sa.select(meta.c.value).where(meta.c.name == "id")).scalar() is None:
        connection.execute(sa.insert(meta).values(name="id", value=uuid.uuid4().hex))
    if found < len(MIGRATIONS):
        connection.execute(sa.delete(meta).where(meta.c.name == "version"))
        connection.execute(sa.insert(meta).values(name="version", value=str(len(MIGRATIONS))))
