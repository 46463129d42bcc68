"""A registry and a metadata server that cost next to nothing: `python -m tests.bench.upstream`. It prints `ready URL`.

    HEAD, GET /v2/<name>/manifests/<any tag>    a small OCI manifest, made from name and tag: every tag exists
    GET /v2/<name>/manifests/<digest>           one that was asked for by tag before
    GET /v2/<name>/blobs/<digest>               zeros from a sparse file, through sendfile
    GET /, /computeMetadata/…                   what google-auth asks for an identity token; never delayed, as it is on the
                                                instance's own host
    PUT /__bench__/token/<token>                the identity token to hand out: one of the local Sigstore's
    PUT /__bench__/delay/<milliseconds>         every call to the registry takes so much longer from now on
    GET /__bench__/calls                        how many calls of each kind came, as JSON

Not `tests/fakes/registry.py`, which is strict and can misbehave, and for that costs more than what is measured here. Ends
when its standard input does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import IO

from lib.devsigstore.identity import EMAIL

HEAD_MAX = 16 * 1024  # bytes of a request
IDLE_S = 600.0  # a measurement may leave a connection alone for some minutes
RESOURCE = re.compile(r"/v2/(.+)/(manifests|blobs)/([^/]+)", re.ASCII)
FLAVOR = "Metadata-Flavor: Google\r\n"
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
LAYER_BYTES = 8 << 20
BIG_BYTES = 1 << 30


def zeros(size: int) -> str:
    """The digest of a blob of zeros."""
    made, block = hashlib.sha256(), bytes(1 << 20)
    for _ in range(size // len(block)):
        made.update(block)
    return f"sha256:{made.hexdigest()}"


def manifest(name: str, tag: str, layer: str) -> bytes:
    """What a tag points to: about as long as a real one of four layers."""
    layers = [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": layer
            if number == 0
            else "sha256:" + hashlib.sha256(f"{name}:{tag}:{number}".encode()).hexdigest(),
            "size": LAYER_BYTES,
        }
        for number in range(4)
    ]
    config = hashlib.sha256(f"{name}:{tag}".encode()).hexdigest()
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": f"sha256:{config}",
                "size": 1470,
            },
            "layers": layers,
        }
    ).encode()


class Registry(ThreadingTCPServer):
    """One thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.delay_s = 0.0
        self.token = b""
        self.calls: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.sizes = {zeros(size): size for size in (LAYER_BYTES, BIG_BYTES)}
        self.layer = next(iter(self.sizes))
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the process lives
        self.file.truncate(BIG_BYTES)
        self._by_tag: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._by_digest: dict[str, bytes] = {}

    def count(self, kind: str) -> None:
        with self.lock:
            self.calls[kind] += 1

    def manifest(self, name: str, reference: str) -> tuple[str, bytes] | None:
        """Digest and content."""
        if ":" in reference:
            content = self._by_digest.get(reference)
            return (reference, content) if content is not None else None
        found = self._by_tag.get((name, reference))
        if found is None:
            content = manifest(name, reference, self.layer)
            found = ("sha256:" + hashlib.sha256(content).hexdigest(), content)
            with self.lock:
                self._by_tag[(name, reference)] = found
                self._by_digest[found[0]] = content
        return found


class Connection(BaseRequestHandler):
    """Requests on one connection, one after the other, none with a body."""

    server: Registry
    request: socket.socket

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.settimeout(IDLE_S)
        left = b""
        try:
            while True:
                while b"\r\n\r\n" not in left:
                    more = self.request.recv(HEAD_MAX)
                    if not more or len(left) > HEAD_MAX:
                        return
                    left += more
                head, _, left = left.partition(b"\r\n\r\n")
                method, target, _version = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
                self._answer(method, target)
        except (ConnectionError, TimeoutError):
            return  # the other side has had enough

    def _answer(self, method: str, target: str) -> None:
        match = RESOURCE.fullmatch(target)
        if match is None:
            self._admin(method, target)
            return
        name, kind, reference = match.groups()
        what = "blob" if kind == "blobs" else "digest" if ":" in reference else "tag"
        self.server.count(f"{method} {what}")
        if self.server.delay_s:
            time.sleep(self.server.delay_s)
        if kind == "blobs":
            self._blob(method, reference)
            return
        found = self.server.manifest(name, reference)
        if found is None:
            self._send(404, "application/json", b"{}")
            return
        digest, content = found
        self._send(200, MEDIA_TYPE, content, f"Docker-Content-Digest: {digest}\r\n", body=method == "GET")

    def _blob(self, method: str, digest: str) -> None:
        size = self.server.sizes.get(digest)
        if size is None:
            self._send(404, "application/json", b"{}")
            return
        self.request.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        if method == "GET":
            self.request.sendfile(self.server.file, 0, size)

    def _metadata(self, target: str) -> None:
        self.server.count("identity token")
        if target == "/":
            self._send(200, "text/plain", b"computeMetadata/", FLAVOR)
        elif "/identity?" in target:
            self._send(200, "text/html", self.server.token, FLAVOR)
        else:
            account = {"aliases": ["default"], "email": EMAIL, "scopes": []}
            self._send(200, "application/json", json.dumps(account).encode(), FLAVOR)

    def _admin(self, method: str, target: str) -> None:
        if target == "/" or target.startswith("/computeMetadata/"):
            self._metadata(target)
        elif method == "PUT" and target.startswith("/__bench__/delay/"):
            self.server.delay_s = int(target.rpartition("/")[2]) / 1000
            self._send(200, "text/plain", b"")
        elif method == "PUT" and target.startswith("/__bench__/token/"):
            self.server.token = target.rpartition("/")[2].encode()
            self._send(200, "text/plain", b"")
        elif target == "/__bench__/calls":
            with self.server.lock:
                self._send(200, "application/json", json.dumps(self.server.calls).encode())
        else:
            self._send(404, "application/json", b"{}")

    def _send(self, status: int, media_type: str, content: bytes, more: str = "", *, body: bool = True) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {media_type}\r\nContent-Length: {len(content)}\r\n{more}\r\n"
        self.request.sendall(head.encode() + (content if body else b""))


def main() -> None:
    """Serve until the standard input ends."""
    with Registry() as registry:
        threading.Thread(target=registry.serve_forever, args=(0.05,), daemon=True).start()
        sys.stdout.write(f"ready http://127.0.0.1:{registry.server_address[1]}\n")
        sys.stdout.flush()
        while os.read(0, 4096):
            pass
        registry.shutdown()


if __name__ == "__main__":
    main()
