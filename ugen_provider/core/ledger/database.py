# SPDX-License-Identifier: Apache-2.0
"""The database behind a ledger: how it is opened, which disks are refused, and how writes share commits."""

from __future__ import annotations

import itertools
import os
import random
import shlex
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
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

from ugen_provider.core.api.config import Secret
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.ledger.errors import LedgerUnavailableError
from ugen_provider.core.private_files import make_private_file, make_private_folder

T = TypeVar("T")
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs",
                      "fuse.gcsfuse", "fuse.s3fs", "fuse.glusterfs", "beegfs", "gpfs"})  # fmt: skip
_EPHEMERAL = frozenset({"overlay", "overlayfs", "tmpfs", "ramfs", "aufs"})
_ONE_MACHINE = "ledger: SQLite serves one machine, and this executor spans several; use PostgreSQL"
_MOST_AT_ONCE = 256
_PASSING = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the database undid the transaction, and the same work succeeds later."""

_TRIES = 8
_BACKOFF = 0.01
_LOCKED = 60.0
"""Seconds for which a SQLite file that another writes to is waited for."""

_NETWORK_LIMITS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Without them a call waits for a quarter of an hour on a connection that a firewall dropped without a word, and with
it every write of the process. Each may be set otherwise in the ledger's URL."""

# Airflow 3.0 holds SQLAlchemy below 2.0: there `future=True` asks for the same engine, and psycopg 3 has no dialect.
_POSTGRESQL, _BRINGS_IT = (
    ("postgresql+psycopg2", "psycopg2-binary")
    if sa.__version__.startswith("1.")
    else ("postgresql+psycopg", "ugen-provider[postgres]")
)


def with_driver(url: sa.URL) -> sa.URL:
    """Return a database's URL with the driver that is installed for it, where it names none.

    Examples:
        >>> with_driver(make_url("sqlite:///shop.db")).drivername
        'sqlite'
    """
    return url.set(drivername=_POSTGRESQL) if url.drivername in {"postgresql", "postgres"} else url


def open_engine(address: Secret, *, shared: bool = False) -> sa.Engine:
    """Open the database of a ledger that exists; arguments and errors as for `engine_for`."""

    def opened(clear: str) -> sa.Engine:
        require_existing(clear, shared=shared)
        engine = engine_for(clear, shared=shared)
        reachable(engine)
        return engine

    return with_revealed(address, opened)


def engine_for(address: str, *, shared: bool = False) -> sa.Engine:
    """Open a database and return its engine.

    Args:
        address: A SQLAlchemy URL, or the path of a SQLite file.
        shared: Whether runners on several machines use it, as under an Airflow executor that spans machines.

    Raises:
        ConfigError: It cannot be opened, or would not be safe: SQLite locks nothing over a network.
    """
    url = parsed(address)
    try:
        if url.get_backend_name() == "sqlite":
            return _sqlite(url, shared=shared)
        if url.get_backend_name() == "postgresql":
            driver = with_driver(url)
            connect_args: dict[str, Any] = {
                name: value for name, value in _NETWORK_LIMITS.items() if name not in url.query
            }
            if driver.get_driver_name() == "psycopg" and "prepare_threshold" not in url.query:
                # A pooler that gives each transaction another connection (PgBouncer) knows no prepared statements of
                # the last one; SQLAlchemy's reset of each connection discards them anyway.
                connect_args["prepare_threshold"] = None
            return sa.create_engine(
                driver, future=True, pool_pre_ping=True, isolation_level="READ COMMITTED", connect_args=connect_args
            )
    except ImportError as error:
        raise ConfigError(f"ledger: {error}; for PostgreSQL: pip install '{_BRINGS_IT}'") from None
    except NoSuchModuleError as error:
        raise ConfigError(f"ledger: {error}; is the driver installed?") from None
    raise ConfigError(f"ledger: {url.get_backend_name()} is not supported; use SQLite or PostgreSQL")


def parsed(address: str) -> sa.URL:
    """Return the URL of an address, or of the path of a SQLite file.

    Raises:
        ConfigError: It cannot be read. The message does not quote it, since it may hold a password.
    """
    if "://" not in address:  # no text of a URL: a `?` or `%` in a path would name another file
        return URL.create("sqlite", database=str(Path(address).expanduser()))
    try:
        return make_url(address)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "ledger: the address cannot be read; write postgresql://USER:PASSWORD@HOST:PORT/NAME, with `%` escapes "
            "for special characters"
        ) from None


def _sqlite(url: sa.URL, *, shared: bool) -> sa.Engine:
    path = url.database
    if not path or path == ":memory:":
        raise ConfigError("ledger: a ledger in memory forgets all purchases; give the path of a file")
    if shared:
        raise ConfigError(_ONE_MACHINE)
    file = Path(path)
    try:
        make_private_folder(file.parent)
    except OSError as error:
        raise ConfigError(f"ledger: {file.parent} cannot be made: {error}") from None
    kind = filesystem_of(file.parent)
    if kind in _NETWORK:
        raise ConfigError(f"ledger: {file} is on a network file system ({kind}), where SQLite's locks do not hold; "
                          "put it on a local disk, or use PostgreSQL")  # fmt: skip
    if not file.exists() and not path.startswith("file:"):
        try:
            make_private_file(file)
        except OSError as error:
            raise ConfigError(f"ledger: {file} cannot be made: {error}") from None
    connect_args = {"timeout": _LOCKED, "isolation_level": None, "check_same_thread": False}
    try:
        engine = sa.create_engine(url, future=True, connect_args=connect_args)
    except ArgumentError:  # its text has the whole URL
        raise ConfigError("ledger: a SQLite address has no login and no host; write sqlite:///shop.db") from None
    opened = _identity(path)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _entry: Any) -> None:
        _write_ahead(connection)
        for pragma in ("synchronous=FULL", "cache_size=-32000", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("reads"):
            connection.exec_driver_sql("BEGIN")
            return
        if opened != _identity(path):
            # SQLite would write on into a file that no other process can find, and the next one would buy again.
            said = "the file was deleted or replaced while it was open; restore it, then start the process again"
            raise LedgerUnavailableError(said, ledger=shown(url))
        # A transaction that begins by reading and then writes could not wait for another writer.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _identity(path: str) -> tuple[int, int] | None:
    """Return which file is at a path; None where there is none, or the path is a URI of SQLite."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def require_existing(address: str, *, shared: bool = False) -> None:
    """Refuse to create a ledger by opening it: a mistyped path would be an empty ledger that buys everything again.

    Args:
        address: A SQLAlchemy URL, or the path of a SQLite file.
        shared: Whether runners on several machines use it.

    Raises:
        ConfigError: There is no ledger at this address; the message has the command that creates one.
    """
    file = sqlite_file(address)
    if file is not None and shared:
        raise ConfigError(_ONE_MACHINE)
    exists = _has_ledger(address) if file is None else _is_ledger_file(file)
    if not exists:
        place = shown(parsed(address)) if "://" in address else address
        raise ConfigError(
            f"ledger: there is no ledger at {place}. Create it with: ugen ledger init {shlex.quote(place)}"
        )


def _has_ledger(address: str) -> bool:
    engine = engine_for(address)
    try:
        reachable(engine)
        return sa.inspect(engine).has_table("ugen_meta")
    finally:
        engine.dispose()


def _is_ledger_file(file: Path) -> bool:
    tables = _tables_of(file)
    return tables is None or "ugen_meta" in tables


def _tables_of(file: Path) -> frozenset[str] | None:
    """Return the tables of a SQLite file, which is only read; None if it cannot be read as one."""
    if not file.is_file() or file.stat().st_size == 0:
        return frozenset()
    address = f"file:{quote(str(file))}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_LOCKED)) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.Error:
        return None  # the error on opening it says what is wrong
    return frozenset(name for (name,) in rows)


def refuse_foreign_file(address: str) -> None:
    """Refuse to add a ledger's tables to the SQLite file of another application.

    Raises:
        ConfigError: The file has tables, and none of a ledger.
    """
    file = sqlite_file(address)
    tables = (file and _tables_of(file)) or frozenset()
    if tables and not any(name.startswith("ugen_") for name in tables):
        raise ConfigError(f"ledger: {file} is the database of another application; choose another path")


def refuse_ephemeral(engine: sa.Engine, *, allowed: bool) -> None:
    """Refuse a SQLite file on a disk that a container loses; arguments as for `refuse_ephemeral_path`."""
    if engine.dialect.name == "sqlite" and engine.url.database:
        refuse_ephemeral_path(engine.url.database, allowed=allowed)


def refuse_ephemeral_path(address: str, *, allowed: bool) -> None:
    """Refuse a SQLite file on a disk that a container loses with all records of purchases.

    Args:
        address: A SQLAlchemy URL, or the path of a SQLite file.
        allowed: Whether the user accepts the loss.

    Raises:
        ConfigError: The file is on an overlay or temporary file system.
    """
    file = sqlite_file(address)
    if file is None or allowed:
        return
    kind = ephemeral_filesystem_of(file)
    if kind:
        raise ConfigError(
            f"ledger: {file} is on a temporary disk ({kind}), which is lost with the container, and every record of a "
            f"purchase with it. Put the ledger on a mounted volume or in PostgreSQL, or accept the loss with: "
            f"ugen ledger init --allow-ephemeral {shlex.quote(str(file))}"
        )


def ephemeral_filesystem_of(file: Path) -> str:
    """Return the type of the file system that holds a path if a container loses it; '' otherwise."""
    folder = next((parent for parent in file.parents if parent.exists()), Path("/"))
    kind = filesystem_of(folder)
    return kind if kind in _EPHEMERAL else ""


def sqlite_file(address: str) -> Path | None:
    """Return the file of a SQLite address; None for any other database.

    Examples:
        >>> sqlite_file("sqlite:////data/shop.db"), sqlite_file("postgresql://db/shop")
        (PosixPath('/data/shop.db'), None)
    """
    if "://" not in address:
        return None if address == ":memory:" else Path(address).expanduser().absolute()
    url = parsed(address)
    is_file = url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:"
    return Path(url.database).absolute() if is_file and url.database else None


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Retry: while another begins to write to a new file, SQLite refuses this at once, before any timeout."""
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
    r"""Return the type of the file system that holds a path; empty where the system does not say.

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

    A commit must reach the disk before money is spent, and a disk does some hundred of them a second. A caller that
    comes while another commits joins the next commit, so two hundred jobs in flight need a handful.

    Args:
        engine: The database.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._waiting: deque[_Ticket[Any]] = deque()
        self._turn = threading.Lock()

    def run_alone(self, work: Callable[[sa.Connection], T]) -> T:
        """Do a piece of work in a transaction of its own; when this returns, it is on disk.

        For work that locks rows which other processes want too, such as a claim: together with other work in one
        transaction, two processes could each hold a row that the other one waits for.

        Args:
            work: It is called again if the database gave its transaction up.

        Raises:
            LedgerUnavailableError: The database went away, or takes nothing at the moment.
        """
        with answering(self._engine):
            result: T = self._transaction([work])[0]
        return result

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
                    with suppress(ValueError):  # a thread that was interrupted had taken it
                        self._waiting.remove(ticket)
                self._commit(batch)
        with answering(self._engine):
            return ticket.future.result()

    def _commit(self, batch: list[_Ticket[Any]]) -> None:
        try:
            results = self._transaction([ticket.work for ticket in batch])
        except Exception as error:  # noqa: BLE001  it goes to the callers that wait for it
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for ticket in batch:  # one of them is to blame; alone, each gets its own answer
                self._commit([ticket])
        except BaseException:  # such as Ctrl-C in this thread; the others must neither wait nor believe that it is done
            said = "the process was interrupted while it wrote"
            for ticket in batch:
                ticket.future.set_exception(LedgerUnavailableError(said, ledger=shown(self._engine.url)))
            raise
        else:
            for ticket, result in zip(batch, results, strict=True):
                ticket.future.set_result(result)

    def _transaction(self, works: list[Callable[[sa.Connection], Any]]) -> list[Any]:
        """Do work in one transaction, again where the database gave it up for another one (40001, 40P01)."""
        for number in itertools.count(1):
            try:
                with self._engine.begin() as connection:
                    return [work(connection) for work in works]
            except DBAPIError as error:
                if (
                    number == _TRIES
                    or getattr(error.orig, "sqlstate", getattr(error.orig, "pgcode", "")) not in _PASSING
                ):
                    raise
            time.sleep(random.uniform(0.0, _BACKOFF * 2**number))  # noqa: S311  spreads the contenders
        raise AssertionError("not reached")

    def offset(self) -> float:
        """Seconds by which the database's clock is ahead of this machine's; runners on several machines share it."""
        if self._engine.dialect.name != "postgresql":
            return 0.0
        with answering(self._engine), self._engine.connect() as connection:
            seconds = connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
        return float(seconds) - time.time()


def shown(url: sa.URL) -> str:
    """Return a database's address without password and options, which may hold one.

    Examples:
        >>> shown(make_url("postgresql://me:secret@db/shop?password=secret"))
        'postgresql://me:***@db/shop'
    """
    return url.set(query={}).render_as_string(hide_password=True)


def with_revealed(address: Secret, work: Callable[[str], T]) -> T:
    """Do work with an address that may hold a password: no frame of an error shows it to a reporter of errors.

    Raises:
        Exception: The error of the work, without the frames below this one.
    """
    try:
        return work(address.reveal())
    except Exception as error:  # noqa: BLE001  it is raised again
        failure = error
    _forget_password(failure)
    raise failure


def _forget_password(error: BaseException) -> None:
    """Remove the frames and the causes of an error: a driver keeps the password in both."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    if isinstance(error, DBAPIError):
        error.orig = None


@contextmanager
def answering(engine: sa.Engine) -> Iterator[None]:
    """Report in one error of ours that the database is gone. SQLAlchemy itself reports errors of a statement.

    Raises:
        LedgerUnavailableError: The database went away, or takes nothing at the moment.
    """
    try:
        yield
    except SQLAlchemyError as error:
        if not _is_away(error):
            raise
        said = _said(error, engine.url)
        _forget_password(error)
        raise LedgerUnavailableError(said, ledger=shown(engine.url)) from None


def _is_away(error: SQLAlchemyError) -> bool:
    if isinstance(error, OperationalError | InterfaceError | NoConnectionLeftError):
        return True
    if type(error) is DatabaseError:  # of SQLite: the file is damaged, or is no database any more
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _said(error: SQLAlchemyError, url: sa.URL) -> str:
    """Return what the database said, on one line; a driver may quote what it was given."""
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
