"""The local Sigstore as one object: state, services and an HTTP server on one loopback port. NOT FOR PRODUCTION."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lib.devsigstore.authority import Authority
from lib.devsigstore.faults import HOLD_S, Calls, Faults
from lib.devsigstore.fulcio import FulcioApi
from lib.devsigstore.identity import EMAIL, ISSUER, Issuer, MetadataApi
from lib.devsigstore.log import Log
from lib.devsigstore.rekor import RekorApi
from lib.devsigstore.reply import LOST, Reply, Request
from lib.devsigstore.state import State
from lib.devsigstore.trust import client_trust_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

HOST = "127.0.0.1"
IDLE_S = 75.0  # seconds that a kept-alive connection may rest, and one read may take
BODY_MAX_BYTES = 4 * 1024 * 1024


class DevSigstore:
    """The server. NOT FOR PRODUCTION."""

    def __init__(  # noqa: PLR0913 - each has a default that fits
        self,
        folder: Path,
        *,
        host: str = HOST,
        port: int | None = None,
        email: str = EMAIL,
        faults: str = "",
        hold_s: float = HOLD_S,
    ) -> None:
        """Bind and load or make the state in `folder`, which must exist; `port` None prefers the one used before.

        `email` is whom the metadata server's tokens are for; `hold_s` how long too late an answer is, in seconds.
        Raises ValueError for an address that is not loopback or an unknown fault, OSError, sqlite3.Error.
        """
        if not ipaddress.IPv4Address(host).is_loopback:
            msg = f"the local Sigstore is NOT FOR PRODUCTION and serves loopback only, not {host}"
            raise ValueError(msg)
        self.faults = Faults(faults, hold_s)
        self.calls = Calls()
        self.email = email
        self._folder = folder
        self._state = State(folder / "log.sqlite")
        try:
            self.authority = Authority(self._state)
            self.issuer = Issuer(self._state)
            self.log = Log(self._state, self.faults)
            self._rekor = RekorApi(self.log, self.faults, self.calls)
            self._fulcio = FulcioApi(self.authority, self.issuer, self.faults, self.calls)
            self._metadata = MetadataApi(self.issuer, email, self.faults, self.calls)
            self._server = self._bind(host, port)
            self.url = f"http://{host}:{self._server.server_port}"
            self._write_trust()
        except BaseException:
            if hasattr(self, "_server"):
                self._server.server_close()
            self._state.close()
            raise
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.05,), name="devsigstore", daemon=True)

    def _bind(self, host: str, port: int | None) -> _Server:
        preferred = port if port is not None else int(self._state.setting("port", lambda: b"0"))
        try:
            server = _Server((host, preferred), self.answer)
        except OSError:
            if port is not None:
                raise
            server = _Server((host, 0), self.answer)
        self._state.keep("port", str(server.server_port).encode())
        return server

    def _write_trust(self) -> None:
        """Whole or not at all: another process may be reading it."""
        text = json.dumps(client_trust_config(self.url, self.authority, self.log), indent=1)
        path = self._folder / "trust-config.json"
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(text)
        fresh.replace(path)

    def environment(self, email: str | None = None) -> dict[str, str]:
        """The settings of a service that uses this Sigstore, as the usual identity or as `email`."""
        address = self.url.removeprefix("http://")
        return {
            "TLOGISTRY_TRUST": str((self._folder / "trust-config.json").absolute()),
            "TLOGISTRY_IDENTITIES": json.dumps([{"email": email or self.email, "issuer": ISSUER}]),
            "GCE_METADATA_HOST": f"{address}/__dev__/as/{email}" if email else address,
            "GCE_METADATA_IP": address,
        }

    def token(self, email: str | None = None, **how: Any) -> str:  # noqa: ANN401 - as Issuer.token
        """An identity token for the usual identity or another one; `audience` and `life_s` as `Issuer.token`."""
        return self.issuer.token(email or self.email, **how)

    def start(self) -> None:
        """Serve in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End, cut connections, and let go of everything."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.cut()
        self.faults.set("")
        self._state.close()

    def __enter__(self) -> Self:
        """Start, for a block."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def answer(self, request: Request) -> Reply:
        """Route one request to its service."""
        path = request.path
        if path in {"/__dev__/fault", "/__dev__/calls"}:
            return self._admin(request)
        if self.faults.delay_s:
            time.sleep(self.faults.delay_s)
        if path.startswith("/api/v1/"):
            return self._rekor.answer(request)
        if path.startswith("/api/v2/"):
            return self._fulcio.answer(request)
        return self._metadata.answer(request)

    def _admin(self, request: Request) -> Reply:
        if request.path == "/__dev__/calls" and request.method == "GET":
            return Reply.json(200, dict(self.calls))
        if request.path == "/__dev__/fault" and request.method in {"GET", "PUT"}:
            if request.method == "PUT":
                try:
                    self.faults.set(request.body.decode())
                except ValueError as error:
                    return Reply.json(400, {"code": 400, "message": str(error)})
            return Reply.text(200, str(self.faults), "text/plain")
        return Reply.json(405, {"code": 405, "message": f"{request.method} is not for {request.path}"})


class _Server(ThreadingHTTPServer):
    """Threads, and knows its connections, so that stopping ends those that are kept alive, too."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], answer: Callable[[Request], Reply]) -> None:
        self.answer = answer
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ending = False
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # not HTTPServer's: it asks DNS for a name, which can take seconds
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment] # IPv4: text and number

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._lock:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - socketserver's
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        with self._lock:
            self._ending = True
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        """A client that went away is no news, nor is work left at the end; all else is a bug: show it."""
        if not self._ending and not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # unbuffered writes cost 40 ms each through delayed ACKs
    disable_nagle_algorithm = True
    timeout = IDLE_S

    def _serve(self) -> None:
        length = self.headers.get("Content-Length") or "0"
        if not (length.isascii() and length.isdecimal()) or "Transfer-Encoding" in self.headers:
            return self._refuse(411)
        if int(length) > BODY_MAX_BYTES:
            return self._refuse(413)
        target = urlsplit(self.path)
        body = self.rfile.read(int(length))
        reply = self.server.answer(Request(self.command, target.path, target.query, self.headers, body, self._given_up))
        if reply.status == LOST:
            self.close_connection = True
            return None
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)
        return None

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815 - http.server's names

    def _refuse(self, status: int) -> None:
        """Without reading the body, so the connection ends."""
        self.close_connection = True
        self.send_error(status)

    def _given_up(self) -> bool:
        """Whether the client has closed its side."""
        try:
            self.connection.settimeout(0)
            return len(self.connection.recv(1, socket.MSG_PEEK)) == 0
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            with contextlib.suppress(OSError):
                self.connection.settimeout(self.timeout)

    def version_string(self) -> str:
        return "tlogistry-dev-sigstore NOT-FOR-PRODUCTION"

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 - http.server's
        """Quiet: `make run` shows one line for each pull."""
