# SPDX-License-Identifier: Apache-2.0
"""The ledger's tables and their migrations. Times are seconds since the epoch, UTC."""

from __future__ import annotations

from collections.abc import Callable

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
    # Pinned, so that a release with better defaults buys nothing by itself.
    sa.Column("kind", sa.String(32)),
    sa.Column("mapping_version", sa.Integer, nullable=False),
    sa.Column("scheme", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.UniqueConstraint("namespace", "name"),
)

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
    # Who works on it.
    sa.Column("lease_owner", sa.String(64)),
    sa.Column("lease_token", sa.Integer, nullable=False, server_default="0"),
    sa.Column("lease_until", sa.Float, nullable=False, server_default="0"),
)
sa.Index("ugen_product_lease", product.c.lease_owner)

intent = sa.Table(
    "ugen_intent",
    metadata,
    sa.Column("scope", sa.String(1024), primary_key=True),
    sa.Column("catalogue_id", sa.Integer, nullable=False),
    sa.Column("product_id", sa.String(512), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("job_id", sa.String(200)),
    sa.Column("document", sa.Text, nullable=False),
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
sa.Index("ugen_intent_product", intent.c.catalogue_id, intent.c.product_id)
sa.Index("ugen_intent_key", intent.c.key)
sa.Index("ugen_intent_job", intent.c.job_id)

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
    # Whether an earlier attempt may have bought it already, so that taking it up costs nothing.
    sa.Column("begun", sa.Boolean, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("estimate", sa.Integer),
    sa.Column("booked", sa.Integer),
    sa.Column("booked_day", sa.String(10)),
    sa.Column("consumed", sa.Integer),
    sa.Column("job_id", sa.String(200)),
    sa.Column("how", sa.String(16)),
    sa.Column("score", sa.Float),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
)
sa.Index("ugen_item_state", item.c.run, item.c.state, item.c.seq)

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


def _first(connection: sa.Connection) -> None:
    metadata.create_all(connection)


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (_first,)
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
    if found < len(MIGRATIONS):
        connection.execute(sa.delete(meta).where(meta.c.name == "version"))
        connection.execute(sa.insert(meta).values(name="version", value=str(len(MIGRATIONS))))
