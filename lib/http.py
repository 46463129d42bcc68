"""The HTTP session for Google's and Sigstore's services: requests, made safe in one place.

requests, google-auth and sigstore-python put no time-out, no cap and no rule on redirects on these calls, and let `~/.netrc`
and proxy variables in. The hosts are the deployer's choice, not a stranger's, so there is
no address guard here; that is `lib/upstream/transport.py`. Not here either: a limit on the lookup of a name, which is the
system resolver's.
"""

from __future__ import annotations

import functools
import http.client
import io
import threading
import time
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from typing_extensions import Buffer
    from urllib3.response import HTTPResponse

    from lib.deadline import Deadline

CONNECT_S = 5.0  # seconds; a loopback or regional service answers in milliseconds
LEAST_S = 0.001  # seconds: urllib3 takes 0 for a mistake
CHUNK_BYTES = 65_536
POOL_SIZE = 128  # connections kept for each host, no fewer than calls at once: urllib3 drops the others and warns


class TooLarge(requests.RequestException):
    """An answer over the byte cap: its status, and what was read of it in `prefix`."""

    def __init__(self, url: str, status: int, prefix: bytes) -> None:
        """Keep the prefix: an over-long index answer is a flood, of which some is looked at."""
        super().__init__(f"the answer of {url} is longer than {len(prefix)} bytes")
        self.status = status
        self.prefix = prefix


class BoundedSession(requests.Session):
    """A session whose every call has a connect time-out, a total limit and a byte cap, and no redirects.

    `total_s` bounds one call from its start to its last byte, in seconds, so that a drip of one byte a second ends.
    Safe from several threads: no cookies are kept, and urllib3's pool is locked. `close` drops the idle connections only.
    """

    def __init__(self, total_s: float, max_bytes: int) -> None:
        """No environment: no proxies, no netrc, no CA bundle by variable."""
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers["Accept-Encoding"] = "identity"
        adapter = _Adapter(pool_maxsize=POOL_SIZE, max_retries=0)
        self.mount("http://", adapter)
        self.mount("https://", adapter)
        self._total_s = total_s
        self._max_bytes = max_bytes
        self._thread = threading.local()

    @contextmanager
    def within(self, deadline: Deadline) -> Iterator[None]:
        """For this thread's calls in the block, whoever makes them: none begins after `deadline`, none outlives it."""
        self._thread.deadline = deadline
        try:
            yield
        finally:
            self._thread.deadline = None

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - requests' own signature
        """As requests' own, with limits; a `timeout` argument may only make them smaller. Raises DeadlineExceeded, too."""
        asked = kwargs.pop("timeout", None)
        total = min(self._total_s, asked) if isinstance(asked, (int, float)) else self._total_s
        deadline: Deadline | None = getattr(self._thread, "deadline", None)
        if deadline is not None:
            deadline.check("calling another service")
            total = min(total, deadline.left())
        total = max(total, LEAST_S)
        kwargs.update(timeout=Timeout(total=total, connect=CONNECT_S), allow_redirects=False, stream=True)
        response = super().request(method, url, *args, **kwargs)
        with response:
            content = bytearray()
            for chunk in response.iter_content(CHUNK_BYTES):
                content += chunk
                if len(content) > self._max_bytes:
                    raise TooLarge(str(url), response.status_code, bytes(content[: self._max_bytes]))
        response._content = bytes(content)  # noqa: SLF001 - where requests itself keeps a body that was read
        return response


class _Reader(io.RawIOBase):
    """What http.client reads one answer through. A socket's time-out is for each read; this one is for all of them."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock = sock
        self._until = until
        self._raw = sock.makefile("rb", buffering=0)  # holds the socket open until the answer is read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0.0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Readable:
    """As much of a socket as http.client's response asks for."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock = sock
        self._until = until

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._until))


def _response(until: float, sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:  # noqa: ANN401 - http.client's
    return http.client.HTTPResponse(_Readable(sock, until), *args, **kwargs)  # type: ignore[arg-type] # only makefile


class _Clocked(HTTPConnection):
    """A connection whose whole answer, head and body, must come within the read time-out."""

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - urllib3's own signature
        if self.sock is not None:
            self.sock.settimeout(self.timeout)  # a kept connection still has what its last answer left over
        super().request(*args, **kwargs)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # as urllib3's own
        until = time.monotonic() + (self.timeout or 0.0)
        self.response_class = functools.partial(_response, until)  # type: ignore[assignment] # called like the class
        return super().getresponse()


class _ClockedTls(_Clocked, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Clocked


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _ClockedTls


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - requests' own signature
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
