"""Registries for a soak, in one process: `python -m tests.bench.registries`.

It prints `ready URL URL URL URL`, in this order:

    good        every tag exists; manifests by tag and digest, a blob, a list of tags
    moving      what a tag points to is another manifest at each request
    hanging     as good, or says nothing for as long as PUT /__soak__/hang/1 was the last word
    lying       an outage page, a wrong digest, half an answer, a status, a loop of redirects, noise, in turn

One thread for all, because connections that hang cost it nothing. Ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Answering = Callable[[str, str], Awaitable[tuple[bytes, bool]]]  # the answer, and whether the connection stays

NAMES = ("good", "moving", "hanging", "lying")
RESOURCE = re.compile(r"/v2/(.+)/(manifests|blobs|tags)/([^/?]+)(\?.*)?", re.ASCII)
OCI = "application/vnd.oci.image.manifest.v1+json"
BLOB = bytes(512 * 1024)
BLOB_DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
BIG_BYTES = 2 << 20
HEAD_MAX = 64 * 1024


def manifest(name: str, tag: str, version: int = 0) -> bytes:
    """What a tag points to: about as long as a real one of six layers; of `big…` as long as few are."""
    layers = [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": "sha256:" + hashlib.sha256(f"{name}:{tag}:{version}:{number}".encode()).hexdigest(),
            "size": 1 << 20,
        }
        for number in range(6)
    ]
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 1470, "digest": BLOB_DIGEST}
    content = json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": config, "layers": layers}).encode()
    return content.ljust(BIG_BYTES) if tag.startswith("big") else content


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def answer(method: str, status: str, media_type: str, content: bytes, *more: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {media_type}", f"Content-Length: {len(content)}", *more, "", "")
    return "\r\n".join(lines).encode() + (content if method == "GET" else b"")


class Good:
    """Remembers what was asked for by tag, so that it is there by digest."""

    def __init__(self) -> None:
        self._by_digest: dict[str, bytes] = {}

    async def __call__(self, method: str, target: str) -> tuple[bytes, bool]:
        found = RESOURCE.fullmatch(target)
        if found is None:
            return answer(method, "404 Not Found", "application/json", b"{}"), True
        name, kind, reference, _ = found.groups()
        if kind == "tags":
            tags = json.dumps({"name": name, "tags": [f"w{number}" for number in range(50)]}).encode()
            return answer(method, "200 OK", "application/json", tags), True
        if kind == "blobs":
            return answer(method, "200 OK", "application/octet-stream", BLOB), True
        content = self._by_digest.get(reference) if ":" in reference else self.points_to(name, reference)
        if content is None:
            return answer(method, "404 Not Found", "application/json", b"{}"), True
        digest = sha256(content)
        if reference.startswith("w"):
            self._by_digest[digest] = content
        return answer(method, "200 OK", OCI, content, f"Docker-Content-Digest: {digest}"), True

    def points_to(self, name: str, tag: str) -> bytes:
        return manifest(name, tag)


class Moving(Good):
    def __init__(self) -> None:
        super().__init__()
        self._versions = itertools.count()

    def points_to(self, name: str, tag: str) -> bytes:
        return manifest(name, tag, next(self._versions))


class Hanging(Good):
    def __init__(self) -> None:
        super().__init__()
        self._answers = asyncio.Event()
        self._answers.set()

    async def __call__(self, method: str, target: str) -> tuple[bytes, bool]:
        if target.startswith("/__soak__/hang/"):
            if target.endswith("1"):
                self._answers.clear()
            else:
                self._answers.set()
            return answer("GET", "200 OK", "text/plain", b""), True
        await self._answers.wait()
        return await super().__call__(method, target)


class Lying:
    def __init__(self) -> None:
        content = manifest("lies", "1")
        lies = (
            (answer("GET", "200 OK", "text/html", b"<html><body>Sorry, we are down.</body></html>"), True),
            (answer("GET", "200 OK", OCI, content[:-9], f"Docker-Content-Digest: {sha256(content)}"), True),
            (answer("GET", "200 OK", OCI, content)[:-100], False),
            (answer("GET", "503 Service Unavailable", "text/plain", b"later"), True),
            (answer("GET", "307 Temporary Redirect", "text/plain", b"", "Location: /v2/lies/manifests/1"), True),
            (answer("GET", "307 Temporary Redirect", "text/plain", b"", "Location: http://169.254.169.254/"), True),
            (answer("GET", "429 Too Many Requests", "text/plain", b"", "Retry-After: 3"), True),
            (answer("GET", "200 OK", OCI, b"[" * 5000), True),
            (b"\x15\x03\x01\x00\x02\x02F\r\n\r\n", False),
            (b"", False),
        )
        self._lies = itertools.cycle(lies)

    async def __call__(self, method: str, _: str) -> tuple[bytes, bool]:
        content, stays = next(self._lies)
        return (content if method == "GET" else content.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"), stays


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, give: Answering) -> None:
    """Requests without a body, one after the other."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        stays = True
        while stays:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
            content, stays = await give(method, target)
            writer.write(content)
            await writer.drain()
    writer.close()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    urls: list[str] = []
    for give in (Good(), Moving(), Hanging(), Lying()):

        async def each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, give: Answering = give) -> None:
            await _converse(reader, writer, give)

        server = await asyncio.start_server(each, "127.0.0.1", 0, backlog=512, limit=HEAD_MAX)
        urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    sys.stdout.write(f"ready {' '.join(urls)}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
