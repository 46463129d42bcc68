"""SQLite keeps the store's contract, over processes and crashes too."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lib.errors import StoreUnavailable
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.sighting.sighting import Bundle
from lib.store.sqlite import SqliteStore
from lib.store.store import BUNDLE_MAX_BYTES
from tests.store.contract import FIRST, ONE, SECOND, TAG, TWO, RecordStoreContract

if TYPE_CHECKING:
    from tests.store.contract import OpenStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


class TestSqlite(RecordStoreContract):
    @pytest.fixture
    def open_store(self, path: Path) -> OpenStore:
        return lambda: SqliteStore(path)


def _process(code: str, *args: object) -> subprocess.Popen[str]:
    script = "import sys\nfrom pathlib import Path\nfrom lib.store.sqlite import SqliteStore\nfrom lib.oci.digest import Digest\n"
    script += "from lib.oci.reference import Tag\nfrom lib.sighting.sighting import Bundle\n" + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, args)], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def test_a_race_of_processes_has_one_winner_for_each_tag(path: Path) -> None:
    code = """
        store, mine = SqliteStore(Path(sys.argv[1])), Digest.of(sys.argv[2].encode())
        print("ready", flush=True); sys.stdin.readline()
        print(sum(store.put_claim(Tag.parse(f"race:{n}"), mine)[1] for n in range(100)))
    """
    processes = [_process(code, path, number) for number in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = [process.communicate("go\n")[0] for process in processes]
    assert sum(int(output) for output in outputs) == 100


def test_what_was_put_survives_sigkill_of_the_process(path: Path) -> None:
    code = """
        store = SqliteStore(Path(sys.argv[1]))
        store.put_claim(Tag.parse("alpine:3.16.0"), Digest.of(b"one"))
        store.put_sighting(Tag.parse("alpine:3.16.0"), Bundle(b"{}"))
        print("done", flush=True); sys.stdin.readline()
    """
    process = _process(code, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    store = SqliteStore(path)
    assert (store.claim(TAG), store.sighting(TAG)) == (ONE, Bundle(b"{}"))


def test_a_commit_is_synchronous(path: Path) -> None:
    store = SqliteStore(path)
    store.claim(TAG)
    connection = store._connection()  # noqa: SLF001 - durability has no other outside
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_store_deleted_while_open_is_lost_and_not_written_to_in_secret(path: Path) -> None:
    store = SqliteStore(path)
    store.put_sighting(TAG, FIRST)
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.unlink(missing_ok=True)
    assert store.sighting(TAG) is None
    assert store.put_claim(TAG, TWO) == (TWO, True)
    assert SqliteStore(path).claim(TAG) == TWO


def test_a_record_cannot_be_updated_or_deleted(path: Path) -> None:
    store = SqliteStore(path)
    store.put_sighting(TAG, FIRST)
    store.put_claim(TAG, ONE)
    for statement in ("UPDATE sighting SET bundle = x'00'", "DELETE FROM sighting", "UPDATE claim SET digest = ''", "DELETE FROM claim"):
        with sqlite3.connect(path) as db, pytest.raises(sqlite3.IntegrityError, match="write-once"):
            db.execute(statement)
        db.close()
    assert store.sighting(TAG) == FIRST


def test_a_claim_that_is_no_digest_is_never_absence(path: Path) -> None:
    SqliteStore(path).claim(TAG)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO claim VALUES (?, 'sha256:short')", (str(TAG),))
    db.close()
    with pytest.raises(StoreUnavailable, match="not a digest"):
        SqliteStore(path).claim(TAG)
    with pytest.raises(StoreUnavailable):
        SqliteStore(path).put_claim(TAG, TWO)


def test_a_bundle_of_another_type_is_never_absence(path: Path) -> None:
    SqliteStore(path).claim(TAG)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO sighting VALUES (?, 7)", (str(TAG),))
    db.close()
    with pytest.raises(StoreUnavailable):
        SqliteStore(path).sighting(TAG)


def test_a_file_that_is_no_database_is_unavailable(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be read as one" * 40)
    with pytest.raises(StoreUnavailable, match=path.name):
        SqliteStore(path).sighting(TAG)


def test_another_programs_database_is_not_written_to(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(StoreUnavailable, match="another program"):
        SqliteStore(path).put_claim(TAG, ONE)


def test_a_newer_versions_store_is_not_touched(path: Path) -> None:
    SqliteStore(path).claim(TAG)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(StoreUnavailable, match="newer version"):
        SqliteStore(path).claim(TAG)


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        SqliteStore(tmp_path / "none" / "store.sqlite").sighting(TAG)


def test_a_store_that_failed_works_again_once_the_cause_is_gone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "later" / "store.sqlite")
    with pytest.raises(StoreUnavailable):
        store.put_claim(TAG, ONE)
    (tmp_path / "later").mkdir()
    assert store.put_claim(TAG, ONE) == (ONE, True)


def test_a_bundle_too_large_is_refused(path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="too large"):
        SqliteStore(path).put_sighting(TAG, Bundle(b"x" * (BUNDLE_MAX_BYTES + 1)))
    assert SqliteStore(path).sighting(TAG) is None


def test_a_connection_does_not_cross_a_fork(path: Path) -> None:
    store = SqliteStore(path)
    store.put_sighting(TAG, FIRST)
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        os._exit(0 if store.put_sighting(TAG, SECOND) == FIRST and store.put_claim(TAG, Digest.of(b"child"))[1] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.claim(TAG) == Digest.of(b"child")
