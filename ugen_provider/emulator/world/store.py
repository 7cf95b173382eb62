# SPDX-License-Identifier: Apache-2.0
"""Everything that has to survive a restart: records by kind and id in one SQLite file."""

import base64
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, id TEXT NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL, UNIQUE (kind, id)
);
CREATE TABLE IF NOT EXISTS blobs (id TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
"""
_PUT = """
INSERT INTO records VALUES (?, ?, ?, ?)
ON CONFLICT (kind, id) DO UPDATE SET number = excluded.number, data = excluded.data
"""
FORMAT = 1


class UnusableFileError(ValueError):
    """The file cannot be used: it is in use, is no database, or another version wrote it."""


class RecordStore:
    """Records, written at once and committed together at the end of each request.

    A commit is in the file when `commit` returns, so that killing the process loses nothing that was answered.

    Args:
        path: SQLite file, or `:memory:`.

    Raises:
        UnusableFileError: The file is in use, is no database, or belongs to a version whose records have another form.
    """

    def __init__(self, path: str | Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=0.5)
        try:
            found = self._prepare()
        except sqlite3.DatabaseError as problem:
            self._db.close()
            taken = isinstance(problem, sqlite3.OperationalError)
            why = "is in use by another emulator, or cannot be written" if taken else "is no database"
            raise UnusableFileError(f"{path} {why}: name another file with --db") from None
        if found not in (0, FORMAT):
            self._db.close()
            raise UnusableFileError(f"{path} was written by another version of the emulator: name a new file with --db")
        self._db.execute(f"PRAGMA user_version={FORMAT}")
        self._open = False

    def _prepare(self) -> int:
        # One emulator a file: two would each sell credits that the other does not see.
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        found: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        self._db.executescript(_SCHEMA)
        return found

    def put(self, kind: str, record_id: str, number: int, data: Any) -> None:
        """Write a record in place of the one with its kind and id."""
        self._begin()
        self._db.execute(_PUT, (kind, record_id, number, to_json(data)))

    def remove(self, kind: str, record_id: str) -> None:
        """Delete a record by its kind and id."""
        self._begin()
        self._db.execute("DELETE FROM records WHERE kind=? AND id=?", (kind, record_id))

    def load(self, kind: str) -> Iterator[tuple[str, int, Any]]:
        """Yield the records of a kind as id, number and data, by number."""
        rows = self._db.execute("SELECT id, number, data FROM records WHERE kind=? ORDER BY number", (kind,))
        for record_id, number, data in rows:
            yield record_id, number, from_json(data)

    def put_blob(self, blob_id: str, content: bytes) -> None:
        """Write the content of an upload."""
        self._begin()
        self._db.execute("INSERT OR REPLACE INTO blobs VALUES (?, ?)", (blob_id, content))

    def blob(self, blob_id: str) -> bytes | None:
        """Read the content of an upload."""
        row = self._db.execute("SELECT content FROM blobs WHERE id=?", (blob_id,)).fetchone()
        return None if row is None else row[0]

    @property
    def dirty(self) -> bool:
        """Whether something is not committed yet."""
        return self._open

    def commit(self) -> None:
        """Make everything written so far lasting."""
        if self._open:
            self._db.execute("COMMIT")
            self._open = False

    def clear(self) -> None:
        """Delete all records of the emulator."""
        self._begin()
        self._db.execute("DELETE FROM records")
        self._db.execute("DELETE FROM blobs")
        self.commit()

    def dump(self) -> dict[str, Any]:
        """Return every record and blob."""
        rows = self._db.execute("SELECT kind, id, number, data FROM records ORDER BY kind, number, id")
        blobs = self._db.execute("SELECT id, content FROM blobs ORDER BY id")
        return {
            "records": [[kind, record_id, number, from_json(data)] for kind, record_id, number, data in rows],
            "blobs": [[blob_id, base64.b64encode(content).decode()] for blob_id, content in blobs],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put what was dumped in the place of everything."""
        records = [(str(kind), str(rid), int(number), data) for kind, rid, number, data in state["records"]]
        blobs = [(str(blob_id), base64.b64decode(content)) for blob_id, content in state["blobs"]]
        self.clear()
        for kind, record_id, number, data in records:
            self.put(kind, record_id, number, data)
        for blob_id, content in blobs:
            self.put_blob(blob_id, content)
        self.commit()

    def close(self) -> None:
        """Commit and let go of the file."""
        self.commit()
        self._db.close()

    def _begin(self) -> None:
        if not self._open:
            self._db.execute("BEGIN")
            self._open = True
