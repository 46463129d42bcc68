"""What the fakes that speak HTTP to the service share: strictness, misbehaviour, and counting.

Strict: a request with a header that a registry, its token service or its storage should not see (cookies, forwarded client
headers, compression), or for somebody else's host, is answered 400 and fails the test that made it, when the block ends
(`violations`).
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from tests.fakes.faults import (
    CutShort,
    DigestHeader,
    DripBody,
    DripHead,
    Drop,
    EndlessBody,
    Fault,
    Hang,
    Held,
    Html,
    Raw,
    Redirect,
    Seen,
    Status,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from types import TracebackType

ALLOWED = frozenset(
    {"host", "accept", "accept-encoding", "user-agent", "via", "authorization", "range", "if-range", "connection"}
)
RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.ASCII)


@dataclass
class _Planned:
    pattern: str
    fault: Fault
    method: str | None
    times: int | None


class Fake:
    """Serves on loopback until the block ends. Everything may be changed while it serves."""

    what = "a server"

    def __init__(self) -> None:
        self.delay_ms = 0.0
        self.headers: Mapping[str, str] = {}  # on every answer
        self.requests: list[Seen] = []
        self.violations: list[str] = []
        self.stopped = threading.Event()
        self.servers: list[Server] = []
        self._lock = threading.Lock()
        self._faults: list[_Planned] = []

    # How it behaves

    def fault(self, pattern: str, fault: Fault, *, method: str | None = None, times: int | None = None) -> None:
        """Misbehave for paths like `pattern` (`*` is a wild card); the latest that fits wins, `times` times."""
        with self._lock:
            self._faults.append(_Planned(pattern, fault, method, times))

    def heal(self) -> None:
        """Behave again."""
        with self._lock:
            self._faults.clear()

    def planned(self, method: str, path: str) -> Fault | None:
        """The fault for a request, used up once."""
        with self._lock:
            for plan in reversed(self._faults):
                if fnmatchcase(path, plan.pattern) and plan.method in {None, method} and plan.times != 0:
                    if plan.times is not None:
                        plan.times -= 1
                    return plan.fault
        return None

    # What it saw

    def count(self, method: str | None = None, pattern: str = "*") -> int:
        """How many requests came in, tokens not counted."""
        with self._lock:
            seen = list(self.requests)
        return sum(method in {None, one.method} and fnmatchcase(one.path, pattern) for one in seen)

    def note(self, seen: Seen, log: list[Seen]) -> None:
        """Keep a request."""
        with self._lock:
            log.append(seen)

    def violation(self, text: str) -> None:
        """Keep what was wrong with a request."""
        with self._lock:
            self.violations.append(text)

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        for server in self.servers:
            server.stop()
        if kind is None and self.violations:
            raise AssertionError(f"{self.what} should not have seen: " + "; ".join(self.violations))


class Server(ThreadingHTTPServer):
    """One port of a fake."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, fake: Fake, handler: type[Handler], tls: ssl.SSLContext | None = None) -> None:
        self.fake = fake
        self.tls = tls
        self.connections = 0
        super().__init__(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The handshake belongs to the connection's own thread."""
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        self.connections += 1
        super().finish_request(request, client_address)
        if self.tls is not None:
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of ours hang up on purpose."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an unbuffered one waits for delayed acknowledgements
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.number = self.server.connections

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def log_of(self) -> list[Seen]:
        """Where a request is kept."""
        return self.server.fake.requests

    def behave(self, fault: Fault | None) -> None:
        """The right answer, save for what the fault changes of it."""
        raise NotImplementedError

    def _serve(self) -> None:
        fake = self.server.fake
        parts = urlsplit(self.path)
        self.seen = Seen(
            self.command, parts.path, parts.query, {k.lower(): v for k, v in self.headers.items()}, self.number
        )
        wrong = self._wrong()
        fake.note(self.seen, self.log_of())
        if fake.delay_ms:
            time.sleep(fake.delay_ms / 1000)
        if wrong is not None:
            fake.violation(f"{self.command} {self.path}: {wrong}")
            self.answer(400, {}, wrong.encode())
            return
        fault = fake.planned(self.command, parts.path)
        if fault is None or not self._misbehave(fault):
            self.behave(fault)

    def _wrong(self) -> str | None:
        """What a registry should not see."""
        names = [name.lower() for name in self.headers]
        for name in names:
            if name not in ALLOWED:
                return f"header {name}"
            if names.count(name) > 1:
                return f"header {name} twice"
        if self.headers.get("Accept-Encoding", "identity") != "identity":
            return "compression"
        if not self.headers.get("Host", "").endswith(f":{self.server.server_address[1]}"):
            return "somebody else's Host"
        return None

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """One whole answer. The length given wins over the body's, which a HEAD does not send."""
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), **self.server.fake.headers, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _misbehave(self, fault: Fault) -> bool:  # noqa: C901, PLR0911 - one case each
        """False if the right answer is still to be given."""
        match fault:
            case Status(code, headers, body):
                self.answer(code, headers, body)
                return True
            case Redirect(location, code):
                self.answer(code, {"Location": location}, b"")
                return True
            case Html():
                self.answer(200, {"Content-Type": "text/html"}, b"<html><body>Sorry, we are down.</body></html>")
                return True
            case Held(until, then):
                until.wait()
                return then is not None and self._misbehave(then)
            case Hang():
                self.server.fake.stopped.wait()
            case DripHead():
                self._drip(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: x\r\n" * 1000)
            case EndlessBody(framing):
                self._endless(framing)
            case Raw(content, keep):
                self.wfile.write(content)
                self.wfile.flush()
                if keep:
                    return True
            case Drop():
                pass
            case DripBody() | DigestHeader() | CutShort():
                return False
        self.close_connection = True
        return True

    def _drip(self, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.server.fake.stopped.wait(1.0):
                return

    def _endless(self, framing: Literal["length", "chunked", "close"]) -> None:
        header = {
            "length": f"Content-Length: {1 << 40}",
            "chunked": "Transfer-Encoding: chunked",
            "close": "Connection: close",
        }[framing]
        self.wfile.write(f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode())
        if self.command == "HEAD":  # the head of an answer without end
            return
        block = b" " * 65536
        piece = b"10000\r\n" + block + b"\r\n" if framing == "chunked" else block
        while True:  # until the other side hangs up
            self.wfile.write(piece)

    def give(self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None) -> None:
        """The right answer, save for what the fault changes of it."""
        match fault:
            case DigestHeader(value):
                headers.pop("Docker-Content-Digest", None)
                if value is not None:
                    headers["Docker-Content-Digest"] = value
                self.answer(status, headers, body)
            case DripBody() | CutShort():
                self.close_connection = True
                self.answer(status, {"Content-Length": str(len(body)), **headers}, b"")
                if isinstance(fault, DripBody):
                    self._drip(body)
                else:
                    self.wfile.write(body[: len(body) // 2])
            case _:
                self.answer(status, headers, body)

    def give_part(self, headers: dict[str, str], content: bytes, fault: Fault | None) -> None:
        """The content, or the range of it that is asked for (RFC 9110, 14)."""
        headers |= {"Accept-Ranges": "bytes"}
        wanted = RANGE.fullmatch(self.seen.headers.get("range", ""))
        valid = self.seen.headers.get("if-range") in {None, headers.get("ETag")}
        if wanted is None or not valid or self.command == "HEAD":
            self.give(200, headers, content, fault)
            return
        first = int(wanted[1]) if wanted[1] else max(0, len(content) - int(wanted[2]))
        last = min(int(wanted[2]), len(content) - 1) if wanted[1] and wanted[2] else len(content) - 1
        if first > last:
            self.answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.give(206, headers, content[first : last + 1], fault)
