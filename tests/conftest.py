"""Fixtures for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from lib.devsigstore.server import DevSigstore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# How long an example takes says how busy the machine is; hangs end with the tests' own limits.
settings.register_profile("tlogistry", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tlogistry")


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[DevSigstore]:
    """A local Sigstore of the test's own."""
    folder = tmp_path / "sigstore"
    folder.mkdir()
    with DevSigstore(folder) as server:
        yield server
