"""A loopback HTTP server in front of another one: it passes requests on, loses answers, or answers itself.

    with Front("http://127.0.0.1:8080") as front:
        front.faults = [lost_after, answers(503)]      # the next two requests; those after them are passed on
        front.always = hangs                           # until it is None again

Every fault is there as *failed* (the other server never saw the request) and as *failed, but done*.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    Fault = Callable[["Exchange"], None]

DRIP_S = 0.05  # seconds between two bytes: far below any time-out for one read


class Seen(NamedTuple):
    """One request that came in; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """One request, and what can be done with it."""

    def __init__(self, handler: BaseHTTPRequestHandler, seen: Seen, behind: str, ended: threading.Event) -> None:
        self._handler, self._seen, self._behind = handler, seen, behind
        self.path = seen.path
        self.ended = ended

    def forward(self) -> requests.Response:
        """Have it done by the server behind."""
        passed = {
            name: value for name, value in self._seen.headers.items() if name in {"authorization", "content-type"}
        }
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                self._seen.method, self._behind + self._seen.path, data=self._seen.body, headers=passed, timeout=60
            )

    def reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()
        self.send(body)

    def send(self, data: bytes) -> None:
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def cut(self) -> None:
        """The connection ends here."""
        self._handler.close_connection = True
        with suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)


def passes_on(exchange: Exchange) -> None:
    answer = exchange.forward()
    exchange.reply(answer.status_code, answer.content, {"Content-Type": answer.headers["Content-Type"]})


def answers(status: int, body: object = b"", **headers: str) -> Fault:
    """Says this, and does nothing; a `body` that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda exchange: exchange.reply(status, content, headers)


def lost(exchange: Exchange) -> None:
    exchange.cut()


def half(exchange: Exchange) -> None:
    exchange.reply(200, b'[{"found"', {"Content-Length": "1000"})
    exchange.cut()


def hangs(exchange: Exchange) -> None:
    exchange.ended.wait()
    exchange.cut()


def drips(exchange: Exchange) -> None:
    exchange.reply(200, b"", {"Content-Length": "100000"})
    while not exchange.ended.wait(DRIP_S):
        exchange.send(b" ")
    exchange.cut()


def drips_headers(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not exchange.ended.wait(DRIP_S):
        exchange.send(b"x")
    exchange.cut()


def done_but(fault: Fault) -> Fault:
    """It was done, and then this is all that the client sees of it."""

    def do(exchange: Exchange) -> None:
        exchange.forward()
        fault(exchange)

    return do


class Front:
    """Serves until the block ends. Every request is kept in `seen`, every connection counted in `connections`."""

    def __init__(self, behind: str) -> None:
        self.faults: list[Fault] = []
        self.always: Fault | None = None
        self.seen: list[Seen] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self._ended = threading.Event()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with outer._lock:
                    outer.connections += 1
                    outer._open.append(self.connection)

            def handle(self) -> None:
                with suppress(ConnectionError):  # a client that has gone
                    super().handle()

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(self.command, self.path, headers, body)
                with suppress(OSError):  # a client that has gone
                    outer._take(seen)(Exchange(self, seen, behind, outer._ended))

            do_GET = do_POST = _handle  # noqa: N815 - http.server's names

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def _take(self, seen: Seen) -> Fault:
        with self._lock:
            self.seen.append(seen)
            if self.faults:
                return self.faults.pop(0)
            return self.always or passes_on

    def drop(self) -> None:
        """Close the connections, as a server does with idle ones."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
