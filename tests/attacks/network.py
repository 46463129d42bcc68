"""What this process tries to connect to and to look up, as the interpreter itself reports it (PEP 578).

    with watching() as network:
        ...
        assert network.connected == [("127.0.0.1", 5000)]

Whatever is not loopback is noted and refused before a packet leaves: a test that fails must not reach a metadata server.
"""

from __future__ import annotations

import errno
import socket
import sys
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_watching: list[Network] = []


class Network:
    """Host and port of every connection that was tried, and every name that the system was asked for."""

    def __init__(self) -> None:
        self.connected: list[tuple[str, int]] = []
        self.looked_up: list[str] = []

    @property
    def outside(self) -> list[tuple[str, int]]:
        """The connections that would have left this machine."""
        return [(host, port) for host, port in self.connected if not ip_address(host.partition("%")[0]).is_loopback]


@contextmanager
def watching() -> Iterator[Network]:
    """Watch until the block ends."""
    network = Network()
    _watching.append(network)
    try:
        yield network
    finally:
        _watching.remove(network)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _watching or not event.startswith("socket."):
        return
    if event == "socket.getaddrinfo":
        for network in _watching:
            network.looked_up.append(str(args[0]))
    elif event == "socket.connect" and isinstance(args[1], tuple) and args[0].type == socket.SOCK_STREAM:
        # a datagram socket that is connected sends nothing: it is how the kernel is asked for its own addresses
        host, port = str(args[1][0]), int(args[1][1])
        for network in _watching:
            network.connected.append((host, port))
        if not ip_address(host.partition("%")[0]).is_loopback:
            raise OSError(errno.ENETUNREACH, "tests do not leave this machine")


sys.addaudithook(_audit)
