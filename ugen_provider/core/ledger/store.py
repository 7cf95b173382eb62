# SPDX-License-Identifier: Apache-2.0
"""An open ledger: its database, its catalogs and their products, its leases, and the default file.

A lease is work that one process of an account does at a time; another takes it over when that process is gone.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

import sqlalchemy as sa

from ugen_provider.core.api.config import Secret
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.ledger import record as ledger_record
from ugen_provider.core.ledger import schema
from ugen_provider.core.ledger.database import (
    Writer,
    answering,
    engine_for,
    open_engine,
    reachable,
    refuse_ephemeral,
    refuse_ephemeral_path,
    refuse_foreign_file,
    shown,
    with_revealed,
)
from ugen_provider.core.ledger.record import shown_id, split_row_id

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A shop's catalogue in a ledger, with what is pinned for it.

    Attributes:
        id: In this ledger.
        namespace: Of the connection or resource.
        name: As the user named it.
        origin: Of the emulator that its products were bought at, such as `loopback:8000`; '' for the service.
        kind: Whose rules its feed follows; None before the first run.
        mapping_version: Of the default mapping.
        scheme: Of the fingerprints.
    """

    id: int
    namespace: str
    name: str
    kind: str | None
    mapping_version: int
    scheme: int
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """Knowledge of the ledger about one product.

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
        seen: Whether the plan in force saw it in its feed. A plan that was refused, broken or killed, or is still being
            written, is not in force.
        updated_at: Seconds since the epoch.
        variant: The variant; '' for none.
        adopted_from: The product whose purchase it shares, with its variant.
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
    variant: str = ""
    adopted_from: str | None = None


class Ledger:
    """An open ledger. It is created by `Ledger.init` or `ugen ledger init`, and only opened here.

    Args:
        address: The path of a SQLite file, or a SQLAlchemy URL of PostgreSQL. A `Secret` stays out of the frames of an
            error, which a reporter of errors may send away.
        shared: Whether runners on several machines use it; SQLite is then refused.
        expected_id: The id that the ledger must have, as carried by a trigger or a run tag; None accepts any.
        now: Seconds since the epoch; PostgreSQL's own clock where not given, so that machines agree.

    Attributes:
        ledger_id: A random id that the ledger got when it was created.

    Raises:
        ConfigError: It does not exist, cannot be opened, has another id, a newer version wrote it, or its disk is
            unsuitable (network, overlay and temporary file systems).
        LedgerUnavailableError: Its server does not answer. Every method may raise it later too.

    Examples:
        >>> with Ledger("shop.db") as ledger:
        ...     for entry in ledger.entries("shop"):
        ...         print(entry.product_id, entry.state, entry.video)
    """

    def __init__(
        self,
        address: str | Secret,
        *,
        shared: bool = False,
        expected_id: str | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        address = Secret.of(address)  # an error would show the password with this frame
        self.engine = open_engine(address, shared=shared)
        self.writer = Writer(self.engine)
        self.writer.run(schema.migrate)
        refuse_ephemeral(self.engine, allowed=self._meta("allow_ephemeral") == "1")
        self.ledger_id = self._meta("id") or ""
        if expected_id is not None and expected_id != self.ledger_id:
            raise ConfigError(
                f"ledger: {shown(self.engine.url)} has the id {self.ledger_id}, and the task was begun with ledger "
                f"{expected_id}; an order that is looked up in another ledger could be bought twice. Let every process "
                "open the same ledger"
            )
        offset = 0.0 if now is not None else self.writer.offset()
        clock = now or time.time
        self.now: Callable[[], float] = lambda: clock() + offset

    @classmethod
    def init(
        cls,
        address: str | Secret,
        *,
        shared: bool = False,
        allow_ephemeral: bool = False,
        now: Callable[[], float] | None = None,
    ) -> Self:
        """Create a ledger, or open the one that is there.

        Args:
            address: The path of a SQLite file, or a SQLAlchemy URL of PostgreSQL.
            shared: Whether runners on several machines use it; SQLite is then refused.
            allow_ephemeral: Whether its file may be on a disk that a container loses (overlay, tmpfs). It is
                remembered in the ledger.
            now: Seconds since the epoch.

        Raises:
            ConfigError: It cannot be created there.
            LedgerUnavailableError: Its server does not answer.

        Examples:
            >>> Ledger.init(str(tmp_path / "new.db"), allow_ephemeral=True).catalogues()
            []
        """

        def create(clear: str) -> None:
            refuse_ephemeral_path(clear, allowed=allow_ephemeral)
            refuse_foreign_file(clear)
            engine = engine_for(clear, shared=shared)
            try:
                reachable(engine)
                writer = Writer(engine)
                writer.run(schema.migrate)
                if allow_ephemeral:
                    values = {"name": "allow_ephemeral", "value": "1"}
                    writer.run(lambda connection: insert_new(connection, schema.meta, values))
            finally:
                engine.dispose()

        address = Secret.of(address)
        with_revealed(address, create)
        return cls(address, shared=shared, now=now)

    def _meta(self, name: str) -> str | None:
        query = sa.select(schema.meta.c.value).where(schema.meta.c.name == name)
        return self.read(lambda connection: connection.execute(query).scalar())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self.engine.dispose()

    def __repr__(self) -> str:
        return f"Ledger({shown(self.engine.url)!r})" if hasattr(self, "engine") else "Ledger(not open)"

    def analyze(self) -> None:
        """Let PostgreSQL count its rows now. Without statistics it reads a whole table for a handful of products."""
        if self.engine.dialect.name == "postgresql":
            names = ", ".join(table.name for table in (schema.product, schema.item, schema.order))
            self.writer.run_alone(lambda connection: connection.execute(sa.text(f"ANALYZE {names}")))

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Read from the ledger in one transaction.

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

    def catalogue(self, name: str, *, namespace: str = "", origin: str = "") -> Catalogue:
        """Return a catalog, created where it is new.

        Args:
            name: As the user named it.
            namespace: Of the connection.
            origin: Of the API. An emulator has catalogs of its own, so that its purchases never count for the service.

        Raises:
            ConfigError: It has no name.
        """
        if not name or not name.strip():
            raise ConfigError("catalogue: must be named, since the videos of a feed belong to it")
        return self.writer.run(
            lambda connection: _catalogue(connection, name, namespace, _emulator(origin), now=self.now())
        )

    def find_catalogue(self, name: str, *, namespace: str = "", origin: str | None = None) -> Catalogue:
        """Return a catalog that exists.

        Args:
            name: As the user named it.
            namespace: Of the connection.
            origin: Of the API. If it has no such catalog, or is not given, the catalog with the newest run is returned.

        Raises:
            ConfigError: It is not; the message names those that are.
        """
        found = self.read(lambda connection: _find_any_catalogue(connection, name, namespace, origin))
        if found is None:
            known = ", ".join(sorted(repr(other.name) for other in self.catalogues())) or "none"
            raise ConfigError(f"catalogue {name!r} is not in this ledger; it has {known}")
        return found

    def catalogues(self) -> list[Catalogue]:
        """Return all catalogues of the ledger."""
        rows = self.read(lambda connection: connection.execute(sa.select(schema.catalogue)).all())
        return [_as_catalogue(row) for row in rows]

    def pin(self, catalogue: Catalogue, *, kind: str, mapping_version: int | None = None) -> Catalogue:
        """Keep the settings that decide the form of requests, until another call changes them.

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
        return self.catalogue(catalogue.name, namespace=catalogue.namespace, origin=catalogue.origin)

    def entries(self, name: str, *, namespace: str = "") -> Iterator[Entry]:
        """Return all products of a catalog, in the order of their ids; one with variants once for each.

        A product that only an incomplete plan saw is not among them.
        """
        found = self.find_catalogue(name, namespace=namespace)
        table = schema.product
        query = sa.select(table).where(table.c.catalogue_id == found.id).order_by(table.c.product_id)
        with self.streaming() as connection:
            force = runs_in_force(connection, found.id).all
            for row in connection.execute(query):
                seen = row.seen_run in force or row.seen_earlier in force
                if not seen and not row.state:
                    continue
                product_id, variant = split_row_id(row.product_id)
                yield Entry(
                    product_id,
                    row.state,
                    row.reason,
                    bool(row.final_failure),
                    row.job_id,
                    row.credits,
                    row.score,
                    row.video,
                    row.manifest,
                    seen,
                    row.updated_at,
                    variant,
                    shown_id(row.adopted_from) if row.adopted_from is not None else None,
                )


@dataclass(frozen=True, slots=True)
class RunsInForce:
    """The runs of a catalog whose complete plans count.

    Attributes:
        by_part: Per part of the catalog the plan in force, and the complete plans of a selection that began after it.
        newest: Per part the plan in force.
    """

    by_part: Mapping[str, frozenset[int]]
    newest: Mapping[str, int]

    @property
    def all(self) -> frozenset[int]:
        """The runs of all parts."""
        return frozenset().union(*self.by_part.values())

    def of(self, part: str) -> frozenset[int]:
        """Return the runs of one part."""
        return self.by_part.get(part, frozenset())


def runs_in_force(connection: sa.Connection, catalogue_id: int) -> RunsInForce:
    """Return the runs whose plans count: of the complete ones of each part, the one that started last.

    Numbers of runs are given when they start, so the highest started last, even if another was complete later.
    """
    run = schema.run
    query = sa.select(run.c.id, run.c.part, run.c.whole)
    rows = connection.execute(query.where(run.c.catalogue_id == catalogue_id, run.c.planned_at.is_not(None))).all()
    newest: dict[str, int] = {}
    for row in rows:
        if row.whole:
            newest[row.part] = max(row.id, newest.get(row.part, 0))
    by_part: dict[str, set[int]] = {part: {number} for part, number in newest.items()}
    for row in rows:
        if not row.whole and row.id > newest.get(row.part, 0):
            by_part.setdefault(row.part, set()).add(row.id)
    return RunsInForce({part: frozenset(numbers) for part, numbers in by_part.items()}, newest)


def _emulator(origin: str) -> str:
    return origin if origin.startswith("loopback") else ""


def _catalogue(connection: sa.Connection, name: str, namespace: str, origin: str, *, now: float) -> Catalogue:
    found = _find_catalogue(connection, name, namespace, origin)
    if found is not None:
        return found
    values = {
        "name": name,
        "namespace": namespace,
        "origin": origin,
        "mapping_version": ledger_record.CURRENT_MAPPING_VERSION,
        "scheme": ledger_record.CURRENT_SCHEME,
        "created_at": now,
    }
    insert_new(connection, schema.catalogue, values)
    made = _find_catalogue(connection, name, namespace, origin)
    assert made is not None  # it was there, or it is there now
    return made


def _find_any_catalogue(connection: sa.Connection, name: str, namespace: str, origin: str | None) -> Catalogue | None:
    if origin is not None and (found := _find_catalogue(connection, name, namespace, _emulator(origin))) is not None:
        return found
    table, run = schema.catalogue, schema.run
    newest = sa.select(sa.func.max(run.c.id)).where(run.c.catalogue_id == table.c.id).scalar_subquery()
    query = sa.select(table).where(table.c.namespace == namespace, table.c.name == name)
    row = connection.execute(query.order_by(sa.func.coalesce(newest, 0).desc()).limit(1)).one_or_none()
    return None if row is None else _as_catalogue(row)


def _find_catalogue(connection: sa.Connection, name: str, namespace: str, origin: str) -> Catalogue | None:
    table = schema.catalogue
    query = sa.select(table).where(table.c.namespace == namespace, table.c.name == name, table.c.origin == origin)
    row = connection.execute(query).one_or_none()
    return None if row is None else _as_catalogue(row)


def _as_catalogue(row: Any) -> Catalogue:
    return Catalogue(row.id, row.namespace, row.name, row.kind, row.mapping_version, row.scheme, row.origin)


def among(connection: sa.Connection, column: Any, values: Collection[str]) -> Any:
    """Return whether a column holds one of many texts.

    They are one parameter: a statement with thousands of them would be put together, and parsed by the database, anew
    each time. PostgreSQL also reads an array by the index whatever its statistics say, where a long list of values in a
    table that it takes for small becomes a scan. No text with a NUL comes out of SQLite's JSON as it went in.
    """
    if connection.dialect.name == "postgresql":
        return column == sa.any_(sa.literal(list(values), sa.ARRAY(sa.String)))
    if any("\x00" in value for value in values):
        return column.in_(list(values))
    listed = sa.func.json_each(json.dumps(list(values), ensure_ascii=False)).table_valued("value")
    return column.in_(sa.select(listed.c.value))


def insert_new(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any] | list[dict[str, Any]]) -> None:
    """Insert a row, or several; one that is there already stays unchanged."""
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


_LEASE = schema.lease


def take_lease(ledger: Ledger, name: str, *, owner: str, seconds: float) -> bool:
    """Take a lease, or renew it, in one conditional write.

    Args:
        ledger: An open ledger.
        name: The work.
        owner: Who does it: a random id of the process.
        seconds: For how long it is held without a renewal.

    Returns:
        Whether it is held now. False while another owner holds it.
    """

    def work(connection: sa.Connection) -> bool:
        now = ledger.now()
        insert_new(connection, _LEASE, {"name": name, "owner": owner, "until": 0.0, "taken_at": now})
        free = sa.or_(_LEASE.c.owner == owner, _LEASE.c.until < now)
        update = sa.update(_LEASE).where(_LEASE.c.name == name, free)
        return connection.execute(update.values(owner=owner, until=now + seconds, taken_at=now)).rowcount == 1

    return ledger.writer.run(work)


def release_lease(ledger: Ledger, name: str, *, owner: str) -> None:
    """Release a lease, so that another process need not wait for its end; one that another owner holds is unchanged."""
    update = sa.update(_LEASE).where(_LEASE.c.name == name, _LEASE.c.owner == owner).values(until=0.0)
    ledger.writer.run(lambda connection: connection.execute(update))


def last_taken(ledger: Ledger, name: str) -> float | None:
    """Return when a lease was last taken or renewed, in seconds since the epoch; None if never."""
    query = sa.select(_LEASE.c.taken_at).where(_LEASE.c.name == name)
    found: float | None = ledger.read(lambda connection: connection.execute(query).scalar())
    return found


class EphemeralLedgerWarning(UserWarning):
    """The default ledger is on a disk that a container loses."""


def default_ledger_address(environ: Mapping[str, str] | None = None) -> str:
    """Return the address of the default ledger: `UGEN_LEDGER`, else `ugen/ledger.db` in the user's data folder.

    Args:
        environ: The environment; default `os.environ`.

    Examples:
        >>> default_ledger_address({"UGEN_LEDGER": "postgresql://db/ugen"})
        'postgresql://db/ugen'
    """
    env = os.environ if environ is None else environ
    if named := env.get("UGEN_LEDGER", "").strip():
        return named
    from platformdirs import user_data_path

    return str(user_data_path("ugen") / "ledger.db")


def open_default_ledger() -> Ledger:
    """Open the default ledger. Only this file is created silently; one that `UGEN_LEDGER` names must exist.

    Warns:
        EphemeralLedgerWarning: The file is on an overlay or temporary file system.

    Raises:
        ConfigError: It cannot be opened or created.
        LedgerUnavailableError: Its server does not answer.
    """
    from ugen_provider.core.ledger.database import ephemeral_filesystem_of

    address = default_ledger_address()
    if os.environ.get("UGEN_LEDGER", "").strip():
        return Ledger(address)
    file = Path(address)
    if kind := ephemeral_filesystem_of(file):
        warnings.warn(
            f"the default ledger {file} is on a temporary disk ({kind}); purchases recorded there are lost with the "
            f"container. Mount a volume at {file.parent}, or set UGEN_LEDGER",
            EphemeralLedgerWarning,
            stacklevel=2,
        )
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Ledger.init(address, allow_ephemeral=True)
