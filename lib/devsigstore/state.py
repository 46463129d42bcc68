"""The state of the local Sigstore: keys, log entries and settings in `log.sqlite`, durable on commit.

One process at a time, by SQLite's own lock: two would sign two trees with one key.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BUSY_S = 0.5  # seconds to wait for a process that is ending
SCHEMA = """
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS entry (
    position INTEGER PRIMARY KEY, leaf BLOB NOT NULL UNIQUE, body BLOB NOT NULL, time INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS found (
    key TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (key, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attestation (hash TEXT PRIMARY KEY NOT NULL, payload BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One log entry: its position from 0, its canonical body, and when it was integrated (Unix seconds)."""

    position: int
    body: bytes
    time: int


class State:
    """One connection behind one lock: a laptop's log is small."""

    def __init__(self, path: Path) -> None:
        """Open or create, for the owner alone: there are keys in it. Raises OSError, sqlite3.Error."""
        self._lock = threading.RLock()
        with suppress(FileExistsError):  # never open and close one that exists: that would drop SQLite's locks on it
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=BUSY_S)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(SCHEMA)
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                msg = f"{path.name} is in use by another local Sigstore"
                raise OSError(msg) from error
            raise

    def close(self) -> None:
        """Nothing may be called afterwards."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _commit(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def setting(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The value kept under `name`, made and kept at the first call."""
        with self._commit() as db:
            row = db.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
            if row is None:
                row = (make(),)
                db.execute("INSERT INTO setting VALUES (?, ?)", (name, row[0]))
            return bytes(row[0])

    def keep(self, name: str, value: bytes) -> None:
        """Replace a setting."""
        with self._commit() as db:
            db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    def leaves(self) -> list[bytes]:
        """All leaf hashes in order."""
        with self._lock:
            return [bytes(leaf) for (leaf,) in self._db.execute("SELECT leaf FROM entry ORDER BY position")]

    def append(self, row: Row, leaf: bytes, attestation: tuple[str, bytes] | None) -> None:
        """Add an entry with its attestation, if any: one commit."""
        with self._commit() as db:
            db.execute("INSERT INTO entry VALUES (?, ?, ?, ?)", (row.position, leaf, row.body, row.time))
            if attestation is not None:
                db.execute("INSERT INTO attestation VALUES (?, ?) ON CONFLICT DO NOTHING", attestation)

    def index(self, position: int, keys: list[str]) -> None:
        """Make an entry searchable."""
        with self._commit() as db:
            db.executemany("INSERT INTO found VALUES (?, ?) ON CONFLICT DO NOTHING", [(key, position) for key in keys])

    def search(self, key: str) -> set[bytes]:
        """The leaf hashes under one index key."""
        with self._lock:
            found = self._db.execute("SELECT leaf FROM found JOIN entry USING (position) WHERE key = ?", (key,))
            return {bytes(leaf) for (leaf,) in found}

    def row(self, position: int) -> Row | None:
        """The entry at a position."""
        with self._lock:
            query = "SELECT position, body, time FROM entry WHERE position = ?"
            found = self._db.execute(query, (position,)).fetchone()
        return Row(*found) if found is not None else None

    def position(self, leaf: bytes) -> int | None:
        """Where a leaf is."""
        with self._lock:
            found = self._db.execute("SELECT position FROM entry WHERE leaf = ?", (leaf,)).fetchone()
        return int(found[0]) if found is not None else None

    def attestation(self, payload_hash: str) -> bytes | None:
        """The payload kept under its sha256."""
        with self._lock:
            found = self._db.execute("SELECT payload FROM attestation WHERE hash = ?", (payload_hash,)).fetchone()
        return bytes(found[0]) if found is not None else None
