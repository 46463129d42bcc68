"""The service that most attacks are tried on, and a watch on the network for those that run in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.attacks.network import Network, watching
from tests.handlers.test_http import name, world  # fixtures

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["name", "network", "world"]


@pytest.fixture
def network() -> Iterator[Network]:
    """Every connection and every lookup of the system's that the test makes; nothing but loopback gets out."""
    with watching() as seen:
        yield seen
