"""The record store of a laptop: one SQLite file, shared by any number of processes on one host.

    claim(tag TEXT PRIMARY KEY, digest TEXT)      sighting(tag TEXT PRIMARY KEY, bundle BLOB)

WAL with synchronous=FULL: a commit is on the disk when it returns. Write-once also for who opens the file by hand: triggers
refuse update and delete. Not for network file systems, whose locks SQLite cannot rely on.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from lib.errors import DigestInvalid, StoreUnavailable
from lib.oci.digest import Digest
from lib.sighting.sighting import Bundle
from lib.store.store import BUNDLE_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lib.oci.reference import Tag

T = TypeVar("T")

BUSY_S = 5.0  # seconds to wait for another process's commit, which takes milliseconds
APPLICATION_ID = 0x746C6F67  # "tlog": a foreign database is not written to
VERSION = 1
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS claim (tag TEXT PRIMARY KEY NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sighting (tag TEXT PRIMARY KEY NOT NULL, bundle BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS claim_once BEFORE UPDATE ON claim BEGIN SELECT RAISE(ABORT, 'write-once'); END;
CREATE TRIGGER IF NOT EXISTS claim_kept BEFORE DELETE ON claim BEGIN SELECT RAISE(ABORT, 'write-once'); END;
CREATE TRIGGER IF NOT EXISTS sighting_once BEFORE UPDATE ON sighting BEGIN SELECT RAISE(ABORT, 'write-once'); END;
CREATE TRIGGER IF NOT EXISTS sighting_kept BEFORE DELETE ON sighting BEGIN SELECT RAISE(ABORT, 'write-once'); END;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""
GET_CLAIM = "SELECT digest FROM claim WHERE tag = ?"
PUT_CLAIM = "INSERT INTO claim (tag, digest) VALUES (?, ?) ON CONFLICT (tag) DO NOTHING"
GET_SIGHTING = "SELECT bundle FROM sighting WHERE tag = ?"
PUT_SIGHTING = "INSERT INTO sighting (tag, bundle) VALUES (?, ?) ON CONFLICT (tag) DO NOTHING"


class SqliteStore:
    """A RecordStore in one file. Each thread has a connection of its own, opened at its first call."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened yet: a server forks after it has imported us."""
        self._path = path
        self._local = threading.local()

    def sighting(self, tag: Tag) -> Bundle | None:
        """See RecordStore."""
        return self._run(lambda db: _bundle(db.execute(GET_SIGHTING, (str(tag),)).fetchone()))

    def put_sighting(self, tag: Tag, bundle: Bundle) -> Bundle:
        """See RecordStore."""
        if len(bundle) > BUNDLE_MAX_BYTES:
            msg = f"a bundle of {len(bundle)} bytes is too large to store"
            raise StoreUnavailable(msg)

        def put(db: sqlite3.Connection) -> Bundle:
            db.execute(PUT_SIGHTING, (str(tag), bytes(bundle)))
            return _present(_bundle(db.execute(GET_SIGHTING, (str(tag),)).fetchone()))

        return self._run(put)

    def claim(self, tag: Tag) -> Digest | None:
        """See RecordStore."""
        return self._run(lambda db: _digest(db.execute(GET_CLAIM, (str(tag),)).fetchone()))

    def put_claim(self, tag: Tag, digest: Digest) -> tuple[Digest, bool]:
        """See RecordStore."""

        def put(db: sqlite3.Connection) -> tuple[Digest, bool]:
            created = db.execute(PUT_CLAIM, (str(tag), str(digest))).rowcount == 1
            return _present(_digest(db.execute(GET_CLAIM, (str(tag),)).fetchone())), created

        return self._run(put)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._connection())
        except (sqlite3.Error, OSError) as error:
            self._close()
            msg = f"the record store {self._path} cannot be used: {error}"
            raise StoreUnavailable(msg) from error

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection to the file that is at the path now.

        A file that was deleted or replaced while open would swallow writes without a trace, and a connection that crossed a
        fork would corrupt it: both are noticed here, for the price of one stat.
        """
        key = (os.getpid(), self._inode())
        if getattr(self._local, "key", None) == key and key[1] is not None:
            connection: sqlite3.Connection = self._local.connection
            return connection
        self._close()
        connection = self._open()
        self._local.connection = connection
        self._local.key = (os.getpid(), self._inode())
        return connection

    def _inode(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - on the path of every pull; Path.stat costs three times as much
        except FileNotFoundError:
            return None
        return (found.st_dev, found.st_ino)

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        try:
            if not _is_ours(db):
                _write_ahead(db)
                db.executescript(SCHEMA)
            db.execute("PRAGMA synchronous = FULL")
        except BaseException:
            db.close()
            raise
        return db

    def _close(self) -> None:
        connection = getattr(self._local, "connection", None)
        self._local.key = None
        self._local.connection = None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _is_ours(db: sqlite3.Connection) -> bool:
    """Whether the schema is there; False for an empty file. Raises sqlite3.DatabaseError for anybody else's."""
    db.execute("BEGIN")  # one snapshot: another process may be creating the schema right now
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    db.execute("COMMIT")
    if tables and application != APPLICATION_ID:
        msg = "it is another program's database"
        raise sqlite3.DatabaseError(msg)
    if version > VERSION:
        msg = f"it was written by a newer version (schema {version})"
        raise sqlite3.DatabaseError(msg)
    return bool(tables)


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch a new file to WAL. SQLite does not wait for a lock here by itself."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _present(value: T | None) -> T:
    if value is None:
        msg = "a row that was just written is not there"
        raise sqlite3.DatabaseError(msg)
    return value


def _bundle(row: tuple[object] | None) -> Bundle | None:
    if row is None:
        return None
    if not isinstance(row[0], bytes):
        msg = "a stored bundle is not a BLOB"
        raise sqlite3.DatabaseError(msg)
    return Bundle(row[0])


def _digest(row: tuple[object] | None) -> Digest | None:
    if row is None:
        return None
    try:
        return Digest.parse(str(row[0]))
    except DigestInvalid as error:
        msg = "a stored claim is not a digest"
        raise sqlite3.DatabaseError(msg) from error
