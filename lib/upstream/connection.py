"""One connection: made to an address that was checked, read against a clock.

A socket's time-out is for each read, so a server that drips a byte a second never meets it. `TimedReader` therefore
sets the time-out before every read to what the deadline leaves, and counts what arrives, so that neither time nor
memory depends on the other side. Not here: HTTP (`transport.py`), and what a URL may say (`guard.py`).
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from lib.errors import DeadlineExceeded, UpstreamUnavailable
from lib.upstream.addresses import Address, Lookups, of_this_machine, public
from lib.upstream.guard import Refused
from lib.upstream.url import authority

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from lib.config import BaseUrl
    from lib.deadline import Deadline
    from lib.upstream.limits import Limits


def _within(limit_s: float, deadline: Deadline) -> float:
    """The smaller of a limit and what is left, never 0 (which would mean: do not block). Raises TimeoutError."""
    left = deadline.left()
    if left <= 0.0:
        raise TimeoutError
    return min(limit_s, left)


class Connection:
    """A connected socket to one origin. Used by one thread at a time."""

    __slots__ = ("idle_since", "origin", "reused", "sock", "vouched")

    def __init__(self, sock: socket.socket, origin: BaseUrl, *, vouched: bool) -> None:
        """`vouched`: its addresses were not checked, because the deployer mapped the origin."""
        self.sock = sock
        self.origin = origin
        self.vouched = vouched
        self.reused = False
        self.idle_since = 0.0

    def quiet(self) -> bool:
        """Whether an idle connection is open and silent: bytes that nobody asked for are not the next answer."""
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def send(self, data: bytes, deadline: Deadline, limits: Limits) -> None:
        """All of it. Raises OSError: the connection is dead, or does not take it in time."""
        self.sock.settimeout(_within(limits.read_s, deadline))
        self.sock.sendall(data)

    def close(self) -> None:
        """Never raises."""
        with suppress(OSError):
            self.sock.close()


class TimedReader(io.RawIOBase):
    """What one answer is read through; http.client sees it as a file.

    Three phases: the head, at most `Limits.head_bytes`, and a bounded body share the deadline; a stream (`stream()`)
    has none, but each read has its limit and the stream as a whole must keep a minimum pace.
    """

    def __init__(self, connection: Connection, deadline: Deadline, limits: Limits) -> None:
        """For one answer on `connection`."""
        self._connection = connection
        self._sock = connection.sock
        self._deadline = deadline
        self._limits = limits
        self._read_s = limits.read_s
        self._streaming = False
        self._waited = 0.0
        self._streamed = 0
        self.received = 0
        self.in_head = True
        self.at_end = False  # the other side has closed
        self.ended = False  # we have what we wanted

    def readable(self) -> bool:
        """Of course."""
        return True

    @property
    def clock(self) -> Callable[[], float]:
        """The deadline's."""
        return self._deadline.clock

    def shorten(self, deadline: Deadline) -> None:
        """Read on, but only until `deadline`."""
        self._deadline = deadline

    def stream(self) -> None:
        """From here on the deadline of the request no longer holds."""
        self._streaming = True

    def readinto(self, buffer: Buffer) -> int:
        """Raises UpstreamUnavailable, DeadlineExceeded."""
        if self.ended:
            return 0
        clock = self._deadline.clock
        before = clock() if self._streaming else 0.0
        try:
            self._sock.settimeout(self._read_s if self._streaming else _within(self._read_s, self._deadline))
            count = self._sock.recv_into(buffer)
        except TimeoutError as error:
            raise self._late() from error
        except OSError as error:
            if self.received == 0:
                return 0  # a kept connection that died: no byte of an answer, so the caller may try afresh
            msg = f"the connection to {authority(self._connection.origin)} broke"
            raise UpstreamUnavailable(msg) from error
        self._account(count, clock() - before if self._streaming else 0.0)
        return count

    def _account(self, count: int, waited: float) -> None:
        self.received += count
        self.at_end = count == 0
        host = authority(self._connection.origin)
        if self.in_head and self.received > self._limits.head_bytes:
            msg = f"the headers of {host} are longer than {self._limits.head_bytes} bytes"
            raise UpstreamUnavailable(msg)
        if self._streaming:
            self._waited += waited
            self._streamed += count
            if self._waited > self._limits.stream_grace_s + self._streamed / self._limits.stream_bytes_per_s:
                msg = f"{host} sends too slowly"
                raise UpstreamUnavailable(msg)

    def _late(self) -> UpstreamUnavailable | DeadlineExceeded:
        host = authority(self._connection.origin)
        if not self._streaming and self._deadline.passed():
            return DeadlineExceeded(f"out of time while waiting for {host}")
        return UpstreamUnavailable(f"{host} sent nothing for {self._read_s:g} s")


class Dialer:
    """Makes connections: one lookup, every address checked, the connection to exactly one of those."""

    def __init__(self, lookups: Lookups, limits: Limits, ours: Callable[[Address], bool] = of_this_machine) -> None:
        """`lookups` holds the resolver; `ours` says whether an address is this machine's."""
        self._ours = ours
        self._lookups = lookups
        self._limits = limits
        self._tls: ssl.SSLContext | None = None
        self._tls_lock = threading.Lock()

    def dial(self, origin: BaseUrl, deadline: Deadline, *, vouched: bool) -> Connection:
        """Connect. Raises Refused, UpstreamUnavailable, DeadlineExceeded."""
        deadline.check(f"connecting to {authority(origin)}")
        addresses = self._lookups.addresses(origin.host, origin.port, deadline)
        if not vouched:
            self._all_public(origin, addresses)
        sock = self._connect(origin, addresses, deadline)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.scheme == "https":
                sock.settimeout(
                    _within(self._limits.connect_s, deadline)
                )  # holds for the whole handshake, not for each read of it
                sock = self._context().wrap_socket(sock, server_hostname=origin.host)
        except (
            OSError,
            ValueError,
        ) as error:  # ssl.CertificateError is both; ValueError: a name that TLS cannot ask for
            sock.close()
            raise self._failed(origin, deadline, _why(error)) from error
        return Connection(sock, origin, vouched=vouched)

    def _all_public(self, origin: BaseUrl, addresses: tuple[Address, ...]) -> None:
        """One private address is enough: which one a connection would take is the name server's choice, not ours."""
        for address in addresses:
            if not public(address):
                raise Refused(origin, "its name leads to an address that is not public")
            if self._ours(address):
                raise Refused(origin, "its name leads back to this machine")

    def _connect(self, origin: BaseUrl, addresses: tuple[Address, ...], deadline: Deadline) -> socket.socket:
        last: OSError | None = None
        for address in addresses[: self._limits.addresses]:
            if deadline.passed():
                break
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
            sock: socket.socket | None = None
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.settimeout(_within(self._limits.connect_s, deadline))
                sock.connect((str(address), origin.port))
            except OSError as error:
                if sock is not None:
                    sock.close()
                last = error
                continue
            return sock
        raise self._failed(origin, deadline, _why(last)) from last

    def _failed(self, origin: BaseUrl, deadline: Deadline, why: str) -> UpstreamUnavailable | DeadlineExceeded:
        if deadline.passed():
            return DeadlineExceeded(f"out of time while connecting to {authority(origin)}")
        return UpstreamUnavailable(f"could not connect to {authority(origin)}: {why}")

    def _context(self) -> ssl.SSLContext:
        """Made once, on first use: reading the certificates costs some 20 ms, and nobody needs it for plain HTTP."""
        with self._tls_lock:
            if self._tls is None:
                context = ssl.create_default_context()  # the system's certificates, or those of SSL_CERT_FILE
                context.set_alpn_protocols(["http/1.1"])
                self._tls = context
            return self._tls


def _why(error: Exception | None) -> str:
    """A reason for people, from a closed list: the text of an OSError may hold an address."""
    match error:
        case None:
            return "no address"
        case ssl.SSLCertVerificationError():
            return "its certificate does not verify"
        case ssl.SSLError():
            return "no TLS connection"
        case TimeoutError():
            return "no answer in time"
        case ConnectionRefusedError():
            return "connection refused"
        case _:
            return "no connection"


def reader(connection: Connection, deadline: Deadline, limits: Limits) -> tuple[TimedReader, io.BufferedReader]:
    """A fresh pair for one answer: what an earlier answer left in a buffer must never become part of this one."""
    raw = TimedReader(connection, deadline, limits)
    return raw, io.BufferedReader(raw)
