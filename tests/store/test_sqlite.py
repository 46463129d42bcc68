"""SQLite keeps the store's contract, and says clearly when its file is lost, damaged or somebody else's."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lib.errors import StoreUnavailable
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.sighting.sighting import Bundle
from lib.store.sqlite import SqliteStore
from lib.store.store import BUNDLE_MAX_BYTES
from tests.store.contract import FIRST, ONE, SECOND, SPAWN, TAG, TWO, WAIT_S, RecordStoreContract

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.synchronize import Event

    from lib.store.store import RecordStore
    from tests.store.contract import OpenStore

SIDES = ("", "-wal", "-shm", "-lock")
GET_MAX_S = 60e-6  # a warm pull does one get


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


class TestSqlite(RecordStoreContract):
    @pytest.fixture
    def open_store(self, path: Path) -> OpenStore:
        return partial(SqliteStore, path)

    @pytest.fixture
    def failing_store(self, tmp_path: Path) -> RecordStore:
        return SqliteStore(tmp_path / "no such folder" / "store.sqlite")


def _tamper(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement, values)


def test_a_commit_is_synchronous(path: Path) -> None:
    store = SqliteStore(path)
    store.claim(TAG)
    held = store._take()  # noqa: SLF001 - durability has no other outside
    assert held.db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert held.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_get_costs_next_to_nothing(path: Path) -> None:
    store = SqliteStore(path)
    store.put_sighting(TAG, Bundle(b"x" * 6000))
    rounds = 200

    def once() -> float:
        started = time.perf_counter()
        for _ in range(rounds):
            store.sighting(TAG)
        return (time.perf_counter() - started) / rounds

    assert min(once() for _ in range(10)) < GET_MAX_S  # the best of several: others use this machine too


@pytest.mark.parametrize("gone", [("",), ("", "-wal"), ("", "-wal", "-shm"), SIDES], ids="store.sqlite{0[0]}, ".format)
def test_a_store_deleted_while_open_is_lost_and_not_written_to_in_secret(path: Path, gone: tuple[str, ...]) -> None:
    store, other = SqliteStore(path), SqliteStore(path)
    store.put_sighting(TAG, FIRST)
    assert other.sighting(TAG) == FIRST
    for side in gone:
        path.with_name(path.name + side).unlink()
    assert store.sighting(TAG) is None
    assert store.put_claim(TAG, TWO) == (TWO, True)
    assert other.put_claim(TAG, ONE) == (TWO, False)
    assert SqliteStore(path).claim(TAG) == TWO


def test_an_empty_file_is_a_new_store(path: Path) -> None:
    path.touch()
    assert SqliteStore(path).put_claim(TAG, ONE) == (ONE, True)


def test_an_interrupted_creation_is_started_afresh(path: Path) -> None:
    for side in ("-new", "-new-wal", "-new-shm", "-wal", "-shm"):
        path.with_name(path.name + side).write_bytes(b"left behind by a process that was killed")
    assert SqliteStore(path).put_claim(TAG, ONE) == (ONE, True)
    assert not path.with_name(path.name + "-new").exists()


def _hammer(path: Path, stop: Event, name: str) -> None:
    store, failed = SqliteStore(path), threading.Event()

    def run(thread: int) -> None:
        number = in_a_row = 0
        while not stop.is_set():
            number += 1
            tag = Tag.parse(f"race/{name}:{thread}-{number}")
            try:
                store.put_claim(tag, ONE)
            except StoreUnavailable:  # deleted in the very moment of opening
                in_a_row += 1
            else:
                in_a_row = 0
            if in_a_row > 1:
                failed.set()

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(1 if failed.is_set() else 0)


def test_a_file_deleted_again_and_again_under_load_is_lost_but_never_damaged(path: Path) -> None:
    """Only the main file goes: SQLite alone would give the next one the old `-shm`, and kill who had it mapped."""
    stop = SPAWN.Event()
    processes = [SPAWN.Process(target=_hammer, args=(path, stop, str(number))) for number in range(2)]
    for process in processes:
        process.start()
    until, deleted = time.monotonic() + WAIT_S, 0
    while deleted < 15 and time.monotonic() < until:
        time.sleep(0.05)
        if path.exists():
            path.unlink()
            deleted += 1
    stop.set()
    for process in processes:
        process.join(WAIT_S)
    assert deleted == 15
    assert [process.exitcode for process in processes] == [0, 0]
    assert SqliteStore(path).put_claim(TAG, ONE) == (ONE, True)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_many_processes_open_a_new_store_at_once(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from lib.store.sqlite import SqliteStore\n"
        "from lib.oci.digest import Digest; from lib.oci.reference import Tag\n"
        "print(SqliteStore(Path(sys.argv[1])).put_claim(Tag.parse('alpine:3.16.0'), Digest.of(b'one'))[1])"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    answers = sorted(process.communicate(timeout=WAIT_S)[0].strip() for process in processes)
    assert answers == ["False"] * 5 + ["True"]


def test_a_frozen_process_in_the_middle_of_opening_is_unavailable_and_not_waited_for(path: Path) -> None:
    SqliteStore(path).put_claim(TAG, ONE)
    warm = SqliteStore(path)
    warm.claim(TAG)
    with path.with_name(path.name + "-lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match=r"keeps store\.sqlite-lock locked"):
            SqliteStore(path, busy_s=0.2).claim(TAG)
        assert warm.claim(TAG) == ONE


def test_a_frozen_process_in_the_middle_of_a_commit_is_unavailable_and_not_waited_for(path: Path) -> None:
    store = SqliteStore(path, busy_s=0.2)
    store.put_claim(TAG, ONE)
    with closing(sqlite3.connect(path, isolation_level=None)) as frozen:
        frozen.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            store.put_sighting(TAG, FIRST)
        assert store.claim(TAG) == ONE
    assert store.put_sighting(TAG, FIRST) == FIRST


@pytest.mark.parametrize(
    "statement",
    ["UPDATE sighting SET bundle = x'00'", "DELETE FROM sighting", "UPDATE claim SET digest = ''", "DELETE FROM claim"],
)
def test_a_record_cannot_be_updated_or_deleted(path: Path, statement: str) -> None:
    store = SqliteStore(path)
    store.put_sighting(TAG, FIRST)
    store.put_claim(TAG, ONE)
    with pytest.raises(sqlite3.IntegrityError, match="write-once"):
        _tamper(path, statement)
    assert (store.sighting(TAG), store.claim(TAG)) == (FIRST, ONE)


@pytest.mark.parametrize(
    "planted", ["sha256:short", "", "md5:" + "0" * 32, str(ONE).upper(), str(ONE) + "\n", b"\xff", 7]
)
def test_a_claim_that_is_no_digest_is_never_absence(path: Path, planted: object) -> None:
    store = SqliteStore(path)
    store.claim(TAG)
    _tamper(path, "INSERT INTO claim VALUES (?, ?)", str(TAG), planted)
    with pytest.raises(StoreUnavailable, match="not a digest"):
        store.claim(TAG)
    with pytest.raises(StoreUnavailable, match="not a digest"):
        store.put_claim(TAG, TWO)


@pytest.mark.parametrize(
    "planted", [7, "text", b"x" * (BUNDLE_MAX_BYTES + 5000)], ids=lambda planted: type(planted).__name__
)
def test_a_bundle_that_is_none_or_a_giant_is_never_absence(path: Path, planted: object) -> None:
    store = SqliteStore(path)
    store.claim(TAG)
    _tamper(path, "INSERT INTO sighting VALUES (?, ?)", str(TAG), planted)
    with pytest.raises(StoreUnavailable):
        store.sighting(TAG)
    with pytest.raises(StoreUnavailable):
        store.put_sighting(TAG, FIRST)


def _no_database(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be read as one" * 40)


def _cut(path: Path) -> None:
    SqliteStore(path).put_claim(TAG, ONE)
    _tamper(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def _another_programs(path: Path) -> None:
    _tamper(path, "CREATE TABLE claim (tag, digest)")


def _another_programs_without_tables(path: Path) -> None:
    _tamper(path, "PRAGMA user_version = 1")


def _newer(path: Path) -> None:
    SqliteStore(path).claim(TAG)
    _tamper(path, "PRAGMA user_version = 2")


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "so that no file system calls it empty").touch()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_no_database, "not a database"),
        (_cut, "malformed"),
        (_another_programs, "another program"),
        (_another_programs_without_tables, "another program"),
        (_newer, r"another version \(schema 2, ours is 1\)"),
        (_folder, "unable to open"),
    ],
)
def test_a_file_that_is_no_store_of_ours_is_unavailable_and_not_touched(
    path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    store = SqliteStore(path)
    for work in (lambda: store.claim(TAG), lambda: store.put_claim(TAG, TWO), lambda: store.put_sighting(TAG, FIRST)):
        with pytest.raises(StoreUnavailable, match=rf"store\.sqlite cannot be used: .*{message}"):
            work()
    assert (path.read_bytes() if path.is_file() else None) == before


def test_the_message_does_not_tell_where_the_file_is(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="No such file or directory") as caught:
        SqliteStore(tmp_path / "none" / "store.sqlite").sighting(TAG)
    assert str(tmp_path) not in str(caught.value)


def test_a_folder_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="Not a directory"):
        SqliteStore(tmp_path / "file" / "store.sqlite").claim(TAG)


def test_a_store_that_failed_works_again_once_the_cause_is_gone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "later" / "store.sqlite")
    with pytest.raises(StoreUnavailable):
        store.put_claim(TAG, ONE)
    (tmp_path / "later").mkdir()
    assert store.put_claim(TAG, ONE) == (ONE, True)


@pytest.mark.parametrize("name", ["a?mode=memory", "a#b", "a%41", "sp ace", "é"])
def test_a_path_is_a_path_and_no_database_url(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    SqliteStore(path).put_claim(TAG, ONE)
    assert path.is_file()
    assert SqliteStore(path).claim(TAG) == ONE


def test_a_link_and_its_target_are_one_store(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.sqlite"
    link.symlink_to(tmp_path / "real" / "store.sqlite")
    SqliteStore(link).put_claim(TAG, ONE)
    assert link.is_symlink()
    assert SqliteStore(tmp_path / "real" / "store.sqlite").claim(TAG) == ONE


def test_a_connection_does_not_cross_a_fork(path: Path) -> None:
    store = SqliteStore(path)
    store.put_sighting(TAG, FIRST)
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        try:
            ours = store.put_sighting(TAG, SECOND) == FIRST and store.put_claim(TAG, Digest.of(b"child"))[1]
            os._exit(0 if ours else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert store.claim(TAG) == Digest.of(b"child")


def _open_files(path: Path) -> int:
    names = [os.path.realpath(descriptor) for descriptor in Path("/proc/self/fd").iterdir()]
    return sum(name.startswith(str(path)) for name in names)


def test_threads_that_come_and_go_leave_no_open_files(path: Path) -> None:
    store = SqliteStore(path)
    store.claim(TAG)
    before = _open_files(path)
    for _ in range(5):
        thread = threading.Thread(target=store.claim, args=(TAG,))
        thread.start()
        thread.join()
    assert _open_files(path) == before


def test_a_store_that_is_dropped_leaves_no_open_files_and_no_side_files(path: Path) -> None:
    store = SqliteStore(path)
    store.put_claim(TAG, ONE)
    assert _open_files(path) > 0
    del store
    assert _open_files(path) == 0
    assert sorted(found.name for found in path.parent.iterdir()) == ["store.sqlite", "store.sqlite-lock"]


def test_errors_leave_no_open_files(path: Path) -> None:
    _another_programs(path)
    store = SqliteStore(path)
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            store.claim(TAG)
    assert _open_files(path) == 0
