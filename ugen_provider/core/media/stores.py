# SPDX-License-Identifier: Apache-2.0
"""The destination: one mechanism, fsspec, for local folders, object stores and Airflow's `ObjectStoragePath`."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import fsspec

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.media.origins import HTTPAddress, OriginError, StoredObject, locate_named
from ugen_provider.core.private_files import FILE_MODE
from ugen_provider.core.text import get_logger

_log = get_logger("ugen_provider.media")
_BLOCK = 1 << 20
_PARTS = ".ugen-parts"
_ABANDONED = timedelta(days=1)
_OURS = re.compile(r"(\..+\.[0-9a-f]{12}|ugen-[0-9a-f]{32})\.part")


@runtime_checkable
class FilesystemPath(Protocol):
    """A path that knows its fsspec filesystem: `ObjectStoragePath`, `UPath`."""

    @property
    def fs(self) -> Any:
        """Filesystem of fsspec that holds the file."""
        ...

    @property
    def path(self) -> str:
        """Path of the file in its filesystem."""
        ...


Destination = str | os.PathLike[str] | FilesystemPath
"""A local folder, any fsspec URL, or a path object that knows its filesystem."""


@contextmanager
def _held(part: Path, *, mode: int) -> Iterator[None]:
    """Hold a partial file, so that other processes see that it is being written; it is gone afterwards."""
    begun = part.with_suffix(".begun")
    descriptor = os.open(begun, os.O_RDWR | os.O_CREAT, mode)
    _lock(descriptor)  # before it has the name by which it could be swept
    begun.replace(part)
    try:
        yield
    finally:
        part.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open file until it is closed, also by a crash; False if another process has it or locks fail."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _is_abandoned(part: Path) -> bool:
    """Return whether no process writes the file any more."""
    try:
        descriptor = os.open(part, os.O_RDWR)
    except OSError:
        return False
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)


def _age(modified: datetime) -> timedelta:
    aware = modified if modified.tzinfo else modified.replace(tzinfo=UTC)
    return datetime.now(UTC) - aware


class Store:
    """A folder, local or not, into which files are moved only when they are whole.

    Args:
        destination: See `Destination`.

    Raises:
        ConfigError: Nothing is known that could write there.
    """

    def __init__(self, destination: Destination) -> None:
        self.name = str(destination)
        try:
            if isinstance(destination, FilesystemPath):
                self._fs, root = destination.fs, destination.path
            else:
                origin = locate_named(destination)
                address = origin.url if isinstance(origin, HTTPAddress | StoredObject) else origin.path
                self._fs, root = fsspec.url_to_fs(address)
        except (OriginError, ValueError, ImportError) as error:
            raise ConfigError(f"destination {self.name!r} cannot be used: {error}") from error
        self._root = root.rstrip("/")
        protocol = self._fs.protocol
        self._local = "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def location(self, name: str) -> str:
        """Return the path or URL of a name for a person or another program."""
        return self._path(name) if self._local else str(self._fs.unstrip_protocol(self._path(name)))

    def read(self, name: str) -> bytes | None:
        """Return what is stored under a name, None if nothing is."""
        try:
            return bytes(self._fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def holds(self, name: str, *, size: int, sha256: str) -> bool:
        """Return whether exactly these bytes are stored under a name; they are read to know."""
        try:
            if self._fs.size(self._path(name)) != size:
                return False
            digest = hashlib.sha256()
            with self._fs.open(self._path(name), "rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except FileNotFoundError:
            return False
        return digest.hexdigest() == sha256

    @contextmanager
    def spool(self, name: str, *, mode: int = 0o666) -> Iterator[Path]:
        """A place for a file that is not whole yet: beside the final name where that is local, else on local disk.

        It is gone afterwards, unless `publish` moved it.
        """
        if self._local:
            folder, _, base = self._path(name).rpartition("/")
            Path(folder).mkdir(parents=True, exist_ok=True)
            part = Path(folder, f".{base}.{uuid.uuid4().hex[:12]}.part")
        else:
            part = Path(tempfile.gettempdir(), f"ugen-{uuid.uuid4().hex}.part")
        with _held(part, mode=mode if self._local else FILE_MODE):
            yield part

    def sweep(self, folder: str) -> None:
        """Remove what a process that was killed has left half-written; what others write is left alone.

        On local disk a lock shows that a process still writes. Elsewhere the store's date does: no file is there a day
        between its upload and its move.

        Args:
            folder: Below the destination; what was on its way to a store that is not local lies on local disk.
        """
        if not self._local:
            self._sweep_store()
        place = Path(self._path(folder)) if self._local else Path(tempfile.gettempdir())
        for part in place.glob(".*.part" if self._local else "ugen-*.part"):
            if _OURS.fullmatch(part.name) and _is_abandoned(part):
                part.unlink(missing_ok=True)

    def _sweep_store(self) -> None:
        try:
            for listed in self._fs.ls(self._path(_PARTS), detail=False):
                name = str(listed).rstrip("/")
                if _OURS.fullmatch(name.rpartition("/")[2]) and _age(self._fs.modified(name)) > _ABANDONED:
                    self._fs.rm_file(name)
        except Exception as error:  # noqa: BLE001  each store has errors of its own; tidying up keeps no result back
            _log.debug("what was left in %s is not swept: %s", _PARTS, type(error).__name__)

    def publish(self, part: Path, name: str) -> None:
        """Give a whole file its final name, replacing what had it."""
        target = self._path(name)
        if self._local:
            part.replace(target)
            return
        aside = self._path(f"{_PARTS}/ugen-{uuid.uuid4().hex}.part")
        for path in (aside, target):
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            self._fs.put_file(str(part), aside)
            self._fs.mv(aside, target)
        except BaseException:
            if self._fs.exists(aside):
                self._fs.rm_file(aside)
            raise

    def write(self, name: str, content: bytes) -> None:
        """Store a small file, whole or not at all; on a local disk only its owner may read it."""
        with self.spool(name, mode=FILE_MODE) as part:
            part.write_bytes(content)
            self.publish(part, name)
