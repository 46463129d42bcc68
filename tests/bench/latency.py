"""How long one request takes, through the service and directly, in turns; and which calls it makes.

Direct and proxied requests take turns (ABAB…), so that whatever else the machine does meets both alike. Every call to the
upstream and to the log takes DELAY_MS more than it would on loopback.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.client import Client
from tests.bench.direct import Direct
from tests.bench.programs import Function

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.bench.programs import Sigstore, Upstream

DELAY_MS = 20
NAME = "bench/app"
UPSTREAM = ("HEAD ", "GET ")
RECORDED = "v1"
TURNS = 150
WARM_UP = 10
FIRST_TURNS = 50
WARM_S = 1.0  # seconds between its first answer and its first sighting
FRESH_TURNS = 12  # each starts a function of its own
FLOOR = "HEAD through a proxy that checks nothing"
HEAD = "HEAD by a recorded tag"
GET = "GET by a recorded tag"
BY_DIGEST = "GET by digest"
FIRST_HELD = "first sighting, certificate held"
FIRST_FRESH = "first sighting of a new instance"


def path(reference: str) -> str:
    """Of a manifest."""
    return f"/v2/{NAME}/manifests/{reference}"


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of request. Times in milliseconds; calls are those of one request through the service."""

    name: str
    direct: tuple[float, ...]
    proxied: tuple[float, ...]
    upstream_calls: Mapping[str, float]
    log_calls: Mapping[str, float]

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return percentile(self.proxied, 50) / percentile(self.direct, 50)


def percentile(times: tuple[float, ...], percent: int) -> float:
    """The smallest time that at least so many percent do not exceed."""
    return sorted(times)[max(0, -(-len(times) * percent // 100) - 1)]


class Latencies:
    """Measures rows against servers that run, with the delay on."""

    def __init__(self, upstream: Upstream, sigstore: Sigstore, service: Function) -> None:
        self._upstream = upstream
        self._sigstore = sigstore
        self._direct = Client(upstream.url)
        self._proxied = Client(service.url)
        self._log = Direct(upstream.url, sigstore.url)
        self._numbers = iter(range(1_000_000))

    def floor(self, relay: Function) -> Row:
        """A HEAD through a proxy that checks nothing, under the same framework."""
        with closing(Client(relay.url)) as client:
            return self._plain(client, FLOOR, "HEAD", RECORDED, "HEAD tag")

    def head(self) -> Row:
        return self._plain(self._proxied, HEAD, "HEAD", RECORDED, "HEAD tag")

    def get(self) -> Row:
        return self._plain(self._proxied, GET, "GET", RECORDED, "GET tag")

    def by_digest(self) -> Row:
        digest = self._direct.ask("HEAD", path(RECORDED)).headers["docker-content-digest"]
        return self._plain(self._proxied, BY_DIGEST, "GET", digest, "GET digest")

    def first_held(self) -> Row:
        """First sightings, one after the other: all but the first find a certificate that is held."""

        def direct() -> float:
            return self._log.first_sighting(NAME, self._tag("direct"), certificate=False)

        def proxied() -> float:
            return self._first(self._proxied)

        own = {"GET tag": 1, "index": 1, "append": 1}
        return self._turns(FIRST_HELD, direct, proxied, own, FIRST_TURNS, WARM_UP)

    def first_fresh(self, folder: Path, settings: Mapping[str, str]) -> Row:
        """The first sighting that an instance makes, with everything that comes first: certificate, connections, store."""

        def direct() -> float:
            return self._log.first_sighting(NAME, self._tag("direct"), certificate=True)

        def proxied() -> float:
            with Function(folder / "fresh.log", settings) as function, closing(Client(function.url)) as client:
                client.ask("GET", "/livez")
                time.sleep(WARM_S)
                return self._first(client)

        own = {"GET tag": 1, "index": 1, "append": 1, "identity token": 1, "certificate": 1}
        return self._turns(FIRST_FRESH, direct, proxied, own, FRESH_TURNS, 1)

    def _first(self, client: Client) -> float:
        answer = client.ask("GET", path(self._tag("first")))
        if answer.headers.get("tlog-first-seen") != "true":
            msg = "this should have been a first sighting"
            raise RuntimeError(msg)
        return answer.ms

    def _tag(self, kind: str) -> str:
        """One that nobody has asked for."""
        return f"{kind}-{next(self._numbers)}"

    def _plain(self, proxied: Client, name: str, method: str, reference: str, kind: str) -> Row:
        return self._turns(
            name,
            lambda: self._direct.ask(method, path(reference)).ms,
            lambda: proxied.ask(method, path(reference)).ms,
            {kind: 1},
            TURNS,
            WARM_UP,
        )

    def _turns(
        self,
        name: str,
        direct: Callable[[], float],
        proxied: Callable[[], float],
        own: Mapping[str, int],
        turns: int,
        warm_up: int,
    ) -> Row:
        """`own` are the calls that one direct turn makes: the rest is the service's."""
        for _ in range(warm_up):
            direct()
            proxied()
        before = self._calls()
        times = [(direct(), proxied()) for _ in range(turns)]
        after = self._calls()
        counted = {kind: (after[kind] - before.get(kind, 0)) / turns - own.get(kind, 0) for kind in after}
        calls = {kind: number for kind, number in counted.items() if number}
        return Row(
            name,
            tuple(first for first, _ in times),
            tuple(second for _, second in times),
            {kind: number for kind, number in calls.items() if kind.startswith(UPSTREAM)},
            {kind: number for kind, number in calls.items() if not kind.startswith(UPSTREAM)},
        )

    def _calls(self) -> dict[str, int]:
        """So far, by kind. Kinds of calls to the registry begin with a method."""
        return {**self._upstream.calls(), **self._sigstore.calls()}
