# SPDX-License-Identifier: Apache-2.0
"""The ledger: what was ordered, bought and delivered for each product of each catalogue."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Self, TypeVar

import sqlalchemy as sa

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.batch import schema
from ugen_provider.core.batch.database import Writer, answering, engine_for, reachable, shown
from ugen_provider.core.feeds.columns import Kind
from ugen_provider.core.feeds.mapping import CURRENT_VERSION
from ugen_provider.core.jobs.fingerprint import CURRENT_SCHEME

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A shop's catalogue in a ledger, with what is pinned for it.

    Attributes:
        id: In this ledger.
        namespace: Of the connection or resource.
        name: As the user named it.
        kind: Whose rules its feed follows; None before the first run.
        mapping_version: Of the default mapping.
        scheme: Of the fingerprints.
    """

    id: int
    namespace: str
    name: str
    kind: Kind | None
    mapping_version: int
    scheme: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger knows of one product.

    Attributes:
        product_id: The shop's own id.
        state: `completed`, `failed`, `buying` (an attempt began, its end is not known), or empty.
        reason: Why it failed.
        final_failure: Whether the same request is not tried again by itself.
        job_id: Its newest job.
        credits: Credits that its newest job consumed.
        score: Its lowest quality score.
        video: Where its video is: in the user's storage if it was stored, else the service's own link.
        manifest: Where its manifest is, if its outputs were stored.
        seen: Whether the newest run saw it in its feed.
        updated_at: Seconds since the epoch.
    """

    product_id: str
    state: str
    reason: str | None
    final_failure: bool
    job_id: str | None
    credits: int | None
    score: float | None
    video: str | None
    manifest: str | None
    seen: bool
    updated_at: float | None


class Ledger:
    """An open ledger.

    Args:
        address: The path of a SQLite file, or a SQLAlchemy URL of PostgreSQL.
        shared: Whether runners on several machines use it; SQLite is then refused.
        now: Seconds since the epoch; PostgreSQL's own clock where not given, so that machines agree.

    Raises:
        ConfigError: It cannot be opened, a newer version wrote it, or it would not be safe where it is.
        LedgerUnavailableError: Its server does not answer. Every method may raise it later too.

    Examples:
        >>> with Ledger("shop.db") as ledger:
        ...     for entry in ledger.entries("shop"):
        ...         print(entry.product_id, entry.state, entry.video)
    """

    def __init__(self, address: str, *, shared: bool = False, now: Callable[[], float] | None = None) -> None:
        self.engine = engine_for(address, shared=shared)
        reachable(self.engine)
        self.writer = Writer(self.engine)
        self.writer.run(schema.migrate)
        offset = 0.0 if now is not None else self.writer.offset()
        clock = now or time.time
        self.now: Callable[[], float] = lambda: clock() + offset

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def __repr__(self) -> str:
        return f"Ledger({shown(self.engine.url)!r})"

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Read in one transaction.

        Raises:
            LedgerUnavailableError: The database went away.
        """
        with answering(self.engine), self.engine.connect() as connection:
            return work(connection.execution_options(reads=True))

    @contextmanager
    def streaming(self) -> Iterator[sa.Connection]:
        """Read row by row, however many there are.

        Raises:
            LedgerUnavailableError: The database went away.
        """
        with answering(self.engine), self.engine.connect() as connection:
            yield connection.execution_options(reads=True, yield_per=1000)

    def catalogue(self, name: str, *, namespace: str = "") -> Catalogue:
        """A catalogue, entered where it is new.

        Raises:
            ConfigError: It has no name.
        """
        if not name or not name.strip():
            raise ConfigError("catalogue: must be named, since it is what the videos of a feed belong to")
        return self.writer.run(lambda connection: _catalogue(connection, name, namespace, self.now()))

    def find_catalogue(self, name: str, *, namespace: str = "") -> Catalogue:
        """A catalogue that is there.

        Raises:
            ConfigError: It is not; the message names those that are.
        """
        found = self.read(lambda connection: _find_catalogue(connection, name, namespace))
        if found is None:
            known = ", ".join(sorted(repr(other.name) for other in self.catalogues())) or "none"
            raise ConfigError(f"catalogue {name!r} is not in this ledger; it has {known}")
        return found

    def catalogues(self) -> list[Catalogue]:
        """All catalogues."""
        rows = self.read(lambda connection: connection.execute(sa.select(schema.catalogue)).all())
        return [_as_catalogue(row) for row in rows]

    def pin(self, catalogue: Catalogue, *, kind: Kind, mapping_version: int | None = None) -> Catalogue:
        """Hold on to what decides how requests look, until told otherwise.

        Args:
            catalogue: Which.
            kind: Whose rules its feed follows.
            mapping_version: Another version of the default mapping; None keeps the pinned one.
        """
        values: dict[str, Any] = {"kind": kind}
        if mapping_version is not None:
            values["mapping_version"] = mapping_version
        update = sa.update(schema.catalogue).where(schema.catalogue.c.id == catalogue.id).values(**values)
        self.writer.run(lambda connection: connection.execute(update))
        return self.find_catalogue(catalogue.name, namespace=catalogue.namespace)

    def known_jobs(self, job_ids: Collection[str]) -> set[str]:
        """Those of these jobs that any product here was bought by."""
        found: set[str] = set()
        asked = sorted(job_ids)
        for start in range(0, len(asked), 500):
            found |= self.read(partial(_jobs_among, asked[start : start + 500]))
        return found

    def entries(self, name: str, *, namespace: str = "") -> Iterator[Entry]:
        """All products of a catalogue, in the order of their ids."""
        found = self.find_catalogue(name, namespace=namespace)
        table = schema.product
        newest = sa.select(sa.func.max(schema.run.c.id)).where(
            schema.run.c.catalogue_id == found.id, schema.run.c.planned_at.is_not(None)
        )
        query = sa.select(table).where(table.c.catalogue_id == found.id).order_by(table.c.product_id)
        with self.streaming() as connection:
            last = connection.execute(newest).scalar()
            for row in connection.execute(query):
                yield Entry(
                    row.product_id,
                    row.state,
                    row.reason,
                    bool(row.final_failure),
                    row.job_id,
                    row.credits,
                    row.score,
                    row.video,
                    row.manifest,
                    row.seen_run == last,
                    row.updated_at,
                )


def _jobs_among(job_ids: Collection[str], connection: sa.Connection) -> set[str]:
    column = schema.intent.c.job_id
    return {str(found) for found in connection.execute(sa.select(column).where(column.in_(job_ids))).scalars()}


def _catalogue(connection: sa.Connection, name: str, namespace: str, now: float) -> Catalogue:
    found = _find_catalogue(connection, name, namespace)
    if found is not None:
        return found
    values = {
        "name": name,
        "namespace": namespace,
        "mapping_version": CURRENT_VERSION,
        "scheme": CURRENT_SCHEME,
        "created_at": now,
    }
    insert_new(connection, schema.catalogue, values)
    made = _find_catalogue(connection, name, namespace)
    assert made is not None  # it was there, or it is there now
    return made


def _find_catalogue(connection: sa.Connection, name: str, namespace: str) -> Catalogue | None:
    table = schema.catalogue
    query = sa.select(table).where(table.c.namespace == namespace, table.c.name == name)
    row = connection.execute(query).one_or_none()
    return None if row is None else _as_catalogue(row)


def _as_catalogue(row: Any) -> Catalogue:
    return Catalogue(row.id, row.namespace, row.name, row.kind, row.mapping_version, row.scheme)


def among(connection: sa.Connection, column: Any, values: Collection[str]) -> Any:
    """Whether a column holds one of many texts.

    SQLite gets them as one parameter: a statement with thousands would be put together anew each time. No text with
    a NUL comes out of JSON as it went in.
    """
    if connection.dialect.name != "sqlite" or any("\x00" in value for value in values):
        return column.in_(list(values))
    listed = sa.func.json_each(json.dumps(list(values), ensure_ascii=False)).table_valued("value")
    return column.in_(sa.select(listed.c.value))


def insert_new(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any] | list[dict[str, Any]]) -> None:
    """Insert a row, or several; one that is there already stays as it is."""
    connection.execute(_insert_new(connection.dialect.name, table), values)


def upsert(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> None:
    """Insert a row, or replace the given columns where it is there already."""
    connection.execute(_upsert(connection.dialect.name, table, tuple(values)), values)


def change(
    connection: sa.Connection, table: sa.Table, values: Mapping[str, Any], *, where: Mapping[str, object]
) -> int:
    """Change the rows whose columns have exactly these values; none of them may be None.

    To put an UPDATE together takes SQLAlchemy eight times as long as to execute one that is there already, and a
    product that is bought needs a dozen.

    Returns:
        How many rows that were.
    """
    given = {f"new_{name}": value for name, value in values.items()} | {f"of_{k}": value for k, value in where.items()}
    return connection.execute(_change(table, tuple(values), tuple(where)), given).rowcount


@cache
def _change(table: sa.Table, columns: tuple[str, ...], keys: tuple[str, ...]) -> sa.Update:
    these = (table.c[name] == sa.bindparam(f"of_{name}") for name in keys)
    return sa.update(table).where(*these).values({name: sa.bindparam(f"new_{name}") for name in columns})


@cache
def _insert_new(dialect: str, table: sa.Table) -> sa.Insert:
    return _insert(dialect, table).on_conflict_do_nothing()  # type: ignore[no-any-return]


@cache
def _upsert(dialect: str, table: sa.Table, columns: tuple[str, ...]) -> sa.Insert:
    keys = [column.name for column in table.primary_key]
    insert = _insert(dialect, table)
    changes = {name: insert.excluded[name] for name in columns if name not in keys}
    return insert.on_conflict_do_update(index_elements=keys, set_=changes)  # type: ignore[no-any-return]


def _insert(dialect: str, table: sa.Table) -> Any:
    from sqlalchemy.dialects import postgresql, sqlite

    return (postgresql if dialect == "postgresql" else sqlite).insert(table)
