"""What the tests of the bundle share. The container engine and the real registry are those of tests/e2e."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lib.devsigstore.server import DevSigstore
from tests.cloud.bundle import programs as make_programs
from tests.e2e.conftest import LOGS, docker, docker_io, pytest_runtest_makereport
from tests.e2e.processes import unmount_under
from tests.firestore import FirestoreEmulator, need_emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["docker", "docker_io", "pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def workshop(pytestconfig: pytest.Config) -> Iterator[Path]:
    """A folder with a short path, gone at the end with everything that was mounted in it."""
    folder, before = Path(tempfile.mkdtemp(prefix="tc-")), pytestconfig.stash.get(LOGS, None)
    pytestconfig.stash[LOGS] = folder
    yield folder
    if before is not None:
        pytestconfig.stash[LOGS] = before
    elif pytestconfig.stash.get(LOGS, None) == folder:
        del pytestconfig.stash[LOGS]
    unmount_under(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def emulator(workshop: Path) -> Iterator[FirestoreEmulator]:
    """One for all tests; each deployment has a database of its own."""
    need_emulator()
    folder = workshop / "firestore"
    folder.mkdir()
    with FirestoreEmulator(folder) as running:
        yield running


@pytest.fixture(scope="session")
def programs() -> Path:
    """The environment of the bundle; there is no use for it without the emulator."""
    need_emulator()
    return make_programs()


@pytest.fixture(scope="module")
def sigstore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSigstore]:
    """A local Sigstore for the tests of one file."""
    with DevSigstore(tmp_path_factory.mktemp("sigstore")) as server:
        yield server
