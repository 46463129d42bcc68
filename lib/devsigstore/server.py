"""All services of the local Sigstore on one loopback port: Fulcio, Rekor v1, metadata, and our admin paths."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import os
import re
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lib.devsigstore import entries
from lib.devsigstore.authority import Authority
from lib.devsigstore.faults import Faults
from lib.devsigstore.identity import EMAIL, ISSUER, Issuer, TokenInvalid, metadata
from lib.devsigstore.log import Exists, Log
from lib.devsigstore.state import State
from lib.devsigstore.trust import client_trust_config

if TYPE_CHECKING:
    from pathlib import Path

HOST = "127.0.0.1"
HANG_S = 60.0
BODY_MAX_BYTES = 4 * 1024 * 1024
UUID = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{80}", re.ASCII)
HASH = re.compile(r"(?:sha512:)?[0-9a-fA-F]{128}|(?:sha256:)?[0-9a-fA-F]{64}|(?:sha1:)?[0-9a-fA-F]{40}", re.ASCII)
HASH_RULE = "^(sha512:)?[0-9a-fA-F]{128}$|^(sha256:)?[0-9a-fA-F]{64}$|^(sha1:)?[0-9a-fA-F]{40}$"
LOST = -1  # a status: the work is done, and the connection is cut instead of an answer
REKOR_METHODS = {
    "/api/v1/log": "GET",
    "/api/v1/log/publicKey": "GET",
    "/api/v1/log/proof": "GET",
    "/api/v1/log/entries": "GET,POST",
    "/api/v1/log/entries/retrieve": "POST",
    "/api/v1/index/retrieve": "POST",
}


class Reply(NamedTuple):
    """One answer; None as a body is no body at all."""

    status: int
    headers: dict[str, str]
    body: bytes


def _json(status: int, value: Any, **headers: str) -> Reply:  # noqa: ANN401 - any JSON
    return Reply(status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode() + b"\n")


def _refused(status: int, message: str, code: int | None = None, **headers: str) -> Reply:
    return _json(status, {"code": code or status, "message": message}, **headers)


class DevSigstore:
    """The server. NOT FOR PRODUCTION."""

    def __init__(self, folder: Path, *, host: str = HOST, port: int | None = None, email: str = EMAIL, faults: str = "") -> None:
        """Bind and load or make the state in `folder`; `port` None prefers the one used before.

        Raises ValueError for an address that is not loopback or an unknown fault, OSError, sqlite3.Error.
        """
        if not ipaddress.ip_address(host).is_loopback:
            msg = f"the local Sigstore is NOT FOR PRODUCTION and serves loopback only, not {host}"
            raise ValueError(msg)
        self.faults = Faults(faults)
        self.email = email
        self.calls: Counter[str] = Counter()
        self._folder = folder
        self._state = State(folder / "log.sqlite")
        self.authority = Authority(self._state)
        self.issuer = Issuer(self._state)
        self.log = Log(self._state, self.faults)
        self._server = self._bind(host, port)
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="devsigstore", daemon=True
        )
        self._write_trust()

    def _bind(self, host: str, port: int | None) -> ThreadingHTTPServer:
        class Handler(_Handler):
            dev = self

        preferred = port if port is not None else int(self._state.setting("port", lambda: b"0"))
        try:
            server = _Server((host, preferred), Handler)
        except OSError:
            if port is not None:
                raise
            server = _Server((host, 0), Handler)
        self._state.keep("port", str(server.server_address[1]).encode())
        return server

    def _write_trust(self) -> None:
        """Whole or not at all: another process may be reading it."""
        text = json.dumps(client_trust_config(self.url, self.authority, self.log), indent=1)
        path = self._folder / "trust-config.json"
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(text)
        fresh.replace(path)

    def environment(self) -> dict[str, str]:
        """The settings of a service that uses this Sigstore."""
        address = self.url.removeprefix("http://")
        return {
            "TLOGISTRY_TRUST": str((self._folder / "trust-config.json").absolute()),
            "TLOGISTRY_IDENTITIES": json.dumps([{"email": self.email, "issuer": ISSUER}]),
            "GCE_METADATA_HOST": address,
            "GCE_METADATA_IP": address,
        }

    def start(self) -> None:
        """Serve in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End, and let go of everything."""
        self._stopping.set()
        self.faults.set("")
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._state.close()

    def __enter__(self) -> DevSigstore:
        """Start, for a block."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def answer(self, handler: _Handler, method: str, target: str, body: bytes) -> Reply:
        """Route one request."""
        path, query = urlsplit(target).path, urlsplit(target).query
        if path.startswith("/__dev__/"):
            return self._admin(method, path, body)
        if self.faults.delay_s:
            time.sleep(self.faults.delay_s)
        if path.startswith("/api/v1/"):
            return self._rekor(handler, method, path.removesuffix("/"), query, body)
        if path.startswith("/api/v2/"):
            return self._fulcio(handler, method, path, body)
        self.calls["metadata"] += 1
        if "metadata:before" in self.faults:
            return Reply(500, {}, b"")
        return Reply(*metadata(self.issuer, self.email, path, query, handler.headers.get("Metadata-Flavor")))

    def _admin(self, method: str, path: str, body: bytes) -> Reply:
        if path == "/__dev__/calls" and method == "GET":
            return _json(200, dict(self.calls))
        if path == "/__dev__/fault" and method in {"GET", "PUT"}:
            if method == "PUT":
                try:
                    self.faults.set(body.decode())
                except ValueError as error:
                    return _refused(400, str(error))
            return Reply(200, {"Content-Type": "text/plain"}, str(self.faults).encode())
        return _refused(404, f"path {path} was not found")

    def _fulcio(self, handler: _Handler, method: str, path: str, body: bytes) -> Reply:
        if path == "/api/v2/trustBundle" and method == "GET":
            chain = [self.authority.intermediate, self.authority.root]
            pem = [one.public_bytes(serialization.Encoding.PEM).decode() for one in chain]
            return _json(200, {"chains": [{"certificates": pem}]})
        if path != "/api/v2/signingCert":
            return _json(404, {"code": 5, "message": "Not Found", "details": []})
        if method != "POST":
            return _json(501, {"code": 12, "message": "Method Not Allowed", "details": []})
        self.calls["certificate"] += 1
        if "fulcio:before" in self.faults:
            return _json(500, {"code": 13, "message": "error signing certificate", "details": []})
        self.faults.hold("fulcio:hang", HANG_S)
        try:
            asked = json.loads(body)
        except ValueError:
            return _json(400, {"code": 3, "message": "unexpected EOF", "details": []})
        credentials = asked.get("credentials") or {}
        bearer = (handler.headers.get("Authorization") or "").removeprefix("Bearer ")
        try:
            claims = self.issuer.verify(bearer or str(credentials.get("oidcIdentityToken", "")))
        except TokenInvalid:
            return _json(400, {"code": 3, "message": "There was an error processing the identity token", "details": []})
        try:
            request = x509.load_pem_x509_csr(base64.b64decode(asked["certificateSigningRequest"], validate=True))
        except (ValueError, KeyError, TypeError):
            return _json(400, {"code": 3, "message": "The public key supplied in the request could not be parsed", "details": []})
        if not request.is_signature_valid:
            message = "The signature supplied in the request could not be verified"
            return _json(400, {"code": 3, "message": message, "details": []})
        return _json(200, {"signedCertificateEmbeddedSct": {"chain": {"certificates": self.authority.issue(request, claims)}}})

    def _rekor(self, handler: _Handler, method: str, path: str, query: str, body: bytes) -> Reply:
        by_uuid = path.startswith("/api/v1/log/entries/") and path != "/api/v1/log/entries/retrieve"
        allowed = "GET" if by_uuid else REKOR_METHODS.get(path)
        if allowed is None:
            return _refused(404, f"path {path} was not found")
        if method not in allowed.split(","):
            return _refused(405, f"method {method} is not allowed, but [{allowed}] are", Allow=allowed)
        if method == "POST" and not (handler.headers.get("Content-Type") or "").startswith("application/json"):
            kind = handler.headers.get("Content-Type") or ""
            return _refused(415, f'unsupported media type "{kind}", only [application/json] are allowed')
        if method == "GET":
            return self._read(path, parse_qs(query), path.rpartition("/")[2] if by_uuid else None)
        try:
            asked = json.loads(body) if body else None
        except ValueError:
            return _refused(400, 'parsing query body from "" failed, because unexpected EOF')
        match path:
            case "/api/v1/index/retrieve":
                self.calls["index"] += 1
                return self._search(asked)
            case "/api/v1/log/entries/retrieve":
                self.calls["retrieve"] += 1
                return self._retrieve(asked)
        return self._append(handler, asked)

    def _read(self, path: str, query: dict[str, list[str]], uuid: str | None) -> Reply:
        self.calls["read"] += 1
        found: dict[str, Any] | None
        if uuid is not None:
            if UUID.fullmatch(uuid) is None:
                return _refused(422, "entryUUID in path should match '^([0-9a-fA-F]{64}|[0-9a-fA-F]{80})$'", 605)
            found = self.log.by_uuid(uuid.lower())
        elif path == "/api/v1/log/entries":
            if not re.fullmatch(r"[0-9]{1,18}", query.get("logIndex", [""])[0], re.ASCII):
                return _refused(422, "logIndex in query is required", 602)
            found = self.log.by_position(int(query["logIndex"][0]))
        elif path == "/api/v1/log":
            found = self.log.info()
        elif path == "/api/v1/log/publicKey":
            pem = self.log.key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            return Reply(200, {"Content-Type": "application/x-pem-file"}, pem)
        else:
            sizes = [query.get(name, ["1"])[0] for name in ("firstSize", "lastSize")]
            if not all(re.fullmatch(r"[0-9]{1,18}", size, re.ASCII) for size in sizes):
                return _refused(422, "lastSize in query is required", 602)
            found = self.log.proof(int(sizes[0]), int(sizes[1]))
            if found is None:
                return _refused(400, f"firstSize {sizes[0]} and lastSize {sizes[1]} are not sizes of this log")
        return _json(200, found) if found is not None else Reply(404, {}, b"")

    def _search(self, asked: Any) -> Reply:  # noqa: ANN401 - JSON
        if "index:before" in self.faults:
            return _refused(500, "error searching the index")
        if not isinstance(asked, dict):
            return _refused(422, "query in body is required", 602)
        keys = []
        if "hash" in asked:
            if not isinstance(asked["hash"], str) or HASH.fullmatch(asked["hash"]) is None:
                return _refused(422, f"hash in body should match '{HASH_RULE}'", 605)
            text = asked["hash"].lower()
            keys.append(text if ":" in text else {64: "sha256:", 128: "sha512:", 40: "sha1:"}[len(text)] + text)
        keys.extend(str(asked[name]).lower() for name in ("email", "subject") if name in asked)
        return _json(200, self.log.search(keys, every=asked.get("operator") == "and"))

    def _retrieve(self, asked: Any) -> Reply:  # noqa: ANN401 - JSON
        if not isinstance(asked, dict):
            return _refused(422, "entry in body is required", 602)
        uuids, indexes = asked.get("entryUUIDs"), asked.get("logIndexes")
        for name, items in (("entryUUIDs", uuids), ("logIndexes", indexes)):
            if items is not None and not items:
                return _refused(422, f"{name} in body should have at least 1 items", 612)
            if items is not None and len(items) > 10:  # noqa: PLR2004 - Rekor's own limit
                return _refused(422, f"{name} in body should have at most 10 items", 611)
        if len(uuids or ()) + len(indexes or ()) > 10:  # noqa: PLR2004 - Rekor's own limit
            return _refused(422, "more than max allowed 10 entries in request")
        if not all(isinstance(uuid, str) and UUID.fullmatch(uuid) for uuid in uuids or ()):
            return _refused(422, "entryUUIDs in body should match '^([0-9a-fA-F]{64}|[0-9a-fA-F]{80})$'", 605)
        if "retrieve:missing" in self.faults:
            return _json(200, [])
        whole = sorted(uuids or (), key=lambda uuid: len(uuid) != 80)  # noqa: PLR2004 - whole ids come first
        found = [self.log.by_uuid(uuid.lower()) for uuid in whole]
        found += [self.log.by_position(index) for index in indexes or ()]
        return _json(200, [entry for entry in found if entry is not None])

    def _append(self, handler: _Handler, asked: Any) -> Reply:  # noqa: ANN401 - JSON
        for name in ("kind", "apiVersion", "spec"):
            if not isinstance(asked, dict) or name not in asked:
                return _refused(422, f"{name} in body is required", 602)
        if asked["kind"] not in {"dsse", "intoto"}:
            return _refused(422, f'invalid kind value: "{asked["kind"]}"')
        self.calls["append" if asked["kind"] == "dsse" else "copy"] += 1
        if "log:before" in self.faults or ("copy:before" in self.faults and asked["kind"] == "intoto"):
            return _refused(500, "error communicating with the log backend")
        try:
            proposed = entries.parse(asked["kind"], str(asked["apiVersion"]), asked["spec"])
            uuid, entry, position = self.log.append(proposed)
        except entries.EntryInvalid as error:
            return _refused(400, str(error))
        except Exists as known:
            message = f"an equivalent entry already exists in the transparency log with UUID {known}"
            return _refused(409, message, Location=f"/api/v1/log/entries/{known}")
        if "log:late" in self.faults:
            self.faults.hold("log:late", HANG_S)
            if handler.given_up() or self._stopping.is_set():
                return Reply(LOST, {}, b"")  # Rekor indexes in the request that added the leaf, and it is gone
        self.log.index(position, proposed.keys)
        if "log:after" in self.faults:
            return Reply(LOST, {}, b"")
        return _json(201, {uuid: entry}, Location=f"/api/v1/log/entries/{uuid}", Etag=uuid)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    dev: DevSigstore
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # unbuffered writes cost 40 ms each through delayed ACKs (gcp-facts 10)
    disable_nagle_algorithm = True
    timeout = 75

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_MAX_BYTES:
            self.send_error(413)
            self.close_connection = True
            return
        reply = self.dev.answer(self, self.command, self.path, self.rfile.read(length))
        if reply.status == LOST:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)
        self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815 - http.server's names

    def given_up(self) -> bool:
        """Whether the client has closed its side."""
        try:
            self.connection.settimeout(0)
            return self.connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.connection.settimeout(self.timeout)

    def version_string(self) -> str:
        return "tlogistry-dev-sigstore NOT-FOR-PRODUCTION"

    def log_message(self, *_: Any) -> None:
        """Quiet: `make run` shows one line for each pull."""
