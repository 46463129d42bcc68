"""Fixtures for the tests that need Firestore."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lib.config import BaseUrl
from lib.store.firestore import FirestoreStore
from tests.fakes.front import Front
from tests.firestore import PATIENT, FirestoreEmulator, need_emulator, new_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lib.config import FirestoreDatabase


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirestoreEmulator]:
    """One for all tests; each takes a database of its own."""
    need_emulator()
    with FirestoreEmulator(tmp_path_factory.mktemp("firestore")) as running:
        yield running


@pytest.fixture
def database() -> FirestoreDatabase:
    """A database that nobody has written to."""
    return new_database()


@pytest.fixture
def front(emulator: FirestoreEmulator) -> Iterator[Front]:
    """Between the store and the emulator."""
    with Front(str(emulator.url)) as server:
        yield server


@pytest.fixture
def store(front: Front, database: FirestoreDatabase) -> FirestoreStore:
    """A store behind the front."""
    return FirestoreStore(database, BaseUrl("http", "127.0.0.1", front.port), **PATIENT)
