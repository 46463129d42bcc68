"""One request exactly as it is written here: any target, and a header as often as wanted; http.client allows neither."""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING

from tests.framework import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_S = 60


def exchange(port: int, method: str, target: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b"") -> Answer:
    """Over a connection of its own. Raises OSError, http.client.HTTPException if what comes back is no whole answer."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body)
        response = http.client.HTTPResponse(sock, method=method)
        response.begin()
        with response:
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
