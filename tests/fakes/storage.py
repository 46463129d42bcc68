"""Where a registry keeps its blobs: an object store or CDN, on another host or its own, behind presigned URLs.

Strict: an Authorization is refused and fails the test, as S3 refuses a second way to authenticate; a URL is good for the
method that it was made for, which is part of what is signed.
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING

from tests.fakes.server import Fake, Handler, Server

if TYPE_CHECKING:
    from tests.fakes.faults import Fault


class Shelf:
    """Contents under request targets that nobody can guess."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bytes, str]] = {}
        self._lock = threading.Lock()

    def keep(self, prefix: str, content: bytes, method: str) -> str:
        """A presigned target for one method."""
        target = f"{prefix}/{secrets.token_hex(8)}/data?X-Amz-Signature={secrets.token_hex(16)}%2F%3D"
        with self._lock:
            self._kept[target] = (content, method)
        return target

    def kept(self, target: str, method: str) -> bytes | None:
        """What is there, for a target that is exactly the one given out."""
        with self._lock:
            content, signed = self._kept.get(target, (None, ""))
        return content if signed == method else None


class Storage(Fake):
    """A storage host of its own."""

    what = "storage"

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf()
        server = Server(self, _StorageHandler)
        self.servers = [server]
        self.base_url = f"http://127.0.0.1:{server.port}"


class StoredHandler(Handler):
    """Answers for what is on a shelf."""

    def stored(self, shelf: Shelf, fault: Fault | None) -> None:
        if "authorization" in self.seen.headers:
            self.server.fake.violation(f"{self.path}: an Authorization")
            self.answer(400, {}, b"<Error><Code>InvalidArgument</Code></Error>")
            return
        content = shelf.kept(self.path, self.command)
        if content is None:
            self.answer(403, {"Content-Type": "application/xml"}, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
            return
        self.give_part({"Content-Type": "application/octet-stream"}, content, fault)


class _StorageHandler(StoredHandler):
    def behave(self, fault: Fault | None) -> None:
        storage = self.server.fake
        assert isinstance(storage, Storage)
        self.stored(storage.shelf, fault)
