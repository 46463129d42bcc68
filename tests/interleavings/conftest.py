"""What was counted is printed at the end of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTED = pytest.StashKey[list[str]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line for the end of the run."""
    counted = request.config.stash.setdefault(COUNTED, [])
    return lambda line: counted.append(f"{request.node.name.removeprefix('test_')}: {line}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(COUNTED, [])
    if lines:
        terminalreporter.section("interleavings of the recorder")
        for line in lines:
            terminalreporter.write_line(line)
