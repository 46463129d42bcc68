"""The clients of a soak: what each kind asks for, what it expects, and what is kept of the answers."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from lib.oci.manifest import ACCEPT
from tests.bench.registries import BLOB, BLOB_DIGEST, manifest, sha256

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

WARM_TAGS = 50
TIMEOUT_S = 60.0
DROPPED = (http.client.RemoteDisconnected, ConnectionError)  # a kept connection that was idle for too long
OK, MOVED = 200, 403


class Sample(NamedTuple):
    """Of the service, so many seconds after the start."""

    at: float
    mb: float
    descriptors: int
    hanging: bool


class Seen(NamedTuple):
    """One answer: how long after the start, of which kind, how long it took, and whether an upstream was hanging."""

    at: float
    kind: str
    ms: float
    hanging: bool


@dataclass(slots=True)
class Results:
    """Everything that was seen. Lists are appended to from every thread, which is one step for the interpreter."""

    seconds: float
    seen: list[Seen] = field(default_factory=list)
    unexpected: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    recorded: dict[str, str] = field(default_factory=dict)  # the digest under which a tag that moves was served
    lock: threading.Lock = field(default_factory=threading.Lock)

    def surprise(self, what: str) -> None:
        with self.lock:
            self.unexpected[what] += 1

    def warm(self, *, hanging: bool) -> tuple[float, ...]:
        return tuple(one.ms for one in self.seen if one.kind == "warm tag" and one.hanging == hanging)


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes
    ms: float


class Caller:
    """One kept connection to the service."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)

    def ask(self, method: str, path: str) -> Reply:
        for last in (False, True):
            started = time.perf_counter()
            try:
                self._connection.request(method, path, headers={"Accept": ACCEPT})
                response = self._connection.getresponse()
                body = response.read()
            except DROPPED:
                self._connection.close()
                if last:
                    raise
            else:
                headers = {name.lower(): value for name, value in response.getheaders()}
                return Reply(response.status, headers, body, (time.perf_counter() - started) * 1000)
        raise AssertionError

    def close(self) -> None:
        self._connection.close()


class Kind(NamedTuple):
    """`ask` says what was wrong with the answer, or nothing. `pause_s`: between two requests of one client, about."""

    name: str
    clients: int
    pause_s: float
    ask: Callable[[Caller, random.Random, Results], tuple[Reply, str | None]]


def _warm(caller: Caller, rng: random.Random, _: Results) -> tuple[Reply, str | None]:
    tag = f"w{rng.randrange(WARM_TAGS)}"
    method = rng.choice(("HEAD", "GET"))
    reply = caller.ask(method, f"/v2/library/soak/manifests/{tag}")
    return reply, _expected(reply, manifest("library/soak", tag) if method == "GET" else None)


def _new(caller: Caller, rng: random.Random, results: Results) -> tuple[Reply, str | None]:
    tag = f"n{rng.getrandbits(60):x}"
    reply = caller.ask("GET", f"/v2/library/soak/manifests/{tag}")
    wrong = _expected(reply, manifest("library/soak", tag))
    if wrong is None and "tlog-first-seen" not in reply.headers:
        wrong = "a new tag that was seen before"
    return reply, wrong


def _by_digest(caller: Caller, rng: random.Random, _: Results) -> tuple[Reply, str | None]:
    content = manifest("library/soak", f"w{rng.randrange(WARM_TAGS)}")
    reply = caller.ask("GET", f"/v2/library/soak/manifests/{sha256(content)}")
    return reply, _expected(reply, content)


def _blob(caller: Caller, _: random.Random, __: Results) -> tuple[Reply, str | None]:
    reply = caller.ask("GET", f"/v2/library/soak/blobs/{BLOB_DIGEST}")
    return reply, _expected(reply, BLOB)


def _list(caller: Caller, rng: random.Random, _: Results) -> tuple[Reply, str | None]:
    reply = caller.ask("GET", f"/v2/library/soak/tags/list?n={rng.randrange(1, 40)}")
    return reply, _expected(reply, None)


def _moved(caller: Caller, rng: random.Random, results: Results) -> tuple[Reply, str | None]:
    """Refused, but for the first sighting and whoever was given the same answer of the upstream."""
    tag = f"w{rng.randrange(5)}"
    reply = caller.ask("GET", f"/v2/moving.example/soak/manifests/{tag}")
    if reply.status == OK:
        with results.lock:
            recorded = results.recorded.setdefault(tag, sha256(reply.body))
        return reply, None if recorded == sha256(reply.body) else "two digests under one tag"
    refused = reply.status == MOVED and json.loads(reply.body)["errors"][0]["code"] == "TAG_INVALID"
    return reply, None if refused else f"{reply.status}"


def _hanging(caller: Caller, rng: random.Random, _: Results) -> tuple[Reply, str | None]:
    tag = f"w{rng.randrange(10)}"
    reply = caller.ask("GET", f"/v2/hanging.example/soak/manifests/{tag}")
    if reply.status in {429, 503}:
        return reply, None
    return reply, _expected(reply, manifest("soak", tag))


def _lying(caller: Caller, rng: random.Random, _: Results) -> tuple[Reply, str | None]:
    """Nothing that it says may ever be served, or be taken for a tag that moved."""
    reply = caller.ask(rng.choice(("GET", "HEAD")), f"/v2/lying.example/lies/manifests/w{rng.randrange(10)}")
    return reply, f"{reply.status}" if reply.status in {OK, MOVED, 500} else None


KINDS = (
    Kind("warm tag", 36, 0.25, _warm),
    Kind("new tag", 6, 2.0, _new),
    Kind("by digest", 8, 0.5, _by_digest),
    Kind("blob", 6, 1.0, _blob),
    Kind("tags list", 4, 1.0, _list),
    Kind("moved tag", 4, 1.0, _moved),
    Kind("hanging upstream", 12, 0.5, _hanging),
    Kind("lying upstream", 4, 0.5, _lying),
)


def _expected(reply: Reply, content: bytes | None) -> str | None:
    """200, and these very bytes."""
    if reply.status != OK:
        return f"{reply.status}"
    if content is not None and hashlib.sha256(reply.body).digest() != hashlib.sha256(content).digest():
        return "other bytes"
    return None
