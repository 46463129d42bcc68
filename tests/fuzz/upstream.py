r"""Two registries for fuzzing: one that makes as little difference between names as it can, one that says what it is told.

    with Server(lenient("docker.io")) as server: …       every spelling of a few names is served, each with contents of its own
    with Server(script) as server: script.say([b"HTTP/1.1 200 OK\r\n…"])

The lenient one is the worst upstream for a service that must not see two tags where there is one: whatever two spellings it is
asked for, it serves the same. Not `tests/fakes/registry.py`, which is strict.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    Answering = Callable[
        [str, str], tuple[bytes, bool]
    ]  # method and target to the answer, and whether the connection stays

IDLE_S = 600.0
HEAD_MAX = 65_536
OCI = "application/vnd.oci.image.manifest.v1+json"
REPOSITORIES = frozenset({"library/alpine", "my-user/my-app", "a/b", "library/a"})
TAGS = frozenset({"1.0", "latest", "V1", "sha256-" + "a" * 64})
BLOB = b"a layer"


class Server:
    """Serves until the block ends."""

    def __init__(self, answer: Answering) -> None:
        class Handler(BaseRequestHandler):
            request: socket.socket

            def handle(self) -> None:
                _converse(self.request, answer)

        self._server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _converse(sock: socket.socket, answer: Answering) -> None:
    """Requests without a body, one after the other, until somebody has had enough."""
    sock.settimeout(IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    left, stays = b"", True
    try:
        while stays:
            while b"\r\n\r\n" not in left:
                more = sock.recv(HEAD_MAX)
                if not more or len(left) > HEAD_MAX:
                    return
                left += more
            head, _, left = left.partition(b"\r\n\r\n")
            method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
            content, stays = answer(method, rest.rpartition(" ")[0])
            sock.sendall(content)
    except OSError:
        return


def fold(path: str) -> str:
    """A name as a server reads it that decodes, folds case and resolves dots, all of it."""
    for _ in range(3):
        path = unquote(path)
    done: list[str] = []
    for segment in path.lower().replace("\\", "/").split("/"):
        if segment == "..":
            del done[-1:]
        elif segment.strip(" ."):
            done.append(segment.strip(" \t."))
    return "/".join(done)


def manifest(registry: str, repository: str, tag: str) -> bytes:
    """Another one for each name and tag: whoever gets the digest has been given that tag."""
    config = hashlib.sha256(f"{registry}/{repository}:{tag}".encode()).hexdigest()
    document = {"schemaVersion": 2, "mediaType": OCI, "config": {"digest": f"sha256:{config}", "size": 2}, "layers": []}
    return json.dumps(document).encode()


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def lenient(registry: str) -> Answering:
    """Tags in upper and lower case are two: so says the specification."""
    by_digest = {sha256(content): content for content in _contents(registry)}

    def answer(method: str, target: str) -> tuple[bytes, bool]:
        path = target.partition("?")[0]
        name, _, reference = path.rpartition("/")
        name, _, kind = name.rpartition("/")
        repository = fold(name).removeprefix("v2/")
        reference = unquote(unquote(reference)).strip()
        found: bytes | None = None
        if kind == "manifests":
            known = repository in REPOSITORIES and reference in TAGS
            found = manifest(registry, repository, reference) if known else by_digest.get(reference)
        elif kind == "tags":
            found = json.dumps({"name": repository, "tags": sorted(TAGS)}).encode()
        elif kind == "blobs" and reference == sha256(BLOB):
            found = BLOB
        if found is None:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", True
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {OCI}\r\nDocker-Content-Digest: {sha256(found)}\r\n"
        return f"{head}Content-Length: {len(found)}\r\n\r\n".encode() + (found if method == "GET" else b""), True

    return answer


def _contents(registry: str) -> list[bytes]:
    return [manifest(registry, repository, tag) for repository in REPOSITORIES for tag in TAGS]


class Script:
    """Answers that are given in turn, the last one again and again, and after each the connection ends."""

    def __init__(self) -> None:
        self._answers: list[bytes] = []
        self._lock = threading.Lock()

    def say(self, answers: list[bytes]) -> None:
        with self._lock:
            self._answers = answers

    def __call__(self, _: str, __: str) -> tuple[bytes, bool]:
        with self._lock:
            answer = self._answers[0]
            if len(self._answers) > 1:
                self._answers = self._answers[1:]
        return answer, False
