"""What the tests of faults print when they are done, and the emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.firestore import FirestoreEmulator, need_emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

REPORT = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> list[str]:
    """Lines for the end of the run."""
    return pytestconfig.stash.setdefault(REPORT, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(REPORT, [])
    if lines:
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirestoreEmulator]:
    """One for all cells."""
    need_emulator()
    with FirestoreEmulator(tmp_path_factory.mktemp("firestore")) as running:
        yield running
