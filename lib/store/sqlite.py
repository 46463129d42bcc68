"""The record store of a laptop: one SQLite file, shared by any number of processes on one host.

    claim(tag TEXT PRIMARY KEY, digest TEXT)      sighting(tag TEXT PRIMARY KEY, bundle BLOB)

WAL with synchronous=FULL: a commit is on the disk when it returns. Write-once also for who opens the file by hand:
triggers refuse update and delete. Beside `store.sqlite` lie SQLite's own `-wal` and `-shm`, and `-lock`, which is held
while a connection is opened.

The file may be deleted at any time, also alone and while it is in use: that is a lost store (`lib/recorder.py` lives
with one), never a damaged one. Not here: putting another file in its place while it is in use; network file systems,
whose locks SQLite cannot rely on; a fork while another thread is in a call.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from collections import deque
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lib.errors import DigestInvalid, StoreUnavailable
from lib.oci.digest import Digest
from lib.sighting.sighting import Bundle
from lib.store.store import BUNDLE_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lib.oci.reference import Tag

T = TypeVar("T")

BUSY_S = 5.0  # seconds to wait for another process's commit or opening, which take milliseconds
POLL_S = 0.005  # seconds between two tries to take the lock
ROW_MAX_BYTES = BUNDLE_MAX_BYTES + 4096  # with the tag: a planted giant is an error before it is in memory
APPLICATION_ID = 0x746C6F67  # "tlog": a foreign database is not written to
VERSION = 1
SCHEMA = f"""
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE claim (tag TEXT PRIMARY KEY NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sighting (tag TEXT PRIMARY KEY NOT NULL, bundle BLOB NOT NULL);
CREATE TRIGGER claim_once BEFORE UPDATE ON claim BEGIN SELECT RAISE(ABORT, 'write-once'); END;
CREATE TRIGGER claim_kept BEFORE DELETE ON claim BEGIN SELECT RAISE(ABORT, 'write-once'); END;
CREATE TRIGGER sighting_once BEFORE UPDATE ON sighting BEGIN SELECT RAISE(ABORT, 'write-once'); END;
CREATE TRIGGER sighting_kept BEFORE DELETE ON sighting BEGIN SELECT RAISE(ABORT, 'write-once'); END;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""
GET_CLAIM = "SELECT digest FROM claim WHERE tag = ?"
PUT_CLAIM = "INSERT INTO claim (tag, digest) VALUES (?, ?) ON CONFLICT (tag) DO NOTHING"
GET_SIGHTING = "SELECT bundle FROM sighting WHERE tag = ?"
PUT_SIGHTING = "INSERT INTO sighting (tag, bundle) VALUES (?, ?) ON CONFLICT (tag) DO NOTHING"


class SqliteStore:
    """A RecordStore in one file. Each call has a connection to itself; as many are kept as calls ran at once."""

    def __init__(self, path: Path, busy_s: float = BUSY_S) -> None:
        """Nothing is opened yet: a server forks after it has imported us. `busy_s` bounds every wait for a lock."""
        self._busy_s = busy_s
        self._path = Path(os.path.realpath(path))  # SQLite, too, puts its files beside the target of a link
        self._idle: deque[_Held] = deque()  # append and pop are atomic; the last one in is the warmest

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
        held: _Held | None = None
        try:
            held = self._take()
            result = work(held.db)
        except (sqlite3.Error, OSError) as error:
            if held is not None:
                held.close()
            reason = error.strerror if isinstance(error, OSError) else error  # an OSError's own text tells the path
            msg = f"the record store {self._path.name} cannot be used: {reason}"
            raise StoreUnavailable(msg) from error
        self._idle.append(held)
        return result

    def _take(self) -> _Held:
        """A connection for one call, to the file that is at the path now.

        A file that was deleted while open would swallow writes without a trace, and a connection that crossed a fork
        would damage it: both are noticed here, for the price of one stat. An inode that is held open is not used again.
        """
        origin = (os.getpid(), self._inode())
        while True:
            try:
                held = self._idle.pop()
            except IndexError:
                break
            if held.origin == origin:
                return held
            held.close()
        with _locked(Path(f"{self._path}-lock"), self._busy_s):
            if self._inode() is None:
                _create(self._path)
            return _Held((os.getpid(), self._inode()), _open(self._path, self._busy_s))

    def _inode(self) -> tuple[int, int] | None:
        """Which file is at the path; an empty one is none."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 - on the path of every pull; Path.stat costs three times as much
        except FileNotFoundError:
            return None
        return (found.st_dev, found.st_ino) if found.st_size else None


class _Held:
    """An open connection, and the process and file that it belongs to."""

    __slots__ = ("db", "origin")

    def __init__(self, origin: tuple[int, tuple[int, int] | None], db: sqlite3.Connection) -> None:
        self.origin = origin
        self.db = db

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self.db.close()

    def __del__(self) -> None:
        self.close()  # a connection holds itself in a cycle: without this its files stay open until the collector comes


@contextmanager
def _locked(path: Path, busy_s: float) -> Iterator[None]:
    """One opening at a time, here and in other processes.

    SQLite finds `-wal` and `-shm` by name. Where a new database met those of a deleted one that was still in use,
    processes died of SIGBUS and the new one was malformed; so nobody creates while somebody else is between the file
    and these two.
    """
    until = time.monotonic() + busy_s
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:  # its holder is frozen: better to say so than to freeze with it
                    raise TimeoutError(errno.ETIMEDOUT, f"another process keeps {path.name} locked") from None
                time.sleep(POLL_S)
        yield
    finally:
        os.close(descriptor)


def _create(path: Path) -> None:
    """Make an empty store under another name, and give it its own when it is complete. Only under the lock."""
    new = Path(f"{path}-new")
    for leftover in ("-wal", "-shm", "-new", "-new-wal", "-new-shm"):
        Path(f"{path}{leftover}").unlink(missing_ok=True)
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        db.executescript(SCHEMA)
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name must be as durable as what is committed under it
    finally:
        os.close(folder)


def _open(path: Path, busy_s: float) -> sqlite3.Connection:
    """A connection to a store that exists. Raises sqlite3.DatabaseError for anybody else's database."""
    uri = f"{path.absolute().as_uri()}?mode=rw"  # never creates
    db = sqlite3.connect(
        uri,
        uri=True,
        timeout=busy_s,
        isolation_level=None,
        check_same_thread=False,  # by one thread at a time: see SqliteStore._take
    )
    try:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, ROW_MAX_BYTES)
        _check_ours(db)
        db.execute("PRAGMA synchronous = FULL")
    except BaseException:
        db.close()
        raise
    return db


def _check_ours(db: sqlite3.Connection) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        msg = "it is another program's database"
        raise sqlite3.DatabaseError(msg)
    if version != VERSION:
        msg = f"it was written by another version (schema {version}, ours is {VERSION})"
        raise sqlite3.DatabaseError(msg)


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
