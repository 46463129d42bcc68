"""A gate: a loopback HTTP proxy before one service, which does to each call what a test says.

    with Gate("log", dev.url, judge) as gate:       # judge(call) -> what is done to it, one of the functions below
        ... gate.url ...
        gate.down()                                 # connections are refused, as by a service that is not running
        gate.up()                                   # on the same port

What is done is a function of the call: `passes`, `lost`, `truncated`, `answers(500)`, `hangs(released)`. Not here: which call
is which (`calls.py`), and what is done to it (`play.py`).
"""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    Act = Callable[["Call"], None]

FORWARD_S = 60
BACKLOG = 1024
NOT_PASSED_ON = frozenset({"host", "connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"})


class Reply(NamedTuple):
    """An answer of the service behind, read to its end."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Call:
    """One request, whose body was read, and what can be done with it. `path` and `headers` may be changed before."""

    def __init__(self, gate: Gate, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        self.gate = gate
        self.method = handler.command
        self.path = handler.path
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.body = body
        self._handler = handler

    def forward(self) -> Reply:
        """Have it done by the service behind."""
        connection = http.client.HTTPConnection(self.gate.behind, timeout=FORWARD_S)
        try:
            connection.putrequest(self.method, self.path, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name not in NOT_PASSED_ON:
                    connection.putheader(name, value)
            if self.method == "POST":
                connection.putheader("Content-Length", str(len(self.body)))
            connection.endheaders(self.body or None)
            response = connection.getresponse()
            kept = [(name, value) for name, value in response.getheaders() if name.lower() not in NOT_PASSED_ON]
            length = response.headers["Content-Length"]
            body = response.read()
            if self.method == "HEAD" and length is not None:
                kept.append(("Content-Length", length))
            return self.gate.saw(self, Reply(response.status, kept, body))
        finally:
            connection.close()

    def reply(self, reply: Reply, *, close: bool = False) -> None:
        """Answer."""
        self._send(self._head(reply, close=close) + (b"" if self.method == "HEAD" else reply.body))

    def half(self, reply: Reply) -> None:
        """Half of an answer; where it has no body, half of its head."""
        head = self._head(reply)
        body = b"" if self.method == "HEAD" else reply.body
        self._send(head + body[: len(body) // 2] if body else head[: len(head) // 2])
        self.cut()

    def cut(self) -> None:
        """The connection ends here."""
        self._handler.close_connection = True
        with suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)

    def is_of(self, connection: socket.socket) -> bool:
        return self._handler.connection is connection

    def _head(self, reply: Reply, *, close: bool = False) -> bytes:
        names = {name.lower() for name, _ in reply.headers}
        length = [] if "content-length" in names else [("Content-Length", str(len(reply.body)))]
        more = [("Connection", "close")] if close else []
        lines = [f"{name}: {value}\r\n" for name, value in [*reply.headers, *length, *more]]
        return f"HTTP/1.1 {reply.status} {http.client.responses[reply.status]}\r\n{''.join(lines)}\r\n".encode(
            "latin-1"
        )

    def _send(self, data: bytes) -> None:
        with suppress(OSError):  # the service may have given up, or been killed
            self._handler.wfile.write(data)
            self._handler.wfile.flush()


def passes(call: Call) -> None:
    call.reply(call.forward())


def lost(call: Call) -> None:
    """It is done, and nobody is told."""
    call.forward()
    call.cut()


def truncated(call: Call) -> None:
    """It is done, and half of the answer arrives."""
    call.half(call.forward())


def answers(status: int, body: bytes = b"", **headers: str) -> Act:
    """Says this, and does nothing."""
    return lambda call: call.reply(Reply(status, list(headers.items()), body))


def hangs(released: threading.Event) -> Act:
    """Takes the call, and says nothing until it is released; then the connection ends."""

    def hang(call: Call) -> None:
        released.wait()
        call.cut()

    return hang


def last_of_all(reply: Reply | None = None) -> Act:
    """It is done and answered, or answered with `reply`, and no connection is taken after it."""

    def do(call: Call) -> None:
        answer = reply if reply is not None else call.forward()
        call.gate.down(but=call)
        call.reply(answer, close=True)
        call.cut()

    return do


class Gate:
    """Serves until the block ends."""

    def __init__(
        self, name: str, behind: str, judge: Callable[[Call], Act], saw: Callable[[Call, Reply], Reply] | None = None
    ) -> None:
        """`behind` is the service's URL; `saw` is told every answer of it, and may change it."""
        self.name = name
        self.behind = urlsplit(behind).netloc
        self.judge = judge
        self.saw = saw if saw is not None else lambda _, reply: reply
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._keeps = _bound(0)  # bound and never listening: the port stays ours while we are down
        self.port: int = self._keeps.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Take connections, from now on."""
        with self._lock:
            if self._listener is None:
                self._listener = _bound(self.port)
                self._listener.listen(BACKLOG)
                threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self, but: Call | None = None) -> None:
        """Refuse connections, and cut those that are open, save for that of one call."""
        with self._lock:
            listener, self._listener = self._listener, None
            if listener is not None:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
                listener.close()
            for connection in self._open:
                if but is None or not but.is_of(connection):
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    def serve(self, connection: socket.socket, address: Any) -> None:
        """One connection, to its end."""
        with self._lock:
            self._open.add(connection)
        try:
            with suppress(OSError):
                _Handler(connection, address, self)  # type: ignore[arg-type] # a server only to those who use one
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection, address), daemon=True).start()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
        self._keeps.close()


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        gate: Gate = self.server  # type: ignore[assignment] # what Gate.serve hands in
        call = Call(gate, self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        gate.judge(call)(call)

    do_GET = do_POST = do_HEAD = do_PUT = _serve  # noqa: N815 - http.server's names

    def log_message(self, *_: Any) -> None:
        """Quiet."""
