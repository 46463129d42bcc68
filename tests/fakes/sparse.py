"""A registry with blobs of many gigabytes that takes no room: sparse files, streamed with 200 by the registry itself.

    with SparseRegistry(folder) as registry:
        blob = registry.blob(3 << 30)
        registry.cut(at=1 << 30, how="reset")   # the next answer ends there
        ... registry.url, blob.digest, registry.sent, registry.streaming ...

A blob holds zeros and, every 16 MiB, its own offset. Its digest is made up: nobody here could read all of it only to hash it,
and what comes out is compared with the file. Not here: manifests and tokens.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import struct
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

Framing = Literal["length", "chunked"]
How = Literal["close", "reset"]
PIECE = 1 << 20
MARK_EVERY = 16 << 20
RESOURCE = re.compile(r"/v2/store/big/blobs/(sha256:[0-9a-f]{64})", re.ASCII)
RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.ASCII)


@dataclass(frozen=True)
class SparseBlob:
    """A file of this size, open for reading."""

    size: int
    digest: str
    file: int

    @property
    def path(self) -> str:
        """Where it is behind the service, if the registry is Docker Hub there."""
        return f"/v2/store/big/blobs/{self.digest}"


class SparseRegistry:
    """Serves on loopback until the block ends."""

    def __init__(self, folder: Path) -> None:
        self.framing: Framing = "length"
        self.refuse_head = False
        self.sent = 0  # bytes of bodies that were handed to the kernel
        self.streaming = 0  # answers under way
        self.ranges: list[str | None] = []
        self._folder = folder
        self._blobs: dict[str, SparseBlob] = {}
        self._cut: tuple[int, How] | None = None
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                match = RESOURCE.fullmatch(self.path)
                blob = outer._blobs.get(match[1]) if match is not None else None
                if blob is None or (outer.refuse_head and self.command == "HEAD"):
                    self.send_response(404 if blob is None else 403)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                outer._answer(self, blob)

            do_HEAD = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: Any) -> None:
                """Clients of ours hang up on purpose."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def blob(self, size: int) -> SparseBlob:
        """A blob of this many bytes."""
        digest = f"sha256:{hashlib.sha256(str(size).encode()).hexdigest()}"
        if digest not in self._blobs:
            path = self._folder / digest.replace(":", "-")
            with path.open("wb") as file:
                for offset in (*range(0, size - 8, MARK_EVERY), size - 8):
                    file.seek(offset)
                    file.write(struct.pack(">Q", offset + 1))
            self._blobs[digest] = SparseBlob(size, digest, os.open(path, os.O_RDONLY))
        return self._blobs[digest]

    def cut(self, at: int, how: How) -> None:
        """The next answer breaks off after this many bytes of its body."""
        self._cut = (at, how)

    def _answer(self, handler: BaseHTTPRequestHandler, blob: SparseBlob) -> None:
        etag = f'"{blob.digest}"'
        asked = handler.headers.get("Range")
        wanted = RANGE.fullmatch(asked or "") if handler.headers.get("If-Range") in {None, etag} else None
        self.ranges.append(asked)
        first, end = 0, blob.size
        if wanted is not None:
            first = int(wanted[1]) if wanted[1] else blob.size - int(wanted[2])
            end = min(int(wanted[2]) + 1, blob.size) if wanted[1] and wanted[2] else blob.size
        if first >= blob.size:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{blob.size}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(200 if wanted is None else 206)
        handler.send_header("ETag", etag)
        handler.send_header("Accept-Ranges", "bytes")
        if wanted is not None:
            handler.send_header("Content-Range", f"bytes {first}-{end - 1}/{blob.size}")
        if self.framing == "chunked" and handler.command == "GET":
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            handler.send_header("Content-Length", str(end - first))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        with self._lock:
            self.streaming += 1
        try:
            self._stream(handler, blob, first, end)
        finally:
            with self._lock:
                self.streaming -= 1

    def _stream(self, handler: BaseHTTPRequestHandler, blob: SparseBlob, first: int, end: int) -> None:
        cut, self._cut = self._cut, None
        stop = end if cut is None else min(end, first + cut[0])
        chunked = self.framing == "chunked"
        out, offset = handler.connection, first
        while offset < stop:
            count = min(PIECE, end - offset)  # a chunk's size is promised before it is known that it will be cut
            if chunked:
                out.sendall(b"%x\r\n" % count)
            until = min(offset + count, stop)
            while offset < until:
                sent = os.sendfile(out.fileno(), blob.file, offset, until - offset)
                offset += sent
                with self._lock:
                    self.sent += sent
            if chunked and (cut is None or offset < stop):
                out.sendall(b"\r\n")
        if cut is None:
            if chunked:
                out.sendall(b"0\r\n\r\n")
            return
        handler.close_connection = True
        if cut[1] == "reset":
            out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            out.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for blob in self._blobs.values():
            os.close(blob.file)
