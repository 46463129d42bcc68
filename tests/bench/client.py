"""The client of every measurement, direct or through the service: one kept connection, http.client, no tricks."""

from __future__ import annotations

import hashlib
import http.client
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from lib.oci.manifest import ACCEPT

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 60.0
BLOCK = 256 * 1024
DROPPED = (http.client.RemoteDisconnected, ConnectionError)


class Answer(NamedTuple):
    """One answer, read to its end, and how long that took."""

    headers: Mapping[str, str]
    body: bytes
    ms: float


class Client:
    """One connection to one server. Anything but the status expected ends the measurement: there is no table of failures."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        status: int = 200,
    ) -> Answer:
        sent = {"Accept": ACCEPT, **(headers or {})}
        for last in (False, True):
            started = time.perf_counter()
            try:
                self._connection.request(method, path, body, sent)
                response = self._connection.getresponse()
                content = response.read()
                break
            except DROPPED:  # gunicorn closes a connection that was idle for 2 s
                self._connection.close()
                if last:
                    raise
        ms = (time.perf_counter() - started) * 1000
        if response.status != status:
            msg = f"{method} {path} was answered {response.status}, not {status}: {content[:500]!r}"
            raise RuntimeError(msg)
        return Answer({name.lower(): value for name, value in response.getheaders()}, content, ms)

    def blob(self, path: str, digest: str, buffer: bytearray) -> int:
        """Take a blob as it comes, in constant memory, and check it as clients do. How many bytes it had."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        made, size, view = hashlib.sha256(), 0, memoryview(buffer)
        while count := response.readinto(buffer):
            made.update(view[:count])
            size += count
        if response.status != http.client.OK or f"sha256:{made.hexdigest()}" != digest:
            msg = f"GET {path} was answered {response.status} with {size} bytes that are not {digest}"
            raise RuntimeError(msg)
        return size

    def close(self) -> None:
        self._connection.close()
