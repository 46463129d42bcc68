"""One HTTP/1.1 call to an upstream: guarded, on a kept connection if there is one, never redirected.

Only GET and HEAD, without a body. On http.client, because `requests` costs more than the whole web framework, and this
is on the path of every pull. Always asked for without compression, so that a cap on bytes is a cap on bytes. No
proxies, no netrc, no cookies: nothing of the environment but SSL_CERT_FILE, which the standard library honours.

Not here: authentication and redirects (`client.py`), what a status means (`registry.py`).
"""

from __future__ import annotations

from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Literal, cast

from lib.errors import DeadlineExceeded, Unavailable, UpstreamUnavailable
from lib.upstream.answer import Answer
from lib.upstream.connection import Dialer, TimedReader, reader
from lib.upstream.pool import Pool
from lib.upstream.url import authority

if TYPE_CHECKING:
    import io
    import socket
    from collections.abc import Callable, Mapping

    from lib.deadline import Deadline
    from lib.upstream.addresses import Lookups
    from lib.upstream.connection import Connection
    from lib.upstream.guard import Guard
    from lib.upstream.limits import Limits
    from lib.upstream.url import Url

Method = Literal["GET", "HEAD"]

# One fixed name, so that an upstream cannot tell our callers apart; Via, so that a loop of proxies can be seen (RFC
# 9110, 7.6.3).
OURS = "User-Agent: tlogistry\r\nVia: 1.1 tlogistry\r\nAccept-Encoding: identity\r\n"


class _File:
    """What http.client takes for a socket: it only wants the file of it."""

    __slots__ = ("_source",)

    def __init__(self, source: io.BufferedReader) -> None:
        self._source = source

    def makefile(self, _mode: str) -> io.BufferedReader:
        return self._source


class Transport:
    """Calls and their connections. Opens nothing before the first call; safe from any thread."""

    def __init__(self, lookups: Lookups, clock: Callable[[], float], limits: Limits) -> None:
        """`clock` is monotonic, in seconds."""
        self._dialer = Dialer(lookups, limits)
        self._pool = Pool(clock, limits)
        self._limits = limits

    def call(self, method: Method, url: Url, headers: Mapping[str, str], guard: Guard, deadline: Deadline) -> Answer:
        """Ask once. `headers` are ours or parsed: visible ASCII.

        A kept connection may have died unseen: if it does before the first byte of an answer, the call is made once
        more on a fresh one, which GET and HEAD allow. Raises Refused, UpstreamUnavailable, DeadlineExceeded.
        """
        guard.check(url.origin)
        vouched = guard.vouched(url.origin)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"{method} {url.target} HTTP/1.1\r\nHost: {authority(url.origin)}\r\n{OURS}{lines}\r\n".encode(
            "ascii"
        )
        deadline.check(f"asking {authority(url.origin)}")
        connection = self._pool.take(url.origin, vouched=vouched)
        if connection is not None:
            answer = self._exchange(connection, method, request, deadline)
            if answer is not None:
                return answer
        connection = self._dialer.dial(url.origin, deadline, vouched=vouched)
        answer = self._exchange(connection, method, request, deadline)
        if answer is None:
            msg = f"{authority(url.origin)} closed the connection without an answer"
            raise UpstreamUnavailable(msg)
        return answer

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.close()

    def _exchange(self, connection: Connection, method: Method, request: bytes, deadline: Deadline) -> Answer | None:
        """None if the connection is dead and not a byte came back."""
        host = authority(connection.origin)
        raw, source = reader(connection, deadline, self._limits)
        try:
            connection.send(request, deadline, self._limits)
            return self._head(connection, raw, source, method)
        except Unavailable:
            connection.close()
            raise
        except TimeoutError as error:
            connection.close()
            if deadline.passed():
                msg = f"out of time while asking {host}"
                raise DeadlineExceeded(msg) from error
            msg = f"{host} does not take a request"
            raise UpstreamUnavailable(msg) from error
        except (OSError, HTTPException, ValueError) as error:
            connection.close()
            if raw.received == 0:
                return None
            msg = f"the answer of {host} is not valid HTTP"
            raise UpstreamUnavailable(msg) from error

    def _head(self, connection: Connection, raw: TimedReader, source: io.BufferedReader, method: Method) -> Answer:
        response = HTTPResponse(cast("socket.socket", _File(source)), method=method)
        response.begin()
        if raw.at_end:  # http.client takes a head that breaks off for a whole one
            msg = f"the answer of {authority(connection.origin)} is malformed or was cut short"
            raise UpstreamUnavailable(msg)
        raw.in_head = False

        def done(keep: bool) -> None:  # noqa: FBT001 - a callback with one meaning
            if keep:
                self._pool.give(connection)
            else:
                connection.close()

        return Answer(response, raw, source, host=authority(connection.origin), head=method == "HEAD", done=done)
