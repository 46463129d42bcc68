"""What many requests cost: CPU seconds, requests in a second, memory. Nothing is delayed here."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.client import BLOCK, Client
from tests.bench.latency import NAME, path
from tests.bench.upstream import BIG_BYTES, LAYER_BYTES, zeros

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.programs import Function

REQUESTS = 1000
CLIENTS = 16
PULLS = 80
WARM_UP = 20  # requests of each client
TAGS = 20  # recorded before; the requests go round them


@dataclass(frozen=True, slots=True)
class Cost:
    """Of REQUESTS HEADs by CLIENTS clients."""

    cpu_s: float
    per_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """MB: the first sample, the highest, the last."""

    first: float
    highest: float
    last: float

    @classmethod
    def of(cls, samples: list[float]) -> Memory:
        return cls(samples[0], max(samples), samples[-1])


def tags() -> list[str]:
    return [path(f"load-{number}") for number in range(TAGS)]


def ask_once(function: Function, path_: str) -> None:
    """Its first request, for instance."""
    with closing(Client(function.url)) as client:
        client.ask("GET", path_)


def record(function: Function) -> None:
    """Let the tags be known, and their manifests be held."""
    with closing(Client(function.url)) as client:
        for one in tags():
            client.ask("GET", one)


def heads(function: Function) -> Cost:
    """REQUESTS HEADs of recorded tags, through kept connections."""
    spent = 0.0
    started = 0.0

    def go() -> None:
        nonlocal spent, started
        spent, started = function.cpu_seconds(), time.perf_counter()

    together = threading.Barrier(CLIENTS, go)
    paths = tags()

    def one(number: int) -> None:
        with closing(Client(function.url)) as client:
            for turn in range(WARM_UP):
                client.ask("HEAD", paths[turn % TAGS])
            together.wait(60)
            for turn in range(number, REQUESTS, CLIENTS):
                client.ask("HEAD", paths[turn % TAGS])

    _all(one, CLIENTS)
    took = time.perf_counter() - started
    return Cost(function.cpu_seconds() - spent, REQUESTS / took)


def pulls(function: Function) -> Memory:
    """PULLS clients at once, each as Docker: HEAD and GET by tag, GET by digest, a layer of 8 MiB."""
    together = threading.Barrier(PULLS)
    paths, layer = tags(), zeros(LAYER_BYTES)

    def one(number: int) -> None:
        buffer = bytearray(BLOCK)
        with closing(Client(function.url)) as client:
            together.wait(60)
            digest = client.ask("HEAD", paths[number % TAGS]).headers["docker-content-digest"]
            client.ask("GET", paths[number % TAGS])
            client.ask("GET", path(digest))
            client.blob(f"/v2/{NAME}/blobs/{layer}", layer, buffer)

    with function.sampled() as samples:
        _all(one, PULLS)
    return Memory.of(samples)


def stream(function: Function) -> tuple[Memory, float]:
    """One blob of 1 GiB; memory, and MB in a second."""
    big = zeros(BIG_BYTES)
    started = time.perf_counter()
    with function.sampled() as samples, closing(Client(function.url)) as client:
        size = client.blob(f"/v2/{NAME}/blobs/{big}", big, bytearray(BLOCK))
    return Memory.of(samples), size / 1e6 / (time.perf_counter() - started)


def _all(work: Callable[[int], None], count: int) -> None:
    """In threads; what fails in one fails here."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
