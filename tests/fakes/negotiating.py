"""A registry whose answer depends on Accept, as Docker Hub's once did and others' still do (distribution#2395).

Every repository has every tag, in five forms at once: a schema-1 manifest, a Docker and an OCI manifest, a Docker list and an
OCI index. By tag the first form that the client names decides, and schema 1 is for those who name none (distribution-spec,
"content-negotiation.md"). By digest a form that the client does not accept is 404, as distribution answers ("OCI index found,
but accept header does not support OCI indexes").

    with NegotiatingRegistry() as registry: registry.url; registry.accepts; registry.move(OCI_INDEX)
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from lib.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
RESOURCE = re.compile(r"/v2/[a-z0-9/._-]+/manifests/([^/]+)", re.ASCII)


class NegotiatingRegistry:
    """Serves on loopback until the block ends. `accepts` holds the Accept lines of each request."""

    def __init__(self) -> None:
        self.accepts: list[tuple[str, ...]] = []
        self._forms: dict[str, bytes] = {}
        self._turn = 0
        for media_type in (SCHEMA_1, DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_LIST, OCI_INDEX):
            self.move(media_type)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                match = RESOURCE.fullmatch(self.path)
                accept = tuple(self.headers.get_all("Accept", []))
                outer.accepts.append(accept)
                media_type = outer.choice(accept, match[1]) if match is not None else None
                content = outer.content(media_type) if media_type is not None else b'{"errors": []}'
                self.send_response(404 if media_type is None else 200)
                self.send_header("Content-Type", media_type or "application/json")
                if media_type is not None:
                    self.send_header("Docker-Content-Digest", digest(content))
                self.send_header("Vary", "Accept")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)
                self.wfile.flush()

            do_HEAD = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def content(self, media_type: str) -> bytes:
        return self._forms[media_type]

    def move(self, media_type: str) -> None:
        """Let every tag have another content in this one form."""
        self._turn += 1
        document: dict[str, object]
        if media_type == SCHEMA_1:
            document = {"schemaVersion": 1, "name": "x", "tag": str(self._turn), "fsLayers": [], "history": []}
        elif media_type in {OCI_INDEX, DOCKER_LIST}:
            document = {
                "schemaVersion": 2,
                "mediaType": media_type,
                "manifests": [],
                "annotations": {"n": str(self._turn)},
            }
        else:
            config = {"mediaType": "application/octet-stream", "size": self._turn, "digest": "sha256:" + "0" * 64}
            document = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": []}
        self._forms[media_type] = json.dumps(document, indent=3).encode()

    def choice(self, accept: Sequence[str], reference: str) -> str | None:
        """The form that a client gets."""
        named = [part.partition(";")[0].strip().lower() for line in accept for part in line.split(",")]
        if ":" in reference:
            by_digest = {digest(content): media_type for media_type, content in self._forms.items()}
            media_type = by_digest.get(reference)
            return media_type if media_type in named else None
        return next((media_type for media_type in named if media_type in self._forms), SCHEMA_1)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
