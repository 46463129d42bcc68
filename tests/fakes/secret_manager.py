"""Secret Manager on loopback, as far as reading goes: `versions/N:access` over REST, in the real service's words.

    with FakeSecretManager() as manager:
        manager.add("projects/my-project/secrets/upstream", b"{…}")     # version 1, and the latest
        ... TLOGISTRY_SECRET_MANAGER_ENDPOINT=manager.url ...

Strict: anything but that one call, or a call with a token, which loopback must never see, fails the test when the block ends.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

ACCESS = re.compile(r"/v1/(projects/[^/]+/secrets/[^/]+)/versions/([0-9]+|latest):access", re.ASCII)
# google.rpc.Code and the HTTP status that it has over REST
ERRORS = {"NOT_FOUND": 404, "PERMISSION_DENIED": 403, "FAILED_PRECONDITION": 400, "UNAVAILABLE": 503, "INTERNAL": 500}


class FakeSecretManager:
    """Serves until the block ends. Everything may be changed while it serves."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.violations: list[str] = []
        self.error: str | None = None  # one of ERRORS, for every call
        self.raw: tuple[int, Mapping[str, str], bytes] | None = None  # status, headers and body, for every call
        self.hangs = False
        self.stopped = threading.Event()
        self._versions: dict[str, list[bytes | None]] = {}
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, secret: str, payload: bytes) -> int:
        """A new version. Returns its number."""
        versions = self._versions.setdefault(secret, [])
        versions.append(payload)
        return len(versions)

    def destroy(self, secret: str, version: int) -> None:
        """Its payload is gone; its number is not."""
        self._versions[secret][version - 1] = None

    def payload(self, secret: str, version: str) -> tuple[int, bytes | None] | None:
        """Number and payload; None for both is no such version, None for the payload a destroyed one."""
        versions = self._versions.get(secret, [])
        number = len(versions) if version == "latest" else int(version)
        return (number, versions[number - 1]) if 0 < number <= len(versions) else None

    def __enter__(self) -> Self:
        self._server.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.thread.join()
        self._server.server_close()
        if kind is None and self.violations:
            raise AssertionError("Secret Manager should not have seen: " + "; ".join(self.violations))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, manager: FakeSecretManager) -> None:
        self.manager = manager
        super().__init__(("127.0.0.1", 0), _Handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up has its reasons."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        manager = self.server.manager
        path = self.path.partition("?")[0]
        manager.requests.append(path)
        match = ACCESS.fullmatch(path)
        if match is None or "Authorization" in self.headers:
            manager.violations.append(f"{self.command} {self.path}")
        if manager.hangs:
            manager.stopped.wait()
            self.close_connection = True
        elif manager.raw is not None:
            self._answer(*manager.raw)
        elif manager.error is not None:
            self._error(manager.error, "on purpose")
        elif match is None:
            self._error("NOT_FOUND", "no such method")
        else:
            self._access(match[1], manager.payload(match[1], match[2]))

    def _access(self, secret: str, found: tuple[int, bytes | None] | None) -> None:
        if found is None:
            self._error("NOT_FOUND", f"Secret [{secret}] not found or has no versions.")
        elif found[1] is None:
            self._error("FAILED_PRECONDITION", f"Secret Version [{secret}/versions/{found[0]}] is in DESTROYED state.")
        else:
            payload = {"data": base64.b64encode(found[1]).decode()}
            self._answer(200, {}, json.dumps({"name": f"{secret}/versions/{found[0]}", "payload": payload}).encode())

    def _error(self, status: str, message: str) -> None:
        code = ERRORS[status]
        document = {"error": {"code": code, "message": message, "status": status}}
        self._answer(code, {}, json.dumps(document).encode())

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Quiet."""
