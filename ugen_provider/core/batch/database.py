# SPDX-License-Identifier: Apache-2.0
"""How the ledger's database is opened and written to: many writers, few commits, no surprises on a shared disk."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionLeftError

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.batch.errors import LedgerUnavailableError

T = TypeVar("T")
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs",
                      "fuse.gcsfuse", "fuse.s3fs", "fuse.glusterfs", "beegfs", "gpfs"})  # fmt: skip
_MOST_AT_ONCE = 256
_LOCKED = 60.0
"""Seconds for which a SQLite file that another writes to is waited for."""

# Airflow 3.0 holds SQLAlchemy below 2.0: there `future=True` asks for the same engine, and psycopg 3 has no dialect.
_POSTGRESQL, _BRINGS_IT = (
    ("postgresql+psycopg2", "psycopg2-binary")
    if sa.__version__.startswith("1.")
    else ("postgresql+psycopg", "ugen-provider[postgres]")
)


def engine_for(address: str, *, shared: bool = False) -> sa.Engine:
    """Open a database.

    Args:
        address: A SQLAlchemy URL, or the path of a SQLite file.
        shared: Whether runners on several machines use it, as under an Airflow executor that spans machines.

    Raises:
        ConfigError: It cannot be opened, or would not be safe: SQLite locks nothing over a network.
    """
    url_text = address if "://" in address else f"sqlite:///{Path(address).expanduser()}"
    try:
        url = make_url(url_text)
        if url.get_backend_name() == "sqlite":
            return _sqlite(url, shared=shared)
        if url.get_backend_name() == "postgresql":
            driver = url if "+" in url.drivername else url.set(drivername=_POSTGRESQL)
            return sa.create_engine(driver, future=True, pool_pre_ping=True, isolation_level="READ COMMITTED")
    except ImportError as error:
        raise ConfigError(f"ledger: {error}; for PostgreSQL: pip install '{_BRINGS_IT}'") from None
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(f"ledger: {type(error).__name__}: {error}; is the driver installed?") from None
    raise ConfigError(f"ledger: {url.get_backend_name()} is not supported; use SQLite or PostgreSQL")


def _sqlite(url: sa.URL, *, shared: bool) -> sa.Engine:
    path = url.database
    if not path or path == ":memory:":
        raise ConfigError("ledger: a ledger in memory forgets what was bought; give the path of a file")
    if shared:
        raise ConfigError("ledger: SQLite serves one machine, and this executor spans several; use PostgreSQL")
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"ledger: {file.parent} cannot be made: {error}") from None
    kind = filesystem_of(file.parent)
    if kind in _NETWORK:
        raise ConfigError(f"ledger: {file} is on a network file system ({kind}), where SQLite's locks do not hold; "
                          "put it on a local disk, or use PostgreSQL")  # fmt: skip
    connect_args = {"timeout": _LOCKED, "isolation_level": None, "check_same_thread": False}
    engine = sa.create_engine(url, future=True, connect_args=connect_args)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        _write_ahead(connection)
        for pragma in ("synchronous=FULL", "cache_size=-32000", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A transaction that begins by reading and goes on to write could not wait for another writer.
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE" if not connection.get_execution_options().get("reads") else "BEGIN"
        )

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Where another begins to write to a new file at this moment, SQLite refuses this at once, whatever the timeout."""
    until = time.monotonic() + _LOCKED
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def filesystem_of(path: Path, *, mounts: str | None = None) -> str:
    r"""The type of the file system that holds a path; empty where the system does not tell.

    Args:
        path: An existing folder.
        mounts: What `/proc/mounts` says.

    Examples:
        >>> filesystem_of(Path("/data/x"), mounts="a / ext4 rw\nb /data nfs4 rw")
        'nfs4'
    """
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text("utf-8", errors="replace")
        except OSError:
            return ""
    real = os.path.realpath(path)
    best, found = -1, ""
    for line in mounts.splitlines():
        _, _, rest = line.partition(" ")
        point, _, rest = rest.partition(" ")
        point = point.replace("\\040", " ")
        if len(point) > best and (real == point or real.startswith(point.rstrip("/") + "/")):
            best, found = len(point), rest.split(" ", 1)[0]
    return found


class _Ticket(Generic[T]):
    __slots__ = ("future", "work")

    def __init__(self, work: Callable[[sa.Connection], T]) -> None:
        self.work = work
        self.future: Future[T] = Future()


class Writer:
    """Writes of many threads, in as few commits as they come together in.

    A commit must reach the disk before money is spent, and a disk does some hundred of them a second. Whoever comes
    while another commits joins the next commit, so two hundred jobs in flight need a handful.

    Args:
        engine: The database.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._waiting: deque[_Ticket[Any]] = deque()
        self._turn = threading.Lock()

    def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Do a piece of work in a transaction; when this returns, it is on disk.

        Args:
            work: It may be called again if the transaction it was part of had to be given up.

        Raises:
            LedgerUnavailableError: The database went away, or takes nothing at the moment.
        """
        ticket = _Ticket(work)
        self._waiting.append(ticket)
        with self._turn:
            if not ticket.future.done():
                batch: list[_Ticket[Any]] = []
                while self._waiting and len(batch) < _MOST_AT_ONCE:
                    batch.append(self._waiting.popleft())
                if ticket not in batch:
                    batch.append(ticket)
                    self._waiting.remove(ticket)
                self._commit(batch)
        with answering(self._engine):
            return ticket.future.result()

    def _commit(self, batch: list[_Ticket[Any]]) -> None:
        try:
            with self._engine.begin() as connection:
                results = [ticket.work(connection) for ticket in batch]
        except Exception as error:  # noqa: BLE001  it goes to whoever waits for it
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for ticket in batch:  # one of them is to blame; alone, each gets its own answer
                self._commit([ticket])
        else:
            for ticket, result in zip(batch, results, strict=True):
                ticket.future.set_result(result)

    def offset(self) -> float:
        """Seconds by which the database's clock is ahead of this machine's; runners on several machines share it."""
        if self._engine.dialect.name != "postgresql":
            return 0.0
        with answering(self._engine), self._engine.connect() as connection:
            seconds = connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
        return float(seconds) - time.time()


def shown(url: sa.URL) -> str:
    """A database's address without password and options, which may hold one.

    Examples:
        >>> shown(make_url("postgresql://me:secret@db/shop?password=secret"))
        'postgresql://me:***@db/shop'
    """
    return url.set(query={}).render_as_string(hide_password=True)


@contextmanager
def answering(engine: sa.Engine) -> Iterator[None]:
    """Tell in one error of ours that the database is gone. What is wrong with a statement stays SQLAlchemy's to tell.

    Raises:
        LedgerUnavailableError: The database went away, or takes nothing at the moment.
    """
    try:
        yield
    except SQLAlchemyError as error:
        if not _is_away(error):
            raise
        raise LedgerUnavailableError(_said(error, engine.url), ledger=shown(engine.url)) from None


def _is_away(error: SQLAlchemyError) -> bool:
    if isinstance(error, OperationalError | InterfaceError | NoConnectionLeftError):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _said(error: SQLAlchemyError, url: sa.URL) -> str:
    """What the database said, on one line; a driver may quote what it was given."""
    said = " ".join(str(getattr(error, "orig", None) or error).split())
    secrets = [url.password, *(value for name, value in url.query.items() if "password" in name)]
    for secret in secrets:
        if isinstance(secret, str) and secret:
            said = said.replace(secret, "***")
    return said or type(error).__name__


def reachable(engine: sa.Engine) -> None:
    """Refuse a database that does not answer, in words.

    Raises:
        LedgerUnavailableError: The server does not answer, or refuses the login.
        ConfigError: The file cannot be opened, or is no database.
    """
    try:
        with engine.connect():
            pass
    except DatabaseError as error:
        if engine.dialect.name != "sqlite" and _is_away(error):
            trouble = f"it does not answer: {_said(error, engine.url)}"
            raise LedgerUnavailableError(trouble, ledger=shown(engine.url)) from None
        raise ConfigError(f"ledger: {shown(engine.url)} does not answer: "
                          f"{str(error.orig).strip()}") from None  # fmt: skip
