"""The recorder's own tests once more, with Firestore for SQLite: nothing in them may depend on which store it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lib.config import BaseUrl
from lib.errors import StoreUnavailable
from lib.store.firestore import FirestoreStore
from tests.fakes.front import Front, answers
from tests.sigstore import Parts, seconds
from tests.test_recorder import *  # noqa: F403 - its tests and fixtures, save what is said below
from tests.test_recorder import OLD, TAG

if TYPE_CHECKING:
    from lib.config import FirestoreDatabase
    from lib.devsigstore.server import DevSigstore
    from tests.firestore import FirestoreEmulator

ON_SQLITES_FILE = {
    "tamper",
    "write_bytes",
}  # whoever calls one of these writes to the file; a verifier's test, not a store's
LEFT_OUT = [
    name
    for name, value in list(globals().items())
    if name.startswith("test_") and ON_SQLITES_FILE.intersection(value.__code__.co_names)
]
for name in LEFT_OUT:
    del globals()[name]


class Records:
    """One store as the recorder's tests see it: opened anew by each instance, and lost as a file is."""

    def __init__(self, emulator: FirestoreEmulator, database: FirestoreDatabase) -> None:
        self._emulator, self._database = emulator, database

    def __call__(self) -> FirestoreStore:
        return FirestoreStore(self._database, self._emulator.url, call_s=60, attempt_s=30)

    def unlink(self, *, missing_ok: bool) -> None:  # noqa: ARG002 - as Path has it
        self._emulator.wipe(self._database)


@pytest.fixture  # type: ignore[no-redef] # on purpose
def store(emulator: FirestoreEmulator, database: FirestoreDatabase) -> Records:
    """In place of the path that the recorder's tests have."""
    return Records(emulator, database)


def test_what_is_left_out_is_little() -> None:
    assert 3 <= len(LEFT_OUT) <= 6, LEFT_OUT


@pytest.mark.parametrize("status", [404, 403, 500])
def test_a_firestore_that_fails_is_never_first_seen(dev: DevSigstore, database: FirestoreDatabase, status: int) -> None:
    said = {404: "NOT_FOUND", 403: "PERMISSION_DENIED", 500: "INTERNAL"}[status]
    with Front("http://127.0.0.1:9") as front:
        front.always = answers(status, {"error": {"code": status, "message": "no such database", "status": said}})
        parts = Parts(dev, lambda: FirestoreStore(database, BaseUrl("http", "127.0.0.1", front.port)))
        with pytest.raises(StoreUnavailable):
            parts.recorder().observe(TAG, OLD, seconds(20))
    assert dev.calls["append"] == 0
    assert dev.calls["index"] == 0
