"""Fixtures for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lib.devsigstore.server import DevSigstore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[DevSigstore]:
    """A local Sigstore of the test's own."""
    folder = tmp_path / "sigstore"
    folder.mkdir()
    with DevSigstore(folder) as server:
        yield server
